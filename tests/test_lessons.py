"""The lessons: every number in them is recomputed, every exercise has one, their pictures are up to date.

Three things hold a number in a lesson:
  - a block of `text` is what the block of Python above it prints;
  - a number in the text around them has to stand in a block of that lesson, or in a comment such as
    `<!-- holds: 64 == (224 // 28) ** 2 -->`, a condition that is true after the lesson's blocks have run;
  - what belongs to a name (GPT-2), to a source (2017, section 3.2), or counts a question, is left out.
"""

import itertools
import math
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from course import lessons, shapes, shapes_1
from course.exercises import EXERCISES
from docs import outputs
from docs.lessons import canvas, draw

PAGES = sorted(lessons.PAGES.glob("*.md"))
NUMBER = re.compile(r"(?<![\w.])\d[\d,_]*(?:\.\d+)?(?:e-?\d+)?(?![\w])")
HOLDS = re.compile(r"<!-- holds: (.*?) -->")
NOT_COUNTED = re.compile(
    r"```.*?^```$|<!--.*?-->"  # blocks, comments
    r"|\]\([^)]*\)|`[^`\n]*\.(?:md|py|png)`"  # where links lead
    r"|\b(?:19|20)\d\d\b|\b(?:[Ss]ections?|[Ee]quations?|[Ff]igures?) [\d.]+(?:(?:,| and) [\d.]+)*"
    r"|\b(?:GPT|Llama|LLaVA|Gemma|PaliGemma|SigLIP|Qwen|BLIP|T|ViT-[A-Z]/)[- ]?\d[\d.]*\w*|\b\d+(?:\.\d+)?B\b"
    r"|^\| \d+ \||width=\"\d+\""  # rows of a list, pictures
    r"|<loc\d+>|^# \d+\.|<summary>\d\.|\bExercise 0\b|layers? \d+(?: and \d+)?\b|head \d+\b",
    re.DOTALL | re.MULTILINE,
)


def value_of(text: str) -> float:
    return float(text.replace(",", "").replace("_", ""))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_number_is_recomputed(page):
    variables: dict = {}
    stale = [shown for shown in outputs.walk(page, None, variables) if shown.is_stale]
    for shown in stale:
        print(f"{shown.block.where}\n{shown.printed}")
    assert not stale, "python -m docs.outputs --write puts the new outputs in their place"

    text = page.read_text(encoding="utf-8")
    known = {value_of(number) for block in outputs.blocks_of(page) for number in NUMBER.findall(block.text)}
    if "transformers" in text:
        variables["transformers"] = pytest.importorskip("transformers")
    for condition in HOLDS.findall(text):
        assert eval(condition, {"math": math, "torch": torch} | variables), condition
        known |= {value_of(number) for number in NUMBER.findall(condition)}
    prose = NOT_COUNTED.sub(" ", text)
    unheld = [number for number in NUMBER.findall(prose) if value_of(number) not in known]
    assert not unheld, f"{page.name}: nothing recomputes {', '.join(unheld)}; add <!-- holds: ... -->"


def test_a_number_that_nothing_holds_is_found():
    prose = NOT_COUNTED.sub(" ", "GPT-2 (Radford et al. 2019, section 2.3) has 1,024 places and 12 heads.")
    assert NUMBER.findall(prose) == ["1,024", "12"]


def test_every_exercise_has_exactly_one_lesson():
    names = [name for lesson in lessons.lessons() for name in lesson.exercises]
    assert sorted(names) == sorted(exercise.name for exercise in EXERCISES)
    also = {name for lesson in lessons.lessons() for name in lesson.also}
    assert also <= set(names)


def test_lessons_are_counted_from_one_and_lead_to_the_next():
    in_order = lessons.lessons()
    assert [lesson.number for lesson in in_order] == list(range(1, len(in_order) + 1))
    assert len(in_order) >= 14
    for lesson, following in itertools.pairwise(in_order):
        last = lesson.path.read_text(encoding="utf-8").strip().splitlines()[-1]
        assert last == f"Next: [{following.title}]({following.path.name})"


@pytest.mark.parametrize("lesson", lessons.lessons(), ids=lambda lesson: lesson.path.stem)
def test_a_lesson_has_all_its_parts(lesson):
    text = lesson.path.read_text(encoding="utf-8")
    assert f"# {lesson.number}. {lesson.title}\n" in text
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    for heading in ("By hand", "In the model", "What other models do", "Check yourself"):
        assert heading in headings
    assert text.count("<details><summary>") == text.count("</details>") == 3
    lines = lesson.why.splitlines()
    assert 10 <= len(lines) <= 25, len(lines)
    assert max(map(len, lines)) <= 90
    assert lines[0].endswith("?") or lines[1].endswith("?"), "it begins with its question"
    assert not re.search(r"!\[|\]\(|\*\*", lesson.why), "plain text"
    assert not any(line.startswith(" ") and not line.startswith("    ") for line in lines), "4 make a block"


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)|<img src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
            target = "".join(target)
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tokens_are_not_taken_for_html(page):
    """A bare <image> would not be seen on a web page."""
    code = re.compile(r"```.*?^```$|<!--.*?-->|`[^`]+`|^    [^\n]*$", re.DOTALL | re.MULTILINE)
    text = code.sub(" ", page.read_text(encoding="utf-8"))
    assert set(re.findall(r"</?(\w+)", text)) <= {"details", "summary", "img"}


