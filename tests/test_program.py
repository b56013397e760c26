"""program/: arguments, messages and ends of a program, pictures in and out, safe writing."""

import argparse
import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, TiffImagePlugin
from tqdm import tqdm

from course.tracebacks import LearnersError, explained
from load_weights import damage_told
from program import command_line
from program.bar import bar
from program.command_line import (
    InputError,
    Parser,
    ReaderLeft,
    check_output,
    readable,
    run_program,
    to_paste,
    write,
)
from program.files import UNFINISHED, remove_unfinished, replace_file
from program.memory import is_out_of_memory
from program.pictures import (
    DRAWABLE,
    LONGEST_SIDE,
    check_drawing,
    check_picture,
    check_size,
    open_picture,
    write_picture,
)

ROOT = Path(command_line.__file__).parent.parent


# ------------------------------------------------------------------------------- messages


def test_a_short_message_stays_as_it_is():
    for message in ("no such file: a b.png", "nöne — 日本.png", "\udce9.png", "a" * 300):
        assert readable(message) == message


def test_of_a_long_message_the_longest_words_are_cut_first():
    message = readable(f"--draw {'n' * 400}.png: the folder is not there")
    assert len(message) <= 300
    assert message.startswith("--draw nnn") and message.endswith("nnn.png: the folder is not there")
    message = readable("what is wrong " + "and so on " * 100 + "what helps")
    assert len(message) == 300 and message.startswith("what is wrong") and message.endswith("what helps")


def test_signs_that_steer_the_terminal_are_spelled_out():
    assert readable("a\x1b[2Jb\x00\ud800") == r"a\x1b[2Jb\x00\ud800"


