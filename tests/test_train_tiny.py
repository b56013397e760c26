"""train_tiny.py in its parts: the vocabulary, the rows, what patches are asked, the losses, the optimizer."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

pytest.importorskip("resvg_py", reason="training needs `pip install -r requirements-train.txt`")

from decoder_1 import PaliGemmaForConditionalGeneration
from load_weights import load_mask_decoder
from tiny_model import batches, losses, making, measure, optimizer, quick, signs, train_tiny
from tiny_model.scenes import THINGS, Scene, Sign, Thing
from tiny_model.state import Signals
from tiny_model.words import COLORS
from training_1 import training_row

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tokenizer():
    return making.build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    model = making.build_model(making.build_config(tokenizer, making.SMALL_SIZES))
    making.initialise(model, tokenizer, torch.randn(128, 64))
    return model


@pytest.fixture(scope="module")
def scene():
    """Two cats and a bus that covers the lower right quarter; a sign at the top."""
    owner = np.full((160, 160), -1, np.int8)
    owner[16:48, 8:40], owner[64:80, 0:32], owner[80:, 80:] = 0, 1, 2
    boxes = [(0.1, 0.05, 0.3, 0.25), (0.4, 0.0, 0.5, 0.2), (0.5, 0.5, 1.0, 1.0)]
    things = [Thing(name, box) for name, box in zip(("cat", "cat", "bus"), boxes, strict=True)]
    letters = [("4", (0.0, 0.5, 0.1, 0.55)), ("R", (0.0, 0.55, 0.1, 0.6))]
    return Scene(np.zeros((160, 160, 3), np.uint8), things, owner, Sign("4R", (0, 0.4, 0.1, 0.7), letters))


# -- The vocabulary -------------------------------------------------------------------------------


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


def test_a_word_that_is_needed_is_one_token_and_others_are_spelled(tokenizer):
    def tokens(text):
        return tokenizer.encode(text, add_special_tokens=False).tokens

    assert tokens("zwei Äpfel, ein Löwe") == ["zwei", "▁Äpfel", ",", "▁ein", "▁Löwe"]
    assert tokens("answer en How many buses are there?")[2:5] == ["▁How", "▁many", "▁buses"]
    assert tokens("Detect cat ; dog") == ["Detect", "▁cat", "▁;", "▁dog"]
    assert tokens("HOTEL") == list("HOTEL") and tokens("cats") == list("cats")


def test_the_shipped_files_are_what_the_scripts_make(tokenizer):
    def shipped(name):
        return json.loads((ROOT / "paligemma-tiny" / name).read_text(encoding="utf-8"))

    assert shipped("config.json") == making.build_config(tokenizer)
    assert shipped("tokenizer.json") == json.loads(tokenizer.to_str())
    kinds = train_tiny.kinds_measured(train_tiny.PLAN)
    assert shipped("prompts.json") == making.known_prompts(train_tiny.PLAN["things"], kinds)


# -- Batches --------------------------------------------------------------------------------------


def test_what_patches_are_to_say(scene):
    words = np.arange(48).reshape(3, 16)
    targets = batches.patch_targets(scene, words, 10)
    labels = targets["labels"].reshape(10, 10)
    cat, bus = THINGS.index("cat"), THINGS.index("bus")
    assert labels[1, 0] == labels[2, 2] == labels[4, 1] == cat and labels[9, 9] == bus
    assert labels[0, 0] == labels[3, 0] == batches.GROUND
    np.testing.assert_allclose(targets["boxes"].reshape(10, 10, 4)[4, 1], (0.4, 0, 0.5, 0.2))
    # The upper cat begins in the middle of its first patch, and ends in the middle of its third.
    cover = targets["cover"].reshape(10, 10, 8, 8)
    assert not cover[1, 0, :, :4].any() and cover[1, 0, :, 4:].all() and cover[1, 1].all()
    assert not cover[0].any()
    # The bus is 5 x 5 patches of 4 x 4 words.
    shapes, cells = targets["shapes"].reshape(10, 10, 2, 2), targets["cells"].reshape(10, 10)
    assert shapes[5, 5].tolist() == [[32, 32], [32, 32]] and cells[7, 7] == 10 and cells[9, 5] == 12
    assert shapes[6, 6].tolist() == [[37, 37], [37, 37]] and shapes[7, 7].tolist() == [[37, 38], [41, 42]]
    assert (shapes[0, 0] == -1).all()
    letters = targets["letters"].reshape(10, 10, 2)
    assert letters[0, 5].tolist() == [batches.LETTERS.index("4"), batches.LETTERS.index("R")]
    assert (letters != batches.NO_LETTER).sum() == 2
    scene.things[2].color = "red"
    colors = batches.patch_targets(scene, words, 10)["colors"]
    assert set(colors[targets["labels"] == bus]) == {COLORS.index("red")}
    assert set(colors[targets["labels"] != bus]) == {batches.NO_COLOR}


def test_the_patches_that_a_prompt_is_about(scene):
    targets = batches.patch_targets(scene, np.zeros((3, 16), dtype=np.int64), 10)
    labels, letters = targets["labels"], targets["letters"]

    def number(prompt):
        return batches.patches_asked_for(prompt, labels, letters).sum()

    cats, buses = (labels == THINGS.index("cat")).sum(), (labels == THINGS.index("bus")).sum()
    assert number("detect cat") == number("answer en Is there a cat?") == cats
    assert number("answer en how many buses are there") == buses
    assert number("segment bus ; dog ; cat") == number("Caption fr") == cats + buses
    assert number("answer en how many things are there?") == cats + buses
    assert number("answer en where is the carrot?") == 0 and number("ocr") == 1


def test_questions_are_drawn_by_weight(scene):
    rng = np.random.default_rng(0)
    kinds = {"caption": 3, "caption de": 1, "where close": 1, "ocr": 0, "ocr + sign": 4}
    first = Counter(batches.choose_questions(rng, scene, kinds, 1)[0][0].lower() for _ in range(600))
    assert set(first) == {"caption en", "caption de", "ocr"}  # nothing single lies close to a border
    assert 260 < first["ocr"] < 340 and 45 < first["caption de"] < 105
    both = batches.choose_questions(rng, scene, {"caption": 1, "caption de": 1}, 2)
    assert {prompt.lower() for prompt, _ in both} == {"caption en", "caption de"}
    assert len(batches.choose_questions(rng, scene, {"caption": 1}, 3)) == 3


@pytest.mark.long
def test_a_batch_is_a_function_of_its_number(tokenizer):
    plan = json.loads(json.dumps(train_tiny.SMOKE_PLAN))
    codec = ROOT / "paligemma-tiny" / "mask_decoder.safetensors"
    config = making.build_config(tokenizer)

    def stream(first):
        return iter(batches.Batches(tokenizer, plan, "answers", config, codec, None, first))

    from_start = stream(0)
    for _ in range(3):
        expected = next(from_start)
    found = next(stream(2))
    for name in ("pixels", "labels", "shapes"):
        assert (found[name] == expected[name]).all()
    assert len(found["rows"]) == len(expected["rows"])
    num_rows = 0
    for mine, theirs in zip(found["rows"], expected["rows"], strict=True):
        assert all((mine[name] == theirs[name]).all() for name in mine)
        num_rows += len(mine["ids"])
        for ids, prefix, length in zip(mine["ids"], mine["prefix"], mine["length"], strict=True):
            text = tokenizer.decode(ids[: length - 100].tolist(), skip_special_tokens=False)
            assert text.startswith("<bos>") and text.endswith("<eos>")
            assert tokenizer.decode(ids[: prefix - 100].tolist()).endswith("\n")
            assert not ids[length - 100 :].any() and "<mask" not in text
    assert num_rows == plan["answers"]["scenes"] * plan["answers"]["prompts"]
    # APART batches later its scenes come again, with other questions.
    later = next(stream(2 + batches.APART))
    half = len(found["pixels"]) // 2
    assert (later["pixels"][half:] == found["pixels"][:half]).all()
    assert any((a["ids"].shape != b["ids"].shape) or (a["ids"] != b["ids"]).any()
               for a, b in zip(later["rows"], found["rows"], strict=False))  # fmt: skip


@pytest.mark.parametrize("small_print", [False, True])
def test_print_is_as_large_as_the_plan_says(monkeypatch, small_print):
    """Drawn ten times as large as for the model, so that no font rounds its letters."""
    size = 1600
    heights, min_pitch = {
        False: (signs.HEIGHTS, signs.MIN_PITCH), True: (signs.SMALL_HEIGHTS, signs.SMALL_MIN_PITCH)
    }[small_print]  # fmt: skip
    rng, fonts = np.random.default_rng(0), signs.load_fonts()
    seen = []
    for word in ["HH", "HHHH", "HHHHHH", "II", "IIIIII"] * 20:
        monkeypatch.setattr(signs, "random_text", lambda rng, word=word: word)
        _, text, letters = signs.draw_sign(rng, fonts, size, 0, small_print)
        assert text == word
        (_, (top, left, bottom, _)), (_, (_, right, _, _)) = letters[:2]
        height, pitch = (bottom - top) / size, (right - left) / size
        # In some handwriting an I is not as high as an H.
        if "H" in word:
            assert height > 0.98 * heights[0], word
        assert pitch > 0.98 * min_pitch, word
        # Above the limits is only what would be too small or too narrow otherwise.
        is_smallest = height < 1.05 * heights[0] or pitch < 1.02 * min_pitch
        is_within = height < 1.05 * heights[1] and len(word) * pitch < 1.02 * signs.MAX_WIDTH
        assert is_smallest or is_within, word
        seen.append(height)
    assert min(seen) < 1.1 * heights[0] and max(seen) > 0.9 * heights[1]


def test_each_stage_draws_the_signs_of_its_plan(tokenizer):
    """How many scenes have one, how many show nothing, and how large the print is."""
    asked = []

    def empty(size):
        return Scene(np.zeros((size, size, 3), np.uint8), [], np.full((size, size), -1, np.int8))

    class Pictures:
        """Stands for the material: notes what is asked for."""

        def scene(self, rng, size, count, jitter, with_sign, small_print):
            asked.append((with_sign, small_print))
            return empty(size)

        def nothing(self, rng, size, jitter, small_print):
            asked.append((None, small_print))
            return empty(size)

    config, codec = making.build_config(tokenizer), ROOT / "paligemma-tiny" / "mask_decoder.safetensors"
    for stage, is_small in (("tower", True), ("answers", True), ("reading", False)):
        drawn = batches.Batches(tokenizer, train_tiny.PLAN, stage, config, codec, None, 0)
        drawn.material, drawn.codec = Pictures(), load_mask_decoder(codec.parent).float()
        asked.clear()
        for group in range(12):
            drawn.draw(group)
        assert {small for _, small in asked} == {is_small}
        kinds, plan = [kind for kind, _ in asked], train_tiny.PLAN[stage]
        number = 12 * (plan["scenes"] // plan["uses"])
        assert len(kinds) == number
        nothing = kinds.count(None) / number
        assert nothing == pytest.approx(plan["nothing"], abs=0.08)
        assert kinds.count(True) / number == pytest.approx(plan["signs"] * (1 - nothing), abs=0.1)


# -- The model and the losses ---------------------------------------------------------------------


def example_rows(tokenizer, pairs, length=28):
    rows = []
    for picture, (prompt, answer) in enumerate(pairs):
        row = training_row(tokenizer, prompt, answer, 0)
        rows.append((picture, row["input_ids"], row["token_type_ids"].count(0), np.zeros(100)))
    return {name: torch.from_numpy(value) for name, value in batches.padded(rows, length, 100).items()}


def test_the_quick_model_is_the_reference(model, tokenizer):
    """And the loss on words is the references' mean cross entropy, as the model itself computes it."""
    pairs = [("caption en", "a cat and a dog"), ("answer en is there a bus?", "no")]
    rows = example_rows(tokenizer, pairs)
    pixels = torch.randint(0, 256, (2, 160, 160, 3), dtype=torch.uint8)
    fast = quick.QuickModel(model, torch.float32, is_compiled=False)
    weights = fast.weights()
    features = fast.tower(weights, pixels)
    pixel_values = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(features, model.vision_tower(pixel_values), rtol=1e-4, atol=1e-5)

    image = torch.full((2, 100), model.config.image_token_index)
    input_ids = torch.cat([image, rows["ids"]], dim=1)
    positions = torch.arange(input_ids.shape[1])
    is_suffix = positions >= rows["prefix"][:, None]
    is_padding = positions >= rows["length"][:, None]
    labels = input_ids.masked_fill(~is_suffix | is_padding, -100)
    expected = model(input_ids, pixel_values, token_type_ids=is_suffix.long(), labels=labels)["loss"]
    loss = losses.AnswerLoss(tokenizer, torch.eye(128))
    found, halfway = loss(fast, weights, fast.projected(weights, features), rows)
    torch.testing.assert_close(found["words"] / (labels >= 0).sum(), expected)
    assert halfway.shape == (2, 100, 96) and found["places"] == found["masks"] == 0


