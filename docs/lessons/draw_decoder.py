"""The pictures of the lessons on the decoder."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from decoder_1 import apply_rotary_pos_emb
from docs.lessons import tiny
from docs.lessons.canvas import BLUE, INK, LINE, PURPLE, RUST, SOFT, TEAL, WELL, Canvas, mix, signed
from docs.lessons.parts import GRID, SPACE, drawn, heat, rms, shown

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
    canvas.note(60, 462, "cosine similarity to the framed place; rust: alike, blue: opposed")
    return canvas.finish()


@drawn
def positions_clocks() -> Image.Image:
    """RoPE's clock hands: the angles of six of the sixteen planes of a head, at five positions."""
    canvas, step_x, step_y, radius = Canvas(830), 178, 132, 50
    shown, places = (0, 2, 4, 6, 8, 12), (0, 1, 2, 10, 100)
    for c, i in enumerate(shown):
        x = 300 + c * step_x
        canvas.text(x, 60, f"plane {i}", 26, INK, "ms", bold=True)
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
            canvas.arrow(
                (x, y), (x + np.cos(angle) * (radius - 5), y - np.sin(angle) * (radius - 5)), color, 4.5
            )
            canvas.circle(x, y, 4, color)
    canvas.note(
        60, 808, "counterclockwise from the mark: fast hands tell neighbors apart, slow ones near from far"
    )
    return canvas.finish()


@drawn
def positions_distance() -> Image.Image:
    """q · k against the distance of their positions, for equal vectors and for the model's own."""
    canvas = Canvas(520)
    place = canvas.axes(
        (100, 90, 1180, 320),
        (0, 104),
        (-0.72, 1.05),
        xticks=(0, 20, 40, 60, 80, 100),
        yticks=(-0.5, 0, 0.5, 1),
        xname="distance of the positions",
    )
    inverse = 10000 ** (-torch.arange(0, 32, 2) / 32)
    equal = torch.cos(torch.arange(0, 105)[:, None] * inverse).mean(dim=1)
    canvas.line([place(d, v) for d, v in enumerate(equal.tolist())], TEAL, 5)
    canvas.text(100, 60, "q = k = (1, 1, ..., 1)", 26, TEAL, bold=True)

    states, *_ = tiny.decoder_states()
    layer = tiny.model.language_model.model.layers[1]
    x = layer.input_layernorm(states[1])[0]
    q = layer.self_attn.q_proj(x[102]).view(4, 32)[2][None, None, None]  # head 2 of `cat`
    k = layer.self_attn.k_proj(x[100])[None, None, None]  # <bos>
    rotary = tiny.model.language_model.model.rotary_emb
    cos, sin = rotary(q, torch.arange(0, 105)[None])
    moved, _ = apply_rotary_pos_emb(q.expand(1, 1, 105, 32), q, cos, sin)
    own = (moved @ k.transpose(2, 3))[0, 0, :, 0] / (q.norm() * k.norm())
    canvas.line([place(d, v) for d, v in enumerate(own.tolist())], RUST, 5)
    canvas.text(470, 60, "the model's q of `cat` and k of <bos> (layer 1, head 2)", 26, RUST, bold=True)
    canvas.note(100, 496, "q · k as a part of its largest possible value")
    return canvas.finish()


# -------------------------------------------------------------------------------------- mask


@drawn
def mask() -> Image.Image:
    """Who may look at whom: PaliGemma's mask, and a causal one."""
    names = ["<image>", "<image>", "...", "<image>", "<bos>", "detect", "cat", "\\n"]
    names += tiny.answer()[0][:3]
    prefix, count, cell = 8, 11, 36
    canvas = Canvas(660)
    for left, title, is_prefix, color in (
        (250, "PaliGemma: prefix-LM", True, TEAL),
        (860, "GPT-2, Llama: causal", False, BLUE),
    ):
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
    canvas.note(250, 622, "rows look, columns are looked at; pale: allowed because it is part of the prefix")
    return canvas.finish()


# ------------------------------------------------------------------------------------- cache


@drawn
def cache() -> Image.Image:
    """The rows that the decoder computes at each call, without and with a cache."""
    canvas, calls = Canvas(560), 8
    lengths = [104 + i for i in range(calls)]
    for left, title, with_cache, color in (
        (70, "without a cache", False, RUST),
        (740, "with a cache", True, TEAL),
    ):
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
    canvas.note(
        70, 536, "dark: computed in this call; pale: keys and values found in the cache; below: the call"
    )
    return canvas.finish()


# ----------------------------------------------------------------------------------- sharing


@drawn
def sharing_schemes() -> Image.Image:
    """Eight queries on eight, two and one key/value heads."""
    canvas, size = Canvas(380), 34
    for left, title, K in (
        (60, "multi-head: K = 8", 8),
        (500, "grouped: K = 2", 2),
        (940, "multi-query: K = 1", 1),
    ):
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
        canvas.note(left, 326, f"cache: {2 * K} vectors a token and layer")
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
    key = kv_cache.key_cache[layer_index]  # [1, K, T, Hd]
    weights = (query @ key.transpose(2, 3) * 32**-0.5).softmax(dim=-1)[0, :, -1]
    canvas = Canvas(460)
    for h in range(4):
        left = 30 + h * (side + 33)
        canvas.paste(heat(weights[h, :100], side * 2), left, 70, side, side)
        canvas.text(left, 48, f"query head {h}", 26, INK, bold=True)
        canvas.note(left, 406, f"{float(weights[h, :100].sum()):.1%} on the picture")
    return canvas.finish()


