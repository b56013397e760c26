"""What an exercise is made of. How to fill these in is told in course/exercises/__init__.py."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType

import torch

from course.lessons import lesson_of

# What a known mistake or another right way does to the reference's lines: old text and new text, or
# real code, a function in place of the exercise's or a class whose methods take the place of its own.
Change = dict[str, str] | FunctionType | type


@dataclass(frozen=True, eq=False)
class Case:
    """One thing that is tried on the learner's code: new inputs, a call, and how near is right."""

    about: str  # in words: "a batch of two, bfloat16"
    inputs: Callable[[], dict] = dict  # makes the inputs by name, in the order of the arguments
    make: Callable | None = None  # builds the object; None: the exercise's own
    call: Callable | None = None  # call(object, **inputs); None: object(*inputs)
    dtype: torch.dtype = torch.float32  # of the weights, if the object is an nn.Module
    tolerance: float | None = None  # relative; None: 1e-5, and 2e-2 for bfloat16
    exact: float = 0.0  # share of the values that must be equal to the last bit
    other_device: bool = False  # also catch tensors made without device=
    training: bool = False  # gradients have to reach the same weights and inputs, too

    @functools.cached_property
    def bfloat16(self) -> bool:
        """Is there bfloat16 in it? Such cases are the second step, after all others."""
        return self.dtype == torch.bfloat16 or holds_bfloat16(self.inputs())


def holds_bfloat16(value) -> bool:
    if isinstance(value, torch.Tensor):
        return value.dtype == torch.bfloat16
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return any(map(holds_bfloat16, parts))


@dataclass(frozen=True, eq=False)
class Mistake:
    """A mistake that people make: "This is what comes out {title}: {message}"."""

    title: str  # "without the `1 +`"
    change: Change
    message: str  # why it is wrong, in a sentence that begins small
    also: tuple[Change, ...] = ()  # other code that makes the same mistake

    @property
    def sentence(self) -> str:
        return f"This is what comes out {self.title}: {self.message}"

    @property
    def changes(self) -> tuple[Change, ...]:
        return (self.change, *self.also)


@dataclass(frozen=True, eq=False)
class RightWay:
    """Other code that must pass."""

    title: str
    change: Change


@dataclass(frozen=True, eq=False)
class Exercise:
    """One exercise. Each is there once, so it is compared and hashed by identity."""

    name: str  # as in -k: a function, a class, or Class.method
    file: str  # "decoder", without _0 or _1
    minutes: int
    difficulty: str  # "easy", "medium" or "hard"
    why: str  # one line: what PaliGemma needs it for
    steps: list[str] | dict[str, list[str]]  # the TODO steps; by method, if it is a class
    hints: tuple[str, str, str]  # from vague to exact
    cases: list[Case]
    mistakes: list[Mistake]
    right_ways: list[RightWay]
    compare: str  # after success: what to look at in the reference
    builds_on: tuple[str, ...] = ()  # names of other exercises
    inside: str = ""  # the class of a method whose name alone says enough
    make: Callable | None = None  # builds the object; None: the function of that name
    attributes: tuple[str, ...] = ()  # that others read, besides parameters and modules
    result: str | dict[str, str] = ""  # letters of the axes of what is returned: "B N C"
    sizes: dict[str, int] = field(default_factory=dict)  # by letter, to recognize a wrong factor
    solved: bool = False  # shipped with the reference's lines, as an example

    @property
    def path(self) -> str:
        """The learner's file."""
        return f"{self.file}_0.py"

    @property
    def command(self) -> str:
        return f"python -m pytest -k {self.name}"

    @property
    def owner(self) -> str:
        """The name at the top level of the file: the class of a method, or the exercise's own."""
        return self.inside or self.name.split(".")[0]

    @property
    def parts(self) -> dict[str, list[str]]:
        """The functions to be written and their steps, by their full name."""
        if isinstance(self.steps, list):
            return {f"{self.inside}.{self.name}" if self.inside else self.name: self.steps}
        return {f"{self.owner}.{method}": steps for method, steps in self.steps.items()}

    @property
    def line(self) -> str:
        """The last line of the docstring."""
        text = f"Exercise {self.name}. Lesson: {lesson_of(self.name).file}."
        return text + (f" Builds on: {', '.join(self.builds_on)}." if self.builds_on else "")

    @property
    def todo(self) -> str:
        """What the untouched skeleton raises."""
        return f"{self.name} is not done yet: {self.command}"
