"""One page that shows one answer being made, with the numbers of this run.

    python explain.py --image cat.jpg --prompt "detect cat" --out explain.html

What is peculiar about it:
  - the reference files know nothing of it. Forward hooks (`Recorder`) keep what goes into a module
    and what comes out, and attention weights, which the model throws away, are computed again from
    what their module was given (`tower_attention`, `decoder_attention`);
  - a token is chosen at the position before it. What is said of an answer token (its attention,
    its probabilities, what each layer would have said) is that of the position that predicts it;
  - the page is one file. `explain_page.html` holds its words and its drawing code, and gets the
    numbers as JSON: arrays as base64, attention weights in 65,535ths (uint16).

A page stays below 20 MB for the 3B model, too: where a picture has more than 16 x 16 patches its
attention maps are those of blocks of patches, and where the tower's maps of all layers and heads
would take more than TOWER_BYTES, only some layers are shown head by head (all as mean over heads).

Letters in shapes: B batch (1 here), N patches (= image tokens), T tokens given now, L tokens that
can be looked at, A tokens of the answer, H heads, Hd size of a head, D width of the decoder,
C width of the tower, V vocabulary, G patches along a side (N = G * G).
"""

if __name__ == "__main__":
    from speed import threads
    threads.sleep_while_waiting()                                     # must be said before torch is imported

import argparse
import base64
import html
import inspect
import io
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import inference
from inference import Answer, InputError, Parser, generate, log, number, open_picture, parse_boxes
from inside import pictures as explain_pictures
from load_weights import ModelSet
from speed.loading import ONE_THREAD, PRECISIONS

TEMPLATE = Path(__file__).parent / "inside" / "page.html"
MADE_HERE = '<meta name="generator" content="explain.py">'             # what a page of ours begins with
SHOWN_SIDE = 512                                                      # of the picture as given, in pixels
MAX_CELLS = 16                                                        # of attention maps, along a side
TOWER_BYTES = 10_000_000                                              # for the tower's maps
NEXT_TOKENS = 5                                                       # that are listed as most probable

# ------------------------------------------------------------------------ watching a model run


class Call(NamedTuple):
    """One call of a module; the tensors are kept only where the page needs them."""

    seconds: float                                                    # modules inside it included
    input_shape: list[int] | None
    output_shape: list[int] | None
    output_bytes: int
    arguments: tuple
    output: torch.Tensor | None


