"""The mask codec of PaliGemma: 16 words for a shape, and the shape that 16 words stand for.

A language model writes tokens, not pixels. So each mask is first put into words of a language made
for shapes: a VQ-VAE, trained beforehand on masks alone, with a codebook of 128 codewords. PaliGemma
learns to write the words as `<seg000>` to `<seg127>`; the decoder here reads them.

    <loc0256><loc0102><loc0871><loc0640> <seg017><seg101> ... <seg004> cat
    `------------- box -------------'  `------- 16 words ------'
       where it is, and how large          its shape in the box

What to notice, next to an autoencoder for pictures:
  - the words say only the shape: cut to its box and squeezed to 64 x 64, so a mouse and an
    elephant may have the same 16 words; where and how large is said by the box;
  - the bottleneck is discrete: 16 numbers from 0 to 127, which is 14 bytes;
  - the words stand in a 4 x 4 grid, row by row, and each is read together with its neighbors:
    the same word draws one thing next to one word and another next to another;
  - the decoder answers in numbers from about -1 (outside) to 1 (inside): the border is at 0;
  - there is no norm and no attention: convolutions, ReLU and two residual blocks on each side.

Letters in shapes: B batch, E size of a codeword, M channels of the residual blocks, h and w height
and width of a picture in pixels. A word is a `<seg>` token; its codeword is the vector that it
stands for. `tokens` are the numbers in `<seg000>` to `<seg127>`, not ids of PaliGemma's vocabulary.

Sources: "Neural Discrete Representation Learning" (van den Oord et al. 2017, section 3) for the
VQ-VAE; "All in Tokens" (Ning et al. 2023, section 3) for masks in 16 words; "PaliGemma" (Beyer
et al. 2024, section 3.2.5) for its use here.
Parameter names are the array names of vae-oid.npz, which PaliGemma was trained with.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

MASK_SIDE = 64                    # a shape is drawn on 64 x 64 points
GRID_SIDE = 4                     # its words stand in a grid of 4 x 4


@dataclass
class MaskConfig:
    """Sizes of the VQ-VAE; the values after each name are those of vae-oid.npz."""

    embedding_dim: int            # E, 512
    hidden_dim: int               # 16, channels next to the mask: they double at every halving
    num_embeddings: int = 128     # codewords, one for each <seg> token

    @property
    def channels(self) -> list[int]:
        """16, 32, 64 and M = 128 for a side of 32, 16, 8 and 4."""
        return [self.hidden_dim * 2**i for i in range(4)]


class ResidualBlock(nn.Module):
    """Lets each place of the grid look at its neighbors, and corrects what is there by that.

    x + net(x), with net: 3 x 3 convolution, ReLU, 3 x 3 convolution, ReLU, 1 x 1 convolution.

    Two 3 x 3 convolutions see two places far in each direction: in a 4 x 4 grid, most of the
    shape. The sum keeps the input, so the block has to learn only what to change.

    Input and output: float [B, M, 4, 4]; the input is left as it was.
    Attributes: `net`, an nn.Sequential with the convolutions at 0, 2 and 4, all M wide and with
    biases; a side keeps its length.
    Source: "Deep Residual Learning" (He et al. 2015), section 3.1.
    Exercise ResidualBlock. Lesson: docs/lessons/masks.md.
    """

    def __init__(self, channels: int):
        super().__init__()
        # TODO 1. Put three convolutions, all as wide as they are given, and a ReLU between each two
        #         into net: two of 3 x 3 that keep the side as long as it is, and one of 1 x 1.
        raise NotImplementedError("ResidualBlock is not done yet: python -m pytest -k ResidualBlock")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # TODO 2. Send the input through net.
        # TODO 3. Add the input to what comes out, without changing it.
        raise NotImplementedError("ResidualBlock is not done yet: python -m pytest -k ResidualBlock")


def make_decoder(config: MaskConfig) -> nn.Sequential:
    """Builds the half that PaliGemma's answers need: from a grid of codewords to a shape.

    1 x 1 convolution (E -> M), ReLU, two residual blocks, then four times a transposed convolution
    (4 x 4, stride 2, padding 1) and ReLU, then a 1 x 1 convolution to one channel.

    Each transposed convolution doubles the side, 4 -> 8 -> 16 -> 32 -> 64. The first keeps the
    width, the others halve it: 128, 64, 32 and 16 channels come out.

    Output: a network from float [B, E, 4, 4] to [B, 1, 64, 64]. Its layers with weights are
    at 0, 2, 3, 4, 6, 8, 10 and 12, as in the names `decoder.0.weight` ... `decoder.12.bias`.
    Source: All in Tokens, section 3.
    Exercise make_decoder. Lesson: docs/lessons/masks.md. Builds on: ResidualBlock.
    """
    # TODO 1. Begin with a 1 x 1 convolution from E to M channels, a ReLU, and two residual blocks.
    # TODO 2. Append a transposed convolution that doubles the side, and a ReLU, four times; the
    #         first of them keeps the width, and each of the others halves it.
    # TODO 3. End with a 1 x 1 convolution to a single channel, and nothing behind it.
    # TODO 4. Return it all as one network whose layers are counted from 0.
    raise NotImplementedError("make_decoder is not done yet: python -m pytest -k make_decoder")


def make_encoder(config: MaskConfig) -> nn.Sequential:
    """Builds the other half, which made the answers that PaliGemma was trained on.

    Four times a convolution (4 x 4, stride 2, padding 1) and ReLU, then two residual blocks, then
    a 1 x 1 convolution (M -> E).

    Each of the first four halves the side, 64 -> 32 -> 16 -> 8 -> 4, with 16, 32, 64 and 128
    channels coming out. So a place of the grid stands for 16 x 16 points and sees well beyond.

    Output: a network from float [B, 1, 64, 64] to [B, E, 4, 4]. Its layers with weights are
    at 0, 2, 4, 6, 8, 9 and 10, as in the names `encoder.0.weight` ... `encoder.10.bias`.
    Source: All in Tokens, section 3.
    Exercise make_encoder. Lesson: docs/lessons/masks.md. Builds on: ResidualBlock.
    """
    # TODO 1. Append a convolution that halves the side, and a ReLU, four times, from one channel to
    #         M.
    # TODO 2. Append two residual blocks.
    # TODO 3. End with a 1 x 1 convolution to E channels, and return it all as one network.
    raise NotImplementedError("make_encoder is not done yet: python -m pytest -k make_encoder")


class VectorQuantizer(nn.Module):
    """The codebook: 128 vectors, and the way from numbers to vectors and back.

    Each codeword is a point among the encoder's outputs. Training moves it to the mean of the
    outputs that it is nearest to, so frequent pieces of outlines get words of their own.

    Attributes: `_embedding`, float [128, E], one codeword in each row.
    Source: VQ-VAE, section 3.1.
    """

    def __init__(self, config: MaskConfig):
        super().__init__()
        self._embedding = nn.Parameter(torch.randn(config.num_embeddings, config.embedding_dim))

    def look_up(self, tokens: torch.Tensor) -> torch.Tensor:
        """Puts the codeword of each token into its place of the grid.

        grid[b, :, i, j] = _embedding[tokens[b, 4 i + j]]

        Input: tokens int64 [B, 16], row by row from the top left. Output: float [B, E, 4, 4].
        Source: All in Tokens, section 3.
        Exercise VectorQuantizer.look_up. Lesson: docs/lessons/masks.md.
        """
        # TODO 1. Take the codeword of each token out of the codebook.
        # TODO 2. Move the E numbers of a codeword to where a convolution has its channels.
        # TODO 3. Cut the 16 places into four rows of four.
        raise NotImplementedError(
            "VectorQuantizer.look_up is not done yet: "
            "python -m pytest -k VectorQuantizer.look_up"
        )

    def nearest(self, features: torch.Tensor) -> torch.Tensor:
        """Finds for each place of the grid the codeword that is most like it.

        token = argmin over k of |f - e_k|^2 = |f|^2 - 2 f . e_k + |e_k|^2, with e_k codeword k

        Input: features float [B, E, 4, 4], from the encoder. Output: tokens int64 [B, 16], row by
        row from the top left.
        Source: VQ-VAE, section 3.1, equation 1.
        Exercise VectorQuantizer.nearest. Lesson: docs/lessons/masks.md.
        """
        # TODO 1. Make a list of the 16 places of each grid, row by row, each with its E numbers.
        # TODO 2. Compute the squared distance of each place to each codeword; what is the same for
        #         all codewords may be left out.
        # TODO 3. Return for each place the number of the nearest one.
        raise NotImplementedError(
            "VectorQuantizer.nearest is not done yet: "
            "python -m pytest -k VectorQuantizer.nearest"
        )


class MaskVQVAE(nn.Module):
    """The whole codec: encoder, codebook and decoder under the names that the weights carry.

    Attributes: `encoder` and `decoder`, from make_encoder and make_decoder; `_vq_vae`, a
    VectorQuantizer.
    Source: VQ-VAE, section 3; All in Tokens, section 3.
    """

    def __init__(self, config: MaskConfig):
        super().__init__()
        self.encoder = make_encoder(config)
        self._vq_vae = VectorQuantizer(config)
        self.decoder = make_decoder(config)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Draws the shapes that tokens stand for.

        decoder(look_up(tokens)), without the axis of its one channel.

        Input: tokens int64 [B, 16]. Output: float [B, 64, 64], about -1 outside and 1 inside.
        Source: VQ-VAE, section 3.
        Exercise MaskVQVAE.decode. Lesson: docs/lessons/masks.md. Builds on: make_decoder,
        VectorQuantizer.look_up.
        """
        # TODO 1. Look the codewords up.
        # TODO 2. Let the decoder draw them.
        # TODO 3. Take the axis of the one channel off.
        raise NotImplementedError("MaskVQVAE.decode is not done yet: python -m pytest -k MaskVQVAE.decode")

    def encode(self, shapes: torch.Tensor) -> torch.Tensor:
        """Finds the tokens that stand for shapes.

        nearest(encoder(2 shapes - 1)): the encoder was trained on numbers from -1 to 1.

        Input: shapes float [B, 64, 64], 0 outside to 1 inside. Output: tokens int64 [B, 16].
        Source: VQ-VAE, section 3.
        Exercise MaskVQVAE.encode. Lesson: docs/lessons/masks.md. Builds on: make_encoder,
        VectorQuantizer.nearest.
        """
        # TODO 1. Bring the shapes from 0 to 1 to -1 to 1.
        # TODO 2. Give them an axis for their one channel, and send them through the encoder.
        # TODO 3. Find the nearest codewords.
        raise NotImplementedError("MaskVQVAE.encode is not done yet: python -m pytest -k MaskVQVAE.encode")


