"""What `scripts/bench` sends: events, the scripts of wrk, and batches; and the ceiling of those batches.

Events are canonical JSON, as `tlog-client` sends it, without floats, of some 450 bytes. They are the same in each run.
"""

import json
import os
import random
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from tlog.canonical import Canonicalizer
from tlog_core.commitment import OPENING_BYTES, Opening, commit_all
from tlog_core.entry import encode_entries
from tlog_core.merkle import Frontier, leaf_hashes
from tlog_core.receipt import JSON_TYPE

HOST = "127.0.0.1"
TIMEOUT_SECONDS = 60
EVENTS = 20_000
ID = b"0123456789abcdef"
TIME = b"2001-02-03T04:05:06.789+00:00"
NANOSECONDS: Final = 981_173_106_789_000_000
"""What stands in bodies where each request has an id and a time of its own, which OTLP has as a number."""

# wrk with this alone gets one path. It reports on the last line, latencies in milliseconds. Its percentiles make up for
# the requests that a slow answer held back.
DONE = """
function done(summary, latency)
  local errors = summary.errors
  print(string.format('{"requests":%d,"seconds":%f,"failed":%d,"p50":%f,"p99":%f}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""

# Gets the paths of a file, one after the other.
READ = """
local paths, turn = {}, 0
function init(arguments)
  for path in io.lines(arguments[1]) do paths[#paths + 1] = path end
end
function request()
  turn = turn % #paths + 1
  return wrk.format("GET", paths[turn])
end
"""

# Posts the events of a file, with a name of this run, to the paths of another, in turn, each under a fresh ID and a
# fresh key. An event begins with {"id":"0123456789abcdef", which is replaced.
APPEND = """
local events, paths, turn, run = {}, {}, 0, ""
function init(arguments)
  for path in io.lines(arguments[3]) do paths[#paths + 1] = path end
  for event in io.lines(arguments[1]) do events[#events + 1] = event:sub(26) end
  run = arguments[2]
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
end
function request()
  turn = turn + 1
  wrk.headers["Idempotency-Key"] = run .. "-" .. turn
  local event = string.format('{"id":"%016x",', turn) .. events[turn % #events + 1]
  return wrk.format(nil, paths[turn % #paths + 1], nil, event)
end
"""


def write_events(path: Path) -> None:
    """Write audit events, one a line."""
    chance = random.Random(1)  # noqa: S311  # no secrets
    with path.open("w", encoding="utf-8") as out:
        for _ in range(EVENTS):
            event = {"id": f"{chance.getrandbits(64):016x}", **chance.choice(_KINDS)(chance), **_actor(chance)}
            out.write(json.dumps(event, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n")


def send_batches(
    port: int, segment: str, events: Path, *, size: int, connections: int, seconds: float, batches: int
) -> float:
    """Send so many batches at most, for so many seconds at most, and return how many entries a second were logged."""
    bodies = [b"".join(batch) for batch in _batches(events, size)]
    tickets, run, path = iter(range(batches)), secrets.token_hex(8), f"/segments/{segment}/entries"
    deadline = time.perf_counter() + seconds

    def send(_connection: int) -> float:
        sent = 0
        with closing(HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)) as connection:
            connection.connect()
            began = time.perf_counter()
            while time.perf_counter() < deadline and (ticket := next(tickets, None)) is not None:
                headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": f"{run}-{ticket}"}
                connection.request("POST", path, bodies[ticket % len(bodies)], headers)
                check(connection, 201)
                sent += size
        return sent / (time.perf_counter() - began)

    with ThreadPoolExecutor(connections) as pool:
        return sum(pool.map(send, range(connections)))


def send_bodies(
    port: int, path: str, kind: str, bodies: Sequence[bytes], *, events: int, connections: int, seconds: float
) -> float:
    """Send bodies of so many events each, with ids and the time of their own in each request.

    Returns how many events a second were logged.
    """
    deadline = time.perf_counter() + seconds

    def send(place: int) -> float:
        sent = 0
        with closing(HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)) as connection:
            connection.connect()
            began = time.perf_counter()
            while time.perf_counter() < deadline:
                body = _fresh(bodies[(place + sent // events) % len(bodies)])
                connection.request("POST", path, body, {"Content-Type": kind})
                check(connection, 200, 201)
                sent += events
        return sent / (time.perf_counter() - began)

    with ThreadPoolExecutor(connections) as pool:
        return sum(pool.map(send, range(connections)))


def _fresh(body: bytes) -> bytes:
    now = time.time_ns()
    moment = datetime.fromtimestamp(now / 1e9, UTC).isoformat(timespec="milliseconds")
    body = body.replace(ID, secrets.token_hex(8).encode()).replace(TIME, moment.encode())
    body = body.replace(str(NANOSECONDS).encode(), str(now).encode())
    return body.replace(NANOSECONDS.to_bytes(8, "little"), now.to_bytes(8, "little"))


def check(connection: HTTPConnection, *statuses: int) -> bytes:
    """Read an answer and return its body; raise RuntimeError for any status but these."""
    answer = connection.getresponse()
    body = answer.read()
    if answer.status not in statuses:
        raise RuntimeError(f"the server answered {answer.status}: {body[:500]!r}")
    return body


def compute_batches(events: Path, *, size: int, seconds: float) -> float:
    """Do what no log can leave out, and return how many entries a second were computed in this one process.

    That is: strict parse, canonical form, commitment under a fresh opening, entry, leaf hash, and the hashes of the
    tree above. Nothing is stored, nothing sent, nothing signed.
    """
    bodies = [b"".join(batch) for batch in _batches(events, size)]
    canonicalize, frontier = Canonicalizer(), Frontier()
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        frontier = _compute(bodies[frontier.size // size % len(bodies)], canonicalize, frontier)
    return frontier.size / passed


def _compute(body: bytes, canonicalize: Canonicalizer, frontier: Frontier) -> Frontier:
    payloads = canonicalize.lines(body.splitlines())
    random_bytes = os.urandom(OPENING_BYTES * len(payloads))
    openings = [
        Opening(random_bytes[place : place + OPENING_BYTES]) for place in range(0, len(random_bytes), OPENING_BYTES)
    ]
    commitments = commit_all(openings, JSON_TYPE, payloads)
    now = time.time_ns() // 1_000_000
    entries = encode_entries(commitments, origin="bench.example/log/segments/bench", time=now, writer="anonymous")
    return frontier.grow(leaf_hashes(entries)).frontier


def _batches(events: Path, size: int) -> list[Sequence[bytes]]:
    lines = events.read_bytes().splitlines(keepends=True)
    return [lines[start : start + size] for start in range(0, len(lines), size)]


def _sign_in(chance: random.Random) -> dict[str, Any]:
    methods = chance.sample(["password", "passkey", "otp", "recovery code"], chance.randint(1, 3))
    return {
        "kind": "session.start",
        "outcome": chance.choice(["granted", "granted", "granted", "refused"]),
        "session": {"device": f"{chance.getrandbits(128):032x}", "methods": methods, "risk": chance.randint(0, 100)},
    }


def _call(chance: random.Random) -> dict[str, Any]:
    folder = f"{chance.choice(['ledger', 'reports'])}/{chance.randint(2019, 2026)}/{chance.randint(1, 12):02}"
    return {
        "kind": chance.choice(["object.read", "object.write", "object.list"]),
        "object": {"bytes": chance.randint(0, 1 << 30), "name": f"/{folder}/{chance.getrandbits(64):x}.parquet"},
        "outcome": {"code": chance.choice([200, 200, 200, 403, 404]), "milliseconds": chance.randint(1, 900)},
        "request": {"headers": {"accept": "*/*", "trace": f"{chance.getrandbits(128):032x}"}, "retry": False},
    }


def _change(chance: random.Random) -> dict[str, Any]:
    names = chance.sample(["audit", "billing", "deploy", "export", "read", "support", "write"], 4)
    return {
        "kind": "role.change",
        "object": {"after": names[:3], "before": names[2:], "name": f"role/{chance.randint(1, 4000)}"},
        "reason": chance.choice(["rotation of duty", "ticket 4711: “least privilege”", "leaver", None]),
        "review": [{"by": f"user-{chance.randint(1, 900)}", "granted": True} for _ in range(chance.randint(1, 3))],
    }


def _actor(chance: random.Random) -> dict[str, Any]:
    agents = ["Mozilla/5.0 (X11; Linux x86_64; rv:128.0)", "cli/2.17.4 (linux; arm64)", "terraform/1.9.5"]
    return {
        "source": {
            "address": f"10.{chance.randint(0, 255)}.{chance.randint(0, 255)}.7",
            "agent": chance.choice(agents),
        },
        "time": 1_764_000_000_000 + chance.randint(0, 10**10),
        "user": {
            "groups": chance.sample(["admins", "auditors", "developers", "finance"], chance.randint(1, 4)),
            "name": chance.choice(["zoë.müller", "j.smith", "李雷", "amara.okafor", "svc-backup"]),
            "tenant": f"tenant-{chance.getrandbits(48):012x}",
        },
        "zone": chance.choice(["eu-central-1a", "eu-west-3c", "us-east-2b"]),
    }


_KINDS = (_sign_in, _call, _change)
