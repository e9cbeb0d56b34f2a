"""What the two encodings of OTLP have in common: requests of groups of records, which become events one by one."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tlog.config import MAX_BATCH_BYTES, MAX_INGEST_EVENTS
from tlog.errors import TooLargeError
from tlog.receivers.receive import Found
from tlog_core.encoding import MAX_JSON_INTEGER
from tlog_core.errors import MalformedError

_MOST: Final = 4 * MAX_BATCH_BYTES
_TOO_MANY: Final = f"send at most {MAX_INGEST_EVENTS} records at once, of {_MOST} bytes in all, each with its resource"


@dataclass(frozen=True, slots=True)
class Group:
    """Log records of one resource and scope, all as they came."""

    resource: Any
    resource_url: Any
    scope: Any
    scope_url: Any
    records: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Encoding:
    """One encoding of OTLP: the groups of a request; the members of an event, as JSON text; and requests of one record.

    All raise MalformedError. `about` returns the members behind `record`, as the function of this name does.
    """

    groups: Callable[[bytes], Iterable[Group]]
    about: Callable[[Group], bytes]
    record: Callable[[Any], bytes]
    request: Callable[[Group, Sequence[Any]], bytes]


def read_records(raw: bytes, encoding: Encoding) -> Found:
    """Return the log records of a request as events; each that cannot be read, as a request of its own, is a fault.

    Raises TooLargeError: each record comes with its resource and scope, which may be large and stand there once.
    """
    texts, faults, size = list[bytes](), list[bytes](), 0
    try:
        for group in encoding.groups(raw):
            for text, is_event in _each(group, encoding):
                size += len(text)
                (texts if is_event else faults).append(text)
                if size > _MOST or len(texts) + len(faults) > MAX_INGEST_EVENTS:
                    raise TooLargeError(_TOO_MANY)
    except MalformedError:
        return Found(faults=[raw])
    return Found(texts, faults)


def _each(group: Group, encoding: Encoding) -> Iterable[tuple[bytes, bool]]:
    try:
        about = encoding.about(group)
    except MalformedError:
        yield encoding.request(group, group.records), False
        return
    for record in group.records:
        try:
            yield b'{"record":%b,%b}' % (encoding.record(record), about), True
        except MalformedError:
            yield encoding.request(group, [record]), False


def about(resource: Any, resource_url: str, scope: Any, scope_url: str) -> bytes:
    """Return the members that all events of a group have, without braces; raise MalformedError."""
    urls = {"resourceSchemaUrl": resource_url, "scopeSchemaUrl": scope_url}
    members = {"resource": resource, "scope": scope, **{name: url for name, url in urls.items() if url}}
    return text_of(members)[1:-1]


def text_of(value: Any) -> bytes:
    """Return the JSON text of a value; raise MalformedError if it has none, as half a surrogate pair."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise MalformedError(str(error)) from None


def double(value: float) -> float | str:
    """Return a double as RFC 8785 has it, or as a text if it has none for it."""
    if math.isfinite(value):
        if abs(value) > MAX_JSON_INTEGER:
            return repr(value)
        # The same number, which takes a shorter way to its canonical form.
        return int(value) if value.is_integer() else value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
