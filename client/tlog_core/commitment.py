r"""Commitments: how an entry binds its payload without showing it (`spec/entry.md`).

A payload never enters the tree. What does is

    SHA-256("tlog/commitment/v1\n" || opening || u16 length of type || type || payload)

With the opening, 32 random bytes, it binds the payload; without it, nobody can guess which payload it hides.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, NewType, cast

from tlog_core.errors import MalformedError, ProofError

Commitment = NewType("Commitment", bytes)
"""The hiding commitment to a payload: 32 bytes."""

Opening = NewType("Opening", bytes)
"""32 random bytes, known only to who may read the payload."""

COMMITMENT_BYTES: Final = 32
OPENING_BYTES: Final = 32
MAX_TYPE_BYTES: Final = 255

_CONTEXT: Final = b"tlog/commitment/v1\n"

_sha256 = hashlib.sha256


def commit(*, opening: Opening, payload_type: str, payload: bytes) -> Commitment:
    """Return the commitment to a payload of this media type (ASCII, at most 255 bytes); raise MalformedError."""
    return commit_all([opening], payload_type, [payload])[0]


def commit_all(openings: Sequence[Opening], payload_type: str, payloads: Sequence[bytes]) -> list[Commitment]:
    """Return the commitments to payloads of one media type, each with its opening; otherwise as `commit`."""
    if not set(map(len, openings)) <= {OPENING_BYTES}:
        raise MalformedError("an opening has 32 bytes")
    try:
        kind = payload_type.encode("ascii")
    except UnicodeEncodeError:
        raise MalformedError("a media type is ASCII") from None
    if not 1 <= len(kind) <= MAX_TYPE_BYTES:
        raise MalformedError(f"a media type has 1 to {MAX_TYPE_BYTES} bytes")
    framed = len(kind).to_bytes(2, "big") + kind
    return cast(
        "list[Commitment]",
        [
            _sha256(_CONTEXT + opening + framed + payload).digest()
            for opening, payload in zip(openings, payloads, strict=True)
        ],
    )


def verify_commitment(commitment: Commitment, *, opening: Opening, payload_type: str, payload: bytes) -> None:
    """Check that a payload is the one committed to; raise ProofError, or MalformedError as `commit` does."""
    if commit(opening=opening, payload_type=payload_type, payload=payload) != commitment:
        raise ProofError("the payload is not the one that the entry commits to")
