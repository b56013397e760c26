"""How often `paligemma-tiny` is right: all kinds of questions about new scenes, asked of the model itself."""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from generation_1 import Answer, generate
from mask_decoder_1 import mask_from_tokens, tokens_from_mask
from program.masks import mask_iou
from program.overlap import box_iou
from tiny_model import scenes as tiny_scenes
from tiny_model.batches import Material, load_material
from tiny_model.scenes import HELD_OUT_STYLES, NOTHING, THINGS, TRAINING_STYLES, Scene, Thing
from training_1 import collate, training_row

BATCH = 40
LONGEST = 72  # tokens of an answer: three masks with their boxes and names are 65


@torch.no_grad()
def answers_of(model, tokenizer: Tokenizer, pixels: np.ndarray, prompts: list[str]) -> list[str]:
    """The most probable answer to one prompt for each picture, uint8 [B, S, S, 3]."""
    rows = [training_row(tokenizer, prompt, "", model.config.vision_config.num_patches) for prompt in prompts]
    batch = collate(rows, tokenizer.token_to_id("<pad>"))
    # The rows end in the <eos> of an empty answer, which is for the model to say.
    batch = {name: batch[name][:, :-1] for name in ("input_ids", "attention_mask")}
    batch["pixel_values"] = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    eos = tokenizer.token_to_id("<eos>")
    answers = [Answer(tokenizer) for _ in prompts]
    for tokens in generate(model, batch, eos, LONGEST):
        for answer, token in zip(answers, tokens, strict=True):
            if token not in (None, eos):
                answer.append(token)
    return [answer.text for answer in answers]


# -- Boxes and masks ------------------------------------------------------------------------------


@dataclass
class Found:
    """One of the things that an answer to detect or segment names."""

    name: str
    box: tuple[float, ...]  # (y1, x1, y2, x2) in 0..1
    words: list[int]  # of its mask, perhaps none


def things_of(answer: str) -> list[Found] | None:
    """What an answer to detect or segment has found; None if it is not of that form."""
    found = []
    for part in answer.split(" ; ") if answer else []:
        match = re.fullmatch(r"((?:<loc\d{4}>){4})((?:<seg\d{3}>){16})? (.+)", part)
        if not match:
            return None
        box = tuple(int(number) / 1024 for number in re.findall(r"\d{4}", match[1]))
        found.append(Found(match[3], box, [int(n) for n in re.findall(r"\d{3}", match[2] or "")]))
    return found


def boxes_of(answer: str, thing: str) -> list[tuple[float, ...]] | None:
    """The boxes of a detect answer; None if it is not of that form, or names something else."""
    found = things_of(answer)
    if found is None or any(one.name != thing for one in found):
        return None
    return [one.box for one in found]


def drawn_mask(codec, words: list[int], box: tuple[float, ...], size: int) -> torch.Tensor:
    """bool [S, S]: the mask that 16 words mean in a box (y1, x1, y2, x2); none where they are not 16."""
    y1, x1, y2, x2 = (edge * size for edge in box)
    if len(words) != 16:
        return torch.zeros(size, size, dtype=torch.bool)
    return mask_from_tokens(codec, torch.tensor(words), (x1, y1, x2, y2), size, size)


# -- Measuring ------------------------------------------------------------------------------------


