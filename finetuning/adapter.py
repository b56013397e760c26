"""LoRA adapters in PEFT's format, written and read, and checkpoints with what was learned inside.

    adapter_config.json           rank, alpha, which layers, which base model
    adapter_model.safetensors     base_model.model.<module>.lora_A.weight [R, I] and lora_B [O, R]

What to notice:
  - <module> is a name inside transformers' class, where it is not the hub's name of a tensor:
    `model.language_model.layers.0…` there is `language_model.model.layers.0…` in the checkpoint;
  - which layers an adapter changes is read off its tensors. Its config names them by endings or by
    a regular expression, and `q_proj` alone would mean the vision tower's as well;
  - of PEFT's many ways only plain LoRA is read. What would change the numbers and is not done here
    (DoRA, biases, layers saved whole) is refused, and not left out silently.
"""

import json
import math
import os
import re
import shutil
from pathlib import Path, PureWindowsPath

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from finetuning.settings import BEFORE, PRODUCTS, SETTINGS
from load_weights import (
    MASK_FILES,
    CheckpointError,
    find_tensors,
    hub_name,
    read_json,
    read_tensor,
    short,
    untie,
    weight_files,
)
from program import known_prompts
from program.command_line import log, spelled_out
from training_1 import LoRALinear

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # before all names in PEFT's files
PARTS = ("lora_A", "lora_B")
# What PEFT may say in a config, and must not say for the numbers here to be the same.
REFUSED = {
    "use_dora": "DoRA", "modules_to_save": "layers that are saved whole", "lora_bias": "biases of its own",
    "fan_in_fan_out": "transposed weights", "trainable_token_indices": "tokens of its own",
    "layer_replication": "repeated layers", "target_parameters": "parameters outside linear layers",
}  # fmt: skip
# Ways to begin (init_lora_weights) that take A and B as they begin off the base's weights: beside the weights
# as they were, what was learned says something else.
CHANGE_THE_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")


def transformers_name(name: str) -> str:
    """The name of one of our modules inside transformers' PaliGemma: what load_weights.hub_name undoes."""
    for ours, theirs in (
        ("language_model.model.", "model.language_model."),
        ("vision_tower.vision_model.", "model.vision_tower."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
        ("language_model.lm_head", "lm_head"),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise ValueError(f"transformers' PaliGemma has no {name}")


def write_json(path: Path, content: dict | list | str):
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_whole(folder: Path, name: str, write):
    """write(path) makes a file aside, which then takes its place: whoever looks sees all of it or none."""
    part = folder / f"{name}.part"
    write(part)
    with part.open("rb+") as file:
        os.fsync(file.fileno())  # on the disk before it has the name
    os.replace(part, folder / name)


# ------------------------------------------------------------------------------------- written


def lora_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every layer with small matrices beside it, by name; those of a learner's class as well."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def lora_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The small matrices under PEFT's names."""
    return {
        f"{PREFIX}{transformers_name(name)}.{part}.weight": getattr(module, part)
        .weight.detach()
        .cpu()
        .contiguous()
        for name, module in lora_layers(model).items()
        for part in PARTS
    }


def save_adapter(folder: Path, model: nn.Module, base_model: str, rank: int, alpha: float):
    """Writes the two files. PEFT loads them onto transformers' PaliGemma, inference.py onto ours."""
    endings = sorted({name.rsplit(".", 1)[-1] for name in lora_layers(model)})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        # A regular expression, since the vision tower's layers have the same endings.
        "target_modules": rf".*language_model\..*\.({'|'.join(endings)})",
    }
    tensors = lora_tensors(model)
    write_whole(folder, WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    write_whole(folder, CONFIG, lambda path: write_json(path, config))


def save_checkpoint(folder: Path, model: nn.Module, base: Path, dtype: torch.dtype, changed: set[str]):
    """Writes a checkpoint of the hub's format; all but the changed parameters is the base model's file.

    But for the prompts that it was trained on, which are others now, and what is left in its folder of a
    training of its own.
    """
    own = (known_prompts.FILE, SETTINGS, PRODUCTS, BEFORE)
    for path in base.iterdir():
        is_models = path.suffix in (".json", ".model") and not path.name.startswith("model.safetensors")
        if path.is_file() and path.name not in own and (is_models or path.name in MASK_FILES):
            write_whole(folder, path.name, lambda part, path=path: shutil.copyfile(path, part))
    entries = read_json(base / "config.json")
    for key in ("torch_dtype", "dtype"):
        if key in entries:
            entries[key] = str(dtype).removeprefix("torch.")
    write_whole(folder, "config.json", lambda path: write_json(path, entries))
    tensors = {name: read_tensor(stored) for name, stored in untie(find_tensors(weight_files(base))).items()}
    for name in changed:
        tensors[name] = model.get_parameter(name).detach().to("cpu", dtype).contiguous()
    write_whole(folder, "model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"}))


# ---------------------------------------------------------------------------------------- read


