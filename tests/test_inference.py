"""inference.py: generation, boxes, pictures of all kinds, and the command line with its errors."""

import io
import itertools
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import weakref
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image, ImageDraw

import generation_1
import inference
from generation_1 import Answer, generate, parse_boxes, sample_next_token
from inference import InputError, draw_boxes, open_picture
from load_weights import CheckpointError, import_set, load_hf_model, load_mask_decoder
from mask_decoder_1 import MaskConfig, MaskVQVAE, mask_from_tokens
from program import questions
from program.masks import to_rle
from random_weights.small import gemma_like_tokenizer, random_checkpoint, small_config, write_config
from text_image_token_processor_1 import PaliGemmaProcessor

PROGRAM = Path(inference.__file__)
STATUS = [
    r"Device in use:  cpu",
    r"Loading model",
    r"Model loaded in \d+\.\d\d seconds",
    r"Running inference",
    r"Result!!!",
    r"\(cut off at --max-tokens 12\)",
    r"InferenceLatency: \d+\.\d\d seconds",
    r"Memory Usage: \d+\.\d\d GB",
    r"Time to first token: \d+\.\d\d seconds",
    r"Tokens per second: \d+\.\d\d \(after the first\)",
]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Three pictures of different sizes."""
    folder, paths = tmp_path_factory.mktemp("pictures"), []
    for i, size in enumerate([(40, 30), (31, 57), (64, 20)]):
        picture = Image.new("RGB", size, (40 * i, 90, 200 - 60 * i))
        ImageDraw.Draw(picture).ellipse((3, 4 + i, 15, 18), fill=(250, 30 + 100 * i, 10))
        paths.append(str(folder / f"picture {i}.png"))
        picture.save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def loaded(checkpoint):
    model, tokenizer = load_hf_model(checkpoint)
    return model, PaliGemmaProcessor(tokenizer, 9, 12)


@pytest.fixture
def run(checkpoint, capfd):
    """Runs the program in this process; returns its exit code, stdout and stderr."""

    def run(*arguments, model=checkpoint):
        code = 0
        try:
            inference.main([*(["--model", str(model)] if model else []), *map(str, arguments)])
        except SystemExit as error:
            code = error.code
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def refused(run):
    """The program ends with exit code 2 and one line that holds these words."""

    def refused(*arguments, words, **options):
        code, out, err = run(*arguments, **options)
        errors = [line for line in err.splitlines() if "error" in line]
        assert (code, out, len(errors)) == (2, "", 1), err
        assert err.endswith(errors[0] + "\n") and "Traceback" not in err
        assert errors[0].startswith("inference.py: error: ")
        for word in words:
            assert word in errors[0]
        return err

    return refused


# ----------------------------------------------------------------- choosing a token


def sample(logits, temperature=1.0, top_p=1.0, times=2000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    chosen = [sample_next_token(torch.tensor(logits), temperature, top_p, generator) for _ in range(times)]
    return np.bincount(chosen, minlength=len(logits)) / times


PROBABILITIES = np.array([0.1, 0.5, 0.05, 0.3, 0.05])
LOGITS = (np.log(PROBABILITIES) + 7).tolist()


def test_temperature_0_is_greedy():
    assert sample(LOGITS, temperature=0, times=5)[1] == 1


def test_samples_have_the_softmax_probabilities():
    assert abs(sample(LOGITS) - PROBABILITIES).max() < 0.04
    cool = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    assert abs(sample(LOGITS, temperature=0.5) - cool).max() < 0.04


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.01, [1]), (0.49, [1]), (0.51, [1, 3]), (0.79, [1, 3]), (0.81, [0, 1, 3]), (1, [0, 1, 2, 3, 4])],
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    expected = np.zeros(5)
    expected[kept] = PROBABILITIES[kept] / PROBABILITIES[kept].sum()
    sampled = sample(LOGITS, top_p=top_p)
    assert set(np.flatnonzero(sampled)) == set(kept)
    assert abs(sampled - expected).max() < 0.04


def test_seed_repeats():
    assert (sample(LOGITS, times=50, seed=3) == sample(LOGITS, times=50, seed=3)).all()
    assert (sample(LOGITS, times=50, seed=3) != sample(LOGITS, times=50, seed=4)).any()


@pytest.mark.parametrize("temperature", [1e-320, 1e-9, 100])
def test_extreme_temperatures(temperature):
    sampled = sample([300.0, -300.0, 299.0], temperature, times=300)
    assert sampled.sum() == 1
    assert (sampled[0] == 1) == (temperature < 1)


# ----------------------------------------------------------------- generation


def answer_ids(model, batch, **options):
    options = {"eos_token_id": 1, "max_tokens": 12} | options
    steps = list(generate(model, batch, **options))
    return [[token for token in row if token is not None] for row in zip(*steps, strict=True)]


def test_generation_equals_reading_all_again(loaded, pictures):
    """The cache, the mask that grows and the single logit change nothing: a plain loop says the same."""
    model, processor = loaded
    batch = processor(["detect cat"], [open_picture(pictures[0])])
    T = batch["input_ids"].shape[1]
    ids = batch["input_ids"]
    for _ in range(12):
        types = (torch.arange(ids.shape[1]) >= T).long()[None]
        with torch.no_grad():
            logits = model(ids, batch["pixel_values"], token_type_ids=types)["logits"]
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    expected = ids[0, T:].tolist()
    assert len(set(expected)) > 2  # else a stuck model would do
    assert answer_ids(model, batch, eos_token_id=-1) == [expected]


def test_the_tower_runs_once_and_only_the_last_logits_are_computed(loaded, pictures, monkeypatch):
    model, processor = loaded
    towers, heads = [], []
    with (
        model.vision_tower.register_forward_hook(lambda *_: towers.append(1)),
        model.language_model.lm_head.register_forward_hook(lambda _, __, out: heads.append(out.shape[1])),
    ):
        answer_ids(model, processor(["x"], [open_picture(pictures[0])]), eos_token_id=-1)
    assert towers == [1]
    assert heads == [1] * 12


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_batch_answers_as_its_rows_alone(loaded, pictures, temperature):
    model, processor = loaded
    prompts = ["caption en", "detect cat ; dog", "x"]
    images = [open_picture(path) for path in pictures]
    options = {"temperature": temperature, "top_p": 0.95, "seed": 5, "eos_token_id": -1}
    together = answer_ids(model, processor(prompts, images), **options)
    alone = [
        answer_ids(model, processor([prompt], [image]), **options)[0]
        for prompt, image in zip(prompts, images, strict=True)
    ]
    assert together == alone
    assert len({tuple(answer) for answer in alone}) == 3


def test_rows_end_at_their_own_eos(loaded, pictures):
    """<eos> is taken to be a token that two of the rows reach at different steps."""
    model, processor = loaded
    batch = processor(["caption en", "detect cat", "x"], [open_picture(path) for path in pictures])
    options = {"temperature": 1.5, "seed": 5}
    full = answer_ids(model, batch, eos_token_id=-1, **options)
    eos = full[1][3]
    expected = [row[: row.index(eos) + 1] if eos in row else row for row in full]
    assert answer_ids(model, batch, eos_token_id=eos, **options) == expected
    assert len({len(row) for row in expected}) > 1


def test_generation_stops_when_all_rows_have_ended(loaded, pictures):
    model, processor = loaded
    batch = processor(["x"], [open_picture(pictures[0])])
    first = answer_ids(model, batch, eos_token_id=-1)[0][0]
    assert answer_ids(model, batch, eos_token_id=first) == [[first]]
    assert len(answer_ids(model, batch, eos_token_id=-1, max_tokens=1)[0]) == 1


def test_numbers_that_overflow_are_an_error(loaded, pictures):
    model, processor = loaded
    batch = processor(["x"], [open_picture(pictures[0])])
    batch["pixel_values"] = batch["pixel_values"] * float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        answer_ids(model, batch)
    with pytest.raises(InputError, match="overflow"):
        list(inference.translated(generate(model, batch, 1, 12), model))


def test_infinite_logits_are_an_error(loaded, pictures):
    """One is enough, and it would be chosen: nothing that is drawn means anything then."""
    model, processor = loaded
    batch = processor(["x"], [open_picture(pictures[0])])

    def infinite(module, arguments, output):
        return output.index_fill(-1, torch.tensor([7]), torch.inf)

    with model.language_model.lm_head.register_forward_hook(infinite):
        for temperature in (0.0, 1.0):
            with pytest.raises(FloatingPointError):
                answer_ids(model, batch, temperature=temperature)


def test_the_advice_on_numbers_that_are_none_is_true(checkpoint):
    """Another precision is advised only where it helps."""
    half, _ = load_hf_model(checkpoint, precision="float16")
    assert "--precision bfloat16 or float32" in inference.why_not_finite(half)
    whole, _ = load_hf_model(checkpoint)
    assert "overflowed in float32" in inference.why_not_finite(whole)
    assert "--precision" not in inference.why_not_finite(whole)
    for number in (float("nan"), float("inf")):
        whole.vision_tower.vision_model.post_layernorm.bias.data[3] = number
        advice = inference.why_not_finite(whole)
        assert "damaged: vision_tower.vision_model.post_layernorm.bias" in advice and "--p" not in advice


@pytest.mark.parametrize(
    "text", ["a cat", " two  dogs ", "naïve — 日本 🐈!", "<loc0001><loc1023> a cat<seg007>", "a\nb"]
)
def test_streamed_text_is_the_text(text):
    tokenizer = gemma_like_tokenizer()
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    answer = Answer(tokenizer)
    pieces = [answer.append(token) for token in tokens]
    assert "".join(pieces) == answer.text == text
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert len([piece for piece in pieces if piece]) > 1  # not all at the end


def test_bytes_that_are_no_letter_do_not_end_the_answer():
    """A model may write any bytes; tokenizers' own DecodeStream raises an error at some of them."""
    tokenizer, generator = gemma_like_tokenizer(), np.random.default_rng(0)
    for _ in range(200):
        tokens = generator.integers(4, 400, 20).tolist()  # bytes, most of them
        answer = Answer(tokenizer)
        pieces = [answer.append(token) for token in tokens]
        assert "".join(pieces) == answer.text and answer.tokens == tokens


