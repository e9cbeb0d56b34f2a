"""How the server runs: one to a folder, stopping, idle segments, metrics, logs, and what it says of itself."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest
import requests
from certificate import make_certificate
from flask import Flask
from history import History, load, wait_for
from live import (
    JSON,
    LOG_NAME,
    NDJSON,
    PATIENCE,
    TLOG,
    Segment,
    Server,
    answered,
    free_port,
    paste_lines,
    stalled,
    until,
)

from tlog.access import Action
from tlog.api import models
from tlog.api.route import Route, Services
from tlog.app import create_app
from tlog.config import MAX_DISCARDING, MAX_WAITING, PLACE_SECONDS, Config
from tlog.errors import NotFoundError
from tlog.fsck.run import Plan, check
from tlog.guard import Guard
from tlog.listen import _INSIST_SECONDS, _insist
from tlog.web import PAGES
from tlog_core.note import parse_verifier
from tlog_core.receipt import parse_receipt, verify_receipt

FOREIGN = """
import sys
from werkzeug.serving import make_server
from tlog.app import create_app

app = create_app()
server = make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True)
print("serving", flush=True)
server.serve_forever()
"""

# Every shape that msgspec may read, by eight threads at once and for the first time, in an app as a worker has it.
AT_ONCE = """
import sys, threading
from pathlib import Path
import msgspec
from tlog.access.change import decode_change
from tlog.app import create_app
from tlog.config import Config

create_app(Config(Path(sys.argv[1])))
sys.setswitchinterval(1e-6)
together = threading.Barrier(8)

def shapes(base):
    for shape in base.__subclasses__():
        yield shape
        yield from shapes(shape)

def read():
    for shape in shapes(msgspec.Struct):
        together.wait()
        try:
            msgspec.convert({}, shape)
        except msgspec.ValidationError:
            pass
    together.wait()
    decode_change(b'{"event":"policy.applied","at":0,"by":"root","document":"","version":1}')

threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def tlog(*arguments: str | Path, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TLOG, *arguments], capture_output=True, text=True, check=False, timeout=timeout)


def serve(data: Path, *options: str, port: int | None = None) -> subprocess.CompletedProcess[str]:
    """Start a server that is expected not to start."""
    return tlog("serve", "--data", data, "--port", str(port or free_port()), "--workers", "1", *options)


