"""Receivers at a server that asks who comes: who is heard, where what is sent may go, and how much of it."""

import json
import sqlite3
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

import clocked
import pytest
import requests
from ingesting import POLICY, Log, make_log
from live import PATIENCE, Server, stalled, start, tell, until
from upgrading import make_later

from tlog.config import Config
from tlog.receivers import RECEIVERS

Starting = Callable[..., Server]
OTHERS = """
[[rule]]
name = "a sender who may not write to quarantine"
roles = ["writer"]
principals = ["other"]
segments = ["plain-*"]
"""
ROUTES = """
remember_days = 1

[[route]]
segment = "{/segment}"
labels = { system = "{/system}" }
"""


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def events(segment: str, count: int, system: str = "other", **more: Any) -> list[dict[str, Any]]:
    """Return so many events with ids that say themselves where they go."""
    named = {"auditID": "", "stage": "Panic", "verb": "get"}
    return [
        {**named, "auditID": f"{segment}-{number}", "segment": segment, "system": system, **more}
        for number in range(count)
    ]


def taken(logged: int, quarantined: int = 0, seen: int = 0) -> dict[str, int]:
    return {"logged": logged, "quarantined": quarantined, "seen": seen}


def send(log: Log, *events: Any, **headers: str) -> dict[str, int]:
    answer = log.post("json", lines(*events), **headers)
    assert answer.status_code == 200, answer.content
    found: dict[str, int] = answer.json()
    return found


def quarantined(log: Log, segment: str) -> list[tuple[Any, str]]:
    """Return each event in quarantine that was for a segment, and why it is there."""
    kept = [(json.loads(one["text"]), one["quarantined"]) for one in log.payloads("quarantine")]
    return [(event, reason) for event, reason in kept if event["segment"] == segment]


def id_of(log: Log, segment: str) -> str:
    with closing(sqlite3.connect(log.data / "control.db")) as rows:
        return str(rows.execute("select id from segment where name = ?", [segment]).fetchone()[0])


def basic(token: str) -> str:
    return "Basic " + b64encode(f"anyone:{token}".encode()).decode()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """One log for all tests that leave it running."""
    made = make_log(start, tmp_path_factory.mktemp("ingest") / "data", policy=POLICY + OTHERS, routes=ROUTES)
    yield made
    made.server.kill()


# Who is heard


@pytest.mark.parametrize("path", [route.path for route in RECEIVERS if route.takes])
def test_nobody_without_a_credential_is_heard_and_that_is_said_before_the_body_comes(log: Log, path: str) -> None:
    token = log.sender
    wrong = ["", f"Bearer {token[:-1]}-", f"Splunk {token[:-1]}-", basic(token[:-1] + "-"), basic(""), "Basic !", token]
    for credential in wrong:
        shown = [f"Authorization: {credential}"] if credential else []
        with stalled(log.server.port, 1, f"POST {path}", *shown, length=10 << 20) as [connection]:
            connection.settimeout(PATIENCE)
            assert connection.recv(1_000).split(b" ", 2)[1] in (b"401", b"403")


def test_what_senders_show_in_place_of_a_bearer_token_counts_on_no_other_route(log: Log) -> None:
    receivers, guarded = {route.path for route in RECEIVERS}, 0
    for path, methods in log.get("/openapi.json").json()["paths"].items():
        for method in set(methods) & {"get", "put", "post", "delete"}:
            place = path.replace("{segment}", "quarantine")
            url = f"{log.server.url}{place.replace('{', '').replace('}', '')}"
            if path in receivers or requests.request(method, url, timeout=PATIENCE).status_code != 401:
                continue
            guarded += 1
            for credential in (f"Splunk {log.auditor}", basic(log.auditor)):
                shown = {"Authorization": credential}
                assert requests.request(method, url, headers=shown, timeout=PATIENCE).status_code == 401, (method, url)
    assert guarded > 20


# What may not go where it should


def test_what_a_sender_may_not_write_goes_into_quarantine_whether_there_is_such_a_segment_or_not(log: Log) -> None:
    tell("segment", "create", "secrets", "--data", log.data)
    for segment in ("secrets", "missing"):
        [event] = events(segment, 1)
        assert send(log, event, *events(f"plain-{segment}", 2)) == taken(2, 1)
        reason = f"there is no segment {segment} that sender may write to, or make and write to"
        assert quarantined(log, segment) == [(event, reason)]
        assert send(log, event, *events(f"plain-{segment}", 3)) == taken(1, 1, 2)
        assert len(quarantined(log, segment)) == 1
    assert log.payloads("secrets") == []
    assert "missing" not in log.names()


