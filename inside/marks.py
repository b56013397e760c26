"""Where a learner's code makes something else than the reference's from the same input.

A mistake in one layer changes what all later ones are given. So nothing is compared between two runs:
the reference answers, each of its classes and functions is remembered with what it was given, and the
learner's definition alone is put in its place, among the reference's, with the same input and weights.
"""

import copy
import inspect

import numpy as np
import torch
from torch import nn

from course.source import NOT_DONE
from inside.code import definition, definitions
from inside.source import code_of, find_source
from inside.trace import TracedCall, Tracer, compare, snapshot
from load_weights import ModelSet

TO_DO = "not done yet"  # in place of a difference
MOST_CALLS = 2  # of one definition: while the prompt is read, and at the token after it


def remembered(value):
    """A copy of what a call was given: a cache, too, which the next line may extend."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, (torch.Tensor, list, tuple, nn.Module)) or not hasattr(value, "__dict__"):
        return snapshot(value)
    return copy.deepcopy(value) if type(value).__module__.endswith(("_0", "_1")) else value


def calls_of_reference(model, processor, prompt: str, picture, reference: ModelSet) -> dict[str, list]:
    """The first call of each class and function at each of two steps, with copies of its arguments."""
    found, step = {}, 0
    with Tracer(definitions(reference).values(), remembered) as tracer:
        batch = processor([prompt], [picture])
        # No token has the id -1, so that a second one is read also where the first ends the answer.
        for _ in reference.generation.generate(model, batch, eos_token_id=-1, max_tokens=2):
            names = {}
            for call in tracer.calls[step:]:
                names.setdefault(call.name.split(".")[0], call)
            step = len(tracer.calls)
            for name, call in names.items():
                found.setdefault(name, []).append(call)
    return found


def arguments_of(call: TracedCall, function) -> list:
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    values = {made.name: made.value for made in reversed(call.made[: len(names)])}
    return [values[name] for name in names if name in values]


def in_its_place(thing: type, owner, own_model: nn.Module | None, path: str):
    """An object of the learner's class with the reference's weights and parts."""
    new = object.__new__(thing)
    state = vars(owner)
    if own_model is not None:  # what its own __init__ has set, a scale perhaps
        own = vars(own_model.get_submodule(path))
        state = {**state, **own, "_modules": owner._modules, "_parameters": owner._parameters}
    new.__dict__ = {key: copy.copy(one) if isinstance(one, dict) else one for key, one in state.items()}
    return new


@torch.inference_mode()
def find_marks(
    model: nn.Module, processor, prompt: str, picture, reference: ModelSet,
    own_model: nn.Module | None, own: ModelSet,
) -> dict[str, list]:  # fmt: skip
    """For each definition of the learner's that differs, [line of its text, name, what differs].

    own_model: None where it could not be made.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    found: dict[str, list] = {}
    calls = calls_of_reference(model, processor, prompt, picture, reference)
    for name, thing in definitions(own).items():
        source, code = find_source(thing), code_of(thing)
        if source is None or code is None or not code.co_filename.endswith("_0.py"):
            continue
        for call in calls.get(name, [])[:MOST_CALLS]:
            for line, what, how in differences_of(thing, definition(name, reference), call, paths, own_model):
                if how.startswith("stopped with NotImplementedError") and NOT_DONE in how:
                    what, how = name, TO_DO
                mark = [line - source.first_line, what, how]
                if mark[:2] not in [one[:2] for one in found.get(name, [])]:
                    found.setdefault(name, []).append(mark)
    return found


def differences_of(thing, reference, call: TracedCall, paths: dict[int, str], own_model) -> list:
    if not isinstance(thing, type):
        return compare(thing, reference, *arguments_of(call, reference))
    method = call.name.partition(".")[2]
    arguments = arguments_of(call, getattr(reference, method))
    if isinstance(call.owner, nn.Module):
        own = in_its_place(thing, call.owner, own_model, paths.get(id(call.owner), ""))
        return compare(own, call.owner, *arguments) if method == "forward" else []
    if method in ("", "__init__"):
        return []
    try:
        own, theirs = thing(), reference()  # a cache is filled by then; what it does when empty tells enough
    except TypeError:
        own, theirs = object.__new__(thing), call.owner
        own.__dict__ = dict(vars(call.owner))
    return compare(getattr(own, method), getattr(theirs, method), *arguments)
