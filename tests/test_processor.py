"""The processor gives the model what transformers' processor would give it, number for number.

A model that is fed slightly wrong pixels or ids answers slightly worse, and nobody can say why.
"""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models

from random_weights.small import gemma_like_tokenizer
from text_image_token_processor_1 import (
    PaliGemmaProcessor,
    add_image_tokens_to_prompt,
    normalize,
    process_images,
    rescale,
    resize,
)

PROMPTS = [
    "caption en",
    "",
    "detect cat ; dog",
    "this building is ",
    "  two  spaces",
    "first line\nsecond line\n",
    "<loc0012><loc1023> box",
    "où est le chat? 猫",
]


def picture(mode, width, height, seed=0):
    """Noise: its every pixel differs from its neighbors, so that any other interpolation shows."""
    random = np.random.default_rng(seed)
    rgb = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return rgb.quantize(16) if mode == "P" else rgb.convert(mode)


def siglip(image_size):
    """transformers' own preparation with PIL (its other one resizes by torchvision, a little otherwise)."""
    size = {"height": image_size, "width": image_size}
    return transformers.SiglipImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def assert_same_pixels(image, image_size):
    ours = process_images([image], image_size)
    theirs = siglip(image_size)(image, return_tensors="pt")["pixel_values"]
    assert ours.dtype == torch.float32 and ours.shape == theirs.shape == (1, 3, image_size, image_size)
    assert (ours - theirs).abs().max() <= 1e-6


# --- pictures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [224, 448])
@pytest.mark.parametrize("width, height", [(1, 1), (37, 500), (501, 23), (224, 224), (641, 479), (225, 223)])
def test_pictures_of_odd_sizes(width, height, image_size):
    """Wide, tall, tiny, shrunk and enlarged: squeezed into the square, never cropped."""
    assert_same_pixels(picture("RGB", width, height), image_size)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "1", "YCbCr", "HSV"])
def test_pictures_of_other_modes(mode):
    """Scans are gray or black and white, GIFs have palettes, print files are CMYK."""
    assert_same_pixels(picture(mode, 61, 47), 56)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_pictures_that_are_partly_transparent(mode):
    """Under transparent pixels files hold anything, often black: transformers shows white there."""
    image = picture("RGB", 61, 47).convert({"RGBA": "RGB", "LA": "L", "PA": "P"}[mode]).convert(mode)
    alpha = picture("L", 61, 47, seed=1)
    image.putalpha(alpha)
    assert_same_pixels(image, 56)


def test_palette_with_a_transparent_color():
    """A GIF or PNG of this kind has no alpha channel, but a transparent entry all the same."""
    image = picture("P", 61, 47)
    image.info["transparency"] = 3
    assert_same_pixels(image, 56)


def test_several_pictures_make_a_batch():
    """Pictures of different sizes and modes end in one tensor, in the order they were given."""
    images = [picture("L", 30, 20), picture("RGB", 20, 30), picture("CMYK", 9, 9)]
    together = process_images(images, 28)
    assert together.shape == (3, 3, 28, 28)
    for i, image in enumerate(images):
        assert torch.equal(together[i : i + 1], process_images([image], 28))


def test_each_step_of_the_preparation():
    """The steps by themselves, for someone who writes them one at a time."""
    image = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]]], dtype=np.uint8))
    square = resize(image, 4)
    assert square.shape == (4, 4, 3) and square.dtype == np.uint8
    assert square[0, 0].tolist() == square[3, 0].tolist() == [255, 0, 0]  # red stays on the left
    assert square[0, 3].tolist() == [0, 255, 0]
    scaled = rescale(np.array([0, 51, 255], dtype=np.uint8))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [0, 0.2, 1], atol=1e-7)
    centred = normalize(np.array([0, 0.5, 1], dtype=np.float32))
    assert centred.dtype == np.float32 and centred.tolist() == [-1, 0, 1]
    np.testing.assert_allclose(normalize(np.float32([3]), mean=1, std=4), [0.5])


