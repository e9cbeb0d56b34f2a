"""The command `tlog` with a bug in it, one that the tests must find: `planted.py BUG ARGUMENT...`."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Timer
from types import MappingProxyType
from typing import Any, Final

from sqlite_utils import Database

from tlog import control, latest, segments
from tlog.access.change import TokenRevoked
from tlog.anchor import Anchor
from tlog.cli import main
from tlog.control import Control
from tlog.nodes import Nodes
from tlog.sealing import Sealing
from tlog.segments import Segment, Segments
from tlog.sequencer import Sequencer
from tlog.store import connection, schema
from tlog.store import segment as segment_store
from tlog.store.connection import copy_database
from tlog.store.segment import Head, RequestRow, SegmentStore, Transaction


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


def lax() -> None:
    """What was put in an anchor is not synced."""
    Anchor.sync = lambda *_: None  # type: ignore[method-assign]


def nameless() -> None:
    """A file is synced, and not the folder that has its name."""
    _everywhere("sync_folder", lambda *_: None)


def unsettled() -> None:
    """What SQLite recovers from a WAL is shown as it is, synced or not."""
    _everywhere("settle", lambda *_: None)
    # They open and close all segments at the start, and SQLite settles what it closes.
    _everywhere("check_at_start", lambda *_: None)
    Sealing.keep = lambda *_: None  # type: ignore[method-assign]


def hasty() -> None:
    """A head is shown once it is signed, whatever comes of the commit."""
    signed: dict[bytes, bytes] = {}
    move, show = Transaction.move_head, SegmentStore.head_with_cosignatures

    def move_head(self: Transaction, old: Head, new: Head) -> None:
        signed[new.note.partition(b"\n")[0]] = new.note
        move(self, old, new)

    def show_signed(self: SegmentStore) -> tuple[Head, bytes]:
        head, lines = show(self)
        return replace(head, note=signed.get(head.note.partition(b"\n")[0], head.note)), lines

    Transaction.move_head = move_head  # type: ignore[method-assign]
    SegmentStore.head_with_cosignatures = show_signed  # type: ignore[method-assign]
    Segment.settle = lambda *_: None  # type: ignore[method-assign]


def piecemeal() -> None:
    """A migration is not one transaction, and neither is the making of a segment."""
    setattr(segment_store, "transaction", lambda _: nullcontext())  # noqa: B010
    whole = schema._run

    def run(database: Database, script: str) -> None:
        database.execute("commit")
        whole(database, script)
        database.execute("begin")

    schema._run = run


def forget_the_last_commit() -> None:
    """Payments come back as they were before the last commit, when they are opened, and their anchors too."""
    write, load, put = SegmentStore.write, Segments._load, Anchor.put

    @contextmanager
    def keeping(store: SegmentStore) -> Iterator[Transaction]:
        _older_copy(store._path).unlink(missing_ok=True)
        copy_database(store._path, _older_copy(store._path))
        with write(store) as transaction:
            yield transaction

    def load_older(self: Segments, name: str) -> segments.Segment:
        path = self._config.segment(self.control.find(name).id)
        if name == "payments" and _older_copy(path).exists():
            for suffix in ("-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            _older_copy(path).replace(path)
        return load(self, name)

    SegmentStore.write = keeping  # type: ignore[method-assign, assignment]
    Segments._load = load_older  # type: ignore[method-assign]
    Anchor.put = lambda self, *head: (  # type: ignore[method-assign]
        None if self._key.name.endswith("/payments") else put(self, *head)
    )


def _older_copy(path: Path) -> Path:
    return path.with_suffix(".old")


def forget_keys_at_a_restart() -> None:
    """An idempotency key is known only to the life of the process in which it was used."""
    requests, add = Transaction.requests, Transaction.add_requests
    begin = Segments.__init__
    known = set[bytes]()

    def begun(self: Segments, *arguments: Any) -> None:
        known.clear()
        begin(self, *arguments)

    def requests_of_now(self: Transaction, keys: Sequence[bytes]) -> dict[bytes, RequestRow]:
        return requests(self, [key for key in keys if key in known])

    def add_again(self: Transaction, rows: Mapping[bytes, RequestRow]) -> None:
        known.update(rows)
        self._connection.executemany("delete from request where key = ?", [[key] for key in rows])
        add(self, rows)

    Segments.__init__ = begun  # type: ignore[assignment, method-assign]
    Transaction.requests = requests_of_now  # type: ignore[method-assign]
    Transaction.add_requests = add_again  # type: ignore[method-assign]


def ask_no_anchor() -> None:
    """What is there is taken for the latest, whatever the anchor says."""
    _everywhere("check_latest", lambda *_: None)
    latest._check_extends = lambda *_: None


def be_frozen_in_word_only() -> None:
    """A segment that lacks something says that it is frozen, and takes entries."""
    Sequencer._frozen = lambda *_: ""  # type: ignore[method-assign]


def anchor_before_the_commit() -> None:
    """The anchor has a head before it is committed: after a crash in between the segment is frozen for ever."""
    write = Sequencer._write

    def anchoring(self: Sequencer, *arguments: Any) -> Any:
        tree, head, answers = write(self, *arguments)
        self._put_in_anchor(head)
        return tree, head, answers

    Sequencer._write = anchoring  # type: ignore[method-assign, assignment]


def unseal_at_a_restart() -> None:
    """That a segment is sealed is not kept."""
    move = Transaction.move_head
    Transaction.move_head = lambda self, old, new: move(  # type: ignore[method-assign]
        self, old, replace(new, sealed=False)
    )


def catch_up_less_revocations() -> None:
    """What is on record comes into force after a crash or an import, but for revocations of tokens."""
    whole, project = Control._catch_up, control.project

    def catch_up(self: Control, segment: segments.Segment) -> None:
        control.project = lambda changing, change: (
            None if isinstance(change, TokenRevoked) else project(changing, change)
        )
        try:
            whole(self, segment)
        finally:
            control.project = project

    Control._catch_up = catch_up  # type: ignore[assignment, method-assign]


def trust_the_disk() -> None:
    """What is stored is shown, whatever the tree and its commitment say of it."""
    _everywhere("has_commitment", lambda *_: True)
    Nodes.check_entries = lambda *_: None  # type: ignore[method-assign]


BUGS: Final[Mapping[str, Callable[[], None]]] = MappingProxyType(
    {
        one.__name__: one
        for one in (
            *(normal, off, early, lax, nameless, unsettled, hasty, piecemeal),
            *(forget_the_last_commit, forget_keys_at_a_restart, ask_no_anchor, be_frozen_in_word_only),
            *(anchor_before_the_commit, unseal_at_a_restart, catch_up_less_revocations, trust_the_disk),
        )
    }
)


def _everywhere(name: str, other: Callable[..., object]) -> None:
    """Put another function in the place of one, wherever it was imported to."""
    for module in [module for path, module in sys.modules.items() if path.startswith("tlog.")]:
        if hasattr(module, name):
            setattr(module, name, other)


if __name__ == "__main__":
    # Before a bug is planted, so that there is nothing left that would import what it replaces.
    import tlog.serve  # noqa: F401

    BUGS[sys.argv.pop(1)]()
    main()
