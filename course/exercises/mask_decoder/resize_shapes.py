"""The exercise resize_shapes of mask_decoder_0.py."""

import torch
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.mask_decoder.inputs import drawing, shapes


def call(B, height, width, new_height, new_width, dtype=torch.float32):
    return lambda: {
        "shapes": shapes(B, height, width).to(dtype),
        "height": new_height,
        "width": new_width,
    }


# Other right ways.


def with_the_batch_as_channels(shapes, height, width):
    return F.interpolate(shapes[None], (height, width), mode="bilinear", antialias=True).squeeze(0)


def one_by_one(shapes, height, width):
    resized = [
        F.interpolate(
            shape.unsqueeze(0).unsqueeze(0), size=[height, width], mode="bilinear", align_corners=False,
            antialias=True,
        )
        for shape in shapes
    ]  # fmt: skip
    return torch.cat(resized)[:, 0]


OPTIONS = 'mode="bilinear", antialias=True'

EXERCISE = Exercise(
    name="resize_shapes",
    file="mask_decoder",
    minutes=10,
    difficulty="easy",
    why="A shape has 64 x 64 points, and the box that it is drawn into any size.",
    steps=[
        "Give the shapes an axis for a channel, as PyTorch's function for pictures wants it.",
        "Bring them to the new height and width, bilinearly, smoothed where they shrink.",
        "Take the axis of the channel off again.",
    ],
    hints=(
        "torch.nn.functional has one function for it. Read which modes it has, and what it does by itself "
        "where a picture shrinks.",
        "F.interpolate takes [B, channels, h, w], size=(height, width), a mode, and antialias, which is "
        "False if nothing is said.",
        'F.interpolate(shapes[:, None], size=(height, width), mode="bilinear", antialias=True)[:, 0].',
    ),
    result="B h w",
    cases=[
        Case("stretched", call(2, 8, 6, 31, 17), training=True),
        Case("stretched in one direction, shrunk in the other", call(3, 12, 40, 37, 9)),
        Case("shrunk", call(2, 50, 67, 13, 22)),
        Case(
            "thin lines, shrunk",
            lambda: {"shapes": drawing()[None].float(), "height": 12, "width": 19},
        ),
        Case(
            "numbers from -1 to 1, as the decoder draws",
            lambda: {"shapes": 2 * shapes(2, 7, 9) - 1, "height": 16, "width": 12},
        ),
        Case("float64", call(2, 8, 6, 15, 11, torch.float64)),
    ],
    mistakes=[
        Mistake(
            "without smoothing",
            {", antialias=True": ""},
            "where it shrinks, some points would not count at all: thin lines vanish.",
        ),
        Mistake(
            "with the nearest point",
            {OPTIONS: 'mode="nearest"'},
            "the border would become a staircase.",
        ),
        Mistake(
            "with bicubic interpolation",
            {'"bilinear"': '"bicubic"'},
            "it overshoots 0 and 1 beside a border; bilinear does not.",
        ),
        Mistake(
            "with means over areas",
            {OPTIONS: 'mode="area"'},
            "where it is stretched, that repeats points.",
        ),
        Mistake(
            "with the corner points lined up",
            {OPTIONS: 'mode="bilinear", align_corners=True'},
            "the edges of both pictures are lined up, half a point outside of the corner points' centers.",
        ),
        Mistake(
            "with the corner points lined up, and smoothed",
            {OPTIONS: OPTIONS + ", align_corners=True"},
            "the edges of both pictures are lined up: leave align_corners alone.",
        ),
        Mistake(
            "with height and width swapped",
            {"(height, width)": "(width, height)"},
            "the height comes first, as in the shape of a tensor.",
        ),
        Mistake(
            "with the axis of the channel kept",
            {")[:, 0]": ")"},
            "the result has the axes of the input, [B, height, width].",
        ),
    ],
    right_ways=[
        RightWay("with the batch as channels", with_the_batch_as_channels),
        RightWay("one by one", one_by_one),
    ],
    compare="antialias=True, which PIL's resize does without being asked. Which of the processor's "
    "exercises would have gone wrong with PyTorch's default?",
)
