"""Ways to spoil JSON and bytes, and a checkpoint and a picture to spoil."""

import atexit
import copy
import functools
import json
import random
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from random_weights.small import random_checkpoint


class Raw(str):
    """Text that stands in a JSON file as it is, though json would not write it so."""


VALUES = [
    None, True, False, 0, 1, -1, 2, 3, 7, 1.5, -0.0, 1e-300, Raw("1e400"), Raw("-1e400"), Raw("NaN"),
    2**31, 2**32 - 1, 2**63, 2**64, 10**9, 10**30, Raw("1" * 5000), -(10**12), "", "x", "gelu", "\ud800",
    "\0", "x" * 10_000, "1", "\n\n", "é", [], {}, [1], [[]], [None] * 100, {"": 0}, {"type": "x"},
    Raw("[" * 400 + "]" * 400), Raw("1e999999"),
]  # fmt: skip


def paths(value, path=()) -> list[tuple]:
    """Where there is something in nested dicts and lists; of long ones only the first and the last."""
    found = [path] if path else []
    if isinstance(value, dict):
        keys = list(value)
        for key in keys if len(keys) < 60 else keys[:20] + keys[-20:]:
            found += paths(value[key], (*path, key))
    if isinstance(value, list):
        for i in range(len(value)) if len(value) < 20 else [0, 1, len(value) - 1]:
            found += paths(value[i], (*path, i))
    return found


def spoil_json(rng: random.Random, value, values=VALUES):
    """Changes one to three places: another value, a number nearby, nothing, or twice."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = paths(value)
        if not places:
            break
        *way, last = rng.choice(places)
        holder = functools.reduce(lambda inner, key: inner[key], way, value)
        old, how = holder[last], rng.random()
        if how < 0.15:
            del holder[last]
        elif how < 0.3 and isinstance(old, (int, float)):
            holder[last] = rng.choice((old + 1, old - 1, old * 2, old // 2, -old, old * 1000))
        elif how < 0.4:
            other = rng.choice(places)
            holder[last] = copy.deepcopy(functools.reduce(find, other, value))
        elif how < 0.45 and isinstance(holder, dict):
            holder[rng.choice(("", "x", "\ud800", str(last).upper()))] = holder.pop(last)
        else:
            holder[last] = copy.deepcopy(rng.choice(values))
    return value


def find(inner, key):
    try:
        return inner[key]
    except (KeyError, IndexError, TypeError):
        return None


def to_json(value) -> bytes:
    """JSON, with Raw as it is; half a surrogate pair as an escape or, as no program should, as bytes."""
    raws = []

    def replaced(inner):
        if isinstance(inner, Raw):
            raws.append(inner)
            return f"@raw{len(raws) - 1}@"
        if isinstance(inner, dict):
            return {key: replaced(one) for key, one in inner.items()}
        return [replaced(one) for one in inner] if isinstance(inner, list) else inner

    text = json.dumps(replaced(value))
    for i, raw in enumerate(raws):
        text = text.replace(f'"@raw{i}@"', raw)
    return text.encode()


def spoil_bytes(rng: random.Random, content: bytes, head: int | None = None) -> bytes:
    """Flips, cuts, doubles or fills some bytes, mostly among the first `head`."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        end = len(data) if head is None or rng.random() < 0.2 else min(head, len(data))
        if end == 0:
            break
        at, how = rng.randrange(end), rng.random()
        if how < 0.5:
            data[at] ^= 1 << rng.randrange(8)
        elif how < 0.7:
            data[at] = rng.choice((0, 255, 127, rng.randrange(256)))
        elif how < 0.8:
            del data[at:]
        elif how < 0.9:
            del data[at : at + rng.randrange(1, 9)]
        elif how < 0.95:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            data[at : at + 8] = b"\xff" * 8
    return bytes(data)


@functools.cache
def good_checkpoint() -> Path:
    """A small random checkpoint, made once, and removed at the end of the process."""
    folder = tempfile.mkdtemp(prefix="fuzz-checkpoint-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return random_checkpoint(folder)


def checkpoint_in(folder: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(good_checkpoint(), folder / "checkpoint"))


def unspoilt(argv: list[str]) -> list[str]:
    """A case's arguments with the checkpoint as it was."""
    at = argv.index("--model") + 1
    return [*argv[:at], str(good_checkpoint()), *argv[at + 1 :]]


def picture_in(folder: Path) -> Path:
    path = folder / "picture.png"
    Image.new("RGB", (20, 15), (200, 90, 10)).save(path)
    return path


def command(model: Path, picture: Path, *more: str) -> list[str]:
    return [
        "--model",
        str(model),
        "--image",
        str(picture),
        "--prompt",
        "detect cat",
        "--max-tokens",
        "3",
        *more,
    ]
