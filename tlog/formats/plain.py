"""Events of no known format: members of the usual names are taken for what they say."""

from typing import Any, Final

from tlog.formats.fields import FAILURE, SUCCESS, Fields, Format, Outcome, from_epoch, milliseconds, text

_NAMES: Final = {
    "actor": ("actor", "user", "principal", "username", "user_id", "by"),
    "action": ("action", "event", "event_type", "operation", "verb", "method"),
    "target": ("target", "resource", "object", "path"),
    "source": ("source", "source_ip", "ip", "remote_addr", "host"),
    "namespace": ("namespace", "tenant", "organization"),
    "service": ("service", "app", "application", "logger"),
    "account": ("account", "account_id"),
    "severity": ("severity", "level"),
}
_TIMES: Final = ("time", "timestamp", "occurred_at", "@timestamp", "date")
_WITHIN: Final = ("name", "id", "email")
_OUTCOMES: Final[dict[str, Outcome]] = {
    **dict.fromkeys(("success", "succeeded", "ok", "allowed", "allow", "true"), SUCCESS),
    **dict.fromkeys(("failure", "failed", "fail", "error", "denied", "deny", "refused", "false"), FAILURE),
}


def _fields(event: Any) -> Fields:
    if not isinstance(event, dict):
        return Fields()
    found = {field: _first(event, names) for field, names in _NAMES.items()}
    times = (_time(event.get(name)) for name in _TIMES)
    return Fields(time=next((time for time in times if time is not None), None), outcome=_outcome(event), **found)


def _first(event: Any, names: tuple[str, ...]) -> Any:
    # Most names are not there, and this is done for each event: nothing more for those than to look.
    for name in names:
        value = event.get(name)
        if value is not None and (found := text(value) or _within(value)):
            return found
    return None


def _within(value: Any) -> str | None:
    return next((found for found in (text(value, name) for name in _WITHIN) if found), None)


def _time(value: Any) -> int | None:
    """Return the time of an RFC 3339 timestamp, or of a number, which is one of seconds since the epoch."""
    return from_epoch(value) if isinstance(value, int | float) else milliseconds(value)


def _outcome(event: Any) -> Outcome | None:
    for name in ("outcome", "status", "result", "success"):
        value = event.get(name)
        found = _OUTCOMES.get(str(value).lower()) if isinstance(value, str | bool) else None
        if found is not None:
            return found
    return None


FORMAT: Final = Format("plain", "", lambda _: True, _fields, lambda _: None)
