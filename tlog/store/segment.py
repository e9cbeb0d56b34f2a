"""The database of one segment: head, entries, payloads, tiles, and the requests that had an idempotency key."""

import fcntl
import json
import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from threading import Lock
from typing import TypeVar

from tlog.config import TURNS
from tlog.errors import CorruptError, LostError, NotFoundError, UnavailableError
from tlog.store import bulletin, cosigned
from tlog.store.bulletin import BulletinRow
from tlog.store.codec import Columns, Payload, columns_of, decode_entries, decode_payloads, entry_runs, payload_runs
from tlog.store.connection import Connection, DatabaseError, connect, connect_reader, may_pass, settle, transaction
from tlog.store.cosigned import CosignedHead, Frozen, Standing, WitnessLine
from tlog.store.schema import SEGMENT_VERSION, migrate_segment
from tlog_core.merkle import HASH_BYTES, Hash
from tlog_core.tile import TILE_WIDTH, Tile

_MAX_PACKED_BYTES = 16 << 20

T = TypeVar("T")

_PUT_TILE = """
insert into tile (level, place, hashes, nodes) values (?, ?, ?, ?)
on conflict do update set hashes = excluded.hashes, nodes = excluded.nodes
where length(hashes) < length(excluded.hashes)
"""
_MOVE_HEAD = """
update head set size = ?, time = ?, root = ?, note = ?, sealed = ? where size = ? and root = ? and not sealed
and not exists (select 1 from frozen)
"""
# The first run is the last that begins at or before the start.
_ENTRY_RUNS = """
select start, count, entries from bundle
where start >= coalesce((select max(start) from bundle where start <= ?1), 0) and start < ?2 order by start
"""
_PAYLOAD_RUNS = """
select start, count, openings, payloads from payload
where start >= coalesce((select max(start) from payload where start <= ?1), 0) and start < ?2 order by start
"""
_FIND_REQUESTS = """
select key, start, count, size from request where key in (select unhex(value) from json_each(?))
"""
_ADD_REQUESTS = """
insert into request (key, start, count, size)
select unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3 from json_each(?)
"""
_FIND_EVENTS = "select key from event where key in (select unhex(value) from json_each(?))"
_TAKE_EVENTS = """
insert into event (key, time) select unhex(value), ?2 from json_each(?1) where true on conflict do nothing
"""
_FORGET_EVENTS = """
delete from event where key in (select key from event where time < ? order by time limit ?)
"""
# A writer's first sequence is 0, and each further one goes on from its last.
_TAKE_SEQUENCES = """
insert into writer (name, next)
select taken.name, taken.next from (select ? as name, ? as first, ? as next) as taken
where taken.first = coalesce((select next from writer where name = taken.name), 0)
on conflict do update set next = excluded.next
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The latest state: size, the time of the last entry in milliseconds, root, and the signed checkpoint.

    `sealed` says that the last entry seals the segment: no other comes after it.
    """

    size: int
    time: int
    root: Hash
    note: bytes
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class RequestRow:
    """Where a request with an idempotency key went: its entries, and the size of the tree it was answered from."""

    start: int
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class StoredTile:
    """A tile: 32 bytes a hash, and, if it is full, the 255 nodes above them, level by level up to its own root."""

    tile: Tile
    hashes: bytes
    nodes: bytes


