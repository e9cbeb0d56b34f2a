"""CloudEvents 1.0 in the JSON format."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tlog.formats.envelope import FormatOf, envelope
from tlog.formats.fields import Fields, Format, find, milliseconds, text

_REQUIRED: Final = frozenset({"specversion", "id", "source", "type"})


def cloudevents(format_of: FormatOf) -> Format:
    """Return the format, of events around data whose format `format_of` finds."""
    found = envelope("cloudevents", "specversion", _recognizes, _fields, lambda event: find(event, "data"), format_of)
    return replace(found, id=_id, time=lambda event: found.time(event) or milliseconds(find(event, "time")))


def _recognizes(event: Mapping[str, Any]) -> bool:
    return event.keys() >= _REQUIRED


def _fields(event: Any) -> Fields:
    return Fields(
        time=milliseconds(find(event, "time")),
        action=text(event, "type"),
        target=text(event, "subject"),
        service=text(event, "source"),
    )


def _id(event: Any) -> str | None:
    source, own = text(event, "source"), text(event, "id")
    return f"{source}\n{own}" if source and own else None
