"""The server of the live page: on this machine alone, and of the standard library alone.

    page -> POST ask (JSON) -> the process that runs the model (inside/live_model.py) -> one line of
    JSON for each part of what it found, as soon as it is there.    GET events: what happens by itself.

What to notice:
  - whoever knows the address may ask. It has a random token in it, and the Host and Origin that a
    browser sends must be this server's own: no other page can ask, even one that knows the port. A link
    to the page may stand anywhere, as in a terminal inside a browser;
  - what is served was read before the first request. No path from a request is opened;
  - nothing large is imported here. The address is there at once, and the model comes after it;
  - a learner's code runs in the other process alone. One that ends or hangs is killed and started again.
"""

import argparse
import base64
import binascii
import collections
import contextlib
import hashlib
import hmac
import json
import os
import queue
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from inside.template import FOLDER, fill_template, read
from program.command_line import InputError, Parser, log, run_program, set_up_streams, write

ROOT = FOLDER.parent
TINY_MODEL = ROOT / "paligemma-tiny"
MOST_BYTES = 24_000_000  # of one request, pictures being base64 there
MOST_CONNECTIONS, MOST_PER_SECOND = 48, 120
REQUEST_SECONDS = 10  # in which a request must have come whole
MOST_WAITS = {"changed": 100}  # times the seconds of computing: tests are another process
MOST_ENDS = 3  # of the model's process, with nothing answered in between: then it is not started again
ALIVE_SECONDS = 5  # between two signs of life to a waiting page, which show whether it has left
POLL_SECONDS = 0.2  # between two looks at the learner's files
QUESTIONS = ("ask", "picture", "words", "shape", "numbers")
REFUSALS = {
    "host": (403, "another Host"), "origin": (403, "another Origin"), "token": (404, "no such address"),
    "size": (413, "too large"), "flood": (429, "too many requests"), "slow": (408, "half-sent"),
    "form": (400, "not a question of this page"),
}  # fmt: skip
MOST_SIDE = 4096  # of the picture that a mask is to be drawn in


# --------------------------------------------------------------------- the model's process


