"""Creating segments, and saying which there are."""

import msgspec
from flask import Response, request

from tlog.access import Action
from tlog.api.answer import json_answer, page, query
from tlog.api.body import read_body
from tlog.api.models import ListedSegment, NewSegment, Segment, SegmentList
from tlog.api.route import Call, Route, Services
from tlog.config import DEFAULT_PAGE, MAX_PAGE
from tlog.store.control import SegmentRow
from tlog_core.encoding import parse_json
from tlog_core.errors import MalformedError


def create(services: Services, name: str) -> Response:
    """Answer `PUT /segments/<name>`."""
    row, fresh = services.segments.create(name, _labels(read_body(request)))
    with services.segments.use(name) as segment:
        response = json_answer(_segment(row, segment.store.head().size), status=201 if fresh else 200)
    response.headers["Location"] = f"/segments/{name}"
    return response


def listing(services: Services) -> Response:
    """Answer `GET /segments`."""
    given = query(request, "after", "limit")
    limit = page(given, default=DEFAULT_PAGE, most=MAX_PAGE)
    rows = services.segments.list(after=given.get("after", ""), limit=limit + 1)
    segments = [ListedSegment(row.created, dict(row.labels), row.name, row.origin, row.vkey) for row in rows[:limit]]
    return json_answer(SegmentList(segments[-1].name if len(rows) > limit else None, segments))


def describe(call: Call) -> Response:
    """Answer `GET /segments/<name>`."""
    return json_answer(_segment(call.segment.row, call.segment.store.head().size))


def _labels(body: bytes) -> dict[str, str]:
    if not body:
        return {}
    try:
        return msgspec.convert(parse_json(body), NewSegment, strict=True).labels
    except msgspec.ValidationError as error:
        raise MalformedError(f'the body is empty or {{"labels": {{…}}}}: {error}') from None


def _segment(row: SegmentRow, size: int) -> Segment:
    return Segment(row.created, dict(row.labels), row.name, row.origin, size, row.vkey)


ROUTES = (
    Route(
        "PUT",
        "/segments/<segment>",
        Action.CREATE_SEGMENT,
        create,
        "Create a segment",
        gives={200: (Segment,), 201: (Segment,)},
        takes={"application/json": NewSegment},
        opens=False,
    ),
    Route(
        "GET",
        "/segments",
        Action.LIST_SEGMENTS,
        listing,
        "List segments",
        gives={200: (SegmentList,)},
        query=("after", "limit"),
    ),
    Route(
        "GET",
        "/segments/<segment>",
        Action.READ_SEGMENT,
        describe,
        "Describe a segment",
        gives={200: (Segment,)},
    ),
)
