"""The exercise MLP of vision_transformer_0.py."""

import torch
from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.vision.inputs import SIZES, SMALL_TOWER, bf16, features

# Other right ways.


class GELUByItsFormula:
    def forward(self, hidden_states):
        x = self.fc1(hidden_states)
        inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
        return self.fc2(0.5 * x * (1 + torch.tanh(inner)))


class NnGELU:
    def __init__(self, config):
        super().__init__()
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, hidden_states):
        hidden_states = self.fc1(hidden_states)
        hidden_states = self.act(hidden_states)
        hidden_states = self.fc2(hidden_states)
        return hidden_states


EXERCISE = Exercise(
    name="MLP",
    file="vision_transformer",
    minutes=10,
    difficulty="easy",
    why="Attention only averages what patches carry; here each of them is worked on.",
    steps={
        "__init__": [
            "Make fc1, from hidden_size to intermediate_size, and fc2, back again, both with bias.",
        ],
        "forward": [
            "Widen each patch with fc1.",
            "Apply GELU by its tanh formula, not the exact one.",
            "Narrow with fc2.",
        ],
    },
    hints=(
        "Three calls, one inside the other. Which GELU is it?",
        "F.gelu takes an argument that chooses between the exact form and the tanh approximation.",
        'fc2(F.gelu(fc1(hidden_states), approximate="tanh")).',
    ),
    make=lambda m: m.MLP(SMALL_TOWER),
    result="B N C",
    sizes=SIZES,
    cases=[
        Case("a batch of two", features(scale=1.5), training=True),
        Case("bfloat16", features(dtype=bf16), dtype=bf16, tolerance=4e-2),
    ],
    mistakes=[
        Mistake(
            "with the exact GELU",
            {', approximate="tanh"': ""},
            "SigLIP was trained with the tanh formula; the two differ by up to 0.0005.",
        ),
        Mistake(
            "with ReLU",
            {
                'F.gelu(self.fc1(hidden_states), approximate="tanh")': ("F.relu(self.fc1(hidden_states))"),
            },
            "the activation is GELU, which is smooth.",
        ),
        Mistake(
            "with SiLU",
            {
                'F.gelu(self.fc1(hidden_states), approximate="tanh")': ("F.silu(self.fc1(hidden_states))"),
            },
            "the activation is GELU; SiLU is LLaMA's.",
        ),
        Mistake(
            "with x * sigmoid(1.702 x)",
            {
                'F.gelu(self.fc1(hidden_states), approximate="tanh")': (
                    "(lambda x: x * torch.sigmoid(1.702 * x))(self.fc1(hidden_states))"
                ),
            },
            "that is CLIP's rougher approximation of GELU; SigLIP uses the tanh formula.",
        ),
        Mistake(
            "without an activation",
            {'F.gelu(self.fc1(hidden_states), approximate="tanh")': "self.fc1(hidden_states)"},
            "two linear maps in a row are only one linear map.",
        ),
        Mistake(
            "with GELU at the end",
            {
                'self.fc2(F.gelu(self.fc1(hidden_states), approximate="tanh"))': (
                    'F.gelu(self.fc2(self.fc1(hidden_states)), approximate="tanh")'
                ),
            },
            "it belongs between the two layers, where the vector is wide.",
        ),
        Mistake(
            "with GELU a second time at the end",
            {
                'return self.fc2(F.gelu(self.fc1(hidden_states), approximate="tanh"))': (
                    'return F.gelu(self.fc2(F.gelu(self.fc1(hidden_states), approximate="tanh")), '
                    'approximate="tanh")'
                ),
            },
            "nothing comes after fc2: the result is added to the residual as it is.",
        ),
        Mistake(
            "with the residual already added",
            {"return self.fc2(": "return hidden_states + self.fc2("},
            "EncoderLayer adds it.",
        ),
        Mistake(
            "without the biases",
            {
                "intermediate_size)": "intermediate_size, bias=False)",
                "intermediate_size, config.hidden_size)": (
                    "intermediate_size, config.hidden_size, bias=False)"
                ),
            },
            "the tower's layers have biases; the Gemma decoder's do not.",
        ),
    ],
    right_ways=[
        RightWay("GELU by its formula", GELUByItsFormula),
        RightWay("nn.GELU", NnGELU),
    ],
    compare="the Gemma decoder's GemmaMLP later: the same idea with a gate, and without biases.",
)
