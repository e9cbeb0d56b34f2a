"""Writing events: receipts that verify with the core alone, what comes back, and idempotency keys."""

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from live import JSON, LOG_NAME, NDJSON, PATIENCE, TLOG, Segment, Server

from tlog_core.encoding import canonicalize, decode_base64
from tlog_core.entry import parse_entry
from tlog_core.errors import ProofError, SignatureError
from tlog_core.merkle import Hash, leaf_hash
from tlog_core.note import VerifierKey
from tlog_core.policy import TrustedLog, TrustPolicy
from tlog_core.proof import verify_inclusion
from tlog_core.receipt import Receipt, mint_receipts, parse_batch_receipt, parse_receipt, verify_receipt

SAMPLES = Path(__file__).parent.parent / "samples"
# Real events, never committed: a folder of CloudTrail files and Kubernetes audit lines.
REAL = os.environ.get("TLOG_EVENTS")

EVENTS = {
    "object": b'{"action":"refund","actor":"alice","amount_cents":1200}',
    "unsorted": b'{"b":{"d":1,"c":[]},"a":2}',
    "white space": b'\r\n\t{ "a" : [ 1 , 2 ] }\n',
    "array": b"[1,[2,[3]],{}]",
    "string": b'"only text"',
    "empty string": b'""',
    "null": b"null",
    "true": b"true",
    "number": b"0",
    "largest integers": b"[9007199254740991,-9007199254740991]",
    "floats": b"[1.0E-2,1.50,-0.0,1e-7,1E22,5e-324,0.1,333333333.33333329]",
    "whole float": b"[1.0,1e3,-0]",
    "escapes": rb'"\u0041\/\b\f\n\r\t\"\\\u007f\u2028\ud83d\ude00"',
    "unicode": '{"größe":"klein","名":"前","😀":1,"\ue000":2,"":3}'.encode(),
    "not normalized": '["é","e\u0301"]'.encode(),
    "control characters": rb'"\u0000\u001f"',
    "deep": b"[" * 64 + b"]" * 64,
    "one MiB": b'"' + b"x" * ((1 << 20) - 2) + b'"',
}


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def verified(receipt: bytes, key: VerifierKey, event: bytes) -> Receipt:
    """Return the receipt of an event of JSON after checking it as a stranger would."""
    parsed = parse_receipt(receipt)
    verify_receipt(parsed, key=key, payload=rfc8785.dumps(json.loads(event)))
    return parsed


def minted(receipt: bytes, key: VerifierKey, body: bytes) -> list[Receipt]:
    """Return the single receipts of a batch after checking each as a stranger would."""
    payloads = [rfc8785.dumps(json.loads(line)) for line in body.splitlines()]
    receipts = mint_receipts(parse_batch_receipt(receipt), payloads=payloads, key=key)
    for one, payload in zip(receipts, payloads, strict=True):
        verify_receipt(one, key=key, payload=payload)
    return receipts


def typed(value: Any) -> Any:
    """Return a JSON value in which 1, 1.0 and true differ."""
    return json.dumps(value, sort_keys=True)


def same_number(value: Any) -> Any:
    # RFC 8785 writes a whole float as an integer: the same JSON number, but another type in Python.
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def as_logged(raw: bytes) -> Any:
    return typed(json.loads(raw, parse_float=lambda text: same_number(float(text))))


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_an_event_gets_a_receipt_that_verifies_offline_and_comes_back_equal(segment: Segment, event: bytes) -> None:
    receipt = verified(segment.append(event), segment.key, event)
    assert receipt.index == 0
    assert parse_entry(receipt.entry).origin == f"{LOG_NAME}/segments/{segment.name}"
    answer = segment.get("/entries/0")
    assert typed(answer.json()["payload"]) == as_logged(event)
    # As text too it is the RFC 8785 form, to the byte.
    assert b'"payload":' + rfc8785.dumps(json.loads(event)) + b',"payload_type":"application/json"' in answer.content
    assert answer.json()["entry"].encode() == receipt.entry
    assert decode_base64(answer.json()["opening"]) == receipt.opening


@pytest.mark.parametrize("last", [b"\n", b""], ids=["with last newline", "without"])
@pytest.mark.parametrize("kind", [NDJSON, "application/ndjson", "application/x-ndjson; charset=UTF-8"])
def test_a_batch_gets_one_receipt_for_all_its_events_in_order(segment: Segment, kind: str, last: bytes) -> None:
    segment.append(b'"before"')
    body = b"\n".join(EVENTS[name] for name in EVENTS if b"\n" not in EVENTS[name])
    receipts = minted(segment.append(body + last, kind), segment.key, body)
    assert [one.index for one in receipts] == list(range(1, body.count(b"\n") + 2))
    assert len({one.opening for one in receipts}) == len(receipts)
    for one, entry, line in zip(receipts, segment.entries(1, len(receipts) + 1), body.splitlines(), strict=True):
        assert (entry["index"], entry["entry"].encode()) == (one.index, one.entry)
        assert typed(entry["payload"]) == as_logged(line)


