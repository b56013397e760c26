"""Checks exercise 0: the eight functions of course/shapes_0.py.

    python -m course.shapes

Every number given to a function says where it stands (0, 1, 2, ... in the order of memory), so that a
number in the wrong place says where it came from.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType

import torch

from course import shapes_1

FILE = "course/shapes_0.py"


def counting(*shape: int) -> torch.Tensor:
    """0, 1, 2, ... in the order in which they lie in memory."""
    return torch.arange(torch.Size(shape).numel()).float().view(shape)


# Sizes that differ from each other, so that a swapped axis is seen.
INPUTS: dict[str, tuple] = {
    "first_patch": (counting(2, 3, 4),),
    "mean_over_patches": (counting(2, 3, 4),),
    "add_positions": (counting(2, 3, 4), 100 * counting(3, 4)),
    "scores_where": (counting(2, 3, 4, 5), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()),
    "map_to_rows": (counting(2, 5, 3, 3),),
    "split_heads": (counting(2, 3, 8), 4),
    "join_heads": (counting(2, 4, 3, 2),),
    "cut_into_patches": (counting(2, 3, 6, 6), 2),
}
# What comes out of the mistakes that nearly everybody makes once.
MISTAKES: dict[str, list[tuple[Callable, str]]] = {
    "mean_over_patches": [(lambda x: x.mean(dim=1), "the axis is gone: keepdim=True keeps it")],
    "scores_where": [
        (lambda x, m: x * ~m[:, None, None], "the mask is the wrong way around: True is what to keep"),
    ],
    "map_to_rows": [
        (lambda x: x.flatten(2).reshape(2, 9, 5),
         "reshape only cuts memory elsewhere; to swap two axes takes transpose"),
        (lambda x: x.transpose(2, 3).flatten(2).transpose(1, 2), "the patches run column by column"),
    ],
    "split_heads": [
        (lambda x, h: x.view(2, h, 3, 2),
         "view alone lets a head have pieces of several patches: cut the last axis first, then swap"),
        (lambda x, h: x.view(2, 3, 2, h).permute(0, 3, 1, 2),
         "a head gets every fourth number: the heads come before Hd in the last axis"),
        (lambda x, h: x.view(2, 3, h, 2), "the axes of patches and heads are not swapped yet"),
    ],
    "join_heads": [
        (lambda x: x.reshape(2, 3, 8), "heads and patches have to be swapped back before they are joined"),
    ],
    "cut_into_patches": [
        (lambda x, p: x.reshape(2, 9, 12),
         "reshape only cuts memory elsewhere: a patch has parts of several rows of the picture"),
        (lambda x, p: x.view(2, 3, 3, 2, 3, 2).permute(0, 4, 2, 1, 3, 5).reshape(2, 9, 12),
         "the patches run column by column"),
        (lambda x, p: x.view(2, 3, 3, 2, 3, 2).permute(0, 2, 4, 3, 5, 1).reshape(2, 9, 12),
         "within a patch the color comes last: it has to come first"),
    ],
}  # fmt: skip


def check(name: str, module: ModuleType) -> str:
    """What is wrong with a function, in one line; nothing if it is right."""
    inputs = INPUTS[name]
    expected = getattr(shapes_1, name)(*inputs)
    function = getattr(module, name, None)
    if function is None:
        return f"there is no function {name} anymore"
    given = [value.clone() if isinstance(value, torch.Tensor) else value for value in inputs]
    try:
        result = function(*given)
    except SystemExit:
        return "ends the program (exit or quit)"
    except Exception as error:
        if isinstance(error, NotImplementedError) and not str(error):  # PyTorch's own say why
            return "not done yet"
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    if not isinstance(result, torch.Tensor):
        return f"returns {type(result).__name__} instead of a tensor"
    for mistake, words in MISTAKES.get(name, []):
        wrong = mistake(*inputs)
        if wrong.shape == result.shape and wrong.dtype == result.dtype and torch.equal(wrong, result):
            return words
    if result.shape != expected.shape:
        return f"the shape is {list(result.shape)} instead of {list(expected.shape)}"
    if result.dtype != expected.dtype:
        return f"the dtype is {result.dtype} instead of {expected.dtype}"
    differs = (result != expected).nonzero()
    if len(differs):
        at = tuple(differs[0].tolist())
        return f"the shape is right; at {list(at)} is {result[at]:g} instead of {expected[at]:g}"
    if any(isinstance(a, torch.Tensor) and not torch.equal(a, b) for a, b in zip(given, inputs, strict=True)):
        return "the result is right, but what was given is changed: make a new tensor"
    return ""


def unreadable(message: str) -> int:
    print(f"shapes: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def main(module: ModuleType | None = None) -> None:
    if module is None:
        try:
            module = importlib.import_module("course.shapes_0")
        except SyntaxError as error:
            sys.exit(unreadable(f"{FILE}:{error.lineno}: {error.msg}"))
        except (Exception, SystemExit) as error:
            sys.exit(unreadable(f"{FILE} cannot be run: {type(error).__name__}: {error}"))
    wrong = 0
    for name in INPUTS:
        words = check(name, module)
        wrong += bool(words)
        mark = "+" if not words else " " if words == "not done yet" else "x"
        print(f"  {mark} {name:<18} {words or 'right'}")
    print(f"{len(INPUTS) - wrong} of {len(INPUTS)} right.")
    if not wrong:
        print("On to the other exercises: python learn.py")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
