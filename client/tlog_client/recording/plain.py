"""Whatever Python holds, as an event that the log takes (`spec/python.md`): nothing is refused, nothing raises."""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from tlog_client.events import canonical_event
from tlog_core.encoding import MAX_JSON_INTEGER
from tlog_core.errors import MalformedError

MAX_DEPTH: Final = 16
MAX_VALUES: Final = 10_000
MAX_TEXT: Final = 65_536
MAX_SHOWN: Final = 4_096

_CUT_MEMBERS: Final = 32
_CUT_NAME: Final = 256

# From here on RFC 8785 writes a whole number with an exponent, which every reader takes for a double.
_EXPONENT: Final = 1e21


@dataclass(slots=True)
class _Budget:
    """How many values may still be looked into: what refers to itself in many places has no end."""

    left: int


def event_bytes(event: Mapping[str, Any]) -> bytes:
    """Return the RFC 8785 form of an event. One of more than 1 MiB is cut, and says so with a member `cut`."""
    value = _plain(event, MAX_DEPTH, _Budget(MAX_VALUES))
    try:
        return canonical_event(value)
    except MalformedError:
        return canonical_event(_cut(value))


def shown(value: Any) -> str:
    """Return the repr of a value, cut to 4,096 characters, or its type if it has none."""
    writer = reprlib.Repr()
    writer.maxlevel = 2
    writer.maxother = writer.maxstring = writer.maxlong = MAX_SHOWN
    try:
        return writer.repr(value)
    except Exception:  # whatever it is, the value is not ours
        return f"<{type(value).__name__}>"


def _plain(value: Any, depth: int, budget: _Budget) -> Any:
    budget.left -= 1
    try:
        if depth and budget.left > 0:
            if isinstance(value, Mapping):
                return {_name(name): _plain(member, depth - 1, budget) for name, member in value.items()}
            if isinstance(value, list | tuple | set | frozenset):
                return [_plain(item, depth - 1, budget) for item in value]
        return _scalar(value)
    except Exception:  # as above
        return _text(shown(value))


def _name(name: Any) -> str:
    return _text(name if isinstance(name, str) else shown(name))


def _scalar(value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return _text(value)
        case int():
            number = int(value)
            return number if abs(number) <= MAX_JSON_INTEGER else str(number)
        case float():
            return _double(float(value))
        case date() | time():
            return value.isoformat()
        case PurePath() | UUID() | Decimal():
            return _text(str(value))
        case _:
            return _text(shown(value))


def _double(number: float) -> float | str:
    exact = math.isfinite(number) and not MAX_JSON_INTEGER < abs(number) < _EXPONENT
    return number if exact else repr(number)


def _text(text: str) -> str:
    # A lone surrogate is no text; as an escape nothing of it is lost.
    text = str.__str__(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _cut(value: Mapping[str, Any]) -> dict[str, Any]:
    members = list(value.items())[:_CUT_MEMBERS]
    return {**{name[:_CUT_NAME]: _short(member) for name, member in members}, "cut": True}


def _short(member: Any) -> Any:
    if isinstance(member, dict | list):
        return shown(member)
    return member[:MAX_SHOWN] if isinstance(member, str) else member
