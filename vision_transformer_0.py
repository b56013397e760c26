"""The SigLIP vision tower of PaliGemma: a picture goes in, one vector per patch comes out.

What to notice:
  - it is the encoder of the first Vision Transformer (ViT), without what sums a picture up:
    no [CLS] token, and no pooling head. SigLIP was trained with an attention-pooling head;
    PaliGemma drops it and reads every patch;
  - as in ViT, each norm comes before attention or MLP (pre-norm), and one more after the last
    layer; every projection has a bias, unlike in the Gemma decoder;
  - two settings are the defaults of Flax, in which the tower was trained, and not PyTorch's:
    LayerNorm's eps is 1e-6 (not 1e-5), and GELU is the tanh approximation.

Letters in shapes: B batch, N patches (= image tokens), C width of the tower, H heads,
Hd size of a head (C = H * Hd), M width of the MLP, P side of a patch and S side of the
picture in pixels.

Sources: "An Image is Worth 16x16 Words" (Dosovitskiy et al. 2020, section 3.1) for the model,
"Sigmoid Loss for Language Image Pre-Training" (Zhai et al. 2023) for how it was trained,
"PaliGemma" (Beyer et al. 2024, section 3.1) for its use here.
Parameter names are the tensor names of google/paligemma-3b-pt-224 after `vision_tower.`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class VisionConfig:
    """Sizes of the vision tower; the comments give the values of the 3B model."""

    hidden_size: int              # C, 1152
    intermediate_size: int        # M, 4304
    num_hidden_layers: int        # 27
    num_attention_heads: int      # H, 16
    patch_size: int               # P, 14
    image_size: int = 224         # S; 448 and 896 in the larger checkpoints
    num_channels: int = 3         # red, green, blue
    layer_norm_eps: float = 1e-6

    @property
    def num_patches(self) -> int:
        """N: 256 for a picture of 224 pixels, 1024 for 448, 4096 for 896."""
        return (self.image_size // self.patch_size) ** 2


class VisionEmbeddings(nn.Module):
    """Cuts the picture into patches and turns each into a vector that knows its place.

    embeddings = patch_embedding(pixel_values) + position_embedding

    A convolution whose stride equals its kernel is one linear map from the P * P * 3 numbers
    of a patch to C. Attention by itself cannot tell where a patch lies, so a learned vector for
    its place is added to each.

    Input: float [B, 3, S, S], values from -1 to 1. Output: [B, N, C], patches row by row from
    the top left, in the dtype of the weights.
    Attributes: `patch_embedding`, weight [C, 3, P, P] and bias; `position_embedding`, weight
    [N, C].
    Source: ViT, section 3.1, equation 1 (without the class token).
    Exercise VisionEmbeddings. Lesson: docs/lessons/patches.md.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        # TODO 1. Make patch_embedding: a convolution from the channels of the picture to
        #         hidden_size, whose kernel is one patch and which moves by a whole patch, so that
        #         patches do not overlap.
        # TODO 2. Make position_embedding: a table with one learned vector of hidden_size for each
        #         patch.
        raise NotImplementedError("VisionEmbeddings is not done yet: python -m pytest -k VisionEmbeddings")

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # TODO 3. Cast the picture to the dtype of the convolution's weights (it comes in float32).
        # TODO 4. Embed the patches: [B, C, S/P, S/P], still laid out like a picture.
        # TODO 5. Lay the patches out in one row, left to right and top to bottom, with the width
        #         last: [B, N, C].
        # TODO 6. Add to each patch the vector of its place.
        raise NotImplementedError("VisionEmbeddings is not done yet: python -m pytest -k VisionEmbeddings")


class Attention(nn.Module):
    """Lets every patch gather information from every other patch.

    softmax(Q K^T / sqrt(Hd)) V, in H heads side by side. There is no mask, because nothing is
    predicted from left to right: every patch may look at every other.

    Input and output: [B, N, C], in the dtype of the weights.
    Attributes: `q_proj`, `k_proj`, `v_proj` and `out_proj`, weight [C, C] and bias each.
    Source: "Attention Is All You Need" (Vaswani et al. 2017), section 3.2.
    Exercise Attention. Lesson: docs/lessons/attention.md.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        # TODO 1. Keep the number of heads and the size of a head (hidden_size divided among the
        #         heads).
        # TODO 2. Make the four projections q_proj, k_proj, v_proj and out_proj: from hidden_size to
        #         hidden_size, with bias.
        raise NotImplementedError("Attention is not done yet: python -m pytest -k Attention")

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # TODO 3. Project to queries, keys and values; split the width into heads, and put the axis
        #         of heads before the patches: [B, H, N, Hd].
        # TODO 4. Score each query against each key, and divide by the root of the head's size:
        #         [B, H, N, N].
        # TODO 5. Turn the scores of each query into weights over the keys that add up to 1.
        # TODO 6. Average the values with these weights, lay the heads side by side again,
        #         [B, N, C], and apply the output projection.
        raise NotImplementedError("Attention is not done yet: python -m pytest -k Attention")


class MLP(nn.Module):
    """Works on each patch by itself, after attention has gathered what it needs.

    fc2(gelu(fc1(x))): widens C to M and narrows it back.

    Input and output: [B, N, C], in the dtype of the weights.
    Attributes: `fc1`, weight [M, C] and bias; `fc2`, weight [C, M] and bias.
    Source: ViT, section 3.1, equation 3; GELU by its tanh formula, with which SigLIP was trained.
    Exercise MLP. Lesson: docs/lessons/gates.md.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        # TODO 1. Make fc1, from hidden_size to intermediate_size, and fc2, back again, both with
        #         bias.
        raise NotImplementedError("MLP is not done yet: python -m pytest -k MLP")

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # TODO 2. Widen each patch with fc1.
        # TODO 3. Apply GELU by its tanh formula, not the exact one.
        # TODO 4. Narrow with fc2.
        raise NotImplementedError("MLP is not done yet: python -m pytest -k MLP")


