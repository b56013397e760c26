"""Trains `paligemma-tiny`, the shipped checkpoint, from nothing, in one run.

    python -m tiny_model.train_tiny                    train (resumes where it was interrupted)
    python -m tiny_model.train_tiny --preset minutes   a small one that learns to say five things
    python -m tiny_model.train_tiny --smoke            every step in small, in two minutes: learns nothing
    python -m tiny_model.train_tiny --measure DIR      how often a checkpoint, or the state of a run, is right

On Linux, `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` before the command gives it large pages of memory: it then
keeps 64 batches a minute, which otherwise fall to 50 within ten minutes.

What to look at if you want to train a PaliGemma yourself:
  - a training row is  <image> * N <bos> prompt \\n answer <eos>.  Picture and prompt are the
    prefix (token type 0): they see each other in both directions. The answer is the suffix
    (type 1): it sees the prefix and its own past. Only the answer is learned;
  - several prompts share one pass of the vision tower;
  - the tower is not trained by the answers alone. The real one was pretrained on pictures with
    texts; this one first learns to say of every patch what it shows, where that thing's box lies
    and what its shape is (the first stage). Without such a start the questions do not "click" for
    a long time. The decoder is helped likewise: half-way up it has to mark the patches of what
    the prompt asks about (tiny_model/losses.py);
  - the matrices are trained by Muon, everything else by AdamW;
  - the learning rates come down to nothing more than once, and what is stored is the mean of the
    weights at these ends (of the last stage): each errs in its own way, and their mean less;
  - an interruption changes nothing: batch n is a function of (seed, n) alone, and a signal never
    comes in the middle of a step (tiny_model/state.py).

Letters in shapes: B pictures, R rows (prompts with answers), N patches (= image tokens), L tokens of
text in a row, C width of the tower, D width of the decoder.

Sources: "PaliGemma" (Beyer et al. 2024), section 3.2; "Muon" (Jordan et al. 2024); "Averaging Weights
Leads to Wider Optima and Better Generalization" (Izmailov et al. 2018), section 3.
"""

from speed import threads

if __name__ == "__main__":
    threads.sleep_while_waiting()  # must be said before torch is imported

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from load_weights import CheckpointError, load_hf_model, load_mask_decoder
from program.bar import bar
from program.command_line import InputError, Parser, run_program, write
from program.files import replace_file
from speed.memory import keep_freed_memory
from tiny_model import train_masks
from tiny_model.batches import STAGES, first_round, load_material, start_loader
from tiny_model.card import facts_of, model_card, time_of_codec, write_facts
from tiny_model.losses import AnswerLoss, ColorHead, MarkHead, PatchHead, naming_loss, soft_words
from tiny_model.making import (
    SIZES,
    SMALL_SIZES,
    build_config,
    build_model,
    build_tokenizer,
    initialise,
    known_prompts,
    write_checkpoint,
)
from tiny_model.measure import COLUMNS, accuracy_columns, evaluate, markdown_table
from tiny_model.optimizer import Optimizer
from tiny_model.quick import QuickModel, bfloat16_is_faster, can_compile
from tiny_model.scenes import KINDS as KINDS_OF_QUESTIONS
from tiny_model.scenes import THINGS, TRAINING_STYLES
from tiny_model.state import Signals, Stopped, read_state, write_state