def test_a_batch_may_be_a_single_line(segment: Segment) -> None:
    body = lines({"n": 1})
    assert [one.index for one in minted(segment.append(body, NDJSON), segment.key, body)] == [0]


def test_lines_of_a_batch_may_end_as_windows_ends_them(segment: Segment) -> None:
    body = b'{"n":1}\r\n{"n":2}\r\n'
    assert len(minted(segment.append(body, NDJSON), segment.key, body)) == 2


def test_ten_thousand_events_are_one_batch(segment: Segment) -> None:
    body = lines(*({"n": number, "actor": f"user-{number % 7}"} for number in range(10_000)))
    receipts = minted(segment.append(body, NDJSON), segment.key, body)
    assert [one.index for one in receipts] == list(range(10_000))
    assert segment.checkpoint().size == 10_000
    assert [entry["payload"]["n"] for entry in segment.entries(0, 10_000)] == list(range(10_000))


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", 'a/b; c="d e"', "application/cbor"])
def test_any_other_type_is_logged_as_the_bytes_received(segment: Segment, kind: str) -> None:
    data = bytes(range(256)) * 3
    receipt = parse_receipt(segment.append(data, kind))
    verify_receipt(receipt, key=segment.key, payload=data)
    assert receipt.payload_type == kind
    entry = segment.get("/entries/0").json()
    assert (decode_base64(entry["payload"]), entry["payload_type"]) == (data, kind)


@pytest.mark.parametrize(
    "kind", ["Application/JSON", "application/json;charset=utf-8", 'application/json; charset="UTF-8"']
)
def test_json_is_known_however_its_type_is_spelled(segment: Segment, kind: str) -> None:
    event = b'{"b":1, "a":2}'
    assert verified(segment.append(event, kind), segment.key, event).payload_type == JSON


def test_a_receipt_holds_for_its_own_event_and_its_own_log_only(server: Server, segment: Segment) -> None:
    other = server.create(f"{segment.name}-other")
    receipt = parse_receipt(segment.append(b'{"n":1}'))
    with pytest.raises(ProofError):
        verify_receipt(receipt, key=segment.key, payload=b'{"n":2}')
    stranger = parse_receipt(other.append(b'{"n":1}'))
    with pytest.raises(ProofError):
        verify_receipt(Receipt(**{**fields(receipt), "entry": stranger.entry}), key=segment.key)
    ours, theirs = (TrustPolicy((TrustedLog(key, ""),), (), (), None) for key in (segment.key, other.key))
    verify_receipt(receipt, key=ours)
    for wrong in (other.key, theirs):
        with pytest.raises(SignatureError):
            verify_receipt(receipt, key=wrong)


def test_a_proof_holds_under_the_heads_of_its_own_log_only(server: Server, segment: Segment) -> None:
    """The same events in both, and heads of the same size: other openings and origins make them other trees."""
    other = server.create(f"{segment.name}-other")
    receipts = [parse_receipt(one.append(b"%d" % n)) for n in range(5) for one in (segment, other)][::2]
    for index, receipt in enumerate(receipts):
        shown = segment.get(f"/proof/inclusion/5/{index}").json()["proof"]
        proof, leaf = [Hash(decode_base64(one)) for one in shown], leaf_hash(receipt.entry)
        verify_inclusion(leaf=leaf, index=index, size=5, proof=proof, root=segment.checkpoint().root)
        with pytest.raises(ProofError):
            verify_inclusion(leaf=leaf, index=index, size=5, proof=proof, root=other.checkpoint().root)
        with pytest.raises(SignatureError):
            verify_receipt(Receipt(**{**fields(receipt), "checkpoint": other.note()}), key=segment.key)
        with pytest.raises(ProofError):
            verify_receipt(Receipt(**{**fields(receipt), "checkpoint": other.note()}), key=other.key)


def fields(receipt: Receipt) -> dict[str, Any]:
    return {name: getattr(receipt, name) for name in Receipt.__slots__}


def test_a_receipt_is_json_in_canonical_form_and_is_not_cached(segment: Segment) -> None:
    for response in (segment.post(b"1"), segment.post(b"1\n2\n", NDJSON)):
        assert response.status_code == 201
        assert response.headers["Content-Type"] == JSON
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.content == canonicalize(response.content)


