"""What an experiment is: a change of the reference, a question, and an explanation that is held to.

What an explanation claims stands in it as a link stands in Markdown, `[the words](the claim)`:

    Without positions [the caption stays](caption: same), but [no box is found](detect: nothing).

The program shows the words, and the test runs the experiment and holds every claim against what came
out, so that no claim is false of the shipped checkpoint; a number that stands in none is not held
against anything. A claim says where and what, several of them with a semicolon between them:

    where   `cats caption` or `night detect`: one picture and one kind of prompt; `caption`: of both
            pictures; `cats`: all three prompts; `all`: all six answers;
            `2 detect`: with the experiment's parameter at 2, about the first picture (`1.3`: two of them)
    what    same       letter for letter the reference's answer
            changed    any other
            nothing    an empty answer
            endless    no <eos> within the 24 tokens that an answer may have here
            kept       as many boxes as the reference's, with the same labels, all where its boxes are
            within 3   kept, and every edge within so many 1,024ths of the picture's side
            3 boxes    so many complete ones
            says X     X is part of the answer
            "X"        X is the answer
            alike      the same for both pictures
    lost: 1.3, 2.0     of all heads, these and no others are off without the boxes being kept

`{cats caption}` in an explanation stands for the answer that the changed model gave in this run.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import NamedTuple

from course.experiments.edits import Edit
from program.overlap import box_iou

CLAIMED = re.compile(r"\[([^\[\]]+)\]\(([^()]+: [^()]+)\)")
QUOTED = re.compile(r"\{(\w+) (\w+)\}")
KINDS = ("caption", "detect", "where")
QUESTIONS = {
    ("cats", "caption"): "caption en",
    ("cats", "detect"): "detect cat",
    ("cats", "where"): "answer en where is the umbrella?",
    ("night", "caption"): "caption en",
    ("night", "detect"): "detect star",
    ("night", "where"): "answer en where is the rocket?",
}
PICTURES = tuple(dict.fromkeys(picture for picture, _ in QUESTIONS))


class Said(NamedTuple):
    """An answer, and whether the model ended it by itself."""

    text: str
    ended: bool

    @property
    def boxes(self) -> list[dict]:
        """In thousandths of the picture's sides."""
        from generation_1 import parse_boxes  # here: the list is shown without PyTorch

        return parse_boxes(self.text, 1000, 1000)


Answers = dict[tuple[str, str], Said]  # by picture and kind of prompt


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A choice that a switch has, such as the layer: a number from 0, below `count(config)`."""

    name: str
    count: Callable  # of the model's PaliGemmaConfig
    default: int


class Claim(NamedTuple):
    words: str
    where: str
    what: str


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One idea of the model, switched off or turned around.

    exercise: the one that the changed line belongs to. lesson: the page of docs/lessons/ to read on.
    Both may be empty.
    bits: what the weights are rounded to, where it is the weights that change; 0: they stay.
    """

    name: str
    title: str
    exercise: str
    lesson: str
    edits: tuple[Edit, ...]
    question: str
    why: str
    parameters: tuple[Parameter, ...] = ()
    bits: int = 0

    def values(self, **given: int) -> dict[str, int]:
        """The values of all parameters: those given, else the defaults."""
        unknown = given.keys() - {parameter.name for parameter in self.parameters}
        if unknown:
            raise ValueError(f"{self.name} has no parameter {', '.join(sorted(unknown))}")
        return {parameter.name: parameter.default for parameter in self.parameters} | given

    def edits_with(self, **given: int) -> list[Edit]:
        return [edit.with_values(self.values(**given)) for edit in self.edits]

    @property
    def claims(self) -> list[Claim]:
        return [
            Claim(words, *(part.strip() for part in claim.split(":", 1)))
            for words, claims in CLAIMED.findall(" ".join(self.why.split()))
            for claim in claims.split(";")
        ]

    def explanation(self, after: Answers) -> str:
        """The explanation as it is read: the words of the claims, and this run's answers."""
        words = CLAIMED.sub(r"\1", " ".join(self.why.split()))
        return QUOTED.sub(lambda found: one_line(after[found[1], found[2]], 48), words)


