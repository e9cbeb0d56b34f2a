"""OTLP as JSON: log records with each value in its one form, and without what OTLP has no name for."""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final

import msgspec
import orjson
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from tlog.receivers.otlp_records import Encoding, Group, about, double, text_of
from tlog.receivers.receive import UNREADABLE, unique
from tlog_core.errors import MalformedError

_Text = Raw | UnsetType
_Readers = Mapping[str, Callable[[Any], Any]]

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,19})")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|NaN|-?Infinity")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*")
_STANDARD: Final = str.maketrans("-_", "+/")
_TWO_KINDS: Final = re.compile(rb',"[a-z]+Value":')
_BARE_INTEGER: Final = re.compile(rb'"intValue":(-?[0-9]+)')

_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(pattern=r"\A(0|-?[1-9][0-9]{0,17})\Z")]
_Positive = Annotated[int, Meta(gt=0, lt=2**31)] | UnsetType
_Words = Annotated[str, Meta(min_length=1)] | UnsetType
_Nanoseconds = Annotated[str, Meta(pattern=r"\A[1-9][0-9]{0,18}\Z")] | UnsetType
_Hex = Annotated[str, Meta(pattern=r"\A([0-9a-f]{2})+\Z")] | UnsetType


class _Logs(Struct, rename="camel"):
    scope: _Text = UNSET
    log_records: list[Raw] | UnsetType | None = UNSET
    schema_url: _Text = UNSET


class _OfResource(Struct, rename="camel"):
    resource: _Text = UNSET
    scope_logs: list[_Logs] | UnsetType | None = UNSET
    schema_url: _Text = UNSET


class _Request(Struct, rename="camel"):
    resource_logs: list[_OfResource] | UnsetType | None = UNSET


class _Value(Struct, rename="camel", forbid_unknown_fields=True):
    bool_value: bool | UnsetType = UNSET
    int_value: _Int64 | UnsetType = UNSET
    string_value: str | UnsetType = UNSET


class _Pair(Struct, forbid_unknown_fields=True):
    key: str
    value: _Value


class _Usual(Struct, rename="camel", forbid_unknown_fields=True):
    """A record as most are: each member is in its one form, and they are in the order of their names."""

    attributes: Annotated[list[_Pair], Meta(min_length=1)] | UnsetType = UNSET
    body: _Value | UnsetType = UNSET
    dropped_attributes_count: Annotated[int, Meta(ge=0, lt=2**32)] | UnsetType = UNSET
    event_name: _Words = UNSET
    flags: _Positive = UNSET
    observed_time_unix_nano: _Nanoseconds = UNSET
    severity_number: _Positive = UNSET
    severity_text: _Words = UNSET
    span_id: _Hex = UNSET
    time_unix_nano: _Nanoseconds = UNSET
    trace_id: _Hex = UNSET


_USUAL: Final = msgspec.json.Decoder(_Usual).decode


def _groups(raw: bytes) -> Iterator[Group]:
    for group in _parts(raw).resource_logs or ():
        for logs in group.scope_logs or ():
            yield Group(group.resource, group.schema_url, logs.scope, logs.schema_url, logs.log_records or [])


def _parts(raw: bytes) -> _Request:
    """Return a request with each part of it as its text; raise MalformedError."""
    try:
        request = msgspec.json.decode(raw, type=_Request)
        # Of two members of one name it leaves one out, and with it a colon.
        if msgspec.json.encode(request).count(b":") == raw.count(b":"):
            return request
    except UNREADABLE:
        pass
    return _parts_of(_parse(raw))


def _parts_of(value: Any) -> _Request:
    """Return the same where the fast reader leaves something out, or refuses all, as for half a surrogate pair."""
    return _Request(
        [
            _OfResource(
                _text(group, "resource"),
                [
                    _Logs(
                        _text(logs, "scope"), [_raw(one) for one in _list(logs, "logRecords")], _text(logs, "schemaUrl")
                    )
                    for logs in _list(group, "scopeLogs")
                ],
                _text(group, "schemaUrl"),
            )
            for group in _list(value, "resourceLogs")
        ]
    )


def _list(holder: Any, name: str) -> list[Any]:
    found = _dict(holder).get(name)
    return [] if found is None else _instance(list, found)


def _text(holder: Any, name: str) -> _Text:
    found = _dict(holder).get(name)
    return UNSET if found is None else _raw(found)


def _raw(value: Any) -> Raw:
    try:
        return Raw(json.dumps(value).encode())
    except RecursionError:
        raise MalformedError("nests too deep") from None


def _parse(raw: bytes) -> Any:
    try:
        value = msgspec.json.decode(raw)
        if _has_all(orjson.dumps(value), raw):
            return value
    except (*UNREADABLE, orjson.JSONEncodeError):
        pass
    try:
        return json.loads(raw, object_pairs_hook=unique)
    except UNREADABLE as error:
        raise MalformedError(f"not JSON: {error}") from None


def _has_all(written: bytes, raw: bytes) -> bool:
    """Tell whether all members of JSON were read, of which this was written again: of two of one name only one is."""
    # Each member has a colon; those in texts are the same, unless they are spelled in another way.
    return raw.count(b":") == written.count(b":") and b"\\u003" not in raw


def _request(group: Group, records: Sequence[Raw]) -> bytes:
    logs = _Logs(group.scope, list(records), group.scope_url)
    return msgspec.json.encode(_Request([_OfResource(group.resource, [logs], group.resource_url)]))


