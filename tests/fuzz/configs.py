"""config.json, spoilt: other values, missing entries, damaged text."""

import json
import random
from pathlib import Path

from tests.fuzz.harness import main
from tests.fuzz.spoil import checkpoint_in, command, picture_in, spoil_bytes, spoil_json, to_json

# What the file may hold besides.
MORE = {
    "text_config": {"rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 8192,
                    "hidden_act": "gelu", "attention_bias": False,
                    "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
    "vision_config": {"layer_norm_eps": 1e-6, "num_channels": 3, "hidden_act": "gelu"},
}  # fmt: skip


def make_case(rng: random.Random, folder: Path) -> list[str]:
    model = checkpoint_in(folder)
    path = model / "config.json"
    config = json.loads(path.read_text())
    if rng.random() < 0.5:
        for part, entries in MORE.items():
            config[part] |= entries
    content = to_json(spoil_json(rng, config))
    if rng.random() < 0.15:
        content = spoil_bytes(rng, content)
    path.write_bytes(content)
    return command(model, picture_in(folder))


if __name__ == "__main__":
    main("configs")
