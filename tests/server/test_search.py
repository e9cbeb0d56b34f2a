"""Entries are found by who did what, and by words; each hit is proven, and what was not looked at is said."""

import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import JSON, NDJSON, PATIENCE, Segment, Server, tell, tlog, until

from tlog.config import Config
from tlog.formats.known import format_of
from tlog.search.terms import FIELDS
from tlog.store.connection import connect
from tlog_core.checkpoint import open_checkpoint
from tlog_core.commitment import Opening, verify_commitment
from tlog_core.encoding import canonicalize, decode_base64
from tlog_core.entry import parse_entry
from tlog_core.merkle import Hash, leaf_hash
from tlog_core.proof import verify_inclusion

REAL = os.environ.get("TLOG_EVENTS")
AT = 1_767_323_045_000

Starting = Callable[..., Server]


def event(number: int, **more: Any) -> dict[str, Any]:
    return {
        "time": (AT + 1_000 * number) / 1_000,
        "actor": ["ann", "bob"][number % 2],
        "action": "refund",
        "target": f"orders/{number}",
        "outcome": "failed" if number % 5 == 0 else "ok",
        "source": "192.0.2.7",
        "note": f"Ordinary Grüße no{number}",
        **more,
    }


def log_all(segment: Segment, *events: Any) -> None:
    segment.append(b"".join(json.dumps(one).encode() + b"\n" for one in events), NDJSON)


def ask(segment: Segment, **terms: object) -> dict[str, Any]:
    answer = requests.get(f"{segment.url}/entries", params={**terms}, timeout=PATIENCE)
    assert answer.status_code == 200, answer.content
    page: dict[str, Any] = answer.json()
    return page


def indexed(segment: Segment) -> bool:
    page = ask(segment, before=0)
    return bool(page["indexed"] == page["size"])


def find(segment: Segment, **terms: object) -> list[int]:
    """Return the indexes of all that is found, page by page, each hit verified, once all is indexed."""
    until(lambda: indexed(segment), "the index to come to the end")
    found: list[int] = []
    page = {"next": None}
    while not found or page["next"] is not None:
        before = {} if page["next"] is None else {"before": page["next"]}
        page = ask(segment, **{**terms, **before})
        found += verified(segment, page)
        if page["next"] is None:
            break
    assert found == sorted(set(found), reverse=True)
    return found


def verified(segment: Segment, page: dict[str, Any]) -> list[int]:
    """Return the indexes of the hits of a page after checking each by the means of any client."""
    checkpoint = open_checkpoint(page["checkpoint"].encode(), segment.key)
    assert checkpoint.size == page["size"] >= page["indexed"]
    for hit in page["entries"]:
        entry = hit["entry"].encode()
        is_json = hit["payload_type"] == JSON
        verify_commitment(
            parse_entry(entry).commitment,
            opening=Opening(decode_base64(hit["opening"])),
            payload_type=hit["payload_type"],
            payload=canonicalize(json.dumps(hit["payload"]).encode()) if is_json else decode_base64(hit["payload"]),
        )
        verify_inclusion(
            leaf=leaf_hash(entry),
            index=hit["index"],
            size=page["size"],
            proof=[Hash(decode_base64(one)) for one in hit["proof"]],
            root=checkpoint.root,
        )
    return [hit["index"] for hit in page["entries"]]


def refused(segment: Segment, **terms: object) -> str:
    answer = requests.get(f"{segment.url}/entries", params={**terms}, timeout=PATIENCE)
    assert answer.status_code == 400, answer.content
    return str(answer.json()["detail"])


# What is found


