"""The entries of a segment, all or those that a search finds (spec/pages.md, "Entries")."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from flask import Response, request

from tlog.access import Action
from tlog.api.answer import not_beyond, number, query
from tlog.api.reading import SEARCH, record_read, search
from tlog.api.route import Call
from tlog.config import MAX_PAGE_BYTES
from tlog.formats.fields import milliseconds
from tlog.search.find import Hit, read_back
from tlog.web.glance import Glance, glance
from tlog.web.page import page, shown
from tlog_core.errors import MalformedError

_PAGE: Final = 50
TIMES: Final = ("since", "until")
"""Fields of forms that are times, in UTC, to a minute or finer."""

_BEFORE: Final = "before"
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Listed:
    """Entries, the latest first, of a segment of a size, with the cursors of the pages beside, None if there is none.

    `indexed` says how far a search looked, and is None of a page without terms.
    """

    entries: Sequence[Glance]
    size: int
    older: int | None
    newer: int | None = None
    indexed: int | None = None


def entries(call: Call) -> Response:
    """Answer `GET /web/segments/<name>/entries`."""
    given = {name: value for name, value in query(request, *SEARCH).items() if value}
    terms = {name: value for name, value in given.items() if name != _BEFORE}
    try:
        listed = _found(call, given) if terms else _all(call, given)
    except MalformedError as error:
        return _page(call, given, terms, status=HTTPStatus.BAD_REQUEST, listed=None, error=str(error))
    links = {
        "older": _link(terms, listed.older),
        "newer": _link(terms, listed.newer),
        "export": _link(terms, None, first=True),
        "newest": _link(terms, None, first=True) if _BEFORE in given else None,
    }
    return _page(call, given, terms, listed=listed, error=None, **links)


def _page(call: Call, given: Mapping[str, str], terms: Mapping[str, str], **values: Any) -> Response:
    name = call.segment.row.name
    given = {name: value for name, value in given.items() if name not in TIMES or _milliseconds(value) is not None}
    return page(call, "entries.html", name=name, base=f"/web/segments/{name}", given=given, terms=terms, **values)


def _all(call: Call, given: Mapping[str, str]) -> Listed:
    size = call.segment.store.head().size
    end = number(_BEFORE, given.get(_BEFORE, str(size)))
    not_beyond(_BEFORE, end, size)
    start = max(end - _PAGE, 0)
    if start == end:
        return Listed((), size, None)
    record_read(call, start, end)
    hits = list(_within(read_back(call.segment, range(end - 1, start - 1, -1)), MAX_PAGE_BYTES))
    newer = min(end + _PAGE, size) if end < size else None
    return Listed(list(map(glance, hits)), size, hits[-1].index or None, newer)


def _within(hits: Iterable[Hit], most: int) -> Iterator[Hit]:
    """Yield hits until their payloads come to so many bytes."""
    total = 0
    for hit in hits:
        yield hit
        total += len(hit.payload.data)
        if total >= most:
            return


def _found(call: Call, given: Mapping[str, str]) -> Listed:
    asked = {name: moment(name, value) if name in TIMES else value for name, value in given.items()}
    found = search(call, asked, _PAGE)
    size = call.segment.store.head().size
    return Listed(list(map(glance, found.hits)), size, found.next, indexed=found.indexed)


def moment(name: str, text: str) -> str:
    """Return a time of a form in milliseconds since the epoch."""
    found = _milliseconds(text)
    if found is None:
        raise MalformedError(f"{name} is a time in UTC such as 2026-07-01T09:30")
    return str(found)


def _milliseconds(text: str) -> int | None:
    return milliseconds(text) if _TIME.fullmatch(text) else None


def _link(terms: Mapping[str, str], before: int | None, *, first: bool = False) -> str | None:
    """Return the query of the page with these terms from a cursor on, or of the first; None if there is no page."""
    if before is None and not first:
        return None
    cursor = {} if before is None else {_BEFORE: str(before)}
    return f"?{urlencode({**terms, **cursor})}"


ROUTES = (
    shown(
        "/web/segments/<segment>/entries",
        Action.READ_PAYLOAD,
        entries,
        "The entries of a segment, or those that a search finds",
        query=SEARCH,
    ),
)
