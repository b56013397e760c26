"""Drawings of things: rendered from SVG, turned, and drawn again by another hand.

`tiny_model/drawings.json` holds drawings of the 42 things, `other_drawings.json` drawings of other
things, unchanged, as SVG, with their authors and licenses. Two styles are never trained on, so that
it can be measured how well the model reads drawings that it has not seen.

Dimensions: h and w height and width of a drawing in pixels. Colors are multiplied by alpha (Pillow's
RGBa), because only then may neighboring pixels be averaged.
"""

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from program.files import replace_file
from tiny_model.words import THINGS

# A style is a set of drawings, or several small sets that are alike.
TRAINING_STYLES = (
    "noto", "noto-v1", "fluent-emoji-flat", "fluent-emoji", "fxemoji", "emojione",
    "streamline-emojis", "silhouettes", "icons", "hand-drawn",
    "outlines", "outlines thin", "outlines bold", "outlines emoji",
)  # fmt: skip
HELD_OUT_STYLES = ("twemoji", "outlines held out")
DRAWINGS_FILE = Path(__file__).with_name("drawings.json")
OTHERS_FILE = Path(__file__).with_name("other_drawings.json")
INKS = ("#222222", "#b03a2e", "#2471a3")  # for drawings that come without color
LEVELS = (160, 113, 80, 56, 40)  # longer sides in pixels, each the one before over the root of two
MAX_TILT = math.radians(15)
VISIBLE = 0.1 * 255  # a pixel with less alpha than this shows nothing
MIN_COVERED = 0.75  # of its inside: a drawing that covers less is one of lines


@dataclass
class Drawing:
    """One drawing, ready to be placed: a pyramid of sizes, so that none is ever shrunk by much."""

    levels: list[Image.Image]  # mode RGBa, longer sides as in LEVELS, each with a transparent rim of 1
    insides: list[Image.Image] | None  # mode L, what the lines of an outline enclose; None if filled
    has_color: bool  # else it is black, to be drawn in any ink


@dataclass
class Cutout:
    """A drawing as it will be pasted into a scene."""

    paint: np.ndarray  # uint8 [h, w, 4], colors multiplied by alpha
    inside: np.ndarray  # bool [h, w], what belongs to the thing: also what its lines enclose


# -- From SVG to pixels ---------------------------------------------------------------------------


def load_drawings(styles: Iterable[str], store: Path | None = None) -> dict[str, dict[str, list[Drawing]]]:
    """Render the drawings of `styles`: thing -> style -> drawings, things as in THINGS.

    By style, because to choose the style first and then a drawing of it keeps sets with many
    drawings of a thing from crowding out the others. `store`: see `render`.
    """
    found = {thing: {} for thing in THINGS}
    for style, thing, drawing in _load(DRAWINGS_FILE, styles, store):
        found[thing].setdefault(style, []).append(drawing)
    return {thing: by_style for thing, by_style in found.items() if by_style}


def load_others(styles: Iterable[str], store: Path | None = None) -> list[Drawing]:
    """Render the drawings of `styles` that show none of the things."""
    return [drawing for _, _, drawing in _load(OTHERS_FILE, styles, store)]


def _load(file: Path, styles: Iterable[str], store: Path | None) -> list[tuple[str, str, Drawing]]:
    styles = tuple(styles)
    places, svgs = [], []
    for name, one_set in json.loads(file.read_text(encoding="utf-8")).items():
        style = one_set.get("style", name)
        for thing, entries in one_set["drawings"].items() if style in styles else ():
            for entry in entries:
                places.append((style, thing))
                svgs.append(
                    '<svg xmlns="http://www.w3.org/2000/svg" '
                    'xmlns:xlink="http://www.w3.org/1999/xlink" '
                    f'viewBox="0 0 {entry["width"]} {entry["height"]}">{entry["body"]}</svg>'
                )
    pictures = render(svgs, store)
    return [(*place, make_drawing(picture)) for place, picture in zip(places, pictures, strict=True)]


