"""What made logs of Certificate Transparency fail, as it happened: each would stop here, or not matter.

What is promised in general is tested elsewhere; here is each story once, and what it taught.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Thread
from urllib.parse import urlsplit

import clocked
import psutil
import pytest
import requests
from click.testing import CliRunner
from flips import LOCAL, ground, in_memory
from history import History, load, wait_for
from live import JSON, LOG_NAME, NDJSON, PATIENCE, TLOG, Segment, Server
from observed import Observed, observe
from witnessing import start_witness, submission

from tlog.app import create_app
from tlog.cli import main
from tlog.config import Config
from tlog.store.connection import connect
from tlog.store.segment import SegmentStore
from tlog_client import Log
from tlog_core.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from tlog_core.entry import parse_entry
from tlog_core.errors import InconsistencyError
from tlog_core.evidence import find_contradiction, format_evidence
from tlog_core.merkle import EMPTY_ROOT, Hash
from tlog_core.note import VerifierKey, parse_note, parse_signer, parse_verifier
from tlog_core.receipt import Receipt, parse_receipt, verify_receipt

Starting = Callable[..., Observed]


def tlog(*arguments: str | Path, status: int = 0) -> str:
    """Run a command in this process, and return what it prints."""
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert done.exit_code == status, done.output
    return done.stdout


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def key(data: Path) -> VerifierKey:
    """A log with the segment payments."""
    return parse_verifier(tlog("segment", "create", "payments", "--data", data, "--log-name", LOG_NAME).strip())


@pytest.fixture
def start_server(start_server: Callable[..., Server]) -> Starting:
    """Start a server, of which a recorder keeps what it releases; another on the same folder adds to that."""
    return lambda *arguments, **options: observe(start_server(*arguments, **options))


def database(data: Path, name: str = "payments") -> Path:
    with closing(sqlite3.connect(data / "control.db")) as control:
        [(found,)] = control.execute("select id from segment where name = ?", [name]).fetchall()
    return data / "segments" / f"{found}.db"


def problem(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def open_log(segment: Segment, state: Path) -> Log:
    """Open what remembers the last head that it has seen, as every client and monitor does."""
    return Log(segment.url, segment.key, state=state)


# 1


def test_venafi_2017_restored_a_backup_by_itself_and_showed_an_older_log_as_the_present_one(
    tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting
) -> None:
    """A new machine restored the last backup without being asked, and signed on top of it.

    Lesson: an older copy looks whole, so something outside must know the latest head, and automation must not win.
    """
    server = start_server(data, workers=1)
    segment = server.segment("payments", str(key))
    segment.append(b"1\n2\n", NDJSON)
    tlog("backup", "--data", data, tmp_path / "backup")
    earlier = segment.note()
    segment.append(b"3")
    with open_log(segment, tmp_path / "state") as seen:
        assert seen.checkpoint().size == 3
    assert server.stop() == 0
    data.rename(tmp_path / "lost")
    tlog("restore", "--data", data, tmp_path / "backup")
    # A restart may come again and again.
    for _ in range(2):
        server = start_server(data, workers=1)
        segment = server.segment("payments", str(key))
        for number in range(3):
            assert problem(segment.post(b'"refused %d"' % number)) == (409, "frozen")
        # No second head: the one that is shown is one that was shown before, and who saw the later one says so.
        assert segment.note() == earlier
        with open_log(segment, tmp_path / "state") as seen, pytest.raises(InconsistencyError):
            seen.checkpoint()
        assert server.stop() == 0
    assert "open, 3 entries" in tlog("segment", "import", "payments", tmp_path / "lost", "--data", data)
    server.judge()


# 2


def test_izenpe_2016_ran_production_and_test_by_one_key(
    tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting
) -> None:
    """A test instance had the key of the real log, and what it signed was another history of it.

    Lesson: a key is bound to one tree. A copy of the folder signs nothing, and a copied key opens no other segment.
    """
    shutil.copytree(data, tmp_path / "test")
    test = start_server(tmp_path / "test", workers=1)
    copy = test.segment("payments", str(key))
    assert problem(copy.post(b'"only a test"')) == (409, "frozen")
    second = test.request("PUT", "/segments/second")
    assert second.status == 409, "and the copy of control makes no segments"
    production = start_server(data, workers=1)
    other = production.create("other")
    names = [database(data, name).stem for name in ("payments", "other")]
    assert production.stop() == 0
    shutil.copy(*(data / "keys" / f"{name}.key" for name in names))
    production = start_server(data, workers=1)
    assert problem(production.segment("other", str(other.key)).post(b"1")) == (500, "corrupt")
    assert production.segment("payments", str(key)).post(b"1").status_code == 201


# 3


def test_digicert_ct2_2020_lost_its_key_to_who_broke_in(
    tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting
) -> None:
    """A hole in the configuration management may have given the key away; the log was closed at its last good head.

    Lesson: who has the key can sign, and nothing here prevents it. But no witness cosigns his history, it convicts the
    origin, what was logged before stays provable, and the sealed segment is succeeded by one with another key.
    """
    server = start_server(data, workers=1)
    segment = server.segment("payments", str(key))
    receipt, good = segment.append(b"1"), segment.note()
    stolen = parse_signer((data / "keys" / f"{database(data).stem}.key").read_text())
    evil = bytes(sign_checkpoint(Checkpoint(key.name, 1, Hash(bytes(32))), stolen))
    witness = start_witness(tmp_path / "witness", key)
    try:
        assert witness.add(submission("0", [], good)).status == 200
        assert witness.add(submission("1", [], evil)).status == 422
        later = bytes(sign_checkpoint(Checkpoint(key.name, 2, Hash(bytes(32))), stolen))
        assert witness.add(submission("1", [bytes(32)], later)).status == 422
        assert witness.server.stop() == 0
    finally:
        witness.server.kill()
    evidence = find_contradiction(parse_note(good), parse_note(evil), node=lambda *_: EMPTY_ROOT)
    assert evidence is not None
    (tmp_path / "found.evidence").write_bytes(format_evidence(evidence))
    (tmp_path / "policy").write_text(f"log {key}\nquorum none\n")
    command = [str(TLOG.with_name("tlog-client")), "verify-evidence", "found.evidence", "--policy", "policy"]
    assert subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout.startswith(b"proven:")
    assert server.stop() == 0
    tlog("segment", "seal", "payments", "--data", data)
    tlog("segment", "succeed", "payments", "payments-2", "--data", data)
    server = start_server(data, workers=1)
    assert problem(server.segment("payments", str(key)).post(b"2")) == (409, "sealed")
    verify_receipt(parse_receipt(receipt), key=key, payload=b"1")
    server.judge()


# 4


def test_trustasia_2020_failed_over_to_a_second_signer(
    tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting
) -> None:
    """Signed heads contradicted each other; two who sign for one tree are the way to get there.

    Lesson: a standby may take over only what the other has signed, whether or not that one is dead.
    """
    shutil.copytree(data, tmp_path / "standby")
    anchor = {"TLOG_ANCHOR": str(Config(data).anchor_of("x").parent)}
    servers = [start_server(data), start_server(tmp_path / "standby", environment=anchor)]
    segments = [server.segment("payments", str(key)) for server in servers]
    notes = set[bytes]()

    def write(number: int) -> int:
        segment = segments[number % 2]
        answer = segment.post(b"%d" % number)
        notes.add(segment.note())
        return answer.status_code

    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(write, range(24)))
    assert set(statuses) == {201, 409}
    heads = [open_checkpoint(note, key) for note in notes]
    assert len({head.size for head in heads}) == len(heads)
    # One of them has all, and each head is of its history.
    whole = max(segments, key=lambda segment: segment.checkpoint().size)
    assert whole.checkpoint().size == statuses.count(201)
    with open_log(whole, tmp_path / "state") as log:
        for note in notes:
            if open_checkpoint(note, key).size:
                log.consistency(note)


# 5


def test_yeti_2021_signed_over_a_leaf_hash_with_one_wrong_bit() -> None:
    """One bit of a leaf hash flipped before it went into the tree, whose root was then signed: no entry ever fits it.

    Lesson: compute twice before signing. Nothing was logged, and the retry succeeds.
    """
    with ground() as one:
        for seed in range(3):
            assert in_memory(one, "a leaf hash", Random(seed)) == []  # noqa: S311 - repeatable, not secret


def test_nimbus_2018_had_one_wrong_bit_in_a_stored_entry_and_got_it_back(
    tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting
) -> None:
    """An entry on disk had another bit; the right hash was in the tree, so that the right entry could be put back.

    Lesson: what is stored is compared before it is shown, the place is named, and a copy from before brings it back.
    """
    server = start_server(data, workers=1, options=["--scrub-rate", "0"])
    segment = server.segment("payments", str(key))
    segment.append(b"".join(b"%d\n" % number for number in range(300)), NDJSON)
    tlog("backup", "--data", data, tmp_path / "backup")
    segment.append(b'"after the backup"')
    before = segment.get("/tile/entries/000").content
    with closing(connect(database(data))) as connection:
        [(blob,)] = connection.execute("select entries from bundle where start = 0").fetchall()
        spoiled = blob[:2000] + bytes([blob[2000] ^ 1]) + blob[2001:]
        connection.execute("update bundle set entries = ? where start = 0", [spoiled])
    assert problem(segment.get("/tile/entries/000")) == (500, "corrupt")
    assert problem(segment.get("/entries?start=0&limit=256")) == (500, "corrupt")
    assert segment.get("/entries/299").status_code == 200
    assert segment.get("/tile/0/000").status_code == 200
    assert server.stop() == 0
    assert "payments: entr" in tlog("fsck", "--data", data, "payments", status=1)
    data.rename(tmp_path / "damaged")
    tlog("restore", "--data", data, tmp_path / "backup")
    for name in ("access", "payments"):
        tlog("segment", "import", name, tmp_path / "damaged", "--data", data)
    server = start_server(data, workers=1)
    segment = server.segment("payments", str(key))
    assert segment.get("/tile/entries/000").content == before
    assert segment.post(b'"goes on"').status_code == 201
    server.judge()


# 6


@contextmanager
def no_room(workers: Sequence[psutil.Process]) -> Iterator[None]:
    """Let these processes make no file longer, as when a disk is full."""
    for size in (0, psutil.RLIM_INFINITY):
        for worker in workers:
            worker.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))
        if size == 0:
            yield


def test_mammoth_2024h1_filled_its_disk_and_lost_what_it_had_promised(start_server: Starting) -> None:
    """The disk was full, the index of the database broke, and entries that had a promise could not be merged.

    Lesson: no promise before the entry is in the tree and synced; a full disk spoils nothing that was acknowledged.
    """
    server = start_server()
    history = History(server.create("payments"))
    with load(server, [history], writers=4, sizes=(1, 40)):
        wait_for([history], 100)
        with no_room(server.workers()):
            failed = history.statuses[503]
            for _ in range(50):
                time.sleep(0.1)
                if history.statuses[503] > failed + 5:
                    break
            assert history.statuses[503] > failed + 5
        wait_for([history], 100)
    history.check()
    server.judge()


# 7


def test_mammoth_2025h1_had_a_clock_behind_and_signed_a_head_older_than_an_entry_in_it(
    tmp_path: Path, start_server: Starting
) -> None:
    """The signer's clock was behind that of who took entries, and a head was older than an entry in it.

    Lesson: the time of the head is that of its last entry, and neither goes back, whatever the clock does.
    """
    shift = tmp_path / "shift"
    shift.write_text("0")
    clock = {"environment": {"TLOG_CLOCK": str(shift)}, "program": (sys.executable, clocked.__file__)}
    server = start_server(**clock)
    segment, times = server.create("payments"), list[int]()
    for number, seconds in enumerate((0, 10, -3600, 5, 0)):
        shift.with_suffix(".new").write_text(str(seconds))
        shift.with_suffix(".new").rename(shift)
        times.append(parse_entry(parse_receipt(segment.append(b"%d" % number)).entry).time)
        with closing(sqlite3.connect(database(server.data))) as opened:
            assert opened.execute("select time from head").fetchone() == (times[-1],)
    assert times == sorted(times)
    server.judge()


# 8


def test_aviator_2016_promised_to_merge_and_was_late_with_a_backlog(start_server: Starting) -> None:
    """Promises were given at once and kept 26 hours later, when 24 were the most: a queue grew in between.

    Lesson: there is no queue and no promise. Whoever has an answer has it under a head that is shown already.
    """
    server = start_server()
    segment = server.create("payments")

    def append(number: int) -> tuple[Receipt, int]:
        receipt = parse_receipt(segment.append(b"%d" % number))
        return receipt, segment.checkpoint().size

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(append, range(150)))
    for number, (receipt, shown) in enumerate(answers):
        verify_receipt(receipt, key=segment.key, payload=b"%d" % number)
        assert receipt.index < open_checkpoint(receipt.checkpoint, segment.key).size <= shown
    assert sorted(receipt.index for receipt, _ in answers) == list(range(150))
    server.judge()


# 9 and 15

POLICY = """
[[rule]]
name = "tenants"
roles = ["writer"]
principals = ["hot", "quiet"]
segments = ["*"]

