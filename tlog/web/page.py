"""What all pages share: the frame, the headers, how an error looks, and how values are put into text."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from flask import Response, g, request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tlog.access import ANONYMOUS, Action
from tlog.access.action import CONTROL
from tlog.access.rule import Target
from tlog.api.answer import OPAQUE, SECRET, answer
from tlog.api.body import FORM_TOKEN, FORM_TYPE
from tlog.api.models import Problem
from tlog.api.route import Call, Route
from tlog.sessions import COOKIE
from tlog.web.assets import assets
from tlog.web.visible import visible
from tlog_core.encoding import encode_base64
from tlog_core.errors import MalformedError

HTML: Final = "text/html; charset=utf-8"
SIGN_IN: Final = "/web/sign-in"

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = (
    ("Content-Security-Policy", _POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)


def page(call: Call, template: str, *, status: int = 200, **values: Any) -> Response:
    """Return a page: a template, in the frame, with these values."""
    caller, guard = call.caller, call.services.guard
    frame = {
        "who": None if caller.principal is ANONYMOUS else caller.principal.name,
        "unguarded": guard.unguarded,
        "administers": guard.may(caller, Action.READ_POLICY, Target(CONTROL)),
        "form_token": Markup('<input type="hidden" name="{}" value="{}">').format(FORM_TOKEN, _form_token(call)),
    }
    return html(template, status=status, **frame, **values)


def html(template: str, *, status: int = 200, **values: Any) -> Response:
    """Return a template as a page, without what the frame says of who asks."""
    text = _environment().get_template(template).render(here=request.path, **values)
    return answer(text.encode("utf-8", "replace"), HTML, status=status, caching=SECRET, more=_HEADERS)


def attached(data: bytes, name: str, kind: str = OPAQUE) -> Response:
    """Return bytes as a file of this name, which no browser shows."""
    more = [("Content-Disposition", f'attachment; filename="{name}"'), *_HEADERS]
    return answer(data, kind, caching=SECRET, more=more)


def redirect(place: str) -> Response:
    """Return what sends a browser to another page of ours."""
    return answer(b"", HTML, status=HTTPStatus.SEE_OTHER, caching=SECRET, more=[("Location", place), *_HEADERS])


def set_cookie(response: Response, name: str, value: str, *, seconds: int | None, same_site: str) -> None:
    """Give a browser a cookie that goes to this host only, over TLS, and to no script."""
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite=same_site)


def refused(problem: Problem) -> Response:
    """Return an error as a page; who is not signed in is sent to where they can do so, if they follow a link."""
    if problem.status == HTTPStatus.UNAUTHORIZED and request.method == "GET":
        if request.environ.get("HTTP_SEC_FETCH_SITE") == "cross-site":
            # Browsers keep a strict cookie back when a link of another site is followed, and send it from here on. It
            # does not go on by itself: what is read goes on record under a name whose owner may not have meant to.
            return html("arrived.html", to=_asked(), said="You come from another site.", goes_on=False)
        return redirect(f"{SIGN_IN}?next={quote(_asked(), safe='')}")
    return html("problem.html", status=problem.status, problem=problem)


def shown(path: str, action: Action, view: Callable[..., Response], summary: str, **more: Any) -> Route:
    """Return the route of a page."""
    return Route("GET", path, action, view, summary, gives={200: "text/html"}, refuse=refused, **more)


def form(path: str, action: Action, view: Callable[..., Response], summary: str, **more: Any) -> Route:
    """Return the route that a form of a page is sent to."""
    takes: Mapping[str, Any] = {FORM_TYPE: str}
    gives = {200: "text/html"}
    return Route("POST", path, action, view, summary, gives=gives, takes=takes, form=True, refuse=refused, **more)


def field(name: str) -> str:
    """Return what stands in a field of the form that was sent; MalformedError if it has none of this name."""
    if name not in g.form:
        raise MalformedError(f"the form has no field {name}; open its page again, and send it from there")
    return str(g.form[name])


def _form_token(call: Call) -> str:
    return call.services.guard.sessions.form_token(request.cookies.get(COOKIE, ""))


def _asked() -> str:
    return request.full_path.removesuffix("?")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tlog.web"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_put,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = assets().path
    environment.filters.update(base64=encode_base64, count=_count, number=_number, size=_size)
    environment.filters.update(time=_time, day=_day, ago=_ago, lines=_lines)
    return environment


def _put(value: Any) -> Any:
    """Return a value as it is put into a page: markup as it is, all else with hidden characters made visible."""
    return value if isinstance(value, Markup) else visible(str(value))


def _lines(text: str) -> Markup:
    """Return text whose lines stay lines."""
    return Markup("{}").format(visible(text, keep="\n"))


def _count(number: int) -> str:
    return f"{number:,}"


def _size(size: float) -> str:
    """Return how many bytes that are, in the largest unit of which there is one."""
    for power, name in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:,.1f}".removesuffix(".0") + f" {name}"
    return f"{size:.0f} bytes"


def _number(value: float) -> str:
    """Return a number that may have a fraction, with three figures of it."""
    return f"{int(value):,}" if value == int(value) else f"{value:.3g}"


def _time(milliseconds: int) -> Markup:
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError):
        # An event may say that it is of any year.
        return Markup("{} ms").format(milliseconds)
    said = moment.replace(tzinfo=None).isoformat(" ", "seconds")
    return Markup('<time datetime="{}">{}\u00a0UTC</time>').format(moment.isoformat(timespec="milliseconds"), said)


def _day(milliseconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError):
        return f"{milliseconds} ms"


def _ago(milliseconds: int, now: int) -> str:
    """Return how long ago that was, in the largest unit of which there are two, or in seconds."""
    seconds = max(now - milliseconds, 0) // 1000
    for name, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {name} ago"
    return f"{seconds} s ago"
