"""Servers that spin out their answers, byte by byte, so that no single read takes long."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

Talk = Callable[[socket.socket, threading.Event], None]
"""What a server says to who has connected, and sent something; the event says that the test is over."""


@contextmanager
def raw_server(talk: Talk) -> Iterator[str]:
    """Have `talk` speak to the first who connects, and yield the URL."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                talk(connection, over)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def drip_headers(connection: socket.socket, over: threading.Event) -> None:
    drip(connection, over, b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")


def drip_body(connection: socket.socket, over: threading.Event) -> None:
    drip(connection, over, b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b"x")


def drip_continue(connection: socket.socket, over: threading.Event) -> None:
    drip(connection, over, b"", b"HTTP/1.1 100 Continue\r\n\r\n")


def drip(connection: socket.socket, over: threading.Event, start: bytes, rest: bytes) -> None:
    try:
        connection.sendall(start)
        while not over.wait(0.02):
            connection.sendall(rest)
    except OSError:
        pass


def silent(_: socket.socket, over: threading.Event) -> None:
    over.wait()


DRIPS: Final = [drip_headers, drip_body, drip_continue]
