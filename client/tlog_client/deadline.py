"""A limit for all of an exchange: a time limit for each read is none for many, of which each brings a byte."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Timer
from typing import Any, Final, cast

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.response import HTTPResponse

TOO_LONG: Final = "the answer takes too long"


class DeadlineError(TimeoutError):
    """The time for an answer is over, however much of it came."""


@contextmanager
def cut_after(connected: socket.socket, seconds: float) -> Iterator[None]:
    """Cut a connection, in plain or of TLS, if the block has not ended after so many seconds; raise DeadlineError."""
    over = Event()
    # A second handle of the connection: TLS takes the first away.
    with socket.socket(fileno=os.dup(connected.fileno())) as twin:

        def cut() -> None:
            over.set()
            with suppress(OSError):
                twin.shutdown(socket.SHUT_RDWR)

        timer = Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            # What was cut may look like an answer that ends there, or like any failure.
            if over.is_set():
                raise DeadlineError(TOO_LONG) from None


class DeadlineAdapter(HTTPAdapter):
    """An adapter for requests by which the status and the headers of an answer take so many seconds at most.

    They count from when the request was sent. The body is up to its reader: see `transport.read_body`.
    """

    def __init__(self, seconds: float) -> None:
        """Take the limit."""
        self._seconds = seconds
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **named: Any) -> HTTPConnectionPool:
        """Return a pool whose connections know the limit; see HTTPAdapter."""
        pool = cast(HTTPConnectionPool, super().get_connection_with_tls_context(*args, **named))
        pool.ConnectionCls = partial(_connection, type(pool).ConnectionCls, self._seconds)  # type: ignore[assignment]
        return pool


def _connection(kind: Callable[..., Any], seconds: float, **named: Any) -> HTTPConnection:
    connection: HTTPConnection = kind(**named)
    answer = connection.getresponse

    def answer_in_time() -> HTTPResponse:
        with cut_after(connection.sock, seconds):
            return answer()

    connection.getresponse = answer_in_time  # type: ignore[method-assign]
    return connection
