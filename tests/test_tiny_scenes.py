"""The scenes that paligemma-tiny is trained on: true boxes, true answers, the stated grammar."""

import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

pytest.importorskip("resvg_py", reason="drawing scenes needs `pip install -r requirements-train.txt`")

from mask_decoder_1 import MaskConfig, MaskVQVAE, tokens_from_mask
from tiny_model import drawings as drawings_module
from tiny_model import scenes as tiny_scenes
from tiny_model import train_tiny
from tiny_model.batches import choose_questions
from tiny_model.colors import clear_color
from tiny_model.drawings import bend
from tiny_model.grounds import ground_colors
from tiny_model.manners import MANNERS, other_line, redraw
from tiny_model.scenes import KINDS, LANGUAGES, THINGS, Scene, Sign, Thing
from tiny_model.signs import random_text, turned_box


def colored(color: str, shape: str = "rectangle") -> tiny_scenes.Drawing:
    image = Image.new("RGBA", (150, 120))
    getattr(ImageDraw.Draw(image), shape)((5, 5, 144, 114), fill=color)
    return tiny_scenes.make_drawing(image)


@pytest.fixture(scope="module")
def drawings():
    return tiny_scenes.load_drawings(("twemoji",))


@pytest.fixture(scope="module")
def others():
    return [colored("#c0392b"), colored("#117733", "ellipse")]


@pytest.fixture(scope="module")
def photographs():
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return [Image.fromarray(noise).resize((240, 180))]


@pytest.fixture(scope="module")
def fonts(tmp_path_factory):
    file = tmp_path_factory.mktemp("fonts") / "default.ttf"
    file.write_bytes(ImageFont.load_default(10).path.getvalue())
    return [file]


def made_of(*things: tuple[str, tuple[float, float, float, float]]) -> Scene:
    placed = sorted((Thing(*thing) for thing in things), key=lambda thing: thing.centre[1])
    return Scene(np.zeros((8, 8, 3), np.uint8), placed, np.full((8, 8), -1, np.int8))


def in_a_row(**places: float) -> Scene:
    return made_of(*((word, (0.4, x, 0.6, x + 0.1)) for word, x in places.items()))


SCENE = made_of(
    ("apple", (0.1, 0.5, 0.3, 0.7)), ("umbrella", (0.7, 0.0, 1.0, 0.2)), ("apple", (0.4, 0.8, 0.6, 1.0))
)
NOTHING = made_of()


# -- Drawings -------------------------------------------------------------------------------------


def test_there_are_42_things_in_every_set():
    assert len(THINGS) == len(set(THINGS)) == 42
    found = tiny_scenes.load_drawings(("noto",))
    assert list(found) == THINGS


@pytest.mark.parametrize("file", ["DRAWINGS_FILE", "OTHERS_FILE"])
def test_drawings_may_be_passed_on_and_the_held_out_ones_are_nobody_elses(file):
    sets = json.loads(getattr(tiny_scenes, file).read_text(encoding="utf-8"))
    free = {"Apache-2.0", "MIT", "ISC", "OFL-1.1", "CC0-1.0", "Unlicense", "CC-BY-3.0", "CC-BY-4.0"}
    assert {one_set["licence"] for one_set in sets.values()} <= free
    styles = {name: one_set.get("style", name) for name, one_set in sets.items()}
    assert set(styles.values()) | {"fluent-emoji"} == {
        *tiny_scenes.TRAINING_STYLES,
        *tiny_scenes.HELD_OUT_STYLES,
    }
    held_out = {name for name, style in styles.items() if style in tiny_scenes.HELD_OUT_STYLES}
    assert held_out <= {"twemoji", "lucide", "lucide-lab"}
    packages = {sets[name]["package"] for name in held_out}
    assert not packages & {sets[name]["package"] for name in styles.keys() - held_out}


