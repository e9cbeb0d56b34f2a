"""The WSGI app: the one place where the parts are wired together."""

import os
import re
import time
from typing import Final

from flask import Flask, Response, g, request
from structlog.typing import FilteringBoundLogger

from tlog.api import entries, operations, proofs, segments, tiles
from tlog.api.problems import register_problems
from tlog.api.route import Services, register
from tlog.canonical import Canonicalizer
from tlog.config import MAX_BATCH_BYTES, Config, from_environment
from tlog.files import lock_data
from tlog.logs import make_logger
from tlog.metrics import Metrics
from tlog.segments import Segments, prepare_data

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def create_app(config: Config | None = None, *, locked: bool = False) -> Flask:
    """Return the app over a data folder, by default as the environment says (`config.from_environment`).

    For any WSGI server; call it after the server has forked. `locked` says that a parent process holds the folder's
    lock. Raises ConfigError if another server runs on the folder.
    """
    config = config or from_environment()
    app = Flask("tlog", static_folder=None)
    # No redirects: a path is a route's own, or none's.
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = MAX_BATCH_BYTES
    if not locked:
        # Held until the process ends: the descriptor is deliberately never closed.
        app.config["LOCK"] = lock_data(config.lock, shared=True)
        prepare_data(config, None)
    log, metrics = make_logger(), Metrics()
    routes = (*segments.ROUTES, *entries.ROUTES, *tiles.ROUTES, *proofs.ROUTES, *operations.ROUTES)
    services = Services(Segments(config, metrics, _milliseconds), metrics, Canonicalizer(), routes)
    services.segments.keep_house()
    app.config["SERVICES"] = services
    for route in routes:
        register(app, route, services)
    register_problems(app, log)
    _observe(app, log, metrics)
    return app


def _observe(app: Flask, log: FilteringBoundLogger, metrics: Metrics) -> None:
    """Give each request an ID, and log and count its answer."""

    def begin() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        g.began = time.perf_counter()

    def finish(response: Response) -> Response:
        seconds = time.perf_counter() - g.began
        rule = request.url_rule.rule if request.url_rule else "none"
        response.headers["X-Request-Id"] = g.request_id
        metrics.answered(request.method, rule, response.status_code, seconds)
        log.info(
            "request",
            method=request.method,
            route=rule,
            segment=(request.view_args or {}).get("segment"),
            status=response.status_code,
            milliseconds=round(seconds * 1000, 3),
            request_id=g.request_id,
        )
        return response

    app.before_request(begin)
    app.after_request(finish)


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
