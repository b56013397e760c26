"""Which icons collect_drawings.py takes from a package, and how it writes them down."""

import json

import pytest

from tiny_model import collect_drawings
from tiny_model.scenes import DRAWINGS_FILE, THINGS


def write_package(folder, name: str, icons: dict[str, str]):
    place = folder / "@iconify-json" / name
    place.mkdir(parents=True)
    files = {
        "icons": {"height": 24, "icons": {icon: {"body": body} for icon, body in icons.items()}},
        "info": {"license": {"spdx": "MIT"}, "author": {"name": "Nobody", "url": "https://nobody.example"}},
        "package": {"version": "1.2.3"},
    }
    for file, content in files.items():
        (place / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")


def test_icons_are_taken_by_their_names_and_the_set_s_pattern(tmp_path, monkeypatch):
    icons = {
        "cat-line": "<path/>", "cat-fill": "<g/>", "cat-2-line": "<path/>", "cat-3-line": "<path d=''/>",
        "dog-line": "<animate/>", "key-line": "x" * (collect_drawings.LARGEST + 1), "house-line": "<path/>",
        "fox-line": "<path/>", "category-line": "<path/>", "bike-line": "<path/>",
    }  # fmt: skip
    write_package(tmp_path, "some", icons)
    monkeypatch.setitem(collect_drawings.SETS, "set", ("some", "outlines", "{}-bold {}-line"))
    monkeypatch.setitem(collect_drawings.LEFT_OUT, "set", "house-line")
    monkeypatch.setitem(collect_drawings.OTHER_SETS, "set", ("some", "{}-line", 9, 100))
    found, facts = collect_drawings.read_icons(tmp_path, "some")
    assert facts["licence"] == "MIT" and facts["version"] == "1.2.3" and facts["author"] == "Nobody"
    chosen = collect_drawings.choose_things(found, "set")
    # The second cat is the first one again, the dog moves, the key is too large, and the house left out.
    names = {thing: [icon["name"] for icon in entries] for thing, entries in chosen.items()}
    assert names == {"cat": ["cat-line", "cat-3-line"], "bicycle": ["bike-line"]}
    first = {"name": "cat-line", "width": 16, "height": 24, "body": "<path/>"}
    assert chosen["cat"][0] == first
    assert list(collect_drawings.choose_others(found, "set")) == ["fox-line"]


@pytest.mark.parametrize("file", [DRAWINGS_FILE, collect_drawings.OTHERS_FILE])
def test_the_files_are_as_it_writes_them(file):
    text = file.read_text(encoding="utf-8")
    assert collect_drawings.as_text(json.loads(text)) == text


def test_every_thing_has_names_and_is_among_no_others():
    assert list(collect_drawings.NAMES) == list(collect_drawings.EMOJI) == THINGS
    names = {name for line in collect_drawings.NAMES.values() for name in line.split()}
    others = collect_drawings.OTHERS.split()
    assert not names & set(others)
    assert not [name for name in others if name.strip("-") != name]  # cut in two
