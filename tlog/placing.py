"""From events as they came to payloads, each with the segment that the routing has for it, or why it has none."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from tlog.access.rule import Target
from tlog.canonical import Canonicalizer
from tlog.config import MAX_PAYLOAD_BYTES
from tlog.errors import UnroutedError
from tlog.formats.known import format_of
from tlog.routing import Routing, route
from tlog_core.errors import MalformedError

_NO_EVENT: Final = "it is no event of this format"


@dataclass(frozen=True, slots=True)
class Place:
    """An event: its payload, or its text as it came if it can be none; its format and its own id, if it has them.

    Without a `target` it goes into quarantine, for the `reason`.
    """

    data: bytes
    format: str | None = None
    id: str | None = None
    target: Target | None = None
    reason: str = ""


class Placing:
    """Finds the places of events. Threads share it."""

    def __init__(self, routing: Routing, canonicalize: Canonicalizer) -> None:
        """Go by a routing."""
        self._routing = routing
        self._canonicalize = canonicalize
        self._decode = msgspec.json.Decoder().decode

    def find(self, texts: Sequence[bytes], faults: Iterable[bytes] = ()) -> Iterator[Place]:
        """Yield the place of each event, given as its JSON text, and then of what is none."""
        for text, payload in zip(texts, self._payloads(texts), strict=True):
            if isinstance(payload, MalformedError):
                yield Place(text, reason=str(payload))
            else:
                yield self._place(payload)
        yield from (Place(fault, reason=_NO_EVENT) for fault in faults)

    def _place(self, payload: bytes) -> Place:
        event = self._decode(payload)
        form = format_of(event)
        try:
            return Place(payload, form.name, form.id(event), route(self._routing, event, form))
        except UnroutedError as error:
            return Place(payload, form.name, reason=str(error))

    def _payloads(self, texts: Sequence[bytes]) -> Sequence[bytes | MalformedError]:
        try:
            together = self._canonicalize.lines(texts)
        except MalformedError:
            together = []
        if together and max(map(len, together)) <= MAX_PAYLOAD_BYTES:
            return together
        return [self._payload_or_fault(text) for text in texts]

    def _payload_or_fault(self, text: bytes) -> bytes | MalformedError:
        try:
            return self._payload(text)
        except MalformedError as error:
            return error

    def _payload(self, text: bytes) -> bytes:
        payload = self._canonicalize(text)
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise MalformedError(f"it has more than {MAX_PAYLOAD_BYTES} bytes")
        return payload