# What the losses weigh. Of the answers, per token, the sum of a row; of the rest, means.
WEIGHTS = {
    "words": 0.40, "places": 0.20, "masks": 0.10,
    "marks": 0.3, "naming": 0.5,
    "names": 1.0, "boxes": 4.0, "thirds": 1.0, "cells": 0.3, "cover": 1.0, "shapes": 0.5,
    "letters": 0.3, "no letters": 0.5, "colors": 0.5,
}  # fmt: skip
# How often each kind of question is asked, and how often instead where it can be told of few scenes.
KINDS = {
    "caption": 0.13, "caption de": 0.055, "caption es": 0.055, "caption fr": 0.055, "detect": 0.10,
    "detect several": 0.09, "segment": 0.13, "segment several": 0.045, "count": 0.05, "total": 0.03,
    "is there": 0.05, "where": 0.06, "where close": 0.10, "color": 0.08, "beside": 0.09, "ocr": 0.01,
    "count + repeated": 0.15, "ocr + sign": 0.40,
}  # fmt: skip
PLAN = {
    "seed": 0,
    "sizes": SIZES,
    "styles": TRAINING_STYLES,
    "things": THINGS,
    "tower": {
        "batches": 6000, "restarts": (), "scenes": 72, "uses": 3, "rates": (2e-3, 0.0), "easy": 0.0,
        "counts": (1, 2, 3, 4, 5, 6, 6), "nothing": 0.10, "signs": 0.30, "small_print": True,
        "weights": WEIGHTS, "patches_fade": 0.0,
    },
    "answers": {
        "batches": 11000, "restarts": (4000,), "scenes": 48, "uses": 3, "rates": (8e-4, 2e-3), "easy": 0.04,
        "counts": (1, 2, 2, 3, 3), "nothing": 0.10, "signs": 0.30, "small_print": True,
        "weights": WEIGHTS, "patches_fade": 0.7, "prompts": 3, "kinds": KINDS,
    },
    "reading": {
        "batches": 13800, "restarts": (4000, 8800, 11300), "scenes": 48, "uses": 3, "rates": (8e-4, 1e-3),
        "easy": 0.0, "counts": (1, 2, 2, 3, 3), "nothing": 0.14, "signs": 0.60, "small_print": False,
        "weights": WEIGHTS | {"words": 0.80, "letters": 5.0, "thirds": 2.0}, "patches_fade": 0.7,
        "prompts": 3, "kinds": KINDS | {"ocr + sign": 1.50, "where close": 0.16},
    },
    "wildest": 2.5,
    "codec": "trained",
    "save_seconds": 120,
    "look_minutes": 20,
    "look_scenes": 80,
    "final_scenes": 400,
    "final_nothing": 300,
    "columns": tuple(COLUMNS),
}  # fmt: skip
SMOKE_PLAN = PLAN | {
    "styles": TRAINING_STYLES[:1],
    "tower": PLAN["tower"] | {"batches": 10, "scenes": 6, "uses": 2},
    "answers": PLAN["answers"] | {"batches": 10, "restarts": (4,), "scenes": 8, "uses": 2},
    "reading": PLAN["reading"] | {"batches": 4, "restarts": (2,), "scenes": 8, "uses": 2},
    "codec": "shipped",
    "save_seconds": 0,
    "look_scenes": 2,
    "final_scenes": 2,
    "final_nothing": 2,
    "columns": ("Twemoji, true colors",),  # of few drawings
}
FIVE_THINGS = ["cat", "car", "tree", "star", "umbrella"]
ONE_THING = {"scenes": 32, "uses": 2, "counts": (1,), "nothing": 0.0, "signs": 0.0}
MINUTES_PLAN = PLAN | {
    "sizes": SMALL_SIZES,
    "styles": TRAINING_STYLES[:5],
    "things": FIVE_THINGS,
    "tower": PLAN["tower"] | ONE_THING | {"batches": 700},
    "answers": PLAN["answers"]
    | ONE_THING
    | {"batches": 900, "restarts": (), "prompts": 1, "kinds": {"caption": 1.0}},
    "reading": PLAN["reading"] | {"batches": 0, "restarts": ()},
    "wildest": 1.0,
    "codec": "shipped",
    "look_minutes": 1,
    "look_scenes": 120,
    "final_scenes": 200,
    "final_nothing": 0,
    "columns": ("training sets", "training sets, true colors"),
}
LONGEST_STEP = 60  # seconds; what took longer was halted from outside, or waited for a laptop's lid
PRESETS = {"full": PLAN, "minutes": MINUTES_PLAN, "smoke": SMOKE_PLAN}


