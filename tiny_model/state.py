"""The state of a training on disk, and signals that end it: what makes an interruption harmless.

A state file is one line (what it is, a checksum, its length), then what torch.save writes.
"""

import contextlib
import hashlib
import io
import os
import signal
from pathlib import Path

import torch

from program.command_line import InputError

HEAD = b"paligemma-tiny training state 2"


def write_state(path: Path, state: dict):
    """Written aside and renamed, so that a stop or a full disk leaves the old file or the new one."""
    content = io.BytesIO()
    torch.save(state, content)
    content = content.getbuffer()
    aside = path.with_suffix(".part")
    with aside.open("wb") as file:
        file.write(b"%s %s %d\n" % (HEAD, hashlib.sha256(content).hexdigest().encode(), len(content)))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def read_state(path: Path) -> dict:
    """Raises InputError for a file that is not whole, or is none of ours."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    head, _, content = content.partition(b"\n")
    if not head.startswith(HEAD):
        raise InputError(f"{path} is no state of this training: move it away, or choose another --out")
    if head.split()[-2:] != [hashlib.sha256(content).hexdigest().encode(), b"%d" % len(content)]:
        raise InputError(f"{path} is damaged: move it away and start again, or put a copy of it back")
    return torch.load(io.BytesIO(content), weights_only=True)


class Stopped(Exception):
    """Somebody asked the program to end, and it is at a point where it can."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class Signals:
    """Notes Ctrl-C and TERM, so that they take effect between two steps and never inside one.

    A second one ends the program at once: what is on disk is whole at any moment.
    """

    def __init__(self):
        self.asked: int | None = None

    def note(self, number: int, _frame):
        if self.asked is not None:
            os._exit(128 + number)
        self.asked = number

    def check(self):
        if self.asked is not None:
            raise Stopped(self.asked)

    @contextlib.contextmanager
    def noted(self):
        """While this lasts, signals are noted."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.note) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