def test_places_and_masks_have_soft_targets(model, tokenizer):
    """What is off by a bin, or by a codeword that is nearly the same, costs a little; else much."""
    codewords = torch.randn(128, 8)
    codewords[7] = codewords[6] + 0.01
    near = losses.soft_words(codewords)
    assert near.sum(dim=1).allclose(torch.ones(128)) and (near[6, 7] - near[6, 6]).abs() < 0.01
    assert near[6, 8] < 0.1
    loss = losses.AnswerLoss(tokenizer, near)

    class Says:
        """Stands for a decoder that is sure of one token."""

        def __init__(self, token):
            self.token = tokenizer.token_to_id(token)

        def decoder(self, weights, images, ids, prefix):
            states = torch.zeros(*ids.shape, tokenizer.get_vocab_size())
            states[..., self.token] = 20.0
            return states, images

    def cost(token, answer, kind):
        weights = {"language_model.model.embed_tokens.weight": torch.eye(tokenizer.get_vocab_size())}
        rows = example_rows(tokenizer, [("detect cat", answer)])
        return loss(Says(token), weights, torch.zeros(1, 100, 4), rows)[0][kind]

    exact, off, far = (cost(f"<loc{n:04d}>", "<loc0500>", "places") for n in (500, 501, 520))
    assert exact < off < far and far - exact > 2 * (off - exact)
    exact, alike, other = (cost(f"<seg{n:03d}>", "<seg006>", "masks") for n in (6, 7, 8))
    assert abs(alike - exact) < 0.2 and other - exact > 3


