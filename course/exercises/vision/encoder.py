"""The exercise Encoder of vision_transformer_0.py."""

from dataclasses import replace

import torch
from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.vision.inputs import SIZES, SMALL_TOWER, bf16, features
from vision_transformer_1 import EncoderLayer

# Known mistakes that take whole functions.


class WhenEveryLayerReadsTheFirstInput:
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        result = hidden_states
        for layer in self.layers:
            result = layer(hidden_states)
        return result


# Other right ways.


class NnSequential:
    def __init__(self, config):
        super().__init__()
        self.layers = nn.Sequential(*(EncoderLayer(config) for _ in range(config.num_hidden_layers)))

    def forward(self, hidden_states):
        return self.layers(hidden_states)


class AppendAndCount:
    def __init__(self, config):
        super().__init__()
        self.layers = nn.ModuleList()
        for i in range(config.num_hidden_layers):
            self.layers.append(EncoderLayer(config))

    def forward(self, hidden_states):
        for i in range(len(self.layers)):
            hidden_states = self.layers[i].forward(hidden_states)
        return hidden_states


EXERCISE = Exercise(
    name="Encoder",
    file="vision_transformer",
    minutes=10,
    difficulty="easy",
    why="One look is not enough: each of the 27 blocks builds on what the ones before it found.",
    builds_on=("EncoderLayer",),
    steps={
        "__init__": [
            "Make layers: a list of num_hidden_layers blocks, each one new, in a container whose "
            "modules torch sees.",
        ],
        "forward": [
            "Send the features through the blocks, one after another.",
            "Return what the last one makes.",
        ],
    },
    hints=(
        "A loop. The list must be one that torch knows, or its weights are neither loaded nor trained.",
        "nn.ModuleList around a list comprehension; [layer] * n would be n times the same layer.",
        "for layer in self.layers: hidden_states = layer(hidden_states).",
    ),
    make=lambda m: m.Encoder(SMALL_TOWER),
    result="B N C",
    sizes=SIZES,
    cases=[
        Case("three layers", features(), tolerance=3e-5, training=True),
        Case("no layers", features(), make=lambda m: m.Encoder(replace(SMALL_TOWER, num_hidden_layers=0))),
        Case(
            "two layers, bfloat16",
            features(dtype=bf16),
            dtype=bf16,
            tolerance=8e-2,
            make=lambda m: m.Encoder(replace(SMALL_TOWER, num_hidden_layers=2)),
        ),
    ],
    mistakes=[
        Mistake(
            "with a plain list",
            {
                "nn.ModuleList([EncoderLayer(config) for _ in range(config.num_hidden_layers)])": (
                    "[EncoderLayer(config) for _ in range(config.num_hidden_layers)]"
                ),
            },
            "torch does not look into lists: no weights would be loaded or trained.",
        ),
        Mistake(
            "with one layer used again and again",
            {
                "[EncoderLayer(config) for _ in range(config.num_hidden_layers)]": (
                    "[EncoderLayer(config)] * config.num_hidden_layers"
                ),
            },
            "`[layer] * n` is n times the same object; each block has weights of its own.",
        ),
        Mistake(
            "with the layers in reverse",
            {"in self.layers:": "in reversed(self.layers):"},
            "layer 0 comes first.",
        ),
        Mistake(
            "with the first layer alone",
            {"in self.layers:": "in self.layers[:1]:"},
            "all blocks are needed; is a `return` inside the loop?",
            also=(
                {
                    "hidden_states = layer(hidden_states)\n        return": (
                        "hidden_states = layer(hidden_states)\n            return"
                    )
                },
            ),
        ),
        Mistake(
            "with the last layer left out",
            {"in self.layers:": "in self.layers[:-1]:"},
            "all blocks are needed.",
        ),
        Mistake(
            "when every layer reads the first input",
            WhenEveryLayerReadsTheFirstInput,
            "each block reads what the one before it made.",
        ),
        Mistake(
            "with a residual around every block",
            {
                "hidden_states = layer(hidden_states)": (
                    "hidden_states = hidden_states + layer(hidden_states)"
                ),
            },
            "the residuals are already inside the block.",
        ),
        Mistake(
            "with one layer too few",
            {"range(config.num_hidden_layers)": "range(max(0, config.num_hidden_layers - 1))"},
            "the config says how many there are.",
        ),
    ],
    right_ways=[
        RightWay("nn.Sequential", NnSequential),
        RightWay("append and count", AppendAndCount),
    ],
    compare="nn.Sequential would do as well; the loop shows what happens, and the decoder's blocks, "
    "which take more than one argument, need it.",
)
