"""Pictures of one to three things with questions and true answers: what `paligemma-tiny` learns.

A scene is a square picture. On a ground of two colors lie drawings of some of 42 things (cat,
bus, umbrella, ...), mirrored, turned, of any size, hardly overlapping. As the scene was composed
here, every answer about it is known: its caption, where each thing lies, how many there are.
The prompts and answers have the forms PaliGemma was trained on (PaliGemma paper, section 3.2.5):

    caption en                              two apples and a car
    detect car                              <loc0102><loc0561><loc0480><loc0979> car
    answer en how many apples are there?    2
    answer en is there a dog?               no
    answer en where is the car?             top right

The drawings are those of eight emoji sets, and from thirteen sets of icons; `tiny_model/drawings.json`
holds them unchanged, as SVG, with their authors and licenses. A whole set, Twemoji, is never
trained on, so that it can be measured how well the model reads drawings that it has not seen.

Dimensions: S side of the picture in pixels, h and w height and width of a drawing in pixels.
Boxes are (y1, x1, y2, x2) as fractions of the side, in PaliGemma's order: y before x.
"""

import io
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

THINGS = [
    "cat", "dog", "horse", "cow", "pig", "rabbit", "lion", "bear", "elephant", "frog", "bird",
    "penguin", "turtle", "bee", "apple", "banana", "carrot", "pizza", "cake", "cup", "mushroom",
    "car", "bus", "bicycle", "airplane", "boat", "rocket", "house", "tree", "flower", "ball",
    "book", "clock", "key", "umbrella", "hat", "guitar", "star", "heart", "bell", "balloon", "gift",
]  # fmt: skip
# A style is a set of drawings; "silhouettes" and "icons" are several small sets each.
TRAINING_STYLES = (
    "noto", "noto-v1", "fluent-emoji-flat", "fluent-emoji", "fxemoji", "emojione",
    "streamline-emojis", "silhouettes", "icons",
    "outlines", "outlines thin", "outlines bold", "outlines emoji", "hand-drawn",
)  # fmt: skip
HELD_OUT_STYLES = ("twemoji", "outlines held out")
INKS = ("#222222", "#b03a2e", "#2471a3")  # for drawings that come without color
KINDS = ("caption", "detect", "count", "is there", "where")

DRAWINGS_FILE = Path(__file__).with_name("drawings.json")
LEVELS = (160, 113, 80, 56, 40)  # longer sides in pixels, each the one before over the root of two
SIZES = {1: (0.20, 0.75), 2: (0.20, 0.55), 3: (0.20, 0.42)}  # longer side over S, by count
PACKED_SIZES = (0.18, 0.40)  # for four to six things
MAX_TILT = math.radians(15)
MAX_OVERLAP = 0.08  # of the smaller of two boxes
VISIBLE = 0.1 * 255  # a pixel with less alpha than this shows nothing
MIN_CONTRAST = 70  # between a drawing's mean color and the colors of the ground


# -- Drawings -------------------------------------------------------------------------------------


@dataclass
class Drawing:
    """One drawing, ready to be placed: a pyramid of sizes, so that none is ever shrunk by much."""

    levels: list[Image.Image]  # mode RGBa (colors multiplied by alpha), longer sides as in LEVELS
    color: np.ndarray  # float [3], mean color of what is visible


