"""learn.py, the learning path after the tests, and the README's list: what stands around the exercises."""

import functools
import json
import re

import numpy as np
import pytest
import torch

import learn
from course import hints, worker
from course.at_work import at_work, sentence, side_by_side
from course.checking import check
from course.differences import describe_values
from course.exercises import EXERCISES, FILES, named, number_of
from course.judging import judge, to_array
from course.learner_file import LearnerFile
from course.outcome import Outcome, Result
from course.path import count_line, path_line
from course.show import show
from course.skeletons import skeleton
from course.source import ROOT, reference_source
from course.trying import expected_outcome, variant_file
from course.write import BEGIN, END, exercise_list, pages_with_the_list

skeleton_of = functools.cache(skeleton)
DAMAGED = ["", "[", "[1]", "3", '{"rescale": "x"}', '{"rescale": -4}', "\udc80", "[" * 9999]


@pytest.fixture
def ask(monkeypatch, tmp_path, capsys):
    """Runs learn.py in this process, on skeletons, with a memory of its own; returns (code, out, err)."""
    monkeypatch.setattr(hints, "HINTS_GIVEN", tmp_path / "hints.json")
    monkeypatch.setattr(worker, "check_apart", check)
    texts = {file: skeleton_of(file) for file in FILES}
    monkeypatch.setattr(LearnerFile, "_read", lambda self: texts[self.file])

    def ask(*arguments):
        code = 0
        try:
            learn.main(list(arguments))
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    ask.texts, ask.memory = texts, tmp_path / "hints.json"
    return ask


def test_one_hint_more_each_time(ask):
    [exercise] = named("rescale")
    for times in (1, 2, 3, 4):
        code, out, err = ask("hint", "rescale")
        assert (code, err) == (0, "") and "text_image_token_processor_0.py:" in out
        assert [int(n) for n in re.findall(r"Hint (\d) of 3", out)] == [1, 2, 3][:times]
        for i, text in enumerate(exercise.hints):
            assert (" ".join(text.split()) in " ".join(out.split())) == (i < times)
        assert ("Still stuck?" in out) == (times < 3)
    assert "Hint 2" not in ask("hint", "resize")[1]


def test_hint_for_what_cannot_be_read(ask):
    ask.texts["vision_transformer"] = ask.texts["vision_transformer"].replace("class MLP(", "class MLP((")
    out = ask("hint", "MLP")[1]
    assert "Hint 1" in out and "what stands in the way: python -m pytest -k MLP" in out
    assert "stands in the way" not in ask("hint", "Encoder")[1]


def test_reset(ask):
    for name in ("rescale", "resize"):
        ask("hint", name), ask("hint", name)
    assert ask("hint", "rescale", "--reset") == (0, "The hints of rescale begin again.\n", "")
    assert json.loads(ask.memory.read_text()) == {"resize": 2}
    ask("hint", "--reset")
    assert json.loads(ask.memory.read_text()) == {}


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_memory(content, ask):
    ask.memory.write_bytes(content.encode("utf-8", "surrogateescape"))
    code, out, err = ask("hint", "rescale")
    assert (code, err) == (0, "") and "Hint 1" in out and "Hint 2" not in out


def test_memory_that_cannot_be_written(ask):
    ask.memory.mkdir()
    code, out, err = ask("hint", "rescale")
    assert code == 0 and "Hint 1" in out and "cannot be written" in err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rescall", "did you mean rescale"),
        ("Atention", "did you mean Attention or GemmaAttention"),
        ("kv", "several names: KVCache.num_items, KVCache.update, repeat_kv"),
        ("xyzzyx", "`python learn.py list` shows them"),
        ("0", "`python learn.py list` shows them"),
        ("", "`python learn.py list` shows them"),
    ],
    ids=["a letter more", "a letter less", "several", "none", "number", "empty"],
)
@pytest.mark.parametrize("command", ["hint", "show", "reset"])
def test_unknown_name(name, words, command, ask):
    code, out, err = ask(command, name)
    assert words in err
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("learn.py: error: ")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("rmsn", "GemmaRMSNorm"), ("tie_weights", "GemmaForCausalLM.tie_weights"), ("2", "resize")],
    ids=["part", "method", "number"],
)
def test_part_of_a_name(name, meant, ask):
    code, out, err = ask("hint", name)
    assert (code, err) == (0, "") and out.startswith(f"{meant} (exercise ")


