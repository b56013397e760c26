"""All kinds of questions about a scene, with their true answers.

The prompts and answers have the forms PaliGemma was trained on (PaliGemma paper, section 3.2.5):

    caption en                               two apples and a car
    caption de                               zwei Äpfel und ein Auto
    detect car                               <loc0102><loc0561><loc0480><loc0979> car
    detect car ; apple ; dog                 a box and a name for each one found, from left to right
    segment car                              <loc...> x 4 <seg...> x 16 car
    answer en how many apples are there?     2
    answer en how many things are there?     3
    answer en is there a dog?                no
    answer en where is the car?              top right
    answer en what colour is the car?        red
    answer en what is left of the car?       an apple
    ocr                                      the text of the sign

What is not there is not found: an empty answer to detect, segment and ocr; `nothing I know` where a
word has to be said.
"""

import re

import numpy as np
import torch

from mask_decoder_1 import GRID_SIDE, MASK_SIDE, MaskVQVAE, resize_shapes
from tiny_model.truth import Scene, Thing, named
from tiny_model.words import LANGUAGES, NOTHING, THINGS, article, plural

CLOSE_TO = 0.05  # in x, over S: too near to be left or right of one another
ON_BORDER, CLOSE_TO_BORDER = 0.01, 0.03  # over S: too near to be on either side; and near enough to be hard


# -- Answers --------------------------------------------------------------------------------------


def caption(scene: Scene, language: str = "en") -> str:
    """'two apples and a car': from left to right by the first of each, equal ones together."""
    words = LANGUAGES[language]
    names = [thing.name for thing in scene.things]
    return words.listed([words.counted(name, names.count(name)) for name in dict.fromkeys(names)])


def box_of(thing: Thing) -> str:
    """'<loc0102><loc0561><loc0480><loc0979>'"""
    return "".join(f"<loc{min(1023, int(1024 * edge)):04d}>" for edge in thing.box)


def detect(scene: Scene, *names: str) -> str:
    """'<loc0102><loc0561><loc0480><loc0979> car', joined by ' ; '; '' if there is none."""
    return " ; ".join(f"{box_of(thing)} {thing.name}" for thing in scene.things if thing.name in names)


def segment(scene: Scene, *names: str) -> str:
    """As `detect`, with a place for the words of each mask (its number), which `fill_in` fills."""
    return " ; ".join(
        f"{box_of(thing)}<mask{i}> {thing.name}"
        for i, thing in enumerate(scene.things)
        if thing.name in names
    )


@torch.inference_mode()
def mask_words(codec: MaskVQVAE, scenes: list[Scene]) -> list[np.ndarray]:
    """For each scene, int64 [things, 16]: the words of the masks of its things, as `tokens_from_mask` says.

    All masks are encoded in one batch.
    """
    cut = []
    for scene in scenes:
        size = len(scene.owner)
        for number, thing in enumerate(scene.things):
            y1, x1, y2, x2 = (round(edge * size) for edge in thing.box)
            mask = torch.from_numpy(scene.owner[y1:y2, x1:x2] == number)[None].float()
            cut.append(resize_shapes(mask, MASK_SIDE, MASK_SIDE))
    tokens = codec.encode(torch.cat(cut)).numpy() if cut else np.zeros((0, GRID_SIDE**2), dtype=np.int64)
    return np.split(tokens, np.cumsum([len(scene.things) for scene in scenes])[:-1])


def fill_in(answer: str, words: np.ndarray) -> str:
    """An answer to `segment` with the words of the masks of its scene, int64 [things, 16]."""
    return re.sub(
        r"<mask(\d)>", lambda match: "".join(f"<seg{word:03d}>" for word in words[int(match[1])]), answer
    )


def count(scene: Scene, thing: str) -> str:
    return str(len(named(scene, thing)))


def is_there(scene: Scene, thing: str) -> str:
    return "yes" if named(scene, thing) else "no"


def where(scene: Scene, thing: str) -> str | None:
    """The third of the picture with the center of the only `thing`: 'top left', 'middle'.

    None where it is too near to a border between thirds to be told by anybody.
    """
    if not named(scene, thing):
        return NOTHING
    [found] = named(scene, thing)
    if from_border(found) < ON_BORDER:
        return None
    y, x = (min(2, int(3 * coordinate)) for coordinate in found.centre)
    words = (("top", "", "bottom")[y], ("left", "", "right")[x])
    return " ".join(filter(None, words)) or "middle"


def from_border(thing: Thing) -> float:
    """How far its center is from the nearest border between thirds, over S."""
    return min(abs(middle - border) for middle in thing.centre for border in (1 / 3, 2 / 3))


def color(scene: Scene, thing: str) -> str | None:
    """The color of the only `thing`; None if it has no clear one."""
    if not named(scene, thing):
        return NOTHING
    [found] = named(scene, thing)
    return found.color


