"""Tries an exercise on its cases and says, for a beginner, what is right and what is wrong.

Everything that the learner's code does in one case is kept as an Outcome: what it returned, or how
it stopped, and which inputs it changed. The reference makes an Outcome too, and so does each known
mistake. `judge` names the first difference between two of them, in the order type, attribute or
parameter, shape, dtype, device, input changed, values. A mistake is recognized when nothing differs
between the learner's outcomes and its own.
"""

import contextlib
import ctypes
import functools
import io
import sys
import threading
import time
import zlib
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import nn

from course.differences import describe_values, distance, number
from course.exercise_types import Case, Exercise
from course.learner import LearnerFile, Module, Problem, reference, reference_source
from course.learner_set import place, where
from course.variants import apply_change

SECONDS = 10  # for all the cases of one exercise


class TookTooLong(BaseException):
    """Raised from outside in code that does not come to an end; not an Exception, so that
    `except Exception` does not catch it."""

    seconds = float(SECONDS)


@dataclass
class Outcome:
    """What one case came to."""

    value: object = None
    error: BaseException | None = None  # raised by the code under test
    problem: Problem | None = None  # a missing parameter, say: found before the call
    changed: list[str] = field(default_factory=list)  # inputs that are not what they were
    where: list[str] = field(default_factory=list)  # of an error: the line, and the shapes there
    printed: str = ""


@dataclass
class Finding:
    """The first difference between two outcomes."""

    kind: str  # "type", "shape", "values", ...
    headline: str
    details: list[str] = field(default_factory=list)


@dataclass
class Result:
    """What the learner is told about one exercise."""

    exercise: Exercise
    state: str  # "solved", "wrong" or "to do"
    line: int = 1
    kind: str = ""  # of what is wrong
    mistake: str = ""  # title of the known mistake that it is
    message: str = ""
    printed: str = ""
    left: list[str] = field(default_factory=list)  # parts to do of an exercise that is begun

    @property
    def where(self) -> str:
        return f"{self.exercise.path}:{self.line}"


# Weights


def random_weights(module: nn.Module) -> None:
    """Gives every parameter random values that depend on its name only; norms and biases too."""
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            values = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 2
            parameter.copy_(values * (1.3 / fan_in**0.5))


def check_parameters(made, expected: nn.Module, name: str) -> None:
    """Raises a Problem if the learner's module does not have the parameters of the reference."""
    if not isinstance(made, nn.Module):
        raise Problem(f"{name} has to be an nn.Module, but it is a {type(made).__name__}.")
    theirs, ours = (
        dict(made.named_parameters(remove_duplicate=False)),
        dict(expected.named_parameters(remove_duplicate=False)),
    )
    missing = [key for key in ours if key not in theirs]
    extra = [key for key in theirs if key not in ours]
    buffers = [key for key in made.state_dict() if key not in theirs and key not in ours]
    if missing:
        key = missing[0]
        child = key.split(".")[0]
        shape = list(ours[key].shape)
        if child not in {other.split(".")[0] for other in theirs} and "." in key:
            attribute = getattr(made, child, None)
            headline = (
                f"{name} has no module `{child}` (it holds a {type(getattr(expected, child)).__name__})."
            )
            if isinstance(attribute, (list, tuple)):
                headline = (
                    f"`{child}` is a plain {type(attribute).__name__}: torch does not see the modules in it. "
                    "An nn.ModuleList shows them."
                )
            elif isinstance(attribute, nn.Module):
                headline = f"`{child}` is a {type(attribute).__name__} without parameters."
        elif key in made.state_dict():
            headline = f"`{key}` is a buffer, not an nn.Parameter: it would never be trained."
        elif isinstance(getattr(made, key, None), torch.Tensor):
            headline = f"`{key}` is a plain tensor: torch only sees it as a weight if it is an nn.Parameter."
        elif extra and "." in key and key.rsplit(".", 1)[0] + "." not in "".join(f"{k}." for k in theirs):
            headline = f"{name} has no `{key}`, which is in the checkpoint."
        else:
            headline = f"{name} has no parameter `{key}`, which is in the checkpoint."
        details = [f"Expected: `{key}` of shape {shape}."]
        if extra:
            details.append("It has instead: " + ", ".join(f"`{other}`" for other in extra[:6]) + ".")
        raise Problem(headline, details)
    if extra:
        raise Problem(
            f"{name} has a parameter `{extra[0]}` of shape {list(theirs[extra[0]].shape)}, "
            "which is not in the checkpoint."
        )
    if buffers:
        raise Problem(
            f"{name} has a buffer `{buffers[0]}`, which is not in the checkpoint.",
            ["register_buffer(..., persistent=False) keeps it out of what is saved and loaded."],
        )
    for key, parameter in ours.items():
        if theirs[key].shape != parameter.shape:
            turned = theirs[key].shape == parameter.shape[::-1]
            raise Problem(
                f"`{key}` of {name} has the shape {list(theirs[key].shape)}, but the checkpoint has "
                f"{list(parameter.shape)}" + (": input and output are swapped." if turned else ".")
            )


