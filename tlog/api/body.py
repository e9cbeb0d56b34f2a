"""From the body of a request to payloads: the media type, the limits, and the canonical form of each event."""

import re
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
import zstandard
from flask import Request
from werkzeug.http import parse_options_header

from tlog.api.answer import number
from tlog.api.signed import SIGNED_TYPE, read_envelopes
from tlog.canonical import Canonicalizer
from tlog.config import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_PAYLOAD_BYTES
from tlog.errors import (
    LengthRequiredError,
    LineError,
    TooLargeError,
    UnsupportedEncodingError,
    UnsupportedTypeError,
)
from tlog.submit import Signed
from tlog_core.commitment import MAX_TYPE_BYTES
from tlog_core.encoding import parse_json
from tlog_core.errors import MalformedError
from tlog_core.receipt import JSON_TYPE

Model = TypeVar("Model")

ANY_TYPE: Final = "*/*"
"""Among the types that a route takes: it takes any."""

FORM_TYPE: Final = "application/x-www-form-urlencoded"
FORM_TOKEN: Final = "form_token"
"""The field of a form that has the token of its session."""

_MAX_FIELDS: Final = 64
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE: Final = re.compile(
    rf'{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"(?:[ !#-\[\]-~]|\\[ -~])*"))*'
)
_KEY: Final = re.compile(r"[!-~]{1,255}")
_DIGITS: Final = len(str(MAX_PAYLOAD_BYTES))
_LONGEST: Final = 20
_MAX_MODEL_BYTES: Final = 1 << 16
_MAX_DISCARDED: Final = 1 << 16
_MAX_WINDOW: Final = 8 << 20
_PIECE: Final = 256
# 31 and 15 tell zlib which of its wrappings to expect.
_UNPACKERS: Final[Mapping[str, Callable[[], Any]]] = {
    "gzip": partial(zlib.decompressobj, 31),
    "deflate": partial(zlib.decompressobj, 15),
    "zstd": lambda: zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj(),
}
_BATCH_TYPES: Final = ("application/x-ndjson", "application/ndjson")
_FORM_TYPES: Final = (FORM_TYPE, "multipart/form-data")


@dataclass(frozen=True, slots=True)
class Events:
    """The payloads of a request, all of one media type, whether they came as a batch, and whether signed."""

    kind: str
    payloads: Sequence[bytes]
    batch: bool
    signed: Signed | None = None


def read_events(request: Request, canonicalize: Canonicalizer) -> Events:
    """Return the payloads of a request; raise the error that says what is wrong with it, and where."""
    _check_identity(request)
    given = request.environ.get("CONTENT_TYPE", "")
    essence = _essence(given)
    body = read_body(request)
    if essence in _BATCH_TYPES:
        return Events(JSON_TYPE, _batch(body, canonicalize), batch=True)
    if essence == SIGNED_TYPE:
        kind, payloads, signed = read_envelopes(_lines(body), canonicalize)
        if kind != JSON_TYPE and _essence(kind) in (JSON_TYPE, *_BATCH_TYPES, SIGNED_TYPE):
            raise MalformedError(f"events of type {kind} are signed one by one, as {JSON_TYPE}")
        return Events(kind, payloads, batch=True, signed=signed)
    _check_size(body)
    if essence == JSON_TYPE:
        payload = canonicalize(body)
        _check_size(payload)
        return Events(JSON_TYPE, [payload], batch=False)
    return Events(given, [body], batch=False)


def check_body(request: Request, takes: Collection[str]) -> None:
    """Raise unless the body that the headers announce is of one of these media types, or there is none.

    Raises MalformedError if no body is due. Where any type is, `*/*`, the view decides.
    """
    environ = request.environ
    if environ.get("CONTENT_LENGTH", "") in ("", "0") and "HTTP_TRANSFER_ENCODING" not in environ:
        return
    if not takes:
        raise MalformedError("this route takes no body; send none")
    if ANY_TYPE in takes:
        return
    _check_identity(request)
    essence, parameters = parse_options_header(environ.get("CONTENT_TYPE", ""))
    if essence.lower() not in takes or parameters.get("charset", "utf-8").lower() != "utf-8":
        raise UnsupportedTypeError(f"send the body as {' or '.join(takes)} in UTF-8, and say so by Content-Type")


