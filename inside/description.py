"""What the page is told about a recording: numbers, as JSON can hold them.

What to notice:
  - a token is chosen at the position before it. What is said of an answer token (its attention,
    its probabilities, what each layer would have said) is that of the position that predicts it;
  - arrays go as base64, attention weights in 65,535ths (uint16);
  - a page stays below 20 MB for the 3B model, too: where a picture has more than 16 x 16 patches
    its attention maps are those of blocks of patches, and where the maps of all layers and heads
    would take more than MAP_BYTES, only some layers of the tower are shown head by head.

Letters in shapes: B batch (1 here), N patches (= image tokens), T tokens given now, L tokens that
can be looked at, A tokens of the answer, H heads, K key/value heads, Hd size of a head, D width of
the decoder, C width of the tower, V vocabulary, G patches along a side (N = G * G).
"""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from decoder_1 import GemmaRotaryEmbedding, apply_rotary_pos_emb
from inside.recorder import DECODER, TOWER, Attended, Recording
from inside.source import source_link

SHOWN_SIDE = 440  # of the picture as given, in pixels
MAX_CELLS = 16  # of attention maps, along a side
MAP_BYTES = 10_500_000  # for the maps of tower and decoder
PAIR_BYTES = 2_000_000  # for queries and keys
NEXT_TOKENS = 5  # that are listed as most probable
SAME_WEIGHTS = 0.05  # apart at most: bfloat16 rounds scores
NUM_LOCATIONS = 1024  # <loc0000> to <loc1023>

# --------------------------------------------------------------------------- attention weights


def pool(weights: torch.Tensor, blocks: int) -> torch.Tensor:
    """Attention among blocks of blocks x blocks patches: summed over keys, averaged over queries.

    Input: [N, N]. Output: [N / blocks^2, N / blocks^2]; its rows sum to one as before.
    """
    if blocks == 1:
        return weights
    cells = int(len(weights) ** 0.5) // blocks
    weights = weights.view(cells, blocks, cells, blocks, cells, blocks, cells, blocks)
    return weights.sum(dim=(5, 7)).mean(dim=(1, 3)).view(cells**2, cells**2)


def cells_of(grid: int) -> int:
    """How many cells an attention map has along a side: G, or if that is too many a divisor of it."""
    return max(cells for cells in range(1, MAX_CELLS + 1) if grid % cells == 0)


