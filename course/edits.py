"""Small edits of the reference: one of them may come to the same as the learner's code.

No list of known mistakes is ever complete. Where none of them fits, the reference's lines are changed in
one place at a time (an operator, a number, a name, a call or a line that is left out) until what comes out
equals what the learner's code came to, in every case. Then the place is named, in the reference's words.
"""

import ast
import copy
import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from course.exercise import Exercise
from course.exercises import OWNERS
from course.learner_module import Module, module_of
from course.source import find, parse, reference, reference_source, statements

LONGEST = 72  # an expression that is shown

OPERATORS = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq, ast.LtE, ast.GtE),
    ast.NotEq: (ast.Eq, ast.Lt, ast.Gt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
}
SIBLINGS = [  # names that are taken for each other
    ("cos", "sin"),
    ("gelu", "relu", "silu", "sigmoid", "tanh"),
    ("sum", "mean"),
    ("max", "min"),
    ("any", "all"),
    ("rsqrt", "sqrt"),
    ("ones", "zeros"),
    ("new_ones", "new_zeros"),
    ("cumsum", "cumprod"),
    ("BICUBIC", "BILINEAR", "NEAREST", "LANCZOS", "BOX", "HAMMING"),
    ("masked_scatter", "masked_fill"),
    ("float32", "float64"),
]

ABOUT_SHAPES = (
    "view",
    "reshape",
    "expand",
    "transpose",
    "permute",
    "flatten",
    "unflatten",
    "chunk",
    "to",
    "finfo",
)

# What may be put around an expression, or in its place: tried last, because there is much of it.
AROUND = [
    "-({})",
    "({}) * 2",
    "({}) / 2",
    "({}) + 1",
    "({}) - 1",
    "1 - ({})",
    "torch.relu({})",
    'F.gelu({}, approximate="tanh")',
    "F.silu({})",
    "torch.tanh({})",
    "torch.sigmoid({})",
    "F.softmax({}, dim=-1)",
    "F.log_softmax({}, dim=-1)",
    "F.layer_norm({0}, ({0}).shape[-1:])",
    "F.normalize({}, dim=-1)",
    "({}).abs()",
    "({}) ** 2",
    "({}) ** 0.5",
    "1 / ({})",
    "({}).flip(0)",
    "({}).flip(1)",
    "({}).flip(-1)",
    "({})[::-1]",
    "({})[:1]",
    "({})[:-1]",
    "({})[:, 1:]",
    "({})[:, :-1]",
    "({})[:, -1:]",
    "({}).mean(dim=1)",
    "({}).mean(dim=0)",
    "({}).transpose(-1, -2)",
    "({}).float()",
    "0",
    "1",
    "-1.0",
]


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of the reference: a child of a node is replaced, for as long as it is tried."""

    node: ast.AST
    field: str
    index: int | None
    new: ast.AST | list
    shown: ast.AST  # the expression or statement around it, for the message
    where: str = ""  # " in float32", if it explains these cases alone

    @property
    def title(self) -> str:
        old, new = self.texts()
        return f"without the line `{old}`" if new == "pass" else f"when `{old}` is `{new}`"

    @property
    def sentence(self) -> str:
        old, new = self.texts()
        if new == "pass":
            return f"The reference comes to the same{self.where} without its line `{old}`."
        return f"The reference comes to the same{self.where} if its `{old}` is changed to `{new}`."

    def texts(self) -> tuple[str, str]:
        """What is shown, as it is and with the change."""
        if isinstance(self.shown, ast.Module):
            first, second = map(first_line, self.shown.body)
            return f"{first}; {second}", f"{second}; {first}"
        if isinstance(self.shown, ast.stmt) and isinstance(self.new, ast.Pass):
            return first_line(self.shown), "pass"
        old = first_line(self.shown)
        with self:
            return shortened(old, first_line(self.new if self.shown is self._old else self.shown))

    def _put(self, value):
        if self.index is None:
            setattr(self.node, self.field, value)
        else:
            getattr(self.node, self.field)[self.index] = value

    def __enter__(self):
        kept = getattr(self.node, self.field)
        object.__setattr__(self, "_old", kept if self.index is None else kept[self.index])
        self._put(self.new)

    def __exit__(self, *_):
        self._put(self._old)


def alike_at_the_beginning(one: str, other: str) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def shortened(old: str, new: str) -> tuple[str, str]:
    """Of long texts what differs, with a few words around it."""
    if max(len(old), len(new)) <= LONGEST:
        return old, new
    begin = alike_at_the_beginning(old, new)
    end = alike_at_the_beginning(old[begin:][::-1], new[begin:][::-1])
    begin = max(0, old.rfind(" ", 0, max(0, begin - 20)) + 1)
    end = max(0, end - 20)
    while end and old[-end] not in " )]":
        end -= 1
    return tuple(
        ("... " if begin else "") + text[begin : len(text) - end] + (" ..." if end else "")
        for text in (old, new)
    )


def first_line(node: ast.AST) -> str:
    if isinstance(node, ast.If):
        return f"if {ast.unparse(node.test)}:"
    return ast.unparse(node).splitlines()[0]


@functools.cache
def own_tree(exercise: Exercise) -> ast.stmt:
    """The reference's definition of the exercise's class or function, to be edited.

    Without what would only be compiled again and again: docstrings, and methods of other exercises.
    """
    tree = copy.deepcopy(find(parse(reference_source(exercise.file)), exercise.owner))
    if isinstance(tree, ast.ClassDef):
        foreign = {part for part, other in OWNERS.items() if other is not exercise}
        tree.body = [node for node in tree.body if f"{tree.name}.{getattr(node, 'name', '')}" not in foreign]
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.fix_missing_locations(tree)


@functools.cache
def all_edits(exercise: Exercise) -> tuple[list[Edit], list[Edit]]:
    """All small edits of the exercise's functions, and what is put around its values."""
    tree = own_tree(exercise)
    functions = [find(tree, part.split(".", 1)[1]) if "." in part else tree for part in exercise.parts]
    near = [edit for function in functions for edit, _ in edits_near(function, tree)]
    return near, [edit for edit, _ in edits_far(exercise, functions, tree)]


