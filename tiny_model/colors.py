"""Colors: what a color is called, and how the colors of a picture are shifted."""

import colorsys
import math
from functools import cache

import numpy as np

from tiny_model.words import COLORS

# A color is clear if at least so much of a thing has it, and no other name has more than so much.
MIN_SHARE, MAX_SECOND_SHARE = 0.55, 0.15
STEPS = 32  # of red, green and blue in the table of names
UNCLEAR = len(COLORS)


def name_of(red: float, green: float, blue: float) -> str | None:
    """The name of a color from 0 to 1 if hardly anybody would give it another; else None.

    Between any two names is a strip of colors that some would call this, and others that.
    """
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    hue, chroma = 360 * hue, saturation * value
    if value < 0.22:
        return "black" if value < 0.16 or chroma < 0.08 else None
    if chroma < 0.07:
        if value > 0.92:
            return "white"
        return "gray" if 0.42 < value < 0.74 else None
    if saturation < 0.30 or chroma < 0.18:
        is_rose = (hue > 325 or hue < 5) and saturation > 0.18 and value > 0.85
        return "pink" if is_rose else None
    if hue < 10 or hue > 345:
        if saturation > 0.65:
            return "red" if value > 0.5 else None
        return "pink" if value > 0.8 and saturation < 0.55 else None
    if hue < 42 and 0.22 < value < 0.62 and saturation > 0.38 and hue > 12:
        return "brown"
    if 20 < hue < 38:
        return "orange" if value > 0.8 and saturation > 0.62 else None
    if 45 < hue < 60:
        return "yellow" if value > 0.78 and saturation > 0.4 else None
    if 80 < hue < 158:
        return "green" if value > 0.28 else None
    if 192 < hue < 246:
        return "blue" if value > 0.35 else None
    if 266 < hue < 295:
        return "purple" if value > 0.3 else None
    if 312 < hue <= 345:
        return "pink" if value > 0.75 and saturation < 0.75 else None
    return None


@cache
def table() -> np.ndarray:
    """int8 [32, 32, 32]: for each red, green and blue the place in COLORS, or UNCLEAR."""
    levels = (np.arange(STEPS) + 0.5) / STEPS
    names = [name_of(red, green, blue) for red in levels for green in levels for blue in levels]
    places = [UNCLEAR if name is None else COLORS.index(name) for name in names]
    return np.array(places, dtype=np.int8).reshape(STEPS, STEPS, STEPS)


def clear_color(pixels: np.ndarray) -> str | None:
    """The name of the color that uint8 [n, 3] pixels have, if it is clear."""
    red, green, blue = (pixels // (256 // STEPS)).T
    shares = np.bincount(table()[red, green, blue], minlength=UNCLEAR + 1) / max(1, len(pixels))
    first, second = np.sort(shares[:UNCLEAR])[::-1][:2]
    if first < MIN_SHARE or second > MAX_SECOND_SHARE:
        return None
    return COLORS[int(shares[:UNCLEAR].argmax())]


def color_shift(rng: np.random.Generator, jitter: float, any_hue: bool = False) -> np.ndarray:
    """float [4, 3]: (r, g, b, 255) @ it is the color with all of it a little otherwise.

    Mild on purpose at jitter 1: a pale star or a gray carrot could not be read by anybody. The last
    row is an offset in units of alpha, so that the map works on colors multiplied by alpha, too.
    """
    contrast, saturation = 1 + jitter * rng.uniform(-0.15, 0.15, 2)
    brightness = 1 + jitter * rng.uniform(-0.15, 0.1)
    angle = rng.uniform(-math.pi, math.pi) if any_hue else jitter * math.radians(rng.uniform(-8, 8))
    gray, eye = np.full((3, 3), 1 / 3), np.eye(3)
    # Hue is the angle around the gray axis (1, 1, 1) / sqrt(3): Rodrigues' formula.
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    hue = math.cos(angle) * eye + math.sin(angle) * cross + (1 - math.cos(angle)) * gray
    matrix = contrast * brightness * (saturation * hue + (1 - saturation) * gray)
    offset = np.full((1, 3), 128 * (1 - contrast) / 255)
    return np.concatenate([matrix.T, offset]).astype(np.float32)