def keep_weights(config, name: str, weights: torch.Tensor) -> torch.Tensor:
    """What the recorder is to keep of the weights that a softmax gave inside an attention module.

    Input: [heads, T, L]. Output: of the tower, attention among cells [heads, cells^2, cells^2]; of the
    decoder the last row [heads, L], which predicts the next token. What cannot be attention of the
    tower, by its shape, is kept without its numbers, so that whoever reads it sees that.
    """
    if not name.startswith(TOWER):
        return weights[:, -1]
    grid = config.vision_config.image_size // config.vision_config.patch_size
    if weights.shape[1:] != (grid**2, grid**2):
        return weights[:0]
    # Head by head: pooling makes a copy, and 4096 patches have 67 MB of weights in each.
    return torch.stack([pool(head.float(), grid // cells_of(grid)) for head in weights])


def usable(attended: Attended, shape: tuple[int, ...]) -> torch.Tensor | None:
    """The recorded weights, if they are attention of this shape."""
    if attended.weights is None or attended.weights.shape != shape:
        return None
    return attended.weights.nan_to_num()


def answer_attention(recording: Recording) -> tuple[torch.Tensor, list[str]]:
    """Of the positions that predict the answer's tokens.

    Output: float32 [A, layers, H, L], 0 after the position and where nothing was seen; and for each
    layer how it was seen.
    """
    text = recording.model.config.text_config
    L = len(recording.input_ids) - 1  # nothing reads the last token
    num_prefix, H = recording.batch["input_ids"].shape[1], text.num_attention_heads
    weights, ways = torch.zeros(len(recording.tokens), text.num_hidden_layers, H, L), []
    for layer in range(text.num_hidden_layers):
        seen = set()
        for i, attended in enumerate(recording.attended[f"{DECODER}layers.{layer}.self_attn"]):
            row = usable(attended, (H, num_prefix + i))
            seen.add("unseen" if row is None else attended.how)
            if row is not None:
                weights[i, layer, :, : num_prefix + i] = row
        # One way for a layer, the least certain one.
        ways.append(next((way for way in ("unseen", "arguments") if way in seen), "softmax"))
    return weights, ways


@torch.inference_mode()
def queries_and_keys(recording: Recording) -> tuple[torch.Tensor, torch.Tensor]:
    """What the attention of the answer's positions is made of, after rotation.

    By the reference's rotation, from what q_proj and k_proj gave. Output: float32 queries
    [A, layers, H, Hd] of the positions that predict, and keys [layers, K, L, Hd].
    """
    text = recording.model.config.text_config
    rotary_emb = GemmaRotaryEmbedding(text.head_dim, text.rope_theta)
    steps = [call.arguments[2].cpu() for call in recording.calls[DECODER.rstrip(".")]]  # position_ids
    queries, keys = [], []
    for layer in range(text.num_hidden_layers):
        name = f"{DECODER}layers.{layer}.self_attn."
        rotated_queries, rotated_keys = [], []
        for i, position_ids in enumerate(steps):
            query, key = (
                recording.calls[name + projection][i].output.cpu().unflatten(-1, (-1, text.head_dim))
                for projection in ("q_proj", "k_proj")
            )
            cos, sin = rotary_emb(query, position_ids)
            query, key = apply_rotary_pos_emb(query.transpose(1, 2), key.transpose(1, 2), cos, sin)
            rotated_queries.append(query[0, :, -1].float())  # [H, Hd]
            rotated_keys.append(key[0].float())  # [K, T, Hd]
        queries.append(torch.stack(rotated_queries))
        keys.append(torch.cat(rotated_keys, dim=1))
    return torch.stack(queries, dim=1), torch.stack(keys)


# ------------------------------------------------------------------------------ small tools


def packed(array) -> dict:
    """An array for JSON; the page reads it back with a typed array."""
    array = np.ascontiguousarray(array)
    data = base64.b64encode(array.tobytes()).decode()
    return {"type": array.dtype.name, "shape": array.shape, "data": data}


def packed_shares(weights: torch.Tensor) -> dict:
    """Numbers from 0 to 1 in 65,535ths."""
    return packed((weights.clamp(0, 1) * 65_535).round().numpy().astype(np.uint16))


def packed_numbers(numbers: torch.Tensor) -> dict:
    """Float numbers; those of a bfloat16 model in 16 bits, the upper half of a float32, without loss."""
    if not torch.equal(numbers.bfloat16().float(), numbers):
        return packed(numbers.numpy())
    halves = numbers.contiguous().numpy().view(np.uint32) >> 16
    return packed(halves.astype(np.uint16)) | {"type": "bfloat16"}


def spread(values: torch.Tensor) -> list[float]:
    """Mean, smallest and largest, short enough for a page."""
    return [float(f"{value:.4g}") for value in (values.mean(), values.min(), values.max())]


def data_uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def describe_picture(recording: Recording, picture: Image.Image) -> dict:
    """Part 1: the picture as given, and the numbers that the tower is given."""
    config = recording.model.config.vision_config
    # Back from [-1, 1] to the bytes that the picture had after its resizing.
    pixels = ((recording.batch["pixel_values"][0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    given = picture.copy()
    given.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    grid = recording.grid
    return {
        "width": picture.width,
        "height": picture.height,
        "given": data_uri(given),
        "resized": data_uri(Image.fromarray(pixels)),
        "pixels": packed(pixels),  # [S, S, 3]
        "size": config.image_size,
        "patch": config.patch_size,
        "grid": grid,
        "cells": cells_of(grid),
    }


def describe_tokens(recording: Recording) -> dict:
    """Part 2: the sequence, and who may look at whom.

    All image tokens see and are seen alike, so the mask has one row and one column for them.
    """
    num_prefix, N = recording.batch["input_ids"].shape[1], recording.model.config.vision_config.num_patches
    token_to_id = recording.tokenizer.token_to_id
    kinds = {token_to_id("<bos>"): "bos", token_to_id("\n"): "newline"}
    tokens = []
    for position, token in enumerate(recording.input_ids):
        kind = "answer" if position >= num_prefix else kinds.get(token, "prompt")
        if position >= N:
            name = recording.token_name(token)
            tokens.append({"id": token, "text": name, "kind": kind, "position": position})

    types = torch.tensor([[0] * num_prefix + [1] * len(recording.tokens)])
    prefix_lm_mask = recording.model_set.decoder.prefix_lm_mask
    mask = prefix_lm_mask(torch.ones_like(types), types)[0, 0]  # [L, L]
    return {
        "numImage": N,
        "imageId": recording.input_ids[0],
        "list": tokens,
        "mask": ["".join("01"[allowed] for allowed in row) for row in mask[N - 1 :, N - 1 :].int().tolist()],
    }


def principal_colors(features: list[torch.Tensor]) -> list[tuple[np.ndarray, float]]:
    """A color for each patch, alike where features are alike, for each layer.

    The three directions in which a layer's features vary most become red, green and blue. They are
    turned towards those of the layer before (Procrustes), so that colors go on from layer to layer.

    Input: [N, C] each. Output: uint8 [N, 3] each, and the share of the variance that is seen.
    """
    colored, before = [], None
    for layer in features:
        centered = layer.float() - layer.float().mean(dim=0)
        left, strengths, _ = torch.linalg.svd(centered, full_matrices=False)
        scores = (left * strengths)[:, :3]  # [N, 3]
        scores = F.pad(scores, (0, 3 - scores.shape[1]))
        if before is not None:
            # (3, 3) = (3, N) @ (N, 3)
            u, _, v = torch.linalg.svd(scores.T @ before)
            scores = scores @ (u @ v)
        before = scores
        low, high = scores.quantile(torch.tensor([0.02, 0.98]), dim=0)
        colors = ((scores - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
        seen = float(strengths[:3].square().sum() / strengths.square().sum().clamp(min=1e-9))
        colored.append(((colors * 255).round().byte().numpy(), seen))
    return colored


def describe_tower(recording: Recording) -> dict:
    """Part 3: what patches attend to, in each layer and head, and what becomes of their features."""
    config = recording.model.config.vision_config
    n, H, num_layers = cells_of(recording.grid) ** 2, config.num_attention_heads, config.num_hidden_layers

    text = recording.model.config.text_config
    decoder_bytes = len(recording.tokens) * text.num_hidden_layers * text.num_attention_heads * n * 2
    room = (MAP_BYTES - decoder_bytes - num_layers * n * n * 2) // (H * n * n * 2)
    head_layers = evenly(num_layers, room)
    means, heads, ways = [], [], []
    for layer in range(num_layers):
        attended = recording.attended[f"{TOWER}encoder.layers.{layer}.self_attn"][0]
        weights = usable(attended, (H, n, n))
        ways.append("unseen" if weights is None else attended.how)
        weights = torch.zeros(H, n, n) if weights is None else weights
        means.append(weights.mean(dim=0))
        if layer in head_layers:
            heads.append(weights)

    stages = ["embeddings", *(f"encoder.layers.{i}" for i in range(num_layers)), "post_layernorm"]
    features = [recording.calls[TOWER + stage][0].output[0].float().cpu() for stage in stages]
    colors = principal_colors(features)
    return {
        "layers": num_layers,
        "heads": H,
        "seen": ways,  # for each layer
        "means": packed_shares(torch.stack(means)),  # [layers, cells^2, cells^2]
        "headLayers": head_layers,
        "byHead": packed_shares(torch.stack(heads)),  # [headLayers, H, cells^2, cells^2]
        "features": [
            {"name": stage, "colors": packed(rgb), "seen": seen, "norm": spread(feature.norm(dim=-1))}
            for stage, feature, (rgb, seen) in zip(stages, features, colors, strict=True)
        ],
    }


def evenly(num_layers: int, room: int) -> list[int]:
    """All layers if there is room for them, or else some at equal distances; at least the last."""
    shown = num_layers if room >= num_layers else max(1, room)
    return sorted({round(float(i)) for i in np.linspace(num_layers - 1, 0, shown)})


def describe_merge(recording: Recording) -> dict:
    """Part 4: shapes and lengths of the vectors on their way into the decoder."""
    features = recording.calls["multi_modal_projector"][0].output[0].float()  # [N, D]
    embeddings = recording.calls[DECODER + "embed_tokens"][0].output[0].float()  # [T, D]
    merged = recording.calls[DECODER.rstrip(".")][0].arguments[0][0].float()  # [T, D]
    scaled = recording.calls[DECODER + "layers.0"][0].arguments[0][0].float()  # [T, D]
    text_dtype = recording.calls[DECODER + "embed_tokens"][0].output.dtype
    N, D = features.shape
    T = len(merged)
    raw = torch.cat([features, embeddings[N:]])
    return {
        "shapes": {
            "tower": recording.calls["vision_tower"][0].output_shape,
            "projector": recording.calls["multi_modal_projector"][0].output_shape,
            "text": [1, T - N, D],
            "merged": [1, T, D],
        },
        "factor": float(torch.tensor(D**0.5, dtype=text_dtype)),
        # Each [T]: as projector and table give them; merged; multiplied by sqrt(D).
        "norms": [[round(x, 4) for x in part.norm(dim=-1).tolist()] for part in (raw, merged, scaled)],
    }


@torch.inference_mode()
def logit_lens(recording: Recording) -> Iterator[torch.Tensor]:
    """What would be said if the decoder ended after each of its layers: probabilities.

    lm_head(norm(x)) for x before the first layer and after each, at the positions that predict
    the answer's tokens. Output: for one after the other, because the 3B model's take 20 MB each,
    float32 [layers + 1, V]; the last are the model's own.
    Source: "interpreting GPT: the logit lens" (nostalgebraist 2020).
    """
    language_model = recording.model.language_model
    calls = [recording.calls[f"{DECODER}layers.{i}"] for i in range(len(language_model.model.layers))]
    for i in range(len(recording.tokens)):
        states = [calls[0][i].arguments[0], *(layer[i].output for layer in calls)]
        states = torch.stack([state[0, -1] for state in states])  # [layers + 1, D]
        logits = language_model.lm_head(language_model.model.norm(states)).float()
        yield logits.softmax(dim=-1).cpu()


def token_boxes(names: list[str]) -> list[list[float] | None]:
    """For each token of an answer the box that it belongs to, as y1, x1, y2, x2 from 0 to 1.

    Four <loc> in a row begin a box; what follows up to `;` or the next <loc> is its label.
    """
    boxes, i, current = [None] * len(names), 0, None
    while i < len(names):
        locations = [re.fullmatch(r"<loc(\d{4})>", name) for name in names[i : i + 4]]
        if len(locations) == 4 and all(locations):
            y1, x1, y2, x2 = (int(location[1]) / 1024 for location in locations)
            current = [min(y1, y2), min(x1, x2), max(y1, y2), max(x1, x2)]
            boxes[i : i + 4] = [current] * 4
            i += 4
            continue
        if names[i].startswith("<loc") or ";" in names[i] or names[i] == "<eos>":
            current = None
        boxes[i] = current
        i += 1
    return boxes


def coverage(box: list[float], grid: int) -> torch.Tensor:
    """How much of each patch a box covers, from 0 to 1: [N]."""
    edges = torch.arange(grid) / grid
    y1, x1, y2, x2 = box
    rows, columns = (
        ((edges + 1 / grid).clamp(max=high) - edges.clamp(min=low)).clamp(min=0) * grid
        for low, high in ((y1, y2), (x1, x2))
    )
    return (rows[:, None] * columns).flatten()


def describe_focus(recording: Recording, weights: torch.Tensor) -> list[dict | None]:
    """For each answer token with a box: does the position that predicts it look into the box?

    Of the attention that goes to the picture, the share that falls into the box, against the
    share of the picture that the box is: above 1, the box is looked at more than the rest.
    """
    config = recording.model.config.vision_config
    on_picture = weights[..., : config.num_patches]  # [A, layers, H, N]
    focus = []
    for i, box in enumerate(token_boxes([recording.token_name(token) for token in recording.tokens])):
        covered = None if box is None else coverage(box, recording.grid)
        if covered is None or covered.sum() == 0:
            focus.append(None)
            continue
        # The mean over heads is that of the weights, as it is drawn, and not of the shares.
        by_head = torch.cat([on_picture[i].mean(dim=1, keepdim=True), on_picture[i]], dim=1)
        inside = (by_head * covered).sum(dim=-1) / by_head.sum(dim=-1).clamp(min=1e-12)
        area = float(covered.mean())
        best_layer = int(inside[:, 0].argmax())
        best_head = divmod(int(inside[:, 1:].argmax()), inside.shape[1] - 1)
        # A head that hardly looks at the picture may have all of that little in the box.
        open_at = divmod(int((on_picture[i] * covered).sum(dim=-1).argmax()), inside.shape[1] - 1)
        focus.append({
            "box": box,
            "area": area,
            "inside": [[round(share, 6) for share in row] for row in inside.tolist()],  # [layers, mean and H]
            "bestLayer": best_layer,
            "bestHead": best_head,
            "openAt": open_at,                                        # which pays most to the box
        })  # fmt: skip
    return focus


def describe_pairs(recording: Recording, weights: torch.Tensor) -> dict:
    """Queries and keys of the answer's positions, to multiply one pair by hand.

    In some layers only, if in all it would be too much. Where softmax(q . k / sqrt(Hd)) by the
    reference's formula is not what this model's softmax gave, the layer does not agree.
    """
    text = recording.model.config.text_config
    queries, keys = queries_and_keys(recording)
    A, num_layers, H, Hd = queries.shape
    room = PAIR_BYTES // (4 * (A * H + keys.shape[1] * keys.shape[2]) * Hd)
    layers = evenly(num_layers, room)

    # (A, layers, H, L) = (A, layers, H, Hd) @ (layers, H, L, Hd)
    repeated = keys.repeat_interleave(H // keys.shape[1], dim=1)
    scores = torch.einsum("alhd,lhkd->alhk", queries, repeated) * Hd**-0.5
    num_prefix = recording.batch["input_ids"].shape[1]
    for i in range(A):
        scores[i, ..., num_prefix + i :] = -torch.inf  # of tokens that come later
    differences = (scores.softmax(dim=-1) - weights).abs().amax(dim=(0, 2, 3))
    position_ids = [call.arguments[2][0] for call in recording.calls[DECODER.rstrip(".")]]
    return {
        "layers": layers,
        "agrees": [difference < SAME_WEIGHTS for difference in differences.tolist()],
        "query": packed_numbers(queries[:, layers]),  # [A, layers, H, Hd]
        "key": packed_numbers(keys[layers]),  # [layers, K, L, Hd]
        "positions": torch.cat(position_ids).tolist(),  # [L]
        "theta": text.rope_theta,
    }


def describe_locations(recording: Recording, probabilities: torch.Tensor) -> dict | None:
    """For each <loc> of the answer, the probabilities of all 1024; None if it has none.

    Input: [A, V].
    """
    ids = [recording.tokenizer.token_to_id(f"<loc{i:04}>") for i in range(NUM_LOCATIONS)]
    if None in ids or max(ids) >= probabilities.shape[1]:
        return None
    said = [i for i, token in enumerate(recording.tokens) if token in set(ids)]
    if not said:
        return None
    rows = probabilities[said][:, ids]
    # The largest of each row takes all 65,535ths, so that small ones keep their digits.
    most = rows.amax(dim=-1, keepdim=True).clamp(min=1e-9)
    return {"tokens": said, "most": most[:, 0].tolist(), "shares": packed_shares(rows / most)}


def describe_stream(recording: Recording) -> dict:
    """How long the vectors are between the decoder's layers, for the tokens of the prompt."""
    config = recording.model.config
    N, num_layers = config.vision_config.num_patches, config.text_config.num_hidden_layers
    layers = [recording.calls[f"{DECODER}layers.{i}"][0] for i in range(num_layers)]
    states = [layers[0].arguments[0], *(call.output for call in layers)]
    norms = torch.stack([state[0].float().norm(dim=-1).cpu() for state in states])  # [layers + 1, T]
    text = [[float(f"{value:.4g}") for value in row] for row in norms[:, N:].tolist()]
    return {"image": [spread(row) for row in norms[:, :N]], "text": text}


def describe_cache(recording: Recording) -> dict:
    """What the cache saves: the tokens that each step reads, and the bytes that one kept token takes."""
    text = recording.model.config.text_config
    calls = recording.calls[f"{DECODER}layers.0.self_attn.k_proj"]
    numbers = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    return {
        "read": [call.output_shape[1] for call in calls],
        "seconds": [call.seconds for call in recording.calls[""]],
        "bytesPerToken": numbers * calls[0].output.element_size(),
    }


def describe_decoder(recording: Recording) -> dict:
    """Part 5: for each answer token, where the decoder looked and what it thought of saying."""
    vision, text = recording.model.config.vision_config, recording.model.config.text_config
    weights, ways = answer_attention(recording)  # [A, layers, H, L]
    N, cells = vision.num_patches, cells_of(recording.grid)
    blocks = recording.grid // cells
    on_picture = weights[..., :N].unflatten(-1, (cells, blocks, cells, blocks)).sum(dim=(-3, -1)).flatten(-2)

    logits = torch.stack([call.output[0, -1] for call in recording.calls["language_model.lm_head"]])
    probabilities = logits.float().softmax(dim=-1).cpu()  # [A, V]

    def likeliest(probabilities: torch.Tensor, count: int) -> list[dict]:
        values, ids = probabilities.topk(count)
        pairs = zip(values.tolist(), ids.tolist(), strict=True)
        return [{"id": token, "text": recording.token_name(token), "p": round(p, 5)} for p, token in pairs]

    return {
        "layers": text.num_hidden_layers,
        "heads": text.num_attention_heads,
        "seen": ways,  # for each layer
        "picture": packed_shares(on_picture),  # [A, layers, H, cells^2]
        "text": packed_shares(weights[..., N:]),  # [A, layers, H, L - N]
        "next": [likeliest(row, NEXT_TOKENS) for row in probabilities],
        "lens": [
            [likeliest(row, 1)[0] | {"own": round(float(row[token]), 5)} for row in rows]
            for token, rows in zip(recording.tokens, logit_lens(recording), strict=True)
        ],
        "focus": describe_focus(recording, weights),
        "locations": describe_locations(recording, probabilities),
        "pairs": describe_pairs(recording, weights),
        "stream": describe_stream(recording),
        "cache": describe_cache(recording),
    }


def describe_modules(recording: Recording, folder: Path) -> list[dict]:
    """Part 7: the table of all modules that were called, in the order of their definition."""
    rows = []
    for name, module in recording.model.named_modules():
        if name not in recording.calls:  # a list of layers, for instance
            continue
        first, *later = recording.calls[name]
        source = source_link(type(module), folder)
        parameters = list(module.parameters())
        rows.append({
            "name": name or "(the model)",
            "depth": name.count(".") + bool(name),
            "class": type(module).__name__ if source else f"nn.{type(module).__name__}",
            "source": source,
            "input": first.input_shape,
            "output": first.output_shape,
            "parameters": sum(parameter.numel() for parameter in parameters),
            "weightBytes": sum(parameter.nbytes for parameter in parameters),
            "outputBytes": first.output_bytes,
            "promptSeconds": round(first.seconds, 7),
            "tokenSeconds": round(sum(call.seconds for call in later) / len(later), 7) if later else None,
        })  # fmt: skip
    return rows


def describe(recording: Recording, picture: Image.Image, facts: dict, folder: Path) -> dict:
    """All that the page is told about one answer.

    Input: facts, what only the program knows: the names of model, picture and set, and the prompt;
    folder, where the page will be, for its links.
    """
    whole = recording.calls[""]
    return {
        "facts": facts
        | {
            "answer": recording.text,
            "ended": recording.ended,
            "dtype": str(next(recording.model.parameters()).dtype).removeprefix("torch."),
            "parameters": sum(parameter.numel() for parameter in recording.model.parameters()),
            "promptSeconds": whole[0].seconds,
            "seconds": sum(call.seconds for call in whole),
        },
        "picture": describe_picture(recording, picture),
        "tokens": describe_tokens(recording),
        "tower": describe_tower(recording),
        "merge": describe_merge(recording),
        "decoder": describe_decoder(recording),
        "boxes": recording.model_set.generation.parse_boxes(recording.text, *picture.size),
        "modules": describe_modules(recording, folder),
    }
