"""With software that is not ours: the audit webhook of kube-apiserver (tests/kubernetes), at a server that asks who.

Needs Go, and what `tests/kubernetes/go.sum` names, which Go fetches if it has not got it.
"""

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from certificate import make_certificate
from ingesting import POLICY, Log, make_log
from live import PATIENCE, Server, start, until
from others import needs_go, run_go

pytestmark = needs_go

SOURCES = Path(__file__).parent.parent / "kubernetes"
SAMPLE = [json.loads(line) for line in (SOURCES.parent / "samples" / "kubernetes.jsonl").read_bytes().splitlines()]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    run_go("build", "-mod=readonly", "-o", built, ".", folder=SOURCES)
    return built


def with_certificate(folder: Path) -> Path:
    """Make a certificate of the server: without TLS an API server shows no credential."""
    make_certificate(folder / "certificate.pem", folder / "key.pem")
    return folder / "certificate.pem"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """One log for all tests that leave it running."""
    folder = tmp_path_factory.mktemp("webhook")
    made = make_log(start, folder / "data", certificate=with_certificate(folder))
    yield made
    made.server.kill()


@pytest.fixture
def log(start_server: Callable[..., Server], tmp_path: Path) -> Log:
    """A log of the test's own."""
    return make_log(start_server, tmp_path / "data", certificate=with_certificate(tmp_path))


