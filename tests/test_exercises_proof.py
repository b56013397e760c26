"""The proof that the learner's tests teach: it does not depend on what the learner has written.

For every exercise: the untouched skeleton is not done yet and says so; the reference's lines in its place
pass and leave all others as they were; every known mistake fails and is named as itself; other right ways
pass; and the skeleton equals the reference outside of the steps.
"""

import ast
import functools
import inspect
import math

import pytest

from course.checking import check
from course.differences import distance
from course.exercises import EXERCISES, FILES, named, number_of
from course.judging import leaves, to_array, tolerance_of
from course.learner_file import LearnerFile
from course.learner_module import module_for
from course.naming import alike
from course.skeletons import docstring_owner, skeleton
from course.source import (
    find,
    is_given,
    is_todo,
    parse,
    paste,
    reference,
    reference_source,
    statements,
)
from course.trying import expected_outcome, mistaken_outcome, observe_like_reference, variant_file

NUMBER_OF_EXERCISES = 61

skeleton_of = functools.cache(skeleton)
to_write = [exercise for exercise in EXERCISES if not exercise.solved]


def number(exercise):
    """Test ids without names: `-k rescale` is to choose the learner's test alone."""
    return f"exercise-{number_of(exercise)}"


def variants(kind):
    return [
        pytest.param(exercise, i, id=f"{number(exercise)}-{i}")
        for exercise in EXERCISES
        for i in range(len(getattr(exercise, kind)))
    ]


def test_number_of_exercises():
    assert len(EXERCISES) == NUMBER_OF_EXERCISES
    assert len({exercise.name for exercise in EXERCISES}) == NUMBER_OF_EXERCISES
    assert EXERCISES[0].solved and not any(exercise.solved for exercise in EXERCISES[1:])


@pytest.mark.parametrize("exercise", EXERCISES, ids=number)
def test_entry_is_complete(exercise):
    assert named(exercise.name) == [exercise]
    assert 5 <= exercise.minutes <= 40 and exercise.difficulty in ("easy", "medium", "hard")
    assert (exercise.solved or 3 <= sum(map(len, exercise.parts.values())) <= 6) and len(exercise.hints) == 3
    assert len(exercise.mistakes) >= 4 and exercise.right_ways and exercise.why and exercise.compare
    assert len({mistake.title for mistake in exercise.mistakes}) == len(exercise.mistakes)
    known = [other.name for other in EXERCISES[: number_of(exercise) - 1]]
    assert all(name in known for name in exercise.builds_on), "it builds on what comes before it"


@pytest.mark.parametrize("exercise", to_write, ids=number)
def test_skeleton_is_to_do(exercise):
    file = LearnerFile(exercise.file, skeleton_of(exercise.file))
    assert check(exercise, file).state == "to do"
    module = module_for(exercise, file)
    for part in exercise.parts:
        owner, _, method = part.partition(".")
        function = vars(getattr(module, owner))[method] if method else getattr(module, owner)
        arguments = [None] * (inspect.unwrap(function).__code__.co_argcount - 1)
        first = getattr(module, owner).__new__(getattr(module, owner)) if method else None
        with pytest.raises(NotImplementedError) as raised:
            function(first, *arguments)
        assert str(raised.value) == exercise.todo and exercise.command in exercise.todo


@pytest.mark.parametrize("exercise", to_write, ids=number)
def test_reference_in_place_of_the_skeleton(exercise):
    text = paste(skeleton_of(exercise.file), exercise.parts, reference_source(exercise.file))
    file = LearnerFile(exercise.file, text)
    result = check(exercise, file)
    assert result.state == "solved", result.message
    states = {
        other.name: check(other, file).state
        for other in EXERCISES
        if other.file == exercise.file and other is not exercise
    }
    assert set(states.values()) <= {"to do"} | ({"solved"} if exercise.file == EXERCISES[0].file else set())


@pytest.mark.parametrize(("exercise", "i"), variants("mistakes"))
def test_mistake_is_named(exercise, i):
    for change in exercise.mistakes[i].changes:
        result = check(exercise, variant_file(exercise, change))
        assert result.state == "wrong", (exercise.mistakes[i].title, change)
        assert result.mistake == exercise.mistakes[i].title, result.message
        assert exercise.mistakes[i].message in result.message


