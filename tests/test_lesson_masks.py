"""docs/lessons/masks.md: its Python prints what it shows, and what is worked out by hand is true."""

import re
from pathlib import Path

import torch

from load_weights import load_mask_decoder
from mask_decoder_1 import MaskConfig, VectorQuantizer

ROOT = Path(__file__).parent.parent
LESSON = (ROOT / "docs" / "lessons" / "masks.md").read_text(encoding="utf-8")


def test_its_python_prints_what_it_shows(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    names, shown = {}, 0
    for block in re.findall(r"^```python\n(.*?)^```", LESSON, re.MULTILINE | re.DOTALL):
        expected = [line.removeprefix("# ") for line in block.splitlines() if line.startswith("# ")]
        if expected:
            exec(block, names)
            assert capsys.readouterr().out.splitlines() == expected
            shown += 1
    circle, tokens = names["circle"] > 0, names["vqvae"].encode(names["circle"][None])
    drawn = names["vqvae"].decode(tokens)[0] > 0
    assert shown == 2
    assert f"IoU of {(drawn & circle).sum() / (drawn | circle).sum():.2f} with the circle" in LESSON


def test_the_nearest_codeword_by_hand():
    quantizer = VectorQuantizer(MaskConfig(embedding_dim=2, hidden_dim=1, num_embeddings=3))
    quantizer._embedding.data = torch.tensor([[0.0, 0.0], [2.0, 1.0], [-1.0, 2.0]])
    f = torch.ones(1, 2, 4, 4)
    assert (quantizer.nearest(f) == 1).all()
    e = torch.cat([quantizer._embedding.data, torch.tensor([[4.0, 4.0]])])
    f = f[0, :, 0, 0]
    assert (f - e).square().sum(dim=1).tolist() == [2, 1, 5, 18]
    assert (e.square().sum(dim=1) - 2 * e @ f).tolist()[:3] == [0, -1, 3]
    assert (e @ f).tolist() == [0, 3, 1, 8]


def test_what_is_said_of_the_codebook():
    vqvae = load_mask_decoder(ROOT / "paligemma-tiny")
    drawn = (vqvae.decode(torch.arange(128)[:, None].expand(-1, 16)) + 1) / 2
    middle = drawn[:, 8:-8, 8:-8].mean(dim=(1, 2))
    assert (int((middle > 0.95).sum()), int((middle < 0.05).sum())) == (16, 16)
    assert middle[9] > 0.95 and middle[26] < 0.05
