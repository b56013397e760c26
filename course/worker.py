"""Tries exercises in a process of its own, which is replaced when the learner's code ends or hangs it.

A time limit inside of a process (time_limit.py) stops nearly all code that does not end, and says where
it was. But a loop inside of a C function cannot be stopped from there, and os._exit(0) or a crash ends
the process without a word, which must not be taken for success.

    python -m course.worker       reads exercises from stdin and answers on stdout, in pickles
"""

import atexit
import contextlib
import faulthandler
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import psutil

from course.checking import check, compose
from course.exercise import Exercise
from course.exercises import named
from course.learner_file import LearnerFile
from course.outcome import SECONDS, Flaw, Result
from course.show import show
from course.source import ROOT

START_SECONDS = 120  # a cold disk under a virus scanner may need that long to import torch
GRACE = 3  # seconds after the time limit in which the worker should have ended by itself


class Worker:
    """A process that tries one exercise after the other."""

    def __init__(self):
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the worker): what it or the learner's code writes to stderr
        self.process = subprocess.Popen(
            [sys.executable, "-m", "course.worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        )
        self.answers: queue.Queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with contextlib.suppress(Exception):  # it has ended, in the middle of an answer perhaps
            while True:
                self.answers.put(pickle.load(self.process.stdout))
        self.answers.put(None)

    def ask(self, task: str, exercise: Exercise, file: LearnerFile, seconds: float):
        """Has a task of TASKS done and waits for what comes of it. Raises a Flaw if nothing does."""
        if self.answers.get(timeout=START_SECONDS) != "ready":
            raise RuntimeError(f"the process that tries exercises did not start: {self._said()}")
        with contextlib.suppress(OSError):  # it has ended: told below
            pickle.dump((task, exercise.name, file.text, file.missing, seconds), self.process.stdin)
            self.process.stdin.flush()
        process = psutil.Process(self.process.pid)
        last_computed = _computed(process) + seconds + GRACE
        last_moment = time.monotonic() + 6 * (seconds + GRACE)  # for code that only waits
        while True:
            with contextlib.suppress(queue.Empty):
                answer = self.answers.get(timeout=0.1)
                if answer is not None:
                    return answer
                code = self.process.wait()
                raise Flaw(
                    "end",
                    "your code ended the whole process (os._exit, or a crash in compiled code).",
                    [*self._place(file), f"Exit code: {code}."],
                )
            if _computed(process) > last_computed or time.monotonic() > last_moment:
                if hasattr(signal, "SIGUSR1"):
                    self.process.send_signal(signal.SIGUSR1)  # faulthandler writes where it is
                    time.sleep(0.3)
                raise Flaw(
                    "time",
                    f"your code was still running after {seconds:g} second{'s' * (seconds != 1)}: "
                    "a loop that never ends?",
                    self._place(file),
                )

    def _said(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode("utf-8", "replace")

    def _place(self, file: LearnerFile) -> list[str]:
        """The learner's line that faulthandler wrote last, if it wrote one."""
        found = re.findall(rf'{re.escape(file.path.name)}", line (\d+) in (\w+)', self._said())
        if not found:
            return []
        line, function = int(found[0][0]), found[0][1]
        return [f"{file.path.name}:{line}, in {function}:", f"    {file.lines[line - 1].strip()}"]

    def close(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):  # what was not sent is not to be sent
            self.process.stdin.close()
        self.errors.close()


def _computed(process: psutil.Process) -> float:
    """Seconds of computing; a process that is gone has none."""
    try:
        times = process.cpu_times()
        return times.user + times.system
    except psutil.Error:
        return 0.0


_workers: list[Worker] = []  # one, or none yet


def ask(task: str, exercise: Exercise, file: LearnerFile, seconds: float):
    if _workers and _workers[0].process.poll() is not None:
        close()  # a thread that an earlier exercise left behind has ended it
    if not _workers:
        _workers.append(Worker())
    try:
        return _workers[0].ask(task, exercise, file, seconds)
    except BaseException:  # a Flaw, or the keyboard's: what the worker answers now nobody reads
        close()
        raise


def check_apart(exercise: Exercise, file: LearnerFile, seconds: float | None = None) -> Result:
    """Like check, in the process of its own."""
    if len(file.untouched_parts(exercise)) == len(exercise.parts):
        return check(exercise, file)  # nothing of the learner's is run
    try:
        return Result(exercise, **ask("check", exercise, file, seconds or SECONDS))
    except Flaw as flaw:
        result = Result(exercise, "wrong", line=file.line_of(exercise), kind=flaw.kind)
        result.message = compose(result, flaw)
        return result


def show_apart(exercise: Exercise, file: LearnerFile, seconds: float | None = None) -> str:
    """Like show, in the process of its own."""
    try:
        return ask("show", exercise, file, seconds or SECONDS)
    except Flaw as flaw:
        return "\n    ".join([f"{exercise.name}: {flaw.headline}", *flaw.details])


@atexit.register
def close():
    """Ends the worker."""
    while _workers:
        _workers.pop().close()


def checked(exercise: Exercise, file: LearnerFile, seconds: float) -> dict:
    """A Result without its exercise, which is another object over there."""
    result = vars(check(exercise, file, seconds))
    return {name: value for name, value in result.items() if name != "exercise"}


TASKS = {"check": checked, "show": show}


def main():
    # The pipes are ours alone: what the learner's code reads or prints does not get into them.
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0), os.dup2(nothing, 1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, whatever is being tried
    faulthandler.enable()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)

    import torch

    torch.set_num_threads(1)  # the models of the cases are too small to gain from more
    while True:
        pickle.dump("ready", answers)
        answers.flush()
        try:
            task, name, text, missing, seconds = pickle.load(asked)
        except EOFError:
            return
        # If the one that asked is gone and the code hangs: no process stays behind.
        faulthandler.dump_traceback_later(10 * seconds + 60, exit=True)
        [exercise] = named(name)
        file = LearnerFile(exercise.file, text)
        file.missing = missing
        answer = TASKS[task](exercise, file, seconds)
        faulthandler.cancel_dump_traceback_later()
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
    os._exit(0)  # threads that were abandoned would keep it
