"""Source text of the `_0` and `_1` files: finding, reading and replacing definitions in it."""

import ast
import functools
import importlib
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NOT_DONE = "is not done yet"  # in what the untouched skeleton raises


def reference(file: str) -> types.ModuleType:
    return importlib.import_module(f"{file}_1")


def reference_source(file: str) -> str:
    return (ROOT / f"{file}_1.py").read_text(encoding="utf-8")


@functools.cache
def names_given(file: str) -> set[str]:
    """The classes and functions of the reference."""
    return {node.name for node in ast.parse(reference_source(file)).body if hasattr(node, "name")}


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


def definition_text(source: str, name: str) -> str:
    """The lines of a function, method or class."""
    return "\n".join(source.split("\n")[slice(*definition_lines(parse(source), name))])


def paste(text: str, parts, source: str) -> str:
    """A text with the functions of these names taken from another text."""
    for part in parts:
        new = definition_text(source, part).split("\n")
        lines = text.split("\n")
        lines[slice(*definition_lines(parse(text), part))] = new
        text = "\n".join(lines)
    return text


def statements(function: ast.AST) -> list[ast.stmt]:
    """The body without its docstring."""
    return function.body[1:] if ast.get_docstring(function) is not None else function.body


def is_todo(statement: ast.stmt) -> bool:
    """Is this the raise that a skeleton ends with?"""
    text = ast.unparse(statement)
    return isinstance(statement, ast.Raise) and "NotImplementedError" in text and NOT_DONE in text


def is_given(statement: ast.stmt) -> bool:
    """The line that a skeleton's __init__ begins with."""
    return ast.unparse(statement) == "super().__init__()"
