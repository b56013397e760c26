"""Draws the shipped set: scenes in which everything is to be found at once, which no prompt asked for so far.

    python -m finetuning.make_everything DIR        writes DIR/train.jsonl, DIR/eval.jsonl, DIR/pictures/

The new question is `detect everything`: a box and a name for each thing, from left to right. The small
model knows the things, and `detect cat`, but to this one it says nothing, or `no`. With every picture comes a
question of the old kinds as well, so that what it could do before is not lost over the new: without
them `detect cat` soon finds everything, cat or not.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from tiny_model import scenes

# Free of any duty but to be named (Apache 2.0 and MIT): the pictures show these drawings.
STYLES = ("noto", "noto-v1", "fluent-emoji-flat", "fluent-emoji")
PROMPT = "detect everything"
SIDE, QUALITY = 160, 85
COUNTS = {"train": 340, "eval": 100}
COUNTED = (2, 1, 2)  # how many things, in turn
OLD = ("detect", "caption", "absent", "count", "detect", "where", "absent", "is there")  # in turn


def everything(scene: scenes.Scene) -> str:
    """Every thing with its box, from left to right, in PaliGemma's form."""
    parts = [scenes.Scene(scene.pixels, [thing], scene.owner) for thing in scene.things]
    return " ; ".join(scenes.detect(part, part.things[0].name) for part in parts)


def old_question(rng: np.random.Generator, scene: scenes.Scene, kind: str) -> tuple[str, str]:
    """What the model could answer before; `absent` asks for a thing that is not there."""
    if kind != "absent":
        return scenes.ask(rng, scene, kind)
    absent = [thing for thing in scenes.THINGS if not scenes.named(scene, thing)]
    return f"detect {rng.choice(absent)}", ""


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Draws the set that finetune.py learns if given no other.")
    parser.add_argument("folder", type=Path, help="where to write it; must not exist or be empty")
    args = parser.parse_args(argv)
    if args.folder.exists() and any(args.folder.iterdir()):
        parser.error(f"{args.folder} is not empty")
    (args.folder / "pictures").mkdir(parents=True)

    drawings = scenes.load_drawings(STYLES)
    rng = np.random.default_rng(20)
    for name, count in COUNTS.items():
        lines = []
        for i in tqdm(range(count), desc=name):
            scene = scenes.draw_scene(rng, drawings, SIDE, count=COUNTED[i % len(COUNTED)], jitter=0)
            image = f"pictures/{name}-{i:03d}.jpg"
            Image.fromarray(scene.pixels).save(args.folder / image, quality=QUALITY, optimize=True)
            lines.append({"image": image, "prefix": PROMPT, "suffix": everything(scene)})
            if name == "train":
                prefix, suffix = old_question(rng, scene, OLD[i % len(OLD)])
                lines.append({"image": image, "prefix": prefix, "suffix": suffix})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (args.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
