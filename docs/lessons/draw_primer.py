"""The pictures of the primer, one for each of its ten words."""

from PIL import Image

from docs.lessons import tiny
from docs.lessons.canvas import BLUE, INK, LINE, PAPER, PURPLE, RUST, SOFT, TEAL, WELL, Canvas, mix
from docs.lessons.parts import (
    FACE,
    GRID,
    HEAD,
    LAYER,
    SPACE,
    drawn,
    frame,
    heat,
    prepared,
    shown,
    strip,
    tower_weights,
)

SMALL = 680  # width of the primer's pictures


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
    words = ("cat", "dog", "bus", "umbrella", "two", "left", "<loc0269>")
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
    canvas.text(266, 284, f"{weight.shape[1]} numbers in each row", 22, SOFT)
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
    canvas.note(310, 214, "all weights together are 1")
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
    canvas.note(14, 58, "the vector of one token")
    return canvas.finish()


@drawn
def primer_logits() -> Image.Image:
    canvas = Canvas(300, SMALL)
    caption = tiny.model(**tiny.processor(["caption en"], [tiny.picture]))["logits"][0, -1]
    best = caption.topk(5)
    probabilities = caption.softmax(dim=-1)
    canvas.note(20, 42, "after `caption en`:")
    for i, (value, token) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        y = 64 + i * 46
        canvas.text(140, y + 18, shown(tiny.tokenizer.id_to_token(token)), 25, INK, "rm")
        canvas.rect(156, y, value * 19, 36, RUST if i == 0 else mix(TEAL, 0.55), radius=5)
        canvas.text(168 + value * 19, y + 18, f"{value:.1f}", 23, SOFT, "lm")
        canvas.text(650, y + 18, f"{float(probabilities[token]):.3f}", 23, INK, "rm")
    canvas.note(650, 42, "softmax", "rs")
    return canvas.finish()


@drawn
def primer_mask() -> Image.Image:
    canvas, cell = Canvas(300, SMALL), 40
    names = ("picture", "prompt", "answer", "answer", "answer")
    for r in range(5):
        canvas.text(150, 50 + r * cell + cell / 2 - 2, names[r], 22, BLUE if r < 2 else RUST, "rm")
        for c in range(5):
            allowed = c <= r or c < 2
            canvas.rect(
                164 + c * cell, 50 + r * cell, cell - 4, cell - 4, TEAL if allowed else WELL, radius=5
            )
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
