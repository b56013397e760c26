"""The same model as the reference files, computed as training wants it: whole batches, no cache.

What is different is only how, not what (tests/test_train_tiny.py holds both against each other):
  - the weights come as a dict of tensors, so that they may be bfloat16 copies of float32 ones;
  - rows are padded on the right, so that all have their tokens at the same positions;
  - the last layer answers only for the text: nobody reads what it makes of the patches;
  - one key/value head serves all query heads without being repeated;
  - each layer is a plain function of tensors, which torch.compile can make one piece of.

Letters in shapes: B pictures, R rows (prompts with answers), N patches (= image tokens), T tokens of
a row (picture and text), H heads, Hd size of a head, C width of the tower, D width of the decoder.
"""

import shutil
import sys
import time

import torch
import torch.nn.functional as F

LOWEST = -1e9  # the score of what must not be looked at


def gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU by its tanh formula; tanh(u) = 2 sigmoid(2 u) - 1, and sigmoid is several times as quick."""
    return x * torch.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


# -- The tower ------------------------------------------------------------------------------------

TOWER_WEIGHTS = tuple(
    f"{name}.{kind}"
    for name in (
        "layer_norm1", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
        "layer_norm2", "mlp.fc1", "mlp.fc2",
    )
    for kind in ("weight", "bias")
)  # fmt: skip


def tower_layer(x: torch.Tensor, num_heads: int, eps: float, *weights: torch.Tensor) -> torch.Tensor:
    """vision_transformer_1.EncoderLayer: [B, N, C] -> [B, N, C]. Weights as in TOWER_WEIGHTS."""
    w = dict(zip(TOWER_WEIGHTS, weights, strict=True))
    B, N, C = x.shape
    normed = F.layer_norm(x, (C,), w["layer_norm1.weight"], w["layer_norm1.bias"], eps)
    query, key, value = (
        F.linear(normed, w[f"self_attn.{name}.weight"], w[f"self_attn.{name}.bias"])
        .view(B, N, num_heads, C // num_heads)
        .transpose(1, 2)
        for name in ("q_proj", "k_proj", "v_proj")
    )
    scores = query @ key.transpose(2, 3) * (C // num_heads) ** -0.5
    attended = F.softmax(scores, dim=-1) @ value
    attended = attended.transpose(1, 2).reshape(B, N, C)
    x = x + F.linear(attended, w["self_attn.out_proj.weight"], w["self_attn.out_proj.bias"])
    normed = F.layer_norm(x, (C,), w["layer_norm2.weight"], w["layer_norm2.bias"], eps)
    hidden = gelu(F.linear(normed, w["mlp.fc1.weight"], w["mlp.fc1.bias"]))
    return x + F.linear(hidden, w["mlp.fc2.weight"], w["mlp.fc2.bias"])


# -- The decoder ----------------------------------------------------------------------------------

DECODER_WEIGHTS = (
    "input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight",
    "self_attn.v_proj.weight", "self_attn.o_proj.weight", "post_attention_layernorm.weight",
    "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
)  # fmt: skip


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    x32 = x.float()
    normed = x32 * torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + eps)
    return (normed * (1 + weight.float())).to(x.dtype)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """[R, T, H, Hd], and the angles [T, 1, Hd / 2] of each pair (x[i], x[i + Hd/2])."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def decoder_layer(
    x: torch.Tensor,
    prefix: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    first: int,
    eps: float,
    *weights: torch.Tensor,
) -> torch.Tensor:
    """decoder_1.GemmaDecoderLayer: [R, T, D] -> [R, T - first, D], for the tokens from `first` on.

    `prefix` int64 [R]: how many tokens of a row may be looked at by all; what comes later is seen only
    from itself on. (So padding on the right is seen by padding alone.) Weights as in DECODER_WEIGHTS.
    """
    w = dict(zip(DECODER_WEIGHTS, weights, strict=True))
    R, T, D = x.shape
    key_weight = w["self_attn.k_proj.weight"]
    Hd = len(key_weight)
    H = len(w["self_attn.q_proj.weight"]) // Hd
    normed = rms_norm(x, w["input_layernorm.weight"], eps)
    key = rotated(F.linear(normed, key_weight)[:, :, None], cos, sin)[:, :, 0]  # [R, T, Hd]
    value = F.linear(normed, w["self_attn.v_proj.weight"])
    x = x[:, first:]
    query = F.linear(normed[:, first:], w["self_attn.q_proj.weight"]).view(R, T - first, H, Hd)
    query = rotated(query, cos[first:], sin[first:])
    # (R, T H, T) = (R, T H, Hd) @ (R, Hd, T): all heads look at the same keys.
    scores = query.reshape(R, (T - first) * H, Hd) @ key.transpose(1, 2) * Hd**-0.5
    positions = torch.arange(T)
    allowed = positions <= positions[first:, None]  # [T - first, T]
    allowed = allowed | (positions < prefix[:, None, None])  # [R, T - first, T]
    scores = scores.view(R, T - first, H, T).masked_fill(~allowed[:, :, None], LOWEST)
    attention = F.softmax(scores, dim=-1).view(R, (T - first) * H, T)
    attended = (attention @ value).reshape(R, T - first, H * Hd)
    x = x + F.linear(attended, w["self_attn.o_proj.weight"])
    normed = rms_norm(x, w["post_attention_layernorm.weight"], eps)
    gate = gelu(F.linear(normed, w["mlp.gate_proj.weight"]))
    hidden = gate * F.linear(normed, w["mlp.up_proj.weight"])
    return x + F.linear(hidden, w["mlp.down_proj.weight"])


