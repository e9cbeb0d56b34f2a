"""`control.db`: the name of the log, its segments, and who may do what in them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Self

from tlog.access.people import in_order
from tlog.access.principal import Principal
from tlog.access.rule import Grant
from tlog.access.token import Token, TokenHash
from tlog.errors import ConfigError, CorruptError, NotFoundError
from tlog.store.changes import AccessRequest, Changing, SegmentRow, WriterKeyRow
from tlog.store.connection import Connection, DatabaseError, check_writable, connect, settle, transaction
from tlog.store.schema import migrate_control
from tlog_core.errors import MalformedError
from tlog_core.note import VerifierKey
from tlog_core.writer import parse_writer_key

_FIND = "select name, id, origin, vkey, labels, created, sealed, signed from segment where name = ?"
_LIST = """
select name, id, origin, vkey, labels, created, sealed, signed from segment where name > ? order by name limit ?
"""
_FEW = 256
_TOKENS = "select id, hash, principal, groups, created, expires, last_used, revoked from token"
_KEYS_OF = "select vkey from writer_key where name = ? and removed is null order by added, vkey"
_ALL_KEYS = "select vkey, added, removed from writer_key where vkey > ? order by vkey limit ?"
_REQUESTS = """
select id, principal, segment, reason, milliseconds, requested, approver, second, until
from access_request where segment = ?
"""


class ControlStore:
    """One connection to `control.db`, shared by the threads of a process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return the store at `path`, which must have been made by `create`; DatabaseError if it was not."""
        connection = connect(path)
        settle(connection, path)
        check_writable(connection)
        return cls(connection)

    @classmethod
    def create(cls, path: Path, log_name: str | None, default_name: str) -> Self:
        """Return the store at `path`, made if need be, of the log of this name; ConfigError for another name.

        Or if the database cannot be used, as on a disk without any room.
        """
        try:
            store = cls(connect(path, create=True))
            migrate_control(store._connection)
            store._connection.execute(
                "insert into log (one, name) values (1, ?) on conflict do nothing", [log_name or default_name]
            )
        except DatabaseError as error:
            raise ConfigError(f"{path} cannot be used: {error}; is the disk full, or the file damaged?") from error
        if log_name not in (None, store.log_name()):
            raise ConfigError(
                f"this log is named {store.log_name()} for ever; leave out --log-name, or take an empty folder"
            )
        return store

    def log_name(self) -> str:
        """Return the name of the log, the first part of each origin."""
        return str(self._row("select name from log")[0])

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

    def each(self, *, after: str = "") -> Iterator[SegmentRow]:
        """Yield the segments behind `after` in the order of their names, few of them in hand at a time."""
        while rows := self.list(after=after, limit=_FEW):
            yield from rows
            after = rows[-1].name

    @contextmanager
    def holding(self) -> Iterator[Sequence[SegmentRow]]:
        """Give all segments, and let none be added meanwhile."""
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                yield [_segment(row) for row in self._connection.execute(_LIST, ["", -1])]
            finally:
                self._connection.execute("rollback")

    @contextmanager
    def changing(self) -> Iterator[Changing]:
        """Give a write transaction, which is durable when this returns, or rolled back if the block raised."""
        with self._lock, transaction(self._connection):
            yield Changing(self._connection)

    def recorded(self) -> int:
        """Return how many entries of the segment `control` are in the tables."""
        return int(self._row("select entries from recorded")[0])

    def policy(self) -> tuple[int, str]:
        """Return version and document of the policy in force; version 0, the empty one, before there was any."""
        with self._lock:
            row = self._connection.execute("select version, document from policy").fetchone()
        return (0, "") if row is None else (int(row[0]), str(row[1]))

    def issuers(self) -> str:
        """Return the document of the issuers whose tokens are taken, empty if there are none."""
        return str(self._row("select document from issuers")[0])

    def token(self, token_id: str) -> Token | None:
        """Return the token of this ID, or None."""
        with self._lock:
            row = self._connection.execute(f"{_TOKENS} where id = ?", [token_id]).fetchone()
        return None if row is None else _token(row)

    def tokens(self) -> Sequence[Token]:
        """Return all tokens, those of a principal side by side, the oldest first."""
        with self._lock:
            return [_token(row) for row in self._connection.execute(f"{_TOKENS} order by principal, created, id")]

    def holders(self, now: int) -> Sequence[Principal]:
        """Return whom tokens in use speak for, each set of groups by itself, in an order that does not change."""
        used = (one for one in self.tokens() if one.revoked is None and now < one.expires)
        return in_order(Principal(one.principal, frozenset(one.groups)) for one in used)

    def writer_keys(self, name: str) -> Sequence[VerifierKey]:
        """Return the keys by which a writer signs now, the oldest first; CorruptError."""
        with self._lock:
            rows = self._connection.execute(_KEYS_OF, [name]).fetchall()
        return [_key(vkey) for (vkey,) in rows]

    def all_writer_keys(self, *, after: str = "", limit: int = -1) -> Sequence[WriterKeyRow]:
        """Return keys by which writers sign or ever signed, those behind `after` in the order of their vkeys' bytes.

        At most `limit` come, or all for -1. Raises CorruptError.
        """
        with self._lock:
            rows = self._connection.execute(_ALL_KEYS, [after, limit]).fetchall()
        return [WriterKeyRow(_key(vkey), added, removed) for vkey, added, removed in rows]

    def access_requests(self, segment: str, limit: int) -> Sequence[AccessRequest]:
        """Return requests of access to a segment, the latest first, at most so many."""
        with self._lock:
            rows = self._connection.execute(f"{_REQUESTS} order by requested desc, id limit ?", [segment, limit])
            return [AccessRequest(*row) for row in rows]

    def access_request(self, segment: str, request_id: str) -> AccessRequest:
        """Return the request of this ID of access to a segment, and to no other; NotFoundError."""
        with self._lock:
            row = self._connection.execute(f"{_REQUESTS} and id = ?", [segment, request_id]).fetchone()
        if row is None:
            raise NotFoundError("no such access request")
        return AccessRequest(*row)

    def grants(self, now: int) -> Sequence[Grant]:
        """Return what is granted by break-glass at this time, in milliseconds."""
        with self._lock:
            rows = self._connection.execute(
                "select principal, segment, until from access_request where until > ?", [now]
            ).fetchall()
        return [Grant(*row) for row in rows]

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def _row(self, query: str) -> tuple[Any, ...]:
        with self._lock:
            row: tuple[Any, ...] = self._connection.execute(query).fetchone()
        return row


def _segment(row: tuple[str, str, str, str, str, int, int | None, int]) -> SegmentRow:
    name, segment_id, origin, vkey, labels, created, sealed, signed = row
    pairs = tuple(sorted(json.loads(labels).items()))
    return SegmentRow(name, segment_id, origin, vkey, pairs, created, sealed, bool(signed))


def _key(vkey: str) -> VerifierKey:
    try:
        return parse_writer_key(vkey)
    except MalformedError as error:
        raise CorruptError(f"a stored key of a writer: {error}") from None


def _token(row: tuple[Any, ...]) -> Token:
    token_id, digest, principal, groups, *times = row
    return Token(token_id, TokenHash(digest), principal, tuple(json.loads(groups)), *times)
