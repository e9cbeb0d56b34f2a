"""The command `tlog-client monitor`, its folder under crashes, and where its findings go."""

import json
import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from live import until
from monitoring import Watch, policy_of
from simulator import START, Logged, Simulator, refuse

from tlog_client.cli import run
from tlog_client.monitor.app import Answer, make_app
from tlog_client.monitor.follower import Settings
from tlog_client.monitor.report import Webhook
from tlog_core.commitment import Commitment, Opening
from tlog_core.entry import Entry
from tlog_core.note import signer_from_seed

TESTS = Path(__file__).parent.parent
TLOG_CLIENT = Path(sys.executable).parent / "tlog-client"
STATE = "state"


@pytest.fixture
def policy(sim: Simulator, tmp_path: Path) -> Path:
    path = tmp_path / "trust.policy"
    path.write_bytes(bytes(policy_of(sim)))
    return path


def command(policy: Path, *more: str) -> list[str]:
    return [str(TLOG_CLIENT), "monitor", "--policy", str(policy), "--state", str(policy.parent / STATE), *more]


def once(policy: Path, *more: str, **environment: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run the monitor once; return its exit status, findings, and what it said."""
    run = subprocess.run(
        command(policy, "--once", *more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()], run.stderr


def break_time(sim: Simulator) -> None:
    raw = bytes(Entry(Commitment(bytes(32)), sim.key.name, START - 5, "alice"))
    sim.take(Logged(raw, "text/plain", Opening(bytes(32)), b"x"))


# Exit statuses


def test_the_exit_status_is_the_worst_of_what_is_known(sim: Simulator, policy: Path) -> None:
    sim.grow(5)
    status, findings, said = once(policy)
    assert (status, findings) == (0, [])
    assert "verified log.example/audit/segments/payments 5 " in said
    sim.faults.append(refuse(404))
    status, [complaint], _ = once(policy)
    assert (status, complaint["class"], complaint["state"]) == (3, "complaint", "begun")
    break_time(sim)
    status, findings, _ = once(policy)
    assert status == 4
    assert [(one["class"], one["state"]) for one in findings] == [("violation", "new"), ("complaint", "ended")]
    sim.fork(0)
    status, [evidence], said = once(policy)
    assert (status, evidence["class"], evidence["id"]) == (1, "evidence", 4)
    assert "evidence (fork)" in said
    assert once(policy)[:2] == (1, [])
    judged = subprocess.run(
        [TLOG_CLIENT, "verify-evidence", policy.parent / STATE / "evidence" / evidence["evidence"], "--policy", policy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0
    assert judged.stdout.startswith("proven: log log.example/audit/segments/payments signed two roots of 6 entries")


def test_a_receipt_is_judged(sim: Simulator, policy: Path, tmp_path: Path) -> None:
    sim.grow(5)
    (tmp_path / "receipts").write_bytes(bytes(sim.receipt(1)) + bytes(sim.receipt(3)))
    assert once(policy)[0] == 0
    assert once(policy, "--receipt", str(tmp_path / "receipts"))[:2] == (0, [])
    sim.fork(3)
    (tmp_path / "other").write_bytes(bytes(sim.receipt(3)))
    status, findings, _ = once(policy, "--receipt", str(tmp_path / "other"))
    assert (status, [one["kind"] for one in findings]) == (1, ["entry", "fork"])
    assert {one["source"] for one in findings} == {"receipt"}


@pytest.mark.parametrize("option", ["--interval", "--max-age", "--patience"])
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e300", "1000000001"])
def test_seconds_that_nobody_can_wait_are_wrong_usage(policy: Path, option: str, seconds: str) -> None:
    wrong(policy, option, seconds)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", ":1", "127.0.0.1:", "127.0.0.1:70000", "[::1]"])
def test_an_address_to_listen_at_has_a_host_and_a_port(policy: Path, address: str) -> None:
    assert "HOST:PORT" in wrong(policy, "--listen", address)


@pytest.mark.parametrize("url", ["nourl", "ftp://x", "https:///x", "http://x:0", "http://x:99999", "http://[x"])
def test_a_webhook_that_cannot_be_posted_to_is_wrong_usage_and_not_shown(policy: Path, url: str) -> None:
    assert url not in wrong(policy, "--webhook", url)


def test_receipts_that_are_none_and_a_policy_without_a_log_are_wrong_usage(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "receipt").write_text("{}")
    assert "receipt" in wrong(policy, "--receipt", str(tmp_path / "receipt"))
    policy.write_text("quorum none\n")
    assert "no log" in wrong(policy)


def wrong(policy: Path, *options: str) -> str:
    """Check that the monitor does not even begin; return what it said."""
    status, findings, said = once(policy, *options)
    assert (status, findings, said.count("\n")) == (2, [], 2)
    assert said.startswith("tlog-client: ")
    assert not (policy.parent / STATE).exists()
    return said


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full"])
def test_a_monitor_that_nobody_hears_is_no_evidence(policy: Path, closed: str) -> None:
    run = shell(policy, closed)
    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
def test_a_finding_that_cannot_be_written_is_told_by_the_next_run(sim: Simulator, policy: Path, output: str) -> None:
    sim.faults += [refuse(404)] * 2
    run = shell(policy, output)
    assert run.returncode == 5
    assert run.stderr.splitlines()[-1].startswith("tlog-client: what was found cannot be written to standard output: ")
    assert "please report" not in run.stderr
    status, [finding], _ = once(policy)
    assert (status, finding["kind"], finding["id"]) == (3, "unreachable", 1)


def shell(policy: Path, more: str) -> subprocess.CompletedProcess[str]:
    line = f"exec {shlex.join(command(policy, '--once'))} {more}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)


def test_what_nobody_foresaw_is_no_evidence(
    policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tlog_client.monitor.command.status", lambda _: 1 // 0)
    assert run(command(policy, "--once")[1:]) == 5
    said = capsys.readouterr().err
    assert "this program failed; please report this" in said
    assert "ZeroDivisionError" in said


def test_a_credential_is_not_shown_to_two_servers(policy: Path) -> None:
    other = signer_from_seed("other.example/segments/x", bytes([5]) * 32).verifier
    text = policy.read_text().replace("quorum", f"log {other} https://other.example/segments/x\nquorum")
    policy.write_text(text)
    status, _, said = once(policy, TLOG_TOKEN="tlog_x_y")  # noqa: S106
    assert status == 2
    assert "several servers" in said


def test_a_folder_in_use_or_damaged_stops_the_monitor(sim: Simulator, policy: Path) -> None:
    folder = policy.parent / STATE
    watch = Watch(policy_of(sim), folder, Settings())
    status, _, said = once(policy)
    assert (status, "another monitor runs" in said) == (5, True)
    watch.memory.close()
    (folder / "memory.db").write_bytes(b"x" * 5000)
    for more in (folder / "memory.db-wal", folder / "memory.db-shm"):
        more.unlink(missing_ok=True)
    assert once(policy)[0] == 5


def test_a_log_without_url_is_said_to_be_heard_of_only(sim: Simulator, policy: Path) -> None:
    policy.write_text(f"log {sim.key}\nquorum none\n")
    status, _, said = once(policy)
    assert (status, "heard of only" in said, sim.routes()) == (0, True, [])


def test_it_goes_on_until_it_is_told_to_stop(sim: Simulator, policy: Path, tmp_path: Path) -> None:
    output = tmp_path / "said"
    with output.open("wb") as out:
        process = subprocess.Popen(
            command(policy, "--interval", "0.05", "--listen", "127.0.0.1:0"), stdout=out, stderr=out
        )
    try:
        until(lambda: "listening on " in output.read_text(), "the monitor to listen")
        url = output.read_text().partition("listening on ")[2].split()[0]
        sim.grow(4)
        until(lambda: "payments 4 " in output.read_text(), "4 entries to be verified")
        break_time(sim)
        until(lambda: '"kind":"time"' in output.read_text(), "the violation")
        until(lambda: "payments 5 " in output.read_text(), "5 entries to be verified")
        text = requests.get(f"{url}/metrics", timeout=10).text
        origin = 'origin="log.example/audit/segments/payments"'
        assert f"tlog_monitor_size{{{origin}}} 5.0" in text
        assert f'tlog_monitor_findings_total{{class="violation",kind="time",{origin}}} 1.0' in text
        assert requests.get(f"{url}/healthz", timeout=10).text == "ok\n"
        assert requests.get(f"{url}/nothing", timeout=10).status_code == 404
        assert requests.post(f"{url}/metrics", data=b"x", timeout=10).status_code == 405
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in output.read_text()


# Crashes


def crash_everywhere(policy: Path, base: Path, out: Path) -> list[Path]:
    """Kill a monitor at each operation of a round; return the folders that this left."""
    out.mkdir()
    run = subprocess.run(
        [sys.executable, TESTS / "crashing.py", policy, base, out],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [path for path in out.iterdir() if path.is_dir()]


def reported(folder: Path) -> str:
    path = folder.with_name(f"{folder.name}.reported")
    return path.read_text() if path.exists() else ""


def test_a_head_reported_as_verified_is_known_after_a_kill_at_any_operation(
    sim: Simulator, policy: Path, tmp_path: Path
) -> None:
    sim.grow(5)
    watch = Watch(policy_of(sim), tmp_path / "base", Settings())
    watch.round()
    watch.memory.close()
    sim.grow(295)
    folders = crash_everywhere(policy, tmp_path / "base", tmp_path / "out")
    assert len(folders) > 20
    told = {folder: "verified 300" in reported(folder) for folder in folders}
    assert set(told.values()) == {True, False}
    honest = list(sim.logged)
    for folder in folders:
        for index in (200, 3):
            # Another history from `index` on: known to be one to whoever saw the head of 300, or of 5.
            if index == 200 and not told[folder]:
                continue
            copy = folder.with_name(f"{folder.name}-{index}")
            shutil.copytree(folder, copy)
            sim.logged[:] = honest
            sim._rebuild()
            sim.fork(index)
            sim.grow(1)
            again = Watch(policy_of(sim), copy, Settings())
            again.findings()
            again.round()
            assert again.memory.is_convicted(sim.key.name), folder
            assert len(list((copy / "evidence").glob("*.evidence"))) >= 1
            again.memory.close()
    # And whoever goes on with the honest log is as if nothing had happened.
    sim.logged[:] = honest
    sim._rebuild()
    for folder in folders:
        again = Watch(policy_of(sim), folder, Settings())
        assert (again.round(), again.size) == ([], 300)
        again.memory.close()


def test_evidence_reported_is_kept_after_a_kill_at_any_operation(sim: Simulator, policy: Path, tmp_path: Path) -> None:
    sim.grow(300)
    watch = Watch(policy_of(sim), tmp_path / "base", Settings())
    watch.round()
    watch.memory.close()
    honest = list(sim.logged)
    sim.fork(7)
    folders = crash_everywhere(policy, tmp_path / "base", tmp_path / "out")
    told = {folder: '"evidence"' in reported(folder) for folder in folders}
    assert set(told.values()) == {True, False}
    sim.logged[:] = honest
    sim._rebuild()
    for folder in folders:
        again = Watch(policy_of(sim), folder, Settings())
        files = list((folder / "evidence").glob("*.evidence"))
        if told[folder]:
            assert again.memory.is_convicted(sim.key.name)
        if again.memory.is_convicted(sim.key.name):
            # Told before it was killed, or told now.
            assert files
            assert told[folder] or [one["class"] for one in again.findings()] == ["evidence"]
        again.memory.close()


def test_evidence_that_a_crash_left_unreported_is_taken_up(sim: Simulator, policy: Path, tmp_path: Path) -> None:
    sim.grow(3)
    watch = Watch(policy_of(sim), tmp_path / "other", Settings())
    watch.round()
    sim.fork(1)
    watch.round()
    watch.memory.close()
    evidence = policy.parent / STATE / "evidence"
    evidence.parent.mkdir()
    shutil.copytree(tmp_path / "other" / "evidence", evidence)
    status, [found], _ = once(policy)
    assert (status, found["source"]) == (1, "folder")
    for path in evidence.iterdir():
        path.unlink()
    assert once(policy)[0] == 1
    assert [path.name for path in evidence.glob("*.evidence")] == [found["evidence"]]


def test_what_lies_among_the_evidence_and_is_none_is_named_and_passed_over(policy: Path) -> None:
    evidence = policy.parent / STATE / "evidence"
    (evidence / "folder.evidence").mkdir(parents=True)
    (evidence / "dangling.evidence").symlink_to("nowhere")
    os.mkfifo(evidence / "pipe.evidence")
    (evidence / "large.evidence").write_bytes(bytes(16_385))
    (evidence / "rubbish.evidence").write_bytes(bytes(16_384))
    status, findings, said = once(policy)
    assert (status, findings) == (0, [])
    for name in ("folder", "dangling", "pipe", "large"):
        assert f"/{name}.evidence: passed over" in said
    assert "tlog-client: rubbish.evidence: " in said


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(path.read_bytes()[:-1]), os.mkfifo])
def test_evidence_that_was_damaged_is_restored_and_said_to_be(
    sim: Simulator, policy: Path, harm: Callable[[Path], object]
) -> None:
    sim.grow(3)
    once(policy)
    sim.fork(1)
    assert once(policy)[0] == 1
    [path] = (policy.parent / STATE / "evidence").glob("*.evidence")
    raw = path.read_bytes()
    if harm is os.mkfifo:
        path.unlink()
    harm(path)
    status, _, said = once(policy)
    assert (status, path.read_bytes()) == (1, raw)
    assert f"{path.name}: the evidence was not there as it was kept, and is restored" in said
    assert "restored" not in once(policy)[2]


# Listening


@contextmanager
def listening(policy: Path, *more: str, address: str = "127.0.0.1:0", files: int = 0, taken: int = 0) -> Iterator[str]:
    """Run a monitor, and yield the URL at which it listens.

    If `files` is given, it is its soft limit of open files; so many as are `taken` are open from the beginning.
    """
    output = policy.parent / "said"

    def limit() -> None:
        for _ in range(taken):
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
        if files:
            limit_files(files)

    with output.open("wb") as out:
        process = subprocess.Popen(
            command(policy, "--listen", address, *more),
            stdout=out,
            stderr=out,
            preexec_fn=limit,
            close_fds=False,
        )
    try:
        until(lambda: "listening on " in output.read_text(), "the monitor to listen")
        yield output.read_text().partition("listening on ")[2].split()[0]
    finally:
        process.terminate()
        process.wait(30)
    assert "Traceback" not in output.read_text()


def limit_files(number: int) -> int:
    """Have this process open at most so many files; return the limit before."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, most))
    return before


# With many files open, the numbers of sockets are beyond what select can wait for.
@pytest.mark.parametrize(("idle", "files", "taken"), [(400, 0, 0), (400, 64, 0), (900, 0, 200)])
def test_connections_that_bring_nothing_do_not_keep_others_out(
    sim: Simulator, policy: Path, idle: int, files: int, taken: int
) -> None:
    with ExitStack() as stack:
        stack.callback(limit_files, limit_files(2_000))
        url = stack.enter_context(listening(policy, "--interval", "0.05", files=files, taken=taken))
        host, port = url.removeprefix("http://").split(":")
        for number in range(idle):
            one = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            one.sendall(b"POST /gossip/v1/exchange HTTP/1.1\r\nHost: x\r\n"[: number % 50])
        assert requests.get(f"{url}/healthz", timeout=5).text == "ok\n"
        assert requests.get(f"{url}/metrics", timeout=5).status_code == 200
        # And the log is still looked at.
        sim.grow(7)
        until(lambda: "payments 7 " in (policy.parent / "said").read_text(), "7 entries to be verified")


@pytest.mark.long
def test_a_connection_that_brings_nothing_is_closed(policy: Path) -> None:
    with listening(policy) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=25) as one:
            one.sendall(b"GET /healthz HTTP/1.1\r\n")
            assert one.recv(1) == b""


