"""The door: `load_model` loads a checkpoint as load_hf_model does, and makes a large model a quick one."""

from pathlib import Path

import torch
from torch import nn

import load_weights
from decoder_1 import GemmaMLP
from load_weights import CheckpointError, ModelSet, find_tensors, load_hf_model, read_tensor
from program.bar import bar
from speed import int8_file, memory
from speed.attention import fuse_attention
from speed.linear import Bf16Linear, Int8Embedding, Int8Linear, Int8MLP
from speed.quickest import seconds
from speed.threads import ONE_THREAD

PRECISIONS = ("auto", *load_weights.PRECISIONS, "int8")  # what --precision takes
LARGE = 100_000_000  # parameters; smaller models are quick as they are, and stay as they are
TABLE = "language_model.model.embed_tokens"
LM_HEAD = "language_model.lm_head"
SHARED = (".q_proj", ".k_proj", ".v_proj", ".gate_proj", ".up_proj")  # layers with the input of another
ROWS = 256  # of a picture, one for each patch


def linears_of(model: nn.Module) -> dict[str, nn.Linear]:
    """What is replaced: exactly nn.Linear, for a learner's own kind may do something else.

    The output layer only with the embedding table, which is the same matrix.
    """
    linears = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    if type(model.get_submodule(TABLE)) is not nn.Embedding:
        linears.pop(LM_HEAD, None)
    return linears


def stored_name(name: str) -> str:
    """Under which name the checkpoint holds a module's weight: the output layer's is the table's."""
    return TABLE if name == LM_HEAD else name


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Is this tensor one of those that int8 is for? The 256 positions' vectors are added, not multiplied."""
    return len(shape) == 2 and name.endswith(".weight") and "position_embedding" not in name


def use_bf16(model: nn.Module):
    """Makes a loaded bfloat16 model a quick one. No weight is copied, and the tied ones stay tied."""
    for parameter in bar([*model.parameters()], desc="Loading", delay=1, leave=False):
        memory.map_now(parameter)  # which reads the disk, if need be
    for name, linear in linears_of(model).items():
        model.set_submodule(name, Bf16Linear(linear))


def use_int8(model: nn.Module, folder: Path, is_large: bool):
    """Makes a model whose weights are only mapped yet an int8 one; the rest of it becomes float32.

    All matrices are rounded, so that the file is the same for every set; a learner's own kind of linear
    layer takes them as they were. All of it is read, so that this waits for the disk if anything does.
    """
    memory.keep_freed_memory()
    files = load_weights.weight_files(folder)
    tensors = find_tensors(files)
    load_weights.refuse_too_large(tensors, torch.int8, torch.device("cpu"))
    # Of the tied two one is stored, or both, which load_hf_model has found to be equal.
    stored = {f"{TABLE}.weight": tensors.pop(f"{LM_HEAD}.weight", None)} | tensors
    shapes = {
        name.removesuffix(".weight"): tensor.shape
        for name, tensor in stored.items()
        if is_matrix(name, tensor.shape)
    }
    int8 = int8_file.int8_of(folder, files, shapes, lambda name: read_tensor(stored[f"{name}.weight"]))
    linears = linears_of(model)
    modules = {
        name: Int8Linear(
            *(int8[f"{stored_name(name)}.{part}"] for part in ("weight", "scale", "sum")),
            linear.bias,
            name.endswith(SHARED),
        )
        for name, linear in linears.items()
    }
    for name in layers_in_bf16(linears, modules) if is_large else []:
        memory.let_go(modules[name].weight)
        memory.map_now(linears[name].weight)
        modules[name] = Bf16Linear(linears[name])
    for name in [*linears, TABLE] if LM_HEAD in linears else linears:
        model.set_submodule(name, nn.Identity())
    model.float()  # all but those, and the table, which is made of the output layer's weights below
    for name, module in modules.items():
        model.set_submodule(name, module)
    if LM_HEAD in modules:
        model.set_submodule(TABLE, Int8Embedding(modules[LM_HEAD]))
    for name, mlp in [*model.named_modules()]:
        # The reference's, not a learner's, nor one with a learner's layers.
        if type(mlp) is GemmaMLP and all(type(layer) is Int8Linear for layer in mlp.children()):
            model.set_submodule(name, Int8MLP(mlp))