def read_body(request: Request, most: int = MAX_BATCH_BYTES) -> bytes:
    """Return the whole body, of at most so many bytes.

    Raises LengthRequiredError, TooLargeError, or MalformedError if only a part of it arrived.
    A WSGI server may end the body without a word when the client goes away: only its length shows that it is whole.
    """
    # From the server's own stream, by one call: what stands in between for other uses costs more than all the rest.
    environ = request.environ
    stream, given = environ["wsgi.input"], environ.get("CONTENT_LENGTH", "")
    if "HTTP_TRANSFER_ENCODING" in environ or (not given and stream.read(1)):
        raise LengthRequiredError("the body has no Content-Length; send it with one, and not chunked")
    length = number("Content-Length", given or "0")
    if length > most:
        raise _too_large(most)
    body: bytes = stream.read(length) if length else b""
    if len(body) != length:
        raise MalformedError(f"the body has {len(body)} bytes, and the Content-Length is {length}; send all of it")
    return body


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(f"a request has at most {most} bytes here; send less, or split it")


def is_large(request: Request) -> bool:
    """Tell whether the body is longer than one payload may be, as its headers say, or may be for all they say."""
    if "HTTP_CONTENT_ENCODING" in request.environ or "HTTP_TRANSFER_ENCODING" in request.environ:
        return True
    given = request.environ.get("CONTENT_LENGTH", "")
    return _DIGITS <= len(given) < _LONGEST and given.isascii() and given.isdigit() and int(given) > MAX_PAYLOAD_BYTES


def receive_body(request: Request, most: int, *, chunked: bool = False) -> None:
    """Have the whole body in memory, so that to read it waits for nobody; raises as `read_body` does.

    If it may be `chunked`, it must be such that what reads it can tell whether it is whole.
    """
    environ = request.environ
    chunked = chunked and environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked"
    body = _read_chunks(request, most) if chunked else read_body(request, most)
    if chunked:
        del environ["HTTP_TRANSFER_ENCODING"]
        environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = BytesIO(body)


def _read_chunks(request: Request, most: int) -> bytes:
    body: bytes = request.environ["wsgi.input"].read(most + 1)
    if len(body) > most:
        raise _too_large(most)
    return body


def unpacked_body(request: Request, most: int) -> bytes:
    """Return the whole body, unpacked if its Content-Encoding is gzip, deflate or zstd, of at most so many bytes.

    Raises as `read_body` does, UnsupportedEncodingError, or MalformedError if it cannot be unpacked.
    """
    body = read_body(request, most)
    encoding = request.environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if encoding == "identity":
        return body
    try:
        unpacked = _unpack(encoding, body, most + 1)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise MalformedError(f"the body is not {encoding}, as its Content-Encoding says: {error}") from None
    if len(unpacked) > most:
        raise TooLargeError(f"a request has at most {most} bytes here once it is unpacked; send less, or split it")
    return unpacked


def _unpack(encoding: str, body: bytes, most: int) -> bytes:
    unpacker = _UNPACKERS.get(encoding)
    if unpacker is None:
        raise UnsupportedEncodingError("send the body as gzip, deflate or zstd, or without Content-Encoding")
    unpacked, member, is_whole = bytearray(), unpacker(), False
    # Not every reader has a bound, but of so small a piece 8 MiB come at most.
    for place in range(0, len(body), _PIECE):
        piece = body[place : place + _PIECE]
        while piece and len(unpacked) < most:
            unpacked += member.decompress(piece)
            is_whole, piece = member.eof, member.unused_data
            # Members of gzip and frames of zstd come one behind the other.
            member = unpacker() if is_whole else member
    if len(unpacked) < most and not is_whole:
        raise EOFError("it ends too early")
    return bytes(unpacked)


