"""README.md of the checkpoint: what it is, what it can do, how often it is wrong, how it was made.

    python -m tiny_model.card                      again, from tiny_model/card.json
    python -m tiny_model.card --state training --figures training/figures.jsonl      of another checkpoint

The page is a function of card.json alone: how the checkpoint was trained, and what was measured of it
(`python -m tiny_model.train_tiny --measure training --figures training/figures.jsonl`). A training writes a
page and a card.json of its own at its end.
"""

import argparse
import contextlib
import json
import textwrap
from pathlib import Path

from program.command_line import InputError, Parser, run_program
from program.files import replace_file
from tiny_model.batches import STAGES
from tiny_model.making import build_config, build_model, build_tokenizer
from tiny_model.measure import COLUMNS, markdown_table
from tiny_model.optimizer import rounds_of
from tiny_model.scenes import DRAWINGS_FILE, HELD_OUT_STYLES
from tiny_model.signs import HEIGHTS, SMALL_HEIGHTS
from tiny_model.state import read_state

SHIPPED = Path(__file__).with_name("card.json")
CHECKPOINT = Path(__file__).resolve().parent.parent / "paligemma-tiny"
PROMPTS = """| prompt | answer |
|---|---|
| `caption en` | `a cat`, `two apples and a car`, from left to right; `nothing I know` |
| `caption de`, `caption es`, `caption fr` | `zwei Äpfel und ein Auto`, `dos manzanas y un coche` |
| `detect cat` | `<locY1><locX1><locY2><locX2> cat`, several joined by ` ; `; nothing if there is none |
| `detect cat ; dog`, `detect cat ; dog ; horse` | the same of all of them, from left to right |
| `segment cat` | the same with 16 `<seg>` words after each box: the mask |
| `segment cat ; dog`, `segment cat ; dog ; horse` | the same of all of them |
| `answer en how many cats are there?` | `0` to `3` |
| `answer en how many things are there?` | `0` to `3` |
| `answer en is there a cat?` | `yes` or `no` |
| `answer en where is the cat?` (of one) | `left`, `top right`, …; `nothing I know` if it is not there |
| `answer en what colour is the cat?` (of one) | one of eleven colors; `nothing I know` if it is not there |
| `answer en what is left of the cat?` (of one) | `a dog`, `nothing`; `nothing I know` if it is not there |
| `answer en what is right of the cat?` (of one) | the same on the other side |
| `ocr` | what is printed on a sign in the picture; nothing if there is none |

(of one): of a thing that is there only once, or not at all."""


def facts_of(state: dict, codec: str | None, figures: dict, num_scenes: int, num_nothing: int) -> dict:
    """What the page says, as card.json has it.

    `state`: a state of train_tiny.Run; its tensors are left out. `codec`: how long the masks' words took if
    they were trained in this run, else None. `figures`: by the title of its column, what `evaluate` found.
    """
    model = build_model(build_config(build_tokenizer(), state["plan"]["sizes"]))
    facts = {name: state[name] for name in ("about", "choices", "seconds", "plan")}
    return facts | {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "codec": codec, "earlier_codec": None, "alone": None, "is_extended": False,
        "scenes": num_scenes, "nothing": num_nothing, "figures": figures,
    }  # fmt: skip


def time_of_codec(out: Path) -> str | None:
    """How long the masks' words took, if they were trained in a run's folder."""
    with contextlib.suppress(InputError):  # none, or one that an earlier program wrote
        return f"{read_state(out / 'masks' / 'state.pt')['seconds'] / 60:.0f} minutes"
    return None


