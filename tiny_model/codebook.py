"""A picture of the 128 words that masks are written in: docs/pictures/codebook.png.

    python -m tiny_model.codebook paligemma-tiny codebook.png

Each tile shows a word twice. Left, what it stands for: the mean of the 16 x 16 points, and of a rim of 8
around them, where the encoder chose it (white inside, black outside; the frame is around the 16 x 16).
Right, what it draws: the shape that comes out where all 16 words are this one. The number at the bottom
is the word's, and how many in 10,000 places it was chosen for.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from load_weights import CheckpointError, load_mask_decoder
from mask_decoder_1 import GRID_SIDE, MASK_SIDE
from program.command_line import InputError, Parser, run_program, write
from program.pictures import check_drawing, write_picture
from tiny_model import scenes as tiny_scenes
from tiny_model.train_masks import random_shapes

BATCHES = 100  # of shapes of the training sets
PATCH, RIM = MASK_SIDE // GRID_SIDE, 8
SIDE, COLUMNS, LABEL = 40, 16, 14  # of a picture in pixels; tiles in a row; height of the numbers
LEVELS = 16  # of gray, so that the file stays small


@torch.inference_mode()
def mean_patches(vqvae, drawings: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """How often each word was chosen, [128], and the mean of what it was chosen for, [128, 32, 32]."""
    side = PATCH + 2 * RIM
    num_words = len(vqvae._vq_vae._embedding)
    counts, sums = torch.zeros(num_words), torch.zeros(num_words, side * side)
    for step in range(BATCHES):
        shapes = random_shapes(drawings, step)
        tokens = vqvae.encode(shapes).flatten()  # [16 B]
        patches = F.unfold(F.pad(shapes[:, None], [RIM] * 4), side, stride=PATCH)  # [B, 1024, 16]
        sums.index_add_(0, tokens, patches.transpose(1, 2).flatten(0, 1))
        counts += torch.bincount(tokens, minlength=num_words)
    return counts, (sums / counts.clamp(min=1)[:, None]).unflatten(1, (side, side))


def gray(values: torch.Tensor) -> Image.Image:
    """float [h, w] from 0 to 1 -> a square picture in a few levels of gray."""
    levels = (values.clamp(0, 1) * (LEVELS - 1)).round() * (255 / (LEVELS - 1))
    return Image.fromarray(levels.to(torch.uint8).numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)


@torch.inference_mode()
def codebook_picture(vqvae, counts: torch.Tensor, patches: torch.Tensor) -> Image.Image:
    num_words = len(counts)
    drawn = (vqvae.decode(torch.arange(num_words)[:, None].expand(-1, GRID_SIDE**2)) + 1) / 2
    width, height = 2 * SIDE + 8, SIDE + LABEL + 6
    picture = Image.new("L", (COLUMNS // 2 * width, -(-num_words // (COLUMNS // 2)) * height), 255)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=10)
    for word in range(num_words):
        y, x = divmod(word, COLUMNS // 2)
        x, y = x * width + 4, y * height + 3
        picture.paste(gray(patches[word]), (x, y))
        picture.paste(gray(drawn[word]), (x + SIDE, y))
        edge = SIDE * RIM // (PATCH + 2 * RIM)
        draw.rectangle((x + edge, y + edge, x + SIDE - edge - 1, y + SIDE - edge - 1), outline=136)
        share = round(10_000 * (counts[word] / counts.sum()).item())
        draw.text((x + 1, y + SIDE + 1), f"{word:03d}: {share}", fill=0, font=font)
    return picture


def run(args: argparse.Namespace):
    check_drawing(args.out, [], args.overwrite, "OUT.png", (".png",))
    vqvae = load_mask_decoder(args.model)
    if vqvae is None:
        raise InputError(f"{args.model} holds no mask decoder")
    counts, patches = mean_patches(vqvae, tiny_scenes.load_drawings(tiny_scenes.TRAINING_STYLES))
    write_picture(codebook_picture(vqvae, counts, patches), args.out)
    share = np.sort((counts / counts.sum()).numpy())[::-1]
    write(f"{int((counts > 0).sum())} of {len(counts)} words are used; the ten most frequent for "
          f"{share[:10].sum():.0%} of the places; {args.out.stat().st_size / 1e3:.0f} kB")  # fmt: skip


def main(argv: list[str] | None = None):
    parser = Parser(prog="codebook", description="Draws the 128 words that masks are written in.")
    parser.add_argument("model", help="folder with a mask_decoder.safetensors or a vae-oid.npz")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--overwrite", action="store_true", help="let OUT.png replace a file of yours")
    run_program(run, parser.parse_args(argv), parser, CheckpointError)


if __name__ == "__main__":
    main()
