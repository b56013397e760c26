"""The exercise MaskVQVAE.encode of mask_decoder_0.py."""

import torch
from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.mask_decoder.inputs import SIZES, SMALL_CODEC, shapes


class Apart(nn.Module):
    """What an encoder with random weights says depends little on the shape: this makes more of it."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, features):
        return 8 * (features - self.features)


def encoded(vqvae, shapes):
    with torch.no_grad():
        vqvae.encoder.append(Apart(vqvae.encoder(torch.zeros(1, 1, 64, 64))))
    return vqvae.encode(shapes)


def sharp(B, **sizes):
    return (shapes(B, **sizes) > 0.5).float()


# Other right ways.


def moved_and_stretched(self, shapes):
    pictures = (shapes.unsqueeze(1) - 0.5) / 0.5
    return self._vq_vae.nearest(self.encoder(pictures))


def inside_less_outside(self, shapes):
    features = self.encoder((shapes - (1 - shapes))[:, None])
    return self._vq_vae.nearest(features)


INPUT = "2 * shapes[:, None] - 1"

EXERCISE = Exercise(
    name="MaskVQVAE.encode",
    file="mask_decoder",
    minutes=10,
    difficulty="easy",
    why="It says any shape in 16 words: the answers that PaliGemma learns to write are made with it.",
    builds_on=("make_encoder", "VectorQuantizer.nearest"),
    steps=[
        "Bring the shapes from 0 to 1 to -1 to 1.",
        "Give them an axis for their one channel, and send them through the encoder.",
        "Find the nearest codewords.",
    ],
    hints=(
        "What must 0 become, and what 1? One multiplication and one subtraction do it.",
        "An index of None makes an axis: shapes[:, None] is [B, 1, 64, 64].",
        "self._vq_vae.nearest(self.encoder(2 * shapes[:, None] - 1)).",
    ),
    make=lambda m: m.MaskVQVAE(SMALL_CODEC),
    result="B 16",
    sizes=SIZES,
    cases=[
        Case("three shapes, inside and outside alone", lambda: {"shapes": sharp(3)}, call=encoded),
        Case("two shapes with soft borders", lambda: {"shapes": shapes(2)}, call=encoded),
    ],
    mistakes=[
        Mistake(
            "when 0 to 1 is left as it is",
            {INPUT: "shapes[:, None]"},
            "the encoder was trained on -1 for outside.",
        ),
        Mistake(
            "with 2 (shapes - 1)",
            {INPUT: "2 * (shapes[:, None] - 1)"},
            "that is -2 to 0: multiply by 2 first, then subtract 1.",
        ),
        Mistake(
            "with -0.5 to 0.5",
            {INPUT: "shapes[:, None] - 0.5"},
            "it is -1 to 1, so the difference of both is 2.",
        ),
        Mistake(
            "with inside and outside swapped",
            {INPUT: "1 - 2 * shapes[:, None]"},
            "inside is 1, and outside is -1.",
        ),
        Mistake(
            "when it is cut off at a half first",
            {INPUT: "2 * (shapes[:, None] > 0.5).float() - 1"},
            "soft borders say where the border runs between two points: they are kept.",
        ),
        Mistake(
            "without the axis of the channel",
            {INPUT: "2 * shapes - 1"},
            "a convolution reads [B, channels, h, w].",
        ),
        Mistake(
            "with features in place of tokens",
            {f"self._vq_vae.nearest(self.encoder({INPUT}))": f"self.encoder({INPUT})"},
            "a token is the number of the codeword that is nearest to them.",
        ),
    ],
    right_ways=[
        RightWay("moved and stretched", moved_and_stretched),
        RightWay("inside less outside", inside_less_outside),
    ],
    compare="it with decode: what goes in here is from 0 to 1, and what comes out there from -1 to 1. What "
    "would you have to do to encode what was decoded?",
)
