"""What a mistake does in the small model: learn.py try, and the end of a known mistake's message."""

import sys
from pathlib import Path

import pytest
import torch

import learn
from course import worker
from course.at_work import ELSEWHERE, FIRST, Effect, at_work, effect_of, sentence, side_by_side
from course.exercises import EXERCISES, named
from course.experiments.experiment import QUESTIONS, Said
from course.experiments.run import reference_answers
from course.learner_file import LearnerFile
from course.outcome import Flaw
from course.skeletons import skeleton
from course.source import paste, reference_source
from load_weights import import_set

pytestmark = pytest.mark.long


def learners(name: str, changes: dict[str, str]):
    """An exercise and a file of a learner's who wrote the reference's lines with changes in them."""
    [exercise] = named(name)
    source = reference_source(exercise.file)
    for old, new in changes.items():
        assert source.count(old) >= 1
        source = source.replace(old, new)
    return exercise, LearnerFile(exercise.file, paste(skeleton(exercise.file), exercise.parts, source))


UNSCALED = {"@ key.transpose(2, 3) * self.head_dim**-0.5": "@ key.transpose(2, 3)"}
CAUSAL = {"not_later[None] | is_prefix[:, None, :]": "not_later[None]"}


@pytest.mark.parametrize(
    ("name", "changes", "changed", "said"),
    [
        ("GemmaAttention", {}, [], "answers as before"),
        (
            "GemmaAttention",
            UNSCALED,
            [("cats", "detect"), ("night", "detect")],
            'moves its boxes ("detect cat", images/cats.png); captions and places stay.',
        ),
        (
            "prefix_lm_mask",
            CAUSAL,
            FIRST,
            '`nothing I know` instead of `two cats and an umbrella` ("caption en", images/cats.png).',
        ),
        (
            "rescale",
            {"image.astype(np.float32) * np.float32(scale)": "image.astype(np.float32)"},
            FIRST,
            '` instead of `two cats and an umbrella` ("caption en", images/cats.png).',
        ),
    ],
    ids=["right", "unscaled", "causal", "not rescaled"],
)
def test_effect(name, changes, changed, said):
    """Only the exercise's own code is the learner's: the rest of the skeleton would not even run."""
    exercise, file = learners(name, changes)
    effect = at_work(exercise, file)
    assert effect.before == reference_answers() and not effect.stopped
    assert effect.changed == changed
    assert said in sentence(effect)
    lines = "\n".join(side_by_side(exercise, effect))
    assert f"with your {name}" in lines
    assert f"{len(effect.changed)} of 6" in lines if changed else "All six answers are the same." in lines


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("rotate_half", {"[-second, first], dim=-1": "[-second, first], dim=1"}, "it stops with "),
        (
            "rotate_half",
            {"first, second = x.chunk(2, dim=-1)": "raise KeyError('gone')"},
            "it stops with KeyError",
        ),
        (
            "VisionEmbeddings",
            {"self.position_embedding = nn.Embedding": "self.places = nn.Embedding"},
            "do not fit",
        ),
        (
            "rescale",
            {"return image.astype(np.float32)": "raise SystemExit(3)\n    return image"},
            "SystemExit: 3",
        ),
        ("GemmaRMSNorm", {"+ self.eps)": "* float('nan'))"}, "not finite"),
    ],
    ids=["shapes", "an error", "parameters", "exit", "nan"],
)
def test_code_that_cannot_answer(name, changes, said):
    """It is told in a line, and nothing is raised."""
    exercise, file = learners(name, changes)
    effect = at_work(exercise, file)
    assert effect.stopped and not effect.after and not effect.changed
    assert said in sentence(effect) and "\n" not in sentence(effect)
    assert said in "\n".join(side_by_side(exercise, effect))


def test_code_that_does_not_end():
    exercise, file = learners(
        "rotate_half", {"first, second = x.chunk(2, dim=-1)": "while True:\n        pass"}
    )
    with pytest.raises(Flaw, match="still running"):
        at_work(exercise, file, 0.5)


