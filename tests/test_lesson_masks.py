"""docs/lessons/masks.md: what is worked out by hand is what the quantizer finds; what is said of the words.

Its Python and its other numbers are held by tests/test_lessons.py.
"""

import re
from pathlib import Path

import pytest
import torch

from load_weights import load_mask_decoder
from mask_decoder_1 import MaskConfig, VectorQuantizer
from tiny_model.scenes import HELD_OUT_STYLES, load_drawings
from tiny_model.train_masks import measure

ROOT = Path(__file__).parent.parent


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


@pytest.mark.long  # draws scenes
def test_the_table_of_what_words_can_say():
    """What 400 scenes of the sets held out have said is what 20 others say, within what 20 can tell."""
    pytest.importorskip("resvg_py")
    text = (ROOT / "docs" / "lessons" / "masks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* bits \| [\d.]+ \| ([\d.]+) \|$", text, re.MULTILINE)
    box, squares, codec = map(float, rows)
    drawings = load_drawings(HELD_OUT_STYLES)
    found = measure(load_mask_decoder(ROOT / "paligemma-tiny"), drawings, scenes=20, seed=2)
    assert found["codec"] == pytest.approx(codec, abs=0.03)
    assert found["squares"] == pytest.approx(squares, abs=0.03)
    assert found["filled box"] == pytest.approx(box, abs=0.08)
    assert found["codec"] > found["squares"] > found["filled box"]
