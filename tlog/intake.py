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
from zlib import crc32

from msgspec import Struct

from tlog.access import Action
from tlog.access.rule import Target
from tlog.canonical import Canonicalizer
from tlog.config import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_NEW_SEGMENTS
from tlog.control import Control
from tlog.errors import (
    ConflictError,
    FrozenError,
    NotFoundError,
    RepeatedError,
    SealedError,
    SignatureRequiredError,
    UnavailableError,
)
from tlog.formats.quarantine import enclose
from tlog.guard import Caller, Guard
from tlog.placing import Place, Placing
from tlog.routing import Routing
from tlog.search.indexes import Indexes
from tlog.segments import Segments
from tlog.submit import append, commit_to
from tlog_core.receipt import JSON_TYPE

Waits = Callable[[], AbstractContextManager[None]]

_LAST_NEAR: Final = (1 << 48) - 1
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


# As `Place`.
class Event(Struct, frozen=True):
    """An event in canonical form, with what tells it apart for as long as it is remembered: 38 bytes, or nothing."""

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
        self._placing = Placing(routing, canonicalize)

    def take(
        self,
        request: Request,
        texts: Sequence[bytes],
        waits: Waits,
        faults: Iterable[bytes] = (),
        is_event: Callable[[Any], bool] = lambda _: True,
    ) -> Taken:
        """Log events, each given as its JSON text, durably when this returns.

        `faults` are no events to begin with, nor is what `is_event` refuses once it is read.

        Raises QuotaError; NotFoundError if something is to be kept in the quarantine segment, and who sends it may not
        write there; and what `submit.append` raises: then some may be logged, and are not again if all are sent again.
        """
        found = _sort(request, self._placing.find(texts, faults, is_event))
        found.placed = self._admitted(request, found)
        sizes = self._sizes(found)
        self._guard.draw(request.caller, sizes)
        try:
            return self._keep(request, found, waits)
        except NotFoundError:
            raise
        except Exception:
            # Whom the server failed it does not refuse when he tries again.
            self._guard.give_back(request.caller, sizes)
            raise

    def _keep(self, request: Request, found: _Sorted, waits: Waits) -> Taken:
        logged = seen = 0
        for target, events in found.placed.items():
            for chunk in _chunks(events):
                try:
                    self._make(request.caller, target)
                    fresh = self._log(request.caller, target, chunk, waits)
                except (NotFoundError, *_CLOSED) as error:
                    found.rejected += [(event.payload, str(error)) for event in chunk]
                    continue
                logged, seen = logged + fresh, seen + len(chunk) - fresh
        if found.rejected:
            self._quarantine(request, found.rejected, waits)
        return Taken(logged, len(found.rejected), seen)

    def _sizes(self, found: _Sorted) -> list[tuple[Target, int]]:
        """Return how many bytes of events go into which segment."""
        sizes = [(target, sum(len(event.payload) for event in events)) for target, events in found.placed.items()]
        if found.rejected:
            wanted = self._routing.quarantine
            there = self._guard.target(wanted.segment) or wanted
            sizes.append((there, sum(len(data) for data, _ in found.rejected)))
        return sizes

    def _admitted(self, request: Request, found: _Sorted) -> dict[Target, list[Event]]:
        """Return the events whose sender may write to their segments, or make these; the others are rejected."""
        admitted: dict[Target, list[Event]] = {}
        fresh = set[str]()
        for target, events in found.placed.items():
            try:
                self._bound(target, fresh)
                admitted.setdefault(self._allowed(request.caller, target), []).extend(events)
            except NotFoundError as error:
                found.rejected += [(event.payload, str(error)) for event in events]
        return admitted

    def _bound(self, wanted: Target, fresh: set[str]) -> None:
        """Raise NotFoundError for a segment that is not there once as many are to be made as one request may make."""
        if self._guard.target(wanted.segment) is None:
            fresh.add(wanted.segment)
            if len(fresh) > MAX_NEW_SEGMENTS:
                raise NotFoundError(
                    f"one request makes at most {MAX_NEW_SEGMENTS} segments, and {wanted.segment} is one more"
                )

    def _allowed(self, caller: Caller, wanted: Target) -> Target:
        """Return a segment that is there, or else is to be made, if the policy lets the caller; raise NotFoundError."""
        there, who = self._guard.target(wanted.segment), caller.principal.name
        may_make = there is not None or self._guard.may(caller, Action.CREATE_SEGMENT, wanted)
        if not may_make or not self._guard.may(caller, Action.APPEND, there or wanted):
            # The same whether there is none.
            raise NotFoundError(f"there is no segment {wanted.segment} that {who} may write to, or make and write to")
        return there or wanted

    def _make(self, caller: Caller, allowed: Target) -> None:
        """Make a segment if it is not there; raise NotFoundError if it came to be one that the caller may not write to.

        Only once the quotas are drawn on: it costs more than all else.
        """
        if self._guard.target(allowed.segment) is None:
            try:
                self._control.create_segment(caller.principal.name, allowed.segment, dict(allowed.labels))
            except ConflictError:
                # Made meanwhile with other labels, which it keeps.
                self._allowed(caller, allowed)

    def _log(self, caller: Caller, target: Target, events: Sequence[Event], waits: Waits) -> int:
        """Log those of a run of events that are not remembered, and return how many those are."""
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
        # What was logged is not to be sent again because it cannot be found yet.
        with suppress(OSError, UnavailableError):
            self._indexes.want(target.segment)
        return len(fresh)

    def _quarantine(self, request: Request, rejected: Iterable[tuple[bytes, str]], waits: Waits) -> None:
        target = self._allowed(request.caller, self._routing.quarantine)
        self._make(request.caller, target)
        events = [
            Event(payload, _digest(request, "quarantine", hashlib.sha256(payload).hexdigest(), payload))
            for data, reason in rejected
            for payload in enclose(data, request.receiver, reason)
        ]
        for chunk in _chunks(events):
            self._log(request.caller, target, chunk, waits)


def _sort(request: Request, places: Iterable[Place]) -> _Sorted:
    found = _Sorted()
    for number, place in enumerate(places):
        if place.target is None:
            found.rejected.append((place.data, place.reason))
        else:
            event = Event(place.data, _key(request, place, number, found.equal))
            found.placed.setdefault(place.target, []).append(event)
    return found


def _key(request: Request, place: Place, number: int, equal: Counter[bytes]) -> bytes | None:
    """Return what tells an event apart: its own id, or its place in a request that has one; None if it has neither."""
    if place.id is not None:
        own = place.id
        if place.counts:
            equal[place.data] += 1
            own = f"{own}/{equal[place.data]}"
        return _digest(request, str(place.format), own, place.data, place.time or 0)
    if request.key is None:
        return None
    return _digest(request, "request", f"{request.key}/{number}", place.data, crc32(request.key.encode()))


def _digest(request: Request, kind: str, one: str, payload: bytes, near: int = 0) -> bytes:
    """Return a hash of 256 bits, after the number of what is sent at about the same time.

    So keys of a request stand side by side in the database, which would else write a page for each.
    """
    # With the payload, so that an event of another's id keeps nothing out; and the writer, whose entry it is to be.
    head = f"{request.caller.principal.name}\n{kind}\n{one}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(b"%d\n%b%b" % (len(head), head, payload)).digest()
    return max(0, min(near, _LAST_NEAR)).to_bytes(6, "big") + digest


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
