"""The exercise resize of text_image_token_processor_0.py."""

import numpy as np
from PIL import Image

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import picture

# Other right ways.


def from_the_bytes(image, image_size):
    small = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.frombuffer(small.tobytes(), dtype=np.uint8).reshape(image_size, image_size, 3)


EXERCISE = Exercise(
    name="resize",
    file="text_image_token_processor",
    minutes=10,
    difficulty="easy",
    why="The tower has one position vector per patch: it can only read pictures of one size.",
    steps=[
        "Squeeze the picture to image_size in both directions, with bicubic interpolation, and without "
        "cutting anything off.",
        "Turn the result into an array of bytes, one row of the picture after another.",
        "Return the array; the picture that came in stays as it was.",
    ],
    hints=(
        "The picture has a method of that name. Which size does it want, and which filter?",
        "Image.Resampling lists the filters; numpy can read a picture directly.",
        "np.array(image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC)).",
    ),
    result="S S 3",
    cases=[
        Case("a wide picture, made smaller", lambda: {"image": picture(31, 17), "image_size": 12}),
        Case("a tall picture, made larger", lambda: {"image": picture(9, 13), "image_size": 22}),
        Case("a picture that already has the size", lambda: {"image": picture(14, 14), "image_size": 14}),
    ],
    mistakes=[
        Mistake(
            "with bilinear interpolation",
            {"BICUBIC": "BILINEAR"},
            "the hub's processor resizes with bicubic.",
        ),
        Mistake(
            "with the nearest pixel",
            {"BICUBIC": "NEAREST"},
            "that leaves out most pixels; bicubic weighs them all.",
        ),
        Mistake("with Lanczos", {"BICUBIC": "LANCZOS"}, "the hub's processor resizes with bicubic."),
        Mistake(
            "with the picture cropped to a square",
            {
                "image.resize(": "__import__('PIL.ImageOps').ImageOps.fit(image, ",
                "resample=": "method=",
            },
            "nothing is cut off: the whole picture is squeezed.",
        ),
        Mistake(
            "with the proportions kept",
            {
                "np.array(image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC))": (
                    "np.array(image.resize((image_size, image_size * image.height // image.width), "
                    "Image.Resampling.BICUBIC))"
                ),
            },
            "both sides become image_size, whatever they were.",
        ),
        Mistake(
            "with rows and columns swapped",
            {
                "np.array(image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC))": (
                    "np.array(image.resize((image_size, image_size), "
                    "resample=Image.Resampling.BICUBIC)).transpose(1, 0, 2)"
                ),
            },
            "rows come first, from top to bottom.",
        ),
        Mistake(
            "with a picture returned",
            {
                "np.array(image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC))": (
                    "image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC)"
                ),
            },
            "the next steps compute with it, so it has to be an array.",
        ),
        Mistake(
            "with floats",
            {
                "resample=Image.Resampling.BICUBIC))": (
                    "resample=Image.Resampling.BICUBIC), dtype=np.float32)"
                ),
            },
            "the result has to be bytes; rescale turns them into floats.",
        ),
    ],
    right_ways=[
        RightWay(
            "np.asarray, another constant",
            {
                "np.array(image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC))": (
                    "np.asarray(image.resize([image_size] * 2, Image.BICUBIC))"
                ),
            },
        ),
        RightWay("from the bytes", from_the_bytes),
    ],
    compare="the picture's own order is (width, height), the array's is [rows, columns]: a square hides "
    "the difference.",
)
