"""Memory that runs out, which Python and PyTorch say in ways of their own."""

import torch

# Of PyTorch's RuntimeErrors on Apple's GPUs; on CPUs, on macOS and Linux, and on Windows; of a mapped file.
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that; not every one that speaks of memory does (`expected memory format`)."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)
