"""The module in which an exercise is tried: the reference's, with the learner's definition in it.

Only the exercise's own definition is the learner's, and whatever else stands in the file (imports,
constants, helper functions). So it does not matter what state its neighbors are in, and exercises can
be solved in any order.
"""

import ast
import functools
import inspect
import re
import types
from dataclasses import dataclass, field
from pathlib import Path

from course.exercise import Exercise
from course.exercises import FILES, OWNERS
from course.learner_file import LearnerFile
from course.outcome import Flaw
from course.source import find, reference, reference_source


@dataclass
class Module:
    """A module's names with a dot in front, module.Attention, and the text that they come from."""

    names: dict
    path: str = ""
    lines: list[str] | tuple = ()
    failed: dict[str, str] = field(default_factory=dict)  # names that the learner's file could not make: why
    gone: dict[str, str] = field(default_factory=dict)  # names that the skeleton's file made: how

    def __getattr__(self, name: str):
        try:
            return self.names[name]
        except KeyError:
            raise AttributeError(name) from None

    def why_unknown(self, name: str) -> Flaw | None:
        """What to say of a name that is not known, if it is the fault of the top of the file."""
        file = Path(self.path).name
        if name in self.failed:
            return Flaw("error", self.failed[name])
        if name in self.gone:
            return Flaw(
                "error",
                f"`{name}` is not known: {file} has lost the line that made it.",
                [f"Put it back at the top of the file: {self.gone[name]}"],
            )
        return None


def reference_module(file: str) -> Module:
    return Module(vars(reference(file)))


@functools.cache
def made_at_the_top(file: str) -> dict[str, str]:
    """The names that a `_0` file needs besides the exercises, and the first line of what makes each."""
    made = {}
    text = UseSet("0").visit(ast.parse(reference_source(file)))
    for node in text.body:
        if getattr(node, "name", "") not in {exercise.owner for exercise in OWNERS.values()}:
            for name in names_made(node):
                made[name] = ast.unparse(node).splitlines()[0]
    return made


def names_made(node: ast.stmt) -> set[str]:
    """The names that a statement gives a value to."""
    if hasattr(node, "name"):
        return {node.name}
    parts = list(ast.walk(node))
    imported = (
        alias for part in parts if isinstance(part, (ast.Import, ast.ImportFrom)) for alias in part.names
    )
    made = {alias.asname or alias.name.split(".")[0] for alias in imported}
    return made | {
        part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    }


def module_for(exercise: Exercise, file: LearnerFile) -> Module:
    """The reference's names, with this exercise's definition taken from the learner's file.

    Other exercises' definitions are the reference's, and so are the parts of a class that belong to
    them. What stands at the top of the file (imports, constants, configs) has to be there: without it the
    learner's file could not be run. Raises a Flaw if the definition cannot be used.
    """
    file.refuse_unusable(exercise)
    top = made_at_the_top(file.file)
    there = {name for node in file.tree.body for name in names_made(node)}
    # Imports and constants are made by the learner's own lines, below.
    names = {
        name: value
        for name, value in vars(reference(file.file)).items()
        if name not in top or find(file.tree, name) is not None
    }
    names["__name__"], names["__file__"] = f"{file.file}_0", str(file.path)
    module = Module(names, str(file.path), file.lines, gone={k: v for k, v in top.items() if k not in there})
    for statement in file.added():
        if (error := execute(file, statement, names, quiet=True)) is not None:
            code = file.lines[statement.lineno - 1].strip()
            place = f"{file.path.name}:{statement.lineno}"
            why = f"`{code}` ({place}) does not work: {error}."
            if isinstance(error, NameError) and (unknown := module.why_unknown(error.name)):
                why = f"{unknown.headline} {' '.join(unknown.details)}"
            if isinstance(error, ModuleNotFoundError):
                why = (
                    f"`{code}` ({place}) does not work: there is no module {error.name!r} here. Is its name "
                    "spelled right? The exercises need none besides those at the top of the skeleton."
                )
            module.failed |= dict.fromkeys(names_made(statement) - set(names), why)
    node = find(file.tree, exercise.owner)
    if node is not None:
        try:
            execute(file, node, names)
        except Flaw as flaw:
            cause = flaw.__cause__
            unknown = module.why_unknown(cause.name) if isinstance(cause, NameError) else None
            if unknown is None:
                raise
            raise Flaw("definition", unknown.headline, unknown.details) from cause
    take_other_parts(exercise, names[exercise.owner])
    check_signatures(exercise, names, reference(file.file))
    return module


