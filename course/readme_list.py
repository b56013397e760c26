"""Writes the list of exercises in README.md, between two comments, out of the table of exercises.

    python -m course.readme_list           into README.md
    python -m course.readme_list --print   to the terminal
"""

import sys

from course.exercise_types import ROOT
from course.exercises import EXERCISES

BEGIN, END = "<!-- exercises -->", "<!-- /exercises -->"


def exercise_list() -> str:
    columns = ("", "exercise", "file", "difficulty", "minutes", "why PaliGemma needs it")
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for exercise in EXERCISES:
        rows.append(
            f"| {exercise.number} | `{exercise.name}` | `{exercise.path}` | {exercise.difficulty} "
            f"| {exercise.minutes} | {exercise.why} |"
        )
    return "\n".join([BEGIN, *rows, END])


def main() -> None:
    if "--print" in sys.argv:
        print(exercise_list())
        return
    path = ROOT / "README.md"
    before, found, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    if not found or END not in rest:
        raise SystemExit(f"README.md has no {BEGIN} ... {END}")
    path.write_text(before + exercise_list() + rest.partition(END)[2], encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
