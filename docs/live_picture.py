"""Makes docs/pictures/live.gif: the live page, with a second dog dragged in, found, and turned.

    python -m docs.live_picture

It needs playwright and Chromium (requirements-dev.txt).
"""

import io
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from program.files import replace_file

ROOT = Path(__file__).resolve().parent.parent
OUT = Path(__file__).resolve().parent / "pictures" / "live.gif"
WIDTH, HEIGHT, SHOWN = 1160, 720, 760  # of the window, and how wide the picture is
COLORS = 255


class Film:
    """Frames of a tab, each with the time for which it is shown."""

    def __init__(self, tab):
        self.tab, self.frames, self.milliseconds = tab, [], []

    def take(self, milliseconds: int):
        with Image.open(io.BytesIO(self.tab.screenshot())) as shot:
            frame = shot.convert("RGB").resize((SHOWN, SHOWN * HEIGHT // WIDTH), Image.Resampling.LANCZOS)
        self.frames.append(frame)
        self.milliseconds.append(milliseconds)

    def answered(self):
        """Waits until the newest question is."""
        read = "(({asked, coded}) => asked && asked === coded)(document.getElementById('stage').dataset)"
        while not self.tab.evaluate(read):
            time.sleep(0.05)

    def gif(self) -> bytes:
        # One palette for all, so that nothing that stays flickers.
        palette = self.frames[-1].quantize(COLORS, dither=Image.Dither.NONE)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        file = io.BytesIO()
        frames[0].save(
            file, "GIF", save_all=True, append_images=frames[1:], duration=self.milliseconds, loop=0
        )
        return file.getvalue()


def middle(locator, x=0.5, y=0.5) -> tuple[float, float]:
    box = locator.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def act(film: Film):
    tab = film.tab
    film.answered()
    film.take(1500)
    dog = tab.get_by_role("button", name="Add: dog")
    tab.mouse.move(*middle(dog))
    tab.mouse.down()
    (x1, y1), (x2, y2) = middle(dog), middle(tab.locator("#stage"), 0.74)
    for step in range(1, 9):
        tab.mouse.move(x1 + (x2 - x1) * step / 8, y1 + (y2 - y1) * step / 8)
        time.sleep(0.3)
        film.take(110)
    tab.mouse.up()
    film.answered()
    film.take(1800)
    tab.get_by_role("button", name="detect dog").click()
    film.answered()
    film.take(1800)
    thing = tab.locator(".thing").nth(1)
    for key in ("[", "[", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp"):
        thing.press(key)
        film.answered()
        film.take(180)
    film.take(1500)


def main():
    command = [sys.executable, "explain.py", "--live", "--no-browser"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            tab.goto(server.stdout.readline().strip())
            tab.add_style_tag(content=".bench { grid-template-columns: 380px 1fr; }")
            film = Film(tab)
            act(film)
    finally:
        server.terminate()
        server.wait()
    content = film.gif()
    replace_file(OUT, content)
    print(f"{len(film.frames)} frames, {len(content) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
