"""The file that keeps the int8 weights, beside the checkpoint that they were made from.

It is a safetensors file: for each of the checkpoint's matrices NAME.weight (int8), NAME.scale (bfloat16)
and NAME.sum (int32), the sum of each row, which products need. Its head holds

    format     a mark that only this program writes: what lacks it is never overwritten or deleted
    source     names, sizes and times of the checkpoint's files, and a digest of pieces of each tensor
    checksums  one for each tensor, computed while the file is written

What to notice:
  - it is written aside and takes its name when it is whole, so a killed program leaves no half-written file;
  - a start reads all pages anyway, so that no token waits for the disk: the checksums are compared as
    they come by. That takes as long as reading memory takes (benchmarks/README.md, The int8 file);
  - a file that is damaged or belongs to other weights is made again; a file that cannot be written is no
    error, but then it is made again at each start;
  - it does not end in .safetensors, so that nobody takes it for the checkpoint.
"""

import contextlib
import hashlib
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open

from program.bar import bar
from program.command_line import log
from speed import memory
from speed.int8_products import quantize, row_sums

NAME = "paligemma-from-scratch.int8"
MARK, VERSION = "int8 weights of PaliGemma from scratch", "2"
HEAD_BYTES = 2**20  # where the mark lies, if anywhere
PAGE = 4096  # bytes that a checksum adds up at a time
PIECE = 512  # bytes of a tensor that are looked at in three places, to tell checkpoints apart
ALIGNED = 64  # bytes; tensors begin at multiples, where vector instructions may read


# ------------------------------------------------------------- is it the right file, and whole


def source_of(files: list[Path]) -> str:
    """What the weights are made from: other weights get another text, even at the same size and time."""
    return json.dumps(
        [
            [file.name, file.stat().st_size, file.stat().st_mtime_ns, digest_of_pieces(file)]
            for file in sorted(files)
        ]
    )


