"""Appends that race, servers that are killed, commits that fail: no event is lost, doubled or given another's index."""

import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from history import History, load, wait_for
from live import NDJSON, TLOG, Server, until

from tlog.anchor import Anchor
from tlog.errors import CorruptError
from tlog.sequencer import Logged, Sequencer, Submission
from tlog.store.connection import connect, connect_reader
from tlog.store.segment import SegmentStore
from tlog_core.commitment import Opening, commit
from tlog_core.entry import parse_entry
from tlog_core.note import SignerKey
from tlog_core.receipt import JSON_TYPE


def fsck(data: Path) -> tuple[int, str]:
    found = subprocess.run([TLOG, "fsck", "--data", data], capture_output=True, text=True, check=False)
    return found.returncode, found.stdout


def database(server: Server, name: str) -> Path:
    with sqlite3.connect(server.data / "control.db") as control:
        [(segment_id,)] = control.execute("select id from segment where name = ?", [name]).fetchall()
    control.close()
    return server.data / "segments" / f"{segment_id}.db"


def has_open(worker: psutil.Process, path: Path) -> bool:
    return str(path) in {file.path for file in worker.open_files()}


def test_appends_that_race_never_share_an_index(start_server: Callable[..., Server]) -> None:
    server = start_server()
    history = History(server.create("payments"))
    with load(server, [history], writers=12, sizes=(1, 1, 300, 1, 9)):
        wait_for([history], 12_000)
        # Both workers wrote: each has the database open.
        path = database(server, "payments")
        assert [has_open(worker, path) for worker in server.workers()] == [True, True]
    assert set(history.statuses) == {201}
    assert len(history.notes) > 50
    history.check()
    assert server.stop() == 0
    assert fsck(server.data) == (0, "")


def test_segments_that_are_written_at_once_stay_apart(start_server: Callable[..., Server]) -> None:
    server = start_server()
    histories = [History(server.create(f"zone-{number}")) for number in range(6)]
    with load(server, histories, writers=2, sizes=(1, 5)):
        wait_for(histories, 100)
    for history in histories:
        assert set(history.statuses) == {201}
        history.check()
        size = history.segment.checkpoint().size
        assert {parse_entry(entry["entry"].encode()).origin for entry in history.segment.entries(0, size)} == {
            history.segment.key.name
        }
    assert server.stop() == 0
    assert fsck(server.data) == (0, "")


def test_what_was_acknowledged_survives_ten_kills_under_load(start_server: Callable[..., Server]) -> None:
    server = start_server()
    histories = [History(server.create("payments")), History(server.create("refunds"))]
    with load(server, histories, writers=4, sizes=(1, 1, 40)):
        for _ in range(10):
            wait_for(histories, 100)
            server.kill()
            server = start_server(port=server.port)
        wait_for(histories, 100)
    for history in histories:
        # The writers were cut off in the middle of requests, and sent them again.
        assert history.cut > 10
        history.check()
    assert server.stop() == 0
    assert fsck(server.data) == (0, "")


@contextmanager
def no_more_than(workers: Sequence[psutil.Process], size: int) -> Iterator[None]:
    """Let these processes write no file beyond a size, as when a disk is full."""
    for worker in workers:
        worker.rlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for worker in workers:
            worker.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def wal_size(server: Server, name: str) -> int:
    return database(server, name).with_name(database(server, name).name + "-wal").stat().st_size


@pytest.mark.parametrize("room", [0, 10_000], ids=["nothing can be written", "a part can be written"])
@pytest.mark.parametrize("failing", [1, 2], ids=["one worker", "both workers"])
def test_a_failing_commit_loses_nothing_and_doubles_nothing(
    start_server: Callable[..., Server], failing: int, room: int
) -> None:
    server = start_server(environment={"TLOG_IDLE_SECONDS": "600"})
    history = History(server.create("payments"))
    with load(server, [history], writers=6, sizes=(1, 1, 300)):
        wait_for([history], 1000)
        with no_more_than(server.workers()[:failing], room and wal_size(server, "payments") + room):
            failed = history.statuses[503]
            # Each worker fails more than once, so that it also fails while it opens the segment anew.
            until(lambda: history.statuses[503] >= failed + 20, "20 requests to fail")
        wait_for([history], 1000)
    history.check()
    assert set(history.statuses) == {201, 503}
    assert fsck(server.data) == (0, "")
    assert server.stop() == 0


def test_the_caller_of_a_failed_commit_hears_what_to_do(start_server: Callable[..., Server]) -> None:
    server = start_server(workers=1)
    segment = server.create("payments")
    first = segment.append(b'"first"', key="first")
    with no_more_than(server.workers(), 0):
        response = segment.post(b'"second"', key="second")
        assert response.status_code == 503
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.json()["type"] == "urn:tlog:problem:outcome-unknown"
        assert "same Idempotency-Key" in response.json()["detail"]
        assert int(response.headers["Retry-After"]) >= 1
        # From now on nothing was logged, and the caller is told that too.
        again = segment.post(b'"third"', key="third")
        assert (again.status_code, again.json()["type"]) == (503, "urn:tlog:problem:unavailable")
        assert segment.get("/checkpoint").status_code == 503
        assert server.request("GET", "/healthz").status == 200
    second = segment.append(b'"second"', key="second")
    assert segment.append(b'"second"', key="second") == second
    assert segment.append(b'"first"', key="first") == first
    assert [entry["payload"] for entry in segment.entries(0, 2)] == ["first", "second"]
    assert segment.checkpoint().size == 2


