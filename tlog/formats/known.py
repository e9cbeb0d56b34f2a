"""Which format an event has: what it looks like decides, and not the way by which it came."""

from collections.abc import Iterable
from typing import Any, Final

from tlog.formats import cloudtrail, kubernetes, otlp, plain, quarantine, vault
from tlog.formats.cloudevents import cloudevents
from tlog.formats.fields import Format
from tlog.formats.splunk import splunk
from tlog.formats.syslog import syslog

_EVENTS: Final = (quarantine.FORMAT, kubernetes.FORMAT, cloudtrail.FORMAT, vault.FORMAT, otlp.FORMAT)


def format_of(event: Any) -> Format:
    """Return the format of a JSON value, `plain` if it is none of the others."""
    return _first(_BY_SHAPE, event)


def _within(event: Any) -> Format:
    # No envelope within another, so that nobody nests them without end.
    return _first(_EVENTS, event)


def _first(formats: Iterable[Format], event: Any) -> Format:
    if isinstance(event, dict):
        for one in formats:
            # All but one are none of it: to call each for that takes longer.
            if one.mark in event and one.recognizes(event):
                return one
    return plain.FORMAT


_BY_SHAPE: Final = (*_EVENTS, syslog(_within), cloudevents(_within), splunk(_within))
