"""Names the first difference between what the learner's code came to in a case and what it should.

The order is fixed: type, attribute or parameter, shape, dtype, device, input changed, values, gradient.
"""

import re

import numpy as np
import torch
from PIL import Image

from course.differences import counted, describe_values, distance
from course.exercise import Case, Exercise
from course.outcome import Flaw, Outcome, TookTooLong


def leaves(value, path: str = "") -> list[tuple[str, object]]:
    """What is returned, taken apart: dicts, tuples and caches down to tensors and numbers."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value, key=str) for leaf in leaves(value[key], f"{path}[{key!r}]")]
    if isinstance(value, (list, tuple)):
        return [leaf for i, part in enumerate(value) for leaf in leaves(part, f"{path}[{i}]")]
    if hasattr(value, "key_cache") and hasattr(value, "value_cache"):
        return leaves(value.key_cache, path + ".key_cache") + leaves(value.value_cache, path + ".value_cache")
    return [(path, value)]


@np.errstate(all="ignore")
def judge(expected: Outcome, got: Outcome, exercise: Exercise, case: Case) -> Flaw | None:
    """The first difference, or None. The order is fixed: see the top of this file."""
    if got.flaw is not None:
        return got.flaw
    if isinstance(got.error, TookTooLong):
        seconds = counted(int(got.error.seconds), "second")
        return Flaw(
            "time", f"your code was still running after {seconds}: a loop that never ends?", got.stopped_at
        )
    if expected.error is not None:
        return judge_changed(expected, got) or judge_error(expected.error, got)
    if got.error is not None:
        return describe_error(got, exercise, case)

    flaw = judge_type(expected.value, got.value, exercise) or judge_leaves(
        expected.value, got.value, exercise, case, ("type", "shape", "dtype", "device")
    )
    flaw = flaw or judge_changed(expected, got)
    flaw = flaw or judge_leaves(expected.value, got.value, exercise, case, ("values", "gradient"))
    return flaw or judge_gradients(expected, got)


def judge_gradients(expected: Outcome, got: Outcome) -> Flaw | None:
    """Part of what is trained may be cut off although the result as a whole has a gradient."""
    cut = [name for name, size in expected.gradients.items() if size and not got.gradients.get(name, size)]
    if cut:
        more = f" and {len(cut) - 3} others" if len(cut) > 3 else ""
        shown = ", ".join(f"`{name}`" for name in cut[:3])
        return Flaw(
            "gradient",
            f"the result is right, but no gradient reaches {shown}{more}: the model could not be trained.",
            ["Something like .detach(), .data or torch.no_grad() cuts it off."],
        )
    # There may be two ways to a weight, as to one that is tied, or to an input, as to one with a residual.
    # Which of two equal halves of cos and sin is read may differ in right code.
    largest = max(expected.gradients.values(), default=0.0)
    partly = [
        name
        for name, size in expected.gradients.items()
        if name not in ("cos", "sin")
        and abs(got.gradients.get(name, size) - size) > 0.02 * size + 1e-4 * largest
    ]
    if not partly:
        return None
    shown = ", ".join(f"`{name}`" for name in partly[:3])
    return Flaw(
        "gradient",
        f"the result is right, but not all of the gradient reaches {shown}: it would be trained wrongly.",
        ["Something like .detach(), .data or torch.no_grad() cuts off one of the ways to it."],
    )


# What to say of things that are handed out and have to stay as they were.
LEFT_AS_IT_WAS = {
    "tokenizer": "Whoever made it uses it elsewhere, too: it must not gain tokens, padding or truncation.",
    "config": "All parts of the model read the same config: keep values of your own in `self`.",
    "kv_cache": "The keys and values that it held belong to earlier tokens: join them with the new ones "
    "in a new tensor.",
}


def judge_changed(expected: Outcome, got: Outcome) -> Flaw | None:
    names = [name for name in got.changed if name not in expected.changed]
    if not names or any("." in name for name in expected.changed):  # weights that are trained in the case
        return None
    shown = ", ".join(f"`{name}`" for name in names[:3])
    if "weight" in names[0] or "bias" in names[0]:
        headline = f"your code changes its own weights when it is called: {shown}."
        advice = "They are learned, or come from the checkpoint. Make a new tensor."
    else:
        held = "what was in " if names[0] == "kv_cache" else ""
        headline = f"your code changes {held}{'its input ' if not held else ''}{shown} in place."
        advice = LEFT_AS_IT_WAS.get(
            names[0],
            "Whoever called it still needs it as it was. Make a new tensor: `x = x + y`, not `x += y` "
            "or `x[...] = y` on an input.",
        )
    return Flaw("changed", headline, [advice])


def judge_error(expected: BaseException, got: Outcome) -> Flaw | None:
    name = type(expected).__name__
    if got.error is None:
        return Flaw("error", f"a {name} has to be raised here, but nothing was.")
    if not isinstance(got.error, type(expected)):
        return Flaw(
            "error",
            f"a {name} has to be raised here, but {type(got.error).__name__} was.",
            [*got.stopped_at, f"{type(got.error).__name__}: {got.error}"],
        )
    return None


def describe_error(got: Outcome, exercise: Exercise, case: Case) -> Flaw:
    error = got.error
    if case.other_device and "meta" in str(error):
        return Flaw(
            "device",
            "a tensor is made on another device than the input's: on a GPU this would fail.",
            [*got.stopped_at, "Say where a new tensor has to be: device=..."],
        )
    if isinstance(error, NotImplementedError) and str(error) == exercise.todo:
        return Flaw(
            "error",
            "the `raise NotImplementedError` of the skeleton is still there: remove it, your lines take "
            "its place.",
            got.stopped_at[:2],
        )
    if isinstance(error, SystemExit):
        return Flaw("error", "your code ends the program (exit or quit).", got.stopped_at)
    if "before Module.__init__() call" in str(error):
        return Flaw(
            "error",
            "`super().__init__()` is missing: without it, torch cannot keep modules and weights.",
            [*got.stopped_at[:2], "It was the first line of __init__ in the skeleton: put it back."],
        )
    lines = (got.said or f"{type(error).__name__}: {error}").splitlines()[:3]
    unexpected = re.search(r"got an unexpected keyword argument '(\w+)'", str(error))
    if unexpected and not got.stopped_at:
        return Flaw(
            "signature",
            f"it is called with the keyword `{unexpected[1]}`, but has no such parameter: was it renamed?",
            [lines[0]],
        )
    details = [*got.stopped_at, lines[0], *(f"    {line}" for line in lines[1:])]
    return Flaw(
        "error",
        f"your code stopped with {type(error).__name__}."
        if got.stopped_at
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


def parts_in_words(expected: list | tuple) -> str:
    """`a tuple of 2`, and of a list that grows with the layers: `a list with one tensor`."""
    if isinstance(expected, tuple):
        return f"a tuple of {len(expected)}"
    thing = "tensor" if all(isinstance(part, torch.Tensor) for part in expected) else "part"
    return f"a list with {'one' if len(expected) == 1 else len(expected)} {thing}{'s' * (len(expected) != 1)}"


def judge_type(expected, got, exercise: Exercise, path: str = "") -> Flaw | None:
    """Dicts have the same keys, tuples the same length, and so on down."""
    name = f"`{path}`" if path else "the result"
    sequence = (list, tuple)
    if got is None and expected is not None:
        return Flaw("type", f"{name} is None instead of {kind_of(expected)}: is a `return` missing?")
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return Flaw("type", f"{name} is {kind_of(got)} instead of a dict.")
        for key in expected:
            if key not in got:
                return Flaw(
                    "type",
                    f"the returned dict has no {key!r}.",
                    [f"It has: {', '.join(map(repr, got)) or 'nothing'}."],
                )
        for key in got:
            if key not in expected:
                return Flaw("type", f"the returned dict has a {key!r}, which was not asked for.")
        return next(
            filter(
                None, (judge_type(expected[key], got[key], exercise, f"{path}[{key!r}]") for key in expected)
            ),
            None,
        )
    if isinstance(expected, sequence):
        if not isinstance(got, sequence):
            return Flaw("type", f"{name} is {kind_of(got)} instead of {parts_in_words(expected)}.")
        if len(got) != len(expected):
            layers = ", one for each layer so far" if path.endswith("_cache") else ""
            return Flaw(
                "type",
                f"{name} has {len(got)} part{'s' * (len(got) != 1)} instead of {len(expected)}{layers}.",
            )
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
        return Flaw("type", f"{name} is {kind_of(got)} instead of {kind_of(expected)}.")
    if hasattr(got, "key_cache") and not hasattr(expected, "key_cache"):
        return Flaw("type", f"{name} is {kind_of(got)} instead of {kind_of(expected)}.")
    for attribute in ("key_cache", "value_cache"):
        if hasattr(expected, attribute):
            if not hasattr(got, attribute):
                return Flaw("type", f"{name} is {kind_of(got)} instead of a {type(expected).__name__}.")
            flaw = judge_type(
                getattr(expected, attribute),
                getattr(got, attribute),
                exercise,
                f"{path}.{attribute}".lstrip("."),
            )
            if flaw:
                return flaw
    return None


def judge_leaves(expected, got, exercise: Exercise, case: Case, kinds: tuple[str, ...]) -> Flaw | None:
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
            name = (
                f"`{path.lstrip('.')}` of the result"
                if path and (len(pairs) > 1 or " " in path)
                else "the result"
            )
            flaw = checks[kind](right, value, name, letters, exercise, case)
            if flaw:
                return flaw
    return None


def leaf_type(right, value, name, letters, exercise, case) -> Flaw | None:
    if isinstance(right, bool) or not isinstance(right, (int, float)):
        fits = isinstance(value, type(right)) or (
            isinstance(right, torch.Tensor) and isinstance(value, torch.Tensor)
        )
    else:
        fits = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        fits = fits and (not isinstance(right, int) or isinstance(value, (int, np.integer)))
    return None if fits else Flaw("type", f"{name} is {kind_of(value)} instead of {kind_of(right)}.")


def leaf_shape(right, value, name, letters, exercise, case) -> Flaw | None:
    if not hasattr(right, "shape") or tuple(right.shape) == tuple(value.shape):
        return None
    axes = letters.split()
    meaning = f" = [{', '.join(axes)}]" if len(axes) == len(right.shape) else ""
    flaw = Flaw("shape", f"{name} has the shape {list(value.shape)} instead of {list(right.shape)}{meaning}.")
    order = permutation(tuple(right.shape), tuple(value.shape))
    if order is not None:
        as_array = to_array(value).transpose(order)
        same = distance(to_array(right), as_array, tolerance_of(case, right)) <= 1
        flaw.details.append(
            f"These are the right sizes in another order: .permute{order} would fix the order"
            + (
                ", and then the values are right too."
                if same
                else ", but the values would still be wrong: they were mixed up earlier."
            )
        )
    elif np.prod(right.shape) == np.prod(value.shape):
        flaw.details.append("The number of values is right, but they are cut into other sizes.")
        names = [
            f"axis {i}" + (f" ({axes[i]})" if meaning else "")
            for i in range(len(right.shape))
            if len(right.shape) == len(value.shape) and right.shape[i] != value.shape[i]
        ]
        if len(names) == 2:
            flaw.details.append(
                f"Look at {names[0]} and {names[1]}: was something joined or cut along the wrong one?"
            )
    if order is None and len(right.shape) == len(value.shape):
        known = sizes_of(case.inputs())
        for one, other in zip(right.shape, value.shape, strict=True):
            alike = [words for size, words in known if size == other and size != one]
            if one != other and len(alike) == 1:
                flaw.details.append(
                    f"{other} is the size of {alike[0]}." if "axis" in alike[0] else f"{other} is {alike[0]}."
                )
    return flaw


def sizes_of(inputs: dict) -> list[tuple[int, str]]:
    """The sizes of what goes in, to recognize one that came out: (31, "the width of `image`")."""
    found = []
    for name, value in inputs.items():
        if isinstance(value, Image.Image):
            found += [(value.width, f"the width of `{name}`"), (value.height, f"the height of `{name}`")]
        elif hasattr(value, "shape"):
            found += [(size, f"axis {i} of `{name}`") for i, size in enumerate(value.shape) if size > 1]
        elif isinstance(value, int) and not isinstance(value, bool):
            found.append((value, f"`{name}`"))
    return found


def permutation(right: tuple, got: tuple) -> tuple | None:
    if sorted(right) != sorted(got) or len(set(right)) < len(right):
        return None
    return tuple(got.index(size) for size in right)


def leaf_dtype(right, value, name, letters, exercise, case) -> Flaw | None:
    if not hasattr(right, "dtype") or right.dtype == value.dtype:
        return None
    short = (str(value.dtype).removeprefix("torch."), str(right.dtype).removeprefix("torch."))
    return Flaw("dtype", f"{name} is {short[0]} instead of {short[1]}.")


def leaf_device(right, value, name, letters, exercise, case) -> Flaw | None:
    if not isinstance(right, torch.Tensor):
        return None
    if right.device == value.device and not getattr(value, "is_left", False):  # see other_device.py
        return None
    return Flaw(
        "device",
        f"{name} is not on the device of the input: on a GPU this would fail.",
        ["Say where a new tensor has to be (device=...), or make it from another one (new_zeros)."],
    )


def leaf_values(right, value, name, letters, exercise, case) -> Flaw | None:
    if not hasattr(right, "shape") and right is True and (claim := re.fullmatch(r".*\['(.* .*)'\].*", name)):
        return None if value is True else Flaw("values", f"this has to hold, and does not: {claim[1]}.")
    if not hasattr(right, "shape"):
        is_float = isinstance(right, float)
        same = abs(right - value) <= 1e-5 * (1 + abs(right)) if is_float else right == value
        if same:
            return None
        return Flaw("values", f"{name} is {value!r}", [f"instead of {right!r}.", *what_is_text(right, value)])
    tolerance = tolerance_of(case, right)
    right_array, array = to_array(right), to_array(value)
    exact = case.exact if isinstance(right, torch.Tensor) and right.dtype == torch.bfloat16 else 0.0
    if distance(right_array, array, tolerance) <= 1 and (not exact or (right_array == array).mean() >= exact):
        return None
    return Flaw(
        "values",
        f"the values of {name} are wrong.",
        describe_values(right_array, array, tolerance, letters, exercise.sizes, exact),
    )


def what_is_text(right, value) -> list[str]:
    """How a wrong string or number has to do with the right one."""
    if isinstance(right, str) and isinstance(value, str) and right != value:
        if value and value in right:
            place = (
                "the end"
                if right.startswith(value)
                else "the beginning"
                if right.endswith(value)
                else "both ends"
            )
            return [f"It is the right text, with something missing at {place}."]
        if right and right in value:
            place = (
                "end" if value.startswith(right) else "beginning" if value.endswith(right) else "both ends"
            )
            return [f"It is the right text, with too much at its {place}."]
        if sorted(right) == sorted(value):
            return ["The letters are right, but in another order."]
        if right.strip() == value.strip():
            return ["They differ only in the spaces around them."]
    # A right number of tokens is not twice a wrong one, but for chance: only what is measured has a ratio.
    is_measured = isinstance(right, float) and isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_measured and right and value and np.isfinite(float(value)):
        ratio = value / right
        if abs(ratio) != 1 and (abs(ratio - round(ratio)) < 1e-6 or abs(1 / ratio - round(1 / ratio)) < 1e-6):
            return [f"It is {ratio:.6g} times what it should be."]
    return []


def leaf_gradient(right, value, name, letters, exercise, case) -> Flaw | None:
    if not isinstance(right, torch.Tensor) or not right.requires_grad or value.requires_grad:
        return None
    return Flaw(
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
        return (value.double() if value.is_floating_point() else value).numpy()
    return value