def _about(group: Group) -> bytes:
    resource, scope = _read(_part(group.resource, {}), _RESOURCE), _read(_part(group.scope, {}), _SCOPE)
    return about(resource, _string(_part(group.resource_url, "")), scope, _string(_part(group.scope_url, "")))


def _part(text: _Text, without: Any) -> Any:
    """Return the value of a part of a request, which may not be there, or null."""
    found = None if isinstance(text, UnsetType) else _parse(bytes(text))
    return without if found is None else found


def _record(text: Raw) -> bytes:
    raw = bytes(text)
    return _usual(raw) or text_of(_read(_parse(raw), _RECORD))


def _usual(raw: bytes) -> bytes | None:
    """Return the same, by a few calls, for a record that is as most are; None for any other."""
    try:
        record = _USUAL(raw)
    except UNREADABLE:
        return None
    written = msgspec.json.encode(record)
    # Neither is found within a text, where a quote has a backslash before it.
    if not _has_all(written, raw) or _TWO_KINDS.search(written):
        return None
    if record.dropped_attributes_count == 0:
        # The exporter of JavaScript says so where there are none.
        record.dropped_attributes_count = UNSET
        written = msgspec.json.encode(record)
    # Few have one, and to look whether there is one takes a tenth.
    return _BARE_INTEGER.sub(rb'"intValue":"\1"', written) if b'"intValue":' in written else written


def _read(value: Any, readers: _Readers) -> dict[str, Any]:
    """Return the members for which there are readers, less those that are empty; `{}` is a value, and null is none."""
    found = {}
    try:
        for name, one in _dict(value).items():
            if one is not None and name in readers and ((one := readers[name](one)) or one == {}):
                found[name] = one
    except RecursionError:
        raise MalformedError("nests too deep") from None
    return found


def _pairs(given: Any) -> list[dict[str, Any]]:
    return [_pair(_dict(pair)) for pair in _instance(list, given)]


def _pair(pair: Mapping[str, Any]) -> dict[str, Any]:
    key, value = pair.get("key"), pair.get("value")
    return {"key": "" if key is None else _string(key), "value": {} if value is None else _value(value)}


def _value(given: Any) -> dict[str, Any]:
    found = {}
    for kind, one in _dict(given).items():
        if one is not None and kind in _KINDS:
            found[kind] = _KINDS[kind](one)
    if len(found) > 1:
        raise MalformedError("a value is of one kind")
    return found


def _dict(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise MalformedError("not an object")
    return value


def _string(value: Any) -> str:
    if type(value) is not str:
        raise MalformedError("not a text")
    return value


def _instance(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise MalformedError(f"not a {kind.__name__}")
    return value


def _integer(first: int, last: int, value: Any) -> int:
    # ProtoJSON takes 1.0 for an integer as well.
    whole = value.is_integer() if isinstance(value, float) else isinstance(value, str) and _INTEGER.fullmatch(value)
    value = int(value) if whole else value
    if type(value) is not int or not first <= value <= last:
        raise MalformedError(f"not an integer from {first} to {last}")
    return value


_uint32: Final = partial(_integer, 0, 2**32 - 1)
_enumeration: Final = partial(_integer, -(2**31), 2**31 - 1)


def _int64(value: Any) -> str:
    return str(_integer(-(2**63), 2**63 - 1, value))


def _nanoseconds(value: Any) -> str:
    found = _integer(0, 2**64 - 1, value)
    return str(found) if found else ""


def _double(value: Any) -> float | str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        if number or _NUMBER.fullmatch(_string(value)):
            return double(float(value))
    except OverflowError:
        pass
    raise MalformedError("not a double")


def _hex(value: Any) -> str:
    if not _HEX.fullmatch(_string(value)):
        raise MalformedError("not hex")
    return str(value).lower()


def _base64(value: Any) -> str:
    try:
        bare = _string(value).translate(_STANDARD).rstrip("=")
        return b64encode(b64decode(bare + "=" * (-len(bare) % 4), validate=True)).decode()
    except ValueError:
        raise MalformedError("not base64") from None


def _strings(value: Any) -> list[str]:
    return [_string(one) for one in _instance(list, value)]


def _entities(value: Any) -> list[dict[str, Any]]:
    return [_read(one, _ENTITY) for one in _instance(list, value)]


def _values(value: Any) -> list[dict[str, Any]]:
    return [_value(one) for one in _instance(list, value)]


_RECORD: Final[_Readers] = {
    "attributes": _pairs,
    "body": _value,
    "droppedAttributesCount": _uint32,
    "eventName": _string,
    "flags": _uint32,
    "observedTimeUnixNano": _nanoseconds,
    "severityNumber": _enumeration,
    "severityText": _string,
    "spanId": _hex,
    "timeUnixNano": _nanoseconds,
    "traceId": _hex,
}
_ENTITY: Final[_Readers] = {"descriptionKeys": _strings, "idKeys": _strings, "schemaUrl": _string, "type": _string}
_RESOURCE: Final[_Readers] = {"attributes": _pairs, "droppedAttributesCount": _uint32, "entityRefs": _entities}
_SCOPE: Final[_Readers] = {"attributes": _pairs, "droppedAttributesCount": _uint32, "name": _string, "version": _string}
_KINDS: Final[_Readers] = {
    "stringValue": _string,
    "boolValue": partial(_instance, bool),
    "intValue": _int64,
    "doubleValue": _double,
    "bytesValue": _base64,
    "arrayValue": lambda value: _read(value, {"values": _values}),
    "kvlistValue": lambda value: _read(value, {"values": _pairs}),
}

JSON: Final = Encoding(_groups, _about, _record, _request)
