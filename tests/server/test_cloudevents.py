"""CloudEvents over real HTTP, as their SDK sends them, and as their spec has it where the SDK sends nothing such."""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from live import LOG_NAME, Answer, Server, start, tell

from tlog.canonical import Canonicalizer
from tlog.errors import UnsupportedTypeError
from tlog.receivers.cloudevents import read_events
from tlog_core.errors import MalformedError

POLICY = """
[[rule]]
name = "senders"
roles = ["writer", "creator", "auditor"]
principals = ["sender"]
segments = ["*"]
"""
ROUTES = """
[[route]]
match = { format = "cloudevents", namespace = "*" }
segment = "within-{namespace}"

[[route]]
match = { "/source" = "/*" }
segment = "to{/source}"

[[route]]
segment = "{format}"
"""
BATCH = "application/cloudevents-batch+json"
STRUCTURED = "application/cloudevents+json"
NEEDED = {"specversion": "1.0", "id": "7", "source": "/till", "type": "com.example.refund"}
KUBERNETES = {"auditID": "7a3e", "stage": "ResponseComplete", "verb": "get", "objectRef": {"namespace": "payments"}}


class House:
    """A guarded server, and what its sender shows."""

    def __init__(self, server: Server, token: str) -> None:
        self.server, self.shown = server, {"Authorization": f"Bearer {token}"}

    def send(self, message: HTTPMessage) -> Answer:
        return self.server.request("POST", "/ingest/cloudevents", message.body, {**self.shown, **message.headers})

    def post(self, body: bytes, kind: str | None = None, **headers: str) -> Answer:
        given = {f"ce-{name}": value for name, value in headers.items()}
        return self.send(HTTPMessage({**given, **({"Content-Type": kind} if kind is not None else {})}, body))

    def payloads(self, segment: str) -> list[Any]:
        return self.server.payloads(segment, self.shown)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    data = tmp_path_factory.mktemp("cloudevents") / "data"
    tell("segment", "create", "first", "--data", data, "--log-name", LOG_NAME)
    (data / "routes.toml").write_text(ROUTES)
    (data.parent / "policy.toml").write_text(POLICY)
    tell("policy", "apply", data.parent / "policy.toml", "--data", data)
    server = start(data, guarded=True, log_name=None)
    yield House(server, tell("token", "issue", "sender", "--data", data))
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("application/json", {"amount": 5, "who": "Zo\u00eb", "list": [1, None, True]}),
        ("application/vnd.example+json; charset=utf-8", {"a": {"b": "c"}}),
        ("text/plain", 'I am "text", \u20ac'),
        ("application/xml", "<much wow='xml'/>"),
        ("image/png", b"\x89PNG\x00\xff"),
        ("application/json", None),
    ],
)
def test_an_event_of_the_sdk_is_one_and_the_same_in_either_mode(house: House, kind: str, data: Any) -> None:
    source = f"/{kind.translate({ord(letter): '-' for letter in '/+;= .'})}-{data is None}".lower()
    attributes = {"source": source, "type": "com.example.refund", "subject": 'Euro "\u20ac" 5% \U0001f600', "till": "3"}
    event = CloudEvent({**attributes, "datacontenttype": kind}, data)
    assert house.send(to_binary_event(event)).json() == {"logged": 1, "quarantined": 0, "seen": 0}
    structured = to_structured_event(event)
    assert house.send(structured).json() == {"logged": 0, "quarantined": 0, "seen": 1}
    assert house.payloads(f"to{source.replace('/', '-')}") == [json.loads(structured.body)]


def test_the_examples_of_the_json_format_come_out_of_binary_mode_as_it_has_them(house: House) -> None:
    more = {"time": "2018-04-05T17:31:00Z", "comexampleextension1": "value"}
    wide = "x".encode("utf-16")
    cases: list[tuple[str, bytes, dict[str, Any]]] = [
        ("application/vnd.apache.thrift.binary", b"\x00", {"data_base64": "AA=="}),
        ("application/xml", b'<much wow="xml"/>', {"data": '<much wow="xml"/>'}),
        ("application/json", b'{"appinfoA": "abc", "appinfoB": 1}', {"data": {"appinfoA": "abc", "appinfoB": 1}}),
        ("application/json", b'"I\'m just a string"', {"data": "I'm just a string"}),
        ("application/json", b"null", {"data": None}),
        ("application/json", b"", {}),
        ("text/plain; charset=utf-16", wide, {"data_base64": b64encode(wide).decode()}),
        ("text/plain", b"\xff", {"data_base64": "/w=="}),
    ]
    for number, (kind, data, stored) in enumerate(cases):
        headers = {**NEEDED, "source": f"/example-{number}", **more}
        assert house.post(data, kind, **headers).json()["logged"] == 1
        assert house.payloads(f"to-example-{number}") == [{**headers, "datacontenttype": kind, **stored}]
    untyped = {**NEEDED, "source": "/untyped"}
    for body in (b"x", b'{"y": 1}'):
        assert house.post(body, **untyped).json()["logged"] == 1
    assert house.payloads("to-untyped") == [{**untyped, "data_base64": "eA=="}, {**untyped, "data": {"y": 1}}]


def test_header_values_are_unquoted_and_then_decoded_once(house: House) -> None:
    for number, (value, meant) in enumerate(
        [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro \u20ac \U0001f600"),
            ("%e2%82%ac %41", "\u20ac A"),
            ('"a \\"quoted\\" %22text%22"', 'a "quoted" "text"'),
            ("100%2525", "100%25"),
        ]
    ):
        headers = {**NEEDED, "source": f"/value-{number}", "subject": value}
        assert house.post(b"", **headers).json()["logged"] == 1
        assert house.payloads(f"to-value-{number}") == [{**headers, "subject": meant}]


