"""How the threads that share a product wait for each other; a program says so before it imports torch.

A product is cut into one part for each core, and whoever is done waits for the others. By default it
does so by asking again and again, for milliseconds, without giving up its core. On a machine that runs
something else as well, the thread that all wait for may be one that has no core: asked to sleep instead,
they answer several times as quickly there. On Linux not at once, though: most waits are over in a
fraction of a millisecond, and to be woken takes about as long (benchmarks/README.md, A busy machine). On
macOS and Windows they sleep at once: their runtimes count in whole milliseconds.

The runtimes read these variables once, as they are loaded with torch: libgomp (PyTorch on Linux), LLVM's
(macOS) and Intel's (Windows). Where a user has set one of them, nothing is changed.
"""

import os

ONE_THREAD = 20_000_000  # parameters of a model; in smaller ones waiting costs more than sharing saves
POLICY = {
    "OMP_WAIT_POLICY": "passive",  # all three
    "GOMP_SPINCOUNT": "5000",  # libgomp: how often it asks before it sleeps; 300 us on a Xeon
    "KMP_BLOCKTIME": "0",  # LLVM's and Intel's: milliseconds of the same
}


def sleep_while_waiting():
    """Sets the policy for this process and those that it starts."""
    if not POLICY.keys() & os.environ.keys():
        os.environ.update(POLICY)
