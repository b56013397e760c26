"""How memory is asked for: what is freed is kept, and what is mapped is mapped at once.

Both are requests to the system. Where it does not know them, nothing is changed.
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
    if sys.platform == "linux":
        page = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        size = tensor.data_ptr() + tensor.nbytes - page
        ctypes.CDLL(None).madvise(ctypes.c_void_p(page), ctypes.c_size_t(size), 22)  # MADV_POPULATE_READ
