"""The command `tlog-client monitor`, its folder under crashes, and where its findings go."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from live import until
from monitoring import Watch, policy_of
from simulator import START, Logged, Simulator, refuse

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


@pytest.mark.parametrize(
    "options", [["--listen", "nowhere"], ["--listen", ":1"], ["--listen", "127.0.0.1:70000"], ["--interval", "0"]]
)
def test_wrong_usage_is_told(policy: Path, options: list[str]) -> None:
    status, findings, said = once(policy, *options)
    assert (status, findings) == (2, [])
    assert said.startswith("tlog-client: ")


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