def read_tensors(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The small matrices by our module's name: {module: {"lora_A": ..., "lora_B": ...}}."""
    layers: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118 (not a dict)
                module, _, part = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
                if part == "default":  # as PEFT's state dicts have it
                    module, _, part = module.rpartition(".")
                if part not in PARTS:
                    raise CheckpointError(
                        f"{path}: {key} is not a matrix of plain LoRA, which is all that is read"
                    )
                tensor = stored.get_tensor(key)
                if tensor.ndim != 2 or 0 in tensor.shape:
                    raise CheckpointError(f"{path}: {key} is {list(tensor.shape)}, which is no matrix")
                layers.setdefault(hub_name(module), {})[part] = tensor
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or cannot be read: {error}") from error
    for module, parts in layers.items():
        if len(parts) != 2:
            raise CheckpointError(f"{path}: of {module} only {', '.join(parts)} is there")
    if not layers:
        raise CheckpointError(f"{path} holds no LoRA matrices")
    return layers


def read_adapter_config(folder: Path) -> dict:
    """adapter_config.json, if it is of a kind that can be used here."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise CheckpointError(f"adapter folder {folder} {what}")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            hint = ": this is a checkpoint, use it with --model" if (folder / "config.json").is_file() else ""
            raise CheckpointError(f"adapter folder {folder} has no {name}{hint}")
    config = read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{folder / CONFIG}: peft_type is {config.get('peft_type')!r:.40}; only LORA is read"
        )
    for key, what in REFUSED.items():
        if config.get(key):
            raise CheckpointError(
                f"{folder / CONFIG}: {key} is set ({what}), which is not supported; plain LoRA is"
            )
    if config.get("bias", "none") != "none":
        raise CheckpointError(f"{folder / CONFIG}: bias is {config['bias']!r:.20}; only none is supported")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGE_THE_BASE):
        raise CheckpointError(
            f"{folder / CONFIG}: init_lora_weights is {short(start)}, which changes the base's weights, too: "
            "let PEFT make it plain LoRA (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    check_alphas(folder / CONFIG, config)
    return config


def check_alphas(path: Path, config: dict):
    """Refuses what alpha_of could not compute with."""
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(f"{path}: alpha_pattern must be an object, not {short(patterns)}")
    alphas = {f"alpha_pattern's {short(pattern)}": alpha for pattern, alpha in patterns.items()}
    for what, alpha in ({"lora_alpha": config.get("lora_alpha")} | alphas).items():
        is_number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        if not (is_number and abs(alpha) < 1e30):  # nor NaN, nor an integer that no float holds
            raise CheckpointError(f"{path}: {what} must be a number, not {short(alpha)}")
    for pattern in patterns:
        try:
            re.compile(peft_pattern(pattern))
        except (re.error, OverflowError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: alpha_pattern's {short(pattern)} is no regular expression: {error}"
            ) from error


def recorded_base(folder) -> str | None:
    """What an adapter says it was made for: a path as it was typed, or a name on the hub."""
    base = read_adapter_config(Path(folder)).get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None


def base_model_of(folder) -> str | None:
    """The folder of the model that an adapter was made for, if it is on this machine.

    A relative path begins where the training was started, which may be the folder of the adapter's
    folder, or one above it, and not the working folder.
    """
    base = recorded_base(folder)
    if base is None:
        return None
    places = [Path(), *Path(folder).resolve().parents]
    return next((str(place / base) for place in places if (place / base / "config.json").is_file()), None)


def say_if_another_base(folder, model: str):
    """One line where the model that an adapter was made for is not here, and another one was chosen."""
    base = recorded_base(folder)
    # Of `google/paligemma-3b-pt-224` and of paths, Windows' as well, the last part is the model's name.
    if base is not None and PureWindowsPath(base).name != Path(model).resolve().name:
        used = f"it is used with {Path(model).name}. Give --model if that is wrong."
        log(spelled_out(f"Adapter {folder} was made for {base}, which is not here: {used}"))


def peft_pattern(pattern: str) -> str:
    """What PEFT makes of a key of alpha_pattern: a regular expression for the end of a layer's name."""
    return rf"(.*\.)?({pattern})$"


def alpha_of(config: dict, module: str) -> float:
    """lora_alpha, which a config may set for some layers by the ends of their names; the first that fits."""
    name = transformers_name(module)
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.match(peft_pattern(pattern), name):
            return alpha
    return config["lora_alpha"]


def load_adapter(model: nn.Module, folder, lora_linear: type[nn.Module] = LoRALinear) -> list[str]:
    """Puts an adapter's small matrices beside the layers of a loaded model; gives their names.

    Whatever the layers are (of any precision): only `weight` of shape [O, I] is asked of them.
    lora_linear: the class to use, a learner's own for instance.
    """
    folder = Path(folder)
    config = read_adapter_config(folder)
    layers = read_tensors(folder / WEIGHTS)
    modules = dict(model.named_modules())
    for name, parts in layers.items():
        layer, (lora_a, lora_b) = modules.get(name), (parts["lora_A"], parts["lora_B"])
        if layer is None or not hasattr(layer, "weight") or layer.weight.ndim != 2:
            raise CheckpointError(
                f"{folder / WEIGHTS}: the model has no linear layer {name}: another base model?"
            )
        if (lora_b.shape[0], lora_a.shape[1]) != tuple(layer.weight.shape) or lora_a.shape[0] != lora_b.shape[
            1
        ]:
            raise CheckpointError(
                f"{folder / WEIGHTS}: {name} is {list(layer.weight.shape)}, but the adapter was made for "
                f"{[lora_b.shape[0], lora_a.shape[1]]} with ranks {lora_a.shape[0]} and {lora_b.shape[1]}"
            )
        rank, alpha = lora_a.shape[0], alpha_of(config, name)
        if config.get("use_rslora"):
            alpha = alpha * math.sqrt(rank)  # alpha / sqrt(R) instead of alpha / R
        replacement = lora_linear(layer, rank, alpha)
        with torch.no_grad():
            replacement.lora_A.weight.copy_(lora_a)
            replacement.lora_B.weight.copy_(lora_b)
        model.set_submodule(name, replacement)
    return list(layers)
