"""Log records by OTLP/HTTP, as protobuf or as JSON, each answered in kind."""

from collections.abc import Sequence
from typing import Any, Final

from flask import Response, request
from msgspec import Struct
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from tlog.api.answer import SECRET, answer
from tlog.api.body import ANY_TYPE
from tlog.api.models import Problem, Taken
from tlog.api.route import Call
from tlog.errors import UnsupportedTypeError
from tlog.receivers.otlp_json import JSON
from tlog.receivers.otlp_protobuf import PROTOBUF, status
from tlog.receivers.otlp_records import Encoding, read_records, text_of
from tlog.receivers.receive import Found, body, media_type, receiver, take
from tlog_core.errors import MalformedError
from tlog_core.receipt import JSON_TYPE


class ScopeLogs(Struct, rename="camel"):
    """Log records of one scope, each an object."""

    log_records: Sequence[dict[str, Any]] = ()


class ResourceLogs(Struct, rename="camel"):
    """Log records of one resource."""

    scope_logs: Sequence[ScopeLogs] = ()


class ExportLogs(Struct, rename="camel"):
    """A request of OTLP/HTTP as JSON, as far as it is told here."""

    resource_logs: Sequence[ResourceLogs] = ()


_PROTOBUF_TYPE: Final = "application/x-protobuf"
_ENCODINGS: Final = {JSON_TYPE: JSON, _PROTOBUF_TYPE: PROTOBUF}
_RETRY_AFTER: Final = "1"
_FIRST_FAULT: Final = 500
# Of google.rpc.Code, by the status of the answer.
_CODES: Final = {400: 3, 401: 16, 403: 7, 404: 5, 413: 3, 415: 3, 411: 3, 422: 3, 429: 8, 503: 14}
_INTERNAL: Final = 13


def take_otlp(call: Call) -> Response:
    """Answer `POST /v1/logs`."""
    raw, encoding = body(), _ENCODINGS.get(_kind())
    found = _read(raw, encoding)
    taken = take(call, "otlp", found)
    if encoding is None:
        raise UnsupportedTypeError(f"send {' or '.join(_ENCODINGS)}; the body is in quarantine")
    if found.faults and not found.texts:
        raise MalformedError("no log record of this can be read; the body is in quarantine")
    return _answer(*_written(taken))


def _read(raw: bytes, encoding: Encoding | None) -> Found:
    if not raw:
        return Found()
    return Found(faults=[raw]) if encoding is None else read_records(raw, encoding)


def _written(taken: Taken) -> tuple[bytes, bytes]:
    """Return the answer to a request as protobuf and as JSON."""
    response = ExportLogsServiceResponse()
    if not taken.quarantined:
        return b"", b"{}"
    message = f"{taken.quarantined} log records were not logged, and are in quarantine"
    response.partial_success.rejected_log_records = taken.quarantined
    response.partial_success.error_message = message
    partial = {"errorMessage": message, "rejectedLogRecords": str(taken.quarantined)}
    return response.SerializeToString(), text_of({"partialSuccess": partial})


def _refuse(problem: Problem) -> Response:
    # OTLP has a request sent again after 429, 502, 503 and 504 only.
    fault = problem.status >= _FIRST_FAULT
    code = _CODES.get(problem.status, _INTERNAL)
    of_json = text_of({"code": code, "message": problem.detail})
    response = _answer(status(code, problem.detail), of_json, 503 if fault else problem.status)
    if fault:
        response.headers["Retry-After"] = _RETRY_AFTER
    return response


def _answer(of_protobuf: bytes, of_json: bytes, code: int = 200) -> Response:
    is_protobuf = _kind() == _PROTOBUF_TYPE
    kind = _PROTOBUF_TYPE if is_protobuf else JSON_TYPE
    return answer(of_protobuf if is_protobuf else of_json, kind, status=code, caching=SECRET)


def _kind() -> str:
    return media_type(request.environ.get("CONTENT_TYPE", ""))


ROUTES = (
    receiver(
        "/v1/logs",
        take_otlp,
        "Take log records of OpenTelemetry",
        takes={JSON_TYPE: ExportLogs, _PROTOBUF_TYPE: bytes},
        gives=ANY_TYPE,
        refuse=_refuse,
        chunked=True,
    ),
)
