"""The drawings of others: THIRD_PARTY.md credits each set, and its license is here with the full text."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETS = json.loads((ROOT / "tiny_model" / "drawings.json").read_text(encoding="utf-8"))
THIRD_PARTY = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")

# What a full text has: the conditions to keep and, where they are numbered, every section.
WORDS = {
    "MIT": ["The above copyright notice and this permission notice shall be included", "OTHER DEALINGS"],
    "Apache-2.0": [*(f"\n   {i}. " for i in range(1, 10)), "END OF TERMS AND CONDITIONS"],
    "CC-BY-4.0": ["Creative Commons Attribution 4.0 Intern", *(f"\nSection {i} -- " for i in range(1, 9))],
    "CC-BY-3.0": ["Attribution 3.0 Unported", *(f"\n{i}. " for i in range(1, 9))],
    "CC0-1.0": ["CC0 1.0 Universal", *(f"\n{i}. " for i in range(1, 5))],
    "ISC": ["copyright notice and this permission notice appear in all copies", "USE OR PERFORMANCE"],
    "OFL-1.1": ["SIL OPEN FONT LICENSE", *(f"\n{i}) " for i in range(1, 6)), "DEALINGS IN THE FONT SOFTWARE"],
    "Unlicense": ["released into the public domain", "OTHER DEALINGS IN THE SOFTWARE"],
}


def rows() -> list[list[str]]:
    """The cells of the table of THIRD_PARTY.md, without its two lines of headings."""
    lines = [line for line in THIRD_PARTY.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


CREDITS = {row[0].strip("`"): row[1:] for row in rows()}


def test_the_table_has_each_set_once_and_no_other():
    assert [row[0] for row in rows()] == [f"`{name}`" for name in SETS]


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_credited(name):
    """What CC BY 4.0 asks for in section 3(a)(1), and what the other two licenses ask for is among it."""
    one_set, (title, author, license_link, count) = SETS[name], CREDITS[name]
    assert LINK.fullmatch(title)[2] == one_set["url"]
    makers = {"Google Inc": "Google", "Emoji One": "Emojione", "ByteDance": "Bytedance"}
    assert makers.get(one_set["author"], one_set["author"]) in author
    spdx, file = LINK.fullmatch(license_link).groups()
    assert spdx == one_set["licence"]
    text = (ROOT / file).read_text(encoding="utf-8")
    assert all(words in text for words in WORDS[spdx])
    if copyright_line := re.search(r"Copyright \(c\).*", author):  # MIT's is part of the text to pass on
        assert copyright_line[0] in text
    assert int(count) == sum(map(len, one_set["drawings"].values()))


def test_the_number_of_all_drawings():
    total = sum(len(drawings) for one_set in SETS.values() for drawings in one_set["drawings"].values())
    assert f"{total:,} drawings" in THIRD_PARTY


def test_each_license_text_is_used():
    linked = {file for _, file in LINK.findall(THIRD_PARTY) if file.startswith("LICENSES/")}
    assert linked == {f"LICENSES/{path.name}" for path in (ROOT / "LICENSES").iterdir()}


def test_links_lead_to_files():
    files = {file for _, file in LINK.findall(THIRD_PARTY) if "://" not in file}
    assert files and all((ROOT / file).is_file() for file in files)


def test_the_checkpoints_page_names_the_same_licenses():
    """Of the sets that the checkpoint was made with: those that came later are not on its page."""
    page = (ROOT / "paligemma-tiny" / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| \[([^\]]+)\]", page, re.MULTILINE)
    assert {"noto", "twemoji"} < set(names)
    for name in names:
        one_set = SETS[name]
        assert f"| [{name}]({one_set['url']}) | {one_set['author']} | {one_set['licence']} |" in page


def test_the_other_drawings_are_of_credited_sets_and_of_other_things():
    text = (ROOT / "tiny_model" / "other_drawings.json").read_text(encoding="utf-8")
    things = {thing for one_set in SETS.values() for thing in one_set["drawings"]}
    assert len(things) == 42
    for name, one_set in json.loads(text).items():
        facts = ("package", "licence", "author", "url")
        assert [one_set[fact] for fact in facts] == [SETS[name][fact] for fact in facts]
        assert one_set["style"] == SETS[name].get("style", name)
        assert one_set["drawings"] and not things & one_set["drawings"].keys()


@pytest.mark.parametrize(("folder", "ending"), [("fonts", ".ttf"), ("photographs", ".jpg")])
def test_each_font_and_photograph_is_credited(folder, ending):
    """By its name, or by the part of it before a direction in degrees: `lobby-*` for lobby-090.jpg."""
    page = (ROOT / "tiny_model" / folder / "README.md").read_text(encoding="utf-8")
    files = list((ROOT / "tiny_model" / folder).glob(f"*{ending}"))
    assert files
    for file in files:
        view = re.sub(r"-\d{3}$", "-*", file.stem)
        assert any(f"`{name}`" in page for name in (file.name, view)), file.name
    links = {link for _, link in LINK.findall(page) if "://" not in link}
    assert links and all((ROOT / "tiny_model" / folder / link).is_file() for link in links)


def test_the_sample_pictures_name_their_sets():
    """Each picture of images/ has a row there, and the sets named there are credited."""
    page = (ROOT / "images" / "README.md").read_text(encoding="utf-8")
    for picture in (ROOT / "images").glob("*.png"):
        assert f"`{picture.name}`" in page
    urls = {one_set["url"] for one_set in SETS.values()}
    named = {url for _, url in LINK.findall(page) if re.fullmatch(r"https://github.com/[^/]+/[^/]+", url)}
    assert named and named <= urls
