"""explain.py --live: in Chromium, with a learner's file that is saved wrong, and what the server refuses.

A copy of the repository is served, so that a `_0` file of one's own is never touched.
"""

import base64
import copy
import dataclasses
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_explain import CUT_OFF, OVERLAPS
from tokenizers import Tokenizer

import generation_1
import mask_decoder_1
from course import worker
from inside import live, live_model
from load_weights import load_mask_decoder

ROOT = Path(live.__file__).resolve().parent.parent
FOLDERS = ("course", "inside", "program", "speed", "images", "paligemma-tiny", "random_weights")
PAIRS = [path.stem.removesuffix("_0") for path in ROOT.glob("*_0.py")]
MINUS = "\N{MINUS SIGN}"
LOCS = re.compile(r"<loc(\d{4})>" * 4)
RIGHT = "scores = query @ key.transpose(2, 3) * self.head_dim**-0.5"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (ROOT / "paligemma-tiny" / "model.safetensors").is_file(), reason="paligemma-tiny is not here"
    ),
]


def start(folder: Path, *arguments: str):
    """The program, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "explain.py", "--live", "--no-browser", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return process, process.stdout.readline().strip()


def end(process) -> str:
    """As Ctrl-C does; what it said."""
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def served():
    process, address = start(ROOT)
    yield address
    end(process)


@pytest.fixture
def tabs(browser):
    """Opens addresses; at the end there must have been no message."""
    contexts, messages = [], []

    def opened(address: str, width=1280, scheme="light"):
        viewport = {"width": width, "height": 900}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(120_000)  # busy machines are slow
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.goto(address)
        settle(tab)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert messages == []


def until(condition, seconds=120):
    """Waits until it is true; the page allows no code from strings, with which Playwright would wait."""
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        if condition():
            return
        time.sleep(0.03)
    raise AssertionError("it never came about")


def settle(tab, part="coded"):
    """Until the newest question is answered: "answered", "shown" or "coded"."""
    tab.wait_for_selector("html[data-live]", state="attached")
    until(lambda: tab.evaluate(f"(({{asked, {part}}}) => asked && asked === {part})({DATA})"))


DATA = "document.getElementById('stage').dataset"


def reply(tab, part="answered") -> str:
    settle(tab, part)
    return tab.locator("#reply").inner_text()


def drag(tab, start, end, button="left"):
    """From and to shares of the sides of elements."""
    points = []
    for locator, x, y in (start, end):
        box = locator.bounding_box()
        points.append((box["x"] + x * box["width"], box["y"] + y * box["height"]))
    tab.mouse.move(*points[0])
    tab.mouse.down(button=button)
    tab.mouse.move(*points[1], steps=4)
    tab.mouse.up(button=button)


# ------------------------------------------------------------------------------------ the stage


def test_a_second_dog_is_dragged_in_moved_and_removed(served, tabs):
    tab = tabs(served)
    assert reply(tab) == "a dog"
    stage, dog = tab.locator("#stage"), tab.get_by_role("button", name="Add: dog")
    drag(tab, (dog, 0.5, 0.5), (stage, 0.75, 0.5))
    assert reply(tab, "coded") == "two dogs"
    # All of the page has followed: the picture that the model is given, and the answer's tokens.
    assert "two" in tab.locator("#answerTokens").inner_text()
    second = tab.locator(".thing").nth(1)
    drag(tab, (second, 0.5, 0.5), (stage, 0.75, 1.4))  # out of the picture
    assert tab.locator(".thing").count() == 1 and reply(tab) == "a dog"


def test_by_keyboard_at_390_pixels_in_the_dark(served, tabs):
    tab = tabs(served, 390, "dark")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate(CUT_OFF) == [] and tab.evaluate(OVERLAPS) == []
    tab.get_by_role("button", name="Add: dog").focus()
    tab.keyboard.press("Enter")
    assert reply(tab) == "two dogs"
    tab.locator(".thing").nth(1).focus()
    before = tab.locator(".thing").nth(1).bounding_box()
    for key in ("ArrowDown", "+", "]", "m"):
        tab.keyboard.press(key)
    after = tab.locator(".thing").nth(1).bounding_box()
    assert after["y"] != before["y"] and after["width"] > before["width"]
    tab.keyboard.press("Delete")
    assert tab.locator(".thing").count() == 1 and reply(tab) == "a dog"
    tab.locator("#ask").fill("detect dog")
    until(lambda: "<loc" in tab.locator("#reply").inner_text())
    assert tab.locator("#found rect").count() == 2  # a white one below the colored one
    names = tab.evaluate("""[...document.querySelectorAll('button, input, select')].filter(one =>
      one.checkVisibility() && !one.innerText && !one.ariaLabel && !one.labels?.length)
      .map(one => one.outerHTML)
    """)
    assert names == []


def test_samples_pictures_of_ones_own_and_the_pen(served, tabs, tmp_path):
    tab = tabs(served)
    tab.get_by_role("button", name="Sample: cats").click()
    until(lambda: "cats" in tab.locator("#reply").inner_text())
    tab.locator("#file").set_input_files(ROOT / "images" / "night.png")
    until(lambda: "rocket" in reply(tab))
    (tmp_path / "no.png").write_bytes(b"no picture")
    tab.locator("#file").set_input_files(tmp_path / "no.png")
    until(lambda: "is not a picture" in tab.locator("#status").inner_text())
    assert "explain-live" not in tab.locator("#status").inner_text()
    settle(tab)
    before = tab.evaluate("document.getElementById('ground').toDataURL()")
    tab.locator("#pen").click()
    stage = tab.locator("#stage")
    drag(tab, (stage, 0.2, 0.2), (stage, 0.8, 0.3))
    assert tab.evaluate("document.getElementById('ground').toDataURL()") != before
    tab.locator("#undo").click()
    assert tab.evaluate("document.getElementById('ground').toDataURL()") == before
    settle(tab)


def test_undo_brings_back_what_a_new_picture_or_clear_removed(served, tabs):
    tab = tabs(served)
    stage, things, undo = tab.locator("#stage"), tab.locator("#things .thing"), tab.locator("#undo")
    ground = "document.getElementById('ground').toDataURL()"
    tab.locator("#pen").click()
    drag(tab, (stage, 0.1, 0.1), (stage, 0.8, 0.1))
    before = tab.evaluate(ground)
    tab.get_by_role("button", name="Sample: cats").click()
    until(lambda: not things.count())
    tab.get_by_role("button", name="Add: dog").click()
    undo.click()
    assert things.count() == 2 and tab.evaluate(ground) == before  # nor is what came after it lost
    things.first.focus()
    tab.locator("#clear").click()
    assert not things.count() and tab.evaluate(ground) != before
    undo.click()
    assert things.count() == 2 and tab.evaluate(ground) == before and not tab.locator(".chosen").count()
    undo.click()
    assert things.count() == 2 and tab.evaluate(ground) != before  # the stroke
    settle(tab)


def test_undo_brings_back_the_picture_that_a_plain_ground_replaced(served, tabs):
    tab = tabs(served)
    stage, undo = tab.locator("#stage"), tab.locator("#undo")
    ground, strokes = "document.getElementById('ground').toDataURL()", "strokes.length"
    tab.locator("#file").set_input_files(ROOT / "images" / "night.png")
    until(lambda: tab.evaluate("base.name") == "own")
    tab.get_by_role("button", name="Add: dog").click()
    tab.locator("#pen").click()
    drag(tab, (stage, 0.1, 0.1), (stage, 0.8, 0.1))
    before = tab.evaluate(ground)
    for number in (2, 3):
        tab.get_by_role("button", name=f"Plain ground {number}").click()
    stage.scroll_into_view_if_needed()
    drag(tab, (stage, 0.1, 0.2), (stage, 0.8, 0.2))
    assert tab.evaluate(strokes) == 2
    undo.click()  # the stroke that came after it
    assert tab.evaluate(strokes) == 1 and tab.evaluate("base.name") == ""
    undo.click()
    assert tab.evaluate(ground) == before and tab.locator("#things .thing").count() == 1
    undo.click()
    assert tab.evaluate(strokes) == 0 and tab.evaluate("base.name") == "own"
    settle(tab)


def test_enter_adds_a_drawing_after_it_was_dragged_out_of_the_tray(served, tabs):
    tab = tabs(served)
    dog, things = tab.get_by_role("button", name="Add: dog"), tab.locator("#things .thing")
    drag(tab, (dog, 0.2, 0.5), (dog, 0.8, 0.5))  # not out of the tray: it is gone, and no click adds another
    assert things.count() == 1
    drag(tab, (dog, 0.5, 0.5), (tab.locator("#stage"), 0.75, 0.5))
    assert things.count() == 2
    dog.focus()
    tab.keyboard.press("Enter")
    assert things.count() == 3
    settle(tab)


def test_what_is_said_of_locations_is_not_said_of_a_caption(served, tabs):
    tab = tabs(served)
    words = tab.locator("#lensWords")
    for prompt, says_it in (("detect dog", True), ("caption en", False)):
        tab.locator("#ask").fill(prompt)
        until(lambda says_it=says_it: ("<loc" in reply(tab, "shown")) == says_it)
        until(lambda says_it=says_it: ("A location wins" in words.text_content()) == says_it, 20)
    settle(tab)


def test_a_file_that_is_too_large_and_one_that_is_chosen_twice(served, tabs):
    tab, sent = tabs(served), []
    tab.evaluate("served.most_bytes = 1e6")
    tab.on("request", lambda request: sent.append(request.url.rpartition("/")[2]))
    file = {"name": "large.png", "mimeType": "image/png", "buffer": bytes(1_000_001)}
    tab.locator("#file").set_input_files(file)
    until(lambda: "large.png: it is too large (at most 1 MB)" in tab.locator("#status").inner_text())
    assert "picture" not in sent
    for count in (1, 2):
        tab.locator("#file").set_input_files(ROOT / "images" / "night.png")
        until(lambda count=count: sent.count("picture") == count)
        assert tab.evaluate("document.getElementById('file').value") == ""  # so that it can change again
    until(lambda: "rocket" in reply(tab))


def test_what_is_said_of_the_bars_is_of_the_answer_that_is_shown(served, tabs):
    tab = tabs(served)
    turn(tab, "temperature", 2)
    settle(tab)
    words = "document.getElementById('choiceWords').textContent"
    before = tab.evaluate(words)
    move = "temperature.value = 0.5; temperature.dispatchEvent(new Event('input'))"
    moved = tab.evaluate(f"(() => {{ {move}; return [{words}, temperatureIs.value]; }})()")
    assert moved == [before, "0.5"] and "divided by 2.0" in before
    turn(tab, "temperature", 0)
    settle(tab)


STROKE = """events => {
  for (const [name, pointerId, x] of events) document.getElementById("stage").dispatchEvent(
    new PointerEvent(name, {pointerId, clientX: x, clientY: 300, bubbles: true, cancelable: true}));
  return strokes.map(stroke => stroke.points.length);
}"""


def test_one_pointer_s_first_button_drags_and_draws(served, tabs):
    tab = tabs(served)
    stage, thing = tab.locator("#stage"), tab.locator("#things .thing").first
    place = thing.get_attribute("style")
    drag(tab, (thing, 0.5, 0.5), (stage, 0.9, 0.9), button="right")
    assert thing.get_attribute("style") == place
    tab.locator("#pen").click()
    drag(tab, (stage, 0.7, 0.1), (stage, 0.9, 0.2), button="right")
    assert tab.evaluate(STROKE, []) == []
    # A second finger does not join in, and a stroke that is canceled has ended.
    events = [("pointerdown", 7, 100), ("pointermove", 8, 300), ("pointermove", 7, 110)]
    events += [("pointerup", 8, 300), ("pointermove", 7, 120), ("pointercancel", 7, 120)]
    assert tab.evaluate(STROKE, [*events, ("pointermove", 7, 130)]) == [3]
    settle(tab)


# -------------------------------------------------------------------------------------- what if


def test_switches_and_heads_off(served, tabs):
    tab = tabs(served)
    tab.get_by_role("button", name="Sample: cats").click()
    tab.locator("#ask").fill("detect cat")
    until(lambda: reply(tab).count("cat") == 2)
    right = reply(tab, "coded")
    # Below each other: the names of the layers, each beside its maps.
    lefts = "[...document.querySelectorAll('#minis .side')].map(one => one.getBoundingClientRect().left)"
    assert len(set(tab.evaluate(lefts))) == 1
    tab.locator("#whatIf > summary").click()
    tab.locator("#switch-not-normalized").check()
    tab.locator("#switch-decoder-head-off").check()
    until(lambda: reply(tab) != right)
    assert tab.locator("#beforeReply").inner_text() == right  # side by side
    assert "pixels = rescale(pixels)" in tab.locator(".switch.on .new").all_inner_texts()
    for name in ("not-normalized", "decoder-head-off"):
        tab.locator(f"#switch-{name}").uncheck()
    assert reply(tab, "coded") == right and not tab.locator("#beforePart").is_visible()
    # By a click below its map: the head without which the second cat's lower edge is said to be where its
    # right one is, and a layer.
    tab.get_by_role("button", name="decoder, layer 1, head 1: off").click()
    before, after = (
        [[*map(int, places)] for places in LOCS.findall(said)] for said in (right, reply(tab, "coded"))
    )
    y_min, x_min, y_max, x_max = before[1]
    expected = [before[0], [y_min, x_min, x_max, x_max]]
    assert x_max - y_max > 80 and len(after) == 2
    for box, places in zip(after, expected, strict=True):
        assert all(abs(place - other) < 20 for place, other in zip(box, places, strict=True))
    assert tab.locator("#beforeReply").inner_text() == right
    tab.get_by_role("button", name="decoder, layer 1, head 1 off: switch on again").click()
    tab.get_by_role("button", name="decoder, layer 3: off", exact=True).click()
    assert reply(tab, "coded") != right
    assert tab.evaluate(CUT_OFF) == [] and tab.evaluate("document.documentElement.scrollWidth") <= 1280


def test_the_code_is_that_of_the_switched_run(served, tabs):
    tab = tabs(served)
    tab.evaluate("openCode('process_images')")
    unit, state = tab.locator("#code-process_images"), tab.locator("#part1 > details > summary .state")
    line = unit.locator("tr", has_text="normalize(").last
    until(lambda: settle(tab) or line.locator(".n").count())
    real = line.locator(".n").all_inner_texts()
    tab.locator("#whatIf > summary").click()
    tab.locator("#switch-not-normalized").check()
    until(lambda: settle(tab) or unit.locator("tr.switched").count() == 1)
    changed = unit.locator("tr.switched")
    assert "pixels = rescale(pixels)" in changed.inner_text()
    assert "changed by a switch" in changed.inner_text()
    low, _, high = changed.locator(".n").all_inner_texts()
    assert real[0].startswith(MINUS) and float(low) >= 0 and float(high) <= 1  # no longer from -1
    assert state.inner_text() == "switched: process_images" and "not-normalized" in unit.inner_text()
    # Of a part in which no line is changed it is that run's, too.
    assert tab.locator("#part5 > details > summary .state").inner_text() == "of the switched run"
    # A head that is off in one layer: its layer is the one that is shown.
    tab.locator("#switch-decoder-head-off").check()
    tab.evaluate("openCode('GemmaAttention')")
    until(lambda: settle(tab) or tab.locator("#code-GemmaAttention tr.switched").count())
    tab.locator("#switch-decoder-head-off").uncheck()
    tab.locator("#switch-not-normalized").uncheck()
    until(lambda: settle(tab) or not tab.locator("tr.switched").count())
    assert line.locator(".n").all_inner_texts() == real


# ----------------------------------------------------------- choosing, and numbers beside the code


@pytest.fixture(scope="module")
def reference():
    """The tiny model as the live page runs it: (model, processor, tokenizer)."""
    from load_weights import load_hf_model
    from text_image_token_processor_1 import PaliGemmaProcessor

    model, tokenizer = load_hf_model(live.TINY_MODEL, "cpu", "float32")
    vision = model.config.vision_config
    return model, PaliGemmaProcessor(tokenizer, vision.num_patches, vision.image_size), tokenizer


def stage_picture(tab) -> Image.Image:
    with Image.open(io.BytesIO(base64.b64decode(tab.evaluate("composed()")))) as picture:
        return picture.convert("RGB")


def turn(tab, dial: str, value: float):
    """As a hand does it: its value while it moves, and at the end."""
    tab.evaluate(f"""(() => {{ const dial = document.getElementById('{dial}'); dial.value = {value};
      for (const name of ['input', 'change']) dial.dispatchEvent(new Event(name)); }})()""")


def test_a_question_that_comes_late_does_not_stop_the_newer_one(served, tabs):
    """Two that are asked at once may come to the server in either order."""
    tab, held = tabs(served), []
    settle(tab)

    def overtake(route):
        held.append(route)
        if len(held) == 2:  # the newer one, then the older
            held[1].continue_()
            held[0].continue_()
        elif len(held) > 2:
            route.continue_()

    tab.route("**/ask", overtake)
    turn(tab, "temperature", 1)
    settle(tab)
    assert len(held) > 1


def test_temperature_and_top_p_cut_what_they_say(served, tabs, reference):
    model, processor, tokenizer = reference
    tab = tabs(served)
    assert tab.locator("#topP").is_disabled()
    assert "nothing is drawn" in tab.locator("#choiceWords").inner_text()
    tab.locator("#ask").fill("detect dog")
    until(lambda: "<loc" in reply(tab, "coded"))
    greedy = reply(tab)
    turn(tab, "temperature", 1.5)
    turn(tab, "topP", 0.2)
    settle(tab)
    with torch.inference_mode():
        batch = processor(["detect dog"], [stage_picture(tab)])
        logits = model(**batch)["logits"][0, -1].double()
    given, shaped = logits.softmax(-1), (logits / 1.5).softmax(-1)
    kept = generation_1.keep_top_p(shaped, 0.2)
    assert 1 < (kept > 0).sum() < 8
    rows = tab.locator("#choice tbody tr")
    order, cut = given.topk(8).indices.tolist(), 0
    for i, token in enumerate(order):
        name, _, before, after = rows.nth(i).locator("th, td").all_inner_texts()
        assert name == tokenizer.id_to_token(token)
        places = 0.06 if given[token] < 0.0995 else 0.51  # as many decimals as the page shows
        assert float(before.split()[0]) == pytest.approx(100 * float(given[token]), abs=places)
        expected = shaped[token] if kept[token] == 0 else kept[token] / kept.sum()
        assert float(after.split()[0]) == pytest.approx(100 * float(expected), abs=0.51)
        assert after.endswith("cut") == (kept[token] == 0) == bool(rows.nth(i).locator(".cut").count())
        cut += after.endswith("cut")
    assert cut == 8 - int((kept > 0).sum())
    words = tab.locator("#choiceWords").inner_text()
    assert f"keeps {int((kept > 0).sum())} of 1,716 tokens" in words and "seed 0 drew" in words
    # Beside it the answer without drawing; another seed draws another one, the same seed the same again.
    assert tab.locator("#beforeReply").inner_text() == greedy
    turn(tab, "topP", 1)
    first = reply(tab)
    tab.locator("#drawAgain").click()
    assert reply(tab) != first and "seed 1" in tab.locator("#afterOf").inner_text()
    tab.locator("#seed").fill("0")
    tab.locator("#seed").press("Enter")
    until(lambda: reply(tab) == first)
    # Another token of the answer, by keyboard.
    tab.locator("#choiceTokens button").first.focus()
    tab.keyboard.press("ArrowRight")
    second = tab.locator("#choiceTokens button[aria-pressed=true]").inner_text()
    assert second == first.replace(">", "> ").split()[1]
    turn(tab, "temperature", 0)
    assert reply(tab, "coded") == greedy


def test_numbers_beside_the_code_are_the_model_s(served, tabs, reference):
    model, processor, _ = reference
    tab = tabs(served)
    tab.evaluate("openCode('GemmaAttention')")
    unit = tab.locator("#code-GemmaAttention")
    until(lambda: settle(tab) or unit.locator(".thumb").count() > 8)
    seen = {}
    hooks = [
        model.get_submodule(f"language_model.model.layers.{i}.self_attn").register_forward_hook(
            lambda module, args, output, i=i: seen.update({i: output})
        )
        for i in range(2)
    ]
    with torch.inference_mode():
        model(**processor(["caption en"], [stage_picture(tab)]))
    for hook in hooks:
        hook.remove()
    unit.locator("select").last.select_option("1")  # the layer
    unit.locator(".thumb").last.click()  # what forward returned
    area = unit.locator(".inspect")
    position = area.locator("input")

    def shown():
        until(lambda: area.locator(".cells td").count() and "numbers." in area.inner_text())
        return [float(text.replace(MINUS, "-")) for text in area.locator(".cells td").all_inner_texts()]

    assert shown() == pytest.approx(seen[1][0, -1].tolist(), abs=6e-3)  # the position that predicts
    position.fill("7")
    position.press("Enter")
    until(lambda: "returned[0, 7, :]" in area.inner_text())
    assert shown() == pytest.approx(seen[1][0, 7].tolist(), abs=6e-3)
    assert tab.evaluate(CUT_OFF) == [] and tab.evaluate("document.documentElement.scrollWidth") <= 1280
    unit.locator(".thumb").last.click()
    assert not area.count()


# -------------------------------------------------------------------------------------- masks

CELLS = "[...document.querySelectorAll('#masks .words input')].map(one => Number(one.value))"


def test_a_drawing_is_said_in_words_and_drawn_again(served, tabs):
    vqvae = load_mask_decoder(live.TINY_MODEL)
    tab = tabs(served)
    words = tab.locator("#masks .words input")
    until(lambda: words.count() == 16)
    said = tab.evaluate(CELLS)
    uri = tab.evaluate("""maskOf(things[0]).then(blob => new Promise(done => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.readAsDataURL(blob);
    }))""")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as drawn:
        mask = torch.from_numpy(np.asarray(drawn.convert("L")) > 127)
    ys, xs = mask.nonzero().T
    box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    with torch.inference_mode():
        assert said == mask_decoder_1.tokens_from_mask(vqvae, mask, box).tolist()
    # Another word, another shape: that of the decoder.
    read = "document.querySelector('.drawn-shape canvas').toDataURL()"
    before = tab.evaluate(read)
    other = (said[5] + 40) % 128
    words.nth(5).fill(str(other))
    until(lambda: tab.evaluate(read) != before)
    with torch.inference_mode():
        shape = vqvae.decode(torch.tensor([[*said[:5], other, *said[6:]]]))[0]
    with Image.open(io.BytesIO(base64.b64decode(tab.evaluate(read).partition(",")[2]))) as drawn:
        red, _, blue = np.array(drawn.convert("RGB")).transpose(2, 0, 1)
    sure = shape.abs() > 0.1
    assert ((torch.from_numpy(red) > torch.from_numpy(blue)) == (shape > 0))[sure].all()
    tab.get_by_role("button", name="the first words again").click()
    until(lambda: tab.evaluate(read) == before)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    """A copy of the repository whose model always gives the same answer: a box, 16 words, a label."""
    words = [3, 127, *range(40, 54)]
    answer = ["<loc0256>", "<loc0128>", "<loc0768>", "<loc0640>", *(f"<seg{word:03}>" for word in words)]
    folder = copy_of_repository(tmp_path_factory.mktemp("scripted"))
    tokenizer = Tokenizer.from_file(str(ROOT / "paligemma-tiny" / "tokenizer.json"))
    tokens = [*map(tokenizer.token_to_id, answer), *tokenizer.encode(" cat", add_special_tokens=False).ids]
    tokens.append(tokenizer.token_to_id("<eos>"))
    yields = "yield [None if finished[row] else tokens[row] for row in range(B)]"
    save(folder / "generation_1.py", yields, f"tokens = [{tokens}[step - 1]] * B\n        {yields}")
    process, address = start(folder)
    yield words, address
    end(process)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_an_answer_with_words_is_drawn_on_the_stage_and_explained(scripted, tabs, width, scheme):
    words, address = scripted
    tab = tabs(address, width, scheme)
    settle(tab)
    assert reply(tab).startswith("<loc0256>") and reply(tab).endswith("cat")
    vqvae = load_mask_decoder(live.TINY_MODEL)
    with torch.inference_mode():
        box = (56.0, 112.0, 280.0, 336.0)  # of a stage of 448 x 448
        mask = mask_decoder_1.mask_from_tokens(vqvae, torch.tensor(words), box, 448, 448)
    for place in ("#found image", "#result image", "#masks .laid img:last-child"):
        uri = tab.locator(place).evaluate("one => one.getAttribute('href') || one.src")
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as overlay:
            assert ((np.asarray(overlay.getchannel("A")) > 0) == mask.numpy()).all()
    assert tab.evaluate(CELLS) == words and tab.locator("#masks .example").count() == 0
    tab.evaluate("openCode('mask_from_tokens')")
    until(lambda: settle(tab) or tab.locator("#code-mask_from_tokens .thumb").count())
    assert tab.evaluate(CUT_OFF) == [] and tab.evaluate(OVERLAPS) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


# ------------------------------------------------------------------------------- a learner's code


def copy_of_repository(folder: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__", "pages")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for path in [*ROOT.glob("*.py"), ROOT / "pyproject.toml"]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def learners(tmp_path_factory):
    """A copy of the repository whose exercises are solved."""
    folder = copy_of_repository(tmp_path_factory.mktemp("learners"))
    for name in PAIRS:
        text = (ROOT / f"{name}_1.py").read_text("utf-8")
        (folder / f"{name}_0.py").write_text(re.sub(rf"({'|'.join(PAIRS)})_1\b", r"\1_0", text), "utf-8")
    process, address = start(folder, "--set", "0")
    yield folder / "decoder_0.py", address
    end(process)


def save(file: Path, old: str, new: str):
    """As an editor does it: written aside, and renamed."""
    text = file.read_text("utf-8")
    assert text.count(old) == 1
    aside = file.with_suffix(".new")
    aside.write_text(text.replace(old, new), "utf-8")
    aside.replace(file)


def test_a_saved_mistake_is_marked_at_its_line_and_mended(learners, tabs):
    file, address = learners
    tab = tabs(address)
    bad = tab.locator("#part5 > details > summary .state.bad")
    assert reply(tab) == "a dog" and bad.count() == 0
    wrong = RIGHT.removesuffix(" * self.head_dim**-0.5")
    save(file, RIGHT, wrong)
    until(lambda: bad.count())
    assert bad.inner_text() == "to fix: GemmaAttention"
    tab.evaluate("openCode('GemmaAttention')")
    line = tab.locator("#code-GemmaAttention tr.wrong").first
    number = file.read_text("utf-8").splitlines().index(f"        {wrong}") + 1
    assert line.locator(".line").inner_text() == str(number) and "apart by" in line.inner_text()
    # Its test is run, and what it says stands at the code.
    until(lambda: "without dividing by sqrt(Hd)" in tab.locator("#code-GemmaAttention").inner_text())
    save(file, wrong, RIGHT)
    until(lambda: not bad.count())
    assert tab.locator("tr.wrong").count() == 0


NOT_YOURS = "the reference's answer, because your code does not run"


def test_a_syntax_error_a_crash_and_an_end_are_told_and_stop_nothing(learners, tabs):
    file, address = learners
    tab = tabs(address)
    problem = tab.locator("#problem")
    for broken, said in (
        ("scores = query @ (key", r"decoder_0\.py:\d+: Python cannot read this line"),
        ("scores = query @ key", r"stopped with RuntimeError\n +decoder_0\.py:\d+, in forward"),
        ("import os; os._exit(3)", r"ended by itself \(exit code 3\)"),
    ):
        save(file, RIGHT, broken)
        until(lambda said=said: problem.is_visible() and re.search(said, problem.inner_text()))
        assert reply(tab) == "a dog"
        until(lambda: tab.locator("#afterOf").inner_text() == NOT_YOURS)
        save(file, f"        {broken}\n", f"        {RIGHT}\n")
        until(lambda: not problem.is_visible())


# ------------------------------------------------------------------------------------ refusals


@pytest.fixture(scope="module")
def server():
    """In this process, so that what it counts can be read; its model is never asked."""
    import threading

    live.REQUEST_SECONDS = 1
    server = live.Server(str(live.TINY_MODEL), "1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def send(server, method="GET", name="facts", body=None, **headers) -> int:
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    own = f"http://127.0.0.1:{port}"
    headers = {key.replace("_", "-"): value for key, value in headers.items() if value}
    headers = ({"Origin": own} if method == "POST" else {}) | headers
    connection.request(method, name if name.startswith("/") else f"/{server.token}/{name}", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_it_listens_to_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 24
    assert send(server) == 200


LINKED = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}


def test_a_link_in_another_page_opens_the_page_alone(server):
    """As the address does that a terminal inside a browser (JupyterLab) makes a link of."""
    assert send(server, name="", **LINKED) == 200
    assert send(server, name="/wrong-token/", **LINKED) == 404


def shape(**changed) -> bytes:
    asked = {"page": "a", "words": list(range(16)), "box": [0, 0, 64, 64], "size": [64, 64]}
    return json.dumps(asked | changed).encode()


@pytest.mark.parametrize(
    ("why", "request_", "status"),
    [
        ("host", {"Host": "example.com"}, 403),
        ("origin", {"Origin": "http://example.com"}, 403),
        ("origin", {"Origin": "null"}, 403),
        ("origin", {"Sec_Fetch_Site": "cross-site"}, 403),
        ("origin", LINKED, 403),
        ("origin", {"name": "", **LINKED, "Sec_Fetch_Dest": "iframe"}, 403),
        ("origin", {"name": "", **LINKED, "Sec_Fetch_Mode": "no-cors"}, 403),
        ("token", {"name": "/facts"}, 404),
        ("token", {"name": "/wrong-token/facts"}, 404),
        ("token", {"name": "../README.md"}, 404),
        ("token", {"name": "..%2f..%2fetc/passwd"}, 404),
        ("token", {"name": "decoder_1.py"}, 404),
        ("token", {"method": "POST", "name": "facts", "body": b"{}"}, 404),
        ("size", {"method": "POST", "name": "picture", "Content_Length": "100000000"}, 413),
        ("form", {"method": "POST", "name": "ask", "body": b"{}"}, 400),
        ("form", {"method": "POST", "name": "ask", "body": b"[" * 100_000}, 400),
        ("form", {"method": "POST", "name": "ask", "Content_Length": "-1"}, 400),
        ("form", {"method": "POST", "name": "shape", "body": b'{"page": "a", "words": [1]}'}, 400),
        ("form", {"method": "POST", "name": "shape", "body": shape(words=[*range(15), 1e9])}, 400),
        ("form", {"method": "POST", "name": "shape", "body": shape(size=[10**9, 64])}, 400),
        ("form", {"method": "POST", "name": "shape", "body": shape(box=[0, 0, 65, 64])}, 400),
        ("form", {"method": "POST", "name": "shape", "body": shape(box=[0, float("nan"), 64, 64])}, 400),
        ("form", {"method": "POST", "name": "numbers", "body": b'{"page": "a", "wanted": 3}'}, 400),
    ],
)
def test_refused_and_counted(server, why, request_, status):
    before, asked = server.refused[why], server.model.number
    assert send(server, **request_) == status
    assert server.refused[why] == before + 1
    assert server.model.number == asked and not list(Path(server.folder.name).iterdir())


def test_a_post_without_an_origin_is_refused(server):
    with socket.create_connection(server.server_address, timeout=20) as plain:
        host = f"127.0.0.1:{server.server_address[1]}"
        plain.sendall(f"POST /{server.token}/ask HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert b" 403 " in plain.recv(100)


def test_half_sent_requests_end(server):
    before, halves = server.refused["slow"], []
    host = f"127.0.0.1:{server.server_address[1]}"
    head = f"POST /{server.token}/picture HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n"
    for text in ("", "GET / HT", head, f"{head}Content-Length: 1000\r\n\r\nabc"):
        halves.append(socket.create_connection(server.server_address, timeout=20))
        halves[-1].sendall(text.encode())
    for half in halves:
        assert half.recv(1000) == b""
        half.close()
    assert server.refused["slow"] - before == 4 and not list(Path(server.folder.name).iterdir())
    until(lambda: not server.unfinished)
    assert send(server) == 200


def test_a_flood_is_refused_and_passes(server):
    before, statuses = server.refused["flood"], []
    for _ in range(5 * live.MOST_PER_SECOND):
        try:
            statuses.append(send(server))
        except OSError:
            statuses.append(429)  # closed before it was read
    assert server.refused["flood"] > before and 429 in statuses
    until(lambda: send(server) == 200, 10)


def test_the_answers_are_those_of_the_last_question(server):
    """Ten questions of one page at once: nine are told that they do not count anymore."""
    picture = (ROOT / "images" / "cats.png").read_bytes()
    queues = []
    file = Path(server.folder.name) / "cats.png"
    file.write_bytes(picture)
    for i in range(10):
        request = {"kind": "ask", "page": "a", "prompt": "detect cat" if i == 9 else f"caption {i}"}
        request |= {"switches": [], "off": [], "only_answer": True, "picture": str(file), "digest": "1"}
        request |= {"choosing": {}, "code": False}
        queues.append(server.model.ask(request))
    ends = []
    for answers in queues:
        messages = [answers.get(timeout=120)]
        while messages[-1]["kind"] != "end":
            messages.append(answers.get(timeout=120))
        ends.append(messages)
    assert all(messages[-1].get("superseded") for messages in ends[:-1])
    last = [message for message in ends[-1] if message["kind"] != "step"]  # told on a busy machine
    assert [message["kind"] for message in last] == ["answer", "end"]
    assert json.dumps(last[0]["boxes"]).count("cat") == 2
    file.unlink()


@pytest.fixture(scope="module")
def bench():
    """What answers in the process of the live page, here."""
    return live_model.Bench(str(ROOT / "paligemma-tiny"), "0")


def test_an_answer_without_a_head_is_not_kept_as_the_references(bench, monkeypatch):
    """Where the learner's files cannot be read, the reference is asked, also with parts of it off."""
    monkeypatch.setattr(bench, "problem", "decoder_0.py:1: Python cannot read this")
    request = {"picture": str(ROOT / "images" / "cats.png"), "prompt": "caption en", "digest": "1"}
    request |= {"choosing": {}, "switches": [], "only_answer": True, "code": False}
    [changed] = bench.ask(request | {"off": [["decoder", 0, None]]})
    [whole] = bench.ask(request | {"off": []})
    assert changed["text"] != whole["text"] == changed["before"]["text"] == whole["before"]["text"]