@pytest.fixture(scope="module")
def ledger(server: Server) -> Segment:
    """Twenty events, an opaque payload, and values that are not objects."""
    segment = server.create("ledger")
    log_all(segment, *map(event, range(20)))
    segment.append(b"\x00ann refund", "application/octet-stream")
    log_all(segment, "ann", [1, {"deep": [4711]}], {"actor": 'a "quoted" OR b*', "actors": "-NEAR(x"}, {"actor": "Ann"})
    return segment


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ({"actor": "ann"}, [*range(18, -1, -2)]),
        ({"actor": "Ann"}, [24]),
        ({"actor": "an"}, []),
        ({"actor": "an*"}, [*range(18, -1, -2)]),
        ({"actor": "*"}, [24, 23, *range(19, -1, -1)]),
        ({"actor": "ann", "outcome": "failure"}, [10, 0]),
        ({"actor": "ann", "outcome": "failure", "before": 10}, [0]),
        ({"actor": "ann", "outcome": "failure", "start": 1}, [10]),
        ({"action": "refund", "target": "orders/1*"}, [*range(19, 9, -1), 1]),
        ({"action": "nothing"}, []),
        ({"source": "192.0.2.7", "limit": 7}, [*range(19, -1, -1)]),
        ({"since": AT + 3_000, "until": AT + 5_000}, [4, 3]),
        ({"since": AT + 3_000, "until": AT + 9_000, "actor": "bob"}, [7, 5, 3]),
        ({"until": AT}, []),
        ({"since": AT + 60_000}, [24, 23, 22, 21, 20]),
        ({"q": "grüße"}, [*range(19, -1, -1)]),
        ({"q": "GRÜSSE no3"}, [3]),
        ({"q": "Gru\u0308ße-no4!"}, [4]),
        ({"q": "note"}, []),
        ({"q": "no"}, []),
        ({"q": "4711"}, [22]),
        ({"q": "ann"}, [24, 21, *range(18, -1, -2)]),
        ({"q": 'near"x'}, [23]),
        ({"q": "near y"}, []),
        ({"q": "near x or"}, [23]),
        ({"actor": 'a "quoted" OR b*'}, [23]),
        ({"q": "actor=616e6e"}, []),
        ({"before": 2}, [1, 0]),
        ({"q": "ann", "since": 2**63 - 1}, []),
    ],
    ids=str,
)
def test_what_has_all_that_is_asked_for_is_found_latest_first(
    ledger: Segment, terms: dict[str, object], found: list[int]
) -> None:
    assert find(ledger, **terms) == found


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"outcome": "ok"}, "success or failure"),
        ({"actor": ""}, "1 to 1024 characters"),
        ({"q": "x" * 1_025}, "1 to 1024 characters"),
        ({"q": "-- *"}, "no word"),
        ({"since": "2026-01-01"}, "since"),
        ({"until": "-1"}, "until"),
        ({"actor": "ann", "limit": 0}, "limit"),
        ({"actor": ["ann", "bob"]}, "each once"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_refused_with_what_to_do(
    ledger: Segment, terms: dict[str, object], said: str
) -> None:
    assert said in refused(ledger, **terms)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*FIELDS, "q", "since", "before"]), st.binary(min_size=1, max_size=40))
def test_whatever_bytes_are_asked_for_there_is_an_answer_or_a_refusal(ledger: Segment, name: str, value: bytes) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in value)
    answer = requests.get(f"{ledger.url}/entries?{name}={escaped}", timeout=PATIENCE)
    assert answer.status_code in (200, 400), answer.content


def test_a_search_for_very_many_words_is_answered(ledger: Segment) -> None:
    assert find(ledger, q=" ".join(f"{n}" for n in range(260))) == []


def test_the_words_of_the_beginning_of_a_large_payload_are_found_and_the_payload_is_shown(segment: Segment) -> None:
    body = json.dumps({"actor": "ann", "first": "begins", "rest": "x " * 400_000, "zlast": "ends"}).encode()
    for _ in range(3):
        segment.append(body)
    assert find(segment, q="begins", limit=2) == [2, 1, 0]
    assert find(segment, q="ends") == []


def test_a_page_of_large_payloads_ends_early_and_the_next_goes_on(segment: Segment) -> None:
    for number in range(20):
        segment.append(json.dumps({"actor": "ann", "n": number, "rest": "x" * 1_000_000}).encode())
    until(lambda: indexed(segment), "the index to come to the end")
    first = ask(segment, actor="ann")
    assert 1 < len(first["entries"]) < 20
    rest = ask(segment, actor="ann", before=first["next"])
    assert [*verified(segment, first), *verified(segment, rest)] == [*range(19, -1, -1)]


def test_an_event_of_a_known_format_is_found_by_its_fields(segment: Segment) -> None:
    lines = (Path(__file__).parent.parent / "samples" / "kubernetes.jsonl").read_bytes().splitlines()
    segment.append(b"\n".join(lines), NDJSON)
    found_by_their_fields(segment, [json.loads(line) for line in lines])


def found_by_their_fields(segment: Segment, events: list[Any]) -> None:
    """Check that each event is found by all its fields together, and with no event that has others."""
    all_fields = [format_of(one).fields(one) for one in events]
    for index, fields in enumerate(all_fields):
        terms = {name: getattr(fields, name) for name in FIELDS if getattr(fields, name) is not None}
        times = {} if fields.time is None else {"since": fields.time, "until": fields.time + 1}
        same = [
            place
            for place, other in enumerate(all_fields)
            if all(getattr(other, name) == value for name, value in terms.items()) and other.time == fields.time
        ]
        assert index in same
        assert find(segment, **terms, **times, limit=1_000) == sorted(same, reverse=True)


@pytest.mark.skipif(REAL is None, reason="TLOG_EVENTS names no folder of real CloudTrail and Kubernetes events")
def test_each_real_event_is_found_by_its_fields(segment: Segment) -> None:
    folder = Path(REAL or "")
    events = [json.loads(line) for path in sorted(folder.rglob("*.jsonl")) for line in path.read_bytes().splitlines()]
    for path in sorted(folder.rglob("*.json")):
        events += json.loads(path.read_bytes())["Records"]
    for part in itertools.batched(events, 1_000) if hasattr(itertools, "batched") else [events]:
        log_all(segment, *part)
    found_by_their_fields(segment, events)
