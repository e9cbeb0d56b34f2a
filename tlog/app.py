"""The WSGI app: the one place where the parts are wired together."""

import os
import re
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec
from flask import Flask, Request, Response, g, request
from structlog.typing import FilteringBoundLogger
from werkzeug.exceptions import NotFound
from werkzeug.routing import MapAdapter

from tlog.access.fetch import fetch_document, post_form
from tlog.access.issuer import parse_issuers
from tlog.access.oidc import Oidc
from tlog.access.sign_in import SignIns
from tlog.api import access, bulletins, entries, operations, proofs, segments, tiles
from tlog.api.problems import register_problems
from tlog.api.route import Services, check_guarded, register
from tlog.bulletins import Bulletins, read_monitor_keys
from tlog.canonical import Canonicalizer
from tlog.clock import now
from tlog.config import (
    LARGE_SECONDS,
    LARGE_TURNS,
    MAX_BATCH_BYTES,
    MAX_DISCARDING,
    MAX_LARGE,
    MAX_STRANGERS,
    MAX_WAITING,
    PLACE_SECONDS,
    SYNC_TURNS,
    TURN_SECONDS,
    TURNS,
    WORK_TURNS,
    Config,
    from_environment,
)
from tlog.control import Control
from tlog.files import lock_data
from tlog.fsck.scrub import Scrub
from tlog.guard import Guard, body_length
from tlog.intake import Intake
from tlog.journal import Answered, Journal
from tlog.logs import make_logger, write_lines
from tlog.metrics import Metrics
from tlog.peers import Peers, read_peers
from tlog.places import Places
from tlog.reads import Reads
from tlog.receivers import RECEIVERS
from tlog.room import Room
from tlog.routing import Routing, read_routing
from tlog.sealing import Sealing
from tlog.search.follow import Follower
from tlog.search.indexes import Indexes
from tlog.segments import Segments, is_name, prepare_data
from tlog.sessions import Sessions, session_key
from tlog.turns import Turns
from tlog.web import PAGES
from tlog.witnesses.agenda import Agenda, Told
from tlog.witnesses.asker import Asker
from tlog.witnesses.confirmed import Confirmed
from tlog.witnesses.panel import read_panel

# There is none so long; what is made up fills nobody's log.
_METHOD_LETTERS: Final = 16
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def create_app(config: Config | None = None, *, locked: bool = False, routing: Routing | None = None) -> Flask:
    """Return the app over a data folder, by default as the environment says (`config.from_environment`).

    For any WSGI server; call it after the server has forked. `locked` says that a parent process holds the folder's
    lock, and `routing` is what it read, once for all workers. Raises ConfigError if another server runs on the folder.
    """
    config = config or from_environment()
    _prepare_shapes(msgspec.Struct)
    app = _App("tlog", static_folder=None)
    # No redirects: a path is a route's own, or none's.
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = MAX_BATCH_BYTES
    if not locked:
        # Held until the process ends: the descriptor is deliberately never closed.
        app.config["LOCK"] = lock_data(config.lock, shared=True)
        prepare_data(config, None)
    log, metrics = make_logger(), Metrics()
    journal = Journal(write_lines, metrics)
    routes = (
        *segments.ROUTES,
        *entries.ROUTES,
        *tiles.ROUTES,
        *proofs.ROUTES,
        *bulletins.ROUTES,
        *access.ROUTES,
        *operations.ROUTES,
        *RECEIVERS,
    )
    opened, asker, peers = _open_segments(config, config.confirmed if locked else None, metrics, log)
    control = Control(config, opened, now)
    if not locked:
        control.take_issuers()
    # As they are on record, and not in the file, which may have changed since.
    issuers = parse_issuers(control.store.issuers().encode())
    oidc = Oidc(issuers, now, fetch_document)
    if asker is not None:
        asker.keep()
    scrub = Scrub(config, opened, metrics, log, now) if config.scrub_rate > 0 else None
    if scrub is not None:
        scrub.keep()
    if peers is not None:
        peers.keep(opened)
    Sealing(config, control, log).keep()
    room, indexes = Room(config.data, config.reserve), Indexes(config)
    Follower(config, opened, room, log).keep()
    sessions = Sessions(session_key(config.session_key), now)
    guard, canonicalize = Guard(config, control, oidc, sessions), Canonicalizer()
    services = Services(
        segments=opened,
        control=control,
        guard=guard,
        intake=Intake(guard, control, opened, indexes, routing or read_routing(config.routes), canonicalize),
        sign_ins=SignIns(() if config.unguarded else issuers, config.data, now, fetch_document, post_form),
        reads=Reads(opened),
        indexes=indexes,
        asker=asker,
        bulletins=Bulletins(read_monitor_keys(config.monitor_keys), log, now),
        scrub=scrub,
        room=room,
        metrics=metrics,
        journal=journal,
        reading=Turns(TURNS, TURN_SECONDS),
        syncing=Turns(SYNC_TURNS, TURN_SECONDS),
        working=Turns(WORK_TURNS),
        large=Places(MAX_LARGE, LARGE_SECONDS),
        large_turns=Turns(LARGE_TURNS),
        receiving=Places(MAX_WAITING, PLACE_SECONDS),
        strangers=Places(MAX_STRANGERS, PLACE_SECONDS),
        discarding=Places(MAX_DISCARDING),
        pauses=Places(MAX_WAITING),
        canonicalize=canonicalize,
        routes=routes,
    )
    opened.keep_house()
    services.guard.keep()
    journal.keep()
    app.config["SERVICES"] = services
    for route in (*routes, *PAGES):
        register(app, route, services)
    check_guarded(app, (*routes, *PAGES))
    register_problems(app, log)
    _observe(app, journal, services.guard)
    return app