class Transaction:
    """What may be read and written under the write lock. Made by `SegmentStore.write`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def head(self) -> Head:
        """Return the head; nobody can move it until this transaction ends."""
        return _head(self._connection)

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the entries of [start, end)."""
        return _entries(self._connection, start, end)

    def tile(self, tile: Tile) -> bytes:
        """Return the hashes of a stored tile."""
        return _tile(self._connection, tile)

    # Many rows by one statement: between any two, other threads of the process would have their turn, while this one
    # holds the write lock.

    def requests(self, keys: Sequence[bytes]) -> dict[bytes, RequestRow]:
        """Return where the requests of these 32-byte keys went, as far as there were any."""
        rows = self._connection.execute(_FIND_REQUESTS, [json.dumps([key.hex() for key in keys])])
        return {key: RequestRow(start, count, size) for key, start, count, size in rows}

    def add_requests(self, rows: Mapping[bytes, RequestRow]) -> None:
        """Remember where requests went."""
        values = [[key.hex(), row.start, row.count, row.size] for key, row in rows.items()]
        self._connection.execute(_ADD_REQUESTS, [json.dumps(values)])

    def take_sequences(self, writer: str, first: int, count: int) -> bool:
        """Give a writer so many sequences from `first` on; False, and nothing is given, if that is not its next."""
        taken = self._connection.execute(_TAKE_SEQUENCES, [writer, first, first + count])
        return taken.rowcount == 1

    def next_sequence(self, writer: str) -> int:
        """Return the sequence that a writer's next signed entry is to have."""
        row = self._connection.execute("select next from writer where name = ?", [writer]).fetchone()
        return 0 if row is None else int(row[0])

    def take_events(self, keys: Sequence[bytes], now: int, before: int) -> bool:
        """Remember the events of these 38-byte keys, all different; False, and none is taken, if one is known.

        Some of those from `before` that time are forgotten, in milliseconds, so that they become fewer by and by.
        """
        self._connection.execute(_FORGET_EVENTS, [before, 2 * len(keys)])
        self._connection.execute("savepoint taking")
        # In their order, so that each is put where the last one was.
        values = json.dumps([key.hex() for key in sorted(keys)])
        taken = self._connection.execute(_TAKE_EVENTS, [values, now]).rowcount == len(keys)
        if not taken:
            self._connection.execute("rollback to taking")
        self._connection.execute("release taking")
        return taken

    def append(self, start: int, entries: Sequence[bytes], payloads: Columns) -> None:
        """Store entries and payloads from index `start` on; runs that reach a multiple of 256 are packed into one."""
        packed, from_entry, from_payload = start - start % TILE_WIDTH, start, start
        if packed < start and start + len(entries) >= packed + TILE_WIDTH:
            entries, from_entry = [*self.entries(packed, start), *entries], packed
            self._connection.execute("delete from bundle where start >= ?", [packed])
            # Large payloads stay as they are: to pack them would hold the lock for a second.
            if self._payload_bytes(packed) <= _MAX_PACKED_BYTES:
                payloads = columns_of(_payloads(self._connection, packed, start)) + payloads
                from_payload = packed
                self._connection.execute("delete from payload where start >= ?", [packed])
        self._connection.executemany(
            "insert into bundle (start, count, entries) values (?, ?, ?)",
            [(run.start, run.count, run.blob) for run in entry_runs(from_entry, entries)],
        )
        self._connection.executemany(
            "insert into payload (start, count, openings, payloads) values (?, ?, ?, ?)",
            [(run.start, run.count, run.openings, run.blob) for run in payload_runs(from_payload, payloads)],
        )

    def _payload_bytes(self, start: int) -> int:
        query = "select sum(length(payloads)) from payload where start >= ?"
        return int(self._connection.execute(query, [start]).fetchone()[0])

    def standing(self) -> Standing:
        """Return what witnesses said that a write must know."""
        return cosigned.standing(self._connection)

    def put_cosignature(self, row: WitnessLine) -> bool:
        """Store a cosignature in the place of an earlier one by its witness; False if it is not later."""
        return cosigned.put_cosignature(self._connection, row)

    def put_cosigned(self, head: CosignedHead, *, afresh: bool) -> bool:
        """Store a head that the quorum cosigned in the place of an earlier one; False if it is not later.

        If it is the first of this quorum, `afresh`, it need not be later than the same head of another.
        """
        return cosigned.put_cosigned(self._connection, head, afresh=afresh)

    def put_bulletin(self, row: BulletinRow, *, latest: int) -> bool:
        """Store a bulletin in the place of an earlier one by its key; see `tlog.store.bulletin`."""
        return bulletin.put_bulletin(self._connection, row, latest=latest)

    def freeze(self, frozen: Frozen, *, behind: bool) -> bool:
        """Freeze the segment; False if it is frozen. If for being `behind`, only if its head is smaller than that."""
        return cosigned.freeze(self._connection, frozen, behind=behind)

    def mark_anchored(self) -> None:
        """Note that the segment has an anchor."""
        self._connection.execute("update head set anchored = 1")

    def frozen(self) -> Frozen | None:
        """Return why the segment is frozen, if it is."""
        return cosigned.frozen(self._connection)

    def unfreeze(self) -> None:
        """Let the segment take entries again."""
        cosigned.unfreeze(self._connection)

    def put_tiles(self, tiles: Sequence[StoredTile]) -> None:
        """Store tiles, each in the place of its narrower self."""
        self._connection.executemany(
            _PUT_TILE, [(one.tile.level, one.tile.index, one.hashes, one.nodes) for one in tiles]
        )

    def move_head(self, old: Head, new: Head) -> None:
        """Replace the head; raise CorruptError if it is another, sealed or frozen, which the lock rules out."""
        moved = self._connection.execute(
            _MOVE_HEAD,
            [new.size, new.time, new.root, new.note, new.sealed, old.size, old.root],
        )
        if moved.rowcount != 1:
            raise CorruptError("the head moved under the write lock")


