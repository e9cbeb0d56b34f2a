"""Text from elsewhere, made fit for a terminal, which obeys the control characters in what it shows."""

import re
from datetime import UTC, datetime
from typing import Final

_UNPRINTABLE: Final = re.compile(r"[^\n\x20-\x7e\xa0-\u2027\u2030-\u2065\u2070-\ud7ff\ue000-\U0010ffff]")
_END_OF_CALENDAR: Final = 253_402_300_800_000


def printable(text: str) -> str:
    """Return text with each control character but the newline, and each that reverses direction, replaced by `?`."""
    return _UNPRINTABLE.sub("?", text)


def format_time(milliseconds: int) -> str:
    """Return a time since the epoch in ISO 8601, or as a number if it is beyond the year 9999."""
    if milliseconds >= _END_OF_CALENDAR:
        return f"{milliseconds} ms"
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03}Z"