# -- Both -----------------------------------------------------------------------------------------


class QuickModel:
    """A PaliGemma of the reference files, its parameters in `dtype` for each step, perhaps compiled."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype, is_compiled: bool):
        self.model, self.dtype = model, dtype
        self.tower_layer, self.decoder_layer = tower_layer, decoder_layer
        if is_compiled:
            # The number of rows differs from batch to batch; the lengths are a few fixed ones, and code for
            # a fixed length is quicker. By default the second length would make all of them variable.
            torch._dynamo.config.automatic_dynamic_shapes = False
            torch._dynamo.config.recompile_limit = 32
            self.tower_layer = torch.compile(tower_layer)
            self.decoder_layer = torch.compile(decoder_layer)
        self.is_compiled = is_compiled

    def weights(self) -> dict[str, torch.Tensor]:
        """The parameters by name in the dtype that is computed in; gradients reach the originals."""
        return {name: value.to(self.dtype) for name, value in self.model.named_parameters()}

    def tower(self, weights: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [B, S, S, 3] -> [B, N, C]"""
        config, name = self.model.config.vision_config, "vision_tower.vision_model"
        P, side = config.patch_size, config.image_size // config.patch_size
        B, N = len(pixels), config.num_patches
        # A convolution whose stride is its kernel is a product with each patch.
        patches = pixels.view(B, side, P, side, P, 3).permute(0, 1, 3, 5, 2, 4).reshape(B, N, 3 * P * P)
        patches = (patches.float() / 127.5 - 1).to(self.dtype)
        embedding = f"{name}.embeddings.patch_embedding"
        x = F.linear(patches, weights[f"{embedding}.weight"].flatten(1), weights[f"{embedding}.bias"])
        x = x + weights[f"{name}.embeddings.position_embedding.weight"]
        for i in range(config.num_hidden_layers):
            own = [weights[f"{name}.encoder.layers.{i}.{part}"] for part in TOWER_WEIGHTS]
            x = self.tower_layer(x, config.num_attention_heads, config.layer_norm_eps, *own)
        norm = f"{name}.post_layernorm"
        return F.layer_norm(
            x, x.shape[-1:], weights[f"{norm}.weight"], weights[f"{norm}.bias"], config.layer_norm_eps
        )

    def projected(self, weights: dict[str, torch.Tensor], features: torch.Tensor) -> torch.Tensor:
        """[B, N, C] -> [B, N, D]"""
        name = "multi_modal_projector.linear"
        return F.linear(features, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def decoder(
        self, weights: dict[str, torch.Tensor], images: torch.Tensor, ids: torch.Tensor, prefix: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The states [R, T - N, D] of the text at the end, and those [R, N, D] of the patches half-way up.

        images [R, N, D]; ids int64 [R, T - N], the text of each row after its picture, padded on the
        right; prefix int64 [R], how many tokens picture and prompt are.
        """
        config, name = self.model.config.text_config, "language_model.model"
        N, D = images.shape[1:]
        # The merge divides pictures by the factor that the decoder then multiplies all by.
        normalizer = torch.tensor(D**0.5, dtype=self.dtype)
        words = F.embedding(ids, weights[f"{name}.embed_tokens.weight"]) * normalizer
        x = torch.cat([images, words], dim=1)
        exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
        angles = torch.arange(1, x.shape[1] + 1)[:, None, None] * config.rope_theta**-exponents
        cos, sin = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        if self.is_compiled:
            torch._dynamo.mark_dynamic(prefix, 0)
        last = config.num_hidden_layers - 1
        halfway = None
        for i in range(config.num_hidden_layers):
            if self.is_compiled:
                torch._dynamo.mark_dynamic(x, 0)
            own = [weights[f"{name}.layers.{i}.{part}"] for part in DECODER_WEIGHTS]
            x = self.decoder_layer(x, prefix, cos, sin, N if i == last else 0, config.rms_norm_eps, *own)
            if i == config.num_hidden_layers // 2 - 1:
                halfway = x[:, :N]
        return rms_norm(x, weights[f"{name}.norm.weight"], config.rms_norm_eps), halfway


def bfloat16_is_faster() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than float32 ones (a probe)."""
    seconds = {torch.float32: [], torch.bfloat16: []}
    for dtype, times in seconds.items():
        a = torch.randn(3200, 192).to(dtype)
        b = torch.randn(192, 768).to(dtype)
        for _ in range(20):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
    # The quickest of many: what else the machine does slows some of them down.
    return min(seconds[torch.bfloat16]) < 0.7 * min(seconds[torch.float32])


def can_compile() -> bool:
    """Whether torch.compile has what it needs: a C++ compiler, and a system on which it is tried."""
    return sys.platform == "linux" and shutil.which("g++") is not None
