"""Tries an exercise on its cases and says, for a beginner, what is right and what is wrong.

A mistake is recognized when nothing differs between what the learner's code came to in the cases and
what the known mistake comes to in them.
"""

from course.differences import counted
from course.exercise import Case, Exercise, Mistake
from course.judging import judge
from course.learner_file import LearnerFile
from course.learner_module import module_for
from course.outcome import SECONDS, Flaw, Outcome, Result, TookTooLong
from course.source import NOT_DONE
from course.time_limit import with_time_limit
from course.trying import expected_outcome, mistaken_outcome, observe_like_reference


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

    def try_all() -> list[Outcome]:
        module = module_for(exercise, file)
        outcomes = []
        for index in range(len(exercise.cases)):
            outcomes.append(observe_like_reference(exercise, index, module, debug))
            if isinstance(outcomes[-1].error, TookTooLong):
                break
        return outcomes

    try:
        outcomes = try_all() if debug else with_time_limit(try_all, seconds, str(file.path), file.lines)
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

    flaws = (
        judge(expected_outcome(exercise, index), outcome, exercise, exercise.cases[index])
        for index, outcome in enumerate(outcomes)
    )
    index, flaw = next(((index, flaw) for index, flaw in enumerate(flaws) if flaw), (0, None))
    if flaw is None:
        result.state = "solved"
        return result
    if untouched and not_begun(outcomes[index]):
        result.state, result.left = "to do", untouched
        return result

    mistake = recognize(exercise, outcomes, index)
    result.kind, result.mistake = flaw.kind, mistake.title if mistake else ""
    result.printed = outcomes[index].printed
    more = notes(exercise, file, flaw, index, result.printed)
    result.message = compose(result, flaw, mistake, more)
    return result


def not_begun(outcome: Outcome) -> bool:
    """Did it only get as far as a part that is not done yet?"""
    return isinstance(outcome.error, NotImplementedError) and NOT_DONE in str(outcome.error)


def notes(exercise: Exercise, file: LearnerFile, flaw: Flaw, index: int, printed: str) -> list[str]:
    """What is worth knowing besides the flaw."""
    lines = []
    if len(exercise.cases) > 1 and flaw.kind not in ("attribute", "time"):
        passed = f" ({index} of {len(exercise.cases)} cases passed.)" if index else ""
        lines.append(f"The case: {exercise.cases[index].about}.{passed}")
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


def compose(result: Result, flaw: Flaw, mistake: Mistake | None = None, more: list[str] | tuple = ()) -> str:
    """The message: what is wrong, the likely cause, then the numbers."""
    name, headline, details = result.exercise.name, flaw.headline, [*flaw.details, *more]
    if headline.split()[0].isalpha():  # not the name of a file, and not code
        headline = headline[0].upper() + headline[1:]
    lines = [f"{name} ({result.location})", "", f"  {headline}"]
    if mistake:
        lines.append(f"  This is what comes out {mistake.title}: {mistake.message}")
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
    return judge(one, other, exercise, case) is None and one.changed == other.changed


def recognize(exercise: Exercise, outcomes: list[Outcome], first: int) -> Mistake | None:
    """The known mistake that comes to the same as the learner's code: in every case if there is
    one, or else in the first case that is wrong (there may be a second mistake)."""

    def same(mistake: int, index: int, closely: bool) -> bool:
        theirs = mistaken_outcome(exercise, mistake, index)
        return alike(theirs, outcomes[index], exercise, exercise.cases[index], closely)

    candidates = [i for i in range(len(exercise.mistakes)) if same(i, first, closely=False)]
    for i in candidates:
        if all(same(i, index, closely=True) for index in range(len(outcomes))):
            return exercise.mistakes[i]
    return exercise.mistakes[candidates[0]] if candidates else None
