"""`python learn.py experiment [NAME]`: what is changed, a question, answers side by side, and why."""

import argparse
import difflib
import shutil
import sys
import textwrap
from pathlib import Path

from course.experiments import BY_NAME, EXPERIMENTS
from course.experiments.experiment import (
    KINDS,
    PICTURES,
    QUESTIONS,
    Answers,
    Experiment,
    Said,
    found_again,
    shown,
)
from program.command_line import InputError, write

ROOT = Path(__file__).resolve().parent.parent.parent
TRIED = "experiment "  # in front of a name, in .hints.json
WIDTH = 110


def run(args: argparse.Namespace):
    """Prints what was asked for: the list, or one experiment."""
    if args.name is None:
        write(listing(tried()))
        return
    experiment = named(args.name)
    values = values_given(experiment, args)
    if args.draw is not None:
        from program.pictures import check_drawing

        check_drawing(
            Path(args.draw),
            [str(ROOT / "images" / f"{name}.png") for name in PICTURES],
            overwrite=args.overwrite,
        )
    import torch

    # Threads that wait for each other would cost such a small model more than they save.
    torch.set_num_threads(1)
    from course.experiments.run import reference, reference_answers, switched, table

    write("\n".join(change(experiment, values)))
    write(f"\n{filled(experiment.question)}")
    wait(args.no_wait)
    before, after = reference_answers(), switched(reference(), [(experiment, values)]).answers()
    write("\n".join(side_by_side(before, after)))
    if experiment.parameters:
        write("\n".join(table_lines(experiment, before, table(reference(), experiment))))
    write(f"\nWhy\n{filled(experiment.explanation(default_answers(experiment, values, after)), '  ')}\n")
    write("\n".join(where_to_go(experiment)))
    if args.draw is not None:
        from program.pictures import write_picture

        write_picture(drawn(before, after), Path(args.draw))
        write(f"\nDrawn in {args.draw}: the reference's boxes on the left, the changed model's on the right.")
    remember(experiment)


def default_answers(experiment: Experiment, values: dict[str, int], after: Answers) -> Answers:
    """The answers that the explanation speaks of: those at the parameters' defaults."""
    from course.experiments.run import reference, switched

    if values == experiment.values():
        return after
    return switched(reference(), [(experiment, {})]).answers()


# --------------------------------------------------------------------------------- what was asked for


def named(name: str) -> Experiment:
    if name.lower() in BY_NAME:
        return BY_NAME[name.lower()]
    near = difflib.get_close_matches(name.lower(), BY_NAME, 3, 0.5)
    near = near or [one for one in BY_NAME if name.lower() in one][:3]
    meant = f"did you mean {' or '.join(near)}?" if near else "`python learn.py experiment` lists them"
    raise InputError(f"there is no experiment {name!r}: {meant}")


def values_given(experiment: Experiment, args: argparse.Namespace) -> dict[str, int]:
    """The parameters' values: those of the command line, the defaults of the others."""
    given = {}
    counts = {parameter.name: parameter.count for parameter in experiment.parameters}
    for name in {parameter.name for one in EXPERIMENTS for parameter in one.parameters}:
        value = getattr(args, name)
        if value is None:
            continue
        if name not in counts:
            has = " and ".join(f"--{one}" for one in counts) or "nothing to choose"
            raise InputError(f"{experiment.name} has no --{name}; it has {has}")
        from course.experiments.run import reference

        count = counts[name](reference().model.config)
        if not 0 <= value < count:
            raise InputError(f"--{name} {value}: {experiment.name} takes 0 to {count - 1}")
        given[name] = value
    return experiment.values(**given)


def tried() -> set[str]:
    from course.hints import read_given

    return {name.removeprefix(TRIED) for name in read_given() if name.startswith(TRIED)}


def remember(experiment: Experiment):
    from course.hints import read_given, write_given

    given = read_given()
    if TRIED + experiment.name not in given:
        write_given(given | {TRIED + experiment.name: 1})


def wait(no_wait: bool):
    """Until Enter; at once where nobody can press it."""
    if no_wait or not sys.stdin or not sys.stdin.isatty():
        return
    try:
        input("Predict, then press Enter. ")
    except EOFError:
        print()


# --------------------------------------------------------------------------------- what is printed


def listing(done: set[str]) -> str:
    """All experiments, under the exercises that they belong to."""
    lines, exercise = ["+ tried"] if done else [], None
    for experiment in EXPERIMENTS:
        if experiment.exercise != exercise:
            exercise = experiment.exercise
            lines += [*([""] if lines else []), exercise or "after the path: what the weights are stored in"]
        mark = "+" if experiment.name in done else " "
        lines.append(f"  {mark} {experiment.name:<22} {experiment.title}")
    following = next((one for one in EXPERIMENTS if one.name not in done), EXPERIMENTS[0])
    count = len(done & BY_NAME.keys())
    lines += ["", f"{count} of {len(EXPERIMENTS)} tried. Next: python learn.py experiment {following.name}"]
    return "\n".join(lines)


