"""The learner's program: the path, what is next, hints, and where your model leaves the reference.

    python learn.py                 the state of every exercise, what is next, how long the rest takes
    python learn.py list            all exercises, without trying them
    python learn.py why NAME        the idea behind an exercise, and its lesson
    python learn.py hint NAME       a hint; once more, another; three in all
    python learn.py show NAME       the smallest case that is wrong: its input, your output, the right one
    python learn.py try NAME        what the small model answers with your code in it
    python learn.py experiment      what becomes of its answers if a line of the reference is changed
    python learn.py compare         the first module of your model whose output differs on a picture
    python learn.py reset NAME      puts an exercise back; what you wrote is kept beside the file
    python learn.py --version       what to say in a bug report

NAME is the name of an exercise, a part of it, or its number. To try one: python -m pytest -k NAME
"""

from program.command_line import end_quietly_on_ctrl_c
from speed import threads

if __name__ == "__main__":
    end_quietly_on_ctrl_c()  # while PyTorch is being imported, too
    threads.sleep_while_waiting()  # must be said before torch is imported

import argparse
import sys

from program.command_line import InputError, Parser, run_program, set_up_streams, write


def build_parser() -> Parser:
    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = Parser(prog="learn.py", description=__doc__, **raw)
    parser.add_argument("--version", action="store_true", help="what to say in a bug report")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("list", help="all exercises, without trying them")
    hint = commands.add_parser("hint", help="a hint, one more each time")
    hint.add_argument("name", nargs="?", metavar="NAME", help="of an exercise (default: the next one)")
    hint.add_argument("--reset", action="store_true", help="forget how many hints were given")
    why = commands.add_parser("why", help="the idea behind an exercise")
    why.add_argument("name", metavar="NAME", help="of an exercise")
    show = commands.add_parser("show", help="the smallest case that is wrong, in numbers")
    show.add_argument("name", metavar="NAME", help="of an exercise")
    try_ = commands.add_parser("try", help="what the small model answers with your code in it")
    try_.add_argument("name", metavar="NAME", help="of an exercise")
    experiment = commands.add_parser("experiment", help="change a line of the reference")
    experiment.add_argument("name", nargs="?", metavar="NAME", help="of an experiment (default: list them)")
    experiment.add_argument("--no-wait", action="store_true", help="do not wait for Enter after the question")
    experiment.add_argument("--draw", metavar="OUT.png", help="write the pictures with their boxes")
    experiment.add_argument("--overwrite", action="store_true", help="let --draw replace a file of yours")
    for name in ("layer", "head", "layers"):
        experiment.add_argument(f"--{name}", type=int, metavar="N", help="not the experiment's own")
    reset = commands.add_parser("reset", help="put an exercise back to what it was")
    reset.add_argument("name", metavar="NAME", help="of an exercise")
    compare = commands.add_parser(
        "compare",
        help="where your model leaves the reference",
        description="Ends with 0 if all agrees, 1 if something differs, 2 if it could not be tried.",
    )
    compare.add_argument("--model", metavar="DIR", help="checkpoint folder (default: as inference.py's)")
    compare.add_argument("--image", metavar="FILE", nargs=1, help="a picture (default: the first sample)")
    compare.add_argument("--prompt", metavar="TEXT", nargs=1, help="(default: caption en)")
    compare.set_defaults(temperature=0.0, top_p=1.0, seed=0)
    return parser


def exercise_named(name: str):
    """The one exercise that a name stands for."""
    from course.exercises import matching, nearest
    from course.path import nearest_names

    found = matching(name)
    if len(found) > 1:
        names = ", ".join(exercise.name for exercise in found)
        raise InputError(f"{name!r} is a part of several names: {names}")
    if not found:
        raise InputError(nearest_names(name, nearest(name)))
    return found[0]


def result_of(exercise):
    """What came of trying an exercise, in a process of its own."""
    from course.learner_file import LearnerFile
    from course.worker import check_apart

    return check_apart(exercise, LearnerFile(exercise.file))


def show_path():
    from course.exercises import EXERCISES
    from course.path import path_line, what_is_next

    results = []
    for exercise in EXERCISES:
        results.append(result_of(exercise))
        write(path_line(results[-1]))
    write(what_is_next(results))


def list_exercises():
    from course.exercises import EXERCISES
    from course.path import one_line

    write("\n".join(one_line(exercise) for exercise in EXERCISES))


def hint(name: str | None, forget_them: bool):
    from course.exercises import EXERCISES
    from course.hints import after_success, forget, next_hint
    from course.path import ALL_SOLVED

    exercise = exercise_named(name) if name is not None else None
    if forget_them:
        write(forget(exercise))
        return
    results = map(result_of, [exercise] if exercise else EXERCISES)
    result = next((result for result in results if exercise or result.state != "solved"), None)
    if result is None:
        write(ALL_SOLVED)
    else:
        write(after_success(result) if result.state == "solved" else next_hint(result))


def why(name: str):
    from course import lessons

    write(lessons.why(exercise_named(name).name))


def show(name: str):
    from course.learner_file import LearnerFile
    from course.worker import show_apart

    exercise = exercise_named(name)
    write(show_apart(exercise, LearnerFile(exercise.file)))


def reset(name: str):
    from course.reset import reset

    write(reset(exercise_named(name)))


def try_at_work(name: str):
    from course.at_work import side_by_side
    from course.learner_file import LearnerFile
    from course.outcome import Flaw
    from course.worker import at_work_apart

    exercise = exercise_named(name)
    result = result_of(exercise)
    if result.state == "to do":
        raise InputError(f"{exercise.name} is not done yet ({result.location}): nothing of yours to try")
    write(f"{exercise.name} ({result.location}) is {result.state}. All else here is the reference's.")
    try:
        lines = side_by_side(exercise, at_work_apart(exercise, LearnerFile(exercise.file)))
    except Flaw as flaw:
        lines = ["", f"The model does not answer: {flaw.headline}", *flaw.details]
    write("\n".join(lines))
    if result.state == "wrong":
        write(f"What is wrong:  {exercise.command}")


def experiment(args: argparse.Namespace):
    from course.experiments.command import run

    run(args)


def compare(args: argparse.Namespace):
    from course.compare import compare_models
    from load_weights import CheckpointError
    from program.pictures import open_picture
    from program.questions import check_prompts, fill_defaults

    fill_defaults(args)
    check_prompts(args)
    try:
        code = compare_models(args.model, args.prompt[0], open_picture(args.image[0]))
    except CheckpointError as error:
        raise InputError(str(error)) from error
    if code:
        sys.exit(code)


def run(args: argparse.Namespace):
    if args.version:
        from course.version import version

        write(version())
    elif args.command is None:
        show_path()
    elif args.command == "list":
        list_exercises()
    elif args.command == "hint":
        hint(args.name, args.reset)
    elif args.command == "why":
        why(args.name)
    elif args.command == "show":
        show(args.name)
    elif args.command == "reset":
        reset(args.name)
    elif args.command == "try":
        try_at_work(args.name)
    elif args.command == "experiment":
        experiment(args)
    else:
        compare(args)


def main(argv: list[str] | None = None):
    parser = build_parser()
    run_program(run, parser.parse_args(argv), parser)


if __name__ == "__main__":
    set_up_streams()
    main()