Found = tuple[Edit, ast.AST]  # and the statement that it is in


def edits_near(function: ast.FunctionDef, tree: ast.AST) -> Iterator[Found]:
    names = Names(function, tree)
    for statement in statements(function):
        yield from ((edit, statement) for edit in edits_of(statement, statement, names))
    yield from ((edit, edit.shown) for edit in line_edits(function, names))


def edits_far(exercise: Exercise, functions: list[ast.FunctionDef], tree: ast.AST) -> list[Found]:
    """The likeliest change in all places comes before the next one."""
    found = []
    for function in functions:
        names = Names(function, tree)
        for statement in statements(function) if function.name != "__init__" else ():
            around = edits_around(exercise, statement, statement, names)
            found += [(rank, edit, statement) for rank, edit in around]
    return [(edit, statement) for _, edit, statement in sorted(found, key=lambda one: one[0])]


class Names:
    """What may be confused in a function: its own variables, and attributes of the same object."""

    def __init__(self, function: ast.FunctionDef, tree: ast.stmt):
        nodes = list(ast.walk(function))
        self.arguments = [a.arg for a in function.args.args if a.arg != "self"]
        stored = [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        self.local = list(dict.fromkeys([*self.arguments, *stored]))
        self.attributes: dict[str, list[str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                known = self.attributes.setdefault(node.value.id, [])
                if node.attr not in known:
                    known.append(node.attr)


def positive(node: ast.AST) -> bool:
    return not isinstance(node, ast.Constant) or not isinstance(node.value, (int, float)) or node.value > 0


def edits_of(node: ast.AST, shown: ast.AST, names: Names) -> Iterator[Edit]:
    """Every edit of an expression inside of a statement."""
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        for i, child in enumerate(children):
            if not isinstance(child, ast.AST) or isinstance(child, (ast.expr_context, ast.operator)):
                continue
            index = i if isinstance(value, list) else None
            if isinstance(child, ast.stmt):
                if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    yield from edits_of(child, child, names)
                continue
            around = shown if small(node) or isinstance(child, ast.stmt) else node
            if isinstance(child, ast.expr):
                for new in replacements(child, names):
                    if isinstance(node, ast.UnaryOp) and not positive(new):
                        continue  # -0 and --1 say nothing
                    yield Edit(node, name, index, new, around)
            elif isinstance(child, ast.keyword):
                rest = value[:i] + value[i + 1 :]
                yield Edit(node, name, None, rest, around)
            yield from edits_of(child, around if small(child) else child, names)


def edits_around(
    exercise: Exercise, node: ast.AST, shown: ast.AST, names: Names
) -> Iterator[tuple[int, Edit]]:
    """Something put around each value in a statement, or another name from elsewhere in its place.

    Each with its rank: how early it is to be tried.
    """
    known = vars(reference(exercise.file))
    for name, value in ast.iter_fields(node):
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or name in ("targets", "target", "test", "ctx", "slice"):
                continue
            if name == "args" and getattr(getattr(node, "func", None), "attr", "") in ABOUT_SHAPES:
                continue
            index = i if isinstance(value, list) else None
            around = child if isinstance(child, ast.stmt) else shown if small(node) else node
            if is_value(child, names):
                text = ast.unparse(child)
                for rank, template in enumerate(AROUND):
                    if template_fits(template, known):
                        new = ast.parse(template.format(text), mode="eval").body
                        yield rank, Edit(node, name, index, new, around)
                yield from ((9, Edit(node, name, index, new, around)) for new in of_elsewhere(child, names))
            if name != "func" or isinstance(child, ast.Attribute):
                yield from edits_around(exercise, child, around if small(child) else child, names)


def template_fits(template: str, known: dict) -> bool:
    """Tensors cannot be reversed by a step, and the processor has no F."""
    if template == "({})[::-1]":
        return "np" in known
    return not template.startswith(("F.", "torch.")) or template.split(".")[0] in known


def is_value(node: ast.AST, names: Names) -> bool:
    if isinstance(node, ast.Name):
        return isinstance(node.ctx, ast.Load) and node.id in names.local
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id in ("self", "config")
    return isinstance(node, (ast.Call, ast.BinOp, ast.Subscript, ast.IfExp))


def of_elsewhere(node: ast.AST, names: Names) -> Iterator[ast.expr]:
    """A variable for an attribute and the other way around; a module that is applied once more."""
    if isinstance(node, ast.Attribute):
        yield from (ast.Name(name, ast.Load()) for name in names.local)
    own = [
        ast.Attribute(ast.Name("self", ast.Load()), name, ast.Load())
        for name in names.attributes.get("self", [])
    ]
    if isinstance(node, ast.Name):
        yield from own
    if isinstance(node, (ast.Name, ast.Call)):
        yield from (ast.Call(attribute, [node], []) for attribute in own)


def small(node: ast.AST) -> bool:
    """Says too little by itself: a number, a name, a slice; or is too long to be shown."""
    if isinstance(node, ast.stmt):
        return False
    if isinstance(
        node, (ast.Constant, ast.Name, ast.Attribute, ast.Slice, ast.keyword, ast.Tuple, ast.UnaryOp)
    ):
        return True
    return not isinstance(node, ast.expr) or len(ast.unparse(node)) > LONGEST


def replacements(node: ast.expr, names: Names) -> Iterator[ast.expr]:
    handler = HANDLERS.get(type(node))
    if handler is not None and not isinstance(getattr(node, "ctx", None), ast.Store):
        yield from handler(node, names)


def of_constant(node: ast.Constant, names: Names):
    value = node.value
    if isinstance(value, bool):
        others = [not value]
    elif isinstance(value, int):
        others = [value + 1, value - 1, -value, 0, 1, 2, 3, -1, -2]
    elif isinstance(value, float):
        others = [value * 2, value / 2, -value, 1.0, value * 10, value / 10]
    else:
        others = ["none"] if value == "tanh" else []
    for other in dict.fromkeys(others):
        if other != value or type(other) is not type(value):
            yield ast.Constant(other)


def of_name(node: ast.Name, names: Names):
    if node.id in names.local:
        for other in names.local:
            if other != node.id:
                yield ast.Name(other, ast.Load())


def of_attribute(node: ast.Attribute, names: Names):
    for group in SIBLINGS:
        if node.attr in group:
            for other in group:
                if other != node.attr:
                    yield ast.Attribute(node.value, other, ast.Load())
    if isinstance(node.value, ast.Name) and node.value.id in ("self", "config"):
        for other in names.attributes[node.value.id]:
            if other != node.attr:
                yield ast.Attribute(node.value, other, ast.Load())
    elif node.attr == "weight" or isinstance(node.value, ast.Attribute):
        yield node.value


def of_binary(node: ast.BinOp, names: Names):
    yield node.left
    yield node.right
    for operator in OPERATORS.get(type(node.op), ()):
        yield ast.BinOp(node.left, operator(), node.right)
    if isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult, ast.Pow, ast.FloorDiv)):
        yield ast.BinOp(node.right, node.op, node.left)
    if isinstance(node.left, ast.BinOp):  # (a - b) / c as a - b / c
        inner = ast.BinOp(node.left.right, node.op, node.right)
        yield ast.BinOp(node.left.left, node.left.op, inner)
    if isinstance(node.op, ast.Mult | ast.Div):  # twice
        yield ast.BinOp(node, node.op, node.right)


def of_unary(node: ast.UnaryOp, names: Names):
    yield node.operand


def of_compare(node: ast.Compare, names: Names):
    for other in COMPARISONS.get(type(node.ops[0]), ()):
        yield ast.Compare(node.left, [other()], node.comparators)
    yield ast.Constant(True)
    yield ast.Constant(False)


def of_bool(node: ast.BoolOp, names: Names):
    yield from node.values
    yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)


