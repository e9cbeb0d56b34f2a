"""A guarded log, a relay before it, and rsyslog, each in processes of its own."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import Any

import psutil
import requests
from live import LOG_NAME, PATIENCE, Server, start, tell, until

from tlog.formats.syslog_message import format_message
from tlog_client.recording.lane import Batch

TLOG_CLIENT = Path(sys.executable).parent / "tlog-client"
RSYSLOG = Path(__file__).parent.parent / "scripts" / "rsyslog"
POLICY = """
[[rule]]
name = "the relay writes"
roles = ["writer", "creator"]
principals = ["relay"]
segments = ["syslog", "vault", "quarantine"]

[[rule]]
name = "the auditor reads"
roles = ["auditor"]
principals = ["auditor"]
segments = ["*"]
"""


@dataclass
class Log:
    """A guarded log, its token for the relay, and what its auditor finds there behind a mark."""

    server: Server
    token: str
    auditor: str
    marks: dict[str, int]

    def restart(self) -> None:
        self.server = start(self.server.data, port=self.server.port, guarded=True, log_name=None)

    def mark(self) -> None:
        """From here on, find only what comes."""
        if self.server.process.poll() is not None:
            self.restart()
        for name in ("syslog", "vault", "quarantine"):
            self.marks[name] = self.marks.get(name, 0) + len(self.payloads(name))

    def payloads(self, name: str) -> list[Any]:
        """Return the payloads of a segment, none if it is not there."""
        found: list[Any] = []
        while page := self._page(name, self.marks.get(name, 0) + len(found)):
            found += [one["payload"] for one in page]
        return found

    def came(self, name: str) -> int:
        """Return how many entries of a segment came since the mark."""
        return int(self._get(name).json().get("size", 0)) - self.marks.get(name, 0)

    def messages(self) -> list[Any]:
        """Return what each message of syslog was logged as."""
        return [payload["syslog"] for payload in self.payloads("syslog")]

    def raw(self) -> list[bytes]:
        """Return the messages of syslog as they came."""
        return list(map(format_message, self.messages()))

    def kept(self) -> list[str]:
        """Return what is in quarantine, which is ASCII here."""
        parts: dict[str, bytes] = {}
        for one in self.payloads("quarantine"):
            data = one["text"].encode() if "text" in one else b64decode(one["data"])
            parts[one["sha256"]] = parts.get(one["sha256"], b"") + data
        return [data.decode("ascii") for data in parts.values()]

    def _page(self, name: str, start: int) -> Any:
        answer = self._get(f"{name}/entries?start={start}&limit=1000")
        return [] if answer.status_code == 404 else answer.json()["entries"]

    def _get(self, path: str) -> requests.Response:
        shown = {"Authorization": f"Bearer {self.auditor}"}
        return requests.get(f"{self.server.url}/segments/{path}", headers=shown, timeout=PATIENCE)


def make_log(data: Path) -> Log:
    tell("segment", "create", "quarantine", "--data", data, "--log-name", LOG_NAME)
    policy = data.with_suffix(".policy")
    policy.write_text(POLICY)
    tell("policy", "apply", policy, "--data", data)
    token, auditor = (tell("token", "issue", name, "--data", data) for name in ("relay", "auditor"))
    return Log(start(data, guarded=True, log_name=None), token, auditor, {})


@dataclass
class Relay:
    """A running relay, and where it listens, in the order in which it was told to."""

    process: "subprocess.Popen[bytes]"
    output: Path
    ports: list[int]

    def said(self) -> str:
        return self.output.read_text()

    def memory(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def connect(self, place: int = 0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports[place]), PATIENCE)

    def send(self, data: bytes) -> None:
        """Send over a connection of its own, which ends cleanly."""
        with self.connect() as connection:
            connection.sendall(data)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def relaying(folder: Path, url: str, token: str, *options: str | Path) -> Iterator[Relay]:
    """Run a relay; of its options, each address with port 0 is at a free port."""
    output = folder / "relay.said"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [TLOG_CLIENT, "relay", "--server", url, "--state", folder / "state", *options],
            stderr=out,
            env={**os.environ, "TLOG_TOKEN": token},
        )
    relay = Relay(process, output, [])
    count = sum(option in ("--syslog", "--syslog-tls", "--vault") for option in options)

    def listens() -> bool:
        assert process.poll() is None, relay.said()
        return relay.said().count("listening for") == count

    try:
        until(listens, "the relay to listen")
        relay.ports += [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", relay.said())]
        yield relay
    finally:
        process.kill()
        process.wait()


_RSYSLOG = """
global(workDirectory="{folder}" maxMessageSize="64k" {tls})
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{folder}/in.sock")
template(name="older" type="string" string="<%PRI%>%TIMESTAMP% %HOSTNAME% %syslogtag%%msg:::sp-if-no-1st-sp%%msg%")
action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" action.resumeRetryCount="-1"
       action.resumeInterval="1" queue.type="LinkedList" queue.size="100000" {options})
"""


@contextmanager
def rsyslog(folder: Path, port: int, options: str, tls: str = "") -> Iterator[Callable[[Sequence[str]], None]]:
    """Run rsyslog, which sends to a port of this machine; yield what gives it messages."""
    folder.mkdir()
    (folder / "conf").write_text(_RSYSLOG.format(folder=folder, port=port, options=options, tls=tls))
    process = subprocess.Popen([RSYSLOG, "-n", "-f", folder / "conf", "-i", folder / "pid"])
    until((folder / "in.sock").exists, "rsyslog to listen", 120)
    handler = SysLogHandler(str(folder / "in.sock"))
    handler.ident = "till[7]: "

    def give(texts: Sequence[str]) -> None:
        for text in texts:
            handler.handle(logging.LogRecord("till", logging.INFO, "", 0, text, None, None))

    try:
        yield give
    finally:
        handler.close()
        process.terminate()
        process.wait(PATIENCE)


def kept_in(folder: Path) -> list[bytes]:
    """Return the lines of the spools in a folder."""
    return [line for path in sorted(folder.rglob("*.batch")) for line in Batch(path).read()[0]]


def lines_of(program: Path, *arguments: str | int | Path, **environment: str) -> list[str]:
    """Run a program of tests/vault, and return what it says of each request."""
    run = subprocess.run(
        [program, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return run.stdout.splitlines()
