import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog.formats.fields import Fields
from tlog.formats.known import _BY_SHAPE, format_of

KUBERNETES = {
    "kind": "Event",
    "apiVersion": "audit.k8s.io/v1",
    "level": "Metadata",
    "auditID": "7a3e",
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/payments/secrets/key",
    "verb": "get",
    "user": {"username": "system:serviceaccount:payments:till"},
    "sourceIPs": ["192.0.2.7"],
    "objectRef": {"resource": "secrets", "namespace": "payments", "name": "key"},
    "responseStatus": {"code": 403},
    "requestReceivedTimestamp": "2026-01-02T03:04:05.000678Z",
}
CLOUDTRAIL = {
    "eventVersion": "1.08",
    "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/ann"},
    "eventTime": "2026-01-02T03:04:05Z",
    "eventSource": "s3.amazonaws.com",
    "eventName": "DeleteBucket",
    "sourceIPAddress": "192.0.2.7",
    "resources": [{"ARN": "arn:aws:s3:::audit"}],
    "eventID": "11e4",
    "recipientAccountId": "123456789012",
}
OTLP = {
    "record": {
        "attributes": [
            {"key": "http.response.status_code", "value": {"intValue": "403"}},
            {"key": "user.name", "value": {"stringValue": "ann"}},
            {"key": "client.address", "value": {"stringValue": "192.0.2.7"}},
            {"key": "url.path", "value": {"stringValue": "/refunds/17"}},
        ],
        "body": {"stringValue": "refused"},
        "eventName": "refund",
        "observedTimeUnixNano": "1767323046000000000",
        "severityNumber": 14,
        "timeUnixNano": "1767323045000000678",
    },
    "resource": {
        "attributes": [
            {"key": "service.name", "value": {"stringValue": "till"}},
            {"key": "service.namespace", "value": {"stringValue": "shop"}},
            {"key": "k8s.namespace.name", "value": {"stringValue": "payments"}},
            {"key": "cloud.account.id", "value": {"stringValue": "123456789012"}},
        ]
    },
    "scope": {},
}
AT = 1767323045000
CLOUDEVENT = {
    "specversion": "1.0",
    "id": "7",
    "source": "/till",
    "type": "com.example.refund",
    "subject": "order-5",
    "time": "2026-01-02T03:04:05Z",
}
SPLUNK = {"time": "1767323045.000678", "host": "web-1", "source": "/var/log/x", "sourcetype": "access", "index": "main"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
# Whatever may stand in any member that a format looks at.
MEMBERS = ["auditID", "stage", "verb", "user", "username", "sourceIPs", "objectRef", "responseStatus", "code", "time"]
MEMBERS += ["attributes", "key", "value", "stringValue", "timeUnixNano", "severityNumber", "body"]
ODD = st.dictionaries(
    st.sampled_from([*MEMBERS, "eventID", "eventSource", "eventName", "userIdentity", "resources", "actor", "outcome"])
    | st.sampled_from([*CLOUDEVENT, *OTLP, "data", "event", "line", "host", "index"]),
    JSON | st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=3),
    max_size=6,
)


def fields_of(event: Any) -> Fields:
    return format_of(event).fields(event)


def test_an_event_of_kubernetes_says_who_did_what_to_what() -> None:
    assert format_of(KUBERNETES).name == "kubernetes"
    assert fields_of(KUBERNETES) == Fields(
        time=AT,
        actor="system:serviceaccount:payments:till",
        action="get",
        target="secrets/payments/key",
        outcome="failure",
        source="192.0.2.7",
        namespace="payments",
        service="kubernetes",
        severity="Metadata",
    )


def test_two_stages_of_one_request_to_kubernetes_are_two_events() -> None:
    one, other = KUBERNETES, KUBERNETES | {"stage": "RequestReceived"}
    assert format_of(one).id(one) == "7a3e/ResponseComplete"
    assert format_of(other).id(other) == "7a3e/RequestReceived"


def test_a_record_of_cloudtrail_says_who_did_what_to_what() -> None:
    assert format_of(CLOUDTRAIL).name == "cloudtrail"
    assert fields_of(CLOUDTRAIL) == Fields(
        time=AT,
        actor="arn:aws:iam::123456789012:user/ann",
        action="DeleteBucket",
        target="arn:aws:s3:::audit",
        outcome="success",
        source="192.0.2.7",
        service="s3.amazonaws.com",
        account="123456789012",
    )
    assert fields_of(CLOUDTRAIL | {"errorCode": "AccessDenied"}).outcome == "failure"
    assert format_of(CLOUDTRAIL).id(CLOUDTRAIL) == "11e4"