def of_choice(node: ast.IfExp, names: Names):
    yield node.body
    yield node.orelse
    yield ast.IfExp(node.test, node.orelse, node.body)


def of_call(node: ast.Call, names: Names):
    receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
    if receiver is not None and (not isinstance(receiver, ast.Name) or receiver.id in names.local):
        yield receiver
    if node.args and not isinstance(node.args[0], ast.Starred):
        yield node.args[0]
    inner = node.args[0] if len(node.args) == 1 else None
    if isinstance(inner, ast.Call) and len(inner.args) == 1:  # f(g(x)) as g(f(x))
        first = ast.Call(node.func, inner.args, node.keywords)
        yield ast.Call(inner.func, [first], inner.keywords)
    for i in range(len(node.args)):
        if len(node.args) > 1:
            yield ast.Call(node.func, node.args[:i] + node.args[i + 1 :], node.keywords)
        if i:
            swapped = [*node.args]
            swapped[i - 1], swapped[i] = swapped[i], swapped[i - 1]
            yield ast.Call(node.func, swapped, node.keywords)
    if isinstance(receiver, ast.Call) and isinstance(receiver.func, ast.Attribute):  # x.f().g() as x.g().f()
        first = ast.Call(
            ast.Attribute(receiver.func.value, node.func.attr, ast.Load()), node.args, node.keywords
        )
        yield ast.Call(ast.Attribute(first, receiver.func.attr, ast.Load()), receiver.args, receiver.keywords)
    if receiver is not None and node.func.attr == "pow":
        yield ast.Call(ast.Attribute(receiver, "abs", ast.Load()), [], [])
    if isinstance(node.func, ast.Attribute) and node.func.attr == "softmax" and node.args:
        yield ast.Call(ast.Attribute(ast.Name("torch", ast.Load()), "sigmoid", ast.Load()), node.args[:1], [])


