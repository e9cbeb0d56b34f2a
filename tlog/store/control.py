"""`control.db`: the name of the log, and its segments."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Self

from tlog.errors import ConfigError, ConflictError, NotFoundError
from tlog.store.connection import Connection, connect
from tlog.store.schema import migrate_control

_FIND = "select name, id, origin, vkey, labels, created from segment where name = ?"
_LIST = "select name, id, origin, vkey, labels, created from segment where name > ? order by name limit ?"
_ADD = "insert into segment (name, id, origin, vkey, labels, created) values (?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """One segment: its name, the random ID that names its files, its origin, key, labels, and birth in milliseconds."""

    name: str
    id: str
    origin: str
    vkey: str
    labels: tuple[tuple[str, str], ...]
    created: int


class ControlStore:
    """One connection to `control.db`, shared by the threads of a process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return the store at `path`, which must have been made by `create`; DatabaseError if it was not."""
        return cls(connect(path))

    @classmethod
    def create(cls, path: Path, log_name: str | None, default_name: str) -> Self:
        """Return the store at `path`, made if need be, of the log of this name; ConfigError for another name."""
        store = cls(connect(path, create=True))
        migrate_control(store._connection)
        store._connection.execute(
            "insert into log (one, name) values (1, ?) on conflict do nothing", [log_name or default_name]
        )
        if log_name not in (None, store.log_name()):
            raise ConfigError(
                f"this log is named {store.log_name()} for ever; leave out --log-name, or take an empty folder"
            )
        return store

    def log_name(self) -> str:
        """Return the name of the log, the first part of each origin."""
        with self._lock:
            row = self._connection.execute("select name from log").fetchone()
        return str(row[0])

    def find(self, name: str) -> SegmentRow:
        """Return the segment of this name, or raise NotFoundError."""
        with self._lock:
            row = self._connection.execute(_FIND, [name]).fetchone()
        if row is None:
            raise NotFoundError("no such segment")
        return _segment(row)

    def list(self, *, after: str = "", limit: int = -1) -> list[SegmentRow]:
        """Return the segments behind `after` in the order of their names, at most `limit`, or all for -1."""
        with self._lock:
            rows = self._connection.execute(_LIST, [after, limit]).fetchall()
        return [_segment(row) for row in rows]

    @contextmanager
    def holding(self) -> Iterator[Sequence[SegmentRow]]:
        """Give all segments, and let none be added meanwhile."""
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                yield [_segment(row) for row in self._connection.execute(_LIST, ["", -1])]
            finally:
                self._connection.execute("rollback")

    def add(self, segment: SegmentRow, prepare: Callable[[], None]) -> tuple[SegmentRow, bool]:
        """Return the segment of this name, and whether it was added now: `prepare` makes its files before it shows.

        Raises ConflictError if it exists with other labels.
        """
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                row = self._connection.execute(_FIND, [segment.name]).fetchone()
                if row is None:
                    prepare()
                    self._insert(segment)
                self._connection.execute("commit")
            except BaseException:
                self._connection.execute("rollback")
                raise
        if row is not None and _segment(row).labels != segment.labels:
            raise ConflictError("a segment of this name exists with other labels; choose another name")
        return (segment, True) if row is None else (_segment(row), False)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def _insert(self, segment: SegmentRow) -> None:
        self._connection.execute(
            _ADD,
            [
                segment.name,
                segment.id,
                segment.origin,
                segment.vkey,
                json.dumps(dict(segment.labels)),
                segment.created,
            ],
        )


def _segment(row: tuple[str, str, str, str, str, int]) -> SegmentRow:
    name, segment_id, origin, vkey, labels, created = row
    return SegmentRow(name, segment_id, origin, vkey, tuple(sorted(json.loads(labels).items())), created)
