"""Where the learner's code stopped, and why, in words instead of a traceback."""

import contextlib
import importlib
import linecache
import os
import sys
import traceback
from pathlib import Path

import numpy as np
import torch

from course.exercises import EXERCISES, FILES, OWNERS
from course.learner_file import LearnerFile, describe_syntax_error
from course.source import NOT_DONE
from program.command_line import InputError
from program.memory import is_out_of_memory


def is_learners(path: str) -> bool:
    """Is this the path of a `_0` file?"""
    return path.endswith("_0.py")


def describe_line(frame, line: int, lines: list[str]) -> list[str]:
    """A line of the learner's for a message: where it is, what it says, and the shapes there."""
    name = frame.f_code.co_filename.replace("\\", "/").rsplit("/", 1)[-1]
    code = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    found = [f"{name}:{line}, in {frame.f_code.co_name}:", f"    {code}"]
    shapes = [
        f"{key} {list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        for key, value in frame.f_locals.items()
        if isinstance(value, (torch.Tensor, np.ndarray))
    ]
    if shapes:
        found.append("Shapes at that point: " + ", ".join(shapes))
    return found


def last_line(error: BaseException, path: str, lines: list[str]) -> list[str]:
    """The last line of a file that an error passed through; nothing if it passed through none."""
    frames = [
        (frame, number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == path
    ]
    return describe_line(*frames[-1], lines) if frames else []


class LearnersError(InputError):
    """The learner's code cannot be run, or stopped: said without a traceback.

    code: what the program ends with. 2, as for any other input that cannot be used, if something
    is missing; 1, as Python's own, if the code stopped.
    """

    one_line = False  # it shows the line of code, too

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def explained(*others: type[Exception]):
    """Turns what stops in the learner's code, or because of it, into a LearnersError.

    others: errors of the program's own, which pass, unless they come out of a `_0` file. With MemoryError
    among them, memory that runs out passes from there as well: any line may be the one that it ends at.
    """
    try:
        with noticed_exits():
            yield
    except (Exception, SystemExit) as error:
        if isinstance(error, others) and not learners_frames(error):
            raise
        if MemoryError in others and is_out_of_memory(error):
            raise
        raise explain(error) from error


@contextlib.contextmanager
def noticed_exits():
    """os._exit in a `_0` file becomes SystemExit, or it would end the program without a word.

    Whoever else calls it (Ctrl-C's handler, say) ends the process as before.
    """
    end = os._exit

    def noticed(status: int):
        if is_learners(sys._getframe(1).f_code.co_filename):
            raise SystemExit(status)
        end(status)

    homes = (os, importlib.import_module(os.name))  # posix or nt, where os has it from
    for home in homes:
        home._exit = noticed
    try:
        yield
    finally:
        for home in homes:
            home._exit = end


def learners_frames(error: BaseException) -> list[tuple]:
    """The calls that an error passed through in `_0` files, outermost first, with their lines."""
    found = traceback.walk_tb(error.__traceback__)
    return [(frame, line) for frame, line in found if is_learners(frame.f_code.co_filename)]


def explain(error: BaseException) -> LearnersError:
    """What to tell a learner about an error."""
    if isinstance(error, SyntaxError) and is_learners(error.filename or ""):
        flaw = describe_syntax_error(error, LearnerFile(Path(error.filename).stem.removesuffix("_0")))
        return LearnersError("\n    ".join([flaw.headline, *flaw.details]), 2)
    frames = learners_frames(error)
    if not frames:
        frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
        headline = "the program cannot go on with what your code made of it"
    else:
        frame, line = frames[-1]
        headline = f"your code stopped with {type(error).__name__}"
    path = frame.f_code.co_filename
    if isinstance(error, NotImplementedError) and NOT_DONE in str(error):
        return LearnersError(describe_to_do(str(error), Path(path).name, line), 2)
    if frames and frame.f_code.co_name == "<module>" and not isinstance(error, SystemExit):
        return LearnersError(describe_top_level(error, path, line), 2)
    details = describe_line(frame, line, linecache.getlines(path))
    if isinstance(error, SystemExit):
        headline = "your code ends the program (exit, quit or os._exit)"
    else:
        first, *more = str(error).splitlines()[:3] or [""]
        details += [f"{type(error).__name__}: {first}", *(f"    {text}" for text in more)]
    command = command_for(frame.f_code) if frames else "python -m pytest"
    return LearnersError("\n    ".join([headline, *details, f"Its test says more: {command}"]), 1)


def describe_top_level(error: BaseException, path: str, line: int) -> str:
    """One line about a file that cannot be imported: nothing in it was called yet."""
    code = linecache.getline(path, line).strip()
    said = " ".join(str(error).split())
    return f"{Path(path).name}:{line} cannot be run: {type(error).__name__}: {said}, in `{code}`"


def describe_to_do(message: str, file: str, line: int) -> str:
    """One line about an exercise that the program came to, and how many others are not done yet."""
    what, _, command = message.partition(": ")
    files = {name: LearnerFile(name) for name in FILES}
    others = sum(bool(files[exercise.file].untouched_parts(exercise)) for exercise in EXERCISES) - 1
    more = f"{others} others are not done yet either; " if others > 1 else ""
    return (
        f"{what} ({file}:{line}). Test it with {command}; {more}"
        "--set mixed takes the reference's in their place"
    )


def command_for(code) -> str:
    """What tests the exercise that a function of the learner's belongs to."""
    return OWNERS[code.co_qualname].command if code.co_qualname in OWNERS else "python -m pytest"