def test_next(ask):
    code, out, _ = ask()
    assert code == 0 and f"Next: {EXERCISES[1].name} (exercise 2 of {len(EXERCISES)}, " in out
    assert EXERCISES[1].command in out and f"python learn.py hint {EXERCISES[1].name}" in out
    assert out.count("to do") == len(EXERCISES) and out.startswith(f"  1 + solved  {EXERCISES[0].name} ")
    minutes = sum(exercise.minutes for exercise in EXERCISES[1:])
    assert f"What is not solved takes about {minutes // 60} h {minutes % 60} min.\n" in out
    assert f" {EXERCISES[1].name} (exercise 2 of " in " " + ask("hint")[1]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: f"exercise-{number_of(exercise)}")
def test_after_success(exercise, ask):
    """The reference's lines, and what is worth comparing; no hint anymore."""
    ask.texts[exercise.file] = reference_source(exercise.file)
    code, out, err = ask("hint", exercise.name)
    assert (code, err) == (0, "") and "Hint" not in out and "NotImplementedError" not in out
    assert " ".join(exercise.compare.split()) in " ".join(out.split())
    assert f"{exercise.file}_1.py:" in out and '"""' not in out
    for part in exercise.parts:
        assert part in out


def test_all_solved(ask):
    for file in ask.texts:
        ask.texts[file] = reference_source(file)
    all_solved = f"All {len(EXERCISES)} exercises are solved: python inference.py --set 0\n"
    assert ask()[1].endswith(f"\n{all_solved}") and ask("hint")[1] == all_solved


# ------------------------------------------------------------------------------ show and try


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "KVCache.num_items",
            {"self.key_cache[0].shape[2] if self.key_cache else 0": "len(self.key_cache)"},
            ["six tokens", "Yours\n    result: 2\n\n  Right\n    result: 6"],
        ),
        ("KVCache.num_items", {"self.key_cache else 0": "True else 0"}, ["nothing cached yet", "IndexError"]),
        ("keep_top_p", {"reached_before >= top_p": "reached_before > top_p"}, ["reached exactly"]),
        # Where the numbers are the same, what is wrong is said.
        ("rotate_half", {"[-second, first], dim=-1)": "[-second, first], dim=-1).detach()"}, ["no gradient"]),
        ("rescale", {}, ["Yours is right, in this case and in all others."]),
        ("KVCache.num_items", {}, ["filled", "Yours is right, in this case and in all others."]),
    ],
)
def test_show_looks_for_a_case_that_is_wrong(name, change, words):
    [exercise] = named(name)
    text = show(exercise, variant_file(exercise, change))
    for word in words:
        assert word in text
    assert not change or "Yours is right" not in text


def test_a_case_that_does_not_end_is_shown():
    [exercise] = named("KVCache.num_items")
    loop = "while len(self.key_cache) > 3:\n            pass\n        return"
    endless = {"return self.key_cache[0]": f"{loop} self.key_cache[0]"}
    text = show(exercise, variant_file(exercise, endless), 0.2)
    assert "one token, four layers" in text and "still running after" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train_step", "in training"),
        ("make_encoder", "for masks"),
        ("keep_top_p", "where tokens are drawn"),
        ("parse_boxes", "where boxes are read"),
    ],
)
def test_what_no_answer_runs_is_not_asked_about(name, words, monkeypatch):
    monkeypatch.setattr("course.at_work.effect_of", lambda _: pytest.fail("the model was asked"))
    [exercise] = named(name)
    effect = at_work(exercise, LearnerFile(exercise.file, reference_source(exercise.file)))
    said = sentence(effect)
    assert said.startswith("None of the small model's six answers runs this") and words in said
    assert side_by_side(exercise, effect) == ["", said]


# --------------------------------------------------------------------------- the learning path


