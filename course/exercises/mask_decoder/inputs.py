"""Sizes and inputs that several exercises of mask_decoder_0.py share."""

import functools

import torch

from course.exercises.inputs import randn
from course.parameters import random_weights
from mask_decoder_1 import MaskConfig, MaskVQVAE

# E 10, widths 3, 6, 12 and M 24; 37 codewords.
SMALL_CODEC = MaskConfig(embedding_dim=10, hidden_dim=3, num_embeddings=37)

SIZES = {"E": 10, "M": 24}


def token_numbers(B: int, seed: int = 0) -> torch.Tensor:
    """Numbers of codewords, int64 [B, 16]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, SMALL_CODEC.num_embeddings, (B, 16), generator=generator)


@functools.cache
def codec() -> MaskVQVAE:
    """A whole codec with random weights, whose borders run through its shapes.

    With a random bias at its end a decoder often says that all is outside, and all mistakes look alike.
    """
    made = MaskVQVAE(SMALL_CODEC)
    random_weights(made)
    with torch.no_grad():
        made.decoder[-1].bias -= made.decode(token_numbers(3)).median()
    return made.requires_grad_(False)


def drawing() -> torch.Tensor:
    """A mask, bool [50, 83]: an ellipse with a hole, and thin lines, of which no two sides are alike."""
    y, x = torch.meshgrid(torch.arange(50), torch.arange(83), indexing="ij")
    ellipse = ((x - 38) / 29) ** 2 + ((y - 24) / 17) ** 2 < 1
    hole = (x - 27) ** 2 + (y - 19) ** 2 < 60
    lines = (x % 7 == 0) & (y > 30) & (y < 46) & (x > 15) & (x < 75)
    return (ellipse & ~hole) | lines


def shapes(B: int, height: int = 64, width: int = 64) -> torch.Tensor:
    """Soft shapes from 0 to 1, float [B, height, width]."""
    coarse = randn(B, 1, 5, 6, seed=4, scale=2.0)
    size = (height, width)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)
    return smooth[:, 0].sigmoid()
