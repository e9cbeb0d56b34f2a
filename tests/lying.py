"""A log that lies: a proxy in front of a real server, which changes some of its answers on the way."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from live import PATIENCE, Server, free_port

Lie = Callable[[bytes], bytes]
"""Given the body of an answer, what comes of it."""

_HOP_BY_HOP = ("connection", "content-length", "transfer-encoding", "content-encoding")


@dataclass
class Liar:
    """The proxy at `url`; `lies` are by the paths that they are told about."""

    url: str
    lies: dict[str, Lie] = field(default_factory=dict)

    def about(self, path: str, status: int, body: bytes) -> tuple[int, bytes]:
        lie = self.lies.get(path)
        return (HTTPStatus.OK, lie(body)) if lie else (status, body)


@contextmanager
def lying(server: Server) -> Iterator[Liar]:
    port = free_port()
    liar = Liar(f"http://127.0.0.1:{port}")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            given = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            # As it came, `Host` included; but not compressed, so that lies can be told.
            headers = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
            with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
                connection.request(self.command, self.path, given or None, headers)
                answer = connection.getresponse()
                status, body = liar.about(self.path, answer.status, answer.read())
            # A browser that goes to another page hears no more.
            with suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(status)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as proxy:
        thread = Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield liar
        finally:
            proxy.shutdown()
            thread.join()
