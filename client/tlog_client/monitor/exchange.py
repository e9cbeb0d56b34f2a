"""The exchange of gossip over HTTP (`spec/gossip.md`, "The exchange"): dialling a peer, and answering one."""

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from random import Random
from threading import Event, Thread
from time import monotonic_ns
from typing import Final
from urllib.parse import urlsplit

from tlog_client.deadline import cut_after
from tlog_client.errors import StateError
from tlog_client.monitor.app import TEXT, Answer, Handler
from tlog_client.monitor.gossip import (
    FANOUT,
    BusyError,
    Gossip,
    Outcome,
    Report,
    StrangerError,
    Timetable,
    TooLargeError,
)
from tlog_client.text import printable
from tlog_core.errors import FetchError, MalformedError, SignatureError, TlogError
from tlog_core.gossip import MAX_MESSAGE_BYTES, Peer

PATH: Final = "/gossip/v1/exchange"
EXCHANGE_SECONDS: Final = 10.0

LOOK_MILLISECONDS: Final = 1_000
"""How often it is looked whether there is news, or an end."""

_REASON_BYTES: Final = 200
_STATUSES: Final[tuple[tuple[type[TlogError], int], ...]] = (
    (TooLargeError, 413),
    (MalformedError, 400),
    (StrangerError, 403),
    (SignatureError, 403),
    (BusyError, 429),
)


def exchange_route(gossip: Gossip) -> dict[tuple[str, str], Handler]:
    """Return the route by which peers exchange with us, for the app of the monitor."""
    return {("POST", PATH): partial(answer_exchange, gossip)}


def answer_exchange(gossip: Gossip, raw: bytes) -> Answer:
    """Return the answer to the body of a request, of which there is no need to read more than 65,537 bytes."""
    try:
        return Answer(200, TEXT, gossip.answer(raw))
    except TlogError as error:
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
        if status is None:
            raise
        wait = {"Retry-After": str(error.wait)} if isinstance(error, BusyError) else {}
        return Answer(status, TEXT, f"{error}\n".encode("utf-8", "replace"), wait)


def send_exchange(peer: Peer, raw: bytes, *, seconds: float = EXCHANGE_SECONDS) -> bytes:
    """Bring a request to a peer, and return its answer, of at most one byte more than a message; raise FetchError.

    Redirects are not followed. After `seconds` from when it is connected the connection is cut, however the peer
    spins out its answer.
    """
    try:
        parts = urlsplit(peer.url)
        default = 443 if parts.scheme == "https" else 80
        address = parts.hostname or "", parts.port or default
        with socket.create_connection(address, timeout=seconds) as plain, cut_after(plain, seconds):
            return _post(plain, parts.scheme == "https", parts.netloc, parts.path + PATH, raw)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise FetchError(f"no answer from {peer.url}: {printable(reason)}") from error


def _post(plain: socket.socket, tls: bool, host: str, path: str, raw: bytes) -> bytes:
    connection = http.client.HTTPConnection(host)
    name = urlsplit(f"//{host}").hostname
    connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=name) if tls else plain
    try:
        connection.request("POST", path, raw, {"Content-Type": TEXT, "Connection": "close"})
        response = connection.getresponse()
        if response.status == 200:
            return response.read(MAX_MESSAGE_BYTES + 1)
        reason = response.read(_REASON_BYTES).decode("utf-8", "replace").strip()
        raise FetchError(f"{host} refused with status {response.status}: {printable(reason)}".replace("\n", " "))
    finally:
        connection.close()


@contextmanager
def gossiping(gossip: Gossip, *, random: Random, say: Callable[[str], None]) -> Iterator[None]:
    """Gossip on a thread until the block ends; say when a peer begins to fail, and when it no longer does."""
    outcomes: dict[Peer, Outcome] = {}

    def report(one: Report) -> None:
        if one.outcome is not outcomes.get(one.peer, Outcome.HEARD):
            say(str(one))
        outcomes[one.peer] = one.outcome

    def work() -> None:
        try:
            run(gossip, random=random, stop=stop, report=report)
        except StateError as error:
            # The rounds of the logs come upon it too, and end the monitor.
            say(str(error))

    stop = Event()
    thread = Thread(target=work, name="tlog-gossip")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def run(gossip: Gossip, *, random: Random, stop: Event, report: Callable[[Report], None]) -> None:
    """Make rounds, each reported exchange by exchange, until `stop` is set; `gossip.news` brings the next forward."""
    timetable, wait = Timetable(_now(), random), 0
    with ThreadPoolExecutor(FANOUT) as pool:
        while not stop.wait(min(wait, LOOK_MILLISECONDS) / 1000):
            now = _now()
            wait = timetable.wait(now, news=gossip.news.is_set())
            if wait == 0:
                timetable.done(now)
                for one in gossip.round(spread=pool.map):
                    report(one)


def _now() -> int:
    return monotonic_ns() // 1_000_000
