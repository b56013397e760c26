"""Products with bfloat16 weights, as they are stored: x [R, I] and weight [O, I] -> x W^T [R, O].

Each is one way to multiply; which of them is the quickest differs from one CPU to the next by a factor
of ten, so quickest.py tries them.

Letters in shapes: R rows (tokens) of an input, I inputs and O outputs of a linear layer.
"""

import torch
import torch.nn.functional as F

CONVERTED = 2**21  # bfloat16 weights that are made float32 at a time, to stay in the cache


def bf16_vector(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Products of one row as a matrix times a vector, which is a product of its own in oneDNN."""
    return torch.mv(weight, x[0])[None]


def bf16_row_twice(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Products of one row, which is given twice: oneDNN's product of two rows is the quicker one."""
    return F.linear(x.expand(2, -1), weight)[:1]


def bf16_row(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Products of one row by PyTorch's own code, which may fetch a weight faster than oneDNN's does.

    Not with `torch.backends.mkldnn.flags`: that sets other switches as well, for each product, and warns.
    """
    was_enabled = torch.backends.mkldnn.enabled  # oneDNN, by its older name
    torch.backends.mkldnn.enabled = False
    try:
        return F.linear(x, weight)
    finally:
        torch.backends.mkldnn.enabled = was_enabled


def bf16_rows(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Products in bfloat16, added up in float32, a bias too: quick where the CPU has instructions for it."""
    return F.linear(x, weight, bias)


def float32_rows(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Products in float32, with as much of the weight converted at a time as the cache holds."""
    x, out = x.float(), x.new_empty(len(x), len(weight))
    step = max(1, CONVERTED // x.shape[1])
    for start in range(0, len(weight), step):
        out[:, start : start + step] = F.linear(x, weight[start : start + step].float())
    return out
