"""Runs experiments: loads the model once, changes it, asks it, and tries all values of a parameter.

Everything is computed in float32, whatever the checkpoint's dtype: there, what an answer is does not
hang on how a machine adds up. The six questions are one batch.
"""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from PIL import Image
from torch import nn

from course.experiments.edits import changed_model, changed_processor, modules_of
from course.experiments.experiment import KINDS, PICTURES, QUESTIONS, Answers, Experiment, Said
from load_weights import CheckpointError, load_hf_model
from program.command_line import InputError
from text_image_token_processor_1 import PaliGemmaProcessor

ROOT = Path(__file__).resolve().parent.parent.parent
MAX_TOKENS = 24
HEADS_OFF = ("tower-head-off", "decoder-head-off")


class Kit(NamedTuple):
    """All that an answer takes: the model, the processor, and the module with the loop."""

    model: nn.Module
    processor: PaliGemmaProcessor
    generation: ModuleType

    def ask(
        self, prompts: Sequence[str], pictures: Sequence[Image.Image], max_tokens=MAX_TOKENS, **choosing
    ) -> list[Said]:
        """The answers to some questions, as one batch. choosing: `temperature` and so on, of generate."""
        return self.ask_batch(self.processor(list(prompts), list(pictures)), max_tokens, **choosing)

    def ask_batch(self, batch: dict[str, torch.Tensor], max_tokens=MAX_TOKENS, **choosing) -> list[Said]:
        tokenizer = self.processor.tokenizer
        eos_token_id = tokenizer.token_to_id("<eos>")
        rows = [[] for _ in batch["input_ids"]]
        for tokens in self.generation.generate(self.model, batch, eos_token_id, max_tokens, **choosing):
            for row, token in zip(rows, tokens, strict=True):
                row += [token] if token is not None else []
        said = []
        for row in rows:
            answer, ended = self.generation.Answer(tokenizer), row[-1] == eos_token_id
            # A loop that goes on after <eos> is not to hide it.
            for token in row[:-1] if ended and row.index(eos_token_id) == len(row) - 1 else row:
                answer.append(token)
            said.append(Said(answer.text, ended))
        return said

    def answers(self) -> Answers:
        """To all six questions."""
        pictures = [picture(name) for name, _ in QUESTIONS]
        return dict(zip(QUESTIONS, self.ask(list(QUESTIONS.values()), pictures), strict=True))


@functools.cache
def picture(name: str) -> Image.Image:
    with Image.open(ROOT / "images" / f"{name}.png") as file:
        return file.convert("RGB")


@functools.cache
def reference() -> Kit:
    """The shipped checkpoint with the reference's code. Raises InputError if it cannot be read."""
    try:
        model, tokenizer = load_hf_model(ROOT / "paligemma-tiny", "cpu", "float32")
    except CheckpointError as error:
        raise InputError(str(error)) from error
    vision = model.config.vision_config
    return Kit(
        model,
        PaliGemmaProcessor(tokenizer, vision.num_patches, vision.image_size),
        modules_of([])["generation_1"],
    )


@functools.cache
def reference_answers() -> Answers:
    return reference().answers()


def switched(kit: Kit, switches: Sequence[tuple[Experiment, dict[str, int]]]) -> Kit:
    """The kit with any number of experiments switched on, each with values for its parameters.

    The given kit stays as it is, and both share their weights. Raises edits.Conflict if two
    switches change the same text.
    """
    edits = [edit for experiment, values in switches for edit in experiment.edits_with(**values)]
    edits = [edit for edit in edits if edit.file in modules_of([])]
    model = changed_model(kit.model, edits)
    for experiment, _ in switches:
        if experiment.bits:
            model = rounded_weights(model, experiment.bits)
    return Kit(model, changed_processor(kit.processor, edits), modules_of(edits)["generation_1"])


# ------------------------------------------------------------- all values of the parameters


def table(kit: Kit, experiment: Experiment) -> dict[tuple[int, ...], dict[str, Said]]:
    """What the first picture's answers become for each value of the experiment's parameters."""
    choices = [range(parameter.count(kit.model.config)) for parameter in experiment.parameters]
    values = list(itertools.product(*choices)) if choices else []
    if experiment.name in HEADS_OFF:
        said = ask_without_heads(kit, experiment, values)
        return {value: {"detect": one} for value, one in zip(values, said, strict=True)}
    names = [parameter.name for parameter in experiment.parameters]
    prompts = [QUESTIONS[PICTURES[0], kind] for kind in KINDS]
    rows = {}
    for value in values:
        other = switched(kit, [(experiment, dict(zip(names, value, strict=True)))])
        said = other.ask(prompts, [picture(PICTURES[0])] * len(prompts))
        rows[value] = dict(zip(KINDS, said, strict=True))
    return rows


def ask_without_heads(kit: Kit, experiment: Experiment, heads: list[tuple[int, int]]) -> list[Said]:
    """`detect cat` with each head off in turn, all in one batch: row i is without heads[i].

    A head's part of what goes into the output projection becomes 0, which is the same as the
    experiment's changed line; a model for each head would take ten times as long.
    """
    model = changed_model(kit.model, [])  # hooks of its own
    only = experiment.edits[0].only
    for layer in {layer for layer, _ in heads}:
        attention = model.get_submodule(only.replace("{layer}", str(layer)))
        off = [(row, head) for row, (number, head) in enumerate(heads) if number == layer]

        def switch_off(_, args, off=off, Hd=attention.head_dim):
            attended = args[0].clone()
            for row, head in off:
                attended[row, :, head * Hd : (head + 1) * Hd] = 0
            return (attended,)

        projection = attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj
        projection.register_forward_pre_hook(switch_off)
    batch = kit.processor([QUESTIONS[PICTURES[0], "detect"]], [picture(PICTURES[0])])
    batch = {name: tensor.expand(len(heads), *tensor.shape[1:]) for name, tensor in batch.items()}
    return kit._replace(model=model).ask_batch(batch)


@torch.no_grad()
def rounded_weights(model: nn.Module, bits: int) -> nn.Module:
    """The model with its matrices rounded: to 2^bits - 1 values, from minus the largest of each row to it.

    Whole numbers from -(2^(bits - 1) - 1) to 2^(bits - 1) - 1 would be stored, and one step a row.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            weight = module.weight  # [O, I]
            largest = weight.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12)  # zeros need a step, too
            step = largest / (2 ** (bits - 1) - 1)
            module._parameters["weight"] = nn.Parameter((weight / step).round() * step)
    model.language_model.tie_weights()
    return model
