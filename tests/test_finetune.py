"""finetune.py as a user meets it: a line for bad data, nothing overwritten, an interruption costs nothing."""

import argparse
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import finetune
import inference
import training_1
from decoder_1 import GemmaRMSNorm
from finetuning import data, learner, make_everything, memory, report, session, settings
from finetuning.adapter import (
    alpha_of,
    base_model_of,
    load_adapter,
    lora_tensors,
    read_adapter_config,
    read_tensors,
    save_checkpoint,
    write_whole,
)
from finetuning.fused import fuse
from load_weights import CheckpointError, import_set, load_hf_model
from program import known_prompts, questions

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
BOX = "<loc0100><loc0200><loc0300><loc0400>"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six pictures of one color each, in a folder of their own, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for i in range(6):
        Image.new("RGB", (20, 16), (40 * i, 255 - 40 * i, 90)).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path


def example(i=0, **changes):
    return {"image": f"pictures/{i}.png", "prefix": "caption en", "suffix": f"a cat {i}"} | changes


def write(folder, *entries, name="train.jsonl"):
    """JSON lines of objects, or of whatever text or bytes is given."""
    lines = [entry if isinstance(entry, str | bytes) else json.dumps(entry) for entry in entries]
    lines = [line if isinstance(line, bytes) else line.encode() for line in lines]
    (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))
    return name


def run(capsys, *arguments):
    """What the program prints, and its exit code."""
    code = 0
    try:
        finetune.main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def without(*keys):
    return {key: value for key, value in example().items() if key not in keys}


def pictures_of(folder):
    (folder / "pictures" / "text.png").write_text("no picture")
    (folder / "pictures" / "half.png").write_bytes((folder / "pictures" / "1.png").read_bytes()[:60])
    (folder / "pictures" / "folder.png").mkdir()


