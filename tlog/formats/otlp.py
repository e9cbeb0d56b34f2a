"""Log records of OpenTelemetry, in the JSON form of OTLP, each with its resource and scope (spec/formats.md)."""

from collections.abc import Mapping
from typing import Any, Final

from tlog.formats.fields import FAILURE, SUCCESS, Fields, Format, Outcome, find, text

_VALUES: Final = ("stringValue", "intValue", "doubleValue")
_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_IN_LEVEL: Final = 4
_FIRST_FAILURE: Final = 400
_LONGEST_TIME: Final = 20
_SECOND: Final = 1_000_000_000
_MILLISECOND: Final = 1_000_000


def _recognizes(event: Mapping[str, Any]) -> bool:
    return "record" in event and "resource" in event and "scope" in event


def _fields(event: Any) -> Fields:
    record = find(event, "record")
    own, resource = _attributes(record), _attributes(find(event, "resource"))
    return Fields(
        time=_time(record),
        actor=_first(own, "enduser.id", "user.name", "user.id", "user.email"),
        action=text(record, "eventName") or _first(own, "event.name") or text(record, "body", "stringValue"),
        target=_first(own, "url.full", "url.path", "file.path", "db.collection.name", "messaging.destination.name"),
        outcome=_outcome(own),
        source=_first(own, "client.address", "source.address"),
        namespace=_first(resource, "k8s.namespace.name", "service.namespace"),
        service=_first(resource, "service.name"),
        account=_first(own, "cloud.account.id") or _first(resource, "cloud.account.id"),
        severity=text(record, "severityText") or _level(find(record, "severityNumber")),
    )


def _attributes(holder: Any) -> dict[str, Any]:
    pairs = find(holder, "attributes")
    found: dict[str, Any] = {}
    for pair in pairs if isinstance(pairs, list) else ():
        name = find(pair, "key")
        if isinstance(name, str):
            found.setdefault(name, find(pair, "value"))
    return found


def _first(attributes: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        if name in attributes:
            for kind in _VALUES:
                if found := text(attributes[name], kind):
                    return found
    return None


def _outcome(own: Mapping[str, Any]) -> Outcome | None:
    if _first(own, "error.type", "exception.type"):
        return FAILURE
    status = _first(own, "http.response.status_code")
    if status is None or not status.isascii() or not status.isdigit():
        return None
    return FAILURE if len(status) > len(str(_FIRST_FAILURE)) or int(status) >= _FIRST_FAILURE else SUCCESS


def _level(number: Any) -> str | None:
    if type(number) is not int or not 1 <= number <= len(_LEVELS) * _IN_LEVEL:
        return None
    level, step = divmod(number - 1, _IN_LEVEL)
    return f"{_LEVELS[level]}{step + 1}" if step else _LEVELS[level]


def _time(record: Any) -> int | None:
    found = _nanoseconds(record, "timeUnixNano") or _nanoseconds(record, "observedTimeUnixNano")
    return found // _MILLISECOND if found else None


def _nanoseconds(record: Any, name: str) -> int:
    """Return a time in nanoseconds since the epoch, 0 if there is none."""
    value = find(record, name)
    plain = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _LONGEST_TIME
    return int(value) if plain else 0


def _id(event: Any) -> str | None:
    record = find(event, "record")
    # Whole seconds are what was read out of a text: two equal lines of one second may come in two requests.
    observed, own = _nanoseconds(record, "observedTimeUnixNano"), _nanoseconds(record, "timeUnixNano")
    return str(observed or own) if observed or own % _SECOND else None


FORMAT: Final = Format("otlp", _recognizes, _fields, _id, counts=True)