def test_photographs_and_fonts_are_there_and_some_are_held_out():
    for load in (tiny_scenes.load_photographs, tiny_scenes.load_fonts):
        assert len(load()) > len(load(held_out=True)) >= 2
    assert {file.stem for file in tiny_scenes.load_fonts(held_out=True)} == {*tiny_scenes.HELD_OUT_FONTS}
    printable = "".join(chr(code) for code in range(33, 127))
    for file in (*tiny_scenes.load_fonts(), *tiny_scenes.load_fonts(held_out=True)):
        font = ImageFont.truetype(str(file), 40)
        letters = {bytes(font.getmask(letter)) for letter in printable}
        assert len(letters) > 80, file  # what a font lacks comes as the same box


def test_a_drawing_without_color_comes_in_each_ink(tmp_path, monkeypatch):
    body = '<path fill="currentColor" d="M0 0h10v10H0z"/>'
    cats = {"cat": [{"name": "square", "width": 10, "height": 10, "body": body}]}
    sets = {"a": {"style": "silhouettes", "drawings": cats}, "b": {"drawings": cats}}
    (tmp_path / "drawings.json").write_text(json.dumps(sets), encoding="utf-8")
    monkeypatch.setattr(drawings_module, "DRAWINGS_FILE", tmp_path / "drawings.json")
    found = tiny_scenes.load_drawings(("silhouettes",))
    assert found.keys() == {"cat"} and found["cat"].keys() == {"silhouettes"}
    rng = np.random.default_rng(0)
    inks = set()
    for _ in range(30):
        scene = tiny_scenes.draw_scene(rng, found, 64, 1, jitter=0)
        y, x = (int(64 * middle) for middle in scene.things[0].centre)
        inks.add("#" + bytes(scene.pixels[y, x]).hex())
    assert inks == set(tiny_scenes.INKS)


def test_what_was_rendered_once_is_kept(tmp_path, monkeypatch):
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><path fill="{}" d="M0 0h4v4H0z"/></svg>'
    store = tmp_path / "rendered.zip"
    [first] = drawings_module.render([svg.format("red")], store)
    both = drawings_module.render([svg.format("blue"), svg.format("red")], store)
    assert [picture.getpixel((50, 50)) for picture in (first, *both)] == [
        (255, 0, 0, 255), (0, 0, 255, 255), (255, 0, 0, 255),
    ]  # fmt: skip

    def fail(**_):
        raise AssertionError("rendered again")

    monkeypatch.setattr("resvg_py.svg_to_bytes", fail)
    again = drawings_module.render([svg.format("red"), svg.format("blue")], store)
    assert again[0] == both[1] and again[1] == both[0]


def test_what_lines_enclose_belongs_to_the_thing():
    def ring(width: int, gap: int) -> tiny_scenes.Drawing:
        image = Image.new("RGBA", (192, 192))
        ImageDraw.Draw(image).arc((10, 10, 181, 181), gap, 360, fill="black", width=width)
        return tiny_scenes.make_drawing(image)

    rng = np.random.default_rng(0)
    disc = math.pi / 4
    for drawing in (ring(10, 0), ring(16, 4)):
        cutout = tiny_scenes.turn(rng, drawing, 100)
        assert (cutout.paint[..., 3] > tiny_scenes.VISIBLE).mean() < 0.4
        assert cutout.inside.mean() == pytest.approx(disc, abs=0.04)
    assert tiny_scenes.turn(rng, ring(10, 90), 100).inside.mean() < 0.5  # wide open
    assert ring(86, 0).insides is None and colored("red", "ellipse").insides is None


def test_a_drawing_by_another_hand_stays_in_its_place_and_has_its_ink():
    rng = np.random.default_rng(0)
    drawing = Image.new("RGBA", (160, 160))
    draw = ImageDraw.Draw(drawing)
    draw.ellipse((4, 4, 155, 155), fill="#f4d03f")
    draw.rectangle((60, 60, 100, 100), fill="#1b2631")
    cutout = tiny_scenes.turn(rng, tiny_scenes.make_drawing(drawing), 90)
    ink = np.array([20, 30, 90], np.float32)
    for manner in MANNERS:
        found = redraw(rng, cutout, manner, ink)
        assert np.abs(np.subtract(found.inside.shape, cutout.inside.shape)).max() <= 4, manner
        assert found.inside.mean() == pytest.approx(cutout.inside.mean(), abs=0.1), manner
        solid = found.paint[found.paint[..., 3] > 100].astype(np.float32)
        off = np.abs(255 * solid[:, :3] / solid[:, 3:] - ink).max(axis=1)
        if manner == "one ink":  # dark becomes ink, light becomes pale
            assert off.min() < 40 < np.median(off)
        else:
            assert (off < 6).mean() > 0.1, manner
        assert (found.paint[..., :3] <= found.paint[..., 3:]).all(), manner
    outline = redraw(rng, cutout, "outline", ink)
    assert (outline.paint[..., 3] > tiny_scenes.VISIBLE).sum() < 0.6 * outline.inside.sum()
    other_line(rng, outline)
    bent = bend(rng, cutout, 4, 0.2)
    assert bent.inside.mean() == pytest.approx(cutout.inside.mean(), abs=0.05)
    assert (bent.paint.shape != cutout.paint.shape) or (bent.paint != cutout.paint).any()


