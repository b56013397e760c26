"""prompts.json: which prompts a checkpoint knows, and what is said about one that it does not."""

import json
import shutil

import pytest

import explain
import inference
from load_weights import CheckpointError
from program.command_line import readable
from program.known_prompts import FILE, content_after_training, notes_on, read_known
from program.questions import SAMPLES, TINY_MODEL
from tiny_model import scenes

FORMS = [
    "caption en", "detect {thing}", "detect {thing} ; {thing}", "answer en how many {things} are there[?]",
    "answer en is there a {thing}[?]", "answer en what colo[u]r is the {thing}[?]",
]  # fmt: skip
KNOWN = {
    "name": "tiny",
    "forms": FORMS,
    "words": {"thing": ["cat", "apple", "ice cream"], "things": ["cats", "apples", "ice creams"]},
    "capitals": True,
    "prompts": ["detect everything (a+b)*"],
}


@pytest.fixture
def folder(tmp_path):
    def write(content=KNOWN, name="model"):
        (tmp_path / name).mkdir(exist_ok=True)
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / name / FILE).write_bytes(text)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    "prompt",
    [
        "caption en",
        "Caption en",
        "detect ice cream",
        "Detect cat ; apple",
        "answer en how many cats are there?",
        "answer en How many cats are there",
        "Answer en Is there an apple?",
        "answer en what color is the cat?",
        "answer en what colour is the cat",
        "detect everything (a+b)*",
    ],
)
def test_known(prompt, folder):
    assert notes_on([prompt], folder()) == []


ALL_FORMS = (
    'tiny knows these prompts: "detect everything (a+b)*", "caption en", "detect cat", "detect cat ; apple", '
    '"answer en how many cats are there?", "answer en is there a cat?", '
    '"answer en what colour is the cat?" (cat stands for any of its 3 things)'
)


@pytest.mark.parametrize(
    "prompt",
    [
        "", "caption", "caption de", "captionen", "CAPTION EN", "ocr", "segment cat", "detect  ", "[?]",
        "xdetect cat", "caption en ", "caption en\n", "answer en", "answer de how many cats are there?",
        "detect cat;giraffe;x", "detect cat ", "detect " + "x" * 41, "detect " + "cat ; " * 7000, "{thing}",
    ],
)  # fmt: skip
def test_no_form(prompt, folder):
    assert notes_on([prompt, "caption en"], folder()) == [ALL_FORMS]


@pytest.mark.parametrize(
    ("prompt", "word", "known"),
    [
        ("detect giraffe", "giraffe", "cat, apple, ice cream"),
        ("detect everything (aab)", "everything (aab)", "cat, apple, ice cream"),
        ("detect Cat", "Cat", "cat, apple, ice cream"),
        ("detect cat ; giraffe", "giraffe", "cat, apple, ice cream"),
        ("answer en how many giraffes are there?", "giraffes", "cats, apples, ice creams"),
        ("answer en how many cat are there", "cat", "cats, apples, ice creams"),
        ("answer en what color is the red cat?", "red cat", "cat, apple, ice cream"),
        ("detect \x1b[31m", "\\x1b[31m", "cat, apple, ice cream"),
    ],
)
def test_unknown_thing(prompt, word, known, folder):
    assert notes_on([prompt], folder()) == [f'tiny does not know "{word}", only {known}']


def test_one_note_of_a_kind_however_many_prompts(folder):
    prompts = ["detect giraffe", "ocr", "detect zebra", "ocr", "detect giraffe"]
    form, thing = notes_on(prompts, folder())
    assert form == ALL_FORMS and thing.startswith('tiny does not know "giraffe" or "zebra", only cat')


def test_an_adapter_adds_its_prompts(folder):
    prompts = [f"question {i}" for i in range(12)]
    adapter = folder({"name": "mine", "prompts": [*prompts, "detect cat"]}, name="mine")
    base = folder({"name": "tiny", "forms": ["detect {thing}"], "words": {"thing": ["cat"]}})
    assert notes_on(["question 3", "detect cat"], base, adapter) == []
    [note] = notes_on(["question 12"], base, adapter)
    assert note.startswith('tiny with mine knows these prompts: "question 0", "question 1", ')
    assert note.endswith('"question 7", "detect cat", and 4 more (cat stands for any of its 1 things)')
    assert notes_on(["question 12"], base, str(SAMPLES)) == []  # it does not say what it knows


def test_a_word_stands_for_others_only_where_a_form_has_a_place_for_it(folder):
    """A model that was taught captions alone knows things by name, and no prompt that names one."""
    words = KNOWN["words"]
    assert notes_on(["ocr"], folder({"name": "a", "forms": ["caption en"], "words": words})) == [
        'a knows these prompts: "caption en"'
    ]
    [note] = notes_on(["ocr"], folder({"name": "a", "forms": ["how many {things}"], "words": words}))
    assert note.endswith('"how many cats" (cats stands for any of its 3 things)')


def test_without_the_file_nothing_is_said(tmp_path):
    assert notes_on(["whatever"], str(tmp_path)) == []


