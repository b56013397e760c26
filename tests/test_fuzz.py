"""Some of the cases of tests/fuzz; how to run thousands is told there."""

import pytest

from tests.fuzz import harness, prompt_files
from tests.fuzz.harness import KINDS, judge, run_cases

pytestmark = pytest.mark.long


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_input_ends_in_a_line(kind):
    results = run_cases(kind, seed=0, count=40)
    assert len(results) == 40
    failed = [result for result in results if result[1] not in ("answer", "refused")]
    assert not failed
    if kind != "prompt_files":  # without which a model answers as well
        reasons = {last for _, verdict, last in results if verdict == "refused"}
        assert len(reasons) > 10


LINE = "inference.py: error: no"


@pytest.mark.parametrize(
    ("code", "out", "err", "verdict"),
    [
        (0, "a cat\n", "Result!!!\n", "answer"),
        (0, "x.png: \n", "Result!!!\nx.png: (nothing)\n", "answer"),
        (0, "", "", "exit 0 without an answer"),
        (0, "a cat\n", f"{LINE}\n", "exit 0 without an answer"),
        (2, "", f"Loading model\n{LINE}\n", "refused"),
        (2, "", f"{LINE}\nLoading model\n", "1 lines of error"),
        (2, "", f"{LINE}\n{LINE}\n", "2 lines of error"),
        (2, "", f"{LINE * 20}\n", f"a message of {len(LINE * 20)} letters"),
        (2, "", f"thread panicked\n{LINE}\n", "another line: thread panicked"),
        (1, "", "Traceback (most recent call last):\n", "traceback"),
        (1, "", "", "exit code 1"),
    ],
)
def test_the_judge(code, out, err, verdict):
    assert judge(code, out, err) == verdict


def test_another_answer_counts_as_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "run_case", lambda argv: ("answer", argv[-1], ""))
    monkeypatch.setattr(prompt_files, "same_as", lambda argv: [*argv, "a cat"])
    assert harness.try_case("prompt_files", ["a cat"])[0] == "answer"
    assert harness.try_case("prompt_files", ["xyz"])[0] == "another answer: 'xyz' instead of 'a cat'"
