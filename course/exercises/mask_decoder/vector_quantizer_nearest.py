"""The exercise VectorQuantizer.nearest of mask_decoder_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn
from course.exercises.mask_decoder.inputs import SIZES, SMALL_CODEC


def found(quantizer, features, scale=1.0):
    """scale: of each codeword's own, so that short and long ones are there."""
    with torch.no_grad():
        lengths = torch.linspace(0.4, 2.5, len(quantizer._embedding))
        quantizer._embedding.mul_(lengths[:, None] * scale)
    return quantizer.nearest(features)


# Other right ways.


def with_cdist(self, features):
    B, E = features.shape[:2]
    places = features.permute(0, 2, 3, 1).reshape(B * 16, E)
    return torch.cdist(places, self._embedding).argmin(1).view(B, 16)


def with_the_differences_written_out(self, features):
    places = features.flatten(2).mT
    return (places[:, :, None] - self._embedding).square().sum(-1).min(dim=-1).indices


def with_the_largest_of_the_negative(self, features):
    scores = torch.einsum("behw,ke->bhwk", features, self._embedding) - self._embedding.square().sum(1) / 2
    return scores.flatten(1, 2).argmax(dim=-1)


DISTANCES = "self._embedding.pow(2).sum(dim=1) - 2 * features @ self._embedding.T"
PLACES = "features.flatten(2).transpose(1, 2)"

EXERCISE = Exercise(
    name="VectorQuantizer.nearest",
    file="mask_decoder",
    minutes=20,
    difficulty="medium",
    why="To learn to write shapes, PaliGemma was given words: for each place, the most similar one.",
    steps=[
        "Make a list of the 16 places of each grid, row by row, each with its E numbers.",
        "Compute the squared distance of each place to each codeword; what is the same for all codewords "
        "may be left out.",
        "Return for each place the number of the nearest one.",
    ],
    hints=(
        "Multiply |f - e|^2 out. Which of its three parts does the codeword not change, and which is one "
        "product of matrices for all places and codewords?",
        "flatten(2) joins rows and columns, and transpose(1, 2) makes a list of vectors. "
        "(B, 16, 128) = (128) - (B, 16, E) @ (E, 128).",
        "self._embedding.pow(2).sum(dim=1) - 2 * features @ self._embedding.T, and argmin over the last "
        "axis.",
    ),
    make=lambda m: m.VectorQuantizer(SMALL_CODEC),
    result="B 16",
    sizes=SIZES,
    cases=[
        Case("two grids", lambda: {"features": randn(2, 10, 4, 4)}, call=found),
        Case("features near the origin", lambda: {"features": randn(3, 10, 4, 4, scale=0.4)}, call=found),
        Case("features far out", lambda: {"features": randn(5, 10, 4, 4, scale=3.0)}, call=found),
    ],
    mistakes=[
        Mistake("with the farthest", {"argmin": "argmax"}, "the smallest distance is looked for."),
        Mistake(
            "with the largest product alone",
            {DISTANCES: "-features @ self._embedding.T"},
            "a long codeword has large products with everything: its own length has to be taken off.",
        ),
        Mistake(
            "with the angle alone",
            {
                DISTANCES: "-torch.nn.functional.normalize(features, dim=-1) @ "
                "torch.nn.functional.normalize(self._embedding, dim=1).T"
            },
            "how long a vector is matters here as well as where it points.",
        ),
        Mistake(
            "without the 2",
            {"- 2 * features": "- features"},
            "the product is there twice when the square is multiplied out.",
        ),
        Mistake(
            "with a plus before the product",
            {"- 2 * features": "+ 2 * features"},
            "(f - e)^2 has a minus there.",
        ),
        Mistake(
            "with the lengths not squared",
            {"self._embedding.pow(2).sum(dim=1)": "self._embedding.norm(dim=1)"},
            "it is |e|^2, without a root.",
        ),
        Mistake(
            "with the sum of the differences' sizes",
            {DISTANCES: "(features[:, :, None] - self._embedding).abs().sum(-1)"},
            "that is another distance (L1); here the differences are squared.",
        ),
        Mistake(
            "when the grid is read column by column",
            {PLACES: "features.transpose(2, 3).flatten(2).transpose(1, 2)"},
            "the tokens are written row by row.",
        ),
        Mistake(
            "when the axes are reshaped instead of moved",
            {PLACES: "features.reshape(len(features), -1, features.shape[1])"},
            "reshape cuts the numbers again, and mixes those of different places.",
        ),
        Mistake(
            "with the distance returned",
            {"distances.argmin(dim=-1)": "distances.amin(dim=-1)"},
            "the number of the codeword is asked for.",
        ),
        Mistake(
            "with a grid returned",
            {"distances.argmin(dim=-1)": "distances.argmin(dim=-1).unflatten(1, (4, 4))"},
            "an answer has its words one after the other: [B, 16].",
        ),
    ],
    right_ways=[
        RightWay("with cdist", with_cdist),
        RightWay("with the differences written out", with_the_differences_written_out),
        RightWay("with the largest of the negative", with_the_largest_of_the_negative),
    ],
    compare="what is left out: |f|^2. How much memory would the differences themselves take, for a batch of "
    "64 in vae-oid.npz (128 codewords of 512 numbers)?",
)
