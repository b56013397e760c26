"""The learner's tests: one for each exercise of the `_0` files. Untouched ones are skipped as TODO.

    python -m pytest -k GemmaRMSNorm         tries one exercise, with the reference in place of all others
    python -m pytest -k GemmaRMSNorm -s      the same, for print() and breakpoint() in your code

What is tried, and which mistakes are known, is in course/exercises/; how, in course/checking.py. An
exercise is tried in a process of its own with a time limit, unless -s asks for it in this one.
"""

import functools

import pytest

from course.checking import check
from course.exercises import EXERCISES
from course.learner_file import LearnerFile
from course.worker import check_apart

learner_file = functools.cache(LearnerFile)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_exercise(exercise, record_property, pytestconfig):
    file = learner_file(exercise.file)
    if pytestconfig.option.capture == "no":
        result = check(exercise, file, debug=True)
    else:
        result = check_apart(exercise, file)
    record_property("exercise", result)
    if result.state == "to do":
        left = f" (begun; left: {', '.join(result.left)})" if result.left else ""
        pytest.skip(f"TODO {exercise.name}{left}")
    if result.state == "wrong":
        pytest.fail(result.message, pytrace=False)
