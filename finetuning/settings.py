"""The folder of a training: made at its start, and the settings in it that --resume goes on with."""

import argparse
import contextlib
from pathlib import Path

from finetuning import data
from load_weights import read_json, weight_files
from program.command_line import InputError

SETTINGS, PRODUCTS, BEFORE, FINISHED = "settings.json", "products.json", "before.json", "finished"


def make_out(out: Path):
    """The folder for the results, which must be new or empty."""
    # A start that was killed may have left a file that was being written.
    if out.exists() and (not out.is_dir() or any(path.suffix != ".part" for path in out.iterdir())):
        what = "is a file" if not out.is_dir() else "is there already and holds files"
        hint = f", or go on with --resume {out}" if (out / SETTINGS).exists() else ""
        raise InputError(f"--out {out} {what}: nothing is overwritten; choose another{hint}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".part").touch()
        (out / ".part").unlink()
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from error


def unmake_out(out: Path):
    """Takes away what was written before it was found that the training cannot begin."""
    for name in (SETTINGS, PRODUCTS):
        (out / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        out.rmdir()  # only if nothing else is there


def read_settings(given: argparse.Namespace, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """All settings of the training that --resume names; nothing else may be given with it."""
    out = Path(given.resume)
    others = [
        action.option_strings[-1]
        for action in parser._actions
        if action.dest not in ("help", "resume") and getattr(given, action.dest) != action.default
    ]
    if others:
        raise InputError(f"--resume takes all settings from {out}: leave out {' '.join(others)}")
    path = out / SETTINGS
    if not path.is_file():
        what = "has no settings.json" if out.is_dir() else "does not exist"
        raise InputError(f"--resume {out}: the folder {what}, so there is nothing to go on with")
    try:
        settings = read_json(path)
        args = argparse.Namespace(**settings["arguments"])
        args.prints, args.threads = settings["prints"], settings["threads"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not what finetune.py writes: {error} is missing") from error
    args.out, args.resume = str(out), str(out)
    if (out / FINISHED).exists():
        raise InputError(f"--resume {out}: this training is finished; --out starts another")
    if args.prints != fingerprints(args):
        raise InputError(f"--resume {out}: the data or the model is not what it was when the training began")
    return args


def fingerprints(args: argparse.Namespace) -> dict[str, str]:
    """What must not change between a start and going on."""
    found = {"data": args.data, "eval": args.eval}
    prints = {
        name: data.fingerprint(Path(path)) for name, path in found.items() if path and Path(path).exists()
    }
    files = weight_files(Path(args.model))
    return prints | {"model": "; ".join(f"{file.name} {file.stat().st_size}" for file in files)}