# Running one case


def leaves(value, path: str = "") -> list[tuple[str, object]]:
    """What is returned, taken apart: dicts, tuples and caches down to tensors and numbers."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value, key=str) for leaf in leaves(value[key], f"{path}[{key!r}]")]
    if isinstance(value, (list, tuple)):
        return [leaf for i, part in enumerate(value) for leaf in leaves(part, f"{path}[{i}]")]
    if hasattr(value, "key_cache") and hasattr(value, "value_cache"):
        return leaves(value.key_cache, path + ".key_cache") + leaves(value.value_cache, path + ".value_cache")
    return [(path, value)]


def frozen(value):
    """A copy to compare with later: what the inputs were, or what was returned."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Image.Image):
        return (value.mode, value.size, value.tobytes())
    if isinstance(value, (list, tuple)):
        return [frozen(part) for part in value]
    if isinstance(value, dict):
        return {key: frozen(part) for key, part in value.items()}
    return value if isinstance(value, (str, int, float, bool, type(None))) else None


def unchanged(before, after) -> bool:
    if isinstance(before, torch.Tensor):
        return (
            before.shape == after.shape
            and before.dtype == after.dtype
            and torch.equal(before.nan_to_num(), after.nan_to_num())
        )
    if isinstance(before, np.ndarray):
        return before.shape == after.shape and before.dtype == after.dtype and np.array_equal(before, after)
    if isinstance(before, list):
        return len(before) == len(after) and all(map(unchanged, before, after))
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(unchanged(before[key], after[key]) for key in before)
    return before == after


def default_make(exercise: Exercise, module: Module):
    return getattr(module, exercise.name)


def build(exercise: Exercise, case: Case, module: Module, expected: nn.Module | None):
    """The object that the case calls; an nn.Module gets the reference's weights, by name."""
    make = case.make or exercise.make or functools.partial(default_make, exercise)
    made = make(module)
    if expected is None:  # this is the reference itself
        if isinstance(made, nn.Module):
            random_weights(made)
            made.to(case.dtype)
        return made
    if isinstance(expected, nn.Module):
        check_parameters(made, expected, exercise.owner)
        with torch.no_grad():
            made.to(case.dtype)
            theirs = dict(made.named_parameters(remove_duplicate=False))
            for key, parameter in expected.named_parameters(remove_duplicate=False):
                theirs[key].copy_(parameter)
    for attribute in () if isinstance(made, type) else exercise.attributes:
        if not hasattr(made, attribute):
            raise Problem(
                f"{exercise.owner} has no attribute `{attribute}`, which the rest of the model reads."
            )
        value, right = getattr(made, attribute), getattr(expected, attribute)
        if isinstance(right, (int, float, str)) and (type(value) is not type(right) or value != right):
            raise Problem(f"`{attribute}` of {exercise.owner} is {value!r} instead of {right!r}.")
    return made


