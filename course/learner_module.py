"""The module in which an exercise is tried: the reference's, with the learner's definition in it.

Only the exercise's own definition is the learner's, and whatever else the learner added (imports,
constants, helper functions). So it does not matter what state its neighbors are in, and exercises can
be solved in any order.
"""

import ast
import re
import types
from dataclasses import dataclass

from course.exercise import Exercise
from course.exercises import FILES, OWNERS
from course.learner_file import LearnerFile
from course.outcome import Flaw
from course.source import find, reference


@dataclass
class Module:
    """A module's names with a dot in front, module.Attention, and the text that they come from."""

    names: dict
    path: str = ""
    lines: list[str] | tuple = ()

    def __getattr__(self, name: str):
        try:
            return self.names[name]
        except KeyError:
            raise AttributeError(name) from None


def reference_module(file: str) -> Module:
    return Module(vars(reference(file)))


def module_for(exercise: Exercise, file: LearnerFile) -> Module:
    """The reference's names, with this exercise's definition taken from the learner's file.

    The parts of a class that belong to other exercises come from the reference. Raises a Flaw if the
    definition cannot be used.
    """
    file.refuse_unusable(exercise)
    names = dict(vars(reference(file.file)))
    names["__name__"], names["__file__"] = f"{file.file}_0", str(file.path)
    for statement in file.added():
        execute(file, statement, names, quiet=True)
    node = find(file.tree, exercise.owner)
    if node is not None:
        execute(file, node, names)
    made = names[exercise.owner]
    if isinstance(made, type):
        for part, other in OWNERS.items():
            owner, _, method = part.partition(".")
            if owner == exercise.owner and other is not exercise:
                given = vars(getattr(reference(file.file), owner))[method]
                setattr(made, method, rebind(given, made))
    return Module(names, str(file.path), file.lines)


def execute(
    file: LearnerFile, statement: ast.stmt, names: dict, quiet: bool = False, module_set: str = "1"
) -> None:
    """Runs a statement of a file; its imports of the other `_0` files are of module_set's."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        statement = UseSet(module_set).visit(ast.parse(ast.unparse(statement)).body[0])
    try:
        code = compile(ast.Module(body=[statement], type_ignores=[]), str(file.path), "exec")
        exec(code, names)
    except (Exception, SystemExit) as error:
        # A constant that cannot be made is noticed where it is used.
        if not quiet:
            raise Flaw(
                "definition",
                f"{file.path.name}:{statement.lineno}: the definition itself stops with "
                f"{type(error).__name__}: {error}",
                ["    " + file.lines[statement.lineno - 1].strip()],
            ) from error


class UseSet(ast.NodeTransformer):
    """Imports of the learner's other files are answered by the files of a set."""

    def __init__(self, module_set: str):
        self.module_set = module_set

    def of_the_set(self, name: str) -> str:
        file = re.sub(r"_[01]$", "", name)
        return f"{file}_{self.module_set}" if file in FILES else name

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        node.module = node.module and self.of_the_set(node.module)
        return node

    def visit_Import(self, node: ast.Import) -> ast.Import:
        for name in node.names:
            if self.of_the_set(name.name) != name.name:
                name.asname = name.asname or name.name
                name.name = self.of_the_set(name.name)
        return node


def rebind(function, cls: type):
    """A method of one class as a method of another: super() is to mean the new one's."""
    if not isinstance(function, types.FunctionType) or not function.__closure__:
        return function
    cells = [
        types.CellType(cls) if name == "__class__" else cell
        for name, cell in zip(function.__code__.co_freevars, function.__closure__, strict=True)
    ]
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
