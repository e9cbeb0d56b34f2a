"""Which format an event has: what it looks like decides, and not the way by which it came."""

from typing import Any, Final

from tlog.formats import cloudtrail, kubernetes, otlp, plain, quarantine
from tlog.formats.fields import Format

_BY_SHAPE: Final = (quarantine.FORMAT, kubernetes.FORMAT, cloudtrail.FORMAT, otlp.FORMAT)


def format_of(event: Any) -> Format:
    """Return the format of a JSON value, `plain` if it is none of the others."""
    if isinstance(event, dict):
        for one in _BY_SHAPE:
            if one.recognizes(event):
                return one
    return plain.FORMAT
