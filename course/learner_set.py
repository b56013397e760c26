"""The learner's code at work in the program: what `--set 0`, `--set mixed` and compare_sets.py need.

A mixed set is the reference with definitions of the learner's in place of its own: those of the
exercises that are solved, or of all that were tried. Whether one is solved is told by its test, so
tests/ is read, but only when it is needed: nothing of it is imported to run a set as it is.
"""

import ast
import contextlib
import functools
import linecache
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

from load_weights import ModelSet

ROOT = Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------- where an error happened


def is_learners(path: str) -> bool:
    """Is this the path of a `_0` file?"""
    return Path(path).name in ("text_image_token_processor_0.py", "vision_transformer_0.py", "decoder_0.py")


def place(frame, line: int, lines: list[str]) -> list[str]:
    """A line of the learner's for a message: where it is, what it says, and the shapes there."""
    name = frame.f_code.co_filename.replace("\\", "/").rsplit("/", 1)[-1]
    code = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    found = [f"{name}:{line}, in {frame.f_code.co_name}:", f"    {code}"]
    shapes = [
        f"{key} {list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        for key, value in frame.f_locals.items()
        if hasattr(value, "shape") and hasattr(value, "dtype")        # tensors and arrays
    ]
    if shapes:
        found.append("Shapes at that point: " + ", ".join(shapes))
    return found