# -- Scenes ---------------------------------------------------------------------------------------


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


def test_the_same_seed_draws_the_same_scenes(drawings, others, photographs, fonts):
    def drawn(seed: int) -> list[Scene]:
        rng = np.random.default_rng(seed)
        props = {"others": others, "photographs": photographs, "fonts": fonts}
        found = [tiny_scenes.draw_scene(rng, drawings, 96, jitter=2.5, **props) for _ in range(12)]
        nothing = [
            tiny_scenes.draw_nothing(rng, 96, others=others, photographs=photographs, fonts=fonts)
            for _ in range(12)
        ]
        asked = [choose_questions(rng, scene, train_tiny.KINDS, 3) for scene in (*found, *nothing)]
        return [(s.pixels.tobytes(), s.owner.tobytes(), s.things, s.sign) for s in (*found, *nothing)] + asked

    assert drawn(3) == drawn(3)
    assert drawn(3)[0] != drawn(4)[0]


def test_without_jitter_no_color_is_changed(others, photographs, fonts):
    drawings = {"book": {"plain": [colored("#c81e32")]}}
    rng = np.random.default_rng(0)
    for _ in range(60):
        props = {"others": [colored("#1e32c8")], "photographs": photographs, "fonts": fonts}
        scene = tiny_scenes.draw_scene(rng, drawings, 160, jitter=0, **props)
        for index, thing in enumerate(scene.things):
            assert thing.color == "red"
            seen = scene.pixels[scene.owner == index]
            assert np.median(seen, axis=0).tolist() == [200, 30, 50]


def test_what_is_none_of_the_things_is_never_mentioned(drawings, others, fonts):
    rng = np.random.default_rng(1)
    beside = 0
    for _ in range(60):
        plain = tiny_scenes.draw_scene(rng, {"bus": {"one": [colored("#ffff00")]}}, 96, 1, 0, others=others)
        assert [thing.name for thing in plain.things] == ["bus"]
        is_other = (np.abs(plain.pixels - np.array([192, 57, 43])).max(axis=2) < 2) | (
            np.abs(plain.pixels - np.array([17, 119, 51])).max(axis=2) < 2
        )
        beside += is_other.sum() > 100
        assert (plain.owner[is_other] == -1).all()
    assert 5 < beside < 25


def test_nothing_shows_nothing(others, photographs, fonts):
    rng = np.random.default_rng(2)
    with_sign = 0
    for _ in range(60):
        scene = tiny_scenes.draw_nothing(rng, 80, 2.0, others=others, photographs=photographs, fonts=fonts)
        assert scene.pixels.shape == (80, 80, 3) and scene.pixels.dtype == np.uint8
        assert scene.things == [] and (scene.owner == -1).all()
        with_sign += scene.sign is not None
        for kind in KINDS:
            prompt, answer = tiny_scenes.ask(rng, scene, kind)
            expected = {
                "count": "0",
                "total": "0",
                "is there": "no",
                "ocr": scene.sign.text if scene.sign else "",
            }
            expected |= {kind: LANGUAGES[kind[-2:]].nothing for kind in KINDS if kind.startswith("caption ")}
            expected |= dict.fromkeys(("detect", "detect several", "segment", "segment several"), "")
            assert answer == expected.get(kind, "nothing I know"), prompt
    assert 3 < with_sign < 25


