"""A second process that is asked one thing after the other, and replaced when it ends or hangs.

Nothing large is imported here, so that the process can be started before its owner imports PyTorch: both
are busy with that for a second, at the same time.
"""

import atexit
import contextlib
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from program.command_line import InputError

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "course.worker"]
START_SECONDS = 120  # a cold disk under a virus scanner may need that long to import PyTorch
GRACE = 3  # seconds after the time limit, in which the process should have noticed by itself


class NoAnswer(Exception):
    """The process has ended (with an exit code), or did not come to an end (None)."""

    def __init__(self, exit_code: int | None, said: str):
        super().__init__(exit_code)
        self.exit_code, self.said = exit_code, said  # what it wrote to stderr


class Process:
    """Objects go in and come out as pickles; before each of them it says "ready"."""

    def __init__(self):
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 (it is there as long as the process)
        self.process = subprocess.Popen(
            COMMAND, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr
        )
        self.answers: queue.Queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with contextlib.suppress(Exception):  # it has ended, in the middle of an answer perhaps
            while True:
                self.answers.put(pickle.load(self.process.stdout))
        self.answers.put(None)

    def ask(self, question, seconds: float):
        """Raises NoAnswer if the process ends, or computes for longer than that."""
        said = None
        with contextlib.suppress(queue.Empty):
            said = self.answers.get(timeout=START_SECONDS)
        if said != "ready":
            raise InputError(f"the process that tries exercises did not start: {self._said()[-200:]}")
        with contextlib.suppress(OSError):  # it has ended: told below
            pickle.dump(question, self.process.stdin)
            self.process.stdin.flush()
        # The seconds are those that it computes, so that a busy machine is not taken for an endless loop.
        last_computed = self._computed() + seconds + GRACE
        last_moment = time.monotonic() + 6 * (seconds + GRACE)  # for code that only waits
        while self._computed() < last_computed and time.monotonic() < last_moment:
            with contextlib.suppress(queue.Empty):
                answer = self.answers.get(timeout=0.1)
                if answer is None:
                    raise NoAnswer(self.process.wait(), self._said())
                return answer
        if hasattr(signal, "SIGUSR1"):
            self.process.send_signal(signal.SIGUSR1)  # faulthandler writes where it is
            time.sleep(0.3)
        raise NoAnswer(None, self._said())

    def _computed(self) -> float:
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:  # it is gone
            return 0.0
        return times.user + times.system

    def _said(self) -> str:
        self.stderr.seek(0)
        return self.stderr.read().decode("utf-8", "replace")

    def close(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):  # what was not sent need not be
            self.process.stdin.close()
        self.stderr.close()


_processes: list[Process] = []  # one, or none yet


def start():
    """Starts the process, if there is none."""
    if _processes and _processes[0].process.poll() is not None:
        close()  # a thread that something earlier left behind has ended it
    if not _processes:
        _processes.append(Process())


@atexit.register
def close():
    """Ends the process."""
    while _processes:
        _processes.pop().close()


def ask(question, seconds: float):
    """The answer of the process to a question. Raises NoAnswer; the next question gets a new process."""
    start()
    try:
        return _processes[0].ask(question, seconds)
    except BaseException:  # the keyboard's, too: what it answers now nobody reads
        close()
        raise
