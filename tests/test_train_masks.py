"""tiny_model/train_masks.py, in small: it learns, resumes to the same codec, and measures what it says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mask_decoder_1 import MaskConfig, MaskVQVAE
from program.command_line import InputError
from program.masks import mask_iou
from tiny_model import codebook, train_masks
from tiny_model.scenes import make_drawing

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def drawings():
    """Two things of one drawing each: no SVG has to be rendered."""
    made = {}
    triangles = {"boat": [(20, 30), (150, 160), (20, 160)], "tree": [(90, 10), (120, 180), (60, 180)]}
    for thing, corners in triangles.items():
        image = Image.new("RGBA", (192, 192))
        ImageDraw.Draw(image).polygon(corners, fill="red")
        made[thing] = {"one style": [make_drawing(image)]}
    return made


@pytest.fixture
def plan(monkeypatch):
    for name, value in {"STEPS": 12, "BATCH": 16, "CONTINUOUS_STEPS": 4, "STATE_EVERY": 0}.items():
        monkeypatch.setattr(train_masks, name, value)


def new_codec() -> MaskVQVAE:
    torch.manual_seed(0)
    return MaskVQVAE(MaskConfig(embedding_dim=8, hidden_dim=2))


def test_an_interrupted_training_ends_in_the_same_codec(plan, drawings, tmp_path, monkeypatch):
    whole = new_codec()
    train_masks.train(whole, drawings, tmp_path / "whole.pt")

    def interrupted_at(last: int):
        def shapes_until(drawings, step):
            if step == last:
                raise KeyboardInterrupt
            return random_shapes(drawings, step)

        random_shapes = train_masks.random_shapes
        monkeypatch.setattr(train_masks, "random_shapes", shapes_until)
        with pytest.raises(KeyboardInterrupt):
            train_masks.train(new_codec(), drawings, tmp_path / "state.pt")
        monkeypatch.setattr(train_masks, "random_shapes", random_shapes)

    interrupted_at(3)  # before there is a codebook
    interrupted_at(9)
    resumed = new_codec()
    train_masks.train(resumed, drawings, tmp_path / "state.pt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert not torch.equal(new_codec().decoder[0].weight, whole.decoder[0].weight)


def test_a_state_keeps_what_the_numbers_depend_on(plan, drawings, tmp_path, monkeypatch):
    """dtype and threads of the first run are those of the next; other drawings and damage are refused."""
    file, threads = tmp_path / "state.pt", torch.get_num_threads()
    monkeypatch.setattr(train_masks, "bfloat16_is_faster", lambda: True)
    monkeypatch.setattr(train_masks, "STEPS", 5)
    train_masks.train(new_codec(), drawings, file)
    dtypes, real = [], torch.autocast

    def autocast(device, dtype):
        dtypes.append(dtype)
        return real(device, dtype)

    monkeypatch.setattr(train_masks, "bfloat16_is_faster", lambda: False)
    monkeypatch.setattr(torch, "autocast", autocast)
    monkeypatch.setattr(train_masks, "STEPS", 6)
    try:
        torch.set_num_threads(threads + 1)
        train_masks.train(new_codec(), drawings, file)
        assert dtypes == [torch.bfloat16] and torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads)
    with pytest.raises(InputError, match="other drawings"):
        train_masks.train(new_codec(), {"boat": drawings["boat"]}, file)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="is damaged"):
        train_masks.train(new_codec(), drawings, file)


@pytest.fixture
def program(drawings, monkeypatch, capsys):
    """Runs a program in small; returns its exit code and what it wrote to stderr."""
    monkeypatch.setattr(train_masks.tiny_scenes, "load_drawings", lambda *_: drawings)
    monkeypatch.setattr(train_masks, "report", lambda *_: None)
    monkeypatch.setattr(codebook, "BATCHES", 1)

    def run(program, *arguments):
        code = 0
        try:
            program.main([*map(str, arguments)])
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().err

    return run


def test_the_program_goes_on_in_its_folder(plan, program, tmp_path):
    file = tmp_path / "mask_decoder.safetensors"
    assert program(train_masks, "--out", tmp_path)[0] == 0
    first = file.read_bytes()
    file.unlink()
    for _ in range(2):  # also where it is over
        assert program(train_masks, "--out", tmp_path)[0] == 0 and file.read_bytes() == first
    assert program(train_masks, "--measure", file)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, "state.pt"]


def test_files_of_others_are_left_alone(plan, program, tmp_path):
    """A mask decoder that was not trained here, a state that is damaged, a picture of the user's."""
    decoder, state, out = (tmp_path / name for name in ("mask_decoder.safetensors", "state.pt", "own.png"))
    train = (train_masks, "--out", tmp_path)
    for file, command, message in (
        (decoder, train, "choose another --out"), (state, train, "is no state of this training"),
        (out, (codebook, ROOT / "paligemma-tiny", out), "add --overwrite"),
    ):  # fmt: skip
        file.write_bytes(b"mine")
        code, err = program(*command)
        assert code == 2 and message in err.splitlines()[-1] and "Traceback" not in err
        assert file.read_bytes() == b"mine"
    for file in (tmp_path / "nowhere" / decoder.name, decoder, state):
        code, err = program(train_masks, "--measure", file)
        assert code == 2 and err.startswith("train_masks: error: ") and err.count("\n") == 1


