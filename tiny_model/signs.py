"""Signs: boards with a printed word or number, to be read by `ocr`.

Fonts are those in tiny_model/fonts; two are never trained on. A third of what is printed is no word
(numbers, invented words, random letters), so that letters are read and not words guessed.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS_FOLDER = Path(__file__).with_name("fonts")
HELD_OUT_FONTS = ("Rubik-SemiBold", "Bitter-SemiBold")
# The height of a capital letter, and how far it is at least from one letter to the next, over S: of 160
# pixels 16 to 35, and 12; in small print 12 to 27, and 8.3.
HEIGHTS, MIN_PITCH = (0.10, 0.22), 0.075
SMALL_HEIGHTS, SMALL_MIN_PITCH = (0.075, 0.17), 0.052
MAX_WIDTH = 0.66  # of a word, over S
MAX_SIGN_TILT = 6  # degrees

_WORDS = """
act add ago air all also and ant any arm art ask aunt away baby back bad bag bake band bank bark barn
base bath bay beach bean beat bed beef begin belt best big bike bill bit black blue board body bone boot
boss both bowl box boy brave bread brick bring brown brush bug burn busy but buy calm camp can candy cap
card care cart case cash chair chalk cheap chef city class clay clean clip close cloud coal coat code
coin cold color come cook cool copy corn cost count cow cream cross crowd cry cut dad dance dark date day
deal dear deep desk dig dinner dirt dish dive doctor door down draw dream dress drink drive drop dry dust
each early earth east easy eat edge egg eight else empty end enjoy enter equal even exit eye face fact
fair fall family far farm fast fat fear feed feel few field fight fill find fire first fish five fix
flag flat floor fly fog food foot for fork four free fresh friend fruit full fun game garden gas gate
get girl give glad glass glove go goal gold good grape grass gray great green grow guess hair half hall
hand happy hard hate have head hear heat hello help here hero hide high hill hint hit hold hole home
hope host hot hotel hour hug hunt ice idea inch ink iron jam jar job join joke juice jump june just keep
kid kind king kiss kite knee knife know lake lamp land last late laugh lazy leaf learn left leg lemon
less let letter level lid life lift light like line lip list live lock log long look loud love low luck
lunch mad magic mail main make man many map mark market math maze meal mean meat meet melt menu milk
mind mine mint miss mix money month moon more most mother mouth move much mud music nail name near neck
need nest net new next nice night nine noise none north nose note now nurse nut oak ocean odd off oil old
one only open orange other out oven over own pack page paint pair pan paper park part party pass path
pay peace pear pen people pet phone piano pick pie pin pink place plan plant plate play please plum
pond pool poor post pot power press price prize pull pump push quick quiet quit radio rain read ready
real red rest rice rich ride right ring rise river road rock roof room root rope rose round rule run
safe sail sale salt same sand save say school sea seat see seed sell send set seven shade shape share
sheep shelf shell shine ship shirt shoe shop short show side sign silver sing sink sister six size skin
sky sleep slow small smart smile smoke snack snow soap sock soft some song soon sound soup south space
spoon sport spring stamp stand start stay step stick still stone stop store storm story street strong
sugar summer sun sweet swim table tail take talk tall tape taste tax taxi tea teach team tell ten tent
test thank thick thin think three tie tiger time tin tiny tip tired toast today toe tool tooth top towel
town toy train trip true try tune turn two ugly uncle under up use vase very visit voice wait walk wall
want warm wash watch water wave way weak wear west wet wheel white wide wife wild win wind window wine
wing winter wise wish wolf wood wool word work world worm write year yellow yes yet you young zero zone zoo
"""
WORDS = _WORDS.split()
CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"
# Without what looks like another one in some fonts: I and l, O and 0, and the like.
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
AS_CAPITALS = "cosuvwxz"  # small ones look the same: what has no other letters comes in capitals


@dataclass
class Sign:
    text: str
    box: tuple[float, float, float, float]  # (y1, x1, y2, x2) of the board
    letters: list[tuple[str, tuple[float, float, float, float]]]  # each with its box


def load_fonts(held_out: bool = False) -> list[Path]:
    files = sorted(FONTS_FOLDER.glob("*.ttf"))
    if not files:
        raise FileNotFoundError(f"no *.ttf in {FONTS_FOLDER}")
    return [file for file in files if (file.stem in HELD_OUT_FONTS) == held_out]


@lru_cache(maxsize=400)
def font_of(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), size)


def random_text(rng: np.random.Generator) -> str:
    """Two to six letters or one to three digits."""
    kind = rng.random()
    if kind < 0.25:
        return str(rng.integers(0, 10 ** rng.integers(1, 4)))
    if kind < 0.40:
        return "".join(LETTERS[i] for i in rng.integers(0, len(LETTERS), rng.integers(2, 6)))
    if kind < 0.60:
        first = int(rng.integers(0, 2))
        sounds = [(CONSONANTS, VOWELS)[(i + first) % 2] for i in range(rng.integers(2, 7))]
        word = "".join(letters[rng.integers(len(letters))] for letters in sounds)
    else:
        word = WORDS[rng.integers(len(WORDS))]
    case = rng.random()
    if case < 0.45 or (case < 0.8 and set(word) <= set(AS_CAPITALS)):
        return word.upper()
    return word if case < 0.8 else word.capitalize()


def board_colors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of the board and of the print: one light and one dark."""
    dark = rng.uniform(0, 90, 3) if rng.random() < 0.6 else rng.uniform(0, 30, 3)
    light = rng.uniform(195, 255, 3) if rng.random() < 0.6 else np.full(3, 250.0)
    if rng.random() < 0.3:  # of one strong color
        dark[rng.integers(3)] = rng.uniform(100, 180)
    return (light, dark) if rng.random() < 0.65 else (dark, light)


