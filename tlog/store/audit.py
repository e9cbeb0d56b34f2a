"""What `tlog fsck` reads of a database: rows as they are stored, each by one short statement, and nothing is written.

The full tiles of a segment and what is under them never change; a server may move the rest on between two statements.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import starmap
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Final

from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # pysqlite3 where there is one

from tlog.errors import CorruptError, UnavailableError
from tlog.store import bulletin, cosigned
from tlog.store.bulletin import BulletinRow
from tlog.store.changes import Changing
from tlog.store.codec import Run
from tlog.store.connection import Connection, DatabaseError, connect_reader, may_pass
from tlog.store.cosigned import CosignedHead, Frozen, WitnessLine
from tlog.store.ordered import in_order
from tlog.store.schema import SEGMENT_VERSION, migrate_control, migrate_segment
from tlog.store.segment import Head
from tlog_core.merkle import Hash

_BUNDLE: Final = "select start, count, entries, x'' from bundle where start <= ? order by start desc limit 1"
_PAYLOAD: Final = "select start, count, payloads, openings from payload where start <= ? order by start desc limit 1"
_TILE: Final = "select hashes, nodes from tile where level = ? and place = ?"
_REQUESTS: Final = "select start, key, count, size from request where start >= ?"
# Their order as bytes is that of their entries.
_REQUEST: Final = struct.Struct(">q32sqq")
_RUNS: Final = """
select '{0} at ' || start, case when start <> due then 'it is to begin at ' || due
    else 'it goes beyond a multiple of 256' end
from (select start, count, lag(start + count, 1, 0) over (order by start) as due from {0})
where start <> due or start / 256 <> (start + count - 1) / 256
union all select '{0} at ' || start, 'it is the last and ends at ' || (start + count) || ', and the head at ' || size
from {0}, head where start = (select max(start) from {0}) and start + count <> size
union all select '{0} at 0', 'there is none, and the head has size ' || size
from head where size > 0 and not exists (select 1 from {0})
"""
# A tile is as wide as the head says, and none is stored at level 0 that is not full.
_TILES: Final = """
select 'tile/' || level || ' at ' || place, 'it is not of the width that the head says' from
(select *, max(0, min(256, (size >> (8 * level)) - 256 * place)) as width from tile, head)
where place < 0 or level not between 0 and 7 or width = 0 or (level = 0 and width < 256)
or length(hashes) <> 32 * width or length(nodes) <> iif(width = 256, 255 * 32, 0)
"""
_BEYOND: Final = """
select 'request ' || lower(hex(key)), 'it is of entries or of a size that the head does not have' from request, head
where start < 0 or request.count < 1 or start + request.count > request.size or request.size > head.size
"""
_STRAYS: Final = (_RUNS.format("bundle"), _RUNS.format("payload"), _TILES, _BEYOND)
_OURS: Final = """
from sqlite_schema as one, pragma_table_xinfo(one.name) as column
where one.type = 'table' and one.name not like '%sqlite_%'
"""
_COLUMNS: Final = f'select one.name, column.name, column.type, column."notnull", column.pk {_OURS}'
_KEYED: Final = f"select one.name, column.name {_OURS} and column.pk = 1"
_INDEXES: Final = "select tbl_name, name from sqlite_schema where type = 'index' and sql is not null"
_MIGRATIONS: Final = "select name from _sqlite_migrations where migration_set = ? order by name"

Row = Mapping[str, Any]
"""A row, by the names of its columns."""


@dataclass(frozen=True, slots=True)
class Request:
    """Where a request with an idempotency key went, as in `RequestRow`, and the hash that stands for the key."""

    key: bytes
    start: int
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a segment says of itself at one moment; `sequences` are those that its writers are to go on with."""

    head: Head
    lines: Sequence[WitnessLine]
    cosigned: CosignedHead | None
    frozen: Frozen | None
    bulletins: Sequence[BulletinRow]
    sequences: Mapping[str, int]