def test_loc_is_kept_where_the_tokenizer_calls_it_special():
    tokenizer = gemma_like_tokenizer()
    tokenizer.add_special_tokens(["<loc0001>", "<seg001>"])
    answer = Answer(tokenizer)
    for token in tokenizer.encode("<loc0001> a<seg001>", add_special_tokens=False).ids:
        answer.append(token)
    assert answer.text == "<loc0001> a<seg001>"


# ----------------------------------------------------------------- boxes


def test_parse_boxes():
    answer = "<loc0256><loc0128><loc0768><loc0640> big red cat ; <loc0000><loc0512><loc0512><loc1023> dog"
    assert parse_boxes(answer, 200, 100) == [
        {"label": "big red cat", "box": [25.0, 25.0, 125.0, 75.0]},
        {"label": "dog", "box": [100.0, 0.0, 199.8, 50.0]},
    ]


def test_parse_segments():
    answer = "<loc0000><loc0000><loc1023><loc0512>" + "".join(f"<seg{i:03d}>" for i in range(16)) + " a hat"
    assert parse_boxes(answer, 1024, 1024) == [{"label": "a hat", "box": [0.0, 0.0, 512.0, 1023.0]}]


@pytest.mark.parametrize("answer", ["", "a cat", "<loc0001><loc0002><loc0003> cat", "<seg001> x", "<loc12>"])
def test_parse_nothing(answer):
    assert parse_boxes(answer, 10, 10) == []


def test_parse_passes_over_what_is_incomplete():
    answer = "<loc0001><loc0002> cat ; <loc0512><loc0512><loc0000><loc0000> dog ; <loc0001>"
    assert parse_boxes(answer, 64, 32) == [{"label": "dog", "box": [0.0, 0.0, 32.0, 16.0]}]


def test_draw_boxes():
    picture = Image.new("RGB", (300, 200), "black")
    boxes = [
        {"label": "big cat", "box": [50, 60, 150, 160]},
        {"label": "big cat", "box": [170, 60, 190, 160]},
        {"label": "dog", "box": [200, 100, 280, 190]},
    ]
    drawn = draw_boxes(picture, boxes)
    assert picture.getextrema() == ((0, 0),) * 3  # the original is as it was
    left, left2, dog = (drawn.getpixel(place) for place in [(50, 120), (170, 120), (200, 150)])
    assert left == left2 != dog != (0, 0, 0) != left
    assert drawn.getpixel((100, 160)) == left and drawn.getpixel((100, 120)) == (0, 0, 0)
    label = np.array(drawn.crop((50, 40, 100, 59)))
    assert (label > 200).all(axis=2).any()  # white letters above the box


@pytest.mark.parametrize("size", [(1, 1), (9, 9), (3000, 20)])
def test_draw_boxes_at_the_edges(size):
    boxes = [{"label": "a long label " * 3, "box": [0, 0, *size]}, {"label": "", "box": [*size, *size]}]
    assert draw_boxes(Image.new("RGB", size), boxes).size == size


