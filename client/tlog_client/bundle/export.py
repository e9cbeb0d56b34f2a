"""Making a bundle out of what a segment holds: all is verified before it is handed out."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tlog_client.answers import OpenedEntry
from tlog_client.bundle.archive import MAX_BUNDLE_BYTES, format_archive, member
from tlog_client.bundle.manifest import NAME, PAGE, POLICY, SEGMENTS, Manifest, comment_of, listed, reserved_beside
from tlog_client.bundle.part import MAX_ENTRIES, SEGMENT, Part, make_part
from tlog_client.bundle.verify import verify_bundle
from tlog_client.errors import RefusedError
from tlog_client.state import SignedCheckpoint
from tlog_core.errors import MalformedError
from tlog_core.merkle import Hash
from tlog_core.policy import TrustPolicy
from tlog_core.receipt import JSON_TYPE

Advance = Callable[[int], None]
"""Given how many entries came in."""

Asked = range | Mapping[str, str | int]
"""What to export: a range of indexes, or the parameters of a search."""

MAX_RESERVED_BYTES: Final = 32 << 20
"""How many bytes of payloads go along of `control`, and of `access`, at most."""

_CHANGES: Final = frozenset(("policy.applied", "key.added", "key.removed", "issuers.changed"))
"""What `control` says that is about every segment."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """Who exports, at a time in milliseconds, with which tool, by which trust policy; and the page that goes along.

    The payloads of the segment, all of which are in memory, have at most so many bytes as `most`. Of `control` and
    `access` the newest `reach` entries are looked through.
    """

    by: str
    at: int
    tool: str
    trust: TrustPolicy
    page: bytes
    most: int = MAX_BUNDLE_BYTES
    reach: int = MAX_ENTRIES


class Source(Protocol):
    """A segment to export from. What is read is verified later, and each method raises what its way of reading does."""

    @property
    def origin(self) -> str:
        """The origin of the segment."""

    def head(self, trust: TrustPolicy) -> SignedCheckpoint:
        """Return the newest head that a trust policy should accept."""

    def entries(self, head: SignedCheckpoint, start: int, stop: int) -> Iterable[OpenedEntry]:
        """Return the entries [start, stop) under a head."""

    def found(self, head: SignedCheckpoint, terms: Mapping[str, str | int]) -> Iterable[OpenedEntry]:
        """Return the entries under a head that a search finds, the latest first."""

    def prove(self, head: SignedCheckpoint, indexes: Sequence[int]) -> Sequence[Hash]:
        """Return the subset proof of entries under a head."""


def export(
    asked: Asked, source: Source, reserved: Mapping[str, Source], exporter: Exporter, advance: Advance = lambda _: None
) -> bytes:
    """Return the bundle of what is asked for, verified, with what `control` and `access` of `reserved` say of it.

    The manifest says what was looked through of these: nothing of one that is not there, or may not be read. Raises
    MalformedError if there is nothing or too much, else as the sources and `verify_bundle` do.
    """
    head = source.head(exporter.trust)
    asked, opened = _read(asked, source, head, exporter.most, advance)
    parts = [_part(SEGMENT, source, head, opened)]
    segment = source.origin.rpartition(SEGMENTS)[2]
    names = reserved_beside(source.origin)
    looked: dict[str, range | None] = dict.fromkeys(names)
    # Last of all `access`, in which what was read here is then found.
    for name in (one for one in names if one in reserved):
        with suppress(RefusedError):
            looked[name], found = _reserved(name, segment, reserved[name], exporter, advance)
            parts += found
    whole = _bundle(asked, source.origin, parts, looked, exporter)
    verify_bundle(whole, exporter.trust)
    return whole


def about_segment(event: Any, segment: str, asked: set[str]) -> bool:
    """Tell whether an event of `control` or `access` is about a segment; `asked` gathers the ids of its requests."""
    members = event if isinstance(event, dict) else {}
    reads, kind = members.get("reads"), members.get("event")
    if isinstance(reads, list):
        return any(isinstance(one, dict) and one.get("segment") == segment for one in reads)
    if kind == "access.requested" and members.get("segment") == segment:
        asked.add(str(members.get("id")))
    is_named = segment in (members.get("segment"), members.get("name"), members.get("successor"))
    return is_named or kind in _CHANGES or (kind == "access.approved" and members.get("id") in asked)


def _read(
    asked: Asked, source: Source, head: SignedCheckpoint, most: int, advance: Advance
) -> tuple[Asked, list[OpenedEntry]]:
    size = head.checkpoint.size
    if isinstance(asked, range):
        return asked, _counted(source.entries(head, asked.start, asked.stop), most, advance)
    # What came later is not under the head.
    terms = {**asked, "before": min(int(asked.get("before", size)), size)}
    return terms, _counted(source.found(head, terms), most, advance)[::-1]


def _counted(opened: Iterable[OpenedEntry], most: int, advance: Advance) -> list[OpenedEntry]:
    entries, size = list[OpenedEntry](), 0
    for one in opened:
        entries.append(one)
        size += len(one.payload)
        if size > most:
            raise MalformedError(f"the payloads have more than {most} bytes; export fewer entries")
        advance(1)
        if len(entries) > MAX_ENTRIES:
            raise MalformedError(f"a bundle has at most {MAX_ENTRIES} entries; export fewer")
    return entries


def _reserved(
    name: str, segment: str, source: Source, exporter: Exporter, advance: Advance
) -> tuple[range, list[Part]]:
    """Return what was looked through, and the part of what was found there."""
    head, requests = source.head(exporter.trust), set[str]()
    size = head.checkpoint.size
    start = max(size - exporter.reach, 0)
    entries = (
        one
        for one in source.entries(head, start, size)
        if one.payload_type == JSON_TYPE and about_segment(one.event(), segment, requests)
    )
    start, opened = _newest(entries, start, advance)
    return range(start, size), [_part(name, source, head, opened)] if opened else []


def _newest(opened: Iterable[OpenedEntry], start: int, advance: Advance) -> tuple[int, Sequence[OpenedEntry]]:
    """Return the newest entries for which there is room, and from where on they are all."""
    kept, room = deque[OpenedEntry](), MAX_RESERVED_BYTES
    for one in opened:
        kept.append(one)
        room -= len(one.payload)
        while room < 0:
            room += len(kept[0].payload)
            start = kept.popleft().index + 1
        advance(1)
    return start, kept


def _part(name: str, source: Source, head: SignedCheckpoint, opened: Sequence[OpenedEntry]) -> Part:
    if not opened:
        raise MalformedError("there is no entry to export; ask for others")
    return make_part(name, head.note, source.prove(head, [one.index for one in opened]), opened)


def _bundle(
    asked: Asked, origin: str, parts: Sequence[Part], looked: Mapping[str, range | None], exporter: Exporter
) -> bytes:
    members = [
        member(POLICY, bytes(exporter.trust)),
        *(one for part in parts for one in part.members()),
        member(PAGE, exporter.page),
    ]
    manifest = bytes(Manifest(asked, exporter.at, exporter.by, listed(members), origin, looked, exporter.tool))
    return format_archive([member(NAME, manifest), *members], comment_of(manifest))
