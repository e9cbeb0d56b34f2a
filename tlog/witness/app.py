"""The witness over HTTP (C2SP tlog-witness): its routes, and the one table of its statuses."""

import re
from typing import Final

from flask import Flask, Request, Response, request
from structlog.typing import FilteringBoundLogger
from werkzeug.exceptions import HTTPException

from tlog.config import MAX_WAITING, PLACE_SECONDS
from tlog.errors import BusyError, CorruptError, NotFoundError, StaleError, TooLargeError
from tlog.places import Places
from tlog.store.connection import OperationalError, is_damage
from tlog.store.witness import OriginHash
from tlog.witness.cosigner import Witness
from tlog.witness.submission import MAX_SUBMISSION_BYTES, parse_submission, parse_subtree_request
from tlog_core.encoding import parse_decimal
from tlog_core.errors import InconsistencyError, MalformedError, ProofError, SignatureError

# The first class that an error belongs to decides.
_TABLE: Final[tuple[tuple[type[Exception], int], ...]] = (
    (MalformedError, 400),
    (SignatureError, 403),
    (NotFoundError, 404),
    (StaleError, 409),
    (TooLargeError, 413),
    (ProofError, 422),
    (InconsistencyError, 422),
    (CorruptError, 500),
    (BusyError, 503),
    (OperationalError, 503),
    (OSError, 503),
)
_ORIGIN_HASH: Final = re.compile("[0-9a-f]{64}")
_TEXT: Final = "text/plain; charset=utf-8"
_SIZE: Final = "text/x.tlog.size"


def create_app(witness: Witness, log: FilteringBoundLogger) -> Flask:
    """Return the app of a witness; call it after the server has forked."""
    app = Flask("tlog", static_folder=None)
    # No redirects: a path is a route's own, or none's.
    app.url_map.merge_slashes = False
    receiving = Places(MAX_WAITING, PLACE_SECONDS)

    def body() -> bytes:
        with receiving.take():
            return _read_body(request)

    def add_checkpoint() -> Response:
        return _answer("".join(map(str, witness.add_checkpoint(parse_submission(body())))))

    def sign_subtree() -> Response:
        return _answer(str(witness.sign_subtree(parse_subtree_request(body()))))

    def latest(origin_hash: str) -> Response:
        if _ORIGIN_HASH.fullmatch(origin_hash) is None:
            raise NotFoundError("an origin hash is 64 digits of lower-case hexadecimal")
        return _answer(witness.latest(OriginHash(bytes.fromhex(origin_hash))).decode())

    for path, view, method in (
        ("/add-checkpoint", add_checkpoint, "POST"),
        ("/sign-subtree", sign_subtree, "POST"),
        ("/<origin_hash>/checkpoint", latest, "GET"),
    ):
        app.add_url_rule(path, view_func=view, methods=[method], provide_automatic_options=False)
    _register_errors(app, log)
    return app


def _read_body(request: Request) -> bytes:
    """Return the body; raise TooLargeError, or MalformedError if less came than was announced."""
    given = request.environ.get("CONTENT_LENGTH") or None
    if given is not None and parse_decimal(given) > MAX_SUBMISSION_BYTES:
        raise _too_large()
    body: bytes = request.environ["wsgi.input"].read(MAX_SUBMISSION_BYTES + 1)
    if len(body) > MAX_SUBMISSION_BYTES:
        raise _too_large()
    if given is not None and len(body) != int(given):
        raise MalformedError(f"the body has {len(body)} bytes, and the Content-Length is {given}; send all of it")
    return body


def _too_large() -> TooLargeError:
    return TooLargeError(f"a submission has at most {MAX_SUBMISSION_BYTES} bytes")


def _register_errors(app: Flask, log: FilteringBoundLogger) -> None:
    def of_http(error: HTTPException) -> Response:
        response = _answer(f"{error.name.lower()}\n", status=error.code or 500)
        # Of a 405, which methods there are.
        if allow := error.get_response().headers.get("Allow"):
            response.headers["Allow"] = allow
        return response

    def of_any(error: Exception) -> Response:
        status = next((status for kind, status in _TABLE if isinstance(error, kind)), 500)
        if isinstance(error, StaleError):
            return _answer(f"{error.size}\n", _SIZE, status)
        if isinstance(error, InconsistencyError):
            # Both notes together are evidence, and nobody else may have kept the second.
            log.warning("contradiction", older=error.older.decode(), newer=error.newer.decode())
        if status in (500, 503) and not isinstance(error, BusyError):
            log.error("failed", exc_info=error)
        response = _answer(f"{_sentence(error, status)}\n", status=status)
        if status == 503:
            response.headers["Retry-After"] = "1"
        return response

    def finish(response: Response) -> Response:
        log.info("request", method=request.method, route=str(request.url_rule or "none"), status=response.status_code)
        return response

    app.register_error_handler(HTTPException, of_http)
    app.register_error_handler(Exception, of_any)
    app.after_request(finish)


def _sentence(error: Exception, status: int) -> str:
    if status == 503 and not isinstance(error, BusyError):
        return "the storage of the witness fails; whether the checkpoint was stored is unknown, submit it again"
    if is_damage(error):
        return "what the witness stores is damaged, or its disk cannot read it; nothing is signed"
    if status == 500 and not isinstance(error, CorruptError):
        return "a fault of the witness"
    return str(error)


def _answer(text: str, kind: str = _TEXT, status: int = 200) -> Response:
    return Response(text, status, {"Content-Type": kind, "Cache-Control": "no-cache"})
