"""Changes a line of the reference and gives a model made of the changed code, with the same weights.

An Edit names a function of a `_1` file, text that stands in it, and text to stand there instead.
The file is compiled again with the edit in it, so that what is shown as the changed line is the
line that runs. The model's modules are then copied without their weights, which both share, and
the copies are of the changed classes. Nothing of the reference is touched, so nothing has to be
put back, and any number of changed models can stand beside it.
"""

import ast
import copy
import dataclasses
import functools
import importlib
import inspect
import itertools
import linecache
import textwrap
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the list is shown without PyTorch
    from torch import nn

FILES = ("text_image_token_processor_1", "vision_transformer_1", "decoder_1", "generation_1")
NUMBERS = itertools.count(1)  # of changed texts, each of which needs a name


class Conflict(ValueError):
    """Two switches change the same text, so that they cannot both be on."""


@dataclasses.dataclass(frozen=True)
class Edit:
    """One change of the reference's source.

    real: text of `function` (such as `GemmaMLP.forward`) in the file `file`, from the first letter of a
    line to the end of a line, perhaps the next one's. It must be there exactly once.
    changed: what stands there instead. `{layer}` and the like are filled in by `with_values`.
    only: the path of the one module of the model that gets the changed class; empty: all do.
    """

    file: str
    function: str
    real: str
    changed: str
    only: str = ""

    def with_values(self, values: dict[str, int]) -> "Edit":
        changed, only = self.changed, self.only
        for name, value in values.items():
            changed, only = (text.replace(f"{{{name}}}", str(value)) for text in (changed, only))
        return dataclasses.replace(self, changed=changed, only=only)

    def apply(self, source: str) -> str:
        """The source of the file, with the edit in it."""
        first, last = span(source, self.function)
        lines = source.split("\n")
        body = "\n".join(lines[first:last])
        if body.count(self.real) != 1:
            if span_text(source_of(self.file), self.function).count(self.real) == 1:
                raise Conflict(f"{self.function} is changed at the same place by another switch")
            raise ValueError(f"{self.file}.{self.function} does not hold {self.real!r} exactly once")
        start = body[: body.index(self.real)].rpartition("\n")[2]
        indent = " " * (len(start) - len(start.lstrip()))
        changed = textwrap.indent(self.changed, indent).removeprefix(indent)
        return "\n".join([*lines[:first], body.replace(self.real, changed), *lines[last:]])

    @property
    def line(self) -> int:
        """Where the real text begins, counted from 1 as editors do."""
        source = source_of(self.file)
        first, last = span(source, self.function)
        body = "\n".join(source.split("\n")[first:last])
        return first + body[: body.index(self.real)].count("\n") + 1

    def lines(self) -> tuple[list[str], list[str]]:
        """The whole lines that differ, without their common indent: the real ones and the changed ones."""
        before = source_of(self.file).split("\n")
        after = self.apply(source_of(self.file)).split("\n")
        start = self.line - 1
        real = before[start : start + self.real.count("\n") + 1]
        changed = after[start : start + len(real) + len(after) - len(before)]
        return textwrap.dedent("\n".join(real)).split("\n"), textwrap.dedent("\n".join(changed)).split("\n")


@functools.cache
def source_of(file: str) -> str:
    return inspect.getsource(importlib.import_module(file))


@functools.lru_cache(maxsize=256)
def span(source: str, name: str) -> tuple[int, int]:
    """First and last line of the code of a function or method, below its docstring; from 0, last excluded."""
    node = ast.parse(source)
    for part in name.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == part)
    return node.body[ast.get_docstring(node) is not None].lineno - 1, node.end_lineno


def span_text(source: str, name: str) -> str:
    first, last = span(source, name)
    return "\n".join(source.split("\n")[first:last])


@functools.lru_cache(maxsize=256)
def compiled(file: str, edits: tuple[Edit, ...]) -> ModuleType:
    """A `_1` file with edits in it, as a module of its own; without edits, the file itself.

    Its text is kept where Python looks for lines (linecache), for tracebacks and for `inside.source`.
    """
    if not edits:
        return importlib.import_module(file)
    source = source_of(file)
    for edit in edits:
        source = edit.apply(source)
    module, name = ModuleType(file), f"{file}.py (changed {next(NUMBERS)})"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), module.__dict__)
    return module


def modules_of(edits: list[Edit], path: str = "") -> dict[str, ModuleType]:
    """Each `_1` file with those edits that are for all modules, or for the one at this path."""
    for_it = [edit for edit in edits if edit.only in ("", path)]
    return {file: compiled(file, tuple(edit for edit in for_it if edit.file == file)) for file in FILES}


def changed_model(model: "nn.Module", edits: list[Edit]) -> "nn.Module":
    """A model of the changed classes that shares all its weights with the given one."""
    special = {edit.only for edit in edits if edit.only}

    def twin(module: "nn.Module", path: str) -> "nn.Module":
        modules = modules_of(edits, path if path in special else "")
        kind = type(module)
        new = object.__new__(kind)  # without __init__: no weights are made
        # The dicts are copied (a hook on one of the two must not be one of the other), the tensors are not.
        new.__dict__ = {
            key: copy.copy(value) if isinstance(value, dict) else value for key, value in vars(module).items()
        }
        if kind.__module__ in modules:
            new.__class__ = functools.reduce(getattr, kind.__qualname__.split("."), modules[kind.__module__])
        new._modules = {
            name: twin(child, f"{path}.{name}".lstrip(".")) if child is not None else None
            for name, child in module._modules.items()
        }
        return new

    new = twin(model, "")
    missing = special - {name for name, _ in new.named_modules()}
    if missing:
        raise ValueError(f"the model has no {', '.join(sorted(missing))}")
    new.language_model.tie_weights()  # the changed one, where that is changed
    return new


def changed_processor(processor, edits: list[Edit]):
    """The processor, of the changed class."""
    new = copy.copy(processor)
    module = modules_of(edits)[FILES[0]]
    new.__class__ = getattr(module, type(processor).__name__)
    return new
