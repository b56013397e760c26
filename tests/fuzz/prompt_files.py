"""prompts.json, spoilt: forms of many brackets and places, long texts, other types, damaged text."""

import json
import random
from pathlib import Path

from program.known_prompts import FILE
from program.questions import TINY_MODEL
from tests.fuzz.harness import main
from tests.fuzz.spoil import VALUES, checkpoint_in, command, picture_in, spoil_bytes, spoil_json, to_json
from tests.fuzz.spoil import unspoilt as same_as  # noqa: F401 (what the file says changes no answer)

PIECES = ("[cat ]", "[c]", "{thing}", "{thing} ", "a {thing}", "{", "}", "[", "]", "cat ", "detect ",
          "(a+)+$", "{nothing}", "\x1b[31m", "\n", "\ud800", "é")  # fmt: skip
PROMPTS = ("detect cat", "", "cat " * 40 + "x", "c" * 60 + "x", "detect " + "cat ; " * 300)


def make_case(rng: random.Random, folder: Path) -> list[str]:
    model = checkpoint_in(folder)
    known = json.loads((TINY_MODEL / FILE).read_text(encoding="utf-8"))
    how = rng.random()
    if how < 0.5:
        pieces = rng.choices(PIECES, k=rng.choice((1, 2, 3)))
        forms = [
            "".join(rng.choices(pieces, k=rng.choice((1, 4, 7, 30)))) for _ in range(rng.choice((1, 9, 200)))
        ]
        known["forms"] = [form[:200] for form in forms]
    elif how < 0.7:
        long = [
            f"{i} " + rng.choice("x ") * rng.choice((1, 190, 300)) for i in range(rng.choice((1, 200, 201)))
        ]
        known[rng.choice(("forms", "prompts"))] = long
        known["words"] = {"thing": long}
    if how > 0.6:
        known = spoil_json(rng, known, VALUES)
    content = to_json(known)
    if rng.random() < 0.15:
        content = spoil_bytes(rng, content)
    (model / FILE).write_bytes(content)
    return command(model, picture_in(folder), "--prompt", rng.choice(PROMPTS))


if __name__ == "__main__":
    main("prompt_files")
