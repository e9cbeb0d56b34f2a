"""How runs of entries and payloads become the blobs of a row, and back.

Entries are an entry bundle of C2SP tlog-tiles; payloads are framed alike, with their types. What is packed for good,
under a full tile, is a zstd frame; a tail that will be packed later is as it is, behind a zero byte. A blob that does
not decode raises CorruptError: it was written by us.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

import zstandard

from tlog.errors import CorruptError
from tlog_core.commitment import OPENING_BYTES, Opening
from tlog_core.errors import MalformedError
from tlog_core.tile import TILE_WIDTH, join_bundle, split_bundle

_LEVEL: Final = 1
_PLAIN: Final = b"\0"
_MAX_RUN_BYTES: Final = 1 << 20
# A row is at most one payload of 1 MiB beyond the bound of a run; more means that the size field is damaged.
_MAX_BLOB_BYTES: Final = 32 << 20
_LENGTHS: Final = struct.Struct(">HI")
_OPENING: Final = struct.Struct(f"{OPENING_BYTES}s")


@dataclass(frozen=True, slots=True)
class Payload:
    """A payload with its media type and the opening of its commitment."""

    opening: Opening
    type: str
    data: bytes

    @property
    def is_lost(self) -> bool:
        """Tell whether this stands for a payload that is there no more: see `LOST`."""
        return not self.type


LOST: Final = Payload(Opening(bytes(OPENING_BYTES)), "", b"")
"""Stands in the place of a payload whose entry was brought back without it: no payload has a type without a name."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Payloads, column by column: to make a value of each would cost a batch as much as to hash them."""

    openings: Sequence[Opening]
    types: Sequence[str]
    data: Sequence[bytes]

    def __add__(self, other: "Columns") -> "Columns":
        """Return these, and then the others."""
        return Columns([*self.openings, *other.openings], [*self.types, *other.types], [*self.data, *other.data])


def columns_of(payloads: Sequence[Payload]) -> Columns:
    """Return payloads as columns."""
    return Columns([one.opening for one in payloads], [one.type for one in payloads], [one.data for one in payloads])


@dataclass(frozen=True, slots=True)
class Run:
    """A row: `count` neighbours from index `start` on, encoded."""

    start: int
    count: int
    blob: bytes
    openings: bytes = b""


def entry_runs(start: int, entries: Sequence[bytes]) -> list[Run]:
    """Return the rows of entries from `start` on, cut at each multiple of 256."""
    return [
        Run(start + first, end - first, _pack(join_bundle(entries[first:end]), end - first))
        for first, end in _cut(start, len(entries))
    ]


def payload_runs(start: int, payloads: Columns) -> list[Run]:
    """Return the rows of payloads from `start` on, cut at each multiple of 256 and at 1 MiB."""
    lengths = list(map(len, payloads.data))
    runs = []
    for aligned, stop in _cut(start, len(lengths)):
        for first, end in _cut_large(lengths, aligned, stop):
            joined = _join(payloads.types[first:end], payloads.data[first:end])
            openings = b"".join(payloads.openings[first:end])
            runs.append(Run(start + first, end - first, _pack(joined, stop - aligned), openings))
    return runs


def decode_entries(blob: bytes, count: int) -> list[bytes]:
    """Return the entries of a row."""
    return split_entries(unpack(blob), count)


def split_entries(data: bytes, count: int) -> list[bytes]:
    """Return the entries of a row that was unpacked."""
    try:
        return split_bundle(data, count)
    except MalformedError as error:
        raise CorruptError(f"a stored entry bundle: {error}") from None


def decode_payloads(blob: bytes, openings: bytes) -> list[Payload]:
    """Return the payloads of a row."""
    payloads = list(_split(unpack(blob)))
    if len(payloads) * OPENING_BYTES != len(openings):
        raise CorruptError("a stored run of payloads has another number of openings")
    return [
        Payload(opening, kind, data) for opening, (kind, data) in zip(split_openings(openings), payloads, strict=True)
    ]


def split_openings(openings: bytes) -> list[Opening]:
    """Return openings, 32 bytes each, that stand side by side."""
    return cast("list[Opening]", [one for (one,) in _OPENING.iter_unpack(openings)])


def unpack(blob: bytes) -> bytes:
    """Return what a blob of ours holds, compressed or not."""
    if blob[:1] == _PLAIN:
        return blob[1:]
    try:
        if not 0 <= zstandard.frame_content_size(blob) <= _MAX_BLOB_BYTES:
            raise CorruptError("a stored blob has an impossible size")
        return zstandard.ZstdDecompressor().decompress(blob)
    except zstandard.ZstdError as error:
        raise CorruptError(f"a stored blob does not decompress: {error}") from None


def _pack(data: bytes, width: int) -> bytes:
    if width < TILE_WIDTH:
        return _PLAIN + data
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(data)


def _cut(start: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield [first, end) of the parts of `count` items from index `start` on, cut at each multiple of 256."""
    first = 0
    while first < count:
        end = min(count, first + TILE_WIDTH - (start + first) % TILE_WIDTH)
        yield first, end
        first = end


def _cut_large(lengths: Sequence[int], first: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the same of [first, end), cut so that no part has more than 1 MiB, but for one that is a single payload."""
    total = sum(lengths[first:end])
    if total > _MAX_RUN_BYTES:
        total = 0
        for place in range(first, end):
            if place > first and total + lengths[place] > _MAX_RUN_BYTES:
                yield first, place
                first, total = place, 0
            total += lengths[place]
    yield first, end


def _join(types: Sequence[str], data: Sequence[bytes]) -> bytes:
    pieces: list[bytes] = []
    for kind, payload in zip(types, data, strict=True):
        pieces += (_LENGTHS.pack(len(kind), len(payload)), kind.encode("ascii"), payload)
    return b"".join(pieces)


def _split(data: bytes) -> Iterator[tuple[str, bytes]]:
    place = 0
    try:
        while place < len(data):
            type_length, length = _LENGTHS.unpack_from(data, place)
            middle = place + _LENGTHS.size + type_length
            kind = data[place + _LENGTHS.size : middle].decode("ascii")
            place = middle + length
            if place > len(data):
                raise CorruptError("a stored run of payloads ends within one")
            yield kind, data[middle:place]
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptError(f"a stored run of payloads: {error}") from None
