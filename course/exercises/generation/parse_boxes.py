"""The exercise parse_boxes of generation_0.py."""

import re

from course.exercise import Case, Exercise, Mistake, RightWay

SEGMENTS = "".join(f"<seg{7 * i:03d}>" for i in range(16))
BOX = "<loc0100><loc0210><loc0320><loc0430>"


def asked(answer: str, width: int = 300, height: int = 170):
    return lambda: {"answer": answer, "width": width, "height": height}


# Known mistakes that take whole functions.


def with_boxes_that_lack_a_number(answer, width, height):
    boxes = []
    for part in answer.split(";"):
        numbers = [int(number) / 1024 for number in re.findall(r"<loc(\d{4})>", part)]
        if numbers:
            y1, x1, y2, x2 = (numbers * 4)[:4]
            corners = (min(x1, x2) * width, min(y1, y2) * height, max(x1, x2) * width, max(y1, y2) * height)
            label = re.sub(r"<[^>]*>", "", part).strip()
            boxes.append({"label": label, "box": [round(corner, 1) for corner in corners]})
    return boxes


# Other right ways.


def with_named_groups(answer, width, height):
    pattern = re.compile(
        r"<loc(?P<top>\d{4})><loc(?P<left>\d{4})><loc(?P<bottom>\d{4})><loc(?P<right>\d{4})>"
        r"(<seg\d{3}>)*(?P<label>[^<;]*)"
    )
    found = []
    for match in pattern.finditer(answer):
        xs = sorted(width * int(match[side]) / 1024 for side in ("left", "right"))
        ys = sorted(height * int(match[side]) / 1024 for side in ("top", "bottom"))
        corners = (xs[0], ys[0], xs[1], ys[1])
        found.append({"label": match["label"].strip(), "box": tuple(round(c, 1) for c in corners)})
    return found


def from_one_location_to_the_next(answer, width, height):
    boxes = []
    for part in re.split(r"(?<!>)(?=<loc)|^(?=<loc)", answer):
        numbers = re.findall(r"<loc(\d{4})>", part)
        if len(numbers) != 4:
            continue
        y1, x1, y2, x2 = (int(number) / 1024 for number in numbers)
        if x1 > x2:
            x1, x2 = x2, x1
        if y1 > y2:
            y1, y2 = y2, y1
        box = [x1 * width, y1 * height, x2 * width, y2 * height]
        label = part.rpartition(">")[2].partition(";")[0]
        boxes.append({"box": [float(f"{edge:.1f}") for edge in box], "label": label.strip(" \n")})
    return boxes


ORDER = "(min(x1, x2) * width, min(y1, y2) * height, max(x1, x2) * width, max(y1, y2) * height)"
ROUNDED = "[round(corner, 1) for corner in corners]"

