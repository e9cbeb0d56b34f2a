"""Signing in at an issuer: there, and back with a code (spec/pages.md, "Signing in")."""

from http import HTTPStatus
from typing import Final

from flask import Response, request

from tlog.access import Action
from tlog.access.sign_in import SECONDS, Begun, Returned, not_begun, read_begun
from tlog.api.answer import query
from tlog.api.route import Call
from tlog.errors import TooLargeError, UnauthorizedError
from tlog.sessions import MAX_CREDENTIAL_BYTES
from tlog.web.page import html, redirect, set_cookie, shown
from tlog.web.sign_in import HOME, ask_again, begin, place_in

COOKIE: Final = "__Host-tlog-sign-in"
"""The name of the cookie of a sign-in that was begun."""

_TOO_LARGE: Final = (
    f"the issuer's ID token has more than {MAX_CREDENTIAL_BYTES} bytes, for which a session has no room; "
    "have the issuer put less into it, such as fewer groups, or sign in with a token"
)


def start(call: Call) -> Response:
    """Answer `GET /web/sign-in/start`."""
    given = query(request, "issuer", "next")
    begun, url = call.services.sign_ins.begin(given.get("issuer", ""), place_in(given))
    response = redirect(url)
    _keep(response, call.services.guard.sessions.seal(COOKIE, str(begun), SECONDS), SECONDS)
    return response


def come_back(call: Call) -> Response:
    """Answer `GET /web/sign-in/return`."""
    place = HOME
    try:
        begun = _begun(call)
        place = begun.place
        token = call.services.sign_ins.end(begun, _returned(), call.services.guard.holder)
        # Browsers send the session's cookie to no page that another site led them to: from this one they go on.
        response = begin(call, html("arrived.html", to=place, said="You are signed in.", goes_on=True), token)
    except UnauthorizedError as error:
        response = ask_again(call, place, error, HTTPStatus.FORBIDDEN)
    except TooLargeError:
        response = ask_again(call, place, TooLargeError(_TOO_LARGE), HTTPStatus.FORBIDDEN)
    # Whatever came of it: a code is used once.
    _keep(response, "", 0)
    return response


def _begun(call: Call) -> Begun:
    try:
        return read_begun(call.services.guard.sessions.open(COOKIE, request.cookies.get(COOKIE, "")))
    except UnauthorizedError:
        raise not_begun() from None


def _returned() -> Returned:
    # Parameters that nobody knows are ignored (RFC 6749, section 4.1.2), and one that comes twice is none.
    given = {name: values[0] for name, values in request.args.to_dict(flat=False).items() if len(values) == 1}
    return Returned(given.get("state", ""), given.get("code", ""), given.get("error", ""), given.get("iss"))


def _keep(response: Response, value: str, seconds: int) -> None:
    set_cookie(response, COOKIE, value, seconds=seconds, same_site="Lax")


ROUTES = (
    shown("/web/sign-in/start", Action.OPERATE, start, "Go to an issuer to sign in", query=("issuer", "next")),
    shown("/web/sign-in/return", Action.OPERATE, come_back, "Come back from an issuer"),
)
