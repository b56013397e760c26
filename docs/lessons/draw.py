"""Draws the pictures of the lessons from the numbers of paligemma-tiny, with Pillow alone.

    python -m docs.lessons.draw             all of them, into docs/lessons/pictures/
    python -m docs.lessons.draw heads       those whose names begin with this

Each function below is one picture; its name is the file's.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from decoder_1 import apply_rotary_pos_emb
from docs.lessons import tiny
from docs.lessons.canvas import (
    BLUE,
    GOLD,
    INK,
    LINE,
    PAPER,
    PURPLE,
    RUST,
    SOFT,
    TEAL,
    WELL,
    WIDTH,
    Canvas,
    mix,
    save,
    signed,
)

FOLDER = Path(__file__).resolve().parent / "pictures"
PICTURES: dict[str, Callable[[], Image.Image]] = {}
DARK, LIGHT = np.array([17, 20, 38]), np.array([255, 176, 40])        # heat maps, as on explain.py's page
GRID = 10                                                             # patches along a side
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"                                  # how the tokenizer writes a space
EAR, FACE = 33, 43                                                    # two patches of the left cat


def drawn(function: Callable[[], Image.Image]) -> Callable[[], Image.Image]:
    PICTURES[function.__name__.replace("_", "-")] = function
    return function


# ------------------------------------------------------------------------------ shared parts


def prepared() -> Image.Image:
    """What the tower sees: the picture, squeezed to a square."""
    pixels = ((tiny.batch["pixel_values"][0] + 1) * 127.5).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def heat(weights: torch.Tensor, side: int) -> Image.Image:
    """The picture, lit where the weights [N] are large."""
    pixels = np.asarray(prepared().resize((side, side), Image.Resampling.BICUBIC), dtype=float)
    light = np.sqrt(np.asarray(weights / weights.max()).clip(0)).reshape(GRID, GRID)
    places = np.arange(side) * GRID // side
    light = light[places][:, places, None]
    dim = DARK + 0.15 * (pixels @ [0.3, 0.59, 0.11])[..., None]
    lit = 0.74 * pixels + 0.26 * LIGHT
    return Image.fromarray((dim * (1 - light) + lit * light).round().astype(np.uint8))


def frame(canvas: Canvas, x: float, y: float, side: float, patch: int, color: str = "#ffffff"):
    """Marks a patch of a picture that was pasted at x, y."""
    cell = side / GRID
    canvas.rect(x + patch % GRID * cell - 2, y + patch // GRID * cell - 2, cell + 4, cell + 4, None, INK, 5)
    canvas.rect(x + patch % GRID * cell, y + patch // GRID * cell, cell, cell, None, color, 3)


def strip(canvas: Canvas, x, y, w, h, values, largest=None):
    """A vector as a row of colored cells: rust is positive, blue negative."""
    largest = float(largest or max(abs(float(v)) for v in values))
    cell = w / len(values)
    for i, value in enumerate(values):
        canvas.rect(x + i * cell, y, cell + 0.4, h, signed(value, largest))
    canvas.rect(x - 1, y - 1, w + 2, h + 2, None, LINE, 1.5)


def shown(token: str) -> str:
    """A token in letters that the font has."""
    return token.replace("\n", "\\n").replace(SPACE, "_")


def tower_queries_keys(layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all heads in a layer of the tower: [H, N, Hd] each."""
    block = tiny.model.vision_tower.vision_model.encoder.layers[layer]
    x = block.layer_norm1(tiny.tower_states()[layer])
    H, Hd = block.self_attn.num_heads, block.self_attn.head_dim
    query, key = (
        projection(x)[0].view(-1, H, Hd).transpose(0, 1)
        for projection in (block.self_attn.q_proj, block.self_attn.k_proj)
    )
    return query, key


def tower_weights(layer: int) -> torch.Tensor:
    """The attention weights of a layer of the tower: [H, N, N]."""
    query, key = tower_queries_keys(layer)
    return (query @ key.transpose(1, 2) * query.shape[-1] ** -0.5).softmax(dim=-1)


# ------------------------------------------------------------------------------------ primer


SMALL = 680                                                           # width of the primer's pictures


@drawn
def primer_patch() -> Image.Image:
    canvas, square, cell = Canvas(300, SMALL), prepared(), 24
    for patch in range(GRID * GRID):
        row, column = divmod(patch, GRID)
        part = square.crop((column * 16, row * 16, column * 16 + 16, row * 16 + 16))
        canvas.paste(part, 20 + column * (cell + 2), 20 + row * (cell + 2), cell, cell)
    row, column = divmod(FACE, GRID)
    x, y = 20 + column * (cell + 2), 20 + row * (cell + 2)
    canvas.rect(x - 2, y - 2, cell + 4, cell + 4, None, RUST, 4)
    canvas.line([(x + cell, y), (400, 20)], LINE, 2)
    canvas.line([(x + cell, y + cell), (400, 278)], LINE, 2)
    part = square.crop((column * 16, row * 16, column * 16 + 16, row * 16 + 16))
    canvas.paste(part, 400, 20, 258, 258, smooth=False)
    canvas.rect(400, 20, 258, 258, None, RUST, 4)
    return canvas.finish()


@drawn
def primer_token() -> Image.Image:
    canvas = Canvas(220, SMALL)
    ids = tiny.batch["input_ids"][0, 98:].tolist()
    x = 20
    for i, token in enumerate(ids):
        name = shown(tiny.tokenizer.id_to_token(token))
        w = canvas.width_of(name, 24) + 22
        color = TEAL if i < 2 else PURPLE if i == 2 else BLUE
        canvas.rect(x, 70, w, 48, mix(color, 0.16), mix(color, 0.6), 2, 10)
        canvas.text(x + w / 2, 95, name, 24, INK, "mm")
        canvas.text(x + w / 2, 146, str(token), 22, SOFT, "mm")
        x += w + 10
    canvas.text(20, 44, "... 98 more, then:", 22, SOFT)
    canvas.text(20, 196, "below each: its id, a row of the vocabulary", 22, SOFT)
    return canvas.finish()


