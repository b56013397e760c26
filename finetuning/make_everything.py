"""Draws the shipped set: scenes, and a new kind of question, which asks for everything in them at once.

    python -m finetuning.make_everything DIR        writes DIR/train.jsonl, DIR/eval.jsonl, DIR/pictures/

The new question is `detect everything`: a box and a name for each thing, from left to right. The small
model knows the things, and `detect cat`, but to this one it says nothing, or `no`. With every picture
come two questions of the old kinds as well, so that what it could do before is not lost over the
new: without them `detect cat` soon finds everything, cat or not.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from load_weights import load_mask_decoder
from tiny_model import questions
from tiny_model.drawings import load_drawings
from tiny_model.scenes import draw_scene
from tiny_model.truth import Scene, named
from tiny_model.words import THINGS

MODEL = Path(__file__).parent.parent / "paligemma-tiny"  # whose mask decoder says the words of masks
# Free of any duty but to be named (Apache 2.0 and MIT): the pictures show these drawings.
STYLES = ("noto", "noto-v1", "fluent-emoji-flat", "fluent-emoji")
PROMPT = "detect everything"
SIDE, QUALITY = 160, 85
COUNTS = {"train": 340, "eval": 100}
COUNTED = (2, 1, 3, 2, 1)  # how many things, in turn
OLD = (  # the old questions, in turn
    "caption", "detect", "beside", "detect several", "caption de", "absent", "count", "caption",
    "segment", "detect", "color", "caption es", "is there", "absent", "caption", "where",
    "detect several", "caption fr", "beside",
)  # fmt: skip
OLD_EACH = 2  # with every picture


def everything(scene: Scene) -> str:
    """Every thing with its box, from left to right, in PaliGemma's form."""
    return questions.detect(scene, *(thing.name for thing in scene.things))


def old_question(rng: np.random.Generator, scene: Scene, kind: str, codec) -> tuple[str, str]:
    """What the model could answer before; `absent` asks for a thing that is not there."""
    if kind == "absent":
        absent = [thing for thing in THINGS if not named(scene, thing)]
        return f"detect {rng.choice(absent)}", ""
    prefix, suffix = questions.ask(rng, scene, kind)
    return prefix, questions.fill_in(suffix, questions.mask_words(codec, [scene])[0])


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Draws the set that finetune.py learns if given no other.")
    parser.add_argument("folder", type=Path, help="where to write it; must not exist or be empty")
    args = parser.parse_args(argv)
    if args.folder.exists() and any(args.folder.iterdir()):
        parser.error(f"{args.folder} is not empty")
    (args.folder / "pictures").mkdir(parents=True)

    drawings, codec = load_drawings(STYLES), load_mask_decoder(MODEL).float()
    rng = np.random.default_rng(20)
    for name, count in COUNTS.items():
        lines = []
        for i in tqdm(range(count), desc=name):
            scene = draw_scene(rng, drawings, SIDE, count=COUNTED[i % len(COUNTED)], jitter=0)
            image = f"pictures/{name}-{i:03d}.jpg"
            Image.fromarray(scene.pixels).save(args.folder / image, quality=QUALITY, optimize=True)
            lines.append({"image": image, "prefix": PROMPT, "suffix": everything(scene)})
            if name == "train":
                for number in range(OLD_EACH * i, OLD_EACH * (i + 1)):
                    prefix, suffix = old_question(rng, scene, OLD[number % len(OLD)], codec)
                    lines.append({"image": image, "prefix": prefix, "suffix": suffix})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (args.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
