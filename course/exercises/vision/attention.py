"""The exercise Attention of vision_transformer_0.py."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn
from course.exercises.vision.inputs import SIZES, SMALL_TOWER, bf16, features
from vision_transformer_1 import VisionConfig


def average_of_many(made, hidden_states) -> torch.Tensor:
    """The average of equal values, less the value: 257 does not fit in bfloat16, which is seen here."""
    with torch.no_grad():
        for weights in (made.q_proj, made.k_proj):
            weights.weight.zero_(), weights.bias.zero_()
        made.v_proj.weight.zero_(), made.v_proj.bias.fill_(1.9921875)
        made.out_proj.weight.fill_(1.0), made.out_proj.bias.fill_(-55.75)
    return made(hidden_states)


# Known mistakes that take whole functions.


class WithASingleHead:
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        query, key = self.q_proj(hidden_states), self.k_proj(hidden_states)
        scores = query @ key.transpose(1, 2) * query.shape[-1] ** -0.5
        return self.out_proj(F.softmax(scores, dim=-1) @ self.v_proj(hidden_states))


class WithASingleHeadScaledAsMany:
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        query, key = self.q_proj(hidden_states), self.k_proj(hidden_states)
        scores = query @ key.transpose(1, 2) * self.head_dim**-0.5
        return self.out_proj(F.softmax(scores, dim=-1) @ self.v_proj(hidden_states))


class WithoutTheBiases:
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)


# Other right ways.


class ScaledDotProductAttention:
    def forward(self, hidden_states):
        B, N, C = hidden_states.shape
        query, key, value = (
            projection(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Einsum:
    def forward(self, hidden_states):
        B, N, C = hidden_states.shape
        q = self.q_proj(hidden_states).reshape(B, N, self.num_heads, self.head_dim)
        k = self.k_proj(hidden_states).reshape(B, N, self.num_heads, self.head_dim)
        v = self.v_proj(hidden_states).reshape(B, N, self.num_heads, self.head_dim)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k).div_(self.head_dim**0.5)
        weights = scores.float().softmax(-1).type_as(v)
        return self.out_proj(torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(B, N, C))


class OneHeadAfterAnother:
    def forward(self, hidden_states):
        heads = []
        for h in range(self.num_heads):
            rows = slice(h * self.head_dim, (h + 1) * self.head_dim)
            q = F.linear(hidden_states, self.q_proj.weight[rows], self.q_proj.bias[rows])
            k = F.linear(hidden_states, self.k_proj.weight[rows], self.k_proj.bias[rows])
            v = F.linear(hidden_states, self.v_proj.weight[rows], self.v_proj.bias[rows])
            e = torch.exp((q @ k.mT).float() / self.head_dim**0.5)
            heads.append((e / e.sum(-1, keepdim=True)).to(v.dtype) @ v)
        return self.out_proj(torch.cat(heads, dim=-1))


class ScaledQueriesOtherNames:
    def __init__(self, config):
        super().__init__()
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.h = config.num_attention_heads
        self.scale = (config.hidden_size / self.h) ** -0.5

    def split(self, x):
        return x.unflatten(2, (self.h, -1)).permute(0, 2, 1, 3)

    def forward(self, hidden_states):
        q = self.split(self.q_proj(hidden_states)) * self.scale
        k, v = self.split(self.k_proj(hidden_states)), self.split(self.v_proj(hidden_states))
        w = torch.softmax(q @ k.transpose(-1, -2), -1)
        return self.out_proj((w @ v).permute(0, 2, 1, 3).flatten(2))


EXERCISE = Exercise(
    name="Attention",
    file="vision_transformer",
    minutes=35,
    difficulty="hard",
    why="A patch of fur only means `cat` next to patches with ears and whiskers: patches must look around.",
    steps={
        "__init__": [
            "Keep the number of heads and the size of a head (hidden_size divided among the heads).",
            "Make the four projections q_proj, k_proj, v_proj and out_proj: from hidden_size to "
            "hidden_size, with bias.",
        ],
        "forward": [
            "Project to queries, keys and values; split the width into heads, and put the axis of "
            "heads before the patches: [B, H, N, Hd].",
            "Score each query against each key, and divide by the root of the head's size: [B, H, N, N].",
            "Turn the scores of each query into weights over the keys that add up to 1.",
            "Average the values with these weights, lay the heads side by side again, [B, N, C], and "
            "apply the output projection.",
        ],
    },
    hints=(
        "Write the shape next to every line. Everything but the last projection happens in each head by "
        "itself, so heads are an axis like the batch.",
        "Split with view(B, N, H, Hd) and swap axes 1 and 2; to merge, swap them back and reshape (view "
        "refuses there). Scores are query @ key-with-its-last-two-axes-swapped; the weights of one query, "
        "a row, add up to 1.",
        "weights = softmax(query @ key.transpose(2, 3) / sqrt(Hd), dim=-1); out_proj((weights @ "
        "value).transpose(1, 2).reshape(B, N, C)).",
    ),
    make=lambda m: m.Attention(SMALL_TOWER),
    result="B N C",
    sizes=SIZES,
    cases=[
        Case("one patch, which can only look at itself", lambda: {"hidden_states": randn(2, 1, 28)}),
        Case("a batch of two, nine patches", features(scale=1.5), training=True),
        Case(
            "other sizes: five heads of size 6, eleven patches",
            lambda: {"hidden_states": randn(3, 11, 30, scale=1.5)},
            make=lambda m: m.Attention(replace(SMALL_TOWER, hidden_size=30, num_attention_heads=5)),
        ),
        Case(
            "one head",
            lambda: {"hidden_states": randn(2, 5, 28)},
            make=lambda m: m.Attention(replace(SMALL_TOWER, num_attention_heads=1)),
        ),
        Case("bfloat16", features(dtype=bf16), dtype=bf16, tolerance=8e-2),
        Case(
            "bfloat16, 257 patches that look at all alike: the weights have to add up to 1",
            lambda: {"hidden_states": torch.ones(1, 257, 28, dtype=bf16)},
            call=average_of_many,
            dtype=bf16,
        ),
        Case("on another device", features(), other_device=True),
    ],
    mistakes=[
        Mistake(
            "without dividing by sqrt(Hd)",
            {" * self.head_dim**-0.5": ""},
            "unscaled scores grow with the size of a head, and softmax then picks a single patch.",
        ),
        Mistake(
            "when divided by sqrt(C) instead of sqrt(Hd)",
            {"self.head_dim**-0.5": "C**-0.5"},
            "a score is a sum over one head, so Hd numbers, not over the whole width.",
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
            "without the output projection",
            {"self.out_proj(": "("},
            "out_proj mixes what the heads found.",
        ),
        Mistake(
            "when the heads are merged without swapping the axes back",
            {"attended.transpose(1, 2).reshape": "attended.reshape"},
            "[B, H, N, Hd] cut into [B, N, C] puts numbers of different patches into one; swap heads "
            "and patches first.",
        ),
        Mistake(
            "when heads are cut by view alone",
            {
                "view(B, N, self.num_heads, self.head_dim).transpose(1, 2)": (
                    "view(B, self.num_heads, N, self.head_dim)"
                ),
            },
            "view(B, H, N, Hd) cuts the same run of numbers differently and mixes patches; view(B, N, "
            "H, Hd) first, then swap.",
        ),
        Mistake(
            "when heads are cut and joined by view alone",
            {
                "view(B, N, self.num_heads, self.head_dim).transpose(1, 2)": (
                    "view(B, self.num_heads, N, self.head_dim)"
                ),
                "attended.transpose(1, 2)": "attended",
            },
            "view(B, H, N, Hd) cuts the same run of numbers differently and mixes patches; view(B, N, "
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
            "the scale keeps softmax from picking a single patch, so it comes before; after it, the "
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
            also=(
                {
                    "F.softmax(scores, dim=-1, dtype=torch.float32)": (
                        "(scores.exp() / scores.exp().sum(dim=-1, keepdim=True))"
                    ),
                },
            ),
        ),
        Mistake(
            "when the width is cut by head size first",
            {
                "view(B, N, self.num_heads, self.head_dim).transpose(1, 2)": (
                    "view(B, N, self.head_dim, self.num_heads).permute(0, 3, 1, 2)"
                ),
            },
            "head h holds the numbers h * Hd to (h + 1) * Hd - 1: heads first, then their numbers.",
            also=(
                {
                    "view(B, N, self.num_heads, self.head_dim).transpose(1, 2)": (
                        "view(B, N, self.head_dim, self.num_heads).permute(0, 3, 1, 2)"
                    ),
                    "attended.transpose(1, 2)": "attended.permute(0, 2, 3, 1)",
                },
            ),
        ),
        Mistake(
            "with the heads left behind the patches",
            {
                "self.head_dim).transpose(1, 2)": "self.head_dim)",
                "attended.transpose(1, 2)": "attended",
            },
            "matrix products take the last two axes, so [B, N, H, Hd] lets heads look at heads, not "
            "patches at patches.",
        ),
        Mistake(
            "with a single head",
            WithASingleHead,
            "the width is cut into H heads, each of which looks for something else.",
            also=(WithASingleHeadScaledAsMany,),
        ),
        Mistake(
            "with queries and keys swapped",
            {"query @ key.transpose(2, 3)": "key @ query.transpose(2, 3)"},
            "rows are queries, columns are keys.",
        ),
        Mistake(
            "with the weights transposed",
            {"weights @ value": "weights.transpose(2, 3) @ value"},
            "row q of the weights averages the values for query q.",
        ),
        Mistake(
            "with a causal mask",
            {
                "query @ key.transpose(2, 3) * self.head_dim**-0.5": (
                    "(query @ key.transpose(2, 3) * self.head_dim**-0.5).masked_fill(torch.ones(N, N, "
                    "dtype=torch.bool, device=query.device).triu(1), -1e9)"
                ),
            },
            "nothing is predicted from left to right here: every patch sees every other.",
            also=(
                {
                    "query @ key.transpose(2, 3) * self.head_dim**-0.5": (
                        "(query @ key.transpose(2, 3) * self.head_dim**-0.5).masked_fill(torch.ones(N, N, "
                        "dtype=torch.bool).triu(1), -1e9)"
                    ),
                },
            ),
        ),
        Mistake(
            "with values from the keys",
            {"value = self.v_proj": "value = self.k_proj"},
            "v_proj makes the values.",
        ),
        Mistake(
            "without softmax",
            {"F.softmax(scores, dim=-1, dtype=torch.float32)": "scores"},
            "scores have to become weights that add up to 1.",
        ),
        Mistake(
            "with float32 left over from softmax",
            {".to(query.dtype)": ""},
            "weights computed in float32 have to go back to the dtype of the values.",
        ),
        Mistake(
            "without the biases",
            WithoutTheBiases,
            "the tower's projections have biases; the Gemma decoder's do not.",
        ),
    ],
    right_ways=[
        RightWay("scaled_dot_product_attention", ScaledDotProductAttention),
        RightWay("einsum", Einsum),
        RightWay("one head after another", OneHeadAfterAnother),
        RightWay("scaled queries, other names", ScaledQueriesOtherNames),
    ],
    compare="the scale can be applied to the queries or to the scores, and "
    "F.scaled_dot_product_attention does the middle part in one call. Written out, each line is one "
    "line of the formula.",
)