@drawn
def primer_embedding() -> Image.Image:
    canvas = Canvas(300, SMALL)
    weight = tiny.model.language_model.model.embed_tokens.weight
    words = ("cat", "dog", "bus", "umbrella", "two", "left", "<loc0272>")
    ids = {word: tiny.tokenizer.token_to_id(word if "<" in word else f"{SPACE}{word}") for word in words}
    rows = sorted((token, word) for word, token in ids.items())
    largest = float(weight[[token for token, _ in rows]].abs().quantile(0.98))
    for i, (token, word) in enumerate(rows):
        y = 24 + i * 34
        color = RUST if word == "cat" else SOFT
        canvas.text(180, y + 13, word if "<" in word else f"_{word}", 22, color, "rm", bold=word == "cat")
        canvas.text(250, y + 13, str(token), 22, color, "rm")
        strip(canvas, 266, y, 390, 26, weight[token].tolist(), largest)
        if word == "cat":
            canvas.rect(262, y - 4, 398, 34, None, RUST, 3)
    canvas.text(266, 284, "128 numbers in each row", 22, SOFT)
    return canvas.finish()


@drawn
def primer_vector() -> Image.Image:
    canvas, unit, ox, oy = Canvas(300, SMALL), 62, 60, 250
    for i in range(5):
        canvas.line([(ox + i * unit, oy), (ox + i * unit, oy - 3 * unit)], WELL, 2)
        canvas.line([(ox, oy - min(i, 3) * unit), (ox + 4 * unit, oy - min(i, 3) * unit)], WELL, 2)
    for name, (a, b), color in (("a", (3, 1), RUST), ("b", (2, 3), TEAL)):
        canvas.arrow((ox, oy), (ox + a * unit, oy - b * unit), color, 5, 18)
        canvas.text(ox + a * unit + 16, oy - b * unit + 4, f"{name} = [{a}, {b}]", 26, color, bold=True)
    canvas.text(400, 66, "a · b = 3 · 2 + 1 · 3 = 9", 24, INK)
    canvas.text(400, 104, "large when both are", 22, SOFT)
    canvas.text(400, 134, "long and point the", 22, SOFT)
    canvas.text(400, 164, "same way", 22, SOFT)
    return canvas.finish()


@drawn
def primer_attention() -> Image.Image:
    canvas, side = Canvas(300, SMALL), 260
    weights = tower_weights(LAYER)[HEAD, FACE]
    canvas.paste(heat(weights, side * 2), 20, 20, side, side)
    frame(canvas, 20, 20, side, FACE)
    canvas.text(310, 70, "framed: the patch that asks", 24, INK)
    canvas.text(310, 108, "lit: the patches it listens to,", 24, INK)
    canvas.text(310, 146, "by how much light they have", 24, INK)
    canvas.text(310, 214, "all weights together are 1", 24, SOFT)
    return canvas.finish()


@drawn
def primer_head() -> Image.Image:
    canvas, side = Canvas(300, SMALL), 200
    weights = tower_weights(LAYER)[:, FACE]
    for i, h in enumerate((0, 3, 5)):
        x = 20 + i * (side + 20)
        canvas.paste(heat(weights[h], side * 2), x, 20, side, side)
        frame(canvas, x, 20, side, FACE)
        canvas.text(x + side / 2, 254, f"head {h}", 24, INK, "ms")
    return canvas.finish()


@drawn
def primer_layer() -> Image.Image:
    canvas = Canvas(300, SMALL)
    x = 60
    canvas.arrow((14, 96), (660, 96), mix(INK, 0.75), 5, 18)
    for name, color in (("attention", TEAL), ("MLP", RUST)):
        canvas.arrow((x, 96), (x, 190), color, 4)
        canvas.rect(x - 26, 192, 216, 62, mix(color, 0.16), color, 3, 12)
        canvas.text(x + 82, 224, f"norm, {name}", 25, INK, "mm")
        canvas.arrow((x + 164, 190), (x + 164, 114), color, 4)
        canvas.circle(x + 164, 96, 17, PAPER, color, 4)
        canvas.text(x + 164, 96, "+", 28, color, "mm")
        x += 300
    canvas.text(14, 58, "the vector of one token", 24, SOFT)
    return canvas.finish()


@drawn
def primer_logits() -> Image.Image:
    canvas = Canvas(300, SMALL)
    caption = tiny.model(**tiny.processor(["caption en"], [tiny.picture]))["logits"][0, -1]
    best = caption.topk(5)
    probabilities = caption.softmax(dim=-1)
    canvas.text(20, 42, "after `caption en`:", 24, SOFT)
    for i, (value, token) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        y = 64 + i * 46
        canvas.text(140, y + 18, shown(tiny.tokenizer.id_to_token(token)), 25, INK, "rm")
        canvas.rect(156, y, value * 19, 36, RUST if i == 0 else mix(TEAL, 0.55), radius=5)
        canvas.text(168 + value * 19, y + 18, f"{value:.1f}", 23, SOFT, "lm")
        canvas.text(650, y + 18, f"{float(probabilities[token]):.3f}", 23, INK, "rm")
    canvas.text(650, 42, "softmax", 24, SOFT, "rs")
    return canvas.finish()


@drawn
def primer_mask() -> Image.Image:
    canvas, cell = Canvas(300, SMALL), 40
    names = ("picture", "prompt", "answer", "answer", "answer")
    for r in range(5):
        canvas.text(150, 50 + r * cell + cell / 2 - 2, names[r], 22, BLUE if r < 2 else RUST, "rm")
        for c in range(5):
            allowed = c <= r or c < 2
            canvas.rect(164 + c * cell, 50 + r * cell, cell - 4, cell - 4, TEAL if allowed else WELL, radius=5)
    canvas.text(164, 36, "looked at", 22, SOFT)
    canvas.text(400, 100, "a row looks at the", 24, INK)
    canvas.text(400, 136, "green columns", 24, INK)
    return canvas.finish()


@drawn
def primer_cache() -> Image.Image:
    canvas = Canvas(300, SMALL)
    for r in range(4):
        y = 30 + r * 62
        for c in range(5 + r):
            new = r == 0 or c == 4 + r
            color = TEAL if new else mix(TEAL, 0.25)
            canvas.rect(150 + c * 50, y, 42, 42, color, radius=7)
        canvas.text(130, y + 22, "prompt" if r == 0 else f"token {r}", 23, INK, "rm")
    canvas.text(560, 52, "computed", 22, TEAL, "ls")
    canvas.text(560, 116, "kept", 22, SOFT, "ls")
    return canvas.finish()


