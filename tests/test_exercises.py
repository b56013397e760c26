"""The learner's tests: one for each exercise of the `_0` files. Untouched ones are skipped as TODO.

    python -m pytest -k GemmaRMSNorm

tries one exercise, with the reference in place of all others. What is tried, and which mistakes are
known, stands in exercises.py; how, in checking.py.
"""

import functools

import pytest

from course.checking import check
from course.exercises import EXERCISES, OWNERS
from course.learner import LearnerFile

learner_file = functools.cache(LearnerFile)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_exercise(exercise, record_property):
    result = check(exercise, learner_file(exercise.file), OWNERS)
    record_property("exercise", result)
    if result.state == "to do":
        left = f" (begun; left: {', '.join(result.left)})" if result.left else ""
        pytest.skip(f"TODO {exercise.name}{left}")
    if result.state == "wrong":
        pytest.fail(result.message, pytrace=False)
