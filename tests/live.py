"""A real server: `tlog serve` in processes of its own, on a free port of loopback, over a folder of the test."""

import http.client
import itertools
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

import psutil
import requests
from click.testing import CliRunner, Result

from tlog.cli import main
from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.note import VerifierKey, parse_verifier

TLOG = Path(sys.executable).parent / "tlog"
LOG_NAME = "example.com/audit"
PATIENCE = 30.0
JSON = "application/json"
NDJSON = "application/x-ndjson"


def until(happened: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Return as soon as something happened; fail when patience is at an end."""
    end = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < end, f"waited {patience} seconds in vain: {what}"
        time.sleep(0.01)


def _ports() -> Iterator[int]:
    # A port is given back before the server takes it: none that the kernel gives out, or another process of the tests.
    first = 10_000 + 2_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return (first + number % 2_000 for number in itertools.count(os.getpid()))


_PORTS = _ports()


def free_port() -> int:
    return next(filter(_is_free, _PORTS))


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def tlog(*arguments: object) -> Result:
    """Run the command within this process, which spares most of its time."""
    # That of the command would stay.
    umask = os.umask(0o022)
    try:
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    finally:
        os.umask(umask)
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done


def tell(*arguments: object) -> str:
    """Run a command that must succeed, within this process, and return what it says."""
    done = tlog(*arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def stalled(port: int, count: int, request: str, *headers: str, length: int = 1000) -> Iterator[list[socket.socket]]:
    """Hold so many connections open that each send a part of the body of a request, such as `POST /add-checkpoint`."""
    head = "\r\n".join([f"{request} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *headers])
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)) for _ in range(count)]
        for one in held:
            one.sendall(f"{head}\r\n\r\nold 0".encode())
        yield held


def answered(held: Sequence[socket.socket]) -> list[socket.socket]:
    """Return those of the connections on which something has come back."""
    return select.select(held, [], [], 0)[0]


@dataclass
class Answer:
    """What came back over a connection of its own."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running server. Its log, standard output and error together, is the file `log`.

    It speaks TLS if it has a certificate.
    """

    process: subprocess.Popen[Any]
    port: int
    data: Path
    log: Path
    certificate: Path | None = field(default=None, kw_only=True)

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self.certificate is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        context = ssl.create_default_context(cafile=self.certificate)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=context)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def memory(self) -> int:
        """Return how many bytes the workers hold."""
        return sum(worker.memory_info().rss for worker in self.workers())

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Answer:
        """Send one request over a connection of its own, with the path and the headers as they are given."""
        connection = self._connect(timeout)
        try:
            connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.connect()
            # A server that has seen enough answers before it has read everything.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def create(self, name: str, labels: Mapping[str, str] | None = None) -> "Segment":
        body = json.dumps({"labels": labels}).encode() if labels else b""
        answer = self.request("PUT", f"/segments/{name}", body, {"Content-Type": JSON})
        assert answer.status == 201, answer.body
        return self.segment(name, answer.json()["vkey"])

    def segment(self, name: str, vkey: str) -> "Segment":
        return Segment(f"{self.url}/segments/{name}", name, parse_verifier(vkey))

    def payloads(self, name: str, headers: Mapping[str, str] | None = None) -> list[Any]:
        """Return the first payloads of a segment, up to 1,000; none if there is no such segment."""
        answer = self.request("GET", f"/segments/{name}/entries?limit=1000", None, headers)
        return [] if answer.status == 404 else [one["payload"] for one in answer.json()["entries"]]

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of the log, less one that is being written just now."""
        whole, _, _ = self.log.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

    def logged_request(self, request_id: str) -> dict[str, Any]:
        """Return the line of an answered request, which is written soon after the answer."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [
                line for line in self.logged() if (line["event"], line.get("request_id")) == ("request", request_id)
            ]
            return bool(found)

        until(look, f"the log of {request_id}")
        assert len(found) == 1
        return found[0]

    def metrics(self) -> dict[str, float]:
        """Return each sample by its name, with its labels as Prometheus writes them."""
        text = self.request("GET", "/metrics").body.decode()
        samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in samples}

    def stop(self, patience: float = PATIENCE) -> int:
        """Ask the server to stop, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience)

    def kill(self) -> None:
        """End every process of the server at once, as the kernel would when it runs out of memory."""
        if self.process.poll() is None:
            everyone = [psutil.Process(self.process.pid), *self.workers()]
            # Stopped first, so that none sees another die.
            for sent in (signal.SIGSTOP, signal.SIGKILL):
                for process in everyone:
                    process.send_signal(sent)
            until(lambda: not any(map(_lives, everyone)), "the server's processes to be dead")
        self.process.wait(PATIENCE)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def paste_lines(output: str, folder: Path, **environment: str) -> list[str]:
    """Run the lines that a server on an empty folder prints, as they are, and return what each prints."""
    lines = [line for line in output.splitlines() if "tlog-client" in line]
    assert len(lines) == 3
    bare = {"HOME": str(folder), "PATH": "/usr/bin:/bin", **environment}
    done = [
        # The lines are ours, and are to be pasted.
        subprocess.run(line, shell=True, cwd=folder, env=bare, capture_output=True, text=True, check=False)  # noqa: S602
        for line in lines
    ]
    assert [one.returncode for one in done] == [0, 0, 0], done
    return [one.stdout for one in done]


