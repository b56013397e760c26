"""The exercise EncoderLayer of vision_transformer_0.py."""

from dataclasses import replace

from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.vision.inputs import SIZES, SMALL_TOWER, bf16, features
from vision_transformer_1 import MLP, Attention

# Known mistakes that take whole functions.


class WithTheNormAfterAddingPostNorm:
    def forward(self, hidden_states):
        hidden_states = self.layer_norm1(hidden_states + self.self_attn(hidden_states))
        return self.layer_norm2(hidden_states + self.mlp(hidden_states))


class WhenTheNormalizedInputIsAddedInsteadOfTheInput:
    def forward(self, hidden_states):
        hidden_states = self.layer_norm1(hidden_states)
        hidden_states = hidden_states + self.self_attn(hidden_states)
        hidden_states = self.layer_norm2(hidden_states)
        return hidden_states + self.mlp(hidden_states)


class WithTheFirstInputAddedAgain:
    def forward(self, hidden_states):
        residual = hidden_states
        hidden_states = residual + self.self_attn(self.layer_norm1(hidden_states))
        return residual + self.mlp(self.layer_norm2(hidden_states))


class WithTheMLPBesideAttention:
    def forward(self, hidden_states):
        attended = self.self_attn(self.layer_norm1(hidden_states))
        return hidden_states + attended + self.mlp(self.layer_norm2(hidden_states))


class WithTheMLPFirst:
    def forward(self, hidden_states):
        hidden_states = hidden_states + self.mlp(self.layer_norm2(hidden_states))
        return hidden_states + self.self_attn(self.layer_norm1(hidden_states))


# Other right ways.


class WithANameForEachResidual:
    def forward(self, hidden_states):
        residual = hidden_states
        x = self.layer_norm1(hidden_states)
        x = self.self_attn(x)
        x += residual
        y = self.mlp(self.layer_norm2(x))
        return y.add_(x)


class AnotherOrderOfCreation:
    def __init__(self, config):
        super().__init__()
        C, eps = config.hidden_size, config.layer_norm_eps
        self.mlp, self.self_attn = MLP(config), Attention(config)
        self.layer_norm2, self.layer_norm1 = nn.LayerNorm(C, eps), nn.LayerNorm([C], eps)


EXERCISE = Exercise(
    name="EncoderLayer",
    file="vision_transformer",
    minutes=15,
    difficulty="medium",
    why="Look around, then think: this pair, repeated, is the whole tower.",
    builds_on=("Attention", "MLP"),
    steps={
        "__init__": [
            "Make the two norms, layer_norm1 and layer_norm2, of hidden_size with the eps of the config.",
            "Make self_attn and mlp.",
        ],
        "forward": [
            "Add to the input what attention makes of the normalized input; leave the input itself as "
            "it was.",
            "Add to that what the MLP makes of it, after the second norm.",
        ],
    },
    hints=(
        "Two lines of the same form, one for each sublayer. What is normalized, and what is it added to?",
        "The norm is only on the way into the sublayer. Its result is added to the input as it was "
        "before the norm: x + f(norm(x)).",
        "x = x + self.self_attn(self.layer_norm1(x)), then the same with mlp and layer_norm2, on the new x.",
    ),
    make=lambda m: m.EncoderLayer(SMALL_TOWER),
    result="B N C",
    sizes=SIZES,
    cases=[
        Case("a batch of two", features(), training=True),
        Case("small values, where eps counts", features(scale=0.3)),
        Case(
            "another eps, 0.02",
            features(scale=0.2),
            make=lambda m: m.EncoderLayer(replace(SMALL_TOWER, layer_norm_eps=0.02)),
        ),
        Case("bfloat16", features(dtype=bf16), dtype=bf16, tolerance=6e-2),
    ],
    mistakes=[
        Mistake(
            "with the norm after adding (post-norm)",
            WithTheNormAfterAddingPostNorm,
            "SigLIP normalizes what goes into a sublayer and leaves the path around it free (pre-norm).",
        ),
        Mistake(
            "without the first residual",
            {"hidden_states + self.self_attn(": "self.self_attn("},
            "attention's result is added to the input.",
        ),
        Mistake(
            "without the second residual",
            {"hidden_states + self.mlp(": "self.mlp("},
            "the MLP's result is added to what comes in.",
        ),
        Mistake(
            "without any residual",
            {
                "hidden_states + self.self_attn(": "self.self_attn(",
                "hidden_states + self.mlp(": "self.mlp(",
            },
            "both sublayers' results are added to what went in.",
        ),
        Mistake(
            "when the normalized input is added instead of the input",
            WhenTheNormalizedInputIsAddedInsteadOfTheInput,
            "the norm is only on the way into the sublayer; its result is added to the input as it was.",
        ),
        Mistake(
            "with layer_norm1 in both places",
            {"self.layer_norm2(hidden_states)": "self.layer_norm1(hidden_states)"},
            "each sublayer has its own norm.",
        ),
        Mistake(
            "with the two norms swapped",
            {
                "self.layer_norm1(hidden_states)": "self.layer_norm2(hidden_states)",
                "self.mlp(self.layer_norm2(hidden_states))": ("self.mlp(self.layer_norm1(hidden_states))"),
            },
            "layer_norm1 comes before attention, layer_norm2 before the MLP.",
        ),
        Mistake(
            "with PyTorch's eps",
            {", eps=config.layer_norm_eps": ""},
            "LayerNorm's own default is 1e-5; the config says which one the tower was trained with.",
        ),
        Mistake(
            "when the second residual is still the first input",
            WithTheFirstInputAddedAgain,
            "the MLP's result is added to what came out of attention: renew the residual in between.",
        ),
        Mistake(
            "with the MLP beside attention",
            WithTheMLPBesideAttention,
            "the MLP works on what attention has gathered, so it comes after it.",
        ),
        Mistake(
            "with the MLP first",
            WithTheMLPFirst,
            "attention comes first.",
        ),
        Mistake(
            "without the norms",
            {
                "self.layer_norm1(hidden_states)": "hidden_states",
                "self.layer_norm2(hidden_states)": "hidden_states",
            },
            "each sublayer reads a normalized input.",
        ),
        Mistake(
            "with the input changed in place",
            {"hidden_states = hidden_states + self.self_attn(": "hidden_states += self.self_attn("},
            "`+=` on a tensor writes into it, so the caller's tensor changes too.",
        ),
    ],
    right_ways=[
        RightWay("with a name for each residual", WithANameForEachResidual),
        RightWay("another order of creation", AnotherOrderOfCreation),
    ],
    compare="the rhythm of the two lines: GemmaDecoderLayer has the same, so the differences between "
    "the two models stand out.",
)
