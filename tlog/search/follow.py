"""Following: each index is brought up to its segment, step by step, by one process of those that share the data."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Final

import orjson
from structlog.typing import FilteringBoundLogger

from tlog.config import Config
from tlog.errors import FullError, LostError, NotFoundError, UnavailableError
from tlog.files import exclusive
from tlog.room import Room
from tlog.search.indexes import Indexes
from tlog.search.terms import NO_TERMS, Terms, terms_of
from tlog.segments import Segment, Segments
from tlog.store.codec import Payload
from tlog.store.search import DamagedIndexError, Indexed, State
from tlog.store.segment import Head
from tlog.submit import read_page
from tlog_core.entry import parse_entry
from tlog_core.merkle import Hash, range_hash
from tlog_core.receipt import JSON_TYPE

STEP: Final = 512
"""How many entries one step takes in, so many bytes of payloads at most, and one run more."""

_STEP_BYTES: Final = 1 << 20
_TOGETHER: Final = 16
_LOOK_SECONDS: Final = 0.2
_REST: Final = 4
_AGAIN_SECONDS: Final = 10.0
_TICK_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How many entries of a segment are in its index, and how many it has."""

    indexed: int
    size: int


def step(indexes: Indexes, segments: Segments, name: str) -> Progress:
    """Bring the index of a segment a step further; CorruptError if what comes next in the log is damaged.

    Raises NotFoundError if there is no such index or segment, and UnavailableError if it is made anew, or retrying
    helps.
    """
    with segments.use(name) as segment, indexes.use(name) as index:
        state, head = index.state(), segment.store.head()
        _check_history(segment, state, head)
        if state.indexed == head.size:
            return Progress(head.size, head.size)
        end, entries = _read(segment, state.indexed, min(state.indexed + STEP, head.size))
        index.add(state.indexed, State(end, _root(segment, end)), entries)
        return Progress(end, head.size)


def _check_history(segment: Segment, state: State, head: Head) -> None:
    if state.indexed > head.size or _root(segment, state.indexed) != state.root:
        raise DamagedIndexError("it is of entries that the log does not have")


def _root(segment: Segment, size: int) -> Hash:
    return range_hash(0, size, segment.nodes.at(size))


def _read(segment: Segment, start: int, end: int) -> tuple[int, list[Indexed]]:
    """Return where what was read ends, and what of it can be found."""
    try:
        # What is damaged is not to be found under what it has become.
        page = read_page(segment, start, end, _STEP_BYTES)
    except LostError as error:
        return error.end, []
    return start + len(page), [_indexed(place, *one) for place, one in enumerate(page, start)]


def _indexed(place: int, entry: bytes, payload: Payload) -> Indexed:
    if place % _TOGETHER == 0:
        # Who writes to a segment lets go of the interpreter at each statement, and would else wait for it, with the
        # lock, for 5 ms each time. What lets go for less than this takes it again before another has woken up.
        time.sleep(0)
    terms = terms_in(payload)
    return Indexed(place, time_of(entry, terms), " ".join(sorted(terms.words)))


def terms_in(payload: Payload) -> Terms:
    """Return what a payload is found by."""
    return terms_of(orjson.loads(payload.data)) if payload.type == JSON_TYPE else NO_TERMS


def time_of(entry: bytes, terms: Terms) -> int:
    """Return the time of an entry in milliseconds: what its event says, or else when it was logged."""
    return parse_entry(entry).time if terms.time is None else terms.time


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the files of a segment looked like when all of it was indexed, or it failed, and until when that counts."""

    stamp: Sequence[tuple[int, int]]
    until: float = float("inf")


class Follower:
    """Follows in the one process, of those that share the data, that holds a lock."""

    def __init__(self, config: Config, segments: Segments, room: Room, log: FilteringBoundLogger) -> None:
        """Follow the segments that have an index, as long as there is room."""
        self._config = config
        self._segments = segments
        self._indexes = Indexes(config)
        self._room = room
        self._log = log
        self._seen: dict[str, _Seen] = {}
        self._databases: dict[str, Path] = {}

    def keep(self) -> None:
        """Follow from now on, in a thread that ends with the process."""
        Thread(target=self._follow, name="following", daemon=True).start()

    def _follow(self) -> None:
        with exclusive(self._config.following):
            while not self._segments.is_closed:
                began, behind = time.monotonic(), 0
                try:
                    behind = sum(self._advance(name) for name in self._indexes.followed())
                except Exception as error:  # nobody else would take it up
                    if self._segments.is_closed:
                        return
                    self._log.error("following failed", exc_info=error)
                    time.sleep(_AGAIN_SECONDS)
                if not behind:
                    # To look at many takes a while, too.
                    time.sleep(max(_LOOK_SECONDS, _REST * (time.monotonic() - began)))

    def _advance(self, name: str) -> bool:
        """Bring an index one step further if it is behind, and tell whether it still is."""
        began = time.monotonic()
        try:
            stamp, seen = self._stamp(name), self._seen.get(name)
            self._room.check()
        except (FullError, NotFoundError):
            return False
        if seen is not None and seen.stamp == stamp and began < seen.until:
            return False
        progress = self._step(name)
        if progress is None:
            self._seen[name] = _Seen(stamp, began + _AGAIN_SECONDS)
        elif progress.indexed < progress.size:
            # Writers are to have their turn, and most of the time while they are at work.
            rest = 1 if self._stamp(name)[:2] == stamp[:2] else _REST
            time.sleep(rest * (time.monotonic() - began))
            return True
        elif _is_settled(stamp):
            self._seen[name] = _Seen(stamp)
        return False

    def _step(self, name: str) -> Progress | None:
        try:
            return step(self._indexes, self._segments, name)
        except (NotFoundError, UnavailableError) as error:
            self._log.warning("not indexed", segment=name, reason=str(error))
        except Exception as error:  # one segment does not keep the others from being followed
            self._log.error("not indexed", segment=name, exc_info=error)
        return None

    def _stamp(self, name: str) -> list[tuple[int, int]]:
        """Return what changes with each commit to a segment, and when its index is made anew; NotFoundError."""
        if name not in self._databases:
            self._databases[name] = self._config.segment(self._segments.control.find(name).id)
        database = self._databases[name]
        paths = (database, database.with_name(f"{database.name}-wal"), self._indexes.path(name))
        return [_looks(path) for path in paths]


def _looks(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _is_settled(stamp: Sequence[tuple[int, int]]) -> bool:
    """Tell whether a change from now on would show: two within one tick of the file system's clock may not."""
    return time.time_ns() > max(modified for modified, _ in stamp) + _TICK_NANOSECONDS
