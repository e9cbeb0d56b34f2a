"""OTLP/HTTP: log records from OpenTelemetry's own exporters, and requests byte by byte as its protocol has them."""

import gzip
import json
import logging
import socket
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from google.protobuf.json_format import MessageToDict
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from live import Answer, Server, start, tell, until
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    EntityRef,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from others import needs_npm, run_npm

from tlog.api.models import Problem
from tlog.canonical import Canonicalizer
from tlog.receivers.otlp import ROUTES as ROUTES_OF_OTLP
from tlog.receivers.otlp_json import JSON
from tlog.receivers.otlp_protobuf import PROTOBUF
from tlog.receivers.otlp_records import Encoding, read_records
from tlog_core.encoding import canonicalize
from tlog_core.errors import MalformedError

JSON_TYPE, PROTOBUF_TYPE = "application/json", "application/x-protobuf"
AT = 1_767_323_045_000_000_678

TEXTS = st.text(max_size=8)
VALUES = st.recursive(
    st.builds(AnyValue)
    | st.builds(AnyValue, string_value=TEXTS)
    | st.builds(AnyValue, bool_value=st.booleans())
    | st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1))
    | st.builds(AnyValue, double_value=st.floats())
    | st.builds(AnyValue, bytes_value=st.binary(max_size=8)),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: AnyValue(array_value=ArrayValue(values=values)))
        | st.lists(st.builds(KeyValue, key=TEXTS, value=inner), max_size=3).map(
            lambda values: AnyValue(kvlist_value=KeyValueList(values=values))
        )
    ),
    max_leaves=4,
)
PAIRS = st.lists(st.builds(KeyValue, key=TEXTS, value=VALUES), max_size=3)
TIMES = st.integers(0, 2**64 - 1)
RECORDS = st.builds(
    LogRecord,
    time_unix_nano=TIMES,
    observed_time_unix_nano=TIMES,
    severity_number=st.integers(0, 24),
    severity_text=TEXTS,
    body=VALUES,
    attributes=PAIRS,
    dropped_attributes_count=st.integers(0, 2**32 - 1),
    flags=st.integers(0, 2**32 - 1),
    trace_id=st.binary(max_size=16),
    span_id=st.binary(max_size=8),
    event_name=TEXTS,
)
LOGS = st.builds(
    ScopeLogs,
    scope=st.builds(InstrumentationScope, name=TEXTS, version=TEXTS, attributes=PAIRS),
    schema_url=TEXTS,
    log_records=st.lists(RECORDS, max_size=3),
)
RESOURCES = st.builds(
    resource_pb2.Resource,
    attributes=PAIRS,
    dropped_attributes_count=st.integers(0, 9),
    entity_refs=st.lists(st.builds(EntityRef, type=TEXTS, id_keys=st.lists(TEXTS, max_size=2)), max_size=2),
)
GROUPS = st.builds(ResourceLogs, resource=RESOURCES, schema_url=TEXTS, scope_logs=st.lists(LOGS, max_size=2))
REQUESTS = st.builds(ExportLogsServiceRequest, resource_logs=st.lists(GROUPS, max_size=2))
ENCODINGS = pytest.mark.parametrize("encoding", [JSON, PROTOBUF])


def as_json(message: ExportLogsServiceRequest) -> dict[str, Any]:
    """Return a request in the JSON form of OTLP, which is that of protobuf but for IDs and enumerations."""
    request: dict[str, Any] = MessageToDict(message, use_integers_for_enums=True)
    for group in request.get("resourceLogs", []):
        for logs in group.get("scopeLogs", []):
            for record in logs.get("logRecords", []):
                for name in {"traceId", "spanId"} & record.keys():
                    record[name] = b64decode(record[name]).hex()
    return request


def of_records(*records: LogRecord, **resource: str) -> ExportLogsServiceRequest:
    pairs = [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in resource.items()]
    logs = ScopeLogs(scope=InstrumentationScope(name="x"), log_records=records)
    group = ResourceLogs(resource=resource_pb2.Resource(attributes=pairs), scope_logs=[logs])
    return ExportLogsServiceRequest(resource_logs=[group])


