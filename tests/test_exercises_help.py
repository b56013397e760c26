"""hint.py, the learning path after the tests, and the README's list: what stands around the exercises."""

import functools
import json
import re

import numpy as np
import pytest

from course import hint
from course.checking import Result
from course.differences import describe_values
from course.exercise_types import ROOT
from course.exercises import EXERCISES, named
from course.learner import FILES, LearnerFile, reference_source
from course.readme_list import BEGIN, END, exercise_list
from course.skeletons import skeleton

skeleton_of = functools.cache(skeleton)
DAMAGED = ["", "[", "[1]", "3", '{"rescale": "x"}', '{"rescale": -4}', "\udc80", "[" * 9999]


@pytest.fixture
def ask(monkeypatch, tmp_path, capsys):
    """Runs hint.py in this process, on skeletons, with a memory of its own; returns (code, out, err)."""
    monkeypatch.setattr(hint, "GIVEN", tmp_path / "hints.json")
    texts = {file: skeleton_of(file) for file in FILES}
    monkeypatch.setattr(hint, "LearnerFile", lambda file: LearnerFile(file, texts[file]))

    def ask(*arguments):
        code = 0
        try:
            hint.main(list(arguments))
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    ask.texts, ask.memory = texts, tmp_path / "hints.json"
    return ask


def test_one_hint_more_each_time(ask):
    [exercise] = named("rescale")
    for times in (1, 2, 3, 4):
        code, out, err = ask("rescale")
        assert (code, err) == (0, "") and "text_image_token_processor_0.py:" in out
        assert [int(n) for n in re.findall(r"Hint (\d) of 3", out)] == [1, 2, 3][:times]
        for i, text in enumerate(exercise.hints):
            assert (" ".join(text.split()) in " ".join(out.split())) == (i < times)
        assert ("Still stuck?" in out) == (times < 3)
    assert "Hint 2" not in ask("resize")[1]


def test_hint_for_what_cannot_be_read(ask):
    ask.texts["vision_transformer"] = ask.texts["vision_transformer"].replace("class MLP(", "class MLP((")
    out = ask("MLP")[1]
    assert "Hint 1" in out and "what stands in the way: python -m pytest -k MLP" in out
    assert "stands in the way" not in ask("Encoder")[1]


def test_reset(ask):
    for name in ("rescale", "resize"):
        ask(name), ask(name)
    assert ask("rescale", "--reset") == (0, "The hints of rescale begin anew.\n", "")
    assert json.loads(ask.memory.read_text()) == {"resize": 2}
    ask("--reset")
    assert json.loads(ask.memory.read_text()) == {}


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_memory(content, ask):
    ask.memory.write_bytes(content.encode("utf-8", "surrogateescape"))
    code, out, err = ask("rescale")
    assert (code, err) == (0, "") and "Hint 1" in out and "Hint 2" not in out


def test_memory_that_cannot_be_written(ask):
    ask.memory.mkdir()
    code, out, err = ask("rescale")
    assert code == 0 and "Hint 1" in out and "cannot be written" in err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rescal", "did you mean rescale"),
        ("RMSNorm", "GemmaRMSNorm"),
        ("xyzzyx", "`python -m pytest` lists them"),
        ("", "Next: "),
    ],
)
def test_unknown_name(name, words, ask):
    code, out, err = ask(*[name] if name else [])
    assert words in out + err
    if name:
        assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("hint.py: error: ")


def test_next(ask):
    code, out, _ = ask()
    assert code == 0 and out.startswith(f"Next: {EXERCISES[1].name} (exercise 2 of {len(EXERCISES)}, ")
    assert EXERCISES[1].command in out and f"python -m course.hint {EXERCISES[1].name}" in out


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: f"exercise-{exercise.number}")
def test_after_success(exercise, ask):
    """The reference's lines, and what is worth comparing; no hint any more."""
    ask.texts[exercise.file] = reference_source(exercise.file)
    code, out, err = ask(exercise.name)
    assert (code, err) == (0, "") and "Hint" not in out and "NotImplementedError" not in out
    assert " ".join(exercise.compare.split()) in " ".join(out.split())
    assert f"{exercise.file}_1.py:" in out and '"""' not in out
    for part in exercise.parts:
        assert part in out


def test_all_solved(ask):
    for file in ask.texts:
        ask.texts[file] = reference_source(file)
    assert ask()[1] == f"All {len(EXERCISES)} exercises are solved: python inference.py --set 0\n"


# --------------------------------------------------------------------------- the learning path


@pytest.fixture
def path(request):
    """The conftest.py beside the model's files, which writes it."""
    plugins = request.config.pluginmanager.get_plugins()
    return next(plugin for plugin in plugins if hasattr(plugin, "path_line"))


def test_states_in_the_learning_path(path):
    exercise = EXERCISES[3]
    results = [Result(exercise, "solved"), Result(exercise, "wrong"), Result(exercise, "to do")]
    results.append(Result(exercise, "to do", left=["MLP.forward"]))
    lines = [path.path_line(result) for result in results]
    marks = [re.match(r" *\d+ (.) (solved|wrong|to do|begun) ", line).groups() for line in lines]
    assert marks == [("+", "solved"), ("x", "wrong"), (" ", "to do"), ("~", "begun")]
    assert path.count_line(results) == "1 of 4 solved, 1 wrong, 2 to do (1 of them begun)."
    assert path.count_line(results[:3]) == "1 of 3 solved, 1 wrong, 1 to do."


# ----------------------------------------------------------------------------------- the README


def test_list_in_the_readme():
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    if BEGIN not in text:
        pytest.skip("README.md has no list of exercises yet")
    shown = text[text.index(BEGIN) : text.index(END) + len(END)]
    assert shown == exercise_list(), "python -m course.readme_list writes it anew"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda right: right - 1, "All values are right up to a constant: 1 too small."),
        (lambda right: right + 2, "All values are right up to a constant: 2 too large."),
        (lambda right: right * -3, "3 times what they should be and with the sign flipped."),
        (lambda right: -right, "Every sign is flipped; apart from that, the values are right."),
    ],
)
def test_message_says_how_far_off_the_values_are(change, words):
    right = np.array([[0.5, 2.0, -3.0], [4.0, 1.5, 7.0]])
    assert words in " ".join(describe_values(right, change(right), 1e-5, "B D", {}))
