"""Cosignatures: a witness's statement that this is the largest consistent tree it has seen (C2SP tlog-cosignature).

A signature line of type 0x04 carries eight bytes of time, POSIX seconds, big-endian, and an Ed25519 signature over

    cosignature/v1
    time <decimal>
    <the text of the note>

One of type 0x06 carries the time and an ML-DSA-44 signature over a binary message, which is of a subtree: that of the
whole tree, with a time, is a cosignature; that of any, with the time 0, says only that it is a part of such a tree.
"""

from dataclasses import dataclass
from typing import Final

from tlog_core.checkpoint import parse_head
from tlog_core.encoding import MAX_INTEGER
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.merkle import Hash
from tlog_core.note import (
    COSIGNATURE,
    SIGNATURE_BYTES,
    SUBTREE,
    SUBTREE_SIGNATURE_BYTES,
    Note,
    Signature,
    SignerKey,
    VerifierKey,
)
from tlog_core.proof import is_subtree

TIME_BYTES: Final = 8
WITNESS_TYPES: Final = (COSIGNATURE, SUBTREE)
"""The types of key that witnesses have."""

MAX_NAME_BYTES: Final = 255
"""The longest name of a witness, and the longest origin, of which a cosignature of type 06 can speak."""


@dataclass(frozen=True, slots=True)
class Cosignature:
    """When a witness cosigned, in POSIX seconds, and its signature: 64 bytes by Ed25519, 2,420 by ML-DSA-44."""

    time: int
    signature: bytes

    def __bytes__(self) -> bytes:
        """Return what follows the key ID on the signature line."""
        return self.time.to_bytes(TIME_BYTES, "big") + self.signature


@dataclass(frozen=True, slots=True)
class Subtree:
    """The subtree of the leaves [start, end) of a log, and its hash."""

    origin: str
    start: int
    end: int
    hash: Hash


def parse_cosignature(blob: bytes, key_type: int = COSIGNATURE) -> Cosignature:
    """Return the cosignature of a signature line's blob, by a key of this type; raise MalformedError."""
    length = TIME_BYTES + (SUBTREE_SIGNATURE_BYTES if key_type == SUBTREE else SIGNATURE_BYTES)
    if len(blob) != length:
        raise MalformedError(f"a cosignature has {length} bytes after the key ID")
    time = int.from_bytes(blob[:TIME_BYTES], "big")
    if time > MAX_INTEGER:
        raise MalformedError("the time of a cosignature is beyond 2^63-1")
    return Cosignature(time, blob[TIME_BYTES:])


def cosign(text: str, *, time: int, signer: SignerKey) -> Signature:
    """Return the signature line by which a witness, at `time` in POSIX seconds, cosigns the text of a checkpoint.

    SignatureError for the key of a log; MalformedError if the text is none that the key can speak of.
    """
    _check_witness(signer.verifier)
    return _sign(signer, time, _message(text, time, signer.verifier))


def open_cosignature(note: Note, key: VerifierKey) -> Cosignature:
    """Return the latest cosignature of the note by the witness `key`; raise SignatureError or MalformedError.

    There must be one; otherwise as `open_all`.
    """
    found = open_all(note, key)
    if not found:
        raise SignatureError(f"not cosigned by {key.name}")
    return found[-1]


def open_all(note: Note, key: VerifierKey) -> list[Cosignature]:
    """Return the cosignatures of the note by the witness `key`, in the order of their times, be there none.

    Each line under the witness's name and ID must hold: else SignatureError or MalformedError. One of type 06 without a
    time is no cosignature, but must hold too.
    """
    _check_witness(key)
    lines = [line for line in note.signatures if (line.name, line.key_id) == (key.name, key.id)]
    cosignatures = [parse_cosignature(line.blob, key.type) for line in lines]
    for cosignature in cosignatures:
        key.verify(_message(note.text, cosignature.time, key), cosignature.signature)
    timed = [one for one in cosignatures if one.time or key.type != SUBTREE]
    return sorted(timed, key=lambda cosignature: cosignature.time)


def time_of(line: Signature) -> int:
    """Return the time, in POSIX seconds, of a witness's signature line that was verified before."""
    return int.from_bytes(line.blob[:TIME_BYTES], "big")


def cosign_subtree(subtree: Subtree, signer: SignerKey) -> Signature:
    """Return the signature line, of time 0, by which a witness says that a subtree is a part of what it cosigned.

    SignatureError for a key that is not of type 06, MalformedError if there is no such subtree.
    """
    _check_subtree_key(signer.verifier)
    return _sign(signer, 0, _subtree_message(subtree, 0, signer.name))


def verify_cosigned_subtree(line: Signature, subtree: Subtree, key: VerifierKey) -> None:
    """Check that by a line of time 0 the witness `key` said so of a subtree; raise SignatureError, MalformedError."""
    _check_subtree_key(key)
    cosignature = parse_cosignature(line.blob, SUBTREE)
    if (line.name, line.key_id) != (key.name, key.id) or cosignature.time:
        raise SignatureError(f"not a line by which {key.name} signs subtrees")
    key.verify(_subtree_message(subtree, 0, key.name), cosignature.signature)


def _sign(signer: SignerKey, time: int, message: bytes) -> Signature:
    return Signature(signer.name, signer.verifier.id, bytes(Cosignature(time, signer.sign(message))))


def _check_witness(key: VerifierKey) -> None:
    if key.type not in WITNESS_TYPES:
        raise SignatureError(f"{key.name} is not the key of a witness")


def _check_subtree_key(key: VerifierKey) -> None:
    if key.type != SUBTREE:
        raise SignatureError(f"{key.name} is not a key that signs subtrees")


def _message(text: str, time: int, key: VerifierKey) -> bytes:
    if key.type == COSIGNATURE:
        return f"cosignature/v1\ntime {time}\n{text}".encode()
    head = parse_head(text)
    return _subtree_message(Subtree(head.origin, 0, head.size, head.root), time, key.name)


def _subtree_message(subtree: Subtree, time: int, witness: str) -> bytes:
    # C2SP tlog-cosignature, "ML-DSA-44 signed message".
    if not is_subtree(subtree.start, subtree.end):
        raise MalformedError(f"[{subtree.start}, {subtree.end}) is not a subtree")
    numbers = (time, subtree.start, subtree.end)
    if max(numbers) > MAX_INTEGER:
        raise MalformedError("a number of a cosignature is beyond 2^63-1")
    raw_time, start, end = (number.to_bytes(8, "big") for number in numbers)
    return b"".join(
        (b"subtree/v1\n\0", _short(witness), raw_time, _short(subtree.origin), start, end, subtree.hash),
    )


def _short(name: str) -> bytes:
    raw = name.encode("utf-8")
    if not 1 <= len(raw) <= MAX_NAME_BYTES or b"\n" in raw:
        raise MalformedError(f"a cosignature speaks of names of 1 to {MAX_NAME_BYTES} bytes, on one line")
    return bytes([len(raw)]) + raw
