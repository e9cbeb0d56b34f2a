"""Tokens: who has one, and to issue, rotate and revoke them (spec/access.md, "Tokens")."""

import re
from typing import Final

from flask import Response, request

from tlog.access import Action
from tlog.access.token import Presented, Token
from tlog.api.answer import number, query
from tlog.api.route import Call
from tlog.errors import NotFoundError
from tlog.web.page import field, form, page, redirect, shown
from tlog.web.policy import rights
from tlog_core.errors import MalformedError

PLACE: Final = "/web/operations/tokens"

_PAGE: Final = 100
_DAYS: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?")


def listing(call: Call) -> Response:
    """Answer `GET /web/operations/tokens`."""
    return _list(call)


def issue(call: Call) -> Response:
    """Answer `POST /web/operations/tokens`."""
    principal, groups = field("principal"), field("groups").split()
    try:
        issued = call.services.control.issue_token(call.caller.principal.name, principal, groups, _days())
    except MalformedError as error:
        return _list(call, status=400, error=str(error))
    return _issued(call, issued, principal)


def one(call: Call, id: str) -> Response:
    """Answer `GET /web/operations/tokens/<id>`."""
    return _show(call, _find(call, id))


def rotate(call: Call, id: str) -> Response:
    """Answer `POST /web/operations/tokens/<id>/rotation`."""
    token = _find(call, id)
    try:
        issued = call.services.control.rotate_token(call.caller.principal.name, id, _days())
    except MalformedError as error:
        return _show(call, token, status=400, error=str(error))
    return _issued(call, issued, token.principal)


def revoke(call: Call, id: str) -> Response:
    """Answer `POST /web/operations/tokens/<id>/revocation`."""
    call.services.control.revoke_token(call.caller.principal.name, id)
    return redirect(f"{PLACE}/{id}")


def _list(call: Call, *, status: int = 200, error: str | None = None) -> Response:
    given, now = query(request, "start", "ended"), call.services.control.now()
    start, ended = number("start", given.get("start", "0")), "ended" in given
    tokens = [one for one in call.services.control.store.tokens() if _is_used(one, now) != ended]
    return page(
        call,
        "tokens.html",
        status=status,
        tokens=tokens[start : start + _PAGE],
        all=len(tokens),
        start=start,
        next=start + _PAGE if len(tokens) > start + _PAGE else None,
        ended=ended,
        error=error,
        now=now,
        **rights(call),
    )


def _show(call: Call, token: Token, *, status: int = 200, error: str | None = None) -> Response:
    now = call.services.control.now()
    used, own = _is_used(token, now), token.principal == call.caller.principal.name
    return page(
        call, "token.html", status=status, token=token, used=used, own=own, error=error, now=now, **rights(call)
    )


def _issued(call: Call, issued: Presented, principal: str) -> Response:
    values = {"id": issued.id, "secret": issued.text(), "principal": principal}
    return page(call, "token-issued.html", status=201, **values, **rights(call))


def _find(call: Call, id: str) -> Token:
    token = call.services.control.store.token(id)
    if token is None:
        raise NotFoundError("there is no such token")
    return token


def _is_used(token: Token, now: int) -> bool:
    return token.revoked is None and now < token.expires


def _days() -> float:
    text = field("days")
    if _DAYS.fullmatch(text) is None:
        raise MalformedError("say for how many days, as a number such as 30 or 0.5")
    return float(text)


ROUTES = (
    shown(PLACE, Action.ISSUE_TOKEN, listing, "Tokens", query=("start", "ended")),
    form(PLACE, Action.ISSUE_TOKEN, issue, "Issue a token", grows=True),
    shown(f"{PLACE}/<id>", Action.ISSUE_TOKEN, one, "One token"),
    form(f"{PLACE}/<id>/rotation", Action.ISSUE_TOKEN, rotate, "Issue a token in the place of another", grows=True),
    form(f"{PLACE}/<id>/revocation", Action.ISSUE_TOKEN, revoke, "Revoke a token"),
)
