"""This project against transformers, on the machine at hand: load, first token, tokens, memory.

    python -m benchmarks.compare --size full        the 3B model, random weights (5.9 GB, made once)
    python -m benchmarks.compare --size small       a small one, in seconds: does all of this work?
    ... --busy 2                                    and then again, while two other programs compute
    ... --keep                                      puts the figures in benchmarks/README.md

A kind of CPU has one column there; `--keep` replaces the column of the kind that it runs on.

Each run is a process of its own, and the programs take turns, so that a machine that slows down does
so for all. For the same reason the limits belong to a run: after each of this project's tokens some of
the weights are only read, and after the last the products are done alone. Before a run its files are
read once: what is measured is the work, not the disk. The table gives medians, and ratios to the better
of transformers' two dtypes.
"""

import argparse
import contextlib
import functools
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS, README = HERE / "results", HERE / "README.md"
BEGIN, END = "<!-- written by compare.py --keep -->", "<!-- end -->"
# transformers' float32 model comes last: it leaves no room for the files in the system's cache.
QUEUE = [("transformers", "bfloat16"), ("ours", "auto"), ("ours", "int8"), ("transformers", "float32")]
PROMPT_TOKENS = 6  # after the picture's: 262 tokens with the 3B model, as "caption en" has
ROWS = [
    ("load, s", "load", "s"),
    ("first token, s", "first", "s"),
    ("each further token, s", "token", "s"),
    ("peak memory, GB", "memory", "GB"),
]
NAMES = ["transformers float32", "transformers bfloat16", "ours auto", "ours int8"]
# What tells kinds of CPU apart where the name does not, the newest first; Linux' names of them.
INSTRUCTIONS = {
    "amx_tile": "AMX",
    "avx512_bf16": "AVX-512 with bfloat16",
    "avx512_vnni": "AVX-512 with VNNI",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX2 with VNNI",
    "avx2": "AVX2",
}


# ------------------------------------------------------------------ one run, in its own process


