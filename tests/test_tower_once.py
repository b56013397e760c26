"""Several questions about one picture: the tower reads it once, and the answers are as if asked alone."""

import json
import operator
import os
import re
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from PIL import Image
from torch import nn

import inference
from program.overlap import box_iou
from program.questions import SAMPLES, TINY_MODEL
from speed.loading import load_model
from speed.tower_once import TowerOnce, read_each_picture_once

PROMPTS = ["caption en", "detect cat", "detect umbrella", "answer en how many cats are there?", "detect dog"]
PROMPTS += ["answer en is there a dog?"]
PROMPTS += ["answer en where is the umbrella?", "segment cat", "ocr", "Detect cat"]
IMAGES = Path(SAMPLES)


class Tower(nn.Module):
    """[B, 3, S, S] -> [B, 1, 3]: the sums of the colors; it notes how many rows it was given."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def forward(self, pixel_values):
        self.rows.append(len(pixel_values))
        return pixel_values.sum(dim=(2, 3))[:, None]


def pixels(numbers):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(4, 3, 5, 5, generator=generator)
    return pictures[list(numbers)]


@pytest.mark.parametrize(
    ("batches", "rows"),
    [
        (["0"], [1]),
        (["0123"], [4]),
        (["0000"], [1]),
        (["0001", "112"], [2, 1]),
        (["00", "00", "0"], [1]),
        (["00", "10", "0"], [1, 2]),
        (["0110"], [3]),  # in a row is what counts
        (["3", "2", "3"], [1, 1, 1]),
    ],
)
def test_only_rows_that_differ_from_the_one_before_are_read(batches, rows):
    tower, plain = Tower(), Tower()
    tower.forward = TowerOnce(tower)
    for numbers in batches:
        batch = pixels(map(int, numbers))
        found = tower(batch)
        assert torch.equal(found, plain(batch))
        found.zero_()  # whoever is given the features may write into them
    assert tower.rows == rows


def test_a_single_other_pixel_is_another_picture():
    tower, batch = Tower(), pixels([0, 0, 0])
    tower.forward = TowerOnce(tower)
    batch[1, 2, 4, 4] += 1e-3
    assert torch.equal(tower(batch), Tower()(batch)) and tower.rows == [3]
    nothing = torch.full_like(batch, torch.nan)
    assert tower(nothing).isnan().all() and tower.rows == [3, 3]


def test_towers_of_a_learners_kind():
    """Called by the name of its argument; and one that gives no row for each picture is left to itself."""

    class Other(Tower):
        def forward(self, pictures):
            self.rows.append(len(pictures))
            return pictures.sum(), pictures

    tower, batch = Other(), pixels([1, 1])
    tower.forward = TowerOnce(tower)
    total, given = tower(pictures=batch)
    assert torch.equal(given, batch) and total == batch.sum() and tower.rows == [1, 2]
    tower.forward = TowerOnce(Mock(forward=lambda pictures, scale: pictures * scale))
    assert torch.equal(tower(batch, scale=2), batch * 2)


def alike(answers, others) -> bool:
    """The same questions and words, and boxes that lie one on the other; which word of a mask is free."""
    for (*asked, answer, boxes), (*asked_too, other, others_boxes) in zip(answers, others, strict=True):
        shapes = [re.sub(r"(loc|seg)\d+", r"\1", text) for text in (answer, other)]
        if asked != asked_too or shapes[0] != shapes[1]:
            return False
        pairs = zip(boxes or [], others_boxes or [], strict=True)
        if any(box_iou(one["box"], two["box"]) < 0.95 for one, two in pairs):
            return False
    return True


@pytest.mark.parametrize("precision", ["float32", "auto", "int8"])
def test_answers_are_those_asked_one_at_a_time(precision, monkeypatch, capfd):
    """Ten questions in two batches; of two pictures, each of which is asked about several times in a row.

    In bfloat16 and int8 an edge between two bins falls on either side as the sums of a batch are rounded.
    """
    same = operator.eq if precision == "float32" else alike
    rows = []

    def counted(*arguments):
        model, tokenizer = load_model(*arguments)
        first_layer = model.vision_tower.vision_model.encoder
        first_layer.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
        return model, tokenizer

    monkeypatch.setattr(inference, "load_model", counted)

    def ask(*arguments):
        inference.main(["--precision", precision, "--json", *map(str, arguments)])
        entries = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        return [(entry["image"], entry["prompt"], entry["answer"], entry.get("boxes")) for entry in entries]

    cats, night = str(IMAGES / "cats.png"), str(IMAGES / "night.png")
    of_one = ["--model", TINY_MODEL, "--image", cats, "--prompt", *PROMPTS]
    of_two = ["--model", TINY_MODEL, "--image", cats, cats, night, night, night]
    of_two += ["--prompt", *PROMPTS[:5]]
    with monkeypatch.context() as patch:
        patch.setattr(inference, "MOST_ROWS", 1)
        patch.setattr(inference, "read_each_picture_once", lambda model: None)
        alone_of_one, alone_of_two = ask(*of_one), ask(*of_two)
    assert rows == [1] * 15 and len({answer for _, _, answer, _ in alone_of_one}) >= 6
    rows.clear()
    assert same(ask(*of_one), alone_of_one) and rows == [1]
    rows.clear()
    assert same(ask(*of_two), alone_of_two) and rows == [2]


def test_a_model_keeps_its_names(checkpoint):
    model, _ = load_model(checkpoint)
    names = list(model.state_dict())
    read_each_picture_once(model)
    assert list(model.state_dict()) == names


# -------------------------------------------------------------------------- what comes out


@pytest.fixture
def run(capfd):
    def run(*arguments):
        code = 0
        try:
            inference.main(["--model", str(TINY_MODEL), *map(str, arguments)])
        except SystemExit as error:
            code = error.code
        return code, *capfd.readouterr()

    return run


def test_lines_begin_with_what_differs(run):
    cats, night = IMAGES / "cats.png", IMAGES / "night.png"
    _, out, err = run("--image", cats, "--prompt", "caption en", "detect car", "ocr")
    assert out == "caption en: two cats and an umbrella\ndetect car: \nocr: \n"
    assert "\ndetect car: (nothing)\n" in err and "\nocr: (nothing)\n" in err
    _, out, err = run("--image", cats, night, "--prompt", "caption en", "detect car")
    assert out == f"{cats}: two cats and an umbrella\n{night}: \n"
    assert f"\n{night}: (nothing)\n" in err
    code, out, err = run("--image", cats, night, "--prompt", "a", "b", "c")
    assert code == 2 and "3 prompts for 2 pictures" in err and "several for one picture" in err


def test_an_empty_answer_is_said_beside_the_empty_line(run):
    _, out, err = run("--image", IMAGES / "cats.png", "--prompt", "detect car")
    assert out == "\n" and "\n(nothing)\n" in err
    _, out, err = run("--image", IMAGES / "cats.png", "--prompt", "detect car", "--json")
    assert json.loads(out)["answer"] == "" and "\n(nothing)\n" in err
    assert "(nothing)" not in run("--image", IMAGES / "cats.png", "--prompt", "detect cat")[2]


def test_boxes_of_all_questions_are_drawn_together(run, tmp_path):
    out = tmp_path / "out.png"
    arguments = ["--image", IMAGES / "cats.png", "--draw", out, "--prompt"]
    code, said, err = run("--json", *arguments, "detect cat", "caption en", "detect umbrella")
    assert code == 0 and f"Boxes drawn in {out}: 3" in err
    cats, _, umbrella = (json.loads(line).get("boxes") for line in said.splitlines())
    drawn = Image.open(out).convert("RGB")
    # The left side of the first cat, in the first color; the umbrella's, in the second.
    assert drawn.getpixel((round(cats[0]["box"][0]), 250)) == (230, 25, 75)
    assert drawn.getpixel((round(umbrella[0]["box"][0]), 100)) == (60, 180, 75)
    code, _, err = run("--image", IMAGES / "cats.png", IMAGES / "night.png", "--draw", out)
    assert code == 2 and "--draw takes one picture, not 2" in err


def test_the_picture_is_opened_once(run, monkeypatch):
    opened, original = [], inference.open_picture

    def spy(path):
        opened.append(os.path.basename(path))
        return original(path)

    monkeypatch.setattr(inference, "open_picture", spy)
    assert run("--image", IMAGES / "cats.png", "--prompt", *PROMPTS)[0] == 0
    assert opened == ["cats.png"]
