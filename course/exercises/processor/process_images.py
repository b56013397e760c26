"""The exercise process_images of text_image_token_processor_0.py."""

import numpy as np
import torch
from PIL import Image

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import picture
from course.exercises.processor.inputs import PIXELS
from text_image_token_processor_1 import normalize, rescale, resize


def transparent_color(image: Image.Image) -> Image.Image:
    """An indexed picture as GIFs are: its first color is transparent."""
    image.info["transparency"] = 0
    return image


# Other right ways.


def in_torch(images, image_size):
    def on_white(image):
        ground = Image.new("RGBA", image.size, (255, 255, 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")

    arrays = [normalize(rescale(resize(on_white(image), image_size))) for image in images]
    return torch.stack([torch.from_numpy(array) for array in arrays]).permute(0, 3, 1, 2).contiguous()


def pasted_through_its_own_alpha_all_at_once(images, image_size):
    rgb = []
    for image in images:
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            ground = Image.new("RGB", image.size, "white")
            ground.paste(image, mask=image.getchannel("A"))
            image = ground
        rgb.append(image.convert("RGB"))
    pixels = np.stack([resize(image, image_size) for image in rgb])
    return torch.tensor(normalize(rescale(pixels))).permute(0, 3, 1, 2)


EXERCISE = Exercise(
    name="process_images",
    file="text_image_token_processor",
    minutes=15,
    difficulty="medium",
    why="Photos come in every size, and some are gray, transparent or indexed: the tower reads one form "
    "only.",
    builds_on=("resize", "rescale", "normalize"),
    steps=[
        "If a picture has transparent parts, lay it on a white background of its size.",
        "Convert each picture to one with three color channels, whatever its mode.",
        "Bring it to image_size, to values from 0 to 1, and from there to -1 to 1.",
        "Move the channels to the front: [3, S, S].",
        "Stack the pictures into one batch, and make it a tensor.",
    ],
    hints=(
        "Follow one picture through the three functions above, and note its shape. Which color does a "
        "PNG have where it is transparent?",
        "has_transparency_data says whether that matters, and Image.alpha_composite lays one RGBA "
        "picture on another; convert gives any picture another mode; transpose of an array takes all "
        "axes in their new order; np.stack makes a batch.",
        'Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")); then '
        'normalize(rescale(resize(image.convert("RGB"), image_size))).transpose(2, 0, 1), for each; '
        "torch.from_numpy(np.stack(...)).",
    ),
    result=PIXELS,
    cases=[
        Case("one RGB picture", lambda: {"images": [picture(17, 9)], "image_size": 13}),
        Case(
            "two pictures of different sizes",
            lambda: {"images": [picture(17, 9), picture(8, 21, seed=3)], "image_size": 13},
        ),
        *(
            Case(
                f"a picture of mode {mode}",
                lambda mode=mode: {"images": [picture(17, 9, mode=mode)], "image_size": 13},
            )
            for mode in ("L", "P", "CMYK", "1", "RGBA", "LA")
        ),
        Case(
            "an indexed picture, one of whose colors is transparent",
            lambda: {"images": [transparent_color(picture(17, 9, mode="P"))], "image_size": 13},
        ),
    ],
    mistakes=[
        Mistake(
            "without the conversion to RGB",
            {'image.convert("RGB")': "image"},
            "a gray picture has one channel and a transparent one has four; the tower wants three.",
        ),
        Mistake(
            "without the white background",
            {"image.has_transparency_data": "False"},
            'a transparent part may hold any color, often black, and `convert("RGB")` alone shows it.',
        ),
        Mistake(
            "with a black background",
            {'"white"': '"black"'},
            "dark lines would vanish on black: transparent parts become white, as on a page.",
        ),
        Mistake(
            "with indexed pictures left out",
            {"image.has_transparency_data": 'image.mode in ("RGBA", "LA")'},
            "a color of the palette can be transparent too, without a channel for it.",
        ),
        Mistake(
            "with the channels left at the end",
            {".transpose(2, 0, 1)": ""},
            "torch's convolution wants the channels first.",
        ),
        Mistake(
            "with rows and columns swapped",
            {".transpose(2, 0, 1)": ".transpose(2, 1, 0)"},
            "only the channels move; rows stay before columns.",
        ),
        Mistake(
            "when the axes are reshaped instead of moved",
            {"pixels.transpose(2, 0, 1)": "pixels.reshape(3, image_size, image_size)"},
            "reshape does not move the channels, it mixes pixels.",
        ),
        Mistake(
            "with blue first",
            {".transpose(2, 0, 1)": ".transpose(2, 0, 1)[::-1]"},
            "PIL's order is red, green, blue, and so is the tower's.",
        ),
        Mistake(
            "without normalizing",
            {"normalize(rescale(pixels))": "rescale(pixels)"},
            "values from 0 to 1 are not enough: -1 to 1.",
        ),
        Mistake(
            "without rescaling",
            {"normalize(rescale(pixels))": "normalize(pixels.astype(np.float32))"},
            "0 to 255 must become 0 to 1 before it is normalized.",
        ),
        Mistake(
            "when normalized before it is rescaled",
            {"normalize(rescale(pixels))": "rescale(normalize(pixels.astype(np.float32)))"},
            "first 0 to 1, then -1 to 1.",
        ),
        Mistake(
            "in float64",
            {"np.stack(prepared)": "np.stack(prepared).astype(np.float64)"},
            "the result has to be float32.",
        ),
        Mistake(
            "with a numpy array returned",
            {"torch.from_numpy(np.stack(prepared))": "np.stack(prepared)"},
            "the model computes with torch tensors.",
        ),
        Mistake(
            "with only the last picture",
            {"torch.from_numpy(np.stack(prepared))": "torch.from_numpy(np.stack(prepared[-1:]))"},
            "every picture of the batch is needed.",
        ),
        Mistake(
            "with gray pictures",
            {'image.convert("RGB")': 'image.convert("L").convert("RGB")'},
            "the colors have to be kept.",
        ),
    ],
    right_ways=[
        RightWay("in torch", in_torch),
        RightWay("pasted through its own alpha, all at once", pasted_through_its_own_alpha_all_at_once),
    ],
    compare="the order convert, resize, rescale: resizing bytes and resizing floats do not round the "
    "same way, and an indexed picture (mode P) cannot be interpolated at all.",
)
