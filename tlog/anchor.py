"""The anchor of a segment: its latest signed head, kept outside the data folder (`spec/durability.md`).

An older copy of a data folder is whole in itself. The anchor says that more was signed than is there.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tlog.errors import CorruptError
from tlog.files import make_folder, sync_folder, write_durably
from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.note import VerifierKey

# Two places, of which the older is overwritten: a write that is torn spoils that one only.
_PLACE_BYTES: Final = 4_096
_PLACES: Final = 2


@dataclass(frozen=True, slots=True)
class Anchored:
    """The newest head in an anchor: its checkpoint, the note that it came in, and the place where it stands."""

    checkpoint: Checkpoint
    note: bytes
    place: int


class Anchor:
    """The file of one segment's anchor, for one thread at a time; other processes may have it open too."""

    def __init__(self, descriptor: int, key: VerifierKey) -> None:
        self._descriptor = descriptor
        self._key = key
        self._seen: tuple[bytes, Anchored] | None = None
        self._held = False

    @classmethod
    def open(cls, path: Path, key: VerifierKey) -> Self:
        """Return the anchor at `path` of the segment with this key; FileNotFoundError and other OSError."""
        return cls(os.open(path, os.O_RDWR), key)

    @staticmethod
    def create(path: Path, note: bytes) -> None:
        """Make the file of a segment whose head is `note`, durable when this returns; OSError.

        One that is there is replaced: only call this for a segment whose latest head this is.
        """
        make_folder(path.parent)
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        write_durably(fresh, note.ljust(_PLACE_BYTES * _PLACES, b"\0"))
        fresh.replace(path)
        sync_folder(path.parent)

    def newest(self) -> Anchored:
        """Return the newest head in the file that the log has signed; CorruptError if there is none, OSError."""
        with self._locked():
            return self._newest()

    def advance(self, checkpoint: Checkpoint, note: bytes) -> None:
        """Put in a head and its note, durable when this returns, unless there is one of as many entries.

        Raises CorruptError and OSError.
        """
        with self._locked():
            newest = self._newest()
            if checkpoint.size <= newest.checkpoint.size:
                return
            place = 1 - newest.place
            self._seen = None
            os.pwrite(self._descriptor, note.ljust(_PLACE_BYTES, b"\0"), place * _PLACE_BYTES)
            os.fdatasync(self._descriptor)
            # As it was signed here, it need not be verified when it is read again.
            self._seen = self._read(), Anchored(checkpoint, note, place)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have it to oneself, so that what it has when a head is signed it still has when that head is put in."""
        with self._locked():
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # To unlock it within would let others in.
        if self._held:
            yield
            return
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _newest(self) -> Anchored:
        raw = self._read()
        # Verified once, and not at each commit.
        if self._seen is None or self._seen[0] != raw:
            self._seen = raw, self._verified(raw)
        return self._seen[1]

    def _read(self) -> bytes:
        return os.pread(self._descriptor, _PLACE_BYTES * _PLACES, 0)

    def _verified(self, raw: bytes) -> Anchored:
        found = []
        for place in range(_PLACES):
            note = raw[place * _PLACE_BYTES : (place + 1) * _PLACE_BYTES].rstrip(b"\0")
            with suppress(MalformedError, SignatureError):
                found.append(Anchored(open_checkpoint(note, self._key), note, place))
        if not found:
            raise CorruptError("the anchor has no head that the log has signed")
        return max(found, key=lambda one: one.checkpoint.size)
