"""The parameters of a module: random values for them, and whether the learner's are the reference's."""

import zlib

import torch
from torch import nn

from course.outcome import Flaw


def random_weights(module: nn.Module) -> None:
    """Gives every parameter random values that depend on its name only; norms and biases too."""
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            values = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 2
            parameter.copy_(values * (1.3 / fan_in**0.5))


def check_parameters(made, expected: nn.Module, name: str, source: str = "the checkpoint") -> None:
    """Raises a Flaw if the learner's module does not have the parameters of the reference.

    source: what the learner is told that holds them.
    """
    if not isinstance(made, nn.Module):
        raise Flaw("attribute", f"{name} has to be an nn.Module, but it is a {type(made).__name__}.")
    theirs, ours = (
        dict(made.named_parameters(remove_duplicate=False)),
        dict(expected.named_parameters(remove_duplicate=False)),
    )
    missing = [key for key in ours if key not in theirs]
    extra = [key for key in theirs if key not in ours]
    buffers = [key for key in made.state_dict() if key not in theirs and key not in ours]
    if missing:
        key = missing[0]
        child, (parent, _, held) = key.split(".")[0], key.rpartition(".")
        shape = list(ours[key].shape)
        if child not in {other.split(".")[0] for other in theirs} and "." in key:
            attribute = getattr(made, child, None)
            headline = (
                f"{name} has no module `{child}` (it holds a {type(getattr(expected, child)).__name__})."
            )
            if isinstance(attribute, (list, tuple)):
                headline = (
                    f"`{child}` is a plain {type(attribute).__name__}: torch does not see the modules in it. "
                    "An nn.ModuleList shows them."
                )
            elif isinstance(attribute, nn.Module):
                headline = f"`{child}` is a {type(attribute).__name__} without parameters."
        elif key in made.state_dict():
            headline = f"`{key}` is a buffer, not an nn.Parameter: it would never be trained."
        elif isinstance(getattr(made, key, None), torch.Tensor):
            headline = f"`{key}` is a plain tensor: torch only sees it as a weight if it is an nn.Parameter."
        elif parent in theirs:
            kind = type(expected.get_submodule(parent))
            words = f"an nn.{kind.__name__}" if kind.__module__.startswith("torch.") else f"a {kind.__name__}"
            headline = f"`{parent}` is a parameter itself; it has to be {words}, which holds `{held}`."
        elif extra and "." in key and key.rsplit(".", 1)[0] + "." not in "".join(f"{k}." for k in theirs):
            headline = f"{name} has no `{key}`, which is in {source}."
        else:
            headline = f"{name} has no parameter `{key}`, which is in {source}."
        details = [f"Expected: `{key}` of shape {shape}."]
        if extra:
            details.append("It has instead: " + ", ".join(f"`{other}`" for other in extra[:6]) + ".")
        raise Flaw("attribute", headline, details)
    if extra:
        raise Flaw(
            "attribute",
            f"{name} has a parameter `{extra[0]}` of shape {list(theirs[extra[0]].shape)}, "
            f"which is not in {source}.",
        )
    if buffers:
        raise Flaw(
            "attribute",
            f"{name} has a buffer `{buffers[0]}`, which is not in {source}.",
            ["register_buffer(..., persistent=False) keeps it out of what is saved and loaded."],
        )
    frozen = [key for key in ours if not theirs[key].requires_grad and ours[key].requires_grad]
    if frozen:
        raise Flaw(
            "attribute",
            f"`{frozen[0]}` of {name} takes no gradients (requires_grad is False): it could not be trained.",
            ["What is trained is decided by who trains the model, not in the model's own code."],
        )
    for key, parameter in ours.items():
        if theirs[key].shape != parameter.shape:
            shape, right = list(theirs[key].shape), list(parameter.shape)
            headline = f"`{key}` of {name} has the shape {shape}, but "
            headline += f"with the sizes of this test it has to be {right}"
            if shape == right[::-1]:
                raise Flaw("attribute", f"{headline}: input and output are swapped.")
            advice = "Sizes come in as arguments or with the config: is one of them written as a number?"
            raise Flaw("attribute", f"{headline}.", [advice] if len(shape) == len(right) else [])
