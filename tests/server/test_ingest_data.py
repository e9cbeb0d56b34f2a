"""Whole folders of audit events, through the receivers that are meant for them: each event once, and each proven."""

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
import rfc8785
from ingesting import Log, make_log
from live import JSON, PATIENCE, Server, until

from tlog_core.checkpoint import open_checkpoint
from tlog_core.commitment import Opening, commit
from tlog_core.encoding import decode_base64
from tlog_core.entry import has_commitment, parse_entry
from tlog_core.merkle import Hash, leaf_hash
from tlog_core.note import parse_verifier
from tlog_core.proof import verify_inclusion

SAMPLES = Path(__file__).parent.parent / "samples"
# Real events, never committed: a folder of CloudTrail files and Kubernetes audit lines. Without, the samples are sent.
REAL = os.environ.get("TLOG_EVENTS")
LIST = 10
SENDERS = 4


def bodies_of(folder: Path) -> list[tuple[str, bytes]]:
    """Return what senders would send of a folder, each with its receiver."""
    bodies = [("cloudtrail", path.read_bytes()) for path in sorted(folder.rglob("*.json"))]
    for path in sorted(folder.rglob("*.jsonl")):
        events = [json.loads(line) for line in path.read_bytes().splitlines()]
        for place in range(0, len(events), LIST):
            listed = {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": events[place : place + LIST]}
            bodies.append(("kubernetes", json.dumps(listed).encode()))
    return bodies


def events_of(bodies: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
    """Return each event by its id."""
    lists = [json.loads(body) for _, body in bodies]
    events = [event for one in lists for event in one.get("items") or one["Records"]]
    found = {id_of(event): event for event in events}
    assert len(found) == len(events)
    return found


def id_of(event: dict[str, Any]) -> str:
    return event["eventID"] if "eventID" in event else f"{event['auditID']}/{event['stage']}"


def send(log: Log, kind: str, body: bytes) -> int | None:
    """Return the status of the answer, if there is one."""
    try:
        return log.post(kind, body).status_code
    except requests.ConnectionError:
        return None


def send_all(log: Log, bodies: Sequence[tuple[str, bytes]], senders: ThreadPoolExecutor) -> list[int | None]:
    """Have each of several senders send all of it at the same time, in an order of its own."""
    everything = [one for place in range(SENDERS) for one in random.Random(place).sample(bodies, len(bodies))]  # noqa: S311
    return list(senders.map(lambda one: send(log, *one), everything))


def test_each_event_is_there_once_and_proven_though_several_send_all_of_it_and_the_log_is_killed(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    bodies = bodies_of(Path(REAL) if REAL else SAMPLES)
    expected = events_of(bodies)
    log = make_log(start_server, tmp_path / "data")
    with ThreadPoolExecutor(SENDERS) as senders, ThreadPoolExecutor(1) as sending:
        first = sending.submit(send_all, log, bodies, senders)
        until(lambda: len(log.names()) > 2, "something to be logged")
        log.server.kill()
        log.start()
        assert set(first.result()) <= {200, None}
        assert set(send_all(log, bodies, senders)) == {200}
        assert log.post(*bodies[0]).json()["logged"] == 0
    assert log.payloads("quarantine") == []
    found: Counter[str] = Counter()
    for name in set(log.names()) - {"quarantine", "control", "access"}:
        for event in proven(log, name):
            assert event == expected[id_of(event)]
            found[id_of(event)] += 1
    assert found == dict.fromkeys(expected, 1)


def proven(log: Log, name: str) -> list[Any]:
    """Return the events of a segment, each proven to be below its signed checkpoint."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {log.auditor}"
        url = f"{log.server.url}/segments/{name}"
        key = parse_verifier(session.get(url, timeout=PATIENCE).json()["vkey"])
        head = open_checkpoint(session.get(f"{url}/checkpoint", timeout=PATIENCE).content, key)
        entries = list(log.entries(name))
        assert len(entries) == head.size
        for index, one in enumerate(entries):
            proof = session.get(f"{url}/proof/inclusion/{head.size}/{index}", timeout=PATIENCE).json()["proof"]
            hashes = [Hash(decode_base64(value)) for value in proof]
            raw, opening = one["entry"].encode(), Opening(decode_base64(one["opening"]))
            payload = rfc8785.dumps(one["payload"])
            verify_inclusion(leaf=leaf_hash(raw), index=index, size=head.size, proof=hashes, root=head.root)
            assert has_commitment(raw, commit(opening=opening, payload_type=JSON, payload=payload))
            assert parse_entry(raw).writer == "sender"
    return [one["payload"] for one in entries]
