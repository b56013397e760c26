"""Pictures of one to three things with questions and true answers: what `paligemma-tiny` learns.

A scene is a square picture. On a ground of two colors, or a faint photograph, lie drawings of some
of 42 things (cat, bus, umbrella, ...), mirrored, turned, of any size, hardly overlapping. Some are
drawn again by another hand. Beside them may lie things that are none of the 42, which no answer
mentions, and a sign with a printed word. As the scene was composed here, every answer about it is
known: its caption, where each thing lies, how many there are.

What a scene is made of, in the order of its making:
  - tiny_model/words.py      the things, the colors, and their names in four languages
  - tiny_model/drawings.py   drawings of things, rendered, turned, bent
  - tiny_model/colors.py     what a color is called, and how colors are shifted
  - tiny_model/manners.py    the same drawing as an outline, in pencil, in one ink
  - tiny_model/grounds.py    patterns, textures, photographs
  - tiny_model/signs.py      boards with a word or a number
  - tiny_model/truth.py      what is known of a scene
  - tiny_model/questions.py  all kinds of questions with their true answers
What others need of these can be imported from here.

Dimensions: S side of the picture in pixels, h and w height and width of a drawing in pixels.
Boxes are (y1, x1, y2, x2) as fractions of the side, in PaliGemma's order: y before x.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from tiny_model.colors import clear_color, color_shift
from tiny_model.drawings import (
    DRAWINGS_FILE,
    HELD_OUT_STYLES,
    INKS,
    MIN_COVERED,
    OTHERS_FILE,
    TRAINING_STYLES,
    VISIBLE,
    Cutout,
    Drawing,
    cut_piece,
    load_drawings,
    load_others,
    make_drawing,
    turn,
)
from tiny_model.grounds import (
    INK_CONTRAST,
    LINE_CONTRAST,
    MIN_CONTRAST,
    dead_leaves,
    ground_colors,
    load_photographs,
    photograph_crop,
    random_ground,
    strokes,
)
from tiny_model.manners import CONTRASTS, MANNERS, SHARES, other_line, random_ink, redraw
from tiny_model.questions import (
    KINDS,
    QUESTIONS,
    ask,
    ask_where_close,
    beside,
    caption,
    color,
    count,
    detect,
    fill_in,
    is_there,
    mask_words,
    ocr,
    prompt_forms,
    segment,
    total,
    vary,
    where,
)
from tiny_model.signs import HELD_OUT_FONTS, Sign, draw_sign, load_fonts
from tiny_model.truth import Scene, Thing, named, patch_labels, patch_things
from tiny_model.words import COLORS, LANGUAGES, NOTHING, THINGS, article, plural

__all__ = [
    "COLORS", "DRAWINGS_FILE", "HELD_OUT_FONTS", "HELD_OUT_STYLES", "INKS", "KINDS", "LANGUAGES",
    "NOTHING", "OTHERS_FILE", "QUESTIONS", "THINGS", "TRAINING_STYLES", "VISIBLE", "Cutout", "Drawing",
    "Scene", "Sign", "Thing", "article", "ask", "ask_where_close", "beside", "caption", "color", "count",
    "cut_piece", "detect", "draw_nothing", "draw_scene", "fill_in", "is_there", "load_drawings",
    "load_fonts", "load_others", "load_photographs", "make_drawing", "mask_words", "named", "ocr",
    "patch_labels", "patch_things", "plural", "prompt_forms", "segment", "total", "turn", "vary", "where",
]  # fmt: skip

SIZES = {1: (0.20, 0.75), 2: (0.20, 0.55), 3: (0.20, 0.42)}  # longer side over S, by count
PACKED_SIZES = (0.18, 0.40)  # for four to six things
OTHER_SIZES = (0.16, 0.45)
MAX_OVERLAP = 0.08  # of the smaller of two boxes

# Shares of scenes that have it, where there are drawings, photographs or fonts for it.
WITH_OTHERS, WITH_SIGN, ON_PHOTOGRAPH = 0.20, 0.17, 0.10
REDRAWN, REDRAWN_WILD = 0.06, 0.16  # by another hand: at jitter 1, and for each 1 above


# -- What is pasted -------------------------------------------------------------------------------


@dataclass
class Piece:
    """Something that is pasted into a scene: a thing, something else (no name), or a sign."""

    cutout: Cutout
    name: str | None = None
    contrast: float = MIN_CONTRAST  # by how much the ground must differ
    sign: tuple[str, list] | None = None  # text and letters, if it is a sign

    @property
    def colors(self) -> np.ndarray:
        """float [2, 3]: the mean of all its colors, and of those at its rim."""
        inside, paint = self.cutout.inside, self.cutout.paint
        inner = inside[2:-2, 2:-2].copy()
        inner &= inside[4:, 2:-2] & inside[:-4, 2:-2] & inside[2:-2, 4:] & inside[2:-2, :-4]
        whole = paint.sum(axis=(0, 1), dtype=np.float64)
        rim = whole - paint[2:-2, 2:-2][inner].sum(axis=0, dtype=np.float64)
        rim = whole if rim[3] <= 0 else rim
        return 255 * np.stack([whole[:3] / whole[3], rim[:3] / rim[3]])


class Hand:
    """How the drawings of one scene are drawn: all in the same manner, all with inks of one kind."""

    def __init__(self, rng: np.random.Generator, jitter: float):
        self.rng, self.wild = rng, max(0.0, jitter - 1)
        self.colored = jitter > 0
        self.manner = None
        self.light_inks = False
        if self.colored:
            if rng.random() < REDRAWN * min(jitter, 1) + REDRAWN_WILD * self.wild:
                self.manner = str(rng.choice(MANNERS, p=SHARES))
            self.light_inks = rng.random() < 0.3

    def ink(self) -> np.ndarray:
        """float32 [3]"""
        if self.colored:
            return random_ink(self.rng, self.light_inks)
        ink = INKS[self.rng.integers(len(INKS))]
        return np.array([int(ink[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32)

    def draw(self, drawing: Drawing, side: float, size: int, name: str | None) -> Piece:
        """The drawing with a longer side of `side` * `size` pixels."""
        rng = self.rng
        # A large one, slanted, might not fit in.
        cutout = turn(rng, drawing, side * size, self.wild if side < 0.55 else 0.0)
        if self.wild and rng.random() < 0.2:
            cutout = cut_piece(rng, cutout)
        is_line, contrast = drawing.insides is not None, MIN_CONTRAST
        ink = self.ink()
        if not drawing.has_color:
            alpha = cutout.paint[..., 3:]
            paint = np.concatenate([alpha * (ink / 255), alpha], axis=-1)
            cutout = Cutout(paint.astype(np.uint8), cutout.inside)
            contrast = LINE_CONTRAST if is_line else INK_CONTRAST
            if is_line and rng.random() < 0.3 * self.wild:
                cutout = other_line(rng, cutout)
        elif self.manner and not is_line:
            cutout = redraw(rng, cutout, self.manner, ink)
            contrast = CONTRASTS[self.manner]
        elif self.wild:
            shift = color_shift(rng, 1.5 * self.wild, any_hue=rng.random() < 0.2)
            paint = cutout.paint.astype(np.float32)
            paint[..., :3] = (paint @ shift).clip(0, paint[..., 3:])
            cutout = Cutout(paint.astype(np.uint8), cutout.inside)
        return Piece(cutout, name, contrast)


# -- Scenes ---------------------------------------------------------------------------------------


def draw_scene(
    rng: np.random.Generator,
    drawings: dict[str, dict[str, list[Drawing]]],
    size: int = 160,
    count: int | None = None,
    jitter: float = 1.0,
    *,
    others: list[Drawing] | None = None,
    photographs: list[Image.Image] | None = None,
    fonts: list[Path] | None = None,
    with_sign: bool | None = None,
    small_print: bool = False,
) -> Scene:
    """Draw one scene of `count` things (None: one to three; up to six for packed scenes).

    `jitter`: 0 shows the true colors. At 1 the colors of the scene are shifted a little, some
    pictures are blurred or grainy, and some are drawn by another hand. What is above 1 goes to each
    drawing by itself, in color and slant, some get a hue of their own, and some lose a piece: to
    train on, so that less depends on any one hand.
    `others`, `photographs`, `fonts`: what may lie beside, what may be the ground, and what signs are
    printed in; `with_sign`: whether there is one (None: at times); `small_print`: in smaller letters.
    What finds no free place is left out: of three things hardly ever, of six sometimes.
    """
    if count is None:
        count = 1 + int(np.searchsorted([0.35, 0.70], rng.random()))
    hand = Hand(rng, jitter)
    names = choose_names(rng, list(drawings), count) if count else []
    low, high = SIZES.get(count, PACKED_SIZES)
    if with_sign is None:
        with_sign = count <= 3 and rng.random() < WITH_SIGN
    with_sign = bool(fonts) and with_sign
    if with_sign:
        high = min(high, 0.5)
    pieces = [
        hand.draw(drawing, rng.uniform(low, high), size, name)
        for name, drawing in zip(names, choose_drawings(rng, drawings, names), strict=True)
    ]
    if with_sign:
        board, text, letters = draw_sign(rng, fonts, size, jitter, small_print)
        pieces.append(Piece(Cutout(board, board[..., 3] > VISIBLE), sign=(text, letters)))
    if others and rng.random() < WITH_OTHERS:
        for _ in range(rng.integers(1, 3)):
            other = others[rng.integers(len(others))]
            pieces.append(hand.draw(other, rng.uniform(*OTHER_SIZES), size, None))
    of_lines = any(piece.contrast >= LINE_CONTRAST for piece in pieces)  # too fine for a photograph
    on_photograph = photographs and not of_lines and rng.random() < ON_PHOTOGRAPH
    return compose(rng, pieces, size, jitter, photographs if on_photograph else None)


def draw_nothing(
    rng: np.random.Generator,
    size: int = 160,
    jitter: float = 1.0,
    *,
    others: list[Drawing],
    photographs: list[Image.Image],
    fonts: list[Path] | None = None,
    small_print: bool = False,
) -> Scene:
    """A picture without any of the things: other drawings, texture, noise, a photograph, a ground."""
    hand = Hand(rng, jitter)
    kind = rng.choice(
        ("others", "photograph", "leaves", "noise", "strokes", "ground"),
        p=(0.45, 0.20, 0.10, 0.08, 0.07, 0.10),
    )
    pieces = []
    if kind == "others":
        number = int(rng.choice((1, 2, 3, 4), p=(0.45, 0.30, 0.15, 0.10)))
        low, high = SIZES.get(number, PACKED_SIZES)
        for _ in range(number):
            other = others[rng.integers(len(others))]
            pieces.append(hand.draw(other, rng.uniform(low, high), size, None))
    if fonts and rng.random() < WITH_SIGN:
        board, text, letters = draw_sign(rng, fonts, size, jitter, small_print)
        pieces.append(Piece(Cutout(board, board[..., 3] > VISIBLE), sign=(text, letters)))
    ground = None
    if kind == "photograph":
        ground = photograph_crop(rng, photographs, size)
    elif kind == "leaves":
        ground = dead_leaves(rng, size)
    elif kind == "noise":
        cells = int(size / rng.choice((1, 1, 2, 4, 8, 16)))
        noise = rng.integers(0, 256, (cells, cells, int(rng.choice((1, 3)))), dtype=np.uint8)
        image = Image.fromarray(np.broadcast_to(noise, (cells, cells, 3)).copy())
        ground = np.asarray(image.resize((size, size), Image.Resampling(rng.integers(2, 4))))
    elif kind == "strokes":
        ground = strokes(rng, size)
    return compose(rng, pieces, size, jitter, None, ground)


def compose(
    rng: np.random.Generator,
    pieces: list[Piece],
    size: int,
    jitter: float,
    photographs: list[Image.Image] | None = None,
    ground: np.ndarray | None = None,
) -> Scene:
    """Paste the pieces on a ground (None: one that they stand out from), and note what is where."""
    shapes = [piece.cutout.inside.shape for piece in pieces]
    # First the things and the sign, by size; what is none of the things gets what room there is.
    rank = [(not (p.name or p.sign), -h * w) for p, (h, w) in zip(pieces, shapes, strict=True)]
    order = sorted(range(len(pieces)), key=lambda i: rank[i])
    alone = [piece.sign is not None for piece in pieces]
    for _ in range(6):  # a large first one in the middle may leave no room for the others
        corners = place(rng, shapes, order, alone, size)
        if all(corners[i] is not None for i in range(len(pieces)) if not rank[i][0]):
            break
    placed = [(p, c) for p, c in zip(pieces, corners, strict=True) if c is not None]

    shift = color_shift(rng, min(jitter, 1))
    if ground is None:
        drawn = [piece for piece, _ in placed if piece.sign is None]
        colors = np.array([color for piece in drawn for color in piece.colors]).reshape(-1, 3)
        contrasts = np.repeat([piece.contrast for piece in drawn], 2)
        colors = ground_colors(rng, colors, contrasts)
        ground = random_ground(rng, colors @ shift[:3] + 255 * shift[3], size, photographs)
    canvas = ground.astype(np.float32)

    things, sign = [], None
    owner = np.full((size, size), -1, dtype=np.int8)
    for i in rng.permutation(len(placed)):
        piece, (y, x) = placed[i]
        paint, inside = piece.cutout.paint.astype(np.float32), piece.cutout.inside
        h, w = inside.shape
        window = np.s_[y : y + h, x : x + w]
        canvas[window] *= 1 - paint[..., 3:] / 255
        canvas[window] += paint @ shift
        box = (y / size, x / size, (y + h) / size, (x + w) / size)
        if piece.name:
            owner[window][inside] = len(things)
            things.append(Thing(piece.name, box, color_of(piece, canvas[window])))
        else:
            owner[window][paint[..., 3] > VISIBLE] = -1
        if piece.sign:
            text, letters = piece.sign
            corner = np.array([y, x, y, x])
            places = [(letter, tuple(((edges + corner) / size).tolist())) for letter, edges in letters]
            sign = Sign(text, box, places)

    # From left to right.
    order = sorted(range(len(things)), key=lambda i: things[i].centre[1])
    new_place = np.full(len(things) + 1, -1, dtype=np.int8)  # the last one is what -1 stands for
    new_place[order] = np.arange(len(things))
    things, owner = [things[i] for i in order], new_place[owner]

    if jitter and rng.random() < 0.2:
        grain = rng.random((size, size, 1), dtype=np.float32) - np.float32(0.5)
        canvas += np.float32(rng.uniform(5, 30)) * grain
    pixels = canvas.clip(0, 255, out=canvas).astype(np.uint8)
    if jitter and rng.random() < 0.1:
        blur = ImageFilter.BoxBlur(rng.uniform(0.2, 0.7))
        pixels = np.array(Image.fromarray(pixels).filter(blur))
    return Scene(pixels, things, owner, sign)


def color_of(piece: Piece, canvas: np.ndarray) -> str | None:
    """The name of a thing's color as it is seen on the canvas, if it clearly has one."""
    solid = piece.cutout.paint[..., 3] > 200
    color = clear_color(canvas[solid].clip(0, 255).astype(np.uint8))
    # Of a thing in outline nobody can say whether it is black, or white and drawn in black.
    is_outline = solid.sum() < MIN_COVERED * piece.cutout.inside.sum()
    return None if is_outline and color in ("black", "white", "gray") else color


