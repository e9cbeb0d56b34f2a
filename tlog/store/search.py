"""The index of one segment: which entries have which words, and when they were. It can be made again from the log."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # pysqlite3 where there is one

from tlog.errors import UnavailableError
from tlog.store.connection import Connection, DatabaseError, may_pass, transaction
from tlog_core.encoding import MAX_INTEGER
from tlog_core.merkle import EMPTY_ROOT, Hash

MOST_LOOKED_AT: Final = 20_000
"""How many entries that have the words are looked at for their time: what bounds the time that a page takes."""

_BLOCK: Final = 1_024

# Consistent after a loss of power, with few syncs: WAL, NORMAL.
_SETTINGS: Final = {
    "busy_timeout": 30_000,
    "journal_mode": "wal",
    "synchronous": 1,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "mmap_size": 0,
    "journal_size_limit": 32 << 20,
}
# Each word is given as it is to be found: that of the letters a to z in lower case, runs of letters, digits, _ and =.
_SCHEMA: Final = (
    """
    create table state (
        one integer primary key check (one = 1), version text not null, indexed integer not null, root blob not null
    ) strict
    """,
    "create table moment (place integer primary key, time integer not null) strict",
    # Between which times entries are, 1,024 of them at a time.
    "create table block (number integer primary key, least integer not null, most integer not null) strict",
    """
    create virtual table word using fts5 (
        words, content = '', columnsize = 0, detail = none, tokenize = "ascii tokenchars '_='"
    )
    """,
)
_ADD_BLOCK: Final = """
insert into block (number, least, most) values (?1 / 1024, ?2, ?2)
on conflict do update set least = min(least, excluded.least), most = max(most, excluded.most)
"""
_BLOCKS: Final = "select min(number), max(number) from block where most >= ? and least < ?"
_WITH_WORDS: Final = """
select word.rowid, moment.time from word cross join moment on moment.place = word.rowid
where word match ? and word.rowid >= ? and word.rowid < ? order by word.rowid desc
"""
_ALL: Final = "select place, time from moment where place >= ? and place < ? order by place desc"


class DamagedIndexError(Exception):
    """The index is damaged, or not of this version: it is to be made again. Never leaves `tlog.search`."""


@dataclass(frozen=True, slots=True)
class State:
    """How many entries of the log are in the index, and the root of the tree of just these."""

    indexed: int
    root: Hash


@dataclass(frozen=True, slots=True)
class Indexed:
    """An entry: its index, its time in milliseconds, and its words with a space between them."""

    place: int
    time: int
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Indexes of [start, before), and times of [since, until)."""

    start: int = 0
    before: int = MAX_INTEGER
    since: int = -MAX_INTEGER
    until: int = MAX_INTEGER


@dataclass(frozen=True, slots=True)
class Page:
    """The indexes found, the latest first; below `next` there may be more, unless that is None."""

    places: Sequence[int]
    next: int | None
    indexed: int


class Index:
    """One connection to an index. DamagedIndexError, UnavailableError from each method."""

    def __init__(self, path: Path, version: str) -> None:
        """Open an index that `create` made, by code of the same version."""
        with _named():
            self._connection = _connect(path)
            try:
                if self._row("select version from state") != (version,):
                    raise DamagedIndexError("it was made by another version")
            except BaseException:
                self._connection.close()
                raise

    @classmethod
    def create(cls, path: Path, version: str) -> None:
        """Make an index without entries, readable by its owner only."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with _named(), closing(_connect(path)) as connection, transaction(connection):
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("insert into state values (1, ?, 0, ?)", [version, EMPTY_ROOT])

    def state(self) -> State:
        """Return how far the index has come."""
        with _named():
            indexed, root = self._row("select indexed, root from state")
            return State(indexed, Hash(root))

    def add(self, start: int, new: State, entries: Sequence[Indexed]) -> None:
        """Add the entries of [start, new.indexed), as far as they can be found; nothing if another has done it."""
        with _named(), transaction(self._connection):
            moved = self._connection.execute(
                "update state set indexed = ?, root = ? where indexed = ?", [new.indexed, new.root, start]
            )
            if moved.rowcount != 1:
                return
            self._many("insert into moment (place, time) values (?, ?)", [(one.place, one.time) for one in entries])
            self._many(_ADD_BLOCK, [(one.place, one.time) for one in entries])
            self._many("insert into word (rowid, words) values (?, ?)", [(one.place, one.words) for one in entries])

    def find(self, words: Sequence[tuple[str, bool]], span: Span, limit: int) -> Page:
        """Return the latest `limit` entries of a span that have all the words, each whole, or begun by one if True."""
        with _named():
            self._connection.execute("begin")
            try:
                return self._find(words, span, limit)
            finally:
                self._connection.execute("rollback")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _find(self, words: Sequence[tuple[str, bool]], span: Span, limit: int) -> Page:
        indexed = self.state().indexed
        start, before = self._bounds(span)
        match = [" AND ".join(f'"{word}"{" *" if is_prefix else ""}' for word, is_prefix in words)] if words else []
        rows = self._connection.execute(_WITH_WORDS if words else _ALL, [*match, start, before])
        found: list[int] = []
        last = before
        for looked_at, (place, time) in enumerate(rows):
            if len(found) == limit or looked_at == MOST_LOOKED_AT:
                return Page(found, last, indexed)
            last = place
            if span.since <= time < span.until:
                found.append(place)
        return Page(found, None, indexed)

    def _bounds(self, span: Span) -> tuple[int, int]:
        """Return between which indexes there can be entries of a span."""
        least, most = self._row(_BLOCKS, span.since, span.until)
        if least is None:
            return 0, 0
        return max(span.start, least * _BLOCK), min(span.before, (most + 1) * _BLOCK)

    def _many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        self._connection.executemany(statement, rows)

    def _row(self, query: str, *values: int) -> Any:
        row = self._connection.execute(query, values).fetchone()
        if row is None:
            raise DamagedIndexError("it does not say how far it has come")
        return row


def _connect(path: Path) -> Connection:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False)
    try:
        for name, value in _SETTINGS.items():
            connection.execute(f"pragma {name} = {value}").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        if may_pass(error):
            raise UnavailableError(f"the index of the segment cannot be read now: {error}; retry") from error
        raise DamagedIndexError(str(error)) from error
