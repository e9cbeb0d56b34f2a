"""The memory of a monitor: one SQLite file, in which everything only ever moves forward (`spec/monitoring.md`).

All that is here was verified before it was stored. One connection serves all threads of one process; what cannot be
stored stops the monitor, since a monitor that forgets is none.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, Final

from tlog_client.errors import StateError
from tlog_client.monitor.finding import Class, Finding, State
from tlog_client.monitor.mirror import frontier_of, grown_tiles, node_reader
from tlog_core.merkle import Growth, Hash, NodeReader

IN_MEMORY: Final = ":memory:"
FILE: Final = "memory.db"

MAX_REPORTED: Final = 16
"""How many violations of one kind are reported of one log; the others are only counted."""

MAX_KEPT: Final = 10_000
"""How many complaints are kept until they are delivered; evidence and violations are kept in any case."""

_VERSION: Final = 1
_SETTINGS: Final = {
    "synchronous": 2,
    "fullfsync": 1,
    "checkpoint_fullfsync": 1,
    "foreign_keys": 1,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "busy_timeout": 0,
}
_SCHEMA: Final = """
create table log (
    id integer primary key,
    origin text not null unique,
    size integer not null default 0,
    note blob not null default x'',
    quorum_time integer not null default 0,
    quorum_note blob not null default x'',
    looked integer not null default 0,
    target blob not null default x'',
    entry_time integer not null default 0,
    sealed integer not null default 0,
    seen integer not null default 0,
    check (size <= looked)
) strict;
create table tile (
    log integer not null references log,
    level integer not null,
    place integer not null,
    hashes blob not null,
    primary key (log, level, place)
) strict, without rowid;
create table writer (
    log integer not null references log,
    name text not null,
    looked integer not null,
    following integer not null,
    primary key (log, name)
) strict, without rowid;
create table unresolved (
    log integer not null references log,
    size integer not null,
    root blob not null,
    note blob not null,
    source text not null,
    heard integer not null,
    primary key (log, size, root)
) strict, without rowid;
create table evidence (
    number integer primary key,
    name text not null unique,
    accused text not null,
    raw blob not null
) strict;
create table convicted (accused text primary key, time integer not null) strict, without rowid;
create table trouble (
    log integer not null references log,
    kind text not null,
    witness text not null,
    since integer not null,
    detail text not null,
    primary key (log, kind, witness)
) strict, without rowid;
create table finding (
    number integer primary key autoincrement,
    class text not null,
    line blob not null,
    text text not null,
    told integer not null default 0,
    delivered integer not null default 0
) strict;
create index untold on finding (number) where not told;
create index undelivered on finding (number) where not delivered;
create table counted (
    log integer not null references log,
    class text not null,
    kind text not null,
    number integer not null,
    primary key (log, class, kind)
) strict, without rowid;
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a log.

    `note` is its newest verified head, of `size` entries, empty if there was none; `quorum_note` the newest with a
    quorum time, which is `quorum_time`. The first `looked` entries were looked at, the latest of them under the head
    `target`: the last had the time `entry_time`, in milliseconds, and `sealed` is 1 if one of them sealed it.
    `seen` is when the log last showed a head that held, in seconds.
    """

    number: int
    origin: str
    size: int
    note: bytes
    quorum_time: int
    quorum_note: bytes
    looked: int
    target: bytes
    entry_time: int
    sealed: int
    seen: int


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A valid head of more entries than were verified, who brought it, and when, in POSIX seconds."""

    size: int
    root: Hash
    note: bytes
    source: str
    heard: int


@dataclass(frozen=True, slots=True)
class Looked:
    """What looking at further entries found: see `Known`; `following` has the next sequence of each writer."""

    growth: Growth
    target: bytes
    entry_time: int
    sealed: bool
    following: Mapping[str, int] = field(default_factory=dict)


