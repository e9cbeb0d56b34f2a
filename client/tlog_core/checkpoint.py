"""Checkpoints: a log's statement that at this size it has this root (C2SP tlog-checkpoint).

    <origin>
    <size>
    <root in base64>

as the text of a signed note. A checkpoint of ours has no extension lines: no monitor could audit what they say.
"""

from dataclasses import dataclass

from tlog_core.encoding import decode_base64, encode_base64, parse_decimal
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.merkle import EMPTY_ROOT, HASH_BYTES, Hash
from tlog_core.note import Note, SignerKey, VerifierKey, open_parsed, parse_note, sign_note


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: the log of this origin, at this size, has this root."""

    origin: str
    size: int
    root: Hash

    def __str__(self) -> str:
        """Return the text that is signed."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint of a note's text; raise MalformedError."""
    checkpoint = parse_head(text)
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise MalformedError("a checkpoint of size 0 has the root of no entries")
    return checkpoint


def parse_head(text: str) -> Checkpoint:
    """Return the checkpoint of a note's text, be it of size 0 with a root that no tree has; raise MalformedError.

    For whoever tells a lie from what has not the form of a checkpoint: evidence, and a witness.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise MalformedError("a checkpoint is three lines: origin, size and root")
    return Checkpoint(lines[0], parse_decimal(lines[1]), Hash(decode_base64(lines[2], length=HASH_BYTES)))


def sign_checkpoint(checkpoint: Checkpoint, signer: SignerKey) -> Note:
    """Return the checkpoint as a note signed by the log, whose key name is the origin; SignatureError for another."""
    if signer.name != checkpoint.origin:
        raise SignatureError(f"the key {signer.name} does not speak for {checkpoint.origin}")
    return sign_note(str(checkpoint), signer)


def open_checkpoint(raw: bytes, key: VerifierKey) -> Checkpoint:
    """Return the checkpoint in `raw` after its signature by the log; raise MalformedError or SignatureError.

    `key` is the log's own: its name is the origin expected. No key may have two signature lines.
    """
    note = parse_note(raw)
    check_lines(note)
    checkpoint = parse_checkpoint(open_parsed(note, [key]).text)
    if checkpoint.origin != key.name:
        raise SignatureError(f"a checkpoint of {checkpoint.origin}, not of {key.name}")
    return checkpoint


def check_lines(note: Note) -> None:
    """Raise MalformedError if a key has two signature lines, which no checkpoint has."""
    lines = [(line.name, line.key_id) for line in note.signatures]
    if len(lines) != len(set(lines)):
        raise MalformedError("a checkpoint has two signature lines of one key")