def where(error: BaseException, path: str, lines: list[str]) -> list[str]:
    """The last line of a file that an error passed through; nothing if it passed through none."""
    frames = [
        (frame, number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == path
    ]
    return place(*frames[-1], lines) if frames else []


class LearnersError(Exception):
    """The learner's code cannot be run, or stopped: said without a traceback.

    code: what the program ends with. 2, as for any other input that cannot be used, if something
    is missing; 1, as Python's own, if the code stopped.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def explained(*others: type[Exception]):
    """Turns what stops in the learner's code, or because of it, into a LearnersError.

    others: errors of the program's own, which pass, unless they come out of a `_0` file.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, others) and not learners_frames(error):
            raise
        raise explain(error) from error


def learners_frames(error: BaseException) -> list[tuple]:
    """The calls that an error passed through in `_0` files, outermost first, with their lines."""
    found = traceback.walk_tb(error.__traceback__)
    return [(frame, line) for frame, line in found if is_learners(frame.f_code.co_filename)]


def explain(error: BaseException) -> LearnersError:
    """What to tell a learner about an error."""
    if isinstance(error, SyntaxError) and is_learners(error.filename or ""):
        from course.learner import LearnerFile, describe_syntax_error

        file = LearnerFile(Path(error.filename).stem.removesuffix("_0"))
        headline, details = describe_syntax_error(error, file)
        return LearnersError("\n    ".join([headline, *details]), 2)
    frames = learners_frames(error)
    if not frames:
        frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
        headline = "the program cannot go on with what your code made of it"
    else:
        frame, line = frames[-1]
        headline = f"your code stopped with {type(error).__name__}"
    path = frame.f_code.co_filename
    if isinstance(error, NotImplementedError) and "is not done yet" in str(error):
        return LearnersError(describe_to_do(str(error), Path(path).name, line), 2)
    details = place(frame, line, linecache.getlines(path))
    if isinstance(error, SystemExit):
        headline = "your code ends the program (exit or quit)"
    else:
        first, *more = str(error).splitlines()[:3] or [""]
        details += [f"{type(error).__name__}: {first}", *(f"    {text}" for text in more)]
    command = command_for(frame.f_code) if frames else "python -m pytest"
    return LearnersError("\n    ".join([headline, *details, f"Its test says more: {command}"]), 1)


def describe_to_do(message: str, file: str, line: int) -> str:
    """One line about an exercise that the program came to, and how many others are not done yet."""
    what, _, command = message.partition(": ")
    others = len([state for state in states_unrun().values() if state == "to do"]) - 1
    more = f"{others} others are not done yet either; " if others > 1 else ""
    return (
        f"{what} ({file}:{line}). Test it with {command}; {more}"
        "--set mixed takes the reference's in their place"
    )


def states_unrun() -> dict[str, str]:
    """Which exercises are not done yet, as far as can be told without running anything."""
    from course.exercises import EXERCISES

    files = learner_files()
    return {
        exercise.name: "to do" if files[exercise.file].untouched_parts(exercise) else "tried"
        for exercise in EXERCISES
    }


def command_for(code: CodeType) -> str:
    """What tests the exercise that a function of the learner's belongs to."""
    from course.exercises import OWNERS

    return OWNERS[code.co_qualname].command if code.co_qualname in OWNERS else "python -m pytest"


# ------------------------------------------------------------------------------- the mixed set


@dataclass
class LearnerSet:
    """Modules with definitions of the learner's, and what is known about each exercise."""

    modules: ModelSet
    results: list                                                     # a Result for each exercise
    used: list[str]                                                   # exercises that are the learner's

    @property
    def summary(self) -> str:
        """`Yours: rescale, MLP. Reference: the other 30 (1 is wrong: resize).`"""
        others = len(self.results) - len(self.used)
        wrong = [result.exercise.name for result in self.results if result.state == "wrong"]
        notes = note_wrong([name for name in wrong if name in self.used])
        yours = (some(self.used) or "none") if others else f"all {len(self.used)} exercises"
        if not others:
            return f"Yours: {yours}{notes}."
        left_out = note_wrong([name for name in wrong if name not in self.used])
        return f"Yours: {yours}{notes}. Reference: the other {others}{left_out}."


def note_wrong(names: list[str]) -> str:
    return f" ({len(names)} {'is' if len(names) == 1 else 'are'} wrong: {some(names)})" if names else ""


def some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def learner_files() -> dict:
    from course.learner import FILES, LearnerFile

    return {file: LearnerFile(file) for file in FILES}


@functools.cache
def mixed_set() -> LearnerSet:
    """The set of `--set mixed`: what is solved is the learner's, all else the reference's."""
    return make_set(learner_files(), wrong_ones_too=False)


@functools.cache
def tried_set() -> LearnerSet:
    """The set of compare_sets.py: what was tried is the learner's, if it can be run at all."""
    return make_set(learner_files(), wrong_ones_too=True)


def make_set(files: dict, wrong_ones_too: bool) -> LearnerSet:
    """Tests every exercise, and makes a set of those that are to be the learner's."""
    from course.checking import check
    from course.exercises import EXERCISES, OWNERS

    results = [check(exercise, files[exercise.file], OWNERS) for exercise in EXERCISES]
    chosen = [
        result.exercise
        for result in results
        if result.state == "solved"
        or (wrong_ones_too and result.state == "wrong" and result.kind not in ("definition", "time"))
    ]
    return LearnerSet(combine(files, chosen), results, [exercise.name for exercise in chosen])


def combine(files: dict, chosen: list) -> ModelSet:
    """The reference's modules, with the definitions of these exercises from the learner's files."""
    modules = {}
    for name, file in files.items():                                  # the tower before the decoder
        mine = [exercise for exercise in chosen if exercise.file == name]
        # Imports of one file by another find the mixed one here.
        sys.modules[f"{name}_mixed"] = modules[name] = combine_file(name, file, mine)
    return ModelSet(
        vision=modules["vision_transformer"],
        processor=modules["text_image_token_processor"],
        decoder=modules["decoder"],
        is_reference=not chosen,
    )


def combine_file(name: str, file, chosen: list) -> ModuleType:
    """One module out of two name spaces.

    The learner's definitions see what else the learner wrote (imports, constants, helpers), the
    reference's do not: a learner's `F = 3` must not break them. Both see the chosen definitions.
    """
    from course.learner import LearnerFile, rebind, reference_source
    from course.variants import find

    reference = LearnerFile(name, reference_source(name))
    reference.path = ROOT / f"{name}_1.py"                            # for tracebacks
    module = ModuleType(f"{name}_mixed", reference.tree.body[0].value.value)
    theirs = module.__dict__
    theirs["__file__"] = str(reference.path)
    for statement in reference.tree.body:
        reference.execute(statement, theirs, module_set="mixed")

    mine = dict(theirs) | {"__name__": f"{name}_0", "__file__": str(file.path)}
    for statement in file.added() if chosen else ():
        file.execute(statement, mine, quiet=True, module_set="mixed")
    names = {part for exercise in chosen for part in exercise.parts}
    for owner in dict.fromkeys(exercise.owner for exercise in chosen):
        node = find(file.tree, owner)
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            file.execute(node, mine)
        made, given = mine[owner], theirs[owner]
        for method in parts_of(owner) - names:                        # of exercises that are not chosen
            setattr(made, method.split(".")[1], rebind(vars(given)[method.split(".")[1]], made))
        theirs[owner] = made
    return module


def parts_of(owner: str) -> set[str]:
    """The methods of a class that belong to exercises."""
    from course.exercises import OWNERS

    return {part for part in OWNERS if part.startswith(f"{owner}.")}