def record(body: str, at: int = AT, **more: Any) -> LogRecord:
    return LogRecord(time_unix_nano=at, body=AnyValue(string_value=body), **more)


def in_json(*records: object) -> bytes:
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()


def records_of(raw: bytes, encoding: Encoding) -> list[Any]:
    found = read_records(raw, encoding)
    assert not found.faults
    return [json.loads(text)["record"] for text in found.texts]


@given(REQUESTS)
def test_a_record_is_the_same_event_whichever_way_it_comes(request: ExportLogsServiceRequest) -> None:
    by_protobuf = read_records(request.SerializeToString(), PROTOBUF)
    for text in (json.dumps(as_json(request)), json.dumps(as_json(request), separators=(",", ":"), ensure_ascii=False)):
        assert read_records(text.encode(), JSON) == by_protobuf
    sent = [one for group in request.resource_logs for logs in group.scope_logs for one in logs.log_records]
    assert not by_protobuf.faults
    assert len(by_protobuf.texts) == len(sent)
    assert Canonicalizer().lines(by_protobuf.texts) == [canonicalize(text) for text in by_protobuf.texts]


@given(RECORDS)
def test_nothing_of_a_record_is_lost(one: LogRecord) -> None:
    [found] = records_of(of_records(one).SerializeToString(), PROTOBUF)
    [[wanted]] = [
        logs["logRecords"] for group in as_json(of_records(one))["resourceLogs"] for logs in group["scopeLogs"]
    ]
    assert plain(found) == plain(wanted)


