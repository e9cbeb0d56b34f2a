"""Where the world has its limits: disk, clock, memory, files, connections, and those who get in the way.

Of each there is a longer form in scripts/torture.
"""

import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import clocked
import impatient
import psutil
import pytest
import requests
import roomy
from history import History, load, wait_for
from live import JSON, NDJSON, PATIENCE, TLOG, Answer, Segment, Server, start, until
from observed import Observed, observe

from tlog.access.token import Presented, parse_token
from tlog.api import access, bulletins, entries, operations, proofs, segments, tiles
from tlog.config import LARGE_TURNS, MAX_BATCH_BYTES, MAX_FORM_BYTES, MAX_LARGE, MAX_PAYLOAD_BYTES, SYNC_TURNS, Config
from tlog.files import map_file
from tlog.fsck.run import Plan, check
from tlog.listen import connections_within
from tlog_core.entry import parse_entry
from tlog_core.receipt import parse_receipt

MIB = 1 << 20
MEMORY = Path("/dev/shm")  # noqa: S108
ENTRIES = "/segments/first/entries"
LARGE_HEAD = (
    b"POST /segments/payments/entries HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-ndjson\r\nContent-Length: 2000000\r\n\r\n"
)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk that few others use, and that is fast, where there is such a place."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as path:
        yield Path(path)


@pytest.fixture
def start_guarded(memory: Path) -> Iterator[Callable[..., "Guarded"]]:
    """Start a server over an empty folder in memory, and have the credentials that it shows once."""
    running: list[Server] = []

    def start_it(**options: Any) -> Guarded:
        server = observe(start(memory / "data", guarded=True, **options))
        running.append(server)
        lines = server.log.read_text().splitlines()
        at = next(number for number, line in enumerate(lines) if line.startswith("A new log."))
        house = Guarded(server, dict(line.split() for line in lines[at + 1 : at + 4]))
        server.segment("first", house.ask("auditor", "GET", "/segments/first").json()["vkey"])
        return house

    yield start_it
    for one in running:
        one.kill()


class Guarded:
    """A server that asks who one is, and the tokens of those whom it knows."""

    def __init__(self, server: Observed, tokens: dict[str, str]) -> None:
        self.server = server
        self.tokens = tokens
        self.numbers = count()

    def ask(self, who: str, method: str, path: str, body: bytes | None = None, kind: str = JSON) -> Answer:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        if body is not None:
            headers |= {"Content-Type": kind, "If-Match": '"1"'}
        return self.server.request(method, path, body, headers)

    def append(self, body: bytes | None = None) -> Answer:
        return self.ask("writer", "POST", ENTRIES, body or b"%d" % next(self.numbers))

    def token(self, who: str) -> Presented:
        return parse_token(self.tokens[who])


# A disk that fills