def test_without_the_small_model(monkeypatch):
    """Then nothing can be said of it, and the rest of the message stands."""

    def gone():
        raise FileNotFoundError(2, "No such file or directory", "images/cats.png")

    monkeypatch.setattr("course.experiments.run.reference_answers", gone)
    exercise, file = learners("prefix_lm_mask", CAUSAL)
    result = worker.checked(exercise, file, 10)
    assert result["mistake"] and "With this" not in result["message"]
    assert worker.tried_at_work(exercise, file, 10).kind == "missing"


def test_the_reference_has_no_effect():
    effect = effect_of(import_set(1))
    assert effect.after == effect.before == reference_answers()


def test_what_is_asked_about_is_what_the_answers_run():
    """All that they run is tried, and what they do not is said to be used elsewhere."""
    modules, called = import_set(1), set()

    def note(frame, event, _):
        if event == "call":
            called.add((Path(frame.f_code.co_filename).stem, frame.f_code.co_qualname))

    sys.setprofile(note)
    try:
        effect_of(modules)
    finally:
        sys.setprofile(None)
    run = {
        exercise.name
        for exercise in EXERCISES
        if {(f"{exercise.file}_1", part) for part in exercise.parts} & called
    }
    elsewhere = {exercise.name for exercise in EXERCISES if {exercise.name, exercise.file} & ELSEWHERE.keys()}
    assert run == {exercise.name for exercise in EXERCISES} - elsewhere


def test_sentence_names_the_plainest_difference():
    """Words before boxes, and what no longer ends is cut."""
    before = {place: Said("right", True) for place in QUESTIONS}
    endless = before | {("cats", "where"): Said("\n" * 40, False), ("cats", "detect"): Said("", True)}
    said = sentence(Effect(before, endless))
    assert said.startswith("With this, the model answers `\\n\\n") and "…` instead of `right`" in said
    assert '("answer en where is the umbrella?", images/cats.png)' in said
    nothing = before | {("night", "detect"): Said("", True)}
    assert "answers nothing instead of `right`" in sentence(Effect(before, nothing))
    moved = reference_answers() | {("cats", "detect"): reference_answers()["night", "detect"]}
    assert "gives 1 box instead of 2" in sentence(Effect(reference_answers(), moved))
    text = reference_answers()["cats", "detect"].text.replace("<loc03", "<loc04")
    moved["cats", "detect"] = Said(text, True)
    assert "moves its boxes" in sentence(Effect(reference_answers(), moved))


@pytest.fixture
def program(monkeypatch, capsys):
    """learn.py try with an exercise in a state of the test's choosing."""

    def run(name: str, changes: dict[str, str]):
        exercise, file = learners(name, changes)
        monkeypatch.setattr("course.learner_file.LearnerFile", lambda _: file)
        try:
            learn.main(["try", name])
        except SystemExit as end:
            return end.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    monkeypatch.setenv("COLUMNS", "110")
    yield run
    worker.process.close()


def test_try(program):
    code, out, err = program("GemmaAttention", UNSCALED)
    assert (code, err) == (0, "")
    assert "is wrong. All else here is the reference's." in out
    assert "reference" in out and "with your GemmaAttention" in out and "2 of 6 answers differ." in out
    assert out.count("> star") == 3  # one box of the reference's, and two with the mistake
    assert "What is wrong:  python -m pytest" in out
    code, out, err = program("GemmaAttention", {})
    assert code == 0 and "is solved." in out and "All six answers are the same." in out


def test_try_what_is_not_done(program, capsys):
    with pytest.raises(SystemExit) as end:
        learn.main(["try", "GemmaMLP"])
    assert end.value.code == 2
    assert "is not done yet" in capsys.readouterr().err


def test_a_known_mistake_ends_in_what_it_does():
    exercise, file = learners("prefix_lm_mask", CAUSAL)
    result = worker.check_apart(exercise, file)
    assert result.mistake
    assert result.message.endswith(
        "With this, the model answers `nothing I know` instead of `two cats and an umbrella` "
        '("caption en", images/cats.png).'
    )
    worker.process.close()
    assert torch.is_grad_enabled()
