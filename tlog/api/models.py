"""What goes over HTTP, as types: responses are written from them, and `/openapi.json` is generated from them.

Members are in the order of RFC 8785, so that a receipt is in canonical form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from tlog.access.token import MAX_DAYS, MAX_OVERLAP_DAYS
from tlog.control import MAX_ACCESS_MINUTES, MAX_REASON

# Each is checked where it belongs, and only told here; a schema counts characters where the limit is in bytes.
_LABELS: Final = {"maxProperties": 32, "propertyNames": {"pattern": "^[a-z0-9][a-z0-9_.-]{0,62}$"}}
_Value = Annotated[str, Meta(extra_json_schema={"maxLength": 255})]
_PRINTABLE: Final = r"\p{L}\p{M}\p{N}\p{P}\p{S}"
_PRINCIPAL: Final = {"pattern": f"^(?!anonymous$|tlog/)[{_PRINTABLE}]{{1,255}}$"}
_VKEY: Final = {"pattern": r"^[^\s+]+\+[0-9a-f]{8}\+A[Q-Za-f][A-Za-z0-9+/]{42}$"}


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that an event was logged; spec/receipt.md."""

    checkpoint: str
    entry: str
    index: int
    opening: bytes
    payload_type: str
    proof: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """Proof that a batch of events was logged; spec/receipt.md. The last two members are there if it is signed."""

    checkpoint: str
    first_index: int
    left: Sequence[bytes]
    openings: Sequence[bytes]
    right: Sequence[bytes]
    time: int
    writer: str
    writer_sequence: int | msgspec.UnsetType = msgspec.UNSET
    writer_signatures: Sequence[bytes] | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry with its payload: the JSON value itself if it is of type application/json, else base64."""

    entry: str
    index: int
    opening: bytes
    payload: msgspec.Raw
    payload_type: str


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries that stand side by side."""

    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """An entry that was found, with its inclusion proof in the tree of the answer."""

    entry: str
    index: int
    opening: bytes
    payload: msgspec.Raw
    payload_type: str
    proof: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class FoundEntries:
    """Entries that were found, the latest first, and the `before` of the next page, or null; spec/search.md.

    They are under the `checkpoint` of `size` entries. From `indexed` on none was looked at.
    """

    checkpoint: str
    entries: list[FoundEntry]
    indexed: int
    next: int | None
    size: int


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """The siblings on the way from the leaf at `index` to the root of the tree of `size` entries."""

    index: int
    proof: Sequence[bytes]
    size: int


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """Shows that the tree of `new_size` entries extends that of `old_size`."""

    new_size: int
    old_size: int
    proof: Sequence[bytes]


class NewSegment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a segment is created with. One that is `signed` takes signed events only."""

    labels: Annotated[dict[str, _Value], Meta(extra_json_schema=_LABELS)] = {}
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Frozen:
    """Since when, in milliseconds, and why the segment may not be the latest; the witness that said so, or null."""

    at: int
    reason: str
    size: int
    witness: str | None


@dataclass(frozen=True, slots=True)
class ListedSegment:
    """A segment as lists show it; `created` and `sealed`, null if it is not, are in milliseconds since the epoch."""

    created: int
    labels: dict[str, str]
    name: str
    origin: str
    sealed: int | None
    signed: bool
    vkey: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment with its size in entries. If it is `frozen`, it takes no more; else that is null."""

    created: int
    frozen: Frozen | None
    labels: dict[str, str]
    name: str
    origin: str
    sealed: int | None
    signed: bool
    size: int
    vkey: str


@dataclass(frozen=True, slots=True)
class CreatedSegment:
    """A segment that is there already, for who may create it and not read it: what was asked for, and nothing else."""

    labels: dict[str, str]
    name: str
    signed: bool


@dataclass(frozen=True, slots=True)
class SegmentList:
    """A page of segments, and the name after which the next page starts."""

    next: str | None
    segments: list[ListedSegment]


@dataclass(frozen=True, slots=True)
class CarriedBulletin:
    """What a monitor says of the segment, as its signed note, and when that came, in milliseconds; spec/bulletin.md."""

    note: str
    received: int
    vkey: str


@dataclass(frozen=True, slots=True)
class BulletinList:
    """The latest bulletin of each monitor."""

    bulletins: list[CarriedBulletin]


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """The version of the policy in force."""

    version: int


class WriterKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verifier key by which a writer, whose name it has, signs."""

    vkey: Annotated[str, Meta(extra_json_schema=_VKEY)]


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose token is to be issued, and for how many days."""

    principal: Annotated[str, Meta(extra_json_schema=_PRINCIPAL)]
    days: Annotated[float, Meta(extra_json_schema={"minimum": 1 / 86_400, "maximum": MAX_DAYS})]
    groups: list[Annotated[str, Meta(extra_json_schema=_PRINCIPAL)]] = []


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many days the token that is replaced goes on."""

    overlap_days: Annotated[float, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_OVERLAP_DAYS})]


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, which is shown this once."""

    id: str
    token: str


@dataclass(frozen=True, slots=True)
class ListedToken:
    """A token without its secret. Times are in milliseconds since the epoch."""

    created: int
    expires: int
    groups: list[str]
    id: str
    last_used: int | None
    principal: str
    revoked: int | None


@dataclass(frozen=True, slots=True)
class TokenList:
    """All tokens."""

    tokens: list[ListedToken]


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key of a writer. Times are in milliseconds since the epoch; one that is in use has no `removed`."""

    added: int
    removed: int | None
    vkey: str


@dataclass(frozen=True, slots=True)
class KeyList:
    """A page of writers' keys, and the `after` of the next page."""

    keys: list[ListedKey]
    next: str | None


class NewAccessRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why the payloads of a segment are to be read, and for how many minutes."""

    reason: Annotated[str, Meta(extra_json_schema={"pattern": f"^[ {_PRINTABLE}]{{1,{MAX_REASON}}}$"})]
    minutes: Annotated[float, Meta(extra_json_schema={"minimum": 1 / 60, "maximum": MAX_ACCESS_MINUTES})]


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """A request of access, and who approved it so far; times are in milliseconds since the epoch.

    It is granted `until` then, or not yet; what is not granted when it `lapses` never will be.
    """

    approvers: Sequence[str]
    id: str
    lapses: int
    milliseconds: int
    principal: str
    reason: str
    requested: int
    segment: str
    until: int | None


@dataclass(frozen=True, slots=True)
class AccessRequestList:
    """The latest requests of access."""

    requests: list[AccessRequest]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of events that were sent to a receiver; those `seen` were logged before, and not again."""

    logged: int
    quarantined: int
    seen: int


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error (RFC 9457); `line`, counted from 1, is there if one line of a batch is at fault.

    `expected_sequence` is there if signed events do not go on from the writer's last.
    """

    detail: str
    request_id: str
    status: int
    title: str
    type: str
    line: int | None = None
    expected_sequence: int | None = None


def encode(model: Any) -> bytes:
    """Return a model as JSON."""
    return msgspec.json.encode(model)
