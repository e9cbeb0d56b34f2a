"""How a relay listens and sends, in this process: who takes too long, who are too many, and what is sent again."""

import asyncio
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relaying import kept_in

from tlog_client.relay import listener, sender
from tlog_client.relay import spool as spool_module
from tlog_client.relay.kind import SYSLOG
from tlog_client.relay.listener import Listener
from tlog_client.relay.spool import Spool
from tlog_client.transport import Backoff, Transport, new_session

PATIENCE = 10.0


@dataclass
class Bench:
    """A listener, what it keeps, what it said, and connections to it."""

    port: int
    spool: Spool
    folder: Path
    said: list[str]
    stack: ExitStack

    def kept(self) -> list[bytes]:
        return kept_in(self.folder)

    async def log(self) -> list[bytes]:
        """Have the oldest batch logged, and return it."""
        batch = await self.spool.batch()
        assert batch is not None
        messages = self.spool.read(batch)
        await self.spool.done(batch)
        return messages

    def connect(self) -> socket.socket:
        return self.stack.enter_context(socket.create_connection(("127.0.0.1", self.port), PATIENCE))


def listening(folder: Path, act: Callable[[Bench], Awaitable[None]], most_bytes: int = 1 << 20) -> None:
    """Have something done at a listener."""

    async def run() -> None:
        said: list[str] = []
        spool = Spool(folder, said.append, most_bytes)
        one = Listener(SYSLOG, ("127.0.0.1", 0), spool, said.append)
        accepting = asyncio.create_task(one.accept())
        try:
            with ExitStack() as stack:
                async with asyncio.timeout(PATIENCE):
                    await act(Bench(int(str(one).rpartition(":")[2]), spool, folder, said, stack))
        finally:
            accepting.cancel()
            await spool.stop_waiting()
            await one.stop(1.0)
            spool.release()

    asyncio.run(run())


async def until(happened: Callable[[], object]) -> None:
    while not happened():
        await asyncio.sleep(0.01)


def test_who_takes_too_long_for_a_message_is_cut_off_and_what_came_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(listener, "MESSAGE_SECONDS", 0.3)

    async def drip(bench: Bench) -> None:
        connection = bench.connect()
        connection.sendall(b"9 <34>")
        # Bytes that trickle in do not help.
        while not bench.said:
            connection.sendall(b"x")
            await asyncio.sleep(0.2)
        [kept] = await bench.log()
        assert re.fullmatch(rb"tlog-client relay: a message whose end is missing, from \S+: <34>x+", kept)
        assert re.search("takes more than .* seconds for one message; it is cut off", bench.said[0])

    listening(tmp_path, drip)


def test_who_says_nothing_between_messages_is_not_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(listener, "MESSAGE_SECONDS", 0.1)

    async def pause(bench: Bench) -> None:
        connection = bench.connect()
        for text in (b"<34>one\n", b"<34>two\n"):
            connection.sendall(text)
            await asyncio.sleep(0.3)
        assert (bench.kept(), bench.said) == ([b"<34>one", b"<34>two"], [])

    listening(tmp_path, pause)


def test_how_long_a_relay_reads_nothing_does_not_count_against_who_sends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(listener, "MESSAGE_SECONDS", 0.2)

    async def wait(bench: Bench) -> None:
        connection = bench.connect()
        # The first fills the spool; half of the next is read with it.
        connection.sendall(b"<34>" + b"x" * 100 + b"\n<34>se")
        await until(bench.kept)
        await asyncio.sleep(0.4)
        connection.sendall(b"cond\n")
        await bench.log()
        assert (await bench.log(), bench.said) == ([b"<34>second"], [])

    listening(tmp_path, wait, most_bytes=50)


def test_more_connections_than_there_are_places_for_wait_for_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 2)

    async def crowd(bench: Bench) -> None:
        connections = [bench.connect() for _ in range(3)]
        for connection in connections:
            connection.sendall(b"<34>x\n")
        await asyncio.sleep(0.2)
        assert len(bench.kept()) == 2
        connections[0].close()
        await until(lambda: len(bench.kept()) == 3)

    listening(tmp_path, crowd)


def test_without_room_no_more_are_accepted(tmp_path: Path) -> None:
    async def crowd(bench: Bench) -> None:
        for _ in range(5):
            bench.connect().sendall(b"<34>" + b"x" * 100 + b"\n")
            await asyncio.sleep(0.05)
        # One was waited for while there was room.
        assert 1 <= len(bench.kept()) <= 2
        heard = 0
        # All are heard in the end.
        while heard < 5:
            heard += len(await bench.log())

    listening(tmp_path, crowd, most_bytes=50)


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"\\n", b"\n", b"\\\n", b""]), min_size=1))
def test_messages_of_any_bytes_are_kept_as_they_came(messages: list[bytes]) -> None:
    async def run(folder: Path) -> list[bytes]:
        spool = Spool(folder, print)
        await spool.add(messages)
        batch = await spool.batch()
        assert batch is not None
        found = spool.read(batch)
        spool.release()
        return found

    with TemporaryDirectory() as folder:
        assert asyncio.run(run(Path(folder))) == messages


def test_who_sends_waits_while_the_disk_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_PAUSE_SECONDS", 0.01)
    said: list[str] = []

    async def run() -> None:
        spool = Spool(tmp_path / "spool", said.append)
        (tmp_path / "spool").rename(tmp_path / "away")
        adding = asyncio.create_task(spool.add([b"one"]))
        await until(lambda: said)
        (tmp_path / "away").rename(tmp_path / "spool")
        await adding
        spool.release()

    asyncio.run(run())
    assert kept_in(tmp_path) == [b"one"]
    assert said == ["what is not logged yet cannot be kept: No such file or directory; trying again"]


@contextmanager
def answering(*answers: tuple[int, dict[str, str]]) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Answer requests as told, by status 0 not at all; yield where, and the keys and bodies that came."""
    left, came = list(answers), list[tuple[str, bytes]]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.headers["Idempotency-Key"], self.rfile.read(int(self.headers["Content-Length"]))))
            status, headers = left.pop(0)
            if status:
                self.send_response(status)
                for name, value in {"Content-Length": "2", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", came
        finally:
            server.shutdown()
            thread.join()


def test_a_request_is_sent_again_under_its_key_whatever_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def pause(_: Spool, seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 3 or len(pauses) == 6

    monkeypatch.setattr(Spool, "pause", pause)
    answers = [(429, {"Retry-After": "7"}), (503, {"Retry-After": "99"}), (0, {}), (401, {}), (400, {}), (500, {})]
    said: list[str] = []

    async def run(url: str, *messages: bytes) -> None:
        spool = Spool(tmp_path, said.append)
        await spool.add(messages)
        await spool.close()
        with new_session() as session:
            transport = Transport(url, session=session, timeout=5.0, backoff=Backoff(attempts=1))
            await sender.send_all(SYSLOG, spool, transport, said.append)
        spool.release()

    with answering(*answers, (200, {}), (200, {})) as (url, came):
        # It is stopped twice, and each time the next goes on.
        for messages in ([b"<34>one", b"<34>two"], [b"<34>three"], []):
            asyncio.run(run(url, *messages))
    keys, bodies = [key for key, _ in came], [body for _, body in came]
    assert bodies == [b"7 <34>one7 <34>two"] * 7 + [b"9 <34>three"]
    assert [len(set(keys[:7])), len(set(keys))] == [1, 2]
    # What the log asks for, within reason, and ever longer, within reason too.
    assert pauses == [7.0, 30.0, 0.8, 0.2, 0.4, 0.8]
    assert kept_in(tmp_path) == []