@pytest.mark.parametrize("small_print", [False, True])
def test_signs_can_be_read(drawings, fonts, small_print):
    height, pitch = (10.5, 6) if small_print else (14.5, 9)  # pixels; below the limits by what fonts round
    rng = np.random.default_rng(5)
    texts = []
    how = {"fonts": fonts, "with_sign": True, "small_print": small_print}
    for _ in range(60):
        scene = tiny_scenes.draw_scene(rng, drawings, 160, **how)
        if scene.sign is None:
            continue
        sign = scene.sign
        texts.append(sign.text)
        assert re.fullmatch(r"[0-9]{1,3}|[A-Za-z]{2,6}", sign.text)
        assert "".join(letter for letter, _ in sign.letters) == sign.text
        y1, x1, y2, x2 = sign.box
        for letter, (top, left, bottom, right) in sign.letters:
            assert y1 - 0.01 <= top < bottom <= y2 + 0.01 and x1 - 0.01 <= left < right <= x2 + 0.01
            if letter.isupper() or letter.isdigit():
                assert 160 * (bottom - top) >= height
        if len(sign.letters) > 1:
            whole = sign.letters[-1][1][1] - sign.letters[0][1][1]
            assert 160 * whole / (len(sign.letters) - 1) > pitch
        corners = (round(160 * y1), round(160 * y2), round(160 * x1), round(160 * x2))
        assert (scene.owner[corners[0] : corners[1], corners[2] : corners[3]] == -1).all()
        assert sign.text not in tiny_scenes.caption(scene).split()
    assert len(texts) > 55 and len(set(texts)) > 45
    assert 5 < sum(text.isdigit() for text in texts) < 30


def test_a_box_turns_with_its_picture():
    image = Image.new("L", (60, 40))
    image.paste(255, (40, 5, 50, 15))
    turned = image.rotate(20, Image.Resampling.BICUBIC, expand=True)
    left, top, right, bottom = turned.point(lambda v: 255 * (v > 100)).getbbox()
    found = turned_box(np.array([5, 40, 15, 50]), 20, (40, 60), turned.size[::-1])
    assert np.abs(found - [top, left, bottom, right]).max() < 1.5


def test_drawings_stand_out_from_their_ground():
    rng = np.random.default_rng(0)
    for _ in range(200):
        color = rng.uniform(0, 255, (1, 3))
        grounds = ground_colors(rng, color, np.array([70]))
        assert np.linalg.norm(grounds - color, axis=1).min() > 70
        lines = ground_colors(rng, np.array([[20, 20, 20.0]]), np.array([130]))
        assert (lines @ [0.30, 0.59, 0.11]).min() > 90


def test_a_color_is_named_only_if_it_is_clear():
    def many(*colors):
        return np.repeat(np.array(colors, np.uint8), 100, axis=0)

    named = {
        "black": (5, 5, 5), "white": (250, 250, 250), "gray": (140, 140, 140), "red": (220, 30, 30),
        "orange": (245, 140, 20), "yellow": (250, 210, 30), "green": (40, 150, 60), "blue": (40, 100, 220),
        "purple": (130, 50, 180), "pink": (250, 140, 190), "brown": (110, 65, 35),
    }  # fmt: skip
    assert set(named) == set(tiny_scenes.COLORS)
    for name, color in named.items():
        assert clear_color(many(color)) == name
    for between in (
        (30, 170, 180),
        (200, 215, 40),
        (235, 90, 25),
        (90, 60, 230),
        (200, 200, 205),
        (150, 20, 90),
    ):
        assert clear_color(many(between)) is None, between
    assert clear_color(many((220, 30, 30), (40, 100, 220))) is None
    assert clear_color(many(*[(220, 30, 30)] * 9, (40, 100, 220))) == "red"
    assert clear_color(np.zeros((0, 3), np.uint8)) is None


