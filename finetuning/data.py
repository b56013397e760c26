"""Examples from files, each looked at before anything is learned from it.

    train.jsonl      {"image": "pictures/cat.jpg", "prefix": "detect cat", "suffix": "<loc0256>... cat"}
    photos/          cat.jpg and beside it cat.txt, the caption: the prefix is then `caption en`

A mistake in the data is not seen in the loss: it goes down just as well. So every example is checked
for what people get wrong, and each complaint names file and line.
"""

import argparse
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer

from program.bar import bar
from program.command_line import InputError, log
from program.pictures import open_picture

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
CAPTION = "caption en"  # the prefix of a folder's captions
SPECIAL = ("<image>", "<bos>", "<eos>", "<pad>", "<unk>")
KEYS = ("image", "prefix", "suffix")


@dataclass(frozen=True)
class Example:
    """A picture, what is asked about it, the answer to learn, and where it was found."""

    picture: Path
    prefix: str
    suffix: str
    where: str  # `train.jsonl:12`


class BadExample(Exception):
    """One example that nothing can be learned from; the message says why."""


# -------------------------------------------------------------------------------- from files


def read_lines(path: Path) -> list[tuple[str, object]]:
    """JSON lines: where each was found, and what it holds or the error it gave. Blank lines are none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            content = BadExample("this line is not UTF-8 text")
        except (ValueError, RecursionError) as error:
            content = BadExample(f"not a JSON object in one line ({error})")
        found.append((f"{path}:{number}", content))
    return found


def read_folder(folder: Path) -> list[tuple[str, object]]:
    """The pictures of a folder, each with the text file of its name, as JSON lines would hold them."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES):
        beside = path.with_suffix(".txt")
        try:
            content = {
                "image": path.name,
                "prefix": CAPTION,
                "suffix": beside.read_text(encoding="utf-8-sig").strip(),
            }
            if not content["suffix"]:
                content = BadExample(f"{beside.name} beside it is empty")
        except FileNotFoundError:
            content = BadExample(f"no {beside.name} with its caption beside it")
        except (OSError, ValueError) as error:
            content = BadExample(f"{beside.name} beside it cannot be read: {error}")
        found.append((str(path), content))
    return found


def read_contents(path: Path) -> tuple[Path, list[tuple[str, object]]]:
    """What a file or folder holds, and the folder that the paths of its pictures begin in."""
    return (path, read_folder(path)) if path.is_dir() else (path.parent, read_lines(path))


def fingerprint(path: Path) -> str:
    """Changes when the examples or their pictures do, so that no training goes on with others unnoticed."""
    folder, found = read_contents(path)
    contents = [content for _, content in found]
    text = repr(contents).encode(errors="backslashreplace") if path.is_dir() else path.read_bytes()
    digest = hashlib.sha256(text)
    images = [content.get("image") for content in contents if isinstance(content, dict)]
    for picture in dict.fromkeys(folder / image for image in images if isinstance(image, str)):
        # What cannot be read is a bad example, which is told elsewhere.
        if os.path.isfile(picture) and os.access(picture, os.R_OK):
            # Whole, because what is changed by hand may be a corner; to decode it takes far longer.
            with picture.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def file_print(path: Path, pieces: int = 256, length: int = 2**14) -> str:
    """A SHA-256 of a file up to 4 MB; of a larger one, of its size and of pieces all over it.

    The 3B's weights are 6 GB, and those of the same model after another training have the same size.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in range(0, size, max(length, size // pieces)):
            file.seek(start)
            digest.update(file.read(length))
    return digest.hexdigest()


# ----------------------------------------------------------------------------- what is wrong


def check_fields(content: object) -> dict[str, str]:
    if isinstance(content, BadExample):
        raise content
    if not isinstance(content, dict):
        raise BadExample(f"must be an object with image, prefix and suffix, not {type(content).__name__}")
    for key in KEYS:
        if key not in content:
            hint = f"; it has {', '.join(content)}" if content else ""
            raise BadExample(f"no {key!r}{hint:.80}")
        if not isinstance(content[key], str):
            raise BadExample(f"{key} must be text, not {json.dumps(content[key])[:40]}")
        if content[key] != content[key].encode(errors="replace").decode():
            raise BadExample(f"{key} is not valid text (half of a surrogate pair)")
    return content


def check_text(key: str, text: str, tokenizer: Tokenizer):
    for token in SPECIAL:
        if token in text:
            why = {"<image>": "places for the picture", "<eos>": "the end"}.get(token, "such tokens")
            raise BadExample(f"{key} contains {token}: {why} are put there by the program")
    if "\n" in text or "\r" in text:
        raise BadExample(f"{key} contains a line break, which stands between prefix and suffix: leave it out")
    for token in re.findall(r"<(?:loc|seg)[^<>\s]*>?", text):
        if tokenizer.token_to_id(token) is None:
            raise BadExample(f"{key} has {token}: there are <loc0000> to <loc1023> and <seg000> to <seg127>")
    unknown = tokenizer.token_to_id("<unk>")
    encoding = tokenizer.encode(text, add_special_tokens=False)
    for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        if token_id == unknown:
            raise BadExample(f"{key} has {text[start:end]!a}, which the model's tokenizer does not know")


def check_boxes(suffix: str):
    """Four <loc> to a box, in the order y1 x1 y2 x2, and not upside down."""
    for run in re.findall(r"(?:<loc\d{4}>)+", suffix):
        numbers = [int(number) for number in re.findall(r"\d{4}", run)]
        if len(numbers) != 4:
            raise BadExample(f"{len(numbers)} <loc> in a row: a box is four (y1, x1, y2, x2)")
        y1, x1, y2, x2 = numbers
        if y1 > y2 or x1 > x2:
            raise BadExample(f"the box {run} ends before it begins: the order is y1, x1, y2, x2")


def check(where: str, content: object, folder: Path, tokenizer: Tokenizer, longest: int) -> Example:
    """The example, or BadExample."""
    fields = check_fields(content)
    for key in ("prefix", "suffix"):
        check_text(key, fields[key], tokenizer)
    check_boxes(fields["suffix"])
    num_tokens = len(tokenizer.encode(fields["suffix"], add_special_tokens=False).ids)
    if num_tokens > longest:
        raise BadExample(f"suffix has {num_tokens} tokens, more than the {longest} of --max-tokens")
    if not fields["image"]:
        raise BadExample("image is empty")
    picture = folder / fields["image"]
    if not picture.is_file():
        what = "is a folder" if picture.is_dir() else "does not exist (paths are relative to the file)"
        raise BadExample(f"picture {picture} {what}")
    try:
        open_picture(str(picture))
    except InputError as error:
        raise BadExample(str(error)) from None
    return Example(picture, fields["prefix"], fields["suffix"], where)


def read_examples(
    path: Path, tokenizer: Tokenizer, longest: int, skip_bad: bool
) -> tuple[list[Example], list[str]]:
    """All examples of a file or folder, and one complaint for each bad one.

    Raises InputError for the first bad one, unless they are skipped, and if nothing is left.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    folder, found = read_contents(path)
    if not found:
        what = f"no pictures ({', '.join(PICTURES)})" if path.is_dir() else "no examples: it is empty"
        raise InputError(f"{path} holds {what}")
    examples, complaints = [], []
    for where, content in bar(found, desc=f"Checking {path.name}", unit="example", delay=1, leave=False):
        try:
            examples.append(check(where, content, folder, tokenizer, longest))
        except BadExample as error:
            complaints.append(f"{where}: {' '.join(str(error).split())}")
    if complaints and not skip_bad:
        more = f" (and {len(complaints) - 1} more like this)" if len(complaints) > 1 else ""
        raise InputError(f"{complaints[0]}{more}; --skip-bad goes on without bad examples")
    if not examples:
        raise InputError(f"{path} holds no good example: {complaints[0]}")
    return examples, complaints


