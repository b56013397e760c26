"""What `python -m pytest` does for a learner: -k with the name of an exercise, and the learning path.

python -m pytest                  after the results, the state of every exercise; the long tests are left out
python -m pytest --long           the long tests alone: what trains, draws pages, or tries hundreds of things
python -m pytest -k GemmaRMSNorm  that exercise alone, in seconds: no other test file is read
python -m pytest -k Atention      no test has that name: says which exercise may be meant
"""

import sys

import pytest

from course import process

if "-k" in sys.argv and "-s" not in sys.argv:
    process.start()  # an exercise, most likely: PyTorch is imported there while it is imported here

from course.exercises import EXERCISES, named, nearest
from course.path import count_line, nearest_names, next_line, path_line, printed_lines

CHOSEN = pytest.StashKey[list[str]]()
RESULTS = pytest.StashKey[dict]()
LEFT_OUT = pytest.StashKey[int]()
EXERCISE_TESTS = "test_exercises.py"
PROOF_TESTS = ("test_exercises_proof.py", "test_exercises_sets.py", "test_exercises_help.py", "test_learn.py")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long tests alone, which are left out otherwise")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: is left out unless --long or a file is asked for")
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
        keep(items, lambda item: getattr(item, "callspec", None) and item.callspec.id in chosen, config)
    elif config.option.long:
        keep(items, lambda item: item.get_closest_marker("long"), config)
    elif not (config.option.keyword or any("::" in name or name.endswith(".py") for name in config.args)):
        config.stash[LEFT_OUT] = sum(item.get_closest_marker("long") is not None for item in items)
        keep(items, lambda item: not item.get_closest_marker("long"), config)


def keep(items: list, is_kept, config):
    config.hook.pytest_deselected(items=[item for item in items if not is_kept(item)])
    items[:] = [item for item in items if is_kept(item)]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    """A name that is nearly an exercise's, and no test's, is a slip: say so instead of running nothing."""
    asked = session.config.option.keyword
    if asked and not session.items and nearest(asked):
        session.config.pluginmanager.get_plugin("terminalreporter").stats.pop("deselected", None)
        raise pytest.UsageError(nearest_names(asked, nearest(asked)))


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
            for line in printed_lines(results[exercise.name]):
                write(line)
    write("")
    if len(results) == len(EXERCISES):
        write(count_line(list(results.values())))
    for result in results.values() if config.stash[CHOSEN] else ():
        if result.state == "solved":
            write(f"Solved. To see what is worth comparing: python learn.py hint {result.exercise.name}")
    write(next_line(results))
    proof = [report for report in reports if any(name in report.nodeid for name in PROOF_TESTS)]
    if proof:
        failed = sum(report.failed for report in proof)
        write(
            f"The proof that these tests work: {len(proof)} tests"
            + (f", {failed} FAILED" if failed else ", all passed")
            + " (not counted above)."
        )
    if LEFT_OUT in config.stash:
        write(f"Left out: {config.stash[LEFT_OUT]} long tests, which run with python -m pytest --long")
