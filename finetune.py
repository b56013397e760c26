"""Teaches PaliGemma something new, from the command line.

    python finetune.py                                    a shipped set, on the small model, in 3 minutes
    python finetune.py --data my.jsonl --model DIR        your own pictures

The way of a training: read_examples (what is wrong with them is said now) -> training_row, a few shown ->
the tower's features, once -> train (training_1.py) with an evaluation each epoch -> the best weights, as
an adapter of PEFT's format or as a checkpoint -> before and after, side by side.

Everything goes to the folder --out, and nothing of it can be lost by an interruption: --resume goes
on to the same weights, to the last bit, as if there had been none.
"""

from program.command_line import end_quietly_on_ctrl_c
from speed import threads

if __name__ == "__main__":
    end_quietly_on_ctrl_c()  # while PyTorch is being imported, too
    threads.sleep_while_waiting()  # must be said before torch is imported

import argparse
import signal
import sys
from pathlib import Path

import torch

from finetuning import data, session, state
from finetuning.adapter import write_json, write_whole
from finetuning.learner import Learner
from finetuning.settings import (
    BEFORE,
    FINISHED,
    PRODUCTS,
    SETTINGS,
    fingerprints,
    make_out,
    read_settings,
    unmake_out,
)
from inference import choose_device, peak_memory, set_of
from load_weights import CheckpointError, import_set, read_config, read_entries, read_tokenizer, weight_files
from program import command_line
from program.command_line import InputError, Parser, log, number, set_up_streams, to_paste, write
from program.memory import is_out_of_memory
from program.questions import FULL_MODEL, TINY_MODEL, choose_model, has_weights

HERE = Path(__file__).parent
SHIPPED = HERE / "finetuning" / "everything"  # train.jsonl, eval.jsonl, pictures/
OUT = "finetuned"
EXAMPLES = """\
your data, one JSON object a line (paths are relative to the file):
  {"image": "cat.jpg", "prefix": "detect cat", "suffix": "<loc0256><loc0128><loc0768><loc0640> cat"}
or a folder of pictures with a text file beside each: cat.jpg and cat.txt, which holds its caption.

examples:
  python finetune.py
  python finetune.py --data my.jsonl --eval my-eval.jsonl --out my-adapter
  python finetune.py --data photos --model paligemma-3b-pt-224 --rank 8 --batch 1 --accumulate 8
  python finetune.py --resume my-adapter
"""


# ------------------------------------------------------------------------------ the command line


def build_parser() -> Parser:
    parser = Parser(
        prog="finetune.py",
        description="Teaches PaliGemma something new.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add("--data", metavar="FILE", help="what is to be learned, .jsonl or a folder (default: the shipped set)")
    add("--eval", metavar="FILE", help="unseen examples to be asked about (default: a tenth of the pictures)")
    add("--model", metavar="DIR",
        help="checkpoint folder (default: the tiny model for the shipped set, else the 3B if it is there)")
    add("--out", metavar="DIR",
        help=f"folder for the results (default: {OUT}, or {OUT}-2 if that is there, ...)")
    add("--train", choices=("lora", "attention", "all"), default="lora",
        help="what learns: small matrices beside the decoder's (default), its attention, or everything")
    add("--rank", type=number(int, 1, 1024), default=16, metavar="R",
        help="of LoRA's matrices (default: 16)")
    add("--rate", type=number(float, 1e-9, 1), metavar="X",
        help="highest learning rate (default: by model)")
    add("--epochs", type=number(int, 1, 10_000), default=8, metavar="N",
        help="times through the data (default: 8)")
    add("--batch", type=number(int, 1, 4096), metavar="N",
        help="examples at a time (default: 16, large models 4)")
    add("--accumulate", type=number(int, 1, 4096), default=1, metavar="N",
        help="batches to a step (default: 1)")
    add("--loss", choices=("token", "example"), default="token",
        help="mean over all learned tokens (default), or of each example's own mean")
    add("--max-tokens", type=number(int, 1, 4096), default=128, metavar="N",
        help="longest answer (default: 128)")
    add("--recompute", action="store_true",
        help="less memory, more time: activations are computed twice")
    add("--merge", action="store_true", help="writes a whole checkpoint instead of an adapter")
    add("--skip-bad", action="store_true", help="leaves bad examples out, and says how many")
    add("--seed", type=number(int, 0, 2**31 - 1), default=0, metavar="N",
        help="of the order and of the start (default: 0)")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
        help="where to compute (default: a GPU if there is one)")
    add("--precision", choices=("auto", "float32", "bfloat16"), default="auto",
        help="of what is frozen (default: 16 bits for large models, else float32); what learns is float32")
    add("--set", choices=("0", "1", "mixed", "tried"), default="1",
        help="1: the reference files (default), 0: yours, mixed: yours where they are solved, "
        "tried: yours where you tried, right or wrong")
    add("--resume", metavar="DIR", help="goes on with an interrupted training; all else is as it was")
    # fmt: on
    return parser


