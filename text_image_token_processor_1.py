"""What PaliGemma is given: a picture becomes numbers, a prompt becomes token ids.

What to notice:
  - the picture is squeezed into a square of the size that the tower was trained on (224, 448
    or 896 pixels), without cropping and without keeping its proportions;
  - the text begins with one `<image>` per patch: placeholders, whose embeddings the model
    replaces with the features of the picture;
  - `<bos>` comes after the image tokens, not at the very start;
  - a newline ends the prompt and is part of it: the answer begins after it;
  - a batch is padded on the left, so that all answers begin at the same position.

    <image> <image> ... <image> <bos> detect ▁cat \\n | <loc0123> ... <eos>
    `------- N times -------'   `----- prompt -----' | `---- answer ----'

Letters in shapes: B batch, N patches (= image tokens), T tokens of the sequence, S side of
the picture in pixels.

Source: "PaliGemma" (Beyer et al. 2024), section 3.1 and figure 2.
"""

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

IMAGE_TOKEN, BOS_TOKEN, PAD_TOKEN, NEWLINE = "<image>", "<bos>", "<pad>", "\n"


def add_image_tokens_to_prompt(prompt: str, num_image_tokens: int) -> str:
    """Writes the text for the tokenizer: placeholders for the picture, then the prompt.

    `<image>` N times, then `<bos>`, the prompt and a newline, with nothing in between.

    Input: the prompt, and N. Output: the text, as one string.
    Example: ("detect cat", 3) -> "<image><image><image><bos>detect cat\\n"
    Source: PaliGemma, section 3.1.
    Exercise add_image_tokens_to_prompt. Lesson: docs/lessons/joining.md.
    """
    return f"{IMAGE_TOKEN * num_image_tokens}{BOS_TOKEN}{prompt}{NEWLINE}"


def resize(image: Image.Image, image_size: int) -> np.ndarray:
    """Squeezes a picture into the square that the tower was trained on.

    Bicubic interpolation, as in the hub's processor (pretraining varied the method). Pillow's
    also smooths while it shrinks. Proportions are not kept: the model sees a wide picture
    squeezed, as in training, and a box found in it scales back exactly.

    Input: an RGB picture of any size, left as it was, and S. Output: uint8 array [S, S, 3], rows
    from top to bottom.
    Source: PaliGemma, section 3.1 for the square, 3.2.6 for the varied method; the hub's
    preprocessor_config.json for bicubic.
    Exercise resize. Lesson: docs/lessons/patches.md.
    """
    return np.array(image.resize((image_size, image_size), resample=Image.Resampling.BICUBIC))


def rescale(image: np.ndarray, scale: float = 1 / 255) -> np.ndarray:
    """Turns bytes from 0 to 255 into numbers from 0 to 1, which a network can work with.

    image * scale

    Input: uint8 array, any shape. Output: float32, the same shape.
    Source: big_vision, where SigLIP and PaliGemma were trained: with normalize,
    `value_range(-1, 1)`.
    Exercise rescale. Lesson: docs/lessons/patches.md.
    """
    return image.astype(np.float32) * np.float32(scale)


def normalize(image: np.ndarray, mean: float = 0.5, std: float = 0.5) -> np.ndarray:
    """Centers the values, because a network learns best from inputs around zero.

    (image - mean) / std: with 0.5 and 0.5, from [0, 1] to [-1, 1], the same for every color.

    Input and output: float32 array, any shape; the input is left as it was.
    Source: big_vision, where SigLIP and PaliGemma were trained: `value_range(-1, 1)`.
    Exercise normalize. Lesson: docs/lessons/patches.md. Builds on: rescale.
    """
    return (image - np.float32(mean)) / np.float32(std)


