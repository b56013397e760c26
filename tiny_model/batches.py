"""The batches that `paligemma-tiny` is trained on: scenes, what each patch shows, questions as rows.

Batch n of a stage is a function of (seed, stage, n) and of nothing else, so that a training that was
interrupted goes on with the very batches that it would have seen.

Drawing a scene takes as long as learning from it. So each is used several times, with other questions,
in batches that lie far apart.

Letters in shapes: B pictures, Q prompts per picture, N patches (= image tokens), R rows (prompts with
answers), L tokens of text in a row, S side of the picture in pixels.
"""

import itertools
import os
import signal
import string
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import connection, parent_process
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, IterableDataset

from load_weights import load_mask_decoder
from text_image_token_processor_1 import resize
from tiny_model import scenes as tiny_scenes
from tiny_model.scenes import HELD_OUT_STYLES, THINGS, TRAINING_STYLES, Scene
from tiny_model.words import COLORS
from training_1 import training_row

GROUND = len(THINGS)  # the label of a patch that shows no thing
LETTERS = string.digits + string.ascii_letters
NO_LETTER = len(LETTERS)
NO_COLOR = -100  # cross_entropy leaves it out
COVER = 8  # a patch is looked at in COVER x COVER cells
LENGTHS = (16, 28, 52, 80)  # L: rows are padded to one of these
ROWS = 8  # the rows of one length are a multiple of this
APART = 40  # batches between two uses of a scene
STAGES = ("tower", "answers", "reading")


# -- What scenes are made of ----------------------------------------------------------------------


@dataclass
class Material:
    """What scenes are drawn from: `drawings` as load_drawings gives them, others, grounds, fonts."""

    drawings: dict
    others: list
    photographs: list
    fonts: list

    def scene(self, rng, size: int, count: int | None = None, jitter: float = 1.0, **how) -> Scene:
        beside = {"others": self.others, "photographs": self.photographs, "fonts": self.fonts}
        return tiny_scenes.draw_scene(rng, self.drawings, size, count, jitter, **(beside | how))

    def nothing(self, rng: np.random.Generator, size: int, jitter: float = 1.0, **how) -> Scene:
        beside = {"others": self.others, "photographs": self.photographs, "fonts": self.fonts}
        return tiny_scenes.draw_nothing(rng, size, jitter, **beside, **how)


@lru_cache(maxsize=4)
def load_material(
    styles: tuple[str, ...], store: Path | None = None, things: tuple[str, ...] = tuple(THINGS)
) -> Material:
    """Of some styles; photographs, other drawings and fonts are held out where the styles are.

    `store`: a file that keeps what was rendered. Kept, because a worker that is forked has it too.
    """
    held_out = styles[0] in HELD_OUT_STYLES
    drawings = tiny_scenes.load_drawings(styles, store)
    return Material(
        {thing: drawings[thing] for thing in things if thing in drawings},
        tiny_scenes.load_others(HELD_OUT_STYLES if held_out else TRAINING_STYLES, store),
        tiny_scenes.load_photographs(held_out),
        tiny_scenes.load_fonts(held_out),
    )


# -- What each patch shows ------------------------------------------------------------------------


def patch_targets(scene: Scene, words: np.ndarray, grid: int) -> dict[str, np.ndarray]:
    """What a patch is to say of itself, for each of N = grid x grid patches.

    labels int64 [N] and boxes float32 [N, 4] of the thing that it shows (see patch_labels); cover
    uint8 [N, 64], which of its 8 x 8 cells are that thing's; cells int64 [N], in which of the 4 x 4
    places of that thing's mask its middle lies; shapes int64 [N, 4], the mask's word at the middle of
    each of its quarters (-1 where there is none); letters int64 [N, 2], the letter of a sign in its
    left and in its right half; colors int64 [N], the place in COLORS of its thing's color, or NO_COLOR.
    """
    N, P = grid**2, len(scene.owner) // grid
    thing = tiny_scenes.patch_things(scene, grid)
    labels, boxes = tiny_scenes.patch_labels(scene, thing)
    owner = scene.owner.reshape(grid, P, grid, P).transpose(0, 2, 1, 3).reshape(N, P, P)

    step = P // COVER
    covered = (owner == thing[:, None, None]) & (thing >= 0)[:, None, None]
    cover = covered.reshape(N, COVER, step, COVER, step).mean(axis=(2, 4)) >= 0.5

    rows, columns = np.divmod(np.arange(N), grid)

    def place_in_mask(dy: float, dx: float) -> np.ndarray:
        """int64 [N]: which of the 4 x 4 places of its thing's mask a point of each patch lies in."""
        y1, x1, y2, x2 = boxes.T
        y = ((rows + dy) / grid - y1) / np.maximum(y2 - y1, 1e-6)
        x = ((columns + dx) / grid - x1) / np.maximum(x2 - x1, 1e-6)
        return (4 * (4 * y).clip(0, 3).astype(np.int64)) + (4 * x).clip(0, 3).astype(np.int64)

    shapes = np.full((N, 4), -1, dtype=np.int64)
    if len(words):
        for i, (dy, dx) in enumerate(itertools.product((0.25, 0.75), repeat=2)):
            shapes[:, i] = np.where(thing >= 0, words[thing, place_in_mask(dy, dx)], -1)
    colors = [COLORS.index(thing.color) if thing.color else NO_COLOR for thing in scene.things]
    return {
        "labels": labels, "boxes": boxes, "cover": cover.reshape(N, -1).astype(np.uint8),
        "cells": place_in_mask(0.5, 0.5), "shapes": shapes, "letters": letters_of(scene, grid),
        "colors": np.array([*colors, NO_COLOR])[thing],
    }  # fmt: skip