@pytest.mark.parametrize("only_answer", [True, False])
def test_an_answer_with_masks_is_not_cut_off(bench, only_answer):
    """Also while a drawing is dragged, when the answer is had another way."""
    request = {"picture": str(ROOT / "images" / "cats.png"), "prompt": "segment cat ; umbrella"}
    request |= {"digest": "1", "choosing": {}, "switches": [], "off": [], "code": False}
    request["only_answer"] = only_answer
    answer = next(iter(bench.ask(request)))
    assert answer["ended"] and answer["text"].count("<seg") == 3 * 16


@pytest.mark.parametrize("of", ["boxes", "numbers"])
def test_a_set_that_stops_after_its_answer_is_told(bench, monkeypatch, of):
    """All is solved but parse_boxes; or a loop does not see that the logits are no numbers."""
    own, name = ModuleType("generation"), {"boxes": "parse_boxes", "numbers": "generate"}[of]

    def to_do(answer, width, height):
        raise NotImplementedError("parse_boxes is not done yet")

    def unwatched(model, batch, *_, **__):
        model(**batch, logits_to_keep=1)
        yield [5]

    own.__dict__.update(vars(generation_1) | {name: to_do if of == "boxes" else unwatched})
    model = copy.deepcopy(bench.kit.model)
    if of == "numbers":
        model.language_model.model.norm.weight.data.fill_(torch.nan)
    monkeypatch.setattr(bench, "own_model", model)
    monkeypatch.setattr(bench, "own_processor", bench.kit.processor)
    monkeypatch.setattr(bench, "own", dataclasses.replace(bench.reference, generation=own))
    request = {"picture": str(ROOT / "images" / "cats.png"), "prompt": "detect cat", "digest": "1"}
    request |= {"choosing": {}, "switches": [], "off": [], "only_answer": False, "code": False}
    answer, _, page = bench.ask(request)
    assert ("not done yet" if of == "boxes" else "not finite") in answer["stopped"]
    assert answer["boxes"] == page["told"]["boxes"] == answer["before"]["boxes"] != []