def test_pages_of_entries_neither_skip_nor_repeat_any(segment: Segment) -> None:
    segment.append(lines(*range(600)), NDJSON)
    for start, limit in [(0, 100), (0, 1000), (255, 2), (256, 256), (599, 1), (599, 1000), (250, 300)]:
        page = segment.get(f"/entries?start={start}&limit={limit}").json()["entries"]
        assert [entry["payload"] for entry in page] == list(range(600))[start : start + limit]
    assert segment.get("/entries").json()["entries"] == segment.entries(0, 100)
    assert segment.get("/entries?start=600").json() == {"entries": []}


def test_a_page_of_large_payloads_is_cut_and_never_empty(segment: Segment) -> None:
    for _ in range(20):
        segment.append(b'"' + b"x" * 1_000_000 + b'"')
    page = segment.get("/entries?limit=1000").json()["entries"]
    assert 1 <= len(page) < 20
    assert [entry["index"] for entry in segment.entries(0, 20)] == list(range(20))


def test_large_payloads_stay_whole_over_the_end_of_a_tile(server: Server, segment: Segment) -> None:
    for number in range(250):
        segment.append(b"%d" % number)
    large = [bytes([number]) * (1 << 20) for number in range(24)]
    for data in large:
        segment.append(data, "application/octet-stream")
    segment.append(b"1\n" * 300, NDJSON)
    for number, data in enumerate(large, 250):
        assert decode_base64(segment.get(f"/entries/{number}").json()["payload"]) == data
    assert [entry["payload"] for entry in segment.entries(0, 250)] == list(range(250))
    found = subprocess.run([TLOG, "fsck", "--data", server.data, segment.name], capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (0, b"")


@pytest.mark.parametrize("sample", ["cloudtrail.json", "kubernetes.jsonl"])
def test_audit_events_come_back_as_they_went_in(segment: Segment, sample: str) -> None:
    raw = (SAMPLES / sample).read_bytes()
    events = json.loads(raw)["Records"] if sample.endswith(".json") else [json.loads(line) for line in raw.splitlines()]
    body = lines(*events) if sample.endswith(".json") else raw
    assert len(minted(segment.append(body, NDJSON), segment.key, body)) == len(events) == 8
    assert [entry["payload"] for entry in segment.entries(0, len(events))] == events


def real_events() -> list[bytes]:
    """Return real events as they stand in their files, one text each."""
    folder = Path(REAL or "")
    found = [line for path in sorted(folder.rglob("*.jsonl")) for line in path.read_bytes().splitlines()]
    for path in sorted(folder.rglob("*.json")):
        found += [json.dumps(event).encode() for event in json.loads(path.read_bytes())["Records"]]
    return found


@pytest.mark.skipif(REAL is None, reason="TLOG_EVENTS names no folder of real CloudTrail and Kubernetes events")
def test_real_events_come_back_as_they_went_in(segment: Segment) -> None:
    events = real_events()
    assert events
    for first in range(0, len(events), 1000):
        part = events[first : first + 1000]
        body = b"\n".join(part)
        minted(segment.append(body, NDJSON), segment.key, body)
        logged = segment.entries(first, first + len(part))
        assert [entry["payload"] for entry in logged] == [json.loads(event) for event in part]


# Idempotency


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b'{"n":1}', JSON), (b'{"n":1}\n{"n":2}\n', NDJSON), (b"\x00\xff", "application/octet-stream")],
    ids=["event", "batch", "bytes"],
)
def test_a_retry_gets_the_same_bytes_and_logs_nothing(segment: Segment, body: bytes, kind: str) -> None:
    first = segment.append(body, kind, "key-1")
    size = segment.checkpoint().size
    assert segment.append(body, kind, "key-1") == first
    assert segment.checkpoint().size == size


def test_a_retry_gets_the_same_bytes_after_much_else_was_logged(segment: Segment) -> None:
    body = lines(*range(300))
    segment.append(lines(*range(100)), NDJSON)
    single, batch = segment.append(b'"single"', key="single"), segment.append(body, NDJSON, "batch")
    for count in (1, 254, 257, 5000):
        segment.append(lines(*range(count)), NDJSON)
        note = segment.note()
        assert segment.append(b'"single"', key="single") == single
        assert segment.append(body, NDJSON, "batch") == batch
        assert segment.note() == note


def test_a_retry_gets_the_same_bytes_after_a_restart(start_server: Callable[..., Server]) -> None:
    server = start_server()
    segment = server.create("payments")
    body = lines(*range(300))
    before = segment.append(b"1", key="a"), segment.append(body, NDJSON, "b")
    assert server.stop() == 0
    again = start_server(port=server.port)
    assert (segment.append(b"1", key="a"), segment.append(body, NDJSON, "b")) == before
    again.kill()
    start_server(port=server.port)
    assert (segment.append(b"1", key="a"), segment.append(body, NDJSON, "b")) == before
    assert segment.checkpoint().size == 301


