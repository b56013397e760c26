"""Small repairs of the learner's own code: with one of them, all cases may pass.

Where a learner's lines are near the reference's, what differs is soon found by laying the two side by side.
Each difference by itself is undone in the learner's code, the smallest first, and all cases are tried
again. If all pass, the line is named, with what stands there and what could. Where the learner went
another way, the same is done with small edits of any kind (course/edits.py).
"""

import ast
import copy
import dataclasses
import difflib
import functools
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from course.edits import LONGEST, Edit, Names, edits_far, edits_near, first_line, shortened, small
from course.exercise import Exercise
from course.exercises import OWNERS
from course.learner_file import LearnerFile
from course.learner_module import Module, module_of
from course.source import FUNCTIONS, find, parse, reference_source, statements

ALIKE = 0.6  # how much of two texts has to be the same for one to be meant by the other
FEW_NODES = 10  # of an expression that may be put in another's place, however different
FEW_LINES = 3  # of a function that would be given away by one of them


@dataclass(frozen=True, eq=False)
class Repair:
    """One change of the learner's code."""

    edit: Edit
    at: ast.AST  # the statement that it is in
    path: str
    where: str = ""  # " in float32", if it repairs these cases alone

    @property
    def line(self) -> int:
        return getattr(self.edit.shown, "lineno", None) or getattr(self.at, "lineno", 0)

    @functools.cached_property
    def texts(self) -> tuple[str, str]:
        """What stands there ("" where a line is missing), and what would be right ("": nothing)."""
        old, new = self.edit.texts()
        return "" if old == "pass" else old, "" if new == "pass" else new

    @property
    def old(self) -> str:
        return self.texts[0]

    @property
    def new(self) -> str:
        return self.texts[1]

    @property
    def title(self) -> str:
        if not self.old:
            return f"without a line such as `{self.new}`"
        return f"with `{self.old}`" + (f" in place of `{self.new}`" if self.new else "")

    @property
    def sentence(self) -> str:
        place, so = f"{self.path}:{self.line}", f"all cases{self.where} pass."
        if not self.old:
            return f"A line is missing before {place}: with `{self.new}` there, {so}"
        if not self.new:
            return f"Look at {place}: without `{self.old}`, {so}"
        return f"Look at {place}: with `{self.new}` in place of `{self.old}`, {so}"


class Own:
    """The learner's definition of an exercise, as a tree that can be edited and run."""

    def __init__(self, exercise: Exercise, file: LearnerFile, module: Module):
        self.exercise, self.module, self.path = exercise, module, file.path.name
        found = find(file.tree, exercise.owner)
        self.tree = copy.deepcopy(found) if found is not None else ast.Module([], [])
        if isinstance(self.tree, ast.ClassDef):
            foreign = {part for part, other in OWNERS.items() if other is not exercise}
            self.tree.body = [
                node
                for node in self.tree.body
                if f"{exercise.owner}.{getattr(node, 'name', '')}" not in foreign
            ]
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.ClassDef, *FUNCTIONS)) and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]

    @property
    def functions(self) -> list[tuple[ast.FunctionDef, ast.FunctionDef]]:
        """The functions to be written: the learner's and the reference's."""
        right = parse(reference_source(self.exercise.file))
        pairs = []
        for part in self.exercise.parts:
            in_class = "." in part and hasattr(self.tree, "body")
            own = find(self.tree, part.split(".", 1)[1]) if in_class else self.tree
            if isinstance(own, FUNCTIONS):
                pairs.append((own, find(right, part)))
        return pairs

    def repaired(self, edit: Edit) -> Module | None:
        """The learner's module with an edit in it; None if that is no Python."""
        with edit, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for new in edit.new if isinstance(edit.new, list) else [edit.new]:
                    ast.fix_missing_locations(new)  # the rest has had its own from the beginning
                return module_of(self.exercise, self.tree, self.module.names)
            except Exception:  # whatever it is, it is no repair
                return None


def repairs(own: Own, alone: bool = True) -> Iterator[Repair]:
    """What differs from the reference, each by itself, the smallest first."""
    found = []
    for function, right in own.functions:
        renamed = in_names_of(function, right)
        changes = node_differences(function, "args", None, function.args, renamed.args, function)
        changes += list_differences(function, "decorator_list", renamed.decorator_list, function)
        first, lines = function.body[0], statements(renamed)
        changes += block_differences(function, "body", function.body, lines, first)
        made = (Repair(one.edit, one.at, own.path) for one in changes if one.alone == alone)
        found += [repair for repair in made if is_small(repair, len(lines))]
    yield from sorted(found, key=lambda repair: len(repair.old) + len(repair.new))


