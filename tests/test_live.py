"""explain.py --live: in Chromium, with a learner's file that is saved wrong, and what the server refuses.

A copy of the repository is served, so that a `_0` file of one's own is never touched.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_explain import CUT_OFF, OVERLAPS

from inside import live

ROOT = Path(live.__file__).resolve().parent.parent
FOLDERS = ("course", "inside", "program", "speed", "images", "paligemma-tiny", "random_weights")
PAIRS = [path.stem.removesuffix("_0") for path in ROOT.glob("*_0.py")]
RIGHT = "scores = query @ key.transpose(2, 3) * self.head_dim**-0.5"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (ROOT / "paligemma-tiny" / "model.safetensors").is_file(), reason="paligemma-tiny is not here"
    ),
]


def start(folder: Path, *arguments: str):
    """The program, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "explain.py", "--live", "--no-browser", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return process, process.stdout.readline().strip()


def end(process) -> str:
    """As Ctrl-C does; what it said."""
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def served():
    process, address = start(ROOT)
    yield address
    end(process)


@pytest.fixture
def tabs(browser):
    """Opens addresses; at the end there must have been no message."""
    contexts, messages = [], []

    def opened(address: str, width=1280, scheme="light"):
        viewport = {"width": width, "height": 900}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(120_000)  # busy machines are slow
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.goto(address)
        settle(tab)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert messages == []


def until(condition, seconds=120):
    """Waits until it is true; the page allows no code from strings, with which Playwright would wait."""
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        if condition():
            return
        time.sleep(0.03)
    raise AssertionError("it never came about")


def settle(tab, part="coded"):
    """Until the newest question is answered: "answered", "shown" or "coded"."""
    tab.wait_for_selector("html[data-live]", state="attached")
    until(lambda: tab.evaluate(f"(({{asked, {part}}}) => asked && asked === {part})({DATA})"))


DATA = "document.getElementById('stage').dataset"


def reply(tab, part="answered") -> str:
    settle(tab, part)
    return tab.locator("#reply").inner_text()


def drag(tab, start, end):
    """From and to shares of the sides of elements."""
    points = []
    for locator, x, y in (start, end):
        box = locator.bounding_box()
        points.append((box["x"] + x * box["width"], box["y"] + y * box["height"]))
    tab.mouse.move(*points[0])
    tab.mouse.down()
    tab.mouse.move(*points[1], steps=4)
    tab.mouse.up()


# ------------------------------------------------------------------------------------ the stage


def test_a_second_dog_is_dragged_in_moved_and_removed(served, tabs):
    tab = tabs(served)
    assert reply(tab) == "a dog"
    stage, dog = tab.locator("#stage"), tab.get_by_role("button", name="Add: dog")
    drag(tab, (dog, 0.5, 0.5), (stage, 0.75, 0.5))
    assert reply(tab, "coded") == "two dogs"
    # All of the page has followed: the picture that the model is given, and the answer's tokens.
    assert "two" in tab.locator("#answerTokens").inner_text()
    second = tab.locator(".thing").nth(1)
    drag(tab, (second, 0.5, 0.5), (stage, 0.75, 1.4))  # out of the picture
    assert tab.locator(".thing").count() == 1 and reply(tab) == "a dog"


def test_by_keyboard_at_390_pixels_in_the_dark(served, tabs):
    tab = tabs(served, 390, "dark")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate(CUT_OFF) == [] and tab.evaluate(OVERLAPS) == []
    tab.get_by_role("button", name="Add: dog").focus()
    tab.keyboard.press("Enter")
    assert reply(tab) == "two dogs"
    tab.locator(".thing").nth(1).focus()
    before = tab.locator(".thing").nth(1).bounding_box()
    for key in ("ArrowDown", "+", "]", "m"):
        tab.keyboard.press(key)
    after = tab.locator(".thing").nth(1).bounding_box()
    assert after["y"] != before["y"] and after["width"] > before["width"]
    tab.keyboard.press("Delete")
    assert tab.locator(".thing").count() == 1 and reply(tab) == "a dog"
    tab.locator("#ask").fill("detect dog")
    until(lambda: "<loc" in tab.locator("#reply").inner_text())
    assert tab.locator("#found rect").count() == 2  # a white one below the colored one
    names = tab.evaluate("""[...document.querySelectorAll('button, input, select')].filter(one =>
      one.offsetParent && !one.innerText && !one.ariaLabel && !one.labels?.length).map(one => one.outerHTML)
    """)
    assert names == []