def of_subscript(node: ast.Subscript, names: Names):
    yield node.value
    if isinstance(node.slice, ast.Slice):
        low, high = node.slice.lower, node.slice.upper
        for new in (ast.Slice(high, low), ast.Slice(None, None)):
            yield ast.Subscript(node.value, new, ast.Load())
    if isinstance(node.slice, ast.Tuple):
        parts = node.slice.elts
        for i, part in enumerate(parts):
            if isinstance(part, ast.Slice) and (part.lower or part.upper):
                for new in (ast.Slice(part.upper, part.lower), ast.Slice(None, None)):
                    yield with_index(node, [*parts[:i], new, *parts[i + 1 :]])
            if i and ast.dump(part) != ast.dump(parts[i - 1]):
                yield with_index(node, [*parts[: i - 1], part, parts[i - 1], *parts[i + 1 :]])


def with_index(node: ast.Subscript, parts: list) -> ast.Subscript:
    return ast.Subscript(node.value, ast.Tuple(parts, ast.Load()), ast.Load())


def of_sequence(node: ast.Tuple | ast.List, names: Names):
    kind, parts = type(node), node.elts
    for i in range(1, len(parts)):
        yield kind([*parts[: i - 1], parts[i], parts[i - 1], *parts[i + 1 :]], ast.Load())
    if len(parts) > 1:
        for i in range(len(parts)):
            yield kind(parts[:i] + parts[i + 1 :], ast.Load())


