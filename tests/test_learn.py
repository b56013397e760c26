"""What learn.py and course.write do to files, and how a program for learners ends, whatever happens."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

import learn
from course import process, worker
from course.exercises import EXERCISES, FILES, named, number_of
from course.learner_file import LearnerFile
from course.reset import NotReset, reset
from course.show import show, smallest_case
from course.skeletons import skeleton
from course.source import ROOT, paste, reference_source
from course.write import digest, read_written, write_skeletons
from program.command_line import InputError
from program.files import replace_file

pytestmark = pytest.mark.long

[RESCALE] = named("rescale")
FRESH = skeleton(RESCALE.file)
SOLVED = paste(FRESH, RESCALE.parts, reference_source(RESCALE.file))
NOTES = SOLVED + "\n\n# a note of mine\ndef helper():\n    return 3\n"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------ reset


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_reset_keeps_what_it_replaces(line_end, tmp_path):
    path = tmp_path / RESCALE.path
    for number in (1, 2):
        path.write_bytes(NOTES.replace("\n", line_end).encode())
        assert f"{RESCALE.path}.before-reset-{number}" in reset(RESCALE, tmp_path)
        kept = tmp_path / f"{RESCALE.path}.before-reset-{number}"
        assert kept.read_bytes() == NOTES.replace("\n", line_end).encode()
        expected = FRESH + NOTES.removeprefix(SOLVED)
        assert path.read_bytes() == expected.replace("\n", line_end).encode()
    assert "as it was already" in reset(RESCALE, tmp_path)
    assert len(names_in(tmp_path)) == 3


def test_reset_writes_a_file_that_is_gone(tmp_path):
    assert "was not there" in reset(RESCALE, tmp_path)
    assert (tmp_path / RESCALE.path).read_text(encoding="utf-8") == FRESH


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (SOLVED.replace("def resize(", "def resize((").encode(), f"{RESCALE.path}:"),
        (SOLVED.encode() + b"\n# caf\xe9\n", "not UTF-8"),
        (SOLVED.encode() + b"\0", "cannot be read by Python"),
        (SOLVED.replace("def rescale(", "def scale(").encode(), "has no rescale anymore"),
    ],
    ids=["syntax", "latin-1", "null", "renamed"],
)
def test_reset_leaves_alone_what_it_cannot_read(content, words, tmp_path):
    path = tmp_path / RESCALE.path
    path.write_bytes(content)
    with pytest.raises(NotReset, match="nothing was changed") as refused:
        reset(RESCALE, tmp_path)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert path.read_bytes() == content and names_in(tmp_path) == [RESCALE.path]


@pytest.mark.parametrize("write", [1, 2], ids=["the copy", "the file"])
def test_full_disk(write, tmp_path, monkeypatch):
    """The file is whole, and nothing is left beside it but a copy."""
    path = tmp_path / RESCALE.path
    path.write_text(NOTES, encoding="utf-8", newline="\n")
    real, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) == write:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotReset, match="No space left"):
        reset(RESCALE, tmp_path)
    assert path.read_text(encoding="utf-8") == NOTES
    assert len(names_in(tmp_path)) == write and not any("part" in name for name in names_in(tmp_path))


# --------------------------------------------------------------------- skeletons, for maintainers


def test_skeletons_that_were_written_are_known():
    """Or `python -m course.write` would take the next change of a `_1` file for somebody's work."""
    assert read_written() == {file: digest(skeleton(file)) for file in FILES}, "python -m course.write"


@pytest.fixture
def course_folder(tmp_path):
    (tmp_path / "course").mkdir()
    write_skeletons(replace=False, root=tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n# a note\n",
        lambda text: text.replace("IMAGE_TOKEN * num_image_tokens", "num_image_tokens * IMAGE_TOKEN"),
        lambda text: text.replace("# TODO 1.", "# TODO 1!", 1),
        lambda text: SOLVED,
        lambda text: "def broken(:\n",
    ],
    ids=["note", "exercise 1", "comment", "solved", "syntax"],
)
def test_work_is_left_alone(change, course_folder):
    path = course_folder / RESCALE.path
    path.write_text(change(FRESH), encoding="utf-8", newline="\n")
    assert path.read_text(encoding="utf-8") != FRESH
    assert "left alone" in write_skeletons(replace=False, root=course_folder)[0]
    assert path.read_text(encoding="utf-8") == change(FRESH)
    assert f"{RESCALE.path}.before-reset-1" in write_skeletons(replace=True, root=course_folder)[0]
    assert path.read_text(encoding="utf-8") == FRESH
    assert (course_folder / f"{RESCALE.path}.before-reset-1").read_text(encoding="utf-8") == change(FRESH)


def test_older_skeleton_is_written_again(course_folder):
    """What was written last, whatever it is, with either kind of line ends; and what is not there."""
    path, record = course_folder / RESCALE.path, course_folder / "course" / "skeletons.json"
    older = "# an older skeleton\n"
    record.write_text(record.read_text().replace(digest(FRESH), hashlib.sha256(older.encode()).hexdigest()))
    path.write_bytes(older.replace("\n", "\r\n").encode())
    (course_folder / "decoder_0.py").unlink()
    lines = write_skeletons(replace=False, root=course_folder)
    written = (RESCALE.path, "decoder_0.py")
    assert lines == [f"{f}_0.py: {'written' if f'{f}_0.py' in written else 'as it was'}" for f in FILES]
    assert path.read_text(encoding="utf-8") == FRESH


