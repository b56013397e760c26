"""Asks PaliGemma about pictures, from the command line.

    python inference.py --image cat.jpg --prompt "detect cat" --draw boxes.png

The way of an answer: open_picture -> PaliGemmaProcessor -> generate (tokens, one at a time) ->
text -> parse_boxes, if the text holds any -> draw_boxes.

The answer goes to stdout and all else to stderr, so that `> answer.txt` holds the answer alone.
Letters in shapes: B batch, T tokens of the prompt, V vocabulary.
"""

import signal

if __name__ == "__main__":
    # Here, since Ctrl-C is to end quietly while PyTorch is being imported, too.
    import os

    from speed import threads
    threads.sleep_while_waiting()                                     # must be said before torch is imported
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tokenizers import Tokenizer

from load_weights import CheckpointError, ModelSet, import_set
from speed.loading import PRECISIONS, load_model

HERE = Path(__file__).parent
FULL_MODEL, TINY_MODEL, SAMPLES = HERE / "paligemma-3b-pt-224", HERE / "paligemma-tiny", HERE / "images"
DRAWABLE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff")
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#f032e6")
EXAMPLES = """\
prompts, by what is to be done:
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
  python inference.py --image *.jpg --prompt "caption en" --json > captions.jsonl
"""


class InputError(Exception):
    """Something the user gave cannot be used; the message is one line that says what and why."""


# --------------------------------------------------------------------------------- pictures


def open_picture(path: str) -> Image.Image:
    """Opens a picture of any mode as the RGB picture that a viewer shows.

    Turned as its EXIF entry says; transparent parts on white; 16 bits scaled to 8, where
    Pillow's own conversion would cut off all above 255; of an animation the first frame.
    """
    try:
        with warnings.catch_warnings():
            # Above 89 million pixels Pillow warns, above twice that it raises an error.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith("I"):                              # I;16, and I from a 16-bit file
            return picture.convert("I").point(lambda value: value / 257 + 0.5).convert("RGB")
        if picture.has_transparency_data:
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture.convert("RGBA"))
        return picture.convert("RGB")
    except Image.UnidentifiedImageError:
        raise InputError(f"{path} is not a picture that Pillow can read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: refused") from None
    except Exception as error:
        # Damaged files raise almost anything, from OSError to SyntaxError.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"cannot read picture {path}: {reason}") from error


def parse_boxes(answer: str, width: int, height: int) -> list[dict]:
    """Finds the boxes in an answer to `detect` or `segment`.

    "<loc0256><loc0128><loc0768><loc0640> big cat ; <loc..." -> for a picture of 200 x 100:
    [{"label": "big cat", "box": [25.0, 25.0, 125.0, 75.0]}, ...]

    In the answer: y_min, x_min, y_max, x_max in 1024ths of the sides. In the result: x_min,
    y_min, x_max, y_max in pixels. What is not four <loc> in a row is passed over.
    Source: PaliGemma, section 3.2.
    """
    boxes = []
    for *locations, label in re.findall(r"<loc(\d{4})>" * 4 + r"(?:<seg\d{3}>)*([^;<]*)", answer):
        y1, x1, y2, x2 = (int(location) / 1024 for location in locations)
        corners = (min(x1, x2) * width, min(y1, y2) * height, max(x1, x2) * width, max(y1, y2) * height)
        boxes.append({"label": label.strip(), "box": [round(corner, 1) for corner in corners]})
    return boxes


