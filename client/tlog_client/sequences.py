"""The next sequence of a writer that signs, in one segment: a small file that no crash takes back.

A writer that left a sequence out would look like one whose log loses entries. What was sent with an unknown outcome is
therefore kept in mind: what the log expects next can be anything from before it to behind it, and nothing else.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlog_client.durable import locked, naming_disk, read_if_there, replace_durably
from tlog_client.errors import StateError
from tlog_core.encoding import canonical_json, number_member, parse_json
from tlog_core.errors import MalformedError
from tlog_core.note import VerifierKey


@dataclass(frozen=True, slots=True)
class Expected:
    """Which sequence can be the writer's next in the log: from `least`, before which all is logged, to `most`."""

    least: int
    most: int

    def __bytes__(self) -> bytes:
        """Return what the file holds."""
        return canonical_json({"least": self.least, "most": self.most})


def parse_expected(raw: bytes) -> Expected:
    """Return what is in the file; raise MalformedError."""
    members = parse_json(raw)
    if not isinstance(members, dict):
        raise MalformedError("not an object")
    expected = Expected(number_member(members, "least"), number_member(members, "most"))
    if bytes(expected) != raw or expected.least > expected.most:
        raise MalformedError("not the two members least and most")
    return expected


class Turn:
    """The right to sign next. As long as nothing is kept, the log is believed about what is next.

    That is safe enough: whoever reads all of the segment sees whether a sequence was left out.
    """

    def __init__(self, path: Path, known: Expected | None) -> None:
        """Start from what the file at `path`, whose lock is held, was found to hold."""
        self._path = path
        self._known = known

    @property
    def next(self) -> int:
        """The sequence that comes next, if all that was sent is logged."""
        return 0 if self._known is None else self._known.most

    def send(self, count: int) -> None:
        """Keep that so many events from `next` on are about to be sent."""
        if self._known is not None:
            replace_durably(self._path, bytes(Expected(self._known.least, self._known.most + count)))

    def settle(self, following: int) -> None:
        """Keep that what was sent is logged, and this sequence next."""
        self._keep(Expected(following, following))

    def recall(self, following: int) -> None:
        """Keep that what was sent had been logged before, up to this sequence, and so was not logged now."""
        if self._known is not None:
            self._keep(Expected(max(self._known.least, following), max(self._known.most, following)))

    def resume(self, expected: int) -> None:
        """Go on from what the log says is next, having refused what was sent; StateError if that cannot be."""
        known = self._known
        if known is not None and not known.least <= expected <= known.most:
            span = str(known.least) if known.least == known.most else f"{known.least} to {known.most}"
            raise StateError(
                f"the log expects sequence {expected}, and the writer's next is {span}: somebody else signs with its "
                f"key, or the log has lost entries; to go on all the same, remove {self._path}"
            )
        self._keep(Expected(expected, expected))

    def _keep(self, known: Expected) -> None:
        replace_durably(self._path, bytes(known))
        self._known = known


class SequenceFile:
    """The file of one writer in one segment, shared by threads and processes. Its name is a hash of both."""

    def __init__(self, folder: Path, log: VerifierKey, writer: str) -> None:
        """Name the file; it is made when the log has taken the first event."""
        name = hashlib.sha256(f"{log}\n{writer}".encode()).hexdigest()
        self._path = folder / f"{name}.sequence"

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Give the right to sign, which nobody else has meanwhile: the log takes sequences in their order only."""
        with naming_disk(self._path), locked(self._path):
            yield Turn(self._path, self._read())

    def _read(self) -> Expected | None:
        raw = read_if_there(self._path)
        try:
            return None if raw is None else parse_expected(raw)
        except MalformedError as error:
            raise StateError(
                f"the state file {self._path} is damaged: {error}; restore it, or, to go on from what the log says, "
                "remove it"
            ) from None
