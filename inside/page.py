"""Puts words, drawing code, numbers and pictures into one HTML file that needs nothing else.

page.html   the words; {{Name}} is where a link to a class or function of the set goes
page.css    how it looks, in light and dark, on wide and narrow screens
page.js     draws the figures from the numbers, which are in the page as JSON
"""

import html
import json
import re
from pathlib import Path

from inside.code import definition
from inside.source import source_link
from load_weights import ModelSet

FOLDER = Path(__file__).parent
MADE_HERE = '<meta name="generator" content="explain.py">'  # what a page of ours begins with


def embedded(value) -> str:
    """JSON that can stand inside <script>: nothing in it can end the element or the line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def build_page(description: dict, model_set: ModelSet, folder: Path) -> str:
    """Fills the template. `folder`: where the page will be, for its links to the code."""

    def fill(match: re.Match) -> str:
        name = match[1]
        if name in ("css", "js"):
            return (FOLDER / f"page.{name}").read_text(encoding="utf-8")
        if name == "title":
            return html.escape(f"{description['facts']['prompt']} · {description['facts']['model']}")
        if name == "data":
            return embedded(description)
        source = source_link(definition(name, model_set), folder)
        if source is None:  # written somewhere else
            return f"<code>{name}</code>"
        return (
            f'<a class="source" href="{html.escape(source["href"])}"><code>{name}</code>'
            f" <span>{html.escape(source['text'])}</span></a>"
        )

    # In one go, so that nothing that was filled in is read as a place to be filled.
    return re.sub(r"\{\{(\w+)\}\}", fill, (FOLDER / "page.html").read_text(encoding="utf-8"))
