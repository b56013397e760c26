"""Tries exercises in a process of its own, which is replaced when the learner's code ends or hangs it.

A time limit inside of a process (time_limit.py) stops nearly all code that does not end, and says where
it was. But a loop inside of a C function cannot be stopped from there, and os._exit(0) or a crash ends
the process without a word, which must not be taken for success.

    python -m course.worker       the process: reads exercises from stdin and answers on stdout
"""

import faulthandler
import os
import pickle
import re
import signal
import time

from course import process
from course.at_work import Effect, at_work, sentence
from course.checking import check, compose
from course.differences import counted
from course.exercise import Exercise
from course.exercises import named
from course.learner_file import LearnerFile
from course.outcome import SECONDS, Flaw, Result
from course.show import show


def ask(task: str, exercise: Exercise, file: LearnerFile, seconds: float):
    """Has a task of TASKS done. Raises a Flaw if the learner's code keeps it from being done."""
    try:
        return process.ask((task, exercise.name, file.text, file.missing, seconds), seconds)
    except process.NoAnswer as error:
        place = last_place(file, error.said)
        if error.exit_code is None:
            after = counted(int(seconds), "second")
            headline = f"your code was still running after {after}: a loop that never ends?"
            raise Flaw("time", headline, place) from None
        headline = "your code ended the whole process (os._exit, or a crash in compiled code)."
        raise Flaw("end", headline, [*place, f"Exit code: {error.exit_code}."]) from None


def last_place(file: LearnerFile, said: str) -> list[str]:
    """The learner's line that faulthandler named first, if it named one: the innermost."""
    found = re.search(rf'{re.escape(file.path.name)}", line (\d+) in (\w+)', said)
    if found is None:
        return []
    line, function = int(found[1]), found[2]
    return [f"{file.path.name}:{line}, in {function}:", f"    {file.lines[line - 1].strip()}"]


def check_apart(exercise: Exercise, file: LearnerFile, seconds: float | None = None) -> Result:
    """Like check, in the process of its own."""
    if len(file.untouched_parts(exercise)) == len(exercise.parts):
        return check(exercise, file)  # nothing of the learner's is run
    try:
        result = Result(exercise, **ask("check", exercise, file, seconds or SECONDS))
    except Flaw as flaw:
        result = Result(exercise, "wrong", line=file.line_of(exercise), kind=flaw.kind)
        result.message = compose(result, flaw)
    if result.kind == "time":
        process.close()  # a thread that was abandoned would go on in it
    return result


def show_apart(exercise: Exercise, file: LearnerFile, seconds: float | None = None) -> str:
    """Like show, in the process of its own."""
    try:
        return ask("show", exercise, file, seconds or SECONDS)
    except Flaw as flaw:
        return "\n    ".join([f"{exercise.name}: {flaw.headline}", *flaw.details])


def at_work_apart(exercise: Exercise, file: LearnerFile, seconds: float | None = None) -> Effect:
    """Like at_work, in the process of its own. Raises a Flaw if the code ends it or does not end."""
    answer = ask("at work", exercise, file, seconds or SECONDS)
    if isinstance(answer, Flaw):
        raise answer
    return answer


def checked(exercise: Exercise, file: LearnerFile, seconds: float) -> dict:
    """A Result without its exercise, which is another object over there."""
    began = time.process_time()
    result = check(exercise, file, seconds)
    if result.mistake:
        left = seconds + 1 - (time.process_time() - began)  # well before process.py gives up
        effect = tried_at_work(exercise, file, min(seconds, 3, max(1, left)))
        if isinstance(effect, Effect):
            result.message += f"\n\n  {sentence(effect)}"
        elif effect.kind != "missing":
            result.message += f"\n\n  With this, the model does not answer: {effect}"
    return {name: value for name, value in vars(result).items() if name != "exercise"}


def tried_at_work(exercise: Exercise, file: LearnerFile, seconds: float) -> Effect | Flaw:
    """What the learner's code does in the small model, or why it does nothing."""
    try:
        return at_work(exercise, file, seconds)
    except Flaw as flaw:
        return flaw.with_traceback(None)


TASKS = {"check": checked, "show": show, "at work": tried_at_work}


def main():
    # The pipes are ours alone: what the learner's code reads or prints does not get into them.
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0), os.dup2(nothing, 1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, whatever is being tried
    faulthandler.enable()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)

    import torch

    torch.set_num_threads(1)  # the models of the cases are too small to gain from more
    while True:
        pickle.dump("ready", answers)
        answers.flush()
        try:
            task, name, text, missing, seconds = pickle.load(asked)
        except EOFError:
            return
        # If the one that asked is gone and the code hangs: no process stays behind.
        faulthandler.dump_traceback_later(10 * seconds + 60, exit=True)
        [exercise] = named(name)
        file = LearnerFile(exercise.file, text)
        file.missing = missing
        answer = TASKS[task](exercise, file, seconds)
        faulthandler.cancel_dump_traceback_later()
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
    os._exit(0)  # threads that were abandoned would keep it
