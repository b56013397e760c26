"""For those who change the course: writes what follows from the reference and the table of exercises.

    python -m course.write              skeletons, last lines of docstrings, lists of exercises
    python -m course.write --replace    also the `_0` files that somebody has worked in

A `_0` file is rewritten only if it is, to the letter, the skeleton that was written last: a try, a note
or a helper in it is somebody's work. Which that was is in skeletons.json. With --replace the work is
kept beside the file, as decoder_0.py.before-reset-1.

The last line of a docstring in the `_1` files ("Exercise MLP. Builds on: ...") is written as the table
says, and so is the list of exercises in README.md and docs/, between two comments.
"""

import argparse
import hashlib
import json
from pathlib import Path

from course.exercises import EXERCISES, FILES, number_of
from course.reset import keep
from course.skeletons import skeleton, with_exercise_lines
from course.source import ROOT, reference_source
from program.command_line import InputError, Parser, run_program, set_up_streams, write
from program.files import replace_file

BEGIN, END = "<!-- exercises -->", "<!-- /exercises -->"
WRITTEN = "course/skeletons.json"  # the SHA-256 of each skeleton as it was written last


def exercise_list() -> str:
    columns = ("", "exercise", "file", "difficulty", "minutes", "why PaliGemma needs it")
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for exercise in EXERCISES:
        rows.append(
            f"| {number_of(exercise)} | `{exercise.name}` | `{exercise.path}` | {exercise.difficulty} "
            f"| {exercise.minutes} | {exercise.why} |"
        )
    return "\n".join([BEGIN, *rows, END])


def pages_with_the_list(root: Path = ROOT) -> list[Path]:
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [page for page in pages if page.exists() and BEGIN in page.read_text(encoding="utf-8")]


def digest(text: str) -> str:
    """The same for both kinds of line ends: git may have changed them."""
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()


def read_written(root: Path = ROOT) -> dict[str, str]:
    path = root / WRITTEN
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_skeletons(replace: bool, root: Path = ROOT) -> list[str]:
    """Writes the `_0` files, and returns a line about each."""
    written, lines = read_written(root), []
    for file in FILES:
        path, fresh = root / f"{file}_0.py", skeleton(file)
        now = path.read_bytes() if path.exists() else None
        known = (written.get(file), digest(fresh))
        untouched = now is None or digest(now.decode("utf-8", "replace")) in known
        if not untouched and not replace:
            lines.append(f"{path.name}: left alone, there is work in it (--replace writes it all the same)")
            continue
        said = "as it was"
        if now is None or digest(now.decode("utf-8", "replace")) != digest(fresh):
            said = "written" if untouched else f"written; what was there is in {keep(path).name}"
            replace_file(path, fresh)
        written[file] = digest(fresh)
        lines.append(f"{path.name}: {said}")
    replace_file(root / WRITTEN, json.dumps(written, indent=2) + "\n")
    return lines


def run(args: argparse.Namespace):
    for file in FILES:
        text = reference_source(file)
        if (new := with_exercise_lines(text, file)) != text:
            replace_file(ROOT / f"{file}_1.py", new)
            write(f"{file}_1.py: last lines of docstrings written")
    write("\n".join(write_skeletons(args.replace)))
    for page in pages_with_the_list():
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        if END not in rest:
            raise InputError(f"{page.name} has {BEGIN} but no {END}")
        replace_file(page, before + exercise_list() + rest.partition(END)[2])
        write(f"{page.relative_to(ROOT).as_posix()}: list of exercises written")


def main(argv: list[str] | None = None):
    parser = Parser(
        prog="python -m course.write",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--replace", action="store_true", help="also files that hold somebody's work")
    run_program(run, parser.parse_args(argv), parser, ValueError)


if __name__ == "__main__":
    set_up_streams()
    main()