def plain(value: Any) -> Any:
    """Return a value with its doubles as Python has them, less the sign of 0, and without empty lists and names."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: repr(float(one) + 0.0) if name == "doubleValue" else plain(one)
        for name, one in value.items()
        if one not in ([], "") or name == "stringValue"
    }


@ENCODINGS
@given(raw=st.binary(max_size=64) | st.recursive(st.none(), lambda inner: st.lists(inner)).map(repr).map(str.encode))
def test_any_bytes_at_all_are_records_or_kept(raw: bytes, encoding: Encoding) -> None:
    found = read_records(raw, encoding)
    for text in found.texts:
        json.loads(text)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["resource", "attributes", "key", "value", "stringValue", "intValue", "body", "arrayValue", "values"]
            ),
            inner,
            max_size=3,
        )
    ),
)


@given(ODD | st.lists(ODD), st.integers(1, 3))
def test_any_json_at_all_is_records_or_kept(value: Any, depth: int) -> None:
    for member in ("resourceLogs", "scopeLogs", "logRecords")[:depth][::-1]:
        value = [{member: value}]
    raw = json.dumps(value[0]).encode()
    found = read_records(raw, JSON)
    assert found.texts or found.faults or b'"logRecords": [{' not in raw


@given(st.lists(ODD, max_size=4), ODD)
def test_each_record_of_a_list_is_an_event_or_kept_alone(records: list[Any], resource: Any) -> None:
    logs = {"resource": resource, "scopeLogs": [{"logRecords": records}]}
    found = read_records(json.dumps({"resourceLogs": [logs]}).encode(), JSON)
    kept = [one for fault in found.faults for one in json.loads(fault)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]]
    assert len(found.texts) + len(kept) == len(records)


def test_of_a_request_the_bad_record_alone_is_kept_with_its_resource() -> None:
    whole = of_records(record("one"), record("t\x00\x00"), record("two"), tenant="shop").SerializeToString()
    broken = whole.replace(b"t\x00\x00", b"t\xff\xfe")
    found = read_records(broken, PROTOBUF)
    alone = of_records(record("t\x00\x00"), tenant="shop").SerializeToString()
    assert found.faults == [alone.replace(b"t\x00\x00", b"t\xff\xfe")]
    assert [json.loads(text)["record"]["body"]["stringValue"] for text in found.texts] == ["one", "two"]


def test_a_resource_that_cannot_be_read_is_kept_with_all_its_records() -> None:
    whole = of_records(record("one"), record("two"), tenant="t\x00\x00").SerializeToString()
    broken = whole.replace(b"t\x00\x00", b"t\xff\xfe")
    assert read_records(broken, PROTOBUF).faults == [broken]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"timeUnixNano": AT}, {"timeUnixNano": str(AT)}),
        ({"timeUnixNano": str(AT), "flags": "1"}, {"timeUnixNano": str(AT), "flags": 1}),
        ({"traceId": "5B8EFFF798038103D269B633813FC60C"}, {"traceId": "5b8efff798038103d269b633813fc60c"}),
        ({"body": {"bytesValue": "-_8"}}, {"body": {"bytesValue": "+/8="}}),
        ({"body": {"doubleValue": "Infinity"}}, {"body": {"doubleValue": "Infinity"}}),
        ({"body": {"doubleValue": 1e300}}, {"body": {"doubleValue": "1e+300"}}),
        ({"body": {"intValue": 2**60, "stringValue": None}}, {"body": {"intValue": str(2**60)}}),
        ({"body": {"arrayValue": {"values": []}}}, {"body": {"arrayValue": {}}}),
        ({"body": None, "severityText": "", "flags": 0, "severityNumber": 9.0}, {"severityNumber": 9}),
        (
            {"body": {"intValue": "-0"}, "droppedAttributesCount": 2},
            {"body": {"intValue": "0"}, "droppedAttributesCount": 2},
        ),
        ({"body": {"boolValue": False}, "droppedAttributesCount": 0}, {"body": {"boolValue": False}}),
        (
            {"body": {"stringValue": '"intValue":1,"intValue":2'}},
            {"body": {"stringValue": '"intValue":1,"intValue":2'}},
        ),
        (
            {"attributes": [{"key": "n", "value": {"intValue": -5}}]},
            {"attributes": [{"key": "n", "value": {"intValue": "-5"}}]},
        ),
        ({"attributes": [{"key": "n"}]}, {"attributes": [{"key": "n", "value": {}}]}),
        ({"eventName": "x", "timeUnixNano": "0"}, {"eventName": "x"}),
        ({"time_unix_nano": "1", "new": {"a": 1}, "eventName": "x"}, {"eventName": "x"}),
    ],
)
def test_json_is_read_as_otlp_has_it(given: dict[str, Any], found: dict[str, Any]) -> None:
    assert records_of(in_json(given), JSON) == [found]


@pytest.mark.parametrize(
    "bad",
    [
        {"body": {"intValue": "07"}},
        {"body": {"intValue": 2**63}},
        {"body": {"intValue": True}},
        {"body": {"intValue": "1", "stringValue": "1"}},
        {"attributes": [{"key": "n", "value": {"boolValue": False, "stringValue": ""}}]},
        {"body": {"doubleValue": "1_0"}},
        {"body": {"doubleValue": 10**400}},
        {"body": {"boolValue": 1}},
        {"body": {"bytesValue": "!"}},
        {"body": "text"},
        {"body": {"stringValue": "cut off \ud83d"}},
        {"timeUnixNano": -1},
        {"traceId": "abc"},
        {"severityNumber": "SEVERITY_NUMBER_INFO"},
        {"attributes": {"a": 1}},
        {"attributes": [{"key": 1}]},
        [],
    ],
)
def test_a_record_that_is_none_is_kept_alone(bad: object) -> None:
    found = read_records(in_json({"eventName": "good"}, bad), JSON)
    assert len(found.texts) == 1
    [kept] = [json.loads(fault) for fault in found.faults]
    assert kept["resourceLogs"][0]["scopeLogs"][0]["logRecords"] == [bad]


def test_two_members_of_one_name_are_not_taken_for_one() -> None:
    # The last has no more colons than one member alone would have.
    for name in (b"y", b":", b"\\u003a", b"\\u003A"):
        twice = b'"eventName": "x", "eventName": "%b"' % name
        raw = in_json({"eventName": "x"}, {"eventName": "z"}).replace(b'"eventName": "x"', twice)
        for one in (raw, raw.replace(b" ", b"")):
            found = read_records(one, JSON)
            assert found.texts == [b'{"record":{"eventName":"z"},"resource":{},"scope":{}}']
            assert twice.replace(b" ", b"") in found.faults[0].replace(b" ", b"")
    for member in (b"resourceLogs", b"scopeLogs", b"logRecords"):
        more = (
            in_json({"eventName": "x"})
            .replace(b" ", b"")
            .replace(b'"%b":' % member, b'"%b":[],"%b":' % (member, member))
        )
        assert read_records(more, JSON).faults == [more]


# Against a real server.

ROUTES = """
[[route]]
match = { format = "otlp", service = "*" }
segment = "{service}"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("otlp") / "data"
    data.mkdir()
    (data / "routes.toml").write_text(ROUTES)
    server = start(data)
    yield server
    server.kill()