DAMAGED = {
    "no JSON": b"{", "not UTF-8": b'{"name": "\xff"}', "a list": b"[]", "no name": {"forms": ["caption en"]},
    "a name that steers": {"name": "\x1b[2J"}, "forms is text": {"name": "a", "forms": "caption en"},
    "forms of numbers": {"name": "a", "forms": [1]}, "words is a list": {"name": "a", "words": ["cat"]},
    "words of words": {"name": "a", "words": {"thing": "cat"}}, "capitals is 1": {"name": "a", "capitals": 1},
    "too many": {"name": "a", "forms": ["x"] * 201}, "too long": {"name": "a", "forms": ["x" * 201]},
    "too many places": {"name": "a", "forms": ["{a}{a}{a}{a}"]},
    "too many brackets": {"name": "a", "forms": ["[cat ][cat ][cat ][cat ]"]},
    "a place in brackets": {"name": "a", "forms": ["ocr[ {a}]"]}, "nested": b"[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line_and_no_failure(name, folder):
    [note] = notes_on(["ocr"], folder(DAMAGED[name]))
    assert FILE in note and "\n" not in note and note.endswith("nothing is said about unknown prompts")
    assert readable(note) == note or len(note) > 300


def test_a_note_is_not_longer_than_a_screen(folder):
    forms = [f"{i:03d}" + "x" * 197 for i in range(200)]
    known = {"name": "a", "forms": [*forms[1:], "detect {thing}"], "words": {"thing": forms}}
    notes = notes_on(["ocr", "detect cat"], folder(known))
    assert [len(note) for note in notes] == [1000, 1000]
    [note] = notes_on(["x"], str(TINY_MODEL))
    assert "..." not in note  # the shipped model's is whole


def test_brackets_of_any_kind_are_only_text(folder):
    model = folder({"name": "a", "forms": ["[", "{}", "a]b", "(?P<x>", "[[x]]", "{a", "*", "\\"]})
    assert notes_on(["[", "{}", "a]b", "(?P<x>", "{a", "*", "\\"], model) == []
    assert len(notes_on(["x" * 10_000], model)) == 1


def test_after_training(folder, tmp_path):
    base = tmp_path / "model"
    folder()
    adapter = json.loads(content_after_training("mine", ["b", "a", "b"], None))
    assert adapter == {"name": "mine", "prompts": ["a", "b"]}
    merged = json.loads(content_after_training("mine", ["b"], base))
    assert merged == KNOWN | {"name": "mine", "prompts": ["b", *KNOWN["prompts"]]}
    assert content_after_training("mine", ["b"], tmp_path) is None  # the base does not say what it knows
    assert content_after_training("mine", [str(i) for i in range(201)], None) is None
    assert content_after_training("mine", [str(i) for i in range(200)], base) is None
    folder(b"{")
    assert content_after_training("mine", ["b"], base) is None


# ------------------------------------------------------------------------- the shipped model's


def test_the_shipped_file_is_what_the_model_is_trained_on():
    known = read_known(TINY_MODEL)
    assert known.name == TINY_MODEL.name and known.words["thing"] == scenes.THINGS
    for thing, things in zip(known.words["thing"], known.words["things"], strict=True):
        assert things == scenes.plural(thing)
        prompts = [
            "caption en", "Caption fr", "ocr", f"detect {thing}", f"Segment {thing}",
            f"segment cat ; {thing} ; bee", f"answer en how many {things} are there?",
            f"answer en is there {scenes.article(thing)} {thing}?",
            f"answer en where is the {thing}?", f"answer en What color is the {thing}",
            f"answer en what colour is the {thing}?", f"answer en what is left of the {thing}?",
            "answer en how many things are there",
        ]  # fmt: skip
        assert notes_on(prompts, str(TINY_MODEL)) == []
    card = (TINY_MODEL / "README.md").read_text(encoding="utf-8")
    assert all(f"`{example}`" in card for example in known.examples())


def test_inference_says_it_once_before_the_answer(tmp_path, capfd):
    picture = str(SAMPLES / "cats.png")
    arguments = ["--model", str(TINY_MODEL), "--image", picture, "--max-tokens", "3", "--prompt"]
    inference.main([*arguments, "describe the cat", "what is this"])
    out, err = capfd.readouterr()
    assert err.count("Note: paligemma-tiny knows these prompts: ") == 1 and len(out.splitlines()) == 2
    assert err.index("Note: ") < err.index("Result!!!")
    inference.main([*arguments, "detect cat"])
    assert "Note" not in capfd.readouterr()[1]


def test_inference_goes_on_with_a_damaged_file(checkpoint, tmp_path, capfd):
    model = shutil.copytree(checkpoint, tmp_path / "model")
    (model / FILE).write_text("{")
    picture = str(SAMPLES / "cats.png")
    inference.main(["--model", str(model), "--image", picture, "--prompt", "x", "--max-tokens", "3"])
    out, err = capfd.readouterr()
    assert out and err.count("Note: ") == 1 and FILE in err
    with pytest.raises(CheckpointError):
        read_known(model)


@pytest.mark.long
def test_the_page_says_it_too(tmp_path, capfd):
    picture = str(SAMPLES / "cats.png")
    page = ["--image", picture, "--out", str(tmp_path / "page.html"), "--max-tokens", "2", "--prompt"]
    explain.main([*page, "detect giraffe"])
    err = capfd.readouterr().err
    assert 'Note: paligemma-tiny does not know "giraffe", only cat, dog' in err
    assert "detect giraffe: (nothing)" in err
