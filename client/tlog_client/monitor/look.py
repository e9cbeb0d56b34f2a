"""Looking at entries: what each must be, and how it must follow those before (`spec/entry.md`, `spec/segment.md`)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tlog_core.entry import Entry, parse_entry
from tlog_core.errors import MalformedError, ProofError, SignatureError
from tlog_core.note import VerifierKey
from tlog_core.writer import verify_sequence, verify_writer

SEAL_WRITER: Final = "tlog/seal"
"""The writer of the entry that seals a segment."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule that the entry at `index` breaks: which, and how."""

    index: int
    kind: str
    detail: str


class Looker:
    """What the entries so far leave to be kept in mind: the time of the last, the seal, the writers' sequences."""

    def __init__(
        self,
        *,
        origin: str,
        writer_keys: Sequence[VerifierKey],
        time: int = 0,
        sealed: bool = False,
        following: Mapping[str, int],
    ) -> None:
        """Go on after entries of which the last had `time`, in milliseconds; of `following` sequences are checked."""
        self._origin = origin
        self._writer_keys = writer_keys
        self.time = time
        self.sealed = sealed
        self.following = dict(following)

    def look(self, index: int, raw: bytes) -> tuple[Entry | None, list[Fault]]:
        """Return the entry, None if the bytes are none, and the rules that it breaks."""
        try:
            entry = parse_entry(raw)
        except MalformedError as error:
            return None, [Fault(index, "malformed", f"entry {index} is none: {error}"), *self._after_seal(index)]
        faults = [*self._after_seal(index), *self._of_origin(index, entry), *self._in_time(index, entry)]
        faults += self._of_writer(index, entry)
        self.time = max(self.time, entry.time)
        self.sealed = self.sealed or entry.writer == SEAL_WRITER
        return entry, faults

    def look_at_writer(self, index: int, raw: bytes) -> list[Fault]:
        """Return what is wrong with the writer's signature and sequence alone, of bytes that were looked at before."""
        try:
            return list(self._of_writer(index, parse_entry(raw)))
        except MalformedError:
            return []

    def _after_seal(self, index: int) -> Iterator[Fault]:
        if self.sealed:
            yield Fault(index, "sealed", f"entry {index} comes after the one that sealed the segment")

    def _of_origin(self, index: int, entry: Entry) -> Iterator[Fault]:
        if entry.origin != self._origin:
            yield Fault(index, "origin", f"entry {index} belongs to {entry.origin}")

    def _in_time(self, index: int, entry: Entry) -> Iterator[Fault]:
        if entry.time < self.time:
            yield Fault(index, "time", f"entry {index} has the time {entry.time} ms, after one of {self.time} ms")

    def _of_writer(self, index: int, entry: Entry) -> Iterator[Fault]:
        if entry.writer not in self.following:
            return
        try:
            verify_writer(entry, self._writer_keys)
        except SignatureError as error:
            yield Fault(index, "writer", f"entry {index}: {error}")
            return
        try:
            self.following[entry.writer] = verify_sequence(entry, self.following[entry.writer])
        except ProofError as error:
            yield Fault(index, "sequence", f"entry {index}: {error}")
            # From here on, or each entry after one gap would be a fault again.
            self.following[entry.writer] = max(self.following[entry.writer], _after(entry))


def _after(entry: Entry) -> int:
    return 0 if entry.signed is None else entry.signed.sequence + 1
