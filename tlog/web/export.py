"""Exporting entries of a segment as an evidence bundle (spec/bundle.md), by the code that `tlog-client export` runs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http import HTTPStatus
from importlib.metadata import version
from typing import Final

from flask import Response, g, request

from tlog.access import Action
from tlog.access.action import RESERVED
from tlog.api.answer import number, query
from tlog.api.body import FORM_TYPE
from tlog.api.reading import SEARCH, record_read, search
from tlog.api.route import Call, Route
from tlog.config import MAX_PAGE
from tlog.errors import NotFoundError, UnavailableError
from tlog.store.codec import Payload
from tlog.submit import read_page
from tlog.web.entries import TIMES, moment
from tlog.web.page import attached, page, refused, shown
from tlog.witnesses.panel import trust_in
from tlog_client.answers import OpenedEntry
from tlog_client.bundle.export import Asked, Exporter, export
from tlog_client.bundle.page import make_page
from tlog_client.state import SignedCheckpoint
from tlog_core.checkpoint import parse_checkpoint
from tlog_core.entry import parse_entry
from tlog_core.errors import MalformedError
from tlog_core.merkle import Hash
from tlog_core.note import parse_note, parse_verifier
from tlog_core.policy import TrustedLog, TrustPolicy
from tlog_core.proof import prove_subset

MAX_EXPORTED: Final = 10_000
"""How many entries one exports here at most: all of it is in memory. `tlog-client export` takes more."""

MAX_EXPORTED_BYTES: Final = 32 << 20
"""How many bytes of payloads one exports here at most: there are some copies of them until the bundle is sent."""

MAX_LOOKED_AT: Final = 100_000
"""How many entries of `control` and of `access` are looked through here, the newest."""

_FIELDS: Final = ("start", "end", *SEARCH)
_SPAN: Final = ("start", "since", "until", "before")
_ZIP: Final = "application/zip"


@dataclass(frozen=True, slots=True)
class StoredSource:
    """The open segment of a call, as who asks may read it: each read is on record first."""

    call: Call

    @property
    def origin(self) -> str:
        """The origin of the segment."""
        return self.call.segment.row.origin

    def head(self, trust: TrustPolicy) -> SignedCheckpoint:
        """Return the newest head, or that which a quorum has cosigned if there are witnesses; NotFoundError."""
        asker = self.call.services.asker
        if trust.quorum is None or asker is None:
            head, lines = self.call.segment.store.head_with_cosignatures()
            self.call.segment.settle(head)
            return _signed(head.note + lines)
        cosigned = asker.newest(self.call.segment)
        if cosigned is None:
            raise NotFoundError("no head of this segment is cosigned by a quorum of its witnesses yet; try again later")
        return _signed(cosigned.note)

    def entries(self, _head: SignedCheckpoint, start: int, stop: int) -> Iterator[OpenedEntry]:
        """Yield the entries [start, stop)."""
        record_read(self.call, start, stop)
        while start < stop:
            page = read_page(self.call.segment, start, stop)
            yield from (_opened(place, *one) for place, one in enumerate(page, start))
            start += len(page)

    def found(self, head: SignedCheckpoint, terms: Mapping[str, str | int]) -> Iterator[OpenedEntry]:
        """Yield what a search finds, the latest first; UnavailableError if the index is behind the head."""
        given = {name: str(value) for name, value in terms.items()}
        following: int | None = int(terms["before"])
        count = 0
        while following is not None:
            found = search(self.call, given, MAX_PAGE)
            if found.indexed < head.checkpoint.size:
                raise UnavailableError("the index is behind; try again in a moment")
            count += len(found.hits)
            if count > MAX_EXPORTED:
                raise MalformedError(f"more than {MAX_EXPORTED} entries were found; for more run tlog-client export")
            yield from (_opened(hit.index, hit.entry, hit.payload) for hit in found.hits)
            following = found.next
            given = {**given, "before": str(following)}

    def prove(self, head: SignedCheckpoint, indexes: Sequence[int]) -> Sequence[Hash]:
        """Return the subset proof of entries."""
        size = head.checkpoint.size
        return prove_subset(indexes=indexes, size=size, node=self.call.segment.nodes.at(size))


def ask(call: Call) -> Response:
    """Answer `GET /web/segments/<name>/export`."""
    given = query(request, *_FIELDS)
    return _form(call, {name: value for name, value in given.items() if value})


def download(call: Call) -> Response:
    """Answer `POST /web/segments/<name>/export`."""
    given = {name: value for name, value in g.form.items() if value and name in _FIELDS}
    try:
        asked = _asked(given, call.segment.store.head().size)
        with ExitStack() as opened:
            raw = _export(call, asked, opened)
    except (MalformedError, NotFoundError, UnavailableError) as error:
        return _form(call, given, error=str(error), status=HTTPStatus.BAD_REQUEST)
    return attached(raw, f"{call.segment.row.name}.bundle.zip", _ZIP)


def _form(call: Call, given: Mapping[str, str], *, error: str | None = None, status: int = 200) -> Response:
    size = call.segment.store.head().size
    terms = {name: value for name, value in given.items() if name not in ("start", "end")}
    name = call.segment.row.name
    values = {"name": name, "size": size, "given": given, "terms": terms, "most": MAX_EXPORTED, "error": error}
    return page(call, "export.html", status=status, reach=MAX_LOOKED_AT, **values)


def _asked(given: Mapping[str, str], size: int) -> Asked:
    if given.keys() & {*SEARCH}:
        terms: dict[str, str | int] = {name: value for name, value in given.items() if name != "end"}
        return {**terms, **{name: _number(name, given[name]) for name in _SPAN if name in terms}}
    span = range(number("start", given.get("start", "0")), number("end", given.get("end", str(size))))
    if not 0 < len(span) <= MAX_EXPORTED or span.stop > size:
        most = f"a range has 1 to {MAX_EXPORTED} entries here, of the {size} that there are"
        raise MalformedError(f"{most}; for more run tlog-client export")
    return span


def _number(name: str, text: str) -> int:
    """Return an index, or a time in milliseconds, which may be as forms of pages have it."""
    return number(name, moment(name, text) if name in TIMES and "T" in text else text)


def _export(call: Call, asked: Asked, opened: ExitStack) -> bytes:
    reserved = {name: source for name in RESERVED if (source := _reserved(call, name, opened)) is not None}
    source = StoredSource(call)
    trust = _trust(call, [source, *reserved.values()])
    tool = f"tlog {version('tlog')}"
    who, now = call.caller.principal.name, call.services.control.now()
    exporter = Exporter(who, now, tool, trust, make_page(), MAX_EXPORTED_BYTES, MAX_LOOKED_AT)
    return export(asked, source, reserved, exporter)


def _reserved(call: Call, name: str, opened: ExitStack) -> StoredSource | None:
    """Return a reserved segment, if who asks may read it, and it is not without a cosigned head."""
    target = call.services.guard.target(name)
    if name == call.segment.row.name or target is None:
        return None
    if not call.services.guard.may(call.caller, Action.READ_PAYLOAD, target):
        return None
    segment = opened.enter_context(call.services.segments.use(name))
    asker = call.services.asker
    is_shown = asker is None or asker.newest(segment) is not None
    return StoredSource(replace(call, opened=segment)) if is_shown else None


def _trust(call: Call, sources: Sequence[StoredSource]) -> TrustPolicy:
    logs = tuple(TrustedLog(parse_verifier(one.call.segment.row.vkey)) for one in sources)
    asker = call.services.asker
    return trust_in(None if asker is None else asker.panel, logs)


def _signed(note: bytes) -> SignedCheckpoint:
    return SignedCheckpoint(parse_checkpoint(parse_note(note).text), note)


def _opened(index: int, entry: bytes, payload: Payload) -> OpenedEntry:
    return OpenedEntry(index, parse_entry(entry), payload.type, payload.opening, payload.data)


ROUTES = (
    shown(
        "/web/segments/<segment>/export",
        Action.READ_PAYLOAD,
        ask,
        "Ask what is to be exported",
        query=_FIELDS,
    ),
    Route(
        "POST",
        "/web/segments/<segment>/export",
        Action.READ_PAYLOAD,
        download,
        "Export entries as an evidence bundle",
        gives={200: _ZIP},
        takes={FORM_TYPE: str},
        form=True,
        refuse=refused,
    ),
)