def send(server: Server, body: bytes, kind: str = PROTOBUF_TYPE, **headers: str) -> Answer:
    return server.request("POST", "/v1/logs", body, {"Content-Type": kind, **headers})


def payloads(server: Server, name: str, token: str | None = None) -> list[Any]:
    shown = {"Authorization": f"Bearer {token}"} if token else {}
    return server.payloads(name, shown)


def bodies(server: Server, name: str, token: str | None = None) -> list[str]:
    return [one["record"]["body"]["stringValue"] for one in payloads(server, name, token)]


def logger_of(exporter: OTLPLogExporter, service: str) -> tuple[logging.Logger, LoggerProvider]:
    resource = Resource.create({"service.name": service, "k8s.namespace.name": "payments"})
    provider = LoggerProvider(resource=resource)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = logging.Logger(service)
    logger.addHandler(LoggingHandler(logger_provider=provider))
    return logger, provider


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_what_the_exporter_of_python_sends_is_logged(server: Server, compression: Compression) -> None:
    exporter = OTLPLogExporter(endpoint=f"{server.url}/v1/logs", compression=compression)
    service = f"till-{compression.value}"
    logger, provider = logger_of(exporter, service)
    for number in range(20):
        logger.warning("refund %d", number, extra={"user.name": "ann", "share": 0.25, "big": 2**60})
    provider.shutdown()
    assert bodies(server, service) == [f"refund {number}" for number in range(20)]
    event = payloads(server, service)[0]
    assert {"key": "share", "value": {"doubleValue": 0.25}} in event["record"]["attributes"]
    assert {"key": "big", "value": {"intValue": str(2**60)}} in event["record"]["attributes"]
    assert {"key": "service.name", "value": {"stringValue": service}} in event["resource"]["attributes"]
    search = f"/segments/{service}/entries?actor=ann&action=refund*&limit=100"
    until(lambda: len(server.request("GET", search).json()["entries"]) == 20, "the records to be found")


