"""Trains `paligemma-tiny`, the shipped checkpoint, from nothing, with the reference files.

    python -m tiny_model.train_tiny            train (resumes where it was interrupted)
    python -m tiny_model.train_tiny --smoke    the same in small: every step in two minutes, learns little

What to look at if you want to train a PaliGemma yourself:
  - a training row is  <image> * N <bos> prompt \\n answer <eos>.  Picture and prompt are the
    prefix (token type 0): they see each other in both directions. The answer is the suffix
    (type 1): it sees the prefix and its own past. Only the answer is learned (`prefix_lm_loss`);
  - several prompts share one pass of the vision tower, which is where most of the work is;
  - the tower is not trained by the answers alone. The real one was pretrained on pictures with
    texts; this one first learns to say of every patch what it shows and where that thing's box
    lies (stage 1). Without such a start the questions do not "click" for a long time. The decoder
    is helped likewise: half-way up it has to mark the patches of what the prompt asks about;
  - the matrices are trained by Muon, everything else by AdamW.

Letters in shapes: B pictures, Q prompts per picture, N patches (= image tokens), T tokens of
the sequence, A tokens of the longest answer, C width of the tower, D width of the decoder,
V vocabulary, S side of the picture in pixels.

Sources: "PaliGemma" (Beyer et al. 2024), section 3.2; "Muon" (Jordan et al. 2024).
"""

import argparse
import itertools
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from decoder_1 import (
    GemmaConfig,
    KVCache,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    prefix_lm_mask,
)
from text_image_token_processor_1 import resize
from tiny_model import scenes as tiny_scenes
from tiny_model.scenes import HELD_OUT_STYLES, THINGS, TRAINING_STYLES
from training_1 import IGNORE_INDEX, collate, training_row
from vision_transformer_1 import VisionConfig

PLAN = {
    "tower": {"batches": 2400, "scenes": 64, "rates": (2e-3, 0.0)},
    "answers": {"batches": 3600, "scenes": 48, "rates": (8e-4, 2e-3)},
    "look_every": 250,
    "look_scenes": 80,
    "final_scenes": 200,
}
SMOKE_PLAN = {
    "tower": {"batches": 12, "scenes": 8, "rates": (2e-3, 0.0)},
    "answers": {"batches": 12, "scenes": 6, "rates": (8e-4, 2e-3)},
    "look_every": 12,
    "look_scenes": 6,
    "final_scenes": 6,
}  # fmt: skip
PROMPTS_PER_PICTURE = 3
LOC_SPREAD = 3  # a <loc> is also nearly right this many bins to either side
GROUND = len(THINGS)  # the label of a patch that shows no thing


# -- The model: its sizes, its tokenizer, how it starts -------------------------------------------


def build_tokenizer() -> Tokenizer:
    """A small BPE in Gemma's manner: spaces become ▁, ids 0 to 3 are pad, eos, bos, unk."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])

    texts = ["caption en", "yes", "no", "0", "1", "2", "3", " ; ", " and ", ", "] * 20
    for word in THINGS:
        many, a = tiny_scenes.plural(word), tiny_scenes.article(word)
        texts += [f"detect {word}", f"segment {word}", f"answer en how many {many} are there?"]
        texts += [f"answer en is there {a} {word}?", f"answer en where is the {word}?"]
        texts += [f"{a} {word}", f"two {many}", f"three {many}", f" {a} {word}", f" two {many}"]
    texts += ["left", "right", "middle", "top left", "top right", "bottom left", "bottom right"] * 9
    printable = [chr(code) for code in range(33, 127)] + list("▁äöüßéèàçñ")
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=[*specials, "\n"],
            initial_alphabet=printable,
            show_progress=False,
        ),
    )
    # A newline is text, though it must stay a token of its own; so are places and segments.
    plain = ["\n", *(f"<loc{i:04d}>" for i in range(1024)), *(f"<seg{i:03d}>" for i in range(128))]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in specials])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    tokenizer.add_special_tokens([AddedToken("<image>", special=True, normalized=False)])
    return tokenizer


def build_config(tokenizer: Tokenizer) -> dict:
    """config.json in the hub's form: the same fields as google/paligemma-3b-pt-224."""
    vocab_size, width = tokenizer.get_vocab_size(), 128
    vision = {
        "hidden_size": 192, "image_size": 160, "intermediate_size": 768,
        "model_type": "siglip_vision_model", "num_attention_heads": 6, "num_hidden_layers": 5,
        "num_image_tokens": 100, "patch_size": 16, "projection_dim": width, "vision_use_head": False,
    }  # fmt: skip
    text = {
        "head_dim": 32, "hidden_size": width, "intermediate_size": 384, "model_type": "gemma",
        "num_attention_heads": 4, "num_hidden_layers": 4, "num_image_tokens": 100,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "torch_dtype": "bfloat16", "vocab_size": vocab_size,
    }  # fmt: skip
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "bos_token_id": tokenizer.token_to_id("<bos>"),
        "eos_token_id": tokenizer.token_to_id("<eos>"),
        "hidden_size": width,
        "ignore_index": -100,
        "image_token_index": tokenizer.token_to_id("<image>"),
        "model_type": "paligemma",
        "pad_token_id": tokenizer.token_to_id("<pad>"),
        "projection_dim": width,
        "text_config": text,
        "torch_dtype": "bfloat16",
        "vision_config": vision,
        "vocab_size": vocab_size,
    }