# ----------------------------------------------------------------------------- safe writing


def test_replace_file(tmp_path):
    path = tmp_path / "file.txt"
    replace_file(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    path.chmod(0o600)
    replace_file(path, b"\r\n")
    assert path.read_bytes() == b"\r\n" and names_in(tmp_path) == ["file.txt"]
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(OSError):
        replace_file(tmp_path / "no folder" / "file.txt", "")


# ------------------------------------------------------------------------------------- show


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: f"exercise-{number_of(exercise)}")
def test_show(exercise):
    """The reference's lines give twice the same; the skeleton is not done."""
    index = smallest_case(exercise)
    text = show(exercise, LearnerFile(exercise.file, reference_source(exercise.file)))
    _, rest = text.split("\n  Yours\n")
    yours, right = rest.split("\n\n  Right\n")
    assert right == f"{yours}\n\n  Yours is right, in this case and in all others."
    assert f"the case: {exercise.cases[index].about}\n" in text
    if not exercise.solved:
        assert "\n    is not done yet\n" in show(
            exercise, LearnerFile(exercise.file, skeleton(exercise.file))
        )


def test_why(capsys):
    learn.main(["why", "RMSNorm"])
    out = capsys.readouterr().out
    assert out.startswith("The residual stream and norms\n") and "docs/lessons/residual.md" in out


# ------------------------------------------------------------- code that ends or hangs the process


@pytest.fixture
def no_worker_left():
    yield
    process.close()


def rescale_with(line):
    head = "def rescale(image, scale=1 / 255):\n    "
    start, rest = FRESH.index("def rescale("), FRESH.index("\n\n\ndef normalize(")
    return LearnerFile(RESCALE.file, FRESH[:start] + head + line + FRESH[rest:])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("__import__('os')._exit(0)", ["ended the whole process", "Exit code: 0"]),
        ("__import__('ctypes').string_at(0)", ["ended the whole process"]),
        ("__import__('os').write(1, b'rubbish'); return image * 2", ["is uint8 instead of float32"]),
        ("return input()", ["EOFError"]),
        (
            "__import__('collections').deque(__import__('itertools').repeat(0), maxlen=0)",
            ["still running after 1 second:"],
        ),
        (
            "while True:\n        try:\n            image = image + 0\n        except:\n            pass",
            ["still running after 1 second:"],
        ),
    ],
    ids=["exit", "crash", "fd 1", "input", "a loop in C", "a loop that catches everything"],
)
def test_what_ends_or_hangs_the_process(line, words, monkeypatch, no_worker_left):
    monkeypatch.setattr(process, "GRACE", 1)
    result = worker.check_apart(RESCALE, rescale_with(line), seconds=1)
    assert result.state == "wrong" and result.message.startswith(f"rescale ({RESCALE.path}:")
    for word in words:
        assert word in result.message
    if result.kind == "time" and hasattr(signal, "SIGUSR1"):
        assert f"{RESCALE.path}:" in result.message and "in rescale:" in result.message
    assert not (result.kind == "time" and process._processes), "it would still run there"
    # And the next one is tried as if nothing had happened.
    assert worker.check_apart(RESCALE, LearnerFile(RESCALE.file, SOLVED)).state == "solved"


def test_a_process_that_does_not_start_is_one_line(monkeypatch):
    monkeypatch.setattr(process, "START_SECONDS", 0)
    monkeypatch.setattr(process, "COMMAND", [sys.executable, "-c", "import time; time.sleep(60)"])
    waiting = process.Process()
    with pytest.raises(InputError, match="did not start"):
        waiting.ask("a question", 1)
    waiting.close()


# ------------------------------------------------------------------------- how the program ends


def start(*arguments, **options):
    return subprocess.Popen([sys.executable, "learn.py", *arguments], cwd=ROOT, **options)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent to a process there alone")
@pytest.mark.parametrize("seconds", [0.4, 1.2])
def test_ctrl_c(seconds):
    program = start("show", "GemmaAttention", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(seconds)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=60)
    # Where Python has already begun to end, the signal itself ends it: 130 to a shell as well.
    assert program.returncode in ([0] if out else [130, -signal.SIGINT]) and err == b""


def test_reader_that_leaves():
    read, write = os.pipe()
    os.close(read)
    program = start("list", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert program.communicate(timeout=60)[1] == b"" and program.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="a shell that can close streams")
@pytest.mark.parametrize(
    ("command", "code"),
    [("show rescale <&- >&- 2>&-", 0), ("list 2>&-", 0), ("list > /dev/full", 2), ("hint x > /dev/full", 2)],
)
def test_closed_streams(command, code):
    if "full" in command and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    ran = subprocess.run(
        f"{sys.executable} learn.py {command}",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == code and ran.stderr.count("\n") == (1 if code else 0)
    assert "Traceback" not in ran.stderr + ran.stdout


def test_version():
    ran = subprocess.run(
        [sys.executable, "learn.py", "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0 and not ran.stderr
    for word in ("commit:", "system:", "python:", "torch:", "transformers:", "cores:", "memory:"):
        assert word in ran.stdout
