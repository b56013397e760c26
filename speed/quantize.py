"""The 3B model on a CPU without a GPU's help: fewer bytes to read, quicker products, the same modules.

The files that explain the model know nothing of this one. After loading, it puts other modules in
the place of every nn.Linear, and with int8 of the embedding table, in a model of either set:

    --precision auto    Bf16Linear: the checkpoint's bfloat16 weights as they are, mapped
    --precision int8    Int8Linear: a whole number from -127 to 127 for each weight, a scale for each row

What is peculiar about it:
  - with int8, all between the modules is float32: only weights and the products' inputs are rounded;
  - writing the answer waits for memory: every weight is read once for each token, so half the bytes
    are half the time. Reading the prompt waits for arithmetic: 262 rows share each weight;
  - which way of multiplying is the quickest differs from one CPU to the next by a factor of ten,
    so the first product of a size is timed both ways, on a slice of the matrix;
  - int8 weights are kept beside the checkpoint, so that they are made once;
  - after the last attention only the last position is read, so the last MLP works on that alone.

Letters in shapes: R rows (tokens) of an input, I inputs and O outputs of a linear layer, k columns.

Sources: "LLM.int8()" (Dettmers et al. 2022, section 3) for the columns of outliers that are kept
out of the rounding; oneDNN's guide, "Nuances of int8 computations", for what a CPU can multiply.
"""

import contextlib
import ctypes
import functools
import json
import math
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import nn
from tqdm import tqdm

SMALL = 100_000_000       # parameters; models below this are quick as they are, and stay as they are
SLICE = 1024              # rows of a weight that are worked on (or timed) at a time, to stay in the cache
CONVERTED = 2**21         # bfloat16 weights that are made float32 at a time, to stay in the cache
CACHE_FILE, VERSION = "model.int8.safetensors", "1"
OUTLIER = 6.0             # times the root mean square of all
TABLE = "language_model.model.embed_tokens"
LM_HEAD = "language_model.lm_head"


# --------------------------------------------------------------- products with bfloat16 weights