def build_model(config: dict) -> PaliGemmaForConditionalGeneration:
    """The reference model with these sizes, in float32, with PyTorch's own initial weights."""

    def fields(of: dict, cls) -> dict:
        return {name: of[name] for name in cls.__dataclass_fields__ if name in of}

    vision = VisionConfig(**fields(config["vision_config"], VisionConfig))
    text = GemmaConfig(**fields(config["text_config"], GemmaConfig))
    joined = {**config, "vision_config": vision, "text_config": text}
    return PaliGemmaForConditionalGeneration(PaliGemmaConfig(**fields(joined, PaliGemmaConfig)))


@torch.no_grad()
def initialise(model: PaliGemmaForConditionalGeneration, tokenizer: Tokenizer):
    """Gives the weights a start that knows about places, so that less has to be learned."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        # What writes into the residual stream starts small, so that all layers can be heard.
        if name.endswith(("out_proj", "fc2", "o_proj", "down_proj")):
            module.weight.mul_(0.3)

    # Sine and cosine of row and column: neighbours start out alike.
    positions = model.vision_tower.vision_model.embeddings.position_embedding.weight
    side, C = math.isqrt(len(positions)), positions.shape[1]
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    frequencies = math.pi / 2 ** torch.linspace(0, 4, C // 4)
    angles = [(axis.flatten()[:, None] + 0.5) * frequencies for axis in (y, x)]
    positions.copy_(torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1))
    # Queries equal to keys: a patch first looks at what is like it, and so at its neighbours.
    for layer in model.vision_tower.vision_model.encoder.layers:
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)

    # Rows of length one; <loc> embeddings that vary smoothly with the coordinate.
    table = model.language_model.model.embed_tokens.weight
    D = table.shape[1]
    table.copy_(torch.randn_like(table) / D**0.5)
    first = tokenizer.token_to_id("<loc0000>")
    cycles = 32 ** torch.linspace(-0.2, 1, D // 2)
    angles = 2 * math.pi * torch.arange(1024)[:, None] / 1024 * cycles
    table[first : first + 1024] = torch.cat([angles.sin(), angles.cos()], dim=1) / (D / 2) ** 0.5


# -- The data: scenes are drawn by a worker while the model computes ------------------------------


class Scenes(IterableDataset):
    """An endless stream of batches, each a dict of tensors.

    pixels uint8 [B, S, S, 3]; labels int64 [B, N] and boxes float32 [B, N, 4] of the patches;
    with prompts, for B * Q rows padded on the left: input_ids, attention_mask, token_type_ids
    (1 for the answer) int64 [B * Q, T], answer_length int64 [], the longest answer's tokens, and
    asked int64 [B * Q], the label of the thing that the prompt names, -1 if none.
    """

    def __init__(self, drawings, tokenizer, config: dict, stage: str, plan: dict, done: int):
        self.drawings, self.tokenizer, self.config = drawings, tokenizer, config
        self.stage, self.plan, self.done = stage, plan, done

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        # A resumed run draws other scenes than those that it has seen.
        rng = np.random.default_rng(1000 + self.done)
        vision = self.config["vision_config"]
        size, grid = vision["image_size"], vision["image_size"] // vision["patch_size"]
        for number in itertools.count(self.done):
            scenes = []
            for _ in range(self.plan["scenes"]):
                if self.stage == "tower":
                    count = int(rng.choice((1, 2, 3, 4, 5, 6, 6)))  # more to see, more to learn
                else:
                    is_easy = number < self.plan["batches"] // 20 and rng.random() < 0.8
                    count = 1 if is_easy else int(rng.choice((1, 2, 2, 3, 3)))
                scenes.append(draw_scene_of_any_resolution(rng, self.drawings, size, count))
            labels, boxes = zip(*(tiny_scenes.patch_labels(scene, grid) for scene in scenes), strict=True)
            batch = {
                "pixels": torch.from_numpy(np.stack([scene.pixels for scene in scenes])),
                "labels": torch.from_numpy(np.stack(labels)),
                "boxes": torch.from_numpy(np.stack(boxes)),
            }
            if self.stage == "answers":
                asked = [question for scene in scenes for question in questions(rng, scene)]
                batch |= training_rows(self.tokenizer, asked, vision["num_image_tokens"])
                batch["asked"] = torch.tensor([thing_asked_for(prompt) for prompt, _ in asked])
            yield batch


def draw_scene_of_any_resolution(rng: np.random.Generator, drawings, size: int, count: int | None):
    """Most scenes are drawn at the model's size, some at twice that and shrunk, as photographs are.

    Two in three are of wilder colors and shapes than will ever be asked about, for the model
    soon knows the drawings by heart, and is to read those of others.
    """
    jitter = 1.0 if rng.random() < 0.33 else rng.uniform(1, 3)
    if rng.random() > 0.12:
        return tiny_scenes.draw_scene(rng, drawings, size, count, jitter)
    scene = tiny_scenes.draw_scene(rng, drawings, 2 * size, count, jitter)
    scene.pixels = resize(Image.fromarray(scene.pixels), size)
    scene.owner = scene.owner[::2, ::2]
    return scene


def questions(rng: np.random.Generator, scene: tiny_scenes.Scene) -> list[tuple[str, str]]:
    """Prompts about a scene with their answers.

    Things that lie close to a border between thirds are few, and yet only they teach how exactly
    one has to look for "where is the cat?". So these are asked about more often than by chance.
    """
    asked = [tiny_scenes.ask(rng, scene) for _ in range(PROMPTS_PER_PICTURE)]
    close = [
        thing for thing in scene.things
        if len(tiny_scenes.named(scene, thing.name)) == 1
        and min(abs(middle - border) for middle in thing.centre for border in (1 / 3, 2 / 3)) < 0.03
    ]  # fmt: skip
    if close and rng.random() < 0.6:
        asked[0] = tiny_scenes.ask(rng, replace(scene, things=close), "where")
    return asked


def training_rows(tokenizer: Tokenizer, asked: list[tuple[str, str]], num_image_tokens: int) -> dict:
    """Prompts with their answers, as one sequence each, padded on the left."""
    rows = [training_row(tokenizer, prompt, answer, num_image_tokens) for prompt, answer in asked]
    batch = collate(rows, tokenizer.token_to_id("<pad>"))
    # Which tokens are learned is told from their types; several rows share the pixels of a picture.
    num_learned = batch.pop("labels").ne(IGNORE_INDEX).sum(dim=1)
    return batch | {"answer_length": num_learned.max()}


def thing_asked_for(prompt: str) -> int:
    """The label of the thing that a prompt names, -1 for `caption en`."""
    words = prompt.rstrip("?").split()
    return next((i for i, t in enumerate(THINGS) if t in words or tiny_scenes.plural(t) in words), -1)


def to_pixel_values(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [B, S, S, 3] -> float32 [B, 3, S, S] from -1 to 1, as the processor prepares them."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


# -- The losses -----------------------------------------------------------------------------------


class PatchHead(nn.Linear):
    """Thrown away after training: from a patch's feature, what it shows and where that thing is.

    Where: the thing's box, and in which thirds of the height and of the width the box has its
    centre. An answer of two words, `top left`, turns on a pixel more or less at a border of thirds.
    """

    def __init__(self, width: int):
        super().__init__(width, len(THINGS) + 1 + 4 + 6)

    def loss(self, features: torch.Tensor, labels: torch.Tensor, boxes: torch.Tensor):
        """[B, N, C], [B, N], [B, N, 4] -> the loss and the share of thing patches named correctly."""
        classes, places, thirds = self(features).float().split([len(THINGS) + 1, 4, 6], dim=-1)
        is_thing = labels != GROUND
        boxes = boxes[is_thing]  # [patches, 4]
        true_thirds = (3 * (boxes[:, :2] + boxes[:, 2:]) / 2).long()  # [patches, 2]
        loss = F.cross_entropy(classes.flatten(0, 1), labels.flatten(), label_smoothing=0.05)
        loss = loss + 4 * F.l1_loss(places[is_thing], boxes)
        loss = loss + F.cross_entropy(thirds[is_thing].view(-1, 3), true_thirds.flatten())
        accuracy = (classes.argmax(-1) == labels)[is_thing].float().mean()
        return loss, accuracy


def naming_loss(model, features: torch.Tensor, labels: torch.Tensor, words: list[int]) -> torch.Tensor:
    """Projected patches speak the decoder's language: a cat's are most like the embedding of ▁cat.

    The real tower was pretrained to bring pictures and their texts together (SigLIP). Without it,
    "detect cat" long finds what there is, but not which of several things is the cat.

    features [B, N, C], labels int64 [B, N], words: the token of each thing.
    """
    is_thing = labels != GROUND
    named = model.multi_modal_projector(features[is_thing])  # [patches, D]
    embeddings = model.language_model.model.embed_tokens.weight[words]  # [things, D]
    return F.cross_entropy((named @ embeddings.T).float(), labels[is_thing], label_smoothing=0.05)


class MarkHead(nn.Linear):
    """Thrown away after training: whether a patch shows what the prompt asks about.

    It looks at the decoder half-way up. To answer "where is the cat?" the decoder must first find
    the cat's patches, which the answer, one word, teaches slowly, and a mark on each patch fast.
    """

    def __init__(self, language_model: nn.Module):
        super().__init__(language_model.model.embed_tokens.embedding_dim, 1)
        layers = language_model.model.layers
        layers[len(layers) // 2 - 1].register_forward_hook(self.keep)

    def keep(self, layer: nn.Module, inputs: tuple, output: torch.Tensor):
        self.states = output  # [B * Q, T, D]

    def loss(self, batch: dict, is_image: torch.Tensor) -> torch.Tensor:
        """The cross entropy of the marks per asked patch; `is_image` bool [B * Q, T]: the patches."""
        states = self.states[is_image]  # [B * Q * N, D]
        labels = batch["labels"].repeat_interleave(PROMPTS_PER_PICTURE, dim=0)
        asked = batch["asked"][:, None]  # [B * Q, 1]
        marks = self(states).float().view(labels.shape)  # [B * Q, N]
        is_asked = (labels == asked).float()
        loss = F.binary_cross_entropy_with_logits(marks, is_asked, reduction="none")
        return (loss * (asked >= 0)).sum() / is_asked.sum()


def prefix_lm_loss(
    model: PaliGemmaForConditionalGeneration, features: torch.Tensor, batch: dict, first_loc: int
) -> torch.Tensor:
    """The cross entropy of each answer token, given picture, prompt and the answer before it.

    features [B, N, C] of the tower serve Q prompts each. The reference's own loss would do as
    well; here a <loc> has soft targets, for a box that is off by a bin is not wrong, and words
    weigh twice as much, being few beside the four numbers of each box.
    """
    input_ids, attention_mask = batch["input_ids"], batch["attention_mask"]
    token_type_ids, A = batch["token_type_ids"], int(batch["answer_length"])
    image_features = model.multi_modal_projector(features).repeat_interleave(PROMPTS_PER_PICTURE, dim=0)
    inputs_embeds = model.language_model.model.embed_tokens(input_ids)
    inputs_embeds = model._merge_input_ids_with_image_features(image_features, inputs_embeds, input_ids)
    logits = model.language_model(
        inputs_embeds,
        prefix_lm_mask(attention_mask, token_type_ids),
        attention_mask.cumsum(dim=1),
        KVCache(),
        logits_to_keep=A + 1,  # padded on the left, all answers end at the last position
    )
    # The logits at a position are about the token after it.
    is_answer = token_type_ids[:, -A:] == 1  # [B * Q, A]
    log_probs = logits[:, :-1][is_answer].log_softmax(dim=-1)  # [answer tokens, V]
    targets = input_ids[:, -A:][is_answer]  # [answer tokens]
    is_loc = (targets >= first_loc) & (targets < first_loc + 1024)

    word_loss = -log_probs[~is_loc].gather(1, targets[~is_loc, None]).sum()
    bins = torch.arange(1024)
    nearness = torch.exp(-(((bins - (targets[is_loc, None] - first_loc)) / LOC_SPREAD) ** 2) / 2)
    nearness = nearness / nearness.sum(dim=1, keepdim=True)  # [locs, 1024]
    loc_loss = -(nearness * log_probs[is_loc, first_loc : first_loc + 1024]).sum()
    return (2 * word_loss + loc_loss) / len(targets)


# -- Training -------------------------------------------------------------------------------------


class Optimizer:
    """Muon for the matrices inside the blocks, AdamW for all else, both on one cosine schedule."""

    def __init__(self, modules: list[tuple[nn.Module, float]], total: int):
        """`modules`: each with its learning rate."""
        matrices, others = [], []
        for module, rate in modules:
            for name, parameter in module.named_parameters():
                is_matrix = "layers." in name and parameter.ndim == 2
                (matrices if is_matrix else others).append({"params": [parameter], "lr": rate})
        self.optimizers = [
            torch.optim.Muon(matrices, weight_decay=0.03, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01),
        ]
        self.parameters = [p for group in matrices + others for p in group["params"]]
        # Warmed up over 3 % of the steps, then down to nothing along a cosine.
        warmup = max(1, total * 3 // 100)
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                optimizer,
                lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * min(1, step / total))),
            )
            for optimizer in self.optimizers
        ]

    def step(self, loss: torch.Tensor):
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    def state_dict(self) -> list:
        return [part.state_dict() for part in (*self.optimizers, *self.schedules)]

    def load_state_dict(self, state: list):
        for part, values in zip((*self.optimizers, *self.schedules), state, strict=True):
            part.load_state_dict(values)


@torch.no_grad()
def answer(
    model: PaliGemmaForConditionalGeneration, tokenizer: Tokenizer, pixels: np.ndarray, prompts: list[str]
) -> list[str]:
    """The most probable answer to one prompt for each picture, uint8 [B, S, S, 3]."""
    asked = [(prompt, "") for prompt in prompts]
    rows = training_rows(tokenizer, asked, model.config.vision_config.num_patches)
    # The rows end in the <eos> of an empty answer, which is for the model to say.
    input_ids, attention_mask = rows["input_ids"][:, :-1], rows["attention_mask"][:, :-1]
    output = model(input_ids, to_pixel_values(torch.from_numpy(pixels)), attention_mask, logits_to_keep=1)
    eos, tokens = tokenizer.token_to_id("<eos>"), []
    for _ in range(24):  # three boxes and their words are 20
        tokens.append(output["logits"][:, -1].argmax(dim=-1))
        if all((row == eos).any() for row in torch.stack(tokens, dim=1)):
            break
        attention_mask = F.pad(attention_mask, (0, 1), value=1)
        output = model(tokens[-1][:, None], None, attention_mask, output["kv_cache"])
    answers = []
    for row in torch.stack(tokens, dim=1).tolist():
        row = row[: row.index(eos)] if eos in row else row
        answers.append(tokenizer.decode(row, skip_special_tokens=False))
    return answers


def boxes_of(answer: str, thing: str) -> list[tuple[float, ...]] | None:
    """The boxes (y1, x1, y2, x2) in 0..1 of a detect answer; None if it is not of that form."""
    boxes = []
    for part in answer.split(" ; ") if answer else []:
        found = re.fullmatch(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})> (.+)", part)
        if not found or found[5] != thing:
            return None
        boxes.append(tuple(int(number) / 1024 for number in found.groups()[:4]))
    return boxes


def intersection_over_union(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = sum(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in (a, b))
    return height * width / (area - height * width + 1e-9)


def evaluate(
    model, tokenizer: Tokenizer, drawings, jitter: float, num_scenes: int, seed: int
) -> dict[str, float]:
    """Asks every kind of question about new scenes -> the share of right answers to each.

    `iou` is the mean over the boxes of present things of the best intersection over union with
    a box of the answer, 0 for a box that was missed.
    """
    rng = np.random.default_rng(seed)
    size = model.config.vision_config.image_size
    right: dict[str, list[float]] = {}

    def note(kind: str, value: float):
        right.setdefault(kind, []).append(float(value))

    for start in range(0, num_scenes, 40):
        scenes = [
            tiny_scenes.draw_scene(rng, drawings, size, jitter=jitter)
            for _ in range(min(40, num_scenes - start))
        ]
        pixels = np.stack([scene.pixels for scene in scenes])
        for kind in ("caption", "is there", "count", "where"):
            asked = [tiny_scenes.ask(rng, scene, kind) for scene in scenes]
            answers = answer(model, tokenizer, pixels, [prompt for prompt, _ in asked])
            for scene, (prompt, truth), given in zip(scenes, asked, answers, strict=True):
                # Where no thing is single, "where" cannot be asked, and "is there" is instead.
                note("is there" if " is there " in prompt else kind, given == truth)
                if kind == "caption":
                    note(f"caption {len(scene.things)}", given == truth)

        present = [str(rng.choice([thing.name for thing in scene.things])) for scene in scenes]
        answers = answer(model, tokenizer, pixels, [f"detect {name}" for name in present])
        for scene, name, given in zip(scenes, present, answers, strict=True):
            truth, found = tiny_scenes.named(scene, name), boxes_of(given, name)
            note("detect", found is not None and len(found) == len(truth))
            for thing in truth:
                note("iou", max((intersection_over_union(thing.box, box) for box in found or []), default=0))
        absent = [
            str(rng.choice([word for word in THINGS if not tiny_scenes.named(scene, word)]))
            for scene in scenes
        ]
        for given in answer(model, tokenizer, pixels, [f"detect {name}" for name in absent]):
            note("absent", given == "")
    return {kind: sum(values) / len(values) for kind, values in right.items()}


@torch.no_grad()
def patch_accuracy(model, head: PatchHead, drawings, num_scenes: int) -> float:
    """The share of thing patches that the tower names correctly, on scenes that are always the same."""
    rng = np.random.default_rng(1)
    size, patch = model.config.vision_config.image_size, model.config.vision_config.patch_size
    scenes = [tiny_scenes.draw_scene(rng, drawings, size) for _ in range(num_scenes)]
    pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes]))
    labels = torch.from_numpy(np.stack([tiny_scenes.patch_labels(s, size // patch)[0] for s in scenes]))
    found = head(model.vision_tower(to_pixel_values(pixels)))[..., : GROUND + 1].argmax(-1)
    return (found == labels)[labels != GROUND].float().mean().item()


def bfloat16_is_faster() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than float32 ones (a probe)."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(3200, 192).to(dtype)
        b = torch.randn(192, 768).to(dtype)
        a @ b
        start = time.perf_counter()
        for _ in range(10):
            a @ b
        seconds[dtype] = time.perf_counter() - start
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]


def train(
    stage: str, model, heads: nn.ModuleDict, tokenizer, config, drawings, plan: dict, state_file: Path
) -> float:
    """One stage: "tower" (patches only) or "answers" (everything), from where state_file left off.

    Returns the seconds of training so far, those of earlier runs and stages included.
    """
    total, (tower_rate, rate) = plan[stage]["batches"], plan[stage]["rates"]
    modules = [(model.vision_tower, tower_rate), (heads["patches"], tower_rate)]
    if stage == "answers":
        decoder = (model.multi_modal_projector, model.language_model, heads["marks"])
        modules += [(module, rate) for module in decoder]
    optimizer = Optimizer(modules, total)
    done, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        seconds = state["seconds"]
        if state["stage"] == stage:
            optimizer.load_state_dict(state["optimizer"])
            done = state["done"]
        elif stage == "tower":
            return seconds  # that was over long ago
    start = saved = time.time()

    def seconds_so_far() -> float:
        return seconds + time.time() - start

    def save():
        parts = {"model": model, "heads": heads, "optimizer": optimizer}
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"stage": stage, "done": done, "seconds": seconds_so_far()}
        # Written aside and renamed, so that an interruption leaves the old file or the new one.
        torch.save(state, state_file.with_suffix(".part"))
        os.replace(state_file.with_suffix(".part"), state_file)

    dataset = Scenes(drawings["training"], tokenizer, config, stage, plan[stage], done)
    loader = iter(DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=4))
    autocast = torch.autocast("cpu", torch.bfloat16) if bfloat16_is_faster() else nullcontext()
    first_loc = tokenizer.token_to_id("<loc0000>")
    words = [tokenizer.token_to_id(f"▁{thing}") for thing in THINGS]
    bar = tqdm(total=total, initial=done, desc=stage, unit="batch", dynamic_ncols=True)
    try:
        while done < total:
            batch = next(loader)
            with autocast:
                features = model.vision_tower(to_pixel_values(batch["pixels"]))
                loss, accuracy = heads["patches"].loss(features, batch["labels"], batch["boxes"])
                if stage == "answers":
                    # Patches matter less and less; what the answers need takes over.
                    patches = loss * (1 - 0.8 * done / total)
                    loss = prefix_lm_loss(model, features, batch, first_loc) + patches
                    loss = loss + 0.5 * naming_loss(model, features, batch["labels"], words)
                    is_image = batch["input_ids"] == config["image_token_index"]
                    loss = loss + 0.3 * heads["marks"].loss(batch, is_image)
            optimizer.step(loss)
            done += 1
            bar.update()
            bar.set_postfix_str(f"loss {loss.item():.3f} patches {accuracy:.2f}", refresh=False)
            if done % plan["look_every"] == 0 or done == total:
                seen = patch_accuracy(model, heads["patches"], drawings["held out"], plan["look_scenes"])
                unseen = f"patches {seen:.3f}"
                if stage == "answers":
                    looked = evaluate(model, tokenizer, drawings["held out"], 0.0, plan["look_scenes"], 1)
                    unseen += f" caption {looked['caption']:.2f} detect {looked['detect']:.2f}"
                tqdm.write(
                    f"{stage} {done}/{total}, {seconds_so_far() / 60:.0f} min: "
                    f"loss {loss.item():.3f}, drawings never seen: {unseen}"
                )
            if time.time() - saved > 120:
                save()
                saved = time.time()
    finally:  # also when interrupted
        bar.close()
        save()
    return seconds_so_far()


# -- The result -----------------------------------------------------------------------------------

COLUMNS = {  # of the accuracy table: a title, the drawings, with jitter or without, the seed
    "training sets": ("training", 1.0, 2),
    "training sets, true colors": ("training", 0.0, 3),
    "Twemoji": ("held out", 1.0, 4),
    "Twemoji, true colors": ("held out", 0.0, 5),
}
ROWS = {
    "`caption en`, exactly right": "caption",
    "… of one thing": "caption 1",
    "… of two": "caption 2",
    "… of three": "caption 3",
    "`answer en is there …?`": "is there",
    "`answer en how many …?`": "count",
    "`answer en where is …?`": "where",
    "`detect …`: right labels and number of boxes": "detect",
    "`detect …`: mean IoU of the boxes (a miss counts 0)": "iou",
    "`detect …` of what is not there: no box": "absent",
}


def accuracy_table(model, tokenizer: Tokenizer, drawings, num_scenes: int) -> str:
    """Asks about new scenes of each kind -> a Markdown table."""
    return markdown_table({
        title: evaluate(model, tokenizer, drawings[which], jitter, num_scenes, seed)
        for title, (which, jitter, seed) in tqdm(COLUMNS.items(), desc="accuracy", unit="column")
    })  # fmt: skip


def markdown_table(columns: dict[str, dict[str, float]], digits: int = 2) -> str:
    """What `evaluate` found, by the title of its column."""
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for title, kind in ROWS.items():
        cells = [f"{found[kind]:.{digits}f}" if kind in found else "" for found in columns.values()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def model_card(model, table: str, minutes: float, plan: dict) -> str:
    """README.md of the checkpoint: what it is, what it can do, and how often it is wrong."""
    sets = json.loads(tiny_scenes.DRAWINGS_FILE.read_text(encoding="utf-8"))
    credits = "\n".join(
        f"| [{name}]({entry['url']}) | {entry['author']} | {entry['licence']} | `{entry['package']}` "
        f"{entry['version']} | {'no' if name in HELD_OUT_STYLES else 'yes'} |"
        for name, entry in sets.items()
    )
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    scenes = {stage: plan[stage]["batches"] * plan[stage]["scenes"] for stage in ("tower", "answers")}
    return f"""# paligemma-tiny

