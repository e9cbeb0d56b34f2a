"""Messages of syslog, as `syslog_message` makes objects of them; also those that carry an event of another format."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import msgspec

from tlog.formats.fields import Fields, Format, find, milliseconds, text

_SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
# By which rsyslog and others tell JSON from text.
_COOKIE = "@cee:"


def syslog(format_of: Callable[[Any], Format]) -> Format:
    """Return the format of messages of syslog, in which `format_of` tells that of an event within one."""
    return Format("syslog", _recognizes, partial(_fields, format_of), lambda _: None)


def _recognizes(event: Mapping[str, Any]) -> bool:
    members = event.get("syslog")
    return isinstance(members, dict) and "facility" in members and "severity" in members


def _fields(format_of: Callable[[Any], Format], event: Any) -> Fields:
    members = find(event, "syslog")
    own = Fields(
        time=milliseconds(find(members, "timestamp")),
        action=text(members, "msgid"),
        source=text(members, "hostname"),
        service=text(members, "app_name"),
        severity=_severity(find(members, "severity")),
    )
    within = _within(find(members, "message"))
    if within is None:
        return own
    found = asdict(format_of(within).fields(within))
    return Fields(**(asdict(own) | {name: value for name, value in found.items() if value is not None}))


def _severity(number: Any) -> str | None:
    is_one = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(_SEVERITIES)
    return _SEVERITIES[number] if is_one else None


def _within(message: Any) -> Any:
    """Return the JSON object that a message is, None if it is none."""
    if not isinstance(message, str):
        return None
    body = message.removeprefix(_COOKIE).lstrip()
    if not body.startswith("{"):
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
