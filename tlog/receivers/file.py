"""A file of events, as one of the receivers would take it: which, what stands in it shows."""

import json

from tlog.receivers.json import read_events
from tlog.receivers.receive import UNREADABLE, Found, listed


def read_file(raw: bytes) -> Found:
    """Return the events of an EventList, of a file of CloudTrail, or of JSON as collectors write it."""
    try:
        value = json.loads(raw)
    except UNREADABLE:
        return read_events(raw)
    if isinstance(value, dict) and value.get("kind") == "EventList":
        return listed(raw, "items")
    if isinstance(value, dict) and value.keys() == {"Records"}:
        return listed(raw, "Records")
    return read_events(raw)
