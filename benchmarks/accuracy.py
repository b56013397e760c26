"""How often the shipped model is right, by precision: what rounding its weights to int8 costs.

    pip install -r requirements-train.txt
    python -m benchmarks.accuracy               float32, bfloat16 and int8, a few minutes

Each precision is asked the same questions about the same new scenes (see train_tiny.py, `evaluate`).
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from speed.loading import load_model
from tiny_model import scenes as tiny_scenes
from tiny_model.train_tiny import evaluate, markdown_table

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("float32", "bfloat16", "int8")


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="The shipped model's accuracy in each precision.")
    parser.add_argument("--model", type=Path, default=ROOT / "paligemma-tiny", metavar="DIR")
    parser.add_argument("--scenes", type=int, default=400, help="how many (default: 400)")
    args = parser.parse_args(argv)
    drawings = tiny_scenes.load_drawings(tiny_scenes.HELD_OUT_STYLES)
    found = {}
    for precision in tqdm(PRECISIONS, desc="accuracy", unit="precision"):
        model, tokenizer = load_model(args.model, precision=precision)
        found[precision] = evaluate(model, tokenizer, drawings, 0.0, args.scenes, seed=5)
    print(f"{args.scenes} scenes of drawings never trained on, true colors\n")
    print(markdown_table(found, digits=3))


if __name__ == "__main__":
    main()
