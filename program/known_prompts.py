"""Which prompts a checkpoint was trained on, as its folder says, and a note on one that it was not.

A model answers whatever it is asked, and an answer to a prompt of a new form means nothing. So a folder may
hold a prompts.json:

    {"name": "paligemma-tiny",
     "forms": ["caption en", "detect {thing}", "answer en how many {things} are there[?]"],
     "words": {"thing": ["cat", "dog"], "things": ["cats", "dogs"]},
     "capitals": true,
     "prompts": ["detect everything"]}

In a form {thing} stands for each of the words of that name, `a {thing}` for `an apple` as well, and what is
in [brackets] may be missing; a form has at most three of each.
"capitals": a prompt and the question in it may begin with a capital letter (`Detect cat`,
`answer en How many ...`). "prompts": known as they are, word for word; finetune.py writes them.
All but the name may be missing. Without the file, as in the 3B's folder, nothing is said.
"""

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from load_weights import CheckpointError, read_json
from program.command_line import is_printed, log, middle_cut, readable

FILE = "prompts.json"
MOST, LONGEST = 200, 200  # forms, prompts, or words in the file; letters of each
MOST_PLACES = 3  # in a form, and as many brackets: more could take hours to compare with a prompt
LONGEST_NOTE = 1000  # letters; the shipped model's takes 650
SHOWN = 8  # prompts that are known word for word, in a note
SLOT = re.compile(r"\{([^{}]+)\}")
PIECES = re.compile(r"(\{[^{}]+\}|\[[^\[\]]+\])")  # what of a form is not plain text
# No longer, so that a long prompt is compared in no time.
ANY_WORD = r"((?! )[^;]{1,40}?(?<! ))"
QUESTION = re.compile(r"^(answer \w\w )(\w)")


@dataclass(frozen=True)
class KnownPrompts:
    """What one prompts.json says."""

    name: str
    forms: list[str] = field(default_factory=list)
    words: dict[str, list[str]] = field(default_factory=dict)
    capitals: bool = False
    prompts: list[str] = field(default_factory=list)

    def strange_words(self, prompt: str) -> list[tuple[str, str]] | None:
        """What of a prompt is unknown: [(word, the name of its place in the form), ...]; [] if nothing is.

        None if the prompt is of no form at all.
        """
        if prompt in self.prompts:
            return []
        if self.capitals:
            prompt = prompt[:1].lower() + prompt[1:]
            prompt = QUESTION.sub(lambda found: found[1] + found[2].lower(), prompt)
        fewest = None
        for form in self.forms:
            found = pattern_of(form).fullmatch(prompt)
            if found is None:
                continue
            places = zip(found.groups(), SLOT.findall(form), strict=True)
            strange = [(word, place) for word, place in places if word not in self.words.get(place, [word])]
            if fewest is None or len(strange) < len(fewest):
                fewest = strange
        return fewest

    def examples(self) -> list[str]:
        """Each form as a prompt, with the first words of each name in it."""
        return [self.example(form) for form in self.forms]

    def example(self, form: str) -> str:
        left = {place: list(words) for place, words in self.words.items()}

        def word(found: re.Match) -> str:
            words = left.get(found[1])
            return words.pop(0) if words else found[0]

        return SLOT.sub(word, form.replace("[", "").replace("]", ""))


def pattern_of(form: str) -> re.Pattern:
    """A form as a regular expression, with a group for each {place}."""
    pattern, form = "", re.sub(r"\ba (?=\{)", "a[n] ", form)
    for piece in PIECES.split(form):
        if SLOT.fullmatch(piece):
            pattern += ANY_WORD
        elif PIECES.fullmatch(piece):
            pattern += f"(?:{re.escape(piece[1:-1])})?"
        else:
            pattern += re.escape(piece)
    return re.compile(pattern)


# ------------------------------------------------------------------------------------ the file