@pytest.mark.parametrize(
    ("body", "kind", "size"), [(b'{"n":1}', JSON, 1), (lines(*range(20)), NDJSON, 20)], ids=["event", "batch"]
)
def test_retries_at_the_same_time_all_get_the_same_bytes(segment: Segment, body: bytes, kind: str, size: int) -> None:
    with ThreadPoolExecutor(24) as threads:
        receipts = list(threads.map(lambda _: segment.append(body, kind, "same"), range(48)))
    assert len(set(receipts)) == 1
    assert segment.checkpoint().size == size


@pytest.mark.parametrize(
    "again", [b'{ "b" : 1.0, "a":"\\u0041" }', b'\n{"a":"A","b":1e0}'], ids=["white space and escapes", "order"]
)
def test_the_same_event_in_another_spelling_is_the_same_event(segment: Segment, again: bytes) -> None:
    assert segment.append(b'{"b":1,"a":"A"}', key="k") == segment.append(again, key="k")


def test_one_event_and_a_batch_of_that_event_are_the_same_events(segment: Segment) -> None:
    single = parse_receipt(segment.append(b'{"a":1}', key="k"))
    [minted_one] = minted(segment.append(b'{"a":1}\n', NDJSON, "k"), segment.key, b'{"a":1}\n')
    assert minted_one == single
    assert segment.checkpoint().size == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"1\n2\n4\n", NDJSON),
        (b"1\n2\n", NDJSON),
        (b"1\n2\n3\n4\n", NDJSON),
        (b"2\n1\n3\n", NDJSON),
        (b"1", JSON),
        (b"1\n2\n3\n", "text/plain"),
    ],
    ids=["another last event", "fewer", "more", "another order", "one of them", "the same bytes of another type"],
)
def test_a_key_that_comes_back_with_other_events_is_refused(segment: Segment, body: bytes, kind: str) -> None:
    first = segment.append(b"1\n2\n3\n", NDJSON, "k")
    note = segment.note()
    response = segment.post(body, kind, "k")
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["type"] == "urn:tlog:problem:idempotency-mismatch"
    assert "fresh key" in response.json()["detail"]
    assert segment.note() == note
    assert segment.append(b"1\n2\n3\n", NDJSON, "k") == first


def test_of_two_requests_with_one_key_and_other_events_one_is_refused(segment: Segment) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: segment.post(b"%d" % (number % 2), key="k"), range(32)))
    statuses = [answer.status_code for answer in answers]
    winner = {number % 2 for number, status in enumerate(statuses) if status == 201}
    assert len(winner) == 1
    assert statuses.count(201) == statuses.count(422) == 16
    assert segment.checkpoint().size == 1


def test_a_key_is_that_of_one_segment(server: Server, segment: Segment) -> None:
    other = server.create(f"{segment.name}-other")
    first = segment.append(b'"here"', key="k")
    assert verified(other.append(b'"there"', key="k"), other.key, b'"there"').index == 0
    assert segment.append(b'"here"', key="k") == first
    # Nor does the same event bring the receipt of the other segment.
    again = other.append(b'"here"', key="j")
    assert again != segment.append(b'"here"', key="j")
    verified(again, other.key, b'"here"')


def test_without_a_key_each_request_logs_anew(segment: Segment) -> None:
    assert [parse_receipt(segment.append(b"1")).index for _ in range(3)] == [0, 1, 2]


def test_a_refused_request_does_not_use_up_its_key(segment: Segment) -> None:
    assert segment.post(b"{", key="k").status_code == 400
    assert verified(segment.append(b"{}", key="k"), segment.key, b"{}").index == 0


@pytest.mark.parametrize("key", ["!", "~" * 255, 'a,b;c="d"', "K"], ids=["shortest", "longest", "marks", "letter"])
def test_every_visible_ascii_character_may_stand_in_a_key(segment: Segment, key: str) -> None:
    assert segment.append(b"1", key=key) == segment.append(b"1", key=key)
    assert segment.checkpoint().size == 1


def test_keys_differ_by_case(segment: Segment) -> None:
    assert segment.append(b"1", key="a") != segment.append(b"1", key="A")


@pytest.mark.parametrize("key", ["", " ", "a b", "a\tb", "x" * 256, "\xe9"])
def test_a_malformed_key_is_refused(server: Server, segment: Segment, key: str) -> None:
    headers = {"Content-Type": JSON, "Idempotency-Key": key}
    answer = server.request("POST", f"/segments/{segment.name}/entries", b"1", headers, PATIENCE)
    assert answer.status == 400
    assert answer.json()["type"] == "urn:tlog:problem:malformed"
    assert "Idempotency-Key" in answer.json()["detail"]
    assert segment.checkpoint().size == 0