# What is in the second line of a file whose first is good, and words of the complaint about it.
BAD = {
    "broken JSON": ('{"image": "pictures/0.png", ', "not a JSON object in one line"),
    "not an object": ("[1, 2]", "must be an object with image, prefix and suffix, not list"),
    "not UTF-8": (b'{"image": "\xff"}', "not UTF-8"),
    "no image": (without("image"), "no 'image'"),
    "no prefix": (without("prefix"), "no 'prefix'"),
    "no suffix": (without("suffix"), "no 'suffix'"),
    "image is a number": (example(image=7), "image must be text, not 7"),
    "suffix is null": (example(suffix=None), "suffix must be text, not null"),
    "suffix is a list": (example(suffix=["a cat"]), "suffix must be text"),
    "empty path": (example(image=""), "image is empty"),
    "missing picture": (example(image="pictures/none.png"), "does not exist"),
    "a folder as picture": (example(image="pictures/folder.png"), "is a folder"),
    "no picture at all": (example(image="pictures/text.png"), "is not a picture in a format"),
    "half a picture": (example(image="pictures/half.png"), "cannot read picture"),
    "<image> in the prefix": (example(prefix="<image>caption en"), "prefix contains <image>"),
    "<image> in the suffix": (example(suffix="<image> a cat"), "suffix contains <image>"),
    "<eos> in the suffix": (example(suffix="a cat<eos>"), "suffix contains <eos>"),
    "<bos> in the prefix": (example(prefix="<bos>caption en"), "prefix contains <bos>"),
    "line break in the prefix": (example(prefix="caption en\n"), "prefix contains a line break"),
    "line break in the suffix": (example(suffix="a cat\na dog"), "suffix contains a line break"),
    "<loc1024>": (example(suffix="<loc0100><loc1024><loc0300><loc0400> cat"), "<loc1024>: there are"),
    "<loc12>": (example(suffix="<loc12> cat"), "<loc12>: there are"),
    "<seg128>": (example(suffix=BOX + "<seg128> cat"), "<seg128>: there are"),
    "three <loc>": (example(suffix="<loc0100><loc0200><loc0300> cat"), "3 <loc> in a row"),
    "a box upside down": (example(suffix="<loc0300><loc0200><loc0100><loc0400> cat"), "ends before it"),
    "a long answer": (example(suffix="a cat " * 200), "more than the 128 of --max-tokens"),
    "half a letter": ('{"image": "pictures/0.png", "prefix": "\\ud800", "suffix": "x"}', "not valid text"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_example_is_named_with_file_and_line(name, folder, checkpoint, capsys):
    pictures_of(folder)
    entry, words = BAD[name]
    file = write(folder, example(1), entry, example(2), example(3))
    arguments = ["--data", file, "--model", checkpoint, "--out", "out"]
    code, out, errors = run(capsys, *arguments)
    assert code == 2 and out == ""
    [line] = errors.splitlines()[-1:]
    assert line.startswith("finetune.py: error: train.jsonl:2: ") and words in line, line
    assert "Traceback" not in errors and not (folder / "out").exists()


def test_unknown_letter_is_named(folder, capsys):
    """The tests' small tokenizer knows every byte; the shipped model's does not."""
    file = write(folder, example(1), example(suffix="eine Straße 猫"), example(2))
    code, _, errors = run(capsys, "--data", file, "--model", ROOT / "paligemma-tiny", "--out", "out")
    assert code == 2 and "train.jsonl:2: suffix has '\\u732b', which the model's tokenizer" in errors


def test_skip_bad_counts_and_goes_on(folder, checkpoint, capsys):
    pictures_of(folder)
    file = write(folder, *[example(i) for i in range(5)], *[entry for entry, _ in BAD.values()])
    arguments = ["--data", file, "--model", checkpoint, "--out", "out", "--epochs", 1, "--rank", 2]
    code, _, errors = run(capsys, *arguments, "--skip-bad")
    assert code == 0 and f"Bad examples left out: {len(BAD)}" in errors
    assert (folder / "out" / "adapter_model.safetensors").exists()


def files_that_hold_nothing(folder):
    (folder / "empty.jsonl").write_text("")
    (folder / "blank.jsonl").write_text("\n\n")
    (folder / "no-pictures").mkdir()
    (folder / "captions").mkdir()
    shutil.copy(folder / "pictures" / "0.png", folder / "captions")
    write(folder, example(), name="one.jsonl")
    write(folder, example(1), example(2), name="good.jsonl")
    write(folder, example(2), example(3), name="same.jsonl")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "none.jsonl"], "none.jsonl does not exist"),
        (["--data", "empty.jsonl"], "no examples: it is empty"),
        (["--data", "blank.jsonl"], "no examples: it is empty"),
        (["--data", "no-pictures"], "no pictures"),
        (["--data", "captions"], "no 0.txt with its caption beside it"),
        (["--data", "one.jsonl"], "one picture alone cannot be split"),
        (["--data", "good.jsonl", "--eval", "none.jsonl"], "none.jsonl does not exist"),
        (["--data", "good.jsonl", "--eval", "same.jsonl"], "same.jsonl:1 is learned as well (good.jsonl:2)"),
        (["--data", "good.jsonl", "--model", "nowhere"], "model folder nowhere does not exist"),
        (["--data", "good.jsonl", "--out", "pictures"], "is there already and holds files"),
        (["--data", "good.jsonl", "--out", "one.jsonl"], "is a file: nothing is overwritten"),
        (["--data", "good.jsonl", "--rank", "0"], "0 is not from 1"),
        (["--data", "good.jsonl", "--rate", "nan"], "nan is not from"),
        (["--data", "good.jsonl", "--train", "all", "--precision", "bfloat16"], "needs --precision float32"),
        (["--resume", "nowhere"], "does not exist, so there is nothing to resume"),
        (["--resume", "pictures"], "has no settings.json"),
        (["--resume", "pictures", "--rate", "0.1"], "leave out --rate"),
    ],
)
def test_one_line_for_what_cannot_be_used(arguments, words, folder, checkpoint, capsys):
    files_that_hold_nothing(folder)
    if "--model" not in arguments and "--resume" not in arguments:
        arguments = [*arguments, "--model", checkpoint]
    before = sorted(folder.rglob("*"))
    code, out, errors = run(capsys, *arguments)
    assert code == 2 and out == "" and words in errors.splitlines()[-1], errors
    assert sorted(folder.rglob("*")) == before


# ---------------------------------------------------------------------------------- a whole training


def learn(folder, checkpoint, capsys, *more, out="out"):
    """Four examples for three epochs; what was printed."""
    file = write(folder, *[example(i) for i in range(4)])
    unseen = write(folder, *[example(i) for i in (4, 5)], name="eval.jsonl")
    arguments = ["--data", file, "--eval", unseen, "--model", checkpoint, "--out", out]
    sizes = ["--epochs", 3, "--batch", 2, "--rank", 2, "--max-tokens", 8]
    code, printed, errors = run(capsys, *arguments, *sizes, *more)
    assert code == 0, errors
    return printed + errors


def test_what_is_in_the_folder(folder, checkpoint, capsys):
    printed = learn(folder, checkpoint, capsys)
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {
        "adapter_config.json", "adapter_model.safetensors", "before-after.png", "curve.png", "finished",
        "log.jsonl", "prompts.json", "settings.json",
    }  # fmt: skip
    steps = [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step["step"] for step in steps if "right" in step] == [2, 4, 6]
    assert steps[0]["loss"] > steps[-1]["loss"]
    assert "[a]" in printed and "<image> x 9" in printed and "python inference.py" in printed
    config = json.loads((folder / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 4)


@pytest.mark.parametrize(
    ("mode", "precision"),
    [
        ("attention", "float32"),
        ("attention", "bfloat16"),
        ("all", "float32"),
        ("lora", "float32"),
        ("lora", "bfloat16"),
    ],
)
def test_a_checkpoint_of_what_was_learned(mode, precision, folder, checkpoint, capsys):
    learn(folder, checkpoint, capsys, "--train", mode, "--merge", "--precision", precision)
    model, _ = load_hf_model(folder / "out")
    old, _ = load_hf_model(checkpoint)
    changed = {
        name
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, old.get_parameter(name))
    }
    assert any("self_attn" in name for name in changed)
    assert any("vision_tower" in name for name in changed) == (mode == "all")
    assert any(".mlp." in name for name in changed) == (mode != "attention")
    assert not (folder / "out" / "adapter_config.json").exists()


