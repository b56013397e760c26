"""Asks PaliGemma about pictures, from the command line.

    python inference.py --image cat.jpg --prompt "detect cat" --draw boxes.png

How an answer is made: open_picture -> PaliGemmaProcessor -> generate (generation_1.py: tokens, one
at a time) -> text -> parse_boxes and find_masks, if the text holds any -> draw_masks, draw_boxes.

The answer goes to stdout and all else to stderr, so that `> answer.txt` holds the answer alone.
Several questions are answered in batches of as many as fit, and come out in their order.
"""

from program.command_line import end_quietly_on_ctrl_c
from speed import threads

if __name__ == "__main__":
    end_quietly_on_ctrl_c()  # while PyTorch is being imported, too
    threads.sleep_while_waiting()  # must be said before torch is imported

import argparse
import contextlib
import functools
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from PIL import Image
from tqdm import tqdm

from finetuning.adapter import base_model_of, load_adapter, say_if_another_base
from generation_1 import Answer
from load_weights import (
    CheckpointError,
    GuardedTokenizer,
    ModelSet,
    check_tokenizer,
    free_memory,
    import_set,
    load_mask_decoder,
)
from program import command_line
from program.bar import bar
from program.command_line import InputError, Parser, log, number, set_up_streams, spelled_out, write
from program.known_prompts import say_if_unknown
from program.masks import draw_masks, find_masks, mask_picture, to_rle
from program.memory import is_out_of_memory
from program.pictures import (
    DRAWABLE,
    check_drawing,
    check_picture,
    check_size,
    colors_of,
    draw_boxes,
    open_picture,
    write_picture,
)
from program.questions import (
    check_prompts,
    expand_patterns,
    fill_defaults,
)
from speed.loading import PRECISIONS, load_model
from speed.tower_once import read_each_picture_once

MOST_ROWS = 8  # questions in a batch: answers come soon, and a step costs hardly more than for one
LONGEST_CONTEXT = 8192  # tokens, picture included: Gemma was trained on no more
EXAMPLES = """\
prompts, by task:
  --prompt "caption en"                             describe the picture (en: in English)
  --prompt "answer en where is the cow standing?"   answer a question
  --prompt "detect cat"                             boxes: <loc....> four times and a label
  --prompt "detect cat ; dog"                       boxes of several things
  --prompt "segment cat"                            a box and 16 <seg...> that stand for a mask
  --prompt "ocr"                                    read the text in the picture
  --prompt "this building is "                      a sentence to be continued (ends in a space)

examples:
  python inference.py
  python inference.py --image cat.jpg --prompt "detect cat" --draw boxes.png
  python inference.py --image cat.jpg --prompt "caption en" "detect cat" "detect dog"
  python inference.py --image cat.jpg --prompt "segment cat" --draw cat.png --mask mask.png
  python inference.py --image *.jpg --prompt "caption en" --json > captions.jsonl
"""


# ------------------------------------------------------------------------ what is asked for


def build_parser() -> Parser:
    parser = Parser(
        prog="inference.py",
        description="Asks PaliGemma about pictures.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", metavar="DIR", help="checkpoint folder (default: the 3B model, else the tiny one)")
    add("--adapter", metavar="DIR", help="what finetune.py or PEFT has learned for this model (LoRA)")
    add("--image", metavar="FILE", nargs="+", action="extend", help="pictures, answered in their order")
    add(
        "--prompt",
        metavar="TEXT",
        nargs="+",
        action="extend",
        help="one for all pictures, one for each, or several about one (default: caption en)",
    )
    add(
        "--set",
        choices=("0", "1", "mixed", "tried"),
        default="1",
        help="1: the reference files (default), 0: yours, mixed: yours where they are solved, "
        "tried: yours where you tried, right or wrong",
    )
    add(
        "--max-tokens",
        type=number(int, 1, 100_000),
        default=100,
        metavar="N",
        help="longest answer (default: 100)",
    )
    add(
        "--temperature",
        type=number(float, 0, 100),
        metavar="T",
        help="0: always the likeliest token; higher: more varied (default: 0, or 1 if --top-p is given)",
    )
    add(
        "--top-p",
        type=number(float, 1e-6, 1),
        metavar="P",
        help="draw only from the likeliest tokens that together reach P (default: 1, all)",
    )
    add("--seed", type=number(int, 0, 2**63 - 1), metavar="N", help="repeats a random answer")
    add(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where to compute (default: a GPU if there is one)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the weights (default: as stored, or 16 bits on a GPU; int8: smallest, on a CPU)",
    )
    add("--draw", metavar="OUT.png", help="writes the picture with the boxes and masks of the answers")
    add("--mask", metavar="OUT.png", help="writes the masks alone: black, and one level of gray a thing")
    add("--overwrite", action="store_true", help="lets --draw and --mask replace files they did not make")
    add("--json", action="store_true", help="prints a JSON object for each answer")
    return parser


