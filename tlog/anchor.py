"""The anchor of a segment: its latest signed head, kept outside the data folder (`spec/durability.md`).

An older copy of a data folder is whole in itself. The anchor says that more was signed than is there.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Final, Self

from tlog.errors import CorruptError
from tlog.files import make_folder, sync_folder, write_durably
from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.merkle import Hash
from tlog_core.note import VerifierKey

# Two places, of which the older is overwritten: a write that is torn spoils that one only.
_PLACE_BYTES: Final = 4_096
_PLACES: Final = 2
# And behind them the size of the head that was synced last: until the newer one is, the older is not overwritten.
_SYNCED_AT: Final = _PLACE_BYTES * _PLACES
_SYNCED_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Anchored:
    """The newest head in an anchor: its checkpoint, the note that it came in, and the place where it stands."""

    checkpoint: Checkpoint
    note: bytes
    place: int


class Anchor:
    """The file of one segment's anchor. Threads share it; other processes may have it open too."""

    def __init__(self, descriptor: int, key: VerifierKey) -> None:
        self._descriptor = descriptor
        self._key = key
        # What was found in the places last, which need not be verified at each commit.
        self._known: dict[bytes, Checkpoint] = {}
        self._mutex = RLock()
        self._is_held = False

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
        write_durably(fresh, note.ljust(_SYNCED_AT + _SYNCED_BYTES, b"\0"))
        fresh.replace(path)
        sync_folder(path.parent)

    def newest(self) -> Anchored:
        """Return the newest head in the file that the log has signed; CorruptError if there is none, OSError."""
        with self.held():
            return self._newest(self._read()[0])

    def trust(self, size: int, root: Hash, note: bytes) -> None:
        """Take a note for what the log has signed: where nothing else is asked than whether there is more than this."""
        self._known[note] = Checkpoint(self._key.name, size, root)

    def advance(self, checkpoint: Checkpoint, note: bytes) -> None:
        """Put in a head and its note, unless there is one of as many entries; what is there is then durable.

        Raises CorruptError and OSError.
        """
        if self._read()[1] >= checkpoint.size:
            return
        self.put(checkpoint, note)
        self.sync(checkpoint.size)

    def put(self, checkpoint: Checkpoint, note: bytes) -> None:
        """Put in a head and its note, unless there is one of as many entries; durable once `sync` has returned.

        Other processes see it from now on. Raises CorruptError and OSError.
        """
        with self.held():
            places, synced = self._read()
            newest = self._newest(places)
            if checkpoint.size <= newest.checkpoint.size:
                return
            if synced < newest.checkpoint.size:
                os.fdatasync(self._descriptor)
            place = 1 - newest.place
            os.pwrite(self._descriptor, note.ljust(_PLACE_BYTES, b"\0"), place * _PLACE_BYTES)
            self._known[note] = checkpoint

    def sync(self, size: int) -> None:
        """Make durable the head of `size` entries, which was put in, while others may put in later ones; OSError."""
        if self._read()[1] >= size:
            return
        os.fdatasync(self._descriptor)
        os.pwrite(self._descriptor, size.to_bytes(_SYNCED_BYTES, "big"), _SYNCED_AT)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have it to oneself, so that what it has when a head is signed it still has when that head is put in."""
        with self._mutex:
            # To unlock it within would let other processes in.
            if self._is_held:
                yield
                return
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self._is_held = True
            try:
                yield
            finally:
                self._is_held = False
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _read(self) -> tuple[bytes, int]:
        """Return the places, and the size of the head that is known to be synced."""
        raw = os.pread(self._descriptor, _SYNCED_AT + _SYNCED_BYTES, 0)
        return raw[:_SYNCED_AT], int.from_bytes(raw[_SYNCED_AT:], "big")

    def _newest(self, places: bytes) -> Anchored:
        found = []
        for place in range(_PLACES):
            note = places[place * _PLACE_BYTES : (place + 1) * _PLACE_BYTES].rstrip(b"\0")
            with suppress(MalformedError, SignatureError):
                found.append(Anchored(self._known.get(note) or open_checkpoint(note, self._key), note, place))
        if not found:
            raise CorruptError("the anchor has no head that the log has signed")
        self._known = {one.note: one.checkpoint for one in found}
        return max(found, key=lambda one: one.checkpoint.size)
