"""Runs the cases of an exercise: in the reference, in the learner's code and in each known mistake.

Everything that code does in one case is kept as an Outcome: what it returned, or how it stopped, and
which inputs it changed.
"""

import contextlib
import copy
import dataclasses
import functools
import io
import traceback
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import nn

from course.exercise import Case, Change, Exercise
from course.judging import leaves as parts_of
from course.learner_file import LearnerFile
from course.learner_module import Module, module_for, reference_module
from course.other_device import OtherDevice
from course.outcome import Flaw, Outcome
from course.parameters import check_parameters, random_weights
from course.source import reference_source
from course.tracebacks import last_line
from course.variants import apply_change


@dataclass
class Held:
    """The tensors that a cache held: it may gain others, but must not write into these."""

    tensors: list[tuple[torch.Tensor, torch.Tensor]]  # each with a copy


def frozen(value):
    """A copy to compare with later: what the inputs were, or what was returned."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Image.Image):
        return (value.mode, value.size, value.tobytes())
    if isinstance(value, (list, tuple)):
        return [frozen(part) for part in value]
    if isinstance(value, dict):
        return {key: frozen(part) for key, part in value.items()}
    if hasattr(value, "key_cache") and hasattr(value, "value_cache"):
        return Held([(tensor, frozen(tensor)) for tensor in (*value.key_cache, *value.value_cache)])
    if isinstance(value, Tokenizer):
        return value.to_str()  # with its padding and truncation
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else None


def unchanged(before, after) -> bool:
    if isinstance(before, Held):
        return all(unchanged(copy, frozen(tensor)) for tensor, copy in before.tensors)
    if isinstance(before, torch.Tensor):
        return (
            before.shape == after.shape
            and before.dtype == after.dtype
            and torch.equal(before.nan_to_num(), after.nan_to_num())
        )
    if isinstance(before, np.ndarray):
        return before.shape == after.shape and before.dtype == after.dtype and np.array_equal(before, after)
    if isinstance(before, list):
        return len(before) == len(after) and all(map(unchanged, before, after))
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(unchanged(before[key], after[key]) for key in before)
    return before is after or before == after  # NaN does not equal itself


class Lender:
    """A module as the cases see it: its classes are made from copies of what is handed to them.

    So reference and learner's code share no config, tokenizer or list, and what was handed out can be
    held to be left as it was.
    """

    def __init__(self, module: Module):
        self._module, self._lent = module, []

    def __getattr__(self, name: str):
        made = getattr(self._module, name)
        return LendingClass(made, self._lent) if isinstance(made, type) else made

    def lent_and_changed(self) -> list[str]:
        return [name for name, value, before in self._lent if not unchanged(before, frozen(value))]


class LendingClass:
    """A class of the module under test, to be called."""

    def __init__(self, made: type, lent: list):
        self.made, self.lent = made, lent

    def __call__(self, *arguments, **by_name):
        return self.made(*map(self.copy, arguments), **{k: self.copy(v) for k, v in by_name.items()})

    def __getattr__(self, name: str):
        return getattr(self.made, name)

    def copy(self, value):
        kind = "tokenizer" if isinstance(value, Tokenizer) else type(value).__name__
        if dataclasses.is_dataclass(value):
            kind = "config"
        elif kind not in ("tokenizer", "list", "dict"):
            return value
        copied = copy.deepcopy(value)
        self.lent.append((kind, copied, frozen(copied)))
        return copied


def build(exercise: Exercise, case: Case, module: Module | Lender, expected: nn.Module | None):
    """The object that the case calls; an nn.Module gets the reference's weights, by name."""
    make = case.make or exercise.make or (lambda m: getattr(m, exercise.name))
    made = make(module)
    if expected is None:  # this is the reference itself
        if isinstance(made, nn.Module):
            random_weights(made)
            made.to(case.dtype)
        return made
    if isinstance(expected, nn.Module):
        source = "the reference" if exercise.file == "training" else "the checkpoint"
        check_parameters(made, expected, exercise.owner, source)
        with torch.no_grad():
            made.to(case.dtype)
            theirs = dict(made.named_parameters(remove_duplicate=False))
            for key, parameter in expected.named_parameters(remove_duplicate=False):
                theirs[key].copy_(parameter)
    for attribute in () if isinstance(made, LendingClass) else exercise.attributes:
        if not hasattr(made, attribute):
            raise Flaw(
                "attribute",
                f"{exercise.owner} has no attribute `{attribute}`, which the rest of the model reads.",
            )
        value, right = getattr(made, attribute), getattr(expected, attribute)
        if isinstance(right, (int, float, str)) and (type(value) is not type(right) or value != right):
            raise Flaw("attribute", f"`{attribute}` of {exercise.owner} is {value!r} instead of {right!r}.")
    return made


def in_training(inputs: dict) -> dict[str, torch.Tensor]:
    """Lets gradients flow back to the tensors among the inputs; returns these, by name.

    What the code under test is given are products of them, because torch forbids to write into a leaf, and
    who does that is to be told in our words.
    """
    leaves = {}
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            leaves[name] = value.detach().clone().requires_grad_()
            inputs[name] = leaves[name] * 1
    return leaves