def resize_shapes(shapes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Stretches or shrinks shapes, without keeping their proportions.

    Bilinear; where it shrinks, it also smooths (antialiasing): a new point is a mean over all the
    old ones that it stands for. Without that, a thin line would vanish between two points.

    Input: float [B, any height, any width]. Output: float [B, height, width], the same dtype.
    What is lined up is the edges of both pictures, not the centers of their corner points.
    Source: PaliGemma's training code for the way to 64 x 64, its evaluation for the way back.
    Exercise resize_shapes. Lesson: docs/lessons/masks.md.
    """
    # TODO 1. Give the shapes an axis for a channel, as PyTorch's function for pictures wants it.
    # TODO 2. Bring them to the new height and width, bilinearly, smoothed where they shrink.
    # TODO 3. Take the axis of the channel off again.
    raise NotImplementedError("resize_shapes is not done yet: python -m pytest -k resize_shapes")


def mask_from_tokens(
    vqvae: MaskVQVAE, tokens: torch.Tensor, box: tuple[float, float, float, float], height: int, width: int
) -> torch.Tensor:
    """Puts the shape that an answer's 16 tokens stand for into the answer's box.

    The box in whole pixels (rounded); in it, decode(tokens) stretched to its size, inside if > 0;
    outside the box nothing.

    The border is looked for after stretching: between two points of the 64 x 64 it runs smoothly,
    where a mask that was cut off at 0 before would be stretched into steps.

    Input: tokens int64 [16]; box (x_min, y_min, x_max, y_max) in pixels; height and width of the
    picture. What of the box lies beyond the picture's edge is cut off; of a box without a pixel in
    the picture nothing is left. Output: bool [h, w].
    Source: PaliGemma's evaluation code for RefCOCO. (It rounds down here and rounds to the nearest
    when it makes training data. Here it is to the nearest both times.)
    Exercise mask_from_tokens. Lesson: docs/lessons/masks.md. Builds on: MaskVQVAE.decode,
    resize_shapes.
    """
    # TODO 1. Round the edges of the box, and find the part of it that lies in the picture.
    # TODO 2. Begin with a mask of the picture's size in which nothing is inside.
    # TODO 3. If a pixel of the box is in the picture, decode the shape, and stretch it to the size
    #         of the whole box.
    # TODO 4. Put what is above 0, of the part that lies in the picture, into its place.
    raise NotImplementedError("mask_from_tokens is not done yet: python -m pytest -k mask_from_tokens")


def tokens_from_mask(
    vqvae: MaskVQVAE, mask: torch.Tensor, box: tuple[float, float, float, float]
) -> torch.Tensor:
    """Says a mask in 16 tokens: how answers to `segment` are made for training.

    encode(the mask, cut to the box in whole pixels (rounded), resized to 64 x 64)

    Input: mask bool [h, w]; box (x_min, y_min, x_max, y_max) in pixels, tight around it.
    Output: tokens int64 [16].
    Raises ValueError if the box holds no pixel or does not lie in the picture.
    Source: PaliGemma's training code for RefCOCO; All in Tokens, section 3.
    Exercise tokens_from_mask. Lesson: docs/lessons/masks.md. Builds on: MaskVQVAE.encode,
    resize_shapes.
    """
    # TODO 1. Round the edges of the box.
    # TODO 2. Raise ValueError if it holds no pixel, or does not lie in the picture.
    # TODO 3. Cut the mask to the box, as numbers from 0 to 1, and resize it to 64 x 64.
    # TODO 4. Encode it, and return the tokens of this one shape.
    raise NotImplementedError("tokens_from_mask is not done yet: python -m pytest -k tokens_from_mask")
