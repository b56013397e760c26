"""The exercise mask_from_tokens of mask_decoder_0.py."""

import copy

import torch
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.mask_decoder.inputs import codec, token_numbers


def into(*box: float, height: int = 41, width: int = 67):
    return lambda: {
        "vqvae": copy.deepcopy(codec()), "tokens": token_numbers(3)[0], "box": box,
        "height": height, "width": width,
    }  # fmt: skip


# Other right ways.


def on_a_canvas_that_holds_the_box(vqvae, tokens, box, height, width):
    x1, y1, x2, y2 = torch.tensor(box, dtype=torch.float64).round().int().tolist()
    mask = torch.zeros(height, width, dtype=torch.bool)
    if x2 <= x1 or y2 <= y1:
        return mask
    shape = resize_shapes(vqvae.decode(tokens.unsqueeze(0)), y2 - y1, x2 - x1)  # noqa: F821
    left, top, right, bottom = (max(0, n) for n in (-x1, -y1, x2 - width, y2 - height))
    inside = shape[0][top : y2 - y1 - bottom, left : x2 - x1 - right] > 0
    if inside.shape[0] > 0 and inside.shape[1] > 0 and x1 < width and y1 < height and x2 > 0 and y2 > 0:
        mask[y1 + top : y2 - bottom, x1 + left : x2 - right] = inside
    return mask


def with_padding_that_may_be_negative(vqvae, tokens, box, height, width):
    x1, y1, x2, y2 = map(round, box)
    if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
        return torch.zeros((height, width), dtype=torch.bool)
    [shape] = resize_shapes(vqvae.decode(tokens[None]), height=y2 - y1, width=x2 - x1)  # noqa: F821
    return F.pad(shape, (x1, width - x2, y1, height - y2), value=-1.0) > 0


