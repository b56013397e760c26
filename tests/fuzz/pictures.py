"""Pictures, spoilt: damaged files of each format, other things under a picture's name."""

import io
import os
import random
from pathlib import Path

from PIL import Image

from tests.fuzz.harness import main
from tests.fuzz.spoil import command, good_checkpoint, picture_in, spoil_bytes

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "EPS", "ICO", "PDF", "TGA", "PCX", "SGI",
           "JPEG2000", "DDS", "MPO", "IM", "AVIF", "XBM", "QOI")  # fmt: skip
MODES = ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB")
TIFF = ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "group4", "packbits", "tiff_adobe_deflate", "group3")
OTHERS = {
    "pipe": os.mkfifo if hasattr(os, "mkfifo") else os.mkdir,
    "folder": os.mkdir,
    "nothing": lambda path: None,
    "loop": lambda path: os.symlink(path, path),
    "zeros": lambda path: os.symlink("/dev/zero", path),
    "terminal": lambda path: os.symlink("/dev/tty", path),
    "text": lambda path: Path(path).write_text("hello"),
    "svg": lambda path: Path(path).write_text('<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "heic": lambda path: Path(path).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100),
    "postscript": lambda path: Path(path).write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "empty": lambda path: Path(path).write_bytes(b""),
}  # fmt: skip
NAMES = ("picture.jpg", "a b.png", "\udce9t\udce9.png", "-x.png", "[1].png", "*.png", "x\ny.png",
         "\x1b[31m.png", "n" * 250 + ".png", "名.webp", "x")  # fmt: skip


def make_case(rng: random.Random, folder: Path) -> list[str]:
    path = folder / rng.choice(NAMES)
    if rng.random() < 0.15:
        OTHERS[rng.choice(list(OTHERS))](path)
    else:
        path.write_bytes(picture_bytes(rng))
    more = ["--json"] if rng.random() < 0.3 else []
    if rng.random() < 0.1:
        more += [
            "--draw",
            str(folder / rng.choice(("out.png", "out.jpg", "out.tiff", "out.webp", "out.bmp"))),
        ]
    if rng.random() < 0.1:
        more += ["--image", str(picture_in(folder))]
    # One word, because a name may begin with a dash.
    model, picture = good_checkpoint(), Path(f"./{path.name}") if path.name[0] == "-" else path
    return command(model, picture, *more)


def picture_bytes(rng: random.Random) -> bytes:
    size = rng.choice(((1, 1), (7, 5), (64, 48), (300, 2)))
    picture = Image.frombytes("RGB", size, rng.randbytes(size[0] * size[1] * 3)).convert("RGB")
    kind, options = rng.choice(FORMATS), {}
    try:
        picture = picture.convert(rng.choice(MODES))
    except ValueError:
        picture = picture.convert("L")
    if kind == "TIFF" or rng.random() < 0.2:
        kind, options = "TIFF", {"compression": rng.choice(TIFF)}
    if kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF") and rng.random() < 0.2:
        options |= {"save_all": True, "append_images": [picture] * 2}
    for mode in (picture.mode, "RGB", "1"):
        file = io.BytesIO()
        try:
            picture.convert(mode).save(file, kind, **options)
        except Exception:  # not every format takes every mode
            continue
        content = file.getvalue()
        head = rng.choice((64, 200, None))
        return spoil_bytes(rng, content, head) if rng.random() < 0.9 else content
    return rng.randbytes(200)


if __name__ == "__main__":
    main("pictures")