def start(
    data: Path,
    *,
    workers: int = 2,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    log_name: str | None = LOG_NAME,
    before: Callable[[], None] | None = None,
    guarded: bool = False,
    program: Sequence[str | Path] = (TLOG,),
    options: Sequence[str] = (),
    certificate: Path | None = None,
) -> Server:
    """Start a server and return when it is ready. `before` runs in its process before anything else.

    The key of its `certificate` stands beside it, as `make_certificate` with `key.pem` puts it.
    """
    port = port or free_port()
    log = data.parent / f"{data.name}.log"
    command = [
        *map(str, program),
        "serve",
        "--data",
        str(data),
        "--port",
        str(port),
        "--workers",
        str(workers),
        *options,
    ]
    if certificate is not None:
        command += ["--certificate", str(certificate), "--key", str(certificate.with_name("key.pem"))]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*command, *([] if guarded else ["--unguarded"]), *(["--log-name", log_name] if log_name else [])],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(environment or {})},
            preexec_fn=before,
        )
    server = Server(process, port, data, log, certificate=certificate)
    try:
        until(lambda: _is_ready(server, workers), f"the server to be ready; see {log}")
    except BaseException:
        server.kill()
        raise
    return server


@contextmanager
def faultless(server: Server) -> Iterator[Server]:
    """Stop a server at the end; it must never have answered with a fault of its own."""
    yield server
    status = server.stop()
    faults = [line for line in server.logged() if line.get("status", 0) >= 500 or line["level"] == "error"]
    assert (status, faults) == (0, [])


def _is_ready(server: Server, workers: int) -> bool:
    assert server.process.poll() is None, server.log.read_text()
    # To look through all processes takes longer than to start a server; so not before there is something to see.
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", server.port)):
            return False
    # Each worker listens for itself, so one that answers says nothing of the others.
    listening = [worker for worker in server.workers() if _listens(worker, server.port)]
    if len(listening) < workers:
        return False
    return server.request("GET", "/readyz").status == 200


def _listens(worker: psutil.Process, port: int) -> bool:
    sockets = worker.net_connections("tcp")
    return any(socket.status == psutil.CONN_LISTEN and socket.laddr.port == port for socket in sockets)


@dataclass(frozen=True)
class Segment:
    """A segment of a running server. Each request has a connection of its own, so that any worker may answer."""

    url: str
    name: str
    key: VerifierKey

    def get(self, path: str, **headers: str) -> requests.Response:
        """Read what is below the segment's prefix."""
        return requests.get(f"{self.url}{path}", headers=headers, timeout=PATIENCE)

    def post(self, body: bytes, kind: str = JSON, key: str | None = None) -> requests.Response:
        headers = {"Content-Type": kind, **({"Idempotency-Key": key} if key is not None else {})}
        return requests.post(f"{self.url}/entries", data=body, headers=headers, timeout=PATIENCE)

    def append(self, body: bytes, kind: str = JSON, key: str | None = None) -> bytes:
        """Log a body and return the receipt, still unverified."""
        response = self.post(body, kind, key)
        assert response.status_code == 201, response.content
        return response.content

    def note(self) -> bytes:
        return self.get("/checkpoint").content

    def checkpoint(self) -> Checkpoint:
        """Return the latest checkpoint after its signature."""
        return open_checkpoint(self.note(), self.key)

    def entries(self, start: int, end: int) -> list[Any]:
        """Return the entries of [start, end) with their payloads."""
        found: list[Any] = []
        while start + len(found) < end:
            limit = min(end - start - len(found), 1000)
            page = self.get(f"/entries?start={start + len(found)}&limit={limit}").json()["entries"]
            assert page, f"no entries from {start + len(found)} on"
            found += page
        return found
