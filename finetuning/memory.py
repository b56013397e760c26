"""Training the 3B model on 16 GB: what is frozen stays 16 bits, and little is kept for the way back.

What to notice:
  - a frozen layer needs its weight on the way back, but no gradient for it: nothing is converted or
    copied that would have to be kept;
  - while the tower is frozen, the features of a picture are the same in every epoch: they are
    computed once, and kept in a file that is mapped into memory;
  - the tower is then replaced by nn.Identity, and what a batch calls `pixel_values` are features:
    the model's own forward stays as it is;
  - a layer can be computed twice instead of remembered (recomputation), for more time.

Letters in shapes: P pictures, N patches, C width of the tower, D width of the decoder, M width of the MLP, T
tokens of a row, A tokens of the longest answer, V vocabulary; I inputs and O outputs of a linear layer.
"""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from program.bar import bar
from speed.attention import fuse_attention
from speed.bf16_products import CONVERTED, bf16_rows, float32_rows
from speed.loading import skip_unread
from speed.quickest import quickest

PICTURES_AT_ONCE = 8


# ------------------------------------------------------------------- products with frozen weights


def float32_back(grad: torch.Tensor, transposed: torch.Tensor) -> torch.Tensor:
    """grad [rows, O] and W^T [I, O] -> grad W in float32, with as much of W converted as the cache holds."""
    grad, weight = grad.float(), transposed.t()
    out = grad.new_zeros(len(grad), weight.shape[1])
    step = max(1, CONVERTED // weight.shape[1])
    for start in range(0, len(weight), step):
        out.addmm_(grad[:, start : start + step], weight[start : start + step].float())
    return out


# How x is multiplied on the way there, and its gradient on the way back.
WAYS = {"float32": (float32_rows, float32_back), "bfloat16": (bf16_rows, bf16_rows)}


def quicker_way(model: nn.Module) -> str:
    """Which of WAYS is the quicker one on this CPU. An interrupted training must go on with the same one."""
    weight = model.language_model.model.layers[0].mlp.up_proj.weight
    rows = torch.ones(64, weight.shape[1], dtype=weight.dtype)
    return "bfloat16" if quickest((float32_rows, bf16_rows), rows, weight) is bf16_rows else "float32"


class FrozenProduct(torch.autograd.Function):
    """x W^T whose gradient is asked for x alone: nothing is kept but the weight itself."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, way: str) -> torch.Tensor:
        ctx.weight, ctx.way = weight, way
        rows = x.reshape(-1, x.shape[-1])
        return WAYS[way][0](rows, weight).to(x.dtype).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        rows = grad.reshape(-1, grad.shape[-1])
        out = WAYS[ctx.way][1](rows, ctx.weight.t())
        return out.to(grad.dtype).view(*grad.shape[:-1], -1), None, None


class FrozenLinear(nn.Module):
    """nn.Linear with a bfloat16 weight on a CPU that does not learn. Input [..., I], output [..., O]."""

    def __init__(self, linear: nn.Linear, way: str):
        super().__init__()
        self.weight, self.bias, self.way = linear.weight, linear.bias, way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = FrozenProduct.apply(x, self.weight, self.way)
        return out if self.bias is None else out + self.bias


class Float32Linear(nn.Module):
    """nn.Linear that learns in float32 among layers of 16 bits: its small steps would round to nothing."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().float())
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.float(), self.weight, self.bias).to(x.dtype)


def is_frozen_bf16(model: nn.Module, device: str) -> bool:
    return device == "cpu" and model.language_model.lm_head.weight.dtype == torch.bfloat16


def prepare(model: nn.Module, mode: str, device: str, way: str | None):
    """Makes the layers of a 16-bit model such as training needs them; a float32 model stays as it is.

    way: one of WAYS, for a model that is_frozen_bf16.
    """
    is_frozen = is_frozen_bf16(model, device)
    if model.language_model.lm_head.weight.dtype == torch.float32:
        return
    for name, module in list(model.named_modules()):
        if type(module) is not nn.Linear:
            continue
        if mode == "attention" and ".self_attn." in name and name.startswith("language_model."):
            model.set_submodule(name, Float32Linear(module))
        elif is_frozen:
            model.set_submodule(name, FrozenLinear(module, way))
    if is_frozen:
        fuse_attention(model)
        skip_unread(model)


