"""What receivers share: the body, unpacked, the events in it, and the routes."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from operator import itemgetter
from typing import Any, Final

import msgspec
from flask import Response, request

from tlog import intake
from tlog.access import Action
from tlog.api.body import ANY_TYPE, idempotency_key, unpacked_body
from tlog.api.models import Problem, Taken
from tlog.api.route import Call, Route
from tlog.config import MAX_INGEST_BYTES, MAX_INGEST_EVENTS
from tlog.errors import TooLargeError

_CROWDED: Final = 16
"""Between two commas of events there are mostly more bytes than this."""

_MOST_IN_VAIN: Final = 1 << 31
"""How many bytes are looked at in vain, for what is no JSON: a second or two."""

UNREADABLE: Final = (msgspec.MsgspecError, ValueError, LookupError, TypeError, RecursionError)
"""What readers of JSON raise where there is none, or another than was looked for."""

_LOOKED_FOR: Final = 64
_SPACE: Final = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Found:
    """The events of a body, each as its JSON text, and what stands there that is none.

    What `is_event` refuses, once it is read, is none either.
    """

    texts: Sequence[bytes] = ()
    faults: Sequence[bytes] = ()
    is_event: Callable[[Any], bool] = lambda _: True


def array(raw: bytes) -> Found:
    """Return the events of an array; any other body is a fault."""
    try:
        return Found(_items(raw))
    except UNREADABLE:
        return _one_by_one(raw, lambda read: read)


def listed(raw: bytes, member: str) -> Found:
    """Return the events of a list that is a member of the object that a body is; any other body is a fault."""
    try:
        within = bytes(msgspec.json.decode(raw, type=dict[str, msgspec.Raw])[member])
        # Of two members of one name the fast reader knows the last alone.
        json.loads(_without(raw, within), object_pairs_hook=unique)
        return Found(_items(within))
    except UNREADABLE:
        return _one_by_one(raw, itemgetter(member))


def _items(raw: bytes) -> list[bytes]:
    """Return the items of an array, each as its JSON text; TooLargeError if there are too many."""
    commas = raw.count(b",")
    if commas > MAX_INGEST_EVENTS and len(raw) < _CROWDED * commas:
        # So short are few events: before each takes memory of its own, they are counted.
        _count(raw.decode("latin-1"))
    items = msgspec.json.decode(raw, type=list[msgspec.Raw])
    if len(items) > MAX_INGEST_EVENTS:
        raise _too_many()
    return [bytes(item) for item in items]


def _count(array: str) -> None:
    """Raise TooLargeError if an array has too many items; one that cannot be read is left to who reads it."""
    decode, place = JSONDecoder().raw_decode, _after_space(array, 0) + 1
    for _ in range(MAX_INGEST_EVENTS + 1):
        try:
            _, place = decode(array, _after_space(array, place))
        except (ValueError, RecursionError):
            return
        place = _after_space(array, place) + 1
        if array[place - 1 : place] != ",":
            return
    raise _too_many()


def _too_many() -> TooLargeError:
    return TooLargeError(f"a request has at most {MAX_INGEST_EVENTS} events here; send less, or split it")


def _without(raw: bytes, value: bytes) -> bytes:
    """Return JSON with a number in the place of one of its values, if that is found at once."""
    start = raw.find(value[:_LOOKED_FOR])
    end = start + len(value)
    return raw[:start] + b"0" + raw[end:] if raw[start:end] == value else raw


def _one_by_one(raw: bytes, list_of: Callable[[Any], Any]) -> Found:
    """Return the events where one is such that the fast reader refuses all, as for half a surrogate pair."""
    if raw.count(b",") > _CROWDED * MAX_INGEST_EVENTS:
        return Found(faults=[raw])
    try:
        items = list_of(json.loads(raw, object_pairs_hook=unique))
        if isinstance(items, list):
            return Found([json.dumps(item).encode() for item in items])
    except UNREADABLE:
        pass
    return Found(faults=[raw])


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of an object, as a reader of JSON gives them; raise ValueError if one comes twice."""
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a member comes twice")
    return found


