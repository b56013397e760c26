"""Fine-tuning on the machine at hand: one step of the 3B model beside PEFT's, and what is lost over the new.

    python -m benchmarks.finetune speed --size full       the 3B model, random weights (5.9 GB, made once)
    python -m benchmarks.finetune speed                   a small one, in a minute: does all of this work?
    python -m benchmarks.finetune lost                    the shipped set, learned in three ways; the old ones

speed: LoRA of rank 8 beside q, k, v and o of the decoder, bfloat16 weights, one example of 270 tokens of
which 8 are learned; AdamW, clipping. Each program is a process of its own, and they take turns. The steps
of this project come three times: with the tower's work in each step, with its features computed once, and
with these four examples at a time. Memory is the most that the process held, mapped weights included.

lost: `paligemma-tiny` before and after it has learned the shipped set with LoRA, its attention alone, and
everything; asked the questions that it could answer before, about 200 new scenes of each kind.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGETS, RANK = ("q_proj", "k_proj", "v_proj", "o_proj"), 8
WORDS, LEARNT = 14, 8  # tokens after the picture's
RUNS = ("transformers and PEFT", "here", "here, features kept", "here, features kept, batch 4")
MODES = ("lora", "attention", "all")
STEPS = 3  # the first is not counted


# --------------------------------------------------------------------------------- one run's work


def example(folder: Path, count: int) -> dict:
    """Random pictures and words, as a batch that both programs take."""
    import torch

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    vision = config["vision_config"]
    size = vision.get("image_size", 224)
    num_patches = (size // vision["patch_size"]) ** 2
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(4, 250, (count, WORDS), generator=generator)
    words[:, 0] = config["bos_token_id"]
    picture = torch.full((count, num_patches), config["image_token_index"])
    input_ids = torch.cat([picture, words], dim=1)
    types = torch.zeros_like(input_ids)
    types[:, -LEARNT:] = 1
    return {
        "pixel_values": torch.rand(count, 3, size, size, generator=generator) * 2 - 1,
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "token_type_ids": types,
        "labels": input_ids.masked_fill(types == 0, -100),
    }


def time_steps(step) -> dict:
    from inference import peak_memory

    seconds, computing, losses = [], [], []
    for _ in range(STEPS):
        start, start_computing = time.perf_counter(), time.process_time()
        losses.append(step())
        seconds.append(time.perf_counter() - start)
        computing.append(time.process_time() - start_computing)
    medians = {"seconds": statistics.median(seconds[1:]), "computing": statistics.median(computing[1:])}
    return medians | {"losses": losses, "memory": peak_memory()}


def run_here(folder: Path, keeps_features: bool, count: int) -> dict:
    from speed import threads

    threads.sleep_while_waiting()  # as finetune.py does

    import torch
    from torch import nn

    from finetuning import memory
    from finetuning.fused import fuse
    from load_weights import load_hf_model
    from training_1 import add_lora, choose_parameters, sum_by_token, train_step

    torch.manual_seed(0)
    model, _ = load_hf_model(folder, precision="bfloat16")
    memory.prepare(model, "lora", "cpu", memory.quicker_way(model))
    add_lora(model.language_model, list(TARGETS), RANK, 2 * RANK)
    parameters = choose_parameters(model, "lora")
    fuse(model)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    batch, look = example(folder, count), 0.0
    if keeps_features:
        start = time.perf_counter()
        with torch.no_grad():
            batch["pixel_values"] = model.vision_tower(batch["pixel_values"])
        look = (time.perf_counter() - start) / count
        model.vision_tower = nn.Identity()
    model.train()
    found = time_steps(lambda: train_step(model, [batch], parameters, optimizer, sum_by_token))
    return found | {"count": count, "look": look, "learned": sum(p.numel() for p in parameters)}


def run_there(folder: Path) -> dict:
    import peft
    import torch
    from transformers import PaliGemmaForConditionalGeneration

    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
    pattern = rf".*language_model\..*\.({'|'.join(TARGETS)})"
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=pattern)
    ).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    batch = example(folder, 1)
    batch["pixel_values"] = batch["pixel_values"].bfloat16()

    def step() -> float:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item()

    return time_steps(step) | {"count": 1, "look": 0.0, "learned": sum(p.numel() for p in parameters)}


def work(name: str, folder: Path) -> dict:
    if name == RUNS[0]:
        return run_there(folder)
    return run_here(folder, keeps_features="kept" in name, count=4 if "batch 4" in name else 1)


# ---------------------------------------------------------------------------------- all of the runs


def checkpoint(folder: Path, size: str):
    if (folder / "config.json").exists():
        return
    from random_weights import full_size, small

    if size == "full":
        full_size.main([str(folder)])
    else:
        import torch

        small.random_checkpoint(folder, dtype=torch.bfloat16)


def compare(args: argparse.Namespace) -> dict[str, list[dict]]:
    """Each in its own process, in turn, so that a machine that slows down does so for all."""
    checkpoint(args.folder, args.size)
    found: dict[str, list[dict]] = {name: [] for name in RUNS}
    for _ in range(args.rounds):
        for name in RUNS:
            command = [sys.executable, "-m", "benchmarks.finetune", "speed", "--run", name]
            result = subprocess.run(
                [*command, "--folder", str(args.folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
            if result.returncode:
                raise SystemExit(f"{name} failed")
            found[name].append(json.loads(result.stdout.splitlines()[-1]))
            latest = found[name][-1]
            print(f"{name}: {latest['seconds']:.1f} s, {latest['memory'] / 1e9:.2f} GB", file=sys.stderr)
    return found


def table(found: dict[str, list[dict]]) -> str:
    lines = [
        "| | s a step | CPU seconds | s an example | as quick as PEFT | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    base = statistics.median(run["seconds"] for run in found[RUNS[0]])
    for name, runs in found.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        computing = statistics.median(run["computing"] for run in runs)
        each = seconds / runs[0]["count"]
        memory = max(run["memory"] for run in runs) / 1e9
        numbers = f"{seconds:.2f} | {computing:.2f} | {each:.2f} | {base / each:.2f} x | {memory:.2f} GB"
        lines.append(f"| {name} | {numbers} |")
    look = statistics.median(run["look"] for run in found[RUNS[2]])
    lines.append(f"\nThe features of a picture, once: {look:.2f} s.")
    return "\n".join(lines)


# ------------------------------------------------------------------------------- what is lost over it


def lost(args: argparse.Namespace):
    """Learns the shipped set in three ways and asks about old scenes before and after."""
    import torch

    from finetuning.adapter import load_adapter
    from load_weights import load_hf_model
    from tiny_model.batches import load_material
    from tiny_model.measure import evaluate, markdown_table
    from tiny_model.scenes import TRAINING_STYLES

    torch.set_num_threads(1)
    material = load_material(TRAINING_STYLES)
    tiny, columns = ROOT / "paligemma-tiny", {}

    def ask(title: str, model, tokenizer):
        columns[title] = evaluate(model, tokenizer, material, 1.0, args.scenes, 2)
        print(f"{title}: {columns[title]}", file=sys.stderr)

    ask("before", *load_hf_model(tiny, precision="float32"))
    with tempfile.TemporaryDirectory() as name:
        for mode in args.modes:
            out = Path(name) / mode
            command = [sys.executable, "finetune.py", "--train", mode, "--out", str(out)]
            result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            print(f"{mode}: {result.stdout}", file=sys.stderr)
            if mode == "lora":
                model, tokenizer = load_hf_model(tiny, precision="float32")
                load_adapter(model, out)
            else:
                model, tokenizer = load_hf_model(out, precision="float32")
            ask(mode, model, tokenizer)
    print(markdown_table(columns))


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Measures fine-tuning on this machine.")
    parser.add_argument("what", choices=("speed", "lost"))
    parser.add_argument("--size", choices=("full", "small"), default="small")
    parser.add_argument("--folder", type=Path, help="the checkpoint, made if it is not there (default: here)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is run (default: 1)")
    parser.add_argument("--scenes", type=int, default=200, help="of each kind (default: 200)")
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=MODES, help="of lost (default: all three)"
    )
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.folder is None:
        args.folder = Path(__file__).parent / f"random-{args.size}-bf16"
    if args.run:
        print(json.dumps(work(args.run, args.folder)))
    elif args.what == "speed":
        print(table(compare(args)))
    else:
        lost(args)


if __name__ == "__main__":
    main()