def take_other_parts(exercise: Exercise, made) -> None:
    """The methods of a class that belong to other exercises are the reference's."""
    for part, other in OWNERS.items() if isinstance(made, type) else ():
        owner, _, method = part.partition(".")
        if owner == exercise.owner and other is not exercise:
            given = vars(getattr(reference(exercise.file), owner))[method]
            setattr(made, method, rebind(given, made))


def module_of(exercise: Exercise, node: ast.stmt, among: dict | None = None) -> Module:
    """The reference's names (or others), with a definition in place of the exercise's."""
    names = dict(vars(reference(exercise.file)) if among is None else among)
    exec(compile(ast.Module(body=[node], type_ignores=[]), f"{exercise.file}_1.py", "exec"), names)
    take_other_parts(exercise, names[exercise.owner])
    return Module(names)


def check_signatures(exercise: Exercise, names: dict, right) -> None:
    """Raises a Flaw if a function cannot be called as the rest of the model calls it."""
    for part in exercise.parts:
        owner, _, method = part.partition(".")
        function, given = (
            vars(space[owner]).get(method) if method and isinstance(space[owner], type) else space[owner]
            for space in (names, vars(right))
        )
        if isinstance(function, types.FunctionType):
            check_signature(part, inspect.signature(function), inspect.signature(given), bool(method))


def check_signature(part: str, got: inspect.Signature, right: inspect.Signature, is_method: bool) -> None:
    listed, asked = list(got.parameters), list(right.parameters)
    name = part.split(".")[-1]
    plain = f"{name}({', '.join(listed)})"
    skeletons = f"The skeleton has: {name}({', '.join(asked)})."
    if is_method and listed[:1] != ["self"] and listed == asked[1:]:
        raise Flaw(
            "signature",
            f"`{name}` has no `self`: the first parameter of a method is the object itself.",
            [f"Yours: {plain}. {skeletons}"],
        )
    shared = [parameter for parameter in listed if parameter in asked]
    if shared != [parameter for parameter in asked if parameter in listed]:
        raise Flaw(
            "signature",
            f"the parameters of `{name}` stand in another order: callers pass them in the skeleton's.",
            [f"Yours: {plain}. {skeletons}"],
        )
    required = [p for p in right.parameters.values() if p.default is inspect.Parameter.empty]
    for arguments in (asked, required):
        try:
            got.bind(*arguments)
        except TypeError as error:
            raise Flaw(
                "signature",
                f"the signature of `{name}` was changed: it cannot be called as the rest of the "
                f"model calls it.",
                [f"Yours: {plain}. {skeletons} With {len(arguments)} arguments Python says: {error}."],
            ) from None


def execute(
    file: LearnerFile, statement: ast.stmt, names: dict, quiet: bool = False, module_set: str = "1"
) -> BaseException | None:
    """Runs a statement of a file; its imports of the other `_0` files are of module_set's.

    quiet: an error is returned, because a constant that cannot be made is noticed where it is used.
    """
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        statement = UseSet(module_set).visit(ast.parse(ast.unparse(statement)).body[0])
        statement = ast.fix_missing_locations(statement)
    try:
        code = compile(ast.Module(body=[statement], type_ignores=[]), str(file.path), "exec")
        exec(code, names)
    except (Exception, SystemExit) as error:
        if quiet:
            return error
        raise Flaw(
            "definition",
            f"{file.path.name}:{statement.lineno}: the definition itself stops with "
            f"{type(error).__name__}: {error}",
            ["    " + file.lines[statement.lineno - 1].strip()],
        ) from error
    return None


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