def filled(text: str, indent: str = "") -> str:
    width = min(shutil.get_terminal_size().columns, WIDTH - 10)
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def change(experiment: Experiment, values: dict[str, int]) -> list[str]:
    """The heading, and each changed line beside the real one."""
    lines = [f"{experiment.name}: {experiment.title}"]
    for edit in experiment.edits_with(**values):
        real, changed = edit.lines()
        where = f", only in {edit.only}" if edit.only else ""
        lines += ["", f"{edit.file}.py:{edit.line}, {edit.function}{where}"]
        for label, code in (("real", real), ("changed", changed)):
            lines += [f"  {label if i == 0 else '':<9}{line}" for i, line in enumerate(code)]
    return lines


def columns(cells: list[str], widths: list[int]) -> list[str]:
    """A row of a table, each cell wrapped into its column."""
    wrapped = [
        [piece for part in cell.split("\n") for piece in textwrap.wrap(part, width) or [""]]
        for cell, width in zip(cells, widths, strict=True)
    ]
    height = max(map(len, wrapped))
    rows = zip(*(column + [""] * (height - len(column)) for column in wrapped), strict=True)
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def side_by_side(before: Answers, after: Answers, heading: str = "changed") -> list[str]:
    room = min(shutil.get_terminal_size().columns, WIDTH) - 26
    widths = [22, room // 2, room // 2]
    lines = []
    for picture in PICTURES:
        lines += ["", *columns([f"images/{picture}.png", "reference", heading], widths)]
        for kind in KINDS:
            real, changed = before[picture, kind], after[picture, kind]
            answer = "the same" if changed.text == real.text else shown(changed)
            lines += columns([f"  {QUESTIONS[picture, kind]}", shown(real), answer], widths)
    return lines


def table_lines(
    experiment: Experiment, before: Answers, rows: dict[tuple[int, ...], dict[str, Said]]
) -> list[str]:
    """All values of the parameters: of heads the boxes that are left, of layers all three answers."""
    names = [parameter.name for parameter in experiment.parameters]
    if len(names) == 2:
        place = PICTURES[0], "detect"
        layers, heads = (sorted({value[i] for value in rows}) for i in (0, 1))
        lines = [
            "",
            f"Each in turn, {QUESTIONS[place]!r} in images/{PICTURES[0]}.png: boxes found, and false ones",
        ]
        lines.append(" " * 9 + "".join(f"head {head:<7}" for head in heads).rstrip())
        for layer in layers:
            cells = [box_count(before[place], rows[layer, head]["detect"]) for head in heads]
            lines.append(f"layer {layer}  " + "".join(f"{cell:<12}" for cell in cells).rstrip())
        return lines
    room = min(shutil.get_terminal_size().columns, WIDTH) - 16
    widths = [9, room * 3 // 10, room * 5 // 10, room * 2 // 10]
    lines = ["", f"Each in turn, in images/{PICTURES[0]}.png:"]
    lines += columns([names[0], *(QUESTIONS[PICTURES[0], kind] for kind in KINDS)], widths)
    for value, said in rows.items():
        lines += columns([str(value[0]), *(shown(said[kind]) for kind in KINDS)], widths)
    return lines


def box_count(before: Said, after: Said) -> str:
    found = found_again(before, after)
    false = len(after.boxes) - found
    return f"{found or 'none'}" + (f" + {false} false" if false > 0 else "")


def where_to_go(experiment: Experiment) -> list[str]:
    lines = [f"The exercise:  {experiment.exercise}"] if experiment.exercise else []
    lines += [f"The lesson:    docs/lessons/{experiment.lesson}.md"] if experiment.lesson else []
    number = EXPERIMENTS.index(experiment)
    if number + 1 < len(EXPERIMENTS):
        lines.append(f"The next one:  python learn.py experiment {EXPERIMENTS[number + 1].name}")
    return lines


def drawn(before: Answers, after: Answers):
    """The pictures with the boxes: the reference's on the left, the changed model's on the right."""
    from PIL import Image

    from course.experiments.run import picture
    from generation_1 import parse_boxes
    from program.pictures import draw_boxes

    rows = []
    for name in PICTURES:
        image = picture(name)
        boxes = [parse_boxes(answers[name, "detect"].text, *image.size) for answers in (before, after)]
        rows.append([draw_boxes(image, found) for found in boxes])
    gap = 10
    width = max(2 * image.width + gap for image, _ in rows)
    sheet = Image.new("RGB", (width, sum(image.height + gap for image, _ in rows) - gap), "white")
    y = 0
    for left, right in rows:
        sheet.paste(left, (0, y))
        sheet.paste(right, (left.width + gap, y))
        y += left.height + gap
    return sheet