def test_a_patch_says_in_which_thirds_its_thing_lies():
    """A head that is sure of top (of three rows) and right (of three columns), asked about two boxes."""
    head = losses.PatchHead(8)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    start = sum(list(head.PARTS.values())[:2])
    with torch.no_grad():
        head.bias[start : start + 6] = torch.tensor([20.0, 0, 0, 0, 0, 20.0])
    features = torch.randn(1, 1, 8)

    def thirds(box):
        batch = {
            "labels": torch.tensor([[3]]), "boxes": torch.tensor([[box]]), "cells": torch.tensor([[0]]),
            "cover": torch.zeros(1, 1, 64), "shapes": torch.full((1, 1, 4), -1),
            "letters": torch.full((1, 1, 2), batches.NO_LETTER),
        }  # fmt: skip
        return head.losses(features, batch, torch.eye(128))[0]["thirds"]

    # Of the two answers one is wrong by 20.
    torch.testing.assert_close(thirds([0.6, 0.6, 1, 0.9]) - thirds([0, 0.6, 0.4, 0.9]), torch.tensor(10.0))


def test_only_things_with_a_clear_color_are_asked_for_it():
    head = losses.ColorHead(len(COLORS))
    nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.weight.copy_(20 * torch.eye(len(COLORS)))
    features = torch.eye(len(COLORS))[None, :3]  # says the first three colors
    right, unclear, wrong = (torch.tensor([c]) for c in ([0, 1, 2], [0, -100, -100], [0, -100, 5]))
    assert head.loss(features, right) < 1e-3 and head.loss(features, unclear) < 1e-3
    torch.testing.assert_close(head.loss(features, wrong), torch.tensor(10.0))
    assert head.loss(features, torch.full((1, 3), batches.NO_COLOR)) == 0


