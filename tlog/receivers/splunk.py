"""The HTTP Event Collector of Splunk, which Docker, Fluent Bit, Vector and others send to.

Some of them drop what they sent at an error, and others send it again for ever: for what an event says there is none.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from flask import Response, request

from tlog.access import Action
from tlog.api.answer import SECRET, answer
from tlog.api.body import ANY_TYPE, read_body
from tlog.api.models import Problem, encode
from tlog.api.route import Call, Route
from tlog.config import MAX_INGEST_BYTES
from tlog.errors import FullError, TooLargeError
from tlog.receivers.acks import give_ack, was_given
from tlog.receivers.receive import UNREADABLE, Found, body, concatenated, receiver, take
from tlog_core.errors import MalformedError
from tlog_core.receipt import JSON_TYPE

_PREFIX: Final = "/services/collector"
_EVENT: Final = (f"{_PREFIX}/event", f"{_PREFIX}/event/1.0", _PREFIX)
_RAW: Final = (f"{_PREFIX}/raw", f"{_PREFIX}/raw/1.0")
_METADATA: Final = ("time", "host", "source", "sourcetype", "index")
_CHANNEL: Final = "X-Splunk-Request-Channel"
_BLANK: Final = (b"null", b'""')
_MAX_ACKS_BYTES: Final = 1 << 20

# By the status that another sender would get; what is not here is 6, invalid data format.
_WORDS: Final = {
    401: (403, 4, "Invalid token"),
    404: (400, 7, "Incorrect index"),
    429: (429, 9, "Server is busy"),
    500: (500, 8, "Internal server error"),
    503: (503, 9, "Server is busy"),
}


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer of the collector; `detail` says what to do about an error."""

    text: str
    code: int
    detail: str | None = None
    ack: int | None = msgspec.field(default=None, name="ackId")


class Asked(msgspec.Struct, frozen=True):
    """The numbers that a sender was given, and asks about."""

    acks: list[int]


class Acked(msgspec.Struct, frozen=True):
    """Of each number, whether all is durable that it was given for."""

    acks: dict[str, bool]


class _Event(msgspec.Struct):
    event: msgspec.Raw


_IS_EVENT: Final = msgspec.json.Decoder(_Event).decode


def read_events(raw: bytes) -> Found:
    """Return the events of a body, one behind the other; what has no `event`, or an empty one, is a fault."""
    found = concatenated(raw)
    texts, faults = list[bytes](), [*found.faults]
    for text in found.texts:
        (texts if _has_event(text) else faults).append(text)
    return Found(texts, faults)


def _has_event(text: bytes) -> bool:
    try:
        return bytes(_IS_EVENT(text).event) not in _BLANK
    except UNREADABLE:
        return False


def read_lines(raw: bytes, metadata: Mapping[str, str]) -> Found:
    """Return an event with this metadata for each line that is not blank; one that is not UTF-8 is a fault.

    Raises TooLargeError if they are larger, all together, than a body may be.
    """
    lines = [line for line in raw.splitlines() if line.strip()]
    if len(raw) + len(lines) * len(encode(metadata)) > MAX_INGEST_BYTES:
        raise TooLargeError(f"with its metadata a request has at most {MAX_INGEST_BYTES} bytes here; send less a time")
    texts, faults = list[bytes](), list[bytes]()
    for line in lines:
        try:
            texts.append(encode({"event": line.decode(), **metadata}))
        except UnicodeDecodeError:
            faults.append(line)
    return Found(texts, faults)


def take_events(call: Call) -> Response:
    """Answer `POST /services/collector/event`."""
    return _take(call, read_events(body()))


def take_lines(call: Call) -> Response:
    """Answer `POST /services/collector/raw`."""
    metadata = {name: request.args[name] for name in _METADATA if request.args.get(name)}
    return _take(call, read_lines(body(), metadata))


def _take(call: Call, found: Found) -> Response:
    if not found.texts and not found.faults:
        return _say(400, Said("No data", 5))
    take(call, "splunk", found)
    channel = _channel()
    return _say(200, Said("Success", 0, ack=None if channel is None else give_ack(channel)))


def tell_acked(_call: Call) -> Response:
    """Answer `POST /services/collector/ack`."""
    channel = _channel()
    if channel is None:
        return _say(400, Said("Data channel is missing", 10, f"say channel in the query, or send {_CHANNEL}"))
    try:
        asked = msgspec.json.decode(read_body(request, _MAX_ACKS_BYTES), type=Asked)
    except UNREADABLE as error:
        raise MalformedError(f'the body is {{"acks":[1,2]}}, with what was given as ackId: {error}') from None
    return _say(200, Acked({str(ack): was_given(channel, ack) for ack in asked.acks}))


def tell_health(call: Call) -> Response:
    """Answer `GET /services/collector/health`."""
    try:
        call.services.room.check()
    except FullError as error:
        return _say(503, Said("HEC is unhealthy, queues are full", 18, str(error)))
    return _say(200, Said("HEC is healthy", 17))


def tell_methods(_call: Call) -> Response:
    """Answer `OPTIONS` of a route that takes events: Docker's driver asks whether there is one."""
    return answer(b"", JSON_TYPE, more=[("Allow", "POST, OPTIONS")])


def refuse(problem: Problem) -> Response:
    """Return an error in Splunk's words."""
    status, code, text = _WORDS.get(problem.status, (problem.status, 6, "Invalid data format"))
    if problem.status == 401:
        scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
        if not scheme:
            status, code, text = 401, 2, "Token is required"
        elif scheme not in ("splunk", "bearer", "basic"):
            status, code, text = 401, 3, "Invalid authorization"
    return _say(status, Said(text, code, problem.detail))


def _channel() -> str | None:
    return request.headers.get(_CHANNEL) or request.args.get("channel") or None


def _say(status: int, said: Said | Acked) -> Response:
    return answer(encode(said), JSON_TYPE, status=status, caching=SECRET)


def _receiver(path: str, *, raw: bool) -> Route:
    return receiver(
        path,
        take_lines if raw else take_events,
        "Take lines as Splunk does" if raw else "Take events as Splunk does",
        query=("channel", *_METADATA) if raw else ("channel",),
        headers={_CHANNEL: False},
        refuse=refuse,
        refusal=Said,
        gives=(Said,),
    )


def _options(path: str) -> Route:
    return Route(
        "OPTIONS", path, Action.OPERATE, tell_methods, "Say that events are taken here", gives={200: JSON_TYPE}
    )


def _health(path: str) -> Route:
    return Route(
        "GET", path, Action.OPERATE, tell_health, "Say as Splunk does whether events are taken", {200: (Said,)}
    )


ROUTES = (
    *(_receiver(path, raw=False) for path in _EVENT),
    *(_receiver(path, raw=True) for path in _RAW),
    *(_options(path) for path in (*_EVENT, *_RAW)),
    *(_health(path) for path in (f"{_PREFIX}/health", f"{_PREFIX}/health/1.0")),
    Route(
        "POST",
        f"{_PREFIX}/ack",
        Action.INGEST,
        tell_acked,
        "Say of which acks all is durable",
        gives={200: (Acked,)},
        takes={JSON_TYPE: Asked, ANY_TYPE: bytes},
        query=("channel",),
        headers={_CHANNEL: False},
        most=_MAX_ACKS_BYTES,
        refuse=refuse,
        refusal=Said,
    ),
)