def observe(
    exercise: Exercise,
    case: Case,
    module: Module,
    path: str = "",
    lines: list[str] | None = None,
    expected: nn.Module | None = None,
) -> Outcome:
    """Runs a case in a module and keeps what came of it."""
    outcome = Outcome()
    inputs = case.inputs()
    before = frozen(inputs)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            made = build(exercise, case, module, expected)
            elsewhere = torch.device("meta") if case.other_device else contextlib.nullcontext()
            with elsewhere:
                value = case.call(made, **inputs) if case.call else made(*inputs.values())
        outcome.value = value
        outcome.changed = [name for name in inputs if not unchanged(before[name], frozen(inputs[name]))]
    except Problem as problem:
        outcome.problem = problem
    except BaseException as error:  # also exit() and TookTooLong
        outcome.error = error
        outcome.where = where(error, path, lines or [])
        error.__traceback__ = None  # it would keep all that the code under test has made
    outcome.printed = printed.getvalue()
    return outcome


@functools.cache
def reference_module(file: str) -> Module:
    return Module(vars(reference(file)))


_expected: dict[tuple[str, int], Outcome] = {}
_reference_objects: dict[tuple[str, int], object] = {}  # never called: only their weights are read


def expected_outcome(exercise: Exercise, index: int) -> Outcome:
    """The reference's outcome of a case."""
    key = (exercise.name, index)
    if key not in _expected:
        case = exercise.cases[index]
        _expected[key] = observe(exercise, case, reference_module(exercise.file))
    return _expected[key]


def observe_like_reference(exercise: Exercise, index: int, module: Module, file: LearnerFile) -> Outcome:
    """A case in the learner's module, with the weights of the reference."""
    case = exercise.cases[index]
    key = (exercise.name, index)
    if key not in _reference_objects:
        _reference_objects[key] = build(exercise, case, reference_module(exercise.file), None)
    expected = _reference_objects[key]
    return observe(exercise, case, module, str(file.path), file.lines, expected)


# Comparing two outcomes


def judge(expected: Outcome, got: Outcome, exercise: Exercise, case: Case) -> Finding | None:
    """The first difference, or None. The order is fixed: see the top of this file."""
    if got.problem is not None:
        return Finding("attribute", got.problem.headline, got.problem.details)
    if isinstance(got.error, TookTooLong):
        seconds = number(int(got.error.seconds), "second")
        return Finding(
            "time", f"your code was still running after {seconds}: a loop that never ends?", got.where
        )
    if expected.error is not None:
        return judge_error(expected.error, got)
    if got.error is not None:
        return describe_error(got, exercise, case)

    finding = judge_type(expected.value, got.value, exercise) or judge_leaves(
        expected.value, got.value, exercise, case, ("type", "shape", "dtype", "device")
    )
    if finding is None and got.changed != expected.changed:
        names = ", ".join(f"`{name}`" for name in got.changed if name not in expected.changed)
        finding = Finding(
            "changed",
            f"your code changes its input {names} in place.",
            [
                "Whoever called it still needs it as it was. Make a new tensor: `x = x + y`, not `x += y` "
                "or `x[...] = y` on an input."
            ],
        )
    return finding or judge_leaves(expected.value, got.value, exercise, case, ("values", "gradient"))


def judge_error(expected: BaseException, got: Outcome) -> Finding | None:
    name = type(expected).__name__
    if got.error is None:
        return Finding("error", f"a {name} has to be raised here, but nothing was.")
    if not isinstance(got.error, type(expected)):
        return Finding(
            "error",
            f"a {name} has to be raised here, but {type(got.error).__name__} was.",
            [*got.where, f"{type(got.error).__name__}: {got.error}"],
        )
    return None


