"""Log records of OpenTelemetry, in the JSON form of OTLP, each with its resource and scope (spec/formats.md)."""

from collections.abc import Mapping
from typing import Any, Final

from tlog.formats.fields import FAILURE, SUCCESS, Fields, Format, Outcome, find, text

_ACTOR: Final = ("enduser.id", "user.name", "user.id", "user.email")
_TARGET: Final = ("url.full", "url.path", "file.path", "db.collection.name", "messaging.destination.name")
_SOURCE: Final = ("client.address", "source.address")
_NAMESPACE: Final = ("k8s.namespace.name", "service.namespace")
_ERROR: Final = ("error.type", "exception.type")
_STATUS: Final = "http.response.status_code"
_ACCOUNT: Final = "cloud.account.id"
_NAMES: Final = frozenset(
    {*_ACTOR, *_TARGET, *_SOURCE, *_NAMESPACE, *_ERROR, _STATUS, _ACCOUNT, "event.name", "service.name"}
)
_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_IN_LEVEL: Final = 4
_FIRST_FAILURE: Final = 400
_LONGEST_TIME: Final = 20
_SECOND: Final = 1_000_000_000
_MILLISECOND: Final = 1_000_000


def _recognizes(event: Mapping[str, Any]) -> bool:
    return "resource" in event and "scope" in event


def _fields(event: Any) -> Fields:
    record = find(event, "record")
    own, resource = _attributes(record), _attributes(find(event, "resource"))
    return Fields(
        time=_time(record),
        actor=_first(own, _ACTOR),
        action=text(record, "eventName") or own.get("event.name") or text(record, "body", "stringValue"),
        target=_first(own, _TARGET),
        outcome=_outcome(own),
        source=_first(own, _SOURCE),
        namespace=_first(resource, _NAMESPACE),
        service=resource.get("service.name"),
        account=own.get(_ACCOUNT) or resource.get(_ACCOUNT),
        severity=text(record, "severityText") or _level(find(record, "severityNumber")),
    )


def _attributes(holder: Any) -> dict[str, str]:
    """Return those of the attributes that fields are made of, as texts; of several of one name the first."""
    pairs = find(holder, "attributes")
    found: dict[str, str] = {}
    for pair in pairs if isinstance(pairs, list) else ():
        name = find(pair, "key")
        if isinstance(name, str) and name in _NAMES and name not in found:
            value = _text(find(pair, "value"))
            if value is not None:
                found[name] = value
    return found


def _text(value: Any) -> str | None:
    return text(value, "stringValue") or text(value, "intValue") or text(value, "doubleValue")


def _first(attributes: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    for name in names:
        if name in attributes:
            return attributes[name]
    return None


def _outcome(own: Mapping[str, str]) -> Outcome | None:
    if _first(own, _ERROR):
        return FAILURE
    status = own.get(_STATUS)
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
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value.isdecimal() or not value.isascii() or len(value) > _LONGEST_TIME:
        return 0
    return int(value)


def _id(event: Any) -> str | None:
    record = find(event, "record")
    observed = _nanoseconds(record, "observedTimeUnixNano")
    # Whole seconds are what was read out of a text: two equal lines of one second may come in two requests.
    time = observed or _nanoseconds(record, "timeUnixNano")
    return str(time) if observed or time % _SECOND else None


FORMAT: Final = Format(
    "otlp", "record", _recognizes, _fields, _id, lambda event: _time(find(event, "record")), counts=True
)