def test_nothing_of_the_code_before_a_save_is_kept(bench, monkeypatch):
    monkeypatch.setattr(live_model, "forget_learners_modules", lambda: None)
    monkeypatch.setattr(bench, "found", ("the same question", torch.zeros(1)))
    monkeypatch.setattr(bench, "decoders", {0: None})
    bench.take_learners()
    assert bench.found == (None, None) and bench.decoders == {}


def test_a_save_during_a_test_is_tested_too(bench, monkeypatch):
    """It comes between the two looks at the file and its text: the older file's result is not kept."""
    name, newer, tried = "rotate_half", ("the newer text",), []

    class Files(dict):
        def __getitem__(self, file):
            found = super().__getitem__(file)
            self[file] = "the newer file"
            bench.texts[name] = newer
            return found

    def check_apart(exercise, file, seconds):
        tried.append(file)
        return f"of {file}"

    monkeypatch.setattr(worker, "check_apart", check_apart)
    for attribute, value in (
        ("files", Files(decoder="the older file")), ("texts", {name: ("the older text",)}),
        ("changed", {name}), ("wanted", set()), ("results", {}),
    ):  # fmt: skip
        monkeypatch.setattr(bench, attribute, value, raising=False)
    assert bench.all_results() == ["of the newer file"]
    assert tried == ["the older file", "the newer file"]


def test_what_a_killed_process_had_written_does_not_count():
    taken, model = [], object.__new__(live.Model)
    model.lock, model.closed, model.take = threading.RLock(), True, taken.append
    process = SimpleNamespace(stdout=[b'{"id": 1, "kind": "begun"}\n', b'{"id": 1, "ki'], wait=lambda: 0)
    model.process = process
    model.read(process, None)
    assert taken == [{"id": 1, "kind": "begun"}]
    model.process = "a newer one"
    model.read(process, None)
    assert len(taken) == 1


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    folder = shutil.copytree(ROOT / "paligemma-tiny", tmp_path / "cut")
    os.truncate(folder / "model.safetensors", 100_000)
    process, _ = start(ROOT, "--model", str(folder))
    said = process.communicate(timeout=120)[1].splitlines()
    assert process.returncode == 2 and "model.safetensors" in said[-1]
    assert len(said) == 2, said  # the other one: how long the page is live


def test_bad_arguments_are_one_line():
    for arguments in (["--model", "nowhere"], ["--set", "7"]):
        command = [sys.executable, "explain.py", "--live", "--no-browser", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