def test_samples_pictures_of_ones_own_and_the_pen(served, tabs, tmp_path):
    tab = tabs(served)
    tab.get_by_role("button", name="Sample: cats").click()
    until(lambda: "cats" in tab.locator("#reply").inner_text())
    tab.locator("#file").set_input_files(ROOT / "images" / "night.png")
    until(lambda: "rocket" in reply(tab))
    (tmp_path / "no.png").write_bytes(b"no picture")
    tab.locator("#file").set_input_files(tmp_path / "no.png")
    until(lambda: "is not a picture" in tab.locator("#status").inner_text())
    assert "explain-live" not in tab.locator("#status").inner_text()
    settle(tab)
    before = tab.evaluate("document.getElementById('ground').toDataURL()")
    tab.locator("#pen").click()
    stage = tab.locator("#stage")
    drag(tab, (stage, 0.2, 0.2), (stage, 0.8, 0.3))
    assert tab.evaluate("document.getElementById('ground').toDataURL()") != before
    tab.locator("#undo").click()
    assert tab.evaluate("document.getElementById('ground').toDataURL()") == before
    settle(tab)


# -------------------------------------------------------------------------------------- what if


def test_switches_and_heads_off(served, tabs):
    tab = tabs(served)
    tab.get_by_role("button", name="Sample: cats").click()
    tab.locator("#ask").fill("detect cat")
    until(lambda: reply(tab).count("cat") == 2)
    right = reply(tab, "coded")
    tab.locator("#whatIf > summary").click()
    tab.locator("#switch-not-normalized").check()
    tab.locator("#switch-decoder-head-off").check()
    until(lambda: reply(tab) != right)
    assert tab.locator("#beforeReply").inner_text() == right  # side by side
    assert "pixels = rescale(pixels)" in tab.locator(".switch.on .new").all_inner_texts()
    for name in ("not-normalized", "decoder-head-off"):
        tab.locator(f"#switch-{name}").uncheck()
    assert reply(tab, "coded") == right and not tab.locator("#beforePart").is_visible()
    # By a click below its map: the head that boxes cannot do without, and a layer.
    tab.get_by_role("button", name="decoder, layer 1, head 3: off").click()
    assert reply(tab) == "(nothing)" and tab.locator("#beforeReply").inner_text() == right
    tab.get_by_role("button", name="decoder, layer 1, head 3 off: switch on again").click()
    tab.get_by_role("button", name="decoder, layer 3: off", exact=True).click()
    assert reply(tab, "coded") != right
    assert tab.evaluate(CUT_OFF) == [] and tab.evaluate("document.documentElement.scrollWidth") <= 1280


# ------------------------------------------------------------------------------- a learner's code


@pytest.fixture(scope="module")
def learners(tmp_path_factory):
    """A copy of the repository whose exercises are solved."""
    folder = tmp_path_factory.mktemp("learners")
    ignore = shutil.ignore_patterns("__pycache__", "pages")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for path in [*ROOT.glob("*.py"), ROOT / "pyproject.toml"]:
        shutil.copy(path, folder)
    for name in PAIRS:
        text = (ROOT / f"{name}_1.py").read_text("utf-8")
        (folder / f"{name}_0.py").write_text(re.sub(rf"({'|'.join(PAIRS)})_1\b", r"\1_0", text), "utf-8")
    process, address = start(folder, "--set", "0")
    yield folder / "decoder_0.py", address
    end(process)


def save(file: Path, old: str, new: str):
    """As an editor does it: written aside, and renamed."""
    text = file.read_text("utf-8")
    assert text.count(old) == 1
    aside = file.with_suffix(".new")
    aside.write_text(text.replace(old, new), "utf-8")
    aside.replace(file)


def test_a_saved_mistake_is_marked_at_its_line_and_mended(learners, tabs):
    file, address = learners
    tab = tabs(address)
    bad = tab.locator("#part5 > details > summary .state.bad")
    assert reply(tab) == "a dog" and bad.count() == 0
    wrong = RIGHT.removesuffix(" * self.head_dim**-0.5")
    save(file, RIGHT, wrong)
    until(lambda: bad.count())
    assert bad.inner_text() == "to mend: GemmaAttention"
    tab.evaluate("openCode('GemmaAttention')")
    line = tab.locator("#code-GemmaAttention tr.wrong").first
    number = file.read_text("utf-8").splitlines().index(f"        {wrong}") + 1
    assert line.locator(".line").inner_text() == str(number) and "apart by" in line.inner_text()
    # Its test is run, and what it says stands at the code.
    until(lambda: "without dividing by sqrt(Hd)" in tab.locator("#code-GemmaAttention").inner_text())
    save(file, wrong, RIGHT)
    until(lambda: not bad.count())
    assert tab.locator("tr.wrong").count() == 0


def test_a_syntax_error_a_crash_and_an_end_are_told_and_stop_nothing(learners, tabs):
    file, address = learners
    tab = tabs(address)
    problem = tab.locator("#problem")
    for broken, said in (
        ("scores = query @ (key", r"decoder_0\.py:\d+: Python cannot read this line"),
        ("scores = query @ key", r"stopped with RuntimeError\n +decoder_0\.py:\d+, in forward"),
        ("import os; os._exit(3)", r"ended by itself \(exit code 3\)"),
    ):
        save(file, RIGHT, broken)
        until(lambda said=said: problem.is_visible() and re.search(said, problem.inner_text()))
        assert reply(tab) == "a dog"  # the reference's
        save(file, f"        {broken}\n", f"        {RIGHT}\n")
        until(lambda: not problem.is_visible())


