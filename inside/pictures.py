"""The main pictures of explain.py's page as PNG files, for slides and the README; drawn with Pillow.

    python explain.py --png out

    explain-patches.png      the picture, cut into patches
    explain-mask.png         who may look at whom
    explain-features.png     the features of the patches after each layer, as colors
    explain-attention.png    where each answer token was looked for in the picture
    explain-lens.png         what each layer of the decoder would already have said

They are drawn from what the page is told (`description.describe`), so that they show the same numbers.
"""

import base64
import io
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from program.command_line import InputError
from program.pictures import opened

NAMES = [f"explain-{name}.png" for name in ("patches", "mask", "features", "attention", "lens")]
PAPER, INK, SOFT, WELL = "#fbfaf7", "#24221f", "#6a645b", "#ece8e0"
KINDS = {"image": "#0f766e", "bos": "#7e3fb8", "prompt": "#2457c5", "newline": "#66707e", "answer": "#b8480b"}
DARK, WARM = np.array([17, 20, 38]), np.array([255, 176, 40])  # as the page's heat maps have them
GAP, TILE = 24, 240
MADE_HERE = "explain.py"


# ------------------------------------------------------------------------------ small tools


def unpack(array: dict) -> np.ndarray:
    """What description.packed made; uint16 are shares in 65,535ths."""
    values = np.frombuffer(base64.b64decode(array["data"]), array["type"]).reshape(array["shape"])
    return values / 65_535 if array["type"] == "uint16" else values


def open_uri(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")


def font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)


def visible(text: str) -> str:
    """A token in ASCII, because Pillow's own font has little else: without accents, other letters as `?`."""
    text = text.replace("\n", "\\n").replace("\N{LOWER ONE EIGHTH BLOCK}", "_")
    letters = (letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() else "?" for letter in letters)


def mix(color: str, part: float) -> str:
    """A color on WELL, as strong as part says (0 to 1)."""
    rgb = [bytes.fromhex(one[1:]) for one in (WELL, color)]
    return "#" + bytes(round(a + (b - a) * part) for a, b in zip(*rgb, strict=True)).hex()


def heat(picture: Image.Image, weights: np.ndarray, side: int) -> Image.Image:
    """The picture, lit where the weights [cells^2] are large: the page's `heat`."""
    pixels = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
    cells = round(len(weights) ** 0.5)
    light = np.sqrt(weights / max(weights.max(), 1e-9)).reshape(cells, cells)
    places = np.arange(side) * cells // side
    light = light[places][:, places, None]  # [side, side, 1]
    dim = DARK + 0.15 * (pixels @ [0.3, 0.59, 0.11])[..., None]
    lit = 0.74 * pixels + 0.26 * WARM
    return Image.fromarray((dim * (1 - light) + lit * light).round().astype(np.uint8))


def sheet(tiles: list[tuple[Image.Image, str, str]], columns: int, size: int = 20) -> Image.Image:
    """Pictures of one size side by side, each with two lines of words below it."""
    width, height = tiles[0][0].size
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    words = round(size * 3)
    canvas = Image.new("RGB", (GAP + columns * (width + GAP), GAP + rows * (height + words + GAP)), PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, (tile, first, second) in enumerate(tiles):
        x, y = GAP + i % columns * (width + GAP), GAP + i // columns * (height + words + GAP)
        canvas.paste(tile, (x, y))
        draw.text((x, y + height + 8), first, fill=INK, font=font(size))
        draw.text((x, y + height + 12 + size), second, fill=SOFT, font=font(round(size * 0.8)))
    return canvas


def draw_box(tile: Image.Image, box: list[float]):
    """A frame; box is y1, x1, y2, x2 from 0 to 1."""
    y1, x1, y2, x2 = (edge * tile.width for edge in box)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="#333", width=5)
    draw.rectangle((x1, y1, x2, y2), outline="white", width=3)


# --------------------------------------------------------------------------------- the pictures


