"""The run of train_tiny.py under interruptions: the same weights, one clear line, nothing left running."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

pytest.importorskip("resvg_py", reason="training needs `pip install -r requirements-train.txt`")

from program.command_line import InputError
from tiny_model import train_tiny
from tiny_model.state import Signals, Stopped, read_state, write_state

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.long


def weights_of(file: Path) -> dict[str, torch.Tensor]:
    state = read_state(file)
    assert (state["stage"], state["done"]) == ("reading", state["plan"]["reading"]["batches"])
    return state["model"] | state["heads"] | state["mean"]


def assert_equal(found: Path, expected: Path):
    expected = weights_of(expected)
    for name, value in weights_of(found).items():
        assert torch.equal(value, expected[name]), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a smoke run that nobody interrupted (but for the measuring at its end)."""
    out = tmp_path_factory.mktemp("whole")
    train_until(out)
    return out


def train_until(out: Path, stop_after: int | None = None):
    """Trains in this process; after some steps as if Ctrl-C had come in the middle of one."""
    signals = Signals()
    run = train_tiny.Run("smoke", out, signals)
    train_tiny.find_codec(run)
    run.start()
    run.look = lambda *_: None
    losses, steps = run.losses, []

    def counted(batch):
        steps.append(batch)
        if len(steps) == stop_after:
            signals.note(signal.SIGINT, None)
        return losses(batch)

    run.losses = counted
    run.train()


def test_an_interrupted_training_ends_in_the_same_weights(whole, tmp_path):
    shutil.copy(whole / "rendered.zip", tmp_path)  # which saves the time of rendering
    for steps, where in ((3, ("tower", 3)), (8, ("answers", 1)), (11, ("reading", 2))):
        with pytest.raises(Stopped):
            train_until(tmp_path, steps)
        state = read_state(tmp_path / "state.pt")
        assert (state["stage"], state["done"]) == where
    train_until(tmp_path)
    assert_equal(tmp_path / "state.pt", whole / "state.pt")
    # What is stored is the mean of the ends of the last stage's rounds, which are at 2 and 4.
    ends = [state["model"], read_state(tmp_path / "state.pt")["model"]]
    stored = read_state(tmp_path / "state.pt")["mean"]
    assert stored["n_averaged"] == 2
    for name, end in ends[1].items():
        torch.testing.assert_close(stored[f"module.{name}"], (ends[0][name] + end) / 2)


def test_a_signal_at_any_moment_changes_nothing(whole, tmp_path):
    """Also: the worker ends with its parent, and nothing of a traceback is seen."""
    chance = random.Random(0)
    command = [sys.executable, "-m", "tiny_model.train_tiny", "--smoke", "--out", str(tmp_path)]
    state = tmp_path / "state.pt"
    shutil.copy(whole / "rendered.zip", tmp_path)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        program = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        )  # fmt: skip
        before, end = state.stat().st_mtime_ns if state.exists() else 0, time.time() + 240
        while time.time() < end and program.poll() is None:
            if state.exists() and state.stat().st_mtime_ns != before:
                break
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 2))
        children = psutil.Process(program.pid).children(recursive=True) if program.poll() is None else []
        if number == signal.SIGINT:
            os.killpg(program.pid, number)  # a terminal sends it to all
        else:
            program.send_signal(number)
        stderr = program.communicate(timeout=60)[1]
        assert "Traceback" not in stderr
        if number != signal.SIGKILL:
            assert program.returncode == 128 + number and "goes on from here" in stderr
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive
    train_until(tmp_path)
    assert_equal(state, whole / "state.pt")


def test_a_state_that_cannot_be_gone_on_with_is_one_line(whole, tmp_path):
    state = tmp_path / "state.pt"
    content = (whole / "state.pt").read_bytes()

    def start(preset="smoke"):
        train_tiny.Run(preset, tmp_path, Signals()).compare(read_state(state))

    state.write_bytes(content)
    start()
    with pytest.raises(InputError, match="of --preset smoke"):
        start("full")
    flipped = content[:9000] + bytes([content[9000] ^ 1]) + content[9001:]
    for damaged, why in (
        (content[:-1], "damaged"), (content[:5000], "damaged"), (flipped, "damaged"), (b"", "no state"),
        (b"PK" + content, "no state"),
    ):  # fmt: skip
        state.write_bytes(damaged)
        with pytest.raises(InputError, match=why):
            start()
    other = read_state(whole / "state.pt")
    other["plan"]["seed"] = 1
    write_state(state, other)
    with pytest.raises(InputError, match="another plan"):
        start()
