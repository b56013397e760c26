"""The pictures of the lessons on shapes and on the vision tower."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from docs.lessons import tiny
from docs.lessons.canvas import BLUE, GOLD, INK, LINE, PURPLE, RUST, SOFT, TEAL, Canvas, mix
from docs.lessons.parts import (
    EAR,
    FACE,
    GRID,
    HEAD,
    LAYER,
    drawn,
    frame,
    heat,
    prepared,
    rms,
    strip,
    tower_queries_keys,
    tower_weights,
)

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
        canvas.note(44, 164 + n * cell - 2, f"{n}", "rm")
    grid(60, 135, numbers.tolist())
    canvas.note(60, 358, "a row is a patch;")
    canvas.note(60, 392, "a color is what one")
    canvas.note(60, 426, "head should get")
    for x, title, heads, verdict, color in (
        (
            470,
            "x.view(3, 2, 2).transpose(0, 1)",
            numbers.view(3, 2, 2).transpose(0, 1),
            ("each head has its numbers", "of all three patches"),
            TEAL,
        ),
        (
            960,
            "x.view(2, 3, 2)",
            numbers.view(2, 3, 2),
            ("same shape, but head 0 has", "patch 0 and half of patch 1"),
            RUST,
        ),
    ):
        canvas.text(x, 62, title, 28, color, bold=True)
        for h in range(2):
            left = x + h * (2 * cell + 46)
            canvas.note(left + cell - 2, 112, f"head {h}", "mm")
            grid(left, 135, heads[h].tolist())
        canvas.note(x, 358, verdict[0])
        canvas.note(x, 392, verdict[1])
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
                box(x + c * cell, y + r * cell, values(r, c), solid(r, c), None if solid(r, c) else LINE)

    y = 110
    table(50, y, lambda r, c: column[r], lambda r, c: mix(TEAL, 0.34) if c == 0 else None)
    canvas.text(50, 72, "[3, 1]", 28, TEAL, bold=True)
    canvas.text(388, y + 108, "+", 44, INK, "mm")
    table(430, y, lambda r, c: row[c], lambda r, c: mix(RUST, 0.3) if r == 0 else None)
    canvas.text(430, 72, "[1, 4]", 28, RUST, bold=True)
    canvas.text(768, y + 108, "=", 44, INK, "mm")
    table(810, y, lambda r, c: column[r] + row[c], lambda r, c: mix(GOLD, 0.4))
    canvas.text(810, 72, "[3, 4]", 28, INK, bold=True)
    canvas.note(1130, y + 30, "filled: in memory")
    canvas.note(1130, y + 64, "framed: the same")
    canvas.note(1130, y + 98, "number, read again")
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
    canvas.note(left, top + GRID * (cell + gap) + 34, "row by row from the top left: this one is patch 43")

    part = square.crop((column * 16, row * 16, column * 16 + 16, row * 16 + 16))
    big = 256
    canvas.line([(x + cell + 3, y), (560, top)], LINE, 2)
    canvas.line([(x + cell + 3, y + cell), (560, top + big)], LINE, 2)
    canvas.paste(part, 560, top, big, big, smooth=False)
    canvas.rect(560, top, big, big, None, RUST, 4)
    canvas.text(560, 62, "patch 43", 28, RUST, bold=True)
    canvas.note(560, top + big + 36, "16 · 16 · 3 = 768 numbers")

    embeddings = tiny.model.vision_tower.vision_model.embeddings
    content = embeddings.patch_embedding(tiny.batch["pixel_values"]).flatten(2)[0, :, FACE]
    place = embeddings.position_embedding.weight[FACE]
    largest = float((content + place).abs().quantile(0.97))
    canvas.arrow((840, top + big / 2), (905, top + big / 2), SOFT)
    for i, (name, vector, color) in enumerate(
        (
            ("what it shows", content, RUST),
            ("+ where it lies", place, BLUE),
            ("= what the tower reads", content + place, INK),
        )
    ):
        y = top + 22 + i * 112
        canvas.text(930, y, name, 26, color, bold=True)
        strip(canvas, 930, y + 16, 390, 44, vector.tolist(), largest)
    canvas.note(930, top + 22 + 2 * 112 + 96, "192 numbers each; rust is above")
    canvas.note(930, top + 22 + 2 * 112 + 130, "zero, blue below")
    return canvas.finish()


# --------------------------------------------------------------------------------- attention


@drawn
def attention_score() -> Image.Image:
    """One query of the tower, two keys, their products and what the softmax makes of the sums."""
    query, key = tower_queries_keys(LAYER)
    weights = tower_weights(LAYER)[HEAD, FACE]
    q = query[HEAD, FACE]
    order = weights.argsort(descending=True)
    chosen = [int(order[order != FACE][0]), int(weights.argmin())]  # of the others
    canvas, side, top = Canvas(640), 470, 96
    canvas.text(40, 62, f"where patch {FACE} looks", 28, INK, bold=True)
    canvas.paste(heat(weights, 940), 40, top, side, side)
    frame(canvas, 40, top, side, FACE, "#ffffff")
    for patch, color in zip(chosen, (RUST, BLUE), strict=True):
        frame(canvas, 40, top, side, patch, mix(color, 0.8, "#ffffff"))
    canvas.note(40, top + side + 40, f"layer {LAYER}, head {HEAD}: the weights of {len(weights)} patches")
    x, w = 690, 520
    largest = max(float(q.abs().max()), float(key[HEAD, chosen].abs().max()))
    canvas.text(x, 62, f"q of patch {FACE}", 26, INK, bold=True)
    strip(canvas, x, 78, w, 32, q.tolist(), largest)
    for i, (patch, color) in enumerate(zip(chosen, (RUST, BLUE), strict=True)):
        y = 182 + i * 224
        k = key[HEAD, patch]
        canvas.text(x, y, f"k of patch {patch}", 26, color, bold=True)
        strip(canvas, x, y + 14, w, 32, k.tolist(), largest)
        canvas.note(x, y + 84, "q · k, number by number")
        strip(canvas, x, y + 98, w, 32, (q * k).tolist(), float((q * key[HEAD, chosen]).abs().max()))
        score = float(q @ k)
        canvas.text(
            x,
            y + 170,
            f"sum {score:.1f};  / √32 = {score / 32**0.5:.2f};  weight {float(weights[patch]):.4f}",
            26,
            INK,
        )
    return canvas.finish()


# ------------------------------------------------------------------------------------- scale


@drawn
def scale_deviation() -> Image.Image:
    """How far q · k spreads, by the size of a head; and one row of weights with three divisors."""
    canvas = Canvas(630)
    generator = torch.Generator().manual_seed(0)
    sizes = [4, 8, 16, 32, 64, 128, 256]
    place = canvas.axes(
        (100, 110, 440, 360),
        (0, 260),
        (0, 18),
        xticks=(4, 64, 128, 256),
        yticks=(0, 4, 8, 12, 16),
        xname="Hd",
        yname="standard deviation of q · k",
    )
    curve = [place(x, x**0.5) for x in range(1, 261)]
    canvas.line(curve, mix(TEAL, 0.55), 4)
    canvas.text(*place(150, 14.2), "√Hd", 28, TEAL, "rs", bold=True)
    for Hd in sizes:
        q, k = (torch.randn(4000, Hd, generator=generator) for _ in range(2))
        canvas.circle(*place(Hd, float((q * k).sum(dim=1).std())), 8, RUST)
    canvas.note(100, 560, "dots: 4000 random pairs of unit variance")

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
        canvas.note(left + width, base - 108, words, "rs")
        canvas.line([(left, base), (left + width, base)], LINE, 2)
        step = width / 50
        for j, weight in enumerate(weights[:50].tolist()):
            height = weight / float(weights[0]) * 88
            canvas.rect(left + j * step, base - height, step - 3, height + 1, color)
    canvas.note(left, 560, "one query of the tower: its 50 largest weights of 100,")
    canvas.note(left, 592, "each panel drawn to its own largest")
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
        canvas.note(x + side, y + side + 36, f"most at patch {int(weights[h].argmax())}", "rs")
    return canvas.finish()


# ---------------------------------------------------------------------------------- residual


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
        (
            90,
            "vision tower",
            [float(rms(x).mean()) for x in tower],
            [block.layer_norm1 for block in blocks],
            TEAL,
        ),
        (
            750,
            "decoder",
            [float(rms(x)[0, :100].mean()) for x in decoder],
            [layer.input_layernorm for layer in layers],
            BLUE,
        ),
    ):
        states = tower if title != "decoder" else decoder
        place = canvas.axes(
            (left, 120, 540, 330),
            (-0.3, 5.3),
            (0, 17),
            xticks=range(len(stream)),
            yticks=range(0, 17, 4),
            xname="layers passed",
        )
        canvas.text(left, 74, title, 28, color, bold=True)
        canvas.note(left + 540, 74, "root mean square", "rs")
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
    canvas = Canvas(624)
    place = canvas.axes(
        (80, 110, 520, 380), (-4, 4), (-0.6, 4), xticks=(-4, -2, 0, 2, 4), yticks=(0, 1, 2, 3, 4), xname="x"
    )
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
    canvas.note(80, 604, "gold: where the gates of decoder layer 0 lie")

    passed = F.gelu(gate, approximate="tanh")
    up = layer.mlp.up_proj(mlp_input)
    token, start, count = 102, 0, 20  # `cat`, the first 20 of its neurons
    left, step = 720, 29
    for i, (name, values, color) in enumerate(
        (
            ("gelu(gate_proj(x))", passed[token], TEAL),
            ("up_proj(x)", up[token], SOFT),
            ("their product", (passed * up)[token], RUST),
        )
    ):
        values = values[start : start + count].tolist()
        base = 185 + i * 165
        canvas.line([(left, base), (left + count * step, base)], LINE, 2)
        canvas.text(left, base - 96, name, 26, color, bold=True)
        for j, value in enumerate(values):
            height = value * 18
            canvas.rect(left + j * step + 3, base - max(height, 0), step - 6, max(2, abs(height)), color)
    canvas.note(left, 604, f"20 of {gate.shape[1]} neurons, for the token `cat` in layer 0")
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
        canvas.note(left + c * (cell + 8) + cell / 2, top - 24, f"text {c}", "ms")
        canvas.note(620, 150 + c * 40, f"text {c}: {caption}")
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
    canvas.note(620, top + 250, "small: what is true")
    canvas.note(620, top + 320, "9 questions from 3 pairs, each answered by itself")
    return canvas.finish()


@drawn
def siglip_features() -> Image.Image:
    """How alike the ear's feature is to all others: before the tower, and after it."""
    canvas, side = Canvas(560), 410
    tower = tiny.model.vision_tower.vision_model
    states = tiny.tower_states()
    pixels = tiny.batch["pixel_values"][0].unfold(1, 16, 16).unfold(2, 16, 16)
    pixels = pixels.permute(1, 2, 0, 3, 4).reshape(100, -1)  # [N, 3 * P * P]
    for i, (title, features) in enumerate(
        (
            ("pixels of the patch", pixels),
            ("after layer 1", states[2][0]),
            ("after the tower", tower.post_layernorm(states[-1])[0]),
        )
    ):
        centered = F.normalize(features - features.mean(dim=0), dim=1)
        alike = (centered @ centered[EAR]).clamp(min=0)
        x = 30 + i * (side + 35)
        canvas.paste(heat(alike, side * 2), x, 80, side, side)
        frame(canvas, x, 80, side, EAR)
        canvas.text(x, 56, title, 26, INK, bold=True)
    canvas.note(30, 530, "lit: patches whose vectors point the same way as that of the framed one")
    return canvas.finish()
