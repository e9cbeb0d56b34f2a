"""Searching entries by who did what, and by words (spec/search.md)."""

from collections.abc import Mapping
from typing import Final

import msgspec
from flask import Response

from tlog.api.answer import SECRET, json_answer, not_beyond, number, page
from tlog.api.models import FoundEntries, FoundEntry
from tlog.api.route import Call
from tlog.config import DEFAULT_PAGE, MAX_PAGE
from tlog.reads import Search
from tlog.search.find import Found, Hit, find
from tlog.search.terms import FIELDS, wanted
from tlog.store.codec import Payload
from tlog.store.search import Span
from tlog_core.encoding import encode_base64
from tlog_core.merkle import NodeReader
from tlog_core.proof import prove_inclusion
from tlog_core.receipt import JSON_TYPE

_SPAN: Final = ("since", "until", "before")
SEARCH: Final = (*FIELDS, "q", *_SPAN)
"""The parameters of a search; any of them makes it one."""


def search(call: Call, given: Mapping[str, str]) -> Response:
    """Answer `GET /segments/<name>/entries` with any of these parameters."""
    limit = page(given, default=DEFAULT_PAGE, most=MAX_PAGE)
    span = Span(**{name: number(name, given[name]) for name in ("start", *_SPAN) if name in given})
    not_beyond("start", span.start, call.segment.store.head().size)
    found = find(call.services.indexes, call.segment, wanted(given), span, limit)
    call.services.reads.record(_read(call, given, found))
    return json_answer(_answer(call, found), caching=SECRET)


def payload_json(payload: Payload) -> msgspec.Raw:
    """Return a payload as it stands in an answer: the JSON value itself, or base64."""
    is_json = payload.type == JSON_TYPE
    return msgspec.Raw(payload.data if is_json else f'"{encode_base64(payload.data)}"'.encode())


def _answer(call: Call, found: Found) -> FoundEntries:
    # Only now: the index may know of entries that came while it was looked through.
    head = call.segment.store.head()
    call.segment.settle(head)
    node = call.segment.nodes.at(head.size)
    entries = [_entry(hit, head.size, node) for hit in found.hits]
    return FoundEntries(head.note.decode(), entries, found.indexed, found.next, head.size)


def _entry(hit: Hit, size: int, node: NodeReader) -> FoundEntry:
    return FoundEntry(
        entry=hit.entry.decode(),
        index=hit.index,
        opening=hit.payload.opening,
        payload=payload_json(hit.payload),
        payload_type=hit.payload.type,
        proof=prove_inclusion(index=hit.index, size=size, node=node),
    )


def _read(call: Call, given: Mapping[str, str], found: Found) -> Search:
    return Search(
        by=call.caller.principal.name,
        segment=call.segment.row.name,
        search=dict(given),
        indexes=[hit.index for hit in found.hits],
        at=call.services.control.now(),
        policy=call.caller.policy_version,
    )