def other_repairs(own: Own) -> tuple[Iterator[Repair], Iterator[Repair]]:
    """Small edits of any kind, and what is put around the learner's values."""
    functions = [function for function, _ in own.functions]
    near = (found for function in functions for found in edits_near(function, own.tree))
    exchanged = ((edit, edit.shown) for function in functions for edit in names_exchanged(function))
    far = edits_far(own.exercise, functions, own.tree)
    return (
        (Repair(edit, at, own.path) for edit, at in itertools.chain(near, exchanged)),
        (Repair(edit, at, own.path) for edit, at in far),
    )


def names_exchanged(function: ast.FunctionDef) -> Iterator[Edit]:
    """A variable that should have been another one: `out = layer(x)` where `x = layer(x)` was meant."""
    lines = [line for line in ast.walk(function) if isinstance(line, ast.Assign)]
    lines = [line for line in lines if isinstance(line.targets[0], ast.Name)]
    for line in lines:
        old = line.targets[0].id
        for new in dict.fromkeys(n.id for n in ast.walk(line.value) if isinstance(n, ast.Name)):
            if new == old or new not in Names(function, function).local:
                continue
            body = copy.deepcopy(function.body)
            for node in (node for statement in body for node in ast.walk(statement)):
                if isinstance(node, ast.Name) and node.id == old:
                    node.id = new
            renamed = ast.copy_location(ast.Assign([ast.Name(new, ast.Store())], line.value), line)
            yield Lines(function, "body", None, body, line, new_text=renamed)


def is_small(repair: Repair, lines: int) -> bool:
    """Would it not hand out half of the solution? One of several lines is not half of it."""
    return not repair.old or not repair.new or lines > FEW_LINES or is_similar(repair.edit)


def is_similar(edit: Edit) -> bool:
    """Does what stands there look like what would be right, or is it a small thing?"""
    few = isinstance(edit.new, ast.AST) and len(list(ast.walk(edit.new))) <= FEW_NODES
    return few or difflib.SequenceMatcher(None, *edit.texts(), False).ratio() >= ALIKE


def in_names_of(own: ast.FunctionDef, right: ast.FunctionDef) -> ast.FunctionDef:
    """The reference's function with its variables named as the learner named the same ones."""
    renamed = copy.deepcopy(right)
    taken = {node.id for node in ast.walk(own) if isinstance(node, ast.Name)}
    for line in ast.walk(renamed):
        if not isinstance(line, ast.Assign) or len(line.targets) != 1:
            continue
        for other in ast.walk(own):
            if isinstance(other, ast.Assign) and ast.unparse(other.value) == ast.unparse(line.value):
                pairs = zip(ast.walk(line.targets[0]), ast.walk(other.targets[0]), strict=False)
                new = {
                    one.id: two.id
                    for one, two in pairs
                    if isinstance(one, ast.Name) and isinstance(two, ast.Name) and one.id not in taken
                }
                for node in ast.walk(renamed):
                    if isinstance(node, ast.Name):
                        node.id = new.get(node.id, node.id)
    return renamed


class Change(NamedTuple):
    """A difference that is undone: the edit, the statement that it is in, and whether it stands alone.

    Where a learner has more lines than the reference, or fewer, one that looks like one of the reference's
    need not be what is wrong.
    """

    edit: Edit
    at: ast.AST
    alone: bool = True


Found = list[Change]


def block_differences(owner: ast.AST, field: str, own: list, right: list, after: ast.AST) -> Found:
    """Lines that differ, that are missing, too much, or in another place."""
    found: Found = []
    texts = [[ast.unparse(line) for line in block] for block in (own, right)]
    missing, extra = [], []  # (place in own, line of the reference), places in own
    for kind, a, b, c, d in difflib.SequenceMatcher(None, *texts, False).get_opcodes():
        if kind == "equal":
            continue
        pairs = pairs_of(texts[0][a:b], texts[1][c:d])
        for i, j in pairs:
            differences = node_differences(owner, field, a + i, own[a + i], right[c + j], own[a + i])
            if b - a != d - c:
                differences = [one._replace(alone=False) for one in differences if is_similar(one.edit)]
            found += differences
        extra += [a + i for i in range(b - a) if i not in dict(pairs)]
        last = {j: a + i for i, j in pairs}
        for j in range(d - c):
            if j not in last:
                place = next((last[k] + 1 for k in range(j - 1, -1, -1) if k in last), a)
                missing.append((place, right[c + j]))

    def whole(new: list, old_text: ast.AST, new_text: ast.AST, at: ast.AST):
        found.append(Change(Lines(owner, field, None, new, old_text, new_text=new_text), at))

    returns = any(isinstance(line, ast.Return) for line in own)
    end = own[-1] if own else after
    for i in extra:
        whole([*own[:i], *own[i + 1 :]] or [ast.Pass()], own[i], ast.Pass(), own[i])
    for place, line in missing:
        at = own[place] if place < len(own) else end
        # Next to other lines of the learner's it would be no addition: it would take their place.
        if not extra and not (isinstance(line, ast.Return) and returns):
            whole([*own[:place], line, *own[place:]], ast.Pass(), line, at)
        for i in extra:  # one is there in another place, or in another form
            change = Lines(owner, field, None, [], own[i], new_text=line)
            if not same_kind(own[i], line) or not is_similar(change):
                continue
            rest = [*own[:place], line, *own[place:]]
            del rest[i + (place <= i)]
            found.append(Change(dataclasses.replace(change, new=rest), own[i], False))
    return found


