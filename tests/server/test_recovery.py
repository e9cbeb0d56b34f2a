"""Backups, putting one back, and what can be done when it was not the latest: nothing forks, nothing is made up."""

import json
import re
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from live import LOG_NAME, NDJSON, TLOG, Segment, Server

from tlog.config import Config
from tlog.status import open_segments
from tlog_core.note import VerifierKey, parse_verifier
from tlog_core.receipt import parse_receipt

Starting = Callable[..., Server]


def tlog(*arguments: str | Path) -> tuple[int, str, str]:
    done = subprocess.run([TLOG, *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def tlog_ok(*arguments: str | Path) -> str:
    status, out, err = tlog(*arguments)
    assert status == 0, err + out
    return out


def fsck(data: Path) -> tuple[int, str]:
    return tlog("fsck", "--data", data)[:2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def key(data: Path) -> VerifierKey:
    """A log with the segment payments."""
    out = tlog_ok("segment", "create", "payments", "--data", data, "--log-name", LOG_NAME)
    return parse_verifier(out.strip())


def put_back(old: Path, data: Path) -> None:
    """Put an older copy in the place of the data, which goes to `later`."""
    data.rename(data.with_name("later"))
    shutil.copytree(old, data)


@pytest.fixture
def behind(tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting) -> dict[int, bytes]:
    """An older copy of 2 entries, put back after 300 were signed; the receipts of some of those that it lost."""
    server = start_server(data)
    segment = server.segment("payments", str(key))
    segment.append(b"0\n1\n", NDJSON)
    tlog_ok("backup", "--data", data, tmp_path / "backup")
    segment.append(b"".join(b"%d\n" % number for number in range(2, 299)), NDJSON)
    receipts = {299: segment.append(b'{"last": 299}')}
    assert server.stop() == 0
    data.rename(tmp_path / "later")
    out = tlog_ok("restore", "--data", data, tmp_path / "backup")
    assert "payments: frozen at 2 entries: its anchor has a head of 300 entries" in out
    assert re.match(r".*: example\.com/audit as it was at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", out)
    return receipts


def expect_goes_on(server: Server, segment: Segment, size: int) -> None:
    assert segment.post(b'"more"').status_code == 201
    assert segment.checkpoint().size == size + 1
    assert server.stop() == 0
    assert fsck(server.data) == (0, "")


def recorded(data: Path) -> list[dict[str, object]]:
    """Return what the segment control has on record."""
    with open_segments(Config(data)) as segments, segments.use("control") as control:
        return [json.loads(one.data) for one in control.store.payloads(0, control.store.head().size)]


# Backup


def test_a_backup_taken_under_load_is_whole_and_is_restored_as_it_was(
    tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting
) -> None:
    server = start_server(data)
    segment, stop, logged = server.segment("payments", str(key)), threading.Event(), list[bytes]()

    def load() -> None:
        while not stop.is_set():
            logged.append(segment.append(b"%d" % len(logged)))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        out = tlog_ok("backup", "--data", data, tmp_path / "backup")
    finally:
        stop.set()
        thread.join()
    assert f"3 segments of {LOG_NAME}" in out
    manifest = json.loads((tmp_path / "backup" / "manifest.json").read_bytes())
    size = manifest["segments"]["payments"]["size"]
    assert f"\n{size}\n" in manifest["segments"]["payments"]["checkpoint"]
    assert server.stop() == 0
    # Elsewhere there is no anchor, so that nothing is signed; what is there is whole.
    out = tlog_ok("restore", "--data", tmp_path / "elsewhere", tmp_path / "backup")
    assert out.count("is missing, so that this may be an older copy") == 3
    status, findings = fsck(tmp_path / "elsewhere")
    assert status == 1
    assert [line.partition(": ")[2] for line in findings.splitlines()] == [
        "anchor: it is missing, or cannot be read; nothing is signed without it"
    ] * 3
    copy = start_server(tmp_path / "elsewhere")
    assert copy.segment("payments", str(key)).checkpoint().size == size
    assert copy.segment("payments", str(key)).post(b"1").status_code == 409
    assert copy.request("PUT", "/segments/new").status == 409


def test_a_backup_of_the_latest_is_put_back_and_goes_on(
    tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting
) -> None:
    server = start_server(data)
    server.segment("payments", str(key)).append(b"0\n1\n", NDJSON)
    assert server.stop() == 0
    tlog_ok("backup", "--data", data, tmp_path / "backup")
    shutil.rmtree(data)
    out = tlog_ok("restore", "--data", data, tmp_path / "backup")
    assert "payments: open, 2 entries" in out
    server = start_server(data)
    expect_goes_on(server, server.segment("payments", str(key)), 2)


@pytest.mark.usefixtures("key")
def test_what_is_no_backup_is_not_put_back(tmp_path: Path, data: Path) -> None:
    backup = tmp_path / "backup"
    tlog_ok("backup", "--data", data, backup)
    before = {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    assert tlog("backup", "--data", data, backup)[0] == 2
    assert "not empty" in tlog("restore", "--data", data, backup)[2]
    assert "is no backup" in tlog("restore", "--data", tmp_path / "new", data)[2]
    for path, content in before.items():
        # Of the manifest, the size of a segment.
        place = content.index(b'"size":') + 7 if path.name == "manifest.json" else 9
        for spoiled in (content[:-1], content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]):
            path.write_bytes(spoiled)
            assert tlog("restore", "--data", tmp_path / "new", backup)[0] == 1, path
            assert not (tmp_path / "new").exists()
            shutil.rmtree(tmp_path / "new.new", ignore_errors=True)
        path.write_bytes(content)
    (backup / "more").touch()
    assert "see more" in tlog("restore", "--data", tmp_path / "new", backup)[2]
    (backup / "more").unlink()
    tlog_ok("restore", "--data", tmp_path / "new", backup)


def test_damaged_data_makes_no_backup(tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting) -> None:
    server = start_server(data)
    server.segment("payments", str(key)).append(b"0\n1\n", NDJSON)
    assert server.stop() == 0
    for database in (data / "segments").glob("*.db"):
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("update payload set openings = zeroblob(length(openings))")
    status, _, err = tlog("backup", "--data", data, tmp_path / "backup")
    assert status == 1
    assert ": entry 0: the payload is not the one" in err
    assert not (tmp_path / "backup").exists()


def test_a_file_that_was_copied_from_a_running_server_is_older_than_it_looks_and_frozen(
    tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting
) -> None:
    server = start_server(data)
    segment = server.segment("payments", str(key))
    for number in range(20):
        segment.append(b"%d" % number)
    [path] = [path for path in (data / "segments").glob("*.db-wal") if path.stat().st_size > 20_000]
    live = path.with_name(path.name.removesuffix("-wal"))
    shutil.copyfile(live, tmp_path / "copy")
    with closing(sqlite3.connect(tmp_path / "copy")) as copied:
        # SQLite itself finds nothing wrong with it.
        assert copied.execute("pragma integrity_check").fetchone() == ("ok",)
        size = copied.execute("select size from head").fetchone()[0]
    assert size < 20
    assert server.stop() == 0
    shutil.copyfile(tmp_path / "copy", live)
    segment = start_server(data).segment("payments", str(key))
    refused = segment.post(b"20")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:tlog:problem:frozen")
    assert f"has a head of 20 entries, and the segment has {size}" in refused.json()["detail"]


# Import


@pytest.mark.usefixtures("behind")
def test_what_a_later_copy_has_is_brought_back_with_its_payloads(
    tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting
) -> None:
    out = tlog_ok("segment", "import", "payments", tmp_path / "later", "--data", data)
    assert out.splitlines() == ["payments: 298 entries brought back", "payments: open, 300 entries"]
    server = start_server(data)
    segment = server.segment("payments", str(key))
    assert [entry["payload"] for entry in segment.entries(0, 300)] == [*range(299), {"last": 299}]
    expect_goes_on(server, segment, 300)


def test_a_mirror_brings_back_entries_and_says_that_their_payloads_are_lost(
    tmp_path: Path, data: Path, key: VerifierKey, behind: dict[int, bytes], start_server: Starting
) -> None:
    mirror = tmp_path / "mirror"
    later = start_server(tmp_path / "later")
    for path in ("checkpoint", "tile/entries/000", "tile/entries/001.p/44"):
        (mirror / path).parent.mkdir(parents=True, exist_ok=True)
        (mirror / path).write_bytes(later.segment("payments", str(key)).get(f"/{path}").content)
    assert later.stop() == 0
    good = (mirror / "tile/entries/001.p/44").read_bytes()
    (mirror / "tile/entries/001.p/44").write_bytes(good.replace(b"anonymous", b"anonymouz"))
    status, _, err = tlog("segment", "import", "payments", mirror, "--data", data)
    assert (status, "do not make the root of 300 entries" in err) == (1, True)
    (mirror / "tile/entries/001.p/44").write_bytes(good)
    receipt = tmp_path / "last.receipt"
    receipt.write_bytes(behind[299])
    event = tmp_path / "last.json"
    event.write_bytes(b'{ "last" : 299 }')
    out = tlog_ok("segment", "import", "payments", mirror, receipt, "--events", event, "--data", data)
    assert "payments: open, 300 entries" in out
    server = start_server(data)
    segment = server.segment("payments", str(key))
    assert [entry["payload"] for entry in segment.entries(0, 2)] == [0, 1]
    lost = segment.get("/entries/2")
    assert (lost.status_code, lost.json()["type"]) == (410, "urn:tlog:problem:payload-lost")
    assert "from 3 on" in lost.json()["detail"]
    assert segment.get("/entries?start=0&limit=9").json()["entries"][-1]["index"] == 1
    assert segment.entries(299, 300)[0]["payload"] == {"last": 299}
    assert segment.get("/tile/entries/000").content == (mirror / "tile/entries/000").read_bytes()
    expect_goes_on(server, segment, 300)


def test_receipts_alone_bring_back_what_they_cover(
    tmp_path: Path, data: Path, key: VerifierKey, start_server: Starting
) -> None:
    server = start_server(data)
    assert server.stop() == 0
    shutil.copytree(data, tmp_path / "old")
    server = start_server(data)
    segment = server.segment("payments", str(key))
    receipts = [segment.append(b"%d" % number) for number in range(4)]
    assert server.stop() == 0
    put_back(tmp_path / "old", data)
    lines = tmp_path / "receipts"
    lines.write_bytes(b"\n".join(receipts[:2] + receipts[3:]) + b"\n")
    events = tmp_path / "events.ndjson"
    events.write_bytes(b"3\n2\n1\n0\n")
    # Up to the first that is missing, which is not far enough.
    out = tlog("segment", "import", "payments", lines, "--events", events, "--data", data)[1]
    assert "2 entries brought back" in out
    assert "frozen at 2 entries: its anchor has a head of 4 entries" in out
    status, _, err = tlog("segment", "import", "payments", lines, "--data", data)
    assert (status, "none of these has entry 2" in err) == (2, True)
    one = tmp_path / "one.receipt"
    one.write_bytes(receipts[2])
    assert "open, 4 entries" in tlog_ok("segment", "import", "payments", lines, one, "--events", events, "--data", data)
    server = start_server(data)
    segment = server.segment("payments", str(key))
    assert [entry["payload"] for entry in segment.entries(0, 4)] == [0, 1, 2, 3]
    entry = segment.entries(2, 3)[0]
    assert entry["entry"].encode() == parse_receipt(receipts[2]).entry
    expect_goes_on(server, segment, 4)


# Succession, and taking it for the latest


@pytest.mark.usefixtures("behind")
def test_a_successor_begins_with_the_last_head_of_the_one_that_is_closed(data: Path, start_server: Starting) -> None:
    assert tlog("segment", "succeed", "control", "control-2", "--data", data)[0] == 1
    vkey = tlog_ok("segment", "succeed", "payments", "payments-2", "--data", data).strip()
    assert tlog_ok("segment", "succeed", "payments", "payments-2", "--data", data).strip() == vkey
    out = tlog("segment", "status", "--data", data)[1]
    assert "payments: frozen at 2 entries: it is closed for good, and payments-2 goes on in its place" in out
    server = start_server(data)
    successor = server.segment("payments-2", vkey)
    first = successor.entries(0, 1)[0]
    assert json.loads(first["entry"])["writer"] == "tlog/succession"
    assert first["payload"]["event"] == "segment.succeeds"
    assert first["payload"]["checkpoint"].startswith(f"{LOG_NAME}/segments/payments\n300\n")
    assert server.segment("payments", vkey).get("").json()["sealed"] is not None
    assert successor.checkpoint().size == 1
    assert [event["event"] for event in recorded(data)][-2:] == ["segment.created", "segment.succeeded"]
    assert successor.post(b"1").status_code == 201
    assert server.stop() == 0
    # Also with all that it had lost nothing more is signed in it.
    assert "frozen at 2 entries" in tlog("segment", "status", "payments", "--data", data)[1]
    assert tlog("segment", "succeed", "payments-2", "payments-3", "--data", data)[0] == 1


@pytest.mark.usefixtures("behind")
def test_a_copy_is_taken_for_the_latest_only_if_its_anchor_is_gone_and_on_record(
    data: Path, key: VerifierKey, start_server: Starting
) -> None:
    refused = tlog("segment", "accept", "--yes", "payments", "--data", data)
    assert (refused[0], "has its anchor" in refused[2]) == (1, True)
    shutil.rmtree(data.with_name("data.anchor"))
    assert tlog("segment", "status", "--data", data)[1].count("is missing") == 3
    # Asked for, and not answered.
    assert tlog("segment", "accept", "control", "--data", data)[0] != 0
    tlog_ok("segment", "accept", "--yes", "control", "access", "payments", "--data", data)
    assert "payments: open, 2 entries" in tlog_ok("segment", "status", "--data", data)
    server = start_server(data)
    accepted = [event for event in recorded(data) if event["event"] == "segment.accepted"]
    assert [(one["segment"], one["by"]) for one in accepted] == [
        (name, "tlog/operator") for name in ("control", "access", "payments")
    ]
    assert accepted[2]["size"] == 2
    expect_goes_on(server, server.segment("payments", str(key)), 2)