def draw_boxes(picture: Image.Image, boxes: list[dict]) -> Image.Image:
    """A copy of the picture with the boxes and their labels, one colour for each label."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    line = max(2, round(min(picture.size) / 150))
    font = ImageFont.load_default(size=max(12, min(picture.size) / 20))
    labels = list(dict.fromkeys(box["label"] for box in boxes))       # in order, each once
    for box in boxes:
        colour = COLOURS[labels.index(box["label"]) % len(COLOURS)]
        x1, y1, x2, y2 = box["box"]
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=line)
        # The label stands on the box, moved inwards where the picture ends.
        left, top, right, bottom = draw.textbbox((0, 0), box["label"], font=font)
        x = max(0, min(x1, picture.width - (right + 2 * line)))
        y = max(0, y1 - (bottom + 2 * line))
        draw.rectangle((x, y, x + right + 2 * line, y + bottom + 2 * line), fill=colour)
        draw.text((x + line, y + line), box["label"], fill="white", font=font)
    return picture


# ------------------------------------------------------------------------------- generation


def sample_next_token(
    logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator
) -> int:
    """Chooses the next token.

    Temperature 0: the likeliest (greedy). Otherwise one drawn from softmax(logits / temperature),
    cut down to the likeliest tokens that together reach top_p (nucleus).

    Input: logits [V].
    Source: "The Curious Case of Neural Text Degeneration" (Holtzman et al. 2020), section 3.1.
    """
    if temperature == 0:
        return int(logits.argmax())
    # On the CPU, since its generator gives the same numbers everywhere; in float64, where the
    # smallest temperature does not become 0.
    logits = logits.cpu().double()
    probabilities = ((logits - logits.max()) / temperature).softmax(dim=-1)
    in_order, tokens = probabilities.sort(descending=True)
    reached_before = in_order.cumsum(dim=-1) - in_order               # by the likelier ones alone
    probabilities[tokens[reached_before >= top_p]] = 0
    # Drawn by the tokens' ids, not by their ranks, which two tokens that are nearly alike may exchange.
    return int(torch.multinomial(probabilities, 1, generator=generator))


@torch.inference_mode()
def generate(
    model, batch: dict[str, torch.Tensor], eos_token_id: int, max_tokens: int,
    temperature: float = 0.0, top_p: float = 1.0, seed: int = 0,
) -> Iterator[list[int | None]]:
    """Yields the answers' tokens as they come: at each step one for each row of the batch.

    The prompt is read at once, and the pictures with it; each step after that reads only the
    tokens chosen last, for the cache holds the rest. A row that has reached <eos> yields None
    until all have; rows do not see each other, so what it goes on with does not matter. Each
    draws its own random numbers, so that a picture gets the same answer in any batch.

    batch: what PaliGemmaProcessor returns, on the model's device.
    """
    B = len(batch["input_ids"])
    generators = [torch.Generator().manual_seed(seed) for _ in range(B)]
    attention_mask = batch["attention_mask"]                          # [B, T], one longer at each step
    finished = [False] * B
    output = model(**batch, logits_to_keep=1)
    for step in range(1, max_tokens + 1):
        logits = output["logits"][:, -1]                              # [B, V]
        if logits.isnan().any():
            raise InputError("the model's numbers overflowed: try --precision bfloat16 or float32")
        tokens = [sample_next_token(logits[row], temperature, top_p, generators[row]) for row in range(B)]
        yield [None if finished[row] else tokens[row] for row in range(B)]
        finished = [finished[row] or tokens[row] == eos_token_id for row in range(B)]
        if all(finished) or step == max_tokens:
            return
        input_ids = torch.tensor(tokens, device=logits.device)[:, None]              # [B, 1]
        attention_mask = torch.cat([attention_mask, torch.ones_like(input_ids)], dim=1)
        output = model(
            input_ids, attention_mask=attention_mask, kv_cache=output["kv_cache"], logits_to_keep=1
        )


class Answer:
    """The tokens of one row, without <eos>, and their text, which grows as they come."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.tokens: list[int] = []
        self.text = ""
        self.seconds = 0.0                                            # until the last token, <eos> included

    def append(self, token: int) -> str:
        """Adds a token and returns the text that is new.

        All is decoded again, for a space or a letter of several bytes shows only together with
        its neighbours; a letter that still lacks bytes (U+FFFD) is held back. Special tokens are
        kept: <loc> and <seg> are part of the answer.
        """
        self.tokens.append(token)
        text = self.tokenizer.decode(self.tokens, skip_special_tokens=False)
        new = "" if text.endswith("\N{REPLACEMENT CHARACTER}") else text[len(self.text):]
        self.text += new
        return new


# ------------------------------------------------------------------------------ the program