def discard_body(request: Request) -> None:
    """Read what a refused request still sends, unless it is long: who is cut off while sending may lose the answer."""
    given = request.environ.get("CONTENT_LENGTH", "")
    if given.isascii() and given.isdigit() and 0 < int(given) <= _MAX_DISCARDED:
        request.environ["wsgi.input"].read(int(given))


def read_model(request: Request, model: type[Model], *, empty: Model | None = None) -> Model:
    """Return the JSON body of a request as one of `api.models`, or `empty`, if that is given, where there is no body.

    Raises MalformedError that says what is wrong, or TooLargeError.
    """
    body = read_body(request, _MAX_MODEL_BYTES)
    if not body and empty is not None:
        return empty
    try:
        return msgspec.convert(parse_json(body), model, strict=True)
    except msgspec.ValidationError as error:
        members = ", ".join(model.__annotations__)
        raise MalformedError(f"the body is an object of {members}, as /openapi.json says: {error}") from None


def read_form(request: Request, most: int) -> dict[str, str]:
    """Return the fields of a form, each once; MalformedError."""
    try:
        text = read_body(request, most).decode("ascii")
        fields = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise MalformedError(f"the form cannot be read: {error}") from None
    if len(fields) > len(dict(fields)):
        raise MalformedError("the form has a field twice; open its page again, and send it from there")
    # Browsers end the lines of a text in CR LF.
    return {name: value.replace("\r\n", "\n") for name, value in fields}


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key of a request, or None if it has none; raise MalformedError."""
    key: str | None = request.environ.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and _KEY.fullmatch(key) is None:
        raise MalformedError("an Idempotency-Key has 1 to 255 visible ASCII characters")
    return key


def _check_identity(request: Request) -> None:
    if request.environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise UnsupportedEncodingError("send the body without Content-Encoding")


def _essence(given: str) -> str:
    if not given:
        raise UnsupportedTypeError("there is no Content-Type; for an event send application/json")
    if len(given) > MAX_TYPE_BYTES or _MEDIA_TYPE.fullmatch(given) is None:
        raise UnsupportedTypeError("the Content-Type is not a media type of at most 255 bytes (RFC 9110 section 8.3)")
    if given == JSON_TYPE:
        return given
    essence, parameters = parse_options_header(given)
    essence = essence.lower()
    if essence in _FORM_TYPES:
        raise UnsupportedTypeError("a form is not an event; for JSON set Content-Type: application/json")
    if essence in (JSON_TYPE, *_BATCH_TYPES) and parameters.get("charset", "utf-8").lower() != "utf-8":
        raise UnsupportedTypeError("JSON is sent as UTF-8")
    return essence


def _batch(body: bytes, canonicalize: Canonicalizer) -> list[bytes]:
    lines = _lines(body)
    try:
        payloads = canonicalize.lines(lines)
    except MalformedError:
        payloads = []
    if payloads and max(map(len, lines)) <= MAX_PAYLOAD_BYTES and max(map(len, payloads)) <= MAX_PAYLOAD_BYTES:
        return payloads
    # One by one, to say which line is wrong.
    return [_line(number, line, canonicalize) for number, line in enumerate(lines, 1)]


def _lines(body: bytes) -> list[bytes]:
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise MalformedError("the batch is empty; send one event a line")
    if len(lines) > MAX_BATCH_EVENTS:
        raise TooLargeError(f"a batch has at most {MAX_BATCH_EVENTS} events, not {len(lines)}; split it")
    return lines


def _line(number: int, line: bytes, canonicalize: Canonicalizer) -> bytes:
    try:
        payload = canonicalize(line)
        if len(line) > MAX_PAYLOAD_BYTES or len(payload) > MAX_PAYLOAD_BYTES:
            raise TooLargeError(f"a payload has at most {MAX_PAYLOAD_BYTES} bytes; shorten it", number)
    except MalformedError as error:
        raise LineError(number, str(error)) from None
    return payload


def _check_size(payload: bytes) -> None:
    if not payload:
        raise MalformedError("the body is empty; send an event")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise TooLargeError(f"a payload has at most {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}; shorten it")
