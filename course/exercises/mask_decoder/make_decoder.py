"""The exercise make_decoder of mask_decoder_0.py."""

from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn
from course.exercises.mask_decoder.inputs import SIZES, SMALL_CODEC
from mask_decoder_1 import MaskConfig, ResidualBlock

# Known mistakes that take whole functions.


def with_the_relus_before_the_transposed_convolutions(config):
    width = config.channels[-1]
    layers = [nn.Conv2d(config.embedding_dim, width, 1), nn.ReLU()]
    layers += [ResidualBlock(width), ResidualBlock(width)]
    for out_channels in reversed(config.channels):
        layers += [nn.ReLU(), nn.ConvTranspose2d(width, out_channels, 4, stride=2, padding=1)]
        width = out_channels
    return nn.Sequential(*layers, nn.Conv2d(width, 1, kernel_size=1))


def without_the_later_relus(config):
    width = config.channels[-1]
    layers = [nn.Conv2d(config.embedding_dim, width, 1), nn.ReLU()]
    layers += [ResidualBlock(width), ResidualBlock(width)]
    for out_channels in reversed(config.channels):
        layers += [nn.ConvTranspose2d(width, out_channels, 4, stride=2, padding=1), nn.Identity()]
        width = out_channels
    return nn.Sequential(*layers, nn.Conv2d(width, 1, kernel_size=1))


def stretched_and_convolved(config):
    width = config.channels[-1]
    layers = [nn.Conv2d(config.embedding_dim, width, 1), nn.ReLU()]
    layers += [ResidualBlock(width), ResidualBlock(width)]
    for out_channels in reversed(config.channels):
        convolution = nn.Conv2d(width, out_channels, 3, padding=1)
        layers += [nn.Sequential(nn.Upsample(scale_factor=2), convolution), nn.ReLU()]
        width = out_channels
    return nn.Sequential(*layers, nn.Conv2d(width, 1, kernel_size=1))


# Other right ways.


