"""README.md of the checkpoint: what it is, what it can do, how often it is wrong, how it was made."""

import json

from tiny_model.batches import STAGES
from tiny_model.scenes import DRAWINGS_FILE, THINGS

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
| `answer en where is the cat?` (of a single thing) | `left`, `top right`, `middle`, … |
| `answer en what colour is the cat?` | one of eleven colors |
| `answer en what is left of the cat?`, `answer en what is right of the cat?` | `a dog`, `nothing` |
| `ocr` | what is printed on a sign in the picture; nothing if there is none |"""


def model_card(model, table: str, found: dict, seconds: float, plan: dict, about: dict, choices: dict) -> str:
    """`found`: by the title of its column, what `evaluate` found; `about`, `choices`: see train_tiny.Run."""
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    scenes = {stage: plan[stage]["batches"] * plan[stage]["scenes"] for stage in STAGES}
    commits = ", then ".join(f"`{one}`" for one in about["commits"])
    reading = f", then {scenes['reading']:,}, more of them with a sign" if scenes["reading"] else ""
    dtype = "bfloat16, its weights kept in float32" if choices["bfloat16"] else "float32"
    if plan["answers"]["kinds"].keys() == {"caption"}:
        names = ", ".join(plan["things"])
        knows = f"""**It knows drawings of {len(plan["things"])} things** ({names}), one on a picture, and
one prompt, `caption en`. Asked about anything else it answers all the same, and wrongly."""
        masks = ""
    else:
        names = ", ".join(THINGS)
        knows = f"""**It knows drawings of {len(THINGS)} things** ({names}), one to three of them on a
picture. **It knows no photographs**, no other things, no people. What it can be asked:

{PROMPTS}

Capitals at the start (`Detect cat`, `answer en How many …`), a missing question mark and `color` for
`colour` are understood. Asked in any other form it answers all the same, and wrongly."""
        masks = """
## Masks

`mask_decoder.safetensors` is the VQ-VAE of `mask_decoder_1.py` (1.06 million parameters, float16): it
turns a mask into 16 `<seg>` words and back. `python -m tiny_model.train_masks` made it from the outlines
of the drawings of the training sets. What its words can say at most stands in the table.
"""
    return f"""# paligemma-tiny

A PaliGemma of {millions:.1f} million parameters in the format of `google/paligemma-3b-pt-224`: the same
files, the same tensor names, the same code path. It exists so that a clone of this repository can answer
about a picture in seconds, and so that every exercise can be seen at work.

{knows}

## How often it is right

The share of right answers about {plan["final_scenes"]} new scenes in each column (for boxes and masks: a
mean). The sets Twemoji and "outlines held out" were never trained on nor looked at, so their columns tell
how well the model reads drawings by another hand. "True colors": without the shifts of color, the grain
and the blur that training has. Pictures of none of the things: {plan["final_nothing"]} in each column.

{table}

## How it was made

`{about["command"]}` (seed {plan["seed"]}, commit {commits}):
{scenes["tower"]:,} pictures for the tower alone, then {scenes["answers"]:,} with \
{plan["answers"]["prompts"]} questions each for the whole{reading} (each scene
{plan["answers"]["uses"]} times, with other questions); {seconds / 3600:.1f} hours on {about["cpu"]}
({choices["threads"]} threads, {dtype}). The weights are stored in bfloat16, and the table was made
with them as stored.
{masks}
## The drawings

The scenes are made of drawings from these sets (in `tiny_model/drawings.json`, unchanged). The checkpoint
holds none of them.

| set | author | license | npm package | trained on |
|---|---|---|---|---|
{credits_of(plan["styles"])}

The weights are under the license of this repository.
"""


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
