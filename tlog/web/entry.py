"""One entry of a segment, with its payload (spec/pages.md, "Entries")."""

import shlex
from dataclasses import asdict

from flask import Response, request

from tlog.access import Action
from tlog.api.answer import not_beyond, number
from tlog.api.reading import record_read
from tlog.api.route import Call
from tlog.errors import LostError
from tlog.search.find import Hit, read_back
from tlog.web.glance import fields_of, glance
from tlog.web.page import attached, page, shown
from tlog.web.payload import shown as printed
from tlog_core.encoding import encode_base64
from tlog_core.entry import parse_entry
from tlog_core.merkle import leaf_hash


def entry(call: Call, index: str) -> Response:
    """Answer `GET /web/segments/<name>/entries/<index>`."""
    place, size = _place(call, index)
    hits = _read(call, max(place - 1, 0), min(place + 2, size))
    hit, row = hits[place], call.segment.row
    return page(
        call,
        "entry.html",
        row=row,
        base=f"/web/segments/{row.name}/entries",
        index=place,
        size=size,
        fields={name: value for name, value in asdict(fields_of(hit.payload)).items() if value is not None},
        hit=hit,
        entry=parse_entry(hit.entry),
        printed=None if hit.payload.is_lost else printed(hit.payload),
        leaf=encode_base64(leaf_hash(hit.entry)),
        earlier=glance(hits[place - 1]) if place else None,
        later=glance(hits[place + 1]) if place + 1 < size else None,
        command=_command(call, place),
    )


def payload(call: Call, index: str) -> Response:
    """Answer `GET /web/segments/<name>/entries/<index>/payload`."""
    place, _ = _place(call, index)
    hit = _read(call, place, place + 1)[place]
    if hit.payload.is_lost:
        raise LostError(place, place + 1)
    return attached(hit.payload.data, f"{call.segment.row.name}-{place}.payload")


def _place(call: Call, index: str) -> tuple[int, int]:
    """Return the index of an entry that there is, and the size of the segment; NotFoundError."""
    place, size = number("index", index), call.segment.store.head().size
    not_beyond("index", place + 1, size)
    return place, size


def _read(call: Call, start: int, end: int) -> dict[int, Hit]:
    record_read(call, start, end)
    return {hit.index: hit for hit in read_back(call.segment, range(end - 1, start - 1, -1))}


def _command(call: Call, place: int) -> str:
    """Return the line that verifies an entry without this page."""
    url = f"{request.host_url}segments/{call.segment.row.name}"
    return shlex.join(["tlog-client", "get", "--url", url, "--key", call.segment.row.vkey, str(place)])


ROUTES = (
    shown("/web/segments/<segment>/entries/<index>", Action.READ_PAYLOAD, entry, "One entry"),
    shown(
        "/web/segments/<segment>/entries/<index>/payload",
        Action.READ_PAYLOAD,
        payload,
        "The payload of an entry, as a file",
    ),
)