def beside(scene: Scene, thing: str, side: str) -> str | None:
    """What comes next to the left (right) of the only `thing`: 'a dog', 'nothing'.

    By the centers, as in a caption. None where two centers are too near to one another to be told
    apart by anybody.
    """
    if not named(scene, thing):
        return NOTHING
    [found] = named(scene, thing)
    sign = -1 if side == "left" else 1
    away = [
        (sign * (other.centre[1] - found.centre[1]), other.name)
        for other in scene.things
        if other is not found
    ]
    if any(abs(distance) < CLOSE_TO for distance, _ in away):
        return None
    beyond = sorted(pair for pair in away if pair[0] > 0)
    if not beyond:
        return "nothing"
    first, name = beyond[0]
    if any(distance - first < CLOSE_TO and other != name for distance, other in beyond):
        return None
    return f"{article(name)} {name}"


def total(scene: Scene) -> str:
    return str(len(scene.things))


def ocr(scene: Scene) -> str:
    return scene.sign.text if scene.sign else ""


# -- Questions ------------------------------------------------------------------------------------
#
# Each takes a random generator and a scene and returns a prompt with its true answer, or None if
# that kind of question cannot be asked about this scene.

Question = tuple[str, str] | None


def _present(scene: Scene) -> list[str]:
    return list(dict.fromkeys(thing.name for thing in scene.things))


def _absent(rng: np.random.Generator, scene: Scene, number: int = 1) -> list[str]:
    absent = [thing for thing in THINGS if not named(scene, thing)]
    return [absent[i] for i in rng.permutation(len(absent))[:number]]


def _single(scene: Scene) -> list[str]:
    return [name for name in _present(scene) if len(named(scene, name)) == 1]


def _any_of(rng: np.random.Generator, scene: Scene, absent_share: float) -> str:
    """The name of a thing that is there, or at times of one that is not."""
    present = _present(scene)
    if not present or rng.random() < absent_share:
        return _absent(rng, scene)[0]
    return present[rng.integers(len(present))]


def ask_caption(rng: np.random.Generator, scene: Scene, language: str = "en") -> Question:
    return f"caption {language}", caption(scene, language)


def ask_detect(rng: np.random.Generator, scene: Scene) -> Question:
    # Absent ones are rare: <eos> is one token, but a box may begin with any of many nearly
    # right <loc>, so of two equally likely answers the greedy one would be "nothing".
    thing = _any_of(rng, scene, 0.04)
    return f"detect {thing}", detect(scene, thing)


def ask_segment(rng: np.random.Generator, scene: Scene) -> Question:
    thing = _any_of(rng, scene, 0.04)
    return f"segment {thing}", segment(scene, thing)


def several(rng: np.random.Generator, scene: Scene) -> list[str]:
    """Two or three names in any order, mostly of what is there."""
    present = _present(scene)
    number = int(rng.choice((2, 2, 3)))
    there = min(len(present), number if rng.random() < 0.6 else int(rng.integers(0, number)))
    if present and not there and rng.random() < 0.8:
        there = 1
    names = [present[i] for i in rng.permutation(len(present))[:there]]
    names += _absent(rng, scene, number - there)
    return [names[i] for i in rng.permutation(number)]


def ask_detect_several(rng: np.random.Generator, scene: Scene) -> Question:
    names = several(rng, scene)
    return f"detect {' ; '.join(names)}", detect(scene, *names)


def ask_segment_several(rng: np.random.Generator, scene: Scene) -> Question:
    names = several(rng, scene)
    return f"segment {' ; '.join(names)}", segment(scene, *names)


def ask_count(rng: np.random.Generator, scene: Scene) -> Question:
    present = _present(scene)
    if not present or rng.random() < 0.3:
        thing = _absent(rng, scene)[0]
    else:
        squares = np.array([len(named(scene, thing)) ** 2 for thing in present])
        thing = str(rng.choice(present, p=squares / squares.sum()))  # mostly what is repeated
    return f"answer en how many {plural(thing)} are there?", count(scene, thing)


def ask_total(rng: np.random.Generator, scene: Scene) -> Question:
    return "answer en how many things are there?", total(scene)


def ask_is_there(rng: np.random.Generator, scene: Scene) -> Question:
    thing = _any_of(rng, scene, 0.5)
    return f"answer en is there {article(thing)} {thing}?", is_there(scene, thing)


def _ask_of_single(rng: np.random.Generator, scene: Scene, names: list[str]) -> str | None:
    """One of the names, or at times, and where there are no things at all, one that is not there."""
    if not scene.things or (names and rng.random() < 0.06):
        return _absent(rng, scene)[0]
    return names[rng.integers(len(names))] if names else None


def ask_where(rng: np.random.Generator, scene: Scene) -> Question:
    thing = _ask_of_single(rng, scene, [name for name in _single(scene) if where(scene, name)])
    return thing and (f"answer en where is the {thing}?", where(scene, thing))


