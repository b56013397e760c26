"""A mask decoder with random weights: the arrays of a vae-oid.npz, in any size.

Names and shapes are written out, not read off the model: they are what a file from elsewhere has.
"""

import numpy as np

# Name, kind, and channels in and out, in units of the hidden width. (E: a codeword; "mask": one channel.)
ENCODER = [
    ("encoder.0", "halve", "mask", 1), ("encoder.2", "halve", 1, 2), ("encoder.4", "halve", 2, 4),
    ("encoder.6", "halve", 4, 8), ("encoder.8", "block", 8, 8), ("encoder.9", "block", 8, 8),
    ("encoder.10", "point", 8, "E"),
]  # fmt: skip
DECODER = [
    ("decoder.0", "point and relu", "E", 8), ("decoder.2", "block", 8, 8), ("decoder.3", "block", 8, 8),
    ("decoder.4", "double", 8, 8), ("decoder.6", "double", 8, 4), ("decoder.8", "double", 4, 2),
    ("decoder.10", "double", 2, 1), ("decoder.12", "point", 1, "mask"),
]  # fmt: skip


def random_vae(embedding_dim: int, hidden_dim: int, seed: int = 0) -> dict[str, np.ndarray]:
    """What vae-oid.npz holds, with other numbers: by name, in PyTorch's layout."""
    rng = np.random.default_rng(seed)

    def width(units) -> int:
        return {"E": embedding_dim, "mask": 1}.get(units) or units * hidden_dim

    arrays = {"_vq_vae._embedding": rng.normal(size=(128, embedding_dim))}

    def convolution(name: str, *shape: int, out: int):
        fan_in = np.prod(shape) / out
        arrays[f"{name}.weight"] = rng.normal(size=shape) * np.sqrt(2 / fan_in)
        arrays[f"{name}.bias"] = rng.normal(size=out) * 0.3

    for name, kind, before, after in ENCODER + DECODER:
        before, after = width(before), width(after)
        if kind == "block":
            convolution(f"{name}.net.0", after, before, 3, 3, out=after)
            convolution(f"{name}.net.2", after, after, 3, 3, out=after)
            convolution(f"{name}.net.4", after, after, 1, 1, out=after)
        elif kind == "double":
            convolution(name, before, after, 4, 4, out=after)
        else:
            side = 4 if kind == "halve" else 1
            convolution(name, after, before, side, side, out=after)
    return {name: array.astype(np.float32) for name, array in arrays.items()}
