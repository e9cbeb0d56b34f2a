"""Each request to a web application is on record once it has ended, however it ended: who did what."""

import asyncio
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flask
import pytest
import requests
from live import PATIENCE, Segment, free_port, until
from werkzeug.serving import make_server

from tlog_client.recording import AsgiMiddleware, Recorder, WsgiMiddleware


class Kept(Recorder):
    """Keeps what is recorded, in place of a log."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def record(self, event: Any) -> None:
        self.events.append(dict(event))


@pytest.fixture
def recorder(segment: Segment, tmp_path: Path) -> Iterator[Recorder]:
    with Recorder(segment.url, segment.key, tmp_path / "spool", state=tmp_path / "state") as one:
        yield one


@contextmanager
def serving(application: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def shop() -> flask.Flask:
    app = flask.Flask("shop")

    @app.before_request
    def log_in() -> None:
        if user := flask.request.headers.get("X-User"):
            flask.request.environ["REMOTE_USER"] = user

    @app.post("/orders/<name>")
    def order(name: str) -> tuple[str, int]:
        return name, 201

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("a bug")

    @app.get("/stream")
    def stream() -> flask.Response:
        def parts() -> Iterator[bytes]:
            yield b"x" * 100
            raise RuntimeError("in the middle")

        return flask.Response(parts())

    return app


def logged(segment: Segment, *targets: str) -> list[Any]:
    """Return what is logged of these targets: a request may end after the next has begun."""
    until(lambda: segment.checkpoint().size >= len(targets), "the requests to be logged")
    events = [entry["payload"] for entry in segment.entries(0, segment.checkpoint().size)]
    assert sorted(event["target"] for event in events) == sorted(targets)
    return sorted(events, key=lambda event: targets.index(event["target"]))


def test_flask_requests_are_logged(segment: Segment, recorder: Recorder) -> None:
    app = shop()
    app.wsgi_app = WsgiMiddleware(app.wsgi_app, recorder)  # type: ignore[method-assign]
    with serving(app) as url:
        requests.post(f"{url}/orders/straße?token=secret", headers={"X-User": "alice"}, timeout=PATIENCE)
        requests.get(f"{url}/nowhere", timeout=PATIENCE)
        requests.get(f"{url}/broken", timeout=PATIENCE)
        with pytest.raises(requests.RequestException):
            requests.get(f"{url}/stream", timeout=PATIENCE).raise_for_status()
        order, nowhere, broken, stream = logged(segment, "/orders/straße", "/nowhere", "/broken", "/stream")
    assert {**order, "time": "", "duration_ms": 0} == {
        "time": "",
        "actor": "alice",
        "action": "POST",
        "target": "/orders/straße",
        "outcome": "success",
        "source": "127.0.0.1",
        "status": 201,
        "duration_ms": 0,
    }
    assert order["time"].endswith("Z")
    assert 0 <= order["duration_ms"] < 1000 * PATIENCE
    assert "actor" not in nowhere
    assert (nowhere["status"], nowhere["outcome"]) == (404, "failure")
    # Flask itself answers for what a view raises before its answer begins.
    assert (broken["status"], broken["outcome"]) == (500, "failure")
    assert (stream["status"], stream["outcome"], stream["exception"]) == (200, "failure", "RuntimeError")


def call(application: Any, kept: Kept, **options: Any) -> Callable[[], None]:
    """Return what asks a WSGI application for a page, and reads it to its end as servers do."""
    middleware = WsgiMiddleware(application, kept, **options)

    def go() -> None:
        body = middleware({"REQUEST_METHOD": "GET", "PATH_INFO": "/x"}, lambda *_: lambda _: None)
        try:
            list(body)
        finally:
            body.close()  # type: ignore[attr-defined]

    return go


def test_a_request_is_recorded_when_its_response_has_ended_and_not_before() -> None:
    kept = Kept()

    def application(_: Any, start: Any) -> Iterable[bytes]:
        start("200 OK", [])
        yield b"a"
        assert kept.events == []
        yield b"b"
        assert kept.events == []

    call(application, kept)()
    assert [event["status"] for event in kept.events] == [200]


def test_an_application_that_raises_is_recorded_once_and_raises_all_the_same() -> None:
    kept = Kept()

    def application(_: Any, __: Any) -> Iterable[bytes]:
        raise RuntimeError("secret")

    with pytest.raises(RuntimeError):
        call(application, kept)()
    (event,) = kept.events
    assert (event["status"], event["outcome"], event["exception"]) == (500, "failure", "RuntimeError")
    assert "secret" not in str(event)


def test_a_body_that_cannot_be_closed_is_recorded_once() -> None:
    kept = Kept()

    class Body(list[bytes]):
        def close(self) -> None:
            raise RuntimeError

    def application(_: Any, start: Any) -> Iterable[bytes]:
        start("200 OK", [])
        return Body([b"x"])

    with pytest.raises(RuntimeError):
        call(application, kept)()
    assert [event["exception"] for event in kept.events] == ["RuntimeError"]


def test_the_application_says_who_it_was() -> None:
    kept = Kept()

    def application(environ: Any, start: Any) -> Iterable[bytes]:
        environ["shop.user"] = "bob"
        start("204 No Content", [])
        return []

    call(application, kept, who=lambda environ: environ["shop.user"])()
    assert kept.events[0]["actor"] == "bob"


def test_who_cannot_be_told_harms_no_request(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()

    def application(_: Any, start: Any) -> Iterable[bytes]:
        start("200 OK", [])
        return []

    with caplog.at_level(logging.ERROR):
        call(application, kept, who=lambda environ: environ["no such"])()
    assert "actor" not in kept.events[0]
    assert "cannot tell who" in caplog.text


# ASGI

PAGE = """
import os
from types import SimpleNamespace
from tlog_client.recording import AsgiMiddleware, Recorder