def tensors_in(value) -> list[torch.Tensor]:
    """The tensors that a module was given or gave back, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (tuple, list)):
        value = [value]
    return [one for one in value if isinstance(one, torch.Tensor)]


class Recorder:
    """Watches the modules of a model while it runs, through forward hooks.

    with Recorder(model, keep) as calls: run the model; calls[name] is then a list of Call, the
    first of which read the prompt and each further one a token of the answer.

    keep(name): whether the tensors of this module are to be kept. The activations of all
    modules would be gigabytes in a 3B model.
    """

    def __init__(self, model: nn.Module, keep):
        self.model, self.keep = model, keep
        self.calls: dict[str, list[Call]] = {}

    def __enter__(self) -> dict[str, list[Call]]:
        self.hooks = []
        for name, module in self.model.named_modules():
            self.hooks += self.watch(name, module)
        return self.calls

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def watch(self, name: str, module: nn.Module) -> list:
        started = []

        def before(module, args, kwargs):
            started.append(time.perf_counter())

        def after(module, args, kwargs, output):
            seconds = time.perf_counter() - started.pop()
            kept, result = (), None
            if self.keep(name):
                # By position, however the caller has named them.
                kept, result = inspect.signature(module.forward).bind(*args, **kwargs).args, output
            given, made = tensors_in([*args, *kwargs.values()]), tensors_in(output)
            self.calls.setdefault(name, []).append(Call(
                seconds,
                list(given[0].shape) if given else None,
                list(made[0].shape) if made else None,
                sum(tensor.nbytes for tensor in made),
                kept,
                result,
            ))  # fmt: skip

        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True),
        ]


TOWER, DECODER = "vision_tower.vision_model.", "language_model.model."
KEPT = re.compile(
    r"vision_tower\.vision_model\.(embeddings|post_layernorm|encoder\.layers\.\d+(\.self_attn)?)"
    r"|multi_modal_projector|language_model\.(lm_head|model\.(embed_tokens|layers\.\d+(\.self_attn)?))"
    r"|language_model\.model"
)


class Run(NamedTuple):
    """One answer, and all that was seen while it was made."""

    model: nn.Module
    tokenizer: object
    batch: dict[str, torch.Tensor]                                    # what the processor made
    tokens: list[int]                                                 # of the answer, <eos> included
    text: str                                                         # of the answer, without <eos>
    calls: dict[str, list[Call]]
    model_set: ModelSet

    @property
    def input_ids(self) -> list[int]:
        """Of the whole sequence: picture, prompt, answer."""
        return self.batch["input_ids"][0].tolist() + self.tokens

    def name(self, token: int) -> str:
        return self.tokenizer.id_to_token(token) or f"[{token}]"      # ids beyond the tokenizer's exist


def watch_answer(model, tokenizer, batch: dict, max_tokens: int, model_set: ModelSet) -> Run:
    """Lets the model answer (greedily) and keeps what the page is to show."""
    eos_token_id = tokenizer.token_to_id("<eos>")
    answer, tokens = Answer(tokenizer), []
    with Recorder(model, KEPT.fullmatch) as calls:
        for (token,) in generate(model, batch, eos_token_id, max_tokens):
            tokens.append(token)
            if token != eos_token_id:
                answer.append(token)
    return Run(model, tokenizer, batch, tokens, answer.text, calls, model_set)


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


@torch.inference_mode()
def tower_attention(attention: nn.Module, hidden_states: torch.Tensor, num_heads: int, blocks: int = 1):
    """softmax(Q K^T / sqrt(Hd)), as vision_transformer_1.Attention computes it from the same input.

    Input: [1, N, C]. Output: float32 [H, N, N], or with blocks > 1 the attention among blocks.
    Head by head: with 4096 patches each holds 67 MB.
    """
    query, key = attention.q_proj(hidden_states)[0], attention.k_proj(hidden_states)[0]
    weights = []
    for q, k in zip(query.chunk(num_heads, dim=-1), key.chunk(num_heads, dim=-1), strict=True):
        # (N, N) = (N, Hd) @ (Hd, N)
        scores = q @ k.T * q.shape[-1] ** -0.5
        weights.append(pool(F.softmax(scores, dim=-1, dtype=torch.float32), blocks))
    return torch.stack(weights)


@torch.inference_mode()
def decoder_attention(run: Run, layer: int, call: Call) -> torch.Tensor:
    """The same in decoder_1.GemmaAttention, for the last of the tokens given: it predicts the next.

    Output: float32 [H, L].
    """
    config = run.model.config.text_config
    decoder = run.model_set.decoder
    attention = run.model.get_submodule(f"{DECODER}layers.{layer}.self_attn")
    hidden_states, attention_mask, (cos, sin), kv_cache = call.arguments
    H, K, L = config.num_attention_heads, config.num_key_value_heads, attention_mask.shape[-1]

    query = attention.q_proj(hidden_states[:, -1:]).view(1, 1, H, config.head_dim).transpose(1, 2)
    query, _ = decoder.apply_rotary_pos_emb(query, query, cos[:, -1:], sin[:, -1:])
    # The cache has grown since; its first L keys are those that this call saw.
    key = decoder.repeat_kv(kv_cache.key_cache[layer][:, :, :L], H // K)
    # (1, H, 1, L) = (1, H, 1, Hd) @ (1, H, Hd, L)
    scores = query @ key.transpose(2, 3) * config.head_dim**-0.5
    scores = scores.masked_fill(~attention_mask[:, :, -1:], torch.finfo(scores.dtype).min)
    return F.softmax(scores, dim=-1, dtype=torch.float32)[0, :, 0]


def answer_attention(run: Run) -> torch.Tensor:
    """Of the positions that predict the answer's tokens: float32 [A, layers, H, L], 0 after the position."""
    num_layers = run.model.config.text_config.num_hidden_layers
    L = len(run.input_ids) - 1                                        # nothing reads the last token
    weights = torch.zeros(len(run.tokens), num_layers, run.model.config.text_config.num_attention_heads, L)
    for layer in range(num_layers):
        for i, call in enumerate(run.calls[f"{DECODER}layers.{layer}.self_attn"]):
            row = decoder_attention(run, layer, call)
            weights[i, layer, :, : row.shape[-1]] = row
    return weights


# ------------------------------------------------------------------------- what the page is told


