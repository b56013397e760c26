"""What `python -m pytest` does for a learner: -k with the name of an exercise, and the learning path.

python -m pytest                  everything; after the results, the state of every exercise
python -m pytest -k GemmaRMSNorm  that exercise alone, in seconds: no other test file is read
"""

import pytest

from course.exercises import EXERCISES, named
from course.learner import LearnerFile

CHOSEN = pytest.StashKey[list[str]]()
RESULTS = pytest.StashKey[dict]()
EXERCISE_TESTS = "test_exercises.py"
PROOF_TESTS = ("test_exercises_proof.py", "test_exercises_sets.py", "test_exercises_help.py")
MARKS = {"solved": "+", "wrong": "x", "begun": "~", "to do": " "}


def pytest_configure(config):
    config.stash[RESULTS] = {}
    asked = config.option.keyword
    chosen = [named(name.strip()) for name in asked.split(" or ")] if asked else []
    config.stash[CHOSEN] = [exercise.name for group in chosen for exercise in group] if all(chosen) else []
    if config.stash[CHOSEN]:
        config.option.keyword = ""


def pytest_ignore_collect(collection_path, config):
    if config.stash[CHOSEN] and collection_path.suffix == ".py" and collection_path.name != EXERCISE_TESTS:
        return True
    return None


def pytest_collection_modifyitems(config, items):
    chosen = config.stash[CHOSEN]
    if chosen:
        kept = [item for item in items if getattr(item, "callspec", None) and item.callspec.id in chosen]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def pytest_runtest_logreport(report):
    report.exercise = dict(report.user_properties).get("exercise")


def pytest_terminal_summary(terminalreporter, config):
    reports = [
        report
        for group in terminalreporter.stats.values()
        for report in group
        if getattr(report, "when", None) == "call"
    ]
    results = {
        report.exercise.exercise.name: report.exercise
        for report in reports
        if getattr(report, "exercise", None) is not None
    }
    if not results:
        return
    write = terminalreporter.write_line
    terminalreporter.section("learning path")
    for exercise in EXERCISES:
        if exercise.name in results:
            write(path_line(results[exercise.name]))
            for line in printed(results[exercise.name]):
                write(line)
    write("")
    if len(results) == len(EXERCISES):
        write(count_line(list(results.values())))
    for result in results.values() if config.stash[CHOSEN] else ():
        if result.state == "solved":
            write(f"Solved. To see what is worth comparing: python -m course.hint {result.exercise.name}")
    write(next_line(results))
    proof = [report for report in reports if any(name in report.nodeid for name in PROOF_TESTS)]
    if proof:
        failed = sum(report.failed for report in proof)
        write(
            f"The proof that these tests work: {len(proof)} tests"
            + (f", {failed} FAILED" if failed else ", all passed")
            + " (not counted above)."
        )


def path_line(result) -> str:
    exercise = result.exercise
    state = "begun" if result.left else result.state
    return (
        f"{exercise.number:3} {MARKS[state]} {state:6}  {exercise.name:<42} {result.where:<38} "
        f"{exercise.difficulty}, {exercise.minutes} min"
    )


def printed(result) -> list[str]:
    if not result.printed or result.state == "wrong":  # a wrong one's message holds it
        return []
    lines = result.printed.splitlines()
    more = [f"{'':13} ..."] if len(lines) > 5 else []
    return [f"{'':13} it printed: {lines[0]}", *(f"{'':13}             {line}" for line in lines[1:5]), *more]


def count_line(results: list) -> str:
    states = [result.state for result in results]
    begun = sum(bool(result.left) for result in results)
    return (
        f"{states.count('solved')} of {len(states)} solved, {states.count('wrong')} wrong, "
        f"{states.count('to do')} to do" + (f" ({begun} of them begun)." if begun else ".")
    )


def next_line(results: dict) -> str:
    """The first that is wrong, or else the first that is to do, of those that were not run too."""
    wrong = [result for result in results.values() if result.state == "wrong"]
    if wrong:
        name = wrong[0].exercise.name
        return f"Next: {name} once more. A hint: python -m course.hint {name}"
    chosen = [result.exercise for result in results.values() if result.state == "to do"]
    files = {}
    for exercise in EXERCISES if len(results) == len(EXERCISES) or not chosen else chosen:
        result = results.get(exercise.name)
        file = files.setdefault(exercise.file, None) or LearnerFile(exercise.file)
        files[exercise.file] = file
        if result.state == "to do" if result else file.untouched_parts(exercise):
            return (
                f"Next: {exercise.number}, {exercise.name}, in {exercise.path}:{file.line_of(exercise)}\n"
                f"      {exercise.command}"
            )
    return "All exercises are solved."