def choose_names(rng: np.random.Generator, words: list[str], count: int) -> list[str]:
    """`count` words with many repeats, because otherwise there would be nothing to count but ones."""
    names = [words[rng.integers(len(words))]]
    all_equal = rng.random() < 0.25
    while len(names) < count:
        source = names if all_equal or rng.random() < 0.2 else words
        names.append(source[rng.integers(len(source))])
    return names


def choose_drawings(
    rng: np.random.Generator, drawings: dict[str, dict[str, list[Drawing]]], names: list[str]
) -> list[Drawing]:
    """A drawing for each name; two of a name are as often the same drawing as different ones."""
    chosen = []
    for i, name in enumerate(names):
        if name in names[:i] and rng.random() < 0.5:
            chosen.append(chosen[names.index(name)])
        else:
            styles = list(drawings[name].values())
            style = styles[rng.integers(len(styles))]
            chosen.append(style[rng.integers(len(style))])
    return chosen


def place(
    rng: np.random.Generator,
    shapes: list[tuple[int, int]],
    order: list[int],
    alone: list[bool],
    size: int,
    tries: int = 64,
) -> list[tuple[int, int] | None]:
    """Upper left corners (y, x) for rectangles (h, w), wholly inside; None: no place found.

    In this order, the larger ones first, so that an overlap is measured by the smaller one. What is
    to be `alone` overlaps nothing.
    """
    corners = [None] * len(shapes)
    placed = []
    for i in order:
        h, w = shapes[i]
        if h > size or w > size:
            continue
        y = rng.integers(0, size - h + 1, tries)
        x = rng.integers(0, size - w + 1, tries)
        free = np.ones(tries, dtype=bool)
        for other_y, other_x, other_h, other_w, other_alone in placed:
            height = np.minimum(y + h, other_y + other_h) - np.maximum(y, other_y)
            width = np.minimum(x + w, other_x + other_w) - np.maximum(x, other_x)
            shared = np.maximum(height, 0) * np.maximum(width, 0)
            if alone[i] or other_alone:
                free &= shared <= 0
            else:
                free &= shared < MAX_OVERLAP * min(h * w, other_h * other_w)
        if free.any():
            best = free.argmax()
            corners[i] = int(y[best]), int(x[best])
            placed.append((*corners[i], h, w, alone[i]))
    return corners