def describe_error(got: Outcome, exercise: Exercise, case: Case) -> Finding:
    error = got.error
    if case.other_device and "meta" in str(error):
        return Finding(
            "device",
            "a tensor is made on another device than the input's: on a GPU this would fail.",
            [*got.where, "Say where a new tensor has to be: device=..."],
        )
    if isinstance(error, NotImplementedError) and str(error) == exercise.todo:
        return Finding(
            "error",
            "the `raise NotImplementedError` of the skeleton is still there: remove it, your lines take "
            "its place.",
            got.where[:2],
        )
    if isinstance(error, SystemExit):
        return Finding("error", "your code ends the program (exit or quit).", got.where)
    lines = str(error).splitlines()[:3] or [""]
    details = [*got.where, f"{type(error).__name__}: {lines[0]}", *(f"    {line}" for line in lines[1:])]
    if not got.where:
        details = [f"{type(error).__name__}: {lines[0]}"]
    return Finding(
        "error",
        f"your code stopped with {type(error).__name__}."
        if got.where
        else f"calling it failed with {type(error).__name__}.",
        details,
    )


KINDS = {
    torch.Tensor: "a torch tensor",
    np.ndarray: "a numpy array",
    type(None): "None",
    str: "a string",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    dict: "a dict",
    list: "a list",
    tuple: "a tuple",
}


def kind_of(value) -> str:
    return next(
        (words for kind, words in KINDS.items() if isinstance(value, kind)), f"a {type(value).__name__}"
    )


def judge_type(expected, got, exercise: Exercise, path: str = "") -> Finding | None:
    """Dicts have the same keys, tuples the same length, and so on down."""
    name = f"`{path}`" if path else "the result"
    sequence = (list, tuple)
    if got is None and expected is not None:
        return Finding("type", f"{name} is None instead of {kind_of(expected)}: is a `return` missing?")
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return Finding("type", f"{name} is {kind_of(got)} instead of a dict.")
        for key in expected:
            if key not in got:
                return Finding(
                    "type",
                    f"the returned dict has no {key!r}.",
                    [f"It has: {', '.join(map(repr, got)) or 'nothing'}."],
                )
        for key in got:
            if key not in expected:
                return Finding("type", f"the returned dict has a {key!r}, which was not asked for.")
        return next(
            filter(
                None, (judge_type(expected[key], got[key], exercise, f"{path}[{key!r}]") for key in expected)
            ),
            None,
        )
    if isinstance(expected, sequence):
        if not isinstance(got, sequence):
            return Finding("type", f"{name} is {kind_of(got)} instead of a tuple of {len(expected)}.")
        if len(got) != len(expected):
            return Finding("type", f"{name} has {len(got)} parts instead of {len(expected)}.")
        return next(
            filter(
                None,
                (
                    judge_type(e, g, exercise, f"{path}[{i}]")
                    for i, (e, g) in enumerate(zip(expected, got, strict=True))
                ),
            ),
            None,
        )
    if isinstance(got, (dict, *sequence)):
        return Finding("type", f"{name} is {kind_of(got)} instead of {kind_of(expected)}.")
    if hasattr(got, "key_cache") and not hasattr(expected, "key_cache"):
        return Finding("type", f"{name} is {kind_of(got)} instead of {kind_of(expected)}.")
    for attribute in ("key_cache", "value_cache"):
        if hasattr(expected, attribute):
            if not hasattr(got, attribute):
                return Finding("type", f"{name} is {kind_of(got)} instead of a {type(expected).__name__}.")
            finding = judge_type(
                getattr(expected, attribute),
                getattr(got, attribute),
                exercise,
                f"{path}.{attribute}".lstrip("."),
            )
            if finding:
                return finding
    return None


def judge_leaves(expected, got, exercise: Exercise, case: Case, kinds: tuple[str, ...]) -> Finding | None:
    """Checks each kind over all the tensors before the next kind."""
    pairs = list(zip(leaves(expected), leaves(got), strict=True))
    checks = {
        "type": leaf_type,
        "shape": leaf_shape,
        "dtype": leaf_dtype,
        "device": leaf_device,
        "values": leaf_values,
        "gradient": leaf_gradient,
    }
    for kind in kinds:
        for (path, right), (_, value) in pairs:
            letters = (
                exercise.result
                if isinstance(exercise.result, str)
                else next((text for key, text in exercise.result.items() if key in path), "")
            )
            name = f"`{path.lstrip('.')}` of the result" if path and len(pairs) > 1 else "the result"
            finding = checks[kind](right, value, name, letters, exercise, case)
            if finding:
                return finding
    return None


