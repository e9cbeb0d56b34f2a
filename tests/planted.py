"""The command `tlog` with a bug in it, one that the tests must find: `planted.py BUG ARGUMENT...`."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Timer
from types import MappingProxyType
from typing import Final

from sqlite_utils import Database

from tlog.cli import main
from tlog.store import connection, schema
from tlog.store.segment import Head, SegmentStore, Transaction


def normal() -> None:
    """A commit is not synced."""
    connection._SETTINGS["synchronous"] = 1


def off() -> None:
    """Nothing is synced at all."""
    connection._SETTINGS["synchronous"] = 0


def early() -> None:
    """A write is acknowledged, and committed a moment later."""
    whole = SegmentStore.write

    @contextmanager
    def write(self: SegmentStore) -> Iterator[Transaction]:
        context = whole(self)
        yield context.__enter__()
        Timer(0.05, context.__exit__, [None, None, None]).start()

    SegmentStore.write = write  # type: ignore[method-assign]


def nameless() -> None:
    """A file is synced, and not the folder that has its name."""
    _everywhere("sync_folder", lambda *_: None)


def unsettled() -> None:
    """What SQLite recovers from a WAL is shown as it is, synced or not."""
    _everywhere("settle", lambda *_: None)
    # It opens and closes all segments at the start, and SQLite settles what it closes.
    _everywhere("check_at_start", lambda *_: None)


def hasty() -> None:
    """A head is shown once it is signed, whatever comes of the commit."""
    signed: dict[bytes, bytes] = {}
    move, show = Transaction.move_head, SegmentStore.cosigned_note

    def move_head(self: Transaction, old: Head, new: Head) -> None:
        signed[new.note.partition(b"\n")[0]] = new.note
        move(self, old, new)

    def cosigned_note(self: SegmentStore) -> bytes:
        note = show(self)
        return signed.get(note.partition(b"\n")[0], note)

    Transaction.move_head = move_head  # type: ignore[method-assign]
    SegmentStore.cosigned_note = cosigned_note  # type: ignore[method-assign]


def piecemeal() -> None:
    """A migration is not one transaction."""
    whole = schema._run

    def run(database: Database, script: str) -> None:
        database.execute("commit")
        whole(database, script)
        database.execute("begin")

    schema._run = run


BUGS: Final[Mapping[str, Callable[[], None]]] = MappingProxyType(
    {one.__name__: one for one in (normal, off, early, nameless, unsettled, hasty, piecemeal)}
)


def _everywhere(name: str, other: Callable[..., None]) -> None:
    """Put another function in the place of one, wherever it was imported to."""
    for module in [module for path, module in sys.modules.items() if path.startswith("tlog.")]:
        if hasattr(module, name):
            setattr(module, name, other)


if __name__ == "__main__":
    # Before a bug is planted, so that there is nothing left that would import what it replaces.
    import tlog.serve  # noqa: F401

    BUGS[sys.argv.pop(1)]()
    main()
