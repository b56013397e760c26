"""What lies behind the things: plain, graded and patterned grounds, textures, photographs.

Dimensions: S side of a picture in pixels, P patterns.
"""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

PHOTOGRAPHS_FOLDER = Path(__file__).with_name("photographs")
# Between a drawing's colors and those of the ground: if it has many colors, one ink, or lines alone.
MIN_CONTRAST, INK_CONTRAST, LINE_CONTRAST = 70, 100, 130
LUMINANCE = np.array([0.30, 0.59, 0.11], dtype=np.float32)


def load_photographs(held_out: bool = False) -> list[Image.Image]:
    """Photographs that show none of the things; every fourth is held out of training."""
    files = sorted(PHOTOGRAPHS_FOLDER.glob("*.jpg"))
    if not files:
        raise FileNotFoundError(f"no *.jpg in {PHOTOGRAPHS_FOLDER}")
    return [Image.open(file).convert("RGB") for i, file in enumerate(files) if (i % 4 == 3) == held_out]


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

    def noise(rows, columns=None):
        small = Image.fromarray(rng.random((rows, columns or rows), dtype=np.float32))
        return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))

    def texture():
        return 0.6 * noise(rng.integers(3, 7)) + 0.4 * noise(rng.integers(8, 30))

    def fibers():  # wood, cloth, brushed metal
        image = noise(rng.integers(2, 5), rng.integers(30, 70)) * 0.7 + 0.3 * noise(4)
        return image if rng.random() < 0.5 else image.T

    def bricks():
        rows, columns = rng.integers(4, 9), rng.integers(2, 6)
        row = np.floor((y + 0.5) * rows)
        across = (x + 0.5) * columns + 0.5 * (row % 2)
        joint = ((y + 0.5) * rows - row < 0.1) | (across % 1 < 0.06)
        return np.where(joint, 1.0, 0.3 * noise(size // 8))

    makers = (
        gradient,
        radial,
        lambda: 4 * wave() + 0.5,  # stripes
        lambda: 8 * grid() + 0.5,  # checks
        lambda: 8 * (grid() - 0.6) + 0.5,  # dots
        lambda: noise(rng.integers(2, 9)),  # clouds
        texture,
        lambda: noise(size // rng.integers(1, 4)),  # grain
        fibers,
        bricks,
    )
    second = np.clip([make() for make in makers for _ in range(10)], 0, 1)
    return np.stack([1 - second, second], axis=-1).astype(np.float32)


def ground_colors(
    rng: np.random.Generator, colors: np.ndarray, contrasts: np.ndarray, tries: int = 24
) -> np.ndarray:
    """Two colors, float [2, 3] in 0 to 255, from which drawings of `colors` [n, 3] stand out.

    `contrasts` [n]: by how much. What needs more than MIN_CONTRAST must also be lighter or darker: a
    thin red line on green is not easily seen.
    """
    kind = rng.random((tries, 1))
    low = np.select([kind < 0.30, kind < 0.60, kind < 0.75], [240, 170, 0], 0)
    high = np.select([kind < 0.30, kind < 0.60, kind < 0.75], [255, 255, 90], 255)
    first = rng.uniform(low, high, (tries, 3))  # white, pastel, dark, any
    # One ground in four is plain. The others are of kindred colors: on a pattern of two strong ones
    # no drawing is easily seen.
    apart = np.where(rng.random((tries, 1)) < 0.25, 0, rng.uniform(0.05, 0.6, (tries, 1)))
    if (contrasts >= LINE_CONTRAST).any():
        apart *= 0.5
    second = first + (rng.uniform(0, 255, (tries, 3)) - first) * apart
    grounds = np.stack([first, second], axis=1)  # [tries, 2, 3]
    if not len(colors):
        return grounds[0]
    steps = grounds[:, :, None] - colors  # [tries, 2, n, 3]
    margin = np.linalg.norm(steps, axis=-1) - contrasts
    lighter = np.abs(steps @ LUMINANCE) - np.where(contrasts > MIN_CONTRAST, contrasts - 50, 0)
    worst = np.minimum(margin, lighter).min(axis=(1, 2))
    good = np.flatnonzero(worst > 0)
    return grounds[good[0] if len(good) else worst.argmax()]


def random_ground(
    rng: np.random.Generator, colors: np.ndarray, size: int, photographs: list[Image.Image] | None
) -> np.ndarray:
    """float32 [S, S, 3]: a pattern of two colors [2, 3], or a photograph that is faint enough."""
    if photographs:
        # Its mean becomes the first color, so that the drawings still stand out.
        photograph = photograph_crop(rng, photographs, size).astype(np.float32)
        strength = np.float32(rng.uniform(0.25, 0.6))
        return np.float32(colors[0]) + strength * (photograph - photograph.mean(axis=(0, 1)))
    pool = patterns(size)
    pattern = pool[rng.integers(len(pool))]
    if rng.random() < 0.5:
        pattern = pattern[::-1]
    # (S S, 3) = (S S, 2) @ (2, 3)
    return (pattern.reshape(-1, 2) @ np.float32(colors)).reshape(size, size, 3)


def photograph_crop(rng: np.random.Generator, photographs: list[Image.Image], size: int) -> np.ndarray:
    """uint8 [S, S, 3]: a square out of a photograph, at times mirrored."""
    photograph = photographs[rng.integers(len(photographs))]
    side = min(photograph.size) * rng.uniform(0.5, 1)
    x = rng.uniform(0, photograph.width - side)
    y = rng.uniform(0, photograph.height - side)
    box = (x, y, x + side, y + side)
    pixels = np.asarray(photograph.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def dead_leaves(rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 [S, S, 3]: shapes of any size and color, one on top of another, down to the ground.

    Pictures of that kind have edges, sizes and occlusions as photographs have, and show nothing
    (Lee, Mumford and Huang 2001, "Occlusion Models for Natural Images").
    """
    image = Image.new("RGB", (size, size), random_color(rng))
    draw = ImageDraw.Draw(image)
    base, spread = rng.uniform(0, 255, 3), rng.uniform(20, 160)
    for _ in range(rng.integers(25, 80)):
        middle = rng.uniform(0, size, 2)
        radius = size * 0.04 / rng.uniform(0.06, 1) ** 0.8
        color = tuple(int(c) for c in np.clip(base + rng.uniform(-spread, spread, 3), 0, 255))
        corners = rng.integers(3, 9)
        angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
        reach = radius * rng.uniform(0.6, 1.2, corners)
        points = middle + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        draw.polygon(points.ravel().tolist(), fill=color)
    return np.array(image)


def strokes(rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 [S, S, 3]: a few lines, triangles and bars on a plain ground, which show nothing."""
    image = Image.new("RGB", (size, size), random_color(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(3, 12)):
        points = rng.uniform(0, size, 2) + rng.uniform(-0.3, 0.3, (rng.integers(2, 5), 2)) * size
        width = int(rng.integers(1, 9))
        draw.line(points.ravel().tolist(), random_color(rng), width, joint="curve")
    return np.array(image)


def random_color(rng: np.random.Generator) -> tuple[int, int, int]:
    return tuple(int(c) for c in rng.integers(0, 256, 3))
