"""What `scripts/bench` sends to receivers: the events of the other sections in the formats of each, and as lines.

Each request has ids of its own, or the events in it would be known.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench_load import ID, NANOSECONDS, TIME
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

BATCH: Final = 400
"""How many events there are in a body: as many as an API server of Kubernetes sends."""

_BODIES: Final = 8


@dataclass(frozen=True, slots=True)
class Received:
    """A receiver: its path, the events that are logged, made of those of the other sections, and a body of such."""

    path: str
    event: Callable[[dict[str, Any]], dict[str, Any]]
    body: Callable[[Sequence[bytes]], bytes]
    kind: str = "application/json"


def bodies(events: Path, received: Received) -> tuple[list[bytes], list[bytes]]:
    """Return what is sent to a receiver, and the same events as lines."""
    lines = events.read_bytes().splitlines()[: BATCH * _BODIES]
    texts = [_text(received.event({**json.loads(line), "id": f"{ID.decode()}-{n}"})) for n, line in enumerate(lines)]
    batches = [texts[place : place + BATCH] for place in range(0, len(texts), BATCH)]
    return [received.body(batch) for batch in batches], [b"\n".join(batch) for batch in batches]


def _text(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def _kubernetes(event: dict[str, Any]) -> dict[str, Any]:
    named = {"auditID": event.pop("id"), "stage": "ResponseComplete", "verb": event.pop("kind")}
    more = {"requestReceivedTimestamp": TIME.decode(), "objectRef": {"namespace": "payments"}}
    return {**event, **named, **more, "user": {"username": event["user"]["name"]}}


def _cloudtrail(event: dict[str, Any]) -> dict[str, Any]:
    named = {"eventID": event.pop("id"), "eventName": event.pop("kind"), "eventSource": "s3.amazonaws.com"}
    named["eventTime"] = TIME.decode()
    return {**event, **named, "userIdentity": {"userName": event["user"]["name"]}}


def _cloudevent(event: dict[str, Any]) -> dict[str, Any]:
    named = {"specversion": "1.0", "id": event.pop("id"), "source": "/bench", "type": event.pop("kind")}
    return {**named, "time": TIME.decode(), "data": event}


def _splunk(event: dict[str, Any]) -> dict[str, Any]:
    return {"event": event, "time": 1_764_000_000.5, "host": "web-1", "index": "main", "sourcetype": "bench"}


def _vault(event: dict[str, Any]) -> dict[str, Any]:
    asked = {"id": event.pop("id"), "operation": "read", "path": event.pop("kind"), "data": event}
    return {"time": TIME.decode(), "type": "request", "auth": {"display_name": "ann"}, "request": asked}


def _record(event: dict[str, Any]) -> dict[str, Any]:
    attributes = [{"key": "event.id", "value": {"stringValue": event.pop("id")}}]
    attributes += [{"key": key, "value": {"stringValue": json.dumps(value)}} for key, value in event.items()]
    record = {"timeUnixNano": str(NANOSECONDS), "body": {"stringValue": event["kind"]}, "attributes": attributes}
    return {"record": record, "resource": {}, "scope": {}}


def _otlp(texts: Sequence[bytes]) -> dict[str, Any]:
    records = [json.loads(text)["record"] for text in texts]
    return {"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {}, "logRecords": records}]}]}


def _otlp_json(texts: Sequence[bytes]) -> bytes:
    return json.dumps(_otlp(texts)).encode()


def _otlp_protobuf(texts: Sequence[bytes]) -> bytes:
    return bytes(ParseDict(_otlp(texts), ExportLogsServiceRequest()).SerializeToString())


def _syslog(texts: Sequence[bytes]) -> bytes:
    return b"\n".join(b"<165>1 " + TIME + b" web-1 bench 17 - - " + text for text in texts)


def _within(before: bytes, after: bytes) -> Callable[[Sequence[bytes]], bytes]:
    return lambda texts: before + b",".join(texts) + after


RECEIVED: Final[Mapping[str, Received]] = {
    "json, an array": Received("/ingest/json", dict, _within(b"[", b"]")),
    "json, lines": Received("/ingest/json", dict, b"\n".join),
    "kubernetes": Received("/ingest/kubernetes", _kubernetes, _within(b'{"kind":"EventList","items":[', b"]}")),
    "cloudtrail": Received("/ingest/cloudtrail", _cloudtrail, _within(b'{"Records":[', b"]}")),
    "cloudevents": Received(
        "/ingest/cloudevents", _cloudevent, _within(b"[", b"]"), "application/cloudevents-batch+json"
    ),
    "vault": Received("/ingest/vault", _vault, b"\n".join),
    "syslog": Received("/ingest/syslog", dict, _syslog),
    "otlp, protobuf": Received("/v1/logs", _record, _otlp_protobuf, "application/x-protobuf"),
    "otlp, JSON": Received("/v1/logs", _record, _otlp_json),
    "splunk": Received("/services/collector/event", _splunk, b"".join),
}
