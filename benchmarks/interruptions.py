"""Kills a training again and again, at any moment, and lets it go on: the weights in the end are the same.

    python -m benchmarks.interruptions                20 kills of one training on the shipped small model
    python -m benchmarks.interruptions --times 3

One training runs through. A second one is killed (SIGKILL: nothing can be tidied up) after a random time,
goes on with --resume, is killed again, and so on; then it may finish. Each time more of it is over, so the
kills fall on its start, on the features, between steps, into a save and on the last files. In the end the
adapters of both have to be the same bytes.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEARN = ["--epochs", "6", "--rank", "4", "--batch", "4", "--seed", "1"]


def small_set(folder: Path, count: int = 24) -> Path:
    """A few of the shipped examples, so that a whole training takes seconds."""
    shipped = ROOT / "finetuning" / "everything"
    lines = (shipped / "train.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    entries = [json.loads(line) for line in lines]
    for entry in entries:
        entry["image"] = str(shipped / entry["image"])
    path = folder / "few.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "finetune.py", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*arguments: str) -> float:
    """Runs to the end; the seconds that it took."""
    begun = time.monotonic()
    process = start(*arguments)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"finetune.py {' '.join(arguments)} ended with {process.returncode}:\n{errors}")
    return time.monotonic() - begun


def bytes_of(out: Path) -> dict[str, str]:
    """What has to be the same: the weights, and every number that was noted."""
    names = ("adapter_model.safetensors", "log.jsonl")
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}


def last_step(out: Path) -> int:
    """How many steps the last save knows of."""
    from safetensors import safe_open

    path = out / "training.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as stored:
        return json.loads(stored.metadata()["history"])["step"]


def next_command(out: Path, arguments: list[str]) -> list[str]:
    """Goes on, or begins where not even the settings had been written."""
    if (out / "settings.json").exists():
        return ["--resume", str(out)]
    return [*arguments, "--out", str(out)]


def interrupt(times: int, seed: int) -> tuple[int, list[str]]:
    """How often it was killed while it ran, and where; raises if the weights are not the same."""
    dice, killed, finished = random.Random(seed), [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = ["--data", str(small_set(folder)), "--model", str(ROOT / "paligemma-tiny"), *LEARN]
        seconds = finish(*arguments, "--out", str(folder / "through"))
        out = folder / "killed"
        while len(killed) < times:
            if (out / "finished").exists():  # over: another one from the start
                assert bytes_of(out) == bytes_of(folder / "through"), "the weights differ"
                finished += 1
                out.rename(folder / f"killed-{finished}")
            process = start(*next_command(out, arguments))
            try:
                process.communicate(timeout=dice.uniform(0.2, 0.9) * seconds)
                seconds *= 0.8  # it was over before: the machine has become quicker
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                killed.append(f"step {last_step(out)}")
            if process.returncode not in (0, -9):
                raise SystemExit(f"ended with {process.returncode} after {killed}")
        if not (out / "finished").exists():
            finish(*next_command(out, arguments))
        assert bytes_of(out) == bytes_of(folder / "through"), "the weights differ"
    return len(killed), killed


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Kills a training again and again.")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    count, where = interrupt(args.times, args.seed)
    print(f"Killed {count} times (saved last: {', '.join(where)}); in the end the same weights and log.")


if __name__ == "__main__":
    main()
