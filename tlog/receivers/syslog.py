"""Messages of syslog, framed as on a connection (RFC 6587), as `tlog-client relay` sends them."""

import orjson
from flask import Response

from tlog.api.answer import json_answer
from tlog.api.route import Call
from tlog.config import MAX_INGEST_BYTES
from tlog.formats.syslog_message import parse_message
from tlog.receivers.receive import Found, body, receiver, take
from tlog_client.relay.framing import Syslog
from tlog_core.errors import MalformedError


def read_messages(raw: bytes) -> Found:
    """Return the messages of a body, each as an event; what is none is a fault."""
    framer, texts, faults = Syslog(MAX_INGEST_BYTES), list[bytes](), list[bytes]()
    for frame in (*framer.feed(raw), *framer.end(clean=True)):
        try:
            if frame.fault is not None:
                raise MalformedError(frame.fault)
            texts.append(orjson.dumps({"syslog": parse_message(frame.data)}, option=orjson.OPT_SORT_KEYS))
        except MalformedError:
            faults.append(frame.data)
    return Found(texts, faults)


def take_syslog(call: Call) -> Response:
    """Answer `POST /ingest/syslog`."""
    return json_answer(take(call, "syslog", read_messages(body())))


ROUTES = (receiver("/ingest/syslog", take_syslog, "Take messages of syslog"),)
