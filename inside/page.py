"""Puts words, drawing code, numbers and pictures into one HTML file that needs nothing else."""

import html
from pathlib import Path

from inside.code import definition
from inside.source import source_link
from inside.template import embedded, fill_template, read
from load_weights import ModelSet

POLICY = """<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">"""


def build_page(description: dict, model_set: ModelSet, folder: Path) -> str:
    """Fills the template. `folder`: where the page will be, for its links to the code."""

    def link(name: str) -> str:
        source = source_link(definition(name, model_set), folder)
        if source is None:  # written somewhere else
            return f"<code>{name}</code>"
        return (
            f'<a class="source" href="{html.escape(source["href"])}"><code>{name}</code>'
            f" <span>{html.escape(source['text'])}</span></a>"
        )

    parts = {
        "policy": POLICY,
        "title": html.escape(f"{description['facts']['prompt']} · {description['facts']['model']}"),
        "css": read("page.css"),
        "top": read("hero.html"),
        "data": embedded(description),
        "js": read("page.js"),
        "foot": "Made by <code>explain.py</code> from one run of the model. The page needs no network.",
    }
    return fill_template(parts, link)
