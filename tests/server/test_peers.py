"""Peers: a log that starts asks a monitor whether what it has is the latest."""

import hashlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dripping import raw_server
from live import NDJSON, Segment, Server, free_port, until

from tlog.errors import ConfigError
from tlog.peers import read_peers
from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.merkle import Hash
from tlog_core.note import signer_from_seed

Starting = Callable[..., Server]
CLIENT = Path(sys.executable).parent / "tlog-client"


@contextmanager
def monitor(folder: Path, segment: Segment) -> Iterator[str]:
    """Run a real monitor of a segment, and yield the URL at which it listens."""
    (folder / "trust.policy").write_text(f"log {segment.key} {segment.url}\nquorum none\n")
    log = folder / "monitor.txt"
    command: list[str | Path] = [CLIENT, "monitor", "--policy", folder / "trust.policy", "--state", folder / "state"]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*command, "--interval", "0.1", "--listen", "127.0.0.1:0"], stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
    try:
        until(lambda: "listening on " in log.read_text(), "the monitor to listen")
        yield log.read_text().partition("listening on ")[2].split()[0]
    finally:
        process.terminate()
        process.wait()


def head_at(url: str, segment: Segment) -> bytes:
    path = f"{url}/{hashlib.sha256(segment.key.name.encode()).hexdigest()}/checkpoint"
    return subprocess.run(["curl", "-s", path], check=True, capture_output=True).stdout


def test_an_older_copy_that_no_witness_knows_is_frozen_by_what_a_monitor_has_seen(
    tmp_path: Path, start_server: Starting
) -> None:
    data, peers = tmp_path / "data", tmp_path / "peers"
    server = start_server(data)
    segment = server.create("payments")
    segment.append(b"1\n2\n", NDJSON)
    server.create("refunds")
    with monitor(tmp_path, segment) as url:
        peers.write_text(f"# who watches us\n{url}/\nhttp://127.0.0.1:{free_port()}\n")
        until(lambda: b"\n2\n" in head_at(url, segment), "the monitor to have seen two entries")
        assert server.stop() == 0
        for folder in ("data", "data.anchor"):
            shutil.copytree(tmp_path / folder, tmp_path / "old" / folder)
        server = start_server(data, port=server.port)
        segment.append(b"3")
        until(lambda: b"\n3\n" in head_at(url, segment), "the monitor to have seen the third")
        assert server.stop() == 0
        for folder in ("data", "data.anchor"):
            shutil.rmtree(tmp_path / folder)
            (tmp_path / "old" / folder).rename(tmp_path / folder)
        server = start_server(data, port=server.port, options=["--peers", str(peers)])
        answers = [segment.post(b"4") for _ in range(3)]
        until(lambda: segment.post(b"4").status_code == 409, "the segment to be frozen")
        assert {answer.status_code for answer in answers} <= {409, 503}
        assert segment.checkpoint().size == 2
        frozen = segment.get("").json()["frozen"]
        assert (frozen["witness"], frozen["size"]) == (url, 3)
        # Of the others no peer knows, and one that is out of reach stops nothing.
        until(lambda: server.segment("refunds", str(segment.key)).post(b"1").status_code == 201, "refunds to go on")


def test_what_the_log_has_not_signed_counts_for_nothing(tmp_path: Path, start_server: Starting) -> None:
    data = tmp_path / "data"
    server = start_server(data)
    segment = server.create("payments")
    assert server.stop() == 0
    stranger = signer_from_seed(segment.key.name, bytes([9]) * 32)
    note = bytes(sign_checkpoint(Checkpoint(segment.key.name, 9, Hash(bytes(32))), stranger))
    asked = list[bool]()

    def lie(connection: socket.socket, _: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(note), note))
        asked.append(True)

    with raw_server(lie) as liar:
        (tmp_path / "peers").write_text(f"{liar}\n")
        server = start_server(data, options=["--peers", str(tmp_path / "peers")])
        until(lambda: server.segment("payments", str(segment.key)).post(b"1").status_code == 201, "it to go on")
        assert server.segment("payments", str(segment.key)).get("").json()["frozen"] is None
    assert asked


@pytest.mark.parametrize("text", ["ftp://x\n", "monitor.example\n", "https://x/?y\n", "\xff"])
def test_a_list_of_peers_has_urls(tmp_path: Path, text: str) -> None:
    (tmp_path / "peers").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="peers"):
        read_peers(tmp_path / "peers")
