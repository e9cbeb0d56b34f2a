"""Finding: from the indexes of entries to the entries, each checked against the log and against what was asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from tlog.config import MAX_PAGE_BYTES
from tlog.errors import LostError, NotFoundError, UnavailableError
from tlog.search.follow import terms_in, time_of
from tlog.search.indexes import Indexes
from tlog.search.terms import Wanted
from tlog.segments import Segment
from tlog.store.codec import LOST, Payload
from tlog.store.search import DamagedIndexError, Index, Span
from tlog.submit import check_payload
from tlog_core.tile import TILE_WIDTH

_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry with its payload, which may be lost."""

    index: int
    entry: bytes
    payload: Payload


@dataclass(frozen=True, slots=True)
class Found:
    """Entries, the latest first; below `next` there may be more, unless it is None. From `indexed` on nobody looked."""

    hits: Sequence[Hit]
    next: int | None
    indexed: int


def find(indexes: Indexes, segment: Segment, wanted: Sequence[Wanted], span: Span, limit: int) -> Found:
    """Return the latest entries of a segment that have all that is wanted, from now on followed if it was not.

    Raises UnavailableError if the index is made anew or erased, and CorruptError if the log is damaged.
    """
    indexes.want(segment.row.name)
    try:
        with indexes.use(segment.row.name) as index:
            return _found(index, segment, wanted, span, limit)
    except NotFoundError as error:
        raise UnavailableError(f"the index of {segment.row.name} was erased just now; retry") from error


def _found(index: Index, segment: Segment, wanted: Sequence[Wanted], span: Span, limit: int) -> Found:
    page = index.find([(one.word, one.is_prefix) for one in wanted], span, limit)
    hits, size = [], 0
    for hit in read_back(segment, page.places):
        if hit.payload.is_lost:
            continue
        _check(hit, wanted, span)
        hits.append(hit)
        size += len(hit.payload.data)
        if size >= MAX_PAGE_BYTES:
            return Found(hits, hit.index, page.indexed)
    return Found(hits, page.next, page.indexed)


def _check(hit: Hit, wanted: Sequence[Wanted], span: Span) -> None:
    terms = terms_in(hit.payload)
    time = time_of(hit.entry, terms)
    if not all(one.is_in(terms) for one in wanted) or not span.since <= time < span.until:
        raise DamagedIndexError(f"entry {hit.index} is not what it says")


def read_back(segment: Segment, places: Sequence[int]) -> Iterator[Hit]:
    """Yield the entries at these places, which fall, each checked against the tree; CorruptError."""
    for _, together in groupby(places, lambda place: place // TILE_WIDTH):
        near = list(together)
        start, end = near[-1], near[0] + 1
        entries = segment.store.entries(start, end)
        segment.nodes.check_entries(start, entries)
        # Most of those under one tile come by one read, unless they are large.
        payloads = _payloads(segment, start, end)
        for place in near:
            found = payloads.get(place) or _payloads(segment, place, place + 1).get(place, LOST)
            if not found.is_lost:
                check_payload(place, entries[place - start], found)
            yield Hit(place, entries[place - start], found)


def _payloads(segment: Segment, start: int, end: int) -> dict[int, Payload]:
    try:
        return dict(enumerate(segment.store.payload_page(start, end, _READ_BYTES), start))
    except LostError:
        return {}