def choose_device(name: str) -> str:
    """auto: a GPU if there is one."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device in available if available[device])
    if not available[name]:
        raise InputError(f"--device {name}: PyTorch finds no such device here; use --device cpu")
    return name


# -------------------------------------------------------------------------------- the model


def set_of(args: argparse.Namespace) -> ModelSet:
    """The modules of --set; of those that are put together it is said whose they are."""
    if args.set in ("0", "1"):
        return import_set(int(args.set))
    # Here, because it reads the learner's files and runs the tests of the exercises.
    from course.learner_set import set_named

    model_set, summary = set_named(args.set)
    log(summary)
    return model_set


def load(args: argparse.Namespace, device: str, model_set: ModelSet):
    """A model of the set, its tokenizer and its processor."""
    log(f"Device in use:  {device}")
    log("Loading model")
    start = time.perf_counter()
    model, tokenizer = load_model(args.model, device, args.precision, model_set)
    check_tokenizer(tokenizer, args.model, args.prompt)
    tokenizer = GuardedTokenizer(tokenizer, args.model)
    processor = model_set.processor.PaliGemmaProcessor(
        tokenizer, model.config.vision_config.num_patches, model.config.vision_config.image_size
    )
    log(f"Model loaded in {time.perf_counter() - start:.2f} seconds")
    if args.precision == "int8":
        log("Weights rounded to int8: benchmarks/README.md has a section on what that costs in accuracy")
    return model, tokenizer, processor


def row_memory(model, num_tokens: int) -> int:
    """About how many bytes reading one picture and prompt takes, of so many tokens together.

    The largest tensors that are there at once: attention scores of one layer, which grow with the
    square (as they are, masked, and their softmax in float32), or a layer's MLP, whichever are
    larger, besides keys and values of all layers.
    """
    vision, text = model.config.vision_config, model.config.text_config
    size = next(model.parameters()).dtype.itemsize
    scores = max(vision.num_attention_heads * vision.num_patches**2, text.num_attention_heads * num_tokens**2)
    mlp = max(vision.intermediate_size * vision.num_patches, text.intermediate_size * num_tokens)
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * num_tokens
    return max(scores * (2 * size + 4), 3 * mlp * 4) + cache * size


def rows_that_fit(model, tokenizer, prompts: list[str], device: str) -> int:
    """How many questions to answer at once; refuses a prompt that is too long for even one."""
    N = model.config.vision_config.num_patches
    lengths = {one: len(tokenizer.encode(one, add_special_tokens=False).ids) for one in set(prompts)}
    prompt = max(lengths, key=lengths.get)
    num_tokens = N + 2 + lengths[prompt]
    free = free_memory(torch.device(device))
    fits = LONGEST_CONTEXT
    while row_memory(model, fits) > free and fits > 1:
        fits = fits * 9 // 10
    if num_tokens > fits:
        why = "Gemma was trained on no more"
        if fits < LONGEST_CONTEXT:
            why = f"more does not fit into the {free / 1e9:.1f} GB of memory that are free"
        raise InputError(
            f"the prompt of {len(prompt):,} letters is too long: {num_tokens - N:,} tokens besides the "
            f"picture's {N:,}, and at most {fits:,} fit together ({why})"
        )
    return max(1, min(MOST_ROWS, free // (2 * row_memory(model, num_tokens))))


# ------------------------------------------------------------------------------ the answers


@dataclass
class Question:
    """A picture and a prompt, and what became of them."""

    path: str
    prompt: str
    label: str = ""  # in front of the answer, where there are several
    size: tuple[int, int] = (0, 0)  # of the picture, in pixels
    answer: Answer | None = None
    seconds: float = 0.0  # until the last token, <eos> included

    @property
    def opening(self) -> str:
        """What is shown in front of an answer: a sentence that was to be continued (ends in a space)."""
        return self.prompt if self.prompt.endswith(" ") else ""


@dataclass
class Times:
    """When the tokens of a run came."""

    start: float = field(default_factory=time.perf_counter)
    first_token: float | None = None  # seconds from the start
    num_later: int = 0  # tokens after the first of each answer
    later_seconds: float = 0.0

    def elapsed(self) -> float:
        return time.perf_counter() - self.start


def translated(steps: Iterator, model) -> Iterator:
    """The steps of generate; its error as one that tells a user what helps."""
    try:
        yield from steps
    except FloatingPointError as error:
        raise InputError(why_not_finite(model)) from error


def why_not_finite(model) -> str:
    """Advice on logits that are not finite: another precision helps only where the weights are numbers."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            return f"the checkpoint is damaged: {name} holds values that are no numbers (NaN or infinity)"
    dtype = next(model.parameters()).dtype
    if dtype == torch.float16:
        return "the model's numbers overflowed in float16: try --precision bfloat16 or float32"
    return (
        f"the model's numbers overflowed in {str(dtype).removeprefix('torch.')}, "
        "which reaches to 10^38: its weights are damaged, get them again"
    )