def digest_of_pieces(path: Path) -> str:
    """A digest of the head of a safetensors file, and of the beginning, middle and end of each tensor."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        head = file.read(size)
        digest = hashlib.blake2b(head, digest_size=16)
        for name, entry in json.loads(head).items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                for place in (start, (start + end) // 2, max(start, end - PIECE)):
                    file.seek(8 + size + place)
                    digest.update(file.read(min(PIECE, end - place)))
    return digest.hexdigest()


def checksum(tensor: torch.Tensor) -> str:
    """A number of 64 bits in which any changed bit, page of zeros or misplaced page shows.

    (sum over pages p of (2 p + 1) * (sum of the page's words of 64 bits)) mod 2^64: an odd factor loses
    nothing, and adding up whole words is as quick as reading them.
    """
    data = tensor.flatten().view(torch.uint8)
    whole = len(data) // PAGE * PAGE
    rest = F.pad(data[whole:], (0, -len(data) % PAGE))
    sums = torch.cat([part.view(torch.int64).view(-1, PAGE // 8).sum(dim=1) for part in (data[:whole], rest)])
    total = int((sums * torch.arange(1, 2 * len(sums), 2)).sum())
    return f"{total % 2**64:016x}"


def is_ours(path: Path) -> bool:
    """Did this program write it? Nothing is lost with an empty file."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return not head or MARK.encode() in head


def layout(shapes: dict[str, tuple[int, int]]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """dtype and shape of all that is stored for these weights, in the order of the file."""
    weights = {f"{name}.weight": (torch.int8, tuple(shape)) for name, shape in shapes.items()}
    sums = {f"{name}.sum": (torch.int32, (shape[0],)) for name, shape in shapes.items()}
    return weights | sums | {f"{name}.scale": (torch.bfloat16, (shape[0],)) for name, shape in shapes.items()}


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, copied if it does not begin where vector instructions may read: they end the program."""
    return tensor if tensor.data_ptr() % ALIGNED == 0 else tensor.clone()


def read_file(path: Path, shapes: dict[str, tuple[int, int]], source: str) -> dict[str, torch.Tensor] | None:
    """The tensors that were kept, mapped; None if there are none, or not these, or damaged ones."""
    expected, tensors = layout(shapes), {}
    try:
        with safe_open(path, framework="pt") as stored:
            head = stored.metadata() or {}
            if head.get("version") != VERSION or head.get("source") != source:
                return None
            checksums = json.loads(head["checksums"])
            for name in bar(stored.keys(), desc="Loading", delay=1, leave=False):
                tensor = stored.get_tensor(name)
                if (tensor.dtype, tuple(tensor.shape)) != expected.pop(name, None):
                    return None
                memory.map_now(tensor)
                tensors[name] = aligned(tensor)
                if checksum(tensors[name]) != checksums[name]:
                    return None
        return None if expected else tensors
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


# --------------------------------------------------------------------------- how it is written


def remove_left_overs(path: Path):
    """Of programs that were killed: a process with that number has ended, or began later."""
    for left in path.parent.glob(f"{path.name}.*.part"):
        process = left.name.split(".")[-2]
        with contextlib.suppress(psutil.Error, ValueError):
            if psutil.Process(int(process)).create_time() <= left.stat().st_mtime:
                continue
        if process.isdigit() and is_ours(left):
            left.unlink(missing_ok=True)


class Writer:
    """Writes int8 weights while the next are made: aside, and under the file's name when it is whole.

    Not to be able to write is no error: `problem` says why. Whatever ends the program on the way, Ctrl-C
    too, takes the unfinished file with it; what a kill leaves, the next start removes.
    """

    def __init__(self, path: Path, shapes: dict[str, tuple[int, int]], source: str):
        self.path, self.aside = path, path.with_name(f"{path.name}.{os.getpid()}.part")
        self.shapes, self.source = shapes, source
        self.checksums = dict.fromkeys(layout(shapes), "0" * 16)  # as long as those to come
        self.small = {}  # written after all weights
        self.problem, self.file = None, None
        self.handlers, self.received, self.is_ending = {}, None, False
        self.writer, self.written = ThreadPoolExecutor(max_workers=1), None

    def head(self) -> bytes:
        """safetensors' head: where each tensor lies, and what tells whether the file is the right one."""
        names = {torch.int8: "I8", torch.bfloat16: "BF16", torch.int32: "I32"}
        metadata = {"source": self.source, "checksums": json.dumps(self.checksums)}
        metadata |= {"version": VERSION, "format": MARK}
        head, end = {}, 0
        for name, (dtype, shape) in layout(self.shapes).items():
            start, end = end, end + math.prod(shape) * dtype.itemsize
            head[name] = {"dtype": names[dtype], "shape": shape, "data_offsets": [start, end]}
        head = json.dumps({"__metadata__": metadata} | head).encode()
        size = -(-(8 + len(head)) // ALIGNED) * ALIGNED - 8
        return size.to_bytes(8, "little") + head.ljust(size)

    def __enter__(self):
        try:
            if self.path.exists() and not is_ours(self.path):
                raise OSError("another program's file has this name")
            self.file = self.aside.open("xb")
            self.file.write(self.head())
            self.file.flush()  # with its mark, should it be left over
        except OSError as error:
            self.give_up(error)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, self.interrupt)
        return self

    def interrupt(self, number, _):
        """Ends the `with` block, which removes the file; then the signal does what it would have done.

        Not here: the file is open, and Windows removes no open file.
        """
        self.received = number
        if not self.is_ending:
            self.is_ending = True
            raise KeyboardInterrupt

    def give_up(self, error: OSError):
        self.problem = error.strerror or str(error)
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.file.close()
            with contextlib.suppress(OSError):
                self.aside.unlink(missing_ok=True)
        self.file = None

    def add(self, name: str, weight: torch.Tensor, scale: torch.Tensor, sums: torch.Tensor):
        self.small |= {f"{name}.scale": scale, f"{name}.sum": sums}
        if self.written is not None:
            self.written.result()  # or what waits would fill the memory
        self.written = self.writer.submit(self.write, f"{name}.weight", weight)

    def write(self, name: str, tensor: torch.Tensor):
        if self.file is None:
            return
        try:
            self.checksums[name] = checksum(tensor)
            self.file.write(tensor.flatten().view(torch.uint8).numpy())
        except OSError as error:
            self.give_up(error)

    def __exit__(self, kind, error, _):
        self.is_ending = True
        self.writer.shutdown(cancel_futures=error is not None)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if error is not None:
            self.give_up(OSError("not finished"))
        for name in layout(self.shapes):
            if name in self.small:
                self.write(name, self.small[name])
        if self.file is not None:
            try:
                self.file.seek(0)
                self.file.write(self.head())
                self.file.close()
                os.replace(self.aside, self.path)
            except OSError as problem:
                self.give_up(problem)
        if self.received is not None:
            handler = self.handlers[self.received]
            if not callable(handler):
                sys.exit(128 + self.received)
            handler(self.received, None)


def rounded_in_turn(shapes: dict, read: Callable[[str], torch.Tensor]) -> Iterator[tuple]:
    """The name, the int8 weight, the scales and the sums of each of the checkpoint's matrices, with a bar."""
    total = sum(math.prod(shape) for shape in shapes.values())
    with bar(
        total=total, desc="Rounding to int8", unit="", unit_scale=True, delay=1, leave=False
    ) as progress:
        for name, shape in shapes.items():
            weight, scale = quantize(read(name))
            yield name, weight, scale, row_sums(weight)
            progress.update(math.prod(shape))


def int8_of(
    folder: Path, files: list[Path], shapes: dict[str, tuple[int, int]], read: Callable[[str], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """`weight`, `scale` and `sum` for each of these names: those kept in the folder, or made and kept there.

    read(name) gives one of the checkpoint's weights; one at a time is looked at, the largest first.
    What was written is read back, mapped as at any later start: a copy beside it would be memory twice.
    """
    shapes = dict(sorted(shapes.items(), key=lambda item: -math.prod(item[1])))
    path, source = folder / NAME, source_of(files)
    with contextlib.suppress(OSError):
        remove_left_overs(path)  # also where the file is there: another start may have made it meanwhile
    kept = read_file(path, shapes, source)
    if kept is not None:
        return kept
    with Writer(path, shapes, source) as writer:
        if not writer.problem:  # a folder that cannot be written in
            for name, *tensors in rounded_in_turn(shapes, read):
                writer.add(name, *tensors)
                if writer.problem:
                    break
    kept = None if writer.problem else read_file(path, shapes, source)
    if kept is not None:
        return kept
    problem = writer.problem or "it cannot be read back"
    log(f"The int8 weights are not kept for the next start: {path}: {problem}")
    made = {}
    for name, *tensors in rounded_in_turn(shapes, read):
        for part, tensor in zip(("weight", "scale", "sum"), tensors, strict=True):
            made[f"{name}.{part}"] = tensor
    return made
