"""The code of each part of the page, with what every line made in this run.

The model reads the prompt and one token after it, watched by the tracer: a run of its own, because
watching takes time and the page tells how long the answer took.
"""

import base64
import difflib
import importlib
import math
import re

import torch
from PIL import Image
from torch import nn

from inside.recorder import Recording
from inside.source import Source, code_of, colored, find_source, is_kept
from inside.trace import RETURNED, Summary, TracedCall, Tracer, sample, snapshot, summarize
from load_weights import ModelSet

# What is shown with each part of the page, in reading order.
PARTS = {
    1: ("resize", "rescale", "normalize", "process_images", "VisionEmbeddings"),
    2: ("add_image_tokens_to_prompt", "PaliGemmaProcessor", "prefix_lm_mask"),
    3: ("Attention", "MLP", "EncoderLayer", "Encoder", "VisionTransformer"),
    4: ("PaliGemmaMultiModalProjector", "PaliGemmaForConditionalGeneration"),
    5: (
        "GemmaForCausalLM", "GemmaModel", "GemmaDecoderLayer", "GemmaRMSNorm", "GemmaAttention",
        "GemmaRotaryEmbedding", "rotate_half", "apply_rotary_pos_emb", "KVCache", "repeat_kv", "GemmaMLP",
    ),
    6: (
        "sample_next_token", "keep_top_p", "Answer", "parse_boxes",
        "mask_from_tokens", "MaskVQVAE", "VectorQuantizer", "resize_shapes",
    ),
}  # fmt: skip


def definition(name: str, model_set: ModelSet):
    """The class or function of this name."""
    return next(getattr(module, name) for module in model_set.modules if hasattr(module, name))


def definitions(model_set: ModelSet) -> dict[str, object]:
    return {name: definition(name, model_set) for names in PARTS.values() for name in names}


# ----------------------------------------------------------------------------- one traced run


def look(value) -> list[tuple[Summary, object]]:
    """What the page shows of a value: in a few words, and some of its numbers. Of a tuple, of each."""
    summary = summarize(value)
    if isinstance(summary, list):
        return [(one, sample(part)) for one, part in zip(summary, value, strict=True)]
    return [(summary, sample(value))]


class Finder(Tracer):
    """Keeps one value alone, as it is: what a line of a method has stored under a name.

    (All values at once would be gigabytes, for the 3B model.)
    """

    def __init__(self, things, thing, wanted: dict):
        super().__init__(things, snapshot)
        self.wanted = wanted_of(thing, wanted)

    def keep(self, call: TracedCall, line: int, name: str, value):
        if (call.name, line, name) == self.wanted[:3]:
            super().keep(call, line, name, value)


def wanted_of(thing, wanted: dict) -> tuple[str, int, str, int]:
    """What the page calls a value, as the tracer does: (call, line of the file, name, which of a tuple)."""
    method, name, part = wanted["method"], wanted["name"], 0
    if match := re.fullmatch(r"(.+)\[(\d+)\]", name):
        name, part = match[1], int(match[2])
    call = thing.__name__ if method == thing.__name__ else f"{thing.__name__}.{method}"
    line = find_source(thing).first_line + wanted["line"]
    return call, line, RETURNED if name == "returned" else name, part


def find_call(model: nn.Module, thing, steps: list[list[TracedCall]], wanted: dict) -> torch.Tensor | None:
    """The tensor that a Finder kept, of the call that describe_calls shows: the first of its layer."""
    names = {id(module): name for name, module in model.named_modules()}
    name, _, _, part = wanted_of(thing, wanted)
    for call in steps[wanted["step"]]:
        if call.name == name and layer_of(call, names) == wanted["layer"]:
            values = [made.value for made in call.made][-1:]
            value = values[0][part] if values and isinstance(values[0], list) else (values or [None])[0]
            return value if isinstance(value, torch.Tensor) and value.dim() else None
    return None


def trace_model(
    model: nn.Module, processor, prompt: str, picture: Image.Image, model_set: ModelSet,
    tracer: Tracer | None = None, **choosing,
) -> list[list[TracedCall]]:  # fmt: skip
    """All calls of the set's classes and functions: while the model reads the prompt, then one token.

    choosing: as for record_answer.
    """
    ends = []
    with tracer or Tracer(definitions(model_set).values(), look) as tracer:
        batch = processor([prompt], [picture])
        # No token has the id -1, so that a second one is read also where the first ends the answer.
        for _ in model_set.generation.generate(model, batch, eos_token_id=-1, max_tokens=2, **choosing):
            ends.append(len(tracer.calls))
    return [tracer.calls[: ends[0]], tracer.calls[ends[0] :]]


def trace_answer(recording: Recording, size: tuple[int, int], masks: dict, vqvae=None) -> list[TracedCall]:
    """All calls while the tokens of an answer become text, the text boxes, and words a mask.

    masks: what describe_masks told; the first mask of the answer is drawn again, or else the example's.
    """
    generation = recording.model_set.generation
    with Tracer(definitions(recording.model_set).values(), look) as tracer:
        answer = generation.Answer(recording.tokenizer)
        for token in recording.answer_tokens:
            answer.append(token)
        generation.parse_boxes(answer.text, *size)
        shown = masks["found"][0] if masks["found"] else masks.get("example")
        if shown is not None:
            width, height = shown.get("size", size)
            draw = recording.model_set.masks.mask_from_tokens
            draw(vqvae, torch.tensor(shown["words"]), tuple(shown["box"]), height, width)
    return tracer.calls


