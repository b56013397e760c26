"""The source of a class or function: where it is written, and its text in colors."""

import ast
import functools
import inspect
import io
import keyword
import linecache
import os
import tokenize
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent


class Source(NamedTuple):
    """A class or function of this repository, as it is written, or as an experiment has changed it."""

    name: str
    file: Path  # of a changed text: its name, which is that of no file
    first_line: int  # of the file, from 1
    lines: list[str]


def code_of(thing):
    """The code object that tells where a class or function is written; None for what Python did not compile.

    Of a class, one of its methods: a mixed set is put together from two files, and only the code
    knows which.
    """
    if isinstance(thing, type):
        names = ("forward", "__call__", "update", *vars(thing))
        members = [vars(thing).get(name) for name in names]
        thing = next((member for member in members if hasattr(member, "__code__")), thing)
    return getattr(inspect.unwrap(thing) if callable(thing) else None, "__code__", None)


def is_kept(name: str) -> bool:
    """A text that is no file, which whoever compiled it has left with Python (as edits.compiled does)."""
    return len(entry := linecache.cache.get(name, ())) == 4 and entry[1] is None


def time_of(name: str) -> int:
    """When a text was changed; a text that is no file never is."""
    return 0 if is_kept(name) else Path(name).stat().st_mtime_ns


@functools.lru_cache(maxsize=32)
def parse_file(name: str, changed: int) -> tuple[str, ast.Module]:
    """A file's text and its syntax tree; `changed` is its time, so that a new text is read again."""
    kept = linecache.cache[name][2] if is_kept(name) else None
    text = Path(name).read_text(encoding="utf-8") if kept is None else "".join(kept)
    return text, ast.parse(text)


def find_source(thing) -> Source | None:
    """The text of a class or function; None if it is not one of a file in the root of this repository."""
    code = code_of(thing)
    if code is None:
        return None
    file = Path(code.co_filename)
    if not is_kept(code.co_filename) and (file.resolve().parent != ROOT or not file.is_file()):
        return None
    return find_in_file(thing.__name__, code.co_firstlineno, code.co_filename, time_of(code.co_filename))


@functools.lru_cache(maxsize=512)
def find_in_file(name: str, line: int, file: str, changed: int) -> Source | None:
    """The class or function of this name that holds a line. (The live page asks again and again.)"""
    text, tree = parse_file(file, changed)
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            decorated = [decorator.lineno for decorator in node.decorator_list]
            if node.lineno <= line <= node.end_lineno or line in decorated:
                lines = text.split("\n")[node.lineno - 1 : node.end_lineno]  # as Python counts them
                return Source(name, Path(file), node.lineno, lines)
    return None


def source_link(thing, folder: Path) -> dict | None:
    """A link to the source from a page in `folder`: its text, and its address with the line."""
    source = find_source(thing)
    if source is None or is_kept(str(source.file)):
        return None
    try:
        path = Path(os.path.relpath(source.file, folder)).as_posix()
    except ValueError:  # on another drive
        path = source.file.as_posix()
    line = source.first_line
    return {"text": f"{source.file.name}:{line}", "href": f"{quote(path, errors='replace')}#L{line}"}


# ----------------------------------------------------------------------------------- colors


def colored(lines: list[str]) -> list[list[list[str]]]:
    """Each line as pieces [kind, text], which together are the line again.

    Kinds: keyword, string, comment, number, name (what def and class define), self, text.
    """
    return color_lines(tuple(lines))


@functools.lru_cache(maxsize=128)
def color_lines(lines: tuple[str, ...]) -> list[list[list[str]]]:
    kinds = [["text"] * len(line) for line in lines]
    indent = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    text = "\n".join(line[indent:] if line[:indent].isspace() or not indent else line for line in lines)
    before = ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text + "\n").readline):
            kind = kind_of(token, before)
            before = token.string if token.type == tokenize.NAME else ""
            (first, start), (last, end) = token.start, token.end
            for row in range(first, min(last, len(lines)) + 1):
                left = indent + (start if row == first else 0)
                right = indent + end if row == last else len(lines[row - 1])
                if kind != "text":
                    kinds[row - 1][left:right] = [kind] * len(kinds[row - 1][left:right])
    except (tokenize.TokenError, IndentationError):
        pass  # what could be read has its colors
    return [join_pieces(line, kinds[i]) for i, line in enumerate(lines)]


def kind_of(token: tokenize.TokenInfo, before: str) -> str:
    if token.type == tokenize.NAME:
        if before in ("def", "class"):
            return "name"
        return "keyword" if keyword.iskeyword(token.string) else "self" if token.string == "self" else "text"
    if token.type == tokenize.STRING or tokenize.tok_name[token.type].startswith("FSTRING"):
        return "string"
    return {tokenize.COMMENT: "comment", tokenize.NUMBER: "number"}.get(token.type, "text")


def join_pieces(line: str, kinds: list[str]) -> list[list[str]]:
    pieces: list[list[str]] = []
    for character, kind in zip(line, kinds, strict=True):
        if pieces and pieces[-1][0] == kind:
            pieces[-1][1] += character
        else:
            pieces.append([kind, character])
    return pieces