class SegmentStore:
    """One segment's database: one connection that writes, and as many that read as there are readers at once."""

    def __init__(self, path: Path) -> None:
        """Open the database, brought to the present schema; DatabaseError if there is none, ConfigError if later."""
        self._path = path
        self._readers: deque[Connection] = deque()
        # The file lock is the process's, not the thread's: those who append and those who ask witnesses both write.
        self._writing = Lock()
        self._lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with self._locked():
                self._writer = self._connect()
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def create(cls, path: Path, head: Head) -> None:
        """Make the database of a segment without entries, which has an anchor, durable when this returns."""
        connection = connect(path, create=True)
        try:
            # All at once, or each migration would be synced by itself.
            with transaction(connection):
                migrate_segment(connection)
                connection.execute(
                    "insert into head (one, size, time, root, note, anchored) values (1, ?, ?, ?, ?, 1)",
                    [head.size, head.time, head.root, head.note],
                )
        finally:
            connection.close()

    def _connect(self) -> Connection:
        connection = connect(self._path)
        try:
            settle(connection, self._path)
            if connection.execute("pragma user_version").fetchone()[0] != SEGMENT_VERSION:
                migrate_segment(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Run a write transaction, which is durable when this returns, or rolled back if the block raised.

        One process at a time: the file lock queues where SQLite would poll. If the commit itself fails its outcome is
        unknown: DatabaseError, and the store is to be closed and opened anew.
        """
        with self._writing, self._locked():
            self._writer.execute("begin immediate")
            try:
                yield Transaction(self._writer)
            except BaseException:
                with suppress(DatabaseError):
                    self._writer.execute("rollback")
                raise
            self._writer.execute("commit")

    def stored_bytes(self) -> int:
        """Return how large the database is on disk, without what is still in its write-ahead log."""
        return self._path.stat().st_size

    def head(self) -> Head:
        """Return the head as it is now."""
        with self._reading() as connection:
            return _head(connection)

    def is_anchored(self) -> bool:
        """Say whether the segment has an anchor, as all but those from before there were any have."""
        with self._reading() as connection:
            return bool(connection.execute("select anchored from head").fetchone()[0])

    def head_with_cosignatures(self) -> tuple[Head, bytes]:
        """Return the head as it is now, and the signature lines of the cosignatures that there are of exactly this."""
        with self._reading() as connection:
            head = _head(connection)
            return head, cosigned.lines_of(connection, head.size, head.root)

    def cosignatures(self) -> list[WitnessLine]:
        """Return the latest cosignature of each witness, in the order of their keys."""
        with self._reading() as connection:
            return cosigned.cosignatures(connection)

    def cosigned(self) -> CosignedHead | None:
        """Return the newest head that a quorum cosigned, if there is one."""
        with self._reading() as connection:
            return cosigned.cosigned(connection)

    def frozen(self) -> Frozen | None:
        """Return why the segment is frozen, if it is."""
        with self._reading() as connection:
            return cosigned.frozen(connection)

    def bulletins(self) -> list[BulletinRow]:
        """Return the latest bulletin of each monitor, in the order of their keys."""
        with self._reading() as connection:
            return bulletin.bulletins(connection)

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the entries of [start, end), which must be below the head; CorruptError if one is missing."""
        with self._reading() as connection:
            return _entries(connection, start, end)

    def known_events(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return those of the 38-byte keys whose events are remembered."""
        with self._reading() as connection:
            rows = connection.execute(_FIND_EVENTS, [json.dumps([key.hex() for key in keys])])
            return {bytes(key) for (key,) in rows}

    def packed_bundle(self, index: int) -> bytes:
        """Return the full entry bundle at `index` as its zstd frame; NotFoundError if it is not full."""
        with self._reading() as connection:
            row = connection.execute(
                "select entries from bundle where start = ? and count = ?", [index * TILE_WIDTH, TILE_WIDTH]
            ).fetchone()
        if row is None:
            raise NotFoundError("no such entry bundle")
        return bytes(row[0])

    def payloads(self, start: int, end: int) -> list[Payload]:
        """Return the payloads of [start, end), which must be below the head; CorruptError if one is missing."""
        with self._reading() as connection:
            return _payloads(connection, start, end)

    def payload_page(self, start: int, end: int, most: int) -> list[Payload]:
        """Return the payloads of [start, end), or the first of them that come to `most` bytes; otherwise as above.

        They end before one that is lost; LostError if that is the first.
        """
        runs: list[tuple[int, list[Payload]]] = []
        stop, total = end, 0
        # Closed before the connection goes back, or its next reader would see the snapshot of this one.
        with self._reading() as connection, closing(_payload_runs(connection, start, end)) as found:
            for first, run in found:
                runs.append((first, run))
                total += sum(len(payload.data) for payload in run)
                if total >= most:
                    stop = min(end, first + len(run))
                    break
        found_here = _between(start, stop, iter(runs))
        kept = list(takewhile(lambda payload: not payload.is_lost, found_here))
        if found_here and not kept:
            lost = len(list(takewhile(lambda payload: payload.is_lost, found_here)))
            raise LostError(start, start + lost)
        return kept

    def tile(self, tile: Tile) -> bytes:
        """Return the hashes of a stored tile: a full one, or one above level 0; CorruptError if it is missing."""
        with self._reading() as connection:
            return _tile(connection, tile)

    def has_tile(self, tile: Tile) -> bool:
        """Say whether a tile, or a wider one in its place, is stored."""
        with self._reading() as connection:
            row = connection.execute(
                "select 1 from tile where level = ? and place = ?", [tile.level, tile.index]
            ).fetchone()
        return row is not None

    def full_tile(self, tile: Tile) -> StoredTile:
        """Return a full tile with the nodes above its hashes; CorruptError if it is missing, or not whole."""
        with self._reading() as connection:
            row = connection.execute(
                "select hashes, nodes from tile where level = ? and place = ?", [tile.level, tile.index]
            ).fetchone()
        if row is None or [len(blob) for blob in row] != [TILE_WIDTH * HASH_BYTES, (TILE_WIDTH - 1) * HASH_BYTES]:
            raise CorruptError(f"{tile} is missing from the store")
        return StoredTile(tile, *row)

    def close(self) -> None:
        """Close every connection; nobody may be using the store."""
        self._writer.close()
        while self._readers:
            self._readers.pop().close()
        os.close(self._lock)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = connect_reader(self._path)
            try:
                yield connection
            finally:
                # Opening one costs more than most of what is read by it.
                if len(self._readers) < TURNS:
                    self._readers.append(connection)
                else:
                    connection.close()
        except DatabaseError as error:
            if may_pass(error):
                raise UnavailableError(f"the database cannot be read now: {error}; retry") from error
            raise CorruptError(f"the database is damaged: {error}; run tlog fsck") from error


def is_sealed(path: Path) -> bool:
    """Say whether the head in a database is sealed, without opening all of it; DatabaseError, CorruptError."""
    with closing(connect_reader(path)) as connection:
        return _head(connection).sealed


def _head(connection: Connection) -> Head:
    row = connection.execute("select size, time, root, note, sealed from head").fetchone()
    if row is None:
        raise CorruptError("the segment has no head")
    size, time, root, note, sealed = row
    return Head(size, time, Hash(root), note, bool(sealed))


def _entries(connection: Connection, start: int, end: int) -> list[bytes]:
    rows = connection.execute(_ENTRY_RUNS, [start, end])
    return _between(
        start,
        end,
        ((first, decode_entries(blob, count)) for first, count, blob in rows if first + count > start),
    )


def _payloads(connection: Connection, start: int, end: int) -> list[Payload]:
    return _between(start, end, _payload_runs(connection, start, end))


def _payload_runs(connection: Connection, start: int, end: int) -> Generator[tuple[int, list[Payload]], None, None]:
    rows = connection.execute(_PAYLOAD_RUNS, [start, end])
    return ((first, decode_payloads(blob, openings)) for first, count, openings, blob in rows if first + count > start)


def _between(start: int, end: int, runs: Iterator[tuple[int, list[T]]]) -> list[T]:
    found: list[T] = []
    for first, items in runs:
        if first > start + len(found):
            break
        found += items[start + len(found) - first : end - first]
    if len(found) != end - start:
        raise CorruptError(f"entry {start + len(found)} is missing from the store")
    return found


def _tile(connection: Connection, tile: Tile) -> bytes:
    row = connection.execute(
        "select hashes from tile where level = ? and place = ?", [tile.level, tile.index]
    ).fetchone()
    hashes = bytes(row[0][: tile.width * HASH_BYTES]) if row else b""
    if len(hashes) != tile.width * HASH_BYTES:
        raise CorruptError(f"{tile} is missing from the store")
    return hashes
