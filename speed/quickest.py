"""Which way to multiply is the quickest one: it is tried, because CPUs differ by a factor of ten."""

import os
import time

import torch

SLICE = 1024  # rows of the weight that are multiplied with many rows, to stay in the cache
FETCHED = 2**25  # bytes of it that are multiplied with one, so that they come from memory

CHOSEN: dict[tuple, object] = {}  # what was timed in this process


def quickest(ways: tuple, x: torch.Tensor, weight: torch.Tensor, *others: torch.Tensor):
    """The first of some ways to multiply, or the quickest if that is clearly quicker for so many rows.

    Timed once for each length of a row and doubling of their number: some rows and a slice of the
    weight, or one row and 32 MiB of it, since that is fetched from memory. The first is the most exact:
    it is kept unless another saves a tenth. In one thread and in its own computing time, so that
    other programs do not decide.
    """
    key = (ways, x.shape[1], len(x).bit_length())
    if key not in CHOSEN:
        clock = time.perf_counter if os.name == "nt" else time.thread_time  # too coarse on Windows
        if len(x) == 1:
            size = FETCHED // (x.shape[1] * weight.element_size())
        else:
            size = SLICE if others else SLICE // 4  # more where inputs are rounded first
        arguments = [x[:64], weight[:size], *(other[:size] for other in others)]
        threads, times = torch.get_num_threads(), []
        torch.set_num_threads(1)
        for way in ways:
            way(*arguments)  # memory and kernels are made ready
            trials = []
            for _ in range(2):
                start = clock()
                way(*arguments)
                trials.append(clock() - start)
            times.append(min(trials))
        torch.set_num_threads(threads)
        best = min(range(len(ways)), key=times.__getitem__)
        CHOSEN[key] = ways[best if times[best] < 0.9 * times[0] else 0]
    return CHOSEN[key]
