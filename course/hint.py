"""Gives hints for an exercise, one more each time, from vague to exact.

    python -m course.hint                        which exercise is next
    python -m course.hint GemmaRMSNorm           a hint; once more, another; three in all
    python -m course.hint GemmaRMSNorm --reset   forgets how many were given (without a name: of all)

Once the exercise is solved it shows the reference's lines instead, and what is worth comparing.
"""

import argparse
import ast
import difflib
import json
import sys
import textwrap

from course.checking import Result, check
from course.exercise_types import ROOT, Exercise
from course.exercises import EXERCISES, OWNERS, named
from course.learner import LearnerFile, reference_source, statements
from course.variants import find

GIVEN = ROOT / ".hints.json"                                          # how many hints of each were asked for


def read_given() -> dict[str, int]:
    """Damaged or not, the file is only a memory of what was asked: what cannot be read is forgotten."""
    try:
        given = json.loads(GIVEN.read_text(encoding="utf-8"))
        return {name: count for name, count in given.items() if type(count) is int and 0 < count <= 3}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def write_given(given: dict[str, int]):
    try:
        GIVEN.write_text(json.dumps(given, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        message = f"hint.py: {GIVEN.name} cannot be written ({error.strerror}): each hint is the first"
        print(message, file=sys.stderr)


def state(exercise: Exercise) -> Result:
    return check(exercise, LearnerFile(exercise.file), OWNERS)


def heading(exercise: Exercise, where: str) -> str:
    return f"{exercise.name} (exercise {exercise.number} of {exercise.count}, {where})"


def paragraph(text: str, indent: str = "  ") -> str:
    return textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent,
                         break_long_words=False, break_on_hyphens=False)


def next_exercise() -> str:
    """The first exercise that is not solved."""
    for exercise in EXERCISES:
        result = state(exercise)
        if result.state != "solved":
            return "\n".join([
                f"Next: {heading(exercise, result.where)}, {exercise.difficulty}, {exercise.minutes} minutes",
                "",
                paragraph(exercise.why),
                "",
                f"  Test it:  {exercise.command}",
                f"  A hint:   python -m course.hint {exercise.name}",
            ])
    return f"All {len(EXERCISES)} exercises are solved: python inference.py --set 0"


def next_hint(exercise: Exercise, result: Result) -> str:
    """The hints that were given already, and one more."""
    given = read_given()
    count = min(given.get(exercise.name, 0) + 1, len(exercise.hints))
    write_given(given | {exercise.name: count})
    lines = [heading(exercise, result.where), ""]
    if result.kind == "definition":                                   # a syntax error, say
        lines += [f"  Yours cannot be tried as it is; what stands in the way: {exercise.command}", ""]
    for number, hint in enumerate(exercise.hints[:count], start=1):
        lines += [f"  Hint {number} of {len(exercise.hints)}", paragraph(hint, "    "), ""]
    if count < len(exercise.hints):
        lines.append(f"  Still stuck? Once more: python -m course.hint {exercise.name}")
    else:
        lines.append(f"  These are all. The reference's lines are in {exercise.file}_1.py.")
    return "\n".join(lines)


def after_success(exercise: Exercise, where: str) -> str:
    """The reference's lines, without the docstring, and what to look at."""
    source = reference_source(exercise.file)
    tree, lines = ast.parse(source), source.split("\n")
    shown = []
    for part in exercise.parts:
        function = find(tree, part)
        body = statements(function)
        first = function.lineno if len(body) == len(function.body) else body[0].lineno
        shown += [f"  {exercise.file}_1.py:{function.lineno}, {part}", ""]
        if first != function.lineno:                                  # comments above the first line, too
            first = function.body[0].end_lineno + 1
        code = textwrap.dedent("\n".join(lines[first - 1:function.end_lineno]))
        shown += [textwrap.indent(code, "    "), ""]
    return "\n".join([
        heading(exercise, where), "", "  Solved. The reference's lines:", "", *shown,
        paragraph(f"Worth comparing: {exercise.compare}"),
    ])


def unknown(name: str) -> str:
    """One line with the nearest names."""
    names = [exercise.name for exercise in EXERCISES]
    lower = {key.lower(): full for full in names for key in (full, full.split(".")[-1])}
    near = list(dict.fromkeys(lower[key] for key in difflib.get_close_matches(name.lower(), lower, 3, 0.5)))
    meant = f"did you mean {' or '.join(near)}?" if near else "`python -m pytest` lists them"
    return f"there is no exercise {name!r}: {meant}"


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(
        prog="hint.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of an exercise, as after pytest's -k")
    parser.add_argument("--reset", action="store_true", help="forget how many hints were given")
    args = parser.parse_args(argv)

    found = named(args.name) if args.name else []
    if args.name and len(found) != 1:
        names = ", ".join(exercise.name for exercise in found)
        message = f"{args.name!r} means several exercises: {names}" if found else unknown(args.name)
        parser.exit(2, f"hint.py: error: {message}\n")
    if args.reset:
        write_given({name: n for name, n in read_given().items() if found and name != found[0].name})
        print(f"The hints of {found[0].name if found else 'all exercises'} begin anew.")
    elif not found:
        print(next_exercise())
    else:
        [exercise] = found
        result = state(exercise)
        solved = result.state == "solved"
        print(after_success(exercise, result.where) if solved else next_hint(exercise, result))


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")                          # also where Windows would take another
    main()
