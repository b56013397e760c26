"""The exercise rescale of text_image_token_processor_0.py."""

import numpy as np

from course.exercise import Case, Exercise, Mistake, RightWay


def bytes_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)


def all_bytes() -> np.ndarray:
    return np.arange(256, dtype=np.uint8).reshape(32, 8)


# Other right ways.


def in_place_on_the_new_array(image, scale=1 / 255):
    result = image.astype("float32")
    result *= scale
    return result


EXERCISE = Exercise(
    name="rescale",
    file="text_image_token_processor",
    minutes=5,
    difficulty="easy",
    why="Bytes overflow at 255 and cannot be halved; the tower computes with floats.",
    steps=[
        "Turn the bytes into float32 first.",
        "Multiply by scale, in float32 too.",
        "Return a new array of the same shape.",
    ],
    hints=(
        "Two things, in this order: another type, then a product.",
        "An array has a method that changes its type. A product with a Python number keeps float32; "
        "one with np.float64 does not.",
        "image.astype(np.float32) * np.float32(scale).",
    ),
    cases=[
        Case("a picture", lambda: {"image": bytes_image()}),
        Case("all bytes, scale 1/200", lambda: {"image": all_bytes(), "scale": 1 / 200}),
        Case("a scale that is a numpy float64", lambda: {"image": all_bytes(), "scale": np.float64(0.25)}),
    ],
    mistakes=[
        Mistake(
            "with 1 / 255 whatever scale says",
            {"np.float32(scale)": "np.float32(1 / 255)"},
            "the argument says how much to scale.",
        ),
        Mistake(
            "when divided by scale",
            {"* np.float32(scale)": "/ np.float32(scale)"},
            "scale is the factor, 1/255, not 255.",
        ),
        Mistake(
            "with 1 / 256",
            {"np.float32(scale)": "np.float32(scale * 255 / 256)"},
            "the largest byte, 255, becomes 1.",
        ),
        Mistake(
            "in float64",
            {"image.astype(np.float32) * np.float32(scale)": "image * scale"},
            "numpy computes bytes times a number in float64; the model wants float32.",
        ),
        Mistake(
            "when it is cast back to bytes after scaling",
            {"image.astype(np.float32) * np.float32(scale)": "(image * scale).astype(np.uint8)"},
            "a byte cannot hold 0.5: float32 first, then scale.",
        ),
        Mistake(
            "with whole numbers left",
            {
                "image.astype(np.float32) * np.float32(scale)": (
                    "(image * scale).astype(np.uint8).astype(np.float32)"
                ),
            },
            "scaled bytes are nearly all 0: float32 first, then scale.",
        ),
        Mistake("without scaling", {" * np.float32(scale)": ""}, "the values have to lie between 0 and 1."),
        Mistake(
            "already from -1 to 1",
            {
                "image.astype(np.float32) * np.float32(scale)": (
                    "image.astype(np.float32) * np.float32(scale) * np.float32(2) - np.float32(1)"
                ),
            },
            "normalize does that, in the next exercise.",
        ),
    ],
    right_ways=[
        RightWay("in place on the new array", in_place_on_the_new_array),
        RightWay(
            "in float64, then cast",
            {"image.astype(np.float32) * np.float32(scale)": "(image * scale).astype(np.float32)"},
        ),
        RightWay(
            "np.multiply",
            {
                "image.astype(np.float32) * np.float32(scale)": (
                    "np.multiply(image, scale, dtype=np.float32)"
                ),
            },
        ),
    ],
    compare="np.float32(scale): a numpy float64 scale would turn the whole picture into float64.",
)
