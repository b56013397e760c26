"""Changes the source of an exercise: known mistakes and other right ways are made in this way."""

import ast
import functools
import textwrap

from course.exercise_types import Exercise


@functools.lru_cache(maxsize=32)
def parse(source: str) -> ast.Module:
    """The tree of a module, kept, since the same few texts are read again and again. Not to be changed."""
    return ast.parse(source)


def find(tree: ast.AST, name: str) -> ast.AST | None:
    """The class, function or method of a name such as `KVCache.update`: the last, as Python does."""
    for part in name.split("."):
        tree = next((node for node in reversed(tree.body) if getattr(node, "name", None) == part), None)
        if tree is None:
            return None
    return tree


def lines_of(node: ast.AST) -> tuple[int, int]:
    """First line of a definition, its decorators included, and the line after it; from 0."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1, node.end_lineno


def definition_lines(tree: ast.Module, name: str) -> tuple[int, int]:
    return lines_of(find(tree, name))


def apply_change(source: str, exercise: Exercise, change: dict[str, str] | str) -> str:
    """The source of a module with one exercise changed.

    change: a dict of old text to new text, each of which has to occur in a part of the exercise;
    or the full text of functions that take the place of those of the same name (in the class).
    """
    return (
        replace_text(source, exercise, change)
        if isinstance(change, dict)
        else replace_functions(source, exercise, change)
    )


def replace_text(source: str, exercise: Exercise, change: dict[str, str]) -> str:
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


def replace_functions(source: str, exercise: Exercise, change: str) -> str:
    change = textwrap.dedent(change).strip("\n")
    in_class = exercise.inside or not any(node.name == exercise.name for node in functions(change))
    for node in functions(change):
        text = ast.get_source_segment(change, node)
        if in_class:
            text = textwrap.indent(text, "    ")
        lines = source.split("\n")
        tree = parse(source)
        owner = find(tree, exercise.owner) if in_class else tree
        old = find(owner, node.name)
        if old is None:  # a helper of the variant's own
            end = owner.end_lineno if in_class else find(tree, exercise.owner).end_lineno
            lines[end:end] = ["", *text.split("\n")]
        else:
            lines[slice(*lines_of(old))] = text.split("\n")
        source = "\n".join(lines)
    return source


def functions(text: str) -> list[ast.FunctionDef]:
    return [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]


def paste(text: str, exercise: Exercise, source: str) -> str:
    """A text with the parts of one exercise taken from another text."""
    for part in exercise.parts:
        first, last = definition_lines(parse(source), part)
        new = source.split("\n")[first:last]
        lines = text.split("\n")
        first, last = definition_lines(parse(text), part)
        lines[first:last] = new
        text = "\n".join(lines)
    return text


def reference_text(source: str, name: str) -> str:
    """The reference's lines of a function, method or class."""
    first, last = definition_lines(parse(source), name)
    return "\n".join(source.split("\n")[first:last])