def inputs(folder: Path) -> dict:
    """A picture of random numbers and a prompt of random words: the same for all."""
    import torch

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    vision = config["vision_config"]
    size = vision.get("image_size", 224)
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(4, 250, (PROMPT_TOKENS,), generator=generator).tolist()
    words[0] = config["bos_token_id"]
    ids = torch.tensor([[config["image_token_index"]] * (size // vision["patch_size"]) ** 2 + words])
    pixels = torch.rand(1, 3, size, size, generator=generator) * 2 - 1
    return {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)}


def run_ours(folder: Path, precision: str, num_tokens: int) -> dict:
    from generation_1 import generate
    from inference import peak_memory
    from speed.loading import load_model

    start = time.perf_counter()
    model, _ = load_model(folder, precision=precision)
    load = time.perf_counter() - start
    first_logits = keep_first_logits(model, lambda output: output["logits"])
    batch = inputs(folder)
    steps, tokens, reads = [], [], []
    start = time.perf_counter()
    for token in generate(model, batch, eos_token_id=-1, max_tokens=num_tokens):
        steps.append(time.perf_counter() - start)
        tokens.append(token[0])
        reads.append(memory_speed(model))
        start = time.perf_counter()
    found = {"load": load, "steps": steps, "tokens": tokens, "logits": first_logits[0]}
    found |= {"memory": peak_memory(), "reads": statistics.median(reads), "products": time_of_products(model)}
    first, *further = times_without_products(model, batch, num_tokens)
    return found | {"first_rest": first, "rest": statistics.median(further)}


def steps_between(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def seconds_for(work) -> float:
    """The median of some times, after one that is not counted."""
    times = []
    for _ in range(8):
        work()
        times.append(time.perf_counter())
    return statistics.median(steps_between(times))


def memory_speed(model) -> float:
    """Bytes that are read in a second: 256 MiB of the embedding table, as whole numbers of 32 bits."""
    import torch

    weight = model.language_model.lm_head.weight.detach()
    part = weight[: 2**28 // weight[0].nbytes].view(torch.int32)
    start = time.perf_counter()
    part.amax()
    return part.nbytes / (time.perf_counter() - start)


def linear_layers(model) -> list:
    """nn.Linear, and what speed puts in its place."""
    from torch import nn

    from speed.linear import Bf16Linear, Int8Linear

    return [module for module in model.modules() if isinstance(module, (nn.Linear, Bf16Linear, Int8Linear))]


def time_of_products(model) -> float:
    """Seconds for one row's products with all of the decoder's matrices, by the quickest that PyTorch has."""
    import torch

    from speed.bf16_products import bf16_row, bf16_row_twice, bf16_vector
    from speed.int8_products import int_mm

    def seconds_by(way, weights: list) -> float:
        x = torch.ones(1, weights[0].shape[1], dtype=dtype)
        return seconds_for(lambda: [way(x, weight) for weight in weights])

    by_length = {}
    for module in linear_layers(model.language_model):
        by_length.setdefault(module.weight.shape[1], []).append(module.weight)
    dtype, ways = model.language_model.lm_head.weight.dtype, (bf16_row, bf16_row_twice, bf16_vector)
    if dtype == torch.int8:
        dtype, ways = torch.uint8, (int_mm,)
    with torch.inference_mode():
        return sum(min(seconds_by(way, weights) for way in ways) for weights in by_length.values())


def times_without_products(model, batch: dict, num_tokens: int) -> list[float]:
    """Seconds for each token when no linear layer multiplies: the norms, attention, and all else."""
    from decoder_1 import GemmaMLP
    from generation_1 import generate
    from speed.linear import Int8MLP

    def idle(module):
        """Its forward: zeros for the prompt, then the same numbers for each token."""
        multiply, kept = module.forward, []

        def forward(x):
            if x.shape[-2] > 1:
                return x.new_zeros(*x.shape[:-1], len(module.weight))
            if not kept:
                kept.append(multiply(x))
            return kept[0].clone()

        return forward

    for module in linear_layers(model):
        module.forward = idle(module)
    for module in model.modules():
        if isinstance(module, Int8MLP):  # which multiplies by itself
            module.forward = functools.partial(GemmaMLP.forward, module)
    tokens = generate(model, batch, eos_token_id=-1, max_tokens=num_tokens)
    return steps_between([time.perf_counter(), *(time.perf_counter() for _ in tokens)])


def run_transformers(folder: Path, dtype: str, num_tokens: int) -> dict:
    import torch
    from transformers import PaliGemmaForConditionalGeneration
    from transformers.generation.streamers import BaseStreamer

    from inference import peak_memory

    class Clock(BaseStreamer):
        """Notes when each token comes; what is put first is the prompt."""

        def __init__(self):
            self.times = []

        def put(self, value):
            self.times.append(time.perf_counter())

        def end(self):
            pass

    start = time.perf_counter()
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype))
    load = time.perf_counter() - start
    first_logits = keep_first_logits(model, lambda output: output.logits)
    model.generation_config.eos_token_id = None
    batch, clock = inputs(folder), Clock()
    batch |= {"pixel_values": batch["pixel_values"].to(model.dtype)}
    # What a processor gives without a suffix: all is prefix, and attends in both directions.
    batch |= {"token_type_ids": torch.zeros_like(batch["input_ids"])}
    start = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(**batch, max_new_tokens=num_tokens, do_sample=False, streamer=clock)
    tokens = output[0, batch["input_ids"].shape[1] :].tolist()
    steps = steps_between([start, *clock.times[1:]])
    found = {"load": load, "steps": steps, "tokens": tokens, "logits": first_logits[0]}
    return found | {"memory": peak_memory()}


def keep_first_logits(model, logits_of) -> list:
    kept = []

    def keep(_, __, output):
        if not kept:
            kept.append(logits_of(output)[0, -1].float().clone())

    model.register_forward_hook(keep)
    return kept


def work(args: argparse.Namespace):
    """What `--run` does: measures one program and prints what it found as JSON."""
    program, precision = args.run
    if program == "ours":
        from speed import threads

        threads.sleep_while_waiting()  # as inference.py does
    import torch

    import_all(program)
    found = (run_ours if program == "ours" else run_transformers)(args.folder, precision, args.tokens)
    logits = found.pop("logits")
    torch.save(logits, args.logits)
    steps = found.pop("steps")
    found |= {"first": steps[0], "token": statistics.median(steps[1:]), "memory": found["memory"] / 1e9}
    print("\n" + json.dumps(found))


def import_all(program: str):
    """Imports are not what is compared."""
    if program == "ours":
        import inference  # noqa: F401
    else:
        import transformers.models.paligemma.modeling_paligemma  # noqa: F401


def measure_limits():
    """What `--limits` does: how fast PyTorch's products are on this machine."""
    import torch
    import torch.nn.functional as F

    with torch.inference_mode():
        rows, weight = torch.randn(262, 2048), torch.randn(4096, 2048)
        products = 2 * rows.shape[0] * weight.numel()
        rows8, weight8 = rows.mul(30).add(127).to(torch.uint8), weight.mul(30).to(torch.int8)
        rows16, weight16 = rows.bfloat16(), weight.bfloat16()
        limits = {
            "float32 products, GFLOP/s": products / 1e9 / seconds_for(lambda: F.linear(rows, weight)),
            "bfloat16 products, GFLOP/s": products / 1e9 / seconds_for(lambda: F.linear(rows16, weight16)),
            "int8 products, GOP/s": products / 1e9 / seconds_for(lambda: torch._int_mm(rows8, weight8.t())),
        }
    print("\n" + json.dumps(limits))


# --------------------------------------------------------------------------- all runs in turn


def read_once(folder: Path):
    """Brings the files of a folder into the system's cache."""
    for path in folder.iterdir():
        if path.suffix in (".safetensors", ".int8"):
            with path.open("rb", buffering=0) as file:
                while file.read(2**24):
                    pass


def call(*arguments: str, folder: Path | None = None) -> dict:
    """This program in a process of its own; the last line that it prints is its result."""
    if folder is not None:
        read_once(folder)
    command = [sys.executable, "-m", "benchmarks.compare", *arguments]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=offline)
    if result.returncode != 0:
        sys.exit(f"compare.py: {' '.join(arguments)} ended with {result.returncode}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def make_checkpoint(folder: Path, size: str):
    import torch

    if (folder / "config.json").is_file():
        return
    if size == "full":
        from random_weights import full_size as random_checkpoint

        random_checkpoint.main([str(folder)])
        return
    from random_weights.small import random_checkpoint, small_config

    text = {"hidden_size": 256, "intermediate_size": 1024, "head_dim": 64}
    vision = {"hidden_size": 192, "intermediate_size": 512, "image_size": 32}
    config = small_config(text=text, vision=vision, torch_dtype="bfloat16")
    random_checkpoint(folder, config, dtype=torch.bfloat16)


def cpuinfo(name: str) -> str:
    """An entry of Linux' account of the CPU; "" elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def kind_of_cpu() -> str:
    """Its name, which a virtual machine may hide, and what it can multiply with."""
    import torch

    flags = cpuinfo("flags").split()
    instructions = next((words for flag, words in INSTRUCTIONS.items() if flag in flags), None)
    name = cpuinfo("model name") or platform.processor() or platform.machine()
    instructions = instructions or torch.backends.cpu.get_cpu_capability()
    return f"{name}, {instructions}, {torch.get_num_threads()} threads"


def machine() -> str:
    import psutil
    import torch
    import transformers

    memory = psutil.virtual_memory().total / 1e9
    return (
        f"{memory:.0f} GB; {platform.system()}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )


@contextlib.contextmanager
def busy(processes: int):
    """Other programs that compute all the time."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def bytes_read_for_a_token(folder: Path) -> dict[str, float]:
    """The decoder's weights, each once; the output layer is the embedding table."""
    from random_weights.small import tensor_shapes

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shapes = tensor_shapes(config)
    numbers = sum(
        shape[0] * shape[1]
        for name, shape in shapes.items()
        if name.startswith("language_model.") and len(shape) == 2
    )
    return {"auto": 2.0 * numbers, "int8": 1.0 * numbers}


def operations_for_the_first_token(folder: Path) -> float:
    """Multiplications and additions of the linear layers, which are nearly all there are.

    Each patch meets the tower and the projector, each token the decoder, except for its last MLP and
    the output layer, of which only the last token is read.
    """
    from random_weights.small import tensor_shapes

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    patches = (config["vision_config"].get("image_size", 224) // config["vision_config"]["patch_size"]) ** 2
    last_mlp = f"language_model.model.layers.{config['text_config']['num_hidden_layers'] - 1}.mlp."
    total = 0
    for name, shape in tensor_shapes(config).items():
        if len(shape) != 2 or "embed" in name:
            continue
        rows = patches + PROMPT_TOKENS if name.startswith("language_model.") else patches
        total += 2 * (1 if name.startswith(last_mlp) else rows) * math.prod(shape)
    return total


def equal_tokens(tokens: list[int], others: list[int]) -> int:
    """How many of the first tokens are the same."""
    same = [a == b for a, b in zip(tokens, others, strict=True)]
    return same.index(False) if False in same else len(same)


def logit_error(logits, exact) -> float:
    """Root mean square of the difference, as a part of the logits' own spread."""
    return float((logits - exact).square().mean().sqrt() / exact.std())


def compare(args: argparse.Namespace) -> dict:
    """Runs everything in turn; returns the medians, also of what runs beside busy programs."""
    import torch

    from speed import int8_file

    make_checkpoint(args.folder, args.size)
    (args.folder / int8_file.NAME).unlink(missing_ok=True)
    logits_file = args.folder / "logits.pt"
    common = ["--folder", str(args.folder), "--tokens", str(args.tokens), "--logits", str(logits_file)]
    runs, logits, limits = {}, {}, []

    def measure(program: str, precision: str, name: str):
        found = call("--run", program, precision, *common, folder=args.folder)
        logits[name] = torch.load(logits_file)
        logits_file.unlink()
        runs.setdefault(name, []).append(found)
        print(f"{name}: " + ", ".join(f"{key} {found[key]:.3f}" for _, key, _ in ROWS), file=sys.stderr)

    measure("ours", "int8", "ours int8, first start")
    for _ in range(args.rounds):
        limits.append(call("--limits"))
        for program, precision in QUEUE:
            measure(program, precision, f"{program} {precision}")
    with busy(args.busy):
        for _ in range(args.rounds if args.busy else 0):
            for program, precision in QUEUE[:-1]:
                measure(program, precision, f"{program} {precision}, busy")

    exact = "transformers float32"
    limits = {key: statistics.median(found[key] for found in limits) for key in limits[0]}
    found = {"cpu": kind_of_cpu(), "machine": machine(), "rounds": args.rounds, "tokens": args.tokens}
    found |= {"busy": args.busy, "limits": limits, "runs": {}}
    for name, results in runs.items():
        numbers = [key for key in results[0] if key != "tokens"]
        medians = {key: statistics.median(result[key] for result in results) for key in numbers}
        medians["equal_tokens"] = equal_tokens(results[0]["tokens"], runs[exact][0]["tokens"])
        medians["logit_error"] = logit_error(logits[name], logits[exact])
        found["runs"][name] = medians
    found["limited_by"] = what_limits(found, args.folder)
    return found


def rows_of(found: dict) -> dict[str, list[str]]:
    """A table's rows: its title, the four programs' values, and ratios to the better of transformers'.

    Memory's ratios are to bfloat16's, and a busy machine's too: float32 is not run there.
    """
    runs, rows = found["runs"], {}

    def add(title: str, key: str, suffix: str = ""):
        values = [runs.get(name + suffix, {}).get(key) for name in NAMES]
        best = values[1] if key == "memory" else min(value for value in values[:2] if value is not None)
        ratios = [f"{value / best:.2f}" for value in values[2:]]
        rows[title] = ["" if value is None else f"{value:.3g}" for value in values] + ratios

    for title, key, _ in ROWS:
        add(title, key)
    if found["busy"]:
        for title, key, _ in ROWS[1:3]:
            plural = "s" if found["busy"] > 1 else ""
            add(f"{title}, beside {found['busy']} busy program{plural}", key, ", busy")
            slower = [runs[f"{name}, busy"][key] / runs[name][key] for name in NAMES[1:]]
            rows[f"{title}: busy / quiet"] = ["", *(f"{value:.1f}" for value in slower), "", ""]
    extra = (("tokens as float32's", "equal_tokens", "d"), ("logit error", "logit_error", ".2%"))
    for title, key, form in extra:
        rows[title] = [*(f"{runs[name][key]:{form}}" for name in NAMES), "", ""]
    return rows


def table(found: dict) -> str:
    """One machine's figures as Markdown."""
    lines = [f"{found['cpu']}; {found['machine']}", ""]
    rounds = "1 round" if found["rounds"] == 1 else f"{found['rounds']} rounds"
    lines += [f"{rounds}, {found['tokens']} tokens, medians.", ""]
    lines += ["| | " + " | ".join(NAMES) + " | auto : tf | int8 : tf |", "|---" * (len(NAMES) + 3) + "|"]
    lines += [f"| {title} | " + " | ".join(values) + " |" for title, values in rows_of(found).items()]
    first = found["runs"]["ours int8, first start"]
    lines += [
        "",
        f"First start of int8, the weights rounded and kept: load {first['load']:.1f} s, "
        f"peak memory {first['memory']:.2f} GB.",
        "",
        *found["limited_by"],
    ]
    return "\n".join(lines)


def what_limits(found: dict, folder: Path) -> list[str]:
    """What the machine's memory and PyTorch's products alone would take."""
    runs, limits = found["runs"], found["limits"]
    lines = ["PyTorch's products, 262 rows:"]
    lines += [*(f"- {name}: {value:,.1f}" for name, value in limits.items()), ""]
    operations = operations_for_the_first_token(folder)
    exact = max(limits["float32 products, GFLOP/s"], limits["bfloat16 products, GFLOP/s"])
    rates = {"auto": exact, "int8": limits["int8 products, GOP/s"]}
    best = {key: min(runs[name][key] for name in NAMES[:2]) for key in ("first", "token")}
    for precision, size in bytes_read_for_a_token(folder).items():
        run = runs[f"ours {precision}"]
        least = size / run["reads"]
        lines.append(
            f"- {precision}, each further token: {size / 1e9:.2f} GB to read, {least:.3f} s at the "
            f"{run['reads'] / 1e9:.1f} GB/s that memory gave then; took {run['token'] / least:.2f} x that"
        )
        floor = run["products"] + run["rest"]
        lines.append(
            f"  (PyTorch's products alone {run['products']:.3f} s, all but products {run['rest']:.3f} s: "
            f"together {floor / best['token']:.2f} of transformers' time, {floor / least:.2f} x)"
        )
        least = operations / 1e9 / rates[precision]
        lines.append(
            f"- {precision}, first token: {operations / 1e9:,.0f} G operations, {least:.2f} s at that rate; "
            f"took {run['first'] / least:.2f} x that"
        )
        floor = least + run["first_rest"]
        lines.append(
            f"  (PyTorch's products alone {least:.2f} s, all but products {run['first_rest']:.2f} s: "
            f"together {floor / best['first']:.2f} of transformers' time)"
        )
    return lines


# ------------------------------------------------------------------- the figures that are kept


def keep(found: dict):
    """Keeps what was found, and writes all that was kept into README.md."""
    RESULTS.mkdir(exist_ok=True)
    name = "-".join("".join(letter if letter.isalnum() else " " for letter in found["cpu"].lower()).split())
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{kept_tables()}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def kept_tables() -> str:
    """First a column for each kind of CPU, ours and its ratio; then each machine's own table."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    tables = [rows_of(found) for found in kept]
    titles = dict.fromkeys(title for rows in tables for title in rows)
    lines = ["| | " + " | ".join(found["cpu"] for found in kept) + " |", "|---" * (len(kept) + 1) + "|"]
    for place, precision in ((2, "auto"), (3, "int8")):
        for title in titles:
            cells = []
            for rows in tables:
                values = rows.get(title, [""] * 6)
                cells.append(values[place] + (f" ({values[place + 2]})" if values[place + 2] else ""))
            lines.append(f"| {precision}: {title} | " + " | ".join(cells) + " |")
    return "\n".join(["", *lines, *("\n" + table(found) for found in kept), ""])


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Compares this project with transformers on this machine.")
    parser.add_argument("--size", choices=("full", "small"), default="small")
    parser.add_argument("--folder", type=Path, help="the checkpoint, made if it is not there (default: here)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run (default: 3)")
    parser.add_argument("--tokens", type=int, default=16, help="how many are written (default: 16)")
    parser.add_argument(
        "--busy",
        type=int,
        default=0,
        metavar="N",
        help="then the same beside N programs that compute all the time",
    )
    parser.add_argument("--keep", action="store_true", help="puts the figures in benchmarks/README.md")
    parser.add_argument("--json", type=Path, help="also writes what was found to this file")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--limits", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--logits", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.rounds < 1 or args.tokens < 2:
        parser.error("--rounds is 1 or more, and --tokens 2 or more: the first one takes longer than others")
    if args.keep and args.size != "full":
        parser.error("--keep is for --size full: the small model's figures are of no use")
    if args.busy < 0:
        parser.error("--busy is 0 or more")
    if args.folder is None:
        args.folder = HERE / f"random-{args.size}"
    if args.limits:
        measure_limits()
    elif args.run:
        work(args)
    else:
        found = compare(args)
        print(table(found))
        if args.keep:
            keep(found)
        if args.json is not None:
            args.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
