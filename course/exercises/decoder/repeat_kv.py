"""The exercise repeat_kv of decoder_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import bf16
from course.exercises.inputs import randn

# Known mistakes that take whole functions.


def with_tokens_repeated_instead_of_heads(hidden_states, num_repeats):
    return hidden_states.repeat_interleave(num_repeats, dim=2)


def with_rows_of_the_batch_repeated(hidden_states, num_repeats):
    return hidden_states.repeat_interleave(num_repeats, dim=0)


def with_the_last_axis_repeated(hidden_states, num_repeats):
    return hidden_states.repeat_interleave(num_repeats, dim=-1)


def with_one_copy_too_many(hidden_states, num_repeats):
    copies = [hidden_states] + [hidden_states] * num_repeats
    return torch.stack(copies, dim=2).flatten(1, 2)


# Other right ways.


def repeat_interleave(hidden_states, num_repeats):
    return torch.repeat_interleave(hidden_states, num_repeats, dim=1)


def stack_and_flatten(hidden_states, num_repeats):
    if num_repeats == 1:
        return hidden_states
    return torch.stack([hidden_states] * num_repeats, dim=2).flatten(1, 2)


def by_index(hidden_states, num_repeats):
    K = hidden_states.size(1)
    heads = [head // num_repeats for head in range(K * num_repeats)]
    return hidden_states[:, heads]


def head_by_head(hidden_states, num_repeats):
    return torch.cat([head for head in hidden_states.split(1, dim=1) for _ in range(num_repeats)], dim=1)


EXERCISE = Exercise(
    name="repeat_kv",
    file="decoder",
    minutes=10,
    difficulty="easy",
    why="Gemma has eight query heads and one key/value head, which makes the cache eight times smaller.",
    steps=[
        "Insert an axis of length 1 after the axis of heads.",
        "Stretch that axis to num_repeats.",
        "Join it with the axis of heads, so that copies of a head lie next to each other.",
    ],
    hints=(
        "Query heads 0 to r - 1 share key head 0, the next r share key head 1. In which order must the "
        "copies come?",
        "[B, K, L, Hd] -> [B, K, 1, L, Hd] -> [B, K, r, L, Hd] -> [B, K * r, L, Hd]. One torch function "
        "does all of it; it is not tile, and not repeat.",
        "hidden_states[:, :, None].expand(B, K, num_repeats, L, Hd).reshape(B, K * num_repeats, L, Hd).",
    ),
    result="B H L Hd",
    sizes={"K": 3, "r": 4},
    cases=[
        Case(
            "three heads, each four times",
            lambda: {"hidden_states": randn(2, 3, 7, 10), "num_repeats": 4},
        ),
        Case("one head, five times", lambda: {"hidden_states": randn(2, 1, 6, 10), "num_repeats": 5}),
        Case("each head once", lambda: {"hidden_states": randn(2, 4, 6, 10), "num_repeats": 1}),
        Case(
            "bfloat16, one token",
            lambda: {"hidden_states": randn(3, 2, 1, 6, dtype=bf16), "num_repeats": 3},
            exact=1.0,
        ),
        Case(
            "in training, where gradients have to flow back",
            lambda: {"hidden_states": randn(2, 2, 5, 6), "num_repeats": 3},
            training=True,
        ),
    ],
    mistakes=[
        Mistake(
            "with the whole row of heads repeated",
            {
                "hidden_states[:, :, None].expand(B, K, num_repeats, L, Hd)": (
                    "hidden_states.repeat(1, num_repeats, 1, 1)"
                ),
            },
            "`repeat` gives 0 1 2 0 1 2; neighboring query heads share a head, so it is 0 0 1 1 2 2.",
        ),
        Mistake(
            "with tokens repeated instead of heads",
            with_tokens_repeated_instead_of_heads,
            "the heads are axis 1.",
        ),
        Mistake(
            "with rows of the batch repeated",
            with_rows_of_the_batch_repeated,
            "the heads are axis 1.",
        ),
        Mistake(
            "with the last axis repeated",
            with_the_last_axis_repeated,
            "the heads are axis 1.",
        ),
        Mistake(
            "without joining the two axes",
            {"hidden_states.reshape(B, K * num_repeats, L, Hd)": "hidden_states"},
            "[B, K, r, L, Hd] has one axis too many for a matrix product with the queries.",
        ),
        Mistake(
            "with the copies behind the tokens",
            {
                "hidden_states[:, :, None].expand(B, K, num_repeats, L, Hd)": (
                    "hidden_states[:, :, :, None].expand(B, K, L, num_repeats, Hd)"
                ),
            },
            "reshape only joins axes that are next to each other: heads, then copies.",
        ),
        Mistake(
            "when nothing is repeated",
            {
                "return hidden_states.reshape(B, K * num_repeats, L, Hd)": ("return hidden_states[:, :, 0]"),
            },
            "there must be a key head for each query head.",
        ),
        Mistake(
            "with the first head for all",
            {"hidden_states[:, :, None].expand(": "hidden_states[:, :1, None].expand("},
            "with more than one key/value head, each serves its own group.",
        ),
        Mistake(
            "with one copy too many",
            with_one_copy_too_many,
            "num_repeats counts the original too.",
        ),
    ],
    right_ways=[
        RightWay("repeat_interleave", repeat_interleave),
        RightWay("stack and flatten", stack_and_flatten),
        RightWay("by index", by_index),
        RightWay("head by head", head_by_head),
    ],
    compare="it is the same as torch.repeat_interleave(hidden_states, num_repeats, dim=1). expand copies "
    "nothing, only reshape does. scaled_dot_product_attention can avoid that copy too (enable_gqa).",
)