def load_drawings(styles: tuple[str, ...]) -> dict[str, dict[str, list[Drawing]]]:
    """Render the drawings of `styles`: thing -> style -> drawings, things as in THINGS.

    By style, because to choose the style first and then a drawing of it keeps sets with many
    drawings of a thing from crowding out the others. A silhouette is rendered in each of INKS.
    """
    from resvg_py import svg_to_bytes  # needed here only: scenes are drawn from pixels

    sets = json.loads(DRAWINGS_FILE.read_text(encoding="utf-8"))
    rendered = {thing: {} for thing in THINGS}
    for name, one_set in sets.items():
        style = one_set.get("style", name)
        if style not in styles:
            continue
        for thing, entries in one_set["drawings"].items():
            for entry in entries:
                svg = (
                    '<svg xmlns="http://www.w3.org/2000/svg" '
                    'xmlns:xlink="http://www.w3.org/1999/xlink" '
                    f'viewBox="0 0 {entry["width"]} {entry["height"]}">{entry["body"]}</svg>'
                )
                # What has colors of its own is the same in each ink, and so comes once.
                for inked in dict.fromkeys(svg.replace("currentColor", ink) for ink in INKS):
                    png = svg_to_bytes(svg_string=inked, width=192, skip_system_fonts=True)
                    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
                    rendered[thing].setdefault(style, []).append(make_drawing(image))
    return {thing: by_style for thing, by_style in rendered.items() if by_style}


def make_drawing(image: Image.Image) -> Drawing:
    """Crop an RGBA image to what is visible and make its pyramid."""
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > VISIBLE)).getbbox())
    premultiplied = image.convert("RGBa")
    red, green, blue, alpha = np.asarray(premultiplied, dtype=np.float64).mean(axis=(0, 1))
    levels = []
    for side in LEVELS:
        scale = side / max(image.size)
        size = [max(1, round(scale * extent)) for extent in image.size]
        level = premultiplied.resize(size, Image.Resampling.LANCZOS)
        # The transparent rim is what a turned edge is blended with.
        levels.append(ImageOps.expand(level, border=1, fill=(0, 0, 0, 0)))
    return Drawing(levels, np.array([red, green, blue]) * 255 / alpha)


def turn(rng: np.random.Generator, drawing: Drawing, longer_side: float, wild: float = 0.0) -> np.ndarray:
    """Mirror, stretch, scale, tilt and slant a drawing -> uint8 [h, w, 4], cropped to what is visible.

    `wild`: stretches more, and slants: the upper edge moves sideways by up to 0.15 of the height.
    """
    # The smallest level that is not smaller than what is asked for: shrunk by at most 1.41.
    large_enough = [image for image in drawing.levels if max(image.size) - 2 >= longer_side]
    image = large_enough[-1] if large_enough else drawing.levels[0]
    source_w, source_h = image.size  # with the rim of 1

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
    c = source_w / 2 - a * out_w / 2 - b * out_h / 2  # centre comes from centre
    f = source_h / 2 - d * out_w / 2 - e * out_h / 2
    turned = image.transform(
        (out_w, out_h), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
    )
    return crop(np.asarray(turned))


def cut_piece(rng: np.random.Generator, cutout: np.ndarray) -> np.ndarray:
    """Take up to a quarter of a cutout away, as if something lay in front; crop it again."""
    h, w = cutout.shape[:2]
    part_h, part_w = int(h * rng.uniform(0.2, 0.5)), int(w * rng.uniform(0.2, 0.5))
    y, x = rng.integers(0, h - part_h + 1), rng.integers(0, w - part_w + 1)
    cutout = cutout.copy()
    cutout[y : y + part_h, x : x + part_w] = 0
    return crop(cutout)