def test_states_in_the_learning_path():
    exercise = EXERCISES[3]
    results = [Result(exercise, "solved"), Result(exercise, "wrong"), Result(exercise, "to do")]
    results.append(Result(exercise, "to do", left=["MLP.forward"]))
    lines = [path_line(result) for result in results]
    marks = [re.match(r" *\d+ (.) (solved|wrong|to do|begun) ", line).groups() for line in lines]
    assert marks == [("+", "solved"), ("x", "wrong"), (" ", "to do"), ("~", "begun")]
    assert count_line(results) == "1 of 4 solved, 1 wrong, 2 to do (1 of them begun)."
    assert count_line(results[:3]) == "1 of 3 solved, 1 wrong, 1 to do."


# ----------------------------------------------------------------------------------- the README


def test_list_in_the_readme():
    pages = pages_with_the_list()
    if not pages:
        pytest.skip("no page has a list of exercises yet")
    for page in pages:
        text = page.read_text(encoding="utf-8")
        shown = text[text.index(BEGIN) : text.index(END) + len(END)]
        assert shown == exercise_list(), "python -m course.write writes it again"


def test_readme_says_how_many_exercises_there_are_and_how_long_they_take():
    minutes = sum(exercise.minutes for exercise in EXERCISES)
    words = f"The {len(EXERCISES)} exercises take about {round(minutes / 30) / 2:g} hours."
    assert words in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


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


def test_a_wrong_size_is_that_of_the_test():
    """What is compared is a small random model: no checkpoint has its sizes."""
    [exercise] = named("VisionEmbeddings")
    change = {"nn.Embedding(config.num_patches, config.hidden_size)": "nn.Embedding(256, config.hidden_size)"}
    message = check(exercise, variant_file(exercise, change)).message
    assert "has the shape [256, " in message and "but with the sizes of this test it has to be [" in message
    assert "is one of them written as a number?" in message and "checkpoint" not in message


def test_a_weight_the_wrong_way_round_is_called_so():
    [exercise] = named("MLP")
    sizes = ["config.hidden_size", "config.intermediate_size"]
    change = {f"nn.Linear({', '.join(sizes)})": f"nn.Linear({', '.join(reversed(sizes))})"}
    message = check(exercise, variant_file(exercise, change)).message
    assert "input and output are swapped" in message and "written as a number" not in message


IDS = [[4, 256_000, 7], [257_151, 3, 256_001]]


@pytest.mark.parametrize(
    ("got", "words"),
    [
        ([[4, 256_000, 7], [257_152, 3, 256_001]], "First difference at [B, T] = [1, 0]: 257152 instead of"),
        ([[5, 256_001, 8], [257_152, 4, 256_002]], "All values are right up to a constant: 1 too large."),
        (
            [[7, 256_000, 4], [256_001, 3, 257_151]],
            "These are the right values in reverse order along axis 1",
        ),
        ([[3, 256_000, 7], [257_151, 4, 256_001]], "These are the right values in the wrong places."),
        ([[8, 512_000, 14], [514_302, 6, 512_002]], "Right: 0% of 6 values."),
    ],
)
def test_ids_are_right_or_wrong_but_not_nearly_right(got, words):
    """They are no measured numbers: no tolerance, no largest difference, no ratio."""
    right, got = to_array(torch.tensor(IDS)), to_array(torch.tensor(got))
    said = " ".join(describe_values(right, got, 1e-5, "B T", {}))
    assert words in said
    assert "Largest" not in said and "factor" not in said and "average" not in said


def test_a_large_id_that_is_one_off_is_wrong():
    """By the tolerance of measured numbers, 257151 would be 257152."""
    [exercise] = named("PaliGemmaProcessor.__call__")
    right, got = (Outcome(value=torch.tensor(IDS) + shift) for shift in (0, 1))
    flaw = judge(right, got, exercise, exercise.cases[0])
    assert flaw is not None and flaw.kind == "values"


def test_a_count_has_no_ratio():
    [exercise] = named("KVCache.num_items")
    index = 1
    right = expected_outcome(exercise, index)
    flaw = judge(right, Outcome(value=2 * right.value), exercise, exercise.cases[index])
    assert flaw.kind == "values" and "times what it should be" not in " ".join(flaw.details)
