"""Looks for the name of what is wrong: a known mistake, or a small change that explains all cases.

A mistake is named only if it agrees with the learner's code in every case: where that is wrong, it is wrong
in the same way, and where that is right, it is right.
"""

import ast
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator

from course.edits import Edit, all_edits, edited_module
from course.exercise import Case, Exercise, Mistake
from course.judging import judge
from course.learner_file import LearnerFile
from course.learner_module import Module, module_for
from course.outcome import Flaw, Outcome
from course.repairs import Own, Repair, other_repairs, repairs
from course.source import find
from course.time_limit import with_time_limit
from course.trying import expected_outcome, mistaken_outcome, observe_like_reference, variant_file


def alike(one: Outcome, other: Outcome, exercise: Exercise, case: Case, closely: bool = False) -> bool:
    """Nothing differs, and if both stopped with an error, they said the same."""
    if (one.error is None) != (other.error is None) or (one.flaw is None) != (other.flaw is None):
        return False
    if one.error is not None:
        return type(one.error) is type(other.error) and str(one.error) == str(other.error)
    if one.flaw is not None:
        return one.flaw.headline == other.flaw.headline and (
            not closely or one.flaw.details == other.flaw.details
        )
    # Both ways, because a gradient that is missing in the first one alone is no flaw of the second.
    same = judge(one, other, exercise, case) is None and judge(other, one, exercise, case) is None
    return same and one.changed == other.changed


def known_mistake(exercise: Exercise, outcomes: list[Outcome], flaws: list[Flaw | None]) -> Mistake | None:
    """The known mistake that comes to the same as the learner's code in every case: where that is wrong,
    it is wrong in the same way, and where that is right, it is right.

    If something is wrong in float32 already, one that agrees there alone will do: in bfloat16 there may be
    a second mistake.
    """
    if len(outcomes) < len(exercise.cases):
        return None
    order = wrong_ones_first(exercise, flaws)
    in_float32 = [index for index in order if not exercise.cases[index].bfloat16]
    if all(flaws[index] is None for index in in_float32):
        in_float32 = order
    for indices, closely in ((order, True), (order, False), (in_float32, True)):
        for i, mistake in enumerate(exercise.mistakes):
            for change in range(len(mistake.changes)):
                theirs = functools.partial(mistaken_outcome, exercise, i, change=change)
                if agrees(exercise, theirs, indices, outcomes, flaws, closely):
                    return mistake
    return None


def same_lines(exercise: Exercise, mistake: Mistake, file: LearnerFile) -> bool:
    """Are the learner's lines those of the mistake?"""
    trees = [file.tree, *(variant_file(exercise, change).tree for change in mistake.changes)]
    own, *theirs = (
        [ast.dump(node) for part in exercise.parts if (node := find(tree, part)) is not None]
        for tree in trees
    )
    return own in theirs


def found_by_search(
    exercise: Exercise,
    file: LearnerFile,
    outcomes: list[Outcome],
    flaws: list[Flaw | None],
    seconds: float,
) -> Edit | Repair | None:
    """What is on no list: a repair of the learner's lines, or an edit of the reference that says the same.

    First what differs from the reference; then small edits of both, the likeliest first.
    """
    own = Own(exercise, file, module_for(exercise, file))
    forward, back = all_edits(exercise), other_repairs(own)

    def repaired(share: float, tried: Iterable[Repair]) -> Repair | None:
        return found_repair(own, for_seconds(share * seconds, tried), flaws)

    def edited(share: float, tried: Iterable[Edit]) -> Edit | None:
        return found_edit(exercise, for_seconds(share * seconds, tried), outcomes, flaws)

    return (
        repaired(0.2, repairs(own))
        or edited(0.2, forward[0])
        or repaired(0.25, back[0])
        or repaired(0.05, repairs(own, alone=False))
        or edited(0.15, forward[1])
        or repaired(0.15, back[1])
    )


def for_seconds(seconds: float, things: Iterable) -> Iterator:
    """As many as can be tried in that time."""
    until = time.process_time() + seconds
    for thing in things:
        yield thing
        if time.process_time() > until:
            return