def test_nothing_is_overwritten(folder, checkpoint, capsys):
    learn(folder, checkpoint, capsys)
    before = {path: path.read_bytes() for path in (folder / "out").iterdir()}
    code, _, errors = run(capsys, "--data", "train.jsonl", "--model", checkpoint, "--out", "out")
    assert code == 2 and "nothing is overwritten" in errors
    code, _, errors = run(capsys, "--resume", "out")
    assert code == 2 and "this training is finished" in errors
    assert before == {path: path.read_bytes() for path in (folder / "out").iterdir()}


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--accumulate", 2],
        ["--recompute"],
        ["--loss", "example"],
        ["--precision", "bfloat16"],
    ],
    ids=lambda more: more[0] if more else "plain",
)
def test_the_same_seed_gives_the_same_weights(more, folder, checkpoint, capsys):
    for out in ("one", "two"):
        learn(folder, checkpoint, capsys, *more, out=out)
    weights = [load_file(folder / out / "adapter_model.safetensors") for out in ("one", "two")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_recomputation_and_parts_change_nothing(folder, checkpoint, capsys):
    """Activations computed twice, or a batch in two parts: the same training, but for rounding."""
    learn(folder, checkpoint, capsys, out="plain")
    learn(folder, checkpoint, capsys, "--recompute", out="again")
    learn(folder, checkpoint, capsys, "--batch", 1, "--accumulate", 2, out="parts")
    plain, again, parts = (
        load_file(folder / out / "adapter_model.safetensors") for out in ("plain", "again", "parts")
    )
    for name, tensor in plain.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-4)


def test_stopped_and_gone_on_with(folder, checkpoint, capsys, monkeypatch):
    """Ctrl-C in the middle of an epoch: what is there can be used, and the end is the same."""
    learn(folder, checkpoint, capsys, out="through")
    original, made = learner.Learner.make_batch, []

    def interrupting(self, indices):
        made.append(indices)
        if len(made) == 4:  # the second epoch's first step
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, indices)

    monkeypatch.setattr(learner.Learner, "make_batch", interrupting)
    arguments = ["--data", "train.jsonl", "--eval", "eval.jsonl", "--model", checkpoint, "--out", "out"]
    arguments += ["--epochs", 3, "--batch", 2, "--rank", 2, "--max-tokens", 8]
    code, _, errors = run(capsys, *arguments)
    assert code == 130 and "python finetune.py --resume out" in errors
    assert load_adapter(load_hf_model(checkpoint)[0], folder / "out")

    monkeypatch.setattr(learner.Learner, "make_batch", original)
    code, _, errors = run(capsys, "--resume", "out")
    assert code == 0, errors
    for name in ("adapter_model.safetensors", "log.jsonl"):
        assert (folder / "out" / name).read_bytes() == (folder / "through" / name).read_bytes()


def test_where_no_answer_is_right_the_lowest_loss_is_kept(folder, checkpoint, capsys, monkeypatch):
    """Free captions: the share of right answers is 0 in every epoch. Here the second is the best."""
    original, kept = learner.Learner.score, []

    def noted(self):
        kept.append({name: tensor.clone() for name, tensor in lora_tensors(self.model).items()})
        return original(self)

    monkeypatch.setattr(learner.Learner, "score", noted)
    monkeypatch.setattr(training_1, "learning_rate", lambda step, *_: 0.01 if step < 4 else 1.0)
    learn(folder, checkpoint, capsys)
    steps = [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]
    found = [step for step in steps if "right" in step]
    losses = [step["eval_loss"] for step in found]
    assert [step["right"] for step in found] == [0, 0, 0] and losses.index(min(losses)) == 1, losses
    adapter = load_file(folder / "out" / "adapter_model.safetensors")
    assert all(torch.equal(adapter[name], tensor) for name, tensor in kept[1].items())


@pytest.mark.parametrize("more", [[], ["--merge"]], ids=["adapter", "merged"])
def test_a_training_that_diverges_keeps_its_best_weights(more, folder, checkpoint, capsys, monkeypatch):
    original, asked = learner.Learner.score, []

    def diverged(self):
        asked.append(self.best.score)
        if len(asked) == 2:
            self.parameters[0].data.fill_(float("nan"))
        return original(self)

    monkeypatch.setattr(learner.Learner, "score", diverged)
    # One rate for all steps: the first epoch of three is then the same as the only one of another training.
    monkeypatch.setattr(training_1, "learning_rate", lambda *_: 1e-3)
    learn(folder, checkpoint, capsys, "--epochs", 1, *more, out="first")
    arguments = ["--data", "train.jsonl", "--eval", "eval.jsonl", "--model", checkpoint, "--out", "my out"]
    arguments += ["--epochs", 3, "--batch", 2, "--rank", 2, "--max-tokens", 8, *more]
    asked.clear()
    code, _, errors = run(capsys, *arguments)
    assert code == 2 and "Traceback" not in errors
    last = errors.splitlines()[-1]
    assert "diverged after step 3" in last and "my out holds the best weights" in last, last
    name = "model.safetensors" if more else "adapter_model.safetensors"
    assert (folder / "my out" / name).read_bytes() == (folder / "first" / name).read_bytes()


