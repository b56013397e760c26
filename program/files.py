"""Writing files so that nothing of the user's is lost, whatever happens meanwhile."""

import contextlib
import os
import secrets
import shutil
from pathlib import Path

UNFINISHED: set[Path] = set()  # files that are being written aside


def replace_file(path: Path, content: bytes | str):
    """Puts content in the place of a file, or leaves the file as it was and raises OSError.

    It is written to a temporary file in the same folder, which then takes the name: a full disk or
    a stop half-way never leaves a cut file. A link stays one: what it leads to is replaced.
    Text is written as UTF-8, its line ends as they are.
    """
    path = Path(os.path.realpath(path))
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    # Not named after the file, because a name may already be as long as names can be.
    aside = path.with_name(f".{secrets.token_hex(8)}.part")
    UNFINISHED.add(aside)
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)  # after the rename it is not there
        UNFINISHED.discard(aside)


def remove_unfinished():
    """For a program that ends at once, in the middle of whatever it does."""
    for aside in list(UNFINISHED):
        with contextlib.suppress(OSError):  # Windows removes no open file
            aside.unlink()
