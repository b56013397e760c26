"""The exercise GemmaMLP of decoder_0.py."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import SIZES, SMALL_GEMMA, bf16
from course.exercises.inputs import randn

# Known mistakes that take whole functions.


class WithGateAndUpSwapped:
    def forward(self, hidden_states):
        gate = F.gelu(self.up_proj(hidden_states), approximate="tanh")
        return self.down_proj(gate * self.gate_proj(hidden_states))


class WithGELUOverTheProduct:
    def forward(self, hidden_states):
        product = self.gate_proj(hidden_states) * self.up_proj(hidden_states)
        return self.down_proj(F.gelu(product, approximate="tanh"))


# Other right ways.


class GELUByItsFormula:
    def forward(self, hidden_states):
        g = self.gate_proj(hidden_states)
        g = 0.5 * g * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (g + 0.044715 * g**3)))
        return self.down_proj(self.up_proj(hidden_states).mul_(g))


class AnotherOrderOfCreationNnGELU:
    def __init__(self, config):
        super().__init__()
        D, M = config.hidden_size, config.intermediate_size
        self.act = nn.GELU(approximate="tanh")
        self.down_proj = nn.Linear(M, D, bias=False)
        self.up_proj, self.gate_proj = nn.Linear(D, M, bias=False), nn.Linear(D, M, False)

    def forward(self, hidden_states):
        return self.down_proj(self.up_proj(hidden_states) * self.act(self.gate_proj(hidden_states)))


class OneProductForBoth:
    def forward(self, hidden_states):
        weight = torch.cat([self.gate_proj.weight, self.up_proj.weight])
        gate, up = F.linear(hidden_states, weight).chunk(2, dim=-1)
        return F.linear(F.gelu(gate, approximate="tanh") * up, self.down_proj.weight)


EXERCISE = Exercise(
    name="GemmaMLP",
    file="decoder",
    minutes=10,
    difficulty="easy",
    why="Most of what the model knows is kept here: 72 % of the decoder's weights.",
    steps={
        "__init__": [
            "Make gate_proj and up_proj, from hidden_size to intermediate_size, and down_proj, back "
            "again, all without bias.",
        ],
        "forward": [
            "Widen each token twice: by gate_proj and by up_proj.",
            "Apply GELU to the gate alone, by its tanh formula, and multiply the two.",
            "Narrow with down_proj.",
        ],
    },
    hints=(
        "Read the formula from the inside out. Only one of the two wide vectors goes through GELU.",
        "F.gelu takes an argument that chooses between the exact form and the tanh approximation; "
        "nn.Linear has one about the bias.",
        'down_proj(F.gelu(gate_proj(x), approximate="tanh") * up_proj(x)).',
    ),
    make=lambda m: m.GemmaMLP(SMALL_GEMMA),
    result="B T D",
    sizes=SIZES,
    cases=[
        Case("a batch of two", lambda: {"hidden_states": randn(2, 7, 28, scale=1.5)}, training=True),
        Case(
            "narrower inside than outside",
            lambda: {"hidden_states": randn(2, 5, 28)},
            make=lambda m: m.GemmaMLP(replace(SMALL_GEMMA, intermediate_size=11)),
        ),
        Case("bfloat16", lambda: {"hidden_states": randn(2, 7, 28, dtype=bf16)}, dtype=bf16, tolerance=6e-2),
    ],
    mistakes=[
        Mistake(
            "with the exact GELU",
            {', approximate="tanh"': ""},
            "Gemma was trained with the tanh formula; the two differ by up to 0.0005.",
        ),
        Mistake(
            "with SiLU",
            {
                'F.gelu(self.gate_proj(hidden_states), approximate="tanh")': (
                    "F.silu(self.gate_proj(hidden_states))"
                ),
            },
            "that is LLaMA's SwiGLU; Gemma's is a GeGLU.",
        ),
        Mistake(
            "with ReLU",
            {
                'F.gelu(self.gate_proj(hidden_states), approximate="tanh")': (
                    "F.relu(self.gate_proj(hidden_states))"
                ),
            },
            "it is GELU, by its tanh formula.",
        ),
        Mistake(
            "with a sigmoid",
            {
                'F.gelu(self.gate_proj(hidden_states), approximate="tanh")': (
                    "torch.sigmoid(self.gate_proj(hidden_states))"
                ),
            },
            "that is the original GLU; Gemma's gate is a GELU.",
        ),
        Mistake(
            "with gate and up swapped",
            WithGateAndUpSwapped,
            "GELU is applied to gate_proj.",
        ),
        Mistake(
            "without up_proj",
            {"gate * self.up_proj(hidden_states)": "gate"},
            "gate_proj decides how much of up_proj passes: the two are multiplied.",
        ),
        Mistake(
            "without the gate",
            {"gate * self.up_proj(hidden_states)": "self.up_proj(hidden_states)"},
            "gate_proj decides how much of up_proj passes: the two are multiplied.",
        ),
        Mistake(
            "with GELU over up_proj alone and no gate",
            {"gate * self.up_proj(hidden_states)": 'F.gelu(self.up_proj(hidden_states), approximate="tanh")'},
            "that is the MLP of the vision tower: here gate_proj goes through GELU and multiplies up_proj.",
        ),
        Mistake(
            "with a sum instead of a product",
            {"gate * self": "gate + self"},
            "a gate multiplies.",
        ),
        Mistake(
            "with GELU over the product",
            WithGELUOverTheProduct,
            "GELU is applied to the gate, before the product.",
        ),
        Mistake(
            "with GELU over both",
            {
                "gate * self.up_proj(hidden_states)": (
                    'gate * F.gelu(self.up_proj(hidden_states), approximate="tanh")'
                ),
            },
            "up_proj is left as it is.",
        ),
        Mistake(
            "without GELU",
            {
                'F.gelu(self.gate_proj(hidden_states), approximate="tanh")': (
                    "self.gate_proj(hidden_states)"
                ),
            },
            "the gate goes through GELU.",
        ),
        Mistake(
            "with biases",
            {", bias=False": ""},
            "the decoder has none: the checkpoint holds weights only.",
        ),
        Mistake(
            "with a residual",
            {"return self.down_proj(": "return hidden_states + self.down_proj("},
            "the residual belongs to the block around it, GemmaDecoderLayer.",
        ),
    ],
    right_ways=[
        RightWay("GELU by its formula", GELUByItsFormula),
        RightWay("another order of creation, nn.GELU", AnotherOrderOfCreationNnGELU),
        RightWay("one product for both", OneProductForBoth),
    ],
    compare="next to the vision tower's MLP: no biases, and a third matrix that decides what passes.",
)
