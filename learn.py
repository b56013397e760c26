"""The learner's program: the path, what is next, hints, and where your model leaves the reference.

    python learn.py                 the state of every exercise, what is next, how long the rest takes
    python learn.py list            all exercises, without trying them
    python learn.py hint NAME       a hint; once more, another; three in all
    python learn.py show NAME       the smallest case: its input, your output, the right one
    python learn.py compare         the first module of your model whose output differs on a picture
    python learn.py reset NAME      puts an exercise back; what you wrote is kept beside the file
    python learn.py --version       what to say in a bug report

NAME is the name of an exercise, a part of it, or its number. To try one: python -m pytest -k NAME
"""

import argparse
import contextlib
import errno
import os
import signal
import sys


def build_parser() -> argparse.ArgumentParser:
    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(prog="learn.py", description=__doc__, **raw)
    parser.add_argument("--version", action="store_true", help="what to say in a bug report")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("list", help="all exercises, without trying them")
    hint = commands.add_parser("hint", help="a hint, one more each time")
    hint.add_argument("name", nargs="?", metavar="NAME", help="of an exercise (default: the next one)")
    hint.add_argument("--reset", action="store_true", help="forget how many hints were given")
    show = commands.add_parser("show", help="the smallest case in numbers")
    show.add_argument("name", metavar="NAME", help="of an exercise")
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


def fail(message: str):
    """One line, and exit code 2."""
    with contextlib.suppress(OSError):  # nobody may be there to read it
        print(f"learn.py: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def exercise_named(name: str):
    """The one exercise that a name stands for."""
    from course.exercises import matching, nearest
    from course.path import nearest_names

    found = matching(name)
    if len(found) > 1:
        fail(f"{name!r} is a part of several names: {', '.join(exercise.name for exercise in found)}")
    if not found:
        fail(nearest_names(name, nearest(name)))
    return found[0]


def result_of(exercise):
    """What came of trying an exercise, in a process of its own."""
    from course.learner_file import LearnerFile
    from course.worker import check_apart

    return check_apart(exercise, LearnerFile(exercise.file))


def show_path() -> int:
    from course.exercises import EXERCISES
    from course.hints import heading, paragraph
    from course.path import all_solved, count_line, path_line, time_line

    results = []
    for exercise in EXERCISES:
        results.append(result_of(exercise))
        print(path_line(results[-1]), flush=True)
    print(f"\n{count_line(results)}")
    following = next((result for result in results if result.state != "solved"), None)
    if following is None:
        print(all_solved())
        return 0
    exercise = following.exercise
    print(f"{time_line(results)}\n")
    print(f"Next: {heading(following)}, {exercise.difficulty}, {exercise.minutes} minutes\n")
    print(f"{paragraph(exercise.why)}\n")
    print(f"  Test it:  {exercise.command}\n  A hint:   python learn.py hint {exercise.name}")
    return 0


def list_exercises() -> int:
    from course.exercises import EXERCISES
    from course.path import one_line

    print("\n".join(one_line(exercise) for exercise in EXERCISES))
    return 0


def hint(name: str | None, forget_them: bool) -> int:
    from course.exercises import EXERCISES
    from course.hints import after_success, forget, next_hint
    from course.path import all_solved

    exercise = exercise_named(name) if name is not None else None
    if forget_them:
        print(forget(exercise))
        return 0
    results = map(result_of, [exercise] if exercise else EXERCISES)
    result = next((result for result in results if exercise or result.state != "solved"), None)
    if result is None:
        print(all_solved())
    else:
        print(after_success(result) if result.state == "solved" else next_hint(result))
    return 0


def show(name: str) -> int:
    from course.learner_file import LearnerFile
    from course.worker import show_apart

    exercise = exercise_named(name)
    print(show_apart(exercise, LearnerFile(exercise.file)))
    return 0


def reset(name: str) -> int:
    from course.reset import NotReset, reset

    try:
        print(reset(exercise_named(name)))
    except NotReset as error:
        fail(str(error))
    return 0


def compare(args: argparse.Namespace) -> int:
    from course.compare import compare_models
    from inference import InputError
    from load_weights import CheckpointError

    try:
        return compare_models(args)
    except (InputError, CheckpointError) as error:
        return fail(str(error))


def run(argv: list[str] | None) -> int:
    args = build_parser().parse_args(argv)
    if args.version:
        from course.version import version

        print(version())
        return 0
    if args.command is None:
        return show_path()
    if args.command == "list":
        return list_exercises()
    if args.command == "hint":
        return hint(args.name, args.reset)
    if args.command == "compare":
        return compare(args)
    return {"show": show, "reset": reset}[args.command](args.name)


def main(argv: list[str] | None = None):
    """Runs a command. What a user can do about an error is said in a line; a reader of the output who has
    left (`| head`) ends it without a word."""
    try:
        code = run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno is None:
            fail(str(error))
        # The output cannot be written. Python is not to try again at its end, and to complain.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno not in (errno.EPIPE, errno.EINVAL):  # EINVAL: a broken pipe on Windows
            fail(f"the output cannot be written: {error.strerror}")
        code = 0
    sys.exit(code)


def stop(*_):
    """Ctrl-C: ends at once, because an exception could be taken for another error where it comes out."""
    if "course.worker" in sys.modules:
        sys.modules["course.worker"].kill()
    os._exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, stop)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # the same everywhere; names of files may be any bytes
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    main()
