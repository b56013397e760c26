"""Makes what docs/ shows of explain.py: the pictures, and pages to look at before cloning.

    python -m docs.make_pages

docs/index.html leads to three pages in docs/pages/, as GitHub Pages serves them; docs/pictures/ holds
the main pictures of the first. They depend on the code, the tiny model and the pictures alone: times
are left out, so that a second run on the same machine writes the same bytes.
"""

import html
from pathlib import Path

import inference
from explain import build_parser, make_page
from inside import pictures
from inside.page import build_page
from inside.template import FOLDER
from program.files import replace_file
from program.questions import SAMPLES as PICTURES

DOCS = Path(__file__).resolve().parent
SAMPLES = {
    "cats": "detect cat",
    "street": "answer en how many cars are there?",
    "snack": "caption en",
}


def describe_sample(name: str, prompt: str) -> dict:
    """What the page of one sample is told, without the times of this run."""
    image = PICTURES / f"{name}.png"
    args = build_parser().parse_args(["--image", str(image), "--prompt", prompt])
    inference.fill_defaults(args)
    _, description = make_page(args, DOCS / "pages")
    return without_times(description)


def without_times(description: dict) -> dict:
    """The page leaves out what is None."""
    description["facts"] |= {"promptSeconds": None, "seconds": None}
    description["decoder"]["cache"]["seconds"] = None
    for row in description["modules"]:
        row |= {"promptSeconds": None, "tokenSeconds": None}
    return description


def build_index(descriptions: dict[str, dict]) -> str:
    """The page that leads to the others."""
    cards = []
    for name, description in descriptions.items():
        facts = description["facts"]
        cards.append(
            f'<a class="door card" href="pages/{name}.html">'
            f'<img src="{description["picture"]["given"]}" alt="{html.escape(facts["image"])}">'
            f"<span>{html.escape(facts['prompt'])}</span>"
            f'<span class="said">{html.escape(facts["answer"])}</span></a>'
        )
    template = (FOLDER / "index.html").read_text(encoding="utf-8")
    css = (FOLDER / "page.css").read_text(encoding="utf-8")
    return template.replace("{{css}}", css).replace("{{cards}}", "\n".join(cards))


def main():
    model_set = inference.import_set(1)
    descriptions = {name: describe_sample(name, prompt) for name, prompt in SAMPLES.items()}
    files = {DOCS / "index.html": build_index(descriptions)}
    for name, description in descriptions.items():
        files[DOCS / "pages" / f"{name}.html"] = build_page(description, model_set, DOCS / "pages")
    first = next(iter(descriptions.values()))
    for name, png in pictures.draw_all(first).items():
        files[DOCS / "pictures" / name] = png
    for path, content in files.items():
        path.parent.mkdir(exist_ok=True)
        replace_file(path, content)
        print(f"{path.relative_to(DOCS.parent)}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
