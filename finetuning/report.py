"""What a training shows: examples with their tokens, right and wrong answers, its curve, before and after."""

import json
import math
import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer

from generation_1 import parse_boxes
from program.overlap import box_iou
from program.pictures import draw_boxes

# Styles of a terminal, by what a token is; and the signs around it where there are no colors.
STYLES = {
    "picture": ("\033[34m", "", ""),
    "prefix": ("\033[36m", "", ""),
    "learned": ("\033[1;32m", "[", "]"),
}
RESET = "\033[0m"
INK, PALE, LOSS, SCORE = "#222222", "#dddddd", "#4363d8", "#2a8f3f"
MATCH = 0.5  # IoU from which a box is right


# ---------------------------------------------------------------------------- examples, as tokens


def show_row(row: dict, tokenizer: Tokenizer, image_token_id: int, colors: bool) -> str:
    """The tokens of a row in one line: picture, prefix and what is learned, each in its own color."""
    parts, num_image = [], row["input_ids"].count(image_token_id)
    for token_id, label in zip(row["input_ids"], row["labels"], strict=True):
        if token_id == image_token_id:
            continue
        token = tokenizer.id_to_token(token_id).replace("\n", "\\n")
        parts.append(("learned" if label == token_id else "prefix", token))
    parts.insert(0, ("picture", f"<image> x {num_image}"))
    words = []
    for kind, token in parts:
        color, left, right = STYLES[kind]
        words.append(f"{color}{token}{RESET}" if colors else f"{left}{token}{right}")
    return " ".join(words)


def legend(colors: bool) -> str:
    if not colors:
        return "learned: the tokens in [ ]; only seen: all others"
    return ", ".join(f"{color}{kind}{RESET}" for kind, (color, _, _) in STYLES.items())


# ------------------------------------------------------------------------------ right and wrong


def judge(answer: str, truth: str) -> dict:
    """Whether an answer is right, and how well its boxes lie.

    Text is right if it is the same. With boxes: the same labels in the same order, the rest of the
    text the same, and every box with an IoU of at least MATCH; `ious` has one number for each true
    box, 0 where the answer has none for it.
    """
    true_boxes, boxes = parse_boxes(truth, 1000, 1000), parse_boxes(answer, 1000, 1000)
    if not true_boxes:
        return {"right": answer == truth, "ious": []}
    ious = [box_iou(box["box"], true["box"]) for box, true in zip(boxes, true_boxes, strict=False)]
    ious += [0.0] * (len(true_boxes) - len(ious))
    without = [re.sub(r"<loc\d{4}>", "<loc>", text) for text in (answer, truth)]
    return {"right": without[0] == without[1] and min(ious) >= MATCH, "ious": ious}


def scores(answers: list[str], truths: list[str]) -> dict:
    """`right`: the share of right answers; `iou`: the mean over all true boxes, None if there are none."""
    judged = [judge(answer, truth) for answer, truth in zip(answers, truths, strict=True)]
    ious = [iou for found in judged for iou in found["ious"]]
    return {
        "right": sum(found["right"] for found in judged) / len(judged),
        "iou": sum(ious) / len(ious) if ious else None,
    }


# --------------------------------------------------------------------------------- the pictures


def font(size: int):
    return ImageFont.load_default(size=size)


def boxed(picture: Image.Image, answer: str, side: int) -> Image.Image:
    """A picture in a square of so many pixels, with the boxes of an answer."""
    picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    return draw_boxes(picture, parse_boxes(answer, side, side))


def text_of(answer: str) -> str:
    """An answer without its numbers, which the boxes show."""
    text = " ".join(re.sub(r"(?:<(?:loc|seg)\d+>)+ ?", "", answer).split())
    return text or ("(says nothing)" if not answer else "(boxes only)")