def refuse_overlap(train: list[Example], held_out: list[Example]):
    """Whoever is asked what was learned shows memory, not understanding."""
    learned = {(example.picture.resolve(), example.prefix): example.where for example in train}
    for example in held_out:
        where = learned.get((example.picture.resolve(), example.prefix))
        if where is not None:
            raise InputError(
                f"{example.where} is learned as well ({where}): leave it out of one of them, "
                "or its answer says nothing about unseen pictures"
            )


def hold_out(examples: list[Example], order: list[int]) -> tuple[list[Example], list[Example]]:
    """Every tenth picture, with all that is asked about it, is kept for the evaluation (at most 200).

    order: a permutation of the pictures, drawn from the seed.
    """
    pictures = list(dict.fromkeys(example.picture for example in examples))
    if len(pictures) < 2:
        raise InputError(
            f"{examples[0].where}: one picture alone cannot be split into one to learn from and one to be "
            "asked about: add more, or give others with --eval"
        )
    chosen = {pictures[i] for i in order[: min(200, max(1, len(pictures) // 10))]}
    return (
        [example for example in examples if example.picture not in chosen],
        [example for example in examples if example.picture in chosen],
    )


def load_pictures(examples: list[Example]) -> list[Image.Image]:
    return [open_picture(str(example.picture)) for example in examples]


# ------------------------------------------------------------------------------ all of a training's data


@dataclass
class Task:
    """The data of a training: what is learned, what is asked, and the pictures of both."""

    train: list[Example]
    held_out: list[Example]
    pictures: list[Path]  # each once

    @property
    def examples(self) -> list[Example]:
        return self.train + self.held_out


def read_task(args: argparse.Namespace, tokenizer) -> Task:
    """Reads and checks all examples, and holds some out if there is no --eval.

    Returns the Task. Raises InputError for a file that cannot be read, for the first bad example unless they
    are skipped, and if nothing is left, or what is asked is learned as well.
    """
    train, complaints = read_examples(Path(args.data), tokenizer, args.max_tokens, args.skip_bad)
    if args.eval is not None:
        held_out, more = read_examples(Path(args.eval), tokenizer, args.max_tokens, args.skip_bad)
        complaints += more
        refuse_overlap(train, held_out)
    else:
        pictures = len({example.picture for example in train})
        generator = torch.Generator().manual_seed(args.seed)
        train, held_out = hold_out(train, torch.randperm(pictures, generator=generator).tolist())
    for complaint in complaints[:5]:
        log(f"Left out: {complaint}")
    if complaints:
        log(f"Bad examples left out: {len(complaints)}")
    pictures = list(dict.fromkeys(example.picture for example in train + held_out))
    log(
        f"Training on {len(train)} examples, evaluating on {len(held_out)} others; "
        f"{len(pictures)} pictures in all"
    )
    return Task(train, held_out, pictures)
