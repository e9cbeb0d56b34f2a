"""Segments that were made after a backup: `control` says that they are there, and their files are not."""

import json
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from live import JSON, LOG_NAME, Server, tell, tlog

from tlog.config import Config
from tlog.status import open_segments
from tlog.submit import append, commit_to
from tlog_core.tile import join_bundle

Starting = Callable[..., Server]


def log(data: Path, payload: bytes) -> None:
    with open_segments(Config(data, anchor=data.with_name("data.anchor"))) as segments, segments.use("orders") as one:
        append(one, commit_to(writer="anonymous", kind=JSON, payloads=[payload], idempotency_key=payload.decode()))


def files_of(name: str, data: Path) -> list[Path]:
    """Return the key file and the database of a segment."""
    with open_segments(Config(data)) as segments:
        found = segments.control.find(name).id
    return [data / "keys" / f"{found}.key", data / "segments" / f"{found}.db"]


def recorded(data: Path) -> list[str]:
    with open_segments(Config(data)) as segments, segments.use("control") as control:
        return [json.loads(one.data)["event"] for one in control.store.payloads(0, control.store.head().size)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def vkey(tmp_path: Path, data: Path) -> str:
    """The segment orders was made after a backup that was put back; `control` was brought back from `later`."""
    tell("segment", "create", "payments", "--data", data, "--log-name", LOG_NAME)
    tell("backup", "--data", data, tmp_path / "backup")
    vkey = tell("segment", "create", "orders", "--data", data)
    for payload in (b"0", b"1"):
        log(data, payload)
    data.rename(tmp_path / "later")
    tell("restore", "--data", data, tmp_path / "backup")
    out = tell("segment", "import", "control", tmp_path / "later", "--data", data)
    assert "control: open, 2 entries\norders: damaged: the key file " in out
    assert "tlog segment import orders SOURCE brings it back" in out
    assert "tlog segment succeed orders NEW_NAME" in out
    return vkey


def test_a_segment_from_after_a_backup_is_brought_back_with_its_key_and_goes_on(
    tmp_path: Path, data: Path, vkey: str, start_server: Starting
) -> None:
    server = start_server(data)
    orders = server.segment("orders", vkey)
    missing = orders.get("/checkpoint")
    assert (missing.status_code, missing.json()["type"]) == (500, "urn:tlog:problem:corrupt")
    # Other segments go on, and the server with this one once it is there.
    assert server.request("GET", "/segments/payments/checkpoint").status == 200
    refused = tlog("segment", "import", "orders", tmp_path / "backup", "--data", data)
    assert (refused.exit_code, "name a later data folder or backup that has it" in refused.stderr) == (2, True)
    out = tell("segment", "import", "orders", tmp_path / "backup", tmp_path / "later", "--data", data)
    assert out == "orders: its files brought back\norders: open, 2 entries"
    assert stat.S_IMODE(files_of("orders", data)[0].stat().st_mode) == 0o600
    assert not (data / "importing").exists()
    assert orders.post(b"0", key="0").json()["index"] == 0
    assert orders.post(b'"more"').status_code == 201
    assert orders.checkpoint().size == 3
    assert server.stop() == 0
    assert tell("fsck", "--data", data) == ""


@pytest.mark.usefixtures("vkey")
def test_of_a_segment_from_after_a_backup_nothing_is_taken_that_is_damaged(tmp_path: Path, data: Path) -> None:
    key, database = files_of("orders", tmp_path / "later")
    good = key.read_bytes()
    key.write_bytes(files_of("payments", tmp_path / "later")[0].read_bytes())
    refused = tlog("segment", "import", "orders", tmp_path / "later", "--data", data)
    assert (refused.exit_code, "holds another key" in refused.stderr) == (1, True)
    key.write_bytes(good)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("update payload set openings = zeroblob(length(openings))")
    refused = tlog("segment", "import", "orders", tmp_path / "later", "--data", data)
    assert (refused.exit_code, "was not taken: orders: entry 0" in refused.stderr) == (1, True)
    assert not any(path.exists() for path in [*files_of("orders", data), data / "importing"])


@pytest.mark.usefixtures("vkey")
def test_no_database_is_put_beside_the_log_of_one_that_is_gone(tmp_path: Path, data: Path) -> None:
    left = files_of("orders", data)[1].with_suffix(".db-wal")
    left.write_bytes(b"pages")
    refused = tlog("segment", "import", "orders", tmp_path / "later", "--data", data)
    assert (refused.exit_code, f"{left.name} is left of a database that is gone" in refused.stderr) == (2, True)
    left.unlink()
    tell("segment", "import", "orders", tmp_path / "later", "--data", data)


@pytest.mark.usefixtures("vkey")
def test_an_older_copy_of_a_segment_from_after_a_backup_is_frozen_and_not_replaced(tmp_path: Path, data: Path) -> None:
    shutil.copytree(tmp_path / "later", tmp_path / "older")
    log(tmp_path / "later", b"2")
    out = tell("segment", "import", "orders", tmp_path / "older", "--data", data)
    assert "orders: frozen at 2 entries: its anchor has a head of 3 entries" in out
    database = files_of("orders", data)[1].stat().st_ino
    # A file that is there stays; what it lacks comes as entries.
    out = tell("segment", "import", "orders", tmp_path / "later", "--data", data)
    assert out == "orders: 1 entries brought back\norders: open, 3 entries"
    assert files_of("orders", data)[1].stat().st_ino == database


@pytest.mark.usefixtures("vkey")
def test_a_segment_that_nobody_has_is_succeeded_from_its_anchor_and_is_in_no_backup(
    tmp_path: Path, data: Path, start_server: Starting
) -> None:
    refused = tlog("backup", "--data", data, tmp_path / "second")
    assert (refused.exit_code, "tlog segment status orders says what to do" in refused.stderr) == (1, True)
    shutil.rmtree(tmp_path / "second.new")
    successor = tell("segment", "succeed", "orders", "orders-2", "--data", data)
    assert recorded(data)[-2:] == ["segment.created", "segment.succeeded"]
    tell("backup", "--data", data, tmp_path / "second")
    tell("restore", "--data", tmp_path / "third", tmp_path / "second")
    # Should its files turn up, it stays closed.
    out = tell("segment", "import", "orders", tmp_path / "later", "--data", data)
    assert "orders-2 goes on in its place" in out
    server = start_server(data)
    [first] = server.segment("orders-2", successor).entries(0, 1)
    assert first["payload"]["checkpoint"].startswith(f"{LOG_NAME}/segments/orders\n2\n")
    assert server.request("POST", "/segments/orders/entries", b"2", {"Content-Type": JSON}).status == 409


@pytest.mark.usefixtures("vkey")
def test_a_sealed_segment_whose_files_are_missing_is_not_left_out_of_a_backup(tmp_path: Path, data: Path) -> None:
    tell("segment", "import", "orders", tmp_path / "later", "--data", data)
    tell("segment", "seal", "orders", "--data", data)
    files_of("orders", data)[1].unlink()
    refused = tlog("backup", "--data", data, tmp_path / "second")
    assert (refused.exit_code, "of orders is missing" in refused.stderr) == (1, True)


@pytest.mark.usefixtures("vkey")
def test_a_segment_of_which_no_head_is_known_has_no_successor(data: Path) -> None:
    with open_segments(Config(data)) as segments:
        Config(data).anchor_of(segments.control.find("orders").id).unlink()
    refused = tlog("segment", "succeed", "orders", "orders-2", "--data", data)
    assert (refused.exit_code, "no head is known" in refused.stderr) == (1, True)


def test_control_takes_no_entry_without_its_payload_and_other_segments_go_on(
    tmp_path: Path, data: Path, vkey: str, start_server: Starting
) -> None:
    bundle = tmp_path / "mirror" / "tile" / "entries" / "000.p" / "2"
    bundle.parent.mkdir(parents=True)
    with open_segments(Config(tmp_path / "later")) as segments, segments.use("control") as control:
        (tmp_path / "mirror" / "checkpoint").write_bytes(control.store.head().note)
        bundle.write_bytes(join_bundle(control.store.entries(0, 2)))
    shutil.rmtree(data)
    assert "begin another log" in tell("restore", "--data", data, tmp_path / "backup")
    refused = tlog("segment", "import", "control", tmp_path / "mirror", "--data", data)
    assert (refused.exit_code, "begin another log" in refused.stderr) == (2, True)
    server = start_server(data)
    assert server.request("PUT", "/segments/other").status == 409
    assert server.request("POST", "/segments/payments/entries", b"1", {"Content-Type": JSON}).status == 201
    assert server.segment("orders", vkey).get("").status_code == 404