def of_dict(node: ast.Dict, names: Names):
    for i in range(len(node.keys)):
        yield ast.Dict(node.keys[:i] + node.keys[i + 1 :], node.values[:i] + node.values[i + 1 :])


HANDLERS: dict[type, Callable] = {
    ast.Constant: of_constant,
    ast.Name: of_name,
    ast.Attribute: of_attribute,
    ast.BinOp: of_binary,
    ast.UnaryOp: of_unary,
    ast.Compare: of_compare,
    ast.BoolOp: of_bool,
    ast.IfExp: of_choice,
    ast.Call: of_call,
    ast.Subscript: of_subscript,
    ast.Tuple: of_sequence,
    ast.List: of_sequence,
    ast.Dict: of_dict,
}


def line_edits(function: ast.FunctionDef, names: Names) -> Iterator[Edit]:
    """Lines left out, exchanged, always or never done; results that are added to what went in."""
    for node in ast.walk(function):
        for name in ("body", "orelse"):
            block = getattr(node, name, None)
            if not isinstance(block, list):
                continue
            for i, line in enumerate(block):
                if isinstance(line, (ast.Assign, ast.AugAssign, ast.Raise)) or is_call(line):
                    yield Edit(node, name, i, ast.Pass(), line)
                if isinstance(line, ast.If):
                    yield Edit(node, name, i, ast.Pass(), line)
                    for test in (ast.Constant(True), ast.UnaryOp(ast.Not(), line.test)):
                        yield Edit(line, "test", None, test, line)
                if i and isinstance(line, ast.Assign) and isinstance(block[i - 1], ast.Assign):
                    swapped = [*block[: i - 1], line, block[i - 1], *block[i + 1 :]]
                    yield Edit(node, name, None, swapped, ast.Module([block[i - 1], line], []))
                if isinstance(line, ast.For):
                    yield from loop_edits(line)
                if isinstance(line, (ast.Assign, ast.Return)) and line.value is not None:
                    yield from value_edits(line, names)


def is_call(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Call)


def loop_edits(line: ast.For) -> Iterator[Edit]:
    first, last = ast.Slice(None, ast.Constant(1)), ast.Slice(None, ast.Constant(-1))
    every_other = ast.Slice(None, None, ast.Constant(2))
    from_last, from_second = ast.Slice(ast.Constant(-1), None), ast.Slice(ast.Constant(1), None)
    for part in (first, last, from_second, from_last, every_other):
        yield Edit(line, "iter", None, ast.Subscript(line.iter, part, ast.Load()), line)
    yield Edit(line, "iter", None, ast.Call(ast.Name("reversed", ast.Load()), [line.iter], []), line)


def value_edits(line: ast.Assign | ast.Return, names: Names) -> Iterator[Edit]:
    """A residual that is too much, and a gradient that is cut off."""
    used = names.arguments[:2] if isinstance(line, ast.Return) else []
    used += [name for name in names.local if isinstance(line, ast.Assign) and in_target(line, name)]
    for name in used:
        yield Edit(line, "value", None, ast.BinOp(ast.Name(name, ast.Load()), ast.Add(), line.value), line)
    detached = ast.Call(ast.Attribute(line.value, "detach", ast.Load()), [], [])
    yield Edit(line, "value", None, detached, line)


def in_target(line: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in line.targets)


def edited_module(exercise: Exercise, edit: Edit) -> Module | None:
    """The reference with an edit in it; None if that is no Python."""
    tree = own_tree(exercise)
    with edit, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a number that is called, say
        try:
            for new in edit.new if isinstance(edit.new, list) else [edit.new]:
                ast.fix_missing_locations(new)  # the rest has had its own from the beginning
            return module_of(exercise, tree)
        except Exception:  # whatever it is, it is not what the learner wrote
            return None
