"""The exercise VectorQuantizer.look_up of mask_decoder_0.py."""

import torch
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.mask_decoder.inputs import SIZES, SMALL_CODEC, token_numbers


def looked_up(quantizer, tokens):
    return quantizer.look_up(tokens)


# Other right ways.


def with_f_embedding(self, tokens):
    grid = F.embedding(tokens, self._embedding)
    return grid.view(-1, 4, 4, grid.shape[-1]).permute(0, 3, 1, 2)


def with_the_tokens_in_a_grid_first(self, tokens):
    return self._embedding[tokens.view(-1, 4, 4)].movedim(-1, 1)


def place_by_place(self, tokens):
    rows = [torch.stack([self._embedding[tokens[:, 4 * i + j]] for j in range(4)], -1) for i in range(4)]
    return torch.stack(rows, dim=2)


GRID = "codewords.transpose(1, 2).unflatten(2, (GRID_SIDE, GRID_SIDE))"

EXERCISE = Exercise(
    name="VectorQuantizer.look_up",
    file="mask_decoder",
    minutes=10,
    difficulty="easy",
    why="The tokens of an answer are numbers; the decoder reads vectors, each in its place.",
    steps=[
        "Take the codeword of each token out of the codebook.",
        "Move the E numbers of a codeword to where a convolution has its channels.",
        "Cut the 16 places into four rows of four.",
    ],
    hints=(
        "Write down the shape after each step, from [B, 16] to [B, E, 4, 4]. At which step do axes change "
        "places?",
        "A tensor takes a tensor of numbers as an index, and gives a row for each. Axes are swapped by "
        "transpose; reshape would only cut the numbers again, in the order in which they lie.",
        "self._embedding[tokens].transpose(1, 2).unflatten(2, (4, 4)).",
    ),
    make=lambda m: m.VectorQuantizer(SMALL_CODEC),
    result="B E 4 4",
    sizes=SIZES,
    cases=[
        Case("two grids", lambda: {"tokens": token_numbers(2)}, call=looked_up),
        Case(
            "the first and the last word of the codebook",
            lambda: {"tokens": torch.tensor([[0, 36] * 8, [36] * 15 + [0], [0] * 13 + [36] * 3])},
            call=looked_up,
        ),
        Case(
            "in training, where gradients have to flow back",
            lambda: {"tokens": token_numbers(3, seed=2)},
            call=lambda made, tokens: made.look_up(tokens) * 2,
            training=True,
        ),
    ],
    mistakes=[
        Mistake(
            "when the grid is filled column by column",
            {GRID: GRID + ".transpose(2, 3)"},
            "the tokens stand row by row: the first four are the top row.",
        ),
        Mistake(
            "when the axes are reshaped instead of moved",
            {GRID: "codewords.reshape(len(tokens), -1, GRID_SIDE, GRID_SIDE)"},
            "reshape cuts the numbers again, and mixes those of different codewords.",
        ),
        Mistake(
            "with the channels at the end",
            {GRID: "codewords.unflatten(1, (GRID_SIDE, GRID_SIDE))"},
            "torch's convolution wants them in front: [B, E, 4, 4].",
        ),
        Mistake(
            "when it is not cut into rows",
            {GRID: "codewords.transpose(1, 2)"},
            "a convolution has to know which places are above each other.",
        ),
        Mistake(
            "when the tokens are counted from 1",
            {"self._embedding[tokens]": "self._embedding[tokens - 1]"},
            "`<seg000>` is the first row of the codebook.",
        ),
        Mistake(
            "with codewords of length 1",
            {"self._embedding[tokens]": "F.normalize(self._embedding, dim=1)[tokens]"},
            "how long a codeword is says something, too.",
        ),
        Mistake(
            "without gradients",
            {"self._embedding[tokens]": "self._embedding.detach()[tokens]"},
            "a codebook that gets no gradient could not be trained together with the rest.",
        ),
    ],
    right_ways=[
        RightWay("with F.embedding", with_f_embedding),
        RightWay("with the tokens in a grid first", with_the_tokens_in_a_grid_first),
        RightWay("place by place", place_by_place),
    ],
    compare="the transpose. The result has the same shape with a reshape: how would you have noticed, from "
    "a drawing alone?",
)
