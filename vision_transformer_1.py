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
        self.patch_embedding = nn.Conv2d(
            in_channels=config.num_channels,
            out_channels=config.hidden_size,
            kernel_size=config.patch_size,
            stride=config.patch_size,
        )
        self.position_embedding = nn.Embedding(config.num_patches, config.hidden_size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # Pictures are prepared in float32; the tower's weights may be bfloat16.
        pixel_values = pixel_values.to(self.patch_embedding.weight.dtype)
        patch_embeds = self.patch_embedding(pixel_values)             # [B, C, S/P, S/P]
        patch_embeds = patch_embeds.flatten(2).transpose(1, 2)        # [B, N, C]
        return patch_embeds + self.position_embedding.weight          # [B, N, C] + [N, C]


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
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        B, N, C = hidden_states.shape
        # [B, N, C] -> [B, N, H, Hd] -> [B, H, N, Hd]
        query = self.q_proj(hidden_states).view(B, N, self.num_heads, self.head_dim).transpose(1, 2)
        key = self.k_proj(hidden_states).view(B, N, self.num_heads, self.head_dim).transpose(1, 2)
        value = self.v_proj(hidden_states).view(B, N, self.num_heads, self.head_dim).transpose(1, 2)

        # (B, H, N, N) = (B, H, N, Hd) @ (B, H, Hd, N)
        scores = query @ key.transpose(2, 3) * self.head_dim**-0.5
        # In float32, as in transformers' SigLIP. PyTorch's bfloat16 softmax computes in float32 inside
        # anyway: without the dtype, these attention weights would differ only in a rare last bit.
        weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        # (B, H, N, Hd) = (B, H, N, N) @ (B, H, N, Hd)
        attended = weights @ value
        return self.out_proj(attended.transpose(1, 2).reshape(B, N, C))


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
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(hidden_states), approximate="tanh"))


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
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states))
        hidden_states = hidden_states + self.mlp(self.layer_norm2(hidden_states))
        return hidden_states


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
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


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
        self.embeddings = VisionEmbeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        hidden_states = self.embeddings(pixel_values)
        hidden_states = self.encoder(hidden_states)
        return self.post_layernorm(hidden_states)


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
        self.vision_model = VisionTransformer(config)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.vision_model(pixel_values)
