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
    # TODO 1. Squeeze the picture to image_size in both directions, with bicubic interpolation, and
    #         without cutting anything off.
    # TODO 2. Turn the result into an array of bytes, one row of the picture after another.
    # TODO 3. Return the array; the picture that came in stays as it was.
    raise NotImplementedError("resize is not done yet: python -m pytest -k resize")


def rescale(image: np.ndarray, scale: float = 1 / 255) -> np.ndarray:
    """Turns bytes from 0 to 255 into numbers from 0 to 1, which a network can work with.

    image * scale

    Input: uint8 array, any shape. Output: float32, the same shape.
    Source: big_vision, where SigLIP and PaliGemma were trained: with normalize,
    `value_range(-1, 1)`.
    Exercise rescale. Lesson: docs/lessons/patches.md.
    """
    # TODO 1. Turn the bytes into float32 first.
    # TODO 2. Multiply by scale, in float32 too.
    # TODO 3. Return a new array of the same shape.
    raise NotImplementedError("rescale is not done yet: python -m pytest -k rescale")


def normalize(image: np.ndarray, mean: float = 0.5, std: float = 0.5) -> np.ndarray:
    """Centers the values, because a network learns best from inputs around zero.

    (image - mean) / std: with 0.5 and 0.5, from [0, 1] to [-1, 1], the same for every color.

    Input and output: float32 array, any shape; the input is left as it was.
    Source: big_vision, where SigLIP and PaliGemma were trained: `value_range(-1, 1)`.
    Exercise normalize. Lesson: docs/lessons/patches.md. Builds on: rescale.
    """
    # TODO 1. Subtract mean from every value.
    # TODO 2. Divide by std.
    # TODO 3. Stay in float32, and return a new array.
    raise NotImplementedError("normalize is not done yet: python -m pytest -k normalize")


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
    # TODO 1. If a picture has transparent parts, lay it on a white background of its size.
    # TODO 2. Convert each picture to one with three color channels, whatever its mode.
    # TODO 3. Bring it to image_size, to values from 0 to 1, and from there to -1 to 1.
    # TODO 4. Move the channels to the front: [3, S, S].
    # TODO 5. Stack the pictures into one batch, and make it a tensor.
    raise NotImplementedError("process_images is not done yet: python -m pytest -k process_images")


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
        # TODO 1. Keep the tokenizer, the number of image tokens and the size of the pictures.
        # TODO 2. Look up the ids of the four special tokens with _token_id, and keep each under its
        #         name.
        raise NotImplementedError(
            "PaliGemmaProcessor is not done yet: "
            "python -m pytest -k PaliGemmaProcessor"
        )

    def _token_id(self, token: str) -> int:
        # TODO 3. Ask the tokenizer for the id of the token.
        # TODO 4. If it has no such token, raise a ValueError that says so; otherwise return the id.
        raise NotImplementedError(
            "PaliGemmaProcessor is not done yet: "
            "python -m pytest -k PaliGemmaProcessor"
        )

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
        # TODO 1. Refuse, with a ValueError, lists of different lengths and a prompt that contains
        #         `<image>`.
        # TODO 2. Write each prompt with its image tokens, and turn it into ids; the text already
        #         spells out its special tokens, so the tokenizer must not add any.
        # TODO 3. Find the length of the longest row, T. Pad the shorter ones to T on the left with
        #         the padding id.
        # TODO 4. Make the attention mask: 0 where you padded, 1 elsewhere.
        # TODO 5. Prepare the pictures, and return the three tensors in a dict.
        raise NotImplementedError(
            "PaliGemmaProcessor.__call__ is not done yet: "
            "python -m pytest -k PaliGemmaProcessor.__call__"
        )
