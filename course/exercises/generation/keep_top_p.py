"""The exercise keep_top_p of generation_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn


def shares(keep_top_p, probabilities, top_p):
    """What is kept, scaled to a sum of one: whether that was done already makes no difference."""
    kept = keep_top_p(probabilities, top_p)
    return kept / kept.abs().sum() if isinstance(kept, torch.Tensor) else kept


def exact(*probabilities: float):
    """Sums of these have no rounding."""
    return torch.tensor(probabilities, dtype=torch.float64)


# Known mistakes that take whole functions.


def with_the_likeliest_lost(probabilities, top_p):
    in_order, tokens = probabilities.sort(descending=True)
    kept = probabilities.clone()
    kept[tokens[in_order.cumsum(dim=-1) > top_p]] = 0
    return kept


def with_a_threshold_for_each_token(probabilities, top_p):
    return probabilities * (probabilities >= top_p)


def with_the_order_taken_for_the_way_back(probabilities, top_p):
    in_order, tokens = probabilities.sort(descending=True)
    stays = in_order.cumsum(dim=-1) - in_order < top_p
    return probabilities * stays[tokens]


def sorted_by_likelihood(probabilities, top_p):
    in_order = probabilities.sort(descending=True).values
    return in_order * (in_order.cumsum(dim=-1) - in_order < top_p)


def sent_back_by_the_order(probabilities, top_p):
    in_order, tokens = probabilities.sort(descending=True)
    in_order = in_order * (in_order.cumsum(dim=-1) - in_order < top_p)
    return in_order[tokens]


def with_the_others_left_out(probabilities, top_p):
    in_order, tokens = probabilities.sort(descending=True)
    kept = tokens[in_order.cumsum(dim=-1) - in_order < top_p]
    return probabilities[kept.sort().values]


# Other right ways.


def scaled_up_to_a_sum_of_one(probabilities, top_p):
    in_order, tokens = torch.sort(probabilities, descending=True)
    before = torch.cat([in_order.new_zeros(1), in_order.cumsum(0)[:-1]])
    kept = torch.where(before < top_p, in_order, 0)
    return torch.zeros_like(probabilities).scatter(0, tokens, kept / kept.sum())


def token_by_token(probabilities, top_p):
    kept, total = torch.zeros_like(probabilities), 0.0
    for token in probabilities.argsort(descending=True).tolist():
        kept[token] = probabilities[token]
        total += float(probabilities[token])
        if total >= top_p:
            break
    return kept


def by_the_number_that_is_needed(probabilities, top_p):
    order = torch.argsort(-probabilities)
    reached = probabilities[order].cumsum(-1)
    needed = min(int((reached < top_p).sum()) + 1, len(probabilities))
    mask = torch.zeros(len(probabilities), dtype=torch.bool)
    mask[order[:needed]] = True
    return probabilities.masked_fill(~mask, 0)


EXERCISE = Exercise(
    name="keep_top_p",
    file="generation",
    minutes=15,
    difficulty="medium",
    why="A vocabulary of 257,216 tokens has a long tail: each is unlikely, but together they derail texts.",
    steps=[
        "Put the probabilities into order, the largest first, and remember whose they are.",
        "Find for each token how much the likelier ones reach together without it.",
        "In a copy, set those to 0 before which top_p was reached already.",
        "Return it in the order of the vocabulary.",
    ],
    hints=(
        "Work the example of the docstring out on paper: which sum decides whether 0.3 stays? Is 0.3 a "
        "part of that sum?",
        "sort returns values and indices; the cumulative sum less the value itself is what came before. "
        "The indices lead back to the order of the vocabulary.",
        "before = in_order.cumsum(dim=-1) - in_order; kept = probabilities.clone(); "
        "kept[tokens[before >= top_p]] = 0.",
    ),
    result="V",
    cases=[
        Case(
            "the example of the docstring",
            lambda: {"probabilities": torch.tensor([0.1, 0.5, 0.05, 0.3, 0.05]), "top_p": 0.7},
            call=shares,
        ),
        Case(
            "top_p is reached exactly",
            lambda: {"probabilities": exact(0.1875, 0.5, 0.0625, 0.25), "top_p": 0.75},
            call=shares,
        ),
        Case(
            "the likeliest alone is above top_p",
            lambda: {"probabilities": exact(0.125, 0.25, 0.625), "top_p": 0.0625},
            call=shares,
        ),
        Case(
            "top_p = 1, where all stay",
            lambda: {"probabilities": exact(0.0625, 0.5, 0.125, 0.03125, 0.25, 0.03125), "top_p": 1.0},
            call=shares,
        ),
        Case(
            "31 tokens",
            lambda: {"probabilities": randn(31, scale=2.0).softmax(dim=-1), "top_p": 0.8},
            call=shares,
        ),
    ],
    mistakes=[
        Mistake(
            "with the token that crosses top_p cut off, but not one that reaches it exactly",
            with_the_likeliest_lost,
            "those that stay have to reach top_p; the likeliest one may do so alone, and always stays.",
        ),
        Mistake(
            "with one more than needed where top_p is reached exactly",
            {"reached_before >= top_p": "reached_before > top_p"},
            "what the likelier ones reach is enough if it equals top_p.",
        ),
        Mistake(
            "with the token that reaches or crosses top_p cut off",
            {" - in_order": ""},
            "the sum contains the token itself: it is only cut off if the likelier ones reach top_p "
            "without it.",
        ),
        Mistake(
            "with the least likely tokens first",
            {"sort(descending=True)": "sort()"},
            "the likeliest stay: the order is from the largest down.",
        ),
        Mistake(
            "with the places in the order taken for tokens",
            {"kept[tokens[reached_before >= top_p]]": "kept[reached_before >= top_p]"},
            "the sums are in order of likelihood, and the result is in order of the vocabulary.",
        ),
        Mistake(
            "in order of likelihood",
            sorted_by_likelihood,
            "the place in the result is the token's id, so it has to be put back.",
        ),
        Mistake(
            "with the likely tokens cut off",
            {"reached_before >= top_p": "reached_before < top_p"},
            "the tail is what becomes 0.",
        ),
        Mistake(
            "with top_p as a threshold for each token",
            with_a_threshold_for_each_token,
            "the kept ones reach top_p together; hardly any token reaches it alone.",
        ),
        Mistake(
            "with all below 1 - top_p cut off",
            {"tokens[reached_before >= top_p]": "probabilities < 1 - top_p"},
            "the tail is what is left over together; how large a single token is says nothing about that.",
        ),
        Mistake(
            "with the order taken for the way back",
            with_the_order_taken_for_the_way_back,
            "x[tokens] reads from the places that tokens names; the way back writes to them, as in "
            "kept[tokens] = x.",
            also=(sent_back_by_the_order,),
        ),
        Mistake(
            "with minus infinity in place of 0",
            {"= 0": "= -float('inf')"},
            "minus infinity stands for 0 before the softmax; these are probabilities already.",
        ),
        Mistake(
            "with the others left out",
            with_the_others_left_out,
            "each token needs its place, or its id is lost: what is cut off is 0.",
        ),
        Mistake(
            "when the input is written into",
            {"probabilities.clone()": "probabilities"},
            "a copy is asked for: somebody may still want to show what was cut off.",
        ),
    ],
    right_ways=[
        RightWay("scaled up to a sum of one", scaled_up_to_a_sum_of_one),
        RightWay("token by token", token_by_token),
        RightWay("by the number that is needed", by_the_number_that_is_needed),
    ],
    compare="the subtraction. Is there a top_p for which the likeliest token would not survive? And what "
    "would happen to it if the sum held the token itself?",
)