class Audit:
    """One connection that reads the database of a segment. CorruptError, UnavailableError from each method."""

    def __init__(self, path: Path) -> None:
        """Open the database, whose schema must be the present one."""
        with _named():
            self._connection = _connect(path)

    def snapshot(self) -> Snapshot:
        """Return what the segment says of itself."""
        with _named(), _at_once(self._connection) as connection:
            row = connection.execute("select size, time, root, note, sealed from head").fetchone()
            if row is None:
                raise CorruptError("the segment has no head")
            return Snapshot(
                Head(row[0], row[1], Hash(row[2]), row[3], bool(row[4])),
                cosigned.cosignatures(connection),
                cosigned.cosigned(connection),
                cosigned.frozen(connection),
                bulletin.bulletins(connection),
                dict(connection.execute("select name, next from writer").fetchall()),
            )

    def bundle(self, index: int) -> Run | None:
        """Return the run of entries that begins at `index`, or before it as the last; None if there is none."""
        return self._run(_BUNDLE, index)

    def payload(self, index: int) -> Run | None:
        """Return the run of payloads that begins at `index`, or before it as the last; None if there is none."""
        return self._run(_PAYLOAD, index)

    def tile(self, level: int, place: int) -> tuple[bytes, bytes] | None:
        """Return hashes and nodes of a tile as they are stored, None if there is none."""
        row: tuple[bytes, bytes] | None = self._row(_TILE, level, place)
        return row

    def end(self) -> int:
        """Return where the last run of entries ends, 0 if there is none."""
        return int(self._row("select coalesce(max(start + count), 0) from bundle")[0])

    def requests(self, start: int) -> Iterator[Request]:
        """Yield the requests whose entries begin at `start` or behind it, in their order.

        They are stored by their keys, so that all are read at the first, once: there may be as many as entries.
        """
        try:
            with _named():
                rows = starmap(_REQUEST.pack, self._connection.execute(_REQUESTS, [start]))
                for first, key, count, size in map(_REQUEST.unpack, in_order(rows, _REQUEST.size)):
                    yield Request(key, first, count, size)
        except struct.error:
            raise CorruptError("the database is damaged: a request is no such thing") from None
        except OSError as error:
            raise UnavailableError(f"no file can be made in {gettempdir()}: {error}; set TMPDIR to another") from error

    def strays(self) -> Iterator[tuple[str, str]]:
        """Yield place and text of each row that leaves a gap, overlaps another, or is not below the head."""
        for statement in _STRAYS:
            with _named():
                yield from self._connection.execute(statement).fetchall()

    def damage(self) -> list[str]:
        """Return what SQLite itself finds wrong with the file; it sees no flipped bit within a blob."""
        with _named():
            return _damage(self._connection)

    def schema_faults(self) -> Iterator[str]:
        """Yield what is other than in a database that is made now."""
        with _named():
            yield from _schema_faults(self._connection, "segment", migrate_segment, SEGMENT_VERSION)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _run(self, query: str, index: int) -> Run | None:
        row = self._row(query, index)
        return None if row is None else Run(*row)

    def _row(self, query: str, *values: int) -> Any:
        with _named():
            return self._connection.execute(query, values).fetchone()


class ControlAudit:
    """One connection that reads `control.db`. CorruptError, UnavailableError from each method."""

    def __init__(self, path: Path) -> None:
        """Open the database."""
        with _named():
            self._connection = _connect(path)

    def tables(self) -> Mapping[str, Mapping[str, Row]]:
        """Return each table, its rows by their primary keys, all as of one moment."""
        with _named(), _at_once(self._connection) as connection:
            return _tables(connection)

    def keys_ever(self, writer: str) -> list[str]:
        """Return the vkeys by which a writer signs or ever signed."""
        with _named():
            rows = self._connection.execute("select vkey from writer_key where name = ?", [writer])
            return [vkey for (vkey,) in rows]

    def faults(self) -> Iterator[str]:
        """Yield what SQLite finds wrong with the file, and what is other than in a database that is made now."""
        with _named():
            yield from _damage(self._connection)
            yield from _schema_faults(self._connection, "control", migrate_control, 0)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Projection:
    """What `control.db` should be: a database in memory, to which changes are made anew."""

    def __init__(self, log_name: str) -> None:
        """Begin with the log of this name, of which nothing is on record."""
        self._connection = _fresh(migrate_control)
        self._connection.execute("insert into log (one, name) values (1, ?)", [log_name])
        self.changing = Changing(self._connection)

    def tables(self) -> Mapping[str, Mapping[str, Row]]:
        """Return the tables as `ControlAudit` does."""
        return _tables(self._connection)


def _connect(path: Path) -> Connection:
    connection = connect_reader(path)
    # Text that is damaged is to be compared, too.
    connection.text_factory = lambda raw: raw.decode(errors="backslashreplace")
    return connection


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        if may_pass(error):
            raise UnavailableError(f"the database cannot be read now: {error}; retry") from error
        raise CorruptError(f"the database is damaged: {error}") from error


@contextmanager
def _at_once(connection: Connection) -> Iterator[Connection]:
    connection.execute("begin")
    try:
        yield connection
    finally:
        connection.execute("rollback")


def _damage(connection: Connection) -> list[str]:
    answers = [str(row[0]) for row in connection.execute("pragma integrity_check")]
    lines = [line for answer in answers for line in answer.splitlines() if not line.startswith("***")]
    return [] if lines == ["ok"] else lines


def _fresh(migrate: Callable[[Connection], None]) -> Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    return connection


def _schema_faults(
    connection: Connection, migrations: str, migrate: Callable[[Connection], None], version: int
) -> Iterator[str]:
    for stored, due in zip(_schema(connection, migrations), _due_schema(migrations, migrate), strict=True):
        for row in sorted(stored ^ due, key=str):
            yield f"{' '.join(map(str, row[:2]))} is {'not to be there' if row in stored else 'missing or another'}"
    if connection.execute("pragma user_version").fetchone()[0] != version:
        yield "user_version is another"


# The same for every segment, and it takes longer to make than to compare.
@lru_cache(maxsize=2)
def _due_schema(migrations: str, migrate: Callable[[Connection], None]) -> list[set[tuple[Any, ...]]]:
    with closing(_fresh(migrate)) as connection:
        return _schema(connection, migrations)


def _schema(connection: Connection, migrations: str) -> list[set[tuple[Any, ...]]]:
    queries: list[tuple[str, list[str]]] = [(_COLUMNS, []), (_INDEXES, []), (_MIGRATIONS, [migrations])]
    return [set(connection.execute(query, values).fetchall()) for query, values in queries]


def _tables(connection: Connection) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for table, key in connection.execute(_KEYED).fetchall():
        rows = connection.execute(f"select * from {table}")  # noqa: S608 - a table of ours
        names = [column[0] for column in rows.description]
        values = [dict(zip(names, row, strict=True)) for row in rows]
        found[table] = {str(one[key]): one for one in values}
    return found