def process_images(images: list[Image.Image], image_size: int) -> torch.Tensor:
    """Prepares pictures of any size and mode for the vision tower.

    Converted to RGB with transparent parts on white, resized, rescaled, normalized, and the
    channels moved to the front.

    Input: B pictures, left as they were, and S. Output: float32 tensor [B, 3, S, S], values from
    -1 to 1.
    Source: as rescale and normalize; channels first is what nn.Conv2d reads. White is this
    project's choice.
    Exercise process_images. Lesson: docs/lessons/patches.md. Builds on: resize, rescale, normalize.
    """
    prepared = []
    for image in images:
        if image.has_transparency_data:
            # Under a transparent part a file may hold any color, often black. Show white there.
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        pixels = resize(image.convert("RGB"), image_size)             # [S, S, 3]
        pixels = normalize(rescale(pixels))
        prepared.append(pixels.transpose(2, 0, 1))                    # [3, S, S]
    return torch.from_numpy(np.stack(prepared))


class PaliGemmaProcessor:
    """Prepares a batch of pictures with a prompt each, and refuses a wrong tokenizer at once.

    id = tokenizer.token_to_id(token): the row of a token in the embedding table.

    Input: a tokenizer, N and S.
    Attributes: `tokenizer`, `num_image_tokens` (N), `image_size` (S), and the ids of the
    special tokens: `image_token_id`, `bos_token_id`, `pad_token_id`, `newline_token_id`.
    Raises ValueError if the tokenizer lacks one of the four.
    Source: PaliGemma, section 3.1.
    Exercise PaliGemmaProcessor. Lesson: docs/lessons/joining.md.
    """

    def __init__(self, tokenizer: Tokenizer, num_image_tokens: int, image_size: int):
        self.tokenizer = tokenizer
        self.num_image_tokens = num_image_tokens
        self.image_size = image_size
        self.image_token_id = self._token_id(IMAGE_TOKEN)
        self.bos_token_id = self._token_id(BOS_TOKEN)
        self.pad_token_id = self._token_id(PAD_TOKEN)
        self.newline_token_id = self._token_id(NEWLINE)

    def _token_id(self, token: str) -> int:
        token_id = self.tokenizer.token_to_id(token)
        if token_id is None:
            raise ValueError(f"the tokenizer has no {token!r} token: it is not PaliGemma's")
        return token_id

    def __call__(self, text: list[str], images: list[Image.Image]) -> dict[str, torch.Tensor]:
        """Turns prompts and pictures, one of each per row, into the tensors of a batch.

        row = <pad> ... <pad> <image> * N <bos> prompt \\n, as long as the longest one

        Input: B prompts, and B pictures of any size and mode.
        Returns a dict: `pixel_values` float32 [B, 3, S, S], `input_ids` int64 [B, T] padded on
        the left with `<pad>`, and `attention_mask` int64 [B, T], 1 for a token and 0 for padding.
        Raises ValueError if the lists differ in length or a prompt contains `<image>`.
        Source: PaliGemma, section 3.1 and figure 2.
        Exercise PaliGemmaProcessor.__call__. Lesson: docs/lessons/joining.md. Builds on:
        add_image_tokens_to_prompt, process_images, PaliGemmaProcessor.
        """
        if len(text) != len(images):
            raise ValueError(f"{len(text)} prompts for {len(images)} pictures: give one prompt for each")
        if any(IMAGE_TOKEN in prompt for prompt in text):
            raise ValueError(f"a prompt must not contain {IMAGE_TOKEN}: the processor puts it there")

        rows = []
        for prompt in text:
            prompt = add_image_tokens_to_prompt(prompt, self.num_image_tokens)
            # The text already spells out its special tokens: the tokenizer must not add any.
            rows.append(self.tokenizer.encode(prompt, add_special_tokens=False).ids)

        T = max(len(row) for row in rows)
        input_ids = torch.tensor([[self.pad_token_id] * (T - len(row)) + row for row in rows])
        attention_mask = torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in rows])
        return {
            "pixel_values": process_images(images, self.image_size),
            "input_ids": input_ids,
            "attention_mask": attention_mask,
        }