[[rule]]
name = "auditor"
roles = ["auditor"]
principals = ["auditor"]
segments = ["*"]

[[quota]]
name = "tenants"
each = "principal"
requests_per_second = 4
"""


@pytest.fixture
def tokens(data: Path, key: VerifierKey, tmp_path: Path) -> dict[str, str]:
    assert key.name.endswith("/payments")
    (tmp_path / "policy.toml").write_text(POLICY)
    tlog("policy", "apply", tmp_path / "policy.toml", "--data", data)
    return {who: tlog("token", "issue", who, "--data", data).strip() for who in ("hot", "quiet", "auditor")}


def append_as(server: Server, token: str, event: bytes) -> tuple[int, dict[str, object]]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": JSON, "Idempotency-Key": event.hex()}
    answer = server.request("POST", "/segments/payments/entries", event, headers)
    return answer.status, answer.json()


def test_nessie_2025_and_sphinx_2025_were_overloaded_and_entries_were_missing(
    data: Path, key: VerifierKey, tokens: dict[str, str], start_server: Starting
) -> None:
    """Without limits a few overloaded the database behind the log, and what had been taken in was missing later.

    Lesson: who hammers is refused before anything is done for him, others go on, and nothing acknowledged is missing.
    """
    server = start_server(data, guarded=True, log_name=None)
    server.segment("payments", str(key))
    with ThreadPoolExecutor(10) as threads:
        hot = [threads.submit(append_as, server, tokens["hot"], b"%d" % number) for number in range(60)]
        quiet = []
        for number in range(4):
            quiet.append(append_as(server, tokens["quiet"], b'"quiet %d"' % number))
            time.sleep(0.3)
    answers = [one.result() for one in hot]
    assert {status for status, _ in answers} == {201, 429}
    assert [status for status, _ in quiet] == [201] * 4
    receipts = [body for status, body in [*answers, *quiet] if status == 201]
    listing = server.request(
        "GET", "/segments/payments/entries?limit=1000", headers={"Authorization": f"Bearer {tokens['auditor']}"}
    )
    entries = [one["entry"] for one in listing.json()["entries"]]
    assert len(entries) == len(receipts)
    assert all(entries[int(str(body["index"]))] == body["entry"] for body in receipts)
    server.judge()


def test_oak_2025_counted_its_own_errors_against_who_was_hit_by_them(
    data: Path, key: VerifierKey, tokens: dict[str, str], start_server: Starting
) -> None:
    """A few hot clients brought errors to all, and each error counted against the limit of whoever tried again.

    Lesson: what the server fails at is on no quota, so that the retry is served once it can be.
    """
    server = start_server(data, guarded=True, log_name=None, workers=1)
    server.segment("payments", str(key))
    assert append_as(server, tokens["quiet"], b"0")[0] == 201
    time.sleep(1.5)
    with no_room(server.workers()):
        statuses = [append_as(server, tokens["quiet"], b'"failed"')[0] for _ in range(12)]
    assert statuses == [503] * 12
    assert append_as(server, tokens["quiet"], b'"failed"')[0] == 201
    # And the quota is there as ever.
    assert 429 in [append_as(server, tokens["quiet"], b"%d" % number)[0] for number in range(1, 12)]
    server.judge()


# 10


def test_oak_2021_lost_rows_in_a_migration_and_nobody_noticed_for_months(
    tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting
) -> None:
    """A database was moved and rows were left behind; what was asked for then was served with other times.

    Lesson: a move is complete once every entry has been hashed again to the old signed head. A missing row is an error,
    and never another entry.
    """
    server = start_server(data, workers=1)
    segment = server.segment("payments", str(key))
    segment.append(b"".join(b"%d\n" % number for number in range(300)), NDJSON)
    assert server.stop() == 0
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    with closing(sqlite3.connect(database(moved))) as connection, connection:
        assert connection.execute("delete from bundle where start = 0").rowcount == 1
    assert "payments: entries 0 to 255" in tlog("fsck", "--data", moved, "payments", status=1)
    tlog("backup", "--data", moved, tmp_path / "refused", status=1)
    moved.rename(tmp_path / "kept")
    # Started in haste all the same.
    data.rename(tmp_path / "old")
    (tmp_path / "kept").rename(data)
    server = start_server(data, workers=1)
    segment = server.segment("payments", str(key))
    assert segment.get("/entries/7").status_code == 500
    assert segment.get("/tile/entries/000").status_code in (404, 500)
    assert segment.get("/entries/299").json()["payload"] == 299
    assert server.stop() == 0
    # What a move by the tool leaves behind it says: all of it is hashed before it has a name.
    tlog("backup", "--data", tmp_path / "old", tmp_path / "whole")


# 11


def test_raio_2025h2a_failed_again_while_it_recovered_and_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit failed, the reload after it failed too, which nobody looked at, and tiles were missing for ever.

    Lesson: after a failure the segment is closed until it has been read anew from disk, however often that fails.
    """
    tlog("segment", "create", "payments", "--data", tmp_path / "data", "--log-name", LOG_NAME)
    app = create_app(Config(tmp_path / "data", unguarded=True, scrub_rate=0))
    one, faults = app.test_client(), list[str]()

    def failing(name: str, work: Callable[..., object]) -> Callable[..., object]:
        def faulty(*arguments: object, **named: object) -> object:
            if name in faults:
                faults.remove(name)
                raise OSError(5, "Input/output error")
            return work(*arguments, **named)

        return faulty

    def append(key: str) -> tuple[int, str]:
        answer = one.post("/segments/payments/entries", json=1, headers={"Idempotency-Key": key}, environ_base=LOCAL)
        return answer.status_code, (answer.json or {}).get("type", "").rpartition(":")[2]

    assert append("first") == (201, "")
    monkeypatch.setattr("tlog.anchor.os.fdatasync", failing("commit", os.fdatasync))
    monkeypatch.setattr("tlog.segments.SegmentStore", failing("reload", SegmentStore))
    faults += ["commit", "reload", "reload", "reload"]
    assert append("second") == (503, "outcome-unknown")
    for key in ("second", "second", "third"):
        assert append(key) == (503, "unavailable")
    assert append("second") == (201, "")
    assert append("third") == (201, "")
    entries = one.get("/segments/payments/entries", environ_base=LOCAL)
    assert entries.json is not None
    assert len(entries.json["entries"]) == 3
    assert tlog("fsck", "--data", tmp_path / "data", "payments") == ""


