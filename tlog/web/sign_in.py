"""Signing in with a token, and out (spec/pages.md, "Signing in")."""

import re
from http import HTTPStatus
from typing import Final

from flask import Response, g, request

from tlog.access import Action
from tlog.api.answer import query
from tlog.api.route import Call
from tlog.config import MAX_FORM_BYTES
from tlog.errors import UnauthorizedError
from tlog.sessions import COOKIE
from tlog.web.page import SIGN_IN, form, page, redirect, set_cookie, shown
from tlog_core.errors import TlogError

HOME: Final = "/web/"

_OURS: Final = re.compile(r"/web/[!-\[\]-~]{0,1000}")


def ask(call: Call) -> Response:
    """Answer `GET /web/sign-in`."""
    return _page(call, place_in(query(request, "next")), None, HTTPStatus.OK)


def ask_again(call: Call, place: str, error: TlogError, status: HTTPStatus) -> Response:
    """Return the page that asks, to go on to a page of ours, with why that has failed."""
    return _page(call, place, str(error), status)


def sign_in(call: Call) -> Response:
    """Answer `POST /web/sign-in`."""
    place, credential = place_in(g.form), g.form.get("token", "").strip()
    try:
        call.services.guard.holder(credential)
    except UnauthorizedError as error:
        return ask_again(call, place, error, HTTPStatus.FORBIDDEN)
    return begin(call, redirect(place), credential)


def begin(call: Call, response: Response, credential: str) -> Response:
    """Have a browser begin a session with a response."""
    _set(response, call.services.guard.sessions.seal(COOKIE, credential))
    return response


def sign_out(_call: Call) -> Response:
    """Answer `POST /web/sign-out`."""
    response = redirect(SIGN_IN)
    _set(response, "", seconds=0)
    return response


def _set(response: Response, value: str, seconds: int | None = None) -> None:
    set_cookie(response, COOKIE, value, seconds=seconds, same_site="Strict")


def place_in(given: dict[str, str]) -> str:
    """Return where to go on, as parameters say, which is a page of ours."""
    place = given.get("next", HOME)
    return place if _OURS.fullmatch(place) else HOME


def _page(call: Call, place: str, error: str | None, status: HTTPStatus) -> Response:
    issuers = call.services.sign_ins.names()
    return page(call, "sign-in.html", status=status, next=place, error=error, issuers=issuers)


ROUTES = (
    shown("/web/sign-in", Action.OPERATE, ask, "Ask for a token", query=("next",)),
    form("/web/sign-in", Action.OPERATE, sign_in, "Sign in with a token", most=MAX_FORM_BYTES),
    form("/web/sign-out", Action.OPERATE, sign_out, "Sign out", most=MAX_FORM_BYTES),
)
