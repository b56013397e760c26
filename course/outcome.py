"""What is known about an exercise that was tried: what a case came to, what is wrong with it, and what
the learner is told."""

from dataclasses import dataclass, field

from course.exercise import Exercise

SECONDS = 10  # for all the cases of one exercise


class TookTooLong(BaseException):
    """Raised from outside in code that does not come to an end; not an Exception, so that
    `except Exception` does not catch it."""

    seconds = float(SECONDS)


class Flaw(Exception):
    """What is wrong with the learner's code, in words for a beginner.

    Raised where nothing can be tried because of it (a class that is gone, a missing parameter);
    returned where two outcomes were compared.
    """

    def __init__(self, kind: str, headline: str, details: list[str] | None = None):
        super().__init__(headline)
        self.kind = kind  # "definition", "attribute", "time", "end", "error", "type", "shape", "values", ...
        self.headline, self.details = headline, details or []


@dataclass
class Outcome:
    """What one case came to."""

    value: object = None
    error: BaseException | None = None  # raised by the code under test
    flaw: Flaw | None = None  # a missing parameter, say: found before the call
    changed: list[str] = field(default_factory=list)  # inputs and weights that are not what they were
    stopped_at: list[str] = field(default_factory=list)  # of an error: the line, and the shapes there
    gradients: dict[str, float] = field(default_factory=dict)  # how large, of weights and inputs; 0: none
    said: str = ""  # the error as Python prints it, with a "Did you mean"
    printed: str = ""


@dataclass
class Result:
    """What the learner is told about one exercise."""

    exercise: Exercise
    state: str  # "solved", "wrong" or "to do"
    float32: bool = False  # of a wrong one: right in float32, but not in bfloat16
    line: int = 1
    kind: str = ""  # of what is wrong: see Flaw
    mistake: str = ""  # title of the known mistake that it is
    message: str = ""
    printed: str = ""
    left: list[str] = field(default_factory=list)  # parts to do of an exercise that is begun

    @property
    def location(self) -> str:
        return f"{self.exercise.path}:{self.line}"
