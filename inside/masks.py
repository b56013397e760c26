"""The masks of an answer for the page: the 16 words, the shape that they stand for, the mask in the picture.

An answer without `<seg>` words has none. So that there is something to see all the same, a drawing whose
true mask is known is said in 16 words, and drawn again from them alone.
"""

import json
from types import ModuleType

import numpy as np
import torch
from PIL import Image, ImageChops

from inside.description import data_uri, packed
from inside.template import FOLDER, read
from program.masks import NUM_WORDS, TINT, border, find_masks, mask_iou, seg_tokens, to_image
from program.pictures import COLORS, colors_of

EXAMPLE = "cat"  # where the answer names none of the drawings
EXAMPLE_SIDE = 200  # of the picture that the example stands in, in pixels
Box = tuple[float, float, float, float]


def overlay(mask: torch.Tensor, color: str) -> str:
    """A mask to be laid over the picture: tinted inside, its border in the full color."""
    inside = to_image(mask, TINT)
    tinted = Image.new("RGB", inside.size, color)
    tinted.putalpha(ImageChops.lighter(inside, border(mask)))
    return data_uri(tinted)


def packed_shape(shape: torch.Tensor) -> dict:
    """Numbers from -1 (outside) to 1 (inside) in 255 steps; what lies beyond is cut off."""
    return packed(((shape.clamp(-1, 1) + 1) * 127.5).round().byte().numpy())


@torch.inference_mode()
def describe_words(vqvae, words: list[int], box: Box, size: tuple[int, int], color: str, module: ModuleType):
    """What 16 words become: the shape [64, 64], and the mask in a picture of this size (width, height)."""
    tokens = torch.tensor(words)
    mask = module.mask_from_tokens(vqvae, tokens, box, size[1], size[0])
    return {
        "words": words,
        "box": list(box),
        "shape": packed_shape(vqvae.decode(tokens[None])[0]),
        "overlay": overlay(mask, color),
        "share": round(float(mask.float().mean()), 4),  # of the picture
    }


@torch.inference_mode()
def describe_mask(vqvae, mask: torch.Tensor, label: str, module: ModuleType) -> dict:
    """A true mask said in 16 words, and what comes back."""
    ys, xs = mask.nonzero().T
    box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    height, width = mask.shape
    words = module.tokens_from_mask(vqvae, mask, box).tolist()
    told = describe_words(vqvae, words, box, (width, height), COLORS[0], module)
    again = module.mask_from_tokens(vqvae, torch.tensor(words), box, height, width)
    x1, y1, x2, y2 = box
    cut = module.resize_shapes(mask[None, y1:y2, x1:x2].float(), *told["shape"]["shape"])[0]
    filled = torch.zeros_like(mask)
    filled[y1:y2, x1:x2] = True
    return told | {
        "label": label,
        "size": [width, height],
        "truth": packed_shape(2 * cut - 1),  # as it is given to the encoder
        "same": round(mask_iou(mask, again), 3),
        "sameAsBox": round(mask_iou(mask, filled), 3),
    }


def example_mask(label: str) -> tuple[torch.Tensor, Image.Image, str]:
    """The true mask of one of the live page's drawings, the picture that it stands in, and its name."""
    drawings = {drawing["name"]: drawing for drawing in json.loads(read("stage.json"))}
    drawing = drawings.get(label, drawings[EXAMPLE])
    left, top, wide, high = (drawing[key] for key in ("x", "y", "width", "height"))
    with Image.open(FOLDER / "stage.png") as sheet:
        drawn = sheet.convert("RGBA").crop((left, top, left + wide, top + high))
    picture = Image.new("RGB", (EXAMPLE_SIDE, EXAMPLE_SIDE), "#f4f1ea")
    at = ((EXAMPLE_SIDE - wide) // 2, (EXAMPLE_SIDE - high) // 2)
    picture.paste(drawn, at, drawn)
    alpha = Image.new("L", picture.size)
    alpha.paste(drawn.getchannel("A"), at)
    return torch.from_numpy(np.asarray(alpha) > 127), picture, drawing["name"]


def describe_example(vqvae, label: str, module: ModuleType) -> dict:
    mask, picture, name = example_mask(label)
    return describe_mask(vqvae, mask, name, module) | {"picture": data_uri(picture)}


def describe_masks(
    answer: str, boxes: list[dict], vqvae, size: tuple[int, int], module: ModuleType, example=True
) -> dict:
    """The masks of an answer, one for each box that has words; notes say why a box has none.

    An answer without words gets an example. vqvae: None if the checkpoint has no mask decoder.
    example: False where the page has drawings of its own (live).
    """
    with torch.inference_mode():
        masks, notes = find_masks(answer, boxes, vqvae, *size, module)
    words = seg_tokens(answer)
    found = [
        describe_words(vqvae, words[i][:NUM_WORDS], tuple(box["box"]), size, color, module)
        | {"label": box["label"], "of": i}
        for i, (box, mask, color) in enumerate(zip(boxes, masks, colors_of(boxes), strict=True))
        if mask is not None
    ]
    told = {
        "found": found,
        "notes": notes,
        "codewords": 0 if vqvae is None else len(vqvae._vq_vae._embedding),
    }
    if example and vqvae is not None and not any(words):
        label = boxes[0]["label"] if boxes else ""
        told["example"] = describe_example(vqvae, label, module)
    return told
