"""Sets of modules with the learner's code in them, for `--set 0`, `--set mixed` and learn.py compare.

A mixed set is the reference with definitions of the learner's in place of its own: those of the
exercises that are solved, or of all that were tried. Whether one is solved is told by its test.
"""

import ast
import dataclasses
import functools
import sys
from dataclasses import dataclass
from types import ModuleType

from course.exercise import Exercise
from course.exercises import EXERCISES, FILES, FOLDERS, OWNERS
from course.learner_file import LearnerFile
from course.learner_module import execute, rebind
from course.outcome import Result
from course.source import ROOT, find, reference_source
from course.worker import check_apart
from load_weights import ModelSet, import_set

SETS = ("1", "0", "mixed", "tried")


def set_named(which: str) -> tuple[ModelSet, str]:
    """The modules of a set, and what there is to say about whose they are.

    1: the reference. 0: the learner's files as they are. mixed: of the learner's what is solved, all
    else the reference's. tried: of the learner's what was tried, wrong or not, if it can be run at all.
    """
    if which in ("0", "1"):
        return import_set(int(which)), ""
    learners = {"mixed": mixed_set, "tried": tried_set}[which]()
    return learners.modules, learners.summary


@dataclass
class LearnerSet:
    """Modules with definitions of the learner's, and what is known about each exercise."""

    modules: ModelSet
    results: list[Result]  # one for each exercise
    used: list[str]  # names of the exercises that are the learner's

    @property
    def summary(self) -> str:
        """`Yours: rescale, MLP. Reference: the other 30, among them 1 that you got wrong: resize.`"""
        others = len(self.results) - len(self.used)
        wrong = [result.exercise.name for result in self.results if result.state == "wrong"]
        notes = note_wrong([name for name in wrong if name in self.used])
        yours = (some(self.used) or "none") if others else f"all {len(self.used)} exercises"
        if not others:
            return f"Yours: {yours}{notes}."
        left_out = [name for name in wrong if name not in self.used]
        among = f", among them {len(left_out)} that you got wrong: {some(left_out)}" if left_out else ""
        return f"Yours: {yours}{notes}. Reference: the other {others}{among}."


def note_wrong(names: list[str]) -> str:
    return f" ({len(names)} {'is' if len(names) == 1 else 'are'} wrong: {some(names)})" if names else ""


def some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def learner_files() -> dict[str, LearnerFile]:
    return {file: LearnerFile(file) for file in FILES}


@functools.cache
def mixed_set() -> LearnerSet:
    """The set of `--set mixed`: what is solved is the learner's, all else the reference's."""
    return make_set(learner_files(), wrong_ones_too=False)


@functools.cache
def tried_set() -> LearnerSet:
    """The set of learn.py compare: what was tried is the learner's, if it can be run at all."""
    return make_set(learner_files(), wrong_ones_too=True)


def make_set(files: dict[str, LearnerFile], wrong_ones_too: bool) -> LearnerSet:
    """Tests every exercise, and makes a set of those that are to be the learner's."""
    results = [check_apart(exercise, files[exercise.file]) for exercise in EXERCISES]
    return set_of_results(files, results, wrong_ones_too)


def set_of_results(files: dict[str, LearnerFile], results: list[Result], wrong_ones_too: bool) -> LearnerSet:
    """The set of those exercises that are to be the learner's, of which this is known."""
    chosen = [
        result.exercise
        for result in results
        if result.state == "solved"
        or (wrong_ones_too and result.state == "wrong" and result.kind not in ("definition", "time", "end"))
    ]
    return LearnerSet(combine(files, chosen), results, [exercise.name for exercise in chosen])


def combine(files: dict[str, LearnerFile], chosen: list[Exercise]) -> ModelSet:
    """The reference's modules, with the definitions of these exercises from the learner's files."""
    modules = {}
    for name, file in files.items():  # in the order in which they import each other
        mine = [exercise for exercise in chosen if exercise.file == name]
        # Imports of one file by another find the mixed one here.
        sys.modules[f"{name}_mixed"] = modules[name] = combine_file(name, file, mine)
    fields = {field.name for field in dataclasses.fields(ModelSet)}
    folders = {folder: exercises[0].file for folder, exercises in FOLDERS.items() if folder in fields}
    return ModelSet(**{folder: modules[file] for folder, file in folders.items()}, is_reference=not chosen)


def combine_file(name: str, file: LearnerFile, chosen: list[Exercise]) -> ModuleType:
    """One module out of two name spaces.

    The learner's definitions see what else the learner wrote (imports, constants, helpers), the
    reference's do not: a learner's `F = 3` must not break them. Both see the chosen definitions.
    """
    reference = LearnerFile(name, reference_source(name))
    reference.path = ROOT / f"{name}_1.py"  # for tracebacks
    module = ModuleType(f"{name}_mixed", reference.tree.body[0].value.value)
    theirs = module.__dict__
    theirs["__file__"] = str(reference.path)
    for statement in reference.tree.body:
        execute(reference, statement, theirs, module_set="mixed")

    mine = dict(theirs) | {"__name__": f"{name}_0", "__file__": str(file.path)}
    for statement in file.added() if chosen else ():
        execute(file, statement, mine, quiet=True, module_set="mixed")
    names = {part for exercise in chosen for part in exercise.parts}
    for owner in dict.fromkeys(exercise.owner for exercise in chosen):
        node = find(file.tree, owner)
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            execute(file, node, mine, module_set="mixed")
        made, given = mine[owner], theirs[owner]
        for method in parts_of(owner) - names:  # of exercises that are not chosen
            setattr(made, method.split(".")[1], rebind(vars(given)[method.split(".")[1]], made))
        theirs[owner] = made
    return module


def parts_of(owner: str) -> set[str]:
    """The methods of a class that belong to exercises."""
    return {part for part in OWNERS if part.startswith(f"{owner}.")}