def test_a_log_record_of_opentelemetry_says_who_did_what_to_what() -> None:
    assert format_of(OTLP).name == "otlp"
    assert fields_of(OTLP) == Fields(
        time=AT,
        actor="ann",
        action="refund",
        target="/refunds/17",
        outcome="failure",
        source="192.0.2.7",
        namespace="payments",
        service="till",
        account="123456789012",
        severity="WARN2",
    )


def attribute(name: str, kind: str, value: Any) -> dict[str, Any]:
    return {"attributes": [{"key": name, "value": {kind: value}}]}


@pytest.mark.parametrize(
    ("record", "resource", "fields"),
    [
        ({"body": {"stringValue": "paid"}, "observedTimeUnixNano": f"{AT}000000"}, {}, Fields(time=AT, action="paid")),
        ({"severityText": "notice", "severityNumber": 9}, {}, Fields(severity="notice")),
        ({"severityNumber": 24}, {}, Fields(severity="FATAL4")),
        ({"severityNumber": 25, "timeUnixNano": "x", "attributes": [7]}, {}, Fields()),
        (attribute("event.name", "stringValue", "login"), {}, Fields(action="login")),
        (attribute("enduser.id", "intValue", "7"), {}, Fields(actor="7")),
        (attribute("source.address", "stringValue", "::1"), {}, Fields(source="::1")),
        (attribute("cloud.account.id", "stringValue", "1"), {}, Fields(account="1")),
        (attribute("error.type", "stringValue", "timeout"), {}, Fields(outcome="failure")),
        (attribute("http.response.status_code", "intValue", "204"), {}, Fields(outcome="success")),
        (attribute("http.response.status_code", "stringValue", "no"), {}, Fields()),
        ({}, attribute("service.namespace", "stringValue", "shop"), Fields(namespace="shop")),
        # Of what the resource says, no more is taken for the record's.
        ({}, attribute("user.name", "stringValue", "root"), Fields()),
    ],
)
def test_a_log_record_says_no_more_than_it_does(record: Any, resource: Any, fields: Fields) -> None:
    assert fields_of({"record": record, "resource": resource, "scope": {}}) == fields


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"timeUnixNano": "1767323045000000678"}, "1767323045000000678"),
        ({"timeUnixNano": "1767323045000000000"}, None),
        ({"timeUnixNano": "1767323045000000000", "observedTimeUnixNano": "1767323046000000000"}, "1767323046000000000"),
        ({"observedTimeUnixNano": "0"}, None),
        ({}, None),
    ],
)
def test_a_log_record_has_an_id_if_a_clock_was_read_for_it(record: Any, found: str | None) -> None:
    assert format_of(OTLP).id(OTLP | {"record": record}) == found


def test_an_insights_event_of_cloudtrail_is_one_of_its_records() -> None:
    about = {"state": "Start", "eventSource": "s3.amazonaws.com", "eventName": "DeleteBucket"}
    insight = {"eventID": "11e5", "eventType": "AwsCloudTrailInsight", "insightDetails": about}
    assert format_of(insight).name == "cloudtrail"
    assert format_of(insight).id(insight) == "11e5"
    found = fields_of(insight)
    assert (found.action, found.service, found.target) == ("DeleteBucket", "s3.amazonaws.com", "s3.amazonaws.com")


def test_a_cloudevent_says_what_its_attributes_say_and_else_what_its_data_does() -> None:
    data = {"actor": "ann", "action": "unheard", "outcome": "denied", "time": 5}
    event = CLOUDEVENT | {"data": data}
    assert (format_of(event).name, format_of(event).id(event)) == ("cloudevents", "/till\n7")
    own: dict[str, Any] = {"time": AT, "action": "com.example.refund", "target": "order-5", "service": "/till"}
    assert fields_of(event) == Fields(**own, actor="ann", outcome="failure")
    assert fields_of(CLOUDEVENT) == Fields(**own)