def test_a_loss_that_is_not_finite_ends_the_training_at_once(folder, checkpoint, capsys, monkeypatch):
    original = training_1.train_step

    def spoiled(*arguments):
        return original(*arguments) * float("nan")

    monkeypatch.setattr(training_1, "train_step", spoiled)
    file = write(folder, *[example(i) for i in range(4)])
    code, _, errors = run(capsys, "--data", file, "--model", checkpoint, "--out", "out", "--batch", 2)
    last = errors.splitlines()[-1]
    assert code == 2 and "diverged after step 0" in last and "nothing to keep" in last, last


def test_weights_that_are_no_numbers_are_told(folder, checkpoint, capsys):
    base = shutil.copytree(checkpoint, folder / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["language_model.model.norm.weight"][0] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    file = write(folder, *[example(i) for i in range(4)])
    code, _, errors = run(capsys, "--data", file, "--model", base, "--out", "out", "--rank", 2)
    last = errors.splitlines()[-1]
    assert code == 2 and "norm.weight holds values that are no numbers" in last, last


def test_the_sets_own_generation_answers(folder, checkpoint, capsys, monkeypatch):
    reference = import_set(1)
    asked = []

    def generate(*arguments):
        asked.append(len(arguments[1]["input_ids"]))
        yield from reference.generation.generate(*arguments)

    own = SimpleNamespace(generate=generate, Answer=reference.generation.Answer)
    monkeypatch.setattr(finetune, "set_of", lambda _: dataclasses.replace(reference, generation=own))
    learn(folder, checkpoint, capsys, "--epochs", 1)
    assert asked == [2, 2, 2], "before, after the epoch, and in the end"


def test_other_data_is_not_gone_on_with(folder, checkpoint, capsys):
    learn(folder, checkpoint, capsys)
    (folder / "out" / "finished").unlink()
    write(folder, *[example(i) for i in range(3)])
    code, _, errors = run(capsys, "--resume", "out")
    assert code == 2 and "is not what it was when the training began" in errors


def begun(folder, checkpoint, **changes):
    """The folder of a training that was stopped before its first step."""
    write(folder, *[example(i) for i in range(4)])
    arguments = ["--data", "train.jsonl", "--model", str(checkpoint), "--out", "out", "--rate", "0.0123"]
    args = finetune.build_parser().parse_args(arguments)
    content = {"arguments": vars(args), "prints": settings.fingerprints(args), "threads": 1} | changes
    (folder / "out").mkdir()
    (folder / "out" / "settings.json").write_text(json.dumps(content))
    return args


def test_settings_come_back_as_they_were(folder, checkpoint):
    args = begun(folder, checkpoint)
    parser = finetune.build_parser()
    found = settings.read_settings(parser.parse_args(["--resume", "out"]), parser)
    assert found.prints and found.threads == 1 and found.resume == "out"
    del found.prints, found.threads
    assert vars(found) == vars(args) | {"resume": "out"}


def change_model(folder):
    path = folder / "base" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        change_model,
        lambda folder: Image.new("RGB", (20, 16), (1, 2, 3)).save(folder / "pictures" / "2.png"),
        lambda folder: write(folder, *[example(i, suffix=f"a dog {i}") for i in range(4)]),
    ],
    ids=["weights", "picture", "examples"],
)
def test_a_training_is_resumed_with_what_it_began_with(change, folder, checkpoint, capsys):
    begun(folder, shutil.copytree(checkpoint, folder / "base"))
    change(folder)
    code, _, errors = run(capsys, "--resume", "out")
    assert code == 2 and "the data or the model is not what it was when the training began" in errors


@pytest.mark.parametrize(
    ("change", "is_the_same"),
    [
        (lambda folder: (folder / "1.txt").write_text("a dog 1"), False),
        (lambda folder: Image.new("RGB", (20, 16), (1, 2, 3)).save(folder / "1.png"), False),
        (lambda folder: (folder / "1.txt").unlink(), False),
        (lambda folder: (folder / "1.png").touch(), True),
        (lambda folder: (folder / ".DS_Store").touch(), True),
    ],
    ids=["caption", "picture", "no caption", "same again", "no example"],
)
def test_the_fingerprint_of_a_folder_changes_with_its_examples(change, is_the_same, folder):
    for i in range(6):
        (folder / "pictures" / f"{i}.txt").write_text(f"a cat {i}")
    before = data.fingerprint(folder / "pictures")
    change(folder / "pictures")
    assert (data.fingerprint(folder / "pictures") == before) == is_the_same


