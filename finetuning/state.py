"""What an interrupted training needs in order to go on to the same numbers, in one file.

    training.safetensors    the learned weights, the optimizer's averages, the best weights so far; in
                            its head, as JSON: how many steps are done, and what was noted

The file is written aside and then takes the old one's place, so that whenever the machine stops,
one of the two is whole. Nothing random is in it: the order of the examples is drawn from seed and epoch.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from finetuning.adapter import write_whole
from program.command_line import InputError

STATE = "training.safetensors"
AVERAGES = ("exp_avg", "exp_avg_sq")  # AdamW's names


def save_state(folder: Path, parameters: list[nn.Parameter], optimizer, best, history: dict):
    """history: whatever JSON can hold; numbers come back to the last bit."""
    tensors = {}
    for i, parameter in enumerate(parameters):
        tensors[f"parameter.{i}"] = parameter.detach().cpu()
        for name in AVERAGES:
            tensors[f"{name}.{i}"] = optimizer.state[parameter][name].cpu()
        if best.weights:
            tensors[f"best.{i}"] = best.weights[i].cpu()
    score = best.score if best.weights else None
    metadata = {"history": json.dumps(history), "score": json.dumps(score)}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_whole(folder, STATE, lambda path: save_file(tensors, path, metadata=metadata))


def load_state(folder: Path, parameters: list[nn.Parameter], optimizer, best) -> dict:
    """Puts everything back and returns the history."""
    path = folder / STATE
    try:
        # Copies, because what is mapped would hold on to the file, which is going to be replaced.
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata()
            history, score = json.loads(metadata["history"]), json.loads(metadata["score"])
            with torch.no_grad():
                for i, parameter in enumerate(parameters):
                    parameter.copy_(stored.get_tensor(f"parameter.{i}"))
                    averages = {
                        name: stored.get_tensor(f"{name}.{i}").to(parameter.device, copy=True)
                        for name in AVERAGES
                    }
                    optimizer.state[parameter] = {"step": torch.tensor(float(history["step"])), **averages}
                if score is not None:
                    best.score = score
                    best.weights = [
                        stored.get_tensor(f"best.{i}").to(parameter.device, copy=True)
                        for i, parameter in enumerate(parameters)
                    ]
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be resumed from: {error}") from error
    return history