def layers_in_bf16(linears: dict[str, nn.Linear], int8: dict[str, Int8Linear]) -> list[str]:
    """Which layers stay as they are stored: all that work on pictures alone, or none of them.

    Their weights are read once for each picture, so half the bytes gain nothing there, and rounding the
    input can cost more than the quicker product saves.
    """
    names = [name for name in linears if not name.startswith("language_model.")]
    dtypes = {parameter.dtype for name in names for parameter in linears[name].parameters()}
    if dtypes != {torch.bfloat16}:
        return []
    largest = max(names, key=lambda name: linears[name].weight.numel())
    return names if is_quicker_in_bf16(linears[largest], int8[largest]) else []


def is_quicker_in_bf16(linear: nn.Linear, int8: Int8Linear) -> bool:
    """Whether bfloat16, which is more exact, is also quicker for a picture, as it is on CPUs with AMX."""
    x = torch.ones(ROWS, linear.in_features)
    x[:, 0] = linear.in_features  # an outlier, as they all have
    trials = [(x,)] * 3
    return seconds(Bf16Linear(linear), *trials) < seconds(int8, *trials)


def skip_unread(model: nn.Module):
    """Lets the last MLP work on those positions alone whose logits are asked for.

    To the others, which nobody reads any more, it adds zeros. A prompt has 262 positions, and of them
    the last one is asked for.
    """
    layers = model.language_model.model.layers
    mlp = layers[len(layers) - 1].mlp
    asked = unread = 0

    def note(_, args, kwargs):
        nonlocal asked
        asked = kwargs.get("logits_to_keep", 0)

    def cut(_, args):
        nonlocal unread
        unread = max(0, args[0].shape[1] - asked) if asked and args else 0
        # A learner's layer may name the argument (`hidden_states=x`): then all positions are worked on.
        return (args[0][:, unread:],) if args else None

    def fill_up(_, args, out):
        return nn.functional.pad(out, (0, 0, unread, 0))

    model.register_forward_pre_hook(note, with_kwargs=True)
    mlp.register_forward_pre_hook(cut)
    mlp.register_forward_hook(fill_up)


def load_model(model_path, device="cpu", precision: str = "auto", model_set: ModelSet | None = None):
    """What load_hf_model loads, made quick where it runs on a CPU.

    precision: one of load_hf_model's, or int8. The other arguments, and what is returned and raised, are
    load_hf_model's. With int8, and with auto where a large model is held in bfloat16 on a CPU, the
    model's linear layers are those of linear.py; any other model is just as load_hf_model gives it. For one
    of fewer than ONE_THREAD parameters PyTorch works with one thread from now on, in the whole process.
    """
    device = torch.device(device)
    if precision == "int8" and device.type != "cpu":
        raise CheckpointError(
            f"--precision int8 is for CPUs, not for {device.type}: take auto there (16 bits), or --device cpu"
        )
    # Stored: the weights are mapped, so that what becomes int8 costs no memory before it is read.
    loaded_as = "stored" if precision == "int8" else precision
    model, tokenizer = load_hf_model(model_path, device, loaded_as, model_set)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    if numbers < ONE_THREAD:
        torch.set_num_threads(1)  # before the first product
    is_bf16 = precision == "auto" and model.get_submodule(TABLE).weight.dtype == torch.bfloat16
    if precision == "int8":
        use_int8(model, Path(model_path), numbers > LARGE)
    elif is_bf16 and device.type == "cpu" and numbers > LARGE:
        use_bf16(model)
    else:
        return model, tokenizer
    if numbers > LARGE:
        fuse_attention(model)
        skip_unread(model)
    return model.eval(), tokenizer