@pytest.mark.parametrize("side", [500, 2000])  # 750 kB, 12 MB
def test_a_corner_of_an_uncompressed_picture_counts(side, folder):
    path = folder / "pictures" / "0.bmp"
    picture = Image.new("RGB", (side, side))
    picture.save(path)
    write(folder, example(image="pictures/0.bmp"))
    before = data.fingerprint(folder / "train.jsonl")
    picture.putpixel((side // 3, side // 3), (1, 2, 3))
    picture.save(path)
    assert data.fingerprint(folder / "train.jsonl") != before


def test_a_small_file_counts_whole_and_a_large_one_in_pieces(tmp_path):
    path, whole, sampled = tmp_path / "file", set(), set()
    for place in (None, 0, 500, 999):
        content = bytearray(1000)
        if place is not None:
            content[place] = 1
        path.write_bytes(content)
        whole.add(data.file_print(path))
        sampled.add(data.file_print(path, pieces=10, length=10))  # from 0 to 9, from 100 to 109, ...
    assert len(whole) == 4 and len(sampled) == 3


def test_a_training_is_resumed_where_it_began(folder, checkpoint, capsys, monkeypatch):
    begun(folder, checkpoint)
    monkeypatch.chdir(folder / "pictures")
    code, _, errors = run(capsys, "--resume", "../out")
    assert code == 2 and "--resume: train.jsonl is not here; run this command in the folder where" in errors


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arguments": {}}, "--data is missing"),
        ({"arguments": None}, "arguments are missing"),
        ({"arguments": "data"}, "arguments are missing"),
        ({"threads": "two"}, "threads must be a number from 1"),
        ({"threads": 0}, "threads must be a number from 1"),
        ({"batch": "many"}, "argument --batch: invalid int value: 'many'"),
        ({"merge": 3}, "argument --merge"),
        ({"model": None}, "--model is missing"),
    ],
)
def test_damaged_settings_are_one_line(changes, words, folder, checkpoint, capsys):
    args = vars(begun(folder, checkpoint))
    if not {"arguments", "threads"} & set(changes):
        changes = {"arguments": args | changes}
    content = {"arguments": args, "prints": {}, "threads": 2} | changes
    (folder / "out" / "settings.json").write_text(json.dumps(content))
    code, out, errors = run(capsys, "--resume", "out")
    assert code == 2 and out == "" and len(errors.splitlines()) == 1
    assert "settings.json is not what finetune.py writes: " in errors and words in errors


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A power cut must not leave the name of a result without its bytes: its training is deleted then."""
    names = []
    monkeypatch.setattr(os, "fsync", lambda _: names.append([path.name for path in tmp_path.iterdir()]))
    write_whole(tmp_path, "result", lambda path: path.write_text("all of it"))
    assert names == [["result.part"]] and (tmp_path / "result").read_text() == "all of it"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_killed_and_gone_on_with():
    from benchmarks.interruptions import interrupt

    killed, _ = interrupt(times=2, seed=0)
    assert killed == 2


def test_a_folder_of_pictures_with_captions(folder, checkpoint):
    """Notepad, for one, begins a file with a byte order mark, which is no part of the caption."""
    for i in range(6):
        (folder / "pictures" / f"{i}.txt").write_text(
            f"{chr(0xFEFF) * (i % 2)} a cat {i}\n", encoding="utf-8"
        )
    examples, complaints = data.read_examples(
        folder / "pictures", finetune.tokenizer_of(checkpoint), 128, skip_bad=False
    )
    assert [found.suffix for found in examples] == [f"a cat {i}" for i in range(6)] and not complaints
    assert {found.prefix for found in examples} == {"caption en"}


def ask(capsys, *arguments):
    """What inference.py prints, and its exit code."""
    code = 0
    try:
        inference.main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_inference_takes_the_adapter_and_finds_its_model(folder, checkpoint, capsys):
    learn(folder, checkpoint, capsys, "--rate", 0.05)
    question = ["--image", "pictures/4.png", "--prompt", "caption en", "--max-tokens", 8]
    code, old, _ = ask(capsys, *question, "--model", checkpoint)
    code, new, errors = ask(capsys, *question, "--adapter", "out")
    assert code == 0 and new != old and "Adapter out: beside 21 layers" in errors
    again = ask(capsys, *question, "--adapter", "out", "--model", checkpoint)[1]
    merged = learn(folder, checkpoint, capsys, "--rate", 0.05, "--merge", out="merged")
    assert "--model merged" in merged
    assert new == again == ask(capsys, *question, "--model", "merged")[1]


def made_for(folder, base):
    """An adapter whose config names its base so; its weights are not read."""
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").touch()
    config = {"peft_type": "LORA", "lora_alpha": 4, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapters_model_is_found_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").touch()
    (tmp_path / "elsewhere").mkdir()
    adapter = made_for(tmp_path / "adapters" / "one", "base")
    monkeypatch.chdir(tmp_path)
    assert base_model_of("adapters/one") == "base"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert base_model_of("../adapters/one") == base_model_of(adapter) == str(tmp_path / "base")
    assert base_model_of(made_for(tmp_path / "two", "nowhere")) is None


@pytest.mark.parametrize(
    ("base", "is_said"),
    [
        ("other-model", True),
        ("google/other-model", True),
        ("my/checkpoint", False),
        ("C:\\models\\checkpoint", False),
        ("", False),
    ],
)
def test_an_adapter_on_another_model_than_its_own_is_said(base, is_said, tmp_path, capsys, monkeypatch):
    adapter = made_for(tmp_path / "adapter", base)
    (tmp_path / "checkpoint").mkdir()
    monkeypatch.setattr(questions, "choose_model", lambda: (str(tmp_path / "checkpoint"), "model checkpoint"))
    code, _, errors = ask(capsys, "--adapter", adapter)
    assert code == 2  # the model that was chosen holds nothing: it is said before it is loaded
    line = f"Adapter {adapter} was made for {base}, which is not here: it is used with checkpoint."
    assert (line in errors) == is_said, errors


def test_what_it_was_taught_is_known_afterwards(folder, checkpoint, capsys):
    """And what a base knew besides; of a base that does not say it, nothing is said."""
    base = shutil.copytree(checkpoint, folder / "base")
    known = {"name": "base", "forms": ["detect {thing}"], "words": {"thing": ["cat"]}}
    (base / "prompts.json").write_text(json.dumps(known))
    learn(folder, base, capsys)
    learn(folder, base, capsys, "--merge", out="merged")
    learn(folder, checkpoint, capsys, "--merge", out="unsaid")
    assert not (folder / "unsaid" / "prompts.json").exists()
    options = ["--image", "pictures/4.png", "--max-tokens", 2]
    for model in (["--adapter", "out"], ["--model", "merged"], ["--model", "unsaid"]):
        for prompt in ("caption en", "detect cat"):
            assert "Note" not in ask(capsys, *options, *model, "--prompt", prompt)[2]
    for model, name in (("--adapter", "base with out"), ("--model", "merged")):
        arguments = [*options, model, name.split()[-1], "--prompt", "ocr"]
        assert f'Note: {name} knows these prompts: "caption en", "detect cat" (' in ask(capsys, *arguments)[2]
    (folder / "out" / "prompts.json").unlink()  # as an adapter of PEFT's
    assert "Note" not in ask(capsys, *options, "--adapter", "out", "--prompt", "ocr")[2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "IA3"}, "only LORA is read"),
        ({"use_dora": True}, "use_dora is set (DoRA)"),
        ({"bias": "all"}, "only none is supported"),
        ({"lora_alpha": "much"}, "lora_alpha must be a number"),
        ({"modules_to_save": ["lm_head"]}, "layers that are saved whole"),
    ],
)
def test_an_adapter_that_cannot_be_used(change, words, folder, checkpoint, capsys):
    learn(folder, checkpoint, capsys)
    path = folder / "out" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    question = ["--image", "pictures/4.png", "--model", checkpoint]
    code, out, errors = ask(capsys, *question, "--adapter", "out")
    assert code == 2 and out == "" and words in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora_alpha": float("nan")}, "lora_alpha must be a number, not nan"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern must be an object, not"),
        ({"alpha_pattern": {"q_proj": "much"}}, "alpha_pattern's 'q_proj' must be a number, not 'much'"),
        ({"alpha_pattern": {"q_proj": 10**400}}, "alpha_pattern's 'q_proj' must be a number"),
        ({"alpha_pattern": {"(q_proj": 4}}, "alpha_pattern's '\\(q_proj' is no regular expression"),
        *(({"init_lora_weights": way}, f"init_lora_weights is '{way}', which changes the base's weights, too")
          for way in ("pissa", "pissa_niter_16", "OLoRA", "corda", "loftq", "lora_ga")),
    ],
)  # fmt: skip
def test_an_adapters_config_that_cannot_be_used(change, words, tmp_path):
    config = {"peft_type": "LORA", "lora_alpha": 4, "alpha_pattern": {}, "init_lora_weights": "eva"}
    (tmp_path / "adapter_model.safetensors").touch()
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert read_adapter_config(tmp_path) == config
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=words):
        read_adapter_config(tmp_path)


@pytest.mark.parametrize("shape", [(8,), (0, 8), (2, 4, 2)])
def test_an_adapters_tensor_that_is_no_matrix(shape, tmp_path):
    name = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora"
    tensors = {f"{name}_A.weight": torch.zeros(shape), f"{name}_B.weight": torch.zeros(8, 2)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="which is no matrix"):
        read_tensors(tmp_path / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("pattern", "alpha"),
    [
        ("q_proj", 9),
        ("self_attn.q_proj", 9),
        (r"layers\.1\d\..*", 9),
        ("q_proj|k_proj", 9),
        ("^model.language_model.layers.10.self_attn.q_proj", 9),
        ("proj", 4),
        (r"layers\.1\..*", 4),
        ("^layers.*", 4),
    ],
)
def test_alphas_of_some_layers_are_found_as_peft_finds_them(pattern, alpha):
    config = {"lora_alpha": 4, "alpha_pattern": {"no_such_layer": 5, pattern: 9}}
    assert alpha_of(config, "language_model.model.layers.10.self_attn.q_proj") == alpha


def test_a_checkpoint_has_the_bases_masks_and_nothing_of_its_training(tmp_path, checkpoint):
    base, out = shutil.copytree(checkpoint, tmp_path / "base"), tmp_path / "out"
    out.mkdir()
    (out / "settings.json").write_text("its own")
    for name in ("settings.json", "before.json", "products.json", "mask_decoder.safetensors", "vae-oid.npz"):
        (base / name).write_text("the base's")
    save_checkpoint(out, load_hf_model(checkpoint)[0], base, torch.float32, set())
    assert (out / "settings.json").read_text() == "its own"
    for name in ("mask_decoder.safetensors", "vae-oid.npz"):
        assert (out / name).read_text() == "the base's"
    assert not (out / "before.json").exists() and not (out / "products.json").exists()
    load_hf_model(out)


@pytest.mark.skipif(sys.platform == "win32", reason="whose shells quote in another way")
@pytest.mark.parametrize("merge", [True, False])
def test_what_asks_the_new_model_can_be_pasted(merge, folder):
    prefix = 'answer en what is "$x" `y`?'
    asked = data.Example(folder / "pictures" / "0.png", prefix, BOX + " cat", "train.jsonl:1")
    args = argparse.Namespace(out="my adapter", model=str(folder / "a model"), merge=merge)
    model = ["--model", "my adapter"] if merge else ["--model", "a model", "--adapter", "my adapter"]
    assert shlex.split(finetune.command(args, asked)) == [
        "python", "inference.py", *model, "--image", "pictures/0.png", "--prompt", prefix,
        "--draw", "my adapter/answer.png",
    ]  # fmt: skip


def test_a_folder_that_is_no_checkpoint(tmp_path):
    for words in ("is empty: get the model with", "has no config.json: get the model with"):
        with pytest.raises(CheckpointError, match=words):
            finetune.tokenizer_of(tmp_path)
        (tmp_path / "model.safetensors").touch()


def test_no_adapter_there(folder, checkpoint, capsys):
    question = ["--image", "pictures/4.png", "--model", checkpoint, "--adapter"]
    for name, words in (("nowhere", "does not exist"), ("pictures", "has no adapter_config.json")):
        code, _, errors = ask(capsys, *question, name)
        assert code == 2 and words in errors.splitlines()[-1]
    code, _, errors = ask(capsys, *question, checkpoint)
    assert code == 2 and "this is a checkpoint, use it with --model" in errors


# ----------------------------------------------------------------------------------------- its parts


def test_what_is_right():
    assert report.judge("a cat", "a cat")["right"] and not report.judge("a cat.", "a cat")["right"]
    near, far = "<loc0110><loc0190><loc0310><loc0400> cat", "<loc0500><loc0600><loc0700><loc0800> cat"
    truth = BOX + " cat"
    assert report.judge(near, truth)["right"] and not report.judge(far, truth)["right"]
    assert not report.judge(near.replace("cat", "dog"), truth)["right"]
    assert not report.judge(f"{near} ; {far}", truth)["right"]
    assert report.judge("", truth) == {"right": False, "ious": [0.0]}
    assert report.judge(truth, f"{truth} ; {far}")["ious"] == [1.0, 0.0]
    assert report.scores(["no"], ["no"]) == {"right": 1.0, "iou": None}


@pytest.mark.parametrize("way", memory.WAYS)
def test_frozen_products_and_their_gradients_in_bfloat16(way):
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, 40).bfloat16().requires_grad_(False)
    x = torch.randn(3, 5, 48).bfloat16()
    found = []
    for layer in (linear, memory.FrozenLinear(linear, way)):
        inputs = x.clone().requires_grad_()
        out = layer(inputs)
        out.float().square().sum().backward()
        found.append((out, inputs.grad))
    for theirs, ours in zip(*found, strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=3e-2, atol=3e-2)


def gradients_of(module, x, *parameters):
    """The output, and the gradients of x and the parameters, for some gradient of the output."""
    x = x.clone().requires_grad_()
    out = module(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5))
    return out, *torch.autograd.grad((out.float() * weights).sum(), [x, *parameters])


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("kind", ["lora", "norm"])
def test_fewer_operations_give_the_same_gradients(kind, dtype, most):
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, 40, bias=False).to(dtype)
    layer = training_1.LoRALinear(linear, 3, 6) if kind == "lora" else GemmaRMSNorm(48).to(dtype)
    for parameter in layer.parameters():
        parameter.data.normal_()
        parameter.requires_grad_(parameter.dtype == torch.float32 and kind == "lora")
    linear.requires_grad_(False)
    holder = torch.nn.Sequential(layer)
    fuse(holder)
    assert type(holder[0]) is not type(layer) and isinstance(holder[0], type(layer))
    learned = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    x = torch.randn(2, 5, 48).to(dtype)
    found = zip(gradients_of(holder[0], x, *learned), gradients_of(layer, x, *learned), strict=True)
    for ours, theirs in found:
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        torch.testing.assert_close(
            ours.float(), theirs.float(), rtol=most, atol=most * theirs.abs().max().item()
        )


def test_what_is_a_learners_or_learns_is_not_fused():
    class OwnLoRALinear(training_1.LoRALinear):
        pass

    model = torch.nn.Sequential(OwnLoRALinear(torch.nn.Linear(4, 4), 2, 2), GemmaRMSNorm(4))
    kinds = [type(module) for module in model]
    fuse(model)
    assert [type(module) for module in model] == kinds


def test_features_are_kept_and_an_interrupted_file_is_completed(tmp_path):
    torch.manual_seed(0)
    tower, pictures = torch.nn.Linear(6, 4), torch.randn(21, 1, 3, 6)
    looked = []

    def prepared(i):
        looked.append(i)
        return pictures[i]

    def features():
        return memory.cache_features(
            tmp_path / "features.bin", tower, prepared, 21, (3, 4), torch.float32, "cpu"
        )

    whole = features().clone()
    torch.testing.assert_close(whole, tower(pictures[:, 0]).detach())
    (tmp_path / "features.bin").write_bytes((tmp_path / "features.bin").read_bytes()[: 11 * 48 + 7])
    looked.clear()
    assert torch.equal(features(), whole) and looked == list(range(8, 21))


@pytest.mark.parametrize("name", ["all", "attention"])
def test_memory_is_told_before(name, checkpoint):
    model, _ = load_hf_model(checkpoint)
    parts = dict(memory.bytes_needed(model, [*model.parameters()], 2, 20, 4, name == "all", False))
    assert parts["weights"] >= sum(p.nbytes for p in model.parameters())
    assert ("the tower's activations" in parts) == (name == "all")


def test_too_little_memory_is_said_before_anything_is_learned(folder, checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(
        session, "psutil", SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=9))
    )
    file = write(folder, *[example(i) for i in range(4)])
    code, _, errors = run(capsys, "--data", file, "--model", checkpoint, "--out", "out")
    assert code == 2 and "are free: try --batch 1" in errors.splitlines()[-1]
    assert not (folder / "out").exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory")])
@pytest.mark.parametrize(("where", "is_kept"), [("say_memory", False), ("say_time", True)])
def test_the_advice_where_memory_runs_out_can_be_taken(
    where, is_kept, error, folder, checkpoint, capsys, monkeypatch
):
    def full(*_):
        raise error

    monkeypatch.setattr(session, where, full)
    file = write(folder, *[example(i) for i in range(4)])
    code, _, errors = run(capsys, "--data", file, "--model", checkpoint, "--out", "out", "--max-tokens", 8)
    last = errors.splitlines()[-1]
    assert code == 2 and "out of memory: try --batch 1" in last
    assert (folder / "out").exists() == ("another --out (out is kept for --resume" in last) == is_kept, last


def test_the_program_starts_from_another_folder(tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / "finetune.py"), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0 and "--resume" in result.stdout and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def drawn_again(tmp_path_factory):
    pytest.importorskip("resvg_py", reason="drawing scenes needs `pip install -r requirements-train.txt`")
    folder = tmp_path_factory.mktemp("everything")
    make_everything.main([str(folder)])
    return folder


def test_the_shipped_set_is_small_and_whole():
    folder = ROOT / "finetuning" / "everything"
    tokenizer = finetune.tokenizer_of(ROOT / "paligemma-tiny")
    train, held_out = (
        data.read_examples(folder / name, tokenizer, 128, skip_bad=False)[0]
        for name in ("train.jsonl", "eval.jsonl")
    )
    assert len(held_out) == 100 and {found.prefix for found in held_out} == {"detect everything"}
    assert not {found.picture for found in train} & {found.picture for found in held_out}
    prompts = [found.prefix for found in train]
    new = known_prompts.unknown_to(ROOT / "paligemma-tiny", prompts)
    assert set(new) == {"detect everything"} and len(new) == 340 and len(train) == 1020
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.parametrize("name", ["train", "eval"])
def test_the_shipped_set_is_what_its_script_draws(name, drawn_again):
    """All but the words of masks: where two codewords are as near, processors choose differently."""
    kept, drawn = (
        (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        for folder in (ROOT / "finetuning" / "everything", drawn_again)
    )
    word = re.compile(r"<seg\d{3}>")
    for number, (line, again) in enumerate(zip(kept, drawn, strict=True), start=1):
        assert word.sub("<seg>", line) == word.sub("<seg>", again), f"{name}.jsonl:{number}"
    words, words_again = (word.findall("".join(lines)) for lines in (kept, drawn))
    equal = sum(one == other for one, other in zip(words, words_again, strict=True))
    assert equal >= 0.98 * len(words)
