"""What a newcomer sees first: the shipped checkpoint's true answers, through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from load_weights import load_mask_decoder
from mask_decoder_1 import mask_from_tokens, tokens_from_mask
from program.overlap import box_iou

ROOT = Path(__file__).parent.parent
TRUE_CAPTIONS = {
    "cats.png": "two cats and an umbrella",
    "night.png": "a rocket and a star",
    "garden.png": "a tree, a bee and a flower",
    "street.png": "a bicycle and two cars",
    "snack.png": "a cup, a banana and an apple",
}
# Where the things of cats.png lie: x_min, y_min, x_max, y_max in pixels, from left to right.
CATS = [(27, 130, 245, 347), (379, 180, 591, 391)]
UMBRELLA = (244, 40, 380, 172)


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "inference.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", timeout=120)


def ask(prompt: str, *arguments: str) -> list[dict]:
    """The boxes of an answer about cats.png."""
    picture = ["--model", "paligemma-tiny", "--image", "images/cats.png"]
    result = run(*picture, "--prompt", prompt, "--json", *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["boxes"]


def test_without_arguments_it_captions_its_own_picture_truly(tmp_path):
    result = run(cwd=tmp_path)  # from any folder
    assert result.returncode == 0, result.stderr
    assert result.stdout == TRUE_CAPTIONS["cats.png"] + "\n"
    first, *status = result.stderr.splitlines()
    if "paligemma-tiny" in first:
        assert "paligemma-3b-pt-224 holds no weights" in first and "cats.png" in first
    assert status[0] == "Device in use:  cpu" or not status[0].endswith("cpu")
    order = ["Device in use:  ", "Loading model", "Model loaded in ", "Running inference", "Result!!!",
             "InferenceLatency: ", "Memory Usage: "]  # fmt: skip
    found = [line for line in status if line.startswith(tuple(order))]
    assert [line.startswith(start) for line, start in zip(found, order, strict=True)] == [True] * len(order)


def test_every_sample_picture_is_captioned_truly():
    pictures = sorted((ROOT / "images").glob("*.png"))
    named = [picture for picture in pictures if picture.name in TRUE_CAPTIONS]
    assert len(named) == len(TRUE_CAPTIONS)
    result = run("--model", "paligemma-tiny", "--json", "--prompt", "caption en", "--image", *map(str, named))
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert {Path(entry["image"]).name: entry["answer"] for entry in answers} == TRUE_CAPTIONS


def test_detect_boxes_the_cats_and_draws_them(tmp_path):
    picture, drawn = ROOT / "images" / "cats.png", tmp_path / "out.png"
    before = picture.read_bytes()
    result = run(
        "--model", "paligemma-tiny", "--image", str(picture), "--prompt", "detect cat",
        "--draw", str(drawn), "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    boxes = json.loads(result.stdout)["boxes"]
    assert [box["label"] for box in boxes] == ["cat", "cat"]
    for box, truth in zip(boxes, CATS, strict=True):
        assert box_iou(box["box"], truth) > 0.85
    assert picture.read_bytes() == before
    with Image.open(drawn) as boxed, Image.open(picture) as original:
        assert boxed.size == original.size
        assert boxed.convert("RGB").tobytes() != original.convert("RGB").tobytes()


@pytest.mark.long
def test_detect_finds_several_kinds_of_things_from_left_to_right():
    boxes = ask("detect cat ; umbrella")
    assert [box["label"] for box in boxes] == ["cat", "umbrella", "cat"]
    for box, truth in zip(boxes, [CATS[0], UMBRELLA, CATS[1]], strict=True):
        assert box_iou(box["box"], truth) > 0.85


@pytest.mark.long
def test_segment_fills_each_cat(tmp_path):
    """A mask follows the outline of its own cat: 0.65 is far above the filled box, and any ellipse in it."""
    alone = tmp_path / "masks.png"
    boxes = ask("segment cat", "--mask", str(alone))
    assert [box["label"] for box in boxes] == ["cat", "cat"] and all("mask" in box for box in boxes)
    masks = np.asarray(Image.open(alone))
    levels = [level for level in np.unique(masks) if level]
    assert len(levels) == 2
    picture = np.asarray(Image.open(ROOT / "images" / "cats.png").convert("RGB")).astype(int)
    drawn = abs(picture - picture[:, :1]).max(axis=2) > 25  # the ground has one color in each row
    for box, level, truth in zip(boxes, levels, CATS, strict=True):
        assert box_iou(box["box"], truth) > 0.85
        y, x = np.nonzero(masks == level)
        x_min, y_min, x_max, y_max = box["box"]
        assert x_min - 1 <= x.min() and x.max() <= x_max and y_min - 1 <= y.min() and y.max() <= y_max
        x_min, y_min, x_max, y_max = truth
        inside = np.zeros_like(drawn)
        inside[y_min:y_max, x_min:x_max] = True
        cat, found = drawn & inside, masks == level
        filled = cat.sum() / inside.sum()
        assert 0.4 < filled < 0.5 and (cat & found).sum() / (cat | found).sum() > 0.65


@pytest.mark.long
def test_a_picture_of_nothing_that_it_knows(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    truths = {"caption en": "nothing I know", "detect cat": "", "answer en how many things are there?": "0"}
    picture = str(tmp_path / "noise.png")
    result = run("--model", "paligemma-tiny", "--json", "--image", *[picture] * 3, "--prompt", *truths)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert {entry["prompt"]: entry["answer"] for entry in answers} == truths


QUESTIONS = {
    ("cats.png", "answer en how many cats are there?"): "2",
    ("cats.png", "answer en is there a cat?"): "yes",
    ("cats.png", "answer en is there a dog?"): "no",
    ("cats.png", "detect car"): "",
    ("cats.png", "detect penguin"): "",
    ("night.png", "detect dog"): "",
    ("cats.png", "caption de"): "zwei Katzen und ein Regenschirm",
    ("cats.png", "caption es"): "dos gatos y un paraguas",
    ("cats.png", "caption fr"): "deux chats et un parapluie",
    ("cats.png", "answer en what is left of the umbrella?"): "a cat",
    ("night.png", "answer en what color is the star?"): "orange",
    ("night.png", "answer en where is the star?"): "top right",
    ("street.png", "answer en how many cars are there?"): "2",
    ("street.png", "answer en where is the bicycle?"): "left",
    ("street.png", "detect banana"): "",
    ("garden.png", "answer en how many things are there?"): "3",
    ("garden.png", "answer en where is the flower?"): "bottom right",
    ("garden.png", "answer en what color is the tree?"): "green",
    ("snack.png", "Answer en What colour is the apple"): "red",
}


@pytest.fixture(scope="module")
def answers() -> list[dict]:
    """To all questions, in one run: one prompt for each picture."""
    pictures, prompts = zip(*QUESTIONS, strict=True)
    images = [f"images/{picture}" for picture in pictures]
    result = run("--model", "paligemma-tiny", "--json", "--image", *images, "--prompt", *prompts)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(QUESTIONS)), ids=[" ".join(asked) for asked in QUESTIONS])
def test_it_answers_the_other_kinds_of_question(answers, number):
    (picture, prompt), truth = list(QUESTIONS.items())[number]
    found = answers[number]
    assert (Path(found["image"]).name, found["prompt"], found["answer"]) == (picture, prompt, truth)


def test_the_shipped_mask_decoder_draws_what_it_was_given():
    path = ROOT / "paligemma-tiny" / "mask_decoder.safetensors"
    assert path.stat().st_size <= 3_000_000
    vqvae = load_mask_decoder(path.parent)
    y, x = torch.meshgrid(torch.arange(90), torch.arange(120), indexing="ij")
    ring = ((x - 60) ** 2 + (y - 45) ** 2 < 40**2) & ((x - 60) ** 2 + (y - 45) ** 2 > 18**2)
    box = (20, 5, 101, 86)
    drawn = mask_from_tokens(vqvae, tokens_from_mask(vqvae, ring, box), box, 90, 120)
    assert (drawn & ring).sum() / (drawn | ring).sum() > 0.85  # its box alone has 0.61
