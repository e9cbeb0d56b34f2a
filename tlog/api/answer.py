"""Parts that views share: parameters in, bodies out."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from flask import Request, Response, request
from werkzeug.exceptions import PreconditionFailed

from tlog.api.models import encode
from tlog.errors import NotFoundError
from tlog_core.encoding import parse_decimal
from tlog_core.errors import MalformedError
from tlog_core.receipt import JSON_TYPE

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

FRESH = "no-cache"
SECRET = "no-store"
FOR_EVER = "public, max-age=31536000, immutable"
OPAQUE = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"


class _Whole(Response):
    """A response whose body and headers are all there, and need no looking through."""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer as a WSGI application. A body that is a list the server sends by one call."""
        if environ["REQUEST_METHOD"] == "HEAD" or self.status_code == HTTPStatus.NOT_MODIFIED:
            return super().__call__(environ, start_response)
        start_response(self.status, self.headers.to_wsgi_list())
        return cast("list[bytes]", self.response)


def answer(
    body: bytes, kind: str, *, status: int = 200, caching: str = FRESH, more: Iterable[tuple[str, str]] = ()
) -> Response:
    """Return a response with a whole body of this media type, and `more` headers."""
    headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", caching), *more]
    return _Whole([body], status, headers, direct_passthrough=True)


def json_answer(model: Any, *, status: int = 200, caching: str = FRESH) -> Response:
    """Return a model as a JSON response."""
    return answer(encode(model), JSON_TYPE, status=status, caching=caching)


def conditional(response: Response) -> Response:
    """Return a response with an ETag as the request's conditions have it; raise PreconditionFailed."""
    response.make_conditional(request)
    if response.status_code == HTTPStatus.PRECONDITION_FAILED:
        raise PreconditionFailed
    return response


def number(name: str, text: str) -> int:
    """Return the number of a part of the path or query; raise MalformedError that names it."""
    try:
        return parse_decimal(text)
    except MalformedError as error:
        raise MalformedError(f"{name}: {error}") from None


def query(request: Request, *names: str) -> dict[str, str]:
    """Return the query parameters, each of `names` at most once and no other; raise MalformedError."""
    given = request.args.to_dict(flat=False)
    for name, values in given.items():
        if name not in names or len(values) > 1:
            raise MalformedError(f"the query takes {' and '.join(names)}, each once, and not {name}")
    return {name: values[0] for name, values in given.items()}


def page(given: Mapping[str, str], *, default: int, most: int) -> int:
    """Return the `limit` of a page; raise MalformedError if it is not from 1 to `most`."""
    limit = number("limit", given.get("limit", str(default)))
    if not 1 <= limit <= most:
        raise MalformedError(f"limit is from 1 to {most}")
    return limit


def not_beyond(what: str, number: int, size: int) -> None:
    """Raise NotFoundError if a number is beyond the size of the segment."""
    if number > size:
        raise NotFoundError(f"{what} is beyond the head; the segment has {size} entries now")
