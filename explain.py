"""One page that shows one answer being made, with the numbers of this run.

    python explain.py --image cat.jpg --prompt "detect cat" --out explain.html
    python explain.py --live          the page answers while you change the picture, the prompt, the code

How a page is made: the model answers, watched (inside.recorder) -> what was seen becomes numbers
(inside.description) and code with its values (inside.code, inside.trace) -> one HTML file
(inside.page), and with --png the main pictures (inside.pictures). With --live a server does it again
and again (inside.live). The model's own files know nothing of it.
"""

import sys

from program.command_line import end_quietly_on_ctrl_c

if __name__ == "__main__":
    end_quietly_on_ctrl_c()  # while all else is being imported, too

from inside import live
from speed import threads

if __name__ == "__main__":
    threads.sleep_while_waiting()  # must be said before torch is imported
    if "--live" in sys.argv[1:]:
        live.main()  # ends the program; here, so that its address is there before PyTorch

import argparse
import functools
import time
from pathlib import Path

import inference
from inside import pictures
from inside.code import describe_code, trace_answer, trace_model
from inside.description import describe, keep_weights
from inside.live_model import LONGEST_ANSWER
from inside.masks import describe_masks
from inside.page import build_page
from inside.recorder import record_answer
from inside.template import MADE_HERE
from load_weights import load_mask_decoder
from program.command_line import (
    InputError,
    Parser,
    check_output,
    log,
    number,
    set_up_streams,
    spelled_out,
    write,
)
from program.files import replace_file
from program.known_prompts import say_if_unknown
from program.pictures import open_picture
from program.questions import TINY_MODEL
from speed.loading import PRECISIONS

PAGES = (".html", ".htm")
LONGEST_PROMPT = 512  # tokens; the page holds all that they attend to


def build_parser() -> Parser:
    parser = Parser(prog="explain.py", description="Writes a page that shows one answer being made.")
    add = parser.add_argument
    add(
        "--model",
        metavar="DIR",
        default=str(TINY_MODEL),
        help="checkpoint folder (default: the tiny one)",
    )
    add("--image", metavar="FILE", nargs=1, help="the picture (default: the first of images/)")
    add("--prompt", metavar="TEXT", nargs=1, default=["detect cat"], help="default: detect cat")
    add("--out", metavar="PAGE.html", default="explain.html", help="the page (default: explain.html)")
    add("--png", metavar="DIR", help="writes the main pictures there as well, as PNG files")
    add(
        "--set",
        choices=("0", "1", "mixed"),
        default="1",
        help="1: the reference files (default), 0: yours, mixed: yours where they are solved",
    )
    add(
        "--max-tokens",
        type=number(int, 1, LONGEST_ANSWER),
        default=LONGEST_ANSWER,
        metavar="N",
        help=f"longest answer (default, and at most: {LONGEST_ANSWER})",
    )
    add("--precision", choices=PRECISIONS, default="auto", help="of the weights (default: as stored)")
    add("--live", action="store_true", help="serves a page to this machine that answers as you change things")
    add("--no-browser", action="store_true", help="with --live: only prints the address")
    parser.set_defaults(temperature=0.0, top_p=1.0, seed=0)  # greedy; fill_defaults asks for them
    return parser


def check_page(out: Path):
    """Finds before the model runs what would fail after it; only a page of ours is overwritten."""
    check_output(out, "--out", PAGES)
    if out.exists():
        with out.open("rb") as file:
            made_here = MADE_HERE.encode() in file.read(500)
        if not made_here:
            raise InputError(f"--out {out}: was not made by explain.py, so it is not overwritten")


def clean(text: str) -> str:
    """Text as a file in UTF-8 can hold it: a file's name may have bytes that are no letters."""
    return text.encode(errors="replace").decode()


def make_page(args: argparse.Namespace, folder: Path) -> tuple[str, dict]:
    """Lets the model answer and tells how. Returns the page, for a file in `folder`, and its numbers."""
    picture = open_picture(args.image[0])
    model_set = inference.set_of(args)
    model, tokenizer, processor = inference.load(args, "cpu", model_set)
    num_tokens = len(tokenizer.encode(args.prompt[0], add_special_tokens=False).ids)
    if num_tokens > LONGEST_PROMPT:
        raise InputError(f"--prompt: {num_tokens:,} tokens, and a page shows at most {LONGEST_PROMPT}")

    say_if_unknown(args.prompt, args.model)
    log("Running the model")
    reduce = functools.partial(keep_weights, model.config)
    try:
        # First the run that is traced: it also warms up, so that the times of the next are the model's.
        steps = trace_model(model, processor, args.prompt[0], picture, model_set)
        batch = processor(args.prompt, [picture])
        recording = record_answer(model, tokenizer, batch, args.max_tokens, model_set, reduce)
    except FloatingPointError as error:
        raise InputError(inference.why_not_finite(model)) from error

    if not recording.text.strip():
        log(f"{spelled_out(args.prompt[0])}: (nothing)")
    if not recording.ended:
        log(f"{spelled_out(args.prompt[0])}: (cut off at --max-tokens {args.max_tokens})")
    log("Collecting what was seen")
    facts = {
        "model": clean(Path(args.model).resolve().name),
        "image": clean(Path(args.image[0]).name),
        "prompt": clean(args.prompt[0]),
        "set": args.set,
    }
    description = describe(recording, picture, facts, folder)
    # A learner's is not needed before an answer holds a shape: it may not be done yet, or be wrong.
    is_needed = args.set not in ("0", "tried") or "<seg" in recording.text
    vqvae = load_mask_decoder(args.model, model_set.masks) if is_needed else None
    masks = describe_masks(recording.text, description["boxes"], vqvae, picture.size, model_set.masks)
    description["masks"] = masks
    steps[0] += trace_answer(recording, picture.size, masks, vqvae)
    description["code"] = describe_code(model, model_set, steps)
    return build_page(description, model_set, folder), description


def explain(args: argparse.Namespace):
    start = time.perf_counter()
    inference.fill_defaults(args)
    inference.check_prompts(args)
    out = Path(args.out)
    check_page(out)
    if args.png is not None:
        pictures.check_folder(Path(args.png))
    page, description = make_page(args, out.resolve().parent)

    files = {out.resolve(): page}
    if args.png is not None:
        files |= {Path(args.png) / name: png for name, png in pictures.draw_all(description).items()}
        Path(args.png).mkdir(exist_ok=True)
    for path, content in files.items():
        replace_file(path, content)
        if path.suffix == ".png":
            log(f"Picture written: {spelled_out(str(path))}")
    log(f"{time.perf_counter() - start:.1f} seconds, {len(page.encode()) / 1e6:.1f} MB")
    write(f"The page is {spelled_out(str(out.resolve()))}\nOpen it with a browser: {out.resolve().as_uri()}")


def main(argv: list[str] | None = None):
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.live:
        live.main(argv)
    if args.no_browser:
        parser.error("--no-browser goes with --live")
    inference.run_program(explain, args, parser)


if __name__ == "__main__":
    set_up_streams()
    main()