def test_below_its_reserve_a_server_takes_nothing_more_in_and_all_else_goes_on(
    start_guarded: Callable[..., Guarded], tmp_path: Path
) -> None:
    disk, reserve = tmp_path / "free", 7 * MIB

    def set_free(count: int) -> None:
        disk.with_suffix(".new").write_text(str(count))
        disk.with_suffix(".new").rename(disk)

    set_free(reserve)
    house = start_guarded(
        workers=1,
        options=["--reserve-mib", "7"],
        environment={"TLOG_FREE": str(disk)},
        program=(sys.executable, roomy.__file__),
    )
    assert house.append(b'"before"').status == 201
    growing: list[tuple[str, str, str, bytes, str]] = [
        ("writer", "POST", ENTRIES, b'"during"', JSON),
        ("writer", "POST", ENTRIES, b'"during, in a batch"\n', NDJSON),
        ("admin", "PUT", "/segments/second", b"", JSON),
        ("admin", "PUT", "/policy", house.ask("admin", "GET", "/policy").body, "application/toml"),
        ("admin", "POST", "/tokens", b'{"principal":"till","groups":[],"days":1}', JSON),
        ("auditor", "POST", "/segments/first/bulletins", b"tlog/bulletin/v1", "text/plain"),
        ("auditor", "POST", "/segments/first/access-requests", b'{"reason":"why","minutes":1}', JSON),
    ]
    set_free(reserve - 1)
    # It is looked at once a second.
    time.sleep(1.1)
    before = [house.ask("auditor", "GET", f"/segments/{name}/checkpoint").body for name in ("first", "control")]
    for asked in growing:
        answer = house.ask(*asked)
        assert (answer.status, answer.json()["type"]) == (503, "urn:tlog:problem:unavailable")
        assert "nothing was logged, retry once the operator has made room" in answer.json()["detail"]
        assert answer.headers["Retry-After"]
    assert before == [house.ask("auditor", "GET", f"/segments/{name}/checkpoint").body for name in ("first", "control")]
    ready = house.server.request("GET", "/readyz")
    assert (ready.status, ready.body[:21]) == (200, b"ready for reads only:")
    # A payload, whose read is an entry of its own; and what takes something away.
    assert house.ask("auditor", "GET", f"{ENTRIES}/0").json()["payload"] == "before"
    samples = house.ask("auditor", "GET", "/metrics").body.decode().splitlines()
    found = {name: float(value) for name, _, value in (line.partition(" ") for line in samples) if name[0] != "#"}
    assert (found["tlog_disk_free_bytes"], found["tlog_disk_reserve_bytes"]) == (reserve - 1, reserve)
    assert house.ask("admin", "DELETE", f"/tokens/{house.token('auditor').id}").status == 204
    set_free(reserve)
    time.sleep(1.1)
    assert house.append(b'"after"').status == 201
    assert house.server.request("GET", "/readyz").body == b"ready\n"
    # No fault of the server, of which each would be a long line on the disk that is full.
    assert '"level":"error"' not in house.server.log.read_text()
    house.server.judge()


