"""What the programs have in common on the command line: arguments, messages, and ends without a traceback.

A program is a function of its parsed arguments. The answer goes to stdout (`write`) and all else to
stderr (`log`), so that `> answer.txt` holds the answer alone. What the user has to mend is raised as
InputError and becomes one line and exit code 2.

    if __name__ == "__main__":
        end_quietly_on_ctrl_c()                    # before PyTorch is imported, which takes seconds
    ...
    def main(argv=None):
        parser = build_parser()
        run_program(run, parser.parse_args(argv), parser)

    if __name__ == "__main__":
        set_up_streams()
        main()
"""

import argparse
import contextlib
import errno
import math
import os
import shlex
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

from program.files import remove_unfinished

LONGEST_MESSAGE, LONGEST_WORD = 300, 80  # in letters


class InputError(Exception):
    """Something the user gave cannot be used; the message is one line that says what and why."""

    code = 2  # what the program ends with
    one_line = True  # False: its lines are kept as they are


class ReaderLeft(Exception):
    """Whoever reads stdout has closed it, as `| head` does: nothing more can be written."""


# -------------------------------------------------------------------------------- arguments


class Parser(argparse.ArgumentParser):
    """argparse, without the usage in front of an error: one line is easier to read."""

    def error(self, message: str):
        self.fail(readable(" ".join(str(message).split())), 2)

    def print_help(self, file=None):
        with contextlib.suppress(ReaderLeft):
            write(self.format_help(), end="")

    def fail(self, message: str, code: int):
        """Ends the program with a message, even where there is nobody to read it."""
        log(f"{self.prog}: error: {message}")
        sys.exit(code)


def number(kind: type, lowest: float, highest: float):
    """A type for argparse: a number within bounds, which are in the message if it is not."""

    def parse(text: str):
        value = kind(text)
        if not lowest <= value <= highest:  # true of nan, too
            raise argparse.ArgumentTypeError(f"{text} is not from {lowest} to {highest}")
        return value

    parse.__name__ = kind.__name__  # for argparse's own messages
    return parse


def check_output(path: Path, option: str, endings: tuple[str, ...]):
    """Finds before a program begins what would keep it from writing a file at its end."""
    end = Path(os.path.realpath(path))  # where a link leads
    problem = None
    if path.suffix.lower() not in endings:
        which = "" if len(endings) == 1 else "one of "
        problem = f"the name must end in {which}{' '.join(endings)}"
    elif path.is_dir():
        problem = "is a folder"
    elif not path.parent.is_dir():
        problem = f"no folder {path.parent}"
    elif path.exists() and not path.is_file():
        problem = "is not a file but a pipe or a device"
    elif end.is_symlink() or not end.parent.is_dir():
        problem = "is a link that leads nowhere"
    elif not os.access(end.parent, os.W_OK):
        # The folder, because a file is written aside and renamed; a file of one's own may be read-only.
        problem = "no permission to write in its folder"
    elif path.exists() and not os.access(path, os.W_OK):
        problem = "no permission to overwrite it"
    if problem:
        raise InputError(f"{option} {path}: {problem}")


# --------------------------------------------------------------------------------- messages


def readable(message: str) -> str:
    """A message that fits on a few lines of a terminal, without control characters.

    In a long one its longest words (paths, mostly) are cut first, then its middle: it begins with what
    is wrong and ends with what helps.
    """
    message = spelled_out(message)
    if len(message) > LONGEST_MESSAGE:
        message = " ".join(middle_cut(word, LONGEST_WORD) for word in message.split(" "))
    return middle_cut(message, LONGEST_MESSAGE)


def spelled_out(text: str) -> str:
    """Text on one line, such as a file's name: control characters are written as in Python."""
    return "".join(letter if is_printed(letter) else ascii(letter)[1:-1] for letter in text)


def is_printed(letter: str) -> bool:
    """Bytes of a name that are not UTF-8 pass as they are; other halves of surrogate pairs cannot."""
    is_space = unicodedata.category(letter) == "Zs"  # macOS has a narrow one in the names of screenshots
    return letter.isprintable() or is_space or "\udc80" <= letter <= "\udcff"


def middle_cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    kept = most - len("...")
    return text[: math.ceil(kept * 2 / 3)] + "..." + text[-(kept // 3) :]


class Stderr:
    """stderr; where nobody reads it, the program goes on."""

    def __getattr__(self, name: str):
        return getattr(sys.stderr, name)

    def __eq__(self, other) -> bool:  # so tqdm finds the bars that stand in the way of a line
        return other is self or other is sys.stderr

    __hash__ = object.__hash__

    def write(self, text: str):
        try:
            sys.stderr.write(text)
        except OSError:
            discard(sys.stderr)

    def flush(self):
        try:
            sys.stderr.flush()
        except OSError:
            discard(sys.stderr)


STDERR = Stderr()


def log(message: str):
    """Writes a line to stderr."""
    print(message, file=STDERR, flush=True)


def write(text: str, end: str = "\n"):
    """Writes a part of the answer to stdout, at once."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        discard(sys.stdout)
        if error.errno in (errno.EPIPE, errno.EINVAL):  # the latter on Windows
            raise ReaderLeft from None
        raise InputError(f"the answer cannot be written: {error.strerror or error}") from None


def to_paste(*words) -> str:
    """A command as a shell takes it: what the shell would read in a way of its own is quoted."""
    join = subprocess.list2cmdline if sys.platform == "win32" else shlex.join
    return join([str(word) for word in words])


def discard(stream):
    """Lets what is still to be written to a stream go nowhere, so that Python can end quietly."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


# -------------------------------------------------------------------------- begin and end


def end_quietly_on_ctrl_c():
    """Ctrl-C ends the program at once, with the shell's code for it and without a word."""

    def end(*_):
        remove_unfinished()
        os._exit(130)  # not an exception: it could be caught

    signal.signal(signal.SIGINT, end)


def set_up_streams():
    """stdout and stderr in UTF-8 everywhere; names of files may be any bytes, and pass as they are."""
    for name in ("stdin", "stdout", "stderr"):  # in the order of their descriptors
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started the program
            # Open again, or the next file to be opened would be what C libraries write messages to.
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
        elif name != "stdin":
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def run_program(program, args: argparse.Namespace, parser: Parser, *user_errors: type[Exception]):
    """Calls program(args); what the user can mend becomes one line and an exit code.

    user_errors: further classes whose messages are meant for the user, such as CheckpointError.
    """
    try:
        program(args)
    except InputError as error:
        parser.fail(readable(" ".join(str(error).split())) if error.one_line else str(error), error.code)
    except user_errors as error:
        parser.error(error)
    except MemoryError:
        parser.error("out of memory: close other programs and try again")
    except ReaderLeft:
        pass
    except OSError as error:
        parser.error(error)
