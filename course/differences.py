"""Puts the difference of two arrays into words: how large, where, and what still holds."""

import numpy as np


def distance(right: np.ndarray, got: np.ndarray, tolerance: float) -> float:
    """The largest difference, as a multiple of what is tolerated: up to 1 they count as equal.

    Tolerated is tolerance * (size of the value + usual size of all values), so that small values
    among large ones need not be more accurate than the arithmetic allows.
    """
    ratios = error_ratios(right, got, tolerance)
    return float(ratios.max()) if ratios.size else 0.0


def error_ratios(right: np.ndarray, got: np.ndarray, tolerance: float) -> np.ndarray:
    if right.dtype.kind not in "fc":  # whole numbers, True and False: equal or not
        return np.where(right == got, 0.0, np.inf)
    right, got = right.astype(np.float64), got.astype(np.float64)
    finite = right[np.isfinite(right)]
    usual = np.sqrt(np.mean(finite**2)) if finite.size else 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        ratios = np.asarray(np.abs(got - right) / (tolerance * (np.abs(right) + usual) + 1e-30))
    ratios[(got == right) | (np.isnan(got) & np.isnan(right))] = 0.0
    ratios[np.isnan(ratios)] = np.inf
    return ratios


def counted(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")


def show(value) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def describe_values(
    right: np.ndarray,
    got: np.ndarray,
    tolerance: float,
    letters: str,
    sizes: dict[str, int],
    exact: float = 0.0,
) -> list[str]:
    """Lines for a learner whose values are wrong though shape and dtype are right."""
    ratios = error_ratios(right, got, tolerance)
    wrong = ratios > 1
    if exact and not wrong.any():
        share = (right == got).mean()
        return [
            f"They are right to about two digits, but only {share:.0%} of them to the last bit: something is "
            "rounded to bfloat16 at another step. Which steps have to be in float32, and which numbers in "
            "the dtype of the input?"
        ]
    if right.ndim == 0:
        return [f"It is {show(got[()])} instead of {show(right[()])}."]
    axes = letters.split() if len(letters.split()) == right.ndim else []
    lines = []
    if got.dtype.kind == "f" and np.isnan(got).any():
        lines.append(
            f"{np.isnan(got).mean():.0%} of the values are NaN: something like 0 / 0, inf - inf, "
            "the root of a negative number, or a softmax over nothing but -inf."
        )
    place = np.unravel_index(np.argmax(np.where(np.isnan(ratios), np.inf, ratios)), right.shape)
    if right.dtype.kind == "f":
        finite = np.abs(np.where(np.isfinite(got), got, 0.0) - right)
        place = np.unravel_index(np.argmax(finite), right.shape) if not np.isnan(got).any() else place
        lines.append(
            f"Largest difference at {position(place, axes)}: {show(got[place])} instead of "
            f"{show(right[place])}."
        )
    else:
        lines.append(
            f"First difference at {position(np.argwhere(wrong)[0], axes)}: "
            f"{got[tuple(np.argwhere(wrong)[0])]} instead of {right[tuple(np.argwhere(wrong)[0])]}."
        )
    lines.append(f"Right: {1 - wrong.mean():.0%} of {counted(right.size, 'value')}.")
    if right.dtype.kind == "b" and right.ndim >= 2 and right.shape[-1] <= 24:
        lines += side_by_side(right, got, wrong)
    return lines + what_holds(right, got, wrong, tolerance, axes, sizes)


def position(index, axes: list[str]) -> str:
    numbers = "[" + ", ".join(str(int(i)) for i in index) + "]"
    return f"[{', '.join(axes)}] = {numbers}" if axes else numbers


def side_by_side(right: np.ndarray, got: np.ndarray, wrong: np.ndarray) -> list[str]:
    """A mask of zeros and ones, next to the right one: the first that is wrong of a batch."""
    first = tuple(np.argwhere(wrong)[0][:-2])
    lines = (
        [f"At {position(first, [])}, yours and the right one:"] if first else ["Yours, and the right one:"]
    )
    for row, right_row in zip(got[first], right[first], strict=True):
        lines.append(
            "    " + "".join("01"[int(x)] for x in row) + "   " + "".join("01"[int(x)] for x in right_row)
        )
    return lines


def what_holds(
    right: np.ndarray,
    got: np.ndarray,
    wrong: np.ndarray,
    tolerance: float,
    axes: list[str],
    sizes: dict[str, int],
) -> list[str]:
    """What is still right about it."""
    lines = []
    for axis in range(right.ndim):
        others = tuple(i for i in range(right.ndim) if i != axis)
        wrong_here = wrong.any(axis=others)
        if right.shape[axis] > 1 and wrong_here.any() and not wrong_here.all():
            name = axis_name(axis, axes)
            lines.append(f"Along {name}: right at {ranges(~wrong_here)}, wrong at {ranges(wrong_here)}.")
    if not np.isfinite(got).all() or right.size < 2:
        return lines
    if right.dtype.kind != "f":
        found = [] if right.dtype.kind == "b" else up_to_a_constant(right, got, 0)
        found = found or same_numbers(right, got) or moved(right, got, tolerance, axes)
        return lines + (found or mixed_up(right, got))

    factor = float((got * right).sum() / max((right * right).sum(), 1e-30))
    if factor and distance(right * factor, got, 10 * tolerance) <= 1:
        return [
            *lines,
            f"All values are right up to a factor: {show(abs(factor))} times what they should be"
            f"{' and with the sign flipped' if factor < 0 else ''}{known_factor(abs(factor), sizes)}."
            if abs(factor) != 1
            else "Every sign is flipped; apart from that, the values are right.",
        ]
    if found := up_to_a_constant(right, got, 10 * tolerance):
        return lines + found
    if np.allclose(np.abs(got), np.abs(right), rtol=10 * tolerance, atol=tolerance):
        return [
            *lines,
            f"The sizes are right, but {(np.sign(got) != np.sign(right)).mean():.0%} "
            "of the signs are flipped.",
        ]
    found = (
        same_numbers(right, got)
        or moved(right, got, tolerance, axes)
        or mixed_up(right, got)
        or row_by_row(right, got, tolerance, axes)
    )
    if not found and abs((got - right).mean()) < 1e-3 * right.std() and right.std() > 0:
        found = ["The values are right on average."]
    return lines + found


def up_to_a_constant(right: np.ndarray, got: np.ndarray, tolerance: float) -> list[str]:
    difference = got.astype(np.float64) - right
    shift = float(difference.mean())
    if distance(right + shift, right + difference, tolerance) > 1:
        return []
    amount = show(abs(shift)) if right.dtype.kind == "f" else f"{abs(shift):.0f}"
    return [f"All values are right up to a constant: {amount} too {'large' if shift > 0 else 'small'}."]


def axis_name(axis: int, axes: list[str]) -> str:
    return f"axis {axis}" + (f" ({axes[axis]})" if axes else "")


def moved(right: np.ndarray, got: np.ndarray, tolerance: float, axes: list[str]) -> list[str]:
    """Are they the right values, but one or two places later or earlier; or all alike along an axis?"""
    if right.dtype.kind == "b":
        return []
    if got.size > 1 and (got == got.flat[0]).all():
        return [f"All of them are the same number: {show(got.flat[0])}."]
    for axis in range(right.ndim):
        size = right.shape[axis]
        for steps in (1, -1, 2, -2):
            if size < abs(steps) + 2:
                continue
            first, last = (
                slice(max(0, s), size + min(0, s)) for s in (-steps, steps)
            )  # places that both have
            there = (slice(None),) * axis
            if distance(right[(*there, first)], got[(*there, last)], tolerance) <= 1:
                way = "late" if steps > 0 else "early"
                return [
                    f"These are the right values, {counted(abs(steps), 'place')} too {way} along "
                    f"{axis_name(axis, axes)}."
                ]
        one = np.take(got, [0], axis)
        alike = size > 1 and distance(one + 0 * got, got, tolerance) <= 1
        if alike and distance(np.take(right, [0], axis) + 0 * right, right, tolerance) > 1:
            return [f"Along {axis_name(axis, axes)}, all are alike: they should differ."]
    return []


def row_by_row(right: np.ndarray, got: np.ndarray, tolerance: float, axes: list[str]) -> list[str]:
    """Are they right up to a factor or a constant that depends on the place along some axes only?"""
    if right.ndim < 2:
        return []
    every = range(right.ndim)
    names = [axis_name(axis, axes) for axis in every]
    kinds = [
        (tuple(i for i in every if i != axis), f"depends on the place along {names[axis]} alone")
        for axis in every
    ]
    kinds += [((axis,), f"is the same along {names[axis]}, and another one in each row") for axis in every]
    for over, words in kinds:
        count = np.prod([right.shape[axis] for axis in over])
        if count < 3 or count == right.size:
            continue
        sizes = (right * right).sum(over, keepdims=True)
        factors = (got * right).sum(over, keepdims=True) / np.where(sizes > 0, sizes, 1.0)
        if distance(right * factors, got, 10 * tolerance) <= 1:
            return [f"All values are right up to a factor that {words}."]
        shifts = (got - right).mean(over, keepdims=True)
        if distance(right + shifts, got, 10 * tolerance) <= 1:
            return [f"All values are right up to a constant that {words}."]
    return []


def same_numbers(right: np.ndarray, got: np.ndarray) -> list[str]:
    """The right values in other places: transposed or reversed."""
    if right.size < 2 or not np.isfinite(got.astype(float)).all():
        return []
    for axis in range(right.ndim):
        if right.shape[axis] > 1 and alike(right, np.flip(got, axis)):
            return [f"These are the right values in reverse order along axis {axis}."]
    for one in range(right.ndim):
        for other in range(one):
            if right.shape[one] == right.shape[other] and alike(right, got.swapaxes(one, other)):
                return [f"These are the right values with axes {other} and {one} swapped."]
    return []


def alike(right: np.ndarray, got: np.ndarray) -> bool:
    """Equal, for a line of words about them: measured numbers up to what computing in another order does."""
    return np.allclose(got, right, rtol=1e-4, atol=1e-6) if right.dtype.kind == "f" else (got == right).all()


def mixed_up(right: np.ndarray, got: np.ndarray) -> list[str]:
    if right.dtype.kind != "b" and alike(np.sort(right, None), np.sort(got, None)):
        return ["These are the right values in the wrong places."]
    return []


def known_factor(factor: float, sizes: dict[str, int]) -> str:
    """Is it the size of something, or the root of one?"""
    for letter, size in sizes.items():
        for value, words in (
            (size, letter),
            (size**0.5, f"sqrt({letter})"),
            (1 / size, f"1 / {letter}"),
            (size**-0.5, f"1 / sqrt({letter})"),
        ):
            if abs(factor / value - 1) < 1e-3:
                return f", which is {words} ({letter} = {size} here)"
    return ""


def ranges(flags: np.ndarray) -> str:
    """[True, True, False, True] -> "0-1, 3"."""
    indices = np.flatnonzero(flags)
    groups = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return ", ".join(str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}" for group in groups)
