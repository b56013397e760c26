"""program/masks.py: the masks of an answer, how they are drawn, and how they are written."""

import numpy as np
import pytest
import torch
from PIL import Image

from mask_decoder_1 import MaskConfig, MaskVQVAE
from program.command_line import InputError
from program.masks import draw_masks, find_masks, mask_picture, seg_tokens, to_rle

KEPT_SQUARE = {"size": [30, 40], "counts": "k4:d000000000000000000Yg0"}
KEPT_ELLIPSE = {
    "size": [48, 64],
    "counts": "b<5X16K4M2N2N2N2O0O2O0O2O0O2O000O2O000000000000000"
    "0000000000001N10001N101N101N101N2N2N2N3L5JQ`0",
}
LOCS = "<loc0256><loc0128><loc0768><loc0640>"


def words(*numbers: int) -> str:
    return "".join(f"<seg{number:03d}>" for number in numbers)


@pytest.fixture(scope="module")
def vqvae():
    torch.manual_seed(0)
    return MaskVQVAE(MaskConfig(embedding_dim=5, hidden_dim=2)).requires_grad_(False)


def boxes_of(*labels: str) -> list[dict]:
    return [{"label": label, "box": [10.0, 20.0, 50.0, 60.0]} for label in labels]


def test_seg_tokens_are_found_box_by_box():
    answer = f"{LOCS}{words(3, 127)} big cat ; {LOCS} dog ; {LOCS}{words(*range(16))} cow ; <seg001> ; {LOCS}"
    assert seg_tokens(answer) == [[3, 127], [], list(range(16)), []]
    assert seg_tokens("a cat") == []
    assert seg_tokens("<loc0256><loc0128><loc0768>" + words(1)) == []


def test_find_masks(vqvae):
    answer = f"{LOCS}{words(*range(16))} cat ; {LOCS} dog ; {LOCS}{words(*range(9, 25), 30)} cow"
    masks, notes = find_masks(answer, boxes_of("cat", "dog", "cow"), vqvae, 80, 70)
    assert notes == [] and masks[1] is None
    for mask, first in ((masks[0], 0), (masks[2], 9)):  # a 17th word is passed over
        inside = torch.zeros(70, 80, dtype=torch.bool)
        shape = vqvae.decode(torch.arange(first, first + 16)[None])
        shape = torch.nn.functional.interpolate(shape[None], (40, 40), mode="bilinear", antialias=True)
        inside[20:60, 10:50] = shape[0, 0] > 0
        assert torch.equal(mask, inside)


def test_an_answer_that_is_not_well_formed_has_a_note(vqvae):
    answer = f"{LOCS}{words(1, 2, 3)} cat ; {LOCS}{words(*range(15), 128)} ; {LOCS}{words(*range(16))} cow"
    masks, notes = find_masks(answer, boxes_of("cat", "", "cow"), vqvae, 80, 70)
    assert [mask is None for mask in masks] == [True, True, False]
    assert notes == [
        "cat has 3 <seg> tokens instead of 16, so it has a box and no mask",
        "a box has <seg128>, which is no word of the codebook, so it has a box and no mask",
    ]


def test_without_a_mask_decoder_there_is_one_note_that_says_how_to_get_it():
    answer = f"{LOCS}{words(*range(16))} cat ; {LOCS}{words(*range(16))} dog"
    masks, notes = find_masks(answer, boxes_of("cat", "dog"), None, 80, 70)
    assert masks == [None, None]
    assert len(notes) == 1 and "no mask decoder" in notes[0] and "GET_THE_WEIGHTS.md" in notes[0]
    assert find_masks(f"{LOCS} cat", boxes_of("cat"), None, 80, 70) == ([None], [])


def square(top: int, left: int, side: int, height: int = 30, width: int = 40) -> torch.Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_draw_masks():
    picture = Image.new("RGB", (40, 30), "white")
    drawn = draw_masks(picture, [square(5, 5, 10), None, square(5, 25, 10)], ["red", "red", "blue"])
    assert picture.getcolors() == [(1200, (255, 255, 255))]  # a copy was drawn on
    assert drawn.getpixel((5, 5)) == (255, 0, 0) and drawn.getpixel((34, 14)) == (0, 0, 255)
    red, green, blue = drawn.getpixel((10, 10))
    assert red == 255 and green == blue and 100 < green < 200  # a tint, which lets the picture through
    assert drawn.getpixel((4, 4)) == drawn.getpixel((20, 10)) == (255, 255, 255)


