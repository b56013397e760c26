"""model.safetensors and the index of shards, spoilt: names, shapes, dtypes, offsets, lengths, numbers."""

import json
import random
import shutil
import struct
from pathlib import Path

from tests.fuzz.harness import main
from tests.fuzz.spoil import (
    VALUES,
    Raw,
    checkpoint_in,
    command,
    picture_in,
    spoil_bytes,
    spoil_json,
    to_json,
)

LENGTHS = (0, 1, 7, 8, 2**16, 2**31, 2**40, 2**63, 2**64 - 1)
SHAPES = ([], [0], [2**63], [2**32, 2**32], [-1], [10**9, 10**9], [1] * 100, [32], [1494, 32])
DTYPES = ("F64", "F16", "BF16", "F8_E4M3", "I8", "BOOL", "U64", "C64", "f32", "", None)


def make_case(rng: random.Random, folder: Path) -> list[str]:
    model = checkpoint_in(folder)
    path = model / "model.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    head, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in head if name != "__metadata__"]
    how = rng.random()
    if how < 0.2:
        head = spoil_json(rng, head)
    elif how < 0.4:
        tensor = head[rng.choice(names)]
        tensor[rng.choice(list(tensor))] = rng.choice((*SHAPES, *DTYPES, *VALUES))
    elif how < 0.5:
        old, new = (
            rng.choice(names),
            rng.choice(("", "x", "lm_head.weight", "\ud800", "a\nb", "x" * 5000, "..", *names)),
        )
        head[new] = head.pop(old)
    elif how < 0.6:  # numbers that are none, where the model cannot miss them
        start, _ = head["language_model.model.norm.weight"]["data_offsets"]
        bad = struct.pack("<f", rng.choice((float("nan"), float("inf"), -float("inf"), 3e38, -3e38)))
        data = data[:start] + bad * 8 + data[start + 32 :]
    elif how < 0.7:
        shard = rng.choice(("model.safetensors", "x.safetensors", "model-1.safetensors"))
        if shard != "model.safetensors":
            shutil.move(path, path := model / shard)
        weight_map = spoil_json(
            rng, dict.fromkeys(names, shard), [*VALUES, "../x.safetensors", "/etc/passwd", Raw("{}")]
        )
        (model / "model.safetensors.index.json").write_bytes(to_json({"weight_map": weight_map}))
    head = to_json(head)
    length = rng.choice(LENGTHS) if rng.random() < 0.05 else len(head)
    content = struct.pack("<Q", length) + head + data
    if how > 0.7:
        content = spoil_bytes(rng, content, head=len(head))
    path.write_bytes(content)
    return command(model, picture_in(folder))


if __name__ == "__main__":
    main("heads")
