"""Searching entries by who did what, and by words (spec/search.md)."""

from collections.abc import Mapping

import msgspec
from flask import Response

from tlog.api.answer import SECRET, json_answer, page
from tlog.api.models import FoundEntries, FoundEntry
from tlog.api.reading import search
from tlog.api.route import Call
from tlog.config import DEFAULT_PAGE, MAX_PAGE
from tlog.search.find import Found, Hit
from tlog.store.codec import Payload
from tlog_core.encoding import encode_base64
from tlog_core.merkle import NodeReader
from tlog_core.proof import prove_inclusion
from tlog_core.receipt import JSON_TYPE


def answer_search(call: Call, given: Mapping[str, str]) -> Response:
    """Answer `GET /segments/<name>/entries` with any of the parameters of a search."""
    found = search(call, given, page(given, default=DEFAULT_PAGE, most=MAX_PAGE))
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