def render(svgs: list[str], store: Path | None = None) -> list[Image.Image]:
    """RGBA pictures of SVGs. `store` is a zip file that keeps them: rendering takes 10 ms each."""
    from resvg_py import svg_to_bytes  # needed here only: scenes are drawn from pixels

    names = [hashlib.sha256(svg.encode()).hexdigest() for svg in svgs]
    kept = {}
    if store is not None and store.exists():
        with zipfile.ZipFile(store) as file:
            kept = {name: file.read(name) for name in file.namelist()}
    missing = {name: svg for name, svg in zip(names, svgs, strict=True) if name not in kept}
    for name, svg in missing.items():
        kept[name] = bytes(svg_to_bytes(svg_string=svg, width=192, skip_system_fonts=True))
    if missing and store is not None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as file:
            for name, png in kept.items():
                file.writestr(name, png)
        replace_file(store, content.getvalue())
    return [Image.open(io.BytesIO(kept[name])).convert("RGBA") for name in names]


def make_drawing(image: Image.Image) -> Drawing:
    """Crop an RGBA image to what is visible and make its pyramid."""
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > VISIBLE)).getbbox())
    premultiplied = image.convert("RGBa")
    inside = enclosed(image.getchannel("A"))
    levels, insides, level = [], [], None
    for side in LEVELS:
        scale = side / max(image.size)
        size = [max(1, round(scale * extent)) for extent in image.size]
        level = (level or premultiplied).resize(size, Image.Resampling.LANCZOS)
        # The transparent rim is what a turned edge is blended with.
        levels.append(ImageOps.expand(level, border=1, fill=(0, 0, 0, 0)))
        if inside is not None:
            insides.append(ImageOps.expand(inside.resize(size, Image.Resampling.BILINEAR), border=1))
    pixels = np.asarray(premultiplied)
    has_color = bool(pixels[..., :3].any())
    return Drawing(levels, insides or None, has_color)


def enclosed(alpha: Image.Image) -> Image.Image | None:
    """Mode L, 255 where lines of an outline enclose the ground; None for a drawing that is filled.

    Small gaps are closed. What belongs to a cat in outline is all of the cat, not its lines alone.
    """
    side, gap = 80, 5  # it is enough to look at a small copy
    scale = side / max(alpha.size)
    small = alpha.resize([max(1, round(scale * extent)) for extent in alpha.size])
    small = ImageOps.expand(small, border=gap)
    visible = np.asarray(small) > VISIBLE
    # Between something visible on all four sides: more than what is enclosed, but quickly found.
    forth = [np.logical_or.accumulate(visible, axis=axis) for axis in (0, 1)]
    back = [np.flip(np.logical_or.accumulate(np.flip(visible, axis), axis), axis) for axis in (0, 1)]
    if visible.sum() >= MIN_COVERED * (forth[0] & forth[1] & back[0] & back[1]).sum():
        return None
    thick = np.asarray(small.filter(ImageFilter.MaxFilter(gap))) > VISIBLE
    outside = np.zeros_like(thick)
    outside[0] = outside[-1] = outside[:, 0] = outside[:, -1] = True
    while True:
        grown = outside.copy()
        grown[1:] |= outside[:-1]
        grown[:-1] |= outside[1:]
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown &= ~thick
        if (grown == outside).all():
            break
        outside = grown
    inner = Image.fromarray(np.uint8(255) * ~outside).filter(ImageFilter.MinFilter(gap))
    inner = np.asarray(inner) > 0
    if visible.sum() >= MIN_COVERED * (inner | visible).sum():
        return None
    filled = Image.fromarray(np.uint8(255) * (inner | visible))
    return ImageOps.crop(filled, gap).resize(alpha.size, Image.Resampling.BILINEAR)


# -- Turned, bent, cut ----------------------------------------------------------------------------


