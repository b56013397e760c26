"""The file that keeps the int8 weights, beside the checkpoint that they were made from."""

import contextlib
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
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from speed.int8_products import quantize

CACHE_FILE, VERSION = "model.int8.safetensors", "1"


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
            yield name, *quantize(read(name))
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
