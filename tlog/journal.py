"""What was answered: a request notes it in a moment, and a thread logs and counts it.

To write a line takes a system call, and each one lets another thread of the process have the interpreter: it would cost
the request more than all the rest of it. So lines wait up to `_SECONDS`, which is what a crash can lose of them.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from threading import Lock, Thread, main_thread
from typing import Final

import msgspec

from tlog.metrics import Metrics

_SECONDS: Final = 0.1


class Answered(msgspec.Struct, frozen=True):
    """One request and its answer; `at` is when, in seconds since the epoch."""

    at: float
    method: str
    route: str
    segment: str | None
    status: int
    seconds: float
    request_id: str


class _Line(msgspec.Struct, frozen=True):
    method: str
    route: str
    segment: str | None
    status: int
    milliseconds: float
    request_id: str
    timestamp: str
    event: str = "request"
    level: str = "info"


class Journal:
    """The request log and the request counters of one process. Threads share it."""

    def __init__(self, write: Callable[[bytes], None], metrics: Metrics) -> None:
        """Take who writes lines, each ended by a newline, and the counters."""
        self._write = write
        self._metrics = metrics
        self._noted: deque[Answered] = deque()
        self._lock = Lock()
        self.note = self._noted.append

    def keep(self) -> None:
        """Write up what is noted from now on, in a thread that ends after the process's main one: nothing is left."""

        def loop() -> None:
            while main_thread().is_alive():
                time.sleep(_SECONDS)
                # What cannot be counted now, as on a disk that is full, is lost; what comes after it is not.
                with suppress(OSError):
                    self.write_up()

        Thread(target=loop, name="journal").start()

    def write_up(self) -> None:
        """Log and count what is noted by now."""
        with self._lock:
            self._metrics.settle()
            noted = [self._noted.popleft() for _ in range(len(self._noted))]
            for one in noted:
                self._metrics.answered(one.method, one.route, one.status, one.seconds)
            if noted:
                self._write(b"".join(map(_line, noted)))


def _line(one: Answered) -> bytes:
    line = _Line(
        method=one.method,
        route=one.route,
        segment=one.segment,
        status=one.status,
        milliseconds=round(one.seconds * 1000, 3),
        request_id=one.request_id,
        timestamp=datetime.fromtimestamp(one.at, UTC).isoformat().replace("+00:00", "Z"),
    )
    return msgspec.json.encode(line) + b"\n"
