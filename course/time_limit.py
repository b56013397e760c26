"""A time limit for code that may never end, on every system."""

import ctypes
import sys
import threading
import time

from course.outcome import Outcome, TookTooLong
from course.tracebacks import describe_line


def with_time_limit(function, seconds: float, path: str, lines: list[str]):
    """Runs a function in a thread. Code that does not end is stopped there by an exception;
    if it does not even notice that (it sleeps, or catches everything), it is abandoned.

    The seconds are those that this process computes, so that a busy machine is not taken for an
    endless loop; for code that only waits they are six times as many of the clock's."""
    result: dict = {}

    def work():
        try:
            result["value"] = function()
        except BaseException as error:
            result["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    last_computed, last_moment = time.process_time() + seconds, time.monotonic() + 6 * seconds
    while thread.is_alive() and time.process_time() < last_computed and time.monotonic() < last_moment:
        thread.join(0.05)
    stuck = sys._current_frames().get(thread.ident) if thread.is_alive() else None
    found = []
    while stuck is not None:
        if stuck.f_code.co_filename == path:
            found = describe_line(stuck, stuck.f_lineno, lines)
            break
        stuck = stuck.f_back
    for _ in range(3):
        if not thread.is_alive():
            break
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(TookTooLong)
        )
        thread.join(1)
    if "value" in result:
        return result["value"]
    error = result.get("error")
    if error is None or isinstance(error, TookTooLong):
        return Outcome(error=TookTooLong(), stopped_at=found)
    raise error
