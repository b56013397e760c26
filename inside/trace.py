"""What each line of a function made, told by watching the real function while it runs.

    with Tracer([GemmaAttention, repeat_kv]) as tracer:
        model(**batch)
    tracer.calls        every call of these functions and methods, in the order in which they began

What to notice:
  - nothing is rewritten or simulated. Python tells the tracer (sys.settrace) before each line, and
    what the line before it has stored is then in the frame's local variables;
  - which names a line stores is read from its syntax, because `x += y` and `x[i] = y` leave the same
    object under the same name;
  - it works alike for the reference and for a learner's file. `differences` compares the two, name
    by name, when both were given the same input.
"""

import ast
import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from inside.source import parse_file, time_of

RETURNED = "return"  # the name of what a call gave back
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
MOST_PASSES = 64  # of one line whose values are kept


class Made(NamedTuple):
    """A value that a line stored under a name, as `see` described it."""

    line: int  # of the file, from 1
    name: str
    value: object


@dataclass
class TracedCall:
    """One call of a function: its arguments, what each line stored, and what it gave back."""

    name: str  # as GemmaAttention.forward
    file: str
    owner: object  # its self, if it is a method
    caller: "TracedCall | None"  # of the watched ones
    made: list[Made] = field(default_factory=list)
    stopped: bool = False  # by an error
    error: str = ""  # which, if somebody caught it
    last_line: int = 0  # that ran


# -------------------------------------------------------------------- which names a line stores


class Statement(NamedTuple):
    """One statement (of `if`, `for` and `with` the head), and the names that it stores."""

    first: int
    last: int
    stores: tuple[str, ...]
    body: range | None  # of `for`: lines that follow a store
    comprehends: bool  # holds a comprehension, whose passes newer Pythons tell as lines of their own


def base_name(target: ast.expr) -> str | None:
    """x of x, x[i] and x.y[i]; None where there is none."""
    while isinstance(target, (ast.Subscript, ast.Attribute, ast.Starred)):
        target = target.value
    return target.id if isinstance(target, ast.Name) else None


def stored_names(node: ast.stmt) -> tuple[str, ...]:
    """The local variables that a statement gives a value, in order; `self` is not among them."""
    heads = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)]
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    if isinstance(node, (ast.With, ast.AsyncWith)):
        targets = [item.optional_vars for item in node.items]
    if isinstance(node, ast.Expr) and isinstance(call := node.value, ast.Call):
        # A method that changes its object in place, as x.masked_fill_(...): PyTorch ends its name in _.
        method = call.func
        if isinstance(method, ast.Attribute) and method.attr.endswith("_"):
            targets = [method.value]
    found = []
    for target in targets:
        parts = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
        found += [base_name(part) for part in parts if part is not None]
    for head in heads:
        found += [base_name(inner.target) for inner in ast.walk(head) if isinstance(inner, ast.NamedExpr)]
    return tuple(dict.fromkeys(name for name in found if name not in (None, "self")))


def statements_of(function: ast.FunctionDef) -> dict[int, Statement]:
    """For each line of a function's body the statement that it belongs to."""
    found = {}
    # Outer statements come first, so that what stands inside them takes their lines over.
    for node in ast.walk(function):
        if not isinstance(node, ast.stmt) or node is function:
            continue
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno
        statement = Statement(
            node.lineno, max(node.lineno, last), stored_names(node),
            range(body[0].lineno, body[-1].end_lineno + 1) if isinstance(node, ast.For) else None,
            body is None and any(isinstance(inner, COMPREHENSIONS) for inner in ast.walk(node)),
        )  # fmt: skip
        for line in range(statement.first, statement.last + 1):
            found[line] = statement
    return found


class Layout(NamedTuple):
    """What must be known of a function's text to read its values."""

    arguments: dict[str, int]  # name -> line
    statements: dict[int, Statement]


def layout_of(code: CodeType) -> Layout | None:
    """Reads it from the file that the code was compiled from; None if it is not there."""
    try:
        file = code.co_filename
        return layout_in_file(code.co_name, code.co_firstlineno, file, time_of(file))
    except (OSError, ValueError, SyntaxError):
        return None


@functools.lru_cache(maxsize=512)
def layout_in_file(name: str, line: int, file: str, changed: int) -> Layout | None:
    _, tree = parse_file(file, changed)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            first = node.decorator_list[0].lineno if node.decorator_list else node.lineno
            if line == first:
                every = [*node.args.posonlyargs, *node.args.args, node.args.vararg]
                every += [*node.args.kwonlyargs, node.args.kwarg]
                return Layout({one.arg: one.lineno for one in every if one}, statements_of(node))
    return None


# ------------------------------------------------------------------------------- the tracer


