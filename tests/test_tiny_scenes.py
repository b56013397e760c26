"""The scenes that paligemma-tiny is trained on: true boxes, true answers, the stated grammar."""

import json

import numpy as np
import pytest

pytest.importorskip("resvg_py", reason="drawing scenes needs `pip install -r requirements-train.txt`")

from tiny_model import scenes as tiny_scenes
from tiny_model.scenes import THINGS, Scene, Thing


@pytest.fixture(scope="module")
def drawings():
    return tiny_scenes.load_drawings(tiny_scenes.HELD_OUT_STYLES)


def made_of(*things: tuple[str, tuple[float, float, float, float]]) -> Scene:
    placed = sorted((Thing(*thing) for thing in things), key=lambda thing: thing.centre[1])
    return Scene(np.zeros((8, 8, 3), np.uint8), placed, np.full((8, 8), -1, np.int8))


SCENE = made_of(
    ("apple", (0.1, 0.5, 0.3, 0.7)), ("umbrella", (0.7, 0.0, 1.0, 0.2)), ("apple", (0.4, 0.8, 0.6, 1.0))
)


def test_there_are_42_things_in_every_set():
    assert len(THINGS) == len(set(THINGS)) == 42
    found = tiny_scenes.load_drawings(("noto",))
    assert list(found) == THINGS


def test_drawings_may_be_passed_on_and_the_held_out_ones_are_nobody_elses():
    sets = json.loads(tiny_scenes.DRAWINGS_FILE.read_text(encoding="utf-8"))
    free = {"Apache-2.0", "MIT", "ISC", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "OFL-1.1", "Unlicense"}
    assert {one_set["licence"] for one_set in sets.values()} == free
    styles = {name: one_set.get("style", name) for name, one_set in sets.items()}
    assert set(styles.values()) == {*tiny_scenes.TRAINING_STYLES, *tiny_scenes.HELD_OUT_STYLES}
    held_out = {name for name, style in styles.items() if style in tiny_scenes.HELD_OUT_STYLES}
    assert held_out == {"twemoji", "lucide", "lucide-lab"}
    packages = {sets[name]["package"] for name in held_out}
    assert not packages & {sets[name]["package"] for name in styles.keys() - held_out}


def test_a_drawing_without_color_comes_in_each_ink(tmp_path, monkeypatch):
    body = '<path fill="currentColor" d="M0 0h10v10H0z"/>'
    cats = {"cat": [{"name": "square", "width": 10, "height": 10, "body": body}]}
    sets = {"a": {"style": "silhouettes", "drawings": cats}, "b": {"drawings": cats}}
    (tmp_path / "drawings.json").write_text(json.dumps(sets), encoding="utf-8")
    monkeypatch.setattr(tiny_scenes, "DRAWINGS_FILE", tmp_path / "drawings.json")
    found = tiny_scenes.load_drawings(("silhouettes",))
    assert found.keys() == {"cat"} and found["cat"].keys() == {"silhouettes"}
    colors = ["#" + bytes(np.round(d.color).astype(np.uint8)).hex() for d in found["cat"]["silhouettes"]]
    assert colors == list(tiny_scenes.INKS)


def test_answers_have_the_stated_form():
    assert tiny_scenes.caption(SCENE) == "an umbrella and two apples"
    assert tiny_scenes.detect(SCENE, "apple") == (
        "<loc0102><loc0512><loc0307><loc0716> apple ; <loc0409><loc0819><loc0614><loc1023> apple"
    )
    assert tiny_scenes.detect(SCENE, "bus") == ""
    assert tiny_scenes.count(SCENE, "apple") == "2"
    assert tiny_scenes.count(SCENE, "cat") == "0"
    assert tiny_scenes.is_there(SCENE, "umbrella") == "yes"
    assert tiny_scenes.is_there(SCENE, "hat") == "no"
    assert tiny_scenes.where(SCENE, "umbrella") == "bottom left"
    assert tiny_scenes.where(made_of(("cat", (0.3, 0.4, 0.6, 0.7))), "cat") == "middle"
    places = {"bus": 0.5, "ox": 0.1, "cup": 0.8}
    three = made_of(*((word, (0.0, x, 0.1, x + 0.1)) for word, x in places.items()))
    assert tiny_scenes.caption(three) == "an ox, a bus and a cup"
    assert tiny_scenes.plural("bus") == "buses"


@pytest.mark.parametrize(("size", "jitter"), [(64, 0.0), (160, 1.0), (160, 3.0)])
def test_boxes_are_tight_around_what_is_visible(drawings, size, jitter):
    rng = np.random.default_rng(7)
    for count in (None, 1, 3, 6):
        for _ in range(20):
            scene = tiny_scenes.draw_scene(rng, drawings, size, count, jitter)
            assert scene.pixels.shape == (size, size, 3) and scene.pixels.dtype == np.uint8
            centres = [thing.centre[1] for thing in scene.things]
            assert centres == sorted(centres)
            for index, thing in enumerate(scene.things):
                y1, x1, y2, x2 = thing.box
                assert 0 <= y1 < y2 <= 1 and 0 <= x1 < x2 <= 1
                ys, xs = np.nonzero(scene.owner == index)
                edges = np.array([ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]) / size
                inside = edges - np.array(thing.box)
                assert (inside[:2] >= 0).all() and (inside[2:] <= 0).all()
                if len(scene.things) == 1:  # nothing in front of it
                    assert np.abs(inside).max() < 1e-9


def test_patch_labels_name_what_covers_a_patch():
    scene = made_of(("cat", (0.0, 0.0, 0.5, 0.5)), ("dog", (0.5, 0.5, 1.0, 1.0)))
    scene.owner[:4, :4], scene.owner[4:, 4:] = 0, 1
    labels, boxes = tiny_scenes.patch_labels(scene, 2)
    assert labels.tolist() == [THINGS.index("cat"), 42, 42, THINGS.index("dog")]
    assert boxes[0].tolist() == [0.0, 0.0, 0.5, 0.5] and boxes[3].tolist() == [0.5, 0.5, 1.0, 1.0]


def test_every_kind_of_question_is_asked_with_a_true_answer(drawings):
    rng = np.random.default_rng(3)
    kinds = set()
    for _ in range(300):
        scene = tiny_scenes.draw_scene(rng, drawings, 64)
        prompt, answer = tiny_scenes.ask(rng, scene)
        kinds.add(" ".join(prompt.split()[:3]) if prompt.startswith("answer") else prompt.split()[0])
        if prompt.startswith("detect"):
            assert answer == tiny_scenes.detect(scene, prompt.removeprefix("detect "))
        if prompt == "caption en":
            assert answer == tiny_scenes.caption(scene)
    assert kinds == {"caption", "detect", "answer en is", "answer en how", "answer en where"}
