"""Changes the source of an exercise: known mistakes and other right ways are made in this way."""

import ast
import inspect
import textwrap

from course.exercise import Change, Exercise
from course.source import definition_lines, find, lines_of, parse


def apply_change(source: str, exercise: Exercise, change: Change) -> str:
    """The source of a module with one exercise changed, in one of the three ways of a Change."""
    if isinstance(change, dict):
        return replace_text(source, exercise, change)
    return replace_functions(source, exercise, functions_of(exercise, change))


def replace_text(source: str, exercise: Exercise, change: dict[str, str]) -> str:
    """Old text and new text; the old one has to occur in a part of the exercise."""
    lines = source.split("\n")
    tree = parse(source)
    left = set(change)
    for part in sorted(exercise.parts, key=lambda part: -definition_lines(tree, part)[0]):
        first, last = definition_lines(tree, part)
        text = "\n".join(lines[first:last])
        # A docstring holds formulas that look like code.
        node = ast.parse(textwrap.dedent(text)).body[0]
        start = first + (node.body[0].end_lineno if ast.get_docstring(node) is not None else 0)
        text = "\n".join(lines[start:last])
        for old, new in change.items():
            if old in text:
                text = text.replace(old, new)
                left.discard(old)
        lines[start:last] = text.split("\n")
    if left:
        raise ValueError(f"{exercise.name}: not in its source: {sorted(left)}")
    return "\n".join(lines)


def functions_of(exercise: Exercise, change) -> dict[str, str]:
    """The text of functions by the names that they are to have."""
    text = textwrap.dedent(inspect.getsource(change))
    [node] = ast.parse(text).body
    if not isinstance(change, type):
        name = exercise.name.split(".")[-1]
        return {name: text.replace(f"def {node.name}(", f"def {name}(", 1)}
    return {
        method.name: textwrap.dedent(ast.get_source_segment(text, method, padded=True))
        for method in node.body
        if isinstance(method, ast.FunctionDef)
    }


def replace_functions(source: str, exercise: Exercise, functions: dict[str, str]) -> str:
    """Whole functions in place of those of the same name; new ones are put behind the others."""
    in_class = any("." in part for part in exercise.parts)
    for name, text in functions.items():
        text = textwrap.indent(text, "    ") if in_class else text
        lines = source.split("\n")
        tree = parse(source)
        owner = find(tree, exercise.owner) if in_class else tree
        old = find(owner, name)
        if old is None:  # a helper of the variant's own
            lines[owner.end_lineno : owner.end_lineno] = ["", *text.rstrip("\n").split("\n")]
        else:
            lines[slice(*lines_of(old))] = text.rstrip("\n").split("\n")
        source = "\n".join(lines)
    return source
