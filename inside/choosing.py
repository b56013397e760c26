"""How each token of an answer was chosen: the model's distribution, and what is left of it to draw from.

    with watch_choices(generation) as choices: let the model answer
    describe_choices(choices, name_of)    what the page is told of each token

What to notice:
  - nothing is computed twice. The module's own `sample_next_token` and `keep_top_p` are watched while
    they run, so that a learner's mistake in them shows as what it does;
  - a distribution has as many numbers as the vocabulary (257,216 for the 3B model): the page gets the
    likeliest few one by one, and the rest as one number.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple

import torch

LISTED = 8  # tokens one by one


class Choice(NamedTuple):
    """One token being chosen."""

    logits: torch.Tensor  # [V], as the model gave them
    shaped: torch.Tensor | None  # [V], probabilities with the temperature; None: greedy, or not seen
    kept: torch.Tensor | None  # [V], what top-p left of them, 0 where it cut
    token: int


@contextlib.contextmanager
def watch_choices(generation: ModuleType, goes_on: Callable = lambda count: None) -> Iterator[list[Choice]]:
    """Sees each call of a generation module's sample_next_token, and of keep_top_p inside it.

    goes_on: called before each token with how many there are; may raise what ends the answer.

    A module that has none of them, or whose generate does without, is not seen: the list stays empty.
    """
    sample, cut = (getattr(generation, name, None) for name in ("sample_next_token", "keep_top_p"))
    choices, found = [], []

    def watched_cut(probabilities, top_p):
        kept = cut(probabilities, top_p)
        found.append((probabilities, kept))
        return kept

    def watched_sample(logits, *args, **kwargs):
        goes_on(len(choices))
        found.clear()
        token = sample(logits, *args, **kwargs)
        shaped, kept = found[-1] if found else (None, None)
        choices.append(Choice(logits.detach().float().cpu(), shaped, kept, token))
        return token

    if sample is None or cut is None:
        yield choices
        return
    generation.sample_next_token, generation.keep_top_p = watched_sample, watched_cut
    try:
        yield choices
    finally:
        generation.sample_next_token, generation.keep_top_p = sample, cut


def describe_choices(choices: list[Choice], name_of: Callable[[int], str]) -> list[dict]:
    """For each token of the answer: the likeliest of all, before and after, and the rest as one.

    Of a token [text, what the model gave it, what the temperature made of that, what it had when one was
    drawn]. The last is 0 for what top-p cut, and for all but the likeliest where the choice is greedy.
    """
    told = []
    for logits, shaped, kept, token in choices:
        given = logits.double().softmax(dim=-1)  # [V]
        V, usable = len(given), [one for one in (shaped, kept) if looks_right(one, len(given))]
        if len(usable) < 2:  # greedy: all of it on one
            shaped = given
            kept = torch.zeros_like(given)
            kept[token] = 1
        shaped, kept = shaped.double(), kept.double()
        drawn_from = kept / kept.sum().clamp(min=1e-300)
        order = given.topk(min(LISTED, V)).indices.tolist()
        listed = order if token in order else [*order[:-1], token]
        rest = torch.ones(V, dtype=torch.bool)
        rest[listed] = False
        columns = given, shaped, drawn_from
        told.append({
            "greedy": len(usable) < 2,
            "drawn": listed.index(token),
            "tokens": [[name_of(one), *rounded(*(column[one] for column in columns))] for one in listed],
            "rest": [int(rest.sum()), *rounded(*(column[rest].sum() for column in columns))],
            "kept": int((kept > 0).sum()),  # tokens
            "mass": rounded(shaped[kept > 0].sum())[0],  # that they had before the others were cut
        })  # fmt: skip
    return told


def looks_right(values, V: int) -> bool:
    """A learner's function may give back anything."""
    return isinstance(values, torch.Tensor) and values.shape == (V,) and bool(values.isfinite().all())


def rounded(*values: torch.Tensor) -> list[float]:
    return [float(f"{value:.4g}") if math.isfinite(value := float(one)) else 0.0 for one in values]