def crop(cutout: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 4], smaller by the rows and columns at its edges that show nothing."""
    visible = cutout[..., 3] > VISIBLE
    ys, xs = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    return cutout[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


# -- Grounds --------------------------------------------------------------------------------------


@lru_cache
def patterns(size: int) -> np.ndarray:
    """float32 [P, S, S, 2]: how much of each of its two colors a ground has at each pixel."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5

    def gradient():
        angle = rng.uniform(0, 2 * math.pi)
        return 0.5 + (x * math.cos(angle) + y * math.sin(angle)) / 1.4

    def radial():
        return np.hypot(x - rng.uniform(-0.4, 0.4), y - rng.uniform(-0.4, 0.4))

    def wave():
        angle, frequency = rng.uniform(0, math.pi), rng.uniform(3, 12)
        return np.sin(2 * math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle)))

    def grid():
        frequency = rng.integers(3, 9)
        return np.sin(2 * math.pi * frequency * x) * np.sin(2 * math.pi * frequency * y)

    def noise(cells):
        small = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))

    def texture():
        return 0.6 * noise(rng.integers(3, 7)) + 0.4 * noise(rng.integers(8, 30))

    makers = (
        gradient,
        radial,
        lambda: 4 * wave() + 0.5,  # stripes
        lambda: 8 * grid() + 0.5,  # checks
        lambda: 8 * (grid() - 0.6) + 0.5,  # dots
        lambda: noise(rng.integers(2, 9)),  # clouds
        texture,
        lambda: noise(size // rng.integers(1, 4)),  # grain
    )
    second = np.clip([make() for make in makers for _ in range(12)], 0, 1)
    return np.stack([1 - second, second], axis=-1).astype(np.float32)


def ground_colors(rng: np.random.Generator, drawings: list[Drawing]) -> np.ndarray:
    """Two colors, float [2, 3] in 0 to 255, from which the drawings stand out."""
    for _ in range(12):
        kind = rng.random()
        low, high = (
            (240, 255) if kind < 0.30  # white
            else (170, 255) if kind < 0.60  # pastel
            else (0, 90) if kind < 0.75  # dark
            else (0, 255)
        )  # fmt: skip
        first = rng.uniform(low, high, 3)
        # One ground in four is plain. The others are of kindred colors: on a pattern of two
        # strong ones no drawing is easily seen.
        apart = 0 if rng.random() < 0.25 else rng.uniform(0.05, 0.6)
        second = first + (rng.uniform(0, 255, 3) - first) * apart
        colors = np.stack([first, second])
        if all(np.linalg.norm(colors - drawing.color, axis=1).min() > MIN_CONTRAST for drawing in drawings):
            break
    return colors


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


# -- Scenes ---------------------------------------------------------------------------------------


@dataclass
class Thing:
    name: str
    box: tuple[float, float, float, float]  # (y1, x1, y2, x2), tight around what is visible

    @property
    def centre(self) -> tuple[float, float]:
        y1, x1, y2, x2 = self.box
        return (y1 + y2) / 2, (x1 + x2) / 2


@dataclass
class Scene:
    pixels: np.ndarray  # uint8 [S, S, 3]
    things: list[Thing]  # from left to right by their centres
    owner: np.ndarray  # int8 [S, S], which of `things` a pixel shows, -1 for the ground


def draw_scene(
    rng: np.random.Generator,
    drawings: dict[str, dict[str, list[Drawing]]],
    size: int = 160,
    count: int | None = None,
    jitter: float = 1.0,
) -> Scene:
    """Draw one scene of `count` things (None: one to three; up to six for packed scenes).

    `jitter`: 0 shows the true colors. At 1 the colors of the scene are shifted a little, and some
    pictures are blurred or grainy. What is above 1 goes to each drawing by itself, in color and
    slant, some get a hue of their own, and some lose a piece: to train on, so that less depends on
    any one hand.
    What finds no free place is left out: of three things hardly ever, of six sometimes.
    """
    if count is None:
        count = 1 + int(np.searchsorted([0.35, 0.70], rng.random()))
    names = choose_names(rng, list(drawings), count)
    chosen = choose_drawings(rng, drawings, names)
    low, high = SIZES.get(count, PACKED_SIZES)
    wild = max(0.0, jitter - 1)
    cutouts = []
    for drawing in chosen:
        side = rng.uniform(low, high)
        # A large one, slanted, might not fit in.
        cutouts.append(turn(rng, drawing, side * size, wild if side < 0.55 else 0.0))
        if wild and rng.random() < 0.2:
            cutouts[-1] = cut_piece(rng, cutouts[-1])
    for _ in range(4):  # a large first one in the middle may leave no room for the others
        corners = place(rng, [cutout.shape[:2] for cutout in cutouts], size)
        if None not in corners:
            break

    placed = []
    for name, corner, cutout in zip(names, corners, cutouts, strict=True):
        if corner is not None:
            (y, x), (h, w) = corner, cutout.shape[:2]
            box = (y / size, x / size, (y + h) / size, (x + w) / size)
            placed.append((Thing(name, box), np.s_[y : y + h, x : x + w], cutout))
    placed.sort(key=lambda item: item[0].centre[1])

    shift = color_shift(rng, min(jitter, 1))
    colors = np.float32(ground_colors(rng, chosen) @ shift[:3] + 255 * shift[3])
    pool = patterns(size)
    pattern = pool[rng.integers(len(pool))]
    if rng.random() < 0.5:
        pattern = pattern[::-1]
    # (S S, 3) = (S S, 2) @ (2, 3)
    canvas = (pattern.reshape(-1, 2) @ colors).reshape(size, size, 3)

    owner = np.full((size, size), -1, dtype=np.int8)
    for index in rng.permutation(len(placed)):
        _, window, cutout = placed[index]
        cutout = cutout.astype(np.float32)
        canvas[window] *= 1 - cutout[..., 3:] / 255
        if wild:
            cutout[..., :3] = cutout @ color_shift(rng, 1.5 * wild, any_hue=rng.random() < 0.2)
        canvas[window] += cutout @ shift
        owner[window][cutout[..., 3] > VISIBLE] = index

    if jitter and rng.random() < 0.2:
        grain = rng.random((size, size, 1), dtype=np.float32) - np.float32(0.5)
        canvas += np.float32(rng.uniform(5, 30)) * grain
    pixels = canvas.clip(0, 255, out=canvas).astype(np.uint8)
    if jitter and rng.random() < 0.1:
        blur = ImageFilter.BoxBlur(rng.uniform(0.2, 0.7))
        pixels = np.array(Image.fromarray(pixels).filter(blur))
    return Scene(pixels, [item[0] for item in placed], owner)


def choose_names(rng: np.random.Generator, words: list[str], count: int) -> list[str]:
    """`count` words with many repeats, for else there would be nothing to count but ones."""
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
    rng: np.random.Generator, shapes: list[tuple[int, int]], size: int, tries: int = 64
) -> list[tuple[int, int] | None]:
    """Upper left corners (y, x) for rectangles (h, w), wholly inside; None: no place found."""
    corners = [None] * len(shapes)
    placed = []
    for i in sorted(range(len(shapes)), key=lambda i: -shapes[i][0] * shapes[i][1]):
        h, w = shapes[i]
        y = rng.integers(0, size - h + 1, tries)
        x = rng.integers(0, size - w + 1, tries)
        free = np.ones(tries, dtype=bool)
        for other_y, other_x, other_h, other_w in placed:
            height = np.minimum(y + h, other_y + other_h) - np.maximum(y, other_y)
            width = np.minimum(x + w, other_x + other_w) - np.maximum(x, other_x)
            shared = np.maximum(height, 0) * np.maximum(width, 0)
            free &= shared < MAX_OVERLAP * h * w  # the larger ones were placed before
        if free.any():
            best = free.argmax()
            corners[i] = int(y[best]), int(x[best])
            placed.append((*corners[i], h, w))
    return corners