# ------------------------------------------------------------------------------------ refusals


@pytest.fixture(scope="module")
def server():
    """In this process, so that what it counts can be read; its model is never asked."""
    import threading

    live.REQUEST_SECONDS = 1
    server = live.Server(str(live.TINY_MODEL), "1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def send(server, method="GET", name="facts", body=None, **headers) -> int:
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    own = f"http://127.0.0.1:{port}"
    headers = {key.replace("_", "-"): value for key, value in headers.items() if value}
    headers = ({"Origin": own} if method == "POST" else {}) | headers
    connection.request(method, name if name.startswith("/") else f"/{server.token}/{name}", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_it_listens_to_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 24
    assert send(server) == 200


@pytest.mark.parametrize(
    ("why", "request_", "status"),
    [
        ("host", {"Host": "example.com"}, 403),
        ("origin", {"Origin": "http://example.com"}, 403),
        ("origin", {"Origin": "null"}, 403),
        ("origin", {"Sec_Fetch_Site": "cross-site"}, 403),
        ("token", {"name": "/facts"}, 404),
        ("token", {"name": "/wrong-token/facts"}, 404),
        ("token", {"name": "../README.md"}, 404),
        ("token", {"name": "..%2f..%2fetc/passwd"}, 404),
        ("token", {"name": "decoder_1.py"}, 404),
        ("token", {"method": "POST", "name": "facts", "body": b"{}"}, 404),
        ("size", {"method": "POST", "name": "picture", "Content_Length": "100000000"}, 413),
        ("form", {"method": "POST", "name": "ask", "body": b"{}"}, 400),
        ("form", {"method": "POST", "name": "ask", "body": b"[" * 100_000}, 400),
        ("form", {"method": "POST", "name": "ask", "Content_Length": "-1"}, 400),
    ],
)
def test_refused_and_counted(server, why, request_, status):
    before, asked = server.refused[why], server.model.number
    assert send(server, **request_) == status
    assert server.refused[why] == before + 1
    assert server.model.number == asked and not list(Path(server.folder.name).iterdir())


def test_a_post_without_an_origin_is_refused(server):
    with socket.create_connection(server.server_address, timeout=20) as plain:
        host = f"127.0.0.1:{server.server_address[1]}"
        plain.sendall(f"POST /{server.token}/ask HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert b" 403 " in plain.recv(100)


def test_half_sent_requests_end(server):
    before, halves = server.refused["slow"], []
    host = f"127.0.0.1:{server.server_address[1]}"
    head = f"POST /{server.token}/picture HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n"
    for text in ("", "GET / HT", head, f"{head}Content-Length: 1000\r\n\r\nabc"):
        halves.append(socket.create_connection(server.server_address, timeout=20))
        halves[-1].sendall(text.encode())
    for half in halves:
        assert half.recv(1000) == b""
        half.close()
    assert server.refused["slow"] - before == 4 and not list(Path(server.folder.name).iterdir())
    until(lambda: not server.unfinished)
    assert send(server) == 200


def test_a_flood_is_refused_and_passes(server):
    before, statuses = server.refused["flood"], []
    for _ in range(5 * live.MOST_PER_SECOND):
        try:
            statuses.append(send(server))
        except OSError:
            statuses.append(429)  # closed before it was read
    assert server.refused["flood"] > before and 429 in statuses
    until(lambda: send(server) == 200, 10)


def test_the_answers_are_those_of_the_last_question(server):
    """Ten questions of one page at once: nine are told that they do not count any more."""
    picture = (ROOT / "images" / "cats.png").read_bytes()
    queues = []
    file = Path(server.folder.name) / "cats.png"
    file.write_bytes(picture)
    for i in range(10):
        request = {"kind": "ask", "page": "a", "prompt": "detect cat" if i == 9 else f"caption {i}"}
        request |= {"switches": [], "off": [], "only_answer": True, "picture": str(file), "digest": "1"}
        queues.append(server.model.ask(request))
    ends = []
    for answers in queues:
        messages = [answers.get(timeout=120)]
        while messages[-1]["kind"] != "end":
            messages.append(answers.get(timeout=120))
        ends.append(messages)
    assert all(messages[-1].get("superseded") for messages in ends[:-1])
    assert [message["kind"] for message in ends[-1]] == ["answer", "end"]
    assert json.dumps(ends[-1][0]["boxes"]).count("cat") == 2
    file.unlink()


def test_bad_arguments_are_one_line():
    for arguments in (["--model", "nowhere"], ["--set", "7"]):
        command = [sys.executable, "explain.py", "--live", "--no-browser", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