# --- ids --------------------------------------------------------------------------------------------


def test_prompt_with_image_tokens():
    """Images, then <bos>, the prompt as it is, and the newline that the model was trained on."""
    assert add_image_tokens_to_prompt("detect cat", 3) == "<image><image><image><bos>detect cat\n"
    assert add_image_tokens_to_prompt("", 1) == "<image><bos>\n"


def their_processor(num_image_tokens, image_size):
    image_processor = siglip(image_size)
    image_processor.image_seq_length = num_image_tokens
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=gemma_like_tokenizer(),
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="left",
    )
    return transformers.PaliGemmaProcessor(image_processor, tokenizer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own use of NumPy
@pytest.mark.parametrize("prompts", [*([prompt] for prompt in PROMPTS), PROMPTS])
def test_ids_equal_transformers(prompts):
    """Alone and in one batch, padded on the left: one id too many and every answer is another."""
    images = [picture("RGB", 20 + i, 30) for i in range(len(prompts))]
    ours = PaliGemmaProcessor(gemma_like_tokenizer(), 9, 12)(prompts, images)
    theirs = their_processor(9, 12)(
        text=["<image>" + prompt for prompt in prompts], images=images, padding=True, return_tensors="pt"
    )
    assert ours.keys() == {"pixel_values", "input_ids", "attention_mask"}
    for name in ("input_ids", "attention_mask"):
        assert ours[name].dtype == torch.int64
        assert ours[name].tolist() == theirs[name].tolist()
    assert (ours["pixel_values"] - theirs["pixel_values"]).abs().max() <= 1e-6


def test_layout_of_the_ids():
    """Spelled out once, for no library's opinion is needed: padding, images, <bos>, prompt, newline."""
    tokenizer = gemma_like_tokenizer()
    processor = PaliGemmaProcessor(tokenizer, 2, 12)
    image, newline = tokenizer.token_to_id("<image>"), tokenizer.token_to_id("\n")
    a, c = tokenizer.token_to_id("a"), tokenizer.token_to_id("c")
    batch = processor(["a", "aac"], [picture("RGB", 12, 12)] * 2)
    assert batch["input_ids"].tolist() == [
        [0, 0, image, image, 2, a, newline],
        [image, image, 2, a, a, c, newline],
    ]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]
    assert processor.image_token_id == image and processor.newline_token_id == newline
    assert processor.bos_token_id == 2 and processor.pad_token_id == 0


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("num_prompts, num_images", [(1, 2), (2, 1), (0, 1)])
def test_one_prompt_for_each_picture(num_prompts, num_images):
    """To pair them by guessing would answer the wrong question about a picture."""
    processor = PaliGemmaProcessor(gemma_like_tokenizer(), 9, 12)
    with pytest.raises(ValueError, match="one prompt for each"):
        processor(["caption en"] * num_prompts, [picture("RGB", 12, 12)] * num_images)


@pytest.mark.parametrize("prompt", ["<image>", "what is in <image>?"])
def test_no_image_token_in_a_prompt(prompt):
    """It would be taken for a patch of the picture."""
    processor = PaliGemmaProcessor(gemma_like_tokenizer(), 9, 12)
    with pytest.raises(ValueError, match="must not contain <image>"):
        processor(["caption en", prompt], [picture("RGB", 12, 12)] * 2)


@pytest.mark.parametrize("missing", ["<image>", "<bos>", "<pad>", "\n"])
def test_a_tokenizer_of_another_model(missing):
    """Gemma's own tokenizer has no <image>: refused at once, for its ids would mean other words."""
    words = {word: i for i, word in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "\n", "<image>"])}
    del words[missing]
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    with pytest.raises(ValueError, match="not PaliGemma's"):
        PaliGemmaProcessor(tokenizer, 9, 12)