# --------------------------------------------------------------------------------- recomputation


class NoCache:
    """A KVCache that keeps nothing: a layer that is computed twice must not add its keys twice."""

    def num_items(self) -> int:
        return 0

    def update(self, key: torch.Tensor, value: torch.Tensor, layer_idx: int):
        return key, value


def recompute(model: nn.Module):
    """Lets every layer of the decoder forget its activations, and compute them again on the way back."""

    def forgetful(forward: Callable) -> Callable:
        def forward_again(hidden_states, attention_mask, position_embeddings, kv_cache):
            if not torch.is_grad_enabled():
                return forward(hidden_states, attention_mask, position_embeddings, kv_cache)
            return checkpoint(
                forward, hidden_states, attention_mask, position_embeddings, NoCache(), use_reentrant=False
            )

        return forward_again

    for layer in model.language_model.model.layers:
        layer.forward = forgetful(layer.forward)


# --------------------------------------------------------------------------------- cached features


def cache_features(
    path: Path,
    tower: nn.Module,
    prepared: Callable[[int], torch.Tensor],
    num_pictures: int,
    shape: tuple[int, int],
    dtype: torch.dtype,
    device: str,
) -> torch.Tensor:
    """The tower's features of all pictures, [P, N, C], mapped from a file that grows picture by picture.

    An interrupted run goes on after the last whole group, so that each group is the same product of
    the same size as in one that ran through.
    prepared(i): pixel_values float32 [1, 3, S, S] of picture i; shape: N and C.
    """
    size = math.prod(shape) * dtype.itemsize
    have = path.stat().st_size // size if path.exists() else 0
    have = have if have == num_pictures else have // PICTURES_AT_ONCE * PICTURES_AT_ONCE
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(have * size)
        file.seek(have * size)
        with bar(
            total=num_pictures, initial=have, desc="Looking at the pictures", unit="picture", delay=1
        ) as progress:
            for start in range(have, num_pictures, PICTURES_AT_ONCE):
                group = range(start, min(start + PICTURES_AT_ONCE, num_pictures))
                with torch.no_grad():
                    pixels = torch.cat([prepared(i) for i in group]).to(device)
                    features = tower(pixels).to("cpu", dtype).contiguous()
                file.write(features.view(torch.uint8).numpy().tobytes())
                progress.update(len(group))
        file.flush()
        os.fsync(file.fileno())
    count = num_pictures * math.prod(shape)
    return torch.from_file(str(path), shared=False, size=count, dtype=dtype).view(num_pictures, *shape)


# ------------------------------------------------------------------------------------ beforehand


def bytes_needed(
    model: nn.Module,
    parameters: list[nn.Parameter],
    rows: int,
    T: int,
    A: int,
    tower_learns: bool,
    recomputes: bool,
) -> Iterator[tuple[str, int]]:
    """What the memory goes into, in bytes: an estimate from the sizes alone, to be told before the start."""
    text, vision = model.config.text_config, model.config.vision_config
    frozen = {id(p): p.nbytes for p in model.parameters() if not p.requires_grad}
    learned = sum(p.numel() for p in parameters)
    yield "weights", sum(frozen.values()) + sum(p.nbytes for p in parameters)
    yield "gradients, averages and the best weights", 16 * learned
    word = model.language_model.lm_head.weight.dtype.itemsize
    D, M, H = text.hidden_size, text.intermediate_size, text.num_attention_heads
    # Of a decoder layer: two norms in float32 and their results; queries, keys and values, softmax and
    # weights [H, T] for each token; four of the MLP's width, and float32 copies beside LoRA's.
    heads = (H + 2 * text.num_key_value_heads) * text.head_dim
    layer = 2 * D * (8 + 2 * word) + heads * (3 * word + 4) + H * T * (4 + 2 * word) + M * (4 * word + 8)
    layers = text.num_hidden_layers
    yield "activations", rows * T * (layer + layers * D * word if recomputes else layers * layer)
    if tower_learns:
        C, N = vision.hidden_size, vision.num_patches
        block = C * 24 + vision.intermediate_size * 12 + vision.num_attention_heads * N * 12
        yield "the tower's activations", rows * N * vision.num_hidden_layers * block
    yield "logits", 4 * 4 * rows * (A + 1) * text.vocab_size