def fill_defaults(args: argparse.Namespace):
    """Chooses what was not given, and says so."""
    chosen = []
    if args.data is None:
        args.data = str(SHIPPED / "train.jsonl")
        args.eval = args.eval or str(SHIPPED / "eval.jsonl")
        chosen.append(f"data {SHIPPED.name}/train.jsonl")
        args.model = args.model or str(TINY_MODEL)
    if args.model is None:
        args.model, said = choose_model()
        chosen.append(said)
    if args.out is None:
        numbers = (f"{OUT}-{i}" if i > 1 else OUT for i in range(1, 10_000))
        args.out = next(name for name in numbers if not Path(name).exists())
        chosen.append(f"results in {args.out}")
    if args.train == "all" and args.precision == "bfloat16":
        raise InputError("--train all needs --precision float32: no weight stays frozen")
    if args.train != "lora":
        args.merge = True  # there is no adapter to keep apart
    if chosen:
        log(f"Not given, so chosen: {'; '.join(chosen)}")


# ------------------------------------------------------------------------------------- the run


def run(args: argparse.Namespace):
    if args.resume is None:
        fill_defaults(args)
    else:
        torch.set_num_threads(args.threads)
    out = Path(args.out)
    model_set, device = set_of(args), choose_device(args.device)
    task = data.read_task(args, tokenizer_of(Path(args.model)))
    if args.resume is None:
        make_out(out)
        settings = {"arguments": vars(args), "prints": fingerprints(args), "threads": torch.get_num_threads()}
        write_whole(out, SETTINGS, lambda path: write_json(path, settings))

    log(f"Device in use:  {device}")
    try:
        learner = Learner(args, model_set.training, model_set, task, device)
        session.show_examples(learner)
        session.say_memory(learner)
    except Exception:  # memory that runs out, for one: the same --out must be free for another try
        if args.resume is None:
            unmake_out(out)
        raise
    learner.look_at_pictures()
    before = session.answers_before(learner)
    log(f"Before: {session.scores_line(learner, before)}")

    history = {"step": 0, "steps": []}
    if (out / state.STATE).exists():
        history = state.load_state(out, learner.parameters, learner.optimizer, learner.best)
        log(f"Resuming after step {history['step']}")
    session.say_time(learner, history)
    stop: list = []
    earlier = session.catch_ctrl_c(stop)
    try:
        is_done = session.train_until_done(learner, history, stop)
    except FloatingPointError as error:
        raise session.keep_diverged(learner, history) from error
    finally:
        signal.signal(signal.SIGINT, earlier)
    if not is_done:
        learner.write_results(history, is_final=False)
        log(f"Stopped after step {history['step']}; all of it is kept. To go on:")
        log(f"  {to_paste('python', 'finetune.py', '--resume', out)}")
        sys.exit(130)

    learner.finish_weights()
    after = session.ask_held_out(learner)
    learner.model.vision_tower = learner.tower
    learner.write_results(history, is_final=True)
    examples = session.show_before_and_after(learner, before, after)
    (out / FINISHED).touch()
    learner.features = None  # no longer mapped: Windows keeps files that are
    for name in (state.STATE, "features.bin", BEFORE, PRODUCTS):
        (out / name).unlink(missing_ok=True)
    write(f"Before: {session.scores_line(learner, before)}")
    write(f"After:  {session.scores_line(learner, after)}")
    write(f"Side by side: {out / 'before-after.png'}; the curve: {out / 'curve.png'}")
    log(f"Memory Usage: {peak_memory() / 1e9:.2f} GB")
    write(f"Ask it yourself:\n  {command(args, examples[0])}")


def command(args: argparse.Namespace, example: data.Example) -> str:
    """What asks the new model about one of the unseen pictures."""

    def short(path: Path) -> Path:
        path = path.resolve()
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

    model = ["--model", short(Path(args.model)), "--adapter", args.out]
    if args.merge:
        model = ["--model", args.out]
    elif Path(args.model).resolve() == TINY_MODEL.resolve() and not has_weights(FULL_MODEL):
        model = ["--adapter", args.out]
    question = ["--image", short(example.picture), "--prompt", example.prefix]
    draw = ["--draw", f"{args.out}/answer.png"] if "<loc" in example.suffix else []
    return to_paste("python", "inference.py", *model, *question, *draw)


def tokenizer_of(folder: Path):
    """The tokenizer alone: data is checked before weights are loaded."""
    entries = read_entries(folder)
    weight_files(folder)
    return read_tokenizer(folder, entries, read_config(entries, import_set(1)))


def run_with_advice(args: argparse.Namespace):
    """run, with what helps where memory runs out, and without a traceback for a learner's code."""
    if args.resume is not None:
        args = read_settings(args, build_parser())
    try:
        if args.set == "1":
            run(args)
            return
        from course.tracebacks import explained

        with explained(InputError, CheckpointError, OSError, MemoryError):
            run(args)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        advice = "out of memory: try --batch 1 with --accumulate, or --recompute"
        if (Path(args.out) / SETTINGS).exists():
            advice += f", and another --out ({args.out} is kept for --resume, where more memory is free)"
        raise InputError(advice) from error


def main(argv: list[str] | None = None):
    parser = build_parser()
    command_line.run_program(run_with_advice, parser.parse_args(argv), parser, CheckpointError)


if __name__ == "__main__":
    set_up_streams()
    main()