class Sender:
    """A running API server, as far as its audit events go."""

    def __init__(self, process: "subprocess.Popen[bytes]", reports: Path) -> None:
        self.process = process
        self._reports = reports

    def send(self, events: Sequence[dict[str, Any]]) -> list[str]:
        """Let events happen, and return their IDs."""
        self.send_lines([json.dumps(event).encode() for event in events])
        return [event["auditID"] for event in events]

    def send_lines(self, lines: Sequence[bytes]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(line + b"\n" for line in lines))
        self.process.stdin.flush()

    def reported(self) -> dict[str, str]:
        """Return of each event that the sender is done with whether it took it for sent or for lost."""
        whole, _, _ = self._reports.read_text().rpartition("\n")
        pairs = [line.split(" ") for line in whole.splitlines()]
        found = {audit_id: outcome for outcome, audit_id in pairs}
        assert len(found) == len(pairs)
        return found

    def finish(self) -> dict[str, str]:
        """Shut the sender down, which sends what it still has, and return what it reported in all."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0
        return self.reported()


def basic(token: str) -> dict[str, str]:
    return {"username": "kube-apiserver", "password": token}


def bearer(token: str) -> dict[str, str]:
    return {"token": token}


@contextmanager
def sending(
    program: Path, folder: Path, log: Log, user: dict[str, str], mode: str = "batch", wait: str = "1s"
) -> Iterator[Sender]:
    """Run a sender with a kubeconfig, which is YAML, and so JSON."""
    config, out = folder / "kubeconfig", folder / "reports"
    cluster = {"server": f"{log.server.url}/ingest/kubernetes", "certificate-authority": str(log.server.certificate)}
    described = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tlog", "cluster": cluster}],
        "users": [{"name": "api-server", "user": user}],
        "contexts": [{"name": "webhook", "context": {"cluster": "tlog", "user": "api-server"}}],
        "current-context": "webhook",
    }
    config.write_text(json.dumps(described))
    with out.open("wb") as reports, (folder / "sender.err").open("wb") as errors:
        process = subprocess.Popen([program, config, mode, wait], stdin=subprocess.PIPE, stdout=reports, stderr=errors)
    try:
        yield Sender(process, out)
    finally:
        process.kill()
        process.communicate()


def events(count: int, **more: Any) -> list[dict[str, Any]]:
    """Return so many events, each with an ID of its own."""
    return [{**SAMPLE[place % len(SAMPLE)], **more, "auditID": str(uuid.uuid4())} for place in range(count)]


def requests_of(log: Log) -> list[dict[str, Any]]:
    return [line for line in log.server.logged() if line.get("route") == "/ingest/kubernetes"]


def logged(log: Log, ids: Sequence[str]) -> dict[str, int]:
    """Return how often those of the events are there that are."""
    found = log.ids()
    return {one: found[one] for one in ids if one in found}


def once(ids: Sequence[str]) -> dict[str, int]:
    return dict.fromkeys(ids, 1)


@pytest.mark.parametrize(("credential", "mode"), [(bearer, "blocking"), (basic, "batch"), (bearer, "truncated")])
def test_the_api_server_sends_by_token_or_password_whether_it_waits_or_not(
    program: Path, shared: Log, tmp_path: Path, credential: Callable[[str], dict[str, str]], mode: str
) -> None:
    with sending(program, tmp_path, shared, credential(shared.sender), mode) as sender:
        ids = sender.send(events(64))
        assert sender.finish() == dict.fromkeys(ids, "sent")
    assert logged(shared, ids) == once(ids)
    assert {"k8s-default", "k8s-shop", "k8s-cluster"} <= set(shared.names())


def test_the_api_server_is_not_heard_without_a_credential_that_holds(
    program: Path, shared: Log, tmp_path: Path
) -> None:
    for user in ({}, bearer(shared.sender[:-1] + "-"), basic("")):
        with sending(program, tmp_path, shared, user, "blocking", "1ms") as sender:
            ids = sender.send(events(1))
            assert sender.finish() == dict.fromkeys(ids, "lost")
        assert "provide credentials" in (tmp_path / "sender.err").read_text()
        assert logged(shared, ids) == {}


def test_the_api_server_sends_nothing_to_whom_it_cannot_tell(program: Path, shared: Log, tmp_path: Path) -> None:
    stranger = replace(shared, server=replace(shared.server, certificate=with_certificate(tmp_path)))
    with sending(program, tmp_path, stranger, bearer(shared.sender), "blocking", "1ms") as sender:
        sender.send(events(1))
        assert set(sender.finish().values()) == {"lost"}


def test_what_the_api_server_takes_for_sent_is_there_once_however_often_the_log_is_killed(
    program: Path, log: Log, tmp_path: Path
) -> None:
    with sending(program, tmp_path, log, bearer(log.sender), wait="1500ms") as sender:
        ids: list[str] = []
        for _ in range(2):
            done = len(sender.reported())
            ids += sender.send(events(4_800))
            until(lambda done=done: len(sender.reported()) > done, "a list to be sent")  # type: ignore[misc]
            log.server.kill()
            log.start()
        found = sender.finish()
    assert set(found) == set(ids)
    logged = log.ids()
    assert [one for one, outcome in found.items() if outcome == "sent" and not logged[one]] == []
    assert set(logged.values()) == {1}
    # It has been retried until it went through.
    assert set(found.values()) == {"sent"}


def test_an_event_that_cannot_be_logged_holds_no_other_up(program: Path, shared: Log, tmp_path: Path) -> None:
    good = events(40)
    big = {**good[0], "auditID": "big", "requestObject": {"revision": 9_007_199_254_740_993}, "level": "Request"}
    twice = json.dumps({**big, "auditID": "twice"}).encode().replace(b'{"revision"', b'{"revision": 1, "revision"')
    long = {**big, "auditID": "long", "requestObject": {"data": "x" * (1 << 20)}}
    with sending(program, tmp_path, shared, bearer(shared.sender)) as sender:
        sender.send(good[:20])
        sender.send_lines([json.dumps(big).encode(), twice, json.dumps(long).encode()])
        sender.send(good[20:])
        assert set(sender.finish().values()) == {"sent"}
    ids = [event["auditID"] for event in good]
    assert logged(shared, ids) == once(ids)
    kept = shared.payloads("quarantine")
    assert all(one["receiver"] == "kubernetes" for one in kept)
    assert len({one["sha256"] for one in kept}) == 3
    whole = [json.loads(one["text"]) for one in kept if one["parts"] == 1]
    assert sorted(one["auditID"] for one in whole) == ["big", "twice"]


def test_a_list_of_more_than_ten_million_bytes_goes_in_as_one(program: Path, log: Log, tmp_path: Path) -> None:
    large = events(400, level="Request", requestObject={"data": "x" * 30_000})
    with sending(program, tmp_path, log, bearer(log.sender)) as sender:
        ids = sender.send(large)
        assert sender.finish() == dict.fromkeys(ids, "sent")
    assert logged(log, ids) == once(ids)
    until(lambda: requests_of(log), "the log to say so")
    assert len(requests_of(log)) == 1


def test_the_api_server_waits_as_it_is_told_when_a_quota_is_used_up(
    program: Path, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    quota = '\n[[quota]]\nname = "all"\nrequests_per_second = 6\nprincipals = ["sender"]\n'
    log = make_log(start_server, tmp_path / "data", policy=POLICY + quota, certificate=with_certificate(tmp_path))
    # It would be an hour before the webhook sends again by itself.
    with sending(program, tmp_path, log, bearer(log.sender), "blocking", "1h") as sender:
        ids = sender.send(events(24))
        assert sender.finish() == dict.fromkeys(ids, "sent")
    assert log.ids() == once(ids)
    assert 429 in {line["status"] for line in requests_of(log)}


def test_the_api_server_waits_as_it_is_told_when_the_log_has_no_room(program: Path, log: Log, tmp_path: Path) -> None:
    assert log.server.stop() == 0
    log.start(workers=1, options=["--reserve-mib", str(1 << 40)])
    with sending(program, tmp_path, log, bearer(log.sender), "blocking", "1s") as sender:
        ids = sender.send(events(1))
        until(lambda: [line for line in requests_of(log) if line["status"] == 503][1:], "a second attempt")
        assert sender.reported() == {}
        log.server.kill()
        log.start()
        assert sender.finish() == dict.fromkeys(ids, "sent")
    assert log.ids() == once(ids)
