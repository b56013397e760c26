"""The exercise GemmaRMSNorm of decoder_0.py."""

import torch
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import bf16
from course.exercises.inputs import randn

# Known mistakes that take whole functions.


class ByTheNorm:
    def forward(self, x):
        x32 = x.float()
        normed = x32 / (x32.norm(dim=-1, keepdim=True) + self.eps)
        return (normed * (1 + self.weight.float())).to(x.dtype)


class ByTheNormAlone:
    def forward(self, x):
        x32 = x.float()
        return (x32 / x32.norm(dim=-1, keepdim=True) * (1 + self.weight.float())).to(x.dtype)


class ByTheNormAndEpsUnderTheRoot:
    def forward(self, x):
        x32 = x.float()
        normed = x32 / (x32.norm(dim=-1, keepdim=True) ** 2 + self.eps).sqrt()
        return (normed * (1 + self.weight.float())).to(x.dtype)


class ByTheStandardDeviation:
    def forward(self, x):
        x32 = x.float()
        normed = x32 / (x32.std(dim=-1, keepdim=True) + self.eps)
        return (normed * (1 + self.weight.float())).to(x.dtype)


class ByTheStandardDeviationOfAll:
    def forward(self, x):
        x32 = x.float()
        normed = x32 / (x32.std(dim=-1, keepdim=True, correction=0) + self.eps)
        return (normed * (1 + self.weight.float())).to(x.dtype)


# Other right ways.


class DividingByTheRoot:
    def forward(self, x):
        rms = (x.float().square().mean(-1, keepdim=True) + self.eps).sqrt()
        return (x.float() / rms * (self.weight.float() + 1)).type_as(x)


class FRmsNorm:
    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), 1 + self.weight.float(), self.eps).to(x.dtype)


class InPlaceOnItsOwnTensor:
    def forward(self, x):
        y = x.to(torch.float32, copy=True)
        scale = torch.linalg.vector_norm(y.detach() if not y.requires_grad else y, dim=-1, keepdim=True)
        y = y * (scale.pow(2) / x.shape[-1] + self.eps) ** -0.5
        y = y + y * self.weight.float()
        return y.to(x.dtype)