EXERCISE = Exercise(
    name="parse_boxes",
    file="generation",
    minutes=20,
    difficulty="medium",
    why="A box is four tokens to the model: somebody has to read them, and to put them on a picture.",
    steps=[
        "Find each place with four locations in a row, perhaps words for a shape, and then the label, which "
        "ends before the next `;` or `<`.",
        "Read the numbers as parts of 1024; the order in the answer is y, x, y, x.",
        "Put the smaller of two opposite edges first, as x_min, y_min, x_max, y_max, in pixels.",
        "Round to tenths, take the spaces around the label off, and keep both.",
    ],
    hints=(
        "Take the docstring's example, and write down by hand what each of its numbers becomes. Which of "
        "them are heights?",
        "re.findall with groups returns a tuple for each match. A group that only holds together what is "
        "repeated, and is not to be returned, begins with ?:.",
        'r"<loc(\\d{4})>" * 4 + r"(?:<seg\\d{3}>)*([^;<]*)"; for *locations, label in re.findall(...): '
        "y1, x1, y2, x2 = (int(location) / 1024 for location in locations).",
    ),
    cases=[
        Case("a box", asked("<loc0256><loc0128><loc0768><loc0640> cat")),
        Case(
            "two boxes, and labels of two words",
            asked(f"{BOX} big cat ; <loc0540><loc0650><loc0760><loc0870> dog on a mat"),
        ),
        Case(
            "three boxes",
            asked(f"{BOX} cat ; <loc0540><loc0650><loc0760><loc0870> dog ; {BOX} owl"),
        ),
        Case("a shape's words between box and label", asked(f"{BOX}{SEGMENTS} owl")),
        Case(
            "edges in the other order",
            asked("<loc0768><loc0640><loc0256><loc0128> cat ; <loc0256><loc0640><loc0768><loc0128> dog"),
        ),
        Case("the edges of the picture", asked("<loc0000><loc0000><loc1023><loc1023> cat", 1000, 2000)),
        Case("text without a box", asked("two cats and <loc0256>")),
        Case(
            "three locations in a row are none",
            asked("<loc0256><loc0128><loc0768> cat ; <loc0540><loc0650><loc0760><loc0870> dog"),
        ),
        Case("fewer words for a shape", asked(f"{BOX}<seg001><seg002> owl")),
        Case("no label", asked(f"{BOX}{SEGMENTS} ; <loc0540><loc0650><loc0760><loc0870>")),
        Case(
            "a box that follows without a `;`",
            asked(f"{BOX} hen <loc0540><loc0650><loc0760><loc0870> egg\n"),
        ),
    ],
    mistakes=[
        Mistake(
            "with x before y",
            {"y1, x1, y2, x2 = (": "x1, y1, x2, y2 = ("},
            "PaliGemma writes the height first: y_min, x_min, y_max, x_max.",
        ),
        Mistake(
            "with y first in the result, too",
            {ORDER: "(min(y1, y2) * height, min(x1, x2) * width, max(y1, y2) * height, max(x1, x2) * width)"},
            "the result begins with x_min, as drawing programs want it.",
        ),
        Mistake(
            "with width and height swapped",
            {ORDER: ORDER.replace("width", "?").replace("height", "width").replace("?", "height")},
            "x is a part of the width, and y of the height.",
        ),
        Mistake(
            "with 1023 parts",
            {"/ 1024": "/ 1023"},
            "here a location n is read as n / 1024 of the side.",
        ),
        Mistake(
            "when the numbers are not divided",
            {"int(location) / 1024": "int(location)"},
            "1024 stands for the whole side.",
        ),
        Mistake(
            "without the size of the picture",
            {ORDER: "(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))"},
            "pixels are asked for, and not parts of a side.",
        ),
        Mistake("without rounding", {ROUNDED: "list(corners)"}, "tenths of a pixel are enough."),
        Mistake(
            "when rounded to whole pixels",
            {ROUNDED: "[float(round(corner)) for corner in corners]"},
            "they are rounded to tenths.",
        ),
        Mistake(
            "when the edges are left in the answer's order",
            {ORDER: "(x1 * width, y1 * height, x2 * width, y2 * height)"},
            "a model may write the larger one first, and then the box has a negative width.",
        ),
        Mistake(
            "with width and height in place of the second corner",
            {ORDER: ORDER.replace("max(x1, x2)", "abs(x2 - x1)").replace("max(y1, y2)", "abs(y2 - y1)")},
            "that is COCO's form; here the second corner is asked for.",
        ),
        Mistake(
            "with spaces around the label",
            {"label.strip()": "label"},
            "the space belongs to the text between them: `cat`, not ` cat `.",
        ),
        Mistake(
            "with the first word of the label alone",
            {"([^;<]*)": r"\s*(\w*)"},
            "a label may have several words, or none.",
        ),
        Mistake(
            "when a label has to be there",
            {"([^;<]*)": r" ([^;<]+)"},
            "four locations are a box, with or without a label.",
        ),
        Mistake(
            "with everything behind the box as the label",
            {"([^;<]*)": "(.*)"},
            "the label ends where the next thing begins.",
        ),
        Mistake(
            "with the label up to the next `;`",
            {"([^;<]*)": "([^;]*)"},
            "it ends before a `<` as well: a model may forget the `;`.",
        ),
        Mistake(
            "without handling `<seg>`",
            {r"(?:<seg\d{3}>)*": ""},
            "in an answer to `segment`, 16 of them stand between the box and its label.",
        ),
        Mistake(
            "when the words for a shape have to be 16",
            {r"(?:<seg\d{3}>)*": r"(?:(?:<seg\d{3}>){16})?"},
            "fewer draw no shape, but the box is good all the same.",
        ),
        Mistake(
            "with boxes that lack a number",
            with_boxes_that_lack_a_number,
            "what is not four locations in a row is skipped: nobody knows which one is missing.",
        ),
        Mistake(
            "with the first box alone",
            {"    return boxes": "    return boxes[:1]"},
            "an answer may name several things.",
        ),
    ],
    right_ways=[
        RightWay("with named groups", with_named_groups),
        RightWay("from one location to the next", from_one_location_to_the_next),
    ],
    compare="how little is trusted: a model may write anything. Which of your lines would stop with an "
    "error, or draw a wrong box, if a `<loc>` were missing?",
)