def leaf_type(right, value, name, letters, exercise, case) -> Finding | None:
    if isinstance(right, bool) or not isinstance(right, (int, float)):
        fits = isinstance(value, type(right)) or (
            isinstance(right, torch.Tensor) and isinstance(value, torch.Tensor)
        )
    else:
        fits = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        fits = fits and (not isinstance(right, int) or isinstance(value, (int, np.integer)))
    return None if fits else Finding("type", f"{name} is {kind_of(value)} instead of {kind_of(right)}.")


def leaf_shape(right, value, name, letters, exercise, case) -> Finding | None:
    if not hasattr(right, "shape") or tuple(right.shape) == tuple(value.shape):
        return None
    axes = letters.split()
    meaning = f" = [{', '.join(axes)}]" if len(axes) == len(right.shape) else ""
    finding = Finding(
        "shape", f"{name} has the shape {list(value.shape)} instead of {list(right.shape)}{meaning}."
    )
    order = permutation(tuple(right.shape), tuple(value.shape))
    if order is not None:
        as_array = to_array(value).transpose(order)
        same = distance(to_array(right), as_array, tolerance_of(case, right)) <= 1
        finding.details.append(
            f"These are the right sizes in another order: .permute{order} would fix the order"
            + (
                ", and then the values are right too."
                if same
                else ", but the values would still be wrong: they were mixed up earlier."
            )
        )
    elif np.prod(right.shape) == np.prod(value.shape):
        finding.details.append("The number of values is right, but they are cut into other sizes.")
        names = [
            f"axis {i}" + (f" ({axes[i]})" if meaning else "")
            for i in range(len(right.shape))
            if len(right.shape) == len(value.shape) and right.shape[i] != value.shape[i]
        ]
        if len(names) == 2:
            finding.details.append(
                f"Look at {names[0]} and {names[1]}: was something joined or cut along the wrong one?"
            )
    return finding


def permutation(right: tuple, got: tuple) -> tuple | None:
    if sorted(right) != sorted(got) or len(set(right)) < len(right):
        return None
    return tuple(got.index(size) for size in right)


def leaf_dtype(right, value, name, letters, exercise, case) -> Finding | None:
    if not hasattr(right, "dtype") or right.dtype == value.dtype:
        return None
    short = (str(value.dtype).removeprefix("torch."), str(right.dtype).removeprefix("torch."))
    return Finding("dtype", f"{name} is {short[0]} instead of {short[1]}.")


def leaf_device(right, value, name, letters, exercise, case) -> Finding | None:
    if not isinstance(right, torch.Tensor) or right.device == value.device:
        return None
    return Finding(
        "device",
        f"{name} is not on the device of the input: on a GPU this would fail.",
        ["Say where a new tensor has to be (device=...), or make it from another one (new_zeros)."],
    )


def leaf_values(right, value, name, letters, exercise, case) -> Finding | None:
    if not hasattr(right, "shape"):
        is_float = isinstance(right, float)
        same = abs(right - value) <= 1e-5 * (1 + abs(right)) if is_float else right == value
        return None if same else Finding("values", f"{name} is {value!r}", [f"instead of {right!r}."])
    tolerance = tolerance_of(case, right)
    right_array, array = to_array(right), to_array(value)
    exact = case.exact if isinstance(right, torch.Tensor) and right.dtype == torch.bfloat16 else 0.0
    if distance(right_array, array, tolerance) <= 1 and (not exact or (right_array == array).mean() >= exact):
        return None
    return Finding(
        "values",
        f"the values of {name} are wrong.",
        describe_values(right_array, array, tolerance, letters, exercise.sizes, exact),
    )


