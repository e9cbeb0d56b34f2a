"""HTTP as the client speaks it: bounded, patient, and unmoved by what the other side says."""

import gzip
import socket
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from dripping import DRIPS, Talk, raw_server
from simulator import Answer, Simulator, drop_before, refuse, unavailable

from tlog_client import Backoff, FetchError, Log, MalformedError, RefusedError, TransientError
from tlog_client.transport import Transport, new_session

OpenLog = Callable[..., Log]


def answering(status: int, body: bytes = b"", **headers: str) -> Callable[[object], Answer]:
    return lambda _: Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def test_a_redirect_is_not_followed(log: Log, sim: Simulator) -> None:
    sim.faults.append(answering(302, Location=f"{sim.url}/checkpoint"))
    with pytest.raises(FetchError, match="302"):
        log.checkpoint()
    assert len(sim.requests) == 1


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("checkpoint", Log.checkpoint),
        ("tile", lambda log: list(log.committed())),
        ("proof", lambda log: log.entry(1)),
        ("entries", lambda log: log.entry(1)),
    ],
)
def test_an_answer_without_end_is_cut_off(log: Log, sim: Simulator, path: str, ask: Callable[[Log], object]) -> None:
    sim.grow(3)
    log.checkpoint()
    sim.lies[path] = lambda _: Answer(200, bytes(70 << 20))
    with pytest.raises(FetchError, match="longer than"):
        ask(log)


def test_an_answer_that_unpacks_without_end_is_cut_off(log: Log, sim: Simulator) -> None:
    sim.faults.append(answering(200, gzip.compress(bytes(50 << 20)), Content_Encoding="gzip"))
    with pytest.raises(FetchError, match="longer than"):
        log.checkpoint()


def test_a_compressed_answer_is_read(log: Log, sim: Simulator) -> None:
    sim.faults.append(answering(200, gzip.compress(sim.note()), Content_Encoding="gzip"))
    assert log.checkpoint().size == 0


def test_an_answer_that_pretends_to_be_compressed_is_an_error(log: Log, sim: Simulator) -> None:
    sim.faults.append(answering(200, sim.note(), Content_Encoding="gzip"))
    with pytest.raises(FetchError):
        log.checkpoint()


def test_a_refusal_says_what_the_log_said(log: Log, sim: Simulator) -> None:
    sim.faults.append(refuse(413, kind="too-large", detail="payload over 1 MiB", line=7))
    with pytest.raises(RefusedError, match="payload over 1 MiB") as caught:
        log.append(1)
    error = caught.value
    assert (error.status, error.type, error.detail, error.line) == (
        413,
        "urn:tlog:problem:too-large",
        "payload over 1 MiB",
        7,
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b'{"detail": 7, "type": null, "line": true}'])
def test_a_refusal_without_a_problem_document_is_still_a_refusal(log: Log, sim: Simulator, body: bytes) -> None:
    sim.faults.append(answering(403, body))
    with pytest.raises(RefusedError, match="403") as caught:
        log.append(1)
    assert (caught.value.type, caught.value.line) == ("about:blank", None)


def test_a_problem_cannot_write_on_the_terminal(log: Log, sim: Simulator) -> None:
    sim.faults.append(refuse(400, detail="\x1b[2Jgone\nagain\u202e\x9b" + "x" * 5000, kind="\x07"))
    with pytest.raises(RefusedError) as caught:
        log.append(1)
    assert str(caught.value).isprintable()
    assert caught.value.type.isprintable()
    assert len(caught.value.detail) == 1000


@pytest.mark.parametrize("status", [400, 404, 500, 501])
def test_what_will_not_pass_is_asked_once(log: Log, sim: Simulator, status: int) -> None:
    sim.faults.append(answering(status))
    with pytest.raises(FetchError):
        log.checkpoint()
    assert len(sim.requests) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_pass_is_asked_again(log: Log, sim: Simulator, status: int) -> None:
    sim.faults += [answering(status), drop_before]
    assert log.checkpoint().size == 0
    assert len(sim.requests) == 3


def test_the_wait_between_attempts_doubles(log: Log, sim: Simulator, pauses: list[float]) -> None:
    sim.faults += [unavailable(), unavailable()]
    log.checkpoint()
    assert pauses == [0.5, 1.0]


def test_the_wait_between_attempts_is_spread(pauses: list[float]) -> None:
    throws = iter((0.0, 0.5, 1.0))
    backoff = Backoff(first=1.0, sleep=pauses.append, jitter=lambda: next(throws))
    for _ in range(3):
        backoff.pause(3, asked=0.0)
    assert pauses == [2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("asked", "wait"), [("3", 3.0), ("0", 0.5), ("86400", 20.0), ("-1", 0.5), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.5)]
)
def test_retry_after_is_honoured_within_bounds(
    log: Log, sim: Simulator, pauses: list[float], asked: str, wait: float
) -> None:
    sim.faults.append(unavailable(asked))
    log.checkpoint()
    assert pauses == [wait]


def test_attempts_come_to_an_end(log: Log, sim: Simulator, pauses: list[float]) -> None:
    sim.faults += [unavailable("7")] * 10
    with pytest.raises(TransientError, match="come back later") as caught:
        log.checkpoint()
    assert caught.value.wait == 7.0
    assert (len(sim.requests), len(pauses)) == (3, 2)


def test_a_log_that_is_silent_is_given_up(open_log: OpenLog, sim: Simulator) -> None:
    silence = threading.Event()

    def keep_silent(_: object) -> None:
        silence.wait(5)

    sim.faults += [keep_silent] * 3
    with pytest.raises(TransientError, match="timed out"):
        open_log(timeout=0.05).checkpoint()
    silence.set()


