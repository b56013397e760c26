"""The exercise BestWeights.update of training_0.py."""

import math

import torch
from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn


def made(m):
    return m.BestWeights([nn.Parameter(randn(3, 2)), nn.Parameter(randn(5, seed=1))])


def told(best, scores):
    """Each score is told after a step; what is said, what is kept, and what restore brings back."""
    said, kept = [], []
    for i, score in enumerate(scores):
        with torch.no_grad():
            for parameter in best.parameters:
                parameter += randn(*parameter.shape, seed=10 + i)
        said.append(best.update(score))
        score = best.score if math.isfinite(best.score) else str(best.score)  # inf - inf is not 0
        kept.append([score, *(weight.detach().clone() for weight in best.weights)])
    now = [parameter.detach().clone() for parameter in best.parameters]
    if best.weights:
        best.restore()
    return {
        "said": said,
        "kept": kept,
        "parameters before restore": now,
        "parameters after restore": [parameter.detach() for parameter in best.parameters],
    }


# Known mistakes that take whole functions.


def when_the_first_score_is_never_beaten(self, score):
    is_better = not self.weights
    if is_better:
        self.score = score
        self.weights = [parameter.detach().clone() for parameter in self.parameters]
    return is_better


# Other right ways.


def turned_around(self, score):
    if not score > self.score:
        return False
    self.weights.clear()
    for parameter in self.parameters:
        self.weights.append(torch.empty_like(parameter, requires_grad=False).copy_(parameter.detach()))
    self.score = float(score)
    return True


@torch.no_grad()
def into_the_same_memory(self, score):
    if self.score >= score or score != score:
        return False
    if not self.weights:
        self.weights = [torch.zeros_like(parameter) for parameter in self.parameters]
    for weight, parameter in zip(self.weights, self.parameters, strict=True):
        weight.copy_(parameter)
    self.score = score
    return True


EXERCISE = Exercise(
    name="BestWeights.update",
    file="training",
    minutes=10,
    difficulty="easy",
    why="Small sets are soon learned by heart; the best weights are then some epochs old.",
    steps=[
        "Compare the score with the highest so far.",
        "If it is higher, remember it.",
        "Keep copies of the parameters with it, in place of the older ones.",
        "Return whether that was so.",
    ],
    hints=(
        "The optimizer changes parameters in place. What happens to a list of them that somebody kept?",
        "detach() leaves the graph but shares the memory; clone() copies.",
        "self.weights = [parameter.detach().clone() for parameter in self.parameters].",
    ),
    make=made,
    cases=[
        Case("a first score", lambda: {"scores": [0.25]}, call=told),
        Case("better, then worse", lambda: {"scores": [0.25, 0.5, 0.375]}, call=told),
        Case("twice the same, then better", lambda: {"scores": [0.5, 0.5, 0.75]}, call=told),
        Case("scores below 0", lambda: {"scores": [-3.0, -1.0, -2.0]}, call=told),
    ],
    mistakes=[
        Mistake(
            "when nothing is copied",
            {".detach().clone()": ".detach()"},
            "a step changes parameters in place, and with them all that shares their memory: clone copies.",
        ),
        Mistake(
            "when a score that is equal counts as better",
            {"score > self.score": "score >= self.score"},
            "of two that are as good, the earlier has learned less by heart.",
        ),
        Mistake(
            "when lower is better",
            {"score > self.score": "score < self.score"},
            "it is a score and not a loss: higher is better.",
        ),
        Mistake(
            "when all weights are kept",
            {"score > self.score": "True"},
            "the last weights need not be the best.",
        ),
        Mistake(
            "when the first score is never beaten",
            when_the_first_score_is_never_beaten,
            "every score that is higher than all before has its weights kept.",
        ),
        Mistake(
            "when the score is not remembered",
            {"            self.score = score\n": ""},
            "then every later one is better than -inf.",
        ),
        Mistake(
            "when the score is remembered even if it is lower",
            {"is_better = score > self.score": "is_better, self.score = score > self.score, score"},
            "the next would be compared with the last score and not with the highest.",
        ),
        Mistake(
            "when the weights are not copied again",
            {"self.weights = [": "self.weights = self.weights or ["},
            "the newer ones take the older ones' place.",
        ),
        Mistake(
            "when the older copies are kept, too",
            {"self.weights = [": "self.weights = self.weights + ["},
            "one set of copies is enough, and memory for more is not there.",
        ),
        Mistake(
            "without a return",
            {"return is_better": "return None"},
            "whoever trains says when it was the best so far.",
        ),
    ],
    right_ways=[
        RightWay("turned around", turned_around),
        RightWay("into the same memory", into_the_same_memory),
    ],
    compare="what is copied: the parameters that learn. With LoRA these are megabytes; what would it be for "
    "the whole 3B model?",
)
