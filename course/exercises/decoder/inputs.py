"""Sizes and inputs that several exercises of decoder_0.py share."""

from dataclasses import replace

import torch

from course.exercises.inputs import randn
from decoder_1 import GemmaConfig, GemmaRotaryEmbedding, KVCache, PaliGemmaConfig, prefix_lm_mask
from vision_transformer_1 import VisionConfig

# B 2, T 7, D 28, H 12, K 3, Hd 10, M 45, V 53; eps and theta are far from the defaults.
SMALL_GEMMA = GemmaConfig(
    vocab_size=53,
    hidden_size=28,
    intermediate_size=45,
    num_hidden_layers=3,
    num_attention_heads=12,
    num_key_value_heads=3,
    head_dim=10,
    rms_norm_eps=0.3,
    rope_theta=700.0,
)

SIZES = {"Hd": 10, "D": 28, "H": 12, "K": 3, "M": 45, "H * Hd": 120}

bf16 = torch.bfloat16


def cache(layers: int = 1, L: int = 5, B: int = 2, K: int = 3, Hd: int = 10, dtype=torch.float32) -> KVCache:
    """A cache in which L tokens are kept already, different ones in each layer."""
    filled = KVCache()
    for layer in range(layers):
        filled.key_cache.append(randn(B, K, L, Hd, seed=20 + layer, dtype=dtype))
        filled.value_cache.append(randn(B, K, L, Hd, seed=40 + layer, dtype=dtype))
    return filled


def mask_2d(L: int, padding=(0, 2)) -> torch.Tensor:
    """An attention_mask, int64 [B, L], with that many padding tokens at the left of each row."""
    return torch.tensor([[0] * n + [1] * (L - n) for n in padding])


def token_types(T: int, suffix=(2, 3)) -> torch.Tensor:
    """token_type_ids, int64 [B, T]: the last tokens of each row are suffix."""
    return torch.tensor([[0] * (T - n) + [1] * n for n in suffix])


def turns(position_ids: torch.Tensor, Hd: int = 10, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """The cos and sin of these positions."""
    return GemmaRotaryEmbedding(Hd, SMALL_GEMMA.rope_theta)(torch.zeros((), dtype=dtype), position_ids)


def tokens(
    T: int = 7,
    cached: int = 0,
    layers: int = 0,
    padding=(0, 2),
    suffix=(2, 3),
    K: int = 3,
    Hd: int = 10,
    dtype=torch.float32,
    scale: float = 1.5,
):
    """Inputs of attention and of a block: T new tokens, after `cached` ones in each of some layers."""

    def inputs() -> dict:
        mask = mask_2d(cached + T, padding)
        return {
            "hidden_states": randn(len(padding), T, 28, scale=scale, dtype=dtype),
            "attention_mask": prefix_lm_mask(mask, token_types(T, suffix)),
            "position_embeddings": turns(mask.cumsum(dim=1)[:, cached:], Hd, dtype),
            "kv_cache": cache(layers, cached, len(padding), K, Hd, dtype),
        }

    return inputs


def with_cache(made, hidden_states, attention_mask, position_embeddings, kv_cache) -> dict:
    """Calls attention or a block, and looks into the cache afterwards."""
    output = made(hidden_states, attention_mask, position_embeddings, kv_cache)
    return {"output": output, "kv_cache": kv_cache}


def filling(made, keys, values=None):
    """Puts keys and values, or what another cache holds, into an empty cache."""
    if values is None:
        keys, values = keys.key_cache, keys.value_cache
    made.key_cache.extend(keys)
    made.value_cache.extend(values)
    return made


# N 4 (2 x 2 patches), C 18; the ids of `<image>` and of labels to be left out are not the usual ones.
SMALL_PALIGEMMA = PaliGemmaConfig(
    vision_config=VisionConfig(
        hidden_size=18,
        intermediate_size=23,
        num_hidden_layers=1,
        num_attention_heads=3,
        patch_size=5,
        image_size=10,
        layer_norm_eps=0.3,
    ),
    text_config=replace(SMALL_GEMMA, num_hidden_layers=1),
    projection_dim=28,
    image_token_index=50,
    ignore_index=-7,
)


def embeddings(
    T: int = 7,
    cached: int = 0,
    layers: int = 0,
    padding=(0, 2),
    suffix=(2, 3),
    dtype=torch.float32,
    scale: float = 0.3,
    **more,
):
    """Inputs of GemmaModel: T new tokens, after `cached` ones in each of some layers."""

    def inputs() -> dict:
        mask = mask_2d(cached + T, padding)
        return {
            "inputs_embeds": randn(len(padding), T, 28, scale=scale, dtype=dtype),
            "attention_mask": prefix_lm_mask(mask, token_types(T, suffix)),
            "position_ids": mask.cumsum(dim=1)[:, cached:],
            "kv_cache": cache(layers, cached, len(padding), dtype=dtype),
        } | more

    return inputs


def model_with_cache(made, kv_cache, **inputs) -> dict:
    """Calls a stack of blocks, and looks into the cache afterwards."""
    return {"output": made(kv_cache=kv_cache, **inputs), "kv_cache": kv_cache}


def output_layer(made) -> dict:
    """Whether the two weights are tied, and the sizes that lm_head was made for."""
    return {
        "lm_head.weight and embed_tokens.weight are one parameter": made.lm_head.weight
        is made.model.embed_tokens.weight,
        "lm_head.in_features": getattr(made.lm_head, "in_features", 28),
        "lm_head.out_features": getattr(made.lm_head, "out_features", 53),
    }


# Ids: 50 is `<image>`, 2 `<bos>`, 3 a newline, 0 padding, 1 `<eos>`.
IMAGE = [50, 50, 50, 50]

PROMPTS = [[*IMAGE, 2, 11, 12, 13, 3], [*IMAGE, 2, 21, 22, 23, 3]]

PADDED = [[*IMAGE, 2, 11, 12, 13, 3], [0, 0, *IMAGE, 2, 21, 3]]

PADDED_MASK = [[1] * 9, [0, 0, *[1] * 7]]


def batch(rows, pictures: bool = True, **more):
    """Inputs of forward, by name: lists become tensors, and a new cache is made."""

    def inputs() -> dict:
        made = {"input_ids": torch.tensor(rows)}
        if pictures:
            made["pixel_values"] = randn(len(rows), 3, 10, 10)
        for name, value in more.items():
            value = value() if callable(value) else value
            made[name] = torch.tensor(value) if isinstance(value, list) else value
        return made

    return inputs


def by_name(made, **inputs):
    return made(**inputs)
