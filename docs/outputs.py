"""Holds every output that README.md and docs/ show against what its command prints.

    python -m docs.outputs            says which blocks are stale
    python -m docs.outputs --write    puts what was printed in their place
    python -m docs.outputs docs/lessons/heads.md    that document alone

In a document, a block fenced as `sh` holds commands, one a line, and a block fenced as `text` holds
what the last command before it printed, standard error included. A line of `...` stands for any number
of lines. Numbers that differ from run to run (seconds, gigabytes) may differ here as well.

A block fenced as `python` runs, too, and the `text` below it is what it printed; the blocks of a document
share their variables, as in a notebook. Under the comment `<!-- in NAME -->` it is what a learner
writes instead: it takes the place of all that stands below the docstring of that function or method.

The commands of a document run one after the other, in a copy of the repository, so that nothing of
the reader's is touched; a command that changes a file there, or leaves one that git would show, is
named. What needs the network, an editor, or somebody's own photograph does not run; a block of output
under such a command is refused.
"""

import argparse
import ast
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from course.exercises import FILES
from course.skeletons import skeleton

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)$")
IN_FUNCTION = re.compile(r"^ *<!-- in (?P<name>[\w.]+) -->$")
LANGUAGES = {"sh", "text", "python", "powershell", "json", "mermaid"}
# What a reader brings along: there is nothing to compare with.
NOT_HERE = ("photo.jpg", "photos", "paligemma-3b", "random-3b", "my-", "NAME")
NOT_RUN = ("pip", "git", "cd", "hf", "source", "python3", ".venv")
NOT_ENDING = ("--live",)  # what waits for Ctrl-C
# The learner's tests end in the same words as all tests, which cannot run inside one of them.
STANDS_FOR = {"python -m pytest": "python -m pytest tests/test_exercises.py"}
LEFT_OUT = {".git", ".hints.json", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
RESULTS = ("training-", "random-", "finetuned")  # how names of results begin
VOLATILE = (
    (r"\d+\.\d+ (seconds|GB|s)\b", r"# \1"),
    (r"\bin \d+\.\d+s\b(?: \(\d+:\d\d:\d\d\))?", "in #s"),
    (r'("seconds": )\d+\.\d+', r"\1#"),
    (r"(Tokens per second: )\d+\.\d+", r"\1#"),
    (r"={3,}|_{3,}", "==="),  # as wide as the terminal
    # The words of a mask: each CPU rounds bfloat16 in its own way, and several words are nearly as likely.
    (r"<seg\d{3}>", "<seg#>"),
)
# The places of boxes: CPUs round bfloat16 in different ways, and an edge moves by a bin or two.
PLACE = re.compile(r"(?<=<loc)\d{4}(?=>)|(?<=[\[ ])\d+\.\d(?=[,\]])")
NEAR = 8


@dataclass
class Block:
    """A fenced block of a document."""

    document: Path
    line: int  # of its first line, from 1
    language: str
    text: str
    indent: str = ""
    function: str = ""  # that it is a solution of

    @property
    def where(self) -> str:
        return f"{self.document.relative_to(ROOT).as_posix()}:{self.line}"


@dataclass
class Shown:
    """A block of output, the command above it, and what that command printed just now."""

    block: Block
    command: str
    printed: str

    @property
    def is_stale(self) -> bool:
        return not matches(self.block.text, self.printed)


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(document: Path) -> list[Block]:
    """Every fenced block, in order; a language that says nothing about how it is checked is refused."""
    blocks, open_block, function = [], None, ""
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if open_block is not None:
            if fence and not fence["language"]:
                blocks.append(open_block)
                open_block = None
            else:
                open_block.text += line.removeprefix(open_block.indent) + "\n"
        elif fence:
            open_block = Block(document, number, fence["language"], "", fence["indent"], function)
            if fence["language"] not in LANGUAGES:
                known = ", ".join(sorted(LANGUAGES))
                raise ValueError(f"{open_block.where}: a block has to be one of {known}")
            function = ""
        elif line.strip():
            found = IN_FUNCTION.match(line)
            function = found["name"] if found else ""
    return blocks


def runs(command: str) -> bool:
    """Can this command be run here?"""
    return not command.startswith(NOT_RUN) and not any(word in command for word in NOT_HERE + NOT_ENDING)


def masked(text: str) -> list[str]:
    """The lines of an output without what differs from run to run."""
    for pattern, shown in VOLATILE:
        text = re.sub(pattern, shown, text)
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def matches(shown: str, printed: str) -> bool:
    """Is this what was printed, where a line of `...` stands for any lines?"""
    parts, places = [[]], []
    for line in masked(shown):
        if line.strip() == "...":
            parts.append([])
        else:
            pieces = map(re.escape, PLACE.split(line))
            parts[-1].append(r"(\d+\.?\d*)".join(pieces) + "\n")
            places += map(float, PLACE.findall(line))
    pattern = "(?:.*\n)*?".join("".join(part) for part in parts)
    found = re.fullmatch(pattern, "".join(line + "\n" for line in masked(printed)))
    if found is None:
        return False
    return all(abs(float(a) - b) <= NEAR for a, b in zip(found.groups(), places, strict=True))


GIT = ["git", "-c", "user.name=reader", "-c", "user.email=reader@localhost", "-c", "core.autocrlf=false"]


def watch(folder: Path) -> None:
    """Has git remember what is in a folder."""
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "as it was"]):
        subprocess.run([*GIT, *command], cwd=folder, check=True)