# ----------------------------------------------------------------------------------- joining


@drawn
def joining() -> Image.Image:
    """Root mean squares of the rows that enter the decoder, correctly and with two mistakes."""
    canvas = Canvas(520)
    correct = rms(tiny.decoder_inputs())[0]
    D = tiny.model.config.text_config.hidden_size
    for i, (title, values, color) in enumerate(
        (
            ("as PaliGemma does it", correct, TEAL),
            ("picture not divided by √D", torch.cat([correct[:100] * D**0.5, correct[100:]]), RUST),
            ("words not multiplied by √D", torch.cat([correct[:100], correct[100:] / D**0.5]), BLUE),
        )
    ):
        left, base, width = 60 + i * 440, 400, 380
        canvas.text(left, 60, title, 26, color, bold=True)
        canvas.line([(left, base), (left + width, base)], LINE, 2)
        step = width / 104
        for j, value in enumerate(values.tolist()):
            height = value * 5.5 if i == 1 else value * 70
            canvas.rect(
                left + j * step,
                base - height,
                step - (0.6 if j < 100 else 0.2),
                height,
                mix(color, 0.5) if j < 100 else PURPLE,
            )
        canvas.note(left, base + 34, f"picture {float(values[:100].mean()):.3g}")
        canvas.text(left + width, base + 34, f"words {float(values[100:].mean()):.2g}", 24, PURPLE, "rs")
    canvas.note(60, 490, "one bar for each of 104 rows: its root mean square (the middle one drawn smaller)")
    return canvas.finish()


# ------------------------------------------------------------------------------------ logits


@drawn
def logits() -> Image.Image:
    """The first token of the answer: scores of all coordinates, and of the best tokens of a caption."""
    canvas = Canvas(560)
    first = tiny.model(**tiny.batch)["logits"][0, -1]
    start = tiny.tokenizer.token_to_id("<loc0000>")
    values = first[start : start + 1024].tolist()
    place = canvas.axes(
        (90, 110, 720, 330),
        (0, 1023),
        (-6, 14),
        xticks=(0, 256, 512, 768, 1023),
        yticks=(-5, 0, 5, 10),
        xname="coordinate",
    )
    canvas.text(90, 62, "`detect cat`: logits of <loc0000> to <loc1023>", 26, INK, bold=True)
    said = max(range(1024), key=values.__getitem__)
    canvas.line([place(said, -6), place(said, 14)], mix(RUST, 0.4), 3)
    canvas.line([place(i, v) for i, v in enumerate(values)], TEAL, 4)
    canvas.circle(*place(said, values[said]), 9, RUST)
    canvas.text(place(said, 0)[0] + 18, place(0, 12.2)[1], f"{said} is said", 24, RUST, "lm")

    caption = tiny.model(**tiny.processor(["caption en"], [tiny.picture]))["logits"][0, -1]
    best = caption.topk(8)
    canvas.text(900, 62, "`caption en`: the best", 26, INK, bold=True)
    low = float(best.values[-1]) - 2
    for i, (value, token) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        y = 110 + i * 44
        name = shown(tiny.tokenizer.id_to_token(token))
        canvas.text(1010, y + 17, name, 24, INK, "rm")
        canvas.rect(
            1026,
            y,
            (value - low) / (float(best.values[0]) - low) * 220,
            32,
            RUST if i == 0 else mix(TEAL, 0.6),
            radius=4,
        )
        canvas.text(
            1034 + (value - low) / (float(best.values[0]) - low) * 220, y + 17, f"{value:.1f}", 22, SOFT, "lm"
        )
    canvas.note(90, 536, f"one feature, {len(first)} products with the rows of the embedding table")
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
    canvas.note(60, 446, "cosine similarity of rows of embed_tokens: rust alike, blue opposed")
    return canvas.finish()


# ------------------------------------------------------------------------------------- words


@drawn
def words_temperature() -> Image.Image:
    """The same logits at three temperatures, and what top-p keeps."""
    canvas = Canvas(480)
    first = tiny.model(**tiny.batch)["logits"][0, -1]
    start = tiny.tokenizer.token_to_id("<loc0000>")
    said = int(first[start : start + 1024].argmax())
    low, high = said - 16, said + 24
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
            canvas.rect(left + (j - low) * step, base - value * 850, step - 2, value * 850 + 1, shade)
        canvas.line([(left, base), (left + width, base)], LINE, 2)
        for tick in (said - 12, said, said + 12):
            canvas.text(left + (tick - low + 0.5) * step, base + 14, str(tick), 22, SOFT, "mt")
        canvas.note(left + width, 60, f"{len(kept)} kept", "rs")
    canvas.note(60, 456, "probabilities of the first coordinate of `detect cat`; dark: kept by top-p = 0.8")
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
    canvas.text(
        50, 48, "the answer to `detect cat`, and how sure the model was of each token", 26, INK, bold=True
    )
    canvas.note(
        50,
        372,
        "teal: coordinates (four digits stand for <loc....>), where several neighbors share the probability",
    )
    return canvas.finish()
