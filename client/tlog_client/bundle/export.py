"""Making a bundle out of what a log answers: all is verified before it is written."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from tlog_client.answers import OpenedEntry
from tlog_client.bundle.archive import format_archive, member
from tlog_client.bundle.manifest import NAME, PAGE, POLICY, Manifest, comment_of, listed
from tlog_client.bundle.part import ACCESS, CONTROL, MAX_ENTRIES, SEGMENT, Part, make_part
from tlog_client.bundle.verify import SEGMENTS, verify_bundle
from tlog_client.errors import RefusedError
from tlog_client.log import Log
from tlog_client.state import SignedCheckpoint
from tlog_core.errors import FetchError, MalformedError
from tlog_core.policy import TrustPolicy, open_witnessed
from tlog_core.receipt import JSON_TYPE

Advance = Callable[[int], None]
"""Given how many entries came in."""

Asked = range | Mapping[str, str | int]
"""What to export: a range of indexes, or the parameters of a search."""

_CHANGES: Final = frozenset(("policy.applied", "key.added", "key.removed", "issuers.changed"))
"""What `control` says that is about every segment."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """Who exports, at a time in milliseconds, with which tool, by which trust policy; and the page that goes along."""

    by: str
    at: int
    tool: str
    trust: TrustPolicy
    page: bytes


def export(
    asked: Asked, log: Log, reserved: Mapping[str, Log], exporter: Exporter, advance: Advance = lambda _: None
) -> bytes:
    """Return the bundle of what is asked for, verified, with what `control` and `access` of `reserved` say of it.

    One of them that may not be read is left out. Raises MalformedError if there is nothing or too much, else as reading
    a log and `verify_bundle`.
    """
    head = head_of(log, exporter.trust)
    asked, opened = _read(asked, log, head, advance)
    parts = [_part(SEGMENT, log, head, opened)]
    segment = log.key.name.rpartition(SEGMENTS)[2]
    # Last of all `access`, in which what was read here is then found.
    for name in (one for one in (CONTROL, ACCESS) if one in reserved):
        with suppress(RefusedError):
            parts += _reserved(name, segment, reserved[name], exporter.trust, advance)
    whole = _bundle(asked, log.key.name, parts, exporter)
    verify_bundle(whole, exporter.trust)
    return whole


def head_of(log: Log, trust: TrustPolicy) -> SignedCheckpoint:
    """Return the newest head of a log that a trust policy accepts; raise as reading a log."""
    head = log.signed_checkpoint() if trust.quorum is None else log.cosigned_checkpoint()
    open_witnessed(head.note, trust)
    return head


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


def _read(asked: Asked, log: Log, head: SignedCheckpoint, advance: Advance) -> tuple[Asked, list[OpenedEntry]]:
    size = head.checkpoint.size
    if isinstance(asked, range):
        return asked, _counted(log.at(head).entries(asked.start, asked.stop), advance)
    # What came later is not under the head.
    terms = {**asked, "before": min(int(asked.get("before", size)), size)}
    found = log.search(**terms)
    if found.indexed < size:
        raise FetchError(f"the index of the log is behind: of {size} entries it knows {found.indexed}; try again later")
    return terms, _counted((opened for opened, _ in found), advance)[::-1]


def _counted(opened: Iterable[OpenedEntry], advance: Advance) -> list[OpenedEntry]:
    entries: list[OpenedEntry] = []
    for one in opened:
        entries.append(one)
        advance(1)
        if len(entries) > MAX_ENTRIES:
            raise MalformedError(f"a bundle has at most {MAX_ENTRIES} entries; export fewer")
    return entries


def _reserved(name: str, segment: str, log: Log, trust: TrustPolicy, advance: Advance) -> list[Part]:
    head, requests = head_of(log, trust), set[str]()
    entries = (
        one
        for one in log.at(head).entries(0, None)
        if one.payload_type == JSON_TYPE and about_segment(one.event(), segment, requests)
    )
    opened = _counted(entries, advance)
    return [_part(name, log, head, opened)] if opened else []


def _part(name: str, log: Log, head: SignedCheckpoint, opened: Sequence[OpenedEntry]) -> Part:
    if not opened:
        raise MalformedError("there is no entry to export; ask for others")
    return make_part(name, head.note, log.at(head).prove_subset([one.index for one in opened]), opened)


def _bundle(asked: Asked, origin: str, parts: Sequence[Part], exporter: Exporter) -> bytes:
    members = [
        member(POLICY, bytes(exporter.trust)),
        *(one for part in parts for one in part.members()),
        member(PAGE, exporter.page),
    ]
    manifest = bytes(Manifest(asked, exporter.at, exporter.by, listed(members), origin, exporter.tool))
    return format_archive([member(NAME, manifest), *members], comment_of(manifest))
