"""From events as they came to payloads, each with the segment that the routing has for it, or why it has none."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from msgspec import Struct

from tlog.access.rule import Target
from tlog.canonical import TOGETHER, Canonicalizer
from tlog.config import MAX_PAYLOAD_BYTES
from tlog.errors import UnroutedError
from tlog.formats.known import format_of
from tlog.routing import Routing, route
from tlog_core.errors import MalformedError

_NO_EVENT: Final = "it is no event of this format"


# There is one for each event: a dataclass takes as long to make as to find out all that is in it.
class Place(Struct, frozen=True):
    """An event: its payload, or its text as it came if it can be none; its format, its own id, and its time, if there.

    If it `counts`, all events that equal it have this id.
    Without a `target` it goes into quarantine, for the `reason`.
    """

    data: bytes
    format: str | None = None
    id: str | None = None
    time: int | None = None
    target: Target | None = None
    reason: str = ""
    counts: bool = False


class Placing:
    """Finds the places of events. Threads share it."""

    def __init__(self, routing: Routing, canonicalize: Canonicalizer) -> None:
        """Go by a routing."""
        self._routing = routing
        self._canonicalize = canonicalize

    def find(
        self, texts: Sequence[bytes], faults: Iterable[bytes] = (), is_event: Callable[[Any], bool] = lambda _: True
    ) -> Iterator[Place]:
        """Yield the place of each event, given as its JSON text, and then of what is none, as `is_event` may tell."""
        for start in range(0, len(texts), TOGETHER):
            yield from self._some(texts[start : start + TOGETHER], is_event)
        yield from (Place(fault, reason=_NO_EVENT) for fault in faults)

    def _some(self, texts: Sequence[bytes], is_event: Callable[[Any], bool]) -> Iterator[Place]:
        try:
            read = self._canonicalize.read(texts)
        except MalformedError:
            return (self._one(text, is_event) for text in texts)
        return (self._place(text, *pair, is_event) for text, pair in zip(texts, read, strict=True))

    def _one(self, text: bytes, is_event: Callable[[Any], bool]) -> Place:
        try:
            [(payload, event)] = self._canonicalize.read([text])
            return self._place(text, payload, event, is_event)
        except MalformedError as error:
            return Place(text, reason=str(error))

    def _place(self, text: bytes, payload: bytes, event: Any, is_event: Callable[[Any], bool]) -> Place:
        if not is_event(event):
            return Place(text, reason=_NO_EVENT)
        if len(payload) > MAX_PAYLOAD_BYTES:
            return Place(text, reason=f"it has more than {MAX_PAYLOAD_BYTES} bytes")
        form = format_of(event)
        try:
            own = form.id(event)
            at = None if own is None else form.time(event)
            target = route(self._routing, event, form)
            return Place(payload, form.name, own, at, target, counts=form.counts)
        except UnroutedError as error:
            return Place(payload, form.name, reason=str(error))
