"""JSON as collectors send it: an array of events, one event a line, or one behind the other; whatever its media type.

Fluent Bit says `application/json` for all three.
"""

from typing import Final

from flask import Response, request

from tlog.api.answer import json_answer
from tlog.api.route import Call
from tlog.errors import UnsupportedTypeError
from tlog.receivers.receive import Found, array, body, concatenated, keep, media_type, receiver, take

_MSGPACK: Final = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")


def read_events(raw: bytes) -> Found:
    """Return the events of a body; a line that is no JSON is a fault."""
    # No array begins so: lines need not be read in vain for one.
    if raw.lstrip().startswith(b"{"):
        return concatenated(raw)
    found = array(raw)
    return concatenated(raw) if found.faults else found


def take_json(call: Call) -> Response:
    """Answer `POST /ingest/json`."""
    raw = body()
    if media_type(request.environ.get("CONTENT_TYPE", "")) in _MSGPACK:
        keep(call, "json", raw)
        raise UnsupportedTypeError("send JSON, in Fluent Bit by `format json`; what was sent is kept in quarantine")
    return json_answer(take(call, "json", read_events(raw)))


ROUTES = (receiver("/ingest/json", take_json, "Take JSON events: an array, lines, or one behind the other"),)
