"""What takes the place of nn.Linear: the same products, by the quickest way."""

import torch
from torch import nn

from speed.bf16_products import bf16_row, bf16_row_twice, bf16_rows, bf16_vector, float32_rows
from speed.int8_products import int8_both, int8_row, int8_weights, products_of_zeros
from speed.quickest import quickest


class Bf16Linear(nn.Module):
    """nn.Linear with a bfloat16 weight, by the quickest way to multiply.

    Input: [..., T, I], of any dtype. Output: [..., T, O], bfloat16. Only where it `is_attended` (a
    query, key or value) and T is 1, it is float32: of bfloat16 keys and values PyTorch would make a
    copy for each head, for each token.
    """

    def __init__(self, linear: nn.Linear, is_attended: bool = False):
        super().__init__()
        self.weight, self.bias, self.is_attended = linear.weight, linear.bias, is_attended

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        ways = (bf16_row_twice, bf16_row, bf16_vector) if len(rows) == 1 else (float32_rows, bf16_rows)
        out = quickest(ways, rows, self.weight)(rows, self.weight)
        out = out if self.bias is None else out.add_(self.bias)
        out = out.view(*x.shape[:-1], -1)
        return out.float() if self.is_attended and x.shape[-2] == 1 else out


class Int8Linear(nn.Module):
    """nn.Linear with an int8 weight and a scale for each of its rows: weight[o] * scale[o].

    Input: [..., I]. Output: [..., O], both float32.
    """

    def __init__(
        self, weight: torch.Tensor, scale: torch.Tensor, sums: torch.Tensor, bias: torch.Tensor | None
    ):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale.float(), requires_grad=False)
        self.zero = nn.Parameter(products_of_zeros(sums), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).float()
        way = int8_row if len(rows) == 1 else int8_both
        if rows.shape[1] % 16 == 0:                                   # the other takes 16 at a time
            way = quickest((int8_weights, way), rows, self.weight, self.scale, self.zero)
        out = way(rows, self.weight, self.scale, self.zero)
        out = out if self.bias is None else out.add_(self.bias)
        return out.view(*x.shape[:-1], -1)


class Int8Embedding(nn.Module):
    """nn.Embedding whose rows are int8 with a scale, and come out in float32."""

    def __init__(self, linear: Int8Linear):
        super().__init__()
        self.weight, self.scale = linear.weight, linear.scale          # tied: the same parameters

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight[ids] * self.scale[ids][..., None]