def one_line(said: Said, longest: int) -> str:
    """The answer for a sentence: newlines spelled out, and cut if it goes on and on."""
    text = said.text.replace("\n", "\\n")
    return text if len(text) <= longest else text[:longest].rstrip() + "…"


def shown(said: Said) -> str:
    """The answer for a table: boxes below each other, and its end said where it has none."""
    if not said.text:
        return "(nothing)"
    if not said.ended:
        return f"{one_line(said, 48)} (no end)"
    return one_line(said, 300).replace(" ; ", " ;\n")


# --------------------------------------------------------------------------------- claims


def found_again(before: Said, after: Said) -> int:
    """How many of the reference's boxes the changed model gives, too."""
    return sum(
        any(
            one["label"] == other["label"] and box_iou(one["box"], other["box"]) >= 0.7
            for other in after.boxes
        )
        for one in before.boxes
    )


def is_true(what: str, before: Said, after: Said) -> bool:
    """Does a claim (its part after the colon) hold for an answer?"""
    if what in ("same", "changed"):
        return (after.text == before.text) == (what == "same")
    if what == "alike":
        return True  # broken_claims compares the pictures
    if what == "nothing":
        return after.text == ""
    if what == "endless":
        return not after.ended
    if what == "kept":
        return len(before.boxes) == len(after.boxes) == found_again(before, after) > 0
    if number := re.fullmatch(r"within (\d+)", what):
        edges = [re.findall(r"<loc(\d{4})>", said.text) for said in (before, after)]
        moved = [abs(int(a) - int(b)) for a, b in zip(*edges, strict=False)]
        return is_true("kept", before, after) and max(moved) <= int(number[1])
    if number := re.fullmatch(r"(\d+) box(?:es)?", what):
        return len(after.boxes) == int(number[1])
    if what.startswith("says "):
        return what.removeprefix("says ") in after.text
    if what[0] == what[-1] == '"':
        return after.text == what[1:-1]
    raise ValueError(f"no such claim: {what}")


def places(where: str) -> list[tuple[str, str]]:
    """The answers that a claim is about."""
    words = where.split()
    pictures = [word for word in words if word in PICTURES] or PICTURES
    kinds = [word for word in words if word in KINDS] or KINDS
    if not set(words) <= {"all", *PICTURES, *KINDS}:
        raise ValueError(f"no such place: {where}")
    return [(picture, kind) for picture in pictures for kind in kinds]


def broken_claims(experiment: Experiment, before: Answers, after: Answers, table: dict) -> list[str]:
    """A line for each claim of the explanation that does not hold.

    table: the answers about the first picture by the parameters' values, as run.table gives them.
    """
    broken = []
    for words, where, what in experiment.claims:
        if where == "lost":
            claimed = {tuple(int(n) for n in value.split(".")) for value in what.split(", ")}
            detect = PICTURES[0], "detect"
            lost = {
                value for value, said in table.items() if not is_true("kept", before[detect], said["detect"])
            }
            if lost != claimed:
                broken.append(f"{experiment.name}: {words!r} (lost: {what}); but it is {sorted(lost)}")
            continue
        first, _, rest = where.partition(" ")
        if first[0].isdigit():
            value = tuple(int(n) for n in first.split("."))
            said = {(PICTURES[0], kind): answer for kind, answer in table[value].items()}
            where = f"{PICTURES[0]} {rest}"
        else:
            said = after
        for place in places(where):
            true = is_true(what, before[place], said[place])
            if what == "alike":
                true = len({said[name, place[1]].text for name in PICTURES}) == 1
            if not true:
                broken.append(
                    f"{experiment.name}: {words!r} ({' '.join(place)}: {what}); but it is "
                    f"{said[place].text!r} instead of {before[place].text!r}"
                )
    return broken