def test_why_is_the_part_for_the_terminal():
    text = lessons.why("GemmaRMSNorm")
    lesson = lessons.lesson_of("GemmaRMSNorm")
    assert lesson.why in text and lesson.file in text and "<!--" not in text
    with pytest.raises(KeyError):
        lessons.why("no such exercise")


def test_the_list_of_lessons_is_complete():
    text = (lessons.PAGES / "README.md").read_text(encoding="utf-8")
    for lesson in lessons.lessons():
        row = next(line for line in text.splitlines() if line.startswith(f"| {lesson.number} |"))
        assert f"[{lesson.title}]({lesson.path.name})" in row
        assert " ".join(lesson.why.split("\n\n")[0].splitlines()) in row
        assert re.findall(r"`([^`]+)`", row) == list(lesson.exercises)


# ---------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("name", draw.PICTURES)
def test_pictures_are_what_is_drawn(name, tmp_path):
    """Other versions of FreeType and other processors may differ in the shade of an edge."""
    canvas.save(draw.PICTURES[name](), tmp_path / "now.png")
    now, before = (
        np.asarray(Image.open(path).convert("RGB"), dtype=int)
        for path in (tmp_path / "now.png", draw.FOLDER / f"{name}.png")
    )
    assert now.shape == before.shape
    differs = (abs(now - before).max(axis=-1) > 40).mean()
    assert differs < 0.002, f"python -m docs.lessons.draw {name}"


def test_pictures_are_all_used_and_small():
    files = {path.name for path in draw.FOLDER.iterdir()}
    assert files == {f"{name}.png" for name in draw.PICTURES}
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in sorted(files) if f"pictures/{name}" not in text] == []
    assert sum((draw.FOLDER / name).stat().st_size for name in files) < 1_500_000


# ------------------------------------------------------------------------------- exercise 0


def test_shapes_are_right_as_solved():
    assert [shapes.check(name, shapes_1) for name in shapes.INPUTS] == [""] * len(shapes.INPUTS)


def test_shapes_are_told_in_the_terminal(capsys):
    with pytest.raises(SystemExit) as end:
        shapes.main(shapes_1)
    assert end.value.code == 0 and "8 of 8 right." in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        shapes.main(type("Module", (), {"first_patch": staticmethod(shapes_1.first_patch)}))
    printed = capsys.readouterr().out
    assert end.value.code == 1 and "1 of 8 right." in printed and "+ first_patch" in printed


def test_shapes_skeleton_has_the_same_functions():
    """Names, signatures and docstrings, whatever the learner has written below them."""
    import inspect

    from course import shapes_0

    for name in shapes.INPUTS:
        solved, skeleton = getattr(shapes_1, name), getattr(shapes_0, name)
        assert inspect.signature(solved) == inspect.signature(skeleton)
        assert inspect.getdoc(solved) == inspect.getdoc(skeleton)


@pytest.mark.parametrize(
    ("name", "mistake", "words"),
    [(name, *mistake) for name, mistakes in shapes.MISTAKES.items() for mistake in mistakes],
)
def test_shapes_mistakes_are_named(name, mistake, words):
    assert shapes.check(name, type("Module", (), {name: staticmethod(mistake)})) == words


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x, h: None, "returns NoneType"),
        (lambda x, h: x, "the shape is [2, 3, 8] instead of [2, 4, 3, 2]"),
        (lambda x, h: shapes_1.split_heads(x, h) + 1, "at [0, 0, 0, 0] is 1 instead of 0"),
        (lambda x, h: shapes_1.split_heads(x, h).int(), "the dtype is torch.int32"),
        (lambda x, h: shapes_1.split_heads(x.add_(1), h) - 1, "what was given is changed"),
        (lambda x, h: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda x, h: sys.exit(), "ends the program (exit or quit)"),
        (lambda x, h: torch.empty(2, device="meta").cpu(), "NotImplementedError: Cannot copy"),
    ],
)
def test_shapes_what_is_wrong_is_said(function, words):
    assert words in shapes.check("split_heads", type("Module", (), {"split_heads": staticmethod(function)}))


def test_shapes_file_that_ends_the_program_is_told(monkeypatch, capsys):
    monkeypatch.setattr(shapes.importlib, "import_module", lambda name: sys.exit())
    with pytest.raises(SystemExit) as end:
        shapes.main()
    assert end.value.code == 2 and "cannot be run: SystemExit" in capsys.readouterr().err