def test_the_losses_are_weighed_as_the_stage_says(model, tokenizer, scene, tmp_path):
    """What patches say fades over the first round of answers, and stays faded while it learns to read."""
    run = train_tiny.Run("smoke", tmp_path, Signals())
    run.quick = quick.QuickModel(model, torch.float32, is_compiled=False)
    run.near, run.answer_loss = torch.eye(128), losses.AnswerLoss(tokenizer, torch.eye(128))
    run.thing_tokens = [tokenizer.token_to_id(f"▁{thing}") for thing in THINGS]
    vision, text = model.config.vision_config.hidden_size, model.config.text_config.hidden_size
    heads = {"patches": losses.PatchHead, "marks": losses.MarkHead, "colors": losses.ColorHead}
    run.heads = {name: head(text if name == "marks" else vision) for name, head in heads.items()}
    targets = batches.patch_targets(scene, np.zeros((3, 16), dtype=np.int64), 10)
    batch = {name: torch.from_numpy(value)[None] for name, value in targets.items()}
    batch["pixels"] = torch.from_numpy(scene.pixels)[None]
    batch["rows"] = [example_rows(tokenizer, [("ocr", "4R")])]

    for stage, done, faded, has_colors in (
        ("tower", 5, 1, False), ("answers", 0, 1, False), ("answers", 2, 0.65, False),
        ("answers", 4, 0.3, True), ("answers", 9, 0.3, True), ("reading", 0, 0.3, True),
    ):  # fmt: skip
        run.stage, run.done = stage, done
        loss, told = run.losses(batch)
        del told["patches right"]
        answers = {"naming", "words", "places", "masks", "marks", "colors"} & set(told)
        assert bool(answers) == (stage != "tower") and ("colors" in answers) == has_colors
        weigh = run.plan[stage]["weights"]
        parts = [weigh[name] * value * (1 if name in answers else faded) for name, value in told.items()]
        torch.testing.assert_close(loss.detach(), sum(parts))