class Examination:
    """Asks a model about scenes and notes each answer as right or wrong."""

    def __init__(self, model, tokenizer: Tokenizer, codec, seed: int, check: Callable[[], None]):
        """`check` is called before each batch of questions: it may raise to end all this."""
        self.model, self.tokenizer, self.codec, self.check = model, tokenizer, codec, check
        self.rng = np.random.default_rng(seed)
        # Of its own, so that what is asked besides does not change the scenes of the other rows.
        self.rng_besides = np.random.default_rng((seed, 1))
        self.notes: dict[str, list[float]] = defaultdict(list)

    def note(self, kind: str, value: float):
        self.notes[kind].append(float(value))

    def ask(self, scenes: list[Scene], prompts: list[str]) -> list[str]:
        answers = []
        for start in range(0, len(scenes), BATCH):
            self.check()
            pixels = np.stack([scene.pixels for scene in scenes[start : start + BATCH]])
            answers += answers_of(self.model, self.tokenizer, pixels, prompts[start : start + BATCH])
        return answers

    def phrases(self, scenes: list[Scene], kind: str) -> list[tuple[Scene, str, str]]:
        """Kinds of questions whose answer is right if it is the same, letter by letter.

        Returns each scene that can be asked about, its prompt, and what it was answered.
        """
        questions = [tiny_scenes.QUESTIONS[kind](self.rng, scene) for scene in scenes]
        asked = [
            (scene, *pair)
            for scene, pair in zip(scenes, questions, strict=True)
            if pair and pair[1] is not None
        ]
        if not asked:
            return []
        answers = self.ask([scene for scene, _, _ in asked], [prompt for _, prompt, _ in asked])
        for (scene, _, truth), given in zip(asked, answers, strict=True):
            self.note(kind, given == truth)
            if kind == "caption":
                self.note(f"caption {len(scene.things)}", given == truth)
                for _ in scene.things:
                    self.note("lost", given == NOTHING)
        return [(scene, prompt, given) for (scene, prompt, _), given in zip(asked, answers, strict=True)]

    def alone(self, scenes: list[Scene]):
        """Captions of scenes that have nothing beside or behind their things."""
        for scene, given in zip(scenes, self.ask(scenes, ["caption en"] * len(scenes)), strict=True):
            self.note("caption alone", given == tiny_scenes.caption(scene))

    def typed_otherwise(self, asked: list[tuple[Scene, str, str]]):
        """Of what was asked before, a few again: capitals, no question mark and `color` change nothing."""
        chosen = [asked[i] for i in self.rng_besides.permutation(len(asked))[: BATCH // 2]]
        prompts = []
        for _, prompt, _ in chosen:
            varied = prompt
            while varied == prompt:
                varied = tiny_scenes.vary(self.rng_besides, prompt)
            prompts.append(varied)
        answers = self.ask([scene for scene, _, _ in chosen], prompts)
        for (_, _, before), given in zip(chosen, answers, strict=True):
            self.note("typed otherwise", given == before)

    def detect(self, scenes: list[Scene]):
        names = [scene.things[self.rng.integers(len(scene.things))].name for scene in scenes]
        answers = self.ask(scenes, [f"detect {name}" for name in names])
        for scene, name, given in zip(scenes, names, answers, strict=True):
            truth, found = tiny_scenes.named(scene, name), boxes_of(given, name)
            self.note("detect", found is not None and len(found) == len(truth))
            for thing in truth:
                overlaps = (box_iou(thing.box, box) for box in found or [])
                self.note("iou", max(overlaps, default=0))
        absent = [
            str(self.rng.choice([t for t in THINGS if not tiny_scenes.named(scene, t)])) for scene in scenes
        ]
        for given in self.ask(scenes, [f"detect {name}" for name in absent]):
            self.note("absent", given == "")

    def detect_several(self, scenes: list[Scene]):
        """Right: the same names in the same order, each box above 0.5 IoU with its own."""
        pairs = [tiny_scenes.QUESTIONS["detect several"](self.rng, scene) for scene in scenes]
        answers = self.ask(scenes, [prompt for prompt, _ in pairs])
        for (_, truth), given in zip(pairs, answers, strict=True):
            true, found = things_of(truth), things_of(given)
            same = found is not None and [one.name for one in found] == [one.name for one in true]
            self.note(
                "several",
                same and all(
                    box_iou(a.box, b.box) > 0.5 for a, b in zip(true, found, strict=True)
                ),
            )  # fmt: skip

    def segment(self, scenes: list[Scene]):
        """Of each thing of the name that is asked for: the mask's overlap, the box's, and the codec's own."""
        names = [scene.things[self.rng.integers(len(scene.things))].name for scene in scenes]
        answers = self.ask(scenes, [f"segment {name}" for name in names])
        for scene, name, given in zip(scenes, names, answers, strict=True):
            size = len(scene.owner)
            found = [one for one in things_of(given) or [] if one.name == name]
            masks = [drawn_mask(self.codec, one.words, one.box, size) for one in found]
            for i, thing in enumerate(scene.things):
                if thing.name == name:
                    self.note_mask(torch.from_numpy(scene.owner == i), thing, masks)

    def segment_several(self, scenes: list[Scene]):
        """Right: the same names in the same order. And each true mask's overlap with that name's best one."""
        asks = tiny_scenes.QUESTIONS["segment several"]
        prompts = [asks(self.rng_besides, scene)[0] for scene in scenes]
        for scene, prompt, given in zip(scenes, prompts, self.ask(scenes, prompts), strict=True):
            names, found = prompt.removeprefix("segment ").split(" ; "), things_of(given)
            there = [thing.name for thing in scene.things if thing.name in names]
            self.note("segment several", found is not None and [one.name for one in found] == there)
            size = len(scene.owner)
            masks = [(one.name, drawn_mask(self.codec, one.words, one.box, size)) for one in found or []]
            for i, thing in enumerate(scene.things):
                true = torch.from_numpy(scene.owner == i)
                overlaps = (mask_iou(true, mask) for name, mask in masks if name == thing.name)
                if thing.name in names:
                    self.note("masks", max(overlaps, default=0))

    def note_mask(self, true: torch.Tensor, thing: Thing, masks: list[torch.Tensor]):
        size = len(true)
        self.note("mask", max((mask_iou(true, mask) for mask in masks), default=0))
        y1, x1, y2, x2 = (edge * size for edge in thing.box)
        filled = torch.zeros_like(true)
        filled[round(y1) : round(y2), round(x1) : round(x2)] = True
        self.note("filled box", mask_iou(true, filled))
        words = tokens_from_mask(self.codec, true, (x1, y1, x2, y2)).tolist()
        self.note("codec", mask_iou(true, drawn_mask(self.codec, words, thing.box, size)))

    def nothing(self, scenes: list[Scene], kinds: tuple[str, ...]):
        """Pictures without any thing: how often one is named in a caption, or found by `detect`."""
        for given in self.ask(scenes, ["caption en"] * len(scenes)):
            self.note("named", given != NOTHING)
        if "detect" in kinds:
            things = self.rng_besides.choice(THINGS, len(scenes))
            for given in self.ask(scenes, [f"detect {thing}" for thing in things]):
                self.note("found in nothing", given != "")


def evaluate(
    model,
    tokenizer: Tokenizer,
    material: Material,
    jitter: float,
    num_scenes: int,
    seed: int,
    codec=None,
    num_nothing: int = 0,
    check: Callable[[], None] = lambda: None,
    kinds: tuple[str, ...] = tiny_scenes.KINDS,
    count: int | None = None,
) -> dict[str, float]:
    """Asks every kind of question about new scenes -> the share of right answers to each.

    `iou` and `mask` are means over the things asked for of the best intersection over union with a
    box (a mask) of the answer, 0 for one that was missed. `codec`: of the masks; None: none are asked
    for. `num_nothing`: how many pictures without any thing. `count`: of things on a picture (None: one
    to three).
    """
    size = model.config.vision_config.image_size
    exam = Examination(model, tokenizer, codec, seed, check)
    for start in range(0, num_scenes, BATCH):
        number = min(BATCH, num_scenes - start)
        check()
        scenes = [
            material.scene(exam.rng, size, count, jitter=jitter, with_sign=False) for _ in range(number)
        ]
        asked = []
        for kind in kinds:
            if kind == "detect":
                exam.detect(scenes)
            elif kind == "detect several":
                exam.detect_several(scenes)
            elif kind == "segment" and codec is not None:
                exam.segment(scenes)
            elif kind == "segment several" and codec is not None:
                exam.segment_several(scenes[::2])  # long answers: of half of the scenes
            elif kind == "ocr":
                signs = [material.scene(exam.rng, size, jitter=jitter, with_sign=True) for _ in range(number)]
                exam.phrases(signs, kind)
            elif kind not in ("segment", "segment several"):
                asked += exam.phrases(scenes, kind)
        if "caption" in kinds:
            bare = {"others": None, "photographs": None, "with_sign": False}
            exam.alone([
                material.scene(exam.rng_besides, size, count, jitter=jitter, **bare) for _ in range(number)
            ])  # fmt: skip
        exam.typed_otherwise(asked)
    exam.nothing([material.nothing(exam.rng, size, jitter) for _ in range(num_nothing)], kinds)
    return {kind: sum(values) / len(values) for kind, values in exam.notes.items()}


# -- The table ------------------------------------------------------------------------------------

COLUMNS = {  # a title, the styles, with jitter or without, the seed
    "training sets": (TRAINING_STYLES, 1.0, 2),
    "training sets, true colors": (TRAINING_STYLES, 0.0, 3),
    "Twemoji": (HELD_OUT_STYLES[:1], 1.0, 4),
    "Twemoji, true colors": (HELD_OUT_STYLES[:1], 0.0, 5),
    "outlines held out": (HELD_OUT_STYLES[1:], 1.0, 6),
    "outlines held out, true colors": (HELD_OUT_STYLES[1:], 0.0, 7),
}
ROWS = {
    "`caption en`, exactly right": "caption",
    "… of one thing": "caption 1",
    "… of two": "caption 2",
    "… of three": "caption 3",
    "… of scenes without other drawings and photographs": "caption alone",
    "`caption de`": "caption de",
    "`caption es`": "caption es",
    "`caption fr`": "caption fr",
    "`answer en is there …?`": "is there",
    "`answer en how many …?`": "count",
    "`answer en how many things are there?`": "total",
    "`answer en where is …?` (its middle not within a hundredth of a border)": "where",
    "`answer en what colour is …?`": "color",
    "`answer en what is left (right) of …?`": "beside",
    "`detect …`: right labels and number of boxes": "detect",
    "`detect …`: mean IoU of the boxes (a miss counts 0)": "iou",
    "`detect …` of what is not there: no box": "absent",
    "`detect … ; …` (two or three): all names, each box above 0.5 IoU": "several",
    "`segment …`: mean IoU of the masks (a miss counts 0)": "mask",
    "… of the true mask, in 16 words and back": "codec",
    "… of the whole box": "filled box",
    "`segment … ; …` (two or three): all names": "segment several",
    "… mean IoU of their masks (a miss counts 0)": "masks",
    "`ocr` (capitals at least a tenth of the picture high), exactly right": "ocr",
    "a `caption` or an `answer`, asked with capitals, `color` or without its `?`: the same answer": (
        "typed otherwise"
    ),
    "`caption en` of a picture of none of the things: not `nothing I know`": "named",
    "`detect …` of such a picture: a box": "found in nothing",
    "things of which `caption en` says `nothing I know`": "lost",
}


def accuracy_columns(
    model, tokenizer: Tokenizer, codec, num_scenes: int, num_nothing: int, store: Path | None,
    things=tuple(THINGS), titles=tuple(COLUMNS), kinds=tiny_scenes.KINDS, check=lambda: None, count=None,
    trained=TRAINING_STYLES,
):  # fmt: skip
    """Yields a title and what `evaluate` found, column by column.

    `trained`: the styles of the plan, which "training sets" stands for.
    """
    for title in titles:
        styles, jitter, seed = COLUMNS[title]
        styles = trained if styles == TRAINING_STYLES else styles
        material = load_material(tuple(styles), store, tuple(things))
        found = evaluate(
            model, tokenizer, material, jitter, num_scenes, seed, codec, num_nothing, check, kinds, count
        )
        yield title, found


def markdown_table(columns: dict[str, dict[str, float]], digits: int = 2) -> str:
    """What `evaluate` found, by the title of its column."""
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for title, kind in ROWS.items():
        cells = [f"{found[kind]:.{digits}f}" if kind in found else "" for found in columns.values()]
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)
