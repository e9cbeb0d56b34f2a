"""Freezing a segment because of what was found in it: it is read on, and nothing is signed in it any more."""

from collections.abc import Iterable, Sequence

from tlog.config import Config
from tlog.fsck.finding import HARMLESS, Finding
from tlog.store.changes import SegmentRow
from tlog.store.cosigned import BY_FSCK, Frozen
from tlog.store.segment import SegmentStore


def serious(findings: Iterable[Finding]) -> list[Finding]:
    """Return those for which a segment is frozen."""
    return [finding for finding in findings if finding.kind not in HARMLESS]


def freeze(config: Config, row: SegmentRow, findings: Sequence[Finding], now: int) -> bool:
    """Freeze a segment at `now`, in milliseconds; False if it is frozen. DatabaseError if it cannot be."""
    first, others = findings[0], len(findings) - 1
    more = f", and {others} more" if others else ""
    reason = f"tlog fsck found, at {first.place}: {first.text}{more}; run tlog fsck {row.name}"
    store = SegmentStore(config.segment(row.id))
    try:
        with store.write() as transaction:
            return transaction.freeze(Frozen(now, BY_FSCK, 0, reason), behind=False)
    finally:
        store.close()