def answer_batch(
    questions: list[Question], pictures: list[Image.Image], model, processor, generation,
    args: argparse.Namespace, device: str, times: Times, stream: bool,
):  # fmt: skip
    """Answers some questions at once. stream: the only one's words are written as they come."""
    start = times.elapsed()
    for question, picture in zip(questions, pictures, strict=True):
        question.size = picture.size
        question.answer = generation.Answer(processor.tokenizer)
    batch = processor([question.prompt for question in questions], pictures)
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    eos_token_id = processor.tokenizer.token_to_id("<eos>")
    steps = generation.generate(
        model, batch, eos_token_id, args.max_tokens, args.temperature, args.top_p, args.seed
    )
    first_token, num_tokens = None, 0
    for tokens in translated(steps, model):
        now = times.elapsed()
        first_token = first_token or now
        if times.first_token is None:
            times.first_token = now
            with tqdm.external_write_mode(sys.stderr):  # which takes the bar away, if there is one
                log("Result!!!")
            if stream:
                write(questions[0].opening, end="")
        for question, token in zip(questions, tokens, strict=True):
            if token is None:
                continue
            num_tokens += 1
            question.seconds = now - start
            new = "" if token == eos_token_id else question.answer.append(token)
            if stream:
                write(new, end="")
    if stream:
        write("")
    times.num_later += num_tokens - len(questions)
    times.later_seconds += now - first_token


def make_questions(paths: list[str], prompts: list[str]) -> list[Question]:
    """A question of each picture and its prompt; its answer is told by what differs from the others."""
    questions = [Question(*asked) for asked in zip(paths, prompts, strict=True)]
    if len(questions) == 1:
        return questions
    differ_in_prompt = len(set(paths)) == 1 and len(set(prompts)) > 1
    for question in questions:
        if not differ_in_prompt:
            question.label = f"{spelled_out(question.path)}: "
        elif not question.opening:  # which is shown in front of its answer anyway
            question.label = f"{spelled_out(' '.join(question.prompt.splitlines()))}: "
    return questions


