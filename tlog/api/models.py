"""What goes over HTTP, as types: responses are written from them, and `/openapi.json` is generated from them.

Members are in the order of RFC 8785, so that a receipt is in canonical form.
"""

from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that an event was logged; spec/receipt.md."""

    checkpoint: str
    entry: str
    index: int
    opening: str
    payload_type: str
    proof: list[str]


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """Proof that a batch of events was logged; spec/receipt.md."""

    checkpoint: str
    first_index: int
    left: list[str]
    openings: list[str]
    right: list[str]
    time: int
    writer: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry with its payload: the JSON value itself if it is of type application/json, else base64."""

    entry: str
    index: int
    opening: str
    payload: msgspec.Raw
    payload_type: str


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries that stand side by side."""

    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """The siblings on the way from the leaf at `index` to the root of the tree of `size` entries."""

    index: int
    proof: list[str]
    size: int


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """Shows that the tree of `new_size` entries extends that of `old_size`."""

    new_size: int
    old_size: int
    proof: list[str]


class NewSegment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a segment is created with."""

    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class ListedSegment:
    """A segment as lists show it; `created` is in milliseconds since the epoch."""

    created: int
    labels: dict[str, str]
    name: str
    origin: str
    vkey: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment with its size in entries."""

    created: int
    labels: dict[str, str]
    name: str
    origin: str
    size: int
    vkey: str


@dataclass(frozen=True, slots=True)
class SegmentList:
    """A page of segments, and the name after which the next page starts."""

    next: str | None
    segments: list[ListedSegment]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error (RFC 9457); `line`, counted from 1, is there if one line of a batch is at fault."""

    detail: str
    request_id: str
    status: int
    title: str
    type: str
    line: int | None = None


def encode(model: Any) -> bytes:
    """Return a model as JSON."""
    return msgspec.json.encode(model)
