"""What a route is: its path, what it lets one do, and what it takes and gives."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from flask import Flask, Request, Response, g, request

from tlog.access import Action
from tlog.access.rule import Target
from tlog.access.sign_in import SignIns
from tlog.api.body import ANY_TYPE, FORM_TOKEN, check_body, discard_body, is_large, read_form, receive_body
from tlog.api.models import Problem
from tlog.api.site import check_host, check_site, takes_session
from tlog.bulletins import Bulletins
from tlog.canonical import Canonicalizer
from tlog.config import MAX_BATCH_BYTES
from tlog.control import Control
from tlog.errors import BusyError, ConfigError, QuotaError
from tlog.fsck.scrub import Scrub
from tlog.guard import Caller, Guard
from tlog.intake import Intake
from tlog.journal import Journal
from tlog.memory import give_back
from tlog.metrics import Metrics
from tlog.places import Places
from tlog.reads import Reads
from tlog.room import Room
from tlog.search.indexes import Indexes
from tlog.segments import Segment, Segments
from tlog.sessions import COOKIE
from tlog.turns import Turns
from tlog.witnesses.asker import Asker
from tlog_core.errors import TlogError

_REFUSED_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Services:
    """What views call upon."""

    segments: Segments
    control: Control
    guard: Guard
    sign_ins: SignIns
    intake: Intake
    reads: Reads
    indexes: Indexes
    asker: Asker | None
    bulletins: Bulletins
    scrub: Scrub | None
    room: Room
    metrics: Metrics
    journal: Journal
    reading: Turns
    syncing: Turns
    working: Turns
    large: Places
    large_turns: Turns
    receiving: Places
    strangers: Places
    discarding: Places
    pauses: Places
    canonicalize: Canonicalizer
    routes: "tuple[Route, ...]"


@dataclass(frozen=True, slots=True)
class Route:
    """One route. If its path has a `<segment>`, that segment is open while the view runs, unless it `opens` none.

    `takes` are models by media type; `gives`, by status, the models of which one comes as JSON, or another media type.
    `headers` are those that it reads, and whether it needs each.
    One that `grows` takes in more than what ends or closes something, and only while the disk has room.
    For a route that makes a segment, `labels` reads from the request which it is to have.
    A body has at most so many bytes as `most`, and may come `chunked`, if of what breaks off that can be told.
    A `form` is one of a page: it is taken from a browser's session, and carries its token.
    Errors come as problem documents, or as `refuse` puts one, which is JSON of the model `refusal`, if there is one.
    """

    method: str
    path: str
    action: Action
    view: Callable[..., Response]
    summary: str
    gives: Mapping[int, str | tuple[type, ...]]
    takes: Mapping[str, Any] = field(default_factory=dict)
    query: tuple[str, ...] = ()
    headers: Mapping[str, bool] = field(default_factory=dict)
    opens: bool = True
    grows: bool = False
    labels: Callable[[], Mapping[str, str]] | None = None
    most: int = MAX_BATCH_BYTES
    chunked: bool = False
    form: bool = False
    refuse: Callable[[Problem], Response] | None = None
    refusal: Any = None

    @property
    def syncs(self) -> bool:
        """Whether the disk may sync something before the answer: reads are recorded, heads put in the anchor."""
        return self.method != "GET" or self.action in (Action.READ_PAYLOAD, Action.READ_CHECKPOINT)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that may be answered: who asks, and the segment of the path, open while the view runs."""

    caller: Caller
    services: Services
    opened: Segment | None

    @property
    def target(self) -> Target:
        """The segment of the path, of a route that has one."""
        if self.caller.target is None:
            raise AssertionError("the route names no segment")
        return self.caller.target

    @property
    def segment(self) -> Segment:
        """The open segment, of a route that opens one."""
        if self.opened is None:
            raise AssertionError("the route opens no segment")
        return self.opened


def register(app: Flask, route: Route, services: Services) -> None:
    """Put a route behind the choke point: nothing of it runs before `authorize` has returned."""

    def handle(segment: str | None = None, **arguments: str) -> Response:
        # Behind the proxy, once: each look through it costs as much as a method call.
        asked = request._get_current_object()  # type: ignore[attr-defined]
        if route.refuse is not None:
            g.refuse = route.refuse
        if not is_large(asked):
            return work(_admit(asked, route, segment, services), segment, arguments)
        with services.large.take():
            caller = _admit(asked, route, segment, services)
            with services.large_turns.take():
                try:
                    return work(caller, segment, arguments)
                finally:
                    # Each thread would keep what it took for the largest that it ever had.
                    give_back()

    def work(caller: Caller, segment: str | None, arguments: Mapping[str, str]) -> Response:
        if not route.syncs:
            with services.reading.take():
                return view(caller, segment, arguments)
        with services.syncing.take(), services.working.take():
            return view(caller, segment, arguments)

    def view(caller: Caller, segment: str | None, arguments: Mapping[str, str]) -> Response:
        if segment is None or not route.opens:
            return route.view(Call(caller, services, None), **arguments)
        with services.segments.use(segment) as opened:
            return route.view(Call(caller, services, opened), **arguments)

    endpoint = f"{route.method} {route.path}"
    app.add_url_rule(
        route.path, endpoint.replace(".", "-"), handle, methods=[route.method], provide_automatic_options=False
    )


def _admit(asked: Request, route: Route, segment: str | None, services: Services) -> Caller:
    """Return who asks, with the body in memory, if the route takes one."""
    # Whoever sends slowly keeps a thread waiting, one of so many, but no turn.
    labels = None if route.labels is None else services.receiving.bound(route.labels)
    try:
        # Of the headers alone, and so the same whatever there is.
        if services.guard.unguarded:
            check_host(asked)
        if route.method != "GET":
            check_site(asked)
        # Who is to lose nothing is sent whatever it is.
        check_body(asked, (ANY_TYPE,) if route.action is Action.INGEST else route.takes)
        browser = "HTTP_COOKIE" in asked.environ and (route.form or route.method == "GET") and takes_session(asked)
        caller = services.guard.authorize(asked, route.action, segment, labels, browser=browser)
        if route.action not in (Action.OPERATE, Action.INGEST):
            g.caller = caller
        if route.grows:
            services.room.check()
        if route.takes and labels is None:
            # Whom nobody knows keeps nobody waiting whom somebody does.
            with (services.strangers if route.action is Action.OPERATE else services.receiving).take():
                receive_body(asked, route.most, chunked=route.chunked)
        if route.form:
            g.form = read_form(asked, route.most)
            services.guard.sessions.check_form(asked.cookies.get(COOKIE, ""), g.form.pop(FORM_TOKEN, ""))
        return caller
    except TlogError as error:
        with suppress(BusyError), services.discarding.take():
            discard_body(asked)
        if isinstance(error, QuotaError):
            # Who asks again at once would cost others as much by being refused as by being served.
            with suppress(BusyError), services.pauses.take():
                time.sleep(_REFUSED_SECONDS)
        raise


def check_guarded(app: Flask, routes: Sequence[Route]) -> None:
    """Raise ConfigError if the app serves anything that did not pass `register`, or a route has no action."""
    without = [route.path for route in routes if not isinstance(route.action, Action)]
    strangers = {rule.rule for rule in app.url_map.iter_rules()} - {route.path for route in routes}
    if without or strangers:
        raise ConfigError(f"nobody decides who may use {', '.join([*without, *strangers])}; give each route its action")
