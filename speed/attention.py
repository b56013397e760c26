"""What takes the place of the reference's attention: its scores, softmax and sum in one operation of PyTorch.

PyTorch's products of many small bfloat16 matrices, one for each head, are slow on most CPUs: of 16 heads of
72 numbers up to a hundred times as slow as `scaled_dot_product_attention`, which also never writes the
scores to memory. In float32 both take as long.

Source: "FlashAttention" (Dao et al. 2022), section 3.1, for scores worked on block by block.
"""

import torch
import torch.nn.functional as F
from torch import nn

from decoder_1 import GemmaAttention, KVCache, apply_rotary_pos_emb
from speed.replacement import Replacement
from vision_transformer_1 import Attention


def projected(attention: nn.Module, hidden_states: torch.Tensor) -> list[torch.Tensor]:
    """Query, key and value: [B, T, D] -> [B, heads, T, Hd] each."""
    return [
        layer(hidden_states).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    ]


class FusedAttention(Replacement, Attention):
    """The tower's Attention. Input and output: [B, N, C], in the dtype of the weights."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        query, key, value = projected(self, hidden_states)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class FusedGemmaAttention(Replacement, GemmaAttention):
    """GemmaAttention. Input and output: its own; a query that may look at nothing gets zeros."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        kv_cache: KVCache,
    ) -> torch.Tensor:
        query, key, value = projected(self, hidden_states)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        key, value = kv_cache.update(key, value, self.layer_idx)
        attended = F.scaled_dot_product_attention(query, key, value, attention_mask, enable_gqa=True)
        return self.o_proj(attended.transpose(1, 2).flatten(2))


FUSED = {Attention: FusedAttention, GemmaAttention: FusedGemmaAttention}


def fuse_attention(model: nn.Module):
    """Puts them into a model of any precision; a learner's own attention stays."""
    for name, module in [*model.named_modules()]:
        if type(module) in FUSED:
            model.set_submodule(name, FUSED[type(module)](module))
