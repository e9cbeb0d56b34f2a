"""What is asked of a witness (C2SP tlog-witness): to cosign a checkpoint, or to sign a subtree of one.

old <size>
<hash in base64>
…

<checkpoint>

subtree <start> <end>
<hash of the subtree in base64>
<hash in base64>
…

<checkpoint>
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tlog_core.encoding import parse_decimal
from tlog_core.errors import MalformedError
from tlog_core.merkle import Hash
from tlog_core.note import Note, parse_note
from tlog_core.proof import is_subtree, parse_hashes

MAX_SUBMISSION_BYTES: Final = 1 << 17
"""Room for 63 hashes, and for many more signatures than the 16 that a note must be able to have."""

MAX_PROOF_HASHES: Final = 63


@dataclass(frozen=True, slots=True)
class Submission:
    """A checkpoint, with nothing about it checked, and the proof that it is consistent with one of size `old`."""

    old: int
    proof: tuple[Hash, ...]
    note: Note

    @property
    def origin(self) -> str:
        """The first line of the checkpoint."""
        return origin_of(self.note)


@dataclass(frozen=True, slots=True)
class SubtreeRequest:
    """A subtree, the leaves [start, end), and the proof that it is a part of a checkpoint, with nothing checked."""

    start: int
    end: int
    subtree: Hash
    proof: tuple[Hash, ...]
    note: Note


def parse_submission(raw: bytes) -> Submission:
    """Return what a body submits; raise MalformedError."""
    first, proof, note = _split(raw)
    if not first.startswith("old "):
        raise MalformedError("the first line is old and a size")
    return Submission(parse_decimal(first.removeprefix("old ")), _parse_proof(proof), parse_note(note))


def parse_subtree_request(raw: bytes) -> SubtreeRequest:
    """Return the subtree that a body asks for; raise MalformedError, also if it is none."""
    first, lines, note = _split(raw)
    name, *numbers = first.split(" ")
    if name != "subtree" or len(numbers) != 2 or not lines:
        raise MalformedError("the first line is subtree, its start and its end, and the second its hash")
    start, end = map(parse_decimal, numbers)
    if start >= end or not is_subtree(start, end):
        raise MalformedError(f"[{start}, {end}) is not a subtree of any entries")
    (subtree,) = parse_hashes(lines[:1])
    return SubtreeRequest(start, end, subtree, _parse_proof(lines[1:]), parse_note(note))


def origin_of(note: Note) -> str:
    """Return the origin that a checkpoint names, whatever else there is in the note."""
    return note.text.partition("\n")[0]


def _split(raw: bytes) -> tuple[str, list[str], bytes]:
    head, blank, note = raw.partition(b"\n\n")
    if not blank:
        raise MalformedError("the body is a line of numbers, hashes, an empty line, and the checkpoint")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise MalformedError("the numbers and the hashes are ASCII") from None
    if note.startswith(b"\n"):
        raise MalformedError("there are two empty lines before the checkpoint")
    return first, lines, note


def _parse_proof(lines: Sequence[str]) -> tuple[Hash, ...]:
    if len(lines) > MAX_PROOF_HASHES:
        raise MalformedError(f"a proof has at most {MAX_PROOF_HASHES} hashes")
    return parse_hashes(lines)
