"""What is known about a scene: which things it shows, where, and in what color.

Dimensions: S side of the picture in pixels. Boxes are (y1, x1, y2, x2) as fractions of the side, in
PaliGemma's order: y before x.
"""

from dataclasses import dataclass

import numpy as np

from tiny_model.signs import Sign
from tiny_model.words import THINGS


@dataclass
class Thing:
    name: str
    box: tuple[float, float, float, float]  # (y1, x1, y2, x2), tight around what is visible
    color: str | None = None  # one of COLORS if it clearly has that one

    @property
    def centre(self) -> tuple[float, float]:
        y1, x1, y2, x2 = self.box
        return (y1 + y2) / 2, (x1 + x2) / 2


@dataclass
class Scene:
    pixels: np.ndarray  # uint8 [S, S, 3]
    things: list[Thing]  # from left to right by their centers
    owner: np.ndarray  # int8 [S, S], which of `things` a pixel belongs to, -1 for all else
    sign: Sign | None = None


def named(scene: Scene, thing: str) -> list[Thing]:
    return [candidate for candidate in scene.things if candidate.name == thing]


def patch_things(scene: Scene, grid: int) -> np.ndarray:
    """Which of a scene's things each of grid x grid patches shows: int64 [grid²], its place in `things`.

    It is the one that covers most of the patch if that is at least 0.15 of it, else -1, the ground.
    """
    size, n = len(scene.owner), len(scene.things)
    part = np.arange(size) * grid // size
    patch = part[:, None] * grid + part[None, :]
    seen = np.bincount((patch * (n + 1) + scene.owner + 1).ravel(), minlength=grid**2 * (n + 1))
    seen = seen.reshape(grid**2, n + 1)
    covered = seen[:, 1:] / seen.sum(axis=1, keepdims=True)
    # The ground counts as one more that covers 0.15 of each patch.
    most = np.pad(covered, ((0, 0), (0, 1)), constant_values=0.15).argmax(axis=1)
    return np.where(most < n, most, -1)


def patch_labels(scene: Scene, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each patch shows, by what patch_things has found: labels int64 [grid²], boxes float32 [grid², 4].

    The label is the place of the thing in THINGS, len(THINGS) for the ground, whose box is zeros.
    """
    # A `found` of -1 is the last of the following.
    labels = np.array([THINGS.index(thing.name) for thing in scene.things] + [len(THINGS)])
    boxes = np.array([thing.box for thing in scene.things] + [(0, 0, 0, 0)], dtype=np.float32)
    return labels[found], boxes[found]
