"""Hints for an exercise, one more each time, from vague to exact; after success, the reference's lines."""

import ast
import json
import textwrap
from pathlib import Path

from course.exercise import Exercise
from course.exercises import EXERCISES, number_of
from course.outcome import Result
from course.source import ROOT, find, reference_source, statements
from program.command_line import log
from program.files import replace_file

HINTS_GIVEN = ROOT / ".hints.json"  # how many hints of each exercise were asked for


def read_given(path: Path | None = None) -> dict[str, int]:
    """Damaged or not, the file is only a memory of what was asked: what cannot be read is forgotten."""
    try:
        given = json.loads((path or HINTS_GIVEN).read_text(encoding="utf-8"))
        return {name: count for name, count in given.items() if type(count) is int and 0 < count <= 3}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def write_given(given: dict[str, int]):
    try:
        replace_file(HINTS_GIVEN, json.dumps(given, indent=2) + "\n")
    except OSError as error:
        log(f"learn.py: {HINTS_GIVEN.name} cannot be written ({error.strerror}): each hint is the first")


def forget(exercise: Exercise | None) -> str:
    """Begins again with the hints of an exercise, or of all; says so."""
    given = read_given()
    forgotten = {exercise.name} if exercise else {one.name for one in EXERCISES}  # not the experiments tried
    write_given({name: count for name, count in given.items() if name not in forgotten})
    return f"The hints of {exercise.name if exercise else 'all exercises'} begin again."


def heading(result: Result) -> str:
    exercise = result.exercise
    return f"{exercise.name} (exercise {number_of(exercise)} of {len(EXERCISES)}, {result.location})"


def paragraph(text: str, indent: str = "  ") -> str:
    return textwrap.fill(
        text,
        100,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def next_hint(result: Result) -> str:
    """The hints that were given already, and one more."""
    exercise = result.exercise
    given = read_given()
    count = min(given.get(exercise.name, 0) + 1, len(exercise.hints))
    write_given(given | {exercise.name: count})
    lines = [heading(result), ""]
    if result.kind == "definition":  # a syntax error, say
        lines += [f"  Yours cannot be tried as it is; what stands in the way: {exercise.command}", ""]
    for number, hint in enumerate(exercise.hints[:count], start=1):
        lines += [f"  Hint {number} of {len(exercise.hints)}", paragraph(hint, "    "), ""]
    if count < len(exercise.hints):
        lines.append(f"  Still stuck? Once more: python learn.py hint {exercise.name}")
    else:
        lines.append(f"  These are all. The reference's lines are in {exercise.file}_1.py.")
    return "\n".join(lines)


def after_success(result: Result) -> str:
    """The reference's lines, without the docstring, and what to look at."""
    exercise = result.exercise
    source = reference_source(exercise.file)
    tree, lines = ast.parse(source), source.split("\n")
    shown = []
    for part in exercise.parts:
        function = find(tree, part)
        body = statements(function)
        first = function.lineno if len(body) == len(function.body) else body[0].lineno
        shown += [f"  {exercise.file}_1.py:{function.lineno}, {part}", ""]
        if first != function.lineno:  # comments above the first line, too
            first = function.body[0].end_lineno + 1
        code = textwrap.dedent("\n".join(lines[first - 1 : function.end_lineno]))
        shown += [textwrap.indent(code, "    "), ""]
    return "\n".join(
        [
            heading(result),
            "",
            "  Solved. The reference's lines:",
            "",
            *shown,
            paragraph(f"Worth comparing: {exercise.compare}"),
        ]
    )