def test_who_may_not_write_to_quarantine_is_refused_and_what_was_logged_is_there_once(log: Log) -> None:
    other = {"Authorization": f"Bearer {tell('token', 'issue', 'other', '--data', log.data)}"}
    tell("segment", "create", "plain-refused", "--data", log.data)
    good, [bad] = events("plain-refused", 3), events("missing", 1)
    for _ in range(2):
        assert log.post("json", lines(*good, bad), **other).status_code == 404
        assert log.payloads("plain-refused") == good
    assert send(log, *good, **other) == taken(0, 0, 3)
    assert log.payloads("plain-refused") == good


def test_a_segment_is_made_with_the_labels_that_the_policy_lets_its_sender_give_it_and_that_is_on_record(
    log: Log,
) -> None:
    made, other = events("plain-made", 1), events("plain-not-made", 1, system="kubernetes")
    assert send(log, *made, *other) == taken(1, 1)
    assert len(quarantined(log, "plain-not-made")) == 1
    records = [one for one in log.payloads("control") if one.get("name") in ("plain-made", "plain-not-made")]
    [(event, by, labels)] = [(one["event"], one["by"], one["labels"]) for one in records]
    assert (event, by, labels) == ("segment.created", "sender", {"system": "other"})
    # It has its own labels now, whatever an event would have given it.
    assert send(log, *events("plain-made", 1, system="kubernetes")) == taken(1)


@pytest.mark.parametrize("name", ["control", "access", "Control", "ACCESS"])
def test_no_event_says_itself_into_a_segment_of_tlogs_own(log: Log, name: str) -> None:
    before = len(log.payloads("control"))
    assert send(log, *events(name, 1)) == taken(0, 1)
    assert len(quarantined(log, name)) == 1
    assert len(log.payloads("control")) == before
    page = log.get("/segments/access/entries?limit=1000").json()["entries"]
    assert page
    assert not [one for one in page if "auditID" in one["payload"]]


def test_what_comes_for_a_segment_that_is_closed_goes_into_quarantine_once(
    start_server: Starting, tmp_path: Path
) -> None:
    log = make_log(start_server, tmp_path / "data", policy=POLICY, routes=ROUTES, workers=1)
    for name in ("plain-sealed", "plain-frozen"):
        tell("segment", "create", name, "--data", log.data)
    tell("segment", "create", "plain-signed", "--signed", "--data", log.data)
    tell("segment", "seal", "plain-sealed", "--data", log.data)
    assert log.server.stop() == 0
    Config(log.data).anchor_of(id_of(log, "plain-frozen")).unlink()
    log.start(workers=1)
    closed = ("sealed", "frozen", "signed")
    sent = [event for name in closed for event in events(f"plain-{name}", 2)]
    assert send(log, *sent, *events("plain-open", 2)) == taken(2, 6)
    assert send(log, *sent, *events("plain-open", 2)) == taken(0, 6, 2)
    for name in closed:
        kept = quarantined(log, f"plain-{name}")
        assert [event for event, _ in kept] == events(f"plain-{name}", 2)
        assert all(name in reason for _, reason in kept), kept


def test_two_who_make_a_segment_at_the_same_time_with_other_labels_both_write_to_it(
    start_server: Starting, tmp_path: Path
) -> None:
    creators = POLICY + OTHERS.replace('"writer"', '"creator"').replace('"other"]', '"sender"]').replace(
        'segments = ["plain-*"]', 'segments = ["plain-*"]\nlabels = { system = "kubernetes" }'
    )
    log = make_log(start_server, tmp_path / "data", policy=creators, routes=ROUTES)
    with ThreadPoolExecutor(2) as threads:
        for place in range(8):
            name, systems = f"plain-{place}", ("other", "kubernetes")
            sent = [events(name, 1, system) for system in systems]
            assert list(threads.map(lambda one: send(log, *one), sent)) == [taken(1)] * 2
    assert log.payloads("quarantine") == []


# Quotas