def leaf_gradient(right, value, name, letters, exercise, case) -> Finding | None:
    if not isinstance(right, torch.Tensor) or not right.requires_grad or value.requires_grad:
        return None
    return Finding(
        "gradient",
        f"{name} is right, but no gradient can flow back: the model could not be trained.",
        ["Something like .detach(), .data, .numpy() or torch.tensor(...) cuts it off."],
    )


def tolerance_of(case: Case, right) -> float:
    if case.tolerance is not None:
        return case.tolerance
    return 2e-2 if getattr(right, "dtype", None) in (torch.bfloat16, torch.float16) else 1e-5


def to_array(value) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu() if value.device.type != "meta" else torch.zeros(value.shape)
        return (value.double() if value.dtype != torch.bool else value).numpy()
    return value


# A time limit that works on every system


def with_time_limit(function, seconds: float, path: str, lines: list[str]):
    """Runs a function in a thread. Code that does not end is stopped there by an exception;
    if it does not even notice that (it sleeps, or catches everything), it is abandoned.

    The seconds are those that this process computes, so that a busy machine is not taken for an
    endless loop; for code that only waits they are six times as many of the clock's."""
    result: dict = {}

    def work():
        try:
            result["value"] = function()
        except BaseException as error:
            result["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    last_computed, last_moment = time.process_time() + seconds, time.monotonic() + 6 * seconds
    while thread.is_alive() and time.process_time() < last_computed and time.monotonic() < last_moment:
        thread.join(0.05)
    stuck = sys._current_frames().get(thread.ident) if thread.is_alive() else None
    found = []
    while stuck is not None:
        if stuck.f_code.co_filename == path:
            found = place(stuck, stuck.f_lineno, lines)
            break
        stuck = stuck.f_back
    for _ in range(3):
        if not thread.is_alive():
            break
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(TookTooLong)
        )
        thread.join(1)
    if "value" in result:
        return result["value"]
    error = result.get("error")
    if error is None or isinstance(error, TookTooLong):
        return Outcome(error=TookTooLong(), where=found)
    raise error


# One exercise


def check(
    exercise: Exercise, file: LearnerFile, others: dict[str, Exercise], seconds: float | None = None
) -> Result:
    """Tries the learner's definition: solved, wrong (with a message), or to do."""
    seconds = SECONDS if seconds is None else seconds
    result = Result(exercise, "wrong", line=file.line_of(exercise))
    untouched = file.untouched_parts(exercise)
    if len(untouched) == len(exercise.parts):
        result.state = "to do"
        return result

    def run() -> list[Outcome]:
        module = file.module_for(exercise, others)
        outcomes = []
        for index in range(len(exercise.cases)):
            outcomes.append(observe_like_reference(exercise, index, module, file))
            if isinstance(outcomes[-1].error, TookTooLong):
                break
        return outcomes

    try:
        outcomes = with_time_limit(run, seconds, str(file.path), file.lines)
    except Problem as problem:
        result.kind = "definition"
        result.message = compose(exercise, result, problem.headline, "", problem.details)
        return result
    if isinstance(outcomes, Outcome):  # left behind by the time limit
        outcomes = [outcomes]
    for outcome in outcomes:
        if isinstance(outcome.error, TookTooLong):
            outcome.error.seconds = seconds
    result.printed = outcomes[0].printed

    finding = None
    for index, outcome in enumerate(outcomes):
        finding = judge(expected_outcome(exercise, index), outcome, exercise, exercise.cases[index])
        if finding:
            break
    if finding is None:
        result.state = "solved"
        return result
    if untouched and not_begun(outcomes[index]):
        result.state, result.left = "to do", untouched
        return result

    mistake = recognise(exercise, outcomes, index, others)
    cause = f"This is what comes out {mistake.title}: {mistake.message}" if mistake else ""
    result.kind, result.mistake = finding.kind, mistake.title if mistake else ""
    result.printed = outcomes[index].printed
    details = list(finding.details)
    if len(exercise.cases) > 1 and finding.kind not in ("attribute", "time"):
        details.append(
            f"The case: {exercise.cases[index].about}."
            + (f" ({index} of {len(exercise.cases)} cases passed.)" if index else "")
        )
    twice = file.twice(exercise)
    if twice:
        details.append(
            f"It is defined more than once, in lines {', '.join(map(str, twice))}: Python takes the last."
        )
    if result.printed:
        printed = result.printed.splitlines()
        details.append("Your code printed:")
        details += [f"    {line}" for line in printed[:10]]
        if len(printed) > 10:
            details.append(f"    ... and {number(len(printed) - 10, 'more line')}")
    result.message = compose(exercise, result, finding.headline, cause, details)
    return result


