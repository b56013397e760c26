"""Products with int8 weights, and how numbers are rounded to int8.

A weight is a whole number from -127 to 127 for each number and a scale for each row:

    weight int8 [O, I], scale [O], zero float32 [O]: what `products_of_zeros` gives for its row sums

Letters in shapes: R rows (tokens) of an input, I inputs and O outputs of a linear layer, k columns.

Sources: "LLM.int8()" (Dettmers et al. 2022, section 3) for the columns of outliers that are kept
out of the rounding; oneDNN's guide, "Nuances of int8 computations", for what a CPU can multiply.
"""

import functools
from typing import NamedTuple

import torch

from speed.sharing import share, slices

SLICE = 512  # rows of a weight that are worked on at a time, to stay in the cache
BLOCK = 2**18  # numbers of an input that are rounded at a time, likewise
WHOLE = 2**22  # numbers of a weight that is worked on at once: PyTorch shares its operations with less ado
OUTLIER = 6.0  # times the root mean square of all


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """weight [O, I] -> int8 [O, I] and scale bfloat16 [O], with weight ~ int8 * scale.

    scale = max |row| / 126.5, rounded to bfloat16 before it is used, so that this costs nothing.
    In slices that stay in the cache, and in one piece of memory, because it is memory that this waits
    for: the system may take longer to give a new piece than it takes to round what it holds.
    """
    O, I = weight.shape  # noqa: E741 (a letter of the legend)
    rounded, scales = torch.empty(O, I, dtype=torch.int8), torch.empty(O, dtype=torch.bfloat16)
    step = max(1, 2**18 // I)
    memory = torch.empty(step, I)
    for start in range(0, O, step):
        rows = slice(start, start + step)
        part = memory[: len(weight[rows])].copy_(weight[rows])
        # 126.5, so that a scale rounded down to bfloat16 still has room for the largest number.
        scales[rows] = (largest(part, dim=1) / 126.5).clamp(min=1e-30)
        rounded[rows] = part.div_(scales[rows].float()[:, None]).round_()
    return rounded, scales


def int8_weights(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, _) -> torch.Tensor:
    """Products of few rows: the weight is int8, the input bfloat16, and the sum float32."""
    return torch._weight_int8pack_mm(x.bfloat16(), weight, scale.bfloat16()).float()


def largest(x: torch.Tensor, dim: int) -> torch.Tensor:
    """max |x| along a dimension; several times as quick as aminmax, or abs and amax."""
    return torch.maximum(x.amax(dim), -x.amin(dim))


def root_mean_square(x: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(x)) / x.numel() ** 0.5


def int_mm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x uint8 [R, I] and weight int8 [O, I] -> x W^T, float32 [R, O].

    Made float32 first: a product of whole numbers with others is several times as slow.
    """
    return torch._int_mm(x, weight.t()).float()


@functools.cache
def middle() -> int:
    """Which of an input's whole numbers stands for 0: 127, so that they are 0 to 254, or 63 (0 to 126).

    What CPUs multiply is 8 bits without a sign by 8 bits with one. Without AVX-512's VNNI two such
    products are added in 16 bits, and what is more than 32,767 is cut without a word: 2 * 254 * 127 is,
    2 * 126 * 127 is not. So this is tried, and where it goes wrong the inputs have 7 bits.
    """
    x = torch.full((1, 64), 254, dtype=torch.uint8)
    weight = torch.full((64, 64), 127, dtype=torch.int8)
    return 127 if (int_mm(x, weight) == 64 * 254 * 127).all() else 63


def row_sums(weight: torch.Tensor) -> torch.Tensor:
    """int8 [O, I] -> int32 [O]; as a product, which is as quick as reading the weight."""
    return torch._int_mm(weight.new_ones(1, weight.shape[1], dtype=torch.uint8), weight.t())[0]


def products_of_zeros(sums: torch.Tensor) -> torch.Tensor:
    """What `int_mm` gives for inputs that are all 0, and is to be taken off: int32 [O] -> float32 [O]."""
    return (sums * middle()).float()


def whole_numbers(x: torch.Tensor, step: torch.Tensor | float) -> torch.Tensor:
    """The uint8 numbers, of x's shape, with x ~ (number - middle) * step."""
    return (x / step).add_(middle() + 0.5).to(torch.uint8)  # to the nearest: 0.5, then cut


def round_row(x: torch.Tensor) -> tuple[torch.Tensor, float]:
    """As `round_rows` for one row, in half as many operations: each takes longer to begin than to do."""
    low, high = x.aminmax()
    step = max(-low.item(), high.item(), 1e-30) / middle()
    return whole_numbers(x, step), step


class Rounded(NamedTuple):
    """Many rows as whole numbers, but for the columns that hold numbers far beyond the others.

    x ~ (numbers - middle) * steps, and in the columns k x itself
    """

    numbers: torch.Tensor  # uint8 [R, I], `middle` in columns k
    steps: torch.Tensor  # float32 [R, 1]
    columns: torch.Tensor  # int64 [k], k <= 64
    outliers: torch.Tensor  # float32 [R, k]


def outlier_columns(x: torch.Tensor) -> torch.Tensor:
    """Which columns hold numbers far beyond the others: int64 [k], k <= 64.

    One of them would stretch the steps to which all the rest of its row is rounded.
    """
    return beyond_others(largest(x, dim=0), torch.linalg.vector_norm(x), x.numel())


def beyond_others(peaks: torch.Tensor, norm: torch.Tensor, count: int) -> torch.Tensor:
    """`outlier_columns` by the largest number of each column [I] and the norm of all `count` numbers."""
    found, columns = peaks.topk(min(64, len(peaks) // 32))
    return columns[found > OUTLIER * float(norm) / count**0.5]


def round_rows(x: torch.Tensor) -> Rounded:
    """x [R, I]"""
    columns = outlier_columns(x)
    return round_rest(x.index_fill(1, columns, 0) if len(columns) else x, columns, x[:, columns])


def round_rest(x: torch.Tensor, columns: torch.Tensor, outliers: torch.Tensor) -> Rounded:
    """x [R, I], 0 in the columns k of the outliers [R, k]; in blocks of rows that stay in the cache."""
    numbers, peaks = torch.empty_like(x, dtype=torch.uint8), x.new_empty(len(x), 1)
    for rows in slices(len(x), max(1, BLOCK // x.shape[1])):
        peaks[rows, 0] = largest(x[rows], dim=1).clamp_(min=1e-30)
        # To the nearest: 0.5 is added, then the fraction is cut off.
        numbers[rows] = (x[rows] * (middle() / peaks[rows])).add_(middle() + 0.5)
    return Rounded(numbers, peaks / middle(), columns, outliers)


def int8_row(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """Products of one row: weight and input are whole numbers of 8 bits, their sum has 32.

    A column of the weight is far to fetch for one row, so outliers stay where they are. Where there
    are some, what the rounding of the row leaves is rounded as well, in finer steps, and multiplied
    with each slice of the weight while that is still in the cache.
    """
    rounded, step = round_row(x)
    if middle() * step <= OUTLIER * root_mean_square(x):  # the largest number, and all others
        return int_mm(rounded, weight).sub_(zero).mul_(step).mul_(scale)
    rest, fine = round_row(x - (rounded.float() - middle()) * step)
    parts = [int_mm(rounded, part) * step + int_mm(rest, part) * fine for part in weight.split(SLICE)]
    return torch.cat(parts, dim=1).sub_(zero * (step + fine)).mul_(scale)


def products_of_slice(
    x: Rounded, weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor
) -> torch.Tensor:
    """Products of many rows with as much of a weight as the cache holds; the outliers' are float32's.

    x W^T = (x without the columns k, rounded) W^T + x[:, k] W[:, k]^T
    """
    product = int_mm(x.numbers, weight).sub_(zero).mul_(x.steps)
    if len(x.columns):
        product.addmm_(x.outliers, weight[:, x.columns].float().t())
    return product.mul_(scale)


def products_of_rounded(
    x: Rounded, weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor
) -> torch.Tensor:
    """Products of many rows, of a large weight slice by slice."""
    if weight.numel() <= WHOLE:
        return products_of_slice(x, weight, scale, zero)
    out = x.steps.new_empty(len(x.steps), len(weight))

    def multiply(part: slice):
        out[:, part] = products_of_slice(x, weight[part], scale[part], zero[part])

    share(multiply, slices(len(weight), SLICE, multiple=64))  # 64 are multiplied at a time
    return out


def int8_both(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """Products of many rows: weight and input are whole numbers of 8 bits, their sum has 32."""
    return products_of_rounded(round_rows(x), weight, scale, zero)
