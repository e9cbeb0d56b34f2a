"""CloudEvents 1.0.2 over HTTP: binary, structured and batched. The spec is that of github.com/cloudevents/spec."""

import re
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from flask import Response, request

from tlog.api.answer import json_answer
from tlog.api.body import ANY_TYPE
from tlog.api.models import encode
from tlog.api.route import Call
from tlog.errors import UnsupportedTypeError
from tlog.formats.fields import milliseconds
from tlog.receivers.receive import UNREADABLE, Found, array, body, keep, media_type, receiver, take
from tlog_core.encoding import decode_base64
from tlog_core.errors import MalformedError

_NAME: Final = "cloudevents"
_EVENT: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch+json"
_ANY_FORM: Final = "application/cloudevents"
_HEADER: Final = "HTTP_CE_"
_DATA: Final = ("data", "data_base64")
_VALUES: Final = (str, int, type(None))
_ATTRIBUTE: Final = re.compile(r"[a-z0-9]+")
_JSON: Final = re.compile(r"[^/]+/([^/]+\+)?json")
_TEXT: Final = re.compile(r"text/[^/]+|[^/]+/([^/]+\+)?xml")
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?(?!utf-8\b)", re.IGNORECASE)
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def read_events(headers: Mapping[str, str], kind: str, raw: bytes) -> Found:
    """Return the events of a request with these `ce-` headers, less that prefix, and this Content-Type, if it has one.

    Raises MalformedError that says why there is none, and UnsupportedTypeError for other forms of CloudEvents.
    """
    essence = media_type(kind)
    if essence == _BATCH:
        return read_batch(raw)
    if essence == _EVENT:
        return Found([read_structured(raw)])
    if essence.startswith(_ANY_FORM):
        raise UnsupportedTypeError(f"send {_EVENT}, {_BATCH}, or ce- headers")
    return Found([read_binary(headers, kind, raw)])


def read_structured(raw: bytes) -> bytes:
    """Return the body, if it is an event in the JSON format; raise MalformedError that says why it is none."""
    try:
        event = msgspec.json.decode(raw)
    except UNREADABLE as error:
        raise MalformedError(f"the event is no JSON: {error}") from None
    _check(event)
    return raw


def read_batch(raw: bytes) -> Found:
    """Return the events of a batch in the JSON format; raise MalformedError if it is no array."""
    found = array(raw)
    if found.faults:
        raise MalformedError("a batch is an array of events")
    return Found(found.texts, is_event=_is_event)


def read_binary(headers: Mapping[str, str], kind: str, raw: bytes) -> bytes:
    """Return the event, in the JSON format, of these headers and data; raise MalformedError that says what is wrong."""
    event: dict[str, Any] = {name: _decoded(name, value) for name, value in headers.items()}
    if "datacontenttype" in event:
        raise MalformedError("the type of the data is said by Content-Type, and not by ce-datacontenttype")
    if not event.keys().isdisjoint(_DATA):
        raise MalformedError("the data is the body, and no header")
    if kind:
        event["datacontenttype"] = kind
    _check(event)
    return encode(event | (_data(kind, raw) if raw else {}))


def _data(kind: str, raw: bytes) -> dict[str, Any]:
    essence = media_type(kind)
    if _JSON.fullmatch(essence):
        _check_json(raw)
        return {"data": msgspec.Raw(raw)}
    with suppress(MalformedError, UnicodeDecodeError):
        if not essence:
            # Without a type the JSON format takes it for JSON, and so do those who send none.
            _check_json(raw)
            return {"data": msgspec.Raw(raw)}
        if _TEXT.fullmatch(essence) and not _CHARSET.search(kind):
            return {"data": raw.decode()}
    return {"data_base64": b64encode(raw).decode()}


def _check_json(raw: bytes) -> None:
    """Raise MalformedError unless this is one JSON value, which alone can stand, as it came, between other members."""
    try:
        msgspec.json.decode(raw)
    except UNREADABLE as error:
        raise MalformedError(f"the data is no JSON, as Content-Type says: {error}") from None


def _decoded(name: str, value: str) -> str:
    """Return the value of a header, as the HTTP binding has it (section 3.1.3.2): unquoted, and then decoded."""
    if not value:
        # The server shows a value with other bytes as an empty one.
        raise MalformedError(f"ce-{name} is empty, or not in ASCII; write other characters as %C3%A9")
    plain = _QUOTED.sub(lambda quoted: re.sub(r"\\(.)", r"\1", quoted[1]), value)
    if _BAD_PERCENT.search(plain):
        raise MalformedError(f"ce-{name} has a % that no two hex digits follow; write it as %25")
    try:
        # Headers come as if they were Latin-1.
        return unquote_to_bytes(plain.encode("latin-1")).decode()
    except UnicodeError:
        raise MalformedError(f"ce-{name} is not UTF-8 once its percent-encoding is undone") from None


def _is_event(event: Any) -> bool:
    try:
        _check(event)
    except MalformedError:
        return False
    return True


def _check(event: Any) -> None:
    """Raise MalformedError that says why this is no CloudEvent."""
    if not isinstance(event, dict):
        raise MalformedError("an event is an object")
    if event.get("specversion") != "1.0":
        raise MalformedError('specversion is "1.0"')
    for name in ("id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise MalformedError(f"{name} is a text that is not empty")
    for name, value in event.items():
        if name not in _DATA and not (_ATTRIBUTE.fullmatch(name) and isinstance(value, _VALUES)):
            raise MalformedError(f"{name!r} is no attribute, a-z and 0-9, that is a text, integer, boolean or null")
    if event.get("time") is not None and milliseconds(event["time"]) is None:
        raise MalformedError("time is one of RFC 3339, as 2026-01-02T03:04:05Z")
    _check_data(event)


def _check_data(event: Mapping[str, Any]) -> None:
    if event.get("data_base64") is None:
        return
    if "data" in event:
        raise MalformedError("data and data_base64 exclude each other")
    try:
        decode_base64(event["data_base64"])
    except (MalformedError, TypeError):
        raise MalformedError("data_base64 is no base64 (RFC 4648 section 4)") from None


def take_cloudevents(call: Call) -> Response:
    """Answer `POST /ingest/cloudevents`."""
    raw, headers, kind = body(), _attributes(request.environ), request.environ.get("CONTENT_TYPE", "")
    try:
        found = read_events(headers, kind, raw)
    except (MalformedError, UnsupportedTypeError) as error:
        keep(call, _NAME, _as_sent(headers, kind, raw))
        raise type(error)(f"{error}; what was sent is kept in quarantine") from None
    return json_answer(take(call, _NAME, found))


def _attributes(environ: Mapping[str, Any]) -> dict[str, str]:
    return {name[len(_HEADER) :].lower(): value for name, value in environ.items() if name.startswith(_HEADER)}


def _as_sent(headers: Mapping[str, str], kind: str, raw: bytes) -> bytes:
    lines = [*(f"ce-{name}: {value}" for name, value in headers.items()), f"content-type: {kind}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + raw


ROUTES = (
    receiver(
        "/ingest/cloudevents",
        take_cloudevents,
        "Take CloudEvents: binary, structured, or a batch",
        takes={_BATCH: list[Any], ANY_TYPE: bytes},
    ),
)