def _open_segments(
    config: Config, confirmed_in: Path | None, metrics: Metrics, log: FilteringBoundLogger
) -> tuple[Segments, Asker | None, Peers | None]:
    """Return the segments, and who asks the witnesses and the peers about them, if there are any."""
    peers = None if config.peers is None else Peers(read_peers(config.peers), log, now)
    waits = [] if peers is None else [peers.wait]
    if config.witnesses is None:
        return Segments(config, metrics, now, _all_of(waits)), None, peers
    agenda, panel = Agenda(), read_panel(config.witnesses)
    confirmed = Confirmed(panel, agenda, confirmed_in)
    opened = Segments(config, Told(agenda, metrics), now, _all_of([confirmed.wait, *waits]))
    return opened, Asker(config, panel, opened, agenda, confirmed, metrics, log, now), peers


def _all_of(waits: Sequence[Callable[[str, float], bool]]) -> Callable[[str, float], bool]:
    return lambda segment, seconds: all(wait(segment, seconds) for wait in waits)


def _prepare_shapes(base: type[msgspec.Struct]) -> None:
    """Have msgspec make ready all that it may read, while there is one thread: two at once would crash the process."""
    for shape in base.__subclasses__():
        msgspec.json.Decoder(shape)
        _prepare_shapes(shape)


class _App(Flask):
    """Flask, less what plain functions at fixed paths have no use for: see `spec/decisions/0008-short-requests.md`."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return `func`: nothing here is asynchronous."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return what finds the route of a request, whatever host it names: no URL is built from it."""
        if request is None:
            return None
        # Flask would strip all but one, so that what a proxy refuses by its path would pass under another.
        # And of a target that is no path the server leaves none, which would be that of the first page.
        if re.match("/(?!/)", request.environ["PATH_INFO"]) is None:
            raise NotFound
        return MapAdapter(self.url_map, "localhost", "/", "", "http", request.path, request.method)


def _observe(app: Flask, journal: Journal, guard: Guard) -> None:
    """Give each request an ID, and note its answer; one that the server failed is counted on no quota."""
    # A fresh ID is this process and a number: unlike random bytes, it takes no system call.
    process, numbers = os.urandom(8).hex(), count()

    def begin() -> None:
        given = request.environ.get("HTTP_X_REQUEST_ID", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else f"{process}{next(numbers):016x}"
        g.began = time.perf_counter()

    def finish(response: Response) -> Response:
        # Behind the proxies, once: each look through one costs as much as a method call.
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        noted = g._get_current_object()
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR and "caller" in noted:
            guard.give_back(noted.caller, [(noted.caller.target, body_length(asked))])
        request_id = noted.request_id
        response.headers["X-Request-Id"] = request_id
        segment = (asked.view_args or {}).get("segment", "")
        journal.note(
            Answered(
                at=time.time(),
                method=asked.method[:_METHOD_LETTERS],
                route=asked.url_rule.rule if asked.url_rule else "none",
                # Whatever else stands there may be a secret in the wrong place.
                segment=segment if is_name(segment) else None,
                status=response.status_code,
                seconds=time.perf_counter() - noted.began,
                request_id=request_id,
            )
        )
        return response

    app.before_request(begin)
    app.after_request(finish)