# ------------------------------------------------------------------------ what the page is told


def describe_code(model: nn.Module, model_set: ModelSet, steps: list[list[TracedCall]]) -> dict:
    """For each part its names, and for each name its text with the values that were made."""
    names = {id(module): name for name, module in model.named_modules()}
    units = {}
    for name, thing in definitions(model_set).items():
        source = find_source(thing)
        if source is not None:
            units[name] = describe_unit(thing, source, steps, names)
    parts = {part: [name for name in listed if name in units] for part, listed in PARTS.items()}
    return {"parts": parts, "units": units}


def describe_unit(thing, source: Source, steps: list[list[TracedCall]], names: dict[int, str]) -> dict:
    """One class or function: its lines, colored, and the values of its calls."""
    return {
        "file": source.file.name.partition(" ")[0],
        "line": source.first_line,
        "changed": changed_lines(thing, source) if is_kept(str(source.file)) else [],
        # [kind, text], or the text alone, which most pieces are.
        "lines": [
            [text if kind == "text" else [kind, text] for kind, text in pieces]
            for pieces in colored(source.lines)
        ],
        "docs": docstring_lines(source.lines),
        "calls": [
            call
            for step, calls in enumerate(steps)
            for call in describe_calls(thing, source, calls, step, names)
        ],
    }


def describe_calls(
    thing, source: Source, calls: list[TracedCall], step: int, names: dict[int, str]
) -> list[dict]:
    """The first call of each method in each layer; of further ones in the same layer how many there were."""
    found: dict[tuple, dict] = {}
    own_file = code_of(thing).co_filename
    for call in calls:
        first, *_ = call.name.split(".")
        if first != thing.__name__ or call.file != own_file:
            continue
        key = (call.name, layer_of(call, names))
        if key in found:
            found[key]["count"] += 1
            continue
        found[key] = {
            "method": call.name.removeprefix(f"{thing.__name__}."),
            "step": step,
            "layer": key[1],
            "module": module_of(call, names),
            "count": 1,
            "made": describe_made(call, source),
        }
    return [call for call in found.values() if call["made"]]


def layer_of(call: TracedCall, names: dict[int, str]) -> int | None:
    layer = re.search(r"layers\.(\d+)", module_of(call, names))
    return layer and int(layer[1])


def module_of(call: TracedCall | None, names: dict[int, str]) -> str:
    """The module that a call belongs to: its own, or that of the code that called it."""
    while call is not None:
        if id(call.owner) in names:
            return names[id(call.owner)]
        call = call.caller
    return ""


def describe_made(call: TracedCall, source: Source) -> list[list]:
    """[line of the shown text, name, kind, dtype, low, mean, high, times] for each name of a line.

    Of a line that ran several times the last values.
    """
    rows: dict[tuple[int, str], list] = {}
    for line, name, value in call.made:
        times = rows[line, name][-1] + 1 if (line, name) in rows else 1
        rows[line, name] = [(line - source.first_line, name, value), times]
    found = []
    for (line, name, values), times in rows.values():
        if name == RETURNED and not source.lines[line].lstrip().startswith("return"):
            continue  # Python's own None, at the end
        for i, (summary, numbers) in enumerate(values):
            part = f"{name}[{i}]" if len(values) > 1 else name
            found.append([line, "returned" if part == RETURNED else part.replace(RETURNED, "returned"),
                          *rounded(summary), times, *packed_sample(numbers)])  # fmt: skip
    return found


def packed_sample(numbers) -> list:
    """Of float numbers the upper halves: enough for a color and two digits. Integers as they are."""
    if not isinstance(numbers, torch.Tensor):
        return [] if numbers is None else [numbers]
    return [base64.b64encode(numbers.bfloat16().view(torch.int16).numpy().tobytes()).decode()]


def changed_lines(thing, source: Source) -> list[int]:
    """Which lines of a text that an experiment has changed are not the reference's."""
    reference = find_source(getattr(importlib.import_module(thing.__module__), thing.__name__))
    matcher = difflib.SequenceMatcher(None, reference.lines, source.lines, autojunk=False)
    changes = [change for change in matcher.get_opcodes() if change[0] != "equal"]
    # Where lines were only taken away, the one after them tells it.
    return sorted({i for *_, first, last in changes for i in range(first, max(last, first + 1))})


def rounded(summary: Summary) -> list:
    """Short enough for a page; what JSON has no number for is a word."""
    numbers = (summary.low, summary.mean, summary.high)
    short = [
        None if number is None else float(f"{number:.4g}") if math.isfinite(number) else str(number)
        for number in numbers
    ]
    return [summary.kind, summary.dtype, *short]


def docstring_lines(lines: list[str]) -> list[list[int]]:
    """First and last line of each docstring, from 0: the page folds them."""
    found, begun = [], None
    for i, line in enumerate(lines):
        quotes = line.count('"""')
        if begun is None and quotes and line.strip().startswith('"""'):
            begun = i
            quotes -= 1
        if begun is not None and quotes:
            found.append([begun, i])
            begun = None
    return found
