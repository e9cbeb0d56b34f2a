"""Parts that views share: parameters in, bodies out."""

from collections.abc import Sequence
from typing import Any

from flask import Request, Response

from tlog.api.models import encode
from tlog.errors import NotFoundError
from tlog_core.encoding import encode_base64, parse_decimal
from tlog_core.errors import MalformedError
from tlog_core.merkle import Hash

IMMUTABLE = "max-age=31536000, immutable"
FRESH = "no-cache"


def json_answer(model: Any, *, status: int = 200, caching: str = FRESH) -> Response:
    """Return a model as a JSON response."""
    response = Response(encode(model), status, content_type="application/json")
    response.headers["Cache-Control"] = caching
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


def page(given: dict[str, str], *, default: int, most: int) -> int:
    """Return the `limit` of a page; raise MalformedError if it is not from 1 to `most`."""
    limit = number("limit", given.get("limit", str(default)))
    if not 1 <= limit <= most:
        raise MalformedError(f"limit is from 1 to {most}")
    return limit


def not_beyond(what: str, number: int, size: int) -> None:
    """Raise NotFoundError if a number is beyond the size of the segment."""
    if number > size:
        raise NotFoundError(f"{what} is beyond the head; the segment has {size} entries now")


def hashes(proof: Sequence[Hash]) -> list[str]:
    """Return hashes in base64."""
    return [encode_base64(value) for value in proof]