def test_muon_is_pytorchs():
    """Matrices of one shape at once, tall and wide ones: the same numbers as one by one."""
    torch.manual_seed(0)
    shapes = [(8, 8), (8, 8), (24, 8), (8, 24)]
    mine = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in mine]
    ours = optimizer.Muon([(parameter, 0.01) for parameter in mine], weight_decay=0.03)
    pytorchs = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.03, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        ours.step(1.0)
        pytorchs.step()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)  # the products are in bfloat16


# -- Measuring ------------------------------------------------------------------------------------


def test_what_an_answer_has_found():
    box = "<loc0512><loc0000><loc1023><loc0256>"
    [cat, dog] = measure.things_of(f"{box} cat ; {box}{'<seg007>' * 16} dog")
    assert (cat.name, cat.words, dog.words) == ("cat", [], [7] * 16)
    assert cat.box == (0.5, 0.0, 1023 / 1024, 0.25)
    assert measure.things_of("") == [] and measure.things_of(f"{box[8:]} cat") is None
    assert measure.things_of(f"{box}<seg001> cat") is None and measure.boxes_of(f"{box} cat", "dog") is None


def test_a_model_that_knows_all_is_always_right(monkeypatch, tokenizer, scene):
    """Answers are taken from the scenes themselves: each kind of question comes out at 1."""
    codec = load_mask_decoder(ROOT / "paligemma-tiny").float()
    nothing = Scene(scene.pixels, [], np.full((160, 160), -1, np.int8))
    one = Scene(scene.pixels, scene.things[2:], np.where(scene.owner == 2, 0, -1).astype(np.int8), scene.sign)
    one.things[0].color = "red"

    def true_answer(scene: Scene, prompt: str, words: np.ndarray) -> str:
        kinds = measure.tiny_scenes
        verb, _, rest = prompt.lower().partition(" ")
        if verb == "caption":
            return kinds.caption(scene, rest)
        if verb == "ocr":
            return kinds.ocr(scene)
        names = rest.split(" ; ")
        if verb == "detect":
            return kinds.detect(scene, *names)
        return kinds.fill_in(kinds.segment(scene, *names), words)

    def answers(self, scenes, prompts):
        return [*map(true_answer, scenes, prompts, measure.tiny_scenes.mask_words(codec, scenes))]

    class Pictures:
        def scene(self, *_, others=(), photographs=(), **__):
            bare.append(others is photographs is None)
            return one

        def nothing(self, *_, **__):
            return nothing

    monkeypatch.setattr(measure.Examination, "ask", answers)
    model = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(image_size=160)))
    kinds = ("caption", "caption de", "detect", "detect several", "segment", "segment several", "ocr")
    bare = []

    def evaluated():
        return measure.evaluate(model, tokenizer, Pictures(), 1.0, 9, 0, codec, 2, kinds=kinds)

    found = evaluated()
    assert sum(bare) == 9
    for kind in ("caption", "caption 1", "caption alone", "caption de", "detect", "absent", "several",
                 "segment several", "ocr", "typed otherwise"):  # fmt: skip
        assert found[kind] == 1, kind
    assert found["named"] == found["found in nothing"] == found["lost"] == 0 and found["iou"] > 0.99
    assert 0.8 < found["mask"] == pytest.approx(found["codec"], abs=0.02) and found["filled box"] == 1
    assert found["masks"] == pytest.approx(found["mask"], abs=0.02)
    table = measure.markdown_table({"all": found})
    assert "high), exactly right | 1.00 |" in table and "where" not in table

    # One that takes what is typed otherwise for something else, that finds a box whatever it is shown, and
    # that forgets the masks of several things at once.
    box = "<loc0512><loc0512><loc1023><loc1023>"

    def wrong_answers(self, scenes, prompts):
        told = answers(self, scenes, prompts)
        for i, prompt in enumerate(prompts):
            if prompt[0].isupper():
                told[i] = "?"
            elif prompt.startswith("detect ") and not scenes[i].things:
                told[i] = f"{box} cat"
            elif prompt.startswith("segment ") and ";" in prompt:
                told[i] = " ; ".join(f"{box} {name}" for name in ("bus", "bus"))
        return told

    monkeypatch.setattr(measure.Examination, "ask", wrong_answers)
    found = evaluated()
    assert found["typed otherwise"] == found["segment several"] == found["masks"] == 0
    assert found["found in nothing"] == found["caption"] == 1