def with_a_half_that_goes_up(vqvae, tokens, box, height, width):
    x1, y1, x2, y2 = (int((edge + 0.5) // 1) for edge in box)
    mask = torch.zeros(height, width).bool()
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if right > left and bottom > top:
        shape = resize_shapes(vqvae.decode(tokens[None]), y2 - y1, x2 - x1)[0] > 0  # noqa: F821
        mask[top:bottom, left:right] = shape[top - y1 :, left - x1 :][: bottom - top, : right - left]
    return mask


ROUNDED = "(round(edge) for edge in box)"
PLACED = "mask[top:bottom, left:right] = shape[top - y1 : bottom - y1, left - x1 : right - x1] > 0"

EXERCISE = Exercise(
    name="mask_from_tokens",
    file="mask_decoder",
    minutes=30,
    difficulty="hard",
    why="An answer says where (four locations) and which shape (16 words): here they become a mask.",
    builds_on=("MaskVQVAE.decode", "resize_shapes"),
    steps=[
        "Round the edges of the box, and find the part of it that lies in the picture.",
        "Begin with a mask of the picture's size in which nothing is inside.",
        "If a pixel of the box is in the picture, decode the shape, and stretch it to the size of the whole "
        "box.",
        "Put what is above 0, of the part that lies in the picture, into its place.",
    ],
    hints=(
        "Draw a box that sticks out at the left. Which columns of the mask does it fill, and which columns "
        "of the stretched shape are those?",
        "decode wants a batch: tokens[None]. Column x of the picture is column x - x1 of the shape; rows "
        "work alike. Compare with 0 last, when the shape has its size.",
        "left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height); "
        "mask[top:bottom, left:right] = shape[top - y1 : bottom - y1, left - x1 : right - x1] > 0.",
    ),
    result="h w",
    cases=[
        Case("a box in the picture", into(10, 5, 52, 34)),
        Case("edges between pixels", into(9.7, 4.6, 51.6, 33.3)),
        Case("edges nearly halfway between pixels", into(6.51, 3.49, 40.49, 30.51)),
        Case("a box that sticks out at the right and below", into(33, 22, 75.4, 58)),
        Case("a box that sticks out at the left and above", into(-20.6, -7.7, 30, 20)),
        Case("a box without a column", into(10, 5, 10.3, 34)),
        Case("a box without a row", into(10, 5, 34, 5.3)),
        Case("a box beside the picture", into(-30, 4, -3, 31)),
        Case("a box above the picture", into(3, -31, 22, -4)),
        Case("a box to the right of the picture", into(90, 4, 110, 31)),
        Case("a box below the picture", into(3, 60, 22, 75)),
        Case("a picture that is taller than wide", into(3, 11, 22, 39, height=53, width=29)),
        Case("a box of a single pixel", into(5.2, 7.1, 6.1, 8.2)),
    ],
    mistakes=[
        Mistake(
            "with y before x in the box",
            {"x1, y1, x2, y2 =": "y1, x1, y2, x2 ="},
            "the box is x_min, y_min, x_max, y_max: parse_boxes has turned it already.",
        ),
        Mistake(
            "when the edges are rounded down",
            {"round(edge)": "math.floor(edge)", "    x1, y1": "    import math\n    x1, y1"},
            "they go to the nearest pixel.",
        ),
        Mistake(
            "when the edges are truncated",
            {"round(edge)": "int(edge)"},
            "they go to the nearest pixel.",
        ),
        Mistake(
            "when edges left of the picture, or above it, go the wrong way",
            {"round(edge)": "int(edge + 0.5)"},
            "int cuts toward zero: -20.6 becomes -20 by int(edge + 0.5), but -21 is nearer.",
        ),
        Mistake(
            "when the box is rounded outward",
            {
                "    x1, y1": "    import math\n    x1, y1",
                ROUNDED: "(math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))",
            },
            "each edge goes to the nearest pixel.",
        ),
        Mistake(
            "with inside from 0.5 on",
            {"] > 0": "] > 0.5"},
            "the decoder says -1 to 1, so the border is at 0.",
        ),
        Mistake("with inside and outside swapped", {"] > 0": "] < 0"}, "inside is above 0."),
        Mistake(
            "when it is cut off before it is stretched",
            {
                "vqvae.decode(tokens[None])": "(vqvae.decode(tokens[None]) > 0).float()",
                "] > 0": "] > 0.5",
            },
            "between two points the border runs smoothly; a stretched mask has steps.",
        ),
        Mistake(
            "when the shape is squeezed into what is in the picture",
            {
                "y2 - y1, x2 - x1)": "bottom - top, right - left)",
                "shape[top - y1 : bottom - y1, left - x1 : right - x1]": "shape",
            },
            "the shape fills the whole box; what lies beyond the edge is cut off.",
        ),
        Mistake(
            "when the shape is cut from its own corner",
            {
                "shape[top - y1 : bottom - y1, left - x1 : right - x1]": (
                    "shape[: bottom - top, : right - left]"
                )
            },
            "of a box that begins left of the picture, the first columns are those that are cut off.",
        ),
        Mistake(
            "when the shape is stretched over the whole picture",
            {
                "y2 - y1, x2 - x1)": "height, width)",
                PLACED: "mask[:] = shape > 0",
            },
            "it is a shape in the box; outside of it nothing is inside.",
        ),
        Mistake(
            "with the box alone",
            {"return mask": "return mask[top:bottom, left:right]"},
            "the mask is as large as the picture.",
        ),
        Mistake(
            "with height and width of the picture swapped",
            {"torch.zeros(height, width,": "torch.zeros(width, height,"},
            "rows come first: [height, width].",
        ),
        Mistake(
            "without handling boxes that hold no pixel",
            {"if left < right and top < bottom:": "if True:"},
            "a model may write any box, and a shape of no width cannot be drawn.",
        ),
        Mistake(
            "with numbers in place of True and False",
            {"dtype=torch.bool": "dtype=torch.float32"},
            "a mask is bool.",
        ),
    ],
    right_ways=[
        RightWay("on a canvas that holds the box", on_a_canvas_that_holds_the_box),
        RightWay("with padding that may be negative", with_padding_that_may_be_negative),
        RightWay("with a half that goes up", with_a_half_that_goes_up),
    ],
    compare="the order: stretched, then cut off at 0. How large are the steps if it is the other way "
    "around, for a box of 640 pixels?",
)
