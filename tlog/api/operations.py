"""What operators and their tools ask: liveness, readiness, metrics, and the API's own description."""

from flask import Response

from tlog.access import Action
from tlog.api.answer import TEXT, answer
from tlog.api.openapi import describe
from tlog.api.route import Call, Route, Services
from tlog.errors import FullError, UnavailableError
from tlog.store.connection import DatabaseError
from tlog_core.receipt import JSON_TYPE

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def healthz(_call: Call) -> Response:
    """Answer `GET /healthz`: the process lives."""
    return answer(b"ok\n", TEXT)


def readyz(call: Call) -> Response:
    """Answer `GET /readyz`: the control database answers, and whether more than reads can be served."""
    try:
        call.services.segments.list(limit=1)
    except DatabaseError as error:
        raise UnavailableError(f"the control database does not answer: {error}") from error
    try:
        call.services.room.check()
    except FullError as error:
        # Not 503: whoever takes a server out for that would keep readers from what is there.
        return answer(f"ready for reads only: {error}\n".encode(), TEXT)
    return answer(b"ready\n", TEXT)


def metrics(call: Call) -> Response:
    """Answer `GET /metrics`."""
    return answer(counted(call.services), _METRICS_TYPE)


def counted(services: Services) -> bytes:
    """Return the metrics as they are now, in Prometheus' text format."""
    services.journal.write_up()
    room = services.room
    services.metrics.disk(room.free(), room.reserve, room.largest_wal())
    return services.metrics.text()


def openapi(call: Call) -> Response:
    """Answer `GET /openapi.json`."""
    return answer(describe(call.services.routes, guarded=not call.services.guard.unguarded), JSON_TYPE)


ROUTES = (
    Route("GET", "/healthz", Action.OPERATE, healthz, "Say that the process lives", gives={200: "text/plain"}),
    Route(
        "GET",
        "/readyz",
        Action.OPERATE,
        readyz,
        "Say whether requests can be served",
        gives={200: "text/plain"},
    ),
    Route("GET", "/metrics", Action.READ_METRICS, metrics, "Metrics for Prometheus", gives={200: "text/plain"}),
    Route("GET", "/openapi.json", Action.OPERATE, openapi, "Describe this API", gives={200: "application/json"}),
)
