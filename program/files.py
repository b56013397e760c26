"""Writing files so that nothing is lost: the old content stays whole until the new one is complete."""

import os
import shutil
from pathlib import Path


def replace_file(path: Path, content: bytes | str) -> None:
    """Puts content in the place of a file, or leaves the file as it is and raises OSError.

    It is written to a temporary file in the same folder, which then takes the name: a full disk or
    a stop in between cannot leave half a file. A text is written as UTF-8, its line ends as they are.
    """
    path = Path(path).resolve()  # a link stays one: what it leads to is replaced
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, aside)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
