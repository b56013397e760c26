"""A small drawing helper in Pillow: smooth lines, and text with the signs that Pillow's font lacks.

Everything is drawn SHARP times as large and then reduced, which smooths every edge. A picture is meant
to be shown at half its width, so that text of size 28 is as large as the text around it.
"""

import re

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, SOFT, LINE, WELL = "#fbfaf7", "#24221f", "#6a645b", "#cfc8bc", "#ece8e0"
TEAL, BLUE, PURPLE, RUST, GOLD = "#0f766e", "#2457c5", "#7e3fb8", "#b8480b", "#d99a1c"
WIDTH, SHARP = 1360, 3

TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
# Strokes in a square of the height of a capital letter, the baseline at 1; and how wide the sign is.
SIGNS = {
    "√": (1.0, [[(0.12, 0.6), (0.26, 0.52), (0.46, 1.0), (0.82, -0.1), (1.0, -0.1)]]),
    TIMES: (0.8, [[(0.16, 0.4), (0.64, 0.92)], [(0.64, 0.4), (0.16, 0.92)]]),
    "→": (1.25, [[(0.1, 0.62), (1.12, 0.62)], [(0.82, 0.36), (1.12, 0.62), (0.82, 0.88)]]),
    MINUS: (0.85, [[(0.14, 0.64), (0.7, 0.64)]]),
    "≈": (0.85, [[(0.1, 0.55), (0.28, 0.44), (0.54, 0.6), (0.72, 0.48)],
                 [(0.1, 0.82), (0.28, 0.71), (0.54, 0.87), (0.72, 0.75)]]),
}  # fmt: skip
CAPITAL = 0.7  # its height, as a part of the size


def rgb(color: str) -> np.ndarray:
    return np.array(list(bytes.fromhex(color[1:])), dtype=float)


def mix(color: str, part: float, ground: str = PAPER) -> str:
    """A color on a ground, as strong as part says (0 to 1)."""
    return "#" + bytes(int(v + 0.5) for v in rgb(ground) + (rgb(color) - rgb(ground)) * float(part)).hex()


def signed(value: float, largest: float) -> str:
    """Rust for what is positive, blue for what is negative, paper for 0."""
    part = min(1.0, abs(float(value)) / largest)
    return mix(RUST if value > 0 else BLUE, part, "#ffffff")


