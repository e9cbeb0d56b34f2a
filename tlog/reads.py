"""Reads of payloads, each on record in the segment `access` before anything is read (spec/access.md, "On the record").

Whoever finds nobody writing writes for all that wait: one entry, however many reads there are at a time.
"""

from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import Any

import msgspec

from tlog.access.action import ACCESS
from tlog.segments import Segments
from tlog.submit import append, commit_to
from tlog_core.encoding import canonicalize
from tlog_core.receipt import JSON_TYPE

_WRITER = "tlog/access"


class Read(msgspec.Struct, frozen=True):
    """Who reads the payloads of [start, end), at which time in milliseconds, by the policy of which version."""

    by: str
    segment: str
    start: int
    end: int
    at: int
    policy: int


class Search(msgspec.Struct, frozen=True):
    """Who searches a segment for what, its parameters as they were given, and the indexes of what is shown."""

    by: str
    segment: str
    search: dict[str, str]
    indexes: list[int]
    at: int
    policy: int


class _Reads(msgspec.Struct, frozen=True, tag_field="event", tag="payload.read"):
    # Reads and searches: msgspec, which only writes them, cannot read one or the other.
    reads: list[Any]


@dataclass(slots=True)
class _Waiting:
    read: Read | Search
    done: bool = False
    error: Exception | None = None


class Reads:
    """The record of reads, for the threads of one process."""

    def __init__(self, segments: Segments) -> None:
        """Record in the segment `access` of these."""
        self._segments = segments
        self._waiting: deque[_Waiting] = deque()
        self._turn = Lock()

    def record(self, read: Read | Search) -> None:
        """Return once a read is durably on record; raise what kept it from being so: then nothing may be read."""
        waiting = _Waiting(read)
        self._waiting.append(waiting)
        with self._turn:
            # Whoever had the turn before may have done it.
            if not waiting.done:
                self._write([self._waiting.popleft() for _ in range(len(self._waiting))])
        if waiting.error is not None:
            raise waiting.error

    def _write(self, group: list[_Waiting]) -> None:
        error: Exception | None = None
        try:
            payload = canonicalize(msgspec.json.encode(_Reads([waiting.read for waiting in group])))
            with self._segments.use(ACCESS) as segment:
                append(segment, commit_to(writer=_WRITER, kind=JSON_TYPE, payloads=[payload]))
        except Exception as found:
            error = found
        for waiting in group:
            waiting.done, waiting.error = True, error
