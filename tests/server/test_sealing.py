"""Sealing that was cut off: whatever a crash left, the next start ends it, and only once it may sign."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from live import JSON, LOG_NAME, Server, tell, tlog, until

from tlog.access.change import SegmentSealed, encode_change
from tlog.clock import now
from tlog.config import Config
from tlog.status import open_segments
from tlog.submit import append, commit_to, seal

KILLED = """
import os, signal, sys
from tlog import control
from tlog.cli import main

control.seal = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""

Starting = Callable[..., Server]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A log whose segment payments has 2 entries."""
    data = tmp_path / "data"
    tell("segment", "create", "payments", "--data", data, "--log-name", LOG_NAME)
    with open_segments(Config(data)) as segments, segments.use("payments") as segment:
        append(segment, commit_to(writer="anonymous", kind=JSON, payloads=[b"0", b"1"]))
    return data


def seal_and_be_killed(data: Path) -> None:
    """Put it on record that payments is sealed, and die before its last entry."""
    done = subprocess.run([sys.executable, "-c", KILLED, "segment", "seal", "payments", "--data", data], check=False)
    assert done.returncode == -signal.SIGKILL


def seal_without_record(data: Path) -> bytes:
    """Log the last entry of payments, as where `control` was put back as it was before."""
    payload = encode_change(SegmentSealed(by="alice", at=now(), segment="payments"))
    with open_segments(Config(data)) as segments, segments.use("payments") as segment:
        seal(segment, payload)
    return payload


def recorded(data: Path) -> bytes:
    with open_segments(Config(data)) as segments, segments.use("control") as control:
        return control.store.payloads(0, control.store.head().size)[-1].data


def expect_sealed(server: Server, record: bytes) -> None:
    vkey = server.request("GET", "/segments/payments").json()["vkey"]
    segment = server.segment("payments", vkey)
    until(lambda: segment.get("").json()["size"] == 3 and segment.get("").json()["sealed"], "the segment to be sealed")
    assert segment.get("").json()["sealed"] == json.loads(record)["at"]
    [last] = segment.entries(2, 3)
    assert (json.loads(last["entry"])["writer"], last["payload"]) == ("tlog/seal", json.loads(record))
    assert segment.post(b"2").json()["type"] == "urn:tlog:problem:sealed"
    assert server.stop() == 0
    assert (tell("fsck", "--data", server.data), recorded(server.data)) == ("", record)


def test_a_seal_that_is_on_record_only_is_ended_by_the_next_start(data: Path, start_server: Starting) -> None:
    seal_and_be_killed(data)
    assert "a server that starts makes it good" in tlog("fsck", "--data", data).stdout
    record = recorded(data)
    assert json.loads(record)["event"] == "segment.sealed"
    expect_sealed(start_server(data), record)


def test_a_seal_that_is_not_on_record_is_put_there_by_the_next_start(data: Path, start_server: Starting) -> None:
    record = seal_without_record(data)
    assert "a server that starts makes it good" in tlog("fsck", "--data", data).stdout
    expect_sealed(start_server(data), record)


def test_a_half_sealed_segment_is_not_sealed_before_its_witnesses_have_confirmed(
    data: Path, start_server: Starting, tmp_path: Path
) -> None:
    seal_and_be_killed(data)
    key = tell("witness", "key", "--data", tmp_path / "w1", "--name", "witness.example/w1")
    (tmp_path / "witnesses").write_text(f"witness w1 {key} http://127.0.0.1:1\nquorum w1\n")
    server = start_server(data, options=["--witnesses", str(tmp_path / "witnesses")])
    until(lambda: any(line["event"] == "not cosigned" for line in server.logged()), "the witness to be asked")
    assert server.request("GET", "/segments/payments").json()["size"] == 2
    assert not [line for line in server.logged() if line["event"] == "not sealed"]


def test_a_segment_that_was_closed_stays_so_although_it_came_from_a_backup(data: Path, start_server: Starting) -> None:
    """`control` was imported, which says so, and the segment itself is as it was before."""
    tell("backup", "--data", data, data.with_name("backup"))
    with open_segments(Config(data)) as segments:
        path = Config(data).anchor_of(segments.control.find("payments").id)
    path.rename(path.with_name("away"))
    tell("segment", "succeed", "payments", "payments-2", "--data", data)
    path.with_name("away").rename(path)
    data.rename(data.with_name("later"))
    tell("restore", "--data", data, data.with_name("backup"))
    tell("segment", "import", "control", data.with_name("later"), "--data", data)
    server = start_server(data)

    def closed() -> bool:
        found = server.request("GET", "/segments/payments").json()["frozen"]
        return found is not None and "payments-2 goes on in its place" in found["reason"]

    until(closed, "the segment to be closed")


def test_a_sealed_segment_has_one_successor_and_stays_sealed(data: Path, start_server: Starting) -> None:
    """What is done after a key was stolen: the last head that counts stands in what goes on, under another key."""
    refused = tlog("segment", "succeed", "payments", "payments-2", "--data", data)
    assert (refused.exit_code, "takes entries; seal it first" in refused.stderr) == (1, True)
    tell("segment", "seal", "payments", "--data", data)
    sealed = recorded(data)
    vkey = tell("segment", "succeed", "payments", "payments-2", "--data", data)
    again = recorded(data)
    assert json.loads(again)["event"] == "segment.succeeded"
    assert tell("segment", "succeed", "payments", "payments-2", "--data", data) == vkey
    assert recorded(data) == again
    refused = tlog("segment", "succeed", "payments", "payments-3", "--data", data)
    assert (refused.exit_code, "payments-2 goes on in the place of payments" in refused.stderr) == (1, True)
    server = start_server(data)
    old = server.segment("payments", server.request("GET", "/segments/payments").json()["vkey"])
    described = old.get("").json()
    assert (described["frozen"], described["sealed"], described["size"]) == (None, json.loads(sealed)["at"], 3)
    [first] = server.segment("payments-2", vkey).entries(0, 1)
    assert first["payload"]["checkpoint"].encode() == old.note()
    assert vkey != described["vkey"]
    assert server.stop() == 0
    assert tell("fsck", "--data", data) == ""