def bf16_row_twice(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Products of one row, which is given twice: oneDNN's product of two rows is the quicker one."""
    return F.linear(x.expand(2, -1), weight)[:1]


def bf16_row(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Products of one row by PyTorch's own code, which may fetch a weight faster than oneDNN's does.

    Not with `torch.backends.mkldnn.flags`: that sets other switches as well, for each product, and warns.
    """
    was_enabled = torch.backends.mkldnn.enabled                       # oneDNN, by its older name
    torch.backends.mkldnn.enabled = False
    try:
        return F.linear(x, weight)
    finally:
        torch.backends.mkldnn.enabled = was_enabled


def bf16_rows(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Products in bfloat16, added up in float32: quick where the CPU has instructions for it."""
    return F.linear(x, weight)


def float32_rows(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Products in float32, with as much of the weight converted at a time as the cache holds."""
    x, out = x.float(), x.new_empty(len(x), len(weight))
    step = max(1, CONVERTED // x.shape[1])
    for start in range(0, len(weight), step):
        out[:, start:start + step] = F.linear(x, weight[start:start + step].float())
    return out


# -------------------------------------------------------------------- products with int8 weights
#
# weight int8 [O, I], scale float32 [O]; zero float32 [O] is what `products_of_zeros` gives.


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


def products_of_zeros(weight: torch.Tensor) -> torch.Tensor:
    """What `int_mm` gives for inputs that are all 0, and is to be taken off: int8 [O, I] -> float32 [O]."""
    return int_mm(weight.new_full((1, weight.shape[1]), middle(), dtype=torch.uint8), weight)[0]


def whole_numbers(x: torch.Tensor, step: torch.Tensor | float) -> torch.Tensor:
    """The uint8 numbers, of x's shape, with x ~ (number - middle) * step."""
    return (x / step).add_(middle() + 0.5).to(torch.uint8)            # to the nearest: 0.5, then cut


def round_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers, and a step for each row: x [R, I] -> uint8 [R, I], float32 [R, 1]."""
    step = largest(x, dim=1)[:, None].clamp(min=1e-30) / middle()
    return whole_numbers(x, step), step


def round_row(x: torch.Tensor) -> tuple[torch.Tensor, float]:
    """As `round_rows` for one row, in half as many operations: each takes longer to begin than to do."""
    low, high = x.aminmax()
    step = max(-low.item(), high.item(), 1e-30) / middle()
    return whole_numbers(x, step), step


def outlier_columns(x: torch.Tensor) -> torch.Tensor:
    """Which columns hold numbers far beyond the others: int64 [k], k <= 64.

    One of them would stretch the steps to which all the rest of its row is rounded.
    """
    peaks, columns = largest(x, dim=0).topk(min(64, x.shape[1] // 32))
    return columns[peaks > OUTLIER * root_mean_square(x)]


def int8_row(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """Products of one row: weight and input are whole numbers of 8 bits, their sum has 32.

    A column of the weight is far to fetch for one row, so outliers stay where they are. Where there
    are some, what the rounding of the row leaves is rounded as well, in finer steps, and multiplied
    with each slice of the weight while that is still in the cache.
    """
    rounded, step = round_row(x)
    if middle() * step <= OUTLIER * root_mean_square(x):              # the largest number, and all others
        return int_mm(rounded, weight).sub_(zero).mul_(step).mul_(scale)
    rest, fine = round_row(x - (rounded.float() - middle()) * step)
    parts = [int_mm(rounded, part) * step + int_mm(rest, part) * fine for part in weight.split(SLICE)]
    return torch.cat(parts, dim=1).sub_(zero * (step + fine)).mul_(scale)


def int8_both(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """Products of many rows, as in `int8_row`, but the outliers' columns are multiplied in float32.

    x W^T = (x without the columns k, rounded) W^T + x[:, k] W[:, k]^T
    """
    columns = outlier_columns(x)
    outliers, weight_columns = x[:, columns], weight[:, columns].float()       # [R, k], [O, k]
    out = x.new_empty(len(x), len(weight))
    rounded, steps = torch.empty_like(x, dtype=torch.uint8), x.new_empty(len(x), 1)
    block = max(1, 2**18 // x.shape[1])                               # rows that stay in the cache
    for rows in (slice(start, start + block) for start in range(0, len(x), block)):
        rounded[rows], steps[rows] = round_rows(x[rows].index_fill(1, columns, 0))
    for start in range(0, len(weight), SLICE):
        part = slice(start, start + SLICE)
        product = int_mm(rounded, weight[part]).sub_(zero[part]).mul_(steps)           # [R, SLICE]
        if len(columns):
            product.addmm_(outliers, weight_columns[part].t())
        torch.mul(product, scale[part], out=out[:, part])
    return out


# ------------------------------------------------------------------------------- the quicker way


CHOSEN: dict[tuple, object] = {}                                      # what was timed in this process


def quicker(ways: tuple, x: torch.Tensor, weight: torch.Tensor, *others: torch.Tensor):
    """The first of two ways to multiply, or the second if that is clearly quicker for so many rows.

    Timed once for each length of a row and doubling of their number: some rows and a slice of the
    weight, or one row and 32 MiB of it, since that is fetched from memory. The first is the more exact:
    it is kept unless the other saves a tenth. In one thread and in its own computing time, so that
    other programs do not decide.
    """
    key = (ways, x.shape[1], len(x).bit_length())
    if key not in CHOSEN:
        clock = time.perf_counter if os.name == "nt" else time.thread_time        # too coarse on Windows
        if len(x) == 1:
            size = 2**25 // (x.shape[1] * weight.element_size())
        else:
            size = SLICE if others else SLICE // 4                    # more where inputs are rounded first
        arguments = [x[:64], weight[:size], *(other[:size] for other in others)]
        threads, times = torch.get_num_threads(), []
        torch.set_num_threads(1)
        for way in ways:
            way(*arguments)                                           # memory and kernels are made ready
            trials = []
            for _ in range(2):
                start = clock()
                way(*arguments)
                trials.append(clock() - start)
            times.append(min(trials))
        torch.set_num_threads(threads)
        CHOSEN[key] = ways[times[1] < 0.9 * times[0]]
    return CHOSEN[key]


class Bf16Linear(nn.Module):
    """nn.Linear with a bfloat16 weight, by the quicker way to multiply.

    Input: [..., T, I], of any dtype. Output: [..., T, O], bfloat16. Only where it `is_attended` (a
    query, key or value) and T is 1, it is float32: of bfloat16 keys and values PyTorch would make a
    copy for each head, for each token.
    """

    def __init__(self, linear: nn.Linear, is_attended: bool = False):
        super().__init__()
        self.weight, self.bias, self.is_attended = linear.weight, linear.bias, is_attended

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        ways = (bf16_row_twice, bf16_row) if len(rows) == 1 else (float32_rows, bf16_rows)
        out = quicker(ways, rows, self.weight)(rows, self.weight)
        out = out if self.bias is None else out.add_(self.bias)
        out = out.view(*x.shape[:-1], -1)
        return out.float() if self.is_attended and x.shape[-2] == 1 else out


class Int8Linear(nn.Module):
    """nn.Linear with an int8 weight and a scale for each of its rows: weight[o] * scale[o].

    Input: [..., I]. Output: [..., O], both float32.
    """

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale.float(), requires_grad=False)
        self.zero = nn.Parameter(products_of_zeros(weight), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).float()
        way = int8_row if len(rows) == 1 else int8_both
        if rows.shape[1] % 16 == 0:                                   # the other takes 16 at a time
            way = quicker((int8_weights, way), rows, self.weight, self.scale, self.zero)
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


# ---------------------------------------------------------------------------- the model's modules


def linears_of(model: nn.Module) -> dict[str, nn.Linear]:
    """What is replaced: exactly nn.Linear, for a learner's own kind may do something else.

    The output layer only with the embedding table, which is the same matrix.
    """
    linears = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    if type(model.get_submodule(TABLE)) is not nn.Embedding:
        linears.pop(LM_HEAD, None)
    return linears


def stored_name(name: str) -> str:
    """Under which name the checkpoint holds a module's weight: the output layer's is the table's."""
    return TABLE if name == LM_HEAD else name


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Is this tensor one of those that int8 is for? The 256 positions' vectors are added, not multiplied."""
    return len(shape) == 2 and name.endswith(".weight") and "position_embedding" not in name


def use_bf16(model: nn.Module):
    """Makes a loaded bfloat16 model a quick one. No weight is copied, and the tied ones stay tied."""
    for name, linear in linears_of(model).items():
        is_attended = name.startswith("language_model.") and name.endswith((".q_proj", ".k_proj", ".v_proj"))
        model.set_submodule(name, Bf16Linear(linear, is_attended))


def use_int8(model: nn.Module, int8: dict[str, torch.Tensor]):
    """Fills a model whose other tensors are loaded: int8 holds a `weight` and a `scale` for each name.

    Each weight is read once (`products_of_zeros`), so this waits for the disk if anything does.
    """
    keep_freed_memory()
    for name, linear in tqdm(linears_of(model).items(), desc="Loading", delay=1, leave=False):
        weight, scale = (int8[f"{stored_name(name)}.{part}"] for part in ("weight", "scale"))
        model.set_submodule(name, Int8Linear(weight, scale, linear.bias))
        if name == LM_HEAD:
            model.set_submodule(TABLE, Int8Embedding(model.get_submodule(name)))


def keep_freed_memory():
    """Tells glibc not to give large pieces of memory back to the system as soon as they are free.

    Each layer needs pieces of the same sizes, and the system can take longer to give one anew (it
    fills it with zeros, page by page) than it takes to compute what goes there. Elsewhere than in
    glibc nothing is changed.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**25)                                            # M_MMAP_THRESHOLD, at its largest
        mallopt(-1, 2**30)                                            # M_TRIM_THRESHOLD


def read_now(tensor: torch.Tensor) -> torch.Tensor:
    """Lets Linux map all pages of a mapped tensor at once; returns the tensor.

    Mapped in small pieces, as they are first needed, they cost half a second of the first token. Elsewhere
    than on Linux, and before its version 5.14, nothing is changed.
    """
    if sys.platform == "linux":
        page = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        size = tensor.data_ptr() + tensor.nbytes - page
        ctypes.CDLL(None).madvise(ctypes.c_void_p(page), ctypes.c_size_t(size), 22)      # MADV_POPULATE_READ
    return tensor


def skip_unread(model: nn.Module):
    """Lets the last MLP work on the last position alone where no other is asked for.

    What it gives is added to all positions (a row is spread over the others), but only the last of
    these is read. A prompt has 262 of them.
    """
    layers = model.language_model.model.layers
    is_last_enough = False

    def note(_, args, kwargs):
        nonlocal is_last_enough
        is_last_enough = kwargs.get("logits_to_keep") == 1

    def cut(_, args):
        return (args[0][:, -1:],) if is_last_enough else args

    model.register_forward_pre_hook(note, with_kwargs=True)
    layers[len(layers) - 1].mlp.register_forward_pre_hook(cut)


# ----------------------------------------------------------------------- int8, made and kept


def quantise(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """weight [O, I] -> int8 [O, I] and scale bfloat16 [O], with weight ~ int8 * scale.

    scale = max |row| / 127, rounded to bfloat16 before it is used, so that this costs nothing.
    In slices that stay in the cache, and in one piece of memory, for it is memory that this waits
    for: the system may take longer to give a new piece than it takes to round what it holds.
    """
    O, I = weight.shape                                               # noqa: E741 (a letter of the legend)
    rounded, scales = torch.empty(O, I, dtype=torch.int8), torch.empty(O, dtype=torch.bfloat16)
    step = max(1, 2**18 // I)
    memory = torch.empty(step, I)
    for start in range(0, O, step):
        rows = slice(start, start + step)
        part = memory[:len(weight[rows])].copy_(weight[rows])
        # 126.5, so that a scale rounded down to bfloat16 still has room for the largest number.
        scales[rows] = (largest(part, dim=1) / 126.5).clamp(min=1e-30)
        rounded[rows] = part.div_(scales[rows].float()[:, None]).round_()
    return rounded, scales


def source_of(files: list[Path]) -> str:
    """What a cache file was made from: names, sizes and times of the checkpoint's files."""
    return json.dumps([[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)])


def sample(tensor: torch.Tensor) -> int:
    """A sum over some of the rows, which a file with holes or another's content would not give."""
    return int(tensor[:: max(1, len(tensor) // 16)].sum(dtype=torch.int64))


def layout(shapes: dict[str, tuple[int, int]]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """dtype and shape of all that is stored for these weights, in the order of the file."""
    weights = {f"{name}.weight": (torch.int8, tuple(shape)) for name, shape in shapes.items()}
    return weights | {f"{name}.scale": (torch.bfloat16, (shape[0],)) for name, shape in shapes.items()}


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, copied if it does not begin where vector instructions may read: they end the program."""
    return tensor if tensor.data_ptr() % 64 == 0 else tensor.clone()


def read_cache(path: Path, shapes: dict[str, tuple[int, int]], source: str) -> dict[str, torch.Tensor] | None:
    """The int8 weights that were kept, mapped; None if there are none, or not these, or damaged ones."""
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("source") != source or metadata.get("version") != VERSION:
                return None
            tensors = {key: aligned(stored.get_tensor(key)) for key in stored.keys()}      # noqa: SIM118
        if {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} != layout(shapes):
            return None
        samples = json.loads(metadata["samples"])
        is_whole = all(sample(tensors[f"{name}.weight"]) == samples[name] for name in shapes)
        scales = torch.cat([tensors[f"{name}.scale"] for name in shapes]).float()
        return tensors if is_whole and scales.isfinite().all() and scales.min() > 0 else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


class Keeper:
    """Writes int8 weights while the next are made: aside, and under the file's name when it is whole.

    Not to be able to write is no error: `problem` says why, and they are made again the next time.
    Whatever ends the program on the way, Ctrl-C too, takes the unfinished file with it; what a kill
    leaves, the next start removes.
    """

    def __init__(self, path: Path, shapes: dict[str, tuple[int, int]], source: str):
        self.path, self.part = path, path.with_name(f"{path.name}.{os.getpid()}.part")
        self.shapes, self.source = shapes, source
        self.samples = dict.fromkeys(shapes, -10**12)                 # longer than any will be
        self.scales = []                                              # written after all weights
        self.problem, self.file, self.handlers = None, None, {}
        self.writer, self.written = ThreadPoolExecutor(max_workers=1), None

    def head(self) -> bytes:
        """safetensors' head: where each tensor lies, and what tells whether the file is the right one."""
        names = {torch.int8: "I8", torch.bfloat16: "BF16"}
        head, end = {"__metadata__": {"version": VERSION, "source": self.source}}, 0
        head["__metadata__"]["samples"] = json.dumps(self.samples)
        for name, (dtype, shape) in layout(self.shapes).items():
            start, end = end, end + math.prod(shape) * dtype.itemsize
            head[name] = {"dtype": names[dtype], "shape": shape, "data_offsets": [start, end]}
        return json.dumps(head).encode()

    def __enter__(self):
        try:
            for left in self.path.parent.glob(f"{self.path.name}.*.part"):
                process = left.name.split(".")[-2]
                if not (process.isdigit() and psutil.pid_exists(int(process))):
                    left.unlink(missing_ok=True)
            self.file = self.part.open("wb")
            self.room = -(-(8 + len(self.head())) // 64) * 64 - 8     # the data begins at a multiple of 64
            self.file.write(bytes(8 + self.room))
        except OSError as error:
            self.give_up(error)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, self.interrupted)
        return self

    def interrupted(self, number, frame):
        """Removes the file, then does what would have been done."""
        self.part.unlink(missing_ok=True)
        handler = self.handlers[number]
        if callable(handler):
            handler(number, frame)
        else:
            sys.exit(128 + number)

    def give_up(self, error: OSError):
        self.problem = error.strerror or str(error)
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.file.close()
        self.file = None
        with contextlib.suppress(OSError):
            self.part.unlink(missing_ok=True)

    def add(self, name: str, weight: torch.Tensor, scale: torch.Tensor):
        self.samples[name] = sample(weight)
        self.scales.append(scale)
        if self.written is not None:
            self.written.result()                                     # or what waits would fill the memory
        self.written = self.writer.submit(self.write, weight)

    def write(self, weight: torch.Tensor):
        if self.file is None:
            return
        try:
            self.file.write(weight.numpy())
        except OSError as error:
            self.give_up(error)

    def __exit__(self, kind, error, _):
        self.writer.shutdown(cancel_futures=error is not None)
        if self.file is not None:
            try:
                if error is not None:
                    raise OSError("not finished")
                for scale in self.scales:
                    self.file.write(scale.view(torch.int16).numpy())  # NumPy has no bfloat16
                self.file.seek(0)
                self.file.write(self.room.to_bytes(8, "little") + self.head().ljust(self.room))
                self.file.close()
                os.replace(self.part, self.path)
            except OSError as problem:
                self.give_up(problem)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)


def rounded_in_turn(shapes: dict, read: Callable[[str], torch.Tensor]) -> Iterator[tuple]:
    """The name, the int8 weight and the scale of each of the checkpoint's matrices, with a bar."""
    total = sum(math.prod(shape) for shape in shapes.values())
    with tqdm(total=total, desc="Rounding to int8", unit="", unit_scale=True, delay=1, leave=False) as bar:
        for name, shape in shapes.items():
            yield name, *quantise(read(name))
            bar.update(math.prod(shape))


def int8_of(
    folder: Path, files: list[Path], shapes: dict[str, tuple[int, int]], read: Callable[[str], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A `weight` and a `scale` for each of these names: those kept in the folder, or made and kept there.

    read(name) gives one of the checkpoint's weights; one at a time is looked at, the largest first.
    What was written is read back, mapped as at any later start: a copy beside it would be memory twice.
    """
    shapes = dict(sorted(shapes.items(), key=lambda item: -math.prod(item[1])))
    path, source = folder / CACHE_FILE, source_of(files)
    kept = read_cache(path, shapes, source)
    if kept is not None:
        return kept
    with Keeper(path, shapes, source) as keeper:
        if not keeper.problem:                                        # a folder that cannot be written in
            for name, weight, scale in rounded_in_turn(shapes, read):
                keeper.add(name, weight, scale)
                if keeper.problem:
                    break
    kept = read_cache(path, shapes, source)
    if kept is not None:
        return kept
    problem = keeper.problem or "it cannot be read back"
    print(f"The int8 weights are not kept for the next start: {path}: {problem}", file=sys.stderr)
    made = {}
    for name, weight, scale in rounded_in_turn(shapes, read):
        made[f"{name}.weight"], made[f"{name}.scale"] = weight, scale
    return made