def test_patch_labels_name_what_covers_a_patch():
    scene = made_of(("cat", (0.0, 0.0, 0.5, 0.5)), ("dog", (0.5, 0.5, 1.0, 1.0)))
    scene.owner[:4, :4], scene.owner[4:, 4:] = 0, 1
    labels, boxes = tiny_scenes.patch_labels(scene, tiny_scenes.patch_things(scene, 2))
    assert labels.tolist() == [THINGS.index("cat"), 42, 42, THINGS.index("dog")]
    assert boxes[0].tolist() == [0.0, 0.0, 0.5, 0.5] and boxes[3].tolist() == [0.5, 0.5, 1.0, 1.0]


# -- Words ----------------------------------------------------------------------------------------

FEMININE = {
    "de": "cat cow turtle bee banana carrot pizza cup rocket flower clock guitar bell",
    "es": "cow frog turtle bee apple carrot pizza cup mushroom bicycle house flower ball key "
    "guitar star bell",
    "fr": "cow frog turtle bee apple banana carrot pizza cup car rocket house flower ball clock key "
    "guitar star bell",
}
GERMAN_PLURALS = (
    "Katzen Hunde Pferde Kühe Schweine Kaninchen Löwen Bären Elefanten Frösche Vögel Pinguine "
    "Schildkröten Bienen Äpfel Bananen Karotten Pizzas Kuchen Tassen Pilze Autos Busse Fahrräder "
    "Flugzeuge Boote Raketen Häuser Bäume Blumen Bälle Bücher Uhren Schlüssel Regenschirme Hüte "
    "Gitarren Sterne Herzen Glocken Ballons Geschenke"
)


def plural_of(language: str, noun: str) -> str:
    """The rules of the language's grammar, apart from the table in words.py."""
    if language == "es":
        if noun in ("paraguas",):  # a compound verb + plural does not change
            return noun
        bare = noun[:-2] + noun[-2:].translate(str.maketrans("áéíóú", "aeiou"))
        return noun + "s" if noun[-1] in "aeiou" else bare + "es"
    if noun[-1] in "sxz":
        return noun
    if noun.endswith("al"):
        return noun[:-2] + "aux"
    return noun + ("x" if noun.endswith("eau") else "s")


@pytest.mark.parametrize("language", ["de", "es", "fr"])
def test_nouns_have_the_right_article_and_plural(language):
    words = LANGUAGES[language]
    assert list(words.nouns) == THINGS
    articles = {"de": ("ein", "eine"), "es": ("un", "una"), "fr": ("un", "une")}[language]
    for place, (thing, (one, many)) in enumerate(words.nouns.items()):
        article, noun = one.split()
        assert article == articles[thing in FEMININE[language].split()], one
        assert many == (GERMAN_PLURALS.split()[place] if language == "de" else plural_of(language, noun)), one
        assert words.counted(thing, 1) == one and words.counted(thing, 3).split()[1] == many
        # Spanish "y" never stands before an i.
        assert not re.match("h?i", words.counted(thing, 2)) and not re.match("h?i", one)
    assert len({one for one, _ in words.nouns.values()}) == 42
    assert len(FEMININE[language].split()) == {"de": 13, "es": 17, "fr": 19}[language]


def test_captions_in_four_languages():
    scene = in_a_row(cat=0.0, apple=0.3, car=0.8)
    scene.things.insert(2, Thing("apple", (0.0, 0.5, 0.1, 0.6)))
    assert [tiny_scenes.caption(scene, language) for language in ("en", "de", "es", "fr")] == [
        "a cat, two apples and a car",
        "eine Katze, zwei Äpfel und ein Auto",
        "un gato, dos manzanas y un coche",
        "un chat, deux pommes et une voiture",
    ]
    three = Scene(scene.pixels, [Thing("heart", (0, 0, 1, 1))] * 3, scene.owner)
    assert tiny_scenes.caption(three, "fr") == "trois cœurs"
    assert [tiny_scenes.caption(NOTHING, language) for language in LANGUAGES] == [
        "nothing I know", "nichts, was ich kenne", "nada que conozca", "rien que je connaisse",
    ]  # fmt: skip


