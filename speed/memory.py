"""How memory is asked for: what is freed is kept, what is mapped is mapped at once, or let go again.

All are requests to the system. Where it does not know them, nothing is changed.
"""

import contextlib
import ctypes
import mmap
import sys

import torch


def keep_freed_memory():
    """Tells glibc not to give large pieces of memory back to the system as soon as they are free.

    Each layer needs pieces of the same sizes, and the system can take longer to give a new one (it
    fills it with zeros, page by page) than it takes to compute what goes there.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, at its largest
        mallopt(-1, 2**30)  # M_TRIM_THRESHOLD


def map_now(tensor: torch.Tensor):
    """Lets Linux (5.14 or later) map all pages of a mapped tensor at once.

    Mapped in small pieces, as they are first needed, they cost half a second of the first token.
    """
    page = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    advise(page, tensor.data_ptr() + tensor.nbytes, 22)  # MADV_POPULATE_READ


def let_go(tensor: torch.Tensor):
    """Takes the pages of a mapped tensor that will never be read again out of this process's memory.

    Those that it has for itself: the first and the last may hold a part of its neighbors.
    """
    first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    advise(first, last, 4)  # MADV_DONTNEED


def advise(start: int, end: int, advice: int):
    """Tells Linux what will become of the memory from one address to another."""
    if sys.platform == "linux" and end > start:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)
