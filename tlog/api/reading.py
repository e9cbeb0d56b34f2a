"""Reading payloads, each read on record: by the API, and on the pages."""

from collections.abc import Mapping
from typing import Final

from tlog.api.answer import not_beyond, number
from tlog.api.route import Call
from tlog.reads import Read, Search
from tlog.search.find import Found, find
from tlog.search.terms import FIELDS, wanted
from tlog.store.search import Span

_SPAN: Final = ("since", "until", "before")
SEARCH: Final = (*FIELDS, "q", *_SPAN)
"""The parameters of a search; any of them makes it one."""


def record_read(call: Call, start: int, end: int) -> None:
    """Put on record that who asks reads the payloads of [start, end); until then nothing may be read."""
    call.services.reads.record(
        Read(
            by=call.caller.principal.name,
            segment=call.segment.row.name,
            start=start,
            end=end,
            at=call.services.control.now(),
            policy=call.caller.policy_version,
        )
    )


def search(call: Call, given: Mapping[str, str], limit: int) -> Found:
    """Return what is found by these parameters, after that is on record; MalformedError, and what `find` raises."""
    span = Span(**{name: number(name, given[name]) for name in ("start", *_SPAN) if name in given})
    not_beyond("start", span.start, call.segment.store.head().size)
    found = find(call.services.indexes, call.segment, wanted(given), span, limit)
    call.services.reads.record(
        Search(
            by=call.caller.principal.name,
            segment=call.segment.row.name,
            search=dict(given),
            indexes=[hit.index for hit in found.hits],
            at=call.services.control.now(),
            policy=call.caller.policy_version,
        )
    )
    return found