def fitted(draw: ImageDraw.ImageDraw, text: str, width: int, size: int) -> str:
    """As much of a text as fits, with dots where it was cut."""
    end = len(text)
    while end and draw.textlength(shown := text[:end] + "..." * (end < len(text)), font=font(size)) > width:
        end -= 1
    return shown if end else text[:1]


def before_and_after(
    pictures: list[Image.Image], prefixes: list[str], before: list[str], after: list[str], title: str
) -> Image.Image:
    """A column for each picture: what was answered before above, what is answered after below."""
    side, gap, line = 224, 12, 22
    width = gap + len(pictures) * (side + gap)
    height = 40 + 2 * (side + 2 * line + gap) + gap
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap), fitted(draw, title, width - 2 * gap, 17), fill=INK, font=font(17))
    for row, (name, answers) in enumerate((("before", before), ("after", after))):
        y = 40 + row * (side + 2 * line + gap)
        for column, (picture, prefix, answer) in enumerate(zip(pictures, prefixes, answers, strict=True)):
            x = gap + column * (side + gap)
            sheet.paste(boxed(picture, answer, side), (x, y))
            asked = fitted(draw, f"{name}: {prefix}", side, 13)
            draw.text((x, y + side + 3), asked, fill="#777777", font=font(13))
            said = fitted(draw, text_of(answer), side, 16)
            draw.text((x, y + side + line - 1), said, fill=INK, font=font(16))
    return sheet


def curve(steps: list[dict], title: str) -> Image.Image:
    """The loss of every step, as it is and smoothed, on the left; the share of right answers on the right."""
    width, height, left, right, top, bottom = 900, 480, 64, 64, 48, 56
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    losses = [entry["loss"] for entry in steps]
    last, most = max(entry["step"] for entry in steps), max(*losses, 1e-9)

    def place(step: float, share: float) -> tuple[float, float]:
        return (
            left + (width - left - right) * (step - 1) / max(1, last - 1),
            top + (height - top - bottom) * (1 - share),
        )

    for tenth in range(0, 11, 2):
        share = tenth / 10
        (x1, y), (x2, _) = place(1, share), place(last, share)
        draw.line((x1, y, x2, y), fill=PALE)
        draw.text((x1 - 8, y), f"{most * share:.3g}", fill=LOSS, font=font(14), anchor="rm")
        draw.text((x2 + 8, y), f"{share:.1f}", fill=SCORE, font=font(14), anchor="lm")
    for i in range(5):
        step = 1 + round((last - 1) * i / 4)
        x, y = place(step, 0)
        draw.text((x, y + 6), str(step), fill=INK, font=font(14), anchor="mt")
    draw.text((width / 2, height - 8), "steps", fill=INK, font=font(14), anchor="mb")
    draw.text((left, 14), title, fill=INK, font=font(16))
    draw.text((left - 8, top - 8), "loss", fill=LOSS, font=font(14), anchor="rb")
    draw.text((width - right + 8, top - 8), "right", fill=SCORE, font=font(14), anchor="lb")

    if len(steps) > 1:
        draw.line([place(entry["step"], entry["loss"] / most) for entry in steps], fill="#b9c5f0", width=1)
        smooth, points, keep = losses[0], [], math.exp(-1 / max(1, len(steps) / 30))
        for entry in steps:
            smooth = keep * smooth + (1 - keep) * entry["loss"]
            points.append(place(entry["step"], smooth / most))
        draw.line(points, fill=LOSS, width=3)
    points = [place(entry["step"], entry["right"]) for entry in steps if entry.get("right") is not None]
    if len(points) > 1:
        draw.line(points, fill=SCORE, width=3)
    for x, y in points:
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=SCORE)
    return sheet


def log_lines(steps: list[dict]) -> str:
    """One JSON object a line, a line a step; those at the end of an epoch have what was right."""
    return "".join(json.dumps(entry) + "\n" for entry in steps)


def write_text(path: Path, text: str):
    path.write_text(text, encoding="utf-8")
