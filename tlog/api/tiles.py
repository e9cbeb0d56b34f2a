"""The checkpoint, tiles and entry bundles of a segment, as C2SP tlog-tiles serves them."""

import gzip
import hashlib
from collections.abc import Callable

from flask import Response, request

from tlog.access import Action
from tlog.api.answer import OPAQUE, TEXT, answer, conditional, not_beyond
from tlog.api.immutable import immutable
from tlog.api.route import Call, Route
from tlog.errors import NotFoundError
from tlog.store.codec import split_entries, unpack
from tlog_core.encoding import encode_base64
from tlog_core.errors import MalformedError
from tlog_core.tile import TILE_WIDTH, Bundle, Tile, join_bundle, parse_path

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
    return conditional(response)


def tile(call: Call, path: str) -> Response:
    """Answer `GET /segments/<name>/tile/…`."""
    try:
        place = parse_path(f"tile/{path}")
    except MalformedError as error:
        raise NotFoundError(str(error)) from None
    not_beyond("tile", place.end(), call.segment.size(place.end()))
    if isinstance(place, Bundle):
        encoding = _encoding(place)
        return _answer(call, place, lambda: _bundle(call, place, encoding), encoding)
    return _answer(call, place, lambda: call.segment.nodes.tile(place))


def _answer(call: Call, place: Tile | Bundle, make: Callable[[], bytes], encoding: str | None = None) -> Response:
    return immutable(call, Action.READ_TILE, str(place), OPAQUE, make, encoding=encoding)


def _encoding(place: Bundle) -> str:
    """Return how a bundle comes: as it is stored, if that is asked for, or compressed anew."""
    if place.width == TILE_WIDTH and _accepts("zstd"):
        return "zstd"
    return "gzip" if _accepts("gzip") else ""


def _accepts(encoding: str) -> bool:
    return request.accept_encodings.quality(encoding) > 0 and "Accept-Encoding" in request.headers


def _bundle(call: Call, place: Bundle, encoding: str) -> bytes:
    start = place.index * TILE_WIDTH
    if place.width == TILE_WIDTH:
        packed = call.segment.store.packed_bundle(place.index)
        data = unpack(packed)
        # Caches keep what is answered here for a year, also after a repair: nothing damaged may be.
        call.segment.nodes.check_entries(start, split_entries(data, TILE_WIDTH))
        if encoding == "zstd":
            return packed
    else:
        entries = call.segment.store.entries(start, start + place.width)
        call.segment.nodes.check_entries(start, entries)
        data = join_bundle(entries)
    return gzip.compress(data, _GZIP_LEVEL, mtime=0) if encoding else data


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
        gives={200: OPAQUE},
    ),
)
