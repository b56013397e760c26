"""The pictures of the lessons on training."""

from PIL import Image

from docs.lessons.canvas import BLUE, GOLD, INK, LINE, PURPLE, RUST, SOFT, TEAL, Canvas, mix
from docs.lessons.parts import drawn


@drawn
def training_batch() -> Image.Image:
    """Two rows of a batch, and which of their positions get logits and labels."""
    canvas, cell, left = Canvas(400), 62, 60
    rows = (
        ("image", "image", "bos", "detect", "_cat", "\\n", "0269", "0037", "0747", "0395", "_cat", "eos"),
        ("image", "image", "bos", "a", "_dog", "?", "\\n", "no", "eos"),
    )
    answers, longest = (6, 2), len(rows[0])
    step = cell + 42
    for r, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        y = 110 + r * 110
        for t in range(longest):
            token = ("pad",) * (longest - len(row)) + row
            is_answer = t >= longest - answer
            color = {"pad": LINE, "image": BLUE}.get(token[t], TEAL if not is_answer else RUST)
            x = left + t * step
            canvas.rect(x, y, step - 8, cell, mix(color, 0.6 if is_answer else 0.28), radius=6)
            canvas.text(x + (step - 8) / 2, y + cell / 2, token[t], 22, INK, "mm")
            if is_answer:
                canvas.arrow((x - 26, y + cell + 16), (x - 26, y + cell + 2), PURPLE, 3, 9)
    x = left + (longest - 7) * step - 10
    canvas.rect(x, 88, 7 * step + 12, 250, None, GOLD, 4, 10)
    canvas.text(x, 66, "the last A + 1 positions get logits", 26, INK, bold=True)
    canvas.note(left, 66, "two rows, padded on the left")
    canvas.note(left, 378, "red: learned; arrows: where each of these is predicted, one position before it")
    return canvas.finish()


@drawn
def lora_matrices() -> Image.Image:
    """W, B and A of q_proj in the 3B model, to scale."""
    canvas, side = Canvas(470), 320
    top, thin = 80, 320 * 8 / 2048
    canvas.rect(60, top, side, side, mix(BLUE, 0.25), BLUE, 2)
    canvas.text(60 + side / 2, top + side / 2, "W", 40, BLUE, "mm", bold=True)
    canvas.text(60 + side / 2, 50, "2048 * 2048", 26, INK, "ms")
    canvas.note(60, top + side + 40, "4,194,304 numbers, frozen")
    canvas.text(440, top + side / 2, "+", 44, INK, "mm")
    canvas.text(500, top + side / 2, "alpha / R", 28, INK, "lm")
    canvas.rect(690, top, thin, side, RUST)
    canvas.text(690, 50, "B, 2048 * 8", 26, RUST, "ms")
    canvas.rect(780, top + side / 2, side, thin, RUST)
    canvas.text(780 + side / 2, top + side / 2 - 24, "A, 8 * 2048", 26, RUST, "ms")
    canvas.note(690, top + side + 40, "32,768 numbers, which learn")
    canvas.text(1130, top + side / 2, "drawn to scale", 24, SOFT, "lm")
    return canvas.finish()