def draw_sign(
    rng: np.random.Generator, fonts: list[Path], size: int, jitter: float, small_print: bool = False
) -> tuple[np.ndarray, str, list[tuple[str, np.ndarray]]]:
    """A board as uint8 [h, w, 4] (colors multiplied by alpha), its text, and the letters' boxes there.

    A box is (y1, x1, y2, x2) in pixels of the board.
    """
    text = random_text(rng)
    file = fonts[rng.integers(len(fonts))]
    # How large a font of 100 would draw: what is asked for is the height of a capital letter.
    probe = font_of(file, 100)
    _, top, _, bottom = probe.getbbox("H")
    pitch, capital = probe.getlength(text) / len(text) / 100, (bottom - top) / 100
    heights, min_pitch = (SMALL_HEIGHTS, SMALL_MIN_PITCH) if small_print else (HEIGHTS, MIN_PITCH)
    smallest = max(heights[0] / capital, min_pitch / pitch)
    largest = max(smallest, min(heights[1] / capital, MAX_WIDTH / pitch / len(text)))
    font = font_of(file, round(size * (smallest + (largest - smallest) * rng.random() ** 1.5)))

    left, top, right, bottom = font.getbbox(text)
    margin_x, margin_y = rng.uniform(0.15, 0.5, 2) * font.size
    w, h = round(right - left + 2 * margin_x), round(bottom - top + 2 * margin_y)
    x, y = margin_x - left, margin_y - top
    board, ink = (tuple(int(c) for c in color) for color in board_colors(rng))
    image = Image.new("RGBA", (w, h))
    draw = ImageDraw.Draw(image)
    border = int(rng.integers(0, 3)) if min(w, h) > 16 else 0
    radius = float(rng.choice((0, 0.12, 0.3))) * h
    draw.rounded_rectangle((0, 0, w - 1, h - 1), radius, board, ink, border)
    draw.text((x, y), text, ink, font)

    letters = []
    for i, letter in enumerate(text):
        start = x + font.getlength(text[:i])
        box = font.getbbox(letter)
        letters.append((letter, np.array([y + box[1], start + box[0], y + box[3], start + box[2]])))
    if jitter and rng.random() < 0.4:
        degrees = rng.uniform(-MAX_SIGN_TILT, MAX_SIGN_TILT)
        image = image.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
        letters = [(letter, turned_box(box, degrees, (h, w), image.size[::-1])) for letter, box in letters]
    return np.asarray(image.convert("RGBa")), text, letters


def turned_box(
    box: np.ndarray, degrees: float, before: tuple[int, int], after: tuple[int, int]
) -> np.ndarray:
    """The box around a box that was turned with its picture, whose (h, w) changed."""
    y1, x1, y2, x2 = box
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    ys = np.array([y1, y1, y2, y2]) - before[0] / 2
    xs = np.array([x1, x2, x1, x2]) - before[1] / 2
    new_ys, new_xs = ys * cos - xs * sin + after[0] / 2, xs * cos + ys * sin + after[1] / 2
    return np.array([new_ys.min(), new_xs.min(), new_ys.max(), new_xs.max()])
