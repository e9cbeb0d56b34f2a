"""Answers that never change: who may keep them, and how they are known again (spec/http-api.md, "Caching")."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from flask import Response, request

from tlog.access import Action
from tlog.api.answer import FOR_EVER, answer, conditional
from tlog.api.route import Call

_PRIVATE: Final = "private, max-age=31536000, immutable"
_CONDITIONS: Final = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")


def immutable(
    call: Call, action: Action, place: str, kind: str, make: Callable[[], bytes], *, encoding: str | None = None
) -> Response:
    """Answer with what `make` returns, which for this place below the segment's prefix is ever the same.

    It is not called for who has it. `encoding` is the content coding, empty for none where there may be one.
    """
    public = call.services.guard.anyone_may(action, call.target)
    caching, headers = FOR_EVER if public else _PRIVATE, _headers(call, place, encoding, public=public)
    if any(condition in request.environ for condition in _CONDITIONS):
        known = conditional(answer(b"", kind, caching=caching, more=headers))
        if known.status_code == HTTPStatus.NOT_MODIFIED:
            return known
    return answer(make(), kind, caching=caching, more=headers)


def _headers(call: Call, place: str, encoding: str | None, *, public: bool) -> list[tuple[str, str]]:
    tag = f'"{call.segment.key_id}/{place}"'
    headers = [] if public else [("Vary", "Authorization"), ("Vary", "Cookie")]
    if encoding is not None:
        headers.append(("Vary", "Accept-Encoding"))
    if encoding:
        headers.append(("Content-Encoding", encoding))
        # Another release may compress to other bytes.
        tag = f'W/{tag[:-1]};{encoding}"'
    headers.append(("ETag", tag))
    return headers