class Model:
    """The process that runs the model; started again when it ends, or when it takes too long."""

    def __init__(self, folder: str, which: str, tell):
        self.command = [sys.executable, "-m", "inside.live_model", folder, which]
        self.which, self.tell = which, tell
        self.lock, self.number = threading.RLock(), 0
        self.asked: dict[int, tuple[dict, queue.Queue]] = {}  # by the number of a question
        self.state = {"ready": None, "tests": None, "problem": None}
        self.closed, self.is_ready, self.ends = False, False, 0
        self.failure = ""  # why no model can ever be had
        self.start(True)
        threading.Thread(target=self.watch_time, daemon=True).start()

    def start(self, take_learners: bool):
        self.is_ready, self.running, self.take_learners = False, None, take_learners
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 (it is there as long as the process)
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr
        )
        self.unsent = queue.SimpleQueue()
        threading.Thread(target=self.read, args=(self.process, self.stderr), daemon=True).start()
        threading.Thread(target=self.write, args=(self.process, self.unsent), daemon=True).start()

    def write(self, process, unsent):
        """In a thread of its own: the pipe is full while a learner's code lets nothing be read from it."""
        with contextlib.suppress(OSError):  # it has ended: told by the thread that reads
            while (request := unsent.get()) is not None:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()

    def read(self, process, stderr):
        for line in process.stdout:
            if not line.endswith(b"\n"):  # it was killed in the middle of one
                break
            message = json.loads(line)
            with self.lock:
                if process is self.process:  # what one that was killed had still written counts no more
                    self.take(message)
        process.wait()
        with self.lock:
            if self.closed or process is not self.process or self.ends >= MOST_ENDS:
                return
            stderr.seek(0)
            said = stderr.read().decode("utf-8", "replace")
            self.ended(f"ended by itself (exit code {process.returncode})", said)

    def take(self, message: dict):
        with self.lock:
            number, kind = message["id"], message["kind"]
            if kind == "ready":
                self.is_ready, self.seconds = True, message["seconds"]
                self.announce("ready", message)
                if self.which == "1":  # it runs again
                    self.announce("problem", {"kind": "problem", "text": ""})
                if self.which != "1" and self.take_learners:
                    self.changed()
            elif kind == "begun":
                most = MOST_WAITS.get(message["task"], 10) * self.seconds
                self.running = (time.monotonic(), self.computed(), most)
            elif kind == "changed":
                self.announce("problem", {"kind": "problem", "text": ""})
                self.tell(message)
            elif kind == "tests":
                self.announce("tests", message)
            elif kind == "failed":
                self.failure = message["text"]
            elif number in self.asked:
                self.asked[number][1].put(message)
            if kind == "end":
                self.running, self.ends = None, 0
                self.asked.pop(number, None)

    def announce(self, name: str, message: dict):
        self.state[name] = message
        self.tell(message)

    def ask(self, request: dict) -> queue.Queue:
        """The messages about a question, the last of which is of the kind "end"."""
        answers = queue.Queue()
        with self.lock:
            self.number += 1
            request["id"] = self.number
            if request["kind"] == "ask":
                for number, (other, waiting) in list(self.asked.items()):
                    if other["kind"] == "ask" and other["page"] == request["page"]:
                        waiting.put({"kind": "end", "superseded": True})
                        del self.asked[number]
            if self.ends >= MOST_ENDS:
                answers.put({"kind": "end", "refused": "The model's process has ended."})
                return answers
            self.asked[self.number] = (request, answers)
            self.send(request)
        return answers

    def leave(self, number: int):
        """Nobody waits for this answer anymore."""
        with self.lock:
            if self.asked.pop(number, None) is not None:
                self.send({"id": number, "page": "", "kind": "left"})

    def send(self, request: dict):
        self.unsent.put(request)

    def changed(self):
        """The learner's files are to be read again."""
        with self.lock:
            self.take_learners = True  # as soon as it is ready, if it is not yet
            if self.ends < MOST_ENDS:
                self.ends = 0  # other code may do better
            if self.is_ready:
                self.send({"id": -1, "page": "", "kind": "changed"})

    def computed(self) -> float:
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:  # it is gone
            return 0.0
        return times.user + times.system

    def takes_too_long(self) -> bool:
        """The seconds are those that it computes, so that a busy machine is not taken for an endless loop;
        and also those of the clock, because eight threads compute eight seconds in one."""
        if self.running is None:
            return False
        began, computed, most = self.running
        seconds = time.monotonic() - began
        return seconds > most or (seconds > self.seconds and self.computed() - computed > self.seconds)

    def watch_time(self):
        while not self.closed:
            time.sleep(0.2)
            with self.lock:
                if not self.takes_too_long():
                    continue
                if hasattr(signal, "SIGUSR1"):
                    self.process.send_signal(signal.SIGUSR1)  # faulthandler writes where it is
                    time.sleep(0.3)
                self.stderr.seek(0)
                said = self.stderr.read().decode("utf-8", "replace")
                self.ended(f"was still running after {self.seconds} seconds: a loop that never ends?", said)

    def ended(self, why: str, said: str):
        """Tells it, and starts another one: without the learner's code, until that is saved again."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.unsent.put(None)
        self.running = None
        for _, answers in self.asked.values():
            answers.put({"kind": "end", "refused": "The model's process has ended."})
        self.asked.clear()
        self.ends += 1
        gives_up = bool(self.failure) or self.ends >= MOST_ENDS
        place = re.search(r'(\w+_0\.py)", line (\d+) in (\w+)', said)
        if self.failure:
            text = self.failure
        elif self.is_ready and self.take_learners and self.which != "1":
            where = f"{place[1]}:{place[2]}, in {place[3]}: y" if place else "Y"
            text = f"{where}our code {why}"
        else:
            last = (said.strip().splitlines() or ["no message"])[-1]
            text = f"The model's process {why}: {last[-300:]}"
        if gives_up and not self.failure:
            text += f"\nAfter {MOST_ENDS} ends without an answer it is not started again. Ctrl-C ends this."
            log(text)
        self.announce("problem", {"kind": "problem", "text": text})
        if not gives_up:
            self.start(take_learners=False)

    def close(self):
        with self.lock:
            self.closed = True
            self.process.kill()
            self.process.wait()


# --------------------------------------------------------------------------------- the page


def build_live_page() -> tuple[str, str]:
    """The page, and the policy that it is served with: its own script, and no other, may run."""
    script = f"\n{read('page.js')}{read('live.js')}"
    parts = {
        "policy": "",
        "title": "PaliGemma, live",
        "css": read("page.css") + read("live.css"),
        "top": read("live.html"),
        "data": "null",
        "js": script.removeprefix("\n"),
        "foot": "Served by <code>explain.py --live</code> to this machine alone.",
    }
    page = fill_template(parts, lambda name: f'<a class="source" href="#code-{name}"><code>{name}</code></a>')
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    return page, policy


def files_served(facts: dict) -> tuple[dict[str, tuple[str, bytes]], str]:
    """All that is served: name -> type and content."""
    page, policy = build_live_page()
    samples = {path.stem: path.read_bytes() for path in sorted((ROOT / "images").glob("*.png"))}
    facts = facts | {
        "samples": list(samples),
        "drawings": json.loads(read("stage.json")),
        "most_bytes": MOST_BYTES,
    }
    files = {
        "": ("text/html; charset=utf-8", page.encode()),
        "facts": ("application/json", json.dumps(facts).encode()),
        "stage.png": ("image/png", (FOLDER / "stage.png").read_bytes()),
    }
    files |= {f"{name}.png": ("image/png", content) for name, content in samples.items() if name != "stage"}
    return files, policy


# ------------------------------------------------------------------------------- the server


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: str, which: str):
        self.token = secrets.token_urlsafe(18)
        self.refused = collections.Counter()
        self.folder = tempfile.TemporaryDirectory(prefix="explain-live-")
        self.listeners: set[queue.Queue] = set()
        self.open = threading.Semaphore(MOST_CONNECTIONS)
        self.moments: collections.deque = collections.deque(maxlen=MOST_PER_SECOND)
        self.unfinished: dict[socket.socket, float] = {}  # connections whose request is not there yet
        self.files, self.policy = files_served({"set": which, "model": Path(folder).resolve().name})
        super().__init__(("127.0.0.1", 0), Handler)
        port = self.server_address[1]
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self.address = f"http://127.0.0.1:{port}/{self.token}/"
        self.model = Model(folder, which, self.tell)
        if which != "1":
            threading.Thread(target=self.watch_files, daemon=True).start()

    # ------------------------------------------------------------------ what happens by itself

    def tell(self, message: dict):
        """To all pages that are open."""
        for listener in list(self.listeners):
            listener.put(message)

    def watch_files(self):
        def signature():
            found = []
            for path in sorted(ROOT.glob("*_0.py")):
                with contextlib.suppress(OSError):  # an editor is just replacing it
                    stat = path.stat()
                    found.append((path.name, stat.st_mtime_ns, stat.st_size))
            return found

        known = latest = signature()
        while True:
            time.sleep(POLL_SECONDS)
            now = signature()
            if now != known and now == latest:  # it has been written to its end
                known = now
                self.model.changed()
            latest = now

    # ------------------------------------------------------------------------------- refusals

    def count(self, why: str):
        """Told at the first of a kind, the tenth, the hundredth..."""
        self.refused[why] += 1
        number = self.refused[why]
        if str(number).strip("0") == "1":
            log(f"Refused: {number:,} {'request' if number == 1 else 'requests'} ({REFUSALS[why][1]})")

    def process_request(self, request, client_address):
        now = time.monotonic()
        flood = len(self.moments) == self.moments.maxlen and now - self.moments[0] < 1
        if flood or not self.open.acquire(blocking=False):
            self.count("flood")
            with contextlib.suppress(OSError):
                request.sendall(b"HTTP/1.0 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        self.moments.append(now)
        self.unfinished[request] = now
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.unfinished.pop(request, None)
            self.open.release()

    def service_actions(self):
        """Twice a second: who has not sent a whole request in time is left."""
        if self.model.failure:
            raise InputError(self.model.failure)  # ends the program
        for request, began in list(self.unfinished.items()):
            if time.monotonic() - began > REQUEST_SECONDS and self.unfinished.pop(request, None):
                self.count("slow")
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # which is only that somebody has left
            log(f"The page's server: {type(error).__name__}: {error}")

    def server_close(self):
        super().server_close()
        self.model.close()
        with contextlib.suppress(OSError):  # a request may just be writing there
            self.folder.cleanup()


class Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "explain", ""
    timeout = 3 * REQUEST_SECONDS  # of one piece, for whoever does not take what is sent

    def log_message(self, *_):
        pass

    def refuse(self, why: str):
        self.server.count(why)
        self.answer(REFUSALS[why][0], "text/plain; charset=utf-8", REFUSALS[why][1].encode())
        self.close_connection = True

    def answer(self, code: int, kind: str, content: bytes | None):
        """content: None where it follows, a line at a time."""
        self.send_response(code)
        self.send_header("Content-Type", kind)
        if content is not None:
            self.send_header("Content-Length", str(len(content)))
        for name, value in (
            ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"), ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"), ("Content-Security-Policy", self.server.policy),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if content is not None:
            self.wfile.write(content)

    def name_asked(self) -> str | None:
        """What stands behind the token in the address; None if the request was refused."""
        if self.request not in self.server.unfinished:
            return None  # it took too long, and was counted
        if self.headers.get_all("Host") is None or {*self.headers.get_all("Host")} - self.server.hosts:
            return self.refuse("host")
        origins = {f"http://{host}" for host in self.server.hosts}
        if {*self.headers.get_all("Origin", [])} - origins:
            return self.refuse("origin")
        begin, token, name = ([*self.path.split("/", 2), "", ""])[:3]
        fetched = [self.headers.get(f"Sec-Fetch-{what}", "none") for what in ("Site", "Mode", "Dest")]
        is_opened = not name and fetched[1:] == ["navigate", "document"]
        if fetched[0] not in ("same-origin", "none") and not is_opened:
            return self.refuse("origin")
        if begin or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return self.refuse("token")
        return name

    def do_GET(self):
        name = self.name_asked()
        self.server.unfinished.pop(self.request, None)
        if name is None:
            return
        if name == "events":
            self.send_events()
        elif name in self.server.files:
            self.answer(200, *self.server.files[name])
        else:
            self.refuse("token")

    def do_POST(self):
        name = self.name_asked()
        if name is None:
            return
        length = self.headers.get("Content-Length", "")
        if name not in QUESTIONS:
            return self.refuse("token")
        if self.headers.get("Origin") is None:  # a browser always tells it
            return self.refuse("origin")
        if not re.fullmatch(r"\d{1,12}", length) or self.headers.get("Transfer-Encoding"):
            return self.refuse("form")
        if int(length) > MOST_BYTES:
            return self.refuse("size")
        body = self.rfile.read(int(length))
        if self.server.unfinished.pop(self.request, None) is None or len(body) < int(length):
            return None  # counted: it took too long
        try:
            request, content = read_question(name, body)
        except (ValueError, RecursionError):
            return self.refuse("form")
        digest = hashlib.sha256(content).hexdigest()
        file = Path(self.server.folder.name) / f"{secrets.token_hex(16)}.png"
        file.write_bytes(content)
        try:
            request |= {"picture": str(file), "digest": digest}
            self.send_lines(self.server.model.ask(request), str(file))
        finally:
            self.server.model.leave(request.get("id"))  # which is nothing new if it was answered
            with contextlib.suppress(OSError):
                file.unlink()
        return None

    def send_lines(self, answers: queue.Queue, file: str):
        self.answer(200, "application/x-ndjson", None)
        while True:
            try:
                message = answers.get(timeout=ALIVE_SECONDS)
            except queue.Empty:
                self.wfile.write(b"\n")  # no message: it fails where nobody is there anymore
                self.wfile.flush()
                continue
            if "refused" in message:
                message["refused"] = message["refused"].replace(file, "the picture")
            self.wfile.write(json.dumps(message, ensure_ascii=False).encode() + b"\n")
            self.wfile.flush()
            if message["kind"] == "end":
                return

    def send_events(self):
        """Server-sent events, as long as the page is open."""
        listener = queue.Queue()
        self.answer(200, "text/event-stream", None)
        self.server.listeners.add(listener)
        try:
            for message in list(self.server.model.state.values()):
                if message is not None:
                    listener.put(message)
            while True:
                try:
                    text = f"data: {json.dumps(listener.get(timeout=ALIVE_SECONDS))}\n\n"
                except queue.Empty:
                    text = ":\n\n"  # no message, as above
                self.wfile.write(text.encode())
                self.wfile.flush()
        finally:
            self.server.listeners.discard(listener)


def read_question(name: str, body: bytes) -> tuple[dict, bytes]:
    """A request's content, checked: raises a ValueError for whatever the page does not send."""
    if name in ("picture", "words"):
        return {"kind": name, "page": ""}, body
    asked = json.loads(body)
    if not isinstance(asked, dict):
        raise ValueError
    page = asked.get("page")
    if not isinstance(page, str) or not re.fullmatch(r"\w{1,40}", page):
        raise ValueError
    if name == "shape":
        return {"kind": name, "page": page, **read_shape(asked)}, b""
    request, content = read_ask(asked)
    if name == "numbers":
        request["wanted"] = read_wanted(asked.get("wanted"))
    return {"kind": name, "page": page, **request}, content