POLICY = """
[[rule]]
name = "tills write"
roles = ["writer"]
principals = ["till"]
segments = ["*"]

[[rule]]
name = "and make segments"
roles = ["creator"]
principals = ["till"]
segments = ["*"]

[[rule]]
name = "who reads"
roles = ["auditor"]
principals = ["ann"]
segments = ["*"]

[[quota]]
name = "one request a second"
each = "principal"
requests_per_second = 1
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, str]]:
    """A guarded server, with the tokens of who sends and who reads."""
    folder = tmp_path_factory.mktemp("guarded")
    data, policy = folder / "data", folder / "policy.toml"
    tell("segment", "create", "first", "--data", data, "--log-name", "example.com/audit")
    policy.write_text(POLICY)
    tell("policy", "apply", policy, "--data", data)
    till, ann = (tell("token", "issue", name, "--data", data) for name in ("till", "ann"))
    server = start(data, guarded=True, log_name=None)
    yield server, till, ann
    server.kill()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_exporter_that_is_held_back_sends_again_until_all_is_logged_once(
    guarded: tuple[Server, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, till, ann = guarded
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"Authorization=Bearer%20{till}")
    logger, provider = logger_of(OTLPLogExporter(), "till")
    for number in range(3):
        logger.warning("refund %d", number)
        assert provider.force_flush()
    provider.shutdown()

    def answers() -> list[int]:
        return [line["status"] for line in server.logged() if line.get("route") == "/v1/logs"]

    # The log is written soon after the answer.
    until(lambda: answers().count(200) == 3, "the answers in the log")
    assert 429 in answers()
    assert bodies(server, "otlp", ann) == [f"refund {number}" for number in range(3)]


@needs_npm
def test_what_the_exporter_of_javascript_sends_in_chunks_is_logged(server: Server, tmp_path: Path) -> None:
    run_npm(tmp_path)
    run = subprocess.run(["node", "otlp.js", server.url], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = payloads(server, "unknown-service-node")
    assert [(one["scope"]["name"], one["record"]["body"]["stringValue"]) for one in found] == [
        (compression, body) for compression in ("none", "gzip") for body in ("paid", "refunded")
    ]
    values = {pair["key"]: pair["value"] for pair in found[0]["record"]["attributes"]}
    assert values == {
        "user.name": {"stringValue": "ann"},
        "amount": {"doubleValue": 2.5},
        "big": {"intValue": "1152921504606847000"},
        "bytes": {"bytesValue": "AQL/"},
        "endless": {},
        "list": {"arrayValue": {"values": [{"boolValue": True}, {"stringValue": "é"}, {"intValue": "7"}]}},
    }
    kept = [one["text"] for one in payloads(server, "quarantine")]
    assert len([text for text in kept if r"cut off here \ud83d" in text]) == 2


def test_a_request_that_is_sent_again_is_logged_once_and_equal_records_of_it_stay_two(server: Server) -> None:
    request = of_records(record("same"), record("other"), record("same"), **{"service.name": "twice"})
    for _ in range(2):
        assert send(server, request.SerializeToString()).status == 200
        assert bodies(server, "twice") == ["same", "other", "same"]
    # By the other way they are the same.
    assert send(server, json.dumps(as_json(request)).encode(), JSON_TYPE).status == 200
    assert bodies(server, "twice") == ["same", "other", "same"]


def test_equal_lines_of_one_second_are_never_taken_for_one(server: Server) -> None:
    second = AT - AT % 1_000_000_000
    request = of_records(record("line", second), **{"service.name": "syslog"}).SerializeToString()
    observed = of_records(record("seen", second, observed_time_unix_nano=AT), **{"service.name": "syslog"})
    for one in (request, observed.SerializeToString()) * 2:
        assert send(server, one).status == 200
    assert bodies(server, "syslog") == ["line", "seen", "line"]


def test_success_is_said_in_the_type_of_the_request(server: Server) -> None:
    for kind, empty, said in (
        (PROTOBUF_TYPE, b"", b""),
        (JSON_TYPE, b"{}", b"{}"),
        (f"{JSON_TYPE}; charset=utf-8", b'{"resourceLogs":[]}', b"{}"),
        (JSON_TYPE, b"", b"{}"),
    ):
        answer = send(server, empty, kind)
        assert (answer.status, answer.body) == (200, said)
        assert answer.headers["Content-Type"] == kind.partition(";")[0]


def test_what_is_in_quarantine_is_told_as_partial_success(server: Server) -> None:
    request = of_records(record("found"), **{"service.name": "partly"})
    request.MergeFrom(of_records(record("lost"), tenant="shop"))
    said = ExportLogsServiceResponse.FromString(send(server, request.SerializeToString()).body).partial_success
    assert said.rejected_log_records == 1
    assert "quarantine" in said.error_message
    answer = send(server, json.dumps(as_json(request)).encode(), JSON_TYPE).json()
    assert answer["partialSuccess"]["rejectedLogRecords"] == "1"
    assert bodies(server, "partly") == ["found"]
    [kept] = [one for one in payloads(server, "quarantine") if '"lost"' in one.get("text", "")]
    assert (kept["receiver"], kept["quarantined"]) == ("otlp", "no route matches")


@pytest.mark.parametrize("kind", [PROTOBUF_TYPE, JSON_TYPE])
def test_a_body_that_is_no_request_is_refused_and_kept(server: Server, kind: str) -> None:
    body = f"no request, as {kind}".encode()
    answer = send(server, body, kind)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == kind
    assert "quarantine" in message(answer, 3)
    assert [one for one in payloads(server, "quarantine") if one.get("text") == body.decode()]


def message(answer: Answer, code: int) -> str:
    """Return what a google.rpc.Status of this code says."""
    if answer.headers["Content-Type"] == PROTOBUF_TYPE:
        status = Status.FromString(answer.body)
        assert status.code == code
        return str(status.message)
    assert answer.json()["code"] == code
    return str(answer.json()["message"])


def test_a_body_of_another_type_is_refused_and_kept(server: Server) -> None:
    answer = send(server, b"a=b", "application/x-www-form-urlencoded")
    assert answer.status == 415
    assert PROTOBUF_TYPE in message(answer, 3)
    assert [one for one in payloads(server, "quarantine") if one.get("text") == "a=b"]


def test_too_much_is_refused_as_the_sender_understands(server: Server) -> None:
    for body, headers in (
        (b"\n" * (20 << 20) + b"\n", {}),
        (gzip.compress(b"\n" * (21 << 20), mtime=0), {"Content-Encoding": "gzip"}),
        (of_records(*[record("x")] * 500, large="x" * 200_000).SerializeToString(), {}),
        (of_records(*[LogRecord()] * 100_001).SerializeToString(), {}),
    ):
        answer = send(server, body, **headers)
        assert answer.status == 413
        assert "send" in message(answer, 3)


def test_who_shows_no_credential_is_told_so_in_the_type_of_the_request(guarded: tuple[Server, str, str]) -> None:
    server, _, _ = guarded
    for kind in (PROTOBUF_TYPE, JSON_TYPE):
        answer = send(server, b"", kind)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "Authorization" in message(answer, 16)


@pytest.mark.parametrize("kind", [PROTOBUF_TYPE, JSON_TYPE])
def test_a_fault_of_the_server_has_the_exporter_send_again(kind: str) -> None:
    [route] = ROUTES_OF_OTLP
    assert route.refuse is not None
    for status, code in ((500, 13), (503, 14)):
        problem = Problem(detail="why", request_id="1", status=status, title="Fault", type="x")
        with Flask("test").test_request_context(content_type=kind):
            response = route.refuse(problem)
        headers = Message()
        headers["Content-Type"] = response.headers["Content-Type"]
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert message(Answer(503, headers, response.get_data()), code) == "why"


def test_a_body_may_come_in_chunks(server: Server) -> None:
    request = of_records(record("chunk"), **{"service.name": "chunked"}).SerializeToString()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (request[:9], request[9:])) + b"0\r\n\r\n"
    answer = send_chunked(server, chunks)
    assert answer.status == 200, answer.body
    assert bodies(server, "chunked") == ["chunk"]
    large = b"100000\r\n" + b"\n" * (1 << 20) + b"\r\n"
    assert send_chunked(server, large * 21 + b"0\r\n\r\n").status == 413


def test_of_chunks_that_break_off_nothing_is_taken_for_a_record(server: Server) -> None:
    request = of_records(record("whole"), record("cut off"), **{"service.name": "cut"}).SerializeToString()[:-9]
    headers = f"Host: localhost\r\nContent-Type: {PROTOBUF_TYPE}\r\nTransfer-Encoding: chunked"
    head = f"POST /v1/logs HTTP/1.1\r\n{headers}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(head.encode() + b"%x\r\n%b" % (len(request) + 9, request))
    until(lambda: request in kept_bytes(server), "what arrived in quarantine")
    assert payloads(server, "cut") == []


def kept_bytes(server: Server) -> list[bytes]:
    kept = payloads(server, "quarantine")
    return [one["text"].encode() if "text" in one else b64decode(one["data"]) for one in kept]


def send_chunked(server: Server, chunks: bytes) -> Answer:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.putrequest("POST", "/v1/logs")
        connection.putheader("Content-Type", PROTOBUF_TYPE)
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(chunks)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def test_malformed_is_the_only_error_of_a_reader() -> None:
    deep = b'{"arrayValue":{"values":[' * 400 + b"]}}" * 400
    raw = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":' + deep + b"}]}]}]}"
    for encoding in (JSON, PROTOBUF):
        assert read_records(raw, encoding).faults
    with pytest.raises(MalformedError):
        list(JSON.groups(b"\xff"))