def gradients(value, leaves: dict[str, torch.Tensor]) -> dict[str, float]:
    """How much of a result's gradient reaches each of these: the length of a vector."""
    results = [part for _, part in parts_of(value) if isinstance(part, torch.Tensor) and part.requires_grad]
    if not leaves or not results:
        return {}
    trained = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    total = sum(part.float().square().sum() for part in results)
    try:
        found = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise Flaw(
            "gradient",
            "your code writes into a tensor that the gradient still needs: the model could not be trained.",
            ["Make a new tensor: `x = x + y`, not `x += y`."],
        ) from None
    sizes = [0.0 if gradient is None else float(gradient.norm()) for gradient in found]
    return dict(zip(trained, sizes, strict=True))


def weights_of(made) -> dict[str, torch.Tensor]:
    return dict(made.named_parameters()) if isinstance(made, nn.Module) else {}


def observe(
    exercise: Exercise,
    case: Case,
    module: Module,
    expected: nn.Module | None = None,
    debug: bool = False,
    seed: int = 0,
) -> Outcome:
    """Runs a case in a module and keeps what came of it.

    expected: the reference's object, whose weights are taken. debug: what is printed is not caught,
    so that breakpoint() can be answered. seed: of what is random in the code under test.
    """
    outcome = Outcome()
    inputs, lender = case.inputs(), Lender(module)
    before = frozen(inputs)
    printed = io.StringIO()
    try:
        with (
            contextlib.nullcontext() if debug else contextlib.redirect_stdout(printed),
            np.errstate(all="ignore"),
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),
        ):
            torch.default_generator.manual_seed(seed)  # what torch.manual_seed does on the CPU, and sooner
            warnings.simplefilter("ignore")  # what is wrong is said in other words
            made = build(exercise, case, lender, expected)
            weights = frozen(weights_of(made))
            leaves = weights_of(made) | in_training(inputs) if case.training else {}
            other_device = OtherDevice() if case.other_device else None
            with other_device or contextlib.nullcontext():
                value = case.call(made, **inputs) if case.call else made(*inputs.values())
            if other_device:
                other_device.mark(value)
        outcome.value = value
        outcome.changed = [name for name in inputs if not unchanged(before[name], frozen(inputs[name]))]
        outcome.changed += lender.lent_and_changed()
        after = weights_of(made)
        outcome.changed += [
            name for name in weights if name in after and not unchanged(weights[name], frozen(after[name]))
        ]
        try:
            outcome.gradients = gradients(value, leaves)
        except Flaw:
            if not outcome.changed:  # what is changed says more: it has a name
                raise
    except Flaw as flaw:
        outcome.flaw = flaw.with_traceback(None)
    except BaseException as error:  # also exit() and TookTooLong
        if debug and not isinstance(error, (Exception, SystemExit)):
            raise  # the keyboard's, or the debugger's
        outcome.error = error
        outcome.stopped_at = last_line(error, module.path, module.lines)
        outcome.said = said(error)
        if isinstance(error, NameError) and (unknown := module.why_unknown(error.name)):
            outcome.flaw = Flaw("error", unknown.headline, [*unknown.details, *outcome.stopped_at[:2]])
        error.__traceback__ = None  # it would keep all that the code under test has made
    outcome.printed = printed.getvalue()
    return outcome


def said(error: BaseException) -> str:
    """The last line of a traceback, which may suggest a name that was meant."""
    if not isinstance(error, (NameError, AttributeError)):
        return f"{type(error).__name__}: {error}"
    return "".join(traceback.TracebackException.from_exception(error).format_exception_only()).strip()


@functools.cache
def expected_outcome(exercise: Exercise, index: int) -> Outcome:
    """The reference's outcome of a case."""
    return observe(exercise, exercise.cases[index], reference_module(exercise.file))


@functools.cache
def reference_object(exercise: Exercise, index: int):
    """What the reference makes for a case: never called, only its weights are read."""
    return build(exercise, exercise.cases[index], Lender(reference_module(exercise.file)), None)


def observe_like_reference(
    exercise: Exercise, index: int, module: Module, debug: bool = False, seed: int = 0
) -> Outcome:
    """A case in another module, with the weights of the reference."""
    return observe(exercise, exercise.cases[index], module, reference_object(exercise, index), debug, seed)


def variant_file(exercise: Exercise, change: Change) -> LearnerFile:
    """The reference's file with a change in one exercise, as if it were the learner's."""
    return LearnerFile(exercise.file, apply_change(reference_source(exercise.file), exercise, change))


@functools.cache
def mistaken_module(exercise: Exercise, mistake: int, change: int = 0) -> Module:
    return module_for(exercise, variant_file(exercise, exercise.mistakes[mistake].changes[change]))


@functools.cache
def mistaken_outcome(exercise: Exercise, mistake: int, index: int, change: int = 0) -> Outcome:
    """What a known mistake comes to in a case."""
    return observe_like_reference(exercise, index, mistaken_module(exercise, mistake, change))
