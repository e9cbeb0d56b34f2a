"""A lane: the threads that ask one witness, so that a slow one holds up nobody but itself."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Final, Generic, TypeVar

import requests

from tlog.witnesses.request import ANSWER_SECONDS
from tlog_client.transport import new_session

T = TypeVar("T")

_THREADS: Final = 4
_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Job(Generic[T]):
    work: Callable[[requests.Session], T]
    future: "Future[T]"


class Lane(Generic[T]):
    """Asks one witness, a few requests at a time, over connections that stay open."""

    def __init__(self, name: str) -> None:
        """Start the threads, which end with the process."""
        self._jobs: SimpleQueue[_Job[T]] = SimpleQueue()
        for number in range(_THREADS):
            Thread(target=self._run, name=f"witness-{name}-{number}", daemon=True).start()

    def submit(self, work: Callable[[requests.Session], T]) -> "Future[T]":
        """Have a thread do some work, and return the future of what it comes to."""
        job = _Job(work, Future())
        self._jobs.put(job)
        return job.future

    def _run(self) -> None:
        with new_session(ANSWER_SECONDS) as session:
            while True:
                job = self._jobs.get()
                if not job.future.set_running_or_notify_cancel():
                    continue
                try:
                    job.future.set_result(job.work(session))
                except Exception as error:  # whatever it is, who waits must hear of it
                    job.future.set_exception(error)


class Backoff:
    """When somebody who failed may be asked again: after a second, and twice as long after each failure in a row."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._until: dict[tuple[str, str], tuple[float, float]] = {}

    def until(self, witness: str, segment: str) -> float:
        """Return when, on the monotonic clock, a witness may be asked about a segment; 0 if it did not fail."""
        with self._lock:
            return max(self._until.get(key, (0.0, 0.0))[0] for key in ((witness, ""), (witness, segment)))

    def failed(
        self, witness: str, segment: str = "", *, first: float = _FIRST_SECONDS, longest: float = _LONGEST_SECONDS
    ) -> bool:
        """Note a failure for one segment, or for all; return whether it is the first in a row."""
        with self._lock:
            until, last = self._until.get((witness, segment), (0.0, 0.0))
            now = time.monotonic()
            # Requests that failed at the same moment are one failure.
            if until <= now:
                wait = max(first, min(longest, 2 * last))
                self._until[witness, segment] = (now + wait, wait)
            return last == 0.0

    def answered(self, witness: str, segment: str) -> None:
        """Forget the failures of a witness that cosigned."""
        with self._lock:
            self._until.pop((witness, ""), None)
            self._until.pop((witness, segment), None)