def test_source_and_id_tell_events_apart(house: House) -> None:
    one = {**NEEDED, "source": "/apart"}
    events = [one, one, {**one, "id": "8"}, {**one, "source": "/apart-2"}, {**one, "type": "other"}]
    answer = house.post(json.dumps(events).encode(), f"{BATCH}; charset=UTF-8")
    assert answer.json() == {"logged": 4, "quarantined": 0, "seen": 1}


def test_a_batch_may_be_empty_and_of_its_events_the_bad_ones_alone_go_into_quarantine(house: House) -> None:
    assert house.post(b"[]", BATCH).json() == {"logged": 0, "quarantined": 0, "seen": 0}
    good = {**NEEDED, "source": "/batch"}
    bad = [b'{"id":"bad"}', b'{"specversion":"1.0","id":"\\ud800","source":"/batch","type":"x"}', b"7"]
    body = b"[" + b",".join([json.dumps(good).encode(), *bad]) + b"]"
    assert house.post(body, BATCH).json() == {"logged": 1, "quarantined": 3, "seen": 0}
    assert house.payloads("to-batch") == [good]
    kept = [one["text"] for one in house.payloads("quarantine")]
    assert [json.loads(one) for one in kept[-3:]] == [json.loads(one) for one in bad]


BAD = [
    {"specversion": "0.3"},
    {"id": ""},
    {"source": None},
    {"type": 5},
    {"time": "yesterday"},
    {"Upper": "x"},
    {"nested": {}},
    {"float": 1.5},
    {"data_base64": "?"},
    {"data_base64": "eA==", "data": 1},
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_an_event_that_is_none_is_refused_with_the_reason_and_kept(house: House, change: dict[str, Any]) -> None:
    body = json.dumps({**NEEDED, **change}).encode()
    answer = house.post(body, STRUCTURED)
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert next(iter(change)) in answer.json()["detail"]
    assert [one for one in house.payloads("quarantine") if one["text"].endswith(body.decode())] != []


@pytest.mark.parametrize(
    ("kind", "body", "change"),
    [
        ("text/plain", b"overlong", {"subject": "%C0%A0"}),
        ("text/plain", b"broken", {"subject": "5%"}),
        ("text/plain", b"raw bytes", {"subject": "\xff"}),
        ("text/plain", b"nothing", {"subject": ""}),
        ("text/plain", b"a type in a header", {"datacontenttype": "text/plain"}),
        ("text/plain", b"data in a header", {"data": "x"}),
        ("application/json", b"no JSON", {}),
        ("application/json", b'1,"id":"8"', {}),
        ("text/plain", b"no dash", {"my-name": "x"}),
    ],
)
def test_headers_and_data_that_make_no_event_are_refused_and_kept(
    house: House, kind: str, body: bytes, change: dict[str, str]
) -> None:
    answer = house.post(body, kind, **{**NEEDED, **change})
    assert answer.status == 400
    assert answer.json()["detail"].endswith("; what was sent is kept in quarantine")
    [kept] = [one["text"] for one in house.payloads("quarantine") if one["text"].endswith(f"\r\n\r\n{body.decode()}")]
    assert "ce-source: /till\r\n" in kept
    assert f"content-type: {kind}\r\n" in kept


def test_other_forms_of_cloudevents_are_kept_and_it_is_said_which_to_send(house: House) -> None:
    answer = house.post(b"<event/>", "application/cloudevents+xml")
    assert (answer.status, STRUCTURED in answer.json()["detail"]) == (415, True)
    assert house.post(b"plain old JSON", "application/json").status == 400
    assert house.post(b'{"no": "array"}', BATCH).status == 400
    kept = "".join(one["text"] for one in house.payloads("quarantine"))
    assert all(body in kept for body in ("<event/>", "plain old JSON", '{"no": "array"}'))


def test_an_event_around_one_of_kubernetes_is_routed_by_what_is_within(house: House) -> None:
    event = CloudEvent({"source": "/k8s", "type": "audit"}, KUBERNETES)
    assert house.send(to_binary_event(event)).json()["logged"] == 1
    assert [one["data"] for one in house.payloads("within-payments")] == [KUBERNETES]


KINDS = st.sampled_from([BATCH, STRUCTURED, "application/cloudevents+avro", "application/json", "text/plain", ""])
TEXTS = st.sampled_from(["1.0", "%41", '"a', "%C0", "\xff", "", "/s"]) | st.text(st.characters(max_codepoint=255))
HEADERS = st.dictionaries(st.sampled_from([*NEEDED, "time", "ext", "data", "datacontenttype"]), TEXTS)
BODIES = st.binary() | st.sampled_from([json.dumps(one).encode() for one in (NEEDED, [NEEDED, 1], [], 7)])


@given(HEADERS, KINDS | st.text(st.characters(max_codepoint=255)), BODIES)
def test_any_request_at_all_is_events_or_none_for_a_reason(headers: dict[str, str], kind: str, body: bytes) -> None:
    try:
        found = read_events({**NEEDED, **headers}, kind, body)
    except (MalformedError, UnsupportedTypeError):
        return
    texts = [text for text in found.texts if found.is_event(json.loads(text))]
    assert all(json.loads(text).keys() >= NEEDED.keys() for text in texts)
    if kind not in (BATCH, STRUCTURED):
        [text] = texts
        event = json.loads(text)
        # Nobody puts members of their own in between by what they send as data.
        assert event.keys() <= {*NEEDED, *headers, "datacontenttype", "data", "data_base64"}
        Canonicalizer()(text)
