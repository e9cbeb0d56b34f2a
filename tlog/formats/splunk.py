"""Events of Splunk's HTTP Event Collector."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from tlog.formats.envelope import FormatOf, envelope
from tlog.formats.fields import Fields, Format, find, from_epoch, text

_OWN: Final = frozenset({"host", "sourcetype", "index", "fields"})
_MEMBERS: Final = _OWN | {"event", "time", "source"}


def splunk(format_of: FormatOf) -> Format:
    """Return the format, of events around one whose format `format_of` finds."""
    return envelope("splunk", "event", _recognizes, _fields, _within, format_of)


def _recognizes(event: Mapping[str, Any]) -> bool:
    # Others call what was done their event.
    own = isinstance(event.get("event"), dict) or not _OWN.isdisjoint(event)
    return own and event.keys() <= _MEMBERS


def _fields(event: Any) -> Fields:
    return Fields(
        time=from_epoch(_number(find(event, "time"))),
        source=text(event, "host"),
        service=text(event, "sourcetype") or text(event, "source"),
    )


def _number(time: Any) -> Any:
    # Docker's driver writes it as a text.
    if isinstance(time, str):
        with suppress(ValueError):
            return float(time)
    return time


def _within(event: Any) -> Any:
    found = find(event, "event")
    line = find(found, "line")
    return line if isinstance(line, dict) else found
