"""Which way to multiply is the quickest one: it is tried, because CPUs differ by a factor of ten."""

import os
import time

import torch

SLICE = 1024  # rows of the weight that are multiplied with many rows, to stay in the cache
FEW = 16  # fewer rows than these wait for the memory that the weight comes from
FETCHED = 2**24  # bytes: a smaller weight decides nothing for few rows, and no part of a larger one is longer
TRIALS = 3

CHOSEN: dict[tuple, object] = {}  # what was timed in this process


def seconds(way, *trials: tuple) -> float:
    """How long a way takes, in one thread and in its own computing time: other programs do not decide.

    `trials`: its arguments, for each time that it is called. The first time is not counted, in which
    memory and kernels are made ready.
    """
    clock = time.perf_counter if os.name == "nt" else time.thread_time  # too coarse on Windows
    threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for arguments in trials:
            start = clock()
            way(*arguments)
            times.append(clock() - start)
    finally:
        torch.set_num_threads(threads)
    return min(times[1:])


def quickest(ways: tuple, x: torch.Tensor, weight: torch.Tensor, *others: torch.Tensor):
    """The first of some ways to multiply, or the quickest if that is clearly quicker for so many rows.

    Timed once for each row length and each doubling of the number of rows. Many rows are tried on a
    slice that the cache holds. Few rows wait for memory, so each call gets a part of the weight that was
    not read just before; a weight that is too small for that gets the first way until a larger one has
    decided. The first way is kept unless another saves a quarter; less may be chance.
    """
    waits_for_memory = len(x) < FEW
    key = (ways, x.shape[1], len(x).bit_length())
    if key not in CHOSEN:
        if waits_for_memory and weight.nbytes < FETCHED:
            return ways[0]
        number = 1 + TRIALS * len(ways)  # the first part is for making ready
        if waits_for_memory:
            size = min(len(weight) // number, FETCHED // weight[0].nbytes)
            parts = [slice(part * size, (part + 1) * size) for part in range(number)]
        else:
            size = SLICE if others else SLICE // 4  # more where inputs are rounded first
            parts = [slice(size)] * number
        arguments = [(x[:64], weight[part], *(other[part] for other in others)) for part in parts]
        times = [seconds(way, arguments[0], *arguments[1 + n :: len(ways)]) for n, way in enumerate(ways)]
        best = min(range(len(ways)), key=times.__getitem__)
        CHOSEN[key] = ways[best if times[best] < 0.75 * times[0] else 0]
    return CHOSEN[key]