# -- The run --------------------------------------------------------------------------------------


class Run:
    """One training: what it trains, how far it is, and what of it goes into the state."""

    def __init__(self, preset: str, out: Path, signals: Signals):
        self.preset, self.out, self.signals = preset, out, signals
        self.plan = json.loads(json.dumps(PRESETS[preset]))  # lists for tuples, as a state has them
        self.state_file, self.store = out / "state.pt", out / "rendered.zip"
        self.codec_file = out / "mask_decoder.safetensors"
        self.choices = {
            "bfloat16": bfloat16_is_faster(), "compiled": preset == "full" and can_compile(),
            "threads": torch.get_num_threads(),
        }  # fmt: skip
        self.about = {
            "commits": [commit()], "cpu": cpu_name(), "command": command_of(preset), "data": digest_of_data()
        }  # fmt: skip
        self.stage, self.done, self.seconds, self.optimizer = STAGES[0], 0, 0.0, None

    def start(self):
        """Makes everything as it is at the first step, or as it was when the state was written."""
        state = read_state(self.state_file) if self.state_file.exists() else None
        if state is not None:
            self.compare(state)
            self.choices = state["choices"]
        torch.set_num_threads(self.choices["threads"])
        torch.manual_seed(self.plan["seed"])
        self.codec = load_mask_decoder(self.codec_file.parent).float()
        codewords = self.codec._vq_vae._embedding.detach()
        self.tokenizer = build_tokenizer()
        self.config = build_config(self.tokenizer, self.plan["sizes"])
        self.model = build_model(self.config)
        initialise(self.model, self.tokenizer, codewords)
        self.heads = nn.ModuleDict({
            "patches": PatchHead(self.config["vision_config"]["hidden_size"]),
            "marks": MarkHead(self.config["text_config"]["hidden_size"]),
            "colors": ColorHead(self.config["vision_config"]["hidden_size"]),
        })  # fmt: skip
        self.near = soft_words(codewords)
        self.answer_loss = AnswerLoss(self.tokenizer, self.near)
        self.thing_tokens = [self.tokenizer.token_to_id(f"▁{thing}") for thing in THINGS]
        dtype = torch.bfloat16 if self.choices["bfloat16"] else torch.float32
        self.quick = QuickModel(self.model, dtype, self.choices["compiled"])
        self.mean = AveragedModel(self.model)
        if state is not None:
            self.stage, self.done, self.seconds = state["stage"], state["done"], state["seconds"]
            self.about = state["about"]
            if commit() not in self.about["commits"]:
                self.about["commits"].append(commit())
            self.model.load_state_dict(state["model"])
            self.heads.load_state_dict(state["heads"])
            self.mean.load_state_dict(state["mean"])
        self.optimizer = self.new_optimizer()
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])

    def compare(self, state: dict):
        """Raises InputError for the state of another training, which this one cannot go on with."""
        file = self.state_file
        if state["preset"] != self.preset or state["plan"] != self.plan:
            which = "of another plan" if state["preset"] == self.preset else f"of --preset {state['preset']}"
            raise InputError(f"{file} is the state of a training {which}: choose another --out")
        if state["about"]["data"] != self.about["data"]:
            raise InputError(
                f"{file} was trained on other drawings, fonts or photographs than are here now: "
                "put them back, or choose another --out"
            )
        if state["choices"]["compiled"] and not can_compile():
            raise InputError(f"{file} is from a training with compiled layers, and here is no C++ compiler")

    def new_optimizer(self) -> Optimizer:
        tower_rate, rate = self.plan[self.stage]["rates"]
        modules = [(self.model.vision_tower, tower_rate), (self.heads["patches"], tower_rate)]
        if self.stage != "tower":
            decoder = (self.model.multi_modal_projector, self.model.language_model, self.heads["marks"])
            modules += [(module, rate) for module in decoder] + [(self.heads["colors"], tower_rate)]
        return Optimizer(modules, self.plan[self.stage]["batches"], self.plan[self.stage]["restarts"])

    def save(self):
        parts = {"model": self.model, "heads": self.heads, "optimizer": self.optimizer, "mean": self.mean}
        state = {name: part.state_dict() for name, part in parts.items()}
        names = ("preset", "plan", "choices", "about", "stage", "done", "seconds")
        write_state(self.state_file, state | {name: getattr(self, name) for name in names})

    # -- Training

    def train(self):
        """All stages that are not over."""
        while True:
            if self.done < self.plan[self.stage]["batches"]:
                self.train_stage()
            if self.stage == STAGES[-1]:
                return
            self.stage, self.done = STAGES[STAGES.index(self.stage) + 1], 0
            self.optimizer = self.new_optimizer()

    def train_stage(self):
        total = self.plan[self.stage]["batches"]
        if self.done == 0:
            self.mean = AveragedModel(self.model)  # of the weights at the ends of this stage's rounds
        saved = looked = last = time.time()
        loader = start_loader(
            self.tokenizer, self.plan, self.stage, self.config, self.codec_file, self.store, self.done
        )
        progress = bar(total=total, initial=self.done, desc=self.stage, unit="batch", dynamic_ncols=True)
        try:
            while self.done < total:
                batch = self.next_batch(loader)
                loss, told = self.losses(batch)
                self.optimizer.step(loss, self.done)
                self.done += 1
                self.seconds += min(time.time() - last, LONGEST_STEP)
                last = time.time()
                progress.update()
                if self.done % 20 == 0:
                    progress.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
                if self.optimizer.ends_round(self.done):
                    self.mean.update_parameters(self.model)
                # Between two steps the state is whole, and here alone it is saved.
                is_over = self.done == total
                is_old = time.time() - saved > self.plan["save_seconds"]
                if is_over or is_old or self.signals.asked is not None:
                    self.save()
                    saved = time.time()
                self.signals.check()
                if is_over or time.time() - looked > 60 * self.plan["look_minutes"]:
                    self.look(loss, told)
                    looked = time.time()
        finally:
            progress.close()
            loader._shutdown_workers()

    def next_batch(self, loader) -> dict:
        try:
            return next(loader)
        except RuntimeError as error:
            self.signals.check()  # a signal to all ended the worker as well
            raise InputError(f"the worker that draws scenes has ended: {error}") from error

    def losses(self, batch: dict) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of a batch, and each of its parts before it is weighed."""
        quick, weights, plan = self.quick, self.quick.weights(), self.plan[self.stage]
        features = quick.tower(weights, batch["pixels"])
        parts, accuracy = self.heads["patches"].losses(features, batch, self.near)
        # Over the first round of answers patches matter less and less; what the answers need takes over.
        progress = min(1, self.done / first_round(plan)) if self.stage == "answers" else 1
        faded = 1 - plan["patches_fade"] * progress
        of_answers = {}
        if self.stage != "tower":
            images = quick.projected(weights, features)
            of_answers["naming"] = naming_loss(weights, images, batch["labels"], self.thing_tokens)
            num_rows = sum(len(rows["ids"]) for rows in batch["rows"])
            num_marks = sum(rows["marks"].sum() for rows in batch["rows"])
            sums = {name: [] for name in ("words", "places", "masks", "marks")}
            for rows in batch["rows"]:
                of_tokens, halfway = self.answer_loss(quick, weights, images, rows)
                for name, value in of_tokens.items():
                    sums[name].append(value / num_rows)
                marks = self.heads["marks"].loss(halfway, rows["marks"])
                sums["marks"].append(marks / num_marks.clamp(min=1))
            of_answers |= {name: torch.stack(values).sum() for name, values in sums.items()}
            if self.stage == "reading" or self.done >= first_round(plan):
                of_answers["colors"] = self.heads["colors"].loss(features, batch["colors"])
        weigh = plan["weights"]
        loss = sum(faded * weigh[name] * value for name, value in parts.items())
        loss = loss + sum(weigh[name] * value for name, value in of_answers.items())
        told = {name: value.detach() for name, value in (parts | of_answers).items()}
        return loss, told | {"patches right": accuracy}

    def look(self, loss: torch.Tensor, told: dict):
        """A line of the log: the losses, and what new scenes of the training sets are answered with."""
        line = f"{self.stage} {self.done}/{self.plan[self.stage]['batches']}, {self.seconds / 60:.0f} min: "
        line += f"loss {loss.item():.3f} (" + ", ".join(f"{k} {v.item():.3f}" for k, v in told.items()) + ")"
        if self.stage != "tower":
            kinds = kinds_measured(self.plan)
            codec = self.codec if "segment" in kinds else None
            num_nothing = self.plan["look_scenes"] if self.plan[self.stage]["nothing"] else 0
            material = load_material(tuple(self.plan["styles"]), self.store, tuple(self.plan["things"]))
            seed = 1_000_000 + self.done  # new ones each time
            found = evaluate(
                self.model, self.tokenizer, material, 1.0, self.plan["look_scenes"], seed, codec,
                num_nothing, self.signals.check, kinds, count_measured(self.plan),
            )  # fmt: skip
            line += "\n  right: " + ", ".join(f"{kind} {value:.2f}" for kind, value in found.items())
        tqdm.write(line)
        sys.stdout.flush()


def as_stored(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rounded to bfloat16."""
    return {name: tensor.bfloat16().float() for name, tensor in weights.items()}


