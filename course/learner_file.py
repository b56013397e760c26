"""Reads a learner's file piece by piece, so that one broken piece leaves the others usable."""

import ast
import re

from course import source
from course.exercise import Exercise
from course.outcome import Flaw
from course.source import FUNCTIONS, find, is_given, is_todo, names_given, parse, reference, statements


class LearnerFile:
    """A `_0` file, or a text in its place."""

    def __init__(self, file: str, text: str | None = None):
        self.file = file
        self.path = source.ROOT / f"{file}_0.py"
        self.missing = ""  # why the whole file cannot be read
        self.broken: dict[str, SyntaxError] = {}  # name of a class, function or method: its error
        self.error: SyntaxError | None = None  # the one that Python would stop at
        if text is None:
            text = self._read()
        self.text = text
        self.lines = text.split("\n")  # as Python counts them; splitlines also cuts at a form feed
        try:
            self.tree = parse(text)
        except (SyntaxError, ValueError) as error:  # ValueError: a null byte
            self.error = error if isinstance(error, SyntaxError) else SyntaxError(str(error))
            self.tree = ast.Module(body=self._parse_pieces(), type_ignores=[])
        self._find_outside()

    def _read(self) -> str:
        if not self.path.exists():
            self.missing = (
                f"there is no {self.path.name} (was it renamed or moved?). Rename it back, or get a "
                f"new one: git checkout {self.path.name}"
            )
            return ""
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            self.missing = f"{self.path.name} cannot be read ({error}). Save it as UTF-8 text."
            return ""

    def _parse_pieces(self) -> list[ast.stmt]:
        """Parses each class and function by itself; in a broken class, each method."""
        body = []
        for start, end in self._pieces(0, len(self.lines), r"(class|def|async def|@|if __name__)\b|@"):
            try:
                body += self._parse(start, end)
            except (SyntaxError, ValueError) as error:
                match = re.match(r"(?:@.*\n)*(class|def|async def)\s+(\w+)", self._text(start, end))
                if match is None:
                    body += self._parse_lines(start, end)
                elif match[1] == "class":
                    body += self._parse_class(match[2], start, end, error)
                else:
                    self.broken[match[2]] = error
        return body

    def _parse_class(self, name: str, start: int, end: int, error: Exception) -> list[ast.stmt]:
        pieces = self._pieces(start, end, r"    (def|async def|@)")
        try:
            [node] = self._parse(*pieces[0], after="\n    pass")
        except (SyntaxError, ValueError):
            self.broken[name] = error
            return []
        header = self.lines[start]
        for first, last in pieces[1:]:
            try:
                # The header takes the line above the method, so that line numbers stay right.
                piece = "\n" * (first - 1) + header + "\n" + self._text(first, last)
                [made, *outside] = ast.parse(piece).body
                node.body += made.body + outside
            except (SyntaxError, ValueError) as method_error:
                match = re.search(r"def\s+(\w+)", self._text(first, last))
                self.broken[f"{name}.{match[1] if match else '?'}"] = method_error
        return [node]

    def _parse_lines(self, start: int, end: int) -> list[ast.stmt]:
        """Imports and constants at the top: whatever lines can be read."""
        body = []
        for number in range(start, end):
            try:
                body += self._parse(number, number + 1)
            except (SyntaxError, ValueError):
                continue
        return body

    def _pieces(self, start: int, end: int, beginning: str) -> list[tuple[int, int]]:
        """Ranges of lines, each beginning where a definition (or its first decorator) does."""
        cuts = [start]
        for number in range(start + 1, end):
            if re.match(beginning, self.lines[number]) and not self.lines[number - 1].lstrip().startswith(
                "@"
            ):
                cuts.append(number)
        return list(zip(cuts, [*cuts[1:], end], strict=True))

    def _text(self, start: int, end: int) -> str:
        return "\n".join(self.lines[start:end])

    def _parse(self, start: int, end: int, after: str = "") -> list[ast.stmt]:
        return ast.parse("\n" * start + self._text(start, end) + after).body

    def _find_outside(self):
        """A `return` that is not indented ends the function above it, which is then broken."""
        for owner in (self.tree, *(node for node in self.tree.body if isinstance(node, ast.ClassDef))):
            above = ""
            for node in owner.body:
                if isinstance(node, ast.ClassDef):
                    methods = [child.name for child in node.body if isinstance(child, FUNCTIONS)]
                    above = f"{node.name}.{methods[-1]}" if methods else ""
                elif isinstance(node, FUNCTIONS):
                    above = f"{owner.name}.{node.name}" if isinstance(owner, ast.ClassDef) else node.name
                elif above and any(isinstance(part, (ast.Return, ast.Yield)) for part in walk_lines(node)):
                    error = SyntaxError("'return' outside function")
                    error.lineno = node.lineno
                    self.error = self.error or error
                    self.broken.setdefault(above, error)

    # What state an exercise is in, before anything is run.

    def untouched_parts(self, exercise: Exercise) -> list[str]:
        """The functions that still are what the skeleton has: a raise, and nothing before it."""
        untouched = []
        for part in exercise.parts:
            node = find(self.tree, part)
            if isinstance(node, FUNCTIONS):
                body = [line for line in statements(node) if not is_given(line)]
                if len(body) == 1 and is_todo(body[0]):
                    untouched.append(part)
        return untouched

    def line_of(self, exercise: Exercise) -> int:
        """Where the learner has to write: the first part that is not done yet, or the first part."""
        for part in [*self.untouched_parts(exercise), *exercise.parts, exercise.owner]:
            node = find(self.tree, part)
            if node is not None:
                return node.lineno
        match = re.search(rf"^(class|def) {exercise.owner}\b", self.text, re.MULTILINE)
        return self.text[: match.start()].count("\n") + 1 if match else 1

    def twice(self, exercise: Exercise) -> list[int]:
        """The lines of a definition that stands in the file more than once."""
        for name in (exercise.owner, *exercise.parts):
            owner, _, method = name.partition(".")
            tree = find(self.tree, owner) if method else self.tree
            lines = [
                node.lineno
                for node in getattr(tree, "body", [])
                if getattr(node, "name", None) == (method or owner)
            ]
            if len(lines) > 1:
                return lines
        return []

    def refuse_unusable(self, exercise: Exercise) -> None:
        """Raises a Flaw if there is no definition of the exercise that Python could run."""
        if self.missing:
            raise Flaw("definition", self.missing)
        for name, error in self.broken.items():
            if name == exercise.owner or name in exercise.parts:
                raise describe_syntax_error(error, self)
        node = find(self.tree, exercise.owner)
        if node is None and exercise.owner not in self.added_names():
            raise self._not_found(exercise.owner)
        for part in exercise.parts:
            method = part.split(".")[-1]
            if isinstance(node, ast.ClassDef) and not self._has(node, method):
                raise Flaw(
                    "definition",
                    f"{self.path.name}:{node.lineno}: class {exercise.owner} has no {method} anymore: "
                    "it was deleted or renamed, or is not indented into the class.",
                )

    def _has(self, node: ast.ClassDef, method: str) -> bool:
        names = {getattr(child, "name", None) for child in node.body}
        for child in node.body:
            if isinstance(child, ast.Assign):
                names |= {
                    name.id
                    for target in child.targets
                    for name in ast.walk(target)
                    if isinstance(name, ast.Name)
                }
        return method in names

    def _not_found(self, name: str) -> Flaw:
        kind = "class" if isinstance(getattr(reference(self.file), name), type) else "function"
        known = vars(reference(self.file))
        new = [
            f"{node.name} (line {node.lineno})"
            for node in self.tree.body
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and node.name not in known
        ]
        details = [f"It was deleted or renamed. Restore its name: {kind} {name}."]
        if new:
            details.append("New names in the file: " + ", ".join(new))
        details.append(f"The skeleton as it was: git show HEAD:{self.path.name}")
        return Flaw("definition", f"{self.path.name}: there is no {kind} {name}.", details)

    def added(self) -> list[ast.stmt]:
        """What the learner wrote at the top level besides the given definitions.

        Only what makes names: a print or a trial run of the learner's is left alone here.
        """
        makes_names = (
            *FUNCTIONS,
            ast.ClassDef,
            ast.Import,
            ast.ImportFrom,
            ast.Assign,
            ast.AnnAssign,
            ast.If,
            ast.Try,
        )
        given = names_given(self.file)
        return [
            node
            for node in self.tree.body
            if isinstance(node, makes_names) and getattr(node, "name", None) not in given
        ]

    def added_names(self) -> set[str]:
        return {
            name.id
            for node in self.added()
            if isinstance(node, ast.Assign)
            for target in node.targets
            for name in ast.walk(target)
            if isinstance(name, ast.Name)
        }


