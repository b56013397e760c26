"""Progress bars on stderr that end no program: where nobody reads them, they are not drawn."""

import sys

from tqdm import tqdm

from program.command_line import discard


class Stderr:
    """stderr for tqdm, which lets most errors of writing end the program; `log` has the same manners."""

    def __getattr__(self, name: str):
        return getattr(sys.stderr, name)

    def __eq__(self, other) -> bool:  # so tqdm finds the bars that stand in the way of a line
        return other is self or other is sys.stderr

    __hash__ = object.__hash__

    def write(self, text: str):
        try:
            sys.stderr.write(text)
        except OSError:
            discard(sys.stderr)

    def flush(self):
        try:
            sys.stderr.flush()
        except OSError:
            discard(sys.stderr)


STDERR = Stderr()


def bar(*args, **options) -> tqdm:
    """tqdm, with its arguments."""
    return tqdm(*args, file=STDERR, **options)


def log_beside_bars(line: str):
    """A line on stderr above the bars that are drawn there."""
    tqdm.write(line, file=STDERR)
