"""The exercise rotate_half of decoder_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import bf16
from course.exercises.inputs import randn

# Known mistakes that take whole functions.


def with_the_input_changed_in_place(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    half = x.shape[-1] // 2
    copy = first.clone()
    x[..., :half] = -second
    x[..., half:] = copy
    return x


# Other right ways.


def by_slices(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def into_a_new_tensor(x):
    half = x.shape[-1] // 2
    y = torch.empty_like(x)
    y[..., :half] = x[..., half:].neg()
    y[..., half:] = x[..., :half]
    return y


def roll_and_signs(x):
    half = x.shape[-1] // 2
    signs = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
    signs[:half] = -1
    return x.roll(half, dims=-1) * signs


def complex_numbers(x):
    a, b = x.float().unflatten(-1, (2, -1)).unbind(-2)
    turned = torch.complex(a, b) * 1j
    return torch.cat([turned.real, turned.imag], -1).to(x.dtype)


EXERCISE = Exercise(
    name="rotate_half",
    file="decoder",
    minutes=5,
    difficulty="easy",
    why="A vector and its copy turned by a right angle are all that a rotation by any angle needs.",
    steps=[
        "Cut the last axis into its two halves, a and b.",
        "Flip the sign of b.",
        "Join them in the other order: -b first, then a.",
    ],
    hints=(
        "A quarter turn takes the point (a, b) to (-b, a). Here a and b are whole halves.",
        "chunk and slices both cut; torch.cat joins. Use the last axis, however many there are.",
        "first, second = x.chunk(2, dim=-1); return torch.cat([-second, first], dim=-1).",
    ),
    result="B H T Hd",
    sizes={"Hd": 10},
    cases=[
        Case("queries: B 2, H 12, T 7, Hd 10", lambda: {"x": randn(2, 12, 7, 10)}, training=True),
        Case("a single head of size 6", lambda: {"x": randn(6)}),
        Case("two axes", lambda: {"x": randn(5, 4)}),
        Case(
            "an input whose axes were swapped, as those of queries are",
            lambda: {"x": randn(2, 7, 4, 6).transpose(1, 2)},
        ),
        Case("bfloat16", lambda: {"x": randn(2, 3, 10, dtype=bf16)}, exact=1.0),
    ],
    mistakes=[
        Mistake(
            "without the minus",
            {"[-second, first]": "[second, first]"},
            "swapping the halves is a reflection; with -b it is a rotation.",
        ),
        Mistake(
            "with the minus on the other half",
            {"[-second, first]": "[second, -first]"},
            "[b, -a] rotates backwards.",
        ),
        Mistake(
            "with the halves left in their order",
            {"[-second, first]": "[-first, second]"},
            "the second half comes first.",
        ),
        Mistake(
            "with both signs flipped",
            {"[-second, first]": "[-second, -first]"},
            "only the second half gets a minus.",
        ),
        Mistake(
            "with neighboring pairs",
            {
                "first, second = x.chunk(2, dim=-1)": "first, second = x[..., 0::2], x[..., 1::2]",
                "torch.cat([-second, first], dim=-1)": ("torch.stack([-second, first], dim=-1).flatten(-2)"),
            },
            "the paper pairs x[0] with x[1]; the checkpoint is ordered for halves, x[0] with x[Hd/2].",
        ),
        Mistake(
            "with even and odd numbers as the halves",
            {"x.chunk(2, dim=-1)": "(x[..., 0::2], x[..., 1::2])"},
            "a is the first half of the axis as it stands, b the second.",
        ),
        Mistake(
            "along the wrong axis",
            {"dim=-1": "dim=0"},
            "the halves are those of a head: the last axis.",
        ),
        Mistake(
            "with the halves on an axis of their own",
            {"torch.cat([-second, first], dim=-1)": "torch.stack([-second, first], dim=-1)"},
            "the result has the shape of x.",
        ),
        Mistake(
            "with the input changed in place",
            with_the_input_changed_in_place,
            "x is still needed: x * cos is added to this.",
        ),
        Mistake(
            "when the whole axis is reversed",
            {
                "torch.cat([-second, first], dim=-1)": (
                    "torch.cat([-second.flip(-1), first.flip(-1)], dim=-1)"
                ),
            },
            "each half keeps its order.",
        ),
    ],
    right_ways=[
        RightWay("by slices", by_slices),
        RightWay("into a new tensor", into_a_new_tensor),
        RightWay("roll and signs", roll_and_signs),
        RightWay("complex numbers", complex_numbers),
    ],
    compare="that it is (a + ib) * i = -b + ia, for Hd/2 complex numbers whose parts lie half a head apart.",
)
