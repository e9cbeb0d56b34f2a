"""A middleware for ASGI applications, such as Starlette's or FastAPI's, which records who did what."""

from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from http import HTTPStatus
from typing import Any

from tlog_client.recording.recorder import Recorder
from tlog_client.recording.request import Exchange

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def scope_user(scope: Scope) -> Any:
    """Return who made a request, as a middleware such as Starlette's has put it there: the name of `scope["user"]`."""
    return getattr(scope.get("user"), "display_name", None) or None


class AsgiMiddleware:
    """Records each request and web socket once it has ended, also if the application raised; without the query."""

    def __init__(
        self, application: Application, recorder: Recorder, *, who: Callable[[Scope], Any] = scope_user
    ) -> None:
        """Stand before `application`. `who` tells the user of a request, and is asked at its end."""
        self._application = application
        self._recorder = recorder
        self._who = who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as the application does."""
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        exchange = Exchange(
            self._recorder,
            scope.get("method", "WEBSOCKET"),
            scope["path"],
            (scope.get("client") or [None])[0],
            partial(self._who, scope),
        )

        async def watch(message: MutableMapping[str, Any]) -> None:
            if exchange.status is None:
                exchange.status = _status(message)
            await send(message)

        try:
            await self._application(scope, receive, watch)
        except BaseException as error:
            exchange.end(error)
            raise
        exchange.end()


def _status(message: MutableMapping[str, Any]) -> int | None:
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            return int(message["status"])
        case "websocket.accept":
            return HTTPStatus.SWITCHING_PROTOCOLS
        case "websocket.close":
            return HTTPStatus.FORBIDDEN
        case _:
            return None