def draw_patches(description: dict) -> Image.Image:
    """The prepared picture, with a gap between its patches."""
    picture = open_uri(description["picture"]["resized"])
    grid, gap = description["picture"]["grid"], 3
    side = max(4, 720 // grid)  # of a patch
    picture = picture.resize((side * grid, side * grid), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", [2 * GAP + grid * (side + gap) - gap] * 2, PAPER)
    for row in range(grid):
        for column in range(grid):
            left, top = column * side, row * side
            patch = picture.crop((left, top, left + side, top + side))
            canvas.paste(patch, (GAP + column * (side + gap), GAP + row * (side + gap)))
    return canvas


def draw_mask(description: dict) -> Image.Image:
    """Rows look, columns are looked at; all image tokens share a row and a column.

    Of a long prompt the cells are small, and too small for words.
    """
    tokens = description["tokens"]
    names = [(f"<image> x {tokens['numImage']}", "image")]
    names += [(visible(token["text"]), token["kind"]) for token in tokens["list"]]
    cell = max(3, min(34, 1600 // len(names)))
    wide, gap, letters = max(120, cell), cell // 10, font(max(8, round(cell * 0.6)))
    named = cell >= 14
    margin = GAP + (round(max(letters.getlength(name) for name, _ in names)) + 14 if named else 0)
    left = [margin + (wide - cell) * (i > 0) + i * cell for i in range(len(names))]
    canvas = Image.new("RGB", (left[-1] + cell + GAP, margin + len(names) * cell + GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, (name, kind) in enumerate(names):
        y = margin + i * cell
        if named:
            draw.text((margin - 14, y + cell / 2), name, fill=KINDS[kind], font=letters, anchor="rm")
            # Turned words: drawn on a strip of their own, which is then turned.
            strip = Image.new("RGB", (margin - GAP, cell), PAPER)
            ImageDraw.Draw(strip).text((0, cell / 2), name, fill=KINDS[kind], font=letters, anchor="lm")
            middle = left[i] + (wide - cell) // 2 * (i == 0)
            canvas.paste(strip.rotate(90, expand=True), (middle, GAP - 14))
        for j, (_, other) in enumerate(names):
            right = left[j] + (cell if j else wide)
            color = KINDS[other] if tokens["mask"][i][j] == "1" else WELL
            draw.rectangle((left[j], y, right - gap, y + cell - gap), fill=color)
    return canvas


def draw_features(description: dict) -> Image.Image:
    grid, tiles = description["picture"]["grid"], []
    for stage in description["tower"]["features"]:
        colors = Image.fromarray(unpack(stage["colors"]).reshape(grid, grid, 3))
        name = stage["name"].replace("encoder.layers.", "layer ")
        tiles.append((
            colors.resize((TILE, TILE), Image.Resampling.NEAREST), name, f"{stage['seen']:.0%} of variance",
        ))  # fmt: skip
    picture = open_uri(description["picture"]["resized"]).resize((TILE, TILE))
    return sheet([(picture, "picture", ""), *tiles], 8)


def draw_attention(description: dict) -> Image.Image:
    """For each answer token, what the position that predicts it attends to (mean over heads).

    In the layer that looks most into the token's box; for tokens without a box in the last.
    """
    picture, decoder = open_uri(description["picture"]["resized"]), description["decoder"]
    weights = unpack(decoder["picture"]).mean(axis=2)  # [A, layers, cells^2]
    answer, tiles = [token for token in description["tokens"]["list"] if token["kind"] == "answer"], []
    for i, (token, focus) in enumerate(zip(answer, decoder["focus"], strict=True)):
        layer = focus["bestLayer"] if focus else decoder["layers"] - 1
        tile, note = heat(picture, weights[i, layer], TILE), f"layer {layer}"
        if focus:
            draw_box(tile, focus["box"])
            note += f", in the box x {focus['inside'][layer][0] / focus['area']:.1f}"
        tiles.append((tile, visible(token["text"]), note))
    return sheet(tiles, 6)


def draw_lens(description: dict) -> Image.Image:
    decoder = description["decoder"]
    answer = [token for token in description["tokens"]["list"] if token["kind"] == "answer"]
    letters, small, cell, height = font(20), font(15), 130, 62
    margin = GAP + 150
    canvas = Image.new(
        "RGB", (margin + len(answer) * cell + GAP, GAP + 40 + (decoder["layers"] + 1) * height + GAP), PAPER
    )
    draw = ImageDraw.Draw(canvas)
    for i, token in enumerate(answer):
        x, name = margin + i * cell, visible(token["text"])
        draw.text((x + cell / 2, GAP + 10), name, fill=KINDS["answer"], font=letters, anchor="mm")
        for layer, said in enumerate(decoder["lens"][i]):
            y = GAP + 40 + layer * height
            frame = KINDS["answer"] if said["id"] == token["id"] else None
            color = mix(KINDS["answer"], 0.45 * said["p"])
            draw.rectangle((x, y, x + cell - 6, y + height - 6), fill=color, outline=frame, width=3)
            middle = x + cell / 2 - 3
            draw.text((middle, y + 21), visible(said["text"]), fill=INK, font=letters, anchor="mm")
            draw.text((middle, y + 41), f"{said['p']:.0%}", fill=INK, font=small, anchor="mm")
    for layer in range(decoder["layers"] + 1):
        name = f"after layer {layer - 1}" if layer else "before layer 0"
        y = GAP + 40 + layer * height + height / 2 - 3
        draw.text((margin - 16, y), name, fill=SOFT, font=letters, anchor="rm")
    return canvas


# ------------------------------------------------------------------------------------ the files


def check_folder(folder: Path):
    """Finds before the model runs what would fail after it; only pictures of ours are overwritten."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--png {folder}: is a file, not a folder")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"--png {folder}: no folder {folder.parent}")
    for path in (folder / name for name in NAMES):
        if path.is_symlink() and not path.exists():
            raise InputError(f"--png {folder}: {path.name} is a link that leads nowhere or in a circle")
        if not path.exists():
            continue
        if not path.is_file():  # to open a FIFO would wait forever
            raise InputError(f"--png {folder}: {path.name} is not an ordinary file")
        try:
            with opened(str(path)) as picture:
                made_here = picture.info.get("Software") == MADE_HERE
        except InputError:  # it is no picture
            made_here = False
        if not made_here:
            why = "was not made by explain.py, so it is not overwritten"
            raise InputError(f"--png {folder}: {path.name} {why}")


def draw_all(description: dict) -> dict[str, bytes]:
    """The name of each file and what is to stand in it: the same bytes for the same numbers."""
    info = PngInfo()
    info.add_text("Software", MADE_HERE)
    drawings = (draw_patches, draw_mask, draw_features, draw_attention, draw_lens)
    files = {}
    for name, draw in zip(NAMES, drawings, strict=True):
        file = io.BytesIO()
        draw(description).save(file, "PNG", optimize=True, pnginfo=info)
        files[name] = file.getvalue()
    return files