def not_begun(outcome: Outcome) -> bool:
    """Did it only get as far as a part that is not done yet?"""
    return isinstance(outcome.error, NotImplementedError) and "is not done yet" in str(outcome.error)


def compose(exercise: Exercise, result: Result, headline: str, cause: str, details: list[str]) -> str:
    """The message: what is wrong, the likely cause, then the numbers."""
    if headline.split()[0].isalpha():  # not the name of a file, and not code
        headline = headline[0].upper() + headline[1:]
    lines = [f"{exercise.name} ({result.where})", "", f"  {headline}"]
    if cause:
        lines += [f"  {cause}"]
    lines += ["", *(f"    {line}" for line in details)] if details else []
    if result.kind != "definition":
        lines += ["", f"  A hint: python -m course.hint {exercise.name}"]
    return "\n".join(lines)


# Known mistakes

_mistaken: dict[tuple[str, int, int], Outcome] = {}
_mistaken_modules: dict[tuple[str, int], tuple[Module, LearnerFile]] = {}


def mistaken_outcome(exercise: Exercise, mistake: int, index: int, others: dict[str, Exercise]) -> Outcome:
    """What a known mistake comes to in a case."""
    key = (exercise.name, mistake, index)
    if key not in _mistaken:
        if key[:2] not in _mistaken_modules:
            file = variant_file(exercise, exercise.mistakes[mistake].change)
            _mistaken_modules[key[:2]] = (file.module_for(exercise, others), file)
            file.tree = None  # it is large, and of no more use
        _mistaken[key] = observe_like_reference(exercise, index, *_mistaken_modules[key[:2]])
    return _mistaken[key]


def variant_file(exercise: Exercise, change: dict[str, str] | str) -> LearnerFile:
    """The reference's file with a change in one exercise, as if it were the learner's."""
    return LearnerFile(exercise.file, apply_change(reference_source(exercise.file), exercise, change))


def alike(one: Outcome, other: Outcome, exercise: Exercise, case: Case, closely: bool = False) -> bool:
    """Nothing differs, and if both stopped with an error, they said the same."""
    if (one.error is None) != (other.error is None) or (one.problem is None) != (other.problem is None):
        return False
    if one.error is not None:
        return type(one.error) is type(other.error) and str(one.error) == str(other.error)
    if one.problem is not None:
        return one.problem.headline == other.problem.headline and (
            not closely or one.problem.details == other.problem.details
        )
    return judge(one, other, exercise, case) is None and one.changed == other.changed


def recognise(exercise: Exercise, outcomes: list[Outcome], first: int, others: dict[str, Exercise]):
    """The known mistake that comes to the same as the learner's code: in every case if there is
    one, or else in the first case that is wrong (there may be a second mistake)."""
    candidates = [
        i
        for i in range(len(exercise.mistakes))
        if alike(
            mistaken_outcome(exercise, i, first, others), outcomes[first], exercise, exercise.cases[first]
        )
    ]
    for i in candidates:
        if all(
            alike(
                mistaken_outcome(exercise, i, index, others),
                outcome,
                exercise,
                exercise.cases[index],
                closely=True,
            )
            for index, outcome in enumerate(outcomes)
        ):
            return exercise.mistakes[i]
    return exercise.mistakes[candidates[0]] if candidates else None