def letters_of(scene: Scene, grid: int) -> np.ndarray:
    """int64 [N, 2]: the place in LETTERS of what covers most of each half of a patch, or NO_LETTER."""
    found = np.full((grid**2, 2), NO_LETTER, dtype=np.int64)
    if scene.sign is None:
        return found
    known = [(LETTERS.index(letter), box) for letter, box in scene.sign.letters if letter in LETTERS]
    y1, x1, y2, x2 = np.array([box for _, box in known]).T[:, :, None] * grid  # [letters, 1], in patches
    edges = np.arange(grid)
    height = (np.minimum(y2, edges + 1) - np.maximum(y1, edges)).clip(0)  # [letters, rows]
    halves = np.arange(2 * grid) / 2
    width = (np.minimum(x2, halves + 0.5) - np.maximum(x1, halves)).clip(0)  # [letters, halves]
    shared = height[:, :, None] * width[:, None, :]  # [letters, rows, halves], in patches
    best = shared.argmax(axis=0)
    indices = np.array([index for index, _ in known])
    letters = np.where(shared.max(axis=0) > 0.08, indices[best], NO_LETTER)
    return letters.reshape(grid**2, 2)


# -- Questions ------------------------------------------------------------------------------------


def choose_questions(rng: np.random.Generator, scene: Scene, kinds: dict[str, float], number: int):
    """Prompts about a scene with their answers, of different kinds, drawn by their weights.

    What can be told of few scenes is asked more often where it can: how many where a thing is
    repeated, what stands on a sign, and where something close to a border between thirds lies.
    """
    weights = {kind: weight for kind, weight in kinds.items() if "+" not in kind}
    names = [thing.name for thing in scene.things]
    if len(set(names)) < len(names) and "count + repeated" in kinds:
        weights["count"] = kinds["count + repeated"]
    if scene.sign and "ocr + sign" in kinds:
        weights["ocr"] = kinds["ocr + sign"]
    left, asked = list(weights), []
    while left and len(asked) < number:
        values = np.array([weights[kind] for kind in left])
        kind = left.pop(rng.choice(len(left), p=values / values.sum()))
        ask = tiny_scenes.ask_where_close if kind == "where close" else tiny_scenes.QUESTIONS[kind]
        question = ask(rng, scene)
        if question is not None and question[1] is not None:
            asked.append((tiny_scenes.vary(rng, question[0]), question[1]))
    while len(asked) < number:  # few kinds, and none that can be asked
        asked.append(asked[0] if asked else ("caption en", tiny_scenes.caption(scene)))
    return asked


def patches_asked_for(prompt: str, labels: np.ndarray, letters: np.ndarray) -> np.ndarray:
    """bool [N]: the patches that show what the prompt is about.

    Those of the things that it names; of all things for a caption and for how many things there are;
    of letters for `ocr`.
    """
    prompt = prompt.lower().rstrip("?")
    if prompt == "ocr":
        return (letters != NO_LETTER).any(axis=-1)
    words = prompt.split()
    if words[0] == "caption" or "things" in words:
        return labels != GROUND
    asked = [i for i, t in enumerate(THINGS) if t in words or tiny_scenes.plural(t) in words]
    return np.isin(labels, asked)


# -- Batches --------------------------------------------------------------------------------------


@dataclass
class Example:
    """A scene as it is learned from."""

    scene: Scene
    words: np.ndarray  # int64 [things, 16]
    targets: dict[str, np.ndarray]


