"""What witnesses said of a segment, in its database: cosignatures, and the newest head that the quorum cosigned."""

from dataclasses import dataclass
from typing import Final

from tlog.store.connection import Connection
from tlog_core.merkle import Hash

# Nothing goes back: neither to a smaller head, nor to another of the same size, nor in time; and no line is stored of
# a head that the segment does not have.
_PUT_COSIGNATURE: Final = """
insert into cosignature (vkey, size, root, time, line)
select ?1, ?2, ?3, ?4, ?5 where ?2 <= (select size from head)
on conflict do update set size = excluded.size, root = excluded.root, time = excluded.time, line = excluded.line
where excluded.size > cosignature.size
or (excluded.size = cosignature.size and excluded.root = cosignature.root and excluded.time >= cosignature.time)
"""
_PUT_COSIGNED: Final = """
insert into cosigned (one, size, root, time, last, note)
select 1, ?1, ?2, ?3, ?4, ?5 where ?1 <= (select size from head)
on conflict do update
set size = excluded.size, root = excluded.root, time = excluded.time, last = excluded.last, note = excluded.note
where excluded.size > cosigned.size
or (excluded.size = cosigned.size and excluded.root = cosigned.root and (excluded.time >= cosigned.time or ?6))
"""
# Read anew in the statement itself: another process may have committed since the witness was asked.
_FREEZE_BEHIND: Final = """
insert into frozen (one, at, witness, size, reason)
select 1, ?1, ?2, ?3, ?4 where ?3 > (select size from head) on conflict do nothing
"""
_FREEZE: Final = "insert into frozen (one, at, witness, size, reason) values (1, ?, ?, ?, ?) on conflict do nothing"
_STANDING: Final = """
select coalesce((select size from cosigned), 0), coalesce((select last from cosigned), 0), (select reason from frozen)
"""


BY_FSCK: Final = "tlog/fsck"
"""Stands in the place of a witness where it was not one that found something."""


@dataclass(frozen=True, slots=True)
class WitnessLine:
    """The latest cosignature of a witness: its vkey, the head it is of, its time in POSIX seconds, and its line."""

    vkey: str
    size: int
    root: Hash
    time: int
    line: str


@dataclass(frozen=True, slots=True)
class CosignedHead:
    """A head that a quorum cosigned.

    `time` is the quorum time in POSIX seconds, `last` the time of the head's last entry in milliseconds. The note has
    the signature of the log and all cosignatures.
    """

    size: int
    root: Hash
    time: int
    last: int
    note: bytes


@dataclass(frozen=True, slots=True)
class Frozen:
    """When, in milliseconds, it was found that there is a head of `size` entries other than any of ours.

    `witness` is the name of the one that said so, None if it is the log itself.
    """

    at: int
    witness: str | None
    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What a write must know: the size that the quorum cosigned, and the time of its last entry in milliseconds.

    Both are 0 if there is none. `frozen` says why nothing may be appended, if so.
    """

    cosigned: int
    last: int
    frozen: str | None


def put_cosignature(connection: Connection, row: WitnessLine) -> bool:
    """Store a cosignature in the place of an earlier one by its witness; False if it is not later."""
    values = [row.vkey, row.size, row.root, row.time, row.line]
    return bool(connection.execute(_PUT_COSIGNATURE, values).rowcount == 1)


def put_cosigned(connection: Connection, head: CosignedHead, *, afresh: bool) -> bool:
    """Store a head that the quorum cosigned in the place of an earlier one; False if it is not later.

    If it is the first of this quorum, `afresh`, the time at which another cosigned the same head says nothing.
    """
    values = [head.size, head.root, head.time, head.last, head.note, afresh]
    return bool(connection.execute(_PUT_COSIGNED, values).rowcount == 1)


def freeze(connection: Connection, frozen: Frozen, *, behind: bool) -> bool:
    """Freeze the segment; False if it is frozen. If for being `behind`, only if its head is smaller than `size`."""
    values = [frozen.at, frozen.witness or "", frozen.size, frozen.reason]
    return bool(connection.execute(_FREEZE_BEHIND if behind else _FREEZE, values).rowcount == 1)


def unfreeze(connection: Connection) -> None:
    """Let the segment take entries again."""
    connection.execute("delete from frozen")


def standing(connection: Connection) -> Standing:
    """Return what a write must know."""
    cosigned, last, frozen = connection.execute(_STANDING).fetchone()
    return Standing(int(cosigned), int(last), frozen)


def cosignatures(connection: Connection) -> list[WitnessLine]:
    """Return the latest cosignature of each witness, in the order of their keys."""
    rows = connection.execute("select vkey, size, root, time, line from cosignature order by vkey")
    return [WitnessLine(vkey, size, Hash(root), time, line) for vkey, size, root, time, line in rows]


def lines_of(connection: Connection, size: int, root: Hash) -> bytes:
    """Return the signature lines of the cosignatures of one head, in an order that the lines decide."""
    rows = connection.execute("select line from cosignature where size = ? and root = ? order by line", [size, root])
    return "".join(line for (line,) in rows).encode()


def cosigned(connection: Connection) -> CosignedHead | None:
    """Return the newest head that a quorum cosigned, if there is one."""
    row = connection.execute("select size, root, time, last, note from cosigned").fetchone()
    return None if row is None else CosignedHead(row[0], Hash(row[1]), row[2], row[3], bytes(row[4]))


def frozen(connection: Connection) -> Frozen | None:
    """Return why the segment is frozen, if it is."""
    row = connection.execute("select at, witness, size, reason from frozen").fetchone()
    return None if row is None else Frozen(row[0], row[1] or None, row[2], row[3])
