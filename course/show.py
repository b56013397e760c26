"""Shows a case of an exercise in numbers: the input, what the learner's code makes of it, what is right."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from course.exercise import Exercise
from course.judging import judge, leaves
from course.learner_file import LearnerFile
from course.learner_module import module_for
from course.outcome import SECONDS, Flaw, Outcome, TookTooLong
from course.time_limit import with_time_limit
from course.trying import expected_outcome, observe_like_reference, reference_object


def size_of(value) -> int:
    """How many numbers there are to read in a value."""
    if isinstance(value, Image.Image):
        return value.width * value.height
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return int(np.prod(value.shape))
    return len(value) if isinstance(value, str) else 1


def from_the_smallest(exercise: Exercise) -> list[int]:
    """The cases by how many numbers are in them; float32 first, and last those of errors and devices."""

    def size(index: int) -> tuple[bool, bool, int]:
        right, case = expected_outcome(exercise, index), exercise.cases[index]
        values = leaves([*case.inputs().values(), right.value])
        is_last = bool(right.error) or case.other_device
        return is_last, case.bfloat16, sum(size_of(value) for _, value in values)

    return sorted(range(len(exercise.cases)), key=size)


def smallest_case(exercise: Exercise) -> int:
    """The case with the fewest numbers in it, but with an input if there is one with any."""
    order = from_the_smallest(exercise)
    return next((index for index in order if exercise.cases[index].inputs()), order[0])


def describe(name: str, value) -> list[str]:
    """A value, taken apart: one line for its kind, and its numbers below."""
    parts = leaves(value, name)
    if not parts:  # an empty list
        return [f"    {name}: {value!r}"]
    if len(parts) != 1 or parts[0][1] is not value:
        return [line for part_name, part in parts for line in describe(part_name, part)]
    if isinstance(value, torch.Tensor):
        shape, dtype = list(value.shape), str(value.dtype).removeprefix("torch.")
        value = value.detach().cpu()
        array = (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    elif isinstance(value, np.ndarray):
        shape, dtype, array = list(value.shape), str(value.dtype), value
    elif isinstance(value, Image.Image):
        return [f"    {name}: a picture {value.width} x {value.height}, {value.mode}"]
    else:
        plain = isinstance(value, (str, int, float, bool, type(None)))
        return [f"    {name}: {value!r}" if plain else f"    {name}: a {type(value).__name__}"]
    numbers = np.array2string(array, precision=3, threshold=120, max_line_width=100, suppress_small=True)
    return [f"    {name}: {shape} {dtype}", *(f"        {line}" for line in numbers.splitlines())]


def describe_outcome(outcome: Outcome) -> list[str]:
    if outcome.flaw is not None:
        return [f"    {line}" for line in (outcome.flaw.headline, *outcome.flaw.details)]
    if outcome.error is not None:
        said = f"{type(outcome.error).__name__}: {outcome.error}".splitlines()[0]
        return [f"    {line}" for line in (said, *outcome.stopped_at)]
    return describe("result", outcome.value)


def first_wrong(exercise: Exercise, file: LearnerFile, seconds: float) -> tuple[int, Outcome, Flaw | None]:
    """The smallest case that the learner's code gets wrong; if it gets none wrong, the smallest of all.

    Returns the case, what the code came to, and what is wrong with it. Raises a Flaw if it cannot be tried.
    """
    order, tried = from_the_smallest(exercise), []

    def add(index: int, outcome: Outcome):
        if isinstance(outcome.error, TookTooLong):
            outcome.error.seconds = seconds
        flaw = judge(expected_outcome(exercise, index), outcome, exercise, exercise.cases[index])
        tried.append((index, outcome, flaw))

    def try_until_wrong():
        module = module_for(exercise, file)
        for index in order:
            add(index, observe_like_reference(exercise, index, module))
            if tried[-1][2]:
                return

    stuck = with_time_limit(try_until_wrong, seconds, str(file.path), file.lines)
    if stuck is not None and len(tried) < len(order):
        add(order[len(tried)], stuck)
    if tried[-1][2]:
        return tried[-1]
    return next(one for one in tried if one[0] == smallest_case(exercise))


def describe_learners(outcome: Outcome, flaw: Flaw | None) -> list[str]:
    """What the learner's code came to, and what is wrong with it where the numbers do not show that."""
    if flaw is not None and flaw.kind == "time":
        return describe_outcome(Outcome(flaw=flaw))
    lines = describe_outcome(outcome)
    if flaw is None or outcome.flaw is not None or outcome.error is not None:
        return lines
    if flaw.kind != "values":  # of another dtype, say, or written into an input
        return [*lines, f"    {flaw.headline}"]
    some_left_out = any("..." in line for line in lines)
    return [*lines, *(f"    {line}" for line in flaw.details if some_left_out)]


def show(exercise: Exercise, file: LearnerFile, seconds: float = SECONDS) -> str:
    """The smallest case that is wrong, or the smallest: its input, the learner's output and the right one."""
    index, is_right = smallest_case(exercise), False
    if len(file.untouched_parts(exercise)) == len(exercise.parts):
        yours = ["    is not done yet"]
    else:
        try:
            index, outcome, flaw = first_wrong(exercise, file, seconds)
            yours, is_right = describe_learners(outcome, flaw), flaw is None
        except Flaw as flaw:
            yours = describe_outcome(Outcome(flaw=flaw))
    case = exercise.cases[index]
    lines = [f"{exercise.name}, the case: {case.about}", "", "  Input"]
    inputs = case.inputs()
    for name, value in inputs.items():
        lines += describe(name, value)
    if not inputs:
        lines.append("    none")
    if isinstance(reference_object(exercise, index), nn.Module):
        lines.append("    The weights are random numbers, the same in yours and in the reference.")
    lines += ["", "  Yours", *yours, "", "  Right", *describe_outcome(expected_outcome(exercise, index))]
    if is_right:
        lines += ["", "  Yours is right, in this case and in all others."]
    return "\n".join(lines)
