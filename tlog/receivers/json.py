"""JSON as collectors send it: an array of events, one event a line, or one behind the other; whatever its media type.

Fluent Bit says `application/json` for all three.
"""

import msgspec
from flask import Response

from tlog.api.answer import json_answer
from tlog.api.route import Call
from tlog.receivers.receive import UNREADABLE, Found, body, concatenated, receiver, take

_ARRAY = list[msgspec.Raw]


def read_events(raw: bytes) -> Found:
    """Return the events of a body; a line that is no JSON is a fault."""
    try:
        return Found([bytes(item) for item in msgspec.json.decode(raw, type=_ARRAY)])
    except UNREADABLE:
        return concatenated(raw)


def take_json(call: Call) -> Response:
    """Answer `POST /ingest/json`."""
    return json_answer(take(call, "json", read_events(body())))


ROUTES = (receiver("/ingest/json", take_json, "Take JSON events: an array, lines, or one behind the other"),)