def left_behind(folder: Path) -> list[str]:
    """What git would show of a folder since then, but for the files that a learner writes in."""
    status = subprocess.run([*GIT, "status", "--porcelain"], cwd=folder, capture_output=True, text=True)
    return [line[3:] for line in status.stdout.splitlines() if not line.endswith("_0.py")]


def copy_repository(folder: Path) -> None:
    """All files but those that tools keep for themselves, large weights and earlier outputs.

    The `_0` files are as they were before anybody worked in them.
    """

    def left_out(of: str, names: list[str]) -> list[str]:
        results = {"training"} if Path(of) == ROOT else set()  # elsewhere a folder of the repository's own
        return [name for name in names if name in LEFT_OUT | results or name.startswith(RESULTS)]

    shutil.copytree(ROOT, folder, ignore=left_out, dirs_exist_ok=True)
    for file in FILES:
        (folder / f"{file}_0.py").write_text(skeleton(file), encoding="utf-8", newline="\n")


def run(command: str, folder: Path) -> str:
    """What a command prints, on both streams, as on a screen 100 columns wide."""
    program, *arguments = shlex.split(command)
    if program != "python":
        raise ValueError(f"a document has the command {command!r}: only python ... can be run")
    environment = os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1", "COLUMNS": "100"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        encoding="utf-8",
        timeout=300,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout


def definition(tree: ast.Module, name: str) -> ast.AST | None:
    """The class, function or method of a name such as `GemmaRMSNorm.forward`."""
    for part in name.split("."):
        tree = next((node for node in tree.body if getattr(node, "name", None) == part), None)
        if tree is None:
            return None
    return tree


def signature_end(node: ast.FunctionDef, lines: list[str]) -> int:
    """How many lines a file has up to the colon that ends a function's first line."""
    return next(n for n in range(node.lineno, node.end_lineno) if lines[n - 1].rstrip().endswith(":"))


def put_in(block: Block, folder: Path) -> None:
    """Writes a learner's lines into the `_0` file that has a function of this name."""
    for path in sorted(folder.glob("*_0.py")):
        text = path.read_text(encoding="utf-8")
        node = definition(ast.parse(text), block.function)
        if node is not None:
            lines = text.split("\n")
            # The skeleton's steps are comments, which stand between the first line and the first statement.
            has_docstring = ast.get_docstring(node) is not None
            start = node.body[0].end_lineno if has_docstring else signature_end(node, lines)
            new = textwrap.indent(block.text, " " * (node.col_offset + 4)).rstrip("\n")
            lines[start : node.end_lineno] = new.split("\n")
            path.write_text("\n".join(lines), encoding="utf-8", newline="\n")
            return
    raise ValueError(f"{block.where}: no _0 file has a {block.function}")


def execute(block: Block, variables: dict) -> str:
    """What a block of Python prints; an error in it names the document and the line."""
    code = compile("\n" * block.line + block.text, str(block.document), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, variables)
    return printed.getvalue()


def walk(document: Path, folder: Path | None, variables: dict | None = None) -> Iterator[Shown]:
    """Does in the folder what a reader of the document does, and yields the outputs that are shown.

    folder: None for a document whose commands show no output; they do not run then.
    variables: what the document's blocks of Python begin with and leave behind.
    """
    command, printed = "", None
    variables = {} if variables is None else variables
    for block in blocks_of(document):
        if block.language == "sh":
            for command in re.split(r"\n| && ", block.text.strip()):
                can_run = folder is not None and runs(command)
                printed = run(STANDS_FOR.get(command, command), folder) if can_run else None
        elif block.function:
            put_in(block, folder)
        elif block.language == "python":
            command, printed = f"the Python from line {block.line}", execute(block, variables)
        elif block.language == "text":
            if printed is None:
                raise ValueError(f"{block.where}: shows what `{command}` prints, which cannot be run here")
            yield Shown(block, command, printed)


def look_at(document: Path) -> tuple[list[Shown], list[str]]:
    """The outputs of a document that are stale, and the files that its commands change or leave."""
    with tempfile.TemporaryDirectory() as name:
        folder, has_git = Path(name), shutil.which("git") is not None
        copy_repository(folder)
        if has_git:
            watch(folder)
        stale = [shown for shown in walk(document, folder) if shown.is_stale]
        return stale, left_behind(folder) if has_git else []


def write(stale: list[Shown]) -> None:
    """Puts what was printed in the place of what is stale; from the last to the first, as lines move."""
    for shown in sorted(stale, key=lambda shown: (shown.block.document, -shown.block.line)):
        block, lines = shown.block, shown.block.document.read_text(encoding="utf-8").split("\n")
        new = [(block.indent + line).rstrip() for line in shown.printed.strip("\n").splitlines()]
        lines[block.line : block.line + len(block.text.splitlines())] = new
        block.document.write_text("\n".join(lines), encoding="utf-8", newline="\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.outputs", description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put what was printed in their place")
    parser.add_argument("document", nargs="*", type=Path, help="those to look at (default: all)")
    args = parser.parse_args(argv)
    all_is_well = True
    for document in tqdm([path.resolve() for path in args.document] or documents(), unit="document"):
        stale, left = look_at(document)
        for shown in stale:
            print(f"{shown.block.where}: stale: {shown.command}\n{shown.printed}", flush=True)
        for name in left:
            print(f"{document.relative_to(ROOT)}: a command of it changes or leaves {name}", flush=True)
        if args.write:
            write(stale)
        all_is_well = all_is_well and not left and (args.write or not stale)
    if not all_is_well:
        sys.exit(1)


if __name__ == "__main__":
    main()