def test_what_ends_or_closes_something_may_use_the_reserve_and_nothing_else() -> None:
    routes = [
        route
        for module in (segments, entries, tiles, proofs, bulletins, access, operations)
        for route in module.ROUTES
        if route.method != "GET"
    ]
    assert {(route.method, route.path) for route in routes if not route.grows} == {
        ("PUT", "/segments/<segment>/seal"),
        ("DELETE", "/tokens/<id>"),
        ("POST", "/keys/removal"),
        ("PUT", "/segments/<segment>/access-requests/<id>/approval"),
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("only root mounts a disk; test_sequencer.py has commits that fail for want of room")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(path: Path) -> None:
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_disk_without_any_room_loses_nothing_and_reads_go_on(
    start_server: Callable[..., Server], small_disk: Path
) -> None:
    # No segment is closed meanwhile, by which there would be room.
    idle = {"TLOG_IDLE_SECONDS": "600"}
    server = start_server(small_disk / "data", options=["--reserve-mib", "0"], environment=idle)
    server = observe(server, small_disk.parent / "seen")
    workers = server.workers()
    history, other = History(server.create("payments")), server.create("other")
    other.append(b'"other"')
    assert 0 < server.metrics()["tlog_disk_free_bytes"] < 24 * MIB
    # Both workers have it open.
    assert {other.get("/checkpoint").status_code for _ in range(30)} == {200}
    # Before the workers have counted anything, which they do in mapped files.
    fill(small_disk / "ballast")
    for number in range(12):
        assert history.segment.post(b'"%b%d"' % (b"0" * 500_000, number)).status_code == 503
        # The segment whose commit failed is opened anew, for which there must be room.
        assert history.segment.get("/checkpoint").status_code in (200, 503)
        assert [other.get(path).status_code for path in ("/checkpoint", "/no-such")] == [200, 404]
    assert server.workers() == workers
    (small_disk / "ballast").unlink()
    with load(server, [history], writers=4, sizes=(1, 1, 100)):
        wait_for([history], 200)
        fill(small_disk / "ballast")
        failed = history.statuses[503]
        until(lambda: history.statuses[503] >= failed + 20, "20 requests to fail")
        assert {other.get("/checkpoint").status_code for _ in range(8)} == {200}
        assert server.workers() == workers
        (small_disk / "ballast").unlink()
        wait_for([history], 200)
    history.check()
    assert set(history.statuses) == {201, 503}
    # One is not started on such a disk, and says why.
    assert server.stop() == 0
    fill(small_disk / "ballast")
    command: list[str | Path] = [TLOG, "serve", "--data", server.data, "--port", str(server.port), "--unguarded"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "is the disk full" in refused.stderr or "no space left" in refused.stderr
    (small_disk / "ballast").unlink()
    server.judge()


def test_a_mapped_file_takes_its_room_at_once(tmp_path: Path) -> None:
    # Who writes to a hole in one through memory, while the disk is full, is killed.
    map_file(tmp_path / "mapped", MIB).close()
    assert (tmp_path / "mapped").stat().st_blocks * 512 >= MIB


# A disk that is slow


@contextmanager
def slow_disk(process: psutil.Process, seconds: float) -> Iterator[None]:
    """Have each sync of a process take so long."""
    calls = "fsync,fdatasync"
    command = ["strace", "-f", "-p", str(process.pid), "-o", os.devnull, "-e", f"trace={calls}"]
    delayed = f"inject={calls}:delay_enter={int(seconds * 1_000_000)}"
    tracer = subprocess.Popen([*command, "-e", delayed], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace, which makes the disk slow")
def test_on_a_slow_disk_nothing_is_acknowledged_early_and_a_retry_finds_it(start_server: Callable[..., Server]) -> None:
    server = observe(start_server(workers=1))
    segment = server.create("payments")
    segment.append(b"0")
    [worker] = server.workers()
    with slow_disk(worker, 0.5), ThreadPoolExecutor(8) as threads:
        began = time.monotonic()
        appends = [threads.submit(segment.append, b"%d" % number, key=str(number)) for number in range(1, 9)]
        # Meanwhile it is there for nobody.
        time.sleep(0.2)
        assert segment.checkpoint().size == 1 or time.monotonic() - began >= 0.5
        with pytest.raises(requests.Timeout):
            requests.post(
                f"{segment.url}/entries", b'"late"', headers={"Content-Type": JSON, "Idempotency-Key": "k"}, timeout=0.2
            )
        receipts = [append.result() for append in appends]
        assert time.monotonic() - began >= 0.5
        late = segment.append(b'"late"', key="k")
    assert segment.append(b'"late"', key="k") == late
    assert sorted(parse_receipt(one).index for one in [*receipts, late]) == list(range(1, 10))
    assert segment.checkpoint().size == 10
    server.judge()


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace, which makes the disk slow")
def test_on_a_slow_disk_who_finds_no_turn_is_told_so_and_who_only_reads_does_not_wait(
    start_server: Callable[..., Server],
) -> None:
    server = observe(start_server(workers=1, program=(sys.executable, impatient.__file__)))
    segment = server.create("payments")
    segment.append(b"0")
    [worker] = server.workers()
    with slow_disk(worker, 0.8), ThreadPoolExecutor(SYNC_TURNS + 10) as threads:
        posts = [threads.submit(segment.post, b"%d" % number, key=str(number)) for number in range(1, SYNC_TURNS + 11)]
        until(lambda: any(one.done() for one in posts), "somebody to have an answer")
        assert segment.get("/proof/inclusion/1/0").status_code == 200
        assert server.request("GET", "/readyz").status == 200
        assert not all(one.done() for one in posts)
        answers = [one.result() for one in posts]
    refused = [one for one in answers if one.status_code == 503]
    assert 1 <= len(refused) <= 10
    assert {one.status_code for one in answers} == {201, 503}
    for one in refused:
        assert one.json()["detail"] == "the server is busy, or its disk is slow; nothing was logged, retry later"
        assert one.headers["Retry-After"]
    assert segment.checkpoint().size == 1 + len(answers) - len(refused)
    server.judge()


# A clock that is set


def test_a_clock_that_is_set_back_and_forth_takes_no_time_back_and_shuts_nobody_out(
    start_guarded: Callable[..., Guarded], tmp_path: Path, memory: Path
) -> None:
    shift = tmp_path / "shift"

    def set_clock(seconds: int) -> None:
        shift.with_suffix(".new").write_text(str(seconds))
        shift.with_suffix(".new").rename(shift)

    set_clock(0)
    clock = {"environment": {"TLOG_CLOCK": str(shift)}, "program": (sys.executable, clocked.__file__)}
    house = start_guarded(**clock)
    policy = (
        house.ask("admin", "GET", "/policy").body
        + b'\n[[quota]]\nname = "q"\nprincipals = ["writer"]\nrequests_per_second = 20\n'
    )
    assert house.ask("admin", "PUT", "/policy", policy, "application/toml").status == 200
    times: list[int] = []
    for seconds in (0, 1800, 0, -86_400, 3600, 0, 7):
        set_clock(seconds)
        # Two workers, of which either may answer; what a quota allows comes back as fast as ever.
        until(lambda: house.append().status == 201, "the quota", 3)
        times.append(parse_entry(house.ask("auditor", "GET", f"{ENTRIES}/{len(times)}").json()["entry"].encode()).time)
    start_of_all = times[0]
    assert times == sorted(times)
    assert [round((one - start_of_all) / 1000, -2) for one in times] == [0, 1800, 1800, 1800, 3600, 3600, 3600]
    # A token is good by the clock; one that was revoked is not, whatever that says.
    days = 91 * 86_400
    set_clock(days)
    assert house.append().status == 401
    set_clock(0)
    until(lambda: house.append().status == 201, "the quota", 3)
    assert house.ask("admin", "DELETE", f"/tokens/{house.token('writer').id}").status == 204
    set_clock(-days)
    assert house.append().status == 401
    assert house.server.stop() == 0
    assert list(check(Config(memory / "data"), Plan(), lambda *_: None)) == []


# Memory


def test_as_many_large_bodies_as_may_be_in_hand_are_served_and_their_memory_is_given_back(
    start_server: Callable[..., Server], memory: Path
) -> None:
    server = start_server(memory / "data", workers=1)
    named = [server.create(f"zone-{number}") for number in range(MAX_LARGE)]
    [worker] = server.workers()
    before = worker.memory_info().rss
    body = b"\n".join(b'{"number":%d,"text":"%s"}' % (number, b"x" * 1600) for number in range(9_900))
    with ThreadPoolExecutor(MAX_LARGE) as threads:
        statuses = list(threads.map(lambda one: one.post(body, NDJSON).status_code, named))
    assert worker.memory_info().rss - before < 256 * MIB
    assert statuses == [201] * MAX_LARGE
    status = Path(f"/proc/{worker.pid}/status").read_text()
    [peak] = [int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")]
    assert peak - before < MAX_LARGE * MAX_BATCH_BYTES + LARGE_TURNS * 14 * MAX_BATCH_BYTES


def test_one_large_body_too_many_is_told_to_come_again_and_others_do_not_wait(
    start_server: Callable[..., Server], memory: Path
) -> None:
    server = observe(start_server(memory / "data", workers=1, program=(sys.executable, impatient.__file__)))
    segment, large = server.create("payments"), b'"%b"\n' % (b"x" * MAX_PAYLOAD_BYTES)[4:] + b'"more"'
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(MAX_LARGE)]
        for one in held:
            one.sendall(LARGE_HEAD)
        # Each has to arrive first.
        until(lambda: segment.post(large, NDJSON, key="large").status_code == 503, "all places to be taken")
        refused = segment.post(large, NDJSON, key="large")
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:tlog:problem:unavailable")
        assert refused.headers["Retry-After"]
        segment.append(b"1")
    until(lambda: segment.post(large, NDJSON, key="large").status_code == 201, "a place")
    server.judge()


# Files


def test_a_server_that_runs_out_of_files_says_so_loses_nothing_and_goes_on(
    start_server: Callable[..., Server], memory: Path
) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 120))

    server = start_server(memory / "data", workers=1, before=few, environment={"TLOG_IDLE_SECONDS": "0.5"})
    [worker] = server.workers()
    assert worker.rlimit(resource.RLIMIT_NOFILE) == (120, 120)
    [warning] = [line["event"] for line in server.logged() if line["level"] == "warning"]
    assert warning.startswith("no more than 120 files may be open, and a worker takes 60 connections; raise the limit")
    named: list[Segment] = []

    def create() -> bool:
        answer = server.request("PUT", f"/segments/zone-{len(named)}", b"", {"Content-Type": JSON})
        # It may have been made before, without files enough to say so.
        if answer.status in (200, 201):
            named.append(server.segment(f"zone-{len(named)}", answer.json()["vkey"]))
        return answer.status in (200, 201)

    while len(named) < 24:
        until(create, "idle segments to be closed")
    responses: list[tuple[Segment, requests.Response]] = []
    with ThreadPoolExecutor(24) as threads:
        until(lambda: worker.num_fds() < 60, "idle segments to be closed")
        responses += zip(named, threads.map(lambda one: one.post(b"1", key="once"), named), strict=True)
    statuses = Counter(response.status_code for _, response in responses)
    assert set(statuses) == {201, 503}
    for _, response in responses:
        if response.status_code == 503:
            assert response.json()["type"].rpartition(":")[2] in ("unavailable", "outcome-unknown")
    for one, response in responses:
        until(lambda: one.post(b"1", key="once").status_code == 201, "the segment to go on")  # noqa: B023
        assert one.checkpoint().size == 1
        assert response.status_code == 503 or one.append(b"1", key="once") == response.content
    assert server.stop() == 0
    assert [
        finding
        for finding in check(Config(server.data), Plan(), lambda *_: None)
        # What was begun when there were no more files, and told so.
        if "it is of no segment" not in str(finding)
    ] == []


@pytest.mark.parametrize(("limit", "connections"), [(20_480, 16_384), (1 << 20, 16_384), (8_192, 4_096), (1_024, 512)])
def test_connections_leave_files_for_the_rest(limit: int, connections: int) -> None:
    assert connections_within(limit) == connections


# Connections


@contextmanager
def may_open(count: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def drip(held: Sequence[socket.socket], streams: Sequence[bytes], place: int) -> None:
    """Send one byte more on each connection that is still there."""
    for number, one in enumerate(held):
        with suppress(OSError):
            one.send(streams[number % len(streams)][place : place + 1])


def test_those_who_send_a_byte_a_second_keep_nobody_waiting(start_guarded: Callable[..., Guarded]) -> None:
    house = start_guarded()
    headers = b"Host: localhost\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n"
    head = b"POST /segments/first/entries HTTP/1.1\r\n" + headers
    with may_open(3_000), ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(2_000)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", house.server.port))
        for one in held[::2]:
            # Of these the headers are there, and only the body is slow.
            with suppress(OSError):
                one.send(head + b"\r\n")
        waited = []
        for place in range(4):
            drip(held, [b"x" * 1000, head], place)
            began = time.monotonic()
            assert house.append().status == 201
            assert house.ask("auditor", "GET", "/segments/first/checkpoint").status == 200
            waited.append(time.monotonic() - began)
            time.sleep(0.5)
        assert max(waited) < 5, waited


@pytest.mark.parametrize("path", ["/web/sign-in", "/web/sign-out"])
def test_forms_of_strangers_that_do_not_come_keep_no_writer_waiting(
    start_guarded: Callable[..., Guarded], path: str
) -> None:
    house = start_guarded()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with ExitStack() as stack:
        for _ in range(200):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", house.server.port)))
            held.sendall(f"{head}Content-Length: 1000\r\n\r\nx".encode())
        time.sleep(0.5)
        assert [house.append().status for _ in range(4)] == [201] * 4
    large = {"Content-Type": "application/x-www-form-urlencoded"}
    assert house.server.request("POST", path, b"x" * (MAX_FORM_BYTES + 1), large).status == 413


# Readers that hold on


def test_the_log_of_a_database_that_a_reader_held_open_is_seen_and_shrinks(
    start_server: Callable[..., Server], memory: Path
) -> None:
    server = start_server(memory / "data", workers=1, environment={"TLOG_IDLE_SECONDS": "600"})
    segment = server.create("payments")
    path = max((server.data / "segments").glob("*.db"), key=lambda one: one.stat().st_mtime_ns)
    body = b"\n".join(b'"%s"' % os.urandom(400_000).hex().encode() for _ in range(20))
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("begin")
        assert reader.execute("select size from head").fetchone() == (0,)
        for _ in range(4):
            segment.append(body, NDJSON)
        assert server.metrics()["tlog_wal_bytes"] > 48 * MIB
        assert reader.execute("select size from head").fetchone() == (0,)
    segment.append(b"1")
    segment.append(b"2")
    assert server.metrics()["tlog_wal_bytes"] <= 32 * MIB
    assert segment.checkpoint().size == 82
