"""The exercise ResidualBlock of mask_decoder_0.py."""

from torch import nn
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn
from course.exercises.mask_decoder.inputs import SIZES

# Known mistakes and other right ways that take whole functions.


class WithoutReLUs:
    def __init__(self, channels):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Identity(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Identity(),
            nn.Conv2d(channels, channels, 1),
        )


class WithGELU:
    def __init__(self, channels):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 1),
        )


class WithConvolutionsSideBySide:
    def __init__(self, channels):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x):
        return x + self.net[2](F.relu(self.net[1](F.relu(self.net[0](x)))))


class PaddedByName:
    def __init__(self, channels):
        super().__init__()
        self.net = nn.Sequential()
        for size in (3, 3, 1):
            self.net.append(nn.Conv2d(channels, channels, (size, size), padding="same"))
            self.net.append(nn.ReLU())
        self.net.pop(5)

    def forward(self, x):
        return self.net(x).add(x)


class StepByStep:
    def forward(self, x):
        y = F.relu(self.net[0](x))
        y = F.relu(self.net[2](y))
        return self.net[4](y) + x


EXERCISE = Exercise(
    name="ResidualBlock",
    file="mask_decoder",
    minutes=15,
    difficulty="easy",
    why="A word of a shape says little alone: the decoder reads it together with those around it.",
    steps={
        "__init__": [
            "Put three convolutions, all as wide as they are given, and a ReLU between each two into net: "
            "two of 3 x 3 that keep the side as long as it is, and one of 1 x 1.",
        ],
        "forward": [
            "Send the input through net.",
            "Add the input to what comes out, without changing it.",
        ],
    },
    hints=(
        "What does a 3 x 3 window see at the border of a 4 x 4 grid, and what has to be around the grid so "
        "that 4 x 4 places come out?",
        "nn.Sequential counts its modules from 0, ReLUs too: the convolutions have to be 0, 2 and 4. "
        "padding=1 lays one row of zeros around.",
        "nn.Conv2d(channels, channels, kernel_size=3, padding=1), nn.ReLU(), the same two again, and "
        "nn.Conv2d(channels, channels, kernel_size=1); return x + self.net(x).",
    ),
    make=lambda m: m.ResidualBlock(24),
    result="B M h w",
    sizes=SIZES,
    cases=[
        Case("a 4 x 4 grid", lambda: {"x": randn(2, 24, 4, 4)}, training=True),
        Case("a grid that is not square", lambda: {"x": randn(2, 24, 5, 7)}),
        Case("another width", lambda: {"x": randn(3, 10, 4, 4)}, make=lambda m: m.ResidualBlock(10)),
    ],
    mistakes=[
        Mistake(
            "without the sum",
            {"x + self.net(x)": "self.net(x)"},
            "the input is kept, and net only says what to change.",
        ),
        Mistake(
            "with the input added twice",
            {"x + self.net(x)": "x + x + self.net(x)"},
            "it is added once.",
        ),
        Mistake(
            "with a ReLU after the sum",
            {"x + self.net(x)": "F.relu(x + self.net(x))"},
            "He et al. have one there; here the sum goes on as it is.",
        ),
        Mistake(
            "with a ReLU in front",
            {"self.net(x)": "self.net(F.relu(x))"},
            "net begins with a convolution.",
        ),
        Mistake(
            "without the ReLUs",
            WithoutReLUs,
            "three convolutions without anything between them are no more than one.",
        ),
        Mistake("with GELU", WithGELU, "the transformers of PaliGemma have GELU; this network has ReLU."),
        Mistake(
            "when the input is changed",
            {"return x + self.net(x)": "x += self.net(x)\n        return x"},
            "`x += ...` writes into the input.",
        ),
        Mistake(
            "with padding around the 1 x 1, too",
            {"kernel_size=1)": "kernel_size=1, padding=1)"},
            "a window of 1 x 1 never looks over the border; with padding, the grid grows.",
        ),
        Mistake(
            "without padding",
            {"kernel_size=3, padding=1": "kernel_size=3"},
            "each 3 x 3 convolution would take two places off a side, and nothing is left of four.",
        ),
        Mistake(
            "with the border repeated around the grid",
            {"kernel_size=3, padding=1": "kernel_size=3, padding=1, padding_mode='replicate'"},
            "zeros are around it: that is how the network knows where the box ends.",
        ),
        Mistake(
            "with the convolutions at 0, 1 and 2",
            WithConvolutionsSideBySide,
            "the ReLUs count too: the checkpoint's names are net.0, net.2 and net.4.",
        ),
        Mistake(
            "without biases",
            {"padding=1)": "padding=1, bias=False)", "kernel_size=1)": "kernel_size=1, bias=False)"},
            "each convolution has one.",
        ),
    ],
    right_ways=[
        RightWay("padded by name", PaddedByName),
        RightWay("step by step", StepByStep),
    ],
    compare="the last convolution, of 1 x 1: it looks at no neighbors. What can it do that the ReLU before "
    "it cannot, if the sum is to become smaller somewhere?",
)
