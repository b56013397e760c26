"""Makes the skeletons: `_0` files out of the `_1` files and the steps in the table of exercises."""

import ast
import re
import textwrap

from course.exercise import Exercise
from course.exercises import EXERCISES, FILES
from course.source import definition_lines, find, is_given, parse, reference_source, statements

WIDTH = 100


def skeleton(file: str) -> str:
    """The whole `_0` file, untouched."""
    text = reference_source(file)
    for exercise in EXERCISES:
        if exercise.file == file and not exercise.solved:
            text = without_solution(text, exercise)
    for name in FILES:
        text = re.sub(rf"^(from|import) {name}_1\b", rf"\1 {name}_0", text, flags=re.MULTILINE)
    return text


def without_solution(text: str, exercise: Exercise) -> str:
    """The steps and the raise in place of the lines of each part."""
    number = 1
    for part, steps in exercise.parts.items():
        tree = parse(text)
        function = find(tree, part)
        body = statements(function)
        given = body[:1] if is_given(body[0]) else []
        start = (
            given[-1].end_lineno
            if given
            else (function.body[0].end_lineno if len(body) < len(function.body) else header_end(function))
        )
        indent = " " * (function.col_offset + 4)
        new = [line for i, step in enumerate(steps) for line in step_lines(number + i, step, indent)]
        number += len(steps)
        new += raise_lines(exercise, indent)
        lines = text.split("\n")
        lines[start : function.end_lineno] = new
        text = "\n".join(lines)
    return text


def header_end(function: ast.FunctionDef) -> int:
    """The last line of a signature: the one before the first statement (comments stay out)."""
    arguments = [*function.args.args, *function.args.kwonlyargs, *function.args.defaults]
    last = max([function.lineno, *(node.end_lineno for node in arguments)])
    if function.returns is not None:
        last = max(last, function.returns.end_lineno)
    return last


def step_lines(number: int, step: str, indent: str) -> list[str]:
    first = f"# TODO {number}. "
    # A shape such as [B, N, C] stays on one line.
    step = re.sub(r"\[[^]]*\]", lambda match: match[0].replace(" ", "\0"), step)
    lines = textwrap.wrap(
        step, WIDTH, initial_indent=indent + first, subsequent_indent=indent + "#" + " " * (len(first) - 1)
    )
    return [line.replace("\0", " ") for line in lines]


def raise_lines(exercise: Exercise, indent: str) -> list[str]:
    one_line = f'{indent}raise NotImplementedError("{exercise.todo}")'
    if len(one_line) <= 110:
        return [one_line]
    first, second = exercise.todo.split("python -m", 1)
    return [
        f"{indent}raise NotImplementedError(",
        f'{indent}    "{first}"',
        f'{indent}    "python -m{second}"',
        f"{indent})",
    ]


def with_exercise_lines(text: str, file: str) -> str:
    """The reference, with the last lines of its docstrings as the table says."""
    for exercise in EXERCISES:
        if exercise.file != file:
            continue
        name = docstring_owner(exercise)
        first, last = definition_lines(parse(text), name)
        lines = text.split("\n")
        for i in range(first, last):
            if re.match(r" +Exercise \S", lines[i]):
                indent = lines[i][: len(lines[i]) - len(lines[i].lstrip())]
                end = next(j for j in range(i, last) if lines[j].strip() in ('"""', ""))
                lines[i:end] = textwrap.wrap(
                    exercise.line, WIDTH, initial_indent=indent, subsequent_indent=indent
                )
                break
        else:
            raise ValueError(f"the docstring of {name} in {file}_1.py has no line that begins with Exercise")
        text = "\n".join(lines)
    return text


def docstring_owner(exercise: Exercise) -> str:
    """Whose docstring describes the exercise: the function, or the class of the methods."""
    return next(iter(exercise.parts)) if isinstance(exercise.steps, list) else exercise.owner
