"""A middleware for WSGI applications, such as Flask's `app.wsgi_app`, which records who did what."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from tlog_client.recording.recorder import Recorder
from tlog_client.recording.request import Exchange

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def remote_user(environ: "WSGIEnvironment") -> Any:
    """Return who made a request, as the server or the application has put it there: `REMOTE_USER`."""
    return environ.get("REMOTE_USER")


class WsgiMiddleware:
    """Records each request once its response has ended, also if the application raised; the query is not recorded."""

    def __init__(
        self,
        application: "WSGIApplication",
        recorder: Recorder,
        *,
        who: "Callable[[WSGIEnvironment], Any]" = remote_user,
    ) -> None:
        """Stand before `application`. `who` tells the user of a request, and is asked at its end."""
        self._application = application
        self._recorder = recorder
        self._who = who

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request as the application does."""
        exchange = Exchange(
            self._recorder,
            environ["REQUEST_METHOD"],
            _path(environ),
            environ.get("REMOTE_ADDR"),
            partial(self._who, environ),
        )

        def start(status: str, *rest: Any) -> Callable[[bytes], object]:
            exchange.status = int(status[:3])
            return start_response(status, *rest)

        try:
            return _Body(self._application(environ, start), exchange)
        except BaseException as error:
            exchange.end(error)
            raise


class _Body:
    """What the application answers, and the end of it, of which a server tells by `close`."""

    def __init__(self, body: Iterable[bytes], exchange: Exchange) -> None:
        self._body = body
        self._parts: Iterator[bytes] = iter(body)
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._parts)
        except StopIteration:
            raise
        except BaseException as error:
            self._exchange.end(error)
            raise

    def close(self) -> None:
        try:
            getattr(self._body, "close", lambda: None)()
        except BaseException as error:
            self._exchange.end(error)
            raise
        self._exchange.end()


def _path(environ: "WSGIEnvironment") -> str:
    # WSGI has bytes as Latin-1.
    raw: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return raw.encode("latin-1", "replace").decode("utf-8", "replace")
