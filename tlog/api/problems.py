"""Errors as RFC 9457 problem documents, and the one table of their statuses."""

import math
from collections.abc import Callable
from http import HTTPStatus

from flask import Flask, Response, g
from structlog.typing import FilteringBoundLogger
from werkzeug.exceptions import HTTPException

from tlog import errors
from tlog.api.answer import SECRET, answer
from tlog.api.models import Problem, encode
from tlog.config import MAX_BATCH_BYTES
from tlog.store.connection import OperationalError, is_damage
from tlog_core.errors import MalformedError

# The first class that an error belongs to decides: type, title, status.
_TABLE: tuple[tuple[type[Exception], str, str, int], ...] = (
    (MalformedError, "malformed", "Malformed request", 400),
    (errors.UnauthorizedError, "unauthorized", "Unauthorized", 401),
    (errors.CrossSiteError, "cross-site", "Cross-site request", 403),
    (errors.WrongSignatureError, "wrong-signature", "Wrong signature", 403),
    (errors.UnknownMonitorError, "unknown-monitor", "Unknown monitor", 403),
    (errors.SignatureRequiredError, "signature-required", "Signature required", 403),
    (errors.NotFoundError, "not-found", "Not found", 404),
    (errors.LostError, "payload-lost", "Payload lost", 410),
    (errors.NoWitnessesError, "no-witnesses", "No witnesses", 400),
    (errors.ConflictError, "conflict", "Conflict", 409),
    (errors.SequenceError, "sequence-conflict", "Sequence conflict", 409),
    (errors.SealedError, "sealed", "Segment sealed", 409),
    (errors.FrozenError, "frozen", "Segment frozen", 409),
    (errors.LengthRequiredError, "length-required", "Length required", 411),
    (errors.TooLargeError, "too-large", "Too large", 413),
    (errors.UnsupportedTypeError, "unsupported-type", "Unsupported media type", 415),
    (errors.UnsupportedEncodingError, "unsupported-encoding", "Unsupported content encoding", 415),
    (errors.IdempotencyError, "idempotency-mismatch", "Idempotency key used before", 422),
    (errors.QuotaError, "quota", "Too many requests", 429),
    (errors.OutcomeUnknownError, "outcome-unknown", "Outcome unknown", 503),
    (errors.UnavailableError, "unavailable", "Unavailable", 503),
    (errors.BusyError, "unavailable", "Unavailable", 503),
    (errors.FullError, "unavailable", "Unavailable", 503),
    (errors.CorruptError, "corrupt", "Stored data is damaged", 500),
)
# No fault to look into, and each line of the log would take more of a disk that is full.
_NOT_LOGGED = (errors.BusyError, errors.FullError)
# What the framework refuses before any view runs.
_HTTP: dict[int, tuple[str, str, str]] = {
    404: ("not-found", "Not found", "there is no such route; see /openapi.json"),
    405: ("method-not-allowed", "Method not allowed", "this route has no such method; see the Allow header"),
    412: ("precondition-failed", "Precondition failed", "the ETag is not one of If-Match; read without that header"),
    413: ("too-large", "Too large", f"a request has at most {MAX_BATCH_BYTES} bytes; split it"),
}
_RETRY_AFTER_SECONDS = "1"


def register_problems(app: Flask, log: FilteringBoundLogger) -> None:
    """Answer every error of the app with a problem document, and log those that are the server's own fault."""

    def of_http(error: HTTPException) -> Response:
        status = error.code or 500
        slug, title, detail = _HTTP.get(status, ("malformed", "Malformed request", error.description or error.name))
        response = _problem(slug, title, status, detail)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = error.get_response().headers.get("Allow", "")
        return response

    def of_any(error: Exception) -> Response:
        for kind, slug, title, status in _TABLE:
            if isinstance(error, kind):
                if status >= HTTPStatus.INTERNAL_SERVER_ERROR and kind not in _NOT_LOGGED:
                    log.error("failed", request_id=g.request_id, exc_info=error)
                expected = error.expected if isinstance(error, errors.SequenceError) else None
                response = _problem(slug, title, status, str(error), getattr(error, "line", None), expected)
                if isinstance(error, errors.QuotaError):
                    response.headers["Retry-After"] = str(math.ceil(error.wait))
                return response
        log.error("failed", request_id=g.request_id, exc_info=error)
        if isinstance(error, MemoryError):
            detail = "the server is out of memory, and the outcome is unknown; retry with the same Idempotency-Key"
            return _problem("outcome-unknown", "Outcome unknown", 503, detail)
        if isinstance(error, OSError | OperationalError):
            return _problem("unavailable", "Unavailable", 503, "the server's storage fails; its log has the request ID")
        if is_damage(error):
            detail = "the database of segments is damaged, or the disk cannot read it; run tlog fsck"
            return _problem("corrupt", "Stored data is damaged", 500, detail)
        return _problem("internal", "Internal error", 500, "a fault of the server; its log has the request ID")

    app.register_error_handler(HTTPException, of_http)
    app.register_error_handler(Exception, of_any)


def _problem(
    slug: str, title: str, status: int, detail: str, line: int | None = None, expected_sequence: int | None = None
) -> Response:
    problem = Problem(
        detail=detail,
        expected_sequence=expected_sequence,
        line=line,
        request_id=g.request_id,
        status=status,
        title=title,
        type=f"urn:tlog:problem:{slug}",
    )
    refuse: Callable[[Problem], Response] = g.get("refuse", _as_problem)
    response = refuse(problem)
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="tlog"'
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = _RETRY_AFTER_SECONDS
    return response


def _as_problem(problem: Problem) -> Response:
    return answer(encode(problem), "application/problem+json", status=problem.status, caching=SECRET)