EXERCISE = Exercise(
    name="GemmaRMSNorm",
    file="decoder",
    minutes=15,
    difficulty="medium",
    why="Every block reads vectors of one size, although the stream that 18 layers add to keeps growing.",
    steps={
        "__init__": [
            "Keep eps, and make the parameter weight: dim zeros.",
        ],
        "forward": [
            "Cast x to float32, whatever its dtype.",
            "Divide each vector by the root of the mean of its squares, with eps added under the root.",
            "Multiply by one plus the weight, still in float32.",
            "Cast the result back to the dtype of x.",
        ],
    },
    hints=(
        "Work through the formula from the inside: square, mean, eps, root, division. Over which axis "
        "is the mean, and does the result still fit x?",
        "mean(dim=-1, keepdim=True) leaves a 1 in place of D, so that it divides every number of its "
        "vector. The checkpoint stores the weight as an offset from one.",
        "x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + eps) * (1 + self.weight.float()), then "
        ".to(x.dtype).",
    ),
    make=lambda m: m.GemmaRMSNorm(20, eps=0.3),
    result="B T D",
    sizes={"D": 20},
    cases=[
        Case("a batch of two", lambda: {"x": randn(2, 7, 20)}, training=True),
        Case("small values, where eps counts", lambda: {"x": randn(2, 7, 20, scale=0.2)}),
        Case("values around 5, not around 0", lambda: {"x": randn(2, 7, 20) + 5}),
        Case(
            "the eps that it has when none is given",
            lambda: {"x": randn(2, 7, 20, scale=1e-3)},
            make=lambda m: m.GemmaRMSNorm(20),
        ),
        Case("a single vector", lambda: {"x": randn(20)}),
        Case(
            "the weight at the start: zeros",
            lambda: {"x": randn(3, 20)},
            make=lambda m: m.GemmaRMSNorm,
            call=lambda cls, x: cls(20, eps=0.1).weight,
        ),
        Case("bfloat16", lambda: {"x": randn(6, 31, 20, dtype=bf16)}, dtype=bf16, exact=0.95),
        Case(
            "input in bfloat16, weight in float32",
            lambda: {"x": randn(6, 31, 20, dtype=bf16)},
            exact=0.95,
        ),
    ],
    mistakes=[
        Mistake(
            "without the `1 +`",
            {"(1 + self.weight.float())": "self.weight.float()"},
            "Gemma stores the weight as an offset from one.",
            also=(
                {"(1 + self.weight.float())": "self.weight.float()", "torch.zeros(dim)": "torch.ones(dim)"},
            ),
        ),
        Mistake(
            "when the mean is subtracted first",
            {"x32 = x.float()": "x32 = x.float() - x.float().mean(dim=-1, keepdim=True)"},
            "that is LayerNorm; RMSNorm leaves the mean where it is.",
        ),
        Mistake(
            "with the standard deviation instead of the root mean square",
            ByTheStandardDeviation,
            "std and var subtract the mean first; RMSNorm takes the squares as they are.",
            also=(
                ByTheStandardDeviationOfAll,
                {"x32.pow(2).mean(dim=-1, keepdim=True)": "x32.var(dim=-1, keepdim=True)"},
                {"x32.pow(2).mean(dim=-1, keepdim=True)": "x32.var(dim=-1, keepdim=True, unbiased=False)"},
                {
                    "torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + self.eps)": (
                        "1 / x32.std(dim=-1, keepdim=True)"
                    )
                },
            ),
        ),
        Mistake(
            "when eps is the least that the mean square may be",
            {
                "x32.pow(2).mean(dim=-1, keepdim=True) + self.eps": (
                    "x32.pow(2).mean(dim=-1, keepdim=True).clamp(min=self.eps)"
                )
            },
            "clamp leaves larger values as they are: eps is added to all of them.",
            also=(
                {
                    "torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + self.eps)": (
                        "1 / x32.pow(2).mean(dim=-1, keepdim=True).sqrt().clamp(min=self.eps)"
                    )
                },
            ),
        ),
        Mistake(
            "without eps", {" + self.eps": ""}, "eps keeps a vector of zeros from being divided by zero."
        ),
        Mistake(
            "with eps outside the root",
            {
                "torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + self.eps)": (
                    "1 / (x32.pow(2).mean(dim=-1, keepdim=True).sqrt() + self.eps)"
                ),
            },
            "eps is added to the mean of the squares, before the root.",
        ),
        Mistake(
            "with 1e-6 whatever eps says", {"+ self.eps": "+ 1e-6"}, "the argument says how large it is."
        ),
        Mistake(
            "with the sum of squares instead of their mean",
            {".mean(dim=-1": ".sum(dim=-1"},
            "it is the root of the *mean* square: a vector's norm is larger by sqrt(D).",
            also=(ByTheNorm, ByTheNormAlone, ByTheNormAndEpsUnderTheRoot),
        ),
        Mistake(
            "with the mean over everything",
            {".mean(dim=-1, keepdim=True)": ".mean()"},
            "each vector has its own root mean square: the mean is over the last axis.",
        ),
        Mistake(
            "without the root",
            {
                "torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + self.eps)": (
                    "1 / (x32.pow(2).mean(dim=-1, keepdim=True) + self.eps)"
                ),
            },
            "the root mean square divides, not the mean square.",
        ),
        Mistake(
            "when computed in bfloat16",
            {
                "x32 = x.float()": "x32 = x",
                "self.weight.float()": "self.weight",
                "+ self.eps": "+ self.eps",
            },
            "each step in bfloat16 is off by up to 0.4 %: x goes to float32 first, and the result is "
            "rounded once, at the end.",
        ),
        Mistake(
            "with 1 + weight rounded to bfloat16",
            {"(1 + self.weight.float())": "(1 + self.weight).float()"},
            "next to 1, bfloat16 has steps of 1/128, which swallow most of a small weight: cast it first.",
            also=({"(1 + self.weight.float())": "(1 + self.weight)"},),
        ),
        Mistake(
            "when cast back before the weight",
            {
                "(normed * (1 + self.weight.float())).to(x.dtype)": (
                    "(normed.to(x.dtype) * (1 + self.weight.to(x.dtype)))"
                ),
            },
            "LLaMA does that; Gemma multiplies in float32 and casts last.",
            also=(
                {
                    "(normed * (1 + self.weight.float())).to(x.dtype)": (
                        "(1 + self.weight) * normed.to(x.dtype)"
                    ),
                },
            ),
        ),
        Mistake("without casting back", {".to(x.dtype)": ""}, "the result has the dtype of x."),
        Mistake(
            "with a weight of ones at the start",
            {"torch.zeros(dim)": "torch.ones(dim)"},
            "the weight is an offset from one, so it starts at zero.",
        ),
    ],
    right_ways=[
        RightWay("dividing by the root", DividingByTheRoot),
        RightWay("F.rms_norm", FRmsNorm),
        RightWay("in place on its own tensor", InPlaceOnItsOwnTensor),
    ],
    compare="where the cast back is: at the very end, after the weight. In LLaMA it comes before the weight.",
)