def test_an_address_of_ip_version_6_is_shown_as_urls_have_it(policy: Path) -> None:
    with listening(policy, address="[::1]:0") as url:
        assert url.startswith("http://[::1]:")
        assert requests.get(f"{url}/healthz", timeout=5).text == "ok\n"


@pytest.mark.parametrize("address", ["nosuch.invalid:0", "a..b:0", "192.0.2.1:1"])
def test_an_address_that_cannot_be_had_stops_the_monitor(policy: Path, address: str) -> None:
    status, _, said = once(policy, "--listen", address)
    assert (status, "cannot listen on " in said) == (5, True)


# The webhook


class Hook:
    """A server that takes findings, after refusing the first few."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.taken: list[dict[str, Any]] = []
        self.asked = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.asked += 1
                refused = hook.asked <= hook.refusals
                if not refused:
                    hook.taken.append(json.loads(body))
                self.send_response(500 if refused else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hook() -> Iterator[Callable[[int], Hook]]:
    opened: list[Hook] = []

    def start(refusals: int) -> Hook:
        opened.append(Hook(refusals))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_the_webhook_gets_each_finding_in_order_also_those_of_earlier_runs(
    sim: Simulator, policy: Path, hook: Callable[[int], Hook]
) -> None:
    refusing, taking = hook(1 << 30), hook(0)
    sim.grow(3)
    sim.faults.append(refuse(404))
    status, first, said = once(policy, "--webhook", refusing.url)
    assert (status, refusing.taken) == (3, [])
    assert "the webhook answered with HTTP status 500" in said
    assert "/hook" not in said
    _, second, _ = once(policy, "--webhook", taking.url)
    assert taking.taken == first + second
    assert [one["state"] for one in taking.taken] == ["begun", "ended"]
    once(policy, "--webhook", taking.url)
    assert len(taking.taken) == 2


def test_the_webhook_is_asked_again_until_it_takes_a_finding(
    sim: Simulator, tmp_path: Path, hook: Callable[[int], Hook]
) -> None:
    server, failures = hook(1), list[str]()
    watch = Watch(policy_of(sim), tmp_path / STATE, Settings())
    sim.faults.append(refuse(404))
    watch.follower.round()
    webhook = Webhook(watch.memory, server.url, failed=failures.append)
    webhook.start()
    until(lambda: server.taken, "the finding to be taken")
    webhook.stop(10)
    watch.memory.close()
    assert (len(server.taken), len(failures), server.asked) == (1, 1, 2)


# The app


def ask(method: str, path: str, *, length: str = "", body: bytes = b"") -> tuple[str, bytes]:
    statuses: list[str] = []
    app = make_app({("POST", "/echo"): lambda raw: Answer(201, "text/plain", raw, {"Retry-After": "7"})}, max_body=8)
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_LENGTH": length, "wsgi.input": BytesIO(body)}
    parts = app(environ, lambda status, _headers, _error=None: statuses.append(status))  # type: ignore[arg-type]
    return statuses[0], b"".join(parts)


def test_the_app_hands_a_bounded_body_to_the_route() -> None:
    assert ask("POST", "/echo", length="3", body=b"abcdef") == ("201 Created", b"abc")
    assert ask("POST", "/echo", length="9", body=b"abcdefghi")[0] == "413 Request Entity Too Large"
    assert ask("POST", "/echo", length="-1")[0] == "400 Bad Request"
    assert ask("GET", "/echo")[0] == "405 Method Not Allowed"
    assert ask("GET", "/other")[0] == "404 Not Found"