def code_objects(things: Iterable) -> set[CodeType]:
    """Of functions, and of the methods that classes define themselves."""
    found = set()
    for thing in things:
        members = vars(thing).values() if isinstance(thing, type) else [thing]
        for member in members:
            member = getattr(member, "__func__", getattr(member, "fget", member))
            # A decorator, as @torch.no_grad(), puts a function of its own around it.
            code = getattr(inspect.unwrap(member) if callable(member) else None, "__code__", None)
            # A generator's frame comes and goes: its lines are not one call's.
            if isinstance(code, CodeType) and not code.co_flags & inspect.CO_GENERATOR:
                found.add(code)
    return found


class Tracer:
    """Watches calls of these functions and classes, in this thread, line by line.

    see(value): what is to be kept of a value, made at once, because the next line may change it.
    By default its Summary. Whoever compares takes `snapshot`.

    Python has one tracer a thread: while a debugger or a coverage tool traces, it is put aside.
    """

    def __init__(self, things: Iterable, see: Callable | None = None):
        self.codes = code_objects(things)
        self.see = see or summarize
        self.layouts = {code: layout_of(code) for code in self.codes}
        self.calls: list[TracedCall] = []
        self.running: list[TracedCall] = []

    def __enter__(self) -> "Tracer":
        self.before = sys.gettrace()
        sys.settrace(self.on_call)
        return self

    def __exit__(self, *_):
        sys.settrace(self.before)

    def on_call(self, frame: FrameType, event: str, _):
        """Python's call for each new frame: returns the function that follows its lines, or None."""
        layout = self.layouts.get(frame.f_code)
        if layout is None:
            return None
        call = TracedCall(
            frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_locals.get("self"),
            self.running[-1] if self.running else None,
        )  # fmt: skip
        self.calls.append(call)
        self.running.append(call)
        local = dict(frame.f_locals)
        for name, line in layout.arguments.items():
            if name != "self" and name in local:
                self.keep(call, line, name, local[name])
        return self.line_follower(call, layout)

    def line_follower(self, call: TracedCall, layout: Layout):
        last, passes, failing = None, {}, False

        def finish(frame: FrameType, next_line: int | None):
            """Reads what the statement that ran last has stored."""
            statement = layout.statements.get(last)
            if statement is None or (next_line is not None and statement.first < next_line <= statement.last):
                return  # its other lines are still running
            if statement.body is not None and next_line not in statement.body:
                return  # the loop has ended and stored nothing
            passes[statement.first] = passes.get(statement.first, 0) + 1
            if passes[statement.first] <= MOST_PASSES and statement.stores:
                local = dict(frame.f_locals)
                for name in statement.stores:
                    if name in local:
                        self.keep(call, statement.first, name, local[name])

        def follow(frame: FrameType, event: str, argument):
            nonlocal last, failing
            if event == "line":
                failing = False
                if last is not None and not self.same_statement(layout, last, frame.f_lineno):
                    finish(frame, frame.f_lineno)
                last = frame.f_lineno
            elif event == "exception":
                failing = True
            elif event == "return":
                self.running.pop()
                call.stopped, call.last_line = failing, frame.f_lineno
                if not failing:
                    if last is not None:
                        finish(frame, None)
                    statement = layout.statements.get(frame.f_lineno)
                    self.keep(call, statement.first if statement else frame.f_lineno, RETURNED, argument)
            return follow

        return follow

    @staticmethod
    def same_statement(layout: Layout, line: int, other: int) -> bool:
        """Python comes back to the first line of a statement of several lines: that is no new one."""
        one, two = layout.statements.get(line), layout.statements.get(other)
        return one is not None and one is two and one.body is None and (line != other or one.comprehends)

    def keep(self, call: TracedCall, line: int, name: str, value):
        # Python traces nothing that a trace function calls, so `see` may use what is being watched.
        call.made.append(Made(line, name, self.see(value)))


# ------------------------------------------------------------------------- seeing a value


class Summary(NamedTuple):
    """A value in a few words; the numbers are None where there are none."""

    kind: str  # [1, 4, 104, 32], or what it is
    dtype: str | None = None
    low: float | None = None
    mean: float | None = None
    high: float | None = None


