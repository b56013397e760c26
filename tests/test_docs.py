"""README.md and docs/: every output that they show is what the command prints, and nothing is left behind."""

import pytest

from docs import outputs


@pytest.mark.long
def test_outputs_are_what_is_printed(documents_process):
    """And git has nothing to show afterwards. The process began with the tests: see conftest.py."""
    said, _ = documents_process.communicate()
    assert documents_process.returncode == 0, f"{said}\npython -m docs.outputs --write mends what is stale"


SHOWN = """\
Model loaded in 0.20 seconds
two cats
...
Memory Usage: 0.30 GB
"""


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("Model loaded in 3.75 seconds\ntwo cats\nanything\nat all\nMemory Usage: 1.02 GB\n", True),
        ("Model loaded in 3.75 seconds\ntwo cats\nMemory Usage: 1.02 GB\n", True),
        ("Model loaded in 3.75 seconds\ntwo dogs\nMemory Usage: 1.02 GB\n", False),
        ("Model loaded in 3.75 seconds\nanything\ntwo cats\nMemory Usage: 1.02 GB\n", False),
        ("Model loaded in 3.75 seconds\ntwo cats\nMemory Usage: 1.02 GB\nand more\n", False),
        ("Model loaded in 4 seconds\ntwo cats\nMemory Usage: 1.02 GB\n", False),
    ],
)
def test_what_counts_as_the_same(printed, same):
    assert outputs.matches(SHOWN, printed) == same


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("<loc0015><loc0120> cat [23.1, 122.9]\n", True),  # another CPU
        ("<loc0012><loc0120> dog [23.1, 125.2]\n", False),
        ("<loc0012><loc0140> cat [23.1, 125.2]\n", False),
        ("<loc0012><loc0120> cat [23.1, 155.2]\n", False),
        ("<loc0012> cat [23.1, 125.2]\n", False),
    ],
)
def test_an_edge_of_a_box_may_move_a_little(printed, same):
    assert outputs.matches("<loc0012><loc0120> cat [23.1, 125.2]\n", printed) == same


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("<loc0012><seg099><seg007> cat\n", True),  # another CPU
        ("<loc0012><seg017> cat\n", False),
        ("<loc0012><seg017><seg007><seg007> cat\n", False),
        ("<loc0012><loc0017><seg007> cat\n", False),
        ("<loc0012> cat\n", False),
    ],
)
def test_a_mask_may_have_other_words_but_not_another_number_of_them(printed, same):
    assert outputs.matches("<loc0012><seg017><seg007> cat\n", printed) == same


def test_a_stale_output_is_found_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "ROOT", tmp_path)
    document = tmp_path / "README.md"
    text = "Ask:\n\n  ```sh\n  python -c 'print(6 * 7)'\n  ```\n\n  ```text\n  41\n  ```\n\nThe end.\n"
    document.write_text(text, encoding="utf-8")
    [shown] = outputs.walk(document, tmp_path)
    assert shown.is_stale and shown.command == "python -c 'print(6 * 7)'"
    outputs.write([shown])
    assert document.read_text(encoding="utf-8") == text.replace("41", "42")
    assert not next(outputs.walk(document, tmp_path)).is_stale


def test_what_a_command_leaves_is_named(tmp_path):
    (tmp_path / "kept.txt").write_text("1", encoding="utf-8")
    (tmp_path / "part_0.py").write_text("", encoding="utf-8")
    (tmp_path / ".gitignore").write_text("out.png", encoding="utf-8")
    outputs.watch(tmp_path)
    for name in ("kept.txt", "part_0.py", "out.png", "new.txt"):
        (tmp_path / name).write_text("2", encoding="utf-8")
    assert sorted(outputs.left_behind(tmp_path)) == ["kept.txt", "new.txt"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```sh\nhf download x\n```\n```text\ndone\n```\n", "cannot be run here"),
        ("```\nno language\n```\n", "a block has to be one of"),
        ("```sh\nrm -r /\n```\n", "only python"),
        ("<!-- in nothing_of_this_name -->\n```python\ndef f(): pass\n```\n", "no _0 file has a"),
    ],
)
def test_what_cannot_be_held_against_a_command_is_refused(text, words, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "ROOT", tmp_path)
    document = tmp_path / "README.md"
    document.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        list(outputs.walk(document, tmp_path))


def test_a_solution_takes_the_place_of_what_is_not_done(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "ROOT", tmp_path)
    text = (
        "class A:\n    def f(\n        self,\n    ):\n        # TODO 1. Think.\n        raise\n\n"
        "    def g(self):\n        '''What it is.'''\n        # TODO 1. Think.\n        raise\n"
    )
    (tmp_path / "part_0.py").write_text(text, encoding="utf-8")
    document = tmp_path / "README.md"
    in_f = "<!-- in A.f -->\n```python\nx = 2\nreturn x\n```\n"
    in_g = "<!-- in A.g -->\n```python\nreturn 3\n```\n"
    document.write_text(f"{in_f}\n{in_g}", encoding="utf-8")
    list(outputs.walk(document, tmp_path))
    written = (tmp_path / "part_0.py").read_text(encoding="utf-8")
    todo = "        # TODO 1. Think.\n        raise\n"
    done = text.replace(todo, "        x = 2\n        return x\n", 1)
    assert written == done.replace(todo, "        return 3\n")
