"""The learning path in words: the state of each exercise, what is next, how long the rest takes."""

import textwrap

from course.exercise import Exercise
from course.exercises import EXERCISES, FILES, number_of
from course.learner_file import LearnerFile
from course.outcome import Result

ALL_SOLVED = f"All {len(EXERCISES)} exercises are solved: python inference.py --set 0"
MARKS = {"solved": "+", "wrong": "x", "nearly": "/", "begun": "~", "to do": " "}


def path_line(result: Result) -> str:
    exercise = result.exercise
    state = "begun" if result.left else "nearly" if result.float32 else result.state
    return (
        f"{number_of(exercise):3} {MARKS[state]} {state:6}  {exercise.name:<42} {result.location:<38} "
        f"{exercise.difficulty}, {exercise.minutes} min"
    )


def printed_lines(result: Result) -> list[str]:
    """What the learner's code printed, unless the message about it holds that."""
    if not result.printed or result.state == "wrong":
        return []
    lines = result.printed.splitlines()
    more = [f"{'':13} ..."] if len(lines) > 5 else []
    return [f"{'':13} it printed: {lines[0]}", *(f"{'':13}             {line}" for line in lines[1:5]), *more]


def count_line(results: list[Result]) -> str:
    states = [result.state for result in results]
    begun = sum(bool(result.left) for result in results)
    nearly = sum(result.float32 for result in results)
    more = f" ({nearly} of them right in float32, not in bfloat16)" if nearly else ""
    return (
        f"{states.count('solved')} of {len(states)} solved, {states.count('wrong')} wrong{more}, "
        f"{states.count('to do')} to do" + (f" ({begun} of them begun)." if begun else ".")
    )


def time_line(results: list[Result]) -> str:
    """How long the rest takes, as the table says: for a reader with time to think."""
    minutes = sum(result.exercise.minutes for result in results if result.state != "solved")
    hours = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    return f"What is not solved takes about {hours}."


def next_line(results: dict[str, Result]) -> str:
    """The first that is wrong, or else the first that is not done yet, of those that were not run too.

    results: by the exercises' names, of those that were run.
    """
    wrong = [result for result in results.values() if result.state == "wrong"]
    if wrong:
        name = wrong[0].exercise.name
        return f"Next: {name} again. A hint: python learn.py hint {name}"
    files = {file: LearnerFile(file) for file in FILES}
    chosen = [result.exercise for result in results.values() if result.state == "to do"]
    for exercise in EXERCISES if len(results) == len(EXERCISES) or not chosen else chosen:
        result, file = results.get(exercise.name), files[exercise.file]
        if result.state == "to do" if result else file.untouched_parts(exercise):
            return (
                f"Next: {number_of(exercise)}, {exercise.name}, in {exercise.path}:{file.line_of(exercise)}\n"
                f"      {exercise.command}"
            )
    return "All exercises are solved."


def nearest_names(name: str, near: list[str]) -> str:
    """One line for a name that no exercise has."""
    meant = f"did you mean {' or '.join(near)}?" if near else "`python learn.py list` shows them"
    return f"there is no exercise {name!r}: {meant}"


def one_line(exercise: Exercise) -> str:
    return f"{number_of(exercise):3}  {exercise.name:<42} {exercise.difficulty}, {exercise.minutes} min"


def what_is_next(results: list[Result]) -> str:
    """Below the path: how many are solved, how long the rest takes, and the first that is not solved."""
    following = next((result for result in results if result.state != "solved"), None)
    if following is None:
        return f"\n{count_line(results)}\n{ALL_SOLVED}"
    exercise = following.exercise
    place = f"exercise {number_of(exercise)} of {len(EXERCISES)}, {following.location}"
    return "\n".join(
        [
            "",
            count_line(results),
            time_line(results),
            "",
            f"Next: {exercise.name} ({place}), {exercise.difficulty}, {exercise.minutes} minutes",
            "",
            textwrap.fill(exercise.why, 100, initial_indent="  ", subsequent_indent="  "),
            "",
            f"  Test it:  {exercise.command}",
            f"  A hint:   python learn.py hint {exercise.name}",
        ]
    )
