"""Submissions: the body of an add-checkpoint request (C2SP tlog-witness).

old <size>
<hash in base64>
…

<checkpoint>
"""

from dataclasses import dataclass
from typing import Final

from tlog_core.encoding import parse_decimal
from tlog_core.errors import MalformedError
from tlog_core.merkle import Hash
from tlog_core.note import Note, parse_note
from tlog_core.proof import parse_hashes

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
        return self.note.text.partition("\n")[0]


def parse_submission(raw: bytes) -> Submission:
    """Return what a body submits; raise MalformedError."""
    head, blank, note = raw.partition(b"\n\n")
    if not blank:
        raise MalformedError("a submission is the old size, the proof, an empty line, and the checkpoint")
    try:
        first, *proof = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise MalformedError("the old size and the proof are ASCII") from None
    if not first.startswith("old "):
        raise MalformedError("the first line is old and a size")
    if len(proof) > MAX_PROOF_HASHES:
        raise MalformedError(f"a proof has at most {MAX_PROOF_HASHES} hashes")
    if note.startswith(b"\n"):
        raise MalformedError("there are two empty lines before the checkpoint")
    old = parse_decimal(first.removeprefix("old "))
    return Submission(old, parse_hashes(proof), parse_note(note))
