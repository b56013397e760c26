"""The exercise apply_rotary_pos_emb of decoder_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import SIZES, bf16, turns
from course.exercises.inputs import randn
from decoder_1 import rotate_half


def to_turn(T: int = 7, H: int = 12, K: int = 3, Hd: int = 10, dtype=torch.float32):
    """Inputs of apply_rotary_pos_emb: two rows whose positions differ."""

    def inputs() -> dict:
        cos, sin = turns(torch.stack([torch.arange(T) + 1, torch.arange(T) + 5]), Hd, dtype)
        query, key = randn(2, H, T, Hd, dtype=dtype), randn(2, K, T, Hd, seed=1, dtype=dtype)
        return {"query": query, "key": key, "cos": cos, "sin": sin}

    return inputs


# Known mistakes that take whole functions.


def with_neighboring_pairs(query, key, cos, sin):
    cos, sin = cos[:, None], sin[:, None]

    def turned(x):
        y = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
        return x * cos + y * sin

    return turned(query), turned(key)


def with_the_input_changed_in_place(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = cos[:, None], sin[:, None]  # [B, 1, T, Hd]
    turned = rotate_half(query) * sin
    query *= cos
    query += turned
    key = key * cos + rotate_half(key) * sin
    return query, key


# Other right ways.


def one_after_the_other(query, key, cos, sin):
    turned = []
    for x in (query, key):
        y = x * cos.unsqueeze(1)
        y += rotate_half(x) * sin.unsqueeze(1)
        turned.append(y)
    return turned


def complex_numbers(query, key, cos, sin):
    half = cos.shape[-1] // 2
    turn = torch.complex(cos[..., :half].float(), sin[..., :half].float())[:, None]

    def turned(x):
        y = torch.complex(x[..., :half].float(), x[..., half:].float()) * turn
        return torch.cat([y.real, y.imag], dim=-1).to(x.dtype)

    return turned(query), turned(key)


def all_heads_at_once(query, key, cos, sin):
    both = torch.cat([query, key], dim=1)
    a, b = both.chunk(2, dim=-1)
    c, s = (t[:, None, :, : t.shape[-1] // 2] for t in (cos, sin))
    both = torch.cat([a * c - b * s, b * c + a * s], dim=-1)
    return both[:, : query.shape[1]], both[:, query.shape[1] :]


EXERCISE = Exercise(
    name="apply_rotary_pos_emb",
    file="decoder",
    minutes=10,
    difficulty="medium",
    why="Once both are rotated by their positions, query . key shows how far apart they are.",
    builds_on=("GemmaRotaryEmbedding", "rotate_half"),
    steps=[
        "Give cos and sin an axis of length 1 for the heads, so that they fit every head.",
        "Rotate the queries: the vectors times cos, plus the vectors turned by a right angle times sin.",
        "Rotate the keys by the same angles.",
        "Return both, queries first.",
    ],
    hints=(
        "Write the shapes of query and cos below each other, from the right. Where do they not match?",
        "cos[:, None] is [B, 1, T, Hd]. The rotated vector is x * cos + rotate_half(x) * sin.",
        "cos, sin = cos[:, None], sin[:, None]; query = query * cos + rotate_half(query) * sin, and the "
        "same for key; return query, key.",
    ),
    result={"[0]": "B H T Hd", "[1]": "B K T Hd"},
    sizes=SIZES,
    cases=[
        Case("a batch of two, twelve heads and three key heads", to_turn(), training=True),
        Case("one key head, one token", to_turn(T=1, H=4, K=1)),
        Case("as many key heads as heads, a head of size 6", to_turn(T=5, H=3, K=3, Hd=6)),
        Case("as many heads as tokens", to_turn(T=4, H=4, K=2)),
        Case("bfloat16", to_turn(dtype=bf16), tolerance=4e-2),
    ],
    mistakes=[
        Mistake(
            "with a minus before the second part",
            {"query * cos + ": "query * cos - ", "key * cos + ": "key * cos - "},
            "that rotates backwards; the minus is already in rotate_half.",
        ),
        Mistake(
            "with cos and sin swapped",
            {"cos, sin = cos[:, None], sin[:, None]": "cos, sin = sin[:, None], cos[:, None]"},
            "the vector itself is multiplied by cos.",
        ),
        Mistake(
            "without rotate_half",
            {"rotate_half(query)": "query", "rotate_half(key)": "key"},
            "the second part is the vector turned by a right angle.",
        ),
        Mistake(
            "with the keys left as they were",
            {"key = key * cos + rotate_half(key) * sin": "pass"},
            "only if both are rotated does their product depend on the distance.",
        ),
        Mistake(
            "with the queries left as they were",
            {"query = query * cos + rotate_half(query) * sin": "pass"},
            "only if both are rotated does their product depend on the distance.",
        ),
        Mistake(
            "without the second part",
            {" + rotate_half(query) * sin": "", " + rotate_half(key) * sin": ""},
            "a rotation needs cos and sin.",
        ),
        Mistake(
            "with neighboring pairs",
            with_neighboring_pairs,
            "the checkpoint is ordered for halves: rotate_half pairs i with i + Hd/2.",
        ),
        Mistake(
            "without an axis for the heads",
            {"cos, sin = cos[:, None], sin[:, None]": "pass"},
            "[B, T, Hd] against [B, H, T, Hd] lines up the batch with the heads.",
        ),
        Mistake(
            "with the new axis behind the tokens",
            {"cos[:, None], sin[:, None]": "cos[:, :, None], sin[:, :, None]"},
            "[B, T, 1, Hd] lines up tokens with heads; the axis of heads comes before the tokens.",
        ),
        Mistake(
            "with the angles of the first row for all",
            {"cos[:, None], sin[:, None]": "cos[:1, None], sin[:1, None]"},
            "every row of the batch has positions of its own.",
        ),
        Mistake(
            "with keys rotated backwards",
            {"key * cos + rotate_half(key)": "key * cos - rotate_half(key)"},
            "then the product depends on the sum of the positions, not on the difference.",
        ),
        Mistake(
            "when the key is rotated from the query",
            {
                "key = key * cos + rotate_half(key) * sin": (
                    "key = key * cos + rotate_half(query)[:, :key.shape[1]] * sin"
                ),
            },
            "each is rotated from itself.",
        ),
        Mistake(
            "when rotated twice",
            {
                "return query, key": (
                    "return query * cos + rotate_half(query) * sin, key * cos + rotate_half(key) * sin"
                ),
            },
            "once: by the angle of the position.",
        ),
        Mistake(
            "with the input changed in place",
            with_the_input_changed_in_place,
            "`*=` writes into the caller's tensor.",
        ),
        Mistake(
            "with the keys returned first",
            {"return query, key": "return key, query"},
            "queries first.",
        ),
        Mistake(
            "in float32",
            {"cos[:, None], sin[:, None]": "cos[:, None].float(), sin[:, None].float()"},
            "queries and keys keep their dtype.",
        ),
    ],
    right_ways=[
        RightWay("one after the other", one_after_the_other),
        RightWay("complex numbers", complex_numbers),
        RightWay("all heads at once", all_heads_at_once),
    ],
    compare="it is the rotation (a cos - b sin, b cos + a sin), written for whole tensors. Values are "
    "not rotated: they carry what a token says, not where it is.",
)