def test_a_failed_commit_leaves_no_file_open(start_server: Callable[..., Server]) -> None:
    # The scrub reads at the same time as others now and then, and a connection more is kept for that.
    server = start_server(workers=1, environment={"TLOG_IDLE_SECONDS": "600", "TLOG_SCRUB_RATE": "0"})
    segment = server.create("payments")
    segment.append(b"0")
    [worker] = server.workers()
    before = worker.num_fds()
    for number in range(1, 11):
        with no_more_than([worker], 0):
            assert segment.post(b"%d" % number).status_code == 503
        segment.append(b"%d" % number)
    assert worker.num_fds() <= before + 2
    assert segment.checkpoint().size == 11


def test_a_store_that_contradicts_its_signature_is_not_signed_on(start_server: Callable[..., Server]) -> None:
    server = start_server()
    segment, other = server.create("payments"), server.create("refunds")
    segment.append(b"1\n" * 300, NDJSON)
    note = segment.note()
    path = database(server, "payments")
    assert server.stop() == 0
    with sqlite3.connect(path) as connection:
        # One bit of an entry that no full tile holds.
        [(start, blob)] = connection.execute("select start, entries from bundle order by start desc limit 1").fetchall()
        flipped = blob[:-20] + bytes([blob[-20] ^ 1]) + blob[-19:]
        connection.execute("update bundle set entries = ? where start = ?", [flipped, start])
    connection.close()
    start_server(port=server.port)
    for _ in range(6):
        response = segment.post(b"2")
        assert response.status_code == 500
        assert response.json()["type"] == "urn:tlog:problem:corrupt"
        assert "tlog fsck" in response.json()["detail"]
    assert segment.note() == note
    assert other.append(b"1")


def test_a_refused_event_does_not_fail_those_beside_it(start_server: Callable[..., Server]) -> None:
    server = start_server(workers=1)
    segment = server.create("payments")
    segment.append(b'"taken"', key="taken")

    def send(number: int) -> int:
        return (
            segment.post(b'"other"', key="taken").status_code
            if number % 2
            else segment.post(b"%d" % number).status_code
        )

    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(send, range(64)))
    assert statuses == [201, 422] * 32
    assert segment.checkpoint().size == 33


# The sequencer alone, with a clock of the test's own.


def test_every_connection_writes_durably(store: SegmentStore, tmp_path: Path) -> None:
    # Killing a process loses nothing that the kernel has, so no test above would notice a weaker setting.
    durable = {"journal_mode": "wal", "synchronous": 2, "fullfsync": 1, "checkpoint_fullfsync": 1, "secure_delete": 1}
    for connection in (connect(tmp_path / "payments.db"), connect_reader(tmp_path / "payments.db")):
        for name, value in durable.items():
            assert connection.execute(f"pragma {name}").fetchone() == (value,)
        [version] = connection.execute("select sqlite_version()").fetchone()
        assert tuple(map(int, version.split("."))) >= (3, 51, 3)
        connection.close()
    assert store.head().size == 0


def submission(number: int) -> Submission:
    opening, payload = Opening(bytes(32)), b"%d" % number
    commitment = commit(opening=opening, payload_type=JSON_TYPE, payload=payload)
    return Submission("till-7", JSON_TYPE, [opening], [payload], [commitment], None)


def test_time_never_goes_back_whatever_the_clock_does(store: SegmentStore, signer: SignerKey, anchor: Anchor) -> None:
    ticks = iter([500, 2000, 1999, 0, 3000, 2999])
    sequencer = Sequencer(store, signer, clock=lambda: next(ticks), on_commit=lambda *_: None, anchor=anchor)
    times = []
    for number in range(6):
        outcome = sequencer.append(submission(number))
        assert isinstance(outcome, Logged)
        times.append(outcome.time)
    assert times == [1000, 2000, 2000, 2000, 3000, 3000]
    assert [parse_entry(entry).time for entry in store.entries(0, 6)] == times
    assert store.head().time == 3000


def test_a_head_that_went_back_is_not_signed_on(
    store: SegmentStore, signer: SignerKey, anchor: Anchor, tmp_path: Path
) -> None:
    sequencer = Sequencer(store, signer, clock=lambda: 5000, on_commit=lambda *_: None, anchor=anchor)
    sequencer.append(submission(0))
    earlier = store.head()
    sequencer.append(submission(1))
    with sqlite3.connect(tmp_path / "payments.db") as connection:
        # As a restored backup would be: older, and perfect in itself.
        connection.execute("delete from bundle where start >= 1")
        connection.execute("delete from payload where start >= 1")
        connection.execute("update head set size = ?, root = ?, note = ?", [1, earlier.root, earlier.note])
    connection.close()
    with pytest.raises(CorruptError, match="went back"):
        sequencer.append(submission(2))
    assert store.head() == earlier
    assert sequencer.broken


def test_who_waits_for_the_commit_of_another_is_told_so_and_who_leads_is_not(
    store: SegmentStore, signer: SignerKey, anchor: Anchor
) -> None:
    sequencer = Sequencer(store, signer, clock=lambda: 1000, on_commit=lambda *_: None, anchor=anchor)
    told: list[str] = []

    @contextmanager
    def waits(name: str) -> Iterator[None]:
        told.append(f"{name} waits")
        yield
        told.append(f"{name} goes on")

    with ThreadPoolExecutor(2) as threads:
        with store.write():
            first = threads.submit(sequencer.append, submission(0), waits("first"))
            until(lambda: sequencer._leading, "the first to lead")
            second = threads.submit(sequencer.append, submission(1), waits("second"))
            until(lambda: told == ["second waits"], "the second to wait")
        assert [isinstance(one.result(), Logged) for one in (first, second)] == [True, True]
    assert told == ["second waits", "second goes on"]
    assert store.head().size == 2