def test_lines_are_thick_in_proportion():
    def thickness(side):
        box = {"label": "", "box": [side / 4, side / 4, side, side]}
        drawn = draw_boxes(Image.new("RGB", (side, side)), [box])
        return (np.array(drawn)[side * 3 // 4].sum(axis=1) > 0).sum()

    assert thickness(3000) > 5 * thickness(300) > 0


# ----------------------------------------------------------------- pictures


def saved(picture, path, **options):
    picture.save(path, **options)
    return open_picture(str(path))


def near(picture, *expected, tolerance=2):
    """The colors from left to right in the middle row, one each."""
    assert picture.mode == "RGB"
    width, height = picture.size
    for i, color in enumerate(expected):
        found = picture.getpixel((int(width * (i + 0.5) / len(expected)), height // 2))
        assert max(abs(a - b) for a, b in zip(found, color, strict=True)) <= tolerance, (found, color)


@pytest.fixture
def halves():
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (40, 20), "red")
    picture.paste("blue", (20, 0, 40, 20))
    return picture


RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def test_grey_palette_and_cmyk(halves, tmp_path):
    near(saved(halves, tmp_path / "rgb.png"), RED, BLUE)
    near(saved(halves.convert("L"), tmp_path / "l.png"), (76,) * 3, (29,) * 3)
    near(saved(halves.convert("P"), tmp_path / "p.png"), RED, BLUE)
    near(saved(halves.convert("1", dither=0), tmp_path / "1.png"), (0,) * 3)
    near(saved(halves.convert("CMYK"), tmp_path / "cmyk.jpg", quality=95), RED, BLUE, tolerance=12)


def test_alpha_is_white(halves, tmp_path):
    halves.putalpha(Image.new("L", (20, 20), 255).crop((0, 0, 40, 20)))  # the right half transparent
    near(saved(halves, tmp_path / "rgba.png"), RED, WHITE)
    near(saved(halves, tmp_path / "rgba.webp", lossless=True), RED, WHITE)
    near(saved(halves.convert("LA"), tmp_path / "la.png"), (76,) * 3, WHITE)
    halves.putalpha(128)
    near(saved(halves, tmp_path / "half.png"), (255, 127, 127), (127, 127, 255))


def test_palette_with_a_transparent_color(halves, tmp_path):
    palette = halves.quantize(2)
    blue = palette.getpixel((30, 10))
    near(saved(palette, tmp_path / "p.png", transparency=blue), RED, WHITE)
    near(saved(palette, tmp_path / "p.gif", transparency=blue), RED, WHITE)
    near(saved(halves, tmp_path / "rgb.png", transparency=(0, 0, 255)), RED, WHITE)


@pytest.mark.parametrize("name", ["grey.png", "grey.tiff", "grey.pgm"])
def test_16_bits_are_scaled(name, tmp_path):
    values = np.repeat(np.array([[0, 257 * 11 - 20, 30_000, 65_535]], dtype=np.uint16), 8, axis=0)
    picture = saved(Image.fromarray(values), tmp_path / name)
    near(picture, (0,) * 3, (11,) * 3, (117,) * 3, (255,) * 3, tolerance=0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation, halves, tmp_path):
    """Written as a camera held that way would, every one comes out as it was seen."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose: turns it back
    stored = halves.transpose(undo[orientation]) if orientation > 1 else halves
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = saved(stored, tmp_path / "turned.jpg", exif=exif, quality=95)
    assert picture.size == (40, 20)
    near(picture, RED, BLUE, tolerance=12)


def test_first_frame_of_an_animation(halves, tmp_path):
    frames = [halves, Image.new("RGB", (40, 20), "green")]
    for name in ("a.gif", "a.png", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        halves.save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100, **options)
        near(open_picture(str(tmp_path / name)), RED, BLUE)


def bomb(width, height):
    """A PNG of a few bytes that says it is of this size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


BAD_PICTURES = {
    "missing": (None, "No such file"),
    "folder": (Path.mkdir, "directory"),
    "no picture": (b"hello", "not a picture"),
    "empty": (b"", "not a picture"),
    "truncated": (lambda whole: whole[: len(whole) // 2], "cannot read"),
    "damaged": (lambda whole: whole[:40] + b"\0" * 20 + whole[60:], "picture"),
    "bomb": (bomb(100_000, 100_000), "pixels"),
    "smaller bomb": (bomb(10_000, 10_000), "pixels"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_bad_pictures(case, pictures, tmp_path, refused):
    content, word = BAD_PICTURES[case]
    path = tmp_path / "bad.png"
    if content is Path.mkdir:
        path.mkdir()
    elif content is not None:
        whole = Path(pictures[1]).read_bytes()
        path.write_bytes(content if isinstance(content, bytes) else content(whole))
    err = refused("--image", path, words=["bad.png", word])
    assert "Loading model" not in err


# ----------------------------------------------------------------- the command line


def test_status_on_stderr_and_answer_on_stdout(run, loaded, pictures):
    model, processor = loaded
    code, out, err = run("--image", pictures[0], "--prompt", "detect cat", "--max-tokens", 12)
    assert code == 0
    tokens = answer_ids(model, processor(["detect cat"], [open_picture(pictures[0])]))[0]
    answer = Answer(processor.tokenizer)
    assert out == "".join(answer.append(token) for token in tokens) + "\n"
    assert len(out) > 8
    for line, pattern in zip(err.splitlines(), STATUS, strict=True):
        assert re.fullmatch(pattern, line), line


def test_result_comes_before_the_text(checkpoint, pictures):
    """With both streams in one place, as on a terminal."""
    command = [sys.executable, PROGRAM, "--model", checkpoint, "--image", pictures[0], "--prompt", "x "]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    lines = result.stdout.decode().split("\n")
    assert lines.index("Result!!!") == 4
    assert lines[5].startswith("x ") and "InferenceLatency" in "".join(lines[6:])


def fixed_answers(monkeypatch, *texts):
    """Lets the model answer this, one text for each picture, and then <eos>."""
    tokenizer = gemma_like_tokenizer()
    rows = [[*tokenizer.encode(text, add_special_tokens=False).ids, 1] for text in texts]
    steps = [list(step) for step in itertools.zip_longest(*rows)]
    monkeypatch.setattr(generation_1, "generate", lambda *_: iter(steps))


def test_eos_is_dropped_and_loc_kept(run, pictures, monkeypatch):
    text = "<loc0001><loc0002><loc0003><loc0004> big cat"
    fixed_answers(monkeypatch, text)
    assert run("--image", pictures[0])[1] == text + "\n"


def test_sentence_to_be_continued(run, pictures, monkeypatch):
    fixed_answers(monkeypatch, "the white house")
    command = ["--image", pictures[0], "--prompt", "this building is "]
    assert run(*command)[1] == "this building is the white house\n"
    assert json.loads(run(*command, "--json")[1])["answer"] == "the white house"
    fixed_answers(monkeypatch, "red", "the\nwhite house")
    assert run(*command, pictures[1], "--image", pictures[1], "--prompt", "a house is ")[0] == 2
    _, out, _ = run("--image", *pictures[:2], "--prompt", "caption en", "this building is ")
    assert out == f"{pictures[0]}: red\n{pictures[1]}: this building is the white house\n"


def test_empty_prompt_and_empty_answer(run, pictures, monkeypatch):
    assert run("--image", pictures[0], "--prompt", "")[0] == 0
    fixed_answers(monkeypatch, "")
    code, out, err = run("--image", pictures[0], "--prompt", "")
    assert (code, out) == (0, "\n")
    assert "Tokens per second" not in err  # there was only <eos>


def test_several_pictures_answer_as_alone(run, pictures):
    options = ["--prompt", "detect cat", "--max-tokens", 8]
    _, out, _ = run("--image", *pictures, *options)
    alone = [run("--image", path, *options)[1] for path in pictures]
    assert out == "".join(f"{path}: {text}" for path, text in zip(pictures, alone, strict=True))
    assert len(set(alone)) == 3


def test_prompt_for_each_picture(run, pictures):
    prompts = ["a", "detect cat", "x"]
    _, out, _ = run("--image", *pictures, "--prompt", *prompts, "--max-tokens", 8)
    alone = [
        f"{path}: {run('--image', path, '--prompt', prompt, '--max-tokens', 8)[1]}"
        for path, prompt in zip(pictures, prompts, strict=True)
    ]
    assert out == "".join(alone)


@pytest.fixture
def many(tmp_path):
    """Twenty pictures, no two alike."""
    paths = []
    for i in range(20):
        picture = Image.effect_noise((30 + i, 50 - i), 80).convert("RGB")
        paths.append(str(tmp_path / f"{i:02}.png"))
        picture.save(paths[-1])
    return paths


def test_many_pictures_are_opened_when_they_are_needed(run, many, monkeypatch):
    """Never more at once than are answered at once, in order, and each with its own answer."""
    open_now, most, answered = weakref.WeakSet(), [], []

    class Picture(Image.Image):
        __hash__ = object.__hash__

    def opened(path):
        picture = open_picture(path)
        picture.__class__ = Picture
        open_now.add(picture)
        most.append(len(open_now))
        return picture

    def written(*arguments):
        answered.append(len(most))
        write_answer(*arguments)

    write_answer, load, opened_first = inference.write_answer, inference.load, []
    with monkeypatch.context() as patch:
        patch.setattr(inference, "open_picture", opened)
        patch.setattr(inference, "write_answer", written)
        patch.setattr(inference, "load", lambda *args: opened_first.append(len(most)) or load(*args))
        code, out, err = run("--image", *many, "--prompt", "detect cat", "--max-tokens", 4)
    assert code == 0 and [line.split(": ")[0] for line in out.splitlines()] == many
    assert len(most) == 20 and max(most) <= inference.MOST_ROWS + 1  # the last one is kept for the next row
    assert opened_first == [0]
    assert answered[0] == inference.MOST_ROWS  # the first answers come before the rest
    alone = [
        run("--image", path, "--prompt", "detect cat", "--max-tokens", 4)[1] for path in (many[0], many[-1])
    ]
    assert [line.split(": ", 1)[1] + "\n" for line in (out.splitlines()[0], out.splitlines()[-1])] == alone
    assert len(set(line.split(": ", 1)[1] for line in out.splitlines())) >= 3


def test_batches_of_a_size_that_fits(run, many, loaded, monkeypatch):
    """With little memory free, the same answers come in smaller batches."""
    sizes, original = [], generation_1.generate

    def generate(model, batch, *arguments):
        sizes.append(len(batch["input_ids"]))
        return original(model, batch, *arguments)

    monkeypatch.setattr(generation_1, "generate", generate)
    command = ["--image", *many, "--prompt", "detect cat", "--max-tokens", 3]
    plenty = run(*command)[1]
    model, processor = loaded
    T = processor(["detect cat"], [open_picture(many[0])])["input_ids"].shape[1]
    monkeypatch.setattr(inference, "free_memory", lambda device: 7 * inference.row_memory(model, T))
    assert run(*command)[1] == plenty
    assert sizes == [8, 8, 4, 3, 3, 3, 3, 3, 3, 2]


@pytest.mark.parametrize("bad", [0, 15])
def test_a_damaged_picture_among_many(bad, run, many):
    """One that only shows when it is read: the others are answered, and the end says so."""
    whole = Path(many[bad]).read_bytes()
    Path(many[bad]).write_bytes(whole[: len(whole) // 2])
    code, out, err = run("--image", *many, "--prompt", "x", "--max-tokens", 2, "--json")
    assert code == 2
    assert [json.loads(line)["image"] for line in out.splitlines()] == many[:bad] + many[bad + 1 :]
    last = err.splitlines()[-1]
    assert last.startswith(f"inference.py: error: cannot read picture {many[bad]}: ")
    assert last.endswith("(1 of 20 pictures had to be left out)")


def test_nothing_but_damaged_pictures(refused, many):
    for path in many[:2]:
        Path(path).write_bytes(Path(path).read_bytes()[:-100])
    refused("--image", *many[:2], "--prompt", "x", words=["00.png", "(2 of 2 pictures had to be left out)"])


@pytest.mark.parametrize("bad", [0, 15])
def test_what_is_no_picture_among_many_is_found_at_once(bad, refused, many):
    Path(many[bad]).write_text("hello")
    err = refused("--image", *many, words=[f"{bad:02}.png", "not a picture"])
    assert "Loading model" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_a_name_cannot_add_a_line_or_steer_the_terminal(run, pictures, tmp_path):
    path = tmp_path / "a\nb\x1b[31m.png"
    path.write_bytes(Path(pictures[0]).read_bytes())
    code, out, err = run("--image", path, pictures[1], "--prompt", "x", "--max-tokens", 2)
    first, second = out.splitlines()
    assert first.startswith(f"{tmp_path}/a\\nb\\x1b[31m.png: ") and second.startswith(pictures[1])
    assert code == 0 and "\x1b" not in out + err
    code, _, err = run(
        "--image", pictures[0], "--prompt", "x", "--max-tokens", 2, "--draw", path, "--overwrite"
    )
    assert code == 0 and "\x1b" not in err and "a\\nb" in err


def test_patterns_are_expanded(run, many, tmp_path):
    """As most shells do it, and those of Windows do not."""
    (tmp_path / "0[1].png").write_bytes(Path(many[5]).read_bytes())
    _, out, _ = run("--image", tmp_path / "1*.png", tmp_path / "0[1].png", "--prompt", "x", "--max-tokens", 1)
    assert [line.split(": ")[0] for line in out.splitlines()] == [*many[10:], str(tmp_path / "0[1].png")]
    code, _, err = run("--image", tmp_path / "*.jpg")
    assert code == 2 and "*.jpg: No such file" in err


def test_a_prompt_that_is_too_long(refused, run, pictures, checkpoint, monkeypatch):
    image = ("--image", pictures[0])
    words = ["the prompt of 40,000 letters is too long", " tokens besides the picture's 9", "at most 8,192"]
    refused(*image, "--prompt", "no " * 13_333 + "n", words=words)
    model, _ = load_hf_model(checkpoint)
    monkeypatch.setattr(inference, "free_memory", lambda device: inference.row_memory(model, 300))
    err = refused(*image, "--prompt", "x" * 400, words=["of 400 letters", "402 tokens", "GB of memory"])
    fits = int(re.search(r"at most (\d+) fit", err)[1])
    assert 250 < fits <= 300
    assert run(*image, "--prompt", "x" * (fits - 9 - 2), "--max-tokens", 1)[0] == 0


def test_the_longest_prompt_is_found_by_its_tokens(loaded, monkeypatch):
    """Letters outside the vocabulary are several tokens each."""
    model, processor = loaded
    monkeypatch.setattr(inference, "LONGEST_CONTEXT", 100)
    prompts = ["x" * 80, "\N{SNOWMAN}" * 60]  # 3 bytes
    assert inference.rows_that_fit(model, processor.tokenizer, prompts[:1], "cpu") >= 1
    for asked in (prompts, prompts[::-1]):
        with pytest.raises(InputError, match="of 60 letters is too long: 182 tokens"):
            inference.rows_that_fit(model, processor.tokenizer, asked, "cpu")


def test_memory_of_a_row_is_about_what_it_takes(tmp_path):
    """The peak of a process that reads one long prompt, beside one that reads a short one."""
    config = small_config(text={"num_attention_heads": 8, "head_dim": 16})
    folder, picture = random_checkpoint(tmp_path / "model", config), tmp_path / "x.png"
    Image.new("RGB", (9, 9)).save(picture)
    peaks = {}
    for letters in (10, 3000):
        command = [sys.executable, PROGRAM, "--model", folder, "--image", picture, "--max-tokens", "1"]
        result = subprocess.run([*command, "--prompt", "x" * letters], capture_output=True, text=True)
        peaks[letters] = float(re.search(r"Memory Usage: ([\d.]+) GB", result.stderr)[1]) * 1e9
    model, _ = load_hf_model(folder)
    need = inference.row_memory(model, 3011)
    assert 0.5 * need < peaks[3000] - peaks[10] < 1.5 * need


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
def test_json_with_a_name_that_is_not_utf8(checkpoint, pictures, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xe9t\xe9.png"
    shutil.copy(pictures[0], path)
    command = [sys.executable, PROGRAM, "--model", checkpoint, "--image", path, "--prompt", "é"]
    result = subprocess.run([*command, "--json", "--max-tokens", "1"], capture_output=True, check=True)
    entry = json.loads(result.stdout.decode("utf-8"))
    assert os.fsencode(entry["image"]) == path and entry["prompt"] == "é"
    plain = subprocess.run(
        [*command, "--image", path, "--max-tokens", "1"], capture_output=True, check=True
    ).stdout
    assert plain.startswith(path + b": ")


def test_json(run, pictures, monkeypatch):
    box = "<loc0512><loc0256><loc1023><loc0512> ein Kätzchen"
    fixed_answers(monkeypatch, box, "cat")
    code, out, err = run("--image", *pictures[:2], "--prompt", "detect é", "y", "--json")
    first, second = map(json.loads, out.splitlines())
    assert code == 0 and "Result!!!" in err
    assert first.pop("seconds") >= 0 and second.pop("seconds") >= 0
    assert first == {
        "image": pictures[0],
        "prompt": "detect é",
        "answer": box,
        "tokens": len(gemma_like_tokenizer().encode(box, add_special_tokens=False).ids),
        "boxes": [{"label": "ein Kätzchen", "box": [10.0, 15.0, 20.0, 30.0]}],
    }
    assert second == {"image": pictures[1], "prompt": "y", "answer": "cat", "tokens": 1}


def test_json_has_a_list_of_boxes_wherever_boxes_are_asked_for(run, pictures, monkeypatch):
    fixed_answers(monkeypatch, "", "", "", "")
    prompts = ["detect cat", "Segment cat ; dog", "caption en", "detection"]
    code, out, _ = run("--image", pictures[0], "--prompt", *prompts, "--json")
    entries = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [entry.get("boxes") for entry in entries] == [[], [], None, None]


def test_sampling_options(run, pictures):
    def answer(*options):
        code, out, _ = run("--image", pictures[0], "--max-tokens", 8, *options)
        assert code == 0
        return out

    warm = ("--temperature", 1.5)
    assert answer(*warm, "--seed", 1) == answer(*warm, "--seed", 1) != answer(*warm, "--seed", 2)
    assert answer(*warm) != answer(*warm)  # another seed each time
    assert answer(*warm, "--top-p", 1e-6) == answer() == answer("--seed", 1)
    assert answer("--top-p", 1, "--seed", 1) != answer()  # top-p alone means: do sample


def test_precision(run, pictures, monkeypatch):
    used = []
    original = inference.load_model

    def spy(*arguments):
        model, tokenizer = original(*arguments)
        used.append(model.language_model.lm_head.weight.dtype)
        return model, tokenizer

    monkeypatch.setattr(inference, "load_model", spy)
    for precision in ("auto", "float32", "bfloat16"):
        assert run("--image", pictures[0], "--max-tokens", 2, "--precision", precision)[0] == 0
    assert used == [torch.float32, torch.float32, torch.bfloat16]


def test_memory_usage_is_the_peak_of_the_process():
    """In bytes: a hundred million bytes touched and given back are still in it."""
    program = (
        "import inference, psutil\n"
        "start = psutil.Process().memory_info().rss\n"
        "block = b'x' * 10**8\n"
        "del block\n"
        "print(inference.peak_memory() - start)"
    )
    command = [sys.executable, "-c", program]
    filler = np.ones(10**8)  # what started it does not count
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROGRAM.parent)
    assert filler.sum() and 0.95e8 < int(result.stdout) < 1.6e8


# ----------------------------------------------------------------- defaults


@pytest.fixture
def elsewhere(tmp_path, checkpoint, pictures, monkeypatch):
    """The program's own folders, of which only the tiny model and a picture are there."""
    monkeypatch.setattr(questions, "FULL_MODEL", tmp_path / "paligemma-3b-pt-224")
    monkeypatch.setattr(questions, "TINY_MODEL", tmp_path / "paligemma-tiny")
    monkeypatch.setattr(questions, "SAMPLES", tmp_path / "images")
    shutil.copytree(checkpoint, tmp_path / "paligemma-tiny")
    (tmp_path / "paligemma-3b-pt-224").mkdir()
    (tmp_path / "paligemma-3b-pt-224" / "GET_THE_WEIGHTS.md").write_text("")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "README.md").write_text("")
    shutil.copy(pictures[1], tmp_path / "images" / "a.png")
    shutil.copy(pictures[2], tmp_path / "images" / "b.png")
    return tmp_path


def test_without_arguments_the_tiny_model(run, elsewhere):
    code, out, err = run(model=None)
    first, second, *_ = err.splitlines()
    assert code == 0 and out.strip()
    for word in ("paligemma-tiny", "paligemma-3b-pt-224 holds no weights", "images/a.png", "caption en"):
        assert word in first
    assert second == "Device in use:  cpu"


def test_without_arguments_the_3b_model_if_it_is_there(run, elsewhere):
    random_checkpoint(elsewhere / "paligemma-3b-pt-224", seed=7, shards=2)
    shutil.rmtree(elsewhere / "paligemma-tiny")
    code, _, err = run(model=None)
    assert code == 0
    assert "paligemma-3b-pt-224, since its weights are there" in err.splitlines()[0]


def test_first_line_says_only_what_was_not_given(run, elsewhere, pictures):
    _, _, err = run("--image", pictures[0], "--max-tokens", 2, model=None)
    assert "paligemma-tiny" in err.splitlines()[0] and "images" not in err.splitlines()[0]
    _, _, err = run("--image", pictures[0], "--prompt", "x", "--max-tokens", 2)
    assert err.startswith("Device in use")


def test_no_sample_picture(refused, elsewhere):
    shutil.rmtree(elsewhere / "images")
    refused(words=["images", "--image"])


# ----------------------------------------------------------------- --draw


BOXES = "<loc0256><loc0256><loc0768><loc0768> cat ; <loc0000><loc0000><loc0256><loc1023> big dog"


@pytest.mark.parametrize("name", ["out.png", "out.JPG", "out.jpeg", "out.webp", "out.bmp", "out.tiff"])
def test_draw(name, run, pictures, tmp_path, monkeypatch):
    fixed_answers(monkeypatch, BOXES)
    before = Path(pictures[0]).read_bytes()
    code, out, err = run("--image", pictures[0], "--prompt", "detect cat", "--draw", tmp_path / name)
    assert (code, out) == (0, BOXES + "\n")
    assert f"{tmp_path / name}: 2" in err
    drawn = Image.open(tmp_path / name).convert("RGB")
    original = Image.open(pictures[0])
    assert drawn.size == original.size
    assert np.abs(np.array(drawn).astype(int) - np.array(original)).max() > 100
    assert Path(pictures[0]).read_bytes() == before


def test_draw_nothing(run, pictures, tmp_path, monkeypatch):
    fixed_answers(monkeypatch, "no cat")
    code, _, err = run("--image", pictures[0], "--draw", tmp_path / "out.png")
    assert code == 0 and "out.png: 0 (an answer has boxes where" in err
    assert (np.array(Image.open(tmp_path / "out.png")) == np.array(Image.open(pictures[0]))).all()


def test_draw_never_overwrites_the_input(refused, run, pictures, tmp_path, monkeypatch):
    picture = tmp_path / "picture.png"
    shutil.copy(pictures[0], picture)
    before = picture.read_bytes()
    os.link(picture, tmp_path / "hard.png")
    links = ["hard.png"]
    try:
        (tmp_path / "link.png").symlink_to(picture)
        links.append("link.png")
    except OSError:
        if sys.platform != "win32":  # where only some users may make symbolic links
            raise
    for name in ("picture.png", *links, "../" + tmp_path.name + "/picture.png"):
        err = refused("--image", picture, "--draw", tmp_path / name, words=["--draw", "input"])
        assert "Loading model" not in err
    for name in links:
        refused("--image", tmp_path / name, "--draw", picture, words=["--draw", "input"])
    assert picture.read_bytes() == before
    fixed_answers(monkeypatch, BOXES)
    for _ in range(2):  # an earlier drawing it may
        assert run("--image", picture, "--draw", tmp_path / "out.png")[0] == 0


@pytest.mark.parametrize(
    ("out", "word"),
    [
        ("out.xyz", ".png"),
        ("out", ".png"),
        ("out.pdf", ".png"),
        ("none/out.png", "folder"),
        ("folder.png", "folder"),
        ("picture.txt/out.png", "folder"),
    ],
)
def test_draw_where_it_cannot(out, word, refused, pictures, tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "picture.txt").write_text("")
    err = refused("--image", pictures[0], "--draw", tmp_path / out, words=["--draw", word])
    assert "Loading model" not in err


def test_draw_without_permission(refused, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    refused("--image", pictures[0], "--draw", tmp_path / "out.png", words=["--draw", "permission"])


def test_draw_that_fails_at_the_end(run, pictures, tmp_path, monkeypatch):
    fixed_answers(monkeypatch, BOXES)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    code, out, err = run("--image", pictures[0], "--draw", tmp_path / "out.png")
    assert (code, out) == (2, BOXES + "\n")
    assert err.splitlines()[-1].endswith("No space left on device")


def test_draw_keeps_a_picture_that_it_did_not_make(refused, run, pictures, tmp_path, monkeypatch):
    out = tmp_path / "holiday.png"
    shutil.copy(pictures[1], out)
    before = out.read_bytes()
    err = refused("--image", pictures[0], "--draw", out, words=["--draw", "holiday.png", "--overwrite"])
    assert "Loading model" not in err and out.read_bytes() == before
    fixed_answers(monkeypatch, BOXES)
    for options in (["--overwrite"], []):  # afterwards it is this program's own
        assert run("--image", pictures[0], "--draw", out, *options)[0] == 0
        assert out.read_bytes() != before


def test_draw_on_a_full_disk_keeps_the_older_drawing(run, pictures, tmp_path, monkeypatch):
    fixed_answers(monkeypatch, BOXES)
    out = tmp_path / "out.png"
    assert run("--image", pictures[0], "--draw", out)[0] == 0
    before = out.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run("--image", pictures[0], "--draw", out)
    assert code == 2 and err.endswith("No space left on device\n")
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


def test_draw_knows_the_limits_of_a_format(refused, tmp_path):
    wide = tmp_path / "wide.png"
    Image.new("RGB", (16_384, 2)).save(wide)
    err = refused("--image", wide, "--draw", tmp_path / "x.webp", words=["16,383", "16,384", ".png"])
    assert "Loading model" not in err


def test_draw_several(refused, pictures, tmp_path):
    refused("--image", *pictures, "--draw", tmp_path / "out.png", words=["--draw", "3"])


# ----------------------------------------------------------------- masks


SEGS = "".join(f"<seg{i:03d}>" for i in range(7, 23))
SEGMENTS = BOXES.replace(" cat", f"{SEGS} cat").replace(" big", f"{SEGS} big")


@pytest.fixture
def with_masks(checkpoint, tmp_path):
    """A checkpoint that has a mask decoder of random weights, as an .npz file."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "with masks"))
    torch.manual_seed(0)
    vqvae = MaskVQVAE(MaskConfig(embedding_dim=6, hidden_dim=2)).requires_grad_(False)
    vqvae.decoder[12].bias -= vqvae.decode(torch.arange(7, 23)[None]).median()  # half of it is inside
    np.savez(folder / "vae-oid.npz", **{name: tensor.numpy() for name, tensor in vqvae.state_dict().items()})
    return folder


def expected_masks(folder, size) -> list[np.ndarray]:
    width, height = size
    corners = [(0.25, 0.25, 0.75, 0.75), (0, 0, 1023 / 1024, 0.25)]
    boxes = [(x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in corners]
    vqvae = load_mask_decoder(folder)
    tokens = torch.arange(7, 23)
    return [mask_from_tokens(vqvae, tokens, box, height, width).numpy() for box in boxes]


def test_segment_draws_masks(run, pictures, with_masks, tmp_path, monkeypatch):
    fixed_answers(monkeypatch, SEGMENTS)
    arguments = ["--image", pictures[0], "--prompt", "segment cat ; dog", "--draw", tmp_path / "out.png"]
    code, out, err = run(*arguments, "--mask", tmp_path / "mask.png", model=with_masks)
    assert (code, out) == (0, SEGMENTS + "\n")
    assert "out.png: 2" in err and "mask.png: 2" in err and "Note" not in err
    original = np.array(Image.open(pictures[0]).convert("RGB")).astype(int)
    drawn = np.array(Image.open(tmp_path / "out.png")).astype(int)
    levels = Image.open(tmp_path / "mask.png")
    assert levels.mode == "L" and levels.size == Image.open(pictures[0]).size
    cat, dog = expected_masks(with_masks, levels.size)
    assert 0.1 < cat.mean() / 0.25 < 0.9
    assert np.array_equal(np.array(levels), np.where(dog, 255, np.where(cat, 127, 0)))
    boxes = draw_boxes(Image.open(pictures[0]).convert("RGB"), parse_boxes(SEGMENTS, *levels.size))
    tinted = (drawn != np.array(boxes)).any(axis=2)
    assert tinted.any() and not (tinted & ~(cat | dog)).any()  # beside the boxes, only masks are new
    assert drawn.shape == original.shape


def test_more_masks_than_levels_of_gray_are_one_line_and_the_drawing_is_made(
    run, pictures, with_masks, tmp_path, monkeypatch
):
    masks = [torch.ones(1, 1, dtype=torch.bool)] * 256
    monkeypatch.setattr(inference, "find_masks", lambda *_: (masks, []))
    monkeypatch.setattr(inference, "draw_masks", lambda picture, *_: picture)
    fixed_answers(monkeypatch, " ; ".join(["<loc0256><loc0256><loc0768><loc0768> cat"] * 256))
    outputs = ["--draw", tmp_path / "out.png", "--mask", tmp_path / "mask.png"]
    code, out, err = run("--image", pictures[0], "--prompt", "segment cat", *outputs, model=with_masks)
    assert code == 2 and out.count("cat") == 256
    assert "error: --mask: there are 256 masks" in err.splitlines()[-1]
    assert (tmp_path / "out.png").exists() and not (tmp_path / "mask.png").exists()


def test_masks_in_json(run, pictures, with_masks, monkeypatch):
    fixed_answers(monkeypatch, SEGMENTS)
    code, out, err = run("--image", pictures[0], "--prompt", "segment cat", "--json", model=with_masks)
    assert code == 0
    size = Image.open(pictures[0]).size
    for thing, mask in zip(json.loads(out)["boxes"], expected_masks(with_masks, size), strict=True):
        assert list(thing) == ["label", "box", "mask"]
        assert thing["mask"] == to_rle(torch.from_numpy(mask))


def test_a_mask_decoder_that_was_only_tried_is_not_needed_for_a_caption(
    run, pictures, with_masks, monkeypatch
):
    """The learner's may be wrong: it is loaded once an answer holds a shape."""

    def wrong(*_):
        raise CheckpointError("your model and the checkpoint do not fit")

    monkeypatch.setattr(inference, "set_of", lambda args: import_set(1))
    monkeypatch.setattr(inference, "load_mask_decoder", wrong)
    question = ["--image", pictures[0], "--set", "tried", "--prompt", "caption en"]
    fixed_answers(monkeypatch, "a cat")
    code, out, _ = run(*question, model=with_masks)
    assert (code, out) == (0, "a cat\n")
    fixed_answers(monkeypatch, SEGMENTS)
    code, _, err = run(*question, model=with_masks)
    assert code == 2 and err.endswith("error: your model and the checkpoint do not fit\n")


def test_fewer_than_16_words_are_a_box_and_a_note(run, pictures, with_masks, tmp_path, monkeypatch):
    fixed_answers(monkeypatch, "<loc0256><loc0256><loc0768><loc0768><seg001><seg002> cat")
    arguments = ["--image", pictures[0], "--prompt", "segment cat", "--json", "--mask", tmp_path / "mask.png"]
    code, out, err = run(*arguments, model=with_masks)
    assert code == 0 and "Note: cat has 2 <seg> tokens instead of 16" in err
    [thing] = json.loads(out)["boxes"]
    assert list(thing) == ["label", "box"]
    assert "mask.png: 0 (an answer has masks where" in err
    assert not np.array(Image.open(tmp_path / "mask.png")).any()


def test_without_a_mask_decoder_there_are_boxes_and_a_note(run, pictures, tmp_path, monkeypatch):
    fixed_answers(monkeypatch, SEGMENTS)
    code, out, err = run("--image", pictures[0], "--prompt", "segment cat", "--draw", tmp_path / "out.png")
    assert (code, out) == (0, SEGMENTS + "\n")
    assert err.count("Note: the checkpoint has no mask decoder") == 1 and "GET_THE_WEIGHTS.md" in err
    fixed_answers(monkeypatch, BOXES)
    assert "Note" not in run("--image", pictures[0], "--prompt", "detect cat")[2]


@pytest.mark.parametrize(
    ("out", "word"), [("mask.jpg", ".png"), ("mask", ".png"), ("none/mask.png", "folder")]
)
def test_mask_where_it_cannot(out, word, refused, pictures, tmp_path):
    err = refused("--image", pictures[0], "--mask", tmp_path / out, words=["--mask", word])
    assert "Loading model" not in err


def test_mask_neither_over_the_input_nor_over_the_drawing(refused, pictures, tmp_path):
    picture = tmp_path / "picture.png"
    shutil.copy(pictures[0], picture)
    refused("--image", picture, "--mask", picture, words=["--mask", "input"])
    for name in ("out.png", "Out.PNG"):  # one file on macOS and Windows
        both = ["--draw", tmp_path / "out.png", "--mask", tmp_path / name]
        refused("--image", picture, *both, words=["--draw and --mask"])
    refused("--image", *pictures, "--mask", tmp_path / "out.png", words=["--mask", "3"])


def test_a_bad_mask_decoder_is_one_line_before_the_model_is_loaded(refused, pictures, with_masks):
    path = with_masks / "vae-oid.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    err = refused("--image", pictures[0], model=with_masks, words=["vae-oid.npz", "damaged or not complete"])
    assert "Loading model" not in err
    arrays = dict(np.load(io.BytesIO(whole)))
    del arrays["decoder.4.weight"]
    np.savez(path, **arrays)
    refused("--image", pictures[0], model=with_masks, words=["vae-oid.npz", "has no decoder.4.weight"])


# ----------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--temperature", "-1"], ["--temperature", "-1"]),
        (["--temperature", "nan"], ["--temperature", "nan"]),
        (["--temperature", "inf"], ["--temperature", "inf"]),
        (["--temperature", "warm"], ["--temperature", "warm", "float"]),
        (["--top-p", "0"], ["--top-p", "0"]),
        (["--top-p", "1.1"], ["--top-p", "1.1"]),
        (["--top-p=-0.5"], ["--top-p", "-0.5"]),
        (["--max-tokens", "0"], ["--max-tokens", "0"]),
        (["--max-tokens", "1.5"], ["--max-tokens", "1.5", "int"]),
        (["--seed", "-1"], ["--seed", "-1"]),
        (["--seed", str(2**64)], ["--seed"]),
        (["--set", "2"], ["--set", "2"]),
        (["--device", "tpu"], ["--device", "tpu"]),
        (["--precision", "int4"], ["--precision", "int4"]),
        (["--prompt", "what is <image> this"], ["prompt", "<image>"]),
        (["--prompt", "half a pair \udce9"], ["prompt", "UTF-8"]),
        (["--colour"], ["--colour"]),
    ],
    ids=str,
)
def test_options_that_are_refused(options, words, refused, pictures):
    err = refused("--image", pictures[0], *options, words=words)
    assert len(err.splitlines()) <= 2 and "usage" not in err  # at most the line of defaults before it


def test_numbers_of_prompts_and_pictures_that_do_not_match(refused, pictures):
    refused("--image", *pictures, "--prompt", "a", "b", words=["2 prompts", "3 pictures"])


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_device_that_is_not_there(device, refused, pictures, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    refused("--image", pictures[0], "--device", device, words=[f"--device {device}", "cpu"])


def test_device_auto_prefers_a_gpu(monkeypatch):
    for cuda, mps, expected in [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert inference.choose_device("auto") == expected
    assert inference.choose_device("cpu") == "cpu"


def test_bad_checkpoints_are_one_line(refused, pictures, checkpoint, tmp_path, monkeypatch):
    """test_load_weights.py has every kind; here, that they come out as the program's error."""
    image = ("--image", pictures[0])
    refused(*image, model=tmp_path / "none", words=["none", "does not exist"])
    folder = shutil.copytree(checkpoint, tmp_path / "spoilt")
    write_config(folder, small_config(text={"model_type": "gemma2"}))
    refused(*image, model=folder, words=["PaliGemma 2"])
    write_config(folder, small_config(eos_token_id=5))
    refused(*image, model=folder, words=["<eos>"])
    write_config(folder, small_config())
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    refused(*image, model=folder, words=["git lfs pull"])

    def forbidden(*_):
        raise PermissionError(13, "Permission denied", "tokenizer.json")

    with monkeypatch.context() as patch:
        patch.setattr(inference, "load_model", forbidden)
        refused(*image, words=["Permission denied", "tokenizer.json"])
    (folder / "tokenizer.json").write_text("{\n}")
    refused(*image, model=folder, words=["tokenizer.json"])


def test_too_little_memory(refused, pictures, monkeypatch):
    class Memory:
        available = 200_000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    refused("--image", pictures[0], words=["memory", "GB", "--precision bfloat16"])


def test_memory_that_runs_out_on_the_way(refused, pictures, monkeypatch):
    on_a_gpu, on_a_cpu = torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")
    for error in (MemoryError(), on_a_gpu, on_a_cpu):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(inference, "load_model", fail)
        refused("--image", pictures[0], words=["out of memory"])
    monkeypatch.setattr(inference, "load_model", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError):  # a bug is not to look like that
        inference.main(["--image", pictures[0]])


@pytest.mark.parametrize(
    ("device", "precision", "advice"),
    [
        ("cpu", "auto", "--precision int8 or to close"),
        ("cpu", "float32", "--precision int8 or --precision bfloat16 or to close"),
        ("cpu", "int8", "to close"),
        ("cuda", "auto", "--device cpu or to close"),
        ("cuda", "float32", "--device cpu or --precision bfloat16 or to close"),
    ],
)
def test_no_advice_that_holds_already(device, precision, advice, refused, pictures, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(inference, "load_model", fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    err = refused("--image", pictures[0], "--precision", precision, words=["out of memory"])
    assert f"out of memory: try {advice} other programs" in err


def test_a_tokenizer_that_fails_on_a_prompt(refused, pictures, checkpoint, tmp_path):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "spoilt"))
    entries = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    cruel = {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": "q"}
    entries["normalizer"] = {"type": "Sequence", "normalizers": [cruel, entries["normalizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(entries), encoding="utf-8")
    image = ("--image", pictures[0], "--prompt", "detect " + "x" * 28)
    assert "panicked" not in refused(*image, model=folder, words=["cannot be read as a tokenizer"])


def test_help_shows_each_kind_of_prompt(run):
    code, out, _ = run("--help")
    assert code == 0
    for example in ("caption en", "answer en", "detect cat", "segment cat", "ocr", '"this building is "'):
        assert example in out


def test_error_of_a_program_of_its_own(tmp_path, checkpoint):
    """The whole way, in a process: nothing but the line, whatever the folder it runs in."""
    command = [sys.executable, PROGRAM, "--model", checkpoint, "--image", "nöne.png", "--prompt", "x"]
    result = subprocess.run(command, capture_output=True, cwd=tmp_path)
    expected = "inference.py: error: cannot read picture nöne.png: No such file or directory"
    assert result.returncode == 2
    assert (result.stdout, result.stderr.decode().strip()) == (b"", expected)


def test_reader_that_leaves(checkpoint, pictures):
    """`| head -c 1` ends the program without a word."""
    command = [sys.executable, PROGRAM, "--model", checkpoint, "--image", pictures[0], "--prompt", "x "]
    command += ["--max-tokens", "500", "--temperature", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        err = process.stderr.read().decode()
    assert err.splitlines()[-1] == "Result!!!"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
@pytest.mark.parametrize("while_importing", [True, False])
def test_ctrl_c_ends_quietly(checkpoint, pictures, while_importing):
    command = [sys.executable, PROGRAM, "--model", checkpoint, "--image", pictures[0], "--prompt", "x"]
    command += ["--max-tokens", "100000", "--temperature", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        if while_importing:
            time.sleep(0.4)
        else:
            process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in err and b"Interrupt" not in err