def written_out(config):
    M, h = 8 * config.hidden_dim, config.hidden_dim
    return nn.Sequential(
        nn.Conv2d(config.embedding_dim, M, 1),
        nn.ReLU(),
        ResidualBlock(M),
        ResidualBlock(M),
        nn.ConvTranspose2d(M, M, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(M, 4 * h, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(4 * h, 2 * h, 4, 2, 1),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(2 * h, h, 4, 2, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(h, 1, 1),
    )


def in_pairs_of_widths(config):
    *_, widest = config.channels
    network = nn.Sequential(nn.Conv2d(config.embedding_dim, widest, (1, 1)), nn.ReLU())
    network.extend(ResidualBlock(widest) for _ in range(2))
    widths = [widest, *config.channels[::-1]]
    for i in range(4):
        network.append(nn.ConvTranspose2d(widths[i], widths[i + 1], (4, 4), stride=(2, 2), padding=(1, 1)))
        network.append(nn.ReLU())
    network.append(nn.Conv2d(widths[-1], 1, 1))
    return network


BLOCKS = 2 * "        ResidualBlock(width),\n"
END = "    return nn.Sequential(*layers)"

EXERCISE = Exercise(
    name="make_decoder",
    file="mask_decoder",
    minutes=25,
    difficulty="medium",
    why="This network draws: 4 x 4 words come in, and a shape of 64 x 64 points comes out.",
    builds_on=("ResidualBlock",),
    steps=[
        "Begin with a 1 x 1 convolution from E to M channels, a ReLU, and two residual blocks.",
        "Append a transposed convolution that doubles the side, and a ReLU, four times; the first of them "
        "keeps the width, and each of the others halves it.",
        "End with a 1 x 1 convolution to a single channel, and nothing behind it.",
        "Return it all as one network whose layers are counted from 0.",
    ],
    hints=(
        "Write down the widths between the layers, from E to 1, and the side at each of them. Where in "
        "config are they, and in which order?",
        "A side of n becomes (n - 1) * stride - 2 * padding + kernel_size: 2n with 2, 1 and 4. Keep the "
        "width that came out for the next layer. The ReLUs count in the names.",
        "for out_channels in reversed(config.channels): layers.append(nn.ConvTranspose2d(width, "
        "out_channels, kernel_size=4, stride=2, padding=1)); layers.append(nn.ReLU()); width = "
        "out_channels; at the end nn.Sequential(*layers).",
    ),
    make=lambda m: m.make_decoder(SMALL_CODEC),
    result="B 1 h w",
    sizes=SIZES,
    cases=[
        Case("a 4 x 4 grid of two shapes", lambda: {"x": randn(2, 10, 4, 4)}, training=True),
        Case("a grid that is not square", lambda: {"x": randn(3, 10, 2, 3, seed=1)}),
        Case(
            "other sizes",
            lambda: {"x": randn(2, 7, 4, 4)},
            make=lambda m: m.make_decoder(MaskConfig(embedding_dim=7, hidden_dim=2)),
        ),
    ],
    mistakes=[
        Mistake(
            "without the first ReLU",
            {"kernel_size=1),\n        nn.ReLU(),": "kernel_size=1),\n        nn.Identity(),"},
            "there is one between the 1 x 1 convolution and the blocks.",
        ),
        Mistake(
            "without the later ReLUs",
            without_the_later_relus,
            "each transposed convolution has one behind it.",
        ),
        Mistake(
            "with the ReLUs before the transposed convolutions",
            with_the_relus_before_the_transposed_convolutions,
            "they stand behind them; so the convolutions have the numbers 4, 6, 8 and 10.",
        ),
        Mistake(
            "with a padding of 2",
            {"padding=1": "padding=2"},
            "that is the number in JAX, where it is counted from the other side: in PyTorch it is 1.",
        ),
        Mistake(
            "without padding",
            {", padding=1": ""},
            "the side would grow to more than its double.",
        ),
        Mistake(
            "when the width is halved from the first one on",
            {"in reversed(config.channels)": "in [c // 2 for c in reversed(config.channels)]"},
            "the first transposed convolution keeps the width.",
        ),
        Mistake(
            "with the widths from the narrowest to the widest",
            {"reversed(config.channels)": "config.channels"},
            "here the network gets narrower as the side grows.",
        ),
        Mistake(
            "with one residual block, used twice",
            {BLOCKS: "        (block := ResidualBlock(width)),\n        block,\n"},
            "there are two, each with weights of its own.",
        ),
        Mistake(
            "with a single residual block",
            {BLOCKS: BLOCKS[: len(BLOCKS) // 2]},
            "there are two of them.",
        ),
        Mistake(
            "with a ReLU at the end",
            {END: "    layers.append(nn.ReLU())\n" + END},
            "outside is a negative number, which a ReLU would make 0: the border would be lost.",
        ),
        Mistake(
            "with a tanh at the end",
            {END: "    layers.append(nn.Tanh())\n" + END},
            "the last convolution's numbers are the answer: a tanh would change them all, and the "
            "checkpoint was trained without one.",
        ),
        Mistake(
            "with a sigmoid at the end",
            {END: "    layers.append(nn.Sigmoid())\n" + END},
            "the border is at 0 here, and not at a half.",
        ),
        Mistake(
            "when the grid is stretched and then convolved",
            stretched_and_convolved,
            "that is another network; its weights are not the checkpoint's.",
        ),
        Mistake(
            "with a list returned",
            {"nn.Sequential(*layers)": "layers"},
            "nn.Sequential makes one network of the list.",
        ),
    ],
    right_ways=[
        RightWay("written out", written_out),
        RightWay("in pairs of widths", in_pairs_of_widths),
    ],
    compare="the numbers of the layers with weights: 0, 2, 3, 4, 6, 8, 10 and 12. Which modules have the "
    "numbers that are missing, and why is there nothing to store of them?",
)