def test_a_log_that_is_not_there_is_named(backoff: Backoff, sim: Simulator, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/segments/payments"
        with Log(url, sim.key, state=tmp_path, backoff=backoff) as log:
            with pytest.raises(TransientError) as caught:
                log.append(1)
            assert str(caught.value) == f"no answer from {url}: connection refused"
            assert not caught.value.reached


def test_a_certificate_is_not_tried_twice(
    sim: Simulator, backoff: Backoff, pauses: list[float], tmp_path: Path
) -> None:
    with Log(sim.url.replace("http:", "https:"), sim.key, state=tmp_path, backoff=backoff) as log:
        with pytest.raises(FetchError):
            log.checkpoint()
        assert pauses == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "payments",
        "ftp://log.example/x",
        "http://",
        "http:///x",
        "https://log.example/x?y=1",
        "http://[::1/",
        "http://x:y/",
    ],
)
def test_what_is_no_url_of_a_segment_is_told_at_once(sim: Simulator, url: str) -> None:
    with pytest.raises(MalformedError, match="not the URL of a segment"):
        Log(url, sim.key)


def test_a_slash_at_the_end_of_the_url_makes_no_difference(sim: Simulator, tmp_path: Path) -> None:
    with Log(f"{sim.url}/", sim.key, state=tmp_path) as log:
        assert log.checkpoint().size == 0


@pytest.mark.parametrize("own", [True, False])
def test_a_proxy_of_the_environment_or_of_a_session_is_used(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    proxy, session = sim.url.partition("/segments")[0], requests.Session()
    monkeypatch.setenv("no_proxy", "")
    if own:
        session.proxies["http"] = proxy
    else:
        monkeypatch.setenv("http_proxy", proxy)
    sim.grow(3)
    # There is no such host: only the proxy can have answered.
    log = Log("http://log.invalid/segments/payments", sim.key, state=tmp_path, session=session)
    with session:
        assert log.checkpoint().size == 3


def test_a_log_cannot_know_a_client_again_by_a_cookie(log: Log, sim: Simulator) -> None:
    sim.faults.append(answering(200, sim.note(), Set_Cookie="you=42; Path=/"))
    log.checkpoint()
    log.checkpoint()
    assert "cookie" not in sim.requests[1].headers


def test_a_session_brings_credentials_and_stays_open(sim: Simulator, tmp_path: Path) -> None:
    closed: list[Any] = []
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer secret"
        session.close = lambda: closed.append(1)  # type: ignore[method-assign]
        with Log(sim.url, sim.key, state=tmp_path, session=session) as log:
            log.append(1)
        assert closed == []
        del session.close
    assert sim.requests[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("talk", DRIPS)
def test_an_answer_that_only_trickles_is_given_up_and_not_asked_for_again(talk: Talk) -> None:
    outcome: list[Exception] = []

    def fetch(url: str) -> None:
        with new_session(0.5) as session:
            # Never so silent that the timeout would end it.
            transport = Transport(url, session=session, timeout=5.0, backoff=Backoff(attempts=3), deadline=0.5)
            try:
                transport.get("checkpoint", limit=2_000_000)
            except FetchError as error:
                outcome.append(error)

    with raw_server(talk) as url:
        thread = threading.Thread(target=fetch, args=(url,), daemon=True)
        thread.start()
        # Without the limit, the drops would keep it there until the test is over.
        thread.join(20)
        assert not thread.is_alive()
    [error] = outcome
    assert "takes too long" in str(error)
    assert not isinstance(error, TransientError)


def drip_nothing(connection: socket.socket, over: threading.Event) -> None:
    """Send gzip, of which nothing comes: empty blocks without end."""
    packer = zlib.compressobj(wbits=31)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + packer.compress(b"")
    with suppress(OSError):
        connection.sendall(head + packer.flush(zlib.Z_SYNC_FLUSH))
        while not over.is_set():
            connection.sendall(b"\x00\x00\x00\xff\xff" * 9_999)


def test_gzip_of_which_nothing_comes_is_given_up() -> None:
    with raw_server(drip_nothing) as url, new_session(5.0) as session:
        transport = Transport(url, session=session, timeout=5.0, backoff=Backoff(attempts=1), deadline=60.0)
        with pytest.raises(FetchError, match="longer than 1000 bytes"):
            transport.get("checkpoint", limit=1_000)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw + b"x", lambda raw: raw + raw])
def test_gzip_that_does_not_end_where_it_should_is_refused(sim: Simulator, damage: Callable[[bytes], bytes]) -> None:
    sim.faults.append(answering(200, damage(gzip.compress(sim.note())), Content_Encoding="gzip"))
    with new_session() as session, pytest.raises(FetchError, match="no gzip"):
        Transport(sim.url, session=session, timeout=5.0, backoff=Backoff(attempts=1)).get("checkpoint", limit=9_999)


def test_an_answer_in_time_is_not_cut_off_and_its_connection_is_used_again(sim: Simulator) -> None:
    sim.grow(3)
    with new_session(5.0) as session:
        transport = Transport(sim.url, session=session, timeout=5.0, backoff=Backoff(attempts=1))
        assert [transport.get("checkpoint", limit=9999) for _ in range(3)] == [sim.note()] * 3
        pools = session.get_adapter(sim.url).poolmanager.pools  # type: ignore[attr-defined]
        assert [pools[key].num_connections for key in pools.keys()] == [1]  # noqa: SIM118 - not a dict
