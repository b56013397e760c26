"""Draws the pictures of the lessons from the numbers of paligemma-tiny, with Pillow alone.

    python -m docs.lessons.draw             all of them, into docs/lessons/pictures/
    python -m docs.lessons.draw heads       those whose names begin with this

Each function of draw_primer.py, draw_tower.py, draw_decoder.py and draw_training.py is one picture, of its
own name.
"""

import argparse
import sys

import torch

from docs.lessons import draw_decoder, draw_primer, draw_tower, draw_training  # noqa: F401 (they fill PICTURES)
from docs.lessons.canvas import save
from docs.lessons.parts import FOLDER, PICTURES


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.lessons.draw", description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="*", help="the beginning of names (default: all)")
    args = parser.parse_args(argv)
    names = [name for name in PICTURES if not args.name or name.startswith(tuple(args.name))]
    if not names:
        parser.error(f"no picture begins like that; there are {', '.join(PICTURES)}")
    torch.set_num_threads(1)
    for name in names:
        path = FOLDER / f"{name}.png"
        save(PICTURES[name](), path)
        print(f"{path.name:<28} {path.stat().st_size / 1000:6.1f} KB", file=sys.stderr)


if __name__ == "__main__":
    main()