def patch_labels(scene: Scene, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """What each of grid x grid patches shows: labels int64 [grid²] and boxes float32 [grid², 4].

    The label is the place in THINGS of the thing that covers most of the patch if that is at
    least 0.15 of it, else len(THINGS) for the ground, whose box is zeros.
    """
    size, n = len(scene.owner), len(scene.things)
    part = np.arange(size) * grid // size
    patch = part[:, None] * grid + part[None, :]
    seen = np.bincount((patch * (n + 1) + scene.owner + 1).ravel(), minlength=grid**2 * (n + 1))
    seen = seen.reshape(grid**2, n + 1)
    covered = seen[:, 1:] / seen.sum(axis=1, keepdims=True)
    most = np.where(covered.max(axis=1) >= 0.15, covered.argmax(axis=1), n)
    labels = np.array([THINGS.index(thing.name) for thing in scene.things] + [len(THINGS)])
    boxes = np.array([thing.box for thing in scene.things] + [(0, 0, 0, 0)], dtype=np.float32)
    return labels[most], boxes[most]


# -- Questions and answers ------------------------------------------------------------------------


def plural(word: str) -> str:
    return word + ("es" if word.endswith("s") else "s")


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def named(scene: Scene, thing: str) -> list[Thing]:
    return [candidate for candidate in scene.things if candidate.name == thing]


def caption(scene: Scene) -> str:
    """'two apples and a car': from left to right by the first of each, equal ones together."""
    numbers = ("two", "three", "four", "five", "six")
    phrases = []
    for word in dict.fromkeys(thing.name for thing in scene.things):
        n = len(named(scene, word))
        phrases.append(f"{article(word)} {word}" if n == 1 else f"{numbers[n - 2]} {plural(word)}")
    return " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))


def detect(scene: Scene, thing: str) -> str:
    """'<loc0102><loc0561><loc0480><loc0979> car', joined by ' ; '; '' if there is none."""
    return " ; ".join(
        "".join(f"<loc{min(1023, int(1024 * edge)):04d}>" for edge in found.box) + f" {thing}"
        for found in named(scene, thing)
    )


def count(scene: Scene, thing: str) -> str:
    return str(len(named(scene, thing)))


def is_there(scene: Scene, thing: str) -> str:
    return "yes" if named(scene, thing) else "no"


def where(scene: Scene, thing: str) -> str:
    """The third of the picture with the centre of the only `thing`: 'top left', 'middle'."""
    [found] = named(scene, thing)
    y, x = (min(2, int(3 * coordinate)) for coordinate in found.centre)
    words = (("top", "", "bottom")[y], ("left", "", "right")[x])
    return " ".join(filter(None, words)) or "middle"


def ask(rng: np.random.Generator, scene: Scene, kind: str | None = None) -> tuple[str, str]:
    """A random prompt about the scene and its true answer; `kind` is one of KINDS or None."""
    present = list(dict.fromkeys(thing.name for thing in scene.things))
    absent = [thing for thing in THINGS if thing not in present]
    single = [thing for thing in present if len(named(scene, thing)) == 1]
    if kind is None:
        # Where a thing is repeated, count: else hardly any answer would be more than 1.
        counting = 0.12 if len(single) == len(present) else 0.30
        weights = np.array([0.20, 0.36, counting, 0.12, 0.20])
        kind = str(rng.choice(KINDS, p=weights / weights.sum()))
    if kind == "where" and not single:
        kind = "is there"

    if kind == "caption":
        return "caption en", caption(scene)
    if kind == "detect":
        # Absent ones are rare: <eos> is one token, but a box may begin with any of many nearly
        # right <loc>, so of two equally likely answers the greedy one would be "nothing".
        thing = str(rng.choice(absent if rng.random() < 0.04 else present))
        return f"detect {thing}", detect(scene, thing)
    if kind == "count":
        squares = np.array([len(named(scene, thing)) ** 2 for thing in present])
        often = str(rng.choice(present, p=squares / squares.sum()))  # mostly what is repeated
        thing = str(rng.choice(absent)) if rng.random() < 0.3 else often
        return f"answer en how many {plural(thing)} are there?", count(scene, thing)
    if kind == "is there":
        thing = str(rng.choice(absent if rng.random() < 0.5 else present))
        return f"answer en is there {article(thing)} {thing}?", is_there(scene, thing)
    thing = str(rng.choice(single))
    return f"answer en where is the {thing}?", where(scene, thing)
