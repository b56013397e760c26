"""What a model is asked: which pictures, with which prompts, and what is chosen where nothing was given."""

import argparse
import glob
import os
from pathlib import Path

import torch

from program.command_line import InputError, log
from program.pictures import DRAWABLE

ROOT = Path(__file__).resolve().parent.parent
FULL_MODEL, TINY_MODEL, SAMPLES = ROOT / "paligemma-3b-pt-224", ROOT / "paligemma-tiny", ROOT / "images"


def has_weights(folder: Path) -> bool:
    # Not any .safetensors: int8 weights that an earlier run has kept there are no model by themselves.
    return any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json"))


def choose_model() -> tuple[str, str]:
    """The folder of the 3B model if its weights are there, else of the tiny one, and words that say so."""
    is_there = has_weights(FULL_MODEL)
    model = FULL_MODEL if is_there else TINY_MODEL
    why = "its weights are there" if is_there else f"{FULL_MODEL.name} holds no weights yet"
    return str(model), f"model {model.name}, since {why}"


def fill_defaults(args: argparse.Namespace):
    """Chooses what was not given, and says so."""
    chosen = []
    if args.model is None:
        args.model, said = choose_model()
        chosen.append(said)
    if args.image is None:
        samples = sorted(path for path in SAMPLES.glob("*") if path.suffix in DRAWABLE)
        if not samples:
            raise InputError(f"there is no picture in {SAMPLES}: give one with --image")
        args.image = [str(samples[0])]
        chosen.append(f"picture {SAMPLES.name}/{samples[0].name}")
    if args.prompt is None:
        args.prompt = ["caption en"]
        chosen.append('prompt "caption en"')
    if args.temperature is None:
        args.temperature = 0.0 if args.top_p is None else 1.0
    if args.top_p is None:
        args.top_p = 1.0
    if args.seed is None:
        args.seed = torch.Generator().seed() % 2**63
    if chosen:
        log(f"Not given, so chosen: {'; '.join(chosen)}")


def expand_patterns(paths: list[str]) -> list[str]:
    """*.jpg becomes the files of that kind, as most shells do it; those of Windows do not."""
    expanded = []
    for path in paths:
        found = [] if os.path.lexists(path) else sorted(glob.glob(path))
        expanded += found or [path]
    return expanded


def check_prompts(args: argparse.Namespace):
    """One prompt for all pictures becomes one for each, and one picture for all prompts likewise."""
    if len(args.prompt) == 1:
        args.prompt = args.prompt * len(args.image)
    elif len(args.image) == 1:
        args.image = args.image * len(args.prompt)
    if len(args.prompt) != len(args.image):
        raise InputError(
            f"{len(args.prompt)} prompts for {len(args.image)} pictures: give one for all, one for each, "
            "or several for one picture"
        )
    for prompt in args.prompt:
        if "<image>" in prompt:
            raise InputError("a prompt must not contain <image>: the program adds it")
        if prompt != prompt.encode(errors="replace").decode():  # half a surrogate pair
            raise InputError(f"the prompt {prompt!a} is not valid text (UTF-8)")