class Parser(argparse.ArgumentParser):
    """argparse, without the usage in front of an error: one line is easier to read."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {' '.join(str(message).split())}\n")


def number(kind: type, lowest: float, highest: float):
    """A type for argparse: a number within bounds, which are in the message if it is not."""

    def parse(text: str):
        value = kind(text)
        if not lowest <= value <= highest:                            # true of nan, too
            raise argparse.ArgumentTypeError(f"{text} is not from {lowest} to {highest}")
        return value

    parse.__name__ = kind.__name__                                    # for argparse's own messages
    return parse


def build_parser() -> Parser:
    parser = Parser(
        prog="inference.py",
        description="Asks PaliGemma about pictures.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", metavar="DIR", help="checkpoint folder (default: the 3B model, else the tiny one)")
    add("--image", metavar="FILE", nargs="+", action="extend", help="pictures, answered as one batch")
    add("--prompt", metavar="TEXT", nargs="+", action="extend",
        help="one for all pictures or one for each (default: caption en)")
    add("--set", choices=("0", "1", "mixed"), default="1",
        help="1: the reference files (default), 0: yours, mixed: yours where they are solved")
    add("--max-tokens", type=number(int, 1, 100_000), default=100, metavar="N",
        help="longest answer (default: 100)")
    add("--temperature", type=number(float, 0, 100), metavar="T",
        help="0: always the likeliest token; higher: more varied (default: 0, or 1 if --top-p is given)")
    add("--top-p", type=number(float, 1e-6, 1), metavar="P",
        help="draw only from the likeliest tokens that together reach P (default: 1, all)")
    add("--seed", type=number(int, 0, 2**63 - 1), metavar="N", help="repeats a random answer")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
        help="where to compute (default: a GPU if there is one)")
    add("--precision", choices=PRECISIONS, default="auto",
        help="of the weights (default: as stored, or 16 bits on a GPU; int8: smallest, on a CPU)")
    add("--draw", metavar="OUT.png", help="writes the picture with the boxes of the answer")
    add("--json", action="store_true", help="prints a JSON object for each picture")
    return parser


def fill_defaults(args: argparse.Namespace):
    """Chooses what was not given, and says so."""
    chosen = []
    if args.model is None:
        is_there = any(FULL_MODEL.glob("model.safetensors*")) or any(FULL_MODEL.glob("model-*.safetensors"))
        args.model = str(FULL_MODEL if is_there else TINY_MODEL)
        why = "its weights are there" if is_there else f"{FULL_MODEL.name} holds no weights yet"
        chosen.append(f"model {Path(args.model).name}, since {why}")
    if args.image is None:
        samples = sorted(path for path in SAMPLES.glob("*") if path.suffix in DRAWABLE)
        if not samples:
            raise InputError(f"there is no picture in {SAMPLES}: give one with --image")
        args.image = [str(samples[0])]
        chosen.append(f"picture {SAMPLES.name}/{samples[0].name}")
    if args.prompt is None:
        args.prompt = ["caption en"]
        chosen.append('prompt "caption en"')
    if args.temperature is None:
        args.temperature = 0.0 if args.top_p is None else 1.0
    if args.top_p is None:
        args.top_p = 1.0
    if args.seed is None:
        args.seed = torch.Generator().seed() % 2**63
    if chosen:
        log(f"Not given, so chosen: {'; '.join(chosen)}")


def check_prompts(args: argparse.Namespace):
    """One prompt for all pictures becomes one for each."""
    if len(args.prompt) == 1:
        args.prompt = args.prompt * len(args.image)
    if len(args.prompt) != len(args.image):
        raise InputError(
            f"{len(args.prompt)} prompts for {len(args.image)} pictures: give one for all or one for each"
        )
    for prompt in args.prompt:
        if "<image>" in prompt:
            raise InputError("a prompt must not contain <image>: it is put in front by itself")
        if prompt != prompt.encode(errors="replace").decode():        # half a surrogate pair
            raise InputError(f"the prompt {prompt!a} is not valid text (UTF-8)")


def check_draw(out: Path, images: list[str]):
    """Finds before the model runs what would fail after it."""
    if len(images) > 1:
        raise InputError(f"--draw takes one picture, not {len(images)}")
    if out.suffix.lower() not in DRAWABLE:
        raise InputError(f"--draw {out}: the name must end in one of {' '.join(DRAWABLE)}")
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--draw {out}: " + ("is a folder" if out.is_dir() else f"no folder {out.parent}"))
    if out.exists() and os.path.samefile(out, images[0]):
        raise InputError(f"--draw {out}: this is the input picture, which is never overwritten")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise InputError(f"--draw {out}: no permission to write there")


def choose_device(name: str) -> str:
    """auto: a GPU if there is one."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device in available if available[device])
    if not available[name]:
        raise InputError(f"--device {name}: PyTorch finds no such device here; use --device cpu")
    return name


def log(message: str):
    print(message, file=sys.stderr, flush=True)


