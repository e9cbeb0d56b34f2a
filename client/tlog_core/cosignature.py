"""Cosignatures: a witness's statement that this is the largest consistent tree it has seen (C2SP tlog-cosignature).

A signature line of type 0x04 carries eight bytes of time, POSIX seconds, big-endian, and an Ed25519 signature over

    cosignature/v1
    time <decimal>
    <the text of the note>
"""

from dataclasses import dataclass
from typing import Final

from tlog_core.encoding import MAX_INTEGER
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.note import COSIGNATURE, SIGNATURE_BYTES, Note, Signature, SignerKey, VerifierKey

TIME_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Cosignature:
    """When a witness cosigned, in POSIX seconds, and its Ed25519 signature of 64 bytes."""

    time: int
    signature: bytes

    def __bytes__(self) -> bytes:
        """Return the 72 bytes that follow the key ID on the signature line."""
        return self.time.to_bytes(TIME_BYTES, "big") + self.signature


def parse_cosignature(blob: bytes) -> Cosignature:
    """Return the cosignature of a signature line's blob; raise MalformedError."""
    if len(blob) != TIME_BYTES + SIGNATURE_BYTES:
        raise MalformedError("a cosignature has 72 bytes after the key ID")
    time = int.from_bytes(blob[:TIME_BYTES], "big")
    if time > MAX_INTEGER:
        raise MalformedError("the time of a cosignature is beyond 2^63-1")
    return Cosignature(time, blob[TIME_BYTES:])


def cosign(text: str, *, time: int, signer: SignerKey) -> Signature:
    """Return the signature line by which a witness, at `time` in POSIX seconds, cosigns the text of a checkpoint."""
    if signer.verifier.type != COSIGNATURE:
        raise SignatureError(f"{signer.name} is not the key of a witness")
    cosignature = Cosignature(time, signer.sign(_message(text, time)))
    return Signature(signer.name, signer.verifier.id, bytes(cosignature))


def open_cosignature(note: Note, key: VerifierKey) -> Cosignature:
    """Return the latest cosignature of the note by the witness `key`; raise SignatureError or MalformedError.

    There must be one, and each line under the witness's name and ID must hold.
    """
    if key.type != COSIGNATURE:
        raise SignatureError(f"{key.name} is not the key of a witness")
    lines = [line for line in note.signatures if (line.name, line.key_id) == (key.name, key.id)]
    if not lines:
        raise SignatureError(f"not cosigned by {key.name}")
    cosignatures = [parse_cosignature(line.blob) for line in lines]
    for cosignature in cosignatures:
        key.verify(_message(note.text, cosignature.time), cosignature.signature)
    return max(cosignatures, key=lambda cosignature: cosignature.time)


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()