@pytest.mark.skipif(sys.platform == "win32", reason="whose shells quote in another way")
def test_a_command_can_be_pasted():
    words = ["finetune.py", "--out", "my adapter", "$x `y` 'z' \"w\"", Path("a b")]
    assert shlex.split(to_paste(*words)) == list(map(str, words))
    assert to_paste("python", "finetune.py", "--resume", "out") == "python finetune.py --resume out"


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("no more"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried 9 bytes."), True),
        (RuntimeError("unable to mmap 9 bytes from file <a>: Cannot allocate memory (12)"), True),
        (RuntimeError("required rank 4 tensor to use channels_last memory format"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_that_runs_out_is_not_a_learners_mistake(error, is_so):
    assert is_out_of_memory(error) is is_so
    with pytest.raises(type(error) if is_so else LearnersError), explained(InputError, MemoryError):
        raise error


# -------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EINVAL])  # the latter is what Windows says
def test_reader_that_leaves(number, monkeypatch):
    def closed(*_, **__):
        raise OSError(number, "closed")

    monkeypatch.setattr(command_line, "discard", lambda stream: None)
    monkeypatch.setattr("builtins.print", closed)
    with pytest.raises(ReaderLeft):
        write("a cat")


def run_here(code: str, redirections: str = "", **options) -> subprocess.CompletedProcess:
    """A program of a few lines, with what a shell does to its streams."""
    lines = (
        "import sys\nfrom program.command_line import *\nparser = Parser(prog='p')\nset_up_streams()\n" + code
    )
    command = ["bash", "-c", f'"{sys.executable}" -c "$0" {redirections}', lines]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, **options)


needs_bash = pytest.mark.skipif(sys.platform == "win32", reason="closes streams as a Unix shell does")
ANSWERS = "def program(args):\n    log('status')\n    write('answer')\nrun_program(program, None, parser)"


@needs_bash
@pytest.mark.parametrize(
    ("redirections", "code", "out", "err"),
    [
        ("", 0, "answer\n", "status\n"),
        (">&-", 0, "", "status\n"),
        ("2>&-", 0, "answer\n", ""),
        ("<&- >&- 2>&-", 0, "", ""),
        ("> >(true)", 0, "", "status\n"),
        ("2> >(exec 0<&-; sleep 0.2)", 0, "answer\n", ""),
    ],
)
def test_streams_that_are_closed(redirections, code, out, err):
    wait = "import time\ntime.sleep(0.3)\n" if "(" in redirections else ""
    result = run_here(wait + ANSWERS, redirections)
    assert (result.returncode, result.stdout, result.stderr) == (code, out, err)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk, as Linux plays it")
def test_a_full_disk_behind_stdout():
    result = run_here(ANSWERS, "> /dev/full")
    assert result.returncode == 2
    assert result.stderr == "status\np: error: the answer cannot be written: No space left on device\n"
    result = run_here(ANSWERS, "2> /dev/full")
    assert (result.returncode, result.stdout) == (0, "answer\n")


BARS = """
from program.bar import bar
def program(args):
    for _ in bar(range(9), mininterval=0):
        log('status')
    write('answer')
run_program(program, None, parser)
"""


@needs_bash
@pytest.mark.parametrize("redirections", ["2> >(exec 0<&-; sleep 0.2)", "2> /dev/full"])
def test_a_bar_that_nobody_sees(redirections):
    if "full" in redirections and not Path("/dev/full").exists():
        pytest.skip("a full disk, as Linux plays it")
    wait = "import time\ntime.sleep(0.3)\n" if "(" in redirections else ""
    result = run_here(wait + BARS, redirections)
    assert (result.returncode, result.stdout) == (0, "answer\n")


def test_lines_and_bars_do_not_mix(capsys):
    with bar(total=2, mininterval=0) as progress:
        capsys.readouterr()
        with tqdm.external_write_mode(sys.stderr):
            assert capsys.readouterr().err.strip(" \r") == ""  # it is taken away, and comes again
        assert "0/2" in capsys.readouterr().err
        with progress.external_write_mode(sys.stdout):
            assert capsys.readouterr().err.strip(" \r") == ""


@needs_bash
def test_help_without_a_reader():
    result = run_here("import time\ntime.sleep(0.3)\nparser.parse_args(['--help'])", "> >(true)")
    assert (result.returncode, result.stderr) == (0, "")


@needs_bash
def test_ctrl_c_leaves_no_file_that_was_written_aside(tmp_path):
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom program import files\nend_quietly_on_ctrl_c()\n"
        "files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGINT)\n"
        f"files.replace_file(Path({str(tmp_path / 'out')!r}), 'new')\n"
        "print('went on')"
    )
    (tmp_path / "out").write_text("old")
    result = run_here(code)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "old"


# ----------------------------------------------------------------------------------- ends


class OtherError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("two\nlines"), "two lines"),
        (OtherError("known to the user"), "known to the user"),
        (MemoryError(), "out of memory: close other programs and try again"),
        (FileNotFoundError(2, "No such file", "x.png"), "[Errno 2] No such file: 'x.png'"),
        (BrokenPipeError(32, "Broken pipe"), "[Errno 32] Broken pipe"),  # not stdout's: that is ReaderLeft
    ],
)
def test_errors_become_a_line(error, line, capsys):
    def program(args):
        raise error

    with pytest.raises(SystemExit) as end:
        run_program(program, argparse.Namespace(), Parser(prog="p"), OtherError)
    assert (end.value.code, *capsys.readouterr()) == (2, "", f"p: error: {line}\n")


def test_an_error_may_have_lines_and_a_code_of_its_own(capsys):
    class LearnersError(InputError):
        one_line, code = False, 1

    def program(args):
        raise LearnersError("your code stopped\n    " + "x" * 400)

    with pytest.raises(SystemExit) as end:
        run_program(program, argparse.Namespace(), Parser(prog="p"))
    assert end.value.code == 1
    assert capsys.readouterr().err == f"p: error: your code stopped\n    {'x' * 400}\n"


def test_a_bug_is_not_to_look_like_a_mistake_of_the_user():
    def program(args):
        raise OtherError

    with pytest.raises(OtherError):
        run_program(program, argparse.Namespace(), Parser(prog="p"))


# ---------------------------------------------------------------------------------- files