def kinds_measured(plan: dict) -> tuple[str, ...]:
    return tuple(kind for kind in KINDS_OF_QUESTIONS if kind in plan["answers"]["kinds"])


def count_measured(plan: dict) -> int | None:
    """One thing on a picture where no more were learned; None: one to three."""
    return 1 if set(plan["answers"]["counts"]) == {1} else None


# -- What a run is told about in the card ---------------------------------------------------------


def commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True,
            cwd=Path(__file__).parent,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def command_of(preset: str) -> str:
    return "python -m tiny_model.train_tiny" + ("" if preset == "full" else f" --preset {preset}")


def digest_of_data() -> str:
    """Of all that scenes are made from and that is no code."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    files = [folder / "drawings.json", folder / "other_drawings.json"]
    files += sorted(folder.glob("fonts/*.ttf")) + sorted(folder.glob("photographs/*.jpg"))
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


# -- The commands ---------------------------------------------------------------------------------


def find_codec(run: Run):
    """The mask codec comes first: trained here, unless it is in the folder already."""
    if run.codec_file.exists():
        return
    if run.plan["codec"] == "shipped":
        file = Path(__file__).resolve().parent.parent / "paligemma-tiny" / "mask_decoder.safetensors"
    else:
        folder = run.out / "masks"
        train_masks.main(["--out", str(folder)])
        file = folder / "mask_decoder.safetensors"
    replace_file(run.codec_file, file.read_bytes())


def train(args: argparse.Namespace):
    preset = "smoke" if args.smoke else args.preset
    out = args.out or Path("training" if preset == "full" else f"training-{preset}")
    folder = out / "paligemma-tiny"
    if (folder / "README.md").exists():
        raise InputError(f"{folder} is there already: move it away, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    with Signals().noted() as signals:
        run = Run(preset, out, signals)
        if run.state_file.exists():
            run.compare(read_state(run.state_file))
    find_codec(run)
    with signals.noted():
        run.start()
        run.train()
        model, plan = run.model, run.plan
        model.load_state_dict(as_stored(run.mean.module.state_dict()))  # what is measured is what is stored
        has_masks = "segment" in plan["answers"]["kinds"]
        columns = accuracy_columns(
            model, run.tokenizer, run.codec if has_masks else None, plan["final_scenes"],
            plan["final_nothing"], run.store, plan["things"], plan["columns"], kinds_measured(plan),
            signals.check, count_measured(plan), plan["styles"],
        )  # fmt: skip
        found = dict(bar(columns, total=len(plan["columns"]), desc="accuracy", unit="column"))
        table = markdown_table(found)
        codec_file = run.codec_file if has_masks else None
        state = {name: getattr(run, name) for name in ("about", "choices", "seconds", "plan")}
        facts = facts_of(state, time_of_codec(out), found, plan["final_scenes"], plan["final_nothing"])
        write_facts(out / "card.json", facts)
        known = known_prompts(plan["things"], kinds_measured(plan))
        write_checkpoint(folder, model, run.tokenizer, run.config, codec_file, known, model_card(facts))
    write(f"{table}\n\nThe checkpoint is in {folder}. Try it:\n  python inference.py --model {folder}")


def measure(args: argparse.Namespace):
    """Prints the table of a checkpoint, or of the weights in the state of a run."""
    folder = args.measure
    store = Path(args.out) / "rendered.zip" if args.out else None
    # What the plan of a run teaches; a checkpoint is asked about everything.
    taught, titles, num_nothing = {}, tuple(COLUMNS), PLAN["final_nothing"]
    if (folder / "state.pt").exists():
        state = read_state(folder / "state.pt")
        plan, store = state["plan"], folder / "rendered.zip"
        titles, num_nothing = plan["columns"], plan["final_nothing"]
        taught = {
            "things": plan["things"], "kinds": kinds_measured(plan), "count": count_measured(plan),
            "trained": plan["styles"],
        }  # fmt: skip
        tokenizer = build_tokenizer()
        model = build_model(build_config(tokenizer, plan["sizes"]))
        mean = AveragedModel(model)
        mean.load_state_dict(state["mean"])
        is_over = state["done"] == plan[state["stage"]]["batches"]
        model.load_state_dict(as_stored(mean.module.state_dict() if is_over else state["model"]))
        write(f"{folder / 'state.pt'}: {state['stage']}, {state['done']} batches")
    else:
        model, tokenizer = load_hf_model(folder, precision="float32")
    codec = load_mask_decoder(folder)
    codec = codec.float() if codec is not None else None
    titles, num_nothing = args.columns or titles, num_nothing if args.nothing is None else args.nothing
    columns = {}
    for title, found in accuracy_columns(
        model, tokenizer, codec, args.scenes, num_nothing, store, titles=titles, **taught
    ):
        columns[title] = found
        if args.figures is not None:
            line = {"column": title, "scenes": args.scenes, "nothing": num_nothing, "found": found}
            with args.figures.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        write(f"{title}: " + ", ".join(f"{kind} {value:.3f}" for kind, value in found.items()))
    write(markdown_table(columns, 3))


def main(argv: list[str] | None = None):
    parser = Parser(
        prog="train_tiny",
        description="Trains paligemma-tiny from nothing; goes on where it was interrupted.",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for the results (default: training, training-minutes, ...)"
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), default="full", help="default: full")
    parser.add_argument("--smoke", action="store_true", help="every step in small: --preset smoke")
    parser.add_argument(
        "--measure", type=Path, metavar="DIR", help="train nothing, measure a checkpoint or a run's state"
    )
    parser.add_argument("--scenes", type=int, default=400, help="for --measure: scenes in each column")
    parser.add_argument(
        "--nothing", type=int, help="for --measure: pictures of no thing (default: 300, or the plan's)"
    )
    parser.add_argument(
        "--figures", type=Path, metavar="FILE", help="for --measure: lines are added to it, for the card"
    )
    parser.add_argument(
        "--columns", nargs="+", choices=tuple(COLUMNS), metavar="COLUMN", help="for --measure: these alone"
    )
    args = parser.parse_args(argv)
    keep_freed_memory()
    try:
        run_program(measure if args.measure else train, args, parser, CheckpointError)
    except (Stopped, KeyboardInterrupt) as stopped:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        sys.exit(128 + getattr(stopped, "number", 2))


if __name__ == "__main__":
    main()
