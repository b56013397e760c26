"""Which way to multiply is the quickest one: it is tried, because CPUs differ by a factor of ten."""

import os
import time

import torch

SLICE = 1024  # rows of the weight that are multiplied with many rows, to stay in the cache
FETCHED = 2**25  # bytes of it that are multiplied with one, so that they come from memory

CHOSEN: dict[tuple, object] = {}  # what was timed in this process


def seconds(way, *arguments) -> float:
    """How long a way takes, in one thread and in its own computing time: other programs do not decide."""
    clock = time.perf_counter if os.name == "nt" else time.thread_time  # too coarse on Windows
    threads, trials = torch.get_num_threads(), []
    torch.set_num_threads(1)
    way(*arguments)  # memory and kernels are made ready
    for _ in range(2):
        start = clock()
        way(*arguments)
        trials.append(clock() - start)
    torch.set_num_threads(threads)
    return min(trials)


def quickest(ways: tuple, x: torch.Tensor, weight: torch.Tensor, *others: torch.Tensor):
    """The first of some ways to multiply, or the quickest if that is clearly quicker for so many rows.

    Timed once for each length of a row and doubling of their number: some rows and a slice of the
    weight, or one row and 32 MiB of it, since that is fetched from memory. The first is the most exact:
    it is kept unless another saves a tenth.
    """
    key = (ways, x.shape[1], len(x).bit_length())
    if key not in CHOSEN:
        if len(x) == 1:
            size = FETCHED // (x.shape[1] * weight.element_size())
        else:
            size = SLICE if others else SLICE // 4  # more where inputs are rounded first
        times = [seconds(way, x[:64], weight[:size], *(other[:size] for other in others)) for way in ways]
        best = min(range(len(ways)), key=times.__getitem__)
        CHOSEN[key] = ways[best if times[best] < 0.9 * times[0] else 0]
    return CHOSEN[key]
