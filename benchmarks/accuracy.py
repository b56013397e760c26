"""How often the shipped model is right, by precision: what rounding its weights to int8 costs.

    pip install -r requirements-train.txt
    python -m benchmarks.accuracy               float32, bfloat16 and int8, a few minutes

Each precision is asked the same questions about the same new scenes (see tiny_model/measure.py, `evaluate`).
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from load_weights import load_mask_decoder
from speed.loading import load_model
from tiny_model.batches import load_material
from tiny_model.measure import evaluate, markdown_table
from tiny_model.scenes import HELD_OUT_STYLES

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("float32", "bfloat16", "int8")


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="The shipped model's accuracy in each precision.")
    parser.add_argument("--model", type=Path, default=ROOT / "paligemma-tiny", metavar="DIR")
    parser.add_argument("--scenes", type=int, default=400, help="how many (default: 400)")
    args = parser.parse_args(argv)
    material, codec = load_material(HELD_OUT_STYLES), load_mask_decoder(args.model).float()
    found = {}
    for precision in tqdm(PRECISIONS, desc="accuracy", unit="precision"):
        model, tokenizer = load_model(args.model, precision=precision)
        found[precision] = evaluate(model, tokenizer, material, 0.0, args.scenes, 5, codec)
    print(f"{args.scenes} scenes of drawings never trained on, true colors\n")
    print(markdown_table(found, digits=3))


if __name__ == "__main__":
    main()