A PaliGemma of {millions:.1f} million parameters in the format of `google/paligemma-3b-pt-224`: the same
files, the same tensor names, the same code path. It exists so that a clone of this repository can answer
about a picture in seconds, and so that every exercise can be seen at work.

**It knows drawings of 42 things** ({", ".join(THINGS)}), one to three of them on a picture. **It knows no
photographs**, no other things, no people, no text, and no other language than these English forms:

| prompt | answer |
|---|---|
| `caption en` | `a cat`, `two apples and a car`, from left to right |
| `detect cat` | `<locY1><locX1><locY2><locX2> cat`, several joined by ` ; `; nothing if there is none |
| `answer en how many cats are there?` | `0` to `3` |
| `answer en is there a cat?` | `yes` or `no` |
| `answer en where is the cat?` (of a single thing) | `left`, `top right`, `middle`, … |

Asked about anything else it answers all the same, and wrongly. `<seg>` tokens are in its vocabulary, but it
was not trained to use them.

## How often it is right

The share of right answers about {plan["final_scenes"]} new scenes in each column. The Twemoji set was never
trained on, so its columns tell how well the model reads drawings by another hand. "True colors": without
the shifts of color, the grain and the blur that training has.

{table}

It is weakest on several things drawn by other hands: then it calls one of them by another's name.

