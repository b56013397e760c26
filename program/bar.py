"""Progress bars on stderr that end no program: where nobody reads them, they are not drawn."""

from tqdm import tqdm

from program.command_line import STDERR


def bar(*args, **options) -> tqdm:
    """tqdm, with its arguments."""
    return tqdm(*args, file=STDERR, **options)


def log_beside_bars(line: str):
    """A line on stderr above the bars that are drawn there."""
    tqdm.write(line, file=STDERR)
