"""What operators and their tools ask: liveness, readiness, metrics, and the API's own description."""

from flask import Response

from tlog.access import Action
from tlog.api.answer import TEXT, answer
from tlog.api.openapi import describe
from tlog.api.route import Route, Services
from tlog.errors import UnavailableError
from tlog.store.connection import DatabaseError
from tlog_core.receipt import JSON_TYPE

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def healthz(_services: Services) -> Response:
    """Answer `GET /healthz`: the process lives."""
    return answer(b"ok\n", TEXT)


def readyz(services: Services) -> Response:
    """Answer `GET /readyz`: the control database answers."""
    try:
        services.segments.list(limit=1)
    except DatabaseError as error:
        raise UnavailableError(f"the control database does not answer: {error}") from error
    return answer(b"ready\n", TEXT)


def metrics(services: Services) -> Response:
    """Answer `GET /metrics`."""
    services.journal.write_up()
    return answer(services.metrics.text(), _METRICS_TYPE)


def openapi(services: Services) -> Response:
    """Answer `GET /openapi.json`."""
    return answer(describe(services.routes), JSON_TYPE)


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
    Route("GET", "/metrics", Action.OPERATE, metrics, "Metrics for Prometheus", gives={200: "text/plain"}),
    Route("GET", "/openapi.json", Action.OPERATE, openapi, "Describe this API", gives={200: "application/json"}),
)