## How it was made

`python -m tiny_model.train_tiny` (seed 0): {scenes["tower"]:,} scenes for the tower alone, then
{scenes["answers"]:,} scenes with {PROMPTS_PER_PICTURE} questions each for the whole; {minutes:.0f} minutes
on 2 cores. The weights are stored in bfloat16, and the table was made with them as stored.

## Masks

`mask_decoder.safetensors` is the VQ-VAE of `mask_decoder_1.py` (1.06 million parameters, float16, 2.1 MB): it
turns a mask into 16 `<seg>` words and back. `python -m tiny_model.train_masks` made it from nothing (seed 0,
26 minutes on one core) from the outlines of the drawings of the training sets. Mean IoU of the true masks of
all things in 400 new scenes with what comes back, which is the most that a model writing them can reach:

| | training sets | Twemoji |
|---|---|---|
| encoded and decoded again | 0.909 | 0.931 |
| 10 by 11 squares (110 bits; 16 words have 112) | 0.849 | 0.879 |
| the whole box | 0.582 | 0.608 |

## The drawings

The scenes are made of drawings from these sets (in `tiny_model/drawings.json`, unchanged). The
checkpoint holds none of them.

| set | author | license | npm package | trained on |
|---|---|---|---|---|
{credits}

The weights are under the license of this repository.
"""


def write_checkpoint(folder: Path, model, tokenizer: Tokenizer, config: dict, card: str):
    """The hub's format: config.json, tokenizer.json, model.safetensors (lm_head is tied, so absent)."""
    folder.mkdir(exist_ok=True)
    tensors = {name: tensor.bfloat16() for name, tensor in model.named_parameters()}  # tied ones once
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text(card, encoding="utf-8")


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(
        description="Trains paligemma-tiny from nothing; goes on where it was interrupted."
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the results (default: training or training-smoke)"
    )
    parser.add_argument("--smoke", action="store_true", help="every step in small, in two minutes")
    args = parser.parse_args(argv)
    plan = SMOKE_PLAN if args.smoke else PLAN
    out = args.out or Path("training-smoke" if args.smoke else "training")
    state_file, folder = out / "state.pt", out / "paligemma-tiny"
    if folder.exists():
        parser.error(f"{folder} is there already: move it away, or choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {out}: {error.strerror}")

    torch.manual_seed(0)
    drawings = {
        "training": tiny_scenes.load_drawings(TRAINING_STYLES[:1] if args.smoke else TRAINING_STYLES),
        "held out": tiny_scenes.load_drawings(HELD_OUT_STYLES),
    }
    tokenizer = build_tokenizer()
    config = build_config(tokenizer)
    model = build_model(config)
    initialise(model, tokenizer)
    patches = PatchHead(config["vision_config"]["hidden_size"])
    heads = nn.ModuleDict({"patches": patches, "marks": MarkHead(model.language_model)})
    for stage in ("tower", "answers"):
        seconds = train(stage, model, heads, tokenizer, config, drawings, plan, state_file)
    # What is measured is what is stored.
    model.load_state_dict({name: tensor.bfloat16().float() for name, tensor in model.state_dict().items()})
    table = accuracy_table(model, tokenizer, drawings, plan["final_scenes"])
    write_checkpoint(folder, model, tokenizer, config, model_card(model, table, seconds / 60, plan))
    print(f"{table}\n\nThe checkpoint is in {folder}. Try it:\n  python inference.py --model {folder}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)