def walk_lines(node: ast.stmt):
    """A statement and those inside of it, but not what stands in functions."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
            yield from walk_lines(child)


# What word processors and web pages put in place of the characters of Python.
LOOK_ALIKE = {
    "\u2018": ("a curly quote", "'"),
    "\u2019": ("a curly quote", "'"),
    "\u201c": ("a curly quote", '"'),
    "\u201d": ("a curly quote", '"'),
    "\u201e": ("a curly quote", '"'),
    "\u00b4": ("an accent", "'"),
    "\u2212": ("a long minus", "-"),
    "\u2013": ("a dash", "-"),
    "\u2014": ("a dash", "-"),
    "\u00d7": ("a multiplication sign", "*"),
    "\u00f7": ("a division sign", "/"),
    "\u2264": ("the sign \u2264", "<="),
    "\u2265": ("the sign \u2265", ">="),
    "\u2260": ("the sign \u2260", "!="),
    "\uff08": ("a wide parenthesis", "("),
    "\uff09": ("a wide parenthesis", ")"),
    "\uff0c": ("a wide comma", ","),
    "\uff1a": ("a wide colon", ":"),
    "\u00a0": ("a no-break space", "a space"),
    "\u202f": ("a no-break space", "a space"),
    "\u2003": ("a wide space", "a space"),
    "\u3000": ("a wide space", "a space"),
    "\u200b": ("a space of no width", ""),
    "\ufeff": ("a mark of no width", ""),
}
CONFLICT = re.compile(r"(<{7}|\|{7}|={7}|>{7})( |$)")


def describe_syntax_error(error: SyntaxError, file: LearnerFile) -> Flaw:
    """The line that Python cannot read, and what to look for."""
    line = error.lineno or 1
    text = file.lines[line - 1] if line <= len(file.lines) else ""
    code = text.strip()
    details = [f"    {code}"] if code else []
    place = f"{file.path.name}:{line}"
    marks = [number for number, one in enumerate(file.lines, start=1) if CONFLICT.match(one)]
    if marks and marks[0] <= line <= marks[-1]:
        begin = max(
            (number for number in marks if number <= line and file.lines[number - 1][0] == "<"), default=0
        )
        begin = begin or marks[0]
        end = next((n for n in marks if n >= begin and file.lines[n - 1][0] == ">"), marks[-1])
        return Flaw(
            "definition",
            f"{file.path.name}:{begin}: git's conflict marks stand in lines {begin} to {end}.",
            [
                "Two versions were merged there. Keep one of them, and delete the lines that begin with",
                "<<<<<<<, ======= and >>>>>>>.",
            ],
        )
    if "outside function" in error.msg:
        return Flaw(
            "definition",
            f"{place}: this `return` is not indented, so it stands outside of the function.",
            [*details, "Indent it as the lines above it that belong to the function."],
        )
    strange = next((c for c in text if c in LOOK_ALIKE), "")
    if (strange and not isinstance(error, IndentationError)) or (strange in "\u00a0\u202f" and strange):
        name, right = LOOK_ALIKE[strange]
        instead = f"type {right} in its place" if right else "delete it"
        return Flaw(
            "definition",
            f"{place}: there is {name} in this line, at column {text.index(strange) + 1}, which "
            f"Python cannot read.",
            [*details, f"It was copied from a page or typed by a word processor: {instead}."],
        )
    if "expected an indented block" in error.msg and text[:1].strip():
        what = error.msg.removeprefix("expected an indented block after ")
        return Flaw(
            "definition",
            f"{place}: this line is not indented, but it has to be, after the {what}.",
            [*details, "Put spaces in front of it: four more than in front of the line that it belongs to."],
        )
    if isinstance(error, IndentationError):
        details.append("Look at the spaces at the beginning of this line and the one above.")
    else:
        details.append(
            "Look for a bracket, a quote, a comma or a colon that is missing, here or in the line above."
        )
    headline = f"{place}: Python cannot read this line ({error.msg})."
    return Flaw("definition", headline, details)
