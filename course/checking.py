"""Tries an exercise on its cases and says, for a beginner, what is right and what is wrong.

A mistake is recognized when nothing differs between what the learner's code came to in the cases and
what the known mistake comes to in them.
"""

import ast
import functools
from collections.abc import Callable, Iterator

import numpy as np

from course.differences import counted, distance
from course.edits import Edit, edited_module, edits
from course.exercise import Case, Exercise, Mistake
from course.judging import judge, leaves, to_array
from course.learner_file import LearnerFile
from course.learner_module import module_for
from course.outcome import SECONDS, Flaw, Outcome, Result, TookTooLong
from course.repairs import Own, Repair, other_repairs, repairs
from course.source import NOT_DONE, find
from course.time_limit import with_time_limit
from course.trying import expected_outcome, mistaken_outcome, observe_like_reference, variant_file


# Kinds of flaws that say all there is to say.
EXPLAINED = ("definition", "signature", "time", "end")


def check(exercise: Exercise, file: LearnerFile, seconds: float | None = None, debug: bool = False) -> Result:
    """Tries the learner's definition in this process: solved, wrong (with a message), or to do.

    debug: without a time limit, and what it prints is shown at once.
    """
    seconds = SECONDS if seconds is None else seconds
    result = Result(exercise, "wrong", line=file.line_of(exercise))
    untouched = file.untouched_parts(exercise)
    if len(untouched) == len(exercise.parts):
        result.state = "to do"
        return result

    def try_all(seed: int = 0) -> list[Outcome]:
        module = module_for(exercise, file)
        outcomes = []
        for index in range(len(exercise.cases)):
            outcomes.append(observe_like_reference(exercise, index, module, debug, seed))
            if isinstance(outcomes[-1].error, TookTooLong):
                break
        return outcomes

    def within_time(function):
        return function() if debug else with_time_limit(function, seconds, str(file.path), file.lines)

    try:
        outcomes = within_time(try_all)
    except Flaw as flaw:
        result.kind = flaw.kind
        result.message = compose(result, flaw)
        return result
    if isinstance(outcomes, Outcome):  # abandoned by the time limit
        outcomes = [outcomes]
    for outcome in outcomes:
        if isinstance(outcome.error, TookTooLong):
            outcome.error.seconds = seconds
    result.printed = outcomes[0].printed

    flaws = judge_all(exercise, outcomes)
    # bfloat16 is the second step: what is wrong in float32 is said first.
    failing = [index for index, flaw in enumerate(flaws) if flaw]
    index = min(failing, key=lambda index: (exercise.cases[index].bfloat16, index), default=None)
    if index is None:
        result.state = "solved"
        return result
    if untouched and not_begun(outcomes[index]):
        result.state, result.left = "to do", untouched
        return result

    flaw, case = flaws[index], exercise.cases[index]
    result.float32 = case.bfloat16 and len(flaws) == len(exercise.cases)
    result.printed = outcomes[index].printed
    own = Own(exercise, file, module_for(exercise, file)) if flaw.kind not in EXPLAINED else None
    named = known_mistake(exercise, outcomes, flaws)
    # An error says little of what caused it: if the lines are others, what would be right is looked for first.
    stops = all(outcomes[i].error or outcomes[i].flaw for i in failing)
    if named and stops and not same_lines(exercise, named, file):
        named = found_repair(own, repairs(own), flaws) or named
    if named is None and flaw.kind == "values" and not debug:
        again = within_time(lambda: try_all(seed=1))
        if not isinstance(again, list) or not all(map(same_again, outcomes, again, flaws)):
            flaw = Flaw(
                "random",
                "the result changes from call to call, with the same weights and inputs.",
                ["Something in it is random, such as dropout: PaliGemma has none, and an answer needs none."],
            )
    if named is None and flaw.kind != "random" and own is not None:
        named = (
            found_repair(own, repairs(own), flaws)
            or found_edit(exercise, outcomes, flaws)
            or found_repair(own, other_repairs(own), flaws)
        )
    result.kind, result.mistake = flaw.kind, named.title if named else ""
    result.message = compose(result, flaw, named, notes(exercise, file, flaw, flaws, index, result.printed))
    return result


@np.errstate(all="ignore")
def same_again(outcome: Outcome, again: Outcome, flaw: Flaw | None) -> bool:
    """Did the same come out of a second call, to three digits?"""
    if flaw is None or flaw.kind != "values":
        return True
    parts, others = leaves(outcome.value), leaves(again.value)
    if len(parts) != len(others):
        return False
    pairs = [
        (one, other) for (_, one), (_, other) in zip(parts, others, strict=True) if hasattr(one, "shape")
    ]
    return all(
        one.shape == other.shape and distance(to_array(one), to_array(other), 1e-3) <= 1
        for one, other in pairs
    )