@pytest.mark.parametrize(("content", "stored"), [("é\n", b"\xc3\xa9\n"), (b"\0\xff", b"\0\xff"), ("", b"")])
def test_replace_file(content, stored, tmp_path):
    path = tmp_path / "out"
    for _ in range(2):
        replace_file(path, content)
        assert path.read_bytes() == stored
    assert list(tmp_path.iterdir()) == [path] and not UNFINISHED


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "out"
    path.write_text("old")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:

            def full(*_):
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="No space"):
                replace_file(path, "new")
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights, and links only for some")
def test_links_and_rights_stay(tmp_path):
    path, link = tmp_path / ("n" * 255), tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    replace_file(link, "new")
    assert link.is_symlink() and path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640
    new = tmp_path / "new"
    replace_file(new, "x")
    (tmp_path / "plain").write_text("x")
    assert new.stat().st_mode == (tmp_path / "plain").stat().st_mode  # what the umask allows


def test_remove_unfinished(tmp_path):
    aside = tmp_path / ".x.part"
    aside.write_text("half")
    UNFINISHED.update({aside, tmp_path / "never begun"})
    remove_unfinished()
    UNFINISHED.clear()
    assert not list(tmp_path.iterdir())


def test_an_open_file_that_windows_does_not_remove(monkeypatch):
    """The program ends by Ctrl-C all the same."""

    def refuse(*_, **__):
        raise PermissionError(13, "The process cannot access the file")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr("program.files.UNFINISHED", {Path("x.part")})
    remove_unfinished()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_output_to_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.html")
    (tmp_path / "loop.html").symlink_to(tmp_path / "loop.html")
    (tmp_path / "lost.html").symlink_to(tmp_path / "none" / "x.html")
    for name in ("pipe.html", "loop.html", "lost.html"):
        with pytest.raises(InputError, match=f"--out .*{name}: "):
            check_output(tmp_path / name, "--out", (".html",))
    (tmp_path / "good.html").symlink_to(tmp_path / "new.html")
    check_output(tmp_path / "good.html", "--out", (".html",))


def test_an_output_of_another_ending(tmp_path):
    with pytest.raises(InputError, match=r"the name must end in one of \.png \.jpg$"):
        check_output(tmp_path / "out.gif", "--draw", (".png", ".jpg"))
    with pytest.raises(InputError, match=r"the name must end in \.png$"):
        check_output(tmp_path / "out.gif", "--mask", (".png",))


