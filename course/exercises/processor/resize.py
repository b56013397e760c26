"""The exercise resize of text_image_token_processor_0.py."""

import numpy as np
from PIL import Image

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import picture

# Known mistakes that take whole functions.


def squeezed_into_a_frame(image, image_size):
    frame = Image.new("RGB", (image_size, image_size))
    scale = image_size / max(image.size)
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    frame.paste(small, ((image_size - small.width) // 2, (image_size - small.height) // 2))
    return np.array(frame)


def in_a_corner(image, image_size):
    frame = Image.new("RGB", (image_size, image_size))
    scale = image_size / max(image.size)
    small = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    frame.paste(small, (0, 0))
    return np.array(frame)


def padded_with_white(image, image_size):
    from PIL import ImageOps

    return np.array(
        ImageOps.pad(image, (image_size, image_size), method=Image.Resampling.BICUBIC, color="white")
    )


def padded_to_a_square_first(image, image_size):
    side = max(image.size)
    frame = Image.new("RGB", (side, side))
    frame.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.array(frame.resize((image_size, image_size), Image.Resampling.BICUBIC))


def the_middle_square(image, image_size):
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return np.array(image.resize((image_size, image_size), Image.Resampling.BICUBIC))


def the_middle_after_resizing(image, image_size):
    scale = image_size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - image_size) // 2, (image.height - image_size) // 2
    return np.array(image.crop((left, top, left + image_size, top + image_size)))


def cropped_alone(image, image_size):
    left, top = (image.width - image_size) // 2, (image.height - image_size) // 2
    return np.array(image.crop((left, top, left + image_size, top + image_size)))


def without_smoothing(image, image_size):
    import torch

    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    x = torch.nn.functional.interpolate(x, size=(image_size, image_size), mode="bicubic")
    return x[0].permute(1, 2, 0).clamp(0, 255).round().numpy().astype(np.uint8)


def without_smoothing_and_rounding(image, image_size):
    import torch

    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    x = torch.nn.functional.interpolate(x, size=(image_size, image_size), mode="bicubic", align_corners=False)
    return x[0].permute(1, 2, 0).clamp(0, 255).numpy().astype(np.uint8)


# Other right ways.


def from_the_bytes(image, image_size):
    small = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.frombuffer(small.tobytes(), dtype=np.uint8).reshape(image_size, image_size, 3)


EXERCISE = Exercise(
    name="resize",
    file="text_image_token_processor",
    minutes=10,
    difficulty="easy",
    why="The tower has one position embedding per patch: it can only read pictures of one size.",
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
            also=(the_middle_square, the_middle_after_resizing, cropped_alone),
        ),
        Mistake(
            "with the picture in a frame (letterbox)",
            squeezed_into_a_frame,
            "no border is added: the picture is squeezed to fill the whole square.",
            also=(in_a_corner, padded_with_white, padded_to_a_square_first),
        ),
        Mistake(
            "without smoothing while it shrinks (no antialias)",
            without_smoothing,
            "interpolation alone looks at 16 pixels and skips the others; Pillow's resize weighs "
            "all of them.",
            also=(without_smoothing_and_rounding,),
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
