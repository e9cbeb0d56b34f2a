"""The checkpoint, tiles and entry bundles of a segment, as C2SP tlog-tiles serves them."""

import gzip
import hashlib
from http import HTTPStatus

from flask import Response, request
from werkzeug.exceptions import PreconditionFailed

from tlog.access import Action
from tlog.api.answer import IMMUTABLE, TEXT, answer, not_beyond
from tlog.api.route import Call, Route
from tlog.errors import NotFoundError
from tlog.store.codec import decode_entries, unpack
from tlog_core.encoding import encode_base64
from tlog_core.errors import MalformedError
from tlog_core.tile import TILE_WIDTH, Bundle, join_bundle, parse_path

_GZIP_LEVEL = 1


def checkpoint(call: Call) -> Response:
    """Answer `GET /segments/<name>/checkpoint`: the same bytes for every caller."""
    head, lines = call.segment.store.head_with_cosignatures()
    call.segment.settle(head)
    return _note(head.note + lines)


def cosigned_checkpoint(call: Call) -> Response:
    """Answer `GET /segments/<name>/checkpoint/cosigned`: the same bytes for every caller."""
    asker = call.services.asker
    if asker is None:
        raise NotFoundError("this server has no witnesses to ask")
    head = asker.newest(call.segment)
    if head is None:
        raise NotFoundError("no head of this segment is cosigned by a quorum of its witnesses yet; try again later")
    return _note(head.note)


def _note(note: bytes) -> Response:
    response = answer(note, TEXT)
    # Of all of it: cosignatures come after the head that they are of.
    response.set_etag(encode_base64(hashlib.sha256(note).digest()))
    response.make_conditional(request)
    if response.status_code == HTTPStatus.PRECONDITION_FAILED:
        raise PreconditionFailed
    return response


def tile(call: Call, path: str) -> Response:
    """Answer `GET /segments/<name>/tile/…`."""
    try:
        place = parse_path(f"tile/{path}")
    except MalformedError as error:
        raise NotFoundError(str(error)) from None
    not_beyond("tile", place.end(), call.segment.size(place.end()))
    if isinstance(place, Bundle):
        return _bundle(call, place)
    return _answer(call.segment.nodes.tile(place))


def _bundle(call: Call, place: Bundle) -> Response:
    start = place.index * TILE_WIDTH
    if place.width == TILE_WIDTH:
        packed = call.segment.store.packed_bundle(place.index)
        # Caches keep what is answered here for a year, also after a repair: nothing damaged may be.
        call.segment.nodes.check_entries(start, decode_entries(packed, TILE_WIDTH))
        if _accepts("zstd"):
            return _answer(packed, "zstd")
        data = unpack(packed)
    else:
        entries = call.segment.store.entries(start, start + place.width)
        call.segment.nodes.check_entries(start, entries)
        data = join_bundle(entries)
    if _accepts("gzip"):
        return _answer(gzip.compress(data, _GZIP_LEVEL, mtime=0), "gzip")
    response = _answer(data)
    response.headers["Vary"] = "Accept-Encoding"
    return response


def _accepts(encoding: str) -> bool:
    return request.accept_encodings.quality(encoding) > 0 and "Accept-Encoding" in request.headers


def _answer(body: bytes, encoding: str | None = None) -> Response:
    response = answer(body, "application/octet-stream", caching=IMMUTABLE)
    if encoding is not None:
        response.headers["Content-Encoding"] = encoding
        response.headers["Vary"] = "Accept-Encoding"
    return response


ROUTES = (
    Route(
        "GET",
        "/segments/<segment>/checkpoint",
        Action.READ_CHECKPOINT,
        checkpoint,
        "Read the latest checkpoint (C2SP tlog-checkpoint)",
        gives={200: "text/plain"},
    ),
    Route(
        "GET",
        "/segments/<segment>/checkpoint/cosigned",
        Action.READ_CHECKPOINT,
        cosigned_checkpoint,
        "Read the newest checkpoint that a quorum of witnesses has cosigned",
        gives={200: "text/plain"},
    ),
    Route(
        "GET",
        "/segments/<segment>/tile/<path:path>",
        Action.READ_TILE,
        tile,
        "Read a tile or an entry bundle (C2SP tlog-tiles)",
        gives={200: "application/octet-stream"},
    ),
)
