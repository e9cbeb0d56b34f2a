"""The anchor of a segment: its latest signed head, kept outside the data folder (`spec/durability.md`).

An older copy of a data folder is whole in itself. The anchor says that more was signed than is there.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, RLock
from typing import Final, Self

from tlog.errors import CorruptError, FrozenError
from tlog.files import make_folder, sync_folder, write_durably
from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.merkle import Hash
from tlog_core.note import VerifierKey

# Two places, of which the older is overwritten: a write that is torn spoils that one only.
_PLACE_BYTES: Final = 4_096
# And behind them the size of the head that was synced last: until the newer one is, the older is not overwritten.
_SYNCED_AT: Final = 2 * _PLACE_BYTES
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
        # What was found last, and the notes of it, which need not be verified at each commit.
        self._seen: tuple[bytes, Anchored] | None = None
        self._known: dict[bytes, Checkpoint] = {}
        self._mutex = RLock()
        self._is_held = False
        self._syncing = Lock()
        self._failed = False

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
        if note in self._known:
            return
        checkpoint = Checkpoint(self._key.name, size, root)
        if note.startswith(str(checkpoint).encode()):
            self._known[note] = checkpoint

    def advance(self, checkpoint: Checkpoint, note: bytes) -> None:
        """Have a head and its note in it, or a later one, durable when this returns; errors as for `put`."""
        if note.ljust(_PLACE_BYTES, b"\0") not in _split(self._read()[0]):
            self.put(checkpoint, note)
        self.sync(checkpoint.size)

    def put(self, checkpoint: Checkpoint, note: bytes) -> None:
        """Put in a head and its note, unless there is a later one; durable once `sync` has returned.

        Other processes see it from now on. Raises FrozenError if there is another of this size, CorruptError, OSError.
        """
        with self.held():
            places, _ = self._read()
            newest = self._newest(places)
            if newest.checkpoint.size == checkpoint.size and newest.checkpoint.root != checkpoint.root:
                raise other_history()
            if newest.checkpoint.size >= checkpoint.size:
                return
            with self._syncing:
                if self._read()[1] != newest.checkpoint.size:
                    self._sync(newest.checkpoint.size)
                place, content = 1 - newest.place, note.ljust(_PLACE_BYTES, b"\0")
                self._write(content, place * _PLACE_BYTES)
            # As it was signed here, it need not be verified when it is read again.
            self._known[note] = checkpoint
            kept = _split(places)[newest.place]
            self._seen = content + kept if newest.place else kept + content, Anchored(checkpoint, note, place)

    def sync(self, size: int) -> None:
        """Make durable the head of `size` entries, which was put in, while others may put in later ones; OSError."""
        with self._syncing:
            places, synced = self._read()
            # It is believed only as far as it can be true.
            if not size <= synced <= max(map(_claim, _split(places))):
                self._sync(size)

    def mend(self) -> None:
        """Write anew what may be read and not be on the disk: after a sync that failed the system takes it for synced.

        Raises CorruptError, OSError.
        """
        with self.held(), self._syncing:
            places, synced = self._read()
            newest = self._newest(places)
            if synced != newest.checkpoint.size:
                self._write(newest.note.ljust(_PLACE_BYTES, b"\0"), newest.place * _PLACE_BYTES)
                self._sync(newest.checkpoint.size)

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

    def _write(self, content: bytes, at: int) -> None:
        if os.pwrite(self._descriptor, content, at) != len(content):
            raise OSError(errno.EIO, "the anchor was written in part only")

    def _sync(self, size: int) -> None:
        # It would succeed the next time, and nothing would be synced.
        if self._failed:
            raise OSError(errno.EIO, "the anchor could not be synced before")
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            self._failed = True
            raise
        self._write(size.to_bytes(_SYNCED_BYTES, "big"), _SYNCED_AT)

    def _newest(self, places: bytes) -> Anchored:
        if self._seen is not None and self._seen[0] == places:
            return self._seen[1]
        found = []
        for number, place in enumerate(_split(places)):
            note = place.partition(b"\0")[0]
            with suppress(MalformedError, SignatureError):
                found.append(Anchored(self._known.get(note) or open_checkpoint(note, self._key), note, number))
        if not found:
            raise CorruptError("the anchor has no head that the log has signed")
        self._known = {one.note: one.checkpoint for one in found}
        newest = max(found, key=lambda one: one.checkpoint.size)
        self._seen = places, newest
        return newest


def other_history() -> FrozenError:
    """Return what to raise where an anchor contradicts a segment."""
    return FrozenError("its anchor has another history: another server has signed with the same key")


def _split(places: bytes) -> tuple[bytes, bytes]:
    return places[:_PLACE_BYTES], places[_PLACE_BYTES:]


def _claim(place: bytes) -> int:
    """Return the size that a place says to have, nothing of it verified; -1 if it says none."""
    lines = place.split(b"\n", 2)
    return int(lines[1]) if len(lines) == 3 and lines[1].isdigit() else -1
