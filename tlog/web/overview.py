"""What a page says of a segment: how large, how old, cosigned by whom, and how it grew."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from tlog.access import Action
from tlog.access.rule import Target
from tlog.api.route import Call, Services
from tlog.errors import CorruptError, FrozenError, UnavailableError
from tlog.segments import Segment
from tlog.store.changes import SegmentRow
from tlog.store.cosigned import CosignedHead, Frozen
from tlog.web.monitors import Monitor
from tlog_core.entry import parse_entry
from tlog_core.errors import MalformedError
from tlog_core.policy import TrustPolicy

_SAMPLES: Final = 48


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness that is asked: the size that it cosigned last, and when in POSIX seconds; None if it never did."""

    name: str
    size: int | None
    time: int | None


@dataclass(frozen=True, slots=True)
class Overview:
    """A segment as it stands: `open`, `sealed`, `frozen` or `damaged`, and why. Times of entries are in milliseconds.

    `cosigned` is the newest head that the quorum cosigned; `quorum` is the name of that in the file of witnesses.
    `waits` is the time of the first entry behind that head, if there is a quorum, and one behind. `monitors` is None
    where who asks may not read what they say.
    """

    row: SegmentRow
    state: str
    reason: str
    size: int
    time: int
    cosigned: CosignedHead | None
    quorum: str | None
    witnesses: tuple[Witness, ...]
    frozen: Frozen | None = None
    waits: int | None = None
    monitors: tuple[Monitor, ...] | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the segment."""
        return dict(self.row.labels)


@dataclass(frozen=True, slots=True)
class Sample:
    """When, in milliseconds, the segment had grown to so many entries."""

    time: int
    size: int


def overview(services: Services, row: SegmentRow) -> Overview:
    """Return how a segment stands; one that cannot be opened is damaged."""
    try:
        with services.segments.use(row.name) as segment:
            return overview_of(services, segment, row)
    except (CorruptError, UnavailableError, FrozenError) as error:
        return Overview(row, "damaged", str(error), 0, 0, None, None, ())


def overview_of(services: Services, segment: Segment, row: SegmentRow) -> Overview:
    """Return how an open segment stands, with its row as it is by now."""
    head, frozen, asker = segment.store.head(), segment.frozen(), services.asker
    cosigned = None if asker is None else asker.newest(segment)
    behind = cosigned.size if cosigned else 0
    state = "frozen" if frozen else "sealed" if head.sealed or row.sealed is not None else "open"
    return Overview(
        row=row,
        state=state,
        reason=frozen.reason if frozen else "",
        size=head.size,
        time=head.time,
        cosigned=cosigned,
        quorum=None if asker is None else asker.panel.quorum,
        witnesses=() if asker is None else tuple(_witnesses(asker.panel, segment)),
        frozen=frozen,
        waits=None if asker is None or behind >= head.size else _time_of(segment, behind),
    )


def watched(call: Call, row: SegmentRow) -> Overview:
    """Return how a segment stands, with what monitors say of it; one that cannot be opened is damaged."""
    try:
        with call.services.segments.use(row.name) as segment:
            return with_monitors(call, segment, overview_of(call.services, segment, row))
    except (CorruptError, UnavailableError, FrozenError):
        return overview(call.services, row)


def with_monitors(call: Call, segment: Segment, found: Overview) -> Overview:
    """Return the same with what monitors say, if who asks may read the checkpoint; damaged if that is."""
    if not call.services.guard.may(call.caller, Action.READ_CHECKPOINT, Target(found.row.name, found.row.labels)):
        return found
    try:
        said = {one.key: one for one in call.services.bulletins.of(segment)}
    except CorruptError as error:
        return replace(found, state="damaged", reason=found.reason or str(error))
    return replace(found, monitors=tuple(Monitor(key, said.get(key)) for key in call.services.bulletins.keys))


def growth(segment: Segment) -> list[Sample]:
    """Return when a segment had which size, at a few places from its first entry to its last; CorruptError."""
    size = segment.store.head().size
    places = sorted({(size - 1) * number // (_SAMPLES - 1) for number in range(_SAMPLES)}) if size else []
    return [Sample(_time_of(segment, place), place + 1) for place in places]


def control_row(call: Call) -> SegmentRow:
    """Return the row of the segment of a page as it is by now; an open segment may know an earlier one."""
    return call.services.control.store.find(call.segment.row.name)


def _time_of(segment: Segment, place: int) -> int:
    [entry] = segment.store.entries(place, place + 1)
    try:
        return parse_entry(entry).time
    except MalformedError as error:
        raise CorruptError(f"entry {place} is damaged: {error}") from None


def _witnesses(panel: TrustPolicy, segment: Segment) -> Iterator[Witness]:
    lines = {line.vkey: line for line in segment.store.cosignatures()}
    for witness in panel.witnesses:
        line = lines.get(str(witness.key))
        yield Witness(witness.name, line.size if line else None, line.time if line else None)
