"""What monitors said of a segment, in its database: of each key the latest bulletin (`spec/bulletin.md`)."""

from dataclasses import dataclass
from typing import Final

from tlog.store.connection import Connection

# Nothing goes back in time, but from one that a clock had which was set back since.
_PUT: Final = """
insert into bulletin (vkey, time, received, note) values (?1, ?2, ?3, ?4)
on conflict do update set time = excluded.time, received = excluded.received, note = excluded.note
where excluded.time > bulletin.time or bulletin.time > ?5
"""


@dataclass(frozen=True, slots=True)
class BulletinRow:
    """A bulletin as a signed note, the vkey of its monitor, when it was signed and when it came, in milliseconds."""

    vkey: str
    time: int
    received: int
    note: bytes


def put_bulletin(connection: Connection, row: BulletinRow, *, latest: int) -> bool:
    """Store a bulletin in the place of an earlier one by its key; False if it is not later.

    One whose time is beyond `latest`, in milliseconds, is not stored now, and counts no more where it is.
    """
    values = [row.vkey, row.time, row.received, row.note, latest]
    return bool(connection.execute(_PUT, values).rowcount == 1)


def bulletins(connection: Connection) -> list[BulletinRow]:
    """Return the latest bulletin of each key, in the order of the keys."""
    rows = connection.execute("select vkey, time, received, note from bulletin order by vkey")
    return [BulletinRow(vkey, time, received, bytes(note)) for vkey, time, received, note in rows]
