"""Whether the data of a segment is the latest that was signed: else whatever it signed next would be a fork.

Its anchor is compared with its head when the segment is opened, and again in each write transaction.
"""

from contextlib import closing, suppress
from pathlib import Path

from tlog.anchor import Anchor, Anchored, other_history
from tlog.errors import CorruptError, FrozenError
from tlog.nodes import Nodes
from tlog.store.segment import Head, SegmentStore
from tlog_core.checkpoint import Checkpoint
from tlog_core.errors import TlogError
from tlog_core.merkle import range_hash
from tlog_core.note import VerifierKey


def open_anchor(path: Path, key: VerifierKey, store: SegmentStore, nodes: Nodes) -> Anchor:
    """Return the anchor at `path`, brought up to the head of the segment; OSError.

    Raises FrozenError, which says why, if the segment does not extend it, or there is none.
    """
    _anchor_older(path, store)
    try:
        anchor = Anchor.open(path, key)
    except FileNotFoundError:
        raise FrozenError(f"its anchor {path} is missing, so that this may be an older copy") from None
    try:
        # The anchor first: another process may move both on meanwhile.
        newest, head = anchor.newest(), store.head()
        _check_extends(newest, head, nodes)
        anchor.mend()
        anchor.advance(Checkpoint(key.name, head.size, head.root), head.note)
    except CorruptError as error:
        anchor.close()
        raise FrozenError(f"its anchor {path} cannot be used: {error}") from None
    except BaseException:
        anchor.close()
        raise
    return anchor


def anchored(path: Path, key: VerifierKey) -> Anchored | None:
    """Return the newest head in the anchor at `path`, None if there is none; OSError."""
    with suppress(FileNotFoundError, CorruptError), closing(Anchor.open(path, key)) as anchor:
        return anchor.newest()
    return None


def check_latest(newest: Anchored, head: Head) -> None:
    """Raise FrozenError if an anchor has more entries than a head, or as many that are others."""
    found = newest.checkpoint
    if found.size > head.size:
        raise FrozenError(
            f"its anchor has a head of {found.size} entries, and the segment has {head.size}: this is an older copy, "
            "or another server signs with the same key"
        )
    if found.size == head.size and found.root != head.root:
        raise other_history()


def _check_extends(newest: Anchored, head: Head, nodes: Nodes) -> None:
    check_latest(newest, head)
    size = newest.checkpoint.size
    try:
        root = range_hash(0, size, nodes.at(head.size)) if size < head.size else head.root
    except TlogError as error:
        raise CorruptError(f"the tree below it is damaged: {error}") from None
    if root != newest.checkpoint.root:
        raise other_history()


def _anchor_older(path: Path, store: SegmentStore) -> None:
    """Give an anchor to a segment from before there were any."""
    if store.is_anchored():
        return
    with store.write() as transaction:
        if not path.exists():
            Anchor.create(path, transaction.head().note)
        transaction.mark_anchored()
