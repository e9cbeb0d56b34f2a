"""An entry at a glance: when, who did what to what, and how its payload begins."""

from dataclasses import dataclass
from typing import Final

import orjson
from markupsafe import Markup

from tlog.formats.fields import Fields
from tlog.formats.known import format_of
from tlog.search.find import Hit
from tlog.store.codec import Payload
from tlog.web.payload import beginning
from tlog_core.entry import parse_entry
from tlog_core.receipt import JSON_TYPE

_NOTHING: Final = Fields()


@dataclass(frozen=True, slots=True)
class Glance:
    """What a page says of an entry in a line. `time`, in milliseconds, is its event's, or else when it was logged."""

    index: int
    time: int
    fields: Fields
    beginning: Markup
    is_lost: bool


def glance(hit: Hit) -> Glance:
    """Return what is to be said of an entry."""
    fields, logged = fields_of(hit.payload), parse_entry(hit.entry).time
    time = logged if fields.time is None else fields.time
    return Glance(hit.index, time, fields, beginning(hit.payload), hit.payload.is_lost)


def fields_of(payload: Payload) -> Fields:
    """Return the common fields of a payload, none of one that is no event."""
    if payload.type != JSON_TYPE:
        return _NOTHING
    event = orjson.loads(payload.data)
    return format_of(event).fields(event)
