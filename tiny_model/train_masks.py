"""Trains the mask codec of `paligemma-tiny`: the VQ-VAE that turns a shape into 16 words and back.

    python -m tiny_model.train_masks            train (resumes where it was interrupted), then measure
    python -m tiny_model.train_masks --measure paligemma-tiny/mask_decoder.safetensors

It is the network of mask_decoder_1, three quarters as wide and with codewords of 64 numbers instead
of 512, so that it fits into 3 MB. What to look at if you want to train a VQ-VAE yourself:
  - argmin has no gradient. The decoder's gradient is handed to the encoder as if there had been
    no codebook in between (straight through: `features + (codewords - features).detach()`);
  - so that this is nearly true, the encoder is drawn to the codewords (commitment), and each codeword
    follows the mean of the features that chose it (a moving average; no gradient at all);
  - a word that nobody chooses never moves again. It is put on a feature of the current batch,
    where there is something to say (restart);
  - the first steps are without a codebook. It then begins as 128 means of real features (k-means),
    and no longer as noise that the encoder would have to learn to hit.

The shapes are the outlines of the drawings of tiny_model.scenes, mirrored, turned, stretched, some
with a piece missing, and one in five is a blob that is no drawing at all, so that drawings by other
hands find words too.

Letters in shapes: B batch, E size of a codeword, as in mask_decoder_1.
Sources: "Neural Discrete Representation Learning" (van den Oord et al. 2017), section 3.2 and
appendix A.1; "Jukebox" (Dhariwal et al. 2020), section 3, for restarts.
"""

import argparse
import hashlib
import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save

from load_weights import MASK_FILES, CheckpointError, load_mask_decoder
from mask_decoder_1 import (
    MASK_SIDE,
    MaskConfig,
    MaskVQVAE,
    mask_from_tokens,
    resize_shapes,
    tokens_from_mask,
)
from program.bar import bar
from program.command_line import InputError, Parser, run_program, write
from program.files import replace_file
from program.masks import mask_iou
from tiny_model import scenes as tiny_scenes
from tiny_model.quick import bfloat16_is_faster
from tiny_model.scenes import HELD_OUT_STYLES, TRAINING_STYLES
from tiny_model.state import read_state, write_state

CONFIG = MaskConfig(embedding_dim=64, hidden_dim=12)
STEPS, BATCH, RATE = 5000, 64, 2e-3
CONTINUOUS_STEPS = 250  # before there is a codebook
COMMITMENT = 0.25  # weight of |feature - its codeword|^2 in the loss
DECAY = 0.99  # of the moving averages that codewords follow
DEAD = 0.02  # a word chosen less often than this share of the mean starts again
STATE_EVERY = 60  # seconds
SCENES = 400  # that the codec is measured on


# -- Shapes ---------------------------------------------------------------------------------------


