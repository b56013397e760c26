"""The drawings of the live page's stage: rendered once, so that the page needs no renderer.

    python -m tiny_model.stage_drawings       writes inside/stage.png and inside/stage.json

stage.png is a sheet of drawings with transparent ground, CELL pixels a side each, COLUMNS in a row;
stage.json says what each of them is and how wide and high, so that the page can cut it out. All come
from Noto Emoji (Apache-2.0, THIRD_PARTY.md), which the tiny model was trained on.
"""

import io
import json
from pathlib import Path

from PIL import Image

from program.files import replace_file
from tiny_model.drawings import load_drawings

STYLE = "noto"
THINGS = (
    "dog", "cat", "rabbit", "bird", "frog", "turtle", "bee", "apple", "banana", "mushroom",
    "car", "bicycle", "rocket", "house", "tree", "flower", "umbrella", "star", "balloon", "gift",
)  # fmt: skip
CELL, COLUMNS, COLORS = 160, 5, 255
FOLDER = Path(__file__).resolve().parent.parent / "inside"


def sheet() -> tuple[Image.Image, list[dict]]:
    """The sheet, and for each drawing its name and its place there: x, y, width, height."""
    drawings = load_drawings((STYLE,))
    rows = -(-len(THINGS) // COLUMNS)
    picture = Image.new("RGBA", (CELL * COLUMNS, CELL * rows))
    places = []
    for i, thing in enumerate(THINGS):
        drawing = drawings[thing][STYLE][0].levels[0].convert("RGBA")
        drawing = drawing.crop(drawing.getbbox())
        y, x = i // COLUMNS * CELL, i % COLUMNS * CELL
        picture.paste(drawing, (x, y))
        places.append({"name": thing, "x": x, "y": y, "width": drawing.width, "height": drawing.height})
    return picture, places


def main():
    picture, places = sheet()
    file = io.BytesIO()
    picture.quantize(COLORS, method=Image.Quantize.FASTOCTREE).save(file, "PNG", optimize=True)
    replace_file(FOLDER / "stage.png", file.getvalue())
    replace_file(FOLDER / "stage.json", json.dumps(places, indent=1) + "\n")
    print(f"{len(places)} drawings, {len(file.getvalue()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
