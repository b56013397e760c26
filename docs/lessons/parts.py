"""What several pictures of the lessons have in common: the list of them, heat maps, vectors as strips.

    @drawn
    def heads() -> Image.Image: ...

makes a picture out of a function; `python -m docs.lessons.draw` writes it to pictures/heads.png.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from docs.lessons import tiny
from docs.lessons.canvas import INK, LINE, Canvas, signed

FOLDER = Path(__file__).resolve().parent / "pictures"
PICTURES: dict[str, Callable[[], Image.Image]] = {}
DARK, LIGHT = np.array([17, 20, 38]), np.array([255, 176, 40])  # heat maps, as on explain.py's page
GRID = 10  # patches along a side
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how the tokenizer writes a space
EAR, FACE = 33, 43  # two patches of the left cat
LAYER, HEAD = 2, 0  # of the tower, shown most often


def drawn(function: Callable[[], Image.Image]) -> Callable[[], Image.Image]:
    PICTURES[function.__name__.replace("_", "-")] = function
    return function


def prepared() -> Image.Image:
    """What the tower sees: the picture, squeezed to a square."""
    pixels = ((tiny.batch["pixel_values"][0] + 1) * 127.5).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def heat(weights: torch.Tensor, side: int) -> Image.Image:
    """The picture, lit where the weights [N] are large."""
    pixels = np.asarray(prepared().resize((side, side), Image.Resampling.BICUBIC), dtype=float)
    light = np.sqrt(np.asarray(weights / weights.max()).clip(0)).reshape(GRID, GRID)
    places = np.arange(side) * GRID // side
    light = light[places][:, places, None]
    dim = DARK + 0.15 * (pixels @ [0.3, 0.59, 0.11])[..., None]
    lit = 0.74 * pixels + 0.26 * LIGHT
    return Image.fromarray((dim * (1 - light) + lit * light).round().astype(np.uint8))


def frame(canvas: Canvas, x: float, y: float, side: float, patch: int, color: str = "#ffffff"):
    """Marks a patch of a picture that was pasted at x, y."""
    cell = side / GRID
    canvas.rect(x + patch % GRID * cell - 2, y + patch // GRID * cell - 2, cell + 4, cell + 4, None, INK, 5)
    canvas.rect(x + patch % GRID * cell, y + patch // GRID * cell, cell, cell, None, color, 3)


def strip(canvas: Canvas, x, y, w, h, values, largest=None):
    """A vector as a row of colored cells: rust is positive, blue negative."""
    largest = float(largest or max(abs(float(v)) for v in values))
    cell = w / len(values)
    for i, value in enumerate(values):
        canvas.rect(x + i * cell, y, cell + 0.4, h, signed(value, largest))
    canvas.rect(x - 1, y - 1, w + 2, h + 2, None, LINE, 1.5)


def shown(token: str) -> str:
    """A token in letters that the font has."""
    return token.replace("\n", "\\n").replace(SPACE, "_")


def tower_queries_keys(layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all heads in a layer of the tower: [H, N, Hd] each."""
    block = tiny.model.vision_tower.vision_model.encoder.layers[layer]
    x = block.layer_norm1(tiny.tower_states()[layer])
    H, Hd = block.self_attn.num_heads, block.self_attn.head_dim
    query, key = (
        projection(x)[0].view(-1, H, Hd).transpose(0, 1)
        for projection in (block.self_attn.q_proj, block.self_attn.k_proj)
    )
    return query, key


def tower_weights(layer: int) -> torch.Tensor:
    """The attention weights of a layer of the tower: [H, N, N]."""
    query, key = tower_queries_keys(layer)
    return (query @ key.transpose(1, 2) * query.shape[-1] ** -0.5).softmax(dim=-1)


def rms(x: torch.Tensor) -> torch.Tensor:
    return x.pow(2).mean(dim=-1).sqrt()