def test_an_event_of_splunk_says_what_is_around_it_and_else_what_is_within() -> None:
    event = SPLUNK | {"event": {"actor": "ann", "action": "refund", "host": "unheard"}}
    assert format_of(event).name == "splunk"
    assert format_of(event).id(event) is None
    own: dict[str, Any] = {"time": AT, "source": "web-1", "service": "access"}
    assert fields_of(event) == Fields(**own, actor="ann", action="refund")
    # As Docker's driver has it.
    assert fields_of(SPLUNK | {"event": {"line": {"actor": "ann"}, "source": "stdout"}}).actor == "ann"
    assert fields_of(SPLUNK | {"event": {"line": "text"}}) == fields_of(SPLUNK | {"event": "text"}) == Fields(**own)


@pytest.mark.parametrize("around", [CLOUDEVENT, SPLUNK])
def test_an_envelope_has_the_fields_of_the_known_event_that_it_carries(around: dict[str, Any]) -> None:
    member = "data" if around is CLOUDEVENT else "event"
    found = fields_of(around | {member: KUBERNETES})
    inner = fields_of(KUBERNETES)
    assert (found.actor, found.action, found.target, found.namespace) == (
        inner.actor,
        "get",
        "secrets/payments/key",
        "payments",
    )


def test_an_event_of_splunk_has_the_id_of_the_event_within() -> None:
    event = SPLUNK | {"event": KUBERNETES}
    assert format_of(event).id(event) == "7a3e/ResponseComplete"


def test_an_event_that_is_told_by_all_of_it_has_no_id_within_another() -> None:
    assert format_of(OTLP).id(OTLP) is not None
    assert format_of(SPLUNK | {"event": OTLP}).id(SPLUNK | {"event": OTLP}) is None


def test_no_envelope_is_looked_for_within_another() -> None:
    nested: Any = KUBERNETES
    for _ in range(100_000):
        nested = CLOUDEVENT | {"data": nested}
    assert fields_of(nested).namespace is None
    assert format_of(nested).id(nested) == "/till\n7"


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ({"event": "login"}, "plain"),
        ({"event": "login", "time": 5, "source": "192.0.2.7"}, "plain"),
        ({"event": "login", "host": "h", "level": "info"}, "plain"),
        ({"event": "login", "host": "h"}, "splunk"),
        ({"event": {}}, "splunk"),
        ({"host": "h", "index": "i"}, "plain"),
        ({"specversion": "1.0", "id": "1", "type": "t"}, "plain"),
    ],
)
def test_what_others_call_their_event_is_none_of_splunk(event: Any, name: str) -> None:
    assert format_of(event).name == name


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ({"auditID": "1", "stage": "Panic", "verb": "get"}, "kubernetes"),
        ({"eventID": "1", "eventSource": "s3", "eventName": "GetObject"}, "cloudtrail"),
        ({"eventID": "1", "insightDetails": {}}, "cloudtrail"),
        ({"type": "request", "request": {"id": "1"}}, "vault"),
        ({"record": {}, "resource": {}, "scope": {}}, "otlp"),
        ({"specversion": "1.0", "type": "t", "source": "/s", "id": "1"}, "cloudevents"),
        ({"event": "login", "fields": {}}, "splunk"),
        ({"syslog": {"facility": 1, "severity": 2}}, "syslog"),
        ({"quarantined": "why", "sha256": "", "receiver": "json"}, "quarantine"),
    ],
)
def test_a_format_is_told_by_all_that_it_is_told_by_and_no_more(event: dict[str, Any], name: str) -> None:
    assert format_of(event).name == name
    for member in event:
        less = {other: value for other, value in event.items() if other != member}
        assert format_of(less).name == "plain"


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ({"actor": {"name": "ann", "id": "7"}, "action": "refund"}, Fields(actor="ann", action="refund")),
        ({"user": "ann", "success": False}, Fields(actor="ann", outcome="failure")),
        ({"timestamp": "2026-01-02T03:04:05Z", "status": "ok"}, Fields(time=AT, outcome="success")),
        ({"time": 1767323045.0}, Fields(time=AT)),
        ({"time": 1e300, "status": "teapot"}, Fields()),
        ([1, 2], Fields()),
        ("text", Fields()),
    ],
)
def test_members_of_the_usual_names_are_understood(event: Any, fields: Fields) -> None:
    assert format_of(event).name == "plain"
    assert fields_of(event) == fields


@given(st.one_of(JSON, ODD))
def test_no_event_at_all_makes_a_format_raise(event: Any) -> None:
    event = json.loads(json.dumps(event))
    found = format_of(event)
    found.fields(event)
    for one in (*_BY_SHAPE, found):
        one.fields(event)
        one_id = one.id(event)
        assert one_id is None or isinstance(one_id, str)
        assert one.time(event) in (None, one.fields(event).time)