def test_one_quota_for_several_segments_lets_a_request_through_for_all_or_none(
    start_server: Starting, tmp_path: Path
) -> None:
    quota = '\n[[quota]]\nname = "shared"\nbytes_per_second = 4000\nprincipals = ["sender"]\n'
    log = make_log(start_server, tmp_path / "data", policy=POLICY + quota, routes=ROUTES, workers=1)
    # Each part alone is more than may be ahead.
    large = {"text": "x" * 4_500}
    one, two, bad = (events(name, 1, **large) for name in ("plain-one", "plain-two", "missing"))
    assert send(log, *one, *two, *bad) == taken(2, 1)
    more = [*events("plain-one", 2)[1:], *events("plain-three", 2)]
    refused = log.post("json", lines(*more))
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:tlog:problem:quota")
    assert 1 <= int(refused.headers["Retry-After"]) <= 5
    assert "plain-three" not in log.names()
    until(lambda: log.post("json", lines(*more)).status_code == 200, "what was sent to be paid for", 10)
    assert log.ids() == dict.fromkeys([one["auditID"] for one in (*one, *two, *more)], 1)


def test_who_is_refused_for_one_segment_has_drawn_on_the_quota_of_none(start_server: Starting, tmp_path: Path) -> None:
    quota = '\n[[quota]]\nname = "each"\nbytes_per_second = 1000\neach = "segment"\n'
    log = make_log(start_server, tmp_path / "data", policy=POLICY + quota, routes=ROUTES, workers=1)
    assert send(log, *events("plain-full", 1, text="x" * 20_000)) == taken(1)
    both = lines(*events("plain-free", 1, text="x" * 20_000), *events("plain-full", 2))
    assert [log.post("json", both).status_code for _ in range(2)] == [429, 429]
    assert send(log, *events("plain-free", 1)) == taken(1)


def test_what_the_server_failed_to_log_is_drawn_on_no_quota(start_server: Starting, tmp_path: Path) -> None:
    quota = '\n[[quota]]\nname = "all"\nbytes_per_second = 1000\nprincipals = ["sender"]\n'
    log = make_log(start_server, tmp_path / "data", policy=POLICY + quota, routes=ROUTES, workers=1)
    tell("segment", "create", "plain-later", "--data", log.data)
    make_later(log.data / "segments" / f"{id_of(log, 'plain-later')}.db", "segment")
    large = {"text": "x" * 9_000}
    failed = log.post("json", lines(*events("plain-later", 1, **large)))
    assert (failed.status_code, failed.headers["Retry-After"]) == (503, "1")
    assert send(log, *events("plain-fine", 1, **large)) == taken(1)
    assert log.post("json", lines(*events("plain-fine", 2))).status_code == 429


# Each once, for how long


def test_events_are_remembered_in_the_order_of_their_times_so_that_few_pages_are_written(log: Log) -> None:
    at = "2026-01-02T03:04:05.678Z"
    assert send(log, *events("plain-times", 9, requestReceivedTimestamp=at)) == taken(9)
    assert log.post("json", lines(*[{"segment": "plain-keyed", "system": "other"}] * 9), **{"Idempotency-Key": "one"})
    for name, expected in (("plain-times", {1767323045678}), ("plain-keyed", {crc32(b"one")})):
        with closing(sqlite3.connect(log.data / "segments" / f"{id_of(log, name)}.db")) as rows:
            keys = [key for (key,) in rows.execute("select key from event")]
        assert len(keys) == 9
        assert {int.from_bytes(key[:6], "big") for key in keys} == expected


def test_an_event_is_remembered_for_so_many_days_and_then_forgotten_by_and_by(
    start_server: Starting, tmp_path: Path
) -> None:
    shift = tmp_path / "shift"
    shift.write_text("0")
    clock = {"environment": {"TLOG_CLOCK": str(shift)}, "program": (sys.executable, clocked.__file__)}
    log = make_log(start_server, tmp_path / "data", policy=POLICY, routes=ROUTES, workers=1, **clock)

    def wait(hours: float) -> None:
        shift.with_suffix(".new").write_text(str(int(hours * 3_600)))
        shift.with_suffix(".new").rename(shift)

    def remembered() -> int:
        with closing(sqlite3.connect(log.data / "segments" / f"{id_of(log, 'plain-days')}.db")) as rows:
            return int(rows.execute("select count(*) from event").fetchone()[0])

    sent = events("plain-days", 60)
    assert send(log, *sent[:20]) == taken(20)
    wait(23.5)
    assert send(log, *sent[:22]) == taken(2, 0, 20)
    assert remembered() == 22
    wait(24.5)
    assert send(log, *sent[40:]) == taken(20)
    assert remembered() == 22
    assert send(log, *sent[:22]) == taken(20, 0, 2)
    assert remembered() == 42
    assert sorted(log.ids().values()) == [1] * 22 + [2] * 20
