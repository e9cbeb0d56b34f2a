"""What events of all formats have in common, and the small tools by which each format finds it (spec/formats.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

SUCCESS: Final = "success"
FAILURE: Final = "failure"
Outcome = Literal["success", "failure"]

_MAX_CHARACTERS: Final = 1_024
_LAST: Final = 253_402_300_800
"""The seconds at which the year 10000 begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The common fields of one event; None is what it does not say. `time` is in milliseconds since the epoch.

    By the first six events are searched; the rest are there to route them by.
    """

    time: int | None = None
    actor: str | None = None
    action: str | None = None
    target: str | None = None
    outcome: Outcome | None = None
    source: str | None = None
    namespace: str | None = None
    service: str | None = None
    account: str | None = None
    severity: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """A format of events: its name, and pure functions of an event, which is a JSON object as Python has it.

    `recognizes` tells of an object that has the member `mark` whether it is one; the others take whatever stands where,
    and never raise. An `id` is the event's own, the same whenever it is sent; None if it has none. `time` is that of
    the fields, found without the others: in its order events with ids are remembered, and without it the more slowly
    the more there are. A format `counts` if only the whole event is one: equal events of one request are told apart by
    their number.
    """

    name: str
    mark: str
    recognizes: Callable[[Mapping[str, Any]], bool]
    fields: Callable[[Any], Fields]
    id: Callable[[Any], str | None]
    time: Callable[[Any], int | None] = lambda _: None
    counts: bool = False


def find(value: Any, *steps: str) -> Any:
    """Return what stands under these members, one within the other; None if there is nothing."""
    for step in steps:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def text(value: Any, *steps: str) -> str | None:
    """Return the text or number that stands there as text, as far as a field goes; None for anything else."""
    found = find(value, *steps)
    if isinstance(found, str):
        return found[:_MAX_CHARACTERS] or None
    return str(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def joined(separator: str, *parts: str | None) -> str | None:
    """Return those of the parts that are there with the separator between them; None if there are none."""
    return separator.join(part for part in parts if part) or None


def milliseconds(timestamp: Any) -> int | None:
    """Return the time of an RFC 3339 timestamp, in milliseconds since the epoch; None if it is not one."""
    try:
        found = datetime.fromisoformat(timestamp)
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000)
    except (TypeError, ValueError, OverflowError):
        return None


def from_epoch(seconds: Any) -> int | None:
    """Return a time in seconds since the epoch in milliseconds; None if it is no number, or beyond the year 9999."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _LAST:
        return None
    return int(seconds * 1_000)
