"""A training from its start to its end, as one sees it: what it needs, its steps, before and after."""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import torch

from finetuning import data, memory, report, state
from finetuning.adapter import write_json, write_whole
from finetuning.learner import Learner
from finetuning.settings import BEFORE
from inference import why_not_finite
from program.bar import bar, log_beside_bars
from program.command_line import InputError, log

SAVE_EVERY = 20.0  # seconds; longer where saving takes long
SHOWN, SIDE_BY_SIDE = 3, 4


def show_examples(learner: Learner):
    """What the program is about to learn, as the model sees it: look before you train."""
    colors = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    log(f"What it is about to learn ({report.legend(colors)}):")
    for example, row in zip(learner.task.train[:SHOWN], learner.rows, strict=False):
        log(f"  {Path(example.where).name}, {example.picture.name}")
        log(f"    {report.show_row(row, learner.tokenizer, learner.processor.image_token_id, colors)}")


def say_memory(learner: Learner):
    """What memory it will need, from the sizes alone; stops if that is not there."""
    args, model = learner.args, learner.model
    lengths = sorted((len(row["input_ids"]) for row in learner.rows[: len(learner.task.train)]), reverse=True)
    A = max(sum(label != -100 for label in row["labels"]) for row in learner.rows)
    learned = sum(parameter.numel() for parameter in learner.parameters)
    total = sum(parameter.numel() for parameter in model.parameters())
    log(f"Learns {learned:,} numbers ({args.train}), beside {total - learned:,} that stay as they are")
    parts = list(memory.bytes_needed(
        model, learner.parameters, args.batch, lengths[0], A, args.train == "all", args.recompute
    ))  # fmt: skip
    needed = sum(size for _, size in parts)
    large = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts if size > 0.02 * needed)
    log(f"Memory needed: about {needed / 1e9:.2f} GB ({large})")
    is_cuda = learner.device == "cuda"
    free = torch.cuda.mem_get_info()[0] if is_cuda else psutil.virtual_memory().available
    # Weights that are loaded or mapped already are no longer to be found.
    if needed - parts[0][1] > free:
        raise InputError(
            f"{(needed - parts[0][1]) / 1e9:.1f} GB more are needed, and {free / 1e9:.1f} GB are free: "
            "try --batch 1 with --accumulate, --recompute"
            + ("" if args.train == "lora" else ", --train lora")
        )