def summarize(value) -> Summary | list[Summary]:
    """Shape, dtype, smallest, mean and largest of a tensor or array; of a tuple those of each."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, torch.Tensor):
        kind, dtype = str(list(value.shape)), str(value.dtype).removeprefix("torch.")
        if value.numel() == 0 or value.is_complex():
            return Summary(kind, dtype)
        low, high = (float(edge) for edge in (value.min(), value.max()))
        return Summary(kind, dtype, low, float(value.double().mean()), high)
    if isinstance(value, tuple) and value and all(isinstance(one, torch.Tensor) for one in value):
        return [summarize(one) for one in value]
    if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        return Summary(f"dict: {', '.join(value)}"[:80])
    if isinstance(value, (list, tuple, dict)):
        return Summary(f"{type(value).__name__} of {len(value)}")
    if isinstance(value, Image.Image):
        return Summary(f"picture, {value.width} x {value.height}", value.mode)
    if value is None or isinstance(value, (bool, int, float, str)):
        return Summary(shortened(repr(value)), type(value).__name__)
    return Summary(type(value).__name__)


ROWS, COLUMNS = 8, 12  # at most, of a sample


def sample(value) -> list | torch.Tensor | None:
    """Some numbers of a tensor or array, at equal distances: float [up to 8, up to 12], integers as a list.

    Of the last two dimensions, at the first place of those before them: the first head, for instance. Of a
    picture [h, w, 3], its red. None if there is nothing to choose from.
    """
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, torch.Tensor) or value.numel() < 2 or value.is_complex():
        return None
    if value.dim() == 3 and value.shape[2] == 3:
        value = value[:, :, 0]
    while value.dim() > 2:
        value = value[0]
    value = value.reshape(-1, value.shape[-1])
    rows, columns = (places(*one) for one in zip(value.shape, (ROWS, COLUMNS), strict=True))
    value = value[rows.start :: rows.step, columns.start :: columns.step]
    return value.float() if value.is_floating_point() else value.int().tolist()


def places(count: int, most: int) -> range:
    """At most so many of count places, at equal distances, the last among them."""
    step = -(-count // most)
    return range((count - 1) % step, count, step)


def shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"


def snapshot(value):
    """A copy of what a value holds, for comparing: tensors and arrays as tensors, else as it is."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, (tuple, list)):
        return [snapshot(one) for one in value]
    return value


# ------------------------------------------------------------------------ comparing two calls


class Difference(NamedTuple):
    """A value of a learner's that is not the reference's."""

    line: int  # in the learner's file
    name: str
    what: str  # "apart by 0.25", for instance


def apart(value, expected, tolerance: float) -> str | None:
    """How a snapshot differs from the expected one, in a few words; None if it does not.

    tolerance: relative to the largest number of the expected one.
    """
    if isinstance(expected, list) and isinstance(value, list) and len(value) == len(expected):
        pairs = zip(value, expected, strict=True)
        return next(filter(None, (apart(*pair, tolerance) for pair in pairs)), None)
    if isinstance(expected, torch.Tensor):
        if not isinstance(value, torch.Tensor):
            return f"{type(value).__name__}, not a tensor"
        if value.shape != expected.shape:
            return f"shape {list(value.shape)}, not {list(expected.shape)}"
        if value.numel() == 0:
            return None
        if value.isnan().any() and not expected.isnan().any():
            return "not a number (NaN)"
        difference = float((value.double() - expected.double()).abs().max())
        scale = float(expected.double().abs().max())
        return f"apart by {difference:.3g}" if difference > tolerance * max(scale, 1e-12) else None
    if isinstance(expected, (bool, int, float, str)) and value != expected:
        return f"{shortened(repr(value))}, not {shortened(repr(expected))}"
    return None


def differences(call: TracedCall, reference: TracedCall, tolerance: float = 1e-3) -> list[Difference]:
    """Where a call of the learner's code made something else than the reference did from the same input.

    Both traced with `snapshot`. Values of one name are compared in the order in which they were made,
    and what both gave back; names that only one of them has are nobody's mistake.
    """
    expected: dict[str, list] = {}
    for made in reference.made:
        expected.setdefault(made.name, []).append(made.value)
    found = []
    for made in call.made:
        if expected.get(made.name):
            what = apart(made.value, expected[made.name].pop(0), tolerance)
            if what is not None:
                found.append(Difference(made.line, made.name, what))
    return found


def compare(own, reference, *arguments, tolerance: float = 1e-3) -> list[Difference]:
    """Runs a function, method or module of a learner's and the reference's on the same input; compares them.

    Each gets a copy of the arguments, because attention extends the cache that it is given. Two modules
    are to have the same weights. Where the learner's code stops, that is the last difference.
    """
    traced = []
    for thing in (own, reference):
        with Tracer([type(thing) if isinstance(thing, nn.Module) else thing], snapshot) as tracer:
            try:
                thing(*copy.deepcopy(arguments))
            except Exception as error:
                if thing is reference or not tracer.calls:
                    raise
                tracer.calls[0].error = f"{type(error).__name__}: {error}"
        traced.append(tracer.calls[0])
    found = differences(*traced, tolerance)
    if traced[0].stopped:
        found.append(Difference(traced[0].last_line, traced[0].name, f"stopped with {traced[0].error}"))
    return found
