"""The WSGI app of a monitor: a few routes, each a function from the bytes of a request to an answer."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from tlog_core.encoding import parse_decimal
from tlog_core.errors import MalformedError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MAX_BODY_BYTES: Final = 65_536
"""The most that a request may bring."""

TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status of HTTP, the media type of the body, the body, and further headers."""

    status: int
    kind: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[bytes], Answer]
"""Given the body of a request, the answer."""


def make_app(routes: Mapping[tuple[str, str], Handler], *, max_body: int = MAX_BODY_BYTES) -> "WSGIApplication":
    """Return the app of these routes, by method and path, such as `("GET", "/metrics")`."""
    paths = {path for _, path in routes}

    def answer(environ: "WSGIEnvironment") -> Answer:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        handler = routes.get((method, path))
        if handler is None:
            return _plain(405 if path in paths else 404)
        try:
            length = parse_decimal(environ.get("CONTENT_LENGTH") or "0")
        except MalformedError:
            return _plain(400)
        if length > max_body:
            return _plain(413)
        return handler(environ["wsgi.input"].read(length))

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        found = answer(environ)
        headers = {"Content-Type": found.kind, "Content-Length": str(len(found.body)), **found.headers}
        start_response(f"{found.status} {HTTPStatus(found.status).phrase}", list(headers.items()))
        return [found.body]

    return app


def _plain(status: int) -> Answer:
    return Answer(status, TEXT, f"{HTTPStatus(status).phrase}\n".encode())
