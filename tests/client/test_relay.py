"""How a relay listens and sends, in this process: who takes too long, who are too many, and what is sent again."""

import asyncio
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tlog_client.relay import hand, listener, sender
from tlog_client.relay.hand import Hand
from tlog_client.relay.kind import SYSLOG
from tlog_client.relay.listener import Listener
from tlog_client.transport import Backoff, Transport, new_session

PATIENCE = 10.0


@dataclass
class Bench:
    """A listener, what it has in hand, what it said, and connections to it."""

    port: int
    hand: Hand
    said: list[str]
    stack: ExitStack

    def connect(self) -> socket.socket:
        return self.stack.enter_context(socket.create_connection(("127.0.0.1", self.port), PATIENCE))


def listening(act: Callable[[Bench], Awaitable[None]], most_bytes: int = 1 << 20) -> None:
    """Have something done at a listener."""

    async def run() -> None:
        said: list[str] = []
        held = Hand(most_bytes)
        one = Listener(SYSLOG, ("127.0.0.1", 0), held, said.append)
        accepting = asyncio.create_task(one.accept())
        try:
            with ExitStack() as stack:
                async with asyncio.timeout(PATIENCE):
                    await act(Bench(int(str(one).rpartition(":")[2]), held, said, stack))
        finally:
            accepting.cancel()
            await held.stop_waiting()
            await one.stop(1.0)

    asyncio.run(run())


async def until(happened: Callable[[], object]) -> None:
    while not happened():
        await asyncio.sleep(0.01)


def test_who_takes_too_long_for_a_message_is_cut_off_and_what_came_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MESSAGE_SECONDS", 0.3)

    async def drip(bench: Bench) -> None:
        connection = bench.connect()
        connection.sendall(b"9 <34>")
        # Bytes that trickle in do not help.
        while not bench.said:
            connection.sendall(b"x")
            await asyncio.sleep(0.2)
        [kept] = await bench.hand.batch()
        assert re.fullmatch(rb"tlog-client relay: a message whose end is missing, from \S+: <34>x+", kept)
        assert re.search("takes more than .* seconds for one message; it is cut off", bench.said[0])

    listening(drip)


def test_who_says_nothing_between_messages_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MESSAGE_SECONDS", 0.1)

    async def pause(bench: Bench) -> None:
        connection = bench.connect()
        for text in (b"<34>one\n", b"<34>two\n"):
            connection.sendall(text)
            await asyncio.sleep(0.3)
        assert (len(bench.hand), bench.said) == (2, [])

    listening(pause)


def test_how_long_a_relay_reads_nothing_does_not_count_against_who_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MESSAGE_SECONDS", 0.2)

    async def wait(bench: Bench) -> None:
        connection = bench.connect()
        # The first fills the hand; half of the next is read with it.
        connection.sendall(b"<34>" + b"x" * 100 + b"\n<34>se")
        await until(lambda: len(bench.hand))
        await asyncio.sleep(0.4)
        connection.sendall(b"cond\n")
        await bench.hand.batch()
        await bench.hand.done()
        await until(lambda: len(bench.hand))
        assert (await bench.hand.batch(), bench.said) == ([b"<34>second"], [])

    listening(wait, most_bytes=50)


def test_more_connections_than_there_are_places_for_wait_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 2)

    async def crowd(bench: Bench) -> None:
        connections = [bench.connect() for _ in range(3)]
        for connection in connections:
            connection.sendall(b"<34>x\n")
        await asyncio.sleep(0.2)
        assert len(bench.hand) == 2
        connections[0].close()
        await until(lambda: len(bench.hand) == 3)

    listening(crowd)


def test_without_room_in_hand_no_more_are_accepted() -> None:
    async def crowd(bench: Bench) -> None:
        for _ in range(5):
            bench.connect().sendall(b"<34>" + b"x" * 100 + b"\n")
            await asyncio.sleep(0.05)
        # One was waited for while there was room.
        assert 1 <= len(bench.hand) <= 2
        heard = 0
        # All are heard in the end.
        while heard < 5:
            heard += len(await bench.hand.batch())
            await bench.hand.done()

    listening(crowd, most_bytes=50)


def test_a_request_has_so_much_and_no_message_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "BATCH_BYTES", 100)
    monkeypatch.setattr(hand, "BATCH_MESSAGES", 3)

    async def run() -> list[list[bytes]]:
        held = Hand()
        await held.add([b"a" * 200, b"b" * 80, b"c" * 30, *[b"d"] * 4])
        await held.close()
        found = []
        while batch := await held.batch():
            found.append(batch)
            await held.done()
        return found

    assert [[len(one) for one in batch] for batch in asyncio.run(run())] == [[200], [80], [30, 1, 1], [1, 1]]


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


def test_a_request_is_sent_again_under_its_key_whatever_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", pause)
    answers = [(429, {"Retry-After": "7"}), (503, {"Retry-After": "99"}), (0, {}), (401, {}), (400, {}), (500, {})]
    said: list[str] = []

    async def run(url: str) -> None:
        held = Hand()
        await held.add([b"<34>one", b"<34>two"])
        with new_session() as session:
            transport = Transport(url, session=session, timeout=5.0, backoff=Backoff(attempts=1))
            sending = asyncio.create_task(sender.send_all(SYSLOG, held, transport, said.append))
            while len(held):
                await sleep(0.01)
            await held.add([b"<34>three"])
            await held.close()
            await sending

    with answering(*answers, (200, {}), (200, {})) as (url, came):
        asyncio.run(run(url))
    keys, bodies = [key for key, _ in came], [body for _, body in came]
    assert bodies == [b"7 <34>one7 <34>two"] * 7 + [b"9 <34>three"]
    assert [len(set(keys[:7])), len(set(keys))] == [1, 2]
    # What the log asks for, within reason, and ever longer, within reason too.
    assert pauses == [7.0, 30.0, 0.8, 1.6, 3.2, 5.0]
    assert said[-1] == "syslog: the log takes it again"
