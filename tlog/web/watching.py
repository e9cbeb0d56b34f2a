"""Watching: what witnesses say of the segments, what was found, and files that others bring (spec/pages.md)."""

from typing import Final

from flask import Response, request

from tlog.access import Action
from tlog.api.answer import query
from tlog.api.route import Call, Services
from tlog.api.segments import page_of_rows
from tlog.web.monitors import latest_of
from tlog.web.overview import Overview, watched
from tlog.web.page import page, shown
from tlog.witnesses.panel import trust_in

_PAGE: Final = 50
_LATE: Final = 3_600_000


def watching(call: Call) -> Response:
    """Answer `GET /web/watching`."""
    services, after = call.services, query(request, "after").get("after", "")
    rows, following = page_of_rows(call, after, _PAGE)
    now, keys = services.control.now(), services.bulletins.keys
    found = [watched(call, row) for row in rows]
    monitors = [each for one in found for each in one.monitors or ()]
    return page(
        call,
        "watching.html",
        segments=found,
        stopped=[one for one in found if one.state in ("frozen", "damaged")],
        late=[one for one in found if _is_late(one, now)],
        accused=[(one, each) for one in found for each in one.monitors or () if each.accuses],
        keys=keys,
        latest=[latest_of(key, monitors) for key in keys],
        panel=None if services.asker is None else services.asker.panel,
        witnesses=_witnesses_text(services),
        after=after,
        next=following,
        now=now,
    )


def _is_late(found: Overview, now: int) -> bool:
    return found.waits is not None and now - found.waits > _LATE


def _witnesses_text(services: Services) -> str:
    """Return what a trust policy says of the witnesses that are asked."""
    panel = None if services.asker is None else services.asker.panel
    return bytes(trust_in(panel)).decode("utf-8", "surrogateescape")


ROUTES = (shown("/web/watching", Action.LIST_SEGMENTS, watching, "Who watches, and what they found", query=("after",)),)
