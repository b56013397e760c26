"""The masks of an answer to `segment`: found in its text, drawn, written as a picture and as JSON.

A mask is a bool tensor [h, w], as large as the picture. Which 16 `<seg>` tokens stand for which
shape is a matter of mask_decoder_1; the boxes are those of parse_boxes, in the same order.
"""

import itertools
import re
from types import ModuleType

import torch
from PIL import Image, ImageChops, ImageFilter

import mask_decoder_1
from program.command_line import InputError

NUM_WORDS = mask_decoder_1.GRID_SIDE**2
THING = r"(?:<loc\d{4}>){4}((?:<seg\d{3}>)*)"  # what begins a box in an answer
TINT = 110  # of 255: how much of its color a mask lays over the picture


def seg_tokens(answer: str) -> list[list[int]]:
    """The numbers of the `<seg>` tokens of each box in an answer, in order; [] where a box has none.

    "<loc0256><loc0128><loc0768><loc0640><seg003><seg127> cat" -> [[3, 127]]
    """
    return [[int(number) for number in re.findall(r"\d{3}", words)] for words in re.findall(THING, answer)]


def find_masks(
    answer: str, boxes: list[dict], vqvae: torch.nn.Module | None, width: int, height: int,
    module: ModuleType = mask_decoder_1,
) -> tuple[list[torch.Tensor | None], list[str]]:  # fmt: skip
    """The mask of each box in an answer, None where there is none, and notes that say why.

    A mask lies in its box as parse_boxes has it, so that both fit together in a drawing. (The
    tokens after the 16th are passed over, as PaliGemma's authors do.)

    vqvae: a MaskVQVAE of module, or None if the checkpoint has none.
    """
    masks, notes = [], []
    words = seg_tokens(answer)
    if len(words) != len(boxes):  # a learner's parse_boxes, half solved
        words = [[]] * len(boxes)
    for box, tokens in zip(boxes, words, strict=True):
        tokens = tokens[:NUM_WORDS]
        mask = None
        if tokens and vqvae is None:
            notes.append(
                "the checkpoint has no mask decoder, so there are boxes without masks: how to get "
                "vae-oid.npz is in paligemma-3b-pt-224/GET_THE_WEIGHTS.md"
            )
        elif tokens and (len(tokens) < NUM_WORDS or max(tokens) >= len(vqvae._vq_vae._embedding)):
            what = f"{len(tokens)} <seg> tokens instead of {NUM_WORDS}"
            if len(tokens) == NUM_WORDS:
                what = f"<seg{max(tokens):03d}>, which is no word of the codebook"
            notes.append(f"{box['label'] or 'a box'} has {what}, so it has a box and no mask")
        elif tokens:
            mask = module.mask_from_tokens(vqvae, torch.tensor(tokens), box["box"], height, width)
        masks.append(mask)
    return masks, list(dict.fromkeys(notes))


def mask_iou(a: torch.Tensor, b: torch.Tensor) -> float:
    """Intersection over union of two bool masks of one size; 0 if both are empty."""
    return ((a & b).sum() / (a | b).sum().clamp(min=1)).item()


def to_image(mask: torch.Tensor, level: int = 255) -> Image.Image:
    """A gray picture: level inside the mask, black outside."""
    return Image.fromarray((mask * level).to(torch.uint8).numpy())


def border(mask: torch.Tensor) -> Image.Image:
    """A gray picture: white where the mask's border is at most two pixels away, inside it."""
    inside = to_image(mask)
    # The smallest of 5 x 5 is black near the border.
    return ImageChops.subtract(inside, inside.filter(ImageFilter.MinFilter(5)))


def draw_masks(picture: Image.Image, masks: list[torch.Tensor | None], colors: list[str]) -> Image.Image:
    """A copy of the picture with each mask tinted in its color, and its border in the full color."""
    picture = picture.copy()
    for mask, color in zip(masks, colors, strict=True):
        if mask is not None:
            picture.paste(color, mask=to_image(mask, TINT))
            picture.paste(color, mask=border(mask))
    return picture


def mask_picture(masks: list[torch.Tensor | None], width: int, height: int) -> Image.Image:
    """All masks in one gray picture: black outside, mask i of n (from 1) in the level 255 i / n.

    Boxes without a mask are not counted. Of two masks that overlap, the later one is on top.
    """
    masks = [mask for mask in masks if mask is not None]
    if len(masks) > 255:
        raise InputError(
            f"--mask: there are {len(masks)} masks, and a gray picture has levels for 255; ask for fewer "
            "things at a time, or use --json, which gives each mask by itself"
        )
    together = torch.zeros(height, width, dtype=torch.uint8)
    for i, mask in enumerate(masks, start=1):
        together[mask] = 255 * i // len(masks)
    return Image.fromarray(together.numpy())


def to_rle(mask: torch.Tensor) -> dict:
    """A mask as COCO's run-length encoding: {"size": [h, w], "counts": "..."}, as pycocotools writes it.

    The mask is read column by column, from the top left. counts are the lengths of its runs of
    outside, inside, outside, ...; the first is 0 where the first pixel is inside. From the fourth on
    each is written as the difference to the one two before, which is small where an outline is smooth.
    A number is written in pieces of 5 bits, the lowest first; a 6th bit says that more follow, and
    48 is added, so that each piece is a letter, a digit or a sign.
    """
    pixels = torch.cat([torch.tensor([False]), mask.T.flatten()])  # outside before the first pixel
    changes = (pixels[1:] != pixels[:-1]).nonzero().flatten().tolist()
    edges = [0, *changes, mask.numel()]
    counts = [after - before for before, after in itertools.pairwise(edges)]
    text = ""
    for i, count in enumerate(counts):
        number = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            piece = number & 31
            number >>= 5  # keeps the sign: ends at 0 or -1
            more = number != (-1 if piece & 16 else 0)
            text += chr(piece + 32 * more + 48)
    return {"size": list(mask.shape), "counts": text}
