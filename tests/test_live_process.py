"""The server of explain.py --live and the process of its model, one without the other: what is told
between them, and what is done when one of them is gone."""

import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from inside import live, live_model

ROOT = Path(live.__file__).resolve().parent.parent
READY = 'import os, sys; print(\'{"id": 0, "kind": "ready", "seconds": 6}\', flush=True);'


def until(condition, seconds=30):
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last, "it never came about"
        time.sleep(0.01)


@pytest.fixture
def model(monkeypatch):
    """A function that starts a Model whose process runs a short program; `started` counts its processes."""
    models, start = [], subprocess.Popen

    def make(program: str, tell=lambda message: None, which="1"):
        def popen(command, **kwargs):
            made.started += 1
            return start([sys.executable, "-S", "-E", "-c", program], **kwargs)

        monkeypatch.setattr(subprocess, "Popen", popen)
        made = object.__new__(live.Model)
        made.started = 0
        models.append(made)
        made.__init__("nowhere", which, tell)
        return made

    yield make
    for one in models:
        one.close()


def test_a_question_that_ends_the_process_is_not_asked_for_ever(model):
    """As the page does: whenever the model is ready, it is asked again."""
    told, made = [], None

    def tell(message):
        told.append(message)
        if message["kind"] == "ready":
            until(lambda: made)
            made.ask({"kind": "ask", "page": "a"})

    made = model(READY + "sys.stdin.readline(); os._exit(3)", tell)
    until(lambda: told and "is not started again" in told[-1].get("text", ""))
    assert made.started == made.ends == 3
    assert made.ask({"kind": "ask", "page": "a"}).get_nowait()["kind"] == "end"  # nobody waits for nothing


def test_the_seconds_are_of_computing_and_of_the_clock(monkeypatch):
    """Ten minutes are not 75 seconds where eight threads compute, nor a minute on a busy machine."""
    now = SimpleNamespace(monotonic=lambda: now.seconds, seconds=0)
    monkeypatch.setattr(live, "time", now)
    model = object.__new__(live.Model)
    model.seconds, model.running = 600, (0, 0, 6000)
    for clock, computed, expected in ((75, 601, False), (601, 300, False), (601, 601, True), (6001, 1, True)):
        now.seconds, model.computed = clock, lambda computed=computed: computed
        assert model.takes_too_long() == expected, (clock, computed)


def test_a_full_pipe_holds_nobody_up(model):
    """A learner's line may keep what reads the questions from running: they are more than a pipe holds."""
    made = model(READY + "import time; time.sleep(60)")
    until(lambda: made.is_ready)
    sender = threading.Thread(
        target=made.ask, args=({"kind": "ask", "page": "a", "prompt": "x" * 2_000_000},)
    )
    sender.daemon = True
    sender.start()
    sender.join(5)
    assert not sender.is_alive()


def test_whoever_leaves_ends_the_question(model):
    made = model(READY + "sys.stderr.write(''.join(sys.stdin.readline() for _ in '12')); os._exit(0)")
    stderr = made.stderr
    question = {"kind": "ask", "page": "a"}
    made.ask(question)
    made.leave(question["id"])
    made.leave(question["id"])
    assert not made.asked
    until(lambda: made.ends)
    stderr.seek(0)
    asked, left = map(json.loads, stderr.read().splitlines())
    assert left == {"id": asked["id"], "page": "", "kind": "left"}


def test_what_nobody_waits_for_is_not_computed():
    lines = queue.Queue()
    requests = live_model.Requests(iter(lines.get, None))
    for number in (1, 2):
        lines.put(json.dumps({"id": number, "page": str(number), "kind": "ask"}))
    first = requests.next()
    until(lambda: requests.waiting)
    assert not requests.is_superseded(first)
    for number in (1, 2):
        lines.put(json.dumps({"id": number, "page": "", "kind": "left"}))
    until(lambda: not requests.waiting)
    assert requests.is_superseded(first)
    lines.put(None)
    assert requests.next() is None


def test_a_page_that_has_left_is_noticed_before_its_answer(monkeypatch):
    monkeypatch.setattr(live, "ALIVE_SECONDS", 0.01)

    def write(data):
        written.append(data)
        if len(written) == 3:
            raise BrokenPipeError

    written = []
    handler = object.__new__(live.Handler)
    handler.answer, handler.wfile = lambda *_: None, SimpleNamespace(write=write, flush=lambda: None)
    with pytest.raises(BrokenPipeError):
        handler.send_lines(queue.Queue(), "picture")
    assert written == [b"\n"] * 3


def test_a_model_that_cannot_be_had_ends_the_program(model):
    made = model("""print('{"id": 0, "kind": "failed", "text": "it is cut"}')""")
    until(lambda: made.state["problem"])
    server = SimpleNamespace(model=made, unfinished={})
    with pytest.raises(live.InputError, match="it is cut"):
        live.Server.service_actions(server)
    assert made.started == 1 and made.state["problem"]["text"] == "it is cut"


def test_the_model_s_folder_is_found_from_where_the_user_is(monkeypatch, tmp_path):
    """Its process runs in the repository's root, where the same name may be another model's."""

    def server(folder, which):
        raise InterruptedError(folder)

    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live, "Server", server)
    with pytest.raises(InterruptedError) as started:
        live.serve("m", "1", False)
    assert str(started.value) == str((tmp_path / "m").resolve())


def test_ctrl_c_while_it_starts_is_no_traceback():
    program = """
import os, signal
from program.command_line import end_quietly_on_ctrl_c
end_quietly_on_ctrl_c()
from inside import live
live.Path.is_file = lambda path: True
live.Server = lambda *_: os.kill(os.getpid(), signal.SIGINT)
live.serve("anywhere", "1", False)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr == ""
