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
        (out / "write.part").touch()
        (out / "write.part").unlink()
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
        for action in options(parser)
        if getattr(given, action.dest) != action.default
    ]
    if others:
        raise InputError(f"--resume takes all settings from {out}: leave out {' '.join(others)}")
    path = out / SETTINGS
    if not path.is_file():
        what = "has no settings.json" if out.is_dir() else "does not exist"
        raise InputError(f"--resume {out}: the folder {what}, so there is nothing to resume")
    args = parse_settings(path, parser)
    args.out, args.resume = str(out), str(out)
    if (out / FINISHED).exists():
        raise InputError(f"--resume {out}: this training is finished; --out starts another")
    for needed in filter(None, (args.data, args.eval, args.model)):
        if not Path(needed).exists():
            raise InputError(
                f"--resume: {needed} is not here; run this command in the folder where the training began"
            )
    if args.prints != fingerprints(args):
        raise InputError(f"--resume {out}: the data or the model is not what it was when the training began")
    return args


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What settings.json keeps of the command line."""
    return [action for action in parser._actions if action.dest not in ("help", "resume")]


def parse_settings(path: Path, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """settings.json as it was written; the parser looks at its arguments as if they were typed again."""

    def refuse(message: str):
        raise InputError(f"{path} is not what finetune.py writes: {message}")

    parser.error = refuse
    settings = read_json(path)
    arguments, threads = settings.get("arguments"), settings.get("threads")
    if not isinstance(arguments, dict):
        refuse("arguments are missing")
    words = []
    for action in options(parser):
        name, value = action.option_strings[-1], arguments.get(action.dest)
        if action.dest not in arguments or (value is None and action.dest in ("data", "model")):
            refuse(f"{name} is missing")
        if value is True:
            words.append(name)
        elif value is not None and value is not False:
            words.append(f"{name}={value}")
    if not isinstance(threads, int) or threads < 1:
        refuse("threads must be a number from 1")
    args = parser.parse_args(words)
    args.prints, args.threads = settings.get("prints"), threads
    return args


def fingerprints(args: argparse.Namespace) -> dict[str, str]:
    """What must not change between a start and going on."""
    found = {"data": args.data, "eval": args.eval}
    prints = {name: data.fingerprint(Path(path)) for name, path in found.items() if path}
    files = weight_files(Path(args.model))
    return prints | {"model": "; ".join(f"{file.name} {data.file_print(file)}" for file in files)}
