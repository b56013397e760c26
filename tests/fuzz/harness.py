"""Runs cases in a process of their own, because a hang or an abort ends it, and judges what came of each."""

import argparse
import contextlib
import faulthandler
import importlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = ("configs", "tokenizer_files", "prompt_files", "heads", "pictures", "commands")
SECONDS = 10  # after which a case counts as a hang
MEMORY = 8 * 2**30  # bytes of address space, so that a case cannot take the machine's memory
LONGEST = 300 + len("inference.py: error: ")
STATUS = re.compile(
    r"Not given, so chosen: .*|Device in use:  \w+|Loading model|Model loaded in .*|Running inference"
    r"|InferenceLatency: .*|Memory Usage: .*|Time to first token: .*|Tokens per second: .*|Boxes drawn in .*"
    r"|Result!!!|(.*: )?\((nothing|cut off at --max-tokens \d+)\)|Note: .*|Weights rounded to int8.*|"
)


def judge(code: int, out: str, err: str) -> str:
    """What is wrong with how a run ended; "answer" or "refused" if nothing is."""
    lines = err.split("\n")
    errors = [line for line in lines if line.startswith("inference.py: error: ")]
    others = [line for line in lines if line not in errors and not STATUS.fullmatch(line)]
    if "Traceback" in err:
        return "traceback"
    if others:
        return f"another line: {others[0]:.150}"
    if code == 0:
        return "answer" if not errors and out.endswith("\n") else "exit 0 without an answer"
    if code != 2:
        return f"exit code {code}"
    if len(errors) != 1 or lines[-2:] != [errors[0], ""]:
        return f"{len(errors)} lines of error"
    if len(errors[0]) > LONGEST:
        return f"a message of {len(errors[0])} letters"
    return "refused"


def run_case(argv: list[str]) -> tuple[str, str, str]:
    """Runs the program in this process: a verdict, stdout and stderr, C libraries' lines included."""
    import inference

    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        code = 0
        try:
            inference.main(argv)
        except SystemExit as error:
            code = error.code
        except BaseException:
            code = 1
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for handle in kept:
                os.close(handle)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "surrogateescape"))
    return judge(code, *texts), *texts


def make(kind: str, seed: int, number: int, folder: Path) -> list[str]:
    """The arguments of a case, whose files are in the folder."""
    module = importlib.import_module(f"tests.fuzz.{kind}")
    return module.make_case(random.Random(f"{kind} {seed} {number}"), folder)


def try_case(kind: str, argv: list[str]) -> tuple[str, str, str]:
    """run_case, which counts no answer that an unspoilt model would not have given, where that is known."""
    verdict, out, err = run_case(argv)
    same_as = getattr(importlib.import_module(f"tests.fuzz.{kind}"), "same_as", None)
    if verdict == "answer" and same_as is not None and (unspoilt := same_as(argv)) is not None:
        right = run_case(unspoilt)[1]
        if out != right:
            verdict = f"another answer: {out!a} instead of {right!a}"
    return verdict, out, err


def work(kind: str, seed: int, first: int, end: int):
    """Runs some cases; a line of JSON on stdout before and after each."""
    with contextlib.suppress(ImportError):  # Windows has no limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    import torch

    import inference  # noqa: F401 (not to be counted to the first case)

    torch.set_num_threads(1)
    own_stderr = os.dup(2)  # for what faulthandler says, while the case writes elsewhere
    for number in range(first, end):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            argv = make(kind, seed, number, Path(folder))
            print(json.dumps({"begin": number}), flush=True)
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=own_stderr)
            start = time.perf_counter()
            verdict, _, err = try_case(kind, argv)
            faulthandler.cancel_dump_traceback_later()
            last = "" if verdict == "answer" else ascii(err.strip().split("\n")[-1])
            seconds = time.perf_counter() - start
            print(json.dumps({"verdict": verdict, "last": last, "seconds": seconds}), flush=True)


def run_cases(kind: str, seed: int, count: int) -> list[tuple[int, str, str]]:
    """All cases of a kind: number, verdict and last line of each."""
    results, first = [], 0
    while first < count:
        command = [sys.executable, "-m", "tests.fuzz", "--work", kind, str(seed), str(first), str(count)]
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process:
            out, err = process.communicate()
        begun = None
        for line in out.splitlines():
            entry = json.loads(line)
            if "begin" in entry:
                begun = entry["begin"]
            else:
                results.append((begun, entry["verdict"], entry["last"]))
                begun = None
        if process.returncode == 0:
            break
        if begun is None:
            raise RuntimeError(f"the fuzzer itself failed: {err}")
        hung = "Timeout" in err
        results.append((begun, "hang" if hung else f"abort ({process.returncode})", err.strip()[-300:]))
        first = begun + 1
    return results


def report(kind: str, seed: int, results: list[tuple[int, str, str]]) -> int:
    """Prints what came out, and the first cases of each way to fail; returns how many failed."""
    counts = Counter(verdict.split(":")[0] for _, verdict, _ in results)
    failed = sum(count for verdict, count in counts.items() if verdict not in ("answer", "refused"))
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    print(f"{kind}: {len(results)} cases, {failed} failed ({listed})", flush=True)
    shown = Counter()
    for number, verdict, last in results:
        group = verdict.split(":")[0]
        if group not in ("answer", "refused") and shown[group] < 5:
            shown[group] += 1
            print(f"  --seed {seed} --case {number}: {verdict}\n      {last:.300}")
    return failed


def main(*kinds: str):
    if sys.argv[1:2] == ["--work"]:
        kind, *numbers = sys.argv[2:]
        work(kind, *map(int, numbers))
        return
    parser = argparse.ArgumentParser(description="Gives spoilt input to inference.py.")
    parser.add_argument("--cases", type=int, default=1000, help="of each kind (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this one, shown in full")
    args = parser.parse_args()
    if args.case is None:
        failed = sum(report(kind, args.seed, run_cases(kind, args.seed, args.cases)) for kind in kinds)
        sys.exit(1 if failed else 0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        argv = make(kinds[0], args.seed, args.case, Path(folder))
        print(ascii(argv))
        verdict, out, err = try_case(kinds[0], argv)
        print(ascii(out), ascii(err).replace("\\n", "\n"), verdict, sep="\n")