def test_the_mask_picture_has_a_gray_level_for_each_mask():
    """None is a box without a mask: of `detect`, say, asked beside `segment`."""
    masks = [square(0, 0, 20), None, square(10, 10, 10), square(5, 30, 5), None]
    levels = np.asarray(mask_picture(masks, 40, 30))
    assert levels.shape == (30, 40) and levels.dtype == np.uint8
    assert (levels[0, 0], levels[10, 10], levels[5, 30], levels[29, 39]) == (85, 170, 255, 0)
    assert np.unique(levels).tolist() == [0, 85, 170, 255]
    assert not np.asarray(mask_picture([], 40, 30)).any()
    assert not np.asarray(mask_picture([None], 40, 30)).any()


def test_the_mask_picture_has_levels_for_255_masks():
    masks = [square(i // 40, i % 40, 1) for i in range(256)]
    assert np.unique(np.asarray(mask_picture([*masks[:255], None], 40, 30))).tolist() == list(range(256))
    with pytest.raises(InputError, match=r"--mask: there are 256 masks, .* levels for 255; .* --json"):
        mask_picture(masks, 40, 30)


# -- COCO's run-length encoding ----------------------------------------------------------------------


def random_masks():
    generator = torch.Generator().manual_seed(0)

    def number(end: int) -> int:
        return int(torch.randint(1, end, (1,), generator=generator))

    for density in (0.0, 0.02, 0.3, 0.5, 0.9, 1.0):
        for _ in range(12):
            mask = torch.rand(number(90), number(90), generator=generator) < density
            yield mask
            yield mask.repeat_interleave(number(9), 0).repeat_interleave(number(9), 1)  # long runs
    yield square(100, 200, 500, height=700, width=900)


def from_rle(rle: dict) -> torch.Tensor:
    """Another way back, from the description of the format."""
    counts, number, shift = [], 0, 0
    for letter in rle["counts"]:
        piece = ord(letter) - 48
        number |= (piece & 31) << shift
        shift += 5
        if not piece & 32:
            if piece & 16:
                number -= 1 << shift
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number, shift = 0, 0
    height, width = rle["size"]
    runs = torch.arange(len(counts)) % 2 == 1
    return runs.repeat_interleave(torch.tensor(counts)).reshape(width, height).T


def test_rle_and_back():
    for mask in random_masks():
        assert torch.equal(from_rle(to_rle(mask)), mask)


def test_rle_of_masks_that_pycocotools_encoded():
    """Kept from pycocotools 2.0.11, for where it is not installed."""
    assert to_rle(square(5, 5, 10)) == KEPT_SQUARE
    y, x = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    assert to_rle((x - 30) ** 2 + 2 * (y - 20) ** 2 < 500) == KEPT_ELLIPSE
    assert to_rle(torch.ones(2, 3, dtype=torch.bool)) == {"size": [2, 3], "counts": "06"}


def test_rle_against_pycocotools():
    coco = pytest.importorskip("pycocotools.mask", reason="needs `pip install -r requirements-dev.txt`")
    for mask in random_masks():
        expected = coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        assert to_rle(mask) == {"size": expected["size"], "counts": expected["counts"].decode()}
        assert np.array_equal(coco.decode(to_rle(mask)), mask.numpy())


def test_masks_are_drawn_by_the_module_that_is_given(vqvae):
    """A learner's, say."""
    words = "".join(f"<seg{n:03d}>" for n in range(16))
    asked = []

    class Module:
        def mask_from_tokens(*given):
            asked.append(given)
            return "a mask"

    assert find_masks(f"{LOCS}{words} cat", boxes_of("cat"), vqvae, 80, 70, Module) == (["a mask"], [])
    [(model, tokens, box, height, width)] = asked
    assert model is vqvae and tokens.tolist() == list(range(16))
    assert (box, height, width) == (boxes_of("cat")[0]["box"], 70, 80)
