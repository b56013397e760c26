"""The same drawing by another hand: as an outline, a stencil, in pencil, in one ink.

A model that is to read drawings of sets it has never seen needs more hands than there are sets. So a
share of the drawings is drawn again here, from their own edges and grays.
"""

import colorsys

import numpy as np
from PIL import Image, ImageFilter

from tiny_model.drawings import VISIBLE, Cutout, bend, crop
from tiny_model.grounds import INK_CONTRAST, LINE_CONTRAST, LUMINANCE, MIN_CONTRAST

MANNERS = ("outline", "coloring book", "stencil", "pencil", "one ink")
SHARES = (0.40, 0.15, 0.20, 0.15, 0.10)
# How much they must stand out from the ground.
CONTRASTS = dict(
    zip(MANNERS, (LINE_CONTRAST, MIN_CONTRAST, INK_CONTRAST, LINE_CONTRAST, INK_CONTRAST), strict=True)
)


# Inks that have a name, as there are so few drawings that are brown, orange or red all over.
DARK_INKS = ((200, 25, 30), (30, 80, 200), (20, 120, 45), (120, 40, 170), (105, 62, 35))
LIGHT_INKS = ((255, 255, 255), (255, 215, 40), (250, 150, 30), (252, 150, 195))


def random_ink(rng: np.random.Generator, is_light: bool) -> np.ndarray:
    """float32 [3]: nearly black, or a strong color that is dark; or nearly white, or bright."""
    kind = rng.random()
    if is_light:
        if kind < 0.5:
            ink = LIGHT_INKS[rng.integers(len(LIGHT_INKS))] + rng.uniform(-15, 15, 3)
        else:
            ink = rng.uniform((235, 200, 120), (255, 255, 255))
    elif kind < 0.45:
        ink = rng.uniform(0, 35) + rng.uniform(0, 15, 3)
    elif kind < 0.75:
        ink = DARK_INKS[rng.integers(len(DARK_INKS))] + rng.uniform(-15, 15, 3)
    else:
        ink = 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.7, 1), rng.uniform(0.45, 0.75)))
        ink *= min(1, 110 / (ink @ LUMINANCE))  # yellow and green are light where blue is not
    return ink.clip(0, 255).astype(np.float32)


def redraw(rng: np.random.Generator, cutout: Cutout, manner: str, ink: np.ndarray) -> Cutout:
    """The cutout in one of MANNERS."""
    rim = 2  # an outline is as much outside as inside
    paint = np.pad(cutout.paint, ((rim, rim), (rim, rim), (0, 0))).astype(np.float32) / 255
    inside = np.pad(cutout.inside, rim)
    alpha, gray = paint[..., 3], paint[..., :3] @ LUMINANCE
    if manner == "one ink":
        # Dark becomes ink and light becomes pale.
        pale = ink + (255 - ink) * rng.uniform(0.6, 0.95) if ink.mean() < 160 else ink * 0.25
        colors = alpha[..., None] * ink + gray[..., None] * (pale - ink)
        return _cutout(colors, alpha, inside)

    detail = rng.uniform(2.0, 5.0)  # how soon a step of gray becomes a line
    lines = np.clip(detail * _steps(gray) - 0.4, 0, 1)
    if manner == "stencil":
        alpha = alpha * (1 - lines * (_eroded(inside) > 0))
        return _cutout(alpha[..., None] * ink, alpha, inside)
    lines = np.maximum(lines, np.clip(2 * _steps(alpha) - 0.2, 0, 1))
    if max(lines.shape) > 45 and rng.random() < 0.5:
        thick = Image.fromarray(np.uint8(255 * lines)).filter(ImageFilter.MaxFilter(3))
        lines = np.asarray(thick, dtype=np.float32) / 255
    if manner == "coloring book":
        paper = np.float32(255 if ink.mean() < 160 else 30)
        colors = (alpha * (1 - lines))[..., None] * paper + lines[..., None] * ink
        return _cutout(colors, np.maximum(alpha, lines), inside)
    if manner == "pencil":
        y, x = np.ogrid[: lines.shape[0], : lines.shape[1]]
        hatching = 0.5 + 0.5 * np.sin(x * rng.uniform(-1.5, 1.5) + y * rng.uniform(0.8, 1.8))
        shade = (alpha - gray) * (0.35 + 0.45 * hatching)
        lines = np.maximum(0.9 * lines, shade)
    if (lines > 0.3).sum() < 0.06 * inside.sum():
        return cutout  # hardly anything would be left of it
    drawn = _cutout(lines[..., None] * ink, lines, inside)
    if rng.random() < 0.4 and min(lines.shape) > 30:
        drawn = bend(rng, drawn, 6, 0.12)  # a hand that is not quite steady
    return drawn


def other_line(rng: np.random.Generator, cutout: Cutout) -> Cutout:
    """A drawing of lines with thicker lines, or with a hand that is not quite steady, or both."""
    covered = (cutout.paint[..., 3] > VISIBLE).sum() / cutout.inside.sum()
    if rng.random() < 0.5 and covered < 0.4:
        rim = ((1, 1), (1, 1))
        thick = Image.fromarray(np.pad(cutout.paint, (*rim, (0, 0))), "RGBa")
        bands = [band.filter(ImageFilter.MaxFilter(3)) for band in thick.split()]
        paint = np.stack([np.asarray(band) for band in bands], axis=-1)
        cutout = Cutout(paint, np.pad(cutout.inside, rim) | (paint[..., 3] > VISIBLE))
    if rng.random() < 0.6 and min(cutout.inside.shape) > 30:
        cutout = bend(rng, cutout, 6, 0.12)
    return crop(cutout)


def _cutout(colors: np.ndarray, alpha: np.ndarray, inside: np.ndarray) -> Cutout:
    paint = np.concatenate([colors, 255 * alpha[..., None]], axis=-1).clip(0, 255).astype(np.uint8)
    return crop(Cutout(paint, inside | (paint[..., 3] > VISIBLE)))


def _steps(values: np.ndarray) -> np.ndarray:
    """How steeply [h, w] rises or falls at each place, along both axes together."""
    steep = np.zeros_like(values)
    steep[1:-1] += np.abs(values[2:] - values[:-2])
    steep[:, 1:-1] += np.abs(values[:, 2:] - values[:, :-2])
    return steep


def _eroded(inside: np.ndarray) -> np.ndarray:
    """Mode L of what is at least two pixels inside."""
    return np.asarray(Image.fromarray(np.uint8(255) * inside).filter(ImageFilter.MinFilter(5)))