def concatenated(raw: bytes) -> Found:
    """Return JSON values that stand one behind the other, or one a line; a line on which none begins is a fault."""
    if raw.count(b"\n") > MAX_INGEST_EVENTS:
        return _scan(raw)
    try:
        return Found([bytes(value) for value in msgspec.json.Decoder(msgspec.Raw).decode_lines(raw)])
    except UNREADABLE:
        return _scan(raw)


def _scan(raw: bytes) -> Found:
    # Each byte is a character, so that a place in the text is one in the bytes.
    text, texts, faults = raw.decode("latin-1"), list[bytes](), list[bytes]()
    decode, place, left = JSONDecoder().raw_decode, _after_space(text, 0), _MOST_IN_VAIN
    while place < len(text):
        if len(texts) + len(faults) > MAX_INGEST_EVENTS:
            raise _too_many()
        try:
            _, end = decode(text, place)
            texts.append(raw[place:end])
        except (ValueError, RecursionError) as error:
            # What was read in vain is read again from the next line on, but not for ever. The error alone takes a look
            # at all that stands before it, to count the lines, and reading takes some twenty times as long.
            at = error.pos if isinstance(error, JSONDecodeError) else len(text)
            left -= at + 20 * (at - place)
            newline = text.find("\n", place) if left > 0 else -1
            end = len(text) if newline < 0 else newline
            faults.append(raw[place:end])
        place = _after_space(text, end)
    return Found(texts, faults)


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return place if found is None else found.end()


def body() -> bytes:
    """Return the body of the request, unpacked; raises as `unpacked_body` does."""
    return unpacked_body(request, MAX_INGEST_BYTES)


def take(call: Call, receiver: str, found: Found) -> Taken:
    """Have the events of a request logged; raises TooLargeError, and as `Intake.take` does."""
    if len(found.texts) + len(found.faults) > MAX_INGEST_EVENTS:
        raise _too_many()
    sent = intake.Request(call.caller, receiver, idempotency_key(request))
    taken = call.services.intake.take(sent, found.texts, call.services.working.leave, found.faults, found.is_event)
    outcomes = {"logged": taken.logged, "quarantined": taken.quarantined, "seen": taken.seen}
    for outcome, events in outcomes.items():
        call.services.metrics.received(receiver, outcome, events)
    return Taken(taken.logged, taken.quarantined, taken.seen)


def media_type(given: str) -> str:
    """Return the media type of a Content-Type, without parameters, and in lower case."""
    return given.partition(";")[0].strip().lower()


def keep(call: Call, receiver: str, raw: bytes) -> None:
    """Put what is to be refused into quarantine, so that it is not lost with who does not send it again."""
    take(call, receiver, Found(faults=[raw]))


def receiver(
    path: str,
    view: Callable[[Call], Response],
    summary: str,
    *,
    takes: Mapping[str, Any] = {ANY_TYPE: bytes},
    query: tuple[str, ...] = (),
    headers: Mapping[str, bool] = {},
    refuse: Callable[[Problem], Response] | None = None,
    refusal: Any = None,
    gives: tuple[type, ...] | str = (Taken,),
    chunked: bool = False,
) -> Route:
    """Return the route of a receiver, whose errors `refuse` puts in the sender's words; the rest is as in `Route`.

    What it `takes` is only told here: the view decides. A body may come `chunked` if an event that breaks off is none.
    """
    return Route(
        "POST",
        path,
        Action.INGEST,
        view,
        summary,
        gives={200: gives},
        takes=takes,
        query=query,
        headers={"Idempotency-Key": False, **headers},
        grows=True,
        most=MAX_INGEST_BYTES,
        chunked=chunked,
        refuse=refuse,
        refusal=refusal,
    )