# ------------------------------------------------------------------------------- pictures

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (HEIC, "a HEIC picture, as phones take them, .*: save it as JPEG or PNG first"),
        (EPS, "not a picture .*PNG, JPEG"),
        (b"<svg/>", "not a picture .*PNG, JPEG"),
        (b"%PDF-1.4\n", "not a picture .*PNG, JPEG"),
    ],
)
def test_what_is_no_picture_here(content, what, tmp_path):
    """An EPS would let Pillow start Ghostscript, whatever its name says."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for look in (check_picture, open_picture):
        with pytest.raises(InputError, match=f"photo.jpg is {what}"):
            look(str(path))


@pytest.mark.parametrize(
    ("name", "dtype", "kind"),
    [
        ("x.tiff", np.float32, "float"),
        ("x.pfm", np.float32, "float"),
        ("x.tiff", np.int32, "32-bit or signed"),
        ("signed.tiff", np.int16, "32-bit or signed"),
    ],
)
def test_pixels_of_which_nobody_knows_what_is_white(name, dtype, kind, tmp_path):
    """They came out black. What has 16 bits is scaled: tests/test_inference.py."""
    path = tmp_path / name
    values = np.linspace(0, 1, 48).reshape(6, 8)
    if dtype is np.int16:  # Pillow writes none: here an unsigned one says it is signed
        signed = TiffImagePlugin.ImageFileDirectory_v2()
        signed[339] = 2
        Image.fromarray((values * 30_000).astype(np.uint16)).save(path, tiffinfo=signed)
    else:
        Image.fromarray(values.astype(dtype)).save(path, "PPM" if path.suffix == ".pfm" else "TIFF")
    for look in (check_picture, open_picture):
        with pytest.raises(InputError, match=f"{name} has {kind} pixels, .*: save it as PNG first"):
            look(str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", os.devnull):
        with pytest.raises(InputError, match="is a pipe or a device"):
            open_picture(str(path))


def test_a_damaged_tiff_is_one_error_and_no_more(tmp_path, capfd):
    """Pillow warns, its logger speaks and libtiff writes to stderr by itself."""
    picture, whole = Image.effect_noise((40, 30), 90), tmp_path / "whole.tiff"
    said = 0
    for compression in ("tiff_lzw", "jpeg", "group4"):
        (picture.convert("1") if compression == "group4" else picture).save(whole, compression=compression)
        content = whole.read_bytes()
        for at in range(8, len(content), max(1, len(content) // 40)):
            path = tmp_path / "damaged.tiff"
            path.write_bytes(content[:at] + b"\xff\xff" + content[at + 2 :])
            try:
                open_picture(str(path))
            except InputError as error:
                assert len(readable(str(error))) <= 300
                said += 1
    assert said > 10 and capfd.readouterr() == ("", "")


@pytest.fixture
def drawing():
    return Image.new("RGB", (40, 30), "navy")


@pytest.mark.parametrize("ending", DRAWABLE)
def test_only_what_was_drawn_here_is_overwritten(ending, drawing, tmp_path):
    own, other = tmp_path / f"own{ending}", tmp_path / f"other{ending}"
    write_picture(drawing, own)
    drawing.save(other)
    if ending == ".bmp":  # which has no room to say who made it
        other = own
    else:
        check_drawing(own, [], overwrite=False)
    with pytest.raises(InputError, match="--overwrite"):
        check_drawing(other, [], overwrite=False)
    check_drawing(other, [], overwrite=True)
    with pytest.raises(InputError, match="never overwritten"):
        check_drawing(own, [str(own)], overwrite=True)


@pytest.mark.parametrize(("kind", "value"), [(3, 7), (4, 7), (11, 1.5), (2, "abc")])
def test_a_color_profile_that_is_none(kind, value, tmp_path):
    """A TIFF may hold anything under its number."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[34675] = kind
    tags[34675] = value
    Image.new("RGB", (40, 30), "red").save(tmp_path / "picture.tiff", tiffinfo=tags)
    picture = open_picture(str(tmp_path / "picture.tiff"))
    assert not isinstance(picture.info["icc_profile"], bytes)
    for ending in DRAWABLE:
        write_picture(picture, tmp_path / f"out{ending}")


def test_memory_that_runs_out_is_no_damage(tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "picture.png")

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(MemoryError):
        open_picture(str(tmp_path / "picture.png"))
    with pytest.raises(MemoryError), damage_told(tmp_path):
        fail()


def test_a_drawing_on_a_fax(tmp_path):
    """Pillow would compress it as the picture was, in black and white."""
    Image.new("1", (40, 30)).save(tmp_path / "fax.tiff", compression="group4")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "profile.png", icc_profile=b"a profile")
    for name in ("fax.tiff", "profile.png"):
        picture = open_picture(str(tmp_path / name))
        for ending in DRAWABLE:
            write_picture(picture, tmp_path / f"out{ending}")
            assert open_picture(str(tmp_path / f"out{ending}")).size == (40, 30)
        with Image.open(tmp_path / "out.png") as written:
            assert written.info.get("icc_profile") == picture.info.get("icc_profile")


def test_the_longest_side_that_a_format_has(tmp_path):
    for ending, longest in LONGEST_SIDE.items():
        for size in ((longest, 1), (1, longest)):
            check_size(tmp_path / f"x{ending}", size)
            write_picture(Image.new("RGB", size), tmp_path / f"x{ending}")
        with pytest.raises(InputError, match=f"at most {longest:,} pixels"):
            check_size(tmp_path / f"x{ending}", (1, longest + 1))
        with pytest.raises((OSError, ValueError)):
            write_picture(Image.new("RGB", (longest + 100, 1)), tmp_path / f"y{ending}")
    check_size(tmp_path / "x.png", (10**6, 1))
    for ending in (".png", ".bmp", ".tiff"):
        write_picture(Image.new("RGB", (70_000, 1)), tmp_path / f"wide{ending}")
        assert open_picture(str(tmp_path / f"wide{ending}")).size == (70_000, 1)