def ask_where_close(rng: np.random.Generator, scene: Scene) -> Question:
    """Where a thing is that lies close to a border between thirds.

    They are few, and yet only they teach how exactly one has to look. So in training they are asked
    about more often than by chance; it is none of KINDS, and nothing is measured by it.
    """
    close = [
        name
        for name in _single(scene)
        for thing in named(scene, name)
        if ON_BORDER <= from_border(thing) < CLOSE_TO_BORDER
    ]
    if not close:
        return None
    thing = close[rng.integers(len(close))]
    return f"answer en where is the {thing}?", where(scene, thing)


def ask_color(rng: np.random.Generator, scene: Scene) -> Question:
    thing = _ask_of_single(rng, scene, [name for name in _single(scene) if color(scene, name)])
    return thing and (f"answer en what colour is the {thing}?", color(scene, thing))


def ask_beside(rng: np.random.Generator, scene: Scene) -> Question:
    if len(scene.things) == 1 and rng.random() < 0.7:
        return None  # else most answers would be "nothing"
    both = [(name, side) for name in _single(scene) for side in ("left", "right")]
    pairs = [pair for pair in both if beside(scene, *pair)]
    something = [pair for pair in pairs if beside(scene, *pair) != "nothing"]
    if something and rng.random() < 0.6:
        pairs = something
    asked = _ask_of_single(rng, scene, [name for name, _ in pairs])
    if asked is None:
        return None
    if named(scene, asked):
        thing, side = pairs[rng.integers(len(pairs))]
    else:
        thing, side = asked, ("left", "right")[rng.integers(2)]
    return f"answer en what is {side} of the {thing}?", beside(scene, thing, side)


def ask_ocr(rng: np.random.Generator, scene: Scene) -> Question:
    return "ocr", ocr(scene)


QUESTIONS = {
    "caption": ask_caption,
    "caption de": lambda rng, scene: ask_caption(rng, scene, "de"),
    "caption es": lambda rng, scene: ask_caption(rng, scene, "es"),
    "caption fr": lambda rng, scene: ask_caption(rng, scene, "fr"),
    "detect": ask_detect,
    "detect several": ask_detect_several,
    "segment": ask_segment,
    "segment several": ask_segment_several,
    "count": ask_count,
    "total": ask_total,
    "is there": ask_is_there,
    "where": ask_where,
    "color": ask_color,
    "beside": ask_beside,
    "ocr": ask_ocr,
}
KINDS = tuple(QUESTIONS)


def ask(rng: np.random.Generator, scene: Scene, kind: str) -> tuple[str, str]:
    """A prompt of one of KINDS about the scene, and its true answer.

    A kind that cannot be asked about this scene ("where" with two cats and nothing else) becomes
    "is there". Answers to "segment" still need `fill_in`.
    """
    return QUESTIONS[kind](rng, scene) or ask_is_there(rng, scene)


def vary(rng: np.random.Generator, prompt: str) -> str:
    """The prompt as somebody else may type it: capitals, no question mark, another spelling."""
    if rng.random() < 0.3:
        prompt = prompt.replace("colour", "color")
    if rng.random() < 0.15:
        prompt = prompt.removesuffix("?")
    head, task, question = prompt.rpartition("answer en ")
    if task and rng.random() < 0.2:
        prompt = head + task + question[0].upper() + question[1:]
    if rng.random() < 0.2:
        prompt = prompt[0].upper() + prompt[1:]
    return prompt


FORMS = {  # of the prompts of each kind
    "caption": ["caption en"],
    "caption de": ["caption de"],
    "caption es": ["caption es"],
    "caption fr": ["caption fr"],
    "detect": ["detect {thing}"],
    "detect several": ["detect {thing} ; {thing}", "detect {thing} ; {thing} ; {thing}"],
    "segment": ["segment {thing}"],
    "segment several": ["segment {thing} ; {thing}", "segment {thing} ; {thing} ; {thing}"],
    "count": ["answer en how many {things} are there?"],
    "total": ["answer en how many things are there?"],
    "is there": ["answer en is there a {thing}?", "answer en is there an {thing}?"],
    "where": ["answer en where is the {thing}?"],
    "color": ["answer en what colour is the {thing}?", "answer en what color is the {thing}?"],
    "beside": ["answer en what is left of the {thing}?", "answer en what is right of the {thing}?"],
    "ocr": ["ocr"],
}


def prompt_forms() -> list[str]:
    """The forms of all prompts that the model is trained on."""
    return [form for forms in FORMS.values() for form in forms]


def known_forms(kinds: tuple[str, ...]) -> list[str]:
    """The forms of some kinds of questions as a prompts.json says them (program/known_prompts.py)."""
    forms = [form.replace("?", "[?]").replace("an {", "a {") for kind in kinds for form in FORMS[kind]]
    return list(dict.fromkeys(re.sub("colou?r", "colo[u]r", form) for form in forms))