def test_a_run_is_measured_by_what_its_plan_teaches(model, tmp_path, monkeypatch):
    plan = json.loads(json.dumps(train_tiny.MINUTES_PLAN))
    mean = AveragedModel(model)
    state = {"plan": plan, "model": model.state_dict(), "stage": "answers", "done": 9}
    train_tiny.write_state(tmp_path / "state.pt", state | {"mean": mean.state_dict()})
    asked, weights = [], []

    def material(styles, store, things):
        return styles, things

    def evaluated(model, tokenizer, material, jitter, scenes, seed, codec, num_nothing, check, kinds, count):
        asked.append((*material, jitter, num_nothing, kinds, count))
        weights.append(model.multi_modal_projector.linear.bias[0].item())
        return {}

    monkeypatch.setattr(measure, "load_material", material)
    monkeypatch.setattr(measure, "evaluate", evaluated)
    train_tiny.main(["--measure", str(tmp_path)])
    styles, things = tuple(measure.TRAINING_STYLES[:5]), tuple(train_tiny.FIVE_THINGS)
    assert asked == [(styles, things, jitter, 0, ("caption",), 1) for jitter in (1.0, 0.0)]
    asked.clear()
    train_tiny.main(["--measure", str(tmp_path), "--nothing", "7", "--columns", "Twemoji"])
    assert asked == [(tuple(measure.HELD_OUT_STYLES[:1]), things, 1.0, 7, ("caption",), 1)]
    assert set(weights) == {model.multi_modal_projector.linear.bias[0].item()}
    # At the end of a stage: the mean, as it would be stored.
    mean.module.multi_modal_projector.linear.bias.data.fill_(1.001)
    whole = state | {"mean": mean.state_dict(), "done": plan["answers"]["batches"]}
    train_tiny.write_state(tmp_path / "state.pt", whole)
    train_tiny.main(["--measure", str(tmp_path), "--columns", "training sets"])
    assert weights[-1] == 1.0


@pytest.mark.long
def test_smoke_writes_a_checkpoint_that_loads(tmp_path):
    from load_weights import load_hf_model

    train_tiny.main(["--smoke", "--out", str(tmp_path)])
    folder = tmp_path / "paligemma-tiny"
    model, _ = load_hf_model(folder)
    assert isinstance(model, PaliGemmaForConditionalGeneration)
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "no photographs" in card and "CC-BY-4.0" in card and "--preset smoke" in card
    assert "| `ocr` (capitals" in card
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    assert prompts["name"] == "paligemma-tiny" and "detect {thing} ; {thing}" in prompts["forms"]
    assert len(prompts["words"]["thing"]) == len(prompts["words"]["things"]) == len(THINGS)
    with pytest.raises(SystemExit) as ended:
        train_tiny.main(["--smoke", "--out", str(tmp_path)])
    assert ended.value.code == 2


def test_rates_rise_again_where_the_plan_says_so():
    layer = torch.nn.Linear(2, 2)
    tuned = optimizer.Optimizer([(layer, 1e-2)], total=200, restarts=(100,))
    rates = []
    for step in range(200):
        tuned.step(layer(torch.ones(2)).sum(), step)
        rates.append(tuned.adamw.param_groups[0]["lr"])
    assert rates[:100] == rates[100:] and max(rates) == 1e-2
    assert rates[0] < rates[10] == rates[39] > rates[99] > 0
    assert [step for step in range(201) if tuned.ends_round(step)] == [100, 200]
