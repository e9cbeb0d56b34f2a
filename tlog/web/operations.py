"""What who runs the log looks at: segments, the disk, the scrub, quotas, metrics (spec/pages.md, "Operations")."""

from dataclasses import dataclass
from typing import Final

from flask import Response, request

from tlog.access import Action
from tlog.access.document import read_policy
from tlog.access.wording import members
from tlog.api.answer import query
from tlog.api.operations import counted
from tlog.api.route import Call, Services
from tlog.api.segments import page_of_rows
from tlog.errors import CorruptError, FrozenError, UnavailableError
from tlog.store.changes import SegmentRow
from tlog.web.figures import tables
from tlog.web.overview import Overview, overview
from tlog.web.page import page, shown
from tlog.web.policy import rights

_PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A segment as it stands, and how many bytes its database has; None if it cannot be opened."""

    overview: Overview
    stored: int | None


def summary(call: Call) -> Response:
    """Answer `GET /web/operations`."""
    services, after = call.services, query(request, "after").get("after", "")
    rows, following = page_of_rows(call, after, _PAGE)
    version, document = services.control.store.policy()
    return page(
        call,
        "operations.html",
        segments=[_weighed(services, row) for row in rows],
        after=after,
        next=following,
        log_name=services.control.store.log_name(),
        version=version,
        quotas=[(quota.name, members(quota)) for quota in read_policy(document.encode()).quotas],
        room=services.room,
        scrub=None if services.scrub is None else services.scrub.progress(),
        now=services.control.now(),
        **rights(call),
    )


def metrics(call: Call) -> Response:
    """Answer `GET /web/operations/metrics`."""
    found, now = tables(counted(call.services)), call.services.control.now()
    return page(call, "metrics.html", tables=found, now=now, **rights(call))


def _weighed(services: Services, row: SegmentRow) -> _Weighed:
    found = overview(services, row)
    try:
        with services.segments.use(row.name) as segment:
            return _Weighed(found, segment.store.stored_bytes())
    except (CorruptError, FrozenError, UnavailableError):
        return _Weighed(found, None)


ROUTES = (
    shown("/web/operations", Action.READ_POLICY, summary, "What who runs the log looks at", query=("after",)),
    shown("/web/operations/metrics", Action.READ_METRICS, metrics, "Metrics, in tables"),
)
