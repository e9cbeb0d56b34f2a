"""The segments that one may see, and one of them."""

from dataclasses import replace
from typing import Final

from flask import Response, request

from tlog.access import Action
from tlog.access.action import RESERVED
from tlog.api.answer import query
from tlog.api.route import Call
from tlog.api.segments import page_of_rows
from tlog.errors import CorruptError, NotFoundError
from tlog.web.chart import Chart, chart
from tlog.web.overview import Overview, control_row, growth, overview, overview_of, with_monitors
from tlog.web.page import page, redirect, shown
from tlog.web.sign_in import HOME

_PAGE: Final = 50


def listing(call: Call) -> Response:
    """Answer `GET /web/`: the segments that who asks may see."""
    after = query(request, "after").get("after", "")
    rows, following = page_of_rows(call, after, _PAGE)
    found = [overview(call.services, row) for row in rows]
    return page(
        call,
        "segments.html",
        segments=[one for one in found if one.row.name not in RESERVED],
        reserved=[one for one in found if one.row.name in RESERVED],
        after=after,
        next=following,
        now=call.services.control.now(),
    )


def one(call: Call) -> Response:
    """Answer `GET /web/segments/<name>`."""
    now = call.services.control.now()
    segment, drawn = _grown(call, now)
    may = {
        action.name: call.services.guard.may(call.caller, action, call.target)
        for action in (Action.READ_PAYLOAD, Action.READ_CHECKPOINT, Action.READ_TILE)
    }
    return page(
        call,
        "segment.html",
        segment=segment,
        chart=drawn,
        may=may,
        now=now,
    )


def _grown(call: Call, now: int) -> tuple[Overview, Chart | None]:
    """Return how the segment of a page stands, and the picture of its growth, if its entries can be read for one."""
    found = with_monitors(call, call.segment, overview_of(call.services, call.segment, control_row(call)))
    try:
        return found, chart(growth(call.segment), now)
    except CorruptError as error:
        return replace(found, state="damaged", reason=found.reason or str(error)), None


def home(_call: Call) -> Response:
    """Answer `GET /` and `GET /web`."""
    return redirect(HOME)


def nowhere(_call: Call, rest: str) -> Response:
    """Answer `GET /web/<any other path>`; NotFoundError."""
    raise NotFoundError(f"there is no page {rest}")


ROUTES = (
    shown("/", Action.OPERATE, home, "Go to the pages"),
    # Of itself the framework would send who asks for this to a host that it makes up.
    shown("/web", Action.OPERATE, home, "Go to the pages"),
    shown("/web/", Action.LIST_SEGMENTS, listing, "The segments that one may see", query=("after",)),
    shown("/web/segments/<segment>", Action.READ_SEGMENT, one, "One segment"),
    shown("/web/<path:rest>", Action.OPERATE, nowhere, "No page"),
)