def write_facts(file: Path, facts: dict):
    replace_file(file, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def model_card(facts: dict) -> str:
    """`facts`: see facts_of."""
    plan = facts["plan"]
    titles = [title for title in COLUMNS if title in facts["figures"]]
    has_masks = "segment" in plan["answers"]["kinds"]
    parts = ["# paligemma-tiny", wrapped(f"""
        A PaliGemma of {facts["parameters"] / 1e6:.1f} million parameters in the format of
        `google/paligemma-3b-pt-224`: the same files, the same tensor names, the same code path. It exists so
        that a clone of this repository can answer about a picture in seconds, and so that every exercise can
        be seen at work.""")]  # fmt: skip
    parts += what_it_knows(plan)
    parts += ["## How often it is right", wrapped(about_the_table(facts, titles))]
    parts.append(markdown_table({title: facts["figures"][title] for title in titles}))
    parts += ["## How it was made", wrapped(how_it_was_made(facts))]
    parts += [wrapped(sentences) for sentences in (rounds(plan), otherwise(facts)) if sentences]
    if has_masks:
        parts += ["## Masks", wrapped("""
            `mask_decoder.safetensors` is the VQ-VAE of `mask_decoder_1.py` (1.06 million parameters,
            float16): it turns a mask into 16 `<seg>` words and back. `python -m tiny_model.train_masks` made
            it from the outlines of the drawings of the training sets. What its words can say at most stands
            in the table.""")]  # fmt: skip
    parts += ["## The drawings", wrapped("""
        The scenes are made of drawings from these sets, which are in `tiny_model/drawings.json` as their
        packages have them; of the font Noto Emoji there are its glyphs, written as paths. The other drawings,
        the photographs and the fonts in the scenes are named in `THIRD_PARTY.md`. The checkpoint holds none
        of them.""")]  # fmt: skip
    parts.append(f"""| set | author | license | npm package | trained on |
|---|---|---|---|---|
{credits_of(plan["styles"])}""")
    parts.append("The weights are under the license of this repository.")
    return "\n\n".join(parts) + "\n"


def wrapped(text: str) -> str:
    """One paragraph, in lines of at most 110 characters that break between words alone."""
    text = " ".join(text.split())
    return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False)


def what_it_knows(plan: dict) -> list[str]:
    names, number = ", ".join(plan["things"]), len(plan["things"])
    if plan["answers"]["kinds"].keys() == {"caption"}:
        return [wrapped(f"""
            **It knows drawings of {number} things** ({names}), one on a picture, and one prompt,
            `caption en`. Asked about anything else, it still answers, but wrongly.""")]  # fmt: skip
    return [
        wrapped(f"""
            **It knows drawings of {number} things** ({names}), one to three of them on a picture. **It knows
            no photographs**, no other things, no people. What it can be asked:"""),
        PROMPTS,
        wrapped("""
            Capitals at the start (`Detect cat`, `answer en How many …`), a missing question mark and `color`
            for `colour` are understood. Asked in any other form, it still answers, but wrongly."""),
    ]  # fmt: skip


def about_the_table(facts: dict, titles: list[str]) -> str:
    """What stands above it; of the columns and rows that it has."""
    means = " (for boxes and masks: a mean)" if "detect" in facts["plan"]["answers"]["kinds"] else ""
    text = f"The share of right answers about {facts['scenes']} new scenes in each column{means}. "
    if any(set(COLUMNS[title][0]) <= set(HELD_OUT_STYLES) for title in titles):
        text += """The sets Twemoji and "outlines held out" were never trained on, and nothing was chosen by
            them, so their columns tell how well the model reads drawings by another hand. """
    if any(COLUMNS[title][1] == 0 for title in titles):
        text += '"True colors": without the shifts of color, the grain and the blur that training has. '
    if facts["nothing"]:
        text += f"Each column also has {facts['nothing']} pictures that show none of the things. "
    return text


def how_it_was_made(facts: dict) -> str:
    plan, about, choices = facts["plan"], facts["about"], facts["choices"]
    pictures = {stage: plan[stage]["batches"] * plan[stage]["scenes"] for stage in STAGES}
    first, *later = [f"`{commit[:12]}`" for commit in about["commits"]]
    resumed = f"; interrupted, and resumed at {', '.join(later)}" if later else ""
    questions = plan["answers"]["prompts"]
    reading = f", and then {pictures['reading']:,}, more of them with a sign" if pictures["reading"] else ""
    codec = f", and {facts['codec']} for the masks' words," if facts["codec"] else ""
    dtype = "bfloat16, its weights kept in float32" if choices["bfloat16"] else "float32"
    return f"""`{about["command"]}` (seed {plan["seed"]}, commit {first}{resumed}):
        {pictures["tower"]:,} pictures for the tower alone, then {pictures["answers"]:,} with
        {questions} question{"s" if questions > 1 else ""} each for the whole{reading} (each scene
        {plan["answers"]["uses"]} times{", with other questions" if questions > 1 else ""});
        {facts["seconds"] / 3600:.1f} hours{codec} on {about["cpu"]} ({choices["threads"]} threads, {dtype}).
        The weights are stored in bfloat16, and the table was made with them as stored."""