class Memory:
    """The memory in a folder, held by a lock while the process lives; or one that is gone with the process."""

    def __init__(self, folder: Path | str) -> None:
        """Open `memory.db` in a folder, made if need be, or `:memory:`.

        Raises StateError if another monitor runs on the folder, or the file is not one of ours.
        """
        self._lock = RLock()
        self._held = -1
        self.path = IN_MEMORY
        if str(folder) != IN_MEMORY:
            self.path = str(Path(folder) / FILE)
            self._held = _lock_folder(Path(folder))
        try:
            self._connection = _connect(self.path)
        except sqlite3.Error as error:
            self._release()
            raise StateError(f"the memory {self.path} cannot be used: {error}") from error
        except StateError:
            self._release()
            raise

    def close(self) -> None:
        """Close the file, and let go of the folder."""
        with self._lock:
            self._connection.close()
            self._release()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of the block or nothing, durable when this returns; StateError if it cannot be stored."""
        with self._lock:
            try:
                self._connection.execute("begin immediate")
                try:
                    yield
                    self._connection.execute("commit")
                except BaseException:
                    with suppress(sqlite3.Error):
                        self._connection.execute("rollback")
                    raise
            except sqlite3.Error as error:
                raise StateError(f"the memory {self.path} cannot be used: {error}") from error

    # Logs

    def add_logs(self, origins: Sequence[str]) -> None:
        """Make place for logs that are not known yet."""
        for origin in origins:
            self._write("insert into log (origin) values (?) on conflict do nothing", origin)

    def known(self, origin: str) -> Known:
        """Return what is known of a log that was added."""
        [row] = self._rows(
            "select id, origin, size, note, quorum_time, quorum_note, looked, target, entry_time, sealed, seen "
            "from log where origin = ?",
            origin,
        )
        return Known(*row)

    def see(self, log: Known, now: int) -> None:
        """Keep that the log showed a head that held."""
        self._changed_one("update log set seen = ? where id = ?", now, log.number)

    def look(self, log: Known, looked: Looked) -> None:
        """Keep that the entries from `log.looked` on were looked at; they are part of the mirror from now on."""
        size = looked.growth.frontier.size
        self._changed_one(
            "update log set looked = ?, target = ?, entry_time = ?, sealed = ? "
            "where id = ? and looked = ? and size = ?",
            size,
            looked.target,
            looked.entry_time,
            looked.sealed,
            log.number,
            log.looked,
            log.size,
        )
        for level, place, hashes in grown_tiles(looked.growth, lambda *at: self._tile(log.number, *at)):
            self._write("insert or replace into tile values (?, ?, ?, ?)", log.number, level, place, hashes)
        self.follow(log, size, looked.following)

    def verify(self, log: Known, size: int, note: bytes, quorum: tuple[int, bytes] | None) -> None:
        """Keep a head as the newest verified one: larger than the last, or the same with other cosignatures."""
        self._changed_one(
            "update log set size = ?1, note = ?2 "
            "where id = ?3 and size = ?4 and note = ?5 and ?1 between size and looked",
            size,
            note,
            log.number,
            log.size,
            log.note,
        )
        if quorum is not None:
            self._write(
                "update log set quorum_time = ?, quorum_note = ? where id = ? and quorum_time < ?",
                *quorum,
                log.number,
                quorum[0],
            )

    def set_quorum(self, log: Known, time: int, note: bytes) -> None:
        """Keep another quorum time than the last, because it is counted otherwise now; 0 and no note for none."""
        self._changed_one(
            "update log set quorum_time = ?, quorum_note = ? where id = ? and quorum_time = ?",
            time,
            note,
            log.number,
            log.quorum_time,
        )

    def node(self, log: Known) -> NodeReader:
        """Return a reader of the nodes of the first `log.looked` entries."""
        return node_reader(lambda level, place: self._tile(log.number, level, place))

    def root(self, log: Known, size: int) -> Hash:
        """Return the root of the first `size` entries, of those that were looked at."""
        return frontier_of(size, self.node(log)).root()

    # Writers

    def writers(self, log: Known) -> dict[str, tuple[int, int]]:
        """Return, of each writer that was followed, up to how many entries, and which sequence comes next."""
        rows = self._rows("select name, looked, following from writer where log = ?", log.number)
        return {name: (looked, following) for name, looked, following in rows}

    def follow(self, log: Known, looked: int, following: Mapping[str, int]) -> None:
        """Keep how far writers were followed."""
        for name, sequence in following.items():
            self._changed_one(
                "insert into writer values (?, ?, ?, ?) on conflict (log, name) do update "
                "set looked = excluded.looked, following = excluded.following where looked <= excluded.looked",
                log.number,
                name,
                looked,
                sequence,
            )

    # Unresolved heads

    def unresolved(self, log: Known) -> list[Unresolved]:
        """Return the unresolved heads of a log, the smallest first."""
        query = "select size, root, note, source, heard from unresolved where log = ? order by size, heard"
        return [Unresolved(*row) for row in self._rows(query, log.number)]

    def put_unresolved(self, log: Known, head: Unresolved) -> None:
        """Keep an unresolved head, or further cosignatures of one."""
        self._write(
            "insert into unresolved values (?, ?, ?, ?, ?, ?) on conflict do update set note = excluded.note",
            log.number,
            head.size,
            head.root,
            head.note,
            head.source,
            head.heard,
        )

    def drop_unresolved(self, log: Known, head: Unresolved) -> None:
        """Forget an unresolved head, which a proof has tied to one that is kept, or evidence has."""
        self._write("delete from unresolved where log = ? and size = ? and root = ?", log.number, head.size, head.root)

    # Evidence

    def put_evidence(self, name: str, accused: str, raw: bytes, now: int) -> bool:
        """Keep evidence, and whom it convicts, for good; False if it is known."""
        self._write("insert into convicted values (?, ?) on conflict do nothing", accused, now)
        sql = "insert into evidence (name, accused, raw) values (?, ?, ?) on conflict do nothing"
        return self._write(sql, name, accused, raw) == 1

    def evidence(self, limit: int) -> list[bytes]:
        """Return files of evidence, the newest first."""
        return [raw for (raw,) in self._rows("select raw from evidence order by number desc limit ?", limit)]

    def has_evidence(self, name: str) -> bool:
        """Say whether there is a file of evidence of this name."""
        return bool(self._rows("select 1 from evidence where name = ?", name))

    def evidence_names(self) -> list[tuple[str, bytes]]:
        """Return the name and content of each file of evidence."""
        return self._rows("select name, raw from evidence")

    def count_evidence(self, accused: str) -> int:
        """Return how many files accuse a log, by its origin, or a witness, by its verifier key."""
        [(number,)] = self._rows("select count(*) from evidence where accused = ?", accused)
        return int(number)

    def is_convicted(self, accused: str) -> bool:
        """Say whether evidence convicts a log, by its origin, or a witness, by its verifier key."""
        return bool(self._rows("select 1 from convicted where accused = ?", accused))

    # Findings

    def report(self, log: Known, finding: Finding) -> None:
        """Count a finding, and keep it until it is told; of violations of one kind only the first few are told."""
        [(count,)] = self._rows(
            "insert into counted values (?, ?, ?, 1) on conflict do update set number = number + 1 returning number",
            log.number,
            finding.found.value,
            finding.kind,
        )
        if finding.found is Class.VIOLATION and count > MAX_REPORTED:
            return
        [(number,)] = self._rows(
            "insert into finding (class, line, text) values (?, x'', '') returning number", finding.found.value
        )
        text = f"{finding.found.value} ({finding.kind}{_ENDING[finding.state]}) {finding.origin}: {finding.detail}"
        self._write("update finding set line = ?, text = ? where number = ?", finding.format(number), text, number)

    def settle(self, log: Known, present: Mapping[tuple[str, str], str], asked: Sequence[str], now: int) -> None:
        """Report the complaints that begin and that end; `present` has those that hold, by kind and witness.

        `asked` are the kinds that were looked for. What is not among them goes on as it is.
        """
        rows = self._rows("select kind, witness, detail from trouble where log = ?", log.number)
        before = {(kind, witness): detail for kind, witness, detail in rows}
        for (kind, witness), detail in present.items():
            if (kind, witness) not in before:
                self._write(
                    "insert into trouble values (?, ?, ?, ?, ?)", log.number, kind, witness, now // 1000, detail
                )
                self._complain(log, kind, witness, detail, State.BEGUN, now)
        for (kind, witness), detail in before.items():
            if kind in asked and (kind, witness) not in present:
                self._write("delete from trouble where log = ? and kind = ? and witness = ?", log.number, kind, witness)
                self._complain(log, kind, witness, detail, State.ENDED, now)

    def troubles(self, log: Known) -> list[tuple[str, str]]:
        """Return the kind and the witness, if it is one's, of each complaint that lasts."""
        return self._rows("select kind, witness from trouble where log = ?", log.number)

    def counted(self) -> list[tuple[str, str, str, int]]:
        """Return origin, class, kind, and how many findings there were."""
        return self._rows("select origin, class, kind, number from counted join log on log.id = counted.log")

    def untold(self) -> list[tuple[int, bytes, str]]:
        """Return number, line and text of each finding not yet told, in order."""
        return self._rows("select number, line, text from finding where not told order by number")

    def tell(self, number: int) -> None:
        """Keep that a finding was told."""
        self._changed_one("update finding set told = 1 where number = ?", number)

    def undelivered(self, limit: int) -> list[tuple[int, bytes]]:
        """Return number and line of the oldest findings not yet delivered, in order."""
        return self._rows("select number, line from finding where not delivered order by number limit ?", limit)

    def deliver(self, number: int) -> None:
        """Keep that a finding was delivered, if it was not forgotten meanwhile."""
        self._write("update finding set delivered = 1 where number = ?", number)

    def prune(self) -> None:
        """Forget findings that were told and delivered, and the oldest complaints beyond those that are kept."""
        self._write("delete from finding where told and delivered")
        self._write(
            "delete from finding where class = 'complaint' and told and number <= "
            "(select number from finding where class = 'complaint' order by number desc limit 1 offset ?)",
            MAX_KEPT,
        )

    def _complain(self, log: Known, kind: str, witness: str, detail: str, state: State, now: int) -> None:
        self.report(log, Finding(now, Class.COMPLAINT, kind, log.origin, detail, state=state, witness=witness or None))

    def _tile(self, log: int, level: int, place: int) -> bytes:
        rows = self._rows("select hashes from tile where log = ? and level = ? and place = ?", log, level, place)
        return bytes(rows[0][0]) if rows else b""

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        with self._lock:
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise StateError(f"the memory {self.path} cannot be used: {error}") from error

    def _write(self, sql: str, *values: Any) -> int:
        with self._lock:
            try:
                return self._connection.execute(sql, values).rowcount
            except sqlite3.Error as error:
                raise StateError(f"the memory {self.path} cannot be used: {error}") from error

    def _changed_one(self, sql: str, *values: Any) -> None:
        if self._write(sql, *values) != 1:
            raise AssertionError("the memory of a log only moves forward, one step at a time")

    def _release(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


_ENDING: Final = {State.NEW: "", State.BEGUN: ", begun", State.ENDED: ", ended"}


def _lock_folder(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "monitor.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateError(f"cannot keep a memory in {folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StateError(f"another monitor runs on {folder}; stop it, or choose another folder with --state") from None
    return descriptor


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _set_up(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection, path: str) -> None:
    settings = _SETTINGS if path == IN_MEMORY else {"journal_mode": "wal", **_SETTINGS}
    for name, value in settings.items():
        row = connection.execute(f"pragma {name} = {value}").fetchone()
        row = row or connection.execute(f"pragma {name}").fetchone()
        if row is not None and row[0] != value:
            raise StateError(f"SQLite answers {name} = {row[0]}, and {value} is needed to keep {path}")
    connection.execute("begin immediate")
    [(version,)] = connection.execute("pragma user_version").fetchall()
    if version == 0:
        # Not executescript, which would commit first.
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        connection.execute(f"pragma user_version = {_VERSION}")
    connection.execute("commit")
    if version not in (0, _VERSION):
        raise StateError(f"the memory {path} is of version {version}; this monitor reads version {_VERSION}")
