"""Events that come without a segment, over real HTTP: where each goes, and that each is there once."""

import gzip
import json
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest
import zstandard
from live import Server, start

from tlog.receivers.receive import concatenated

ROUTES = """
remember_days = 3

[quarantine]
segment = "lost-and-found"

[[route]]
match = { format = "kubernetes", namespace = "*", "/verb" = ["get", "del*"] }
segment = "k8s-{namespace}"
labels = { system = "kubernetes", namespace = "{namespace}" }

[[route]]
match = { format = "plain" }
segment = "{/app/name}"
"""


def event(number: int, **more: Any) -> dict[str, Any]:
    return {
        "auditID": f"id-{number}",
        "stage": "ResponseComplete",
        "verb": "get",
        "user": {"username": "ann"},
        "objectRef": {"namespace": "payments", "resource": "pods"},
        **more,
    }


def event_list(*events: Any) -> bytes:
    return json.dumps({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": events}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("ingest") / "data"
    data.mkdir()
    (data / "routes.toml").write_text(ROUTES)
    server = start(data)
    yield server
    server.kill()


def send(server: Server, body: bytes, kind: str = "kubernetes", **headers: str) -> dict[str, int]:
    answer = server.request("POST", f"/ingest/{kind}", body, {"Content-Type": "application/json", **headers})
    assert answer.status == 200, answer.body
    found: dict[str, int] = answer.json()
    return found


def data_of(kept: dict[str, str]) -> bytes:
    """Return the bytes that a quarantined event keeps."""
    return kept["text"].encode() if "text" in kept else b64decode(kept["data"], validate=True)


def test_each_event_goes_into_the_segment_of_its_route_which_is_made_with_its_labels(server: Server) -> None:
    events = [event(1), event(2, verb="delete", objectRef={"namespace": "Web.Shop"}), event(3, verb="watch")]
    assert send(server, event_list(*events)) == {"logged": 2, "quarantined": 1, "seen": 0}
    assert events[0] in server.payloads("k8s-payments")
    assert server.payloads("k8s-web-shop") == [events[1]]
    described = server.request("GET", "/segments/k8s-web-shop").json()
    assert described["labels"] == {"system": "kubernetes", "namespace": "Web.Shop"}
    [kept] = [one for one in server.payloads("lost-and-found") if "id-3" in one["text"]]
    assert json.loads(kept["text"]) == events[2]
    assert (kept["quarantined"], kept["receiver"]) == ("no route matches", "kubernetes")


def test_an_event_that_was_logged_is_not_logged_again(server: Server) -> None:
    first, second = event(10), event(11)
    assert send(server, event_list(first, second, first)) == {"logged": 2, "quarantined": 0, "seen": 1}
    assert send(server, event_list(second, event(12), first)) == {"logged": 1, "quarantined": 0, "seen": 2}
    # By another way, in another form, it is the same event.
    assert send(server, json.dumps(second, indent=1).encode(), "json") == {"logged": 0, "quarantined": 0, "seen": 1}
    ids = [one["auditID"] for one in server.payloads("k8s-payments")]
    assert [ids.count(f"id-{number}") for number in (10, 11, 12)] == [1, 1, 1]


def test_nobody_keeps_an_event_out_by_its_id(server: Server) -> None:
    assert send(server, event_list(event(20, user={"username": "nobody"})))["logged"] == 1
    assert send(server, event_list(event(20))) == {"logged": 1, "quarantined": 0, "seen": 0}


@pytest.mark.parametrize(
    "item",
    [
        b'{"auditID": 1, "auditID": 2}',
        b'{"a": 9007199254740993}',
        b'"\xff"',
        b"[" * 70 + b"]" * 70,
        b'{"a": "\\ud800"}',
    ],
)
def test_an_event_that_cannot_be_read_is_kept_and_keeps_no_other_out(server: Server, item: bytes) -> None:
    body = event_list(event(len(item) + 1_000)).replace(b'"items": [', b'"items": [' + item + b", ")
    assert send(server, body) == {"logged": 1, "quarantined": 1, "seen": 0}
    assert send(server, body) == {"logged": 0, "quarantined": 1, "seen": 1}
    kept = [data_of(one) for one in server.payloads("lost-and-found")]
    assert kept.count(item) == 1


def test_what_is_no_list_at_all_is_kept_and_not_refused(server: Server) -> None:
    assert send(server, b"\x00\xffno list") == {"logged": 0, "quarantined": 1, "seen": 0}
    assert [one for one in server.payloads("lost-and-found") if one.get("data") == "AP9ubyBsaXN0"]


def test_an_event_that_is_too_large_for_an_entry_is_kept_in_parts(server: Server) -> None:
    large = event(30, requestObject={"data": "é" * 700_000})
    item = json.dumps(large).encode()
    for logged in (1, 0):
        assert send(server, event_list(large, event(31))) == {"logged": logged, "quarantined": 1, "seen": 1 - logged}
    parts = [one for one in server.payloads("lost-and-found") if one["sha256"] == sha256(item).hexdigest()]
    assert [one["part"] for one in parts] == list(range(1, len(parts) + 1)) == list(range(1, parts[0]["parts"] + 1))
    assert b"".join(map(data_of, parts)) == item


def test_json_comes_as_an_array_as_lines_or_one_behind_the_other(server: Server) -> None:
    events = [{"app": {"name": "till"}, "number": number} for number in range(9)]
    array, lines = json.dumps(events[:3], indent=1), "\n".join(map(json.dumps, events[3:6]))
    behind = "".join(map(json.dumps, events[6:]))
    for body in (array, lines + "\n", behind):
        assert send(server, body.encode(), "json") == {"logged": 3, "quarantined": 0, "seen": 0}
    assert server.payloads("till") == events
    assert send(server, b"", "json") == {"logged": 0, "quarantined": 0, "seen": 0}


# Records as Fluent Bit's out_http composes them (flb_pack_msgpack_to_json_format: an array, one behind the other, or
# lines, each with `date`), and as the codecs of Vector's sink `http` do; with the headers of either.
FLUENT = [{"date": 1767323045.000678, "app": {"name": "fluent"}, "log": f"line {number}"} for number in range(3)]
DENSE = [json.dumps(record, separators=(",", ":")).encode() for record in FLUENT]
BODIES = {
    "json": ("application/json", b"[" + b",".join(DENSE) + b"]"),
    "json_stream": ("application/json", b"".join(DENSE)),
    "json_lines": ("application/x-ndjson", b"".join(line + b"\n" for line in DENSE)),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "deflate": zlib.compress,
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("form", BODIES)
def test_records_come_as_fluent_bit_and_vector_send_them(server: Server, form: str, packing: str) -> None:
    kind, body = BODIES[form]
    before = len(server.payloads("fluent"))
    packed = {"Content-Encoding": packing} if packing else {}
    headers = {"Content-Type": kind, "User-Agent": "Fluent-Bit", **packed}
    assert send(server, PACKED[packing](body), "json", **headers) == {"logged": 3, "quarantined": 0, "seen": 0}
    assert server.payloads("fluent")[before:] == FLUENT


def test_what_cannot_be_unpacked_is_refused_and_says_what_can(server: Server) -> None:
    for encoding in ("snappy", "gzip, gzip"):
        answer = server.request("POST", "/ingest/json", DENSE[0], {"Content-Encoding": encoding})
        assert answer.status == 415
        assert "gzip, deflate or zstd" in answer.json()["detail"]


@pytest.mark.parametrize("packing", ["gzip", "deflate", "zstd"])
def test_nothing_is_taken_of_a_body_that_breaks_off_before_it_is_unpacked(server: Server, packing: str) -> None:
    lines = b"".join(
        b'{"app":{"name":"torn-%b"},"hash":"%b"}\n' % (packing.encode(), _hash(one)) for one in range(9_000)
    )
    packed = PACKED[packing](lines)
    for torn in (b"", packed[:9], packed[: len(packed) // 2], packed[:-1], packed + packed[:9]):
        answer = server.request("POST", "/ingest/json", torn, {"Content-Encoding": packing})
        assert (answer.status, answer.json()["type"]) == (400, "urn:tlog:problem:malformed"), len(torn)
    assert server.payloads(f"torn-{packing}") == []


def test_a_body_may_be_several_frames_of_zstd(server: Server) -> None:
    frames = [PACKED["zstd"](b'{"app":{"name":"frames"},"number":%d}\n' % number) for number in range(300)]
    body = b"".join(frames)
    assert send(server, body, "json", **{"Content-Encoding": "zstd"}) == {"logged": 300, "quarantined": 0, "seen": 0}


def _hash(number: int) -> bytes:
    return sha256(b"%d" % number).hexdigest().encode()


@pytest.mark.parametrize("kind", ["application/msgpack", "Application/MsgPack; x=y", "application/x-msgpack"])
def test_messagepack_is_refused_with_what_to_set_and_kept(server: Server, kind: str) -> None:
    # [[1767323045, {}], {"log": "<kind>"}], as Fluent Bit's msgpack has records.
    body = b"\x92\x92\xcei\x57\x35\xe5\x80\x81\xa3log" + bytes([0xA0 | len(kind)]) + kind.encode()
    answer = server.request("POST", "/ingest/json", body, {"Content-Type": kind})
    assert answer.status == 415
    assert "`format json`" in answer.json()["detail"]
    kept = [one for one in server.payloads("lost-and-found") if one["receiver"] == "json"]
    assert [one for one in kept if data_of(one) == body] != []


def test_of_an_array_the_bad_event_alone_goes_into_quarantine(server: Server) -> None:
    body = b'[{"app": {"name": "array"}}, {"bad": "\\ud800"}, {"app": {"name": "array"}, "n": 2}]'
    assert send(server, body, "json") == {"logged": 2, "quarantined": 1, "seen": 0}


def test_of_lines_the_bad_one_alone_goes_into_quarantine(server: Server) -> None:
    lines = [b'{"app": {"name": "bad"}, "number": 1}', b'{"app": {"name": "bad"}, "num', b'{"app": {"name": "bad"}}']
    assert send(server, b"\n".join(lines), "json") == {"logged": 2, "quarantined": 1, "seen": 0}
    assert [one for one in server.payloads("lost-and-found") if one.get("text") == lines[1].decode()]


def test_a_request_with_a_key_is_logged_once_though_its_events_have_no_ids(server: Server) -> None:
    body = b'{"app": {"name": "keyed"}}\n' * 3
    for taken in ({"logged": 3, "quarantined": 0, "seen": 0}, {"logged": 0, "quarantined": 0, "seen": 3}):
        assert send(server, body, "json", **{"Idempotency-Key": "one"}) == taken
    assert send(server, body, "json")["logged"] == 3


def test_a_body_comes_packed(server: Server) -> None:
    packed = gzip.compress(event_list(event(40)))
    assert send(server, packed, **{"Content-Encoding": "gzip"})["logged"] == 1
    members = gzip.compress(event_list(event(41))[:20]) + gzip.compress(event_list(event(41))[20:])
    assert send(server, members, **{"Content-Encoding": "gzip"})["logged"] == 1
    broken = server.request("POST", "/ingest/kubernetes", packed[:-4], {"Content-Encoding": "gzip"})
    assert broken.status == 400
    assert b"it ends too early" in broken.body
    frames = zstandard.compress(event_list(event(42))[:20]) + zstandard.compress(event_list(event(42))[20:])
    assert send(server, frames, **{"Content-Encoding": "zstd"})["logged"] == 1
    cut = server.request("POST", "/ingest/kubernetes", frames[:-1], {"Content-Encoding": "zstd"})
    assert (cut.status, cut.json()["detail"].partition(": ")[2]) == (400, "it ends too early")
    bomb = gzip.compress(b" " * (21 << 20))
    assert server.request("POST", "/ingest/kubernetes", bomb, {"Content-Encoding": "gzip"}).status == 413
    assert (
        server.request(
            "POST", "/ingest/kubernetes", zstandard.compress(b" " * (21 << 20)), {"Content-Encoding": "zstd"}
        ).status
        == 413
    )
    assert server.request("POST", "/ingest/kubernetes", packed, {"Content-Encoding": "br"}).status == 415


def test_a_record_of_cloudtrail_comes_in_a_file(server: Server) -> None:
    record = {"eventID": "1", "eventSource": "s3", "eventName": "Get"}
    assert send(server, json.dumps({"Records": [record]}).encode(), "cloudtrail")["quarantined"] == 1


def test_who_watches_sees_what_went_into_quarantine(start_server: Callable[..., Server]) -> None:
    server = start_server()
    send(server, event_list(event(1), event(1)) + b"x")
    send(server, event_list(event(1), event(1)))
    samples = {name: value for name, value in server.metrics().items() if "received_events_total" in name}
    assert samples == {
        f'tlog_received_events_total{{outcome="{outcome}",receiver="kubernetes"}}': 1
        for outcome in ("logged", "quarantined", "seen")
    }


def test_a_body_of_more_events_than_are_taken_is_refused_as_a_whole(server: Server) -> None:
    answer = server.request("POST", "/ingest/json", b"1\n" * 100_001)
    assert answer.status == 413
    assert "at most 100000 events" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"[" + b"0," * 150_000 + b"0]", b"1\n" * 150_000, b"1 " * 150_000])
def test_what_is_crowded_is_refused_before_it_takes_memory(server: Server, body: bytes) -> None:
    answer = server.request("POST", "/ingest/json", body)
    assert (answer.status, answer.json()["type"]) == (413, "urn:tlog:problem:too-large")


def test_an_event_with_many_commas_is_no_crowd(server: Server) -> None:
    body = json.dumps([{"app": {"name": "commas"}, "list": [0] * 400_000}] * 2, separators=(",", ":")).encode()
    assert send(server, body, "json") == {"logged": 2, "quarantined": 0, "seen": 0}


def test_lines_that_are_no_json_keep_no_other_out(server: Server) -> None:
    good = b'{"app":{"name":"among"}}\n'
    body = (good + b'{"torn": [1,\n' + b"}\n") * 1_000
    assert send(server, body, "json") == {"logged": 1_000, "quarantined": 2_000, "seen": 0}


def test_what_would_be_read_in_vain_again_and_again_is_kept_as_a_whole() -> None:
    deep, torn = b"[1," * 900 + b"0," * (1 << 20) + b"\n", b"}\n" * 90_000
    for body in (deep + b"[[\n" * 40_000, torn + b"x" * (4 << 20), b"[" * 2_000 + b"0," * (5 << 20) + b"\n[" * 90_000):
        found = concatenated(body)
        assert (found.texts, len(found.faults) < 70_000) == ([], True)
        assert b"".join(found.faults).replace(b"\n", b"") == body.replace(b"\n", b"")


def test_one_request_makes_a_bounded_number_of_segments(server: Server) -> None:
    body = b"".join(b'{"app":{"name":"made-%d"}}\n' % number for number in range(70))
    assert send(server, body, "json") == {"logged": 64, "quarantined": 6, "seen": 0}
    assert send(server, body, "json")["quarantined"] == 0
