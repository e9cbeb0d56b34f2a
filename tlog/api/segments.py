"""Creating segments, and saying which there are."""

from itertools import islice

from flask import Response, g, request

from tlog.access import Action
from tlog.api.answer import json_answer, page, query
from tlog.api.body import read_model
from tlog.api.models import CreatedSegment, Frozen, ListedSegment, NewSegment, Segment, SegmentList
from tlog.api.route import Call, Route
from tlog.config import DEFAULT_PAGE, MAX_PAGE
from tlog.segments import Segment as Opened
from tlog.store.changes import SegmentRow


def create(call: Call) -> Response:
    """Answer `PUT /segments/<name>`."""
    target, wanted = call.target, _wanted()
    row, fresh = call.services.control.create_segment(
        call.caller.principal.name, target.segment, dict(target.labels), signed=wanted.signed
    )
    if fresh or call.services.guard.may_see(call.caller, row):
        with call.services.segments.use(row.name) as segment:
            response = json_answer(_segment(row, segment), status=201 if fresh else 200)
    else:
        # Who may make it, and not read it, hears no more than was said.
        response = json_answer(CreatedSegment(dict(row.labels), row.name, row.signed))
    response.headers["Location"] = f"/segments/{row.name}"
    return response


def listing(call: Call) -> Response:
    """Answer `GET /segments`: those that who asks may see."""
    given = query(request, "after", "limit")
    limit = page(given, default=DEFAULT_PAGE, most=MAX_PAGE)
    rows, following = page_of_rows(call, given.get("after", ""), limit)
    segments = [
        ListedSegment(row.created, dict(row.labels), row.name, row.origin, row.sealed, row.signed, row.vkey)
        for row in rows
    ]
    return json_answer(SegmentList(following, segments))


def describe(call: Call) -> Response:
    """Answer `GET /segments/<name>`."""
    return json_answer(_segment(call.services.control.store.find(call.segment.row.name), call.segment))


def seal(call: Call) -> Response:
    """Answer `PUT /segments/<name>/seal`."""
    row = call.services.control.seal_segment(call.caller.principal.name, call.segment.row.name)
    return json_answer(_segment(row, call.segment))


def requested_labels() -> dict[str, str]:
    """Return the labels that a segment is to have; raise MalformedError."""
    return _wanted().labels


def page_of_rows(call: Call, after: str, limit: int) -> tuple[list[SegmentRow], str | None]:
    """Return the segments behind `after` that who asks may see, and behind which to go on, if there are more."""
    every = call.services.segments.control.each(after=after)
    rows = list(islice((row for row in every if call.services.guard.may_see(call.caller, row)), limit + 1))
    return rows[:limit], rows[limit - 1].name if len(rows) > limit else None


def _wanted() -> NewSegment:
    # Access is decided by the labels, before the view runs, and the body can be read once.
    if "new_segment" not in g:
        g.new_segment = read_model(request, NewSegment, empty=NewSegment())
    wanted: NewSegment = g.new_segment
    return wanted


def _segment(row: SegmentRow, opened: Opened) -> Segment:
    found, size = opened.frozen(), opened.store.head().size
    frozen = None if found is None else Frozen(found.at, found.reason, found.size, found.witness)
    return Segment(row.created, frozen, dict(row.labels), row.name, row.origin, row.sealed, row.signed, size, row.vkey)


ROUTES = (
    Route(
        "PUT",
        "/segments/<segment>",
        Action.CREATE_SEGMENT,
        create,
        "Create a segment",
        gives={200: (Segment, CreatedSegment), 201: (Segment,)},
        takes={"application/json": NewSegment},
        opens=False,
        grows=True,
        labels=requested_labels,
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
    Route(
        "PUT",
        "/segments/<segment>/seal",
        Action.SEAL_SEGMENT,
        seal,
        "Seal a segment: it takes no more entries",
        gives={200: (Segment,)},
    ),
)