# -- Questions ------------------------------------------------------------------------------------


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
    assert tiny_scenes.where(SCENE, "hat") == "nothing I know"
    assert tiny_scenes.where(made_of(("cat", (0.3, 0.4, 0.6, 0.7))), "cat") == "middle"
    assert tiny_scenes.total(SCENE) == "3" and tiny_scenes.total(NOTHING) == "0"
    assert tiny_scenes.caption(in_a_row(bus=0.5, apple=0.1, cup=0.8)) == "an apple, a bus and a cup"
    assert tiny_scenes.plural("bus") == "buses"


def test_boxes_of_several_names_come_in_the_order_of_the_picture():
    scene = in_a_row(cat=0.6, dog=0.1, bee=0.35)
    for names in (("cat", "bee", "dog"), ("bee", "dog", "cat"), ("hat", "cat", "dog", "bee")):
        labels = [part.split()[1] for part in tiny_scenes.detect(scene, *names).split(" ; ")]
        assert labels == ["dog", "bee", "cat"]
    assert re.fullmatch("(<loc[0-9]{4}>){4} cat", tiny_scenes.detect(scene, "hat", "cat"))
    assert tiny_scenes.detect(scene, "hat", "key") == ""
    assert [part.split()[1] for part in tiny_scenes.detect(SCENE, "apple", "umbrella").split(" ; ")] == [
        "umbrella", "apple", "apple",
    ]  # fmt: skip


def test_what_is_beside():
    scene = in_a_row(cat=0.6, apple=0.1, bee=0.35)
    assert tiny_scenes.beside(scene, "cat", "left") == "a bee"
    assert tiny_scenes.beside(scene, "bee", "left") == "an apple"
    assert tiny_scenes.beside(scene, "bee", "right") == "a cat"
    assert tiny_scenes.beside(scene, "cat", "right") == "nothing"
    assert tiny_scenes.beside(scene, "dog", "left") == "nothing I know"
    assert tiny_scenes.beside(in_a_row(cat=0.60, bee=0.62), "cat", "right") is None  # one above the other
    assert tiny_scenes.beside(in_a_row(cat=0.1, bee=0.60, dog=0.62), "cat", "right") is None
    assert tiny_scenes.beside(in_a_row(cat=0.1, bee=0.60, dog=0.62), "cat", "left") == "nothing"


def test_masks_are_written_as_the_codec_says_them(drawings):
    torch.manual_seed(0)
    codec = MaskVQVAE(MaskConfig(embedding_dim=8, hidden_dim=2))
    rng = np.random.default_rng(2)
    scenes = [tiny_scenes.draw_scene(rng, drawings, 96, 2) for _ in range(4)] + [NOTHING]
    names = [[thing.name for thing in scene.things] or ["cat"] for scene in scenes]
    answers = [tiny_scenes.segment(scene, *asked) for scene, asked in zip(scenes, names, strict=True)]
    filled = map(tiny_scenes.fill_in, answers, tiny_scenes.mask_words(codec, scenes))
    for scene, answer in zip(scenes, filled, strict=True):
        expected = []
        for index, thing in enumerate(scene.things):
            y1, x1, y2, x2 = (96 * edge for edge in thing.box)
            mask = torch.from_numpy(scene.owner == index)
            tokens = tokens_from_mask(codec, mask, (x1, y1, x2, y2)).tolist()
            box = tiny_scenes.detect(Scene(scene.pixels, [thing], scene.owner), thing.name).split()[0]
            expected.append(f"{box}{''.join(f'<seg{token:03d}>' for token in tokens)} {thing.name}")
        assert answer == " ; ".join(expected)


def test_the_text_of_a_sign_is_read():
    sign = Sign("Tea", (0, 0, 0.2, 0.5), [])
    scene = Scene(SCENE.pixels, SCENE.things, SCENE.owner, sign)
    rng = np.random.default_rng(0)
    assert tiny_scenes.ask(rng, scene, "ocr") == ("ocr", "Tea")
    assert tiny_scenes.ask(rng, SCENE, "ocr") == ("ocr", "")


