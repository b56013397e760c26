"""train_tiny.py, whole and in small: it trains, resumes, and writes a checkpoint that loads."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("resvg_py", reason="training needs `pip install -r requirements-train.txt`")

from load_weights import load_hf_model
from tiny_model import train_tiny
from tiny_model.scenes import Scene, Thing

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tokenizer():
    return train_tiny.build_tokenizer()


def test_the_tokenizer_is_laid_out_as_gemmas(tokenizer):
    assert [tokenizer.token_to_id(token) for token in ("<pad>", "<eos>", "<bos>", "<unk>")] == [0, 1, 2, 3]
    size = tokenizer.get_vocab_size()
    assert tokenizer.token_to_id("<image>") == size - 1
    assert tokenizer.token_to_id("<seg127>") == size - 2
    assert tokenizer.token_to_id("<loc1023>") - tokenizer.token_to_id("<loc0000>") == 1023
    for text in ("<loc0001><loc0002><loc0003><loc0004> cat ; <loc0009> two", "Is it 7 o'clock?\n", " a  b"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert tokenizer.token_to_id("<unk>") not in ids
    ids = tokenizer.encode("<image><image><bos>detect cat\n", add_special_tokens=False).ids
    assert ids[:3] == [size - 1, size - 1, 2] and ids[-1] == tokenizer.token_to_id("\n")


def test_the_shipped_tokenizer_and_sizes_are_those_of_the_script(tokenizer):
    folder = ROOT / "paligemma-tiny"
    assert json.loads((folder / "config.json").read_text()) == train_tiny.build_config(tokenizer)
    assert (folder / "tokenizer.json").read_text(encoding="utf-8") == tokenizer.to_str(pretty=True)


def test_a_training_row_learns_the_answer_alone(tokenizer):
    rows = train_tiny.training_rows(tokenizer, [("detect cat", "no"), ("caption en", "a cat and a dog")], 4)
    ids, types = rows["input_ids"], rows["token_type_ids"]
    assert (ids[:, -1] == tokenizer.token_to_id("<eos>")).all()
    for row, answer in ((0, "no<eos>"), (1, "a cat and a dog<eos>")):
        assert tokenizer.decode(ids[row][types[row] == 1].tolist(), skip_special_tokens=False) == answer
    assert int(rows["answer_length"]) == int(types[1].sum())
    assert (rows["attention_mask"] == (ids != 0)).all()


def test_the_loss_is_the_references_where_targets_are_hard(tokenizer, monkeypatch):
    """Without <loc> tokens it is twice the mean cross entropy that the model itself computes."""
    monkeypatch.setattr(train_tiny, "PROMPTS_PER_PICTURE", 1)
    config = train_tiny.build_config(tokenizer)
    model = train_tiny.build_model(config)
    rows = train_tiny.training_rows(tokenizer, [("caption en", "a cat"), ("answer en", "two dogs")], 100)
    pixel_values = torch.randn(2, 3, 160, 160)
    labels = torch.where(rows["token_type_ids"] == 1, rows["input_ids"], -100)
    expected = model(
        rows["input_ids"], pixel_values, rows["attention_mask"],
        token_type_ids=rows["token_type_ids"], labels=labels,
    )["loss"]  # fmt: skip
    first_loc = tokenizer.token_to_id("<loc0000>")
    found = train_tiny.prefix_lm_loss(model, model.vision_tower(pixel_values), rows, first_loc)
    torch.testing.assert_close(found, 2 * expected)


def test_what_lies_close_to_a_border_is_asked_about_often():
    boxes = {"cat": (0.1, 0.1, 0.2, 0.58), "dog": (0.7, 0.7, 0.8, 0.9), "bee": (0.0, 0.3, 0.1, 0.38)}
    things = [Thing(name, boxes[name]) for name in ("cat", "bee", "bee", "dog")]  # no "the" bee
    scene = Scene(np.zeros((8, 8, 3), np.uint8), things, np.full((8, 8), -1, np.int8))
    rng = np.random.default_rng(0)
    first = [train_tiny.questions(rng, scene)[0] for _ in range(200)]
    assert 100 < first.count(("answer en where is the cat?", "top")) < 160
    assert len(set(first)) > 5
    far = Scene(scene.pixels, things[3:], scene.owner)
    assert len(train_tiny.questions(rng, far)) == train_tiny.PROMPTS_PER_PICTURE


@pytest.mark.parametrize(
    ("prompt", "thing"),
    [
        ("detect cat", "cat"),
        ("answer en how many buses are there?", "bus"),
        ("answer en is there a car?", "car"),
        ("answer en where is the carrot?", "carrot"),
        ("caption en", None),
    ],
)
def test_the_thing_that_a_prompt_asks_about(prompt, thing):
    found = train_tiny.thing_asked_for(prompt)
    assert found == (-1 if thing is None else train_tiny.THINGS.index(thing))


def test_a_patch_says_in_which_thirds_its_thing_lies():
    """A head that is sure of top (of three rows) and right (of three columns), asked about two boxes."""
    head = train_tiny.PatchHead(8)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.bias[-6:] = torch.tensor([20.0, 0, 0, 0, 0, 20.0])
    features, labels = torch.randn(1, 1, 8), torch.tensor([[3]])
    top_right, bottom_right = torch.tensor([[[0, 0.6, 0.4, 0.9]]]), torch.tensor([[[0.6, 0.6, 1, 0.9]]])
    right, _ = head.loss(features, labels, top_right)
    wrong, _ = head.loss(features, labels, bottom_right)
    # Of the two answers one is wrong by 20; and the box, which the head puts at 0, lies farther down.
    expected = 20 / 2 + 4 * (bottom_right - top_right).mean()
    torch.testing.assert_close(wrong - right, expected, rtol=1e-4, atol=0)


def test_the_marks_of_prompts_about_nothing_do_not_count(tokenizer):
    """Three rows about one picture: only where a thing is named, its patches are to be marked."""
    config = train_tiny.build_config(tokenizer)
    model = train_tiny.build_model(config)
    head = train_tiny.MarkHead(model.language_model)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, 20.0)  # it marks everything
    head.states = torch.randn(3, 5, 128)
    is_image = torch.tensor([[False, True, True, True, True]] * 3)
    batch = {"labels": torch.tensor([[0, 0, 7, train_tiny.GROUND]]), "asked": torch.tensor([-1, 0, 7])}
    # Two patches are marked wrongly for the first thing, three for the other; three correctly in all.
    torch.testing.assert_close(head.loss(batch, is_image), torch.tensor(20.0 * 5 / 3), rtol=1e-4, atol=0)


@pytest.mark.long
def test_smoke_trains_resumes_and_writes_a_checkpoint(tmp_path, monkeypatch, capsys):
    command = [sys.executable, "-m", "tiny_model.train_tiny", "--smoke", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "answers 12/12" in done.stdout and "| `caption en`, exactly right |" in done.stdout
    folder = tmp_path / "paligemma-tiny"
    model, _ = load_hf_model(folder)
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "no\nphotographs" in card and "CC-BY-4.0" in card

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert again.returncode == 2 and "is there already" in again.stderr
    # A run that was over but for the last step goes on from its state.
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert (state["stage"], state["done"]) == ("answers", 12)
    torch.save(state | {"done": 11}, tmp_path / "state.pt")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(train_tiny, "accuracy_table", lambda *_: "| how often it was right |")
    train_tiny.main(command[3:])
    output = capsys.readouterr().out
    assert "tower 12/12" not in output and "answers 12/12" in output
    assert "how often it was right" in (folder / "README.md").read_text(encoding="utf-8")
