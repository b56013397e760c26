"""What the pages are told beside the figures: how tokens are chosen, masks in words, changed text."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

import generation_1
from course.experiments.edits import Edit, compiled
from course.learner_file import LearnerFile
from course.source import find
from inside.choosing import LISTED, describe_choices, watch_choices
from inside.code import changed_lines
from inside.masks import describe_mask, describe_masks, example_mask
from inside.source import find_in_file, find_source
from inside.trace import Tracer, places, sample
from load_weights import import_set, load_mask_decoder
from mask_decoder_1 import mask_from_tokens, tokens_from_mask
from program.questions import TINY_MODEL

TINY = TINY_MODEL
needs_masks = pytest.mark.skipif(
    not (TINY / "mask_decoder.safetensors").is_file(), reason="paligemma-tiny has no mask decoder here"
)


# ---------------------------------------------------------------------------------- choosing


def choose(logits, temperature, top_p, seed=0):
    with watch_choices(generation_1) as choices:
        generator = torch.Generator().manual_seed(seed)
        token = generation_1.sample_next_token(logits, temperature, top_p, generator)
    (told,) = describe_choices(choices, str)
    return token, told


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8), (2.0, 0.3)])
def test_a_choice_is_what_the_module_did(temperature, top_p):
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1)) * 2
    before = generation_1.sample_next_token, generation_1.keep_top_p
    token, told = choose(logits, temperature, top_p)
    assert (generation_1.sample_next_token, generation_1.keep_top_p) == before
    given = logits.double().softmax(-1)
    shaped = (logits.double() / temperature).softmax(-1)
    kept = generation_1.keep_top_p(shaped, top_p)
    assert not told["greedy"] and told["tokens"][told["drawn"]][0] == str(token)
    assert len(told["tokens"]) == LISTED and told["kept"] == int((kept > 0).sum())
    assert told["mass"] == pytest.approx(float(kept.sum()), rel=1e-3)
    for name, *shares in told["tokens"]:
        expected = [given[int(name)], shaped[int(name)], kept[int(name)] / kept.sum()]
        assert shares == pytest.approx([float(one) for one in expected], rel=1e-3)
    # The rest is all that is not listed: each column sums to one.
    assert told["rest"][0] == 50 - LISTED
    for column in (1, 2, 3):
        total = sum(row[column] for row in [*told["tokens"], told["rest"]])
        assert total == pytest.approx(1, abs=2e-3)


def test_a_token_that_is_not_among_the_likeliest_is_listed_when_it_is_drawn():
    logits = torch.zeros(500)
    logits[:LISTED] = 0.01  # nearly even: what is drawn is hardly ever among them
    token, told = choose(logits, 1.0, 1.0, seed=3)
    assert token >= LISTED and told["tokens"][-1][0] == str(token) and told["drawn"] == LISTED - 1


def test_a_greedy_choice_has_all_on_one():
    token, told = choose(torch.tensor([0.0, 3.0, 1.0]), 0, 1.0)
    assert told["greedy"] and token == 1 and told["kept"] == 1
    assert [row[3] for row in told["tokens"]] == [1, 0, 0]


def test_a_learner_s_cut_shows_as_what_it_does(monkeypatch):
    monkeypatch.setattr(generation_1, "keep_top_p", lambda probabilities, top_p: probabilities)
    _, told = choose(torch.randn(20), 1.0, 0.1)
    assert told["kept"] == 20


def test_what_ends_an_answer_leaves_the_module_as_it_was():
    def stop(count):
        raise KeyboardInterrupt

    before = generation_1.sample_next_token
    with pytest.raises(KeyboardInterrupt), watch_choices(generation_1, stop):
        generation_1.sample_next_token(torch.zeros(3), 0, 1.0, torch.Generator())
    assert generation_1.sample_next_token is before


# ------------------------------------------------------------------------------------- masks


def alpha_of(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture.getchannel("A"))


@needs_masks
def test_words_of_a_mask_are_the_codec_s_and_what_comes_back():
    module = import_set(1).masks
    vqvae = load_mask_decoder(TINY)
    mask, picture, name = example_mask("star")
    told = describe_mask(vqvae, mask, name, module)
    assert name == "star" and picture.size == tuple(told["size"])
    ys, xs = mask.nonzero().T
    assert told["box"] == [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
    with torch.inference_mode():
        assert told["words"] == tokens_from_mask(vqvae, mask, told["box"]).tolist()
        again = mask_from_tokens(vqvae, torch.tensor(told["words"]), told["box"], *mask.shape)
    assert ((alpha_of(told["overlay"]) > 0) == again.numpy()).all()
    assert told["same"] == pytest.approx(float((mask & again).sum() / (mask | again).sum()), abs=1e-3)
    assert told["same"] > told["sameAsBox"] + 0.2


@needs_masks
def test_masks_of_an_answer_and_why_there_are_none():
    module, vqvae = import_set(1).masks, load_mask_decoder(TINY)
    words = "".join(f"<seg{i:03}>" for i in range(16))
    cat, dog = ("<loc0000>" * 2 + "<loc0512>" * 2, "<loc0512>" * 2 + "<loc1023>" * 2)
    answer = f"{cat}{words} cat ; {dog}<seg001> dog"
    boxes = generation_1.parse_boxes(answer, 80, 60)
    told = describe_masks(answer, boxes, vqvae, (80, 60), module)
    (found,) = told["found"]
    assert found["words"] == list(range(16)) and found["label"] == "cat" and "example" not in told
    assert alpha_of(found["overlay"]).shape == (60, 80) and not alpha_of(found["overlay"])[31:].any()
    assert told["notes"] == ["dog has 1 <seg> tokens instead of 16, so it has a box and no mask"]
    assert "example" in describe_masks("a cat", [], vqvae, (80, 60), module)
    assert describe_masks(answer, boxes, None, (80, 60), module)["codewords"] == 0


# -------------------------------------------------------------------- changed text, and samples


def test_the_text_of_an_edit_is_traced_and_shown():
    source = find_source(import_set(1).decoder.rotate_half)
    real = next(line.strip() for line in source.lines if line.strip().startswith("return"))
    module = compiled("decoder_1", (Edit("decoder_1", "rotate_half", real, "return x"),))
    changed = find_source(module.rotate_half)
    assert changed.first_line == source.first_line and changed.lines[-1].strip() == "return x"
    assert changed_lines(module.rotate_half, changed) == [len(source.lines) - 1]
    with Tracer([module.rotate_half]) as tracer:
        module.rotate_half(torch.ones(1, 4))
    assert [made.line for made in tracer.calls[0].made][-1] == changed.first_line + len(changed.lines) - 1


def test_samples_are_numbers_of_the_value():
    x = torch.arange(2 * 100 * 30.0).view(1, 2, 100, 30)
    rows, columns = places(100, 8), places(30, 12)
    assert len(rows) <= 8 and rows[-1] == 99 and columns[-1] == 29
    assert torch.equal(sample(x), x[0, 0][list(rows)][:, list(columns)])
    assert sample(torch.tensor([257_152, 5])) == [[257_152, 5]]
    assert sample(np.zeros((4, 5, 3), np.uint8)) == [[0] * 5] * 4
    assert sample("text") is None and sample(torch.tensor(1.0)) is None
    assert list(places(3, 8)) == [0, 1, 2]


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x85", "\u2028"])
def test_lines_are_counted_as_python_counts_them(tmp_path, separator):
    """Signs at which str.splitlines() cuts, too: an editor shows them as a part of the line."""
    text = f"# one{separator}line\ndef whole():\n    return 1\n\n\ndef broken():\n    return (1\n"
    file = LearnerFile("decoder", text)
    assert file.broken["broken"].lineno == 7 and find(file.tree, "whole").lineno == 2
    (tmp_path / "file.py").write_text(text.replace("(1", "1"), "utf-8")
    found = find_in_file("broken", 6, str(tmp_path / "file.py"), 0)
    assert (found.first_line, found.lines) == (6, ["def broken():", "    return 1"])
