"""Command lines: options and values of all kinds, in any order, right and wrong."""

import os
import random
from pathlib import Path

from tests.fuzz.harness import main
from tests.fuzz.spoil import good_checkpoint, picture_in

WORDS = ("", " ", "-", "--", "-1", "0", "1", "2", "0.5", "1e-9", "1e309", "nan", "inf", "-inf", "1_0",
         "٣", "0x10", "9" * 5000, "1" * 30, "\udcff", "\ud800", "\0", "a\nb", "x" * 3000, "*", "[", "~", "%s",
         "{}", "\x1b[2J", "🐈", "../..", "/", "/dev/null", "/etc/passwd", "none/none", "con", "cpu", "cuda",
         "mps", "int8", "float16", "bfloat16", "<image>", "<bos>", "<loc0001>", "\n", "▁",
         "detect cat")  # fmt: skip
OPTIONS = ("--model", "--image", "--prompt", "--max-tokens", "--temperature", "--top-p", "--seed", "--device",
           "--precision", "--draw", "--overwrite", "--json", "--help", "--nonsense", "-h", "--im",
           "--set")  # fmt: skip
# Some are read, some refused. (6,000 tokens would be read, too, but in longer than a case may take.)
LONG = ("cat " * 1500, "x" * 3000, "é" * 1500, "cat " * 10_000, "🐈" * 400)


def make_case(rng: random.Random, folder: Path) -> list[str]:
    picture = str(picture_in(folder))
    argv = [
        "--model",
        str(good_checkpoint()),
        "--image",
        picture,
        "--prompt",
        "detect cat",
        "--max-tokens",
        "3",
    ]
    for _ in range(rng.randrange(4)):
        option = rng.choice(OPTIONS)
        values = [rng.choice(WORDS) for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))]
        if option == "--set":
            values = [rng.choice(("1", "2", "", "x"))]  # the learner's own sets are tested elsewhere
        if option == "--max-tokens" and values and rng.random() < 0.7:
            values = [str(rng.randrange(-2, 9))]
        if option == "--draw" and rng.random() < 0.7:
            values = [
                str(
                    folder
                    / rng.choice(("out.png", "out.webp", "x/out.png", "picture.png", "\udce9.png", "n" * 300))
                )
            ]
        if option == "--image" and rng.random() < 0.7:
            values = [rng.choice((picture, str(folder / "*.png"), str(folder), os.devnull)) for _ in values]
        if option == "--prompt" and rng.random() < 0.2:
            values = [rng.choice(LONG)]
        if option == "--model" and rng.random() < 0.5:
            values = [str(good_checkpoint()) + rng.choice(("", "/", "/config.json", "/..", "\0"))]
        argv += [option, *values]
    if rng.random() < 0.1:
        rng.shuffle(argv)
    return argv


if __name__ == "__main__":
    main("commands")
