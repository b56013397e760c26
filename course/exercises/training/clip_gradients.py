"""The exercise clip_gradients of training_0.py."""

import torch
from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn


def clipped(clip_gradients, gradients, max_norm):
    parameters = [nn.Parameter(torch.ones_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    norm = clip_gradients(parameters, max_norm)
    return {
        "returned": norm,
        "gradients": [parameter.grad for parameter in parameters],
        "parameters as they were": all(bool((parameter == 1).all()) for parameter in parameters),
    }


def three(scale: float) -> list[torch.Tensor]:
    """Gradients of a matrix, a bias and a larger matrix, of different lengths."""
    return [randn(5, 3, scale=scale), randn(4, seed=1, scale=3 * scale), randn(2, 7, seed=2, scale=scale / 2)]


# Other right ways.


def by_the_sum_of_squares(parameters, max_norm):
    total = sum(float(parameter.grad.double().square().sum()) for parameter in parameters) ** 0.5
    factor = min(1.0, max_norm / (total + 1e-12))
    for parameter in parameters:
        parameter.grad = parameter.grad * factor
    return total


def with_pytorchs_own(parameters, max_norm):
    return nn.utils.clip_grad_norm_(parameters, max_norm).item()


# Known mistakes that take whole functions.


def when_each_parameter_is_clipped_by_itself(parameters, max_norm):
    norms = [parameter.grad.norm() for parameter in parameters]
    for parameter, norm in zip(parameters, norms, strict=True):
        if norm > max_norm:
            parameter.grad.mul_(max_norm / norm)
    return torch.stack(norms).norm().item()


def when_each_number_is_cut_off(parameters, max_norm):
    norm = torch.stack([parameter.grad.norm() for parameter in parameters]).norm().item()
    for parameter in parameters:
        parameter.grad.clamp_(-max_norm, max_norm)
    return norm


def when_the_parameters_are_shortened(parameters, max_norm):
    norm = torch.stack([parameter.grad.norm() for parameter in parameters]).norm().item()
    if norm > max_norm:
        for parameter in parameters:
            parameter.data.mul_(max_norm / norm)
    return norm


EXERCISE = Exercise(
    name="clip_gradients",
    file="training",
    minutes=15,
    difficulty="easy",
    why="A mislabeled picture can have a gradient a hundred times as long as the others.",
    steps=[
        "Compute the length of the gradient of all parameters, as if they were one long vector.",
        "If it is longer than allowed, multiply every gradient by the one number that makes it just as long.",
        "Return the length that it had.",
    ],
    hints=(
        "The square of the whole length is the sum of the squares of the parts' lengths.",
        "norm() of a tensor is the root of its sum of squares; the norm of a vector of norms is that of the "
        "whole. Gradients are changed in place: mul_.",
        "norm = torch.stack([p.grad.float().norm() for p in parameters]).norm().item(), and "
        "p.grad.mul_(max_norm / norm) if norm > max_norm.",
    ),
    cases=[
        Case("a gradient that is too long", lambda: {"gradients": three(2.0), "max_norm": 1.0}, call=clipped),
        Case(
            "a gradient that is short enough",
            lambda: {"gradients": three(0.05), "max_norm": 2.0},
            call=clipped,
        ),
        Case(
            "parts that are short enough, and too long together",
            lambda: {"gradients": [randn(4, seed=i) / 2 for i in range(6)], "max_norm": 1.5},
            call=clipped,
        ),
        Case(
            "a single parameter",
            lambda: {"gradients": [randn(3, 6, scale=5.0)], "max_norm": 2.5},
            call=clipped,
        ),
    ],
    mistakes=[
        Mistake(
            "when each parameter is clipped by itself",
            when_each_parameter_is_clipped_by_itself,
            "the direction of the whole would change: all are multiplied by the same number.",
        ),
        Mistake(
            "when it is clipped even if it is short enough",
            {"if norm > max_norm:": "if True:"},
            "a short gradient would be made longer: it says that there is little to change.",
        ),
        Mistake(
            "when it is only clipped if it is short enough",
            {"if norm > max_norm:": "if norm < max_norm:"},
            "what is too long is shortened, and the rest stays.",
        ),
        Mistake(
            "when each number is cut off",
            when_each_number_is_cut_off,
            "the direction would change: the large numbers lose, the small ones do not.",
        ),
        Mistake(
            "with the sum of the lengths",
            {").norm().item()": ").sum().item()"},
            "lengths at right angles do not add up: the root of the sum of their squares is the length.",
        ),
        Mistake(
            "with the longest of the lengths",
            {").norm().item()": ").max().item()"},
            "all parts belong to the length: the root of the sum of their squares.",
        ),
        Mistake(
            "without the root",
            {").norm().item()": ").square().sum().item()"},
            "the length is the root of the sum of squares.",
        ),
        Mistake(
            "with the mean of the squares",
            {").norm().item()": ").square().mean().sqrt().item()"},
            "the squares are added up, so a larger model has a longer gradient.",
        ),
        Mistake(
            "when it is divided by the length alone",
            {"mul_(max_norm / norm)": "mul_(1 / norm)"},
            "its new length is max_norm and not always 1.",
        ),
        Mistake(
            "when the parameters themselves are shortened",
            when_the_parameters_are_shortened,
            "only the gradients are too long.",
        ),
        Mistake(
            "with the new length returned",
            {"return norm": "return min(norm, max_norm)"},
            "the length before says how often it is clipped; the one after is known.",
        ),
        Mistake(
            "when the new gradients are not kept",
            {"parameter.grad.mul_(max_norm / norm)": "parameter.grad * (max_norm / norm)"},
            "the product is a new tensor that nobody keeps: the optimizer reads parameter.grad.",
        ),
    ],
    right_ways=[
        RightWay("by the sum of squares", by_the_sum_of_squares),
        RightWay("with PyTorch's own", with_pytorchs_own),
    ],
    compare="what Adam makes of it: it divides by the gradient's own size. Why does it still help to shorten "
    "a single long one?",
)