def found_edit(
    exercise: Exercise, tried: Iterator[Edit], outcomes: list[Outcome], flaws: list[Flaw | None]
) -> Edit | None:
    """A small edit of the reference that comes to the same as the learner's code in every case, or in
    every case that is in float32, if there something is wrong: in bfloat16 there may be a second mistake."""
    order = wrong_ones_first(exercise, flaws)
    if len(outcomes) < len(exercise.cases) or not may_be_explained(outcomes[order[0]], flaws[order[0]]):
        return None
    plain, in_bfloat16 = apart(exercise, order)
    for edit in tried:
        module = edited_module(exercise, edit)
        if module is None:
            continue

        def agrees_in(indices: list[int], module: Module = module) -> bool:
            theirs = functools.partial(observe_like_reference, exercise, module=module)
            return agrees(exercise, theirs, indices, outcomes, flaws, closely=False)

        if holds(agrees_in, plain, 0.5):
            if holds(agrees_in, in_bfloat16, 0.5):
                return edit
            if any(flaws[index] for index in plain):
                return dataclasses.replace(edit, where=" in float32")
    return None


def found_repair(own: Own, tried: Iterator[Repair], flaws: list[Flaw | None]) -> Repair | None:
    """A small change of the learner's code with which all cases pass, or all that are in float32."""
    exercise = own.exercise
    flaws = [*flaws, *[None] * (len(exercise.cases) - len(flaws))]  # it may have been stopped at one
    plain, in_bfloat16 = apart(exercise, wrong_ones_first(exercise, flaws))
    for repair in tried:
        module = own.repaired(repair.edit)
        if module is None:
            continue

        def pass_in(indices: list[int], module: Module = module) -> bool:
            return all(passes(exercise, index, module) for index in indices)

        if holds(pass_in, plain[:1], 0.5) and holds(pass_in, plain[1:], 3):
            if holds(pass_in, in_bfloat16, 3):
                return repair
            if any(flaws[index] for index in plain):
                return dataclasses.replace(repair, where=" in float32")
    return None


def passes(exercise: Exercise, index: int, module: Module) -> bool:
    case, right = exercise.cases[index], expected_outcome(exercise, index)
    return judge(right, observe_like_reference(exercise, index, module), exercise, case) is None


def holds(claim: Callable[[list[int]], bool], indices: list[int], seconds: float) -> bool:
    """An edited loop may never end: then it does not."""
    return not indices or with_time_limit(functools.partial(claim, indices), seconds, "", []) is True


def apart(exercise: Exercise, order: list[int]) -> tuple[list[int], list[int]]:
    """The cases in float32 and those in bfloat16. If all are in bfloat16, they come first."""
    plain = [index for index in order if not exercise.cases[index].bfloat16]
    return plain or order, [index for index in order if index not in (plain or order)]


def wrong_ones_first(exercise: Exercise, flaws: list[Flaw | None]) -> list[int]:
    """The cases in the order in which others fail soonest to agree."""
    return sorted(
        range(len(flaws)), key=lambda index: (flaws[index] is None, exercise.cases[index].bfloat16, index)
    )


def agrees(
    exercise: Exercise,
    theirs: Callable[[int], Outcome],
    indices: list[int],
    outcomes: list[Outcome],
    flaws: list[Flaw | None],
    closely: bool,
) -> bool:
    """theirs(index): what a mistake comes to in a case."""
    return all(
        same(exercise, index, theirs(index), outcomes[index], flaws[index], closely) for index in indices
    )


def same(
    exercise: Exercise, index: int, theirs: Outcome, learners: Outcome, flaw: Flaw | None, closely: bool
) -> bool:
    """Does a mistake come to what the learner's code comes to in this case?

    Not closely: what should have been refused only has to be accepted by both, whatever is made of it.
    """
    case, right = exercise.cases[index], expected_outcome(exercise, index)
    if flaw is None:
        return judge(right, theirs, exercise, case) is None
    if right.error is not None and theirs.flaw is None and not closely:
        return learners.flaw is None and type(theirs.error) is type(learners.error)
    return alike(theirs, learners, exercise, case, closely=True)


def may_be_explained(outcome: Outcome, flaw: Flaw) -> bool:
    """Wrong values, or an error of torch's that has to do with shapes: not what explains itself."""
    if outcome.flaw is not None or (flaw.kind == "error" and "has to be raised here, but" in flaw.headline):
        return False
    return flaw.kind != "changed" and isinstance(outcome.error, (RuntimeError, IndexError, type(None)))