def test_every_prompt_has_one_of_the_stated_forms_and_a_true_answer(drawings, monkeypatch):
    monkeypatch.setattr(tiny_scenes, "vary", lambda rng, prompt: prompt)
    rng = np.random.default_rng(3)
    things, plurals = "|".join(THINGS), "|".join(map(tiny_scenes.plural, THINGS))
    forms = {
        form: re.compile(
            re.escape(form).replace(r"\{thing\}", f"({things})").replace(r"\{things\}", f"({plurals})")
        )
        for form in tiny_scenes.prompt_forms()
    }
    seen = dict.fromkeys(forms, 0)
    for i in range(2000):
        if i % 20 == 0:
            scene = tiny_scenes.draw_scene(rng, drawings, 48)
        [(prompt, answer)] = choose_questions(rng, scene, train_tiny.KINDS, 1)
        [form] = [form for form, pattern in forms.items() if pattern.fullmatch(prompt)]
        seen[form] += 1
        names = re.findall(rf"\b({things})\b", prompt)
        if prompt.startswith("detect"):
            assert answer == tiny_scenes.detect(scene, *names)
            assert len(set(names)) == len(names)
        elif prompt.startswith("answer en what is"):
            assert answer == tiny_scenes.beside(scene, names[0], prompt.split()[4])
        elif "colour" in prompt:
            assert answer in (*tiny_scenes.COLORS, "nothing I know")
    seen.pop("answer en what color is the {thing}?")  # only as a variation
    assert min(seen.values()) > 0, seen


def test_prompts_are_typed_in_other_ways():
    rng = np.random.default_rng(0)
    typed = {tiny_scenes.vary(rng, "answer en what colour is the cat?") for _ in range(300)}
    assert typed >= {
        "answer en what colour is the cat?", "answer en What colour is the cat?",
        "answer en what color is the cat", "answer en What color is the cat",
        "Answer en what colour is the cat?", "Answer en What color is the cat?",
    }  # fmt: skip
    assert {text.lower().replace("colour", "color").rstrip("?") for text in typed} == {
        "answer en what color is the cat"
    }
    assert {tiny_scenes.vary(rng, "detect cat ; dog") for _ in range(100)} == {
        "detect cat ; dog", "Detect cat ; dog",
    }  # fmt: skip


def test_what_cannot_be_asked_becomes_another_question():
    rng = np.random.default_rng(0)
    cats = made_of(("cat", (0.1, 0.1, 0.2, 0.2)), ("cat", (0.1, 0.5, 0.2, 0.6)))
    for kind in ("where", "color", "beside"):
        assert tiny_scenes.QUESTIONS[kind](rng, cats) is None
        prompt, answer = tiny_scenes.ask(rng, cats, kind)
        assert prompt.startswith("answer en is there a") and answer == ("yes" if "cat" in prompt else "no")


def test_what_lies_close_to_a_border_can_be_asked_about():
    rng = np.random.default_rng(0)
    boxes = {
        "cat": (0.1, 0.1, 0.2, 0.6), "dog": (0.7, 0.7, 0.8, 0.9), "bee": (0.0, 0.3, 0.1, 0.4),
        "hat": (0.61, 0.7, 0.71, 0.9),
    }  # fmt: skip
    scene = made_of(*((name, boxes[name]) for name in ("cat", "bee", "bee", "dog", "hat")))  # no "the" bee
    for _ in range(20):
        assert tiny_scenes.ask_where_close(rng, scene) == ("answer en where is the cat?", "top")
    assert tiny_scenes.ask_where_close(rng, made_of(("dog", boxes["dog"]))) is None
    # Nobody can say on which side of the border the middle of the hat lies.
    asked = {tiny_scenes.QUESTIONS["where"](rng, scene) for _ in range(100)}
    assert ("answer en where is the dog?", "bottom right") in asked
    assert not any("hat" in prompt and answer != "nothing I know" for prompt, answer in asked)
    assert tiny_scenes.where(scene, "hat") is None
    assert tiny_scenes.ask_where_close(rng, made_of(("hat", boxes["hat"]))) is None


def test_words_of_letters_that_look_alike_come_in_capitals():
    rng = np.random.default_rng(0)
    texts = [random_text(rng) for _ in range(4000)]
    assert not [text for text in texts if re.fullmatch("[cosuvwxz]+", text)]
    assert sum(text.islower() for text in texts) > 500 and sum(text.istitle() for text in texts) > 200
    assert {len(text) for text in texts if text.isdigit()} == {1, 2, 3}
