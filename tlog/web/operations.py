"""What who runs the log looks at: segments, the disk, the scrub, quotas, metrics (spec/pages.md, "Operations")."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from flask import Response, request

from tlog.access import Action
from tlog.access.document import read_policy
from tlog.access.rule import Each, Quota
from tlog.access.wording import members
from tlog.api.answer import query
from tlog.api.operations import counted
from tlog.api.route import Call, Services
from tlog.api.segments import page_of_rows
from tlog.errors import CorruptError, FrozenError, UnavailableError
from tlog.guard import Guard
from tlog.store.changes import SegmentRow
from tlog.web.figures import tables
from tlog.web.overview import Overview, overview, overview_of
from tlog.web.page import page, shown
from tlog.web.policy import rights

_PAGE: Final = 50
_MAX_DRAWN: Final = 20_000


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A segment as it stands, and how many bytes its database has; None if it cannot be opened."""

    overview: Overview
    stored: int | None


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A quota, what the policy says of it, how much of it is used now, from 0 to 1, and by whom that draws most.

    `used` is None where there are too many to look at.
    """

    name: str
    says: str
    used: float | None
    by: str


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
        quotas=_drawn(services, read_policy(document.encode()).quotas, [row.name for row in rows]),
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
    try:
        with services.segments.use(row.name) as segment:
            return _Weighed(overview_of(services, segment, row), segment.store.stored_bytes())
    except (CorruptError, FrozenError, UnavailableError):
        return _Weighed(overview(services, row), None)


def _drawn(services: Services, quotas: Sequence[Quota], segments: Sequence[str]) -> list[_Drawn]:
    people = sorted({one.name for one in services.control.store.holders(services.control.now())})
    each: dict[Each | None, Sequence[str]] = {Each.PRINCIPAL: people, Each.SEGMENT: segments, None: [""]}
    if len(quotas) * max(len(people), len(segments)) > _MAX_DRAWN:
        return [_Drawn(quota.name, members(quota), None, "") for quota in quotas]
    return [_Drawn(quota.name, members(quota), *_most(services.guard, quota, each[quota.each])) for quota in quotas]


def _most(guard: Guard, quota: Quota, names: Iterable[str]) -> tuple[float, str]:
    used, by = max(((guard.used(quota, name), name) for name in names), default=(0.0, ""))
    return used, by if used else ""


ROUTES = (
    shown("/web/operations", Action.READ_POLICY, summary, "What who runs the log looks at", query=("after",)),
    shown("/web/operations/metrics", Action.READ_METRICS, metrics, "Metrics, in tables"),
)
