"""What the reserved segment `control` records (spec/access.md, "On the record"): each change of who may do what.

A change is the payload of an entry, in JSON; its member `event` says which it is. Times are in milliseconds since the
epoch, `by` is who made the change.
"""

import msgspec

from tlog_core.encoding import canonicalize
from tlog_core.errors import MalformedError


class _Recorded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="event"):
    by: str
    at: int


class SegmentCreated(_Recorded, frozen=True, tag="segment.created"):
    """A segment came to be. `id` names its files; one that is `signed` takes signed events only."""

    name: str
    id: str
    origin: str
    vkey: str
    labels: dict[str, str]
    signed: bool = False


class SegmentSealed(_Recorded, frozen=True, tag="segment.sealed"):
    """A segment is to take no entry after the one that says so."""

    segment: str


class SegmentAccepted(_Recorded, frozen=True, tag="segment.accepted"):
    """`by` takes the copy of so many entries, with this root in hex, for the latest, although its anchor was gone."""

    segment: str
    size: int
    root: str


class SegmentSucceeded(_Recorded, frozen=True, tag="segment.succeeded"):
    """A segment that is sealed, frozen or lost takes no more entries, and `successor` goes on in its place."""

    segment: str
    successor: str


class PolicyApplied(_Recorded, frozen=True, tag="policy.applied"):
    """A policy took the place of the one before; versions count from 1."""

    version: int
    document: str


class _NewToken(_Recorded, frozen=True):
    id: str
    hash: str
    principal: str
    groups: tuple[str, ...]
    expires: int


class TokenIssued(_NewToken, frozen=True, tag="token.issued"):
    """A token was issued. `hash` is the SHA-256 of its secret, in hex."""


class TokenRotated(_NewToken, frozen=True, tag="token.rotated"):
    """A token was issued in the place of `old`, which ends at `ends`."""

    old: str
    ends: int


class TokenRevoked(_Recorded, frozen=True, tag="token.revoked"):
    """A token is of no use any more."""

    id: str


class KeyAdded(_Recorded, frozen=True, tag="key.added"):
    """A writer, whose name the key has, signs with this key from now on, too."""

    vkey: str


class KeyRemoved(_Recorded, frozen=True, tag="key.removed"):
    """Nobody signs with this key any more; what it signed before stays."""

    vkey: str


class IssuersChanged(_Recorded, frozen=True, tag="issuers.changed"):
    """The tokens of the issuers of this document are taken from now on, and of no others."""

    document: str


class AccessRequested(_Recorded, frozen=True, tag="access.requested"):
    """`by` asks to read the payloads of a segment for so long, once two others have approved."""

    id: str
    segment: str
    reason: str
    milliseconds: int


class AccessApproved(_Recorded, frozen=True, tag="access.approved"):
    """`by` approves the request of this ID. The second approval opens the segment until `at` + `milliseconds`."""

    id: str


Change = (
    SegmentCreated
    | SegmentSealed
    | SegmentAccepted
    | SegmentSucceeded
    | PolicyApplied
    | TokenIssued
    | TokenRotated
    | TokenRevoked
    | KeyAdded
    | KeyRemoved
    | IssuersChanged
    | AccessRequested
    | AccessApproved
)
"""Any of them."""


def encode_change(change: Change) -> bytes:
    """Return a change as the payload that is logged, in RFC 8785 form."""
    return canonicalize(msgspec.json.encode(change))


def decode_change(payload: bytes) -> Change:
    """Return the change of a payload; raise MalformedError."""
    try:
        change: Change = msgspec.json.decode(payload, type=Change)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError(f"not a change that is recorded: {error}") from None
    return change
