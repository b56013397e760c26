"""The exercise MaskVQVAE.decode of mask_decoder_0.py."""

from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.mask_decoder.inputs import SIZES, SMALL_CODEC, token_numbers


class Centered(nn.Module):
    """What a decoder with random weights says is above 0 throughout: this brings it to both sides."""

    def forward(self, drawn):
        return drawn - 3


def decoded(vqvae, tokens):
    vqvae.decoder.append(Centered())
    return vqvae.decode(tokens)


# Other right ways.


def with_squeeze(self, tokens):
    return self.decoder(self._vq_vae.look_up(tokens)).squeeze(1)


def with_flatten(self, tokens):
    grid = self._vq_vae.look_up(tokens)
    drawn = self.decoder.forward(grid)
    return drawn.flatten(0, 1)


RESULT = "self.decoder(self._vq_vae.look_up(tokens))[:, 0]"

EXERCISE = Exercise(
    name="MaskVQVAE.decode",
    file="mask_decoder",
    minutes=5,
    difficulty="easy",
    why="This is the whole way from an answer's 16 words to a shape.",
    builds_on=("make_decoder", "VectorQuantizer.look_up"),
    steps=[
        "Look the codewords up.",
        "Let the decoder draw them.",
        "Take the axis of the one channel off.",
    ],
    hints=(
        "Both parts are attributes of the object, and both are done already.",
        "look_up returns [B, E, 4, 4], and the decoder makes [B, 1, 64, 64] of it. An index takes an axis "
        "off.",
        "self.decoder(self._vq_vae.look_up(tokens))[:, 0].",
    ),
    make=lambda m: m.MaskVQVAE(SMALL_CODEC),
    result="B 64 64",
    sizes=SIZES,
    cases=[
        Case("two shapes", lambda: {"tokens": token_numbers(2)}, call=decoded, training=True),
        Case("a single shape", lambda: {"tokens": token_numbers(1, seed=5)}, call=decoded),
    ],
    mistakes=[
        Mistake(
            "with the axis of the channel kept",
            {RESULT: RESULT.removesuffix("[:, 0]")},
            "there is only one channel: what is asked for is [B, 64, 64].",
        ),
        Mistake(
            "with all axes of size 1 taken off",
            {RESULT: RESULT.replace("[:, 0]", ".squeeze()")},
            "a batch of one shape would lose its axis, too: say which one.",
        ),
        Mistake(
            "with the first shape alone",
            {RESULT: RESULT.replace("[:, 0]", "[0]")},
            "the first axis is the batch.",
        ),
        Mistake(
            "when it is brought to 0 to 1",
            {RESULT: f"({RESULT} + 1) / 2"},
            "-1 to 1 is asked for: the border is at 0.",
        ),
        Mistake(
            "with a sigmoid",
            {RESULT: RESULT + ".sigmoid()"},
            "the decoder was trained to say -1 and 1, and not logits.",
        ),
        Mistake(
            "when it is cut off at 0",
            {RESULT: f"({RESULT} > 0).float()"},
            "whoever stretches the shape needs it smooth.",
        ),
        Mistake(
            "when it is held between -1 and 1",
            {RESULT: RESULT + ".clamp(-1, 1)"},
            "about -1 to 1 is what the decoder says; nothing is changed about that.",
        ),
    ],
    right_ways=[RightWay("with squeeze", with_squeeze), RightWay("with flatten", with_flatten)],
    compare="[:, 0] with .squeeze(): for which batch would the second do something else?",
)
