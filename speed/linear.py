"""What takes the place of nn.Linear: the same products, by the quickest way."""

from typing import NamedTuple

import torch
from torch import nn

from decoder_1 import GemmaMLP
from speed.bf16_products import bf16_row, bf16_row_twice, bf16_rows, bf16_vector, float32_rows
from speed.int8_products import (
    SLICE,
    Rounded,
    beyond_others,
    int8_both,
    int8_row,
    int8_weights,
    largest,
    products_of_rounded,
    products_of_slice,
    products_of_zeros,
    round_rest,
    round_rows,
)
from speed.quickest import quickest
from speed.replacement import Replacement
from speed.sharing import share, slices


class Bf16Linear(nn.Module):
    """nn.Linear with a bfloat16 weight, by the quickest way to multiply.

    Input: [..., I], of any dtype. Output: [..., O], bfloat16.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        ways = (bf16_vector, bf16_row_twice, bf16_row) if len(rows) == 1 else (float32_rows, bf16_rows)
        way = quickest(ways, rows, self.weight)
        if way is bf16_rows:
            out = bf16_rows(rows, self.weight, self.bias)
        else:
            out = way(rows, self.weight)
            out = out if self.bias is None else out.add_(self.bias)
        return out.view(*x.shape[:-1], -1)


class LastInput(NamedTuple):
    """What was rounded last: queries, keys and values have the same input, and so have gate and up."""

    rows: torch.Tensor  # kept, so that its memory is not reused
    seen: torch.Tensor  # what tells whether it was changed
    rounded: Rounded


LAST: list[LastInput] = []  # one, or none yet


def rounded_once(rows: torch.Tensor) -> Rounded:
    """`round_rows`, unless these are the rows of before, at the same place and with the same numbers.

    Whether the same place holds other numbers, because a model worked in place, shows in each row's
    largest number and sum, unless a change leaves both as they were. They take a tenth of the time of
    rounding.
    """
    seen = torch.stack([largest(rows, dim=1), rows.sum(dim=1)])
    for last in LAST:
        is_there = (last.rows.data_ptr(), last.rows.shape) == (rows.data_ptr(), rows.shape)
        if is_there and torch.equal(last.seen, seen):
            return last.rounded
    last = LastInput(rows, seen, round_rows(rows))
    LAST[:] = [last]
    return last.rounded


class Int8Linear(nn.Module):
    """nn.Linear with an int8 weight and a scale for each of its rows: weight[o] * scale[o].

    Input: [..., I]. Output: [..., O], both float32. Where it `is_shared` (other layers have the same
    input), many rows are rounded once for all.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        scale: torch.Tensor,
        sums: torch.Tensor,
        bias: torch.Tensor | None,
        is_shared: bool = False,
    ):
        super().__init__()
        self.is_shared = is_shared
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale.float(), requires_grad=False)
        self.zero = nn.Parameter(products_of_zeros(sums), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    def quickest_for(self, rows: torch.Tensor):
        # First what most CPUs do quickest. The other is more exact, and taken only where it saves a quarter.
        ways = (int8_row, int8_weights) if len(rows) == 1 else (int8_both, int8_weights)
        if rows.shape[1] % 16:
            return ways[0]  # the other takes 16 at a time
        return quickest(ways, rows, self.weight, self.scale, self.zero)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).float()
        way = self.quickest_for(rows)
        if way is int8_both:
            rounded = rounded_once(rows) if self.is_shared else round_rows(rows)
            out = products_of_rounded(rounded, self.weight, self.scale, self.zero)
        else:
            out = way(rows, self.weight, self.scale, self.zero)
        out = out if self.bias is None else out.add_(self.bias)
        return out.view(*x.shape[:-1], -1)


class Int8MLP(Replacement, GemmaMLP):
    """GemmaMLP of Int8Linear, gate, up and GELU slice by slice: at 17 MB each, memory is what they wait for.

    Input and output: [..., T, D], float32. One row, what hooks watch, and layers with an adapter beside
    them are worked on as GemmaMLP does. Down goes the way of gate: to try it as well takes 0.1 s.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        rows = hidden_states.reshape(-1, hidden_states.shape[-1]).float()
        is_watched = any(part._forward_hooks or part._forward_pre_hooks for part in self.children())
        is_plain = all(type(part) is Int8Linear for part in self.children())
        if is_watched or not is_plain or self.gate_proj.quickest_for(rows) is not int8_both:
            return super().forward(hidden_states)

        x, gate, up, down = round_rows(rows), self.gate_proj, self.up_proj, self.down_proj
        gated = rows.new_empty(len(rows), len(gate.weight))
        parts = list(enumerate(slices(len(gate.weight), SLICE, multiple=64)))
        peaks, norms = rows.new_empty(len(gate.weight)), rows.new_empty(len(parts))

        def work(numbered: tuple[int, slice]):
            number, part = numbered
            passes = products_of_slice(x, gate.weight[part], gate.scale[part], gate.zero[part])
            values = products_of_slice(x, up.weight[part], up.scale[part], up.zero[part])
            values.mul_(gelu(passes))
            # What down's rounding asks is told while the slice is in the cache.
            peaks[part], norms[number] = largest(values, dim=0), torch.linalg.vector_norm(values)
            gated[:, part] = values

        share(work, parts)
        columns = beyond_others(peaks, torch.linalg.vector_norm(norms), gated.numel())
        outliers = gated[:, columns]
        gated[:, columns] = 0
        rounded = round_rest(gated, columns, outliers)
        out = products_of_rounded(rounded, down.weight, down.scale, down.zero)
        return out.view(hidden_states.shape)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU by its tanh formula; tanh(u) = 2 sigmoid(2 u) - 1, and sigmoid takes two thirds of the time."""
    return (x * x).mul_(0.0713548162726).add_(1.5957691216057308).mul_(x).sigmoid_().mul_(x)


class Int8Embedding(nn.Module):
    """nn.Embedding whose rows are int8 with a scale, and come out in float32."""

    def __init__(self, linear: Int8Linear):
        super().__init__()
        self.weight, self.scale = linear.weight, linear.scale  # tied: the same parameters

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight[ids] * self.scale[ids][..., None]
