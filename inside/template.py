"""The page's files, and how their places are filled. Nothing large is imported here.

page.html   the words; {{Name}} is where a link to a class or function of the set goes
page.css    how it looks, in light and dark, on wide and narrow screens
page.js     draws the figures from the numbers
hero.html   the top of the written page;  live.html, live.css, live.js: what the live page has instead
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent
MADE_HERE = '<meta name="generator" content="explain.py">'  # what a page of ours begins with


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def embedded(value) -> str:
    """JSON that can stand inside <script>: nothing in it can end the element or the line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def fill_template(parts: dict[str, str], link: Callable[[str], str]) -> str:
    """The page with its parts in their places. link(name): what stands for a class or function."""

    def fill(match: re.Match) -> str:
        return parts[match[1]] if match[1] in parts else link(match[1])

    # In one go, so that nothing that was filled in is read as a place to be filled.
    return re.sub(r"\{\{(\w+)\}\}", fill, read("page.html"))
