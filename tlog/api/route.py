"""What a route is: its path, what it lets one do, and what it takes and gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, request

from tlog.access import Action, Principal, authorize
from tlog.canonical import Canonicalizer
from tlog.journal import Journal
from tlog.metrics import Metrics
from tlog.segments import Segment, Segments


@dataclass(frozen=True, slots=True)
class Services:
    """What views call upon."""

    segments: Segments
    metrics: Metrics
    journal: Journal
    canonicalize: Canonicalizer
    routes: "tuple[Route, ...]"


@dataclass(frozen=True, slots=True)
class Route:
    """One route. If its path has a `<segment>`, the view gets that segment open, and else the services only.

    With `opens` false it gets the services and the segment's name. `takes` are models by media type; `gives`, by
    status, the models of which one comes as JSON, or another media type.
    """

    method: str
    path: str
    action: Action
    view: Callable[..., Response]
    summary: str
    gives: Mapping[int, str | tuple[type, ...]]
    takes: Mapping[str, Any] = field(default_factory=dict)
    query: tuple[str, ...] = ()
    opens: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """A request to a segment: the segment, open while the view runs, and who asks."""

    segment: Segment
    principal: Principal
    services: Services


def register(app: Flask, route: Route, services: Services) -> None:
    """Put a route behind the choke point: nothing of it runs before `authorize` has returned."""

    def handle(segment: str | None = None, **arguments: str) -> Response:
        principal = authorize(request, route.action, segment)
        if segment is None:
            return route.view(services, **arguments)
        if not route.opens:
            return route.view(services, segment, **arguments)
        with services.segments.use(segment) as opened:
            return route.view(Call(opened, principal, services), **arguments)

    endpoint = f"{route.method} {route.path}"
    app.add_url_rule(
        route.path, endpoint.replace(".", "-"), handle, methods=[route.method], provide_automatic_options=False
    )