# 12


@contextmanager
def careless_cache(server: Server) -> Iterator[str]:
    """Run a proxy that keeps what it may under the path alone: it takes no query for a difference. Give its URL."""
    kept: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            answer = kept.get(path)
            if answer is None:
                connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
                connection.request("GET", self.path, headers={"Accept-Encoding": "identity"})
                response = connection.getresponse()
                answer = response.status, response.getheaders(), response.read()
                connection.close()
                caching = response.getheader("Cache-Control", "")
                if "no-cache" not in caching and "no-store" not in caching:
                    kept[path] = answer
            self.send_response(answer[0])
            for name, value in answer[1]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer[2])

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    thread = Thread(target=proxy.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
        assert kept
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(PATIENCE)


def test_trustasia_2026_had_a_gateway_that_left_the_query_out_of_its_cache(
    tmp_path: Path, start_server: Starting
) -> None:
    """A cache in front knew answers by their path alone, and gave the proof between two sizes for that of two others.

    Lesson: what a proof is of stands in its path. What changes says so, and has an ETag of all its bytes.
    """
    server = start_server()
    segment = server.create("payments")
    with careless_cache(server) as url, Log(f"{url}/segments/payments", segment.key, state=tmp_path / "state") as log:
        for size in range(1, 6):
            segment.append(b"%d" % size)
            assert log.checkpoint().size == size
            assert [one.index for one in log.entries(0, size)] == list(range(size))
            for index in range(size):
                assert log.prove(index).index == index
    first = segment.get("/checkpoint")
    assert first.headers["Cache-Control"] == "no-cache"
    tag = first.headers["ETag"]
    assert segment.get("/checkpoint", **{"If-None-Match": tag}).status_code == 304
    segment.append(b"6")
    assert segment.get("/checkpoint", **{"If-None-Match": tag}).status_code == 200
    server.judge()


# 13


def test_nimbus_2023_lost_power_and_took_nothing_in_for_a_day(start_server: Starting) -> None:
    """A data centre lost power, and the log was there again after more than a day of work by hand.

    Lesson: a start after a crash needs nobody. What was under way is sent again, and is there once.
    """
    server = start_server()
    history = History(server.create("payments"))
    with load(server, [history], writers=4, sizes=(1, 30)):
        wait_for([history], 100)
        server.kill()
        began = time.monotonic()
        server = start_server(port=server.port)
        wait_for([history], 1)
        assert time.monotonic() - began < PATIENCE
        wait_for([history], 100)
    history.check()
    server.judge()


# 14


def test_google_2018_rolled_out_a_bad_release_and_rolled_it_back(start_server: Starting) -> None:
    """A release answered 502 for 40 minutes, and was taken back.

    Lesson: the release before says which databases it is too old for, leaves them as they are, and serves the others.
    """
    server = start_server(workers=1)
    newer, older = server.create("newer"), server.create("older")
    receipt = newer.append(b"1", key="one")
    assert server.stop() == 0
    with closing(sqlite3.connect(database(server.data, "newer"))) as connection, connection:
        connection.execute(
            "insert into _sqlite_migrations (migration_set, name, applied_at) values ('segment', 'm999_later', '')"
        )
        connection.execute("pragma user_version = 999")
    server = start_server(port=server.port, workers=1)
    refused = newer.post(b"2")
    assert problem(refused) == (503, "unavailable")
    assert "run that version" in refused.json()["detail"]
    assert older.post(b'"older"').status_code == 201
    assert server.stop() == 0
    # And forward again.
    with closing(sqlite3.connect(database(server.data, "newer"))) as connection, connection:
        connection.execute("delete from _sqlite_migrations where name = 'm999_later'")
        connection.execute("pragma user_version = 5")
    server = start_server(port=server.port, workers=1)
    assert newer.append(b"1", key="one") == receipt
    assert newer.post(b'"after"').status_code == 201
    server.judge()