class EncoderLayer(nn.Module):
    """One block of the tower: patches look at each other, then each is worked on alone.

    x = x + self_attn(layer_norm1(x));  x = x + mlp(layer_norm2(x))

    Input and output: [B, N, C], in the dtype of the weights; the input is left as it was.
    Attributes: `layer_norm1`, `self_attn`, `layer_norm2` and `mlp`; the norms take their eps
    from config.layer_norm_eps.
    Source: ViT, section 3.1, equations 2 and 3 (pre-norm).
    Exercise EncoderLayer. Lesson: docs/lessons/residual.md. Builds on: Attention, MLP.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        # TODO 1. Make the two norms, layer_norm1 and layer_norm2, of hidden_size with the eps of
        #         the config.
        # TODO 2. Make self_attn and mlp.
        raise NotImplementedError("EncoderLayer is not done yet: python -m pytest -k EncoderLayer")

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # TODO 3. Add to the input what attention makes of the normalized input; leave the input
        #         itself as it was.
        # TODO 4. Add to that what the MLP makes of it, after the second norm.
        raise NotImplementedError("EncoderLayer is not done yet: python -m pytest -k EncoderLayer")


class Encoder(nn.Module):
    """The stack of blocks, 27 of them in the 3B model: one look around is not enough.

    x = layers[i](x) for i = 0, 1, 2, ...

    Input and output: [B, N, C], in the dtype of the weights.
    Attributes: `layers`, an nn.ModuleList of config.num_hidden_layers blocks.
    Source: ViT, section 3.1.
    Exercise Encoder. Lesson: docs/lessons/residual.md. Builds on: EncoderLayer.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        # TODO 1. Make layers: a list of num_hidden_layers blocks, each one new, in a container
        #         whose modules torch sees.
        raise NotImplementedError("Encoder is not done yet: python -m pytest -k Encoder")

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # TODO 2. Send the features through the blocks, one after another.
        # TODO 3. Return what the last one makes.
        raise NotImplementedError("Encoder is not done yet: python -m pytest -k Encoder")


class VisionTransformer(nn.Module):
    """The whole tower: patches, blocks, and the norm that closes a pre-norm transformer.

    post_layernorm(encoder(embeddings(pixel_values)))

    Input: float [B, 3, S, S]. Output: [B, N, C], one feature per patch, in the dtype of the
    weights.
    Attributes: `embeddings`, `encoder`, and `post_layernorm`, whose eps is
    config.layer_norm_eps.
    Source: ViT, section 3.1, equation 4, here for every patch; PaliGemma, section 3.1.
    Exercise VisionTransformer. Lesson: docs/lessons/residual.md. Builds on: VisionEmbeddings,
    Encoder.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        # TODO 1. Make embeddings and encoder.
        # TODO 2. Make post_layernorm, of hidden_size with the eps of the config.
        raise NotImplementedError("VisionTransformer is not done yet: python -m pytest -k VisionTransformer")

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # TODO 3. Embed the pictures, and send the patches through the encoder.
        # TODO 4. Normalize every patch that comes out, and return them all.
        raise NotImplementedError("VisionTransformer is not done yet: python -m pytest -k VisionTransformer")


class VisionModel(nn.Module):
    """Holds the tower under the name that its tensors have in the checkpoint: `vision_model.`.

    vision_model(pixel_values), and nothing else: the class exists for the name.

    Input: float [B, 3, S, S]. Output: [B, N, C], in the dtype of the weights.
    Attributes: `vision_model`.
    Source: the tensor names of google/paligemma-3b-pt-224.
    Exercise VisionModel. Lesson: docs/lessons/siglip.md. Builds on: VisionTransformer.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        # TODO 1. Make the tower, under the name that the tensors in the checkpoint have.
        raise NotImplementedError("VisionModel is not done yet: python -m pytest -k VisionModel")

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # TODO 2. Send the pictures through it.
        # TODO 3. Return its features as they are.
        raise NotImplementedError("VisionModel is not done yet: python -m pytest -k VisionModel")