@contextmanager
def foreign_server(data: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run the app under werkzeug's own WSGI server."""
    process = subprocess.Popen(
        [sys.executable, "-c", FOREIGN, str(port)],
        env={**os.environ, "TLOG_DATA": str(data), "TLOG_UNGUARDED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def is_serving(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "serving\n"


# One server to a folder


def test_a_second_server_on_a_folder_says_so_and_leaves_the_first_alone(start_server: Callable[..., Server]) -> None:
    server = start_server()
    segment = server.create("payments")
    second = serve(server.data)
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr.startswith("tlog: another server runs on ")
    assert str(server.data) in second.stderr
    assert "--data" in second.stderr
    assert segment.append(b"1")
    assert server.stop() == 0
    start_server(port=server.port)
    assert segment.append(b"2")


def test_a_port_that_is_taken_is_not_shared(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server()
    second = serve(tmp_path / "other", port=server.port)
    assert second.returncode == 2
    assert second.stderr == f"tlog: cannot listen at port {server.port}: address already in use; " + (
        "choose another with --port\n"
    )
    assert server.request("GET", "/readyz").status == 200


def test_the_app_runs_under_another_server_and_keeps_ours_out(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    data, port = tmp_path / "data", free_port()
    made = tlog("segment", "create", "payments", "--data", data, "--log-name", LOG_NAME)
    assert made.returncode == 0
    segment = Segment(f"http://127.0.0.1:{port}/segments/payments", "payments", parse_verifier(made.stdout.strip()))
    with foreign_server(data, port) as process:
        assert is_serving(process)
        for number in range(20):
            body = b'{"n":%d}' % number
            verify_receipt(parse_receipt(segment.append(body)), key=segment.key, payload=body)
        segment.append(b"1\n" * 300, NDJSON)
        assert segment.get("/tile/entries/000").status_code == 200
        assert segment.checkpoint().size == 320
        ours = serve(data)
        assert ours.returncode == 2
        assert "another server runs on" in ours.stderr
    # Once it is gone, ours goes on where it was.
    start_server(data, port=port)
    assert parse_receipt(segment.append(b'"ours"')).index == 320


def test_our_server_keeps_the_app_under_another_server_out(start_server: Callable[..., Server]) -> None:
    server = start_server()
    with foreign_server(server.data, free_port()) as process:
        assert not is_serving(process)
        assert process.wait(PATIENCE) == 1
        assert process.stderr is not None
        assert "ConfigError: another server runs on" in process.stderr.read()


def test_workers_of_another_server_may_share_a_folder(tmp_path: Path) -> None:
    # Both begin at once, and with a folder that is not there.
    ports = [free_port(), free_port()]
    with foreign_server(tmp_path / "data", ports[0]) as one, foreign_server(tmp_path / "data", ports[1]) as other:
        assert [is_serving(one), is_serving(other)] == [True, True]
        first = Server(one, ports[0], tmp_path, tmp_path)
        second = Server(other, ports[1], tmp_path, tmp_path)
        history = History(first.create("payments"))
        with load(first, [history], writers=3) as _, load(second, [history], writers=3, names="other-") as _:
            wait_for([history], 200)
        assert set(history.statuses) == {201}
        history.check()


def test_commands_that_make_one_folder_at_once_all_succeed(tmp_path: Path) -> None:
    def create(number: int) -> subprocess.CompletedProcess[str]:
        return tlog("segment", "create", f"zone-{number}", "--data", tmp_path / "data")

    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(create, range(6)))
    assert [(one.returncode, one.stderr) for one in made] == [(0, "")] * 6
    origins = {parse_verifier(one.stdout.strip()).name.rpartition("/segments/")[0] for one in made}
    assert len(origins) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
@pytest.mark.parametrize("option", [None, "--unguarded"])
def test_a_host_that_others_reach_needs_tls_and_a_guard(tmp_path: Path, host: str, option: str | None) -> None:
    refused = serve(tmp_path / "data", "--host", host, *([option] if option else []))
    assert refused.returncode == 2
    assert "not a loopback address" in refused.stderr
    assert ("--plain-http" in refused.stderr) == (option is None)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1.example.com", ""])
def test_a_host_is_an_address(tmp_path: Path, host: str) -> None:
    refused = serve(tmp_path / "data", "--host", host)
    assert refused.returncode == 2
    assert "is no IP address" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_a_server_with_a_certificate_speaks_tls(tmp_path: Path) -> None:
    certificate, key, port = tmp_path / "certificate.pem", tmp_path / "key.pem", free_port()
    make_certificate(certificate, key)
    command = [str(TLOG), "serve", "--data", str(tmp_path / "data"), "--port", str(port), "--workers", "1"]
    assert "give both" in serve(tmp_path / "data", "--certificate", str(certificate)).stderr
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "--certificate", str(certificate), "--key", str(key)], stdout=log, stderr=log
        ) as process,
    ):
        try:
            until(lambda: b"Started worker-" in (tmp_path / "log").read_bytes(), "the worker to start")
            answer = requests.get(f"https://localhost:{port}/healthz", verify=str(certificate), timeout=PATIENCE)
            assert answer.status_code == 200
            with pytest.raises(requests.ConnectionError):
                requests.get(f"http://localhost:{port}/healthz", timeout=PATIENCE)
            output = (tmp_path / "log").read_text()
            paste_lines(output, tmp_path, REQUESTS_CA_BUNDLE=str(certificate))
        finally:
            process.terminate()


def test_localhost_is_a_loopback_address(tmp_path: Path) -> None:
    port = free_port()
    command = [str(TLOG), "serve", "--data", str(tmp_path / "data"), "--host", "localhost", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        server = Server(process, port, tmp_path / "data", tmp_path / "log")
        try:
            until(lambda: b"Started worker-" in server.log.read_bytes(), "the worker to start")
            assert server.request("GET", "/healthz").status == 200
        finally:
            assert server.stop() == 0


def test_a_log_keeps_its_name_for_ever(start_server: Callable[..., Server]) -> None:
    server = start_server()
    assert server.create("payments").get("").json()["origin"] == f"{LOG_NAME}/segments/payments"
    assert server.stop() == 0
    for command in (["serve"], ["segment", "create", "refunds"]):
        refused = tlog(*command, "--data", server.data, "--log-name", "example.com/other")
        assert refused.returncode == 2
        assert f"this log is named {LOG_NAME} for ever" in refused.stderr
    for name in (LOG_NAME, None):
        assert start_server(server.data, log_name=name).stop() == 0


@pytest.mark.parametrize("name", ["", "-a", "a b", "a+b", "a\nb", "é", "x" * 129, "/a"])
def test_a_name_that_no_log_may_have_is_refused(tmp_path: Path, name: str) -> None:
    refused = serve(tmp_path / "data", "--log-name", name)
    assert refused.returncode == 2
    assert "a log's name is" in refused.stderr


def test_segments_made_by_the_command_are_there_at_once(start_server: Callable[..., Server]) -> None:
    server = start_server()
    made = tlog("segment", "create", "payments", "--data", server.data, "--label", "env=prod", "--label", "a=b=c")
    assert made.returncode == 0
    segment = server.segment("payments", made.stdout.strip())
    assert segment.append(b"1")
    assert segment.get("").json()["labels"] == {"a": "b=c", "env": "prod"}
    listed = tlog("segment", "list", "--data", server.data)
    lines = listed.stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["access", "control", "payments"]
    assert lines[-1] == f"payments\t1\ta=b=c,env=prod\t-\t{segment.key}"
    for label in ("env", "env=dev"):
        refused = tlog("segment", "create", "payments", "--data", server.data, "--label", label)
        assert refused.returncode == (2 if label == "env" else 1)
        assert refused.stderr.startswith("tlog: ")


# Stopping


def test_what_was_accepted_is_answered_before_the_server_stops(start_server: Callable[..., Server]) -> None:
    server = start_server()
    history = History(server.create("payments"))
    for number, writers in enumerate((12, 12, 64)):
        with load(server, [history], writers=writers, retry=False, sizes=(1, 1, 200), names=f"{number}-"):
            wait_for([history], 300)
            assert server.stop() == 0
        server = start_server(port=server.port)
    # Every request got its receipt, or a refused or broken connection and then is not logged.
    assert set(history.statuses) == {201}
    assert history.cut >= 3
    history.check(complete=True)
    assert list(check(Config(server.data), Plan(), lambda *_: None)) == []


def test_a_stopped_server_leaves_whole_databases_behind(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server()
    segments = [server.create(f"zone-{number}") for number in range(5)]
    for segment in segments * 10:
        segment.append(b"1")
    notes = [segment.note() for segment in segments]
    assert server.stop() == 0
    # Without the write-ahead log a copy of a database is older, and looks perfect; so there must be none.
    ignored = shutil.ignore_patterns("*-wal", "*-shm")
    shutil.copytree(server.data, tmp_path / "copy", ignore=ignored)
    start_server(tmp_path / "copy", port=server.port)
    assert [segment.note() for segment in segments] == notes


@pytest.mark.long
def test_a_client_that_stalls_does_not_hold_up_the_stop(start_server: Callable[..., Server]) -> None:
    server = start_server()
    segment = server.create("payments")
    with socket.create_connection(("127.0.0.1", server.port)) as stalled:
        stalled.sendall(
            b"POST /segments/payments/entries HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
            b"Content-Length: 100\r\n\r\nonly a part"
        )
        assert segment.append(b"1")
        assert server.stop() == 0
    start_server(port=server.port)
    assert segment.checkpoint().size == 1


STALLED = "POST /segments/payments/entries"


def test_those_who_stall_keep_nobody_else_waiting(start_server: Callable[..., Server]) -> None:
    server = start_server(workers=1)
    segment = server.create("payments")
    with stalled(server.port, MAX_WAITING - 1, STALLED, "Content-Type: text/plain"):
        assert segment.append(b"1")
        assert segment.checkpoint().size == 1


@pytest.mark.parametrize("request_line", [STALLED, "PUT /segments/another"])
def test_those_who_stall_in_great_number_keep_out_bodies_only_and_only_while_they_are_there(
    start_server: Callable[..., Server], request_line: str
) -> None:
    server = start_server()
    segment = server.create("payments")
    with stalled(server.port, 300, request_line, "Content-Type: application/json") as held:
        until(lambda: len(answered(held)) >= 300 - 2 * (MAX_WAITING + MAX_DISCARDING), "the others to be refused")
        assert {one.recv(12) for one in answered(held)} == {b"HTTP/1.1 503"}
        for _ in range(10):
            assert server.request("GET", "/healthz").status == 200
            assert segment.checkpoint().size == 0
        began = time.monotonic()
        refused = segment.post(b"1")
        # Those of a burst are given the time to come.
        assert time.monotonic() - began >= PLACE_SECONDS
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["type"] == "urn:tlog:problem:unavailable"
    until(lambda: segment.post(b"1").status_code == 201, "appends to go on", 1)
    # No fault of the server, of which each would be a long line in its log.
    assert [line for line in server.logged() if line["level"] == "error"] == []


@pytest.mark.parametrize(
    "command",
    [["serve"], ["segment", "create", "x"], ["fsck"], ["witness", "key", "--name", "x"]],
    ids=lambda command: command[0],
)
def test_a_folder_that_cannot_be_is_said_in_a_line(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").touch()
    refused = tlog(*command, "--data", tmp_path / "file" / "data")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert refused.stderr.startswith("tlog: ")
    assert str(tmp_path / "file") in refused.stderr


DEAF = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
print("ready", flush=True)
while True:
    time.sleep(60)
"""


def test_a_worker_on_which_the_signal_to_stop_was_lost_is_told_again() -> None:
    """As it is while a worker is starting; and no worker is told before the server is."""
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        server = SimpleNamespace(interrupt_signal=False, wrks=[worker])
        threading.Thread(target=_insist, args=(server,), daemon=True).start()
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(4 * _INSIST_SECONDS)
        server.interrupt_signal = True
        try:
            assert worker.wait(PATIENCE) == -signal.SIGTERM
        finally:
            worker.kill()


def test_workers_end_when_the_process_that_started_them_is_killed(start_server: Callable[..., Server]) -> None:
    server = start_server()
    segment = server.create("payments")
    workers = server.workers()
    server.process.kill()
    server.process.wait(PATIENCE)
    until(lambda: not any(worker.is_running() for worker in workers), "the workers to end")
    start_server(port=server.port)
    assert segment.append(b"1")


def test_a_worker_that_dies_is_replaced(start_server: Callable[..., Server]) -> None:
    server = start_server(environment={"TLOG_IDLE_SECONDS": "600"})
    segment = server.create("payments")
    first, second = server.workers()
    until(lambda: segment.append(b"1") and open_databases(first) and open_databases(second), "both to have appended")
    until(lambda: server.metrics()["tlog_open_segments"] == databases_open(server), "both to say so")
    processors = sorted(worker.cpu_affinity() for worker in server.workers())
    ours = psutil.Process().cpu_affinity()
    assert processors == sorted([ours[place % len(ours)]] for place in range(2))
    first.kill()
    until(lambda: not first.is_running() and len(server.workers()) == 2, "another worker")
    until(lambda: server.log.read_bytes().count(b"Started worker-") == 3, "it to have started")
    # It has the processor of the dead one.
    assert sorted(worker.cpu_affinity() for worker in server.workers()) == processors
    # What the dead one had open is not counted any more.
    assert server.metrics()["tlog_open_segments"] == databases_open(server)
    size = segment.checkpoint().size
    assert [parse_receipt(segment.append(b"1")).index for _ in range(20)] == list(range(size, size + 20))
    assert server.stop() == 0


# Open segments


def open_databases(worker: psutil.Process) -> set[str]:
    return {file.path for file in worker.open_files() if re.search(r"/segments/\w+\.(db|lock)", file.path)}


def databases_open(server: Server) -> int:
    return sum(path.endswith(".db") for worker in server.workers() for path in open_databases(worker))


def test_an_idle_segment_holds_no_file_and_no_thread(start_server: Callable[..., Server]) -> None:
    # The scrub has a database open for as long as it goes through it.
    server = start_server(environment={"TLOG_IDLE_SECONDS": "1", "TLOG_SCRUB_RATE": "0"})
    segments = [server.create(f"zone-{number}") for number in range(20)]
    with ThreadPoolExecutor(32) as threads:
        list(threads.map(lambda _: segments[0].append(b"1\n" * 500, NDJSON), range(64)))
    threads_before = [worker.num_threads() for worker in server.workers()]
    for segment in segments * 2:
        segment.append(b"1")
    assert any(open_databases(worker) for worker in server.workers())
    threads_after = [worker.num_threads() for worker in server.workers()]
    assert all(after <= before for after, before in zip(threads_after, threads_before, strict=True))
    until(lambda: not any(open_databases(worker) for worker in server.workers()), "idle segments to be closed")
    until(lambda: server.metrics()["tlog_open_segments"] == 0, "the metric to say so")
    # Nor does it leave anything behind that is not in the database itself.
    assert not list((server.data / "segments").glob("*-wal"))
    assert [segment.checkpoint().size for segment in segments] == [32_002] + [2] * 19


@pytest.mark.long
def test_no_more_segments_are_open_than_are_allowed(start_server: Callable[..., Server]) -> None:
    server = start_server(environment={"TLOG_OPEN_SEGMENTS": "8", "TLOG_IDLE_SECONDS": "600", "TLOG_SCRUB_RATE": "0"})
    segments = [server.create(f"zone-{number}") for number in range(200)]
    for turn in range(2):
        for segment in segments:
            assert parse_receipt(segment.append(b'"%b"' % segment.name.encode())).index == turn
        for worker in server.workers():
            names = {path.partition(".")[0] for path in open_databases(worker)}
            assert 1 <= len(names) <= 8
    assert 2 <= server.metrics()["tlog_open_segments"] <= 16
    # Those that are used at the same time stay open all the same.
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda segment: segment.append(b'"again"'), segments))
    assert {segment.checkpoint().size for segment in segments} == {3}


# Operations


def counters_of(server: Server) -> Path:
    """Return the folder in memory that a server holds."""
    held = [path.readlink() for path in Path(f"/proc/{server.process.pid}/fd").iterdir() if path.is_symlink()]
    [found] = [one for one in held if one.match("shm/tlog-*")]
    return found


def test_a_start_clears_the_counters_of_killed_servers_and_not_those_in_use(
    tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    killed, living = (start_server(tmp_path / name, workers=1) for name in ("killed", "living"))
    left, used = counters_of(killed), counters_of(living)
    assert left != used
    killed.kill()
    start_server(tmp_path / "next", workers=1)
    assert (left.exists(), used.exists()) == (False, True)
    until(lambda: 'tlog_requests_total{method="GET",route="/readyz",status="200"}' in living.metrics(), "counters")
    assert living.stop() == 0
    assert not used.exists()


def test_metrics_count_over_all_workers(start_server: Callable[..., Server]) -> None:
    server = start_server()
    segment, other = server.create("payments"), server.create("refunds")
    for _ in range(30):
        segment.append(b"1")
    segment.append(b"1\n" * 600, NDJSON)
    other.append(b"1", key="k")
    assert [bool(open_databases(worker)) for worker in server.workers()] == [True, True]
    for index in range(12):
        assert segment.get(f"/proof/inclusion/630/{index}").status_code == 200
        assert segment.get(f"/proof/consistency/{index}/630").status_code == 200
    assert segment.get("/no-such").status_code == 404
    # A worker counts what it has answered within a tenth of a second.
    route = "/segments/<segment>/entries"
    counts = {
        f'tlog_request_seconds_count{{route="{route}"}}': 32,
        'tlog_request_seconds_count{route="none"}': 1,
        "tlog_proof_seconds_count": 24,
        "tlog_commit_seconds_count": 32 + 2,
    }
    until(lambda: counts.items() <= server.metrics().items(), "the counters")
    # Whichever worker is asked.
    for _ in range(8):
        samples = server.metrics()
        assert samples["tlog_appends_total"] == 32
        assert samples['tlog_entries_total{segment="payments"}'] == 630
        assert samples['tlog_entries_total{segment="refunds"}'] == 1
        # Each segment that was made is an entry of control.
        assert samples['tlog_entries_total{segment="control"}'] == 2
        assert samples["tlog_commit_entries_sum"] == 631 + 2
        assert samples["tlog_commit_entries_count"] == 32 + 2
        assert samples['tlog_commit_entries_bucket{le="1.0"}'] == 31 + 2
        assert samples["tlog_commit_seconds_count"] == 32 + 2
        assert 0 < samples["tlog_commit_seconds_sum"] < PATIENCE
        assert samples["tlog_proof_seconds_count"] == 24
        assert 0 < samples["tlog_proof_seconds_sum"] < PATIENCE
        assert samples['tlog_segment_size{segment="payments"}'] == 630
        assert samples['tlog_segment_size{segment="refunds"}'] == 1
        assert 3 <= samples["tlog_open_segments"] <= 6
        assert samples[f'tlog_requests_total{{method="POST",route="{route}",status="201"}}'] == 32
        assert samples['tlog_requests_total{method="GET",route="none",status="404"}'] == 1
        assert samples[f'tlog_request_seconds_count{{route="{route}"}}'] == 32
    assert server.request("GET", "/metrics").headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_made_up_methods_do_not_swell_the_metrics(server: Server) -> None:
    for number in range(5):
        assert server.request(f"BREW{number}", "/healthz").status == 405
    other = 'tlog_requests_total{method="other",route="none",status="405"}'
    until(lambda: server.metrics().get(other, 0) >= 5, "them to be counted")
    assert "BREW" not in server.request("GET", "/metrics").body.decode()


def test_readiness_is_that_of_the_storage_and_liveness_that_of_the_process(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(workers=1)
    assert server.request("GET", "/readyz").status == 200
    control = sqlite3.connect(server.data / "control.db", isolation_level=None)
    control.execute("alter table segment rename to gone")
    answer = server.request("GET", "/readyz")
    assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert answer.json()["type"] == "urn:tlog:problem:unavailable"
    assert answer.headers["Retry-After"]
    assert server.request("GET", "/healthz").status == 200
    control.execute("alter table gone rename to segment")
    control.close()
    assert server.request("GET", "/readyz").status == 200


def test_the_log_is_one_json_object_a_line_for_each_request_and_holds_no_payload(
    start_server: Callable[..., Server],
) -> None:
    server = start_server()
    secret = "hunter2-in-the-payload"
    body = json.dumps({"password": secret}).encode()
    sent: dict[str, tuple[str, int]] = {}

    def post(name: str, kind: str, content: bytes, status: int, **headers: str) -> None:
        request_id = f"request-{len(sent)}"
        path = f"/segments/{name}/entries"
        answer = server.request("POST", path, content, {"Content-Type": kind, "X-Request-Id": request_id, **headers})
        assert answer.status == status
        sent[request_id] = (name, status)

    server.create("payments")
    post("payments", JSON, body, 201)
    post("payments", NDJSON, body + b"\n" + body, 201)
    post("payments", "text/plain", secret.encode(), 201)
    post("payments", JSON, body, 201, **{"Idempotency-Key": secret})
    post("payments", JSON, b"[" + body, 400)
    post("payments", NDJSON, b"1\n[" + body, 400)
    post("payments", JSON, b"1", 422, **{"Idempotency-Key": secret})
    post("no-such", JSON, body, 404)
    # A fault of the storage is logged with its traceback.
    assert server.stop() == 0
    assert not list(server.data.rglob("*-wal"))
    control = sqlite3.connect(server.data / "control.db")
    [(name,)] = control.execute("select id from segment where name = 'payments'")
    control.close()
    path = server.data / "segments" / f"{name}.db"
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = bytes(len(damaged) - 4096)
    path.write_bytes(damaged)
    again = start_server(port=server.port)
    post("payments", JSON, body, 500)
    # What was answered last is in the log of a server that was stopped.
    assert again.stop() == 0
    lines = server.logged()
    for request_id, (name, status) in sent.items():
        [line] = [line for line in lines if line.get("request_id") == request_id and line["event"] == "request"]
        assert (line["method"], line["segment"], line["status"]) == ("POST", name, status)
        assert line["route"] == "/segments/<segment>/entries"
        assert 0 < line["milliseconds"] < PATIENCE * 1000
        assert line["level"] == "info"
        assert line["timestamp"].endswith("Z")
    [fault] = [line for line in lines if line["event"] == "failed"]
    assert (fault["level"], fault["request_id"]) == ("error", f"request-{len(sent) - 1}")
    assert "Traceback" in fault["exception"]
    text = server.log.read_text()
    assert secret not in text
    assert "PRIVATE+KEY" not in text


def test_the_first_requests_may_come_all_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE, tmp_path / "data"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


# What the server says of itself


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    made = create_app(Config(tmp_path / "data"))
    yield made
    made.config["SERVICES"].segments.close()
    os.close(made.config["LOCK"])


def served(app: Flask) -> set[tuple[str, str]]:
    """Return method and path of everything that the app serves, but for HEAD, which is served wherever GET is."""
    return {
        (method, re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }


def is_page(path: str) -> bool:
    return path in ("/", "/web") or path.startswith("/web/")


def test_the_openapi_document_describes_every_route_and_no_other(server: Server, app: Flask) -> None:
    document = server.request("GET", "/openapi.json").json()
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["title"] == "tlog"
    assert document["info"]["version"]
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    # Pages are for people, and in no description of the API.
    assert described == {(method, path) for method, path in served(app) if not is_page(path)}
    # Two paths that differ in the names of their parameters only are one path, and may not both be there.
    shapes = [re.sub(r"\{\w+\}", "{}", path) for path in document["paths"]]
    assert len(shapes) == len(set(shapes))


def test_the_openapi_document_is_valid_in_itself(server: Server) -> None:
    document = server.request("GET", "/openapi.json").json()
    operations = [(path, operation) for path, item in document["paths"].items() for operation in item.values()]
    assert len({operation["operationId"] for _, operation in operations}) == len(operations)
    for path, operation in operations:
        assert path.startswith("/")
        assert operation["summary"]
        parameters = [(parameter["name"], parameter["in"]) for parameter in operation["parameters"]]
        assert len(parameters) == len(set(parameters))
        assert re.findall(r"\{(\w+)\}", path) == [name for name, where in parameters if where == "path"]
        for parameter in operation["parameters"]:
            assert parameter["in"] in ("path", "query", "header")
            assert parameter["schema"]
            assert parameter["required"] or parameter["in"] != "path"
        assert set(operation["responses"]) > {"4XX", "5XX"}
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-3][0-9][0-9]|[45]XX", status)
            assert response["description"]
            assert all(re.fullmatch(r"[\w.+*-]+/[\w.+*-]+", kind) for kind in response.get("content", ()))
        if "requestBody" in operation:
            assert all(re.fullmatch(r"[\w.+*-]+/[\w.+*-]+", kind) for kind in operation["requestBody"]["content"])
    for reference in references(document):
        place = document
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]
    assert set(document["components"]["schemas"]) == {
        reference.rpartition("/")[2] for reference in references(document)
    }


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            assert value["$ref"].startswith("#/")
            yield value["$ref"]
        for member in value.values():
            yield from references(member)
    elif isinstance(value, list):
        for member in value:
            yield from references(member)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/segments", models.SegmentList),
        ("/segments/NAME", models.Segment),
        ("/segments/NAME/entries", models.Entries),
        ("/segments/NAME/entries/0", models.Entry),
        ("/segments/NAME/proof/inclusion/1/0", models.InclusionProof),
        ("/segments/NAME/proof/consistency/0/1", models.ConsistencyProof),
        ("/no-such", models.Problem),
    ],
)
def test_an_answer_has_the_members_of_its_model_and_no_others(
    server: Server, segment: Segment, path: str, model: Any
) -> None:
    segment.append(b"1")
    body = server.request("GET", path.replace("NAME", segment.name)).body
    decoded = msgspec.json.decode(body, type=model)
    assert json.loads(msgspec.json.encode(decoded)) == json.loads(body)


def test_every_route_passes_the_choke_point_before_anything_else(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Action, str | None]] = []

    def refuse(
        _guard: object, _request: object, action: Action, segment: str | None, *_more: object, **_: object
    ) -> None:
        asked.append((action, segment))
        raise NotFoundError("nobody may do anything")

    monkeypatch.setattr(Guard, "authorize", refuse)
    services: Services = app.config["SERVICES"]
    routes = {(route.method, route.path): route for route in (*services.routes, *PAGES)}
    client = app.test_client()
    seen = set[str]()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:path:)?(\w+)>", lambda match: "payments" if match[1] == "segment" else "0", rule.rule)
        for method in rule.methods or set():
            route: Route = routes["GET" if method == "HEAD" else method, rule.rule]
            response = client.open(path, method=method)
            # A receiver has its sender's words for it, and maybe another status.
            kind = "application/problem+json" if route.refuse is None else response.content_type
            assert response.content_type == kind
            assert response.status_code == 404 if route.refuse is None else response.status_code >= 400
            assert b"nobody may do anything" in response.data or method == "HEAD"
            assert asked.pop() == (route.action, "payments" if "<segment>" in rule.rule else None)
            assert asked == []
            seen.add(rule.rule)
    assert seen == {route.path for route in (*services.routes, *PAGES)}
    assert [row.name for row in services.segments.list()] == ["access", "control"]


def test_only_get_routes_answer_head_and_only_those_of_splunk_options(app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        # Docker's driver asks by OPTIONS whether there is such a route.
        asked = [{"OPTIONS"}] if rule.rule.startswith("/services/collector") else []
        assert rule.methods in ({"GET", "HEAD"}, {"PUT"}, {"POST"}, {"DELETE"}, *asked)


def test_the_server_stops_on_an_interrupt_from_the_keyboard(start_server: Callable[..., Server]) -> None:
    server = start_server(workers=1)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(PATIENCE) == 0


def test_what_goes_through_the_segments_by_and_by_ends_with_them(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    services: Services = create_app(Config(tmp_path / "data")).config["SERVICES"]
    going = [one for one in set(threading.enumerate()) - before if one.name in ("scrub", "following")]
    assert len(going) == 2
    services.segments.close()
    until(lambda: not any(one.is_alive() for one in going), "scrub and following to end")
