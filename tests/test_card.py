"""tiny_model/card.py: the page of a checkpoint says what was trained and measured, and nothing else."""

import json
from pathlib import Path

import pytest

from tiny_model import card, making
from tiny_model.measure import COLUMNS
from tiny_model.state import write_state

ROOT = Path(__file__).parent.parent
SHIPPED = json.loads((ROOT / "tiny_model" / "card.json").read_text(encoding="utf-8"))


@pytest.fixture
def facts():
    return json.loads(json.dumps(SHIPPED))


def text_of(facts: dict) -> str:
    return " ".join(card.model_card(facts).split())


def test_the_shipped_page_is_what_the_script_makes():
    page = (ROOT / "paligemma-tiny" / "README.md").read_text(encoding="utf-8")
    assert page == card.model_card(SHIPPED), "python -m tiny_model.card"


def test_the_page_of_a_small_plan_names_only_what_it_has(facts):
    """One prompt, two columns, no pictures of nothing, no second round, no masks."""
    for stage in ("answers", "reading"):
        facts["plan"][stage]["restarts"] = []
    facts["plan"]["answers"] |= {"kinds": {"caption": 1.0}, "prompts": 1}
    facts["plan"] |= {"things": ["cat", "car"], "styles": ["noto", "fxemoji"]}
    facts["plan"]["reading"]["batches"] = 0
    figures = {title: {"caption": 0.5} for title in list(COLUMNS)[:2]}
    facts |= {"figures": figures, "scenes": 200, "nothing": 0}
    facts |= {"earlier_codec": None, "alone": None, "is_extended": False}
    text = text_of(facts)
    assert "(cat, car), one on a picture, and one prompt, `caption en`." in text
    assert "about 200 new scenes" in text and '"True colors"' in text and "with 1 question each" in text
    said, _, sets = text.partition("## The drawings")
    for absent in ("held out", "Twemoji", "none of the things", "round", "reading", "masks"):
        assert absent not in said, absent
    assert sets.count("| yes |") == 2
    facts["figures"] = {title: {"caption": 0.5} for title in list(COLUMNS)[:1]}
    assert "True colors" not in text_of(facts)


def test_the_page_says_what_was_done_beside_the_steps(facts):
    facts |= {"seconds": 7200, "codec": "31 minutes", "earlier_codec": None, "alone": None}
    facts["is_extended"] = False
    text = text_of(facts)
    assert "2.0 hours, and 31 minutes for the masks' words, on " in text
    assert "The plan grew" not in text and "were there before" not in text
    assert "other work" not in text
    for stage, number in (("tower", 1000), ("answers", 2000), ("reading", 1000)):
        facts["plan"][stage]["batches"] = number
    facts |= {"codec": None, "earlier_codec": "an hour", "alone": [0.36, 0.9, 1.44], "is_extended": True}
    text = text_of(facts)
    assert "2.0 hours on " in text and "(seed 0, an hour)" in text
    assert "The plan grew" in text and "makes its own masks' words" in text
    assert "1.44 s for reading: alone on it, the training takes 1.0 hours." in text
    facts["plan"]["reading"] |= {"batches": 9800, "restarts": [4000, 8800]}
    text = text_of(facts)
    assert "Its rounds had 4,000, 4,800 and 1,000 batches." in text
    assert "the mean of the weights at the ends of these 3 rounds." in text
    facts["about"]["commits"] = ["a" * 40]
    assert f"(seed 0, commit `{'a' * 12}`): " in text_of(facts)


def test_from_a_state_and_figures_to_the_page(facts, tmp_path, monkeypatch, capsys):
    for name in ("card.json", "README.md"):
        (tmp_path / name).write_text("old")
    monkeypatch.setattr(card, "SHIPPED", tmp_path / "card.json")
    monkeypatch.setattr(card, "CHECKPOINT", tmp_path)
    state = {name: facts[name] for name in ("about", "choices", "seconds", "plan")}
    write_state(tmp_path / "state.pt", state)
    (tmp_path / "masks").mkdir()
    write_state(tmp_path / "masks" / "state.pt", {"seconds": 1860.0})
    command = ["--state", str(tmp_path), "--figures", str(tmp_path / "figures.jsonl")]
    lines = [
        {"column": title, "scenes": 8, "nothing": 3, "found": {"caption": share}}
        for title, share in (("Twemoji", 0.1), ("training sets", 0.2), ("Twemoji", 0.3))
    ]

    def figures(lines):
        (tmp_path / "figures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    for damaged in ([], [lines[0] | {"column": "?"}], [lines[0], lines[1] | {"scenes": 9}], [7]):
        figures(damaged)
        with pytest.raises(SystemExit) as ended:
            card.main(command)
        assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1
        assert (tmp_path / "card.json").read_text() == (tmp_path / "README.md").read_text() == "old"
    figures(lines)
    card.main(command)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| | training sets | Twemoji |" in page and "| `caption en`, exactly right | 0.20 | 0.30 |" in page
    assert "about 8 new scenes" in page and "and 31 minutes for the masks' words" in " ".join(page.split())
    made = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    model = making.build_model(making.build_config(making.build_tokenizer()))
    assert made["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    (tmp_path / "README.md").write_text("lost")
    card.main([])
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == page