def pairs_of(own: list[str], right: list[str]) -> list[tuple[int, int]]:
    """Which of these lines are meant to be the same, in order."""
    if len(own) == len(right):
        return list(zip(range(len(own)), range(len(right)), strict=True))
    pairs, first = [], 0
    for i, text in enumerate(own):
        ratios = [difflib.SequenceMatcher(None, text, other, False).ratio() for other in right[first:]]
        if ratios and max(ratios) >= ALIKE:
            pairs.append((i, first + ratios.index(max(ratios))))
            first = pairs[-1][1] + 1
    return pairs


def node_differences(
    parent: ast.AST, field: str, index: int | None, own: ast.AST, right: ast.AST, shown: ast.AST
) -> Found:
    """Where one expression or statement differs from the other: each place, and then larger ones around."""
    if ast.dump(own) == ast.dump(right):
        return []
    statement = own if isinstance(own, ast.stmt) else shown
    found: Found = []
    if type(own) is type(right):
        for name, value in ast.iter_fields(own):
            other = getattr(right, name)
            if isinstance(value, list) and isinstance(other, list):
                if name in ("body", "orelse", "finalbody"):
                    found += block_differences(own, name, value, other, statement)
                else:
                    found += list_differences(own, name, other, statement)
            elif isinstance(value, ast.AST) and isinstance(other, ast.AST):
                if not isinstance(value, (ast.expr_context,)):
                    found += node_differences(own, name, None, value, other, statement)
            elif value != other and isinstance(own, ast.stmt):
                found.append(Change(Edit(own, name, None, other, own), statement))
    if isinstance(own, (ast.expr, ast.operator, ast.cmpop, ast.boolop, ast.unaryop, ast.keyword)):
        found.append(Change(Edit(parent, field, index, right, around(statement, own, parent)), statement))
    elif isinstance(own, (ast.comprehension, ast.arguments, ast.arg, ast.withitem)):
        found.append(Change(Edit(parent, field, index, right, statement), statement))
    elif same_kind(own, right) and not hasattr(own, "body"):
        found.append(Change(Lines(parent, field, index, right, own, new_text=right), statement))
    return found


def same_kind(own: ast.AST, right: ast.AST) -> bool:
    assigns = (ast.Assign, ast.AugAssign, ast.AnnAssign)
    return type(own) is type(right) or (isinstance(own, assigns) and isinstance(right, assigns))


def list_differences(own: ast.AST, name: str, right: list, statement: ast.AST) -> Found:
    """Arguments, parts of a tuple and so on: each that differs, one that is missing or too much."""
    mine = getattr(own, name)
    if len(mine) == len(right):
        return [
            difference
            for i, (one, two) in enumerate(zip(mine, right, strict=True))
            if isinstance(one, ast.AST) and isinstance(two, ast.AST)
            for difference in node_differences(own, name, i, one, two, statement)
        ]
    if isinstance(own, ast.Compare):  # its operators would have to change with them
        return []
    shown = own if isinstance(own, ast.expr) else statement
    return [Change(Edit(own, name, None, right, shown), statement)]


def around(statement: ast.AST, node: ast.AST, parent: ast.AST) -> ast.AST:
    """The smallest expression around a node that says something by itself, or the statement."""
    if isinstance(parent, ast.Call) and node is parent.func:
        return parent
    if isinstance(node, ast.expr) and not small(node):
        return node
    parents = {id(child): one for one in ast.walk(statement) for child in ast.iter_child_nodes(one)}
    while isinstance(parent, ast.AST) and small(parent) and len(first_line(parent)) <= LONGEST:
        if id(parent) not in parents:
            break
        parent = parents[id(parent)]
    if isinstance(parent, (ast.expr, ast.stmt)) and len(first_line(parent)) <= LONGEST:
        return parent
    return node if isinstance(node, ast.expr) else statement


@dataclass(frozen=True, eq=False)
class Lines(Edit):
    """A change of whole lines, whose texts are known."""

    new_text: ast.AST | None = None

    def texts(self) -> tuple[str, str]:
        return shortened(first_line(self.shown), first_line(self.new_text))