@pytest.mark.parametrize(("exercise", "i"), variants("right_ways"))
def test_right_way_passes(exercise, i):
    result = check(exercise, variant_file(exercise, exercise.right_ways[i].change))
    assert result.state == "solved", f"{exercise.right_ways[i].title}\n{result.message}"


def far(exercise, index, outcome):
    """How far an outcome's values are from the reference's, as a multiple of the tolerance."""
    right = expected_outcome(exercise, index)
    if outcome.error or outcome.flaw or right.error:
        return math.nan
    parts, right_parts = leaves(outcome.value), leaves(right.value)
    pairs = zip(right_parts, parts, strict=True) if len(parts) == len(right_parts) else ()
    return max(
        (
            distance(to_array(r), to_array(v), tolerance_of(exercise.cases[index], r))
            for (_, r), (_, v) in pairs
            if hasattr(r, "shape") and getattr(v, "shape", None) == r.shape
        ),
        default=math.nan,
    )


@pytest.mark.parametrize("exercise", EXERCISES, ids=number)
def test_tolerance_lies_between_noise_and_mistakes(exercise):
    """A right way stays under a quarter of it, and the nearest mistake is at four times it or more."""
    for right_way in exercise.right_ways:
        file = variant_file(exercise, right_way.change)
        module = module_for(exercise, file)
        for index in range(len(exercise.cases)):
            outcome = observe_like_reference(exercise, index, module)
            assert not far(exercise, index, outcome) > 0.25, (right_way.title, exercise.cases[index].about)
    for i, mistake in enumerate(exercise.mistakes):
        outcomes = [mistaken_outcome(exercise, i, index) for index in range(len(exercise.cases))]
        distances = [far(exercise, index, outcome) for index, outcome in enumerate(outcomes)]
        alike_elsewhere = any(
            not alike(expected_outcome(exercise, index), outcome, exercise, exercise.cases[index])
            and not distances[index] > 1
            for index, outcome in enumerate(outcomes)
        )
        farthest = max((far_off for far_off in distances if not math.isnan(far_off)), default=0.0)
        assert alike_elsewhere or farthest >= 4, mistake.title


@pytest.mark.parametrize("file", FILES)
def test_skeleton_equals_reference_outside_of_the_steps(file):
    given, reference_tree = (
        ast.parse(skeleton_of(file)),
        ast.parse(reference_source(file).replace("_1 import", "_0 import")),
    )
    for exercise in EXERCISES:
        if exercise.file != file or exercise.solved:
            continue
        for part in exercise.parts:
            for tree in (given, reference_tree):
                function = find(tree, part)
                kept = [line for line in statements(function) if is_given(line)]
                if tree is given:
                    assert is_todo(statements(function)[-1]) and len(statements(function)) == len(kept) + 1
                documented = ast.get_docstring(function) is not None
                function.body = function.body[: int(documented)] + kept + [ast.Pass()]
    assert ast.dump(given) == ast.dump(reference_tree)


@pytest.mark.parametrize("file", FILES)
def test_what_is_untouched_is_the_skeleton(file):
    """In the learner's file: signature and docstring. A comment there is a note, and no beginning."""
    learner = LearnerFile(file)
    if learner.missing or learner.error:
        pytest.skip("there is no file to compare, or it cannot be read: the learner's tests say so")
    fresh = skeleton_of(file)
    for exercise in EXERCISES:
        if exercise.file == file and len(learner.untouched_parts(exercise)) == len(exercise.parts):
            pasted = paste(learner.text, exercise.parts, fresh)
            assert ast.dump(parse(pasted)) == ast.dump(parse(learner.text)), exercise.name


@pytest.mark.parametrize("exercise", EXERCISES, ids=number)
def test_docstring_ends_in_the_line_of_the_exercise(exercise):
    for source in (reference_source(exercise.file), skeleton_of(exercise.file)):
        docstring = ast.get_docstring(find(parse(source), docstring_owner(exercise)))
        assert " ".join(docstring.split()).endswith(exercise.line)


@pytest.mark.parametrize("exercise", EXERCISES, ids=number)
def test_what_is_called_is_the_learners(exercise):
    file = LearnerFile(exercise.file, reference_source(exercise.file))
    module = module_for(exercise, file)
    for part in exercise.parts:
        owner, _, method = part.partition(".")
        for name, source in ((owner, str(file.path)),):
            made = getattr(module, name)
            function = vars(made)[method] if method else made
            assert inspect.unwrap(function).__code__.co_filename == source
            assert made is not getattr(reference(exercise.file), name)
