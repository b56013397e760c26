"""The exercise PaliGemmaMultiModalProjector of decoder_0.py."""

import torch
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import SMALL_PALIGEMMA, bf16
from course.exercises.inputs import randn

# Known mistakes that take whole functions.


class WhenDividedBySqrtD:
    def forward(self, image_features: torch.Tensor) -> torch.Tensor:
        x = self.linear(image_features)
        return x / x.shape[-1] ** 0.5


# Other right ways.


class ByItsFormula:
    def forward(self, image_features):
        return F.linear(image_features, self.linear.weight, self.linear.bias)


class AProductAndASum:
    def forward(self, image_features):
        return image_features @ self.linear.weight.T + self.linear.bias


EXERCISE = Exercise(
    name="PaliGemmaMultiModalProjector",
    file="decoder",
    minutes=5,
    difficulty="easy",
    why="The tower's vectors are 1152 wide and mean nothing to Gemma, which reads 2048 numbers.",
    steps={
        "__init__": [
            "Make linear: from the width of the vision tower to projection_dim, with bias.",
        ],
        "forward": [
            "Project the features of all patches.",
            "Return them as they are: no activation, no scaling.",
        ],
    },
    hints=(
        "One layer. Which of the two widths is in the vision_config?",
        "nn.Linear(in, out): the sizes are config.vision_config.hidden_size and config.projection_dim.",
        "return self.linear(image_features).",
    ),
    make=lambda m: m.PaliGemmaMultiModalProjector(SMALL_PALIGEMMA),
    result="B N D",
    sizes={"C": 18, "D": 28, "N": 4},
    cases=[
        Case("a batch of two", lambda: {"image_features": randn(2, 4, 18)}, training=True),
        Case("bfloat16", lambda: {"image_features": randn(2, 4, 18, dtype=bf16)}, dtype=bf16),
    ],
    mistakes=[
        Mistake(
            "without the bias",
            {"config.projection_dim)": "config.projection_dim, bias=False)"},
            "this one has a bias, unlike Gemma's projections.",
        ),
        Mistake(
            "with the two widths swapped",
            {
                "config.vision_config.hidden_size, config.projection_dim": (
                    "config.projection_dim, config.vision_config.hidden_size"
                ),
            },
            "nn.Linear(in, out): from the tower to the decoder.",
        ),
        Mistake(
            "with GELU",
            {
                "return self.linear(image_features)": (
                    'return F.gelu(self.linear(image_features), approximate="tanh")'
                ),
            },
            "PaliGemma's projector is one linear layer, without an activation.",
        ),
        Mistake(
            "when divided by sqrt(D)",
            WhenDividedBySqrtD,
            "that is done where the features are merged with the embeddings; here it would be one time "
            "too many.",
        ),
        Mistake(
            "with a layer norm",
            {
                "self.linear(image_features)": (
                    "self.linear(F.layer_norm(image_features, image_features.shape[-1:]))"
                ),
            },
            "the tower's post_layernorm has already normalized the features.",
        ),
        Mistake(
            "with another attribute name",
            {"self.linear": "self.proj"},
            "the names of the weights come from the names of the attributes.",
        ),
        Mistake(
            "with the patches averaged",
            {"return self.linear(image_features)": "return self.linear(image_features).mean(dim=1)"},
            "the decoder reads every patch.",
        ),
        Mistake(
            "with a residual",
            {
                "return self.linear(image_features)": ("return image_features + self.linear(image_features)"),
            },
            "the two widths differ: there is nothing to add to.",
        ),
    ],
    right_ways=[
        RightWay("by its formula", ByItsFormula),
        RightWay("a product and a sum", AProductAndASum),
    ],
    compare="how little joins the two models: 2.4 of 2923 million parameters.",
)
