"""Signing in at an issuer: there, and back with a code (spec/pages.md, "Signing in")."""

from http import HTTPStatus
from typing import Final

from flask import Response, request

from tlog.access import Action
from tlog.access.sign_in import SECONDS, Returned, not_begun, read_begun
from tlog.api.answer import query
from tlog.api.route import Call
from tlog.errors import BusyError, TooLargeError, UnauthorizedError, UnavailableError
from tlog.sessions import MAX_CREDENTIAL_BYTES
from tlog.web.page import html, redirect, shown
from tlog.web.sign_in import HOME, ask_again, begin, place_in

COOKIE: Final = "__Host-tlog-sign-in"
"""The name of the cookie of a sign-in that was begun."""


def start(call: Call) -> Response:
    """Answer `GET /web/sign-in/start`."""
    given = query(request, "issuer", "next")
    try:
        begun, url = call.services.sign_ins.begin(given.get("issuer", ""), place_in(given))
    except (BusyError, UnavailableError) as error:
        return ask_again(call, place_in(given), error, HTTPStatus.SERVICE_UNAVAILABLE)
    response = redirect(url)
    _keep(response, call.services.guard.sessions.seal(COOKIE, str(begun), SECONDS), SECONDS)
    return response


def come_back(call: Call) -> Response:
    """Answer `GET /web/sign-in/return`."""
    try:
        response = _end(call)
    except UnauthorizedError as error:
        response = ask_again(call, HOME, error, HTTPStatus.FORBIDDEN)
    except (BusyError, UnavailableError) as error:
        response = ask_again(call, HOME, error, HTTPStatus.SERVICE_UNAVAILABLE)
    # Whatever came of it: a code is used once.
    _keep(response, "", 0)
    return response


def _end(call: Call) -> Response:
    services = call.services
    try:
        begun = read_begun(services.guard.sessions.open(COOKIE, request.cookies.get(COOKIE, "")))
    except UnauthorizedError:
        raise not_begun() from None
    token = services.sign_ins.end(begun, _returned(), services.guard.holder)
    # Browsers send the session's cookie to no page that another site led them to: from this one they go on.
    arrived = html("arrived.html", to=begun.place, said="You are signed in.")
    try:
        return begin(call, arrived, token)
    except TooLargeError:
        raise UnauthorizedError(
            f"your issuer's ID token has {len(token)} bytes, and a session has room for {MAX_CREDENTIAL_BYTES}; "
            "have it put less into that, such as fewer groups, or sign in with a token"
        ) from None


def _returned() -> Returned:
    # Parameters that nobody knows are ignored (RFC 6749, section 4.1.2), and one that comes twice is none.
    given = {name: values[0] for name, values in request.args.to_dict(flat=False).items() if len(values) == 1}
    return Returned(given.get("state", ""), given.get("code", ""), given.get("error", ""), given.get("iss"))


def _keep(response: Response, value: str, seconds: int) -> None:
    response.set_cookie(COOKIE, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="Lax")


ROUTES = (
    shown("/web/sign-in/start", Action.OPERATE, start, "Go to an issuer to sign in", query=("issuer", "next")),
    shown("/web/sign-in/return", Action.OPERATE, come_back, "Come back from an issuer"),
)
