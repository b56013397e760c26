"""The exercise tokens_from_mask of mask_decoder_0.py."""

import copy

import torch
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.mask_decoder.inputs import codec, drawing


def of(*box: float):
    return lambda: {"vqvae": copy.deepcopy(codec()), "mask": drawing(), "box": box}


# Known mistakes that take whole functions.


def when_proportions_are_kept(vqvae, mask, box):
    x1, y1, x2, y2 = (round(edge) for edge in box)
    height, width = mask.shape
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError("the box does not lie in the picture")
    cut = mask[None, y1:y2, x1:x2].float()
    side = max(cut.shape[1:])
    cut = F.pad(cut, (0, side - cut.shape[2], 0, side - cut.shape[1]))
    return vqvae.encode(resize_shapes(cut, MASK_SIDE, MASK_SIDE))[0]  # noqa: F821


# Other right ways.


def rows_first(vqvae, mask, box):
    left, top, right, bottom = torch.tensor(box, dtype=torch.float64).round().long().tolist()
    h, w = mask.shape
    if left < 0 or top < 0 or right > w or bottom > h:
        raise ValueError("the box does not lie in the picture")
    cut = mask[top:bottom][:, left:right].to(torch.float32)
    if cut.numel() == 0:
        raise ValueError("the box holds no pixel")
    return vqvae.encode(resize_shapes(cut.unsqueeze(0), 64, 64)).squeeze(0)  # noqa: F821


def in_one_go(vqvae, mask, box):
    x1, y1, x2, y2 = [int(round(edge)) for edge in box]
    if x1 >= x2 or y1 >= y2 or min(x1, y1) < 0 or x2 > mask.size(1) or y2 > mask.size(0):
        raise ValueError(f"{box}?")
    [tokens] = vqvae.encode(resize_shapes(1.0 * mask[y1:y2, x1:x2][None], 64, 64))  # noqa: F821
    return tokens


def with_a_half_that_goes_up(vqvae, mask, box):
    x1, y1, x2, y2 = (int((edge + 0.5) // 1) for edge in box)
    h, w = mask.shape
    if not (0 <= x1 < x2 <= w) or not (0 <= y1 < y2 <= h):
        raise ValueError("no such box in the picture")
    return vqvae.encode(resize_shapes(mask[None, y1:y2, x1:x2].float(), 64, 64))[0]  # noqa: F821


SHAPE = "resize_shapes(mask[None, y1:y2, x1:x2].float(), MASK_SIDE, MASK_SIDE)"
CHECK = "if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):"

EXERCISE = Exercise(
    name="tokens_from_mask",
    file="mask_decoder",
    minutes=20,
    difficulty="medium",
    why="Your own pictures with masks become training data in this way.",
    builds_on=("MaskVQVAE.encode", "resize_shapes"),
    steps=[
        "Round the edges of the box.",
        "Raise ValueError if it holds no pixel, or does not lie in the picture.",
        "Cut the mask to the box, as numbers from 0 to 1, and resize it to 64 x 64.",
        "Encode it, and return the tokens of this one shape.",
    ],
    hints=(
        "Which axis of the mask is y? And what does Python make of a slice that begins at -3, or ends "
        "beyond the last row?",
        "mask[y1:y2, x1:x2] is the cut; .float() makes 0 and 1 of it. resize_shapes and encode want a "
        "batch, so there is an axis to add, and to take off in the end.",
        "resize_shapes(mask[None, y1:y2, x1:x2].float(), MASK_SIDE, MASK_SIDE); vqvae.encode(shape)[0].",
    ),
    result="16",
    cases=[
        Case("a box around the whole", of(9, 7, 75, 46)),
        Case("a box around a part, with edges between pixels", of(20.6, 5.7, 45.4, 30.6)),
        Case("edges nearly halfway between pixels", of(10.51, 15.49, 60.49, 44.51)),
        Case("a box as large as the picture", of(0, 0, 83, 50)),
        Case("a box without a column", of(20, 10, 20.2, 40)),
        Case("a box beyond the right edge", of(20, 10, 90, 40)),
        Case("a box beyond the upper edge", of(20, -1, 60, 40)),
        Case("a box beyond the left edge", of(-1, 10, 60, 40)),
        Case("a box beyond the lower edge", of(20, 10, 60, 51)),
        Case("a box beyond all edges", of(-3, -2, 90, 55)),
        Case("a box without a row", of(20, 10, 60, 10.3)),
    ],
    mistakes=[
        Mistake(
            "with y before x in the box",
            {"x1, y1, x2, y2 =": "y1, x1, y2, x2 ="},
            "the box is x_min, y_min, x_max, y_max.",
        ),
        Mistake(
            "with the whole picture",
            {"mask[None, y1:y2, x1:x2]": "mask[None]"},
            "the words say the shape in the box; where the box is is said by the locations.",
        ),
        Mistake(
            "when the edges are rounded down",
            {"round(edge)": "int(edge)"},
            "they go to the nearest pixel.",
        ),
        Mistake(
            "when edges left of the picture, or above it, go the wrong way",
            {"round(edge)": "int(edge + 0.5)"},
            "int cuts toward zero: -1 becomes 0 by int(edge + 0.5), and the box is not refused.",
        ),
        Mistake(
            "with the nearest points",
            {SHAPE: "F.interpolate(mask[None, None, y1:y2, x1:x2].float(), (MASK_SIDE, MASK_SIDE))[:, 0]"},
            "what shrinks has to be smoothed, as resize_shapes does it.",
        ),
        Mistake(
            "when it is brought to -1 to 1",
            {SHAPE: f"2 * {SHAPE} - 1"},
            "encode does that itself.",
        ),
        Mistake(
            "with 0 to 255",
            {SHAPE: f"255 * {SHAPE}"},
            "a mask is True or False, which is 1 or 0.",
        ),
        Mistake(
            "when proportions are kept",
            when_proportions_are_kept,
            "the box is squeezed to a square: mask_from_tokens stretches it back.",
        ),
        Mistake(
            "when it is cut off at a half again",
            {SHAPE: f"({SHAPE} > 0.5).float()"},
            "the soft border says where it runs between two points.",
        ),
        Mistake(
            "without a check of the box",
            {CHECK: "if False:"},
            "Python's slices take a negative start for one from the end, and are silent about it.",
        ),
        Mistake(
            "when a box beyond the edge is not refused",
            {CHECK: "if x1 >= x2 or y1 >= y2:"},
            "there is no mask beyond the picture: such a box belongs to another one.",
        ),
        Mistake(
            "when a box without a pixel is not refused",
            {CHECK: "if x1 < 0 or y1 < 0 or x2 > width or y2 > height:"},
            "nothing cannot be resized; a ValueError says what is wrong.",
        ),
        Mistake(
            "with the axis of the batch kept",
            {"vqvae.encode(shape)[0]": "vqvae.encode(shape)"},
            "it is one mask, so 16 tokens are asked for.",
        ),
    ],
    right_ways=[
        RightWay("rows first", rows_first),
        RightWay("in one go", in_one_go),
        RightWay("with a half that goes up", with_a_half_that_goes_up),
    ],
    compare="it with mask_from_tokens: what goes through both comes back nearly, but not quite. Which two "
    "steps lose something?",
)