def rounds(plan: dict) -> str:
    """Where the learning rates rise again, and what is special in the stage for reading."""
    text, last = "", "reading" if plan["reading"]["batches"] else "answers"
    if plan["answers"]["restarts"]:
        text += f"""The answers were learned in rounds of {batches_of_rounds(plan["answers"])} batches: at the
            end of each the learning rates come down to nothing, and then rise again. The tower was asked for
            colors from the second round on. """
    if last == "reading":
        text += f"""Last came a stage for reading: {plan["reading"]["signs"]:.0%} of the scenes with things
            have a sign instead of {plan["answers"]["signs"]:.0%}, its capitals are at least {HEIGHTS[0]:.0%}
            of the picture high instead of {SMALL_HEIGHTS[0]:.1%}, and its letters weigh more. """
        if plan["reading"]["restarts"]:
            text += f"Its rounds had {batches_of_rounds(plan['reading'])} batches. "
    if plan[last]["restarts"]:
        text += f"""What is stored is the mean of the weights at the ends of these
            {len(plan[last]["restarts"]) + 1} rounds."""
    return text


def batches_of_rounds(stage: dict) -> str:
    *numbers, last = [f"{end - start:,}" for start, end in rounds_of(stage["batches"], stage["restarts"])]
    return f"{', '.join(numbers)} and {last}"


def otherwise(facts: dict) -> str:
    """What a run from nothing on an idle machine does otherwise than the one that made this checkpoint."""
    text, own_words = "", ""
    if facts["alone"]:
        seconds = [f"{of_batch:g}" for of_batch in facts["alone"]]
        batches = [facts["plan"][stage]["batches"] for stage in STAGES]
        alone = sum(of_batch * number for of_batch, number in zip(facts["alone"], batches, strict=True))
        text += f"""The machine had other work meanwhile. Where it had none, a batch took {seconds[0]} s for
            the tower, {seconds[1]} s for the answers and {seconds[2]} s for reading: alone on it, the
            training takes {alone / 3600:.1f} hours. """
    if facts["earlier_codec"]:
        text += f"""The masks' words were there before: `python -m tiny_model.train_masks` had made them (seed
            0, {facts["earlier_codec"]}) from the drawings that the repository held then. """
        own_words = " makes its own masks' words,"
    if facts["is_extended"]:
        text += f"""The plan grew while the run went on: rounds, and the stage `reading`, were added at its
            end. A run from nothing follows the plan as it is now,{own_words} and ends in a checkpoint of the
            same kind with other weights."""
    return text


def credits_of(styles: list[str]) -> str:
    """A row of Markdown for each set of drawings."""
    rows = []
    for name, entry in json.loads(DRAWINGS_FILE.read_text(encoding="utf-8")).items():
        is_trained = entry.get("style", name) in styles
        rows.append(
            f"| [{name}]({entry['url']}) | {entry['author']} | {entry['licence']} | `{entry['package']}` "
            f"{entry['version']} | {'yes' if is_trained else 'no'} |"
        )
    return "\n".join(rows)


# -- The shipped one ------------------------------------------------------------------------------


def read_figures(file: Path) -> tuple[dict, int, int]:
    """What train_tiny --measure --figures has written -> figures by title, and the numbers of pictures."""
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        numbers = {(line["scenes"], line["nothing"]) for line in lines}
        figures = {line["column"]: line["found"] for line in lines}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--figures {file} cannot be read: {error}") from error
    if len(numbers) != 1 or not set(figures) <= set(COLUMNS):
        raise InputError(f"--figures {file}: no columns, unknown ones, or of different numbers of pictures")
    return figures, *numbers.pop()


def run(args: argparse.Namespace):
    if (args.state is None) != (args.figures is None):
        raise InputError("--state and --figures go together")
    if args.state is not None:
        state = read_state(args.state / "state.pt")
        facts = facts_of(state, time_of_codec(args.state), *read_figures(args.figures))
        facts |= {"earlier_codec": args.earlier_codec, "alone": args.alone, "is_extended": args.extended}
    else:
        facts = json.loads(SHIPPED.read_text(encoding="utf-8"))
    page = model_card(facts)
    write_facts(SHIPPED, facts)
    replace_file(CHECKPOINT / "README.md", page)


def main(argv: list[str] | None = None):
    parser = Parser(prog="card", description="Writes the README.md of the shipped checkpoint.")
    parser.add_argument("--state", type=Path, metavar="DIR", help="folder of the training that it is from")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="what was measured of it")
    parser.add_argument(
        "--earlier-codec", metavar="TIME", help="how long an earlier training of the masks' words took"
    )
    parser.add_argument(
        "--alone", type=float, nargs=len(STAGES), metavar="SECONDS",
        help="what a batch of each stage takes on a machine that has nothing else to do",
    )  # fmt: skip
    parser.add_argument("--extended", action="store_true", help="stages were added while the training ran")
    run_program(run, parser.parse_args(argv), parser)


if __name__ == "__main__":
    main()
