"""The exercise GemmaAttention of decoder_0.py."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import SIZES, SMALL_GEMMA, bf16, tokens, with_cache
from decoder_1 import apply_rotary_pos_emb, repeat_kv, rotate_half


def without_padding(output: torch.Tensor, padding) -> dict:
    """The output of the tokens alone, row after row, and whether padding came to numbers too."""
    rows = [row[n:] for row, n in zip(output, padding, strict=True)]
    return {
        "output": torch.cat(rows),
        "every number is finite, at padding too": bool(torch.isfinite(output).all()),
    }


def average_of_many(made, hidden_states, attention_mask, position_embeddings, kv_cache) -> torch.Tensor:
    """Ten averages of 257 equal values, less a number: 257 does not fit in bfloat16, which is seen here."""
    value = 1.9921875
    with torch.no_grad():
        for weights in (made.q_proj, made.k_proj, made.v_proj, made.o_proj):
            weights.weight.zero_()
        made.v_proj.weight[:, 0] = value
        made.o_proj.weight[0, :10] = 1.0
        hidden_states = torch.zeros_like(hidden_states)
        hidden_states[..., 0] = 1.0
        kv_cache.key_cache[0] = torch.zeros_like(kv_cache.key_cache[0])
        kv_cache.value_cache[0] = torch.full_like(kv_cache.value_cache[0], value)
        made.v_proj.weight[:, 0] = value
    output = made(hidden_states, attention_mask, position_embeddings, kv_cache)
    return output[0, 0, :1].float() - 19.8


# Other right ways.


class ScaledDotProductAttention:
    def forward(self, hidden_states, attention_mask, position_embeddings, kv_cache):
        q, k, v = (
            p(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        k, v = kv_cache.update(k, v, self.layer_idx)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class ScaledDotProductAttentionOnRepeatedHeads:
    def forward(self, hidden_states, attention_mask, position_embeddings, kv_cache):
        B, T, _ = hidden_states.shape
        q = self.q_proj(hidden_states).reshape(B, T, -1, self.head_dim).permute(0, 2, 1, 3)
        k = self.k_proj(hidden_states).reshape(B, T, -1, self.head_dim).permute(0, 2, 1, 3)
        v = self.v_proj(hidden_states).reshape(B, T, -1, self.head_dim).permute(0, 2, 1, 3)
        cos, sin = position_embeddings[0].unsqueeze(1), position_embeddings[1].unsqueeze(1)
        q = q * cos + rotate_half(q) * sin
        k = k * cos + rotate_half(k) * sin
        k, v = kv_cache.update(k, v, layer_idx=self.layer_idx)
        r = self.num_heads // self.num_key_value_heads
        k, v = k.repeat_interleave(r, 1), v.repeat_interleave(r, 1)
        out = F.scaled_dot_product_attention(q, k, v, attention_mask, scale=1 / self.head_dim**0.5)
        return self.o_proj(out.permute(0, 2, 1, 3).reshape(B, T, -1))


class EinsumInGroupsWithoutCopies:
    def forward(self, hidden_states, attention_mask, position_embeddings, kv_cache):
        B, T, _ = hidden_states.shape
        K, Hd = self.num_key_value_heads, self.head_dim
        q = self.q_proj(hidden_states).view(B, T, -1, Hd).transpose(1, 2) * Hd**-0.5
        k = self.k_proj(hidden_states).view(B, T, K, Hd).transpose(1, 2)
        v = self.v_proj(hidden_states).view(B, T, K, Hd).transpose(1, 2)
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        k, v = kv_cache.update(k, v, self.layer_idx)
        q = q.unflatten(1, (K, -1))
        scores = torch.einsum("bkrqd,bkld->bkrql", q, k).float()
        scores = torch.where(attention_mask[:, :, None], scores, -1e30)
        weights = torch.softmax(scores, -1).type_as(v)
        out = torch.einsum("bkrql,bkld->bqkrd", weights, v)
        return self.o_proj(out.reshape(B, T, -1))


class AMaskThatIsAddedOtherNames:
    def __init__(self, config, layer_idx):
        super().__init__()
        D, Hd = config.hidden_size, config.head_dim
        self.o_proj = nn.Linear(config.num_attention_heads * Hd, D, bias=False)
        self.v_proj = nn.Linear(D, config.num_key_value_heads * Hd, bias=False)
        self.k_proj = nn.Linear(D, config.num_key_value_heads * Hd, bias=False)
        self.q_proj = nn.Linear(D, config.num_attention_heads * Hd, bias=False)
        self.config, self.idx = config, layer_idx

    def split(self, x):
        return x.unflatten(2, (-1, self.config.head_dim)).transpose(1, 2)

    def forward(self, hidden_states, attention_mask, position_embeddings, kv_cache):
        q, k, v = (self.split(f(hidden_states)) for f in (self.q_proj, self.k_proj, self.v_proj))
        q, k = apply_rotary_pos_emb(q, k, position_embeddings[0], position_embeddings[1])
        k, v = kv_cache.update(k, v, self.idx)
        k, v = repeat_kv(k, q.shape[1] // k.shape[1]), repeat_kv(v, q.shape[1] // v.shape[1])
        bias = torch.zeros(attention_mask.shape, dtype=q.dtype, device=q.device).masked_fill_(
            attention_mask.logical_not(), torch.finfo(q.dtype).min / 2
        )
        scores = (q @ k.mT).div(self.config.head_dim**0.5) + bias
        return self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


EXERCISE = Exercise(
    name="GemmaAttention",
    file="decoder",
    minutes=40,
    difficulty="hard",
    why="The only place where a word meets the picture: answers are looked up here.",
    builds_on=("KVCache.update", "apply_rotary_pos_emb", "repeat_kv", "prefix_lm_mask"),
    steps={
        "__init__": [
            "Keep layer_idx and the sizes, and make q_proj, k_proj, v_proj and o_proj without bias: H "
            "heads for the queries, K for keys and values, each of head_dim, which need not be D / H.",
        ],
        "forward": [
            "Project to queries, keys and values, and put the axis of heads before the tokens: [B, H, "
            "T, Hd] and [B, K, T, Hd].",
            "Rotate queries and keys by their positions, and only then add keys and values to the "
            "cache, which returns those of all tokens: [B, K, L, Hd].",
            "Repeat each key/value head for the query heads that share it: [B, H, L, Hd].",
            "Score each query against each key, and divide by the root of the head's size; where the "
            "mask is False, put a number so low that softmax makes it 0 (but not -inf, see above).",
            "Turn the scores into weights over the keys; average the values with them, lay the heads "
            "side by side again and apply o_proj.",
        ],
    },
    hints=(
        "Begin with your Attention from the vision tower. What is new: positions, a cache, fewer key "
        "heads, a mask. Write the shape next to every line.",
        "The order is: project, split, rotate, cache, repeat_kv, score, mask, softmax, average, merge, "
        "o_proj. masked_fill puts a number where its bool argument is True; torch.finfo(dtype).min is "
        "the lowest there is.",
        "key, value = kv_cache.update(key, value, self.layer_idx); scores = query @ key.transpose(2, 3) "
        "* self.head_dim**-0.5; scores = scores.masked_fill(~attention_mask, "
        "torch.finfo(scores.dtype).min).",
    ),
    make=lambda m: m.GemmaAttention(SMALL_GEMMA, 0),
    result={"output": "B T D", "key_cache": "B K L Hd", "value_cache": "B K L Hd"},
    sizes=SIZES,
    cases=[
        Case(
            "one token, which can only look at itself",
            tokens(T=1, padding=(0, 0), suffix=(0, 0)),
            call=with_cache,
        ),
        Case(
            "a batch of two without padding, all prefix: every token sees every token",
            tokens(padding=(0, 0), suffix=(0, 0)),
            call=with_cache,
        ),
        Case("prefix and suffix, one row padded", tokens(), call=with_cache, training=True),
        Case(
            "three new tokens after five",
            tokens(T=3, cached=5, layers=1, suffix=(3, 3)),
            call=with_cache,
        ),
        Case(
            "one new token after five, in the second layer",
            tokens(T=1, cached=5, layers=2, suffix=(1, 1)),
            make=lambda m: m.GemmaAttention(SMALL_GEMMA, 1),
            call=with_cache,
        ),
        Case(
            "four heads of size 6 share one key/value head",
            tokens(K=1, Hd=6),
            make=lambda m: m.GemmaAttention(
                replace(SMALL_GEMMA, num_attention_heads=4, num_key_value_heads=1, head_dim=6), 0
            ),
            call=with_cache,
        ),
        Case(
            "a key/value head for each of four heads",
            tokens(K=4, Hd=8, padding=(1, 0, 3), suffix=(2, 0, 1)),
            make=lambda m: m.GemmaAttention(
                replace(SMALL_GEMMA, num_attention_heads=4, num_key_value_heads=4, head_dim=8), 0
            ),
            call=with_cache,
        ),
        Case(
            "padding that may look at nothing: any numbers, but no NaN",
            tokens(padding=(0, 3), suffix=(7, 7)),
            call=lambda made, hidden_states, *rest, **others: without_padding(
                made(hidden_states, *rest, **others), (0, 3)
            ),
        ),
        Case("bfloat16", tokens(dtype=bf16), dtype=bf16, tolerance=0.1, call=with_cache),
        Case(
            "bfloat16, one token that looks at 257 alike: the weights have to add up to 1",
            tokens(T=1, cached=256, layers=1, padding=(0,), suffix=(1,), dtype=bf16),
            call=average_of_many,
            dtype=bf16,
            tolerance=5e-2,
        ),
        Case("on another device", tokens(), call=with_cache, other_device=True),
    ],
    mistakes=[
        Mistake(
            "without dividing by sqrt(Hd)",
            {" * self.head_dim**-0.5": ""},
            "unscaled scores grow with the size of a head, and softmax then picks a single token.",
        ),
        Mistake(
            "when divided by sqrt(D) instead of sqrt(Hd)",
            {"self.head_dim**-0.5": "D**-0.5"},
            "a score is a sum over one head, so Hd numbers, not over the whole width.",
        ),
        Mistake(
            "when divided by sqrt(D / H) instead of sqrt(Hd)",
            {"self.head_dim**-0.5": "(D / self.num_heads)**-0.5"},
            "here a head is larger than D / H: head_dim says how large.",
        ),
        Mistake(
            "when divided by Hd instead of its root",
            {"self.head_dim**-0.5": "self.head_dim**-1"},
            "a sum of Hd random products is about sqrt(Hd) in size.",
        ),
        Mistake(
            "when multiplied by sqrt(Hd) instead of divided",
            {"self.head_dim**-0.5": "self.head_dim**0.5"},
            "the scale brings scores down to about 1.",
        ),
        Mistake(
            "without the mask",
            {"scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)": "pass"},
            "padding and the future have to be hidden.",
        ),
        Mistake(
            "with the mask the other way around",
            {"~attention_mask": "attention_mask"},
            "True means that the query may look; what is False is filled.",
        ),
        Mistake(
            "with the mask added as 0 and 1",
            {
                "scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)": (
                    "scores + attention_mask"
                ),
            },
            "a 0 hides nothing: what is False needs a very low score.",
        ),
        Mistake(
            "with a score of 0 under the mask",
            {
                "scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)": (
                    "scores * attention_mask"
                ),
            },
            "softmax still gives it a weight; what is False needs the lowest number there is.",
        ),
        Mistake(
            "with the mask applied after softmax",
            {
                "scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)": "pass",
                "dtype=torch.float32).to(query.dtype)": (
                    "dtype=torch.float32).to(query.dtype) * attention_mask"
                ),
            },
            "then the weights that are left no longer add up to 1.",
        ),
        Mistake(
            "with a causal mask",
            {
                "~attention_mask": (
                    "~(attention_mask & torch.ones_like(attention_mask).tril(attention_mask.shape[3] - T))"
                ),
            },
            "the prefix sees itself in both directions: the mask that is passed in says it all.",
        ),
        Mistake(
            "when a query that may look at nothing becomes NaN",
            {"torch.finfo(scores.dtype).min": "float('-inf')"},
            "its weights are 0 / 0. -inf under the mask does that, and so does dividing by a sum of nothing: "
            "with the lowest number of the dtype instead, they are finite.",
        ),
        Mistake(
            "with softmax over the queries",
            {"dim=-1": "dim=-2"},
            "each query's weights over the keys add up to 1: the last axis.",
        ),
        Mistake(
            "with softmax over the heads",
            {"dim=-1": "dim=1"},
            "each query's weights over the keys add up to 1: the last axis.",
        ),
        Mistake(
            "without softmax",
            {"F.softmax(scores, dim=-1, dtype=torch.float32)": "scores"},
            "scores have to become weights that add up to 1.",
        ),
        Mistake(
            "without rotating by positions",
            {"query, key = apply_rotary_pos_emb(query, key, cos, sin)": "pass"},
            "without it, attention does not see the order of the tokens.",
        ),
        Mistake(
            "with only the queries rotated",
            {"query, key = apply_rotary_pos_emb": "query, _ = apply_rotary_pos_emb"},
            "only if both are rotated does the score depend on the distance.",
        ),
        Mistake(
            "with cos and sin swapped",
            {"(query, key, cos, sin)": "(query, key, sin, cos)"},
            "position_embeddings holds cos first.",
        ),
        Mistake(
            "with the values rotated too",
            {
                "key, value = kv_cache.update": (
                    "value, _ = apply_rotary_pos_emb(value, key, cos, sin)\n        key, value = "
                    "kv_cache.update"
                ),
            },
            "values carry what a token says, not where it is: only queries and keys are rotated.",
        ),
        Mistake(
            "with the values rotated instead of the keys",
            {
                "query, key = apply_rotary_pos_emb(query, key, cos, sin)": (
                    "query, value = apply_rotary_pos_emb(query, value, cos, sin)"
                ),
            },
            "queries and keys are rotated.",
        ),
        Mistake(
            "with keys that go to the cache before they are rotated",
            {
                "query, key = apply_rotary_pos_emb(query, key, cos, sin)": "pass",
                "key, value = kv_cache.update(key, value, self.layer_idx)": (
                    "key, value = kv_cache.update(key, value, self.layer_idx)\n        query, key = "
                    "apply_rotary_pos_emb(query, key, cos, sin)"
                ),
            },
            "cos and sin are those of the new tokens: a key is rotated once, when it is new, and cached "
            "like that.",
        ),
        Mistake(
            "without the cache",
            {"key, value = kv_cache.update(key, value, self.layer_idx)": "pass"},
            "the new tokens look at the earlier ones too, and later ones will look at these.",
        ),
        Mistake(
            "when the cache is filled but not read",
            {"key, value = kv_cache.update": "kv_cache.update"},
            "what update returns are the keys and values of all tokens.",
        ),
        Mistake(
            "with the first layer's cache for all",
            {"(key, value, self.layer_idx)": "(key, value, 0)"},
            "every layer has keys and values of its own: layer_idx says whose these are.",
        ),
        Mistake(
            "with the copies of the heads in the cache",
            {
                "key, value = kv_cache.update(key, value, self.layer_idx)": "pass",
                "scores = query @": (
                    "key, value = kv_cache.update(key, value, self.layer_idx)\n        scores = query @"
                ),
            },
            "the cache keeps K heads: sharing them is meant to keep it small.",
        ),
        Mistake(
            "with the heads of keys or values repeated in turns",
            {
                "key = repeat_kv(key, self.num_heads // self.num_key_value_heads)": (
                    "key = key.repeat(1, self.num_heads // self.num_key_value_heads, 1, 1)"
                ),
                "value = repeat_kv(value, self.num_heads // self.num_key_value_heads)": (
                    "value = value.repeat(1, self.num_heads // self.num_key_value_heads, 1, 1)"
                ),
            },
            "neighboring query heads share a key/value head: 0 0 1 1, not 0 1 0 1.",
            also=tuple(
                {
                    f"{name} = repeat_kv({name}, self.num_heads // self.num_key_value_heads)": (
                        f"{name} = {name}.repeat(1, self.num_heads // self.num_key_value_heads, 1, 1)"
                    )
                }
                for name in ("key", "value")
            ),
        ),
        Mistake(
            "without repeating the heads",
            {
                "key = repeat_kv(key, self.num_heads // self.num_key_value_heads)": "pass",
                "value = repeat_kv(value, self.num_heads // self.num_key_value_heads)": "pass",
            },
            "there are H query heads and K key/value heads: repeat_kv makes their numbers equal.",
        ),
        Mistake(
            "without the output projection",
            {"self.o_proj(": "("},
            "o_proj mixes what the heads found, and goes back to the width D.",
        ),
        Mistake(
            "when the heads are merged without swapping the axes back",
            {"attended.transpose(1, 2).reshape": "attended.reshape"},
            "[B, H, T, Hd] cut into [B, T, H * Hd] puts numbers of different tokens into one; swap "
            "heads and tokens first.",
        ),
        Mistake(
            "when heads are cut by view alone",
            {
                "view(B, T, self.num_heads, self.head_dim).transpose(1, 2)": (
                    "view(B, self.num_heads, T, self.head_dim)"
                ),
                "view(B, T, self.num_key_value_heads, self.head_dim).transpose(1, 2)": (
                    "view(B, self.num_key_value_heads, T, self.head_dim)"
                ),
            },
            "view(B, H, T, Hd) cuts the same run of numbers differently and mixes tokens; view(B, T, H, "
            "Hd) first, then swap.",
        ),
        Mistake(
            "when heads are cut and joined by view alone",
            {
                "view(B, T, self.num_heads, self.head_dim).transpose(1, 2)": (
                    "view(B, self.num_heads, T, self.head_dim)"
                ),
                "view(B, T, self.num_key_value_heads, self.head_dim).transpose(1, 2)": (
                    "view(B, self.num_key_value_heads, T, self.head_dim)"
                ),
                "attended.transpose(1, 2)": "attended",
            },
            "view(B, H, T, Hd) cuts the same run of numbers differently and mixes tokens; view(B, T, "
            "H, Hd) first, then swap, and swap back before the heads are joined.",
        ),
        Mistake(
            "when the scale comes too late, after softmax",
            {
                " * self.head_dim**-0.5": "",
                "dtype=torch.float32).to(query.dtype)": (
                    "dtype=torch.float32).to(query.dtype) * self.head_dim**-0.5"
                ),
            },
            "the scale keeps softmax from picking a single token, so it comes before; after it, the "
            "weights no longer add up to 1.",
        ),
        Mistake(
            "with a sigmoid instead of softmax",
            {"F.softmax(scores, dim=-1, dtype=torch.float32)": "torch.sigmoid(scores.float())"},
            "the weights of a query have to add up to 1; a sigmoid looks at each score by itself.",
        ),
        Mistake(
            "when softmax is computed in bfloat16, step by step",
            {
                "F.softmax(scores, dim=-1, dtype=torch.float32)": (
                    "(lambda e: e / e.sum(dim=-1, keepdim=True))(torch.exp(scores - scores.amax(-1, True)))"
                ),
            },
            "the sum of many exponentials does not fit in bfloat16's two to three digits: cast the scores to "
            "float32 first, and the weights back.",
        ),
        Mistake(
            "when the width is cut by head size first",
            {
                "view(B, T, self.num_heads, self.head_dim).transpose(1, 2)": (
                    "view(B, T, self.head_dim, self.num_heads).permute(0, 3, 1, 2)"
                ),
            },
            "head h holds the numbers h * Hd to (h + 1) * Hd - 1: heads first, then their numbers.",
            also=(
                {
                    "view(B, T, self.num_heads, self.head_dim).transpose(1, 2)": (
                        "view(B, T, self.head_dim, self.num_heads).permute(0, 3, 1, 2)"
                    ),
                    "view(B, T, self.num_key_value_heads, self.head_dim).transpose(1, 2)": (
                        "view(B, T, self.head_dim, self.num_key_value_heads).permute(0, 3, 1, 2)"
                    ),
                },
                {
                    "view(B, T, self.num_heads, self.head_dim).transpose(1, 2)": (
                        "view(B, T, self.head_dim, self.num_heads).permute(0, 3, 1, 2)"
                    ),
                    "view(B, T, self.num_key_value_heads, self.head_dim).transpose(1, 2)": (
                        "view(B, T, self.head_dim, self.num_key_value_heads).permute(0, 3, 1, 2)"
                    ),
                    "attended.transpose(1, 2)": "attended.permute(0, 2, 3, 1)",
                },
            ),
        ),
        Mistake(
            "with values from the keys",
            {"value = self.v_proj": "value = self.k_proj"},
            "v_proj makes the values.",
        ),
        Mistake(
            "with queries and keys swapped",
            {"query @ key.transpose(2, 3)": "key @ query.transpose(2, 3)"},
            "rows are queries, columns are keys.",
        ),
        Mistake(
            "with float32 left over from softmax",
            {".to(query.dtype)": ""},
            "weights computed in float32 have to go back to the dtype of the values.",
        ),
        Mistake(
            "with biases",
            {"bias=False": "bias=True"},
            "the decoder has none: the checkpoint holds weights only.",
        ),
        Mistake(
            "with as many key heads as heads",
            {
                "self.num_key_value_heads * self.head_dim, bias": ("self.num_heads * self.head_dim, bias"),
            },
            "keys and values have K heads, fewer than the queries.",
        ),
        Mistake(
            "with D / H as the size of a head",
            {
                "self.head_dim = config.head_dim": (
                    "self.head_dim = config.hidden_size // config.num_attention_heads"
                ),
            },
            "H * Hd need not be D: config.head_dim says how large a head is.",
        ),
        Mistake(
            "with a residual",
            {"return self.o_proj(": "return hidden_states + self.o_proj("},
            "the residual belongs to the block around it, GemmaDecoderLayer.",
        ),
    ],
    right_ways=[
        RightWay("scaled_dot_product_attention", ScaledDotProductAttention),
        RightWay("scaled_dot_product_attention on repeated heads", ScaledDotProductAttentionOnRepeatedHeads),
        RightWay("einsum in groups, without copies", EinsumInGroupsWithoutCopies),
        RightWay("a mask that is added, other names", AMaskThatIsAddedOtherNames),
    ],
    compare="what is new next to the vision tower's Attention: four lines (rotate, cache, and repeat_kv "
    "twice) and the mask. Which of them could go, if nothing were cached?",
)
