"""How the cores share what is cut into slices: whoever is free takes the next one.

PyTorch shares each of its operations by itself, in parts of one size, and after each the cores wait for
the slowest. A product of int8 rows is half a dozen operations on each of 32 slices, 14,000 in a first
token: that many waits cost more than the products (benchmarks/README.md, A CPU with AMX). Here a core
works on a whole slice alone, and they wait once, at the end. On a busy machine the core that gets less of
the time takes fewer slices, and one that gets none is not waited for.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

HELPERS = ThreadPoolExecutor(os.cpu_count(), initializer=lambda: torch.set_num_threads(1))


def slices(length: int, size: int, multiple: int = 1) -> list[slice]:
    """Cuts a length into slices of nearly one size, at most `size`, and of a multiple of `multiple`.

    As many for each thread, so that all have the same to do.
    """
    threads = torch.get_num_threads()
    number = -(-length // (size * threads)) * threads
    step = -(-length // (multiple * number)) * multiple
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def share(work: Callable, parts: list):
    """Calls work(part) for each part, in as many threads as torch would use, this one among them."""
    left, threads = list(reversed(parts)), torch.get_num_threads()

    @torch.inference_mode()  # which each thread has to be told
    def work_on():
        while True:
            try:
                part = left.pop()  # no two threads get the same
            except IndexError:
                return
            work(part)

    helpers = [HELPERS.submit(work_on) for _ in range(min(threads, len(parts)) - 1)]
    torch.set_num_threads(1)
    try:
        work_on()
    finally:
        left.clear()  # where an error or Ctrl-C ends this, the others end as well
        torch.set_num_threads(threads)
        for helper in helpers:
            if not helper.cancel():  # it has begun
                helper.result()