def turn(rng: np.random.Generator, drawing: Drawing, longer_side: float, wild: float = 0.0) -> Cutout:
    """Mirror, stretch, scale, tilt and slant a drawing, and crop it to what is visible.

    `wild`: stretches more, and slants: the upper edge moves sideways by up to 0.15 of the height.
    """
    # The smallest level that is not smaller than what is asked for: shrunk by at most 1.41.
    large_enough = [i for i, image in enumerate(drawing.levels) if max(image.size) - 2 >= longer_side]
    level = large_enough[-1] if large_enough else 0
    source_w, source_h = drawing.levels[level].size  # with the rim of 1

    most = 0.06 * (1 + wild)
    stretch = math.exp(rng.uniform(-most, most))  # pictures that are not square get squashed
    w, h = (source_w - 2) * stretch, (source_h - 2) / stretch
    scale = longer_side / max(w, h)
    w, h = w * scale, h * scale
    angle = rng.uniform(-MAX_TILT, MAX_TILT)
    cos, sin = math.cos(angle), math.sin(angle)
    slant = 0.15 * wild * rng.uniform(-1, 1)
    out_h = math.ceil(h * cos + w * abs(sin)) + 2
    out_w = math.ceil(w * cos + h * abs(sin) + abs(slant) * out_h) + 2

    # PIL asks where each pixel of the result comes from: (x, y) -> (a x + b y + c, d x + e y + f).
    step_x = (source_w - 2) / w * (1 if rng.random() < 0.5 else -1)
    step_y = (source_h - 2) / h
    a, b = cos * step_x, (sin + slant * cos) * step_x
    d, e = -sin * step_y, (cos - slant * sin) * step_y
    c = source_w / 2 - a * out_w / 2 - b * out_h / 2  # center comes from center
    f = source_h / 2 - d * out_w / 2 - e * out_h / 2

    def turned(image: Image.Image) -> np.ndarray:
        return np.asarray(
            image.transform(
                (out_w, out_h), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
            )
        )

    paint = turned(drawing.levels[level])
    inside = paint[..., 3] > VISIBLE
    if drawing.insides is not None:
        inside = inside | (turned(drawing.insides[level]) > 127)
    return crop(Cutout(paint, inside))


def bend(rng: np.random.Generator, cutout: Cutout, cells: int, strength: float) -> Cutout:
    """Move the corners of a grid of `cells` x `cells` at random by up to `strength` cells."""
    h, w = cutout.inside.shape
    move = rng.uniform(-strength, strength, (cells + 1, cells + 1, 2)) * (w / cells, h / cells)
    move[0] = move[-1] = move[:, 0] = move[:, -1] = 0  # so that nothing gets lost at the edges
    xs, ys = np.linspace(0, w, cells + 1), np.linspace(0, h, cells + 1)
    source = move + np.stack(np.meshgrid(xs, ys), axis=-1)
    mesh = [
        (
            (round(xs[j]), round(ys[i]), round(xs[j + 1]), round(ys[i + 1])),
            (*source[i, j], *source[i + 1, j], *source[i + 1, j + 1], *source[i, j + 1]),
        )
        for i in range(cells)
        for j in range(cells)
    ]

    def bent(image: Image.Image) -> np.ndarray:
        return np.asarray(image.transform((w, h), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR))

    paint = bent(Image.fromarray(cutout.paint, "RGBa"))
    inside = bent(Image.fromarray(np.uint8(255) * cutout.inside)) > 127
    return crop(Cutout(paint, inside | (paint[..., 3] > VISIBLE)))


def cut_piece(rng: np.random.Generator, cutout: Cutout) -> Cutout:
    """Take up to a quarter of a cutout away, as if something lay in front; crop it again."""
    h, w = cutout.inside.shape
    part_h, part_w = int(h * rng.uniform(0.2, 0.5)), int(w * rng.uniform(0.2, 0.5))
    y, x = rng.integers(0, h - part_h + 1), rng.integers(0, w - part_w + 1)
    piece = np.s_[y : y + part_h, x : x + part_w]
    paint, inside = cutout.paint.copy(), cutout.inside.copy()
    paint[piece], inside[piece] = 0, False
    return crop(Cutout(paint, inside))


def crop(cutout: Cutout) -> Cutout:
    """Smaller by the rows and columns at its edges that show nothing."""
    visible = cutout.paint[..., 3] > VISIBLE
    ys, xs = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    window = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    return Cutout(cutout.paint[window], cutout.inside[window])