def read_known(folder: Path) -> KnownPrompts | None:
    """What a folder's prompts.json says; None without one. Raises CheckpointError if it is damaged."""
    path = folder / FILE
    if not path.is_file():
        return None
    entries = read_json(path)
    known = KnownPrompts(
        **{key: value for key, value in entries.items() if key in KnownPrompts.__dataclass_fields__}
        | {"name": entries.get("name")}
    )
    is_right = (
        is_text(known.name)
        and is_list(known.forms)
        and is_list(known.prompts)
        and isinstance(known.capitals, bool)
        and isinstance(known.words, dict)
        and all(is_text(place) and is_list(words) for place, words in known.words.items())
        and all(pattern_of(form).groups == len(SLOT.findall(form)) <= MOST_PLACES for form in known.forms)
        and all(len(PIECES.findall(SLOT.sub("", form))) <= MOST_PLACES for form in known.forms)
    )
    if not is_right:
        raise CheckpointError(f"{path} is not of the form that program/known_prompts.py describes")
    return known


def is_list(value) -> bool:
    return isinstance(value, list) and len(value) <= MOST and all(map(is_text, value))


def is_text(value) -> bool:
    """Text that can be shown on a terminal."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST and all(map(is_printed, value))


def unknown_to(base: Path, prompts: list[str]) -> list[str]:
    """Those of the prompts that a folder's prompts.json does not cover; all of them without that file."""
    try:
        known = read_known(base)
    except CheckpointError:
        known = None
    return [prompt for prompt in prompts if known is None or known.strange_words(prompt) != []]


def content_after_training(name: str, prompts: list[str], base: Path | None) -> str | None:
    """The prompts.json of what was trained on these prompts; None where none would be true.

    base: the folder of the model that was trained, if what it knew is to be in the file as well. Of a base
    that does not say it, and of too many prompts to list, nobody could read what is known.
    """
    prompts = sorted(set(prompts))
    if not (is_text(name) and is_list(prompts)):
        return None
    entries = {"name": name, "prompts": prompts}
    if base is not None:
        try:
            known = read_known(base)
        except CheckpointError:
            return None
        if known is None:
            return None
        entries = vars(known) | {"name": name, "prompts": sorted({*known.prompts, *prompts})}
        if len(entries["prompts"]) > MOST:
            return None
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------------------------ the note


def notes_on(prompts: list[str], model: str, adapter: str | None = None) -> list[str]:
    """What is to be said about prompts that a model (with an adapter) was not trained on: at most two notes.

    Nothing if one of the two does not say what it knows.
    """
    try:
        known = [read_known(Path(folder)) for folder in (adapter, model) if folder is not None]
    except CheckpointError as error:
        return [f"{readable(' '.join(str(error).split()))}; so nothing is said about unknown prompts"]
    if None in known:
        return []
    no_form, strange = False, {}
    for prompt in prompts:
        found = [one.strange_words(prompt) for one in known]
        if [] in found:
            continue
        words = next((words for words in found if words is not None), None)
        if words is None:
            no_form = True
        else:
            strange |= dict(words)
    name = " with ".join(one.name for one in reversed(known))
    notes = [f"{name} knows these prompts: {listed(known)}"] if no_form else []
    if strange:
        place = next(iter(strange.values()))
        here = [word for word in strange if strange[word] == place]
        quoted = " or ".join(f'"{readable(word)}"' for word in here[:3])
        all_words = next(one.words[place] for one in known if place in one.words)
        notes.append(f"{name} does not know {quoted}, only {', '.join(all_words)}")
    return [middle_cut(note, LONGEST_NOTE) for note in notes]


def listed(known: list[KnownPrompts]) -> str:
    """The forms, and the first of the prompts that are known word for word, each once."""
    forms = [example for one in known for example in one.examples()]
    only_forms = [dataclasses.replace(one, prompts=[]) for one in known]
    told = [
        prompt
        for one in known
        for prompt in one.prompts
        if not any(other.strange_words(prompt) == [] for other in only_forms)
    ]
    shown = [f'"{prompt}"' for prompt in dict.fromkeys([*told[:SHOWN], *forms])]
    if len(told) > SHOWN:
        shown.append(f"and {len(told) - SHOWN} more")
    shown_places = {place for one in known for form in one.forms for place in SLOT.findall(form)}
    places = {
        place: words for one in known for place, words in one.words.items() if words and place in shown_places
    }
    if not places:
        return ", ".join(shown)
    place, words = next(iter(places.items()))
    return f"{', '.join(shown)} ({words[0]} stands for any of its {len(words)} {place.removesuffix('s')}s)"


def say_if_unknown(prompts: list[str], model: str, adapter: str | None = None):
    for note in notes_on(prompts, model, adapter):
        log(f"Note: {note}")
