"""Writes a checkpoint of the 3B model's full size with random weights, to measure speed and memory.

    python -m random_weights.full_size /tmp/random-3b
    python inference.py --model /tmp/random-3b --max-tokens 10

The files, names, shapes and token ids are those of google/paligemma-3b-pt-224 in bfloat16 (two
shards, 5.9 GB), with a mask decoder in vae-oid.npz; the answers are nonsense.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from tqdm import tqdm

from random_weights.masks import random_vae
from random_weights.small import (
    BYTES,
    CHARACTERS,
    LOCATIONS,
    SEGMENTS,
    SPECIAL,
    gemma_like_tokenizer,
    tensor_shapes,
)

CONFIG = Path(__file__).with_name("paligemma-3b-pt-224-config.json")
FIRST_LOCATION = 256_000  # the id of <loc0000>, and so the size of Gemma's own vocabulary
SHARDS = 2


def full_size_tokenizer() -> Tokenizer:
    """The tests' tokenizer, its vocabulary filled up with made-up words to PaliGemma's ids."""
    tokenizer = json.loads(gemma_like_tokenizer().to_str())
    vocab = [*SPECIAL, *BYTES, "\n", *CHARACTERS]
    vocab += [f"▁word{i}" for i in range(FIRST_LOCATION - len(vocab))]
    tokenizer["model"] |= {"vocab": {word: i for i, word in enumerate(vocab)}, "merges": []}
    tokenizer["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(tokenizer))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ["\n", *LOCATIONS, *SEGMENTS]])
    tokenizer.add_special_tokens(["<image>"])
    return tokenizer


def random_tensor(shape: tuple[int, ...], block: torch.Tensor) -> torch.Tensor:
    """bfloat16 numbers scaled by the root of the inputs, as a new layer starts out.

    One block of random numbers is repeated: to draw three billion would take minutes.
    """
    size = torch.Size(shape).numel()
    fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 100
    scaled = (block * fan_in**-0.5).bfloat16()
    return scaled.repeat(-(-size // len(block)))[:size].reshape(shape).clone()


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Writes a random checkpoint of the 3B model's size, 5.9 GB.")
    parser.add_argument("folder", type=Path, help="where to write it; must be empty, or not exist yet")
    args = parser.parse_args(argv)
    try:
        args.folder.mkdir(parents=True, exist_ok=True)
        if any(args.folder.iterdir()):
            parser.error(f"{args.folder} is not empty")
    except OSError as error:
        parser.error(f"{args.folder}: {error.strerror}")

    config = json.loads(CONFIG.read_text(encoding="utf-8")) | {"torch_dtype": "bfloat16"}
    (args.folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    full_size_tokenizer().save(str(args.folder / "tokenizer.json"))
    np.savez(args.folder / "vae-oid.npz", **random_vae(embedding_dim=512, hidden_dim=16))

    # A prime number of them, so that no two rows of a matrix begin alike.
    block = torch.randn(1_048_573, generator=torch.Generator().manual_seed(0))
    shapes, weight_map = list(tensor_shapes(config).items()), {}
    with tqdm(total=len(shapes), unit="tensor") as bar:
        for i in range(SHARDS):
            file = f"model-{i + 1:05d}-of-{SHARDS:05d}.safetensors"
            shard = {}
            for name, shape in shapes[i::SHARDS]:
                shard[name] = random_tensor(shape, block)
                bar.update()
            save_file(shard, args.folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (args.folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    print(f"Written to {args.folder}")


if __name__ == "__main__":
    main()
