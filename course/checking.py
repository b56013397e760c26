"""Tries an exercise on its cases and says, for a beginner, what is right and what is wrong.

What it is called is found by course/naming.py.
"""

import contextlib
import time

import numpy as np

from course.differences import counted, distance
from course.edits import Edit
from course.exercise import Exercise, Mistake
from course.judging import judge, leaves, to_array
from course.learner_file import LearnerFile
from course.learner_module import module_for
from course.naming import for_seconds, found_by_search, found_repair, known_mistake, same_lines
from course.outcome import SECONDS, Flaw, Outcome, Result, TookTooLong
from course.repairs import Own, Repair, repairs
from course.source import NOT_DONE
from course.time_limit import with_time_limit
from course.trying import expected_outcome, observe_like_reference

# Kinds of flaws that say all there is to say.
EXPLAINED = ("definition", "signature", "time", "end", "changed")


def check(exercise: Exercise, file: LearnerFile, seconds: float | None = None, debug: bool = False) -> Result:
    """Tries the learner's definition in this process: solved, wrong (with a message), or to do.

    debug: without a time limit, and what it prints is shown at once.
    """
    seconds, began = SECONDS if seconds is None else seconds, time.process_time()
    result = Result(exercise, "wrong", line=file.line_of(exercise))
    untouched = file.untouched_parts(exercise)
    if len(untouched) == len(exercise.parts):
        result.state = "to do"
        return result

    for index in range(len(exercise.cases)):
        expected_outcome(exercise, index)  # before the learner's code can reach what the cases share

    def try_all() -> list[Outcome]:
        module = module_for(exercise, file)
        outcomes = []
        for index in range(len(exercise.cases)):
            outcomes.append(observe_like_reference(exercise, index, module, debug))
            if isinstance(outcomes[-1].error, TookTooLong):
                break
        return outcomes

    def within_time(function, seconds: float = seconds):
        return function() if debug else with_time_limit(function, seconds, str(file.path), file.lines)

    def used() -> float:
        return time.process_time() - began

    def left() -> float:
        """The seconds in which a name may be looked for."""
        return max(1, seconds - 2 - used())

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
    named = known_mistake(exercise, outcomes, flaws)
    # An error says little of its cause: if the lines are others, what would be right is looked for first.
    stops = all(outcomes[i].error or outcomes[i].flaw for i in failing)
    if named and stops and not same_lines(exercise, named, file):
        with contextlib.suppress(Exception):  # as below
            own = Own(exercise, file, module_for(exercise, file))
            named = found_repair(own, for_seconds(left(), repairs(own)), flaws) or named
    if named is None and flaw.kind == "values" and not debug and used() < seconds / 2:

        def try_again() -> Outcome:
            return observe_like_reference(exercise, index, module_for(exercise, file), seed=1)

        if not same_again(outcomes[index], within_time(try_again, seconds - used())):
            flaw = Flaw(
                "random",
                "the result changes from call to call, with the same weights and inputs.",
                [
                    "Something in it is random, such as dropout, or a torch.empty that was not filled: "
                    "PaliGemma has nothing of the kind, and an answer needs none."
                ],
            )
    if named is None and flaw.kind not in ("random", *EXPLAINED):
        with contextlib.suppress(Exception):  # whatever it stumbles over, the flaw has to be told
            named = found_by_search(exercise, file, outcomes, flaws, left())
    result.kind, result.mistake = flaw.kind, named.title if named else ""
    result.message = compose(result, flaw, named, notes(exercise, file, flaw, flaws, index, result.printed))
    return result


@np.errstate(all="ignore")
def same_again(outcome: Outcome, again: Outcome) -> bool:
    """Did the same come out of a second call, to three digits? (If it took too long: nobody knows.)"""
    if again.error is not None or again.flaw is not None:
        return isinstance(again.error, TookTooLong)
    parts, others = leaves(outcome.value), leaves(again.value)
    if len(parts) != len(others):
        return False
    pairs = [
        (one, other) for (_, one), (_, other) in zip(parts, others, strict=True) if hasattr(one, "shape")
    ]
    return all(
        one.shape == getattr(other, "shape", None) and distance(to_array(one), to_array(other), 1e-3) <= 1
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
