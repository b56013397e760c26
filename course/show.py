"""Shows one case of an exercise in numbers: the input, what the learner's code makes of it, what is right."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from course.exercise import Exercise
from course.judging import leaves
from course.learner_file import LearnerFile
from course.learner_module import module_for
from course.outcome import SECONDS, Flaw, Outcome
from course.time_limit import with_time_limit
from course.trying import expected_outcome, observe_like_reference, reference_object


def size_of(value) -> int:
    """How many numbers there are to read in a value."""
    if isinstance(value, Image.Image):
        return value.width * value.height
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return int(np.prod(value.shape))
    return len(value) if isinstance(value, str) else 1


def smallest_case(exercise: Exercise) -> int:
    """The case with the fewest numbers in it, of those in which something is returned, on one device."""

    def size(index: int) -> tuple[bool, int]:
        right, case = expected_outcome(exercise, index), exercise.cases[index]
        values = leaves([*case.inputs().values(), right.value])
        return bool(right.error) or case.other_device, sum(size_of(value) for _, value in values)

    return min(range(len(exercise.cases)), key=size)


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


def show(exercise: Exercise, file: LearnerFile, seconds: float = SECONDS) -> str:
    """The smallest case: its input, the learner's output and the right one."""
    index = smallest_case(exercise)
    case = exercise.cases[index]
    lines = [f"{exercise.name}, the case: {case.about}", "", "  Input"]
    inputs = case.inputs()
    for name, value in inputs.items():
        lines += describe(name, value)
    if not inputs:
        lines.append("    none")
    if isinstance(reference_object(exercise, index), nn.Module):
        lines.append("    The weights are random numbers, the same in yours and in the reference.")
    lines += ["", "  Yours"]
    if len(file.untouched_parts(exercise)) == len(exercise.parts):
        lines.append("    is not done yet")
    else:

        def try_it() -> Outcome:
            return observe_like_reference(exercise, index, module_for(exercise, file))

        try:
            lines += describe_outcome(with_time_limit(try_it, seconds, str(file.path), file.lines))
        except Flaw as flaw:
            lines += [f"    {line}" for line in (flaw.headline, *flaw.details)]
    return "\n".join([*lines, "", "  Right", *describe_outcome(expected_outcome(exercise, index))])
