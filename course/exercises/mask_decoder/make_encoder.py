"""The exercise make_encoder of mask_decoder_0.py."""

from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn
from course.exercises.mask_decoder.inputs import SIZES, SMALL_CODEC
from mask_decoder_1 import MaskConfig, ResidualBlock

# Known mistakes that take whole functions.


def without_the_relus(config):
    layers, width = [], 1
    for out_channels in config.channels:
        layers += [nn.Conv2d(width, out_channels, kernel_size=4, stride=2, padding=1), nn.Identity()]
        width = out_channels
    layers += [ResidualBlock(width), ResidualBlock(width)]
    return nn.Sequential(*layers, nn.Conv2d(width, config.embedding_dim, kernel_size=1))


def with_pooling(config):
    layers, width = [], 1
    for out_channels in config.channels:
        layers.append(nn.Conv2d(width, out_channels, kernel_size=4, padding=2))
        layers.append(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
        width = out_channels
    layers += [ResidualBlock(width), ResidualBlock(width)]
    return nn.Sequential(*layers, nn.Conv2d(width, config.embedding_dim, kernel_size=1))


# Other right ways.


def in_pairs_of_widths(config):
    network = nn.Sequential()
    for narrow, wide in zip([1, *config.channels], config.channels, strict=False):
        network.append(nn.Conv2d(narrow, wide, 4, 2, 1)).append(nn.ReLU(inplace=True))
    network.extend(ResidualBlock(wide) for _ in range(2))
    return network.append(nn.Conv2d(wide, config.embedding_dim, 1))


def with_the_number_of_the_layer(config):
    layers = []
    for i in range(4):
        narrow = 1 if i == 0 else config.hidden_dim * 2 ** (i - 1)
        layers += (nn.Conv2d(narrow, config.hidden_dim * 2**i, (4, 4), (2, 2), (1, 1)), nn.ReLU())
    M = config.channels[3]
    layers += [ResidualBlock(M), ResidualBlock(M), nn.Conv2d(M, config.embedding_dim, 1)]
    return nn.Sequential(*layers)


END = "    return nn.Sequential(*layers)"

EXERCISE = Exercise(
    name="make_encoder",
    file="mask_decoder",
    minutes=20,
    difficulty="medium",
    why="It wrote the 16 words of every answer to `segment` that PaliGemma was trained on.",
    builds_on=("ResidualBlock",),
    steps=[
        "Append a convolution that halves the side, and a ReLU, four times, from one channel to M.",
        "Append two residual blocks.",
        "End with a 1 x 1 convolution to E channels, and return it all as one network.",
    ],
    hints=(
        "It is the decoder backwards, nearly. Which widths come out of the four convolutions, and what goes "
        "into the first?",
        "A side of n becomes (n + 2 * padding - kernel_size) / stride + 1, rounded down: n / 2 with 1, 4 "
        "and 2.",
        "for out_channels in config.channels: layers.append(nn.Conv2d(width, out_channels, kernel_size=4, "
        "stride=2, padding=1)); layers.append(nn.ReLU()); width = out_channels.",
    ),
    make=lambda m: m.make_encoder(SMALL_CODEC),
    result="B E h w",
    sizes=SIZES,
    cases=[
        Case("two shapes", lambda: {"x": randn(2, 1, 64, 64)}, training=True),
        Case("shapes that are not square", lambda: {"x": randn(3, 1, 32, 48, seed=1)}),
        Case(
            "other sizes",
            lambda: {"x": randn(2, 1, 64, 64)},
            make=lambda m: m.make_encoder(MaskConfig(embedding_dim=7, hidden_dim=2)),
        ),
    ],
    mistakes=[
        Mistake("without the ReLUs", without_the_relus, "each of the four convolutions has one behind it."),
        Mistake("without padding", {", padding=1": ""}, "64 would become 2 on its way, and not 4."),
        Mistake("with windows of 3 x 3", {"kernel_size=4": "kernel_size=3"}, "they are 4 x 4."),
        Mistake("with a stride of 1", {"stride=2": "stride=1"}, "each of them halves the side."),
        Mistake(
            "with pooling in place of the stride",
            with_pooling,
            "the window moves on by two places, and no value is thrown away afterwards.",
        ),
        Mistake(
            "with a ReLU at the end",
            {END: "    layers.append(nn.ReLU())\n" + END},
            "codewords have negative numbers too, and so must what is compared with them.",
        ),
        Mistake(
            "with one residual block, used twice",
            {"[ResidualBlock(width), ResidualBlock(width)]": "[ResidualBlock(width)] * 2"},
            "there are two, each with weights of its own.",
        ),
        Mistake(
            "with a single residual block",
            {"[ResidualBlock(width), ResidualBlock(width)]": "[ResidualBlock(width)]"},
            "there are two of them.",
        ),
        Mistake(
            "with the widths of the decoder",
            {"in config.channels": "in reversed(config.channels)"},
            "here the network gets wider as the side shrinks.",
        ),
        Mistake(
            "with the last convolution back to one channel",
            {"nn.Conv2d(width, config.embedding_dim, kernel_size=1)": "nn.Conv2d(width, 1, kernel_size=1)"},
            "what comes out is compared with codewords, which have E numbers.",
        ),
    ],
    right_ways=[
        RightWay("in pairs of widths", in_pairs_of_widths),
        RightWay("with the number of the layer", with_the_number_of_the_layer),
    ],
    compare="it with make_decoder: where are the residual blocks in each, and why is it cheap to have "
    "them just there?",
)
