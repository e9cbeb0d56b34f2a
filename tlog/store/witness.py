"""The database of a witness: the latest checkpoint that it cosigned, for each origin."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final, NewType

from tlog.errors import ConfigError
from tlog.store.connection import check_writable, connect, connect_reader, settle, transaction
from tlog.store.schema import migrate_witness
from tlog_core.merkle import EMPTY_ROOT, Hash

OriginHash = NewType("OriginHash", bytes)
"""The SHA-256 of an origin."""

_LATEST: Final = "select size, root, time, note from cosigned where origin_hash = ?"
# An origin without a row stands at size 0: the guard of the update then holds for nothing that another has put there
# meanwhile, unless it is the same tree.
_ADVANCE: Final = """
insert into cosigned (origin_hash, size, root, time, note) values (?, ?, ?, ?, ?)
on conflict (origin_hash) do update
set size = excluded.size, root = excluded.root, time = excluded.time, note = excluded.note
where cosigned.size = ? and cosigned.root = ? and cosigned.time <= excluded.time
"""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A checkpoint that was cosigned at `time`, in POSIX seconds; the note has the log's signature and ours."""

    size: int
    root: Hash
    time: int
    note: bytes


NOTHING: Final = Cosigned(0, EMPTY_ROOT, 0, b"")
"""What stands for an origin of which nothing was cosigned yet."""


def make_database(path: Path, vkey: str) -> None:
    """Make the database if it is not there; ConfigError if it is that of a witness with another verifier key."""
    connection = connect(path, create=True)
    try:
        migrate_witness(connection)
        connection.execute("insert into witness (one, vkey) values (1, ?) on conflict do nothing", [vkey])
        (found,) = connection.execute("select vkey from witness").fetchone()
    finally:
        connection.close()
    if found != vkey:
        raise ConfigError(f"{path} is the database of {found}, and the key is {vkey}; put the right key back")


class WitnessStore:
    """A connection that writes and one that reads, which does not wait for the other, for the threads of a process."""

    def __init__(self, path: Path) -> None:
        """Open the database at `path`, which must have been made by `make_database`; DatabaseError if it was not."""
        self._writer, self._writing = connect(path), Lock()
        settle(self._writer, path)
        check_writable(self._writer)
        self._reader, self._reading = connect_reader(path), Lock()

    def latest(self, origin: OriginHash) -> Cosigned | None:
        """Return the latest checkpoint cosigned for an origin, which is durable, or None."""
        with self._reading:
            row = self._reader.execute(_LATEST, [origin]).fetchone()
        return None if row is None else Cosigned(int(row[0]), Hash(row[1]), int(row[2]), bytes(row[3]))

    def advance(self, origin: OriginHash, old: Cosigned, new: Cosigned) -> bool:
        """Put `new` in the place of `old`, durable when this returns; False if another stands there by now.

        After a DatabaseError either may be there; nobody has the cosignature of `new`.
        """
        row = [origin, new.size, new.root, new.time, new.note, old.size, old.root]
        with self._writing, transaction(self._writer):
            return bool(self._writer.execute(_ADVANCE, row).rowcount == 1)