def num_steps(learner: Learner) -> int:
    args = learner.args
    return args.epochs * -(-len(learner.task.train) // (args.batch * args.accumulate))


def say_time(learner: Learner, history: dict):
    """How long it will take, by one look at the longest rows: what does not fit fails now, not at night.

    Their gradients are thrown away. The evaluation of each epoch is not in it.
    """
    rows, args = learner.rows, learner.args
    longest = sorted(range(len(learner.task.train)), key=lambda i: -len(rows[i]["input_ids"]))[: args.batch]
    batch = learner.make_batch(longest)
    learner.model.train()
    start = time.perf_counter()
    loss, _ = learner.training.batch_loss(learner.model, batch, learner.sum_loss)
    loss.backward()
    seconds = (time.perf_counter() - start) * args.accumulate * (num_steps(learner) - history["step"])
    learner.optimizer.zero_grad()
    needed = f"{seconds / 60:.0f} minutes" if seconds > 100 else f"{seconds:.0f} seconds"
    log(f"Time needed: at most about {needed}, besides an evaluation after each epoch")


def train_until_done(learner: Learner, history: dict, stop: list) -> bool:
    """The steps that are left, saving now and then. False if it was stopped by Ctrl-C.

    Raises FloatingPointError if the training diverges: no weight is a number from then on.
    """
    args, training = learner.args, learner.training
    total = num_steps(learner)
    saved, cost = time.monotonic(), 0.0
    reports = training.train(
        learner.model, learner.parameters, learner.optimizer, learner.make_batch, len(learner.task.train),
        learner.score, learner.best, epochs=args.epochs, batch_size=args.batch, accumulate=args.accumulate,
        peak_rate=args.rate, sum_loss=learner.sum_loss, seed=args.seed, done=history["step"],
    )  # fmt: skip
    with bar(
        total=total, initial=history["step"], desc="Training", unit="step", dynamic_ncols=True
    ) as progress:
        for found in reports:
            if not math.isfinite(found["loss"]):
                raise FloatingPointError("the loss is not finite")
            history["step"] = found["step"]
            entry = {name: found[name] for name in ("step", "epoch", "loss", "rate")}
            if found["score"] is not None:
                entry |= learner.found
            history["steps"].append(entry)
            progress.set_postfix_str(f"loss {found['loss']:.3f}, rate {found['rate']:.1e}", refresh=False)
            progress.update()
            if found["score"] is not None:
                iou = "" if entry["iou"] is None else f", IoU of the boxes {entry['iou']:.2f}"
                log_beside_bars(
                    f"epoch {found['epoch'] + 1}/{args.epochs}: loss {found['loss']:.3f}, unseen "
                    f"{entry['eval_loss']:.3f}, right {entry['right']:.2f}{iou}"
                )
            is_due = time.monotonic() - saved > max(SAVE_EVERY, 20 * cost)
            if stop or is_due or (found["score"] is not None and found["step"] < total):
                start = time.monotonic()
                state.save_state(learner.out, learner.parameters, learner.optimizer, learner.best, history)
                saved, cost = time.monotonic(), time.monotonic() - start
            if stop:
                return False
    return True


def keep_diverged(learner: Learner, history: dict) -> InputError:
    """Keeps the best weights of a training that diverged; gives what to tell the user."""
    kept = "before its first evaluation, so there is nothing to keep"
    if learner.best.weights:
        learner.keep_best(history)
        kept = f"and {learner.out} holds the best weights until then"
    return InputError(
        f"the training diverged after step {history['step']} (its numbers are no longer finite), {kept}: "
        f"start again with another --out and a lower --rate, {learner.args.rate / 10:g} for instance"
    )


def ask_held_out(learner: Learner) -> list[str]:
    """Its answers about what is held out."""
    try:
        return learner.answers(learner.task.held_out)
    except FloatingPointError as error:
        raise InputError(why_not_finite(learner.model)) from error


def answers_before(learner: Learner) -> list[str]:
    """The base model's answers about what is held out, asked once and kept."""
    path = learner.out / BEFORE
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    answers = ask_held_out(learner)
    write_whole(learner.out, path.name, lambda part: write_json(part, answers))
    return answers


def show_before_and_after(learner: Learner, before: list[str], after: list[str]) -> list[data.Example]:
    """A picture of the first few with what the model said before and after; they are returned."""
    held_out = learner.task.held_out
    first = list({example.picture: i for i, example in reversed([*enumerate(held_out)])}.values())
    few = sorted(first)[:SIDE_BY_SIDE]
    examples = [held_out[i] for i in few]
    truths = [example.suffix for example in held_out]
    shares = [report.scores(answers, truths)["right"] for answers in (before, after)]
    title = f"right: {shares[0]:.2f} before, {shares[1]:.2f} after"
    sheet = report.before_and_after(
        data.load_pictures(examples), [example.prefix for example in examples],
        [before[i] for i in few], [after[i] for i in few], title,
    )  # fmt: skip
    write_whole(learner.out, "before-after.png", lambda path: sheet.save(path, format="PNG"))
    return examples


def scores_line(learner: Learner, answers: list[str]) -> str:
    """How many answers about the unseen are right."""
    truths = [example.suffix for example in learner.task.held_out]
    found = report.scores(answers, truths)
    iou = "" if found["iou"] is None else f", IoU of the boxes {found['iou']:.2f}"
    return f"{round(found['right'] * len(truths))} of {len(truths)} right ({found['right']:.2f}){iou}"


def catch_ctrl_c(stop: list):
    """The first Ctrl-C ends the training after its step, the second at once."""

    def handler(*_):
        if stop:
            os._exit(130)
        stop.append(True)
        log_beside_bars("Stopping after this step (Ctrl-C again: at once) ...")

    return signal.signal(signal.SIGINT, handler)