def packed(array) -> dict:
    """An array for JSON; the page reads it back with a typed array."""
    array = np.ascontiguousarray(array)
    data = base64.b64encode(array.tobytes()).decode()
    return {"type": array.dtype.name, "shape": array.shape, "data": data}


def packed_shares(weights: torch.Tensor) -> dict:
    """Numbers from 0 to 1 in 65,535ths."""
    return packed((weights * 65_535).round().numpy().astype(np.uint16))


def data_uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def describe_picture(run: Run, picture: Image.Image) -> dict:
    """Part 1: the picture as given, and the numbers that the tower is given."""
    config = run.model.config.vision_config
    # Back from [-1, 1] to the bytes that the picture had after its resizing.
    pixels = ((run.batch["pixel_values"][0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    given = picture.copy()
    given.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    grid = config.image_size // config.patch_size
    return {
        "width": picture.width,
        "height": picture.height,
        "given": data_uri(given),
        "resized": data_uri(Image.fromarray(pixels)),
        "pixels": packed(pixels),                                     # [S, S, 3]
        "size": config.image_size,
        "patch": config.patch_size,
        "grid": grid,
        "cells": cells_of(grid),
    }


def describe_tokens(run: Run) -> dict:
    """Part 2: the sequence, and who may look at whom.

    All image tokens see and are seen alike, so the mask has one row and one column for them.
    """
    num_prefix, N = run.batch["input_ids"].shape[1], run.model.config.vision_config.num_patches
    kinds = {run.tokenizer.token_to_id("<bos>"): "bos", run.tokenizer.token_to_id("\n"): "newline"}
    tokens = []
    for position, token in enumerate(run.input_ids):
        kind = "answer" if position >= num_prefix else kinds.get(token, "prompt")
        if position >= N:
            tokens.append({"id": token, "text": run.name(token), "kind": kind, "position": position})

    types = torch.tensor([[0] * num_prefix + [1] * len(run.tokens)])
    mask = run.model_set.decoder.prefix_lm_mask(torch.ones_like(types), types)[0, 0]               # [L, L]
    return {
        "numImage": N,
        "imageId": run.input_ids[0],
        "list": tokens,
        "mask": ["".join("01"[allowed] for allowed in row) for row in mask[N - 1:, N - 1:].int().tolist()],
    }


def principal_colours(features: list[torch.Tensor]) -> list[tuple[np.ndarray, float]]:
    """A colour for each patch, alike where features are alike, for each layer.

    The three directions in which a layer's features vary most become red, green and blue. They are
    turned towards those of the layer before (Procrustes), so that colours go on from layer to layer.

    Input: [N, C] each. Output: uint8 [N, 3] each, and the share of the variance that is seen.
    """
    coloured, before = [], None
    for layer in features:
        centred = layer.float() - layer.float().mean(dim=0)
        left, strengths, _ = torch.linalg.svd(centred, full_matrices=False)
        scores = (left * strengths)[:, :3]                            # [N, 3]
        scores = F.pad(scores, (0, 3 - scores.shape[1]))
        if before is not None:
            # (3, 3) = (3, N) @ (N, 3)
            u, _, v = torch.linalg.svd(scores.T @ before)
            scores = scores @ (u @ v)
        before = scores
        low, high = scores.quantile(torch.tensor([0.02, 0.98]), dim=0)
        colours = ((scores - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
        seen = float(strengths[:3].square().sum() / strengths.square().sum().clamp(min=1e-9))
        coloured.append(((colours * 255).round().byte().numpy(), seen))
    return coloured


def describe_tower(run: Run) -> dict:
    """Part 3: what patches attend to, in each layer and head, and what becomes of their features."""
    config = run.model.config.vision_config
    grid = config.image_size // config.patch_size
    blocks = grid // cells_of(grid)
    n, H, num_layers = cells_of(grid) ** 2, config.num_attention_heads, config.num_hidden_layers

    room = (TOWER_BYTES - num_layers * n * n * 2) // (H * n * n * 2)
    shown = num_layers if room >= num_layers else max(1, room)
    head_layers = sorted({round(float(i)) for i in np.linspace(num_layers - 1, 0, shown)})
    means, heads = [], []
    for layer in range(num_layers):
        name = f"{TOWER}encoder.layers.{layer}.self_attn"
        (hidden_states,) = run.calls[name][0].arguments
        weights = tower_attention(run.model.get_submodule(name), hidden_states, H, blocks).cpu()
        means.append(weights.mean(dim=0))
        if layer in head_layers:
            heads.append(weights)

    stages = ["embeddings", *(f"encoder.layers.{i}" for i in range(num_layers)), "post_layernorm"]
    colours = principal_colours([run.calls[TOWER + stage][0].output[0].cpu() for stage in stages])
    return {
        "layers": num_layers,
        "heads": H,
        "means": packed_shares(torch.stack(means)),                   # [layers, cells^2, cells^2]
        "headLayers": head_layers,
        "byHead": packed_shares(torch.stack(heads)),                  # [headLayers, H, cells^2, cells^2]
        "features": [
            {"name": stage, "colours": packed(rgb), "seen": seen}
            for stage, (rgb, seen) in zip(stages, colours, strict=True)
        ],
    }


def describe_merge(run: Run) -> dict:
    """Part 4: shapes and lengths of the vectors on their way into the decoder."""
    features = run.calls["multi_modal_projector"][0].output[0].float()               # [N, D]
    embeddings = run.calls[DECODER + "embed_tokens"][0].output[0].float()            # [T, D]
    merged = run.calls[DECODER.rstrip(".")][0].arguments[0][0].float()               # [T, D]
    scaled = run.calls[DECODER + "layers.0"][0].arguments[0][0].float()              # [T, D]
    N, D = features.shape
    T = len(merged)
    raw = torch.cat([features, embeddings[N:]])
    return {
        "shapes": {
            "tower": run.calls["vision_tower"][0].output_shape,
            "projector": run.calls["multi_modal_projector"][0].output_shape,
            "text": [1, T - N, D],
            "merged": [1, T, D],
        },
        "factor": float(torch.tensor(D**0.5, dtype=run.calls[DECODER + "embed_tokens"][0].output.dtype)),
        # Each [T]: as projector and table give them; merged; multiplied by sqrt(D).
        "norms": [[round(x, 4) for x in part.norm(dim=-1).tolist()] for part in (raw, merged, scaled)],
    }


@torch.inference_mode()
def logit_lens(run: Run) -> torch.Tensor:
    """What would be said if the decoder ended after each of its layers: probabilities.

    lm_head(norm(x)) for x before the first layer and after each, at the positions that predict
    the answer's tokens. Output: float32 [A, layers + 1, V]; the last of a token are the model's own.
    Source: "interpreting GPT: the logit lens" (nostalgebraist 2020).
    """
    language_model = run.model.language_model
    calls = [run.calls[f"{DECODER}layers.{i}"] for i in range(len(language_model.model.layers))]
    probabilities = []
    for i in range(len(run.tokens)):
        states = [calls[0][i].arguments[0], *(layer[i].output for layer in calls)]
        states = torch.stack([state[0, -1] for state in states])                     # [layers + 1, D]
        logits = language_model.lm_head(language_model.model.norm(states)).float()
        probabilities.append(logits.softmax(dim=-1).cpu())
    return torch.stack(probabilities)


def token_boxes(names: list[str]) -> list[list[float] | None]:
    """For each token of an answer the box that it belongs to, as y1, x1, y2, x2 from 0 to 1.

    Four <loc> in a row begin a box; what follows up to `;` or the next <loc> is its label.
    """
    boxes, i, current = [None] * len(names), 0, None
    while i < len(names):
        locations = [re.fullmatch(r"<loc(\d{4})>", name) for name in names[i:i + 4]]
        if len(locations) == 4 and all(locations):
            y1, x1, y2, x2 = (int(location[1]) / 1024 for location in locations)
            current = [min(y1, y2), min(x1, x2), max(y1, y2), max(x1, x2)]
            boxes[i:i + 4] = [current] * 4
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


def describe_focus(run: Run, weights: torch.Tensor) -> list[dict | None]:
    """For each answer token with a box: does the position that predicts it look into the box?

    Of the attention that goes to the picture, the share that falls into the box, against the
    share of the picture that the box is: above 1, the box is looked at more than the rest.
    """
    config = run.model.config.vision_config
    on_picture = weights[..., : config.num_patches]                   # [A, layers, H, N]
    focus = []
    for i, box in enumerate(token_boxes([run.name(token) for token in run.tokens])):
        covered = None if box is None else coverage(box, config.image_size // config.patch_size)
        if covered is None or covered.sum() == 0:
            focus.append(None)
            continue
        # The mean over heads is that of the weights, as it is drawn, and not of the shares.
        by_head = torch.cat([on_picture[i].mean(dim=1, keepdim=True), on_picture[i]], dim=1)
        inside = (by_head * covered).sum(dim=-1) / by_head.sum(dim=-1).clamp(min=1e-12)
        area = float(covered.mean())
        best_layer = int(inside[:, 0].argmax())
        best_head = divmod(int(inside[:, 1:].argmax()), inside.shape[1] - 1)
        focus.append({
            "box": box,
            "area": area,
            "inside": inside.tolist(),                                # [layers, mean and H]
            "bestLayer": best_layer,
            "bestHead": best_head,
        })  # fmt: skip
    return focus


def describe_decoder(run: Run) -> dict:
    """Part 5: for each answer token, where the decoder looked and what it thought of saying."""
    vision, text = run.model.config.vision_config, run.model.config.text_config
    weights = answer_attention(run)                                   # [A, layers, H, L]
    N, grid = vision.num_patches, vision.image_size // vision.patch_size
    cells, blocks = cells_of(grid), grid // cells_of(grid)
    on_picture = weights[..., :N].unflatten(-1, (cells, blocks, cells, blocks)).sum(dim=(-3, -1)).flatten(-2)

    lens = logit_lens(run)                                            # [A, layers + 1, V]
    logits = torch.stack([call.output[0, -1] for call in run.calls["language_model.lm_head"]])     # [A, V]

    def likeliest(probabilities: torch.Tensor, count: int) -> list[dict]:
        values, ids = probabilities.topk(count)
        pairs = zip(values.tolist(), ids.tolist(), strict=True)
        return [{"id": token, "text": run.name(token), "p": round(p, 5)} for p, token in pairs]

    return {
        "layers": text.num_hidden_layers,
        "heads": text.num_attention_heads,
        "picture": packed_shares(on_picture),                         # [A, layers, H, cells^2]
        "text": packed_shares(weights[..., N:]),                      # [A, layers, H, L - N]
        "next": [likeliest(probabilities, NEXT_TOKENS) for probabilities in logits.float().softmax(dim=-1)],
        "lens": [
            [likeliest(row, 1)[0] | {"own": round(float(row[token]), 5)} for row in rows]
            for token, rows in zip(run.tokens, lens, strict=True)
        ],
        "focus": describe_focus(run, weights),
    }


def source_of(thing, folder: Path) -> dict | None:
    """Where a class or function of this repository is written, as a link from a page in `folder`.

    Told from its code, which knows its file also where a mixed set was put together.
    """
    methods = [vars(thing)[name] for name in ("forward", "__call__", "update") if name in vars(thing)]
    method = methods[0] if methods else thing
    if not hasattr(method, "__code__"):
        return None
    file, line = Path(method.__code__.co_filename), method.__code__.co_firstlineno
    if file.parent != Path(__file__).parent:
        return None
    if isinstance(thing, type):
        head = re.search(rf"^class {thing.__name__}\b", text := file.read_text(encoding="utf-8"), re.M)
        line = text.count("\n", 0, head.start()) + 1 if head else line
    try:
        path = Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:                                                # on another drive
        path = file.as_posix()
    return {"text": f"{file.name}:{line}", "href": f"{quote(path, errors='replace')}#L{line}"}


def describe_modules(run: Run, folder: Path) -> list[dict]:
    """Part 7: the table of all modules that were called, in the order of their definition."""
    rows = []
    for name, module in run.model.named_modules():
        if name not in run.calls:                                     # a list of layers, for instance
            continue
        first, *later = run.calls[name]
        source = source_of(type(module), folder)
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
            "promptSeconds": first.seconds,
            "tokenSeconds": sum(call.seconds for call in later) / len(later) if later else None,
        })  # fmt: skip
    return rows


def describe(run: Run, picture: Image.Image, args: argparse.Namespace, folder: Path) -> dict:
    """All that the page is told."""
    whole = run.calls[""]
    return {
        "facts": {
            "model": clean(Path(args.model).resolve().name),
            "image": clean(Path(args.image[0]).name),
            "prompt": clean(args.prompt[0]),
            "answer": run.text,
            "set": str(args.set),
            "dtype": str(next(run.model.parameters()).dtype).removeprefix("torch."),
            "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
            "promptSeconds": whole[0].seconds,
            "seconds": sum(call.seconds for call in whole),
        },
        "picture": describe_picture(run, picture),
        "tokens": describe_tokens(run),
        "tower": describe_tower(run),
        "merge": describe_merge(run),
        "decoder": describe_decoder(run),
        "boxes": parse_boxes(run.text, *picture.size),
        "modules": describe_modules(run, folder),
    }


# ------------------------------------------------------------------------------------ the page


def clean(text: str) -> str:
    """Text as a file in UTF-8 can hold it: a file's name may have bytes that are no letters."""
    return text.encode(errors="replace").decode()


def embedded(value) -> str:
    """JSON that can stand inside <script>: nothing in it can end the element or the line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def build_page(run: Run, description: dict, folder: Path) -> str:
    """Fills the template: `{{title}}`, `{{data}}`, and for each `{{Name}}` of the code a link to it."""

    def fill(match: re.Match) -> str:
        name = match[1]
        if name == "title":
            return html.escape(f"{description['facts']['prompt']} · {description['facts']['model']}")
        if name == "data":
            return embedded(description)
        thing = next(getattr(module, name) for module in run.model_set.modules if hasattr(module, name))
        source = source_of(thing, folder)
        return (
            f'<a class="source" href="{html.escape(source["href"])}"><code>{name}</code>'
            f" <span>{html.escape(source['text'])}</span></a>"
        )

    # In one go, so that nothing that was filled in is read as a place to be filled.
    return re.sub(r"\{\{(\w+)\}\}", fill, TEMPLATE.read_text(encoding="utf-8"))


# --------------------------------------------------------------------------------- the program


def build_parser() -> Parser:
    parser = Parser(prog="explain.py", description="Writes a page that shows one answer being made.")
    add = parser.add_argument
    add("--model", metavar="DIR", default=str(inference.TINY_MODEL),
        help="checkpoint folder (default: the tiny one)")
    add("--image", metavar="FILE", nargs=1, help="the picture (default: the first of images/)")
    add("--prompt", metavar="TEXT", nargs=1, default=["detect cat"], help="default: detect cat")
    add("--out", metavar="PAGE.html", default="explain.html", help="the page (default: explain.html)")
    add("--png", metavar="DIR", help="writes the main pictures there as well, as PNG files")
    add("--set", choices=("0", "1", "mixed"), default="1",
        help="1: the reference files (default), 0: yours, mixed: yours where they are solved")
    add("--max-tokens", type=number(int, 1, 64), default=24, metavar="N",
        help="longest answer (default: 24)")
    add("--precision", choices=PRECISIONS, default="auto",
        help="of the weights (default: as stored)")
    parser.set_defaults(temperature=0.0, top_p=1.0, seed=0)           # greedy; fill_defaults asks for them
    return parser


def check_out(out: Path):
    """Finds before the model runs what would fail after it; only a page of ours is overwritten."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: the name must end in .html")
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out {out}: " + ("is a folder" if out.is_dir() else f"no folder {out.parent}"))
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise InputError(f"--out {out}: no permission to write there")
    if out.exists() and MADE_HERE.encode() not in out.read_bytes()[:500]:
        raise InputError(f"--out {out}: is there and was not made by explain.py, so it is not overwritten")


def run(args: argparse.Namespace):
    start = time.perf_counter()
    inference.fill_defaults(args)
    inference.check_prompts(args)
    out = Path(args.out)
    check_out(out)
    if args.png is not None:
        explain_pictures.check_folder(Path(args.png))
    picture = open_picture(args.image[0])
    model_set = inference.set_of(args)
    model, tokenizer, processor = inference.load(args, "cpu", model_set)
    batch = processor(args.prompt, [picture])

    log("Running the model")
    if sum(parameter.numel() for parameter in model.parameters()) < ONE_THREAD:
        with torch.inference_mode():
            model(**batch)                                            # the first run is slow: not measured
    seen = watch_answer(model, tokenizer, batch, args.max_tokens, model_set)
    log("Collecting what was seen")
    folder = out.resolve().parent
    description = describe(seen, picture, args, folder)
    page = build_page(seen, description, folder)
    out.write_text(page, encoding="utf-8")
    if args.png is not None:
        for path in explain_pictures.write_all(Path(args.png), description):
            log(f"Picture written: {path}")
    log(f"{time.perf_counter() - start:.1f} seconds, {len(page.encode()) / 1e6:.1f} MB")
    print(f"The page is {out.resolve()}\nOpen it with a browser: {out.resolve().as_uri()}")


def main(argv: list[str] | None = None):
    parser = build_parser()
    inference.run_program(run, parser.parse_args(argv), parser)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    main()