def judge_all(exercise: Exercise, outcomes: list[Outcome]) -> list[Flaw | None]:
    """What is wrong in each case."""
    return [
        judge(expected_outcome(exercise, index), outcome, exercise, exercise.cases[index])
        for index, outcome in enumerate(outcomes)
    ]


def not_begun(outcome: Outcome) -> bool:
    """Did it only get as far as a part that is not done yet?"""
    return isinstance(outcome.error, NotImplementedError) and NOT_DONE in str(outcome.error)


def notes(
    exercise: Exercise, file: LearnerFile, flaw: Flaw, flaws: list[Flaw | None], index: int, printed: str
) -> list[str]:
    """What is worth knowing besides the flaw."""
    lines = []
    if len(exercise.cases) > 1 and flaw.kind not in ("attribute", "time"):
        passed = flaws.count(None)
        said = f" ({passed} of {len(exercise.cases)} cases passed.)" if passed else ""
        lines.append(f"The case: {exercise.cases[index].about}.{said}")
    if twice := file.twice(exercise):
        lines.append(
            f"It is defined more than once, in lines {', '.join(map(str, twice))}: Python takes the last."
        )
    if printed:
        shown = printed.splitlines()
        lines += ["Your code printed:", *(f"    {line}" for line in shown[:10])]
        if len(shown) > 10:
            lines.append(f"    ... and {counted(len(shown) - 10, 'more line')}")
    return lines


def compose(
    result: Result, flaw: Flaw, mistake: Mistake | Edit | Repair | None = None, more: list[str] | tuple = ()
) -> str:
    """The message: what is wrong, the likely cause, then the numbers."""
    name, headline, details = result.exercise.name, flaw.headline, [*flaw.details, *more]
    if headline.split()[0].isalpha():  # not the name of a file, and not code
        headline = headline[0].upper() + headline[1:]
    if result.float32:
        headline = f"Right in float32. And now in bfloat16: {headline[0].lower() + headline[1:]}"
    lines = [f"{name} ({result.location})", "", f"  {headline}"]
    if mistake:
        lines.append(f"  {mistake.sentence}")
    lines += ["", *(f"    {line}" for line in details)] if details else []
    if result.kind != "definition":
        lines += ["", f"  A hint: python learn.py hint {name}"]
    return "\n".join(lines)


# Known mistakes


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
        [ast.dump(node) for part in exercise.parts if (node := find(tree, part)) is not None] for tree in trees
    )
    return own in theirs


def found_edit(exercise: Exercise, outcomes: list[Outcome], flaws: list[Flaw | None]) -> Edit | None:
    """A small edit of the reference that comes to the same as the learner's code in every case."""
    order = wrong_ones_first(exercise, flaws)
    if len(outcomes) < len(exercise.cases) or not may_be_explained(outcomes[order[0]], flaws[order[0]]):
        return None
    for edit in edits(exercise):
        module = edited_module(exercise, edit)
        if module is None:
            continue

        def agrees_too(module=module) -> bool:
            theirs = functools.partial(observe_like_reference, exercise, module=module)
            return agrees(exercise, theirs, order, outcomes, flaws, closely=False)

        if with_time_limit(agrees_too, 0.5, "", []) is True:  # an edited loop may never end
            return edit
    return None


def found_repair(own: Own, tried: Iterator[Repair], flaws: list[Flaw | None]) -> Repair | None:
    """A small change of the learner's code with which all cases pass."""
    exercise = own.exercise
    order = wrong_ones_first(exercise, flaws) if len(flaws) == len(exercise.cases) else []
    order += [index for index in range(len(exercise.cases)) if index not in order]
    for repair in tried:
        module = own.repaired(repair.edit)
        if module is None:
            continue

        def passes(indices, module=module) -> bool:
            return all(
                judge(
                    expected_outcome(exercise, index),
                    observe_like_reference(exercise, index, module),
                    exercise,
                    exercise.cases[index],
                )
                is None
                for index in indices
            )

        # An edited loop may never end.
        if with_time_limit(lambda: passes(order[:1]), 0.5, "", []) is True:  # noqa: B023 (called at once)
            if with_time_limit(lambda: passes(order[1:]), 3, "", []) is True:  # noqa: B023
                return repair
    return None


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