# ------------------------------------------------------------------------------------ shapes


@drawn
def shapes_heads() -> Image.Image:
    """Three patches with four numbers each, cut into two heads: correctly, and by view alone."""
    canvas, cell = Canvas(480), 62
    colors = (mix(TEAL, 0.32), mix(RUST, 0.3))

    def grid(x, y, values):
        for r, row in enumerate(values):
            for c, value in enumerate(row):
                shade = colors[value % 4 // 2]
                canvas.rect(x + c * cell, y + r * cell, cell - 4, cell - 4, shade, radius=6)
                canvas.text(x + (c + 0.5) * cell - 2, y + (r + 0.5) * cell - 2, str(value), 27, INK, "mm")

    numbers = torch.arange(12).view(3, 4)
    canvas.text(60, 62, "x  [N, C] = [3, 4]", 28, INK, bold=True)
    for n in range(3):
        canvas.text(44, 164 + n * cell - 2, f"{n}", 24, SOFT, "rm")
    grid(60, 135, numbers.tolist())
    canvas.text(60, 358, "a row is a patch;", 24, SOFT)
    canvas.text(60, 392, "a color is what one", 24, SOFT)
    canvas.text(60, 426, "head should get", 24, SOFT)
    for x, title, heads, verdict, color in (
        (470, "x.view(3, 2, 2).transpose(0, 1)", numbers.view(3, 2, 2).transpose(0, 1),
         ("each head has its numbers", "of all three patches"), TEAL),
        (960, "x.view(2, 3, 2)", numbers.view(2, 3, 2),
         ("same shape, but head 0 has", "patch 0 and half of patch 1"), RUST),
    ):  # fmt: skip
        canvas.text(x, 62, title, 28, color, bold=True)
        for h in range(2):
            left = x + h * (2 * cell + 46)
            canvas.text(left + cell - 2, 112, f"head {h}", 24, SOFT, "mm")
            grid(left, 135, heads[h].tolist())
        canvas.text(x, 358, verdict[0], 24, SOFT)
        canvas.text(x, 392, verdict[1], 24, SOFT)
    return canvas.finish()


@drawn
def shapes_broadcasting() -> Image.Image:
    """A column and a row become a table: the axis of size 1 is read again and again."""
    canvas, cell = Canvas(400), 76
    column, row = [0, 10, 20], [1, 2, 3, 4]

    def box(x, y, value, shade, outline=None):
        canvas.rect(x, y, cell - 6, cell - 6, shade, outline, 2, 8)
        canvas.text(x + cell / 2 - 3, y + cell / 2 - 3, str(value), 27, INK if shade else SOFT, "mm")

    def table(x, y, values, solid):
        for r in range(3):
            for c in range(4):
                box(x + c * cell, y + r * cell, values(r, c),
                    solid(r, c), None if solid(r, c) else LINE)  # fmt: skip

    y = 110
    table(50, y, lambda r, c: column[r], lambda r, c: mix(TEAL, 0.34) if c == 0 else None)
    canvas.text(50, 72, "[3, 1]", 28, TEAL, bold=True)
    canvas.text(388, y + 108, "+", 44, INK, "mm")
    table(430, y, lambda r, c: row[c], lambda r, c: mix(RUST, 0.3) if r == 0 else None)
    canvas.text(430, 72, "[1, 4]", 28, RUST, bold=True)
    canvas.text(768, y + 108, "=", 44, INK, "mm")
    table(810, y, lambda r, c: column[r] + row[c], lambda r, c: mix(GOLD, 0.4))
    canvas.text(810, 72, "[3, 4]", 28, INK, bold=True)
    canvas.text(1130, y + 30, "filled: in memory", 24, SOFT)
    canvas.text(1130, y + 64, "framed: the same", 24, SOFT)
    canvas.text(1130, y + 98, "number, read again", 24, SOFT)
    return canvas.finish()


# ----------------------------------------------------------------------------------- patches


@drawn
def patches() -> Image.Image:
    """The picture as a grid, one patch as pixels, and the vector that becomes of it."""
    canvas, cell, gap, top = Canvas(640), 42, 4, 90
    square = prepared()
    left = 40
    canvas.text(left, 62, "100 patches of 16 * 16 pixels", 28, INK, bold=True)
    for patch in range(GRID * GRID):
        row, column = divmod(patch, GRID)
        part = square.crop((column * 16, row * 16, column * 16 + 16, row * 16 + 16))
        canvas.paste(part, left + column * (cell + gap), top + row * (cell + gap), cell, cell)
    row, column = divmod(FACE, GRID)
    x, y = left + column * (cell + gap), top + row * (cell + gap)
    canvas.rect(x - 3, y - 3, cell + 6, cell + 6, None, RUST, 5)
    canvas.text(left, top + GRID * (cell + gap) + 34, "row by row from the top left: this one is patch 43", 24, SOFT)

    part = square.crop((column * 16, row * 16, column * 16 + 16, row * 16 + 16))
    big = 256
    canvas.line([(x + cell + 3, y), (560, top)], LINE, 2)
    canvas.line([(x + cell + 3, y + cell), (560, top + big)], LINE, 2)
    canvas.paste(part, 560, top, big, big, smooth=False)
    canvas.rect(560, top, big, big, None, RUST, 4)
    canvas.text(560, 62, "patch 43", 28, RUST, bold=True)
    canvas.text(560, top + big + 36, "16 · 16 · 3 = 768 numbers", 24, SOFT)

    embeddings = tiny.model.vision_tower.vision_model.embeddings
    content = embeddings.patch_embedding(tiny.batch["pixel_values"]).flatten(2)[0, :, FACE]
    place = embeddings.position_embedding.weight[FACE]
    largest = float((content + place).abs().quantile(0.97))
    canvas.arrow((840, top + big / 2), (905, top + big / 2), SOFT)
    for i, (name, vector, color) in enumerate(
        (("what it shows", content, RUST), ("+ where it lies", place, BLUE), ("= what the tower reads", content + place, INK))
    ):
        y = top + 22 + i * 112
        canvas.text(930, y, name, 26, color, bold=True)
        strip(canvas, 930, y + 16, 390, 44, vector.tolist(), largest)
    canvas.text(930, top + 22 + 2 * 112 + 96, "192 numbers each; rust is above", 24, SOFT)
    canvas.text(930, top + 22 + 2 * 112 + 130, "zero, blue below", 24, SOFT)
    return canvas.finish()


# --------------------------------------------------------------------------------- attention

HEAD, LAYER = 0, 2


@drawn
def attention_score() -> Image.Image:
    """One query of the tower, two keys, their products and what the softmax makes of the sums."""
    query, key = tower_queries_keys(LAYER)
    weights = tower_weights(LAYER)[HEAD, FACE]
    q = query[HEAD, FACE]
    order = weights.argsort(descending=True)
    chosen = [int(order[0]), int(weights.argmin())]
    canvas, side, top = Canvas(640), 470, 96
    canvas.text(40, 62, f"where patch {FACE} looks", 28, INK, bold=True)
    canvas.paste(heat(weights, 940), 40, top, side, side)
    frame(canvas, 40, top, side, FACE, "#ffffff")
    for patch, color in zip(chosen, (RUST, BLUE), strict=True):
        frame(canvas, 40, top, side, patch, mix(color, 0.8, "#ffffff"))
    canvas.text(40, top + side + 40, f"layer {LAYER}, head {HEAD}: the weights of {len(weights)} patches", 24, SOFT)
    x, w = 690, 520
    largest = max(float(q.abs().max()), float(key[HEAD, chosen].abs().max()))
    canvas.text(x, 62, f"q of patch {FACE}", 26, INK, bold=True)
    strip(canvas, x, 78, w, 32, q.tolist(), largest)
    for i, (patch, color) in enumerate(zip(chosen, (RUST, BLUE), strict=True)):
        y = 182 + i * 224
        k = key[HEAD, patch]
        canvas.text(x, y, f"k of patch {patch}", 26, color, bold=True)
        strip(canvas, x, y + 14, w, 32, k.tolist(), largest)
        canvas.text(x, y + 84, "q · k, number by number", 24, SOFT)
        strip(canvas, x, y + 98, w, 32, (q * k).tolist(), float((q * key[HEAD, chosen]).abs().max()))
        score = float(q @ k)
        canvas.text(x, y + 170, f"sum {score:.1f};  / √32 = {score / 32**0.5:.2f};  weight {float(weights[patch]):.4f}", 26, INK)
    return canvas.finish()


# ------------------------------------------------------------------------------------- scale


@drawn
def scale_deviation() -> Image.Image:
    """How far q · k spreads, by the size of a head; and one row of weights with three divisors."""
    canvas = Canvas(630)
    generator = torch.Generator().manual_seed(0)
    sizes = [4, 8, 16, 32, 64, 128, 256]
    place = canvas.axes(100, 110, 440, 360, (0, 260), (0, 18), (4, 64, 128, 256), (0, 4, 8, 12, 16), "Hd",
                        "standard deviation of q · k")  # fmt: skip
    curve = [place(x, x**0.5) for x in range(1, 261)]
    canvas.line(curve, mix(TEAL, 0.55), 4)
    canvas.text(*place(150, 14.2), "√Hd", 28, TEAL, "rs", bold=True)
    for Hd in sizes:
        q, k = (torch.randn(4000, Hd, generator=generator) for _ in range(2))
        canvas.circle(*place(Hd, float((q * k).sum(dim=1).std())), 8, RUST)
    canvas.text(100, 560, "dots: 4000 random pairs of unit variance", 24, SOFT)

    query, key = tower_queries_keys(LAYER)
    scores = query[HEAD, FACE] @ key[HEAD].T
    left, width = 680, 620
    for i, (name, divisor, color) in enumerate(
        (("q · k", 1, RUST), ("q · k / √Hd", 32**0.5, TEAL), ("q · k / Hd", 32, BLUE))
    ):
        weights = (scores / divisor).softmax(dim=0).sort(descending=True).values
        base = 200 + i * 160
        canvas.text(left, base - 108, f"softmax({name})", 26, color, bold=True)
        half = int((weights.cumsum(0) < 0.5).sum()) + 1
        words = f"largest {float(weights[0]):.2f}; half of all in {half}"
        canvas.text(left + width, base - 108, words, 24, SOFT, "rs")
        canvas.line([(left, base), (left + width, base)], LINE, 2)
        step = width / 50
        for j, weight in enumerate(weights[:50].tolist()):
            height = weight / float(weights[0]) * 88
            canvas.rect(left + j * step, base - height, step - 3, height + 1, color)
    canvas.text(left, 560, "one query of the tower: its 50 largest weights of 100,", 24, SOFT)
    canvas.text(left, 592, "each panel drawn to its own largest", 24, SOFT)
    return canvas.finish()


# ------------------------------------------------------------------------------------- heads


@drawn
def heads() -> Image.Image:
    """The same query in all heads of a layer."""
    weights = tower_weights(LAYER)[:, FACE]
    side, gap = 410, 35
    canvas = Canvas(1010)
    for h in range(len(weights)):
        x, y = 30 + h % 3 * (side + gap), 30 + h // 3 * (side + 80)
        canvas.paste(heat(weights[h], side * 2), x, y, side, side)
        frame(canvas, x, y, side, FACE)
        canvas.text(x, y + side + 36, f"head {h}", 26, INK, bold=True)
        canvas.text(x + side, y + side + 36, f"most at patch {int(weights[h].argmax())}", 24, SOFT, "rs")
    return canvas.finish()


# ---------------------------------------------------------------------------------- residual


def rms(x: torch.Tensor) -> torch.Tensor:
    return x.pow(2).mean(dim=-1).sqrt()


@drawn
def residual_stream() -> Image.Image:
    """The root mean square of the residual stream along tower and decoder, and after each norm."""
    canvas = Canvas(560)
    tower = tiny.tower_states()
    blocks = tiny.model.vision_tower.vision_model.encoder.layers
    decoder, *_ = tiny.decoder_states()
    layers = tiny.model.language_model.model.layers
    text = [float(rms(x)[0, 100:].mean()) for x in decoder]
    for left, title, stream, norms, color in (
        (90, "vision tower", [float(rms(x).mean()) for x in tower],
         [block.layer_norm1 for block in blocks], TEAL),
        (750, "decoder", [float(rms(x)[0, :100].mean()) for x in decoder],
         [layer.input_layernorm for layer in layers], BLUE),
    ):  # fmt: skip
        states = tower if title != "decoder" else decoder
        place = canvas.axes(left, 120, 540, 330, (-0.3, 5.3), (0, 10), range(len(stream)), (0, 2, 4, 6, 8, 10),
                            "layers passed", "")  # fmt: skip
        canvas.text(left, 74, title, 28, color, bold=True)
        canvas.text(left + 540, 74, "root mean square", 24, SOFT, "rs")
        points = [place(i, value) for i, value in enumerate(stream)]
        canvas.line(points, color, 5)
        for point in points:
            canvas.circle(*point, 7, color)
        canvas.line([(left + 24, 150), (left + 64, 150)], color, 5)
        canvas.text(left + 80, 150, "residual stream", 24, color, "lm")
        canvas.circle(left + 44, 188, 7, None, RUST, 3.5)
        canvas.text(left + 80, 188, "what each block reads", 24, RUST, "lm")
        if title == "decoder":
            canvas.line([place(i, value) for i, value in enumerate(text)], mix(PURPLE, 0.7), 4)
            for i, value in enumerate(text):
                canvas.circle(*place(i, value), 6, mix(PURPLE, 0.7))
            canvas.text(place(4.25, text[4])[0], place(0, text[4])[1] + 8, "words", 24, PURPLE, "ls")
            canvas.text(place(4.25, 0)[0], points[4][1] + 8, "picture", 24, color, "ls")
        after = [float(rms(norm(x)).mean()) for norm, x in zip(norms, states, strict=False)]
        for i, value in enumerate(after):
            canvas.circle(*place(i, value), 7, None, RUST, 3.5)
    return canvas.finish()


# -------------------------------------------------------------------------------------- gelu


@drawn
def gelu() -> Image.Image:
    """GELU, ReLU and SiLU, and where the decoder's numbers lie; a gate at work."""
    canvas = Canvas(600)
    place = canvas.axes(80, 110, 520, 380, (-4, 4), (-0.6, 4), (-4, -2, 0, 2, 4), (0, 1, 2, 3, 4), "x", "")
    states, mask, positions, kv_cache = tiny.decoder_states()
    layer = tiny.model.language_model.model.layers[0]
    normed = layer.input_layernorm(states[0])
    fresh = type(kv_cache)()
    mlp_input = layer.post_attention_layernorm(states[0] + layer.self_attn(normed, mask, positions, fresh))[0]
    gate = layer.mlp.gate_proj(mlp_input)
    counts = torch.histc(gate.flatten(), 64, -4, 4) / gate.numel()
    for i, share in enumerate(counts.tolist()):
        x = place(-4 + i / 8, 0)[0]
        height = share / float(counts.max()) * 150
        canvas.rect(x, place(0, 0)[1] - height, 520 / 64 - 1, height, mix(GOLD, 0.35))
    xs = torch.linspace(-4, 4, 161)
    for name, values, color, width, level in (
        ("SiLU", F.silu(xs), PURPLE, 3, 2.72),
        ("ReLU", F.relu(xs), BLUE, 3, 3.22),
        ("GELU", F.gelu(xs, approximate="tanh"), TEAL, 6, 3.72),
    ):
        canvas.line([place(x, y) for x, y in zip(xs.tolist(), values.tolist(), strict=True)], color, width)
        canvas.text(*place(-3.8, level), name, 26, color, "lm", bold=True)
    canvas.text(80, 570, "gold: where the gates of decoder layer 0 lie", 24, SOFT)

    passed = F.gelu(gate, approximate="tanh")
    up = layer.mlp.up_proj(mlp_input)
    token, start, count = 102, 0, 20                                  # `cat`, the first 20 of its neurons
    left, step = 720, 29
    for i, (name, values, color) in enumerate((
        ("gelu(gate_proj(x))", passed[token], TEAL),
        ("up_proj(x)", up[token], SOFT),
        ("their product", (passed * up)[token], RUST),
    )):  # fmt: skip
        values = values[start : start + count].tolist()
        base = 190 + i * 165
        canvas.line([(left, base), (left + count * step, base)], LINE, 2)
        canvas.text(left, base - 96, name, 26, color, bold=True)
        for j, value in enumerate(values):
            height = max(-62, min(84, value * 44))
            canvas.rect(left + j * step + 3, base - max(height, 0), step - 6, max(2, abs(height)), color)
    canvas.text(left, 570, "20 of 384 neurons, for the token `cat` in layer 0", 24, SOFT)
    return canvas.finish()


# ------------------------------------------------------------------------------------ siglip


@drawn
def siglip_pairs() -> Image.Image:
    """Every pair of a batch is a question with the answer yes or no."""
    canvas, cell = Canvas(470), 106
    names = ("cats", "garden", "night")
    captions = ("two cats and an umbrella", "a tree, a bee and a flower", "a rocket and a star")
    similarity = ((0.9, 0.2, 0.1), (0.2, 0.8, 0.3), (0.1, 0.2, 0.7))
    left, top = 210, 110
    for c, caption in enumerate(captions):
        canvas.text(left + c * (cell + 8) + cell / 2, top - 24, f"text {c}", 24, SOFT, "ms")
        canvas.text(620, 150 + c * 40, f"text {c}: {caption}", 24, SOFT)
    for r, name in enumerate(names):
        y = top + r * (cell + 8)
        canvas.paste(Image.open(tiny.ROOT / "images" / f"{name}.png"), 50, y, 142, cell)
        for c in range(3):
            logit = 10 * similarity[r][c] - 5
            probability = 1 / (1 + np.exp(-logit))
            x = left + c * (cell + 8)
            canvas.rect(x, y, cell, cell, mix(TEAL if r == c else RUST, 0.08 + 0.75 * probability), radius=8)
            ink = "#ffffff" if probability > 0.6 else INK
            canvas.text(x + cell / 2, y + 42, f"{probability:.2f}", 32, ink, "mm", bold=True)
            canvas.text(x + cell / 2, y + 80, "yes" if r == c else "no", 24, ink, "mm")
    canvas.text(620, top + 210, "large: sigmoid(10 · similarity - 5), the model's yes", 26, INK)
    canvas.text(620, top + 250, "small: what is true", 24, SOFT)
    canvas.text(620, top + 320, "9 questions from 3 pairs, each answered by itself", 24, SOFT)
    return canvas.finish()


@drawn
def siglip_features() -> Image.Image:
    """How alike the ear's feature is to all others: before the tower, and after it."""
    canvas, side = Canvas(560), 410
    tower = tiny.model.vision_tower.vision_model
    states = tiny.tower_states()
    pixels = tiny.batch["pixel_values"][0].unfold(1, 16, 16).unfold(2, 16, 16)
    pixels = pixels.permute(1, 2, 0, 3, 4).reshape(100, -1)           # [N, 3 * P * P]
    for i, (title, features) in enumerate((
        ("pixels of the patch", pixels), ("after layer 1", states[2][0]), ("after the tower", tower.post_layernorm(states[-1])[0]),
    )):  # fmt: skip
        centered = F.normalize(features - features.mean(dim=0), dim=1)
        alike = (centered @ centered[EAR]).clamp(min=0)
        x = 30 + i * (side + 35)
        canvas.paste(heat(alike, side * 2), x, 80, side, side)
        frame(canvas, x, 80, side, EAR)
        canvas.text(x, 56, title, 26, INK, bold=True)
    canvas.text(30, 530, "lit: patches whose vectors point the same way as that of the framed one", 24, SOFT)
    return canvas.finish()


# --------------------------------------------------------------------------------- positions


@drawn
def positions_learned() -> Image.Image:
    """How alike the position vectors of the tower are to that of one place."""
    canvas, side = Canvas(500), 340
    weight = F.normalize(tiny.model.vision_tower.vision_model.embeddings.position_embedding.weight, dim=1)
    for i, place in enumerate((11, 44, 79)):
        alike = (weight @ weight[place]).view(GRID, GRID)
        x = 60 + i * (side + 85)
        canvas.cells(x, 70, side / GRID, alike.tolist(), lambda value: signed(value, 1.0), gap=1.5)
        row, column = divmod(place, GRID)
        cell = side / GRID
        canvas.rect(x + column * cell - 2, 70 + row * cell - 2, cell + 2, cell + 2, None, INK, 4)
        canvas.text(x, 48, f"place {place}", 26, INK, bold=True)
    canvas.text(60, 462, "cosine similarity to the framed place; rust: alike, blue: opposed", 24, SOFT)
    return canvas.finish()


@drawn
def positions_clocks() -> Image.Image:
    """RoPE's clock hands: the angles of six of the sixteen pairs of a head, at five positions."""
    canvas, step_x, step_y, radius = Canvas(830), 178, 132, 50
    shown, places = (0, 2, 4, 6, 8, 12), (0, 1, 2, 10, 100)
    for c, i in enumerate(shown):
        x = 300 + c * step_x
        canvas.text(x, 60, f"pair {i}", 26, INK, "ms", bold=True)
        canvas.text(x, 94, f"{np.degrees(10000 ** (-2 * i / 32)):.3g}° a step", 22, SOFT, "ms")
    for r, t in enumerate(places):
        y = 180 + r * step_y
        canvas.text(180, y, f"position {t}", 26, INK, "rm")
        for c, i in enumerate(shown):
            x = 300 + c * step_x
            angle = t * 10000 ** (-2 * i / 32)
            color = mix(TEAL, 1 - c * 0.08)
            canvas.circle(x, y, radius, "#ffffff", LINE, 2.5)
            canvas.line([(x + radius, y), (x + radius - 10, y)], LINE, 2.5)
            canvas.arrow((x, y), (x + np.cos(angle) * (radius - 5), y - np.sin(angle) * (radius - 5)), color, 4.5)
            canvas.circle(x, y, 4, color)
    canvas.text(60, 808, "fast hands tell neighbors apart, slow ones tell near from far; turned counterclockwise from the mark", 24, SOFT)
    return canvas.finish()


@drawn
def positions_distance() -> Image.Image:
    """q · k against the distance of their positions, for equal vectors and for the model's own."""
    canvas = Canvas(520)
    place = canvas.axes(100, 90, 1180, 320, (0, 104), (-0.62, 1.05), (0, 20, 40, 60, 80, 100), (-0.5, 0, 0.5, 1),
                        "distance of the positions", "")  # fmt: skip
    inverse = 10000 ** (-torch.arange(0, 32, 2) / 32)
    equal = torch.cos(torch.arange(0, 105)[:, None] * inverse).mean(dim=1)
    canvas.line([place(d, v) for d, v in enumerate(equal.tolist())], TEAL, 5)
    canvas.text(100, 60, "q = k = (1, 1, ..., 1)", 26, TEAL, bold=True)

    states, *_ = tiny.decoder_states()
    layer = tiny.model.language_model.model.layers[0]
    x = layer.input_layernorm(states[0])[0]
    q = layer.self_attn.q_proj(x[-1:]).view(4, 32)[2][None, None, None]      # head 2 of the newline
    k = layer.self_attn.k_proj(x[100])[None, None, None]                     # <bos>
    rotary = tiny.model.language_model.model.rotary_emb
    cos, sin = rotary(q, torch.arange(0, 105)[None])
    moved, _ = apply_rotary_pos_emb(q.expand(1, 1, 105, 32), q, cos, sin)
    own = (moved @ k.transpose(2, 3))[0, 0, :, 0] / (q.norm() * k.norm())
    canvas.line([place(d, v) for d, v in enumerate(own.tolist())], RUST, 5)
    canvas.text(470, 60, "the model's q of the newline and k of <bos> (layer 0, head 2)", 26, RUST, bold=True)
    canvas.text(100, 496, "q · k as a part of its largest possible value", 24, SOFT)
    return canvas.finish()


# -------------------------------------------------------------------------------------- mask


@drawn
def mask() -> Image.Image:
    """Who may look at whom: PaliGemma's mask, and a causal one."""
    names = ["<image>", "<image>", "...", "<image>", "<bos>", "detect", "cat", "\\n", "<loc0272>", "<loc0035>", "<loc0746>"]
    prefix, count, cell = 8, 11, 36
    canvas = Canvas(660)
    for left, title, is_prefix, color in ((250, "PaliGemma: prefix-LM", True, TEAL), (860, "GPT-2, Llama: causal", False, BLUE)):
        top = 190
        canvas.text(left, 56, title, 28, color, bold=True)
        for r in range(count):
            for c in range(count):
                past, both = c <= r, is_prefix and c < prefix
                shade = mix(color, 0.8 if past else 0.42) if past or both else WELL
                canvas.rect(left + c * cell, top + r * cell, cell - 3, cell - 3, shade, radius=4)
        for i, name in enumerate(names):
            ink = TEAL if i < 4 else INK if i < prefix else RUST
            if left == 250:
                canvas.text(left - 14, top + i * cell + cell / 2 - 2, name, 22, ink, "rm")
            w = canvas.width_of(name.replace("\\n", "xx"), 18)
            canvas.text(left + i * cell + cell / 2, top - 12 - w / 2 - 4, name, 18, ink, turned=True)
    canvas.text(250, 622, "rows look, columns are looked at; pale: allowed because it is part of the prefix", 24, SOFT)
    return canvas.finish()


# ------------------------------------------------------------------------------------- cache


@drawn
def cache() -> Image.Image:
    """The rows that the decoder computes at each call, without and with a cache."""
    canvas, calls = Canvas(560), 8
    lengths = [104 + i for i in range(calls)]
    for left, title, with_cache, color in ((70, "without a cache", False, RUST), (740, "with a cache", True, TEAL)):
        canvas.text(left, 62, title, 28, color, bold=True)
        total, bar, height = 0, 62, 300
        for i, length in enumerate(lengths):
            x, tall = left + i * (bar + 6), height * length / lengths[-1]
            base = 420
            new = length if not with_cache or i == 0 else 1
            total += new
            fresh = max(5, height * new / lengths[-1])
            canvas.rect(x, base - tall, bar, tall, mix(color, 0.16), mix(color, 0.4), 1.5, 4)
            canvas.rect(x, base - tall, bar, min(fresh, tall), color, radius=4)
            canvas.text(x + bar / 2, base - tall - 12, str(new), 22, INK, "ms")
            canvas.text(x + bar / 2, base + 14, str(i + 1), 22, SOFT, "mt")
        canvas.text(left, 490, f"{total} token rows in {calls} calls", 26, INK)
    canvas.text(70, 536, "dark: computed in this call; pale: keys and values found in the cache; below: the call", 24, SOFT)
    return canvas.finish()


# ----------------------------------------------------------------------------------- sharing


@drawn
def sharing_schemes() -> Image.Image:
    """Eight queries on eight, two and one key/value heads."""
    canvas, size = Canvas(380), 34
    for left, title, K in ((60, "multi-head: K = 8", 8), (500, "grouped: K = 2", 2), (940, "multi-query: K = 1", 1)):
        canvas.text(left, 56, title, 26, INK, bold=True)
        xs = [left + i * 46 + size / 2 for i in range(8)]
        for i in range(8):
            group = i // (8 // K)
            members = xs[group * (8 // K) : (group + 1) * (8 // K)]
            to = sum(members) / len(members)
            canvas.line([(xs[i], 150), (to, 232)], mix(TEAL, 0.6), 3)
            canvas.rect(xs[i] - size / 2, 108, size, 44, TEAL, radius=7)
            canvas.text(xs[i], 130, "q", 22, "#ffffff", "mm")
            canvas.rect(to - size / 2, 230, size, 44, RUST, radius=7)
            canvas.text(to, 252, "kv", 20, "#ffffff", "mm")
        canvas.text(left, 326, f"cache: {2 * K} vectors a token and layer", 24, SOFT)
    return canvas.finish()


@drawn
def sharing_queries() -> Image.Image:
    """Four queries of one token on the same keys: each looks elsewhere."""
    states, _, positions, kv_cache = tiny.decoder_states()
    layer_index, side = 3, 300
    layer = tiny.model.language_model.model.layers[layer_index]
    x = layer.input_layernorm(states[layer_index])
    query = layer.self_attn.q_proj(x).view(1, -1, 4, 32).transpose(1, 2)
    query, _ = apply_rotary_pos_emb(query, query, *positions)
    key = kv_cache.key_cache[layer_index]                             # [1, K, T, Hd]
    weights = (query @ key.transpose(2, 3) * 32**-0.5).softmax(dim=-1)[0, :, -1]
    canvas = Canvas(460)
    for h in range(4):
        left = 30 + h * (side + 33)
        canvas.paste(heat(weights[h, :100], side * 2), left, 70, side, side)
        canvas.text(left, 48, f"query head {h}", 26, INK, bold=True)
        canvas.text(left, 406, f"{float(weights[h, :100].sum()):.1%} on the picture", 24, SOFT)
    return canvas.finish()


# ----------------------------------------------------------------------------------- joining


@drawn
def joining() -> Image.Image:
    """Root mean squares of the rows that enter the decoder, correctly and with two mistakes."""
    canvas = Canvas(520)
    correct = rms(tiny.decoder_inputs())[0]
    D = 128
    for i, (title, values, color) in enumerate((
        ("as PaliGemma does it", correct, TEAL),
        ("picture not divided by √D", torch.cat([correct[:100] * D**0.5, correct[100:]]), RUST),
        ("words not multiplied by √D", torch.cat([correct[:100], correct[100:] / D**0.5]), BLUE),
    )):  # fmt: skip
        left, base, width = 60 + i * 440, 400, 380
        canvas.text(left, 60, title, 26, color, bold=True)
        canvas.line([(left, base), (left + width, base)], LINE, 2)
        step = width / 104
        for j, value in enumerate(values.tolist()):
            height = min(290, value * 7.5 if i == 1 else value * 70)
            canvas.rect(left + j * step, base - height, step - (0.6 if j < 100 else 0.2), height, mix(color, 0.5) if j < 100 else PURPLE)
        canvas.text(left, base + 34, f"picture {float(values[:100].mean()):.3g}", 24, SOFT)
        canvas.text(left + width, base + 34, f"words {float(values[100:].mean()):.2g}", 24, PURPLE, "rs")
    canvas.text(60, 490, "one bar for each of 104 rows: its root mean square (the middle one drawn smaller)", 24, SOFT)
    return canvas.finish()


# ------------------------------------------------------------------------------------ logits


@drawn
def logits() -> Image.Image:
    """The first token of the answer: scores of all coordinates, and of the best tokens of a caption."""
    canvas = Canvas(560)
    first = tiny.model(**tiny.batch)["logits"][0, -1]
    start = tiny.tokenizer.token_to_id("<loc0000>")
    values = first[start : start + 1024].tolist()
    place = canvas.axes(90, 110, 720, 330, (0, 1023), (-6, 12), (0, 256, 512, 768, 1023), (-5, 0, 5, 10), "coordinate", "")
    canvas.text(90, 62, "`detect cat`: logits of <loc0000> to <loc1023>", 26, INK, bold=True)
    canvas.line([place(272, -6), place(272, 12)], mix(RUST, 0.4), 3)
    canvas.line([place(i, v) for i, v in enumerate(values)], TEAL, 4)
    canvas.circle(*place(272, values[272]), 9, RUST)
    canvas.text(place(272, 0)[0] + 18, place(0, 10.6)[1], "272 is said", 24, RUST, "lm")

    caption = tiny.model(**tiny.processor(["caption en"], [tiny.picture]))["logits"][0, -1]
    best = caption.topk(8)
    canvas.text(900, 62, "`caption en`: the best", 26, INK, bold=True)
    low = float(best.values[-1]) - 2
    for i, (value, token) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        y = 110 + i * 44
        name = shown(tiny.tokenizer.id_to_token(token))
        canvas.text(1010, y + 17, name, 24, INK, "rm")
        canvas.rect(1026, y, (value - low) / (float(best.values[0]) - low) * 220, 32, RUST if i == 0 else mix(TEAL, 0.6), radius=4)
        canvas.text(1034 + (value - low) / (float(best.values[0]) - low) * 220, y + 17, f"{value:.1f}", 22, SOFT, "lm")
    canvas.text(90, 536, "one feature, 1556 products with the rows of the embedding table", 24, SOFT)
    return canvas.finish()


@drawn
def logits_neighbors() -> Image.Image:
    """The embeddings of coordinates: near numbers have near vectors."""
    canvas, side = Canvas(470), 330
    weight = tiny.model.language_model.model.embed_tokens.weight
    start = tiny.tokenizer.token_to_id("<loc0000>")
    locs = F.normalize(weight[start : start + 1024 : 16], dim=1)
    canvas.text(60, 56, "64 of the <loc> tokens", 26, INK, bold=True)
    canvas.cells(60, 80, side / 64, (locs @ locs.T).tolist(), lambda v: signed(v, 1.0))
    words = [f"{SPACE}{word}" for word in ("cat", "dog", "lion", "car", "bus", "left", "two")]
    rows = F.normalize(weight[[tiny.tokenizer.token_to_id(word) for word in words]], dim=1)
    cell = side / len(words)
    canvas.text(640, 56, "and some words", 26, INK, bold=True)
    canvas.cells(640, 80, cell, (rows @ rows.T).tolist(), lambda v: signed(v, 1.0), 2)
    for i, word in enumerate(words):
        canvas.text(626, 80 + (i + 0.5) * cell, word[1:], 22, SOFT, "rm")
    canvas.text(60, 446, "cosine similarity of rows of embed_tokens: rust alike, blue opposed", 24, SOFT)
    return canvas.finish()


# ------------------------------------------------------------------------------------- words


@drawn
def words_temperature() -> Image.Image:
    """The same logits at three temperatures, and what top-p keeps."""
    canvas = Canvas(480)
    first = tiny.model(**tiny.batch)["logits"][0, -1]
    start = tiny.tokenizer.token_to_id("<loc0000>")
    low, high = 256, 296
    for i, (temperature, color) in enumerate(((0.3, BLUE), (1.0, TEAL), (2.0, RUST))):
        probabilities = (first / temperature).softmax(dim=-1)
        order = probabilities.sort(descending=True)
        kept = set(order.indices[(order.values.cumsum(0) - order.values) < 0.8].tolist())
        left, width, base = 60 + i * 440, 380, 370
        canvas.text(left, 60, f"temperature {temperature:g}", 26, color, bold=True)
        step = width / (high - low)
        for j in range(low, high):
            value = float(probabilities[start + j])
            shade = color if start + j in kept else mix(color, 0.28)
            canvas.rect(left + (j - low) * step, base - value * 1500, step - 2, value * 1500 + 1, shade)
        canvas.line([(left, base), (left + width, base)], LINE, 2)
        for tick in (260, 272, 284):
            canvas.text(left + (tick - low + 0.5) * step, base + 14, str(tick), 22, SOFT, "mt")
        canvas.text(left + width, 60, f"{len(kept)} kept", 24, SOFT, "rs")
    canvas.text(60, 456, "probabilities of the first coordinate of `detect cat`; dark: kept by top-p = 0.8", 24, SOFT)
    return canvas.finish()


@drawn
def words_answer() -> Image.Image:
    """The greedy answer, token by token, with the probability of each."""
    canvas = Canvas(400)
    tokens, probabilities = tiny.answer()
    left, step = 50, 97
    for i, (token, probability) in enumerate(zip(tokens, probabilities, strict=True)):
        x, base = left + i * step, 290
        color = TEAL if token.startswith("<loc") else PURPLE if token == "<eos>" else RUST
        canvas.rect(x, base - 190, step - 12, 190, mix(color, 0.1), radius=6)
        canvas.rect(x, base - 190 * probability, step - 12, 190 * probability, mix(color, 0.75), radius=6)
        name = token[4:8] if token.startswith("<loc") else shown(token)
        canvas.text(x + (step - 12) / 2, base + 30, name, 22, INK, "ms")
        canvas.text(x + (step - 12) / 2, base - 202, f"{probability:.2f}", 22, SOFT, "ms")
    canvas.text(50, 48, "the answer to `detect cat`, and how sure the model was of each token", 26, INK, bold=True)
    canvas.text(50, 372, "teal: coordinates (four digits stand for <loc....>), where several neighbors share the probability", 24, SOFT)
    return canvas.finish()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.lessons.draw", description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="*", help="the beginning of names (default: all)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    for name, function in PICTURES.items():
        if not args.name or name.startswith(tuple(args.name)):
            path = FOLDER / f"{name}.png"
            save(function(), path)
            print(f"{path.name:<28} {path.stat().st_size / 1000:6.1f} KB")


if __name__ == "__main__":
    main()