def test_the_picture_of_the_codebook_replaces_its_own(program, tmp_path):
    for _ in range(2):
        assert program(codebook, ROOT / "paligemma-tiny", tmp_path / "words.png")[0] == 0


def test_it_learns(plan, drawings, tmp_path, monkeypatch):
    monkeypatch.setattr(train_masks, "STEPS", 200)
    monkeypatch.setattr(train_masks, "STATE_EVERY", 1000)
    torch.manual_seed(0)
    vqvae = MaskVQVAE(MaskConfig(embedding_dim=8, hidden_dim=4))
    before = train_masks.measure(vqvae, drawings, scenes=20)
    train_masks.train(vqvae, drawings, tmp_path / "state.pt")
    after = train_masks.measure(vqvae, drawings, scenes=20)
    assert after["codec"] > max(before["codec"], after["filled box"]) + 0.1
    assert after["filled box"] == before["filled box"]  # the same scenes


def test_shapes_are_the_same_for_the_same_step_and_fill_their_box(drawings):
    first, again, other = (train_masks.random_shapes(drawings, step) for step in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (train_masks.BATCH, 64, 64)
    assert first.min() >= 0 and first.max() <= 1
    for edge in (first[:, 0], first[:, -1], first[:, :, 0], first[:, :, -1]):
        assert (edge.amax(dim=1) > 0).all()


def test_a_word_that_nobody_chooses_is_put_where_features_are():
    torch.manual_seed(0)
    quantizer = new_codec()._vq_vae
    codebook = train_masks.Codebook(quantizer)
    features = torch.randn(400, 8) * 0.1 + 5
    quantizer._embedding.data[0] = -100.0
    for step in range(600):
        codebook.update(features, np.random.default_rng(step))
    assert (quantizer._embedding - 5).abs().max() < 1


def test_iou():
    a, b = torch.zeros(2, 4, 4, dtype=torch.bool)
    assert mask_iou(a, b) == 0
    a[:2], b[:, :2] = True, True
    assert mask_iou(a, b) == pytest.approx(4 / 12)
    assert mask_iou(a, a) == 1


def test_the_picture_of_the_codebook(drawings, tmp_path, monkeypatch):
    monkeypatch.setattr(codebook, "BATCHES", 2)
    vqvae = new_codec().requires_grad_(False)
    counts, patches = codebook.mean_patches(vqvae, drawings)
    assert counts.sum() == 2 * 16 * train_masks.BATCH
    assert patches.shape == (128, 32, 32) and patches.min() >= 0 and patches.max() <= 1
    # What the words stand for, each as often as it was chosen, is what all patches look like.
    shapes = torch.cat([train_masks.random_shapes(drawings, step) for step in range(2)])
    inner = patches[:, 8:24, 8:24].mean(dim=(1, 2))
    assert ((counts * inner).sum() / counts.sum()).item() == pytest.approx(shapes.mean().item(), rel=1e-4)
    codebook.codebook_picture(vqvae, counts, patches).save(tmp_path / "codebook.png")
    assert Image.open(tmp_path / "codebook.png").size == (704, 960)
