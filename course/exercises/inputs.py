"""Inputs for the cases of exercises: always the same numbers, made again at every call."""

import numpy as np
import torch
from PIL import Image


def randn(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale).to(dtype)


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture of soft random patches, in which no two sides or colors are alike."""
    rng = np.random.default_rng(seed)
    channels = {"L": 1, "1": 1, "P": 3, "RGB": 3, "RGBA": 4, "CMYK": 4, "LA": 2}[mode]
    coarse = rng.integers(0, 256, (7, 5, channels), dtype=np.uint8)
    bands = [
        Image.fromarray(coarse[:, :, i]).resize((width, height), Image.Resampling.BILINEAR)
        for i in range(channels)
    ]
    if mode == "P":
        return Image.merge("RGB", bands).quantize(16)
    if mode == "1":
        return bands[0].convert("1")
    return Image.merge(mode, bands) if channels > 1 else bands[0]
