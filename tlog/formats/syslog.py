"""Messages of syslog, as `syslog_message` makes objects of them; also those that carry an event of another format."""

from collections.abc import Mapping
from typing import Any

import msgspec

from tlog.formats.envelope import FormatOf, envelope
from tlog.formats.fields import Fields, Format, find, milliseconds, text

_SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
# By which rsyslog and others tell JSON from text.
_COOKIE = "@cee:"


def syslog(format_of: FormatOf) -> Format:
    """Return the format, of messages around an event whose format `format_of` finds."""
    return envelope("syslog", "syslog", _recognizes, _fields, _within, format_of)


def _recognizes(event: Mapping[str, Any]) -> bool:
    members = event.get("syslog")
    return isinstance(members, dict) and "facility" in members and "severity" in members


def _fields(event: Any) -> Fields:
    members = find(event, "syslog")
    return Fields(
        time=milliseconds(find(members, "timestamp")),
        action=text(members, "msgid"),
        source=text(members, "hostname"),
        service=text(members, "app_name"),
        severity=_severity(find(members, "severity")),
    )


def _severity(number: Any) -> str | None:
    is_one = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(_SEVERITIES)
    return _SEVERITIES[number] if is_one else None


def _within(event: Any) -> Any:
    """Return the JSON object that a message is, None if it is none."""
    message = find(event, "syslog", "message")
    body = message.removeprefix(_COOKIE).lstrip() if isinstance(message, str) else ""
    if not body.startswith("{"):
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