class Canvas:
    def __init__(self, height: int, width: int = WIDTH, ground: str = PAPER):
        self.size = (width, height)
        self.image = Image.new("RGB", (width * SHARP, height * SHARP), ground)
        self.draw = ImageDraw.Draw(self.image)

    def finish(self) -> Image.Image:
        return self.image.reduce(SHARP)

    # ------------------------------------------------------------------------------ shapes

    def line(self, points, fill=INK, width=3.0):
        points = [(x * SHARP, y * SHARP) for x, y in points]
        self.draw.line(points, fill=fill, width=round(width * SHARP), joint="curve")
        radius = width * SHARP / 2
        for x, y in (points[0], points[-1]):  # round ends
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def dashes(self, start, end, fill=SOFT, width=2.0, dash=10):
        (x1, y1), (x2, y2) = start, end
        count = max(1, int(((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5 / dash))
        for i in range(0, count, 2):
            a, b = i / count, min(1, (i + 1) / count)
            self.line([(x1 + (x2 - x1) * t, y1 + (y2 - y1) * t) for t in (a, b)], fill, width)

    def arrow(self, start, end, fill=INK, width=3.0, head=14.0):
        (x1, y1), (x2, y2) = start, end
        length = max(1e-9, ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5)
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        bx, by = x2 - ux * head, y2 - uy * head
        self.line([start, (bx, by)], fill, width)
        self.polygon([(x2, y2), (bx - uy * head * 0.5, by + ux * head * 0.5),
                      (bx + uy * head * 0.5, by - ux * head * 0.5)], fill)  # fmt: skip

    def polygon(self, points, fill):
        self.draw.polygon([(x * SHARP, y * SHARP) for x, y in points], fill=fill)

    def rect(self, x, y, w, h, fill=None, outline=None, width=2.0, radius=0.0):
        x, y, w, h = x * SHARP, y * SHARP, max(w * SHARP, 1), max(h * SHARP, 1)
        box = (x, y, x + w - 1, y + h - 1)
        self.draw.rounded_rectangle(
            box, radius * SHARP, fill, outline, round(width * SHARP) if outline else 0
        )

    def circle(self, x, y, radius, fill=None, outline=None, width=2.0):
        box = tuple(v * SHARP for v in (x - radius, y - radius, x + radius, y + radius))
        self.draw.ellipse(box, fill, outline, round(width * SHARP) if outline else 0)

    def paste(self, picture: Image.Image, x, y, w, h, smooth=True):
        resample = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        picture = picture.convert("RGB").resize((round(w * SHARP), round(h * SHARP)), resample)
        self.image.paste(picture, (round(x * SHARP), round(y * SHARP)))

    # -------------------------------------------------------------------------------- text

    def text(self, x, y, text, size=28, fill=INK, anchor="ls", bold=False, turned=False):
        """anchor: l, m, r (left, middle, right) and s, m, t (baseline, middle of capitals, their top).

        In the text -> becomes an arrow, * between spaces a multiplication sign, and - between spaces or
        before a number a minus.
        """
        text = text.replace("->", "→").replace(" * ", f" {TIMES} ").replace(" - ", f" {MINUS} ")
        text = re.sub(r"(?<!\w)-(?=\d)", MINUS, text)
        font = ImageFont.load_default(size * SHARP)
        tall = size * CAPITAL * SHARP
        stroke = size * SHARP * 0.02 if bold else 0
        # Bold is drawn letter by letter, with room for its strokes; otherwise whole words keep their kerning.
        parts = re.split(f"([{''.join(SIGNS)}]{'|.' if bold else ''})", text)
        pieces = [
            (part, SIGNS[part][0] * tall if part in SIGNS else font.getlength(part) + stroke)
            for part in parts
            if part
        ]
        wide = sum(width for _, width in pieces)
        target, draw = self.image, self.draw
        left, base = x * SHARP, y * SHARP
        if turned:  # upwards, its middle at x, y
            target = Image.new("L", (round(wide) + 8, round(tall * 2.2)), 0)
            draw = ImageDraw.Draw(target)
            left, base = 4, tall * 1.6
        else:
            left -= {"l": 0, "m": wide / 2, "r": wide}[anchor[0]]
            base += {"s": 0, "m": tall / 2, "t": tall}[anchor[1]]
        ink = 255 if turned else fill
        for piece, width in pieces:
            if piece in SIGNS:
                for stroke_points in SIGNS[piece][1]:
                    points = [(left + a * tall, base - tall + b * tall) for a, b in stroke_points]
                    draw.line(points, fill=ink, width=round(size * SHARP * 0.075 + stroke), joint="curve")
            else:
                draw.text((left, base), piece, fill=ink, font=font, anchor="ls", stroke_width=round(stroke))
            left += width
        if turned:
            target = target.rotate(90, expand=True)
            corner = (round(x * SHARP - target.width / 2), round(y * SHARP - target.height / 2))
            self.image.paste(Image.new("RGB", target.size, fill), corner, target)

    def note(self, x, y, text, anchor="ls"):
        self.text(x, y, text, 24, SOFT, anchor)

    def width_of(self, text, size=28) -> float:
        return ImageFont.load_default(size * SHARP).getlength(text) / SHARP

    # ------------------------------------------------------------------------------- plots

    def cells(self, x, y, side, values, color, gap=0.0, numbers=None, size=20):
        """A grid of squares; values [rows, columns], color(value); numbers: how one is written."""
        for r, row in enumerate(values):
            for c, value in enumerate(row):
                shade = color(value)
                self.rect(x + c * side, y + r * side, side - gap, side - gap, shade)
                if numbers:
                    dark = rgb(shade) @ [0.3, 0.59, 0.11] < 140
                    self.text(x + (c + 0.5) * side - gap / 2, y + (r + 0.5) * side - gap / 2,
                              numbers(value), size, "#ffffff" if dark else INK, "mm")  # fmt: skip

    def axes(self, box, xs, ys, xticks=(), yticks=(), xname="", yname="", size=24):
        """The frame of a plot in box (x, y, width, height), for values from xs[0] to xs[1], ys[0] to ys[1].

        Returns the function from values to places on the canvas.
        """
        x, y, w, h = box

        def place(a, b):
            return x + (a - xs[0]) / (xs[1] - xs[0]) * w, y + h - (b - ys[0]) / (ys[1] - ys[0]) * h

        for tick in yticks:
            value, name = tick if isinstance(tick, tuple) else (tick, f"{tick:g}")
            level = place(xs[0], value)[1]
            self.line([(x, level), (x + w, level)], WELL, 2)
            self.text(x - 14, level, name, size, SOFT, "rm")
        self.line([(x, y + h), (x + w, y + h)], LINE, 2.5)
        for tick in xticks:
            value, name = tick if isinstance(tick, tuple) else (tick, f"{tick:g}")
            self.text(place(value, ys[0])[0], y + h + 16, name, size, SOFT, "mt")
        if len(xname) < 3:
            self.text(x + w + 14, y + h, xname, size, SOFT, "lm")
        else:
            self.text(x + w, y + h + 56, xname, size, SOFT, "rt")
        self.text(x, y - 18, yname, size, SOFT, "ls")
        return place


def save(image: Image.Image, path):
    """As a PNG of at most 256 colors, which such drawings do not exceed visibly."""
    method, dither = Image.Quantize.FASTOCTREE, Image.Dither.NONE
    image.quantize(256, method=method, kmeans=3, dither=dither).save(path, optimize=True)
