"""Events that come without a segment: each goes into the one that the routing says, once, or into quarantine.

Nothing is lost that was acknowledged (spec/ingest.md): what cannot be read, or has no place, or none that its sender
may write to, is kept in the quarantine segment with the reason.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tlog.access import Action
from tlog.access.rule import Target
from tlog.canonical import Canonicalizer
from tlog.config import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_PAYLOAD_BYTES
from tlog.control import Control
from tlog.errors import (
    ConflictError,
    FrozenError,
    NotFoundError,
    RepeatedError,
    SealedError,
    SignatureRequiredError,
    UnavailableError,
    UnroutedError,
)
from tlog.formats.known import format_of
from tlog.formats.quarantine import enclose
from tlog.guard import Caller, Guard
from tlog.routing import Routing, route
from tlog.search.indexes import Indexes
from tlog.segments import Segments
from tlog.submit import append, commit_to
from tlog_core.errors import MalformedError
from tlog_core.receipt import JSON_TYPE

Waits = Callable[[], AbstractContextManager[None]]

_CLOSED: Final = (SealedError, FrozenError, SignatureRequiredError)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the events of one request; those `seen` were logged before, and not again."""

    logged: int
    quarantined: int
    seen: int


@dataclass(frozen=True, slots=True)
class Request:
    """Who sends events, by which receiver, and the key by which a request without ids is told from others, or None."""

    caller: Caller
    receiver: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An event in canonical form, with what tells it apart for as long as it is remembered: 32 bytes, or nothing."""

    payload: bytes
    key: bytes | None


@dataclass(slots=True)
class _Sorted:
    """The events of a request by their segments, what is to be put into quarantine, with the reasons, and counts."""

    placed: dict[Target, list[Event]] = field(default_factory=dict)
    rejected: list[tuple[bytes, str]] = field(default_factory=list)
    equal: Counter[bytes] = field(default_factory=Counter)


class Intake:
    """Takes events in, for the threads of one process."""

    def __init__(
        self,
        guard: Guard,
        control: Control,
        segments: Segments,
        indexes: Indexes,
        routing: Routing,
        canonicalize: Canonicalizer,
    ) -> None:
        """Put events where the routing says, as far as the guard lets who sends them."""
        self._guard = guard
        self._control = control
        self._segments = segments
        self._indexes = indexes
        self._routing = routing
        self._canonicalize = canonicalize
        self._decode = msgspec.json.Decoder().decode

    def take(self, request: Request, texts: Sequence[bytes], waits: Waits, faults: Iterable[bytes] = ()) -> Taken:
        """Log events, each given as its JSON text, durably when this returns; `faults` are no events to begin with.

        Raises NotFoundError if who sends them may not write to the quarantine segment, and it has to; QuotaError;
        and what `submit.append` raises: then some may be logged, and are told by their ids if all are sent again.
        """
        found = _Sorted(rejected=[(fault, "it is no event of this format") for fault in faults])
        self._sort(request, texts, found)
        found.placed = self._admitted(request, found)
        for target, events in found.placed.items():
            self._guard.draw(request.caller, target, sum(len(event.payload) for event in events))
        logged = seen = 0
        for target, events in found.placed.items():
            try:
                fresh = self._log(request.caller, target, events, waits)
            except _CLOSED as error:
                found.rejected += [(event.payload, str(error)) for event in events]
                continue
            logged, seen = logged + fresh, seen + len(events) - fresh
        if found.rejected:
            self._quarantine(request, found.rejected, waits)
        return Taken(logged, len(found.rejected), seen)

    def _sort(self, request: Request, texts: Sequence[bytes], found: _Sorted) -> None:
        for number, (text, payload) in enumerate(zip(texts, self._payloads(texts), strict=True)):
            if isinstance(payload, MalformedError):
                found.rejected.append((text, str(payload)))
                continue
            value = self._decode(payload)
            try:
                target = route(self._routing, value)
            except UnroutedError as error:
                found.rejected.append((payload, str(error)))
                continue
            event = Event(payload, _key(request, payload, value, number, found.equal))
            found.placed.setdefault(target, []).append(event)

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

    def _admitted(self, request: Request, found: _Sorted) -> dict[Target, list[Event]]:
        """Return the events whose sender may write to their segments, which are there; the others are rejected."""
        admitted: dict[Target, list[Event]] = {}
        for target, events in found.placed.items():
            try:
                admitted.setdefault(self._ready(request.caller, target), []).extend(events)
            except (NotFoundError, ConflictError) as error:
                found.rejected += [(event.payload, str(error)) for event in events]
        return admitted

    def _ready(self, caller: Caller, wanted: Target) -> Target:
        """Return a segment that is there, made if it was not and the policy lets the caller; raise NotFoundError."""
        there, who = self._guard.target(wanted.segment), caller.principal.name
        may_make = there is not None or self._guard.may(caller, Action.CREATE_SEGMENT, wanted)
        if not may_make or not self._guard.may(caller, Action.APPEND, there or wanted):
            # The same whether there is none.
            raise NotFoundError(f"there is no segment {wanted.segment} that {who} may write to, or make and write to")
        if there is None:
            self._control.create_segment(who, wanted.segment, dict(wanted.labels))
        return there or wanted

    def _log(self, caller: Caller, target: Target, events: Sequence[Event], waits: Waits) -> int:
        """Log those events that are not remembered, and return how many those are."""
        fresh = sum(self._log_chunk(caller, target, chunk, waits) for chunk in _chunks(events))
        # What was logged is not to be sent again because it cannot be found yet.
        with suppress(OSError, UnavailableError):
            self._indexes.want(target.segment)
        return fresh

    def _log_chunk(self, caller: Caller, target: Target, events: Sequence[Event], waits: Waits) -> int:
        fresh = _without(events, frozenset())
        with self._segments.use(target.segment) as segment:
            while fresh:
                submission = commit_to(
                    writer=caller.principal.name,
                    kind=JSON_TYPE,
                    payloads=[event.payload for event in fresh],
                    events=[event.key for event in fresh if event.key is not None],
                    remembered=self._routing.remembers,
                )
                try:
                    append(segment, submission, waits())
                    break
                except RepeatedError:
                    fresh = _without(fresh, segment.store.known_events(submission.events))
        return len(fresh)

    def _quarantine(self, request: Request, rejected: Iterable[tuple[bytes, str]], waits: Waits) -> None:
        target = self._ready(request.caller, self._routing.quarantine)
        events = [
            Event(payload, _digest(request, "quarantine", hashlib.sha256(payload).hexdigest(), payload))
            for data, reason in rejected
            for payload in enclose(data, request.receiver, reason)
        ]
        self._guard.draw(request.caller, target, sum(len(event.payload) for event in events))
        self._log(request.caller, target, events, waits)


def _key(request: Request, payload: bytes, value: Any, number: int, equal: Counter[bytes]) -> bytes | None:
    """Return what tells an event apart: its own id, or its place in a request that has one; None if it has neither."""
    form = format_of(value)
    own = form.id(value)
    if own is not None and form.counts:
        equal[payload] += 1
        own = f"{own}/{equal[payload]}"
    if own is not None:
        return _digest(request, form.name, own, payload)
    return None if request.key is None else _digest(request, "request", f"{request.key}/{number}", payload)


def _digest(request: Request, kind: str, one: str, payload: bytes) -> bytes:
    # With the payload, so that an event of another's id keeps nothing out; and the writer, whose entry it is to be.
    head = "\n".join([request.caller.principal.name, kind, one]).encode("utf-8", "surrogatepass")
    return hashlib.sha256(b"%d\n%b%b" % (len(head), head, payload)).digest()


def _without(events: Iterable[Event], known: Iterable[bytes]) -> list[Event]:
    """Return the events whose keys are not known, each key once."""
    seen, fresh = set(known), []
    for event in events:
        if event.key is None or event.key not in seen:
            fresh.append(event)
        if event.key is not None:
            seen.add(event.key)
    return fresh


def _chunks(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Yield the events in runs that one request could bring."""
    chunk: list[Event] = []
    total = 0
    for event in events:
        total += len(event.payload)
        if chunk and (len(chunk) == MAX_BATCH_EVENTS or total > MAX_BATCH_BYTES):
            yield chunk
            chunk, total = [], len(event.payload)
        chunk.append(event)
    if chunk:
        yield chunk