def random_blob(rng: np.random.Generator) -> np.ndarray:
    """bool [h, w]: where smooth noise is high, cropped; a shape that is no drawing."""
    cells = int(rng.integers(3, 9))
    noise = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    noise = np.asarray(noise.resize((96, 96), Image.Resampling.BICUBIC))
    inside = noise > np.quantile(noise, rng.uniform(0.3, 0.8))
    ys, xs = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return inside[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


def random_shape(rng: np.random.Generator, drawings: dict) -> np.ndarray:
    """float32 [64, 64], 0 outside to 1 inside: an outline as a scene might show it, or a blob."""
    if rng.random() < 0.2:
        inside = random_blob(rng)
    else:
        styles = list(drawings[list(drawings)[rng.integers(len(drawings))]].values())
        style = styles[rng.integers(len(styles))]
        drawing = style[rng.integers(len(style))]
        cutout = tiny_scenes.turn(rng, drawing, 160 * rng.uniform(0.2, 0.75), wild=0.5)
        if rng.random() < 0.15:
            cutout = tiny_scenes.cut_piece(rng, cutout)
        inside = cutout.inside
    # Pillow's bilinear filter smooths while it shrinks, as resize_shapes does.
    image = Image.fromarray(inside.astype(np.float32))
    return np.asarray(image.resize((MASK_SIDE, MASK_SIDE), Image.Resampling.BILINEAR))


def random_shapes(drawings: dict, step: int) -> torch.Tensor:
    """float32 [B, 64, 64], the same for the same step: a resumed run sees what it would have seen."""
    rng = np.random.default_rng((0, step))
    shapes = torch.from_numpy(np.stack([random_shape(rng, drawings) for _ in range(BATCH)]))
    # Upside down, half of the time: more shapes from the same drawings.
    return torch.where(torch.from_numpy(rng.random(BATCH) < 0.5)[:, None, None], shapes.flip(1), shapes)


# -- Training -------------------------------------------------------------------------------------


class Codebook:
    """Moves the codewords of a VectorQuantizer: moving means of the features that chose them."""

    def __init__(self, quantizer):
        self.quantizer = quantizer
        self.counts = torch.ones(len(quantizer._embedding))  # how often chosen, on average
        self.sums = quantizer._embedding.detach().clone()  # of the features that chose it

    def state_dict(self) -> dict:
        return {"counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: dict):
        self.counts, self.sums = state["counts"], state["sums"]

    @torch.no_grad()
    def start(self, features: torch.Tensor, rng: np.random.Generator):
        """k-means: codewords that stand among the features [16 B, E]."""
        words = self.quantizer._embedding
        words.copy_(features[rng.choice(len(features), len(words), replace=False)])
        for _ in range(10):
            self.counts.zero_()
            self.update(features, rng, decay=0.0)

    @torch.no_grad()
    def update(self, features: torch.Tensor, rng: np.random.Generator, decay: float = DECAY):
        """One step of the averages over features [16 B, E], and a new place for words nobody chose."""
        words = self.quantizer._embedding
        chosen = F.one_hot(torch.cdist(features, words).argmin(dim=1), len(words)).float()
        self.counts.mul_(decay).add_(chosen.sum(dim=0), alpha=1 - decay)
        self.sums.mul_(decay).add_(chosen.T @ features, alpha=1 - decay)
        dead = self.counts < DEAD * self.counts.mean()
        places = features[rng.choice(len(features), int(dead.sum()), replace=False)]
        # As if it had been chosen as often as the mean word, so that it has time to be found.
        self.counts[dead] = self.counts.mean()
        self.sums[dead] = places * self.counts[dead][:, None]
        words.copy_(self.sums / self.counts[:, None])


def shape_loss(drawn: torch.Tensor, shapes: torch.Tensor) -> torch.Tensor:
    """Squared error, and 1 - IoU with a soft border: what is small weighs as much as what is large.

    Both [B, 64, 64]; drawn from about -1 to 1, shapes from 0 to 1.
    """
    squared_error = F.mse_loss(drawn, 2 * shapes - 1)
    inside = (4 * drawn).sigmoid()
    common, both = (inside * shapes).sum(dim=(1, 2)), (inside + shapes).sum(dim=(1, 2))
    return squared_error + (1 - common / (both - common)).mean()


def digest_of(drawings: dict) -> str:
    """Of the outlines that the codec is trained on."""
    digest = hashlib.sha256()
    for thing, styles in drawings.items():
        for style, ones in styles.items():
            digest.update(f"{thing} {style} {len(ones)} ".encode())
            for drawing in ones:
                digest.update(drawing.levels[-1].tobytes())
    return digest.hexdigest()


def train(vqvae: MaskVQVAE, drawings: dict, state_file: Path) -> float:
    """Trains from where state_file left off; returns the seconds of training, earlier runs included.

    Raises InputError for a state that cannot be gone on with.
    """
    vqvae.to(memory_format=torch.channels_last)
    parameters = [*vqvae.encoder.parameters(), *vqvae.decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    codebook = Codebook(vqvae._vq_vae)
    done, seconds, data = 0, 0.0, digest_of(drawings)
    # The same ones after an interruption: numbers are rounded and summed as they were before it.
    choices = {"bfloat16": bfloat16_is_faster(), "threads": torch.get_num_threads()}
    if state_file.exists():
        state = read_state(state_file)
        if state.get("data") != data:
            raise InputError(
                f"{state_file} is of another training, or of other drawings than are here now: move it away, "
                "or choose another --out"
            )
        vqvae.load_state_dict(state["vqvae"])
        optimizer.load_state_dict(state["optimizer"])
        codebook.load_state_dict(state["codebook"])
        done, seconds, choices = state["done"], state["seconds"], state["choices"]
    torch.set_num_threads(choices["threads"])
    start = saved = time.time()

    def save():
        parts = {"vqvae": vqvae, "optimizer": optimizer, "codebook": codebook}
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"done": done, "seconds": seconds + time.time() - start, "choices": choices, "data": data}
        write_state(state_file, state)

    autocast = torch.autocast("cpu", torch.bfloat16) if choices["bfloat16"] else nullcontext()
    progress = bar(total=STEPS, initial=done, unit="step", dynamic_ncols=True)
    while done < STEPS:
        rng = np.random.default_rng((1, done))
        shapes = random_shapes(drawings, done)
        warm_up, left = min(1.0, (done + 1) / 100), 0.5 * (1 + math.cos(math.pi * done / STEPS))
        for group in optimizer.param_groups:
            group["lr"] = RATE * warm_up * left

        pixels = (2 * shapes - 1)[:, None].to(memory_format=torch.channels_last)
        with autocast:
            features = vqvae.encoder(pixels)  # [B, E, 4, 4]
        features = features.float()
        flat = features.flatten(2).transpose(1, 2).flatten(0, 1)  # [16 B, E]
        if done == CONTINUOUS_STEPS:
            codebook.start(flat.detach(), rng)
        commitment = 0.0
        quantized = features
        if done >= CONTINUOUS_STEPS:
            codewords = vqvae._vq_vae.look_up(vqvae._vq_vae.nearest(features)).detach()
            commitment = F.mse_loss(features, codewords)
            quantized = features + (codewords - features).detach()
        with autocast:
            drawn = vqvae.decoder(quantized)[:, 0]
        loss = shape_loss(drawn.float(), shapes)
        optimizer.zero_grad()
        (loss + COMMITMENT * commitment).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if done >= CONTINUOUS_STEPS:
            codebook.update(flat.detach(), rng)

        done += 1
        progress.update()
        if done % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if time.time() - saved > STATE_EVERY or done == STEPS:
            save()
            saved = time.time()
    progress.close()
    return read_state(state_file)["seconds"]


# -- Measuring ------------------------------------------------------------------------------------


@torch.inference_mode()
def measure(vqvae: MaskVQVAE, drawings: dict, scenes: int = SCENES, seed: int = 1) -> dict[str, float]:
    """Mean IoU of the true masks in new scenes with what the codec makes of them, and with two others.

    "codec": encoded and decoded again. It is the ceiling of a model that writes these words.
    "squares": the box in 10 x 11 squares, each inside or outside: 110 bits, and 16 words have 112.
    "filled box": the whole of it. Only above that is a mask worth its words.
    """
    rng = np.random.default_rng(seed)
    found = {"codec": [], "squares": [], "filled box": []}
    for _ in range(scenes):
        scene = tiny_scenes.draw_scene(rng, drawings)
        height, width = scene.owner.shape
        for index, thing in enumerate(scene.things):
            mask = torch.from_numpy(scene.owner == index)
            y1, x1, y2, x2 = thing.box
            box = (x1 * width, y1 * height, x2 * width, y2 * height)
            drawn = mask_from_tokens(vqvae, tokens_from_mask(vqvae, mask, box), box, height, width)
            found["codec"].append(mask_iou(mask, drawn))
            left, top, right, bottom = (round(edge) for edge in box)
            cut = mask[None, top:bottom, left:right].float()
            squares = (resize_shapes(cut, 11, 10) > 0.5).float()
            smooth = resize_shapes(squares, *cut.shape[1:]) > 0.5
            found["squares"].append(mask_iou(cut > 0, smooth))
            found["filled box"].append(cut.mean().item())
    return {name: float(np.mean(values)) for name, values in found.items()}


def report(vqvae: MaskVQVAE, styles: dict[str, dict]):
    for name, drawings in styles.items():
        found = measure(vqvae, drawings)
        write(f"{name}: " + ", ".join(f"{what} {value:.3f}" for what, value in found.items()))


def run(args: argparse.Namespace):
    """Trains the codec, unless one is to be measured; measures it."""
    file, state_file = args.measure or args.out / MASK_FILES[0], args.out / "state.pt"
    if args.measure is None and file.exists() and not state_file.exists():
        raise InputError(f"{file} is there, and no {state_file.name} of its training: choose another --out")
    if args.measure is not None and (file.name != MASK_FILES[0] or not file.is_file()):
        raise InputError(f"--measure {file}: no such file, or its name is not {MASK_FILES[0]}")
    drawings = {
        "training sets": tiny_scenes.load_drawings(TRAINING_STYLES),
        "held out": tiny_scenes.load_drawings(HELD_OUT_STYLES),
    }
    if args.measure is None:
        torch.manual_seed(0)
        vqvae = MaskVQVAE(CONFIG)
        args.out.mkdir(parents=True, exist_ok=True)
        seconds = train(vqvae, drawings["training sets"], state_file)
        # float16 has three more bits than bfloat16 for what is between -1 and 1.
        tensors = {name: tensor.half().contiguous() for name, tensor in vqvae.state_dict().items()}
        replace_file(file, save(tensors, metadata={"format": "pt"}))
        write(f"{seconds / 60:.0f} minutes of training; the codec is in {file}")
    # What is measured is what is stored.
    report(load_mask_decoder(file.parent), drawings)


def main(argv: list[str] | None = None):
    parser = Parser(
        prog="train_masks",
        description="Trains the mask codec of paligemma-tiny; goes on where it was interrupted.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("training-masks"), metavar="DIR", help="folder for the results"
    )
    parser.add_argument(
        "--measure", type=Path, metavar="FILE", help="train nothing, measure this mask_decoder.safetensors"
    )
    run_program(run, parser.parse_args(argv), parser, CheckpointError)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)
