"""Pictures in and out: what may be opened, how it is turned into RGB, and drawings with boxes."""

import contextlib
import io
import logging
import os
import stat
import warnings
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from load_weights import silenced_stderr
from program.command_line import InputError, check_output
from program.files import replace_file

# What pictures come in. Pillow knows 40 more; for one of them it starts another program (EPS: Ghostscript).
READABLE = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
DRAWABLE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff")
LONGEST_SIDE = {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500}  # in pixels; others take any
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
SOFTWARE = 0x0131  # the Exif entry of who made a picture
MADE_HERE = "PaliGemma from scratch: inference.py --draw"
COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#f032e6")

logging.getLogger("PIL").addHandler(logging.NullHandler())  # its remarks on damaged files


@contextlib.contextmanager
def opened(path: str):
    """A picture's file, of which only the head is read yet; what is wrong with it is an InputError."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"cannot read picture {path}: is a directory")
        if not stat.S_ISREG(mode):  # reading could wait forever
            raise InputError(f"cannot read picture {path}: is a pipe or a device, not a file")
        Image.init()
        with warnings.catch_warnings(), silenced_stderr():
            warnings.simplefilter("ignore")  # of damaged files
            # Above 89 million pixels Pillow warns, above twice that it raises an error.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=[kind for kind in READABLE if kind in Image.OPEN]) as file:
                refuse_measurements(file, path)
                yield file
    except (InputError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise InputError(f"{path} is {what_instead(path)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: refused") from None
    except Exception as error:
        # Damaged files raise almost anything, from OSError to SyntaxError.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"cannot read picture {path}: {reason}") from error


def what_instead(path: str) -> str:
    """What a file is that Pillow does not know as a picture."""
    with open(path, "rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:] in HEIC_BRANDS:
        return "a HEIC picture, as phones take them, which cannot be read here: save it as JPEG or PNG first"
    return f"not a picture in a format that can be read here ({', '.join(READABLE)})"


def refuse_measurements(file: Image.Image, path: str):
    """Refuses float, 32-bit and signed pixels: nothing in such a file says which value is white.

    Taken as they are, values from 0 to 1 would come out black. (A 16-bit PPM is of mode I as well.)
    """
    if file.mode == "F" or (file.mode, file.format) == ("I", "TIFF"):
        kind = "float" if file.mode == "F" else "32-bit or signed"
        raise InputError(
            f"{path} has {kind} pixels, and nothing says which value is white: save it as PNG first"
        )


def check_picture(path: str):
    """Looks at the head of a picture's file: finds what is missing or no picture, in no time."""
    with opened(path):
        pass


def open_picture(path: str) -> Image.Image:
    """Opens a picture of any mode as the RGB picture that a viewer shows.

    Turned as its EXIF entry says; transparent parts on white; 16 bits scaled to 8, where
    Pillow's own conversion would cut off all above 255; of an animation the first frame.
    Float, 32-bit and signed pixels are refused: see refuse_measurements.
    """
    with opened(path) as file:
        picture = ImageOps.exif_transpose(file)
        if picture.mode not in ("RGB", "RGBA", "P"):
            picture.info.pop("icc_profile", None)  # of gray or of inks: not of what is made of it here
        if picture.mode.startswith("I"):  # I;16, and I from a 16-bit file
            return picture.convert("I").point(lambda value: value / 257 + 0.5).convert("RGB")
        if picture.has_transparency_data:
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture.convert("RGBA"))
        return picture.convert("RGB")


# --------------------------------------------------------------------------------- drawings


def colors_of(boxes: list[dict]) -> list[str]:
    """The color of each box: one for each label."""
    labels = list(dict.fromkeys(box["label"] for box in boxes))  # in order, each once
    return [COLORS[labels.index(box["label"]) % len(COLORS)] for box in boxes]


def draw_boxes(picture: Image.Image, boxes: list[dict]) -> Image.Image:
    """A copy of the picture with the boxes and their labels, one color for each label."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    line = max(2, round(min(picture.size) / 150))
    font = ImageFont.load_default(size=max(12, min(picture.size) / 20))
    for box, color in zip(boxes, colors_of(boxes), strict=True):
        x1, y1, x2, y2 = box["box"]
        draw.rectangle((x1, y1, x2, y2), outline=color, width=line)
        # The label stands on the box, moved inwards where the picture ends.
        left, top, right, bottom = draw.textbbox((0, 0), box["label"], font=font)
        x = max(0, min(x1, picture.width - (right + 2 * line)))
        y = max(0, y1 - (bottom + 2 * line))
        draw.rectangle((x, y, x + right + 2 * line, y + bottom + 2 * line), fill=color)
        draw.text((x + line, y + line), box["label"], fill="white", font=font)
    return picture


def check_drawing(
    out: Path, inputs: list[str], overwrite: bool, option: str = "--draw", endings: tuple[str, ...] = DRAWABLE
):
    """Finds before the model runs what would keep a drawing from being written.

    Only a drawing of this program's is overwritten without being asked to; a picture that the model
    is asked about is never.
    """
    check_output(out, option, endings)
    if not out.exists():
        return
    if any(os.path.samefile(out, path) for path in inputs):
        raise InputError(f"{option} {out}: this is the input picture, which is never overwritten")
    if not overwrite and not is_made_here(out):
        raise InputError(
            f"{option} {out}: the file exists, and nothing in it says that this program made it; "
            "choose another name, or add --overwrite"
        )


def check_size(out: Path, size: tuple[int, int]):
    """A format has only so many bits for the length of a side."""
    longest = LONGEST_SIDE.get(out.suffix.lower())
    if longest is not None and max(size) > longest:
        raise InputError(
            f"--draw {out}: {out.suffix} files have at most {longest:,} pixels a side, and the picture has "
            f"{max(size):,}; .png has no such limit"
        )


def is_made_here(path: Path) -> bool:
    """Whether the file itself says that this program drew it. (BMP has no room for it.)"""
    try:
        with opened(str(path)) as picture:
            return picture.getexif().get(SOFTWARE) == MADE_HERE
    except InputError:
        return False


def write_picture(picture: Image.Image, out: Path):
    """Writes a drawing in the format of its name, or leaves what is there as it was."""
    # Of what the picture's own file said of itself, only what its colors mean: not how it was compressed.
    picture = picture.copy()
    profile = picture.info.get("icc_profile")
    picture.info = {"icc_profile": profile} if isinstance(profile, bytes) else {}  # a TIFF's may be a number
    exif = Image.Exif()
    exif[SOFTWARE] = MADE_HERE
    content = io.BytesIO()
    picture.save(content, Image.registered_extensions()[out.suffix.lower()], exif=exif)
    replace_file(out, content.getvalue())