def write_answer(question: Question, boxes: list[dict], masks: list, as_json: bool):
    """One line of stdout; the answer to a single question has been written already as it came."""
    text = question.answer.text
    if not as_json:
        write(f"{question.label}{' '.join((question.opening + text).splitlines())}")
        return
    entry = {"image": question.path, "prompt": question.prompt, "answer": text}
    entry |= {"tokens": len(question.answer.tokens), "seconds": round(question.seconds, 3)}
    # Where a box was asked for, a program finds the list of them, also where it is empty.
    if boxes or question.prompt.lower().startswith(("detect ", "segment ")):
        found = zip(boxes, masks, strict=True)
        entry["boxes"] = [box if mask is None else box | {"mask": to_rle(mask)} for box, mask in found]
    line = json.dumps(entry, ensure_ascii=False)
    # Bytes of a name that are not UTF-8 become "\udce9", which is JSON, and os.fsencode's way back.
    write(line.encode(errors="backslashreplace").decode())


def write_pictures(args: argparse.Namespace, picture: Image.Image, boxes: list[dict], masks: list):
    """What --draw and --mask ask for: all that was found in a picture, whatever the question was."""

    def put(option: str, out: str, drawing: Image.Image, what: str, found: int, things: str, verb: str):
        try:
            write_picture(drawing, Path(out))
        except OSError as error:
            raise InputError(f"{option} {out}: {error.strerror or error}") from error
        why = f' (an answer has {things} where a prompt like "{verb} cat" finds something)'
        log(f"{what} in {spelled_out(out)}: {found}{'' if found else why}")

    if args.draw is not None:
        drawing = draw_boxes(draw_masks(picture, masks, colors_of(boxes)), boxes)
        put("--draw", args.draw, drawing, "Boxes drawn", len(boxes), "boxes", "detect")
    if args.mask is not None:
        alone, found = mask_picture(masks, *picture.size), sum(mask is not None for mask in masks)
        put("--mask", args.mask, alone, "Masks", found, "masks", "segment")


# ------------------------------------------------------------------------------ the program