def peak_memory() -> int:
    """The most bytes that this process has held in memory at once, mapped weights included."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux":
        # Not ru_maxrss, which there also counts the program that this one was started from.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss         # in bytes on macOS


def opening(prompt: str) -> str:
    """What is shown in front of an answer: a sentence that was to be continued (ends in a space)."""
    return prompt if prompt.endswith(" ") else ""


def write_results(args: argparse.Namespace, pictures: list[Image.Image], answers: list[Answer]):
    """What can be written only at the end: JSON, the answers of several pictures, the drawing."""
    for path, prompt, picture, answer in zip(args.image, args.prompt, pictures, answers, strict=True):
        boxes = parse_boxes(answer.text, *picture.size)
        if args.json:
            entry = {"image": path, "prompt": prompt, "answer": answer.text}
            entry |= {"tokens": len(answer.tokens), "seconds": round(answer.seconds, 3)}
            print(json.dumps(entry | ({"boxes": boxes} if boxes else {}), ensure_ascii=False), flush=True)
        elif len(pictures) > 1:
            print(f"{path}: {' '.join((opening(prompt) + answer.text).splitlines())}", flush=True)
        if args.draw is not None:
            try:
                draw_boxes(picture, boxes).save(args.draw)
            except OSError as error:
                raise InputError(f"--draw {args.draw}: {error.strerror or error}") from error
            why = "" if boxes else ' (an answer has boxes where a prompt like "detect cat" finds something)'
            log(f"Boxes drawn in {args.draw}: {len(boxes)}{why}")


def set_of(args: argparse.Namespace) -> ModelSet:
    """The modules of --set; of a mixed one it is said whose they are."""
    if args.set != "mixed":
        return import_set(int(args.set))
    # Here, since it reads the learner's files and runs the tests of the exercises.
    from course.learner_set import mixed_set

    log(mixed_set().summary)
    return mixed_set().modules


def load(args: argparse.Namespace, device: str, model_set: ModelSet):
    """A model of the set, its tokenizer and its processor."""
    log(f"Device in use:  {device}")
    log("Loading model")
    start = time.perf_counter()
    model, tokenizer = load_model(args.model, device, args.precision, model_set)
    processor = model_set.processor.PaliGemmaProcessor(
        tokenizer, model.config.vision_config.num_patches, model.config.vision_config.image_size
    )
    log(f"Model loaded in {time.perf_counter() - start:.2f} seconds")
    if args.precision == "int8":
        log("Weights rounded to int8, which costs accuracy: how much is in README.md, How fast, how large")
    return model, tokenizer, processor


def run(args: argparse.Namespace):
    fill_defaults(args)
    check_prompts(args)
    pictures = [open_picture(path) for path in args.image]
    if args.draw is not None:
        check_draw(Path(args.draw), args.image)
    device = choose_device(args.device)
    model, tokenizer, processor = load(args, device, set_of(args))

    log("Running inference")
    start = time.perf_counter()
    batch = {name: tensor.to(device) for name, tensor in processor(args.prompt, pictures).items()}
    eos_token_id = tokenizer.token_to_id("<eos>")
    answers = [Answer(tokenizer) for _ in pictures]
    stream = len(pictures) == 1 and not args.json
    first_token, num_tokens = None, 0
    for tokens in generate(
        model, batch, eos_token_id, args.max_tokens, args.temperature, args.top_p, args.seed
    ):
        latency = time.perf_counter() - start
        if first_token is None:
            first_token = latency
            log("Result!!!")
            if stream:
                print(opening(args.prompt[0]), end="", flush=True)
        for answer, token in zip(answers, tokens, strict=True):
            if token is None:
                continue
            num_tokens += 1
            answer.seconds = latency
            new = "" if token == eos_token_id else answer.append(token)
            if stream:
                print(new, end="", flush=True)
    if stream:
        print(flush=True)
    write_results(args, pictures, answers)

    log(f"InferenceLatency: {latency:.2f} seconds")
    log(f"Memory Usage: {peak_memory() / 1e9:.2f} GB")                # GB: 10^9 bytes, here and below
    if device == "cuda":
        log(f"GPU Memory Usage: {torch.cuda.max_memory_reserved() / 1e9:.2f} GB")
    if device == "mps":
        log(f"GPU Memory Usage: {torch.mps.driver_allocated_memory() / 1e9:.2f} GB")
    log(f"Time to first token: {first_token:.2f} seconds")
    if num_tokens > len(pictures):
        rate = (num_tokens - len(pictures)) / (latency - first_token)
        log(f"Tokens per second: {rate:.2f} (after the first)")


def run_learners(program, args: argparse.Namespace, parser: Parser):
    """With code of the learner's in it: what goes wrong there is told without a traceback."""
    from course.learner_set import LearnersError, explained

    try:
        with explained(InputError, CheckpointError, OSError, MemoryError):
            program(args)
    except LearnersError as error:
        parser.exit(error.code, f"{parser.prog}: error: {error}\n")


def run_program(program, args: argparse.Namespace, parser: Parser):
    """Calls program(args), here or in explain.py; its errors become one line and exit code 2."""
    try:
        if args.set == "1":
            program(args)
        else:
            run_learners(program, args, parser)
    except (InputError, CheckpointError) as error:
        parser.error(error)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        parser.error("out of memory: try --precision bfloat16, --device cpu or fewer pictures")
    except BrokenPipeError:
        # The reader of the answer has left, as `| head` does. Nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        parser.error(error)


def main(argv: list[str] | None = None):
    parser = build_parser()
    run_program(run, parser.parse_args(argv), parser)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        # The same everywhere; names of files may be any bytes, and pass through as they are.
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    main()