class Batches(IterableDataset):
    """An endless stream of batches, each a dict of tensors.

    pixels uint8 [B, S, S, 3]; what patch_targets gives, [B, N, ...] each; with prompts, `rows`: for
    each length L that comes up, a dict of picture int64 [R], ids int64 [R, L] (prompt and answer,
    padded on the right), prefix int64 [R] (tokens of picture and prompt), length int64 [R] (tokens of
    all) and marks uint8 [R, N] (patches_asked_for).
    """

    def __init__(self, tokenizer, plan: dict, stage: str, config: dict, codec: Path, store: Path, first: int):
        self.tokenizer, self.plan, self.stage = tokenizer, plan, stage
        self.codec_file, self.store, self.first = codec, store, first
        vision = config["vision_config"]
        self.size, self.grid = vision["image_size"], vision["image_size"] // vision["patch_size"]

    def __iter__(self) -> Iterator[dict]:
        self.material = load_material(tuple(self.plan["styles"]), self.store, tuple(self.plan["things"]))
        self.codec = load_mask_decoder(self.codec_file.parent).float()
        groups: dict[int, list[Example]] = {}
        uses = self.plan[self.stage]["uses"]
        for number in itertools.count(self.first):
            # A group of scenes is used for the first time here, another one for the second time, ...
            examples = []
            for group in (number - use * APART for use in range(uses)):
                if group not in groups:
                    groups[group] = self.draw(group)
                examples += groups[group]
            groups.pop(number - (uses - 1) * APART)
            yield self.batch(number, examples)

    def random(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng((self.plan["seed"], STAGES.index(self.stage), *purpose))

    def draw(self, group: int) -> list[Example]:
        """The scenes of a group: a function of its number (below 0 too) alone."""
        stage = self.plan[self.stage]
        rng = self.random(0, group + 10_000)
        scenes = []
        for _ in range(stage["scenes"] // stage["uses"]):
            if rng.random() < stage["nothing"]:
                jitter, small_print = rng.uniform(0.5, 1.5), stage["small_print"]
                scenes.append(self.material.nothing(rng, self.size, jitter, small_print=small_print))
            else:
                is_easy = group < stage["easy"] * first_round(stage) and rng.random() < 0.8
                count = 1 if is_easy else int(rng.choice(stage["counts"]))
                scenes.append(self.draw_scene(rng, count))
        words = tiny_scenes.mask_words(self.codec, scenes)
        return [
            Example(scene, of_it, patch_targets(scene, of_it, self.grid))
            for scene, of_it in zip(scenes, words, strict=True)
        ]

    def draw_scene(self, rng: np.random.Generator, count: int) -> Scene:
        """Most scenes are drawn at the model's size, some at twice that and shrunk, as photographs are.

        Half of them are of wilder colors and shapes than will ever be asked about, because the model
        soon knows the drawings by heart, and is to read those of others.
        """
        stage = self.plan[self.stage]
        jitter = 1.0 if rng.random() < 0.5 else rng.uniform(1, self.plan["wildest"])
        sign = {"with_sign": bool(rng.random() < stage["signs"]), "small_print": stage["small_print"]}
        if rng.random() > 0.08:
            return self.material.scene(rng, self.size, count, jitter, **sign)
        scene = self.material.scene(rng, 2 * self.size, count, jitter, **sign)
        scene.pixels = resize(Image.fromarray(scene.pixels), self.size)
        scene.owner = scene.owner[::2, ::2]
        return scene

    def batch(self, number: int, examples: list[Example]) -> dict:
        batch = {"pixels": np.stack([example.scene.pixels for example in examples])}
        for name in examples[0].targets:
            batch[name] = np.stack([example.targets[name] for example in examples])
        if self.stage != "tower":
            batch["rows"] = self.rows(number, examples)
        return batch

    def rows(self, number: int, examples: list[Example]) -> list[dict]:
        """Questions about the examples, as rows of the lengths that they need."""
        rng = self.random(1, number)
        stage = self.plan[self.stage]
        rows = []
        for picture, example in enumerate(examples):
            for prompt, answer in choose_questions(rng, example.scene, stage["kinds"], stage["prompts"]):
                row = training_row(self.tokenizer, prompt, tiny_scenes.fill_in(answer, example.words), 0)
                marks = patches_asked_for(prompt, example.targets["labels"], example.targets["letters"])
                rows.append((picture, row["input_ids"], row["token_type_ids"].count(0), marks))
        rows.sort(key=lambda row: len(row[1]))
        parts, start = [], 0
        for length in LENGTHS:
            fitting = sum(len(ids) <= length for _, ids, _, _ in rows)
            end = len(rows) if fitting == len(rows) else fitting // ROWS * ROWS
            if end > start:
                parts.append(padded(rows[start:end], length, self.grid**2))
            start = max(start, end)
        return parts


def first_round(stage: dict) -> int:
    """How many batches there are before the learning rates rise for a second time."""
    return min([*stage["restarts"], stage["batches"]])


def padded(rows: list[tuple], length: int, num_image_tokens: int) -> dict[str, np.ndarray]:
    """Rows (picture, ids, tokens of the prompt, marks) as arrays, padded on the right."""
    pictures, ids, prompts, marks = zip(*rows, strict=True)
    return {
        "picture": np.array(pictures),
        "ids": np.array([row + [0] * (length - len(row)) for row in ids]),  # <pad> is 0
        "prefix": np.array(prompts) + num_image_tokens,
        "length": np.array([len(row) for row in ids]) + num_image_tokens,
        "marks": np.stack(marks).astype(np.uint8),
    }


# -- The worker -----------------------------------------------------------------------------------


def end_with_parent(_worker: int):
    """For a worker: Ctrl-C, which goes to all, is its parent's business; it ends with it, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch(sentinel):
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent_process().sentinel,), daemon=True).start()


def start_loader(tokenizer: Tokenizer, plan: dict, stage: str, config: dict, codec, store, first: int):
    """An iterator over the batches from `first` on, made by a worker while the model computes."""
    batches = Batches(tokenizer, plan, stage, config, codec, store, first)
    return iter(
        DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4, worker_init_fn=end_with_parent)
    )