async def page(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    scope["user"] = SimpleNamespace(display_name="alice")
    if scope["path"] == "/broken":
        raise RuntimeError("a bug")
    status = 403 if scope["path"] == "/secret" else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})

recorder = Recorder(os.environ["URL"], os.environ["KEY"], "spool", state="state")
app = AsgiMiddleware(page, recorder)
"""


def test_asgi_requests_are_logged(segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.py").write_text(PAGE)
    monkeypatch.setenv("URL", segment.url)
    monkeypatch.setenv("KEY", str(segment.key))
    port = free_port()
    command = [str(Path(sys.executable).parent / "granian"), "--interface", "asgi", "--port", str(port), "page:app"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: _answers(f"{url}/first"), "the server to answer")
            for path in ("/secret?token=secret", "/broken"):
                requests.get(f"{url}{path}", timeout=PATIENCE)
            events = logged(segment, "/first", "/secret", "/broken")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(PATIENCE)
    assert [(event["target"], event["status"], event["outcome"]) for event in events] == [
        ("/first", 200, "success"),
        ("/secret", 403, "failure"),
        ("/broken", 500, "failure"),
    ]
    assert {(event["actor"], event["action"], event["source"]) for event in events} == {("alice", "GET", "127.0.0.1")}
    assert events[2]["exception"] == "RuntimeError"


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=PATIENCE).ok
    except requests.ConnectionError:
        return False


def ask(kept: Kept, scope: dict[str, Any], *messages: dict[str, Any], error: BaseException | None = None) -> None:
    """Have an application send messages, and perhaps raise."""

    async def application(_: Any, __: Any, send: Any) -> None:
        for message in messages:
            await send(message)
            assert kept.events == []
        if error is not None:
            raise error

    async def nothing(*_: Any) -> Any:
        return {}

    asyncio.run(AsgiMiddleware(application, kept)(scope, nothing, nothing))


@pytest.mark.parametrize(
    ("messages", "status", "outcome"),
    [
        (["websocket.accept", "websocket.send", "websocket.close"], 101, "success"),
        (["websocket.close"], 403, "failure"),
    ],
)
def test_a_web_socket_is_recorded_at_its_end(messages: list[str], status: int, outcome: str) -> None:
    kept = Kept()
    ask(kept, {"type": "websocket", "path": "/chat", "client": None}, *({"type": name} for name in messages))
    (event,) = kept.events
    assert (event["action"], event["target"], event["status"], event["outcome"]) == (
        "WEBSOCKET",
        "/chat",
        status,
        outcome,
    )


@pytest.mark.parametrize("error", [RuntimeError("secret"), asyncio.CancelledError()])
def test_an_asgi_application_that_raises_is_recorded_and_raises_all_the_same(error: BaseException) -> None:
    kept = Kept()
    with pytest.raises(type(error)):
        ask(kept, {"type": "http", "method": "GET", "path": "/"}, error=error)
    assert [event["exception"] for event in kept.events] == [type(error).__name__]


def test_what_is_no_request_is_not_recorded() -> None:
    kept = Kept()
    ask(kept, {"type": "lifespan"})
    assert kept.events == []