def is_number(value, low: float, high: float, kind=(int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high


def are_numbers(values, low: float, high: float, count: int) -> bool:
    right = isinstance(values, list) and len(values) == count
    return right and all(is_number(one, low, high) for one in values)


def read_shape(asked: dict) -> dict:
    """16 words, and the box and the size of the picture that their mask is to be drawn in."""
    words, box, size = asked.get("words"), asked.get("box"), asked.get("size")
    right = (
        are_numbers(words, 0, 999, 16) and all(isinstance(word, int) for word in words)
        and are_numbers(size, 1, MOST_SIDE, 2) and all(isinstance(side, int) for side in size)
        and are_numbers(box, 0, MOST_SIDE, 4) and box[0] < box[2] <= size[0] and box[1] < box[3] <= size[1]
    )  # fmt: skip
    if not right:
        raise ValueError
    return {"words": words, "box": box, "size": size}


def read_wanted(wanted) -> dict:
    """Which value of which line: its numbers are to be shown at a place."""
    if not isinstance(wanted, dict):
        raise ValueError
    texts = [wanted.get(key) for key in ("unit", "method", "name")]
    line, step, layer, at = (wanted.get(key) for key in ("line", "step", "layer", "at"))
    right = (
        all(isinstance(text, str) and len(text) <= 200 for text in texts)
        and is_number(line, 0, 10_000, int) and is_number(step, 0, 1, int)
        and (layer is None or is_number(layer, 0, 1000, int))
        and isinstance(at, list) and len(at) <= 8 and all(is_number(one, 0, 1e9, int) for one in at)
    )  # fmt: skip
    if not right:
        raise ValueError
    return {key: wanted[key] for key in ("unit", "method", "name", "line", "step", "layer", "at")}


def read_ask(asked: dict) -> tuple[dict, bytes]:
    prompt, only = asked.get("prompt"), asked.get("only_answer")
    chosen, off, picture = asked.get("switches"), asked.get("off"), asked.get("picture")
    right = (
        isinstance(prompt, str) and len(prompt) <= 2000
        and isinstance(only, bool) and isinstance(asked.get("code"), bool) and isinstance(picture, str)
        and isinstance(chosen, list) and len(chosen) <= 64
        and all(isinstance(one, list) and len(one) == 2 and isinstance(one[0], str)
                and isinstance(one[1], dict) for one in chosen)
        and isinstance(off, list) and len(off) <= 2000
        and all(isinstance(one, list) and len(one) == 3 and one[0] in ("tower", "decoder")
                and type(one[1]) is int and (one[2] is None or type(one[2]) is int) for one in off)
        and is_number(asked.get("temperature"), 0, 10) and is_number(asked.get("top_p"), 0.001, 1)
        and is_number(asked.get("seed"), 0, 2**53, int)
    )  # fmt: skip
    if not right:
        raise ValueError
    try:
        content = base64.b64decode(picture, validate=True)
    except binascii.Error as error:
        raise ValueError from error
    choosing = {key: asked[key] for key in ("temperature", "top_p", "seed")} if asked["temperature"] else {}
    request = {"prompt": prompt.encode(errors="replace").decode(), "choosing": choosing}
    request |= {"switches": chosen, "off": off, "only_answer": only, "code": asked["code"]}
    return request, content


# ---------------------------------------------------------------------------------- the program


def main(argv: list[str] | None = None):
    """`python explain.py --live`, which has fewer options than the page that is written."""
    parser = Parser(prog="explain.py --live", description="Serves a page to this machine that answers live.")
    add = parser.add_argument
    add("--live", action="store_true", help=argparse.SUPPRESS)
    add("--no-browser", action="store_true", help="only prints the address")
    add("--model", metavar="DIR", default=str(TINY_MODEL), help="checkpoint folder (default: the tiny one)")
    add(
        "--set",
        choices=("0", "1", "mixed", "tried"),
        default="1",
        help="1: the reference files (default), 0: yours, mixed: yours where they are solved, "
        "tried: yours where you tried, right or wrong",
    )
    args = parser.parse_args(argv)
    set_up_streams()
    run_program(lambda args: serve(args.model, args.set, not args.no_browser), args, parser)


def serve(folder: str, which: str, opens_browser: bool):
    """Serves the page until Ctrl-C."""
    if not (Path(folder) / "config.json").is_file():
        raise InputError(f"--model {folder}: there is no model (no config.json in it)")
    folder = str(Path(folder).resolve())  # the model's process runs in another folder

    def end(*_):
        raise KeyboardInterrupt

    server = Server(folder, which)  # until it is there, Ctrl-C ends the program as everywhere
    try:
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGTERM, end)
        write(server.address)
        log("This page is live as long as this program runs: Ctrl-C ends both.")
        if opens_browser:
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        server.server_close()
    os._exit(130)