def peak_memory() -> int:
    """The most bytes that this process has held in memory at once, mapped weights included."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux":
        # Not ru_maxrss, which there also counts the program that this one was started from.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def log_times(times: Times, device: str):
    log(f"InferenceLatency: {times.elapsed():.2f} seconds")
    log(f"Memory Usage: {peak_memory() / 1e9:.2f} GB")  # GB: 10^9 bytes, here and below
    if device == "cuda":
        log(f"GPU Memory Usage: {torch.cuda.max_memory_reserved() / 1e9:.2f} GB")
    if device == "mps":
        log(f"GPU Memory Usage: {torch.mps.driver_allocated_memory() / 1e9:.2f} GB")
    log(f"Time to first token: {times.first_token:.2f} seconds")
    if times.num_later:
        log(f"Tokens per second: {times.num_later / times.later_seconds:.2f} (after the first)")


def run(args: argparse.Namespace):
    base_is_missing = False
    if args.adapter is not None and args.model is None:
        args.model = base_model_of(args.adapter)
        base_is_missing = args.model is None
    fill_defaults(args)
    if base_is_missing:
        say_if_another_base(args.adapter, args.model)
    args.image = expand_patterns(args.image)
    check_prompts(args)
    # A single picture is opened now, and of several only the heads are read: what cannot be used is found
    # before the model runs, and yet there are never more pictures in memory than are worked on. Of several,
    # one whose damage shows only later is left out.
    open_once = functools.lru_cache(maxsize=1)(open_picture)  # for several questions in a row
    num_pictures = len(set(args.image))
    look = open_once if num_pictures == 1 else check_picture
    for path in dict.fromkeys(args.image):
        look(path)
    for option, out, endings in (("--draw", args.draw, DRAWABLE), ("--mask", args.mask, (".png",))):
        if out is not None:
            if num_pictures > 1:
                raise InputError(f"{option} takes one picture, not {num_pictures}")
            check_drawing(Path(out), args.image, args.overwrite, option, endings)
            check_size(Path(out), open_once(args.image[0]).size)
    if None not in (args.draw, args.mask):
        # macOS and Windows take A.png and a.png for one file.
        drawing, mask = (os.path.realpath(out).casefold() for out in (args.draw, args.mask))
        if drawing == mask:
            raise InputError(f"--draw and --mask cannot both be written to {args.mask}")
    device = choose_device(args.device)
    model_set = set_of(args)
    # A learner's is not needed before an answer holds a shape: it may not be done yet, or be wrong.
    is_unproven = args.set in ("0", "tried")
    vqvae = None if is_unproven else load_mask_decoder(args.model, model_set.masks)
    model, tokenizer, processor = load(args, device, model_set)
    if args.adapter is not None:
        log(f"Adapter {spelled_out(args.adapter)}: beside {len(load_adapter(model, args.adapter))} layers")
    generation = model_set.generation
    num_rows = rows_that_fit(model, tokenizer, args.prompt, device)
    if num_pictures < len(args.image):
        read_each_picture_once(model)
    say_if_unknown(args.prompt, args.model, args.adapter)

    log("Running inference")
    times, skipped, notes = Times(), [], set()
    stream = len(args.image) == 1 and not args.json
    questions = make_questions(args.image, args.prompt)
    drawn = []  # each box and its mask, for --draw and --mask
    shows_bar = len(questions) > num_rows and sys.stderr.isatty()
    with bar(total=len(questions), desc="Questions", leave=False, disable=not shows_bar) as progress:
        for first in range(0, len(questions), num_rows):
            batch, pictures = [], []
            for question in questions[first : first + num_rows]:
                try:
                    pictures.append(open_once(question.path))
                    batch.append(question)
                except InputError as error:
                    skipped.append(error)
            if batch:
                answer_batch(batch, pictures, model, processor, generation, args, device, times, stream)
            for question in batch:
                boxes = generation.parse_boxes(question.answer.text, *question.size)
                if is_unproven and vqvae is None and "<seg" in question.answer.text:
                    vqvae = load_mask_decoder(args.model, model_set.masks)
                masks, new_notes = find_masks(
                    question.answer.text, boxes, vqvae, *question.size, model_set.masks
                )
                with progress.external_write_mode(sys.stdout):
                    if not stream:
                        write_answer(question, boxes, masks, args.json)
                    if not question.answer.text.strip():
                        log(f"{question.label or question.opening}(nothing)")
                    if len(question.answer.tokens) == args.max_tokens:  # <eos> is not among them
                        log(f"{question.label}(cut off at --max-tokens {args.max_tokens})")
                    for note in new_notes:
                        if note not in notes:  # once, however many pictures it is true of
                            log(f"Note: {note}")
                notes.update(new_notes)
                if args.draw is not None or args.mask is not None:
                    drawn += zip(boxes, masks, strict=True)
            progress.update(min(num_rows, len(questions) - first))
    if args.draw is not None or args.mask is not None:
        boxes, masks = ([pair[i] for pair in drawn] for i in (0, 1))
        write_pictures(args, open_once(args.image[0]), boxes, masks)
    if times.first_token is not None:  # None: every picture was left out
        log_times(times, device)
    if skipped:
        more = f" ({len(skipped)} of {len(questions)} pictures had to be left out)"
        raise InputError(f"{skipped[0]}{more}")


@contextlib.contextmanager
def memory_errors(args: argparse.Namespace):
    """Where memory runs out, says what of the advice that there is does not hold already."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hints = []
        if choose_device(args.device) != "cpu":
            hints.append("--device cpu")
        elif args.precision != "int8":
            hints.append("--precision int8")
        if args.precision == "float32":
            hints.append("--precision bfloat16")
        if any(len(prompt) > 1000 for prompt in args.prompt or []):
            hints.append("a shorter prompt")
        raise InputError(f"out of memory: try {' or '.join([*hints, 'to close other programs'])}") from error


def run_program(program, args: argparse.Namespace, parser: Parser):
    """Calls program(args), here or in explain.py; its errors become one line and an exit code."""

    def whole(args: argparse.Namespace):
        with memory_errors(args):
            if args.set == "1":
                program(args)
                return
            # With code of the learner's in it: what goes wrong there is told without a traceback.
            from course.tracebacks import explained

            with explained(InputError, CheckpointError, OSError, MemoryError):
                program(args)

    command_line.run_program(whole, args, parser, CheckpointError)


def main(argv: list[str] | None = None):
    parser = build_parser()
    run_program(run, parser.parse_args(argv), parser)


if __name__ == "__main__":
    set_up_streams()
    main()
