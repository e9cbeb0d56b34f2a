"""OTLP as protobuf: log records in the JSON form of OTLP, which is not quite that of protobuf itself."""

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, EntityRef, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tlog.receivers.otlp_records import Encoding, Group, about, double, text_of
from tlog_core.errors import MalformedError

# ExportLogsServiceRequest with each part as its bytes, so that one bad record leaves the others readable; and
# google.rpc.Status, less its details.
_MESSAGES: Final = """
name: "tlog/otlp.proto" package: "tlog" syntax: "proto3"
message_type {
  name: "Request"
  field { name: "groups" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".tlog.ResourceLogs" }
}
message_type {
  name: "ResourceLogs"
  field { name: "resource" number: 1 label: LABEL_OPTIONAL type: TYPE_BYTES }
  field { name: "scopes" number: 2 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".tlog.ScopeLogs" }
  field { name: "url" number: 3 label: LABEL_OPTIONAL type: TYPE_BYTES }
}
message_type {
  name: "ScopeLogs"
  field { name: "scope" number: 1 label: LABEL_OPTIONAL type: TYPE_BYTES }
  field { name: "records" number: 2 label: LABEL_REPEATED type: TYPE_BYTES }
  field { name: "url" number: 3 label: LABEL_OPTIONAL type: TYPE_BYTES }
}
message_type {
  name: "Status"
  field { name: "code" number: 1 label: LABEL_OPTIONAL type: TYPE_INT32 }
  field { name: "message" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING }
}
"""


def _classes() -> Mapping[str, Any]:
    pool = DescriptorPool()
    pool.Add(text_format.Parse(_MESSAGES, FileDescriptorProto()))
    messages = pool.FindFileByName("tlog/otlp.proto").message_types_by_name
    return {name: GetMessageClass(message) for name, message in messages.items()}


_CLASSES: Final = _classes()


def status(code: int, message: str) -> bytes:
    """Return a google.rpc.Status."""
    return bytes(_CLASSES["Status"](code=code, message=message).SerializeToString())


def _groups(raw: bytes) -> Iterator[Group]:
    for group in _parsed(_CLASSES["Request"], raw).groups:
        for logs in group.scopes:
            yield Group(group.resource, group.url, logs.scope, logs.url, logs.records)


def _request(group: Group, records: Sequence[bytes]) -> bytes:
    logs = _CLASSES["ScopeLogs"](scope=group.scope, records=records, url=group.scope_url)
    of_resource = _CLASSES["ResourceLogs"](resource=group.resource, scopes=[logs], url=group.resource_url)
    return bytes(_CLASSES["Request"](groups=[of_resource]).SerializeToString())


def _about(group: Group) -> bytes:
    resource, scope = _parsed(Resource, group.resource), _parsed(InstrumentationScope, group.scope)
    return about(_of_resource(resource), _text(group.resource_url), _of_scope(scope), _text(group.scope_url))


def _of_resource(resource: Resource) -> dict[str, Any]:
    return _present(
        attributes=_pairs(resource.attributes),
        droppedAttributesCount=resource.dropped_attributes_count,
        entityRefs=[_entity(entity) for entity in resource.entity_refs],
    )


def _of_scope(scope: InstrumentationScope) -> dict[str, Any]:
    return _present(
        attributes=_pairs(scope.attributes),
        droppedAttributesCount=scope.dropped_attributes_count,
        name=scope.name,
        version=scope.version,
    )


def _entity(entity: EntityRef) -> dict[str, Any]:
    return _present(
        descriptionKeys=list(entity.description_keys),
        idKeys=list(entity.id_keys),
        schemaUrl=entity.schema_url,
        type=entity.type,
    )


def _record(raw: bytes) -> bytes:
    record = _parsed(LogRecord, raw)
    return text_of(
        _present(
            attributes=_pairs(record.attributes),
            body=_value(record.body) if record.HasField("body") else None,
            droppedAttributesCount=record.dropped_attributes_count,
            eventName=record.event_name,
            flags=record.flags,
            observedTimeUnixNano=_number(record.observed_time_unix_nano),
            severityNumber=record.severity_number,
            severityText=record.severity_text,
            spanId=record.span_id.hex(),
            timeUnixNano=_number(record.time_unix_nano),
            traceId=record.trace_id.hex(),
        )
    )


def _present(**members: Any) -> dict[str, Any]:
    """Return the members, which are in the order of their names, less those that are empty; `{}` is a value."""
    return {name: value for name, value in members.items() if value or value == {}}


def _pairs(pairs: Iterable[KeyValue]) -> list[dict[str, Any]]:
    return [{"key": pair.key, "value": _value(pair.value)} for pair in pairs]


def _value(value: AnyValue) -> dict[str, Any]:
    # Most are texts, and to ask what kind one is takes as long as to read it.
    if text := value.string_value:
        return {"stringValue": text}
    kind = value.WhichOneof("value")
    if kind is None:
        return {}
    if kind not in _KINDS:
        # That of profiles, whose texts stand elsewhere.
        raise MalformedError(f"{kind} is no value of a log record")
    name, write = _KINDS[kind]
    return {name: write(getattr(value, kind))}


_KINDS: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "string_value": ("stringValue", str),
    "bool_value": ("boolValue", bool),
    "int_value": ("intValue", str),
    "double_value": ("doubleValue", double),
    "bytes_value": ("bytesValue", lambda value: b64encode(value).decode()),
    "array_value": ("arrayValue", lambda value: _present(values=[_value(one) for one in value.values])),
    "kvlist_value": ("kvlistValue", lambda value: _present(values=_pairs(value.values))),
}


def _number(value: int) -> str:
    return str(value) if value else ""


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise MalformedError("not UTF-8") from None


def _parsed(kind: Any, raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except (DecodeError, RecursionError) as error:
        raise MalformedError(f"not a message of this kind: {error}") from None


PROTOBUF: Final = Encoding(_groups, _about, _record, _request)
