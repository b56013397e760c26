"""The code of each part of the page, with what every line made in this run.

The model reads the prompt and one token after it, watched by the tracer: a run of its own, because
watching takes time and the page tells how long the answer took.
"""

import math
import re

from PIL import Image
from torch import nn

from inside.recorder import Recording
from inside.source import Source, code_of, colored, find_source
from inside.trace import RETURNED, Summary, TracedCall, Tracer
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
    6: ("sample_next_token", "Answer", "parse_boxes"),
}  # fmt: skip


def definition(name: str, model_set: ModelSet):
    """The class or function of this name."""
    return next(getattr(module, name) for module in model_set.modules if hasattr(module, name))


def definitions(model_set: ModelSet) -> dict[str, object]:
    return {name: definition(name, model_set) for names in PARTS.values() for name in names}


# ----------------------------------------------------------------------------- one traced run


def trace_model(
    model: nn.Module, processor, prompt: str, picture: Image.Image, model_set: ModelSet
) -> list[list[TracedCall]]:
    """All calls of the set's classes and functions: while the model reads the prompt, then one token."""
    ends = []
    with Tracer(definitions(model_set).values()) as tracer:
        batch = processor([prompt], [picture])
        # No token has the id -1, so that a second one is read also where the first ends the answer.
        for _ in model_set.generation.generate(model, batch, eos_token_id=-1, max_tokens=2):
            ends.append(len(tracer.calls))
    return [tracer.calls[: ends[0]], tracer.calls[ends[0] :]]


def trace_answer(recording: Recording, size: tuple[int, int]) -> list[TracedCall]:
    """All calls while the tokens of an answer become text, and the text boxes."""
    generation = recording.model_set.generation
    with Tracer([generation.Answer, generation.parse_boxes]) as tracer:
        answer = generation.Answer(recording.tokenizer)
        for token in recording.answer_tokens:
            answer.append(token)
        generation.parse_boxes(answer.text, *size)
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
        "file": source.file.name,
        "line": source.first_line,
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
        module = module_of(call, names)
        layer = re.search(r"layers\.(\d+)", module)
        key = (call.name, layer and int(layer[1]))
        if key in found:
            found[key]["count"] += 1
            continue
        found[key] = {
            "method": call.name.removeprefix(f"{thing.__name__}."),
            "step": step,
            "layer": key[1],
            "module": module,
            "count": 1,
            "made": describe_made(call, source),
        }
    return [call for call in found.values() if call["made"]]


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
        values = value if isinstance(value, list) else [value]
        rows[line, name] = [(line - source.first_line, name, values), times]
    found = []
    for (line, name, values), times in rows.values():
        if name == RETURNED and not source.lines[line].lstrip().startswith("return"):
            continue  # Python's own None, at the end
        for i, summary in enumerate(values):
            part = f"{name}[{i}]" if len(values) > 1 else name
            found.append([line, "returned" if part == RETURNED else part.replace(RETURNED, "returned"),
                          *rounded(summary), times])  # fmt: skip
    return found


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
