"""Puts an exercise back to what it was before it was begun, without losing what the learner wrote."""

from pathlib import Path

from course.exercise import Exercise
from course.skeletons import skeleton
from course.source import ROOT, find, parse, paste
from program.command_line import InputError
from program.files import replace_file


class NotReset(InputError):
    """Why a file was left as it is: one line."""


def reset(exercise: Exercise, root: Path = ROOT) -> str:
    """Puts the skeleton of one exercise into the learner's file; says in a line what was done."""
    path = root / exercise.path
    try:
        return reset_file(path, exercise)
    except OSError as error:
        raise NotReset(f"{path.name} is as it was: {error.strerror or error}") from error


def reset_file(path: Path, exercise: Exercise) -> str:
    fresh = skeleton(exercise.file)
    if not path.exists():
        replace_file(path, fresh)
        return f"{path.name} was not there: it is written, with all exercises as they were"
    text, line_end = read_text(path)
    try:
        tree = parse(text)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        at = f"{path.name}:{line}" if line else path.name
        message = f"{at} cannot be read by Python, so nothing was changed: fix that line first"
        raise NotReset(message) from error
    missing = [part for part in exercise.parts if find(tree, part) is None]
    if missing:
        raise NotReset(
            f"{path.name} has no {missing[0]} anymore, so nothing was changed: write its first line again "
            f"(it is in {exercise.file}_1.py), with `pass` in it"
        )
    restored = paste(text, exercise.parts, fresh)
    if restored == text:
        return f"{exercise.name} in {path.name} is as it was already"
    kept = keep(path)
    replace_file(path, restored.replace("\n", line_end))
    return f"{exercise.name} in {path.name} is as it was; what you had is in {kept.name}"


def read_text(path: Path) -> tuple[str, str]:
    """A text with \\n as its line ends, and the line end that it has."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotReset(f"{path.name} is not UTF-8 text, so nothing was changed: save it as UTF-8") from error
    line_end = "\r\n" if "\r\n" in text else "\n"
    return text.replace("\r\n", "\n"), line_end


def keep(path: Path) -> Path:
    """A copy of a file beside it, under a name that is free: decoder_0.py.before-reset-1."""
    number = 1
    while (copy := path.with_name(f"{path.name}.before-reset-{number}")).exists():
        number += 1
    replace_file(copy, path.read_bytes())
    return copy
