"""What this machine last verified of a log: one small file a key, holding the signed note of its newest checkpoint.

A client that forgets what it saw cannot notice that the log went back. The file therefore only ever moves forward, also
when several processes write it, and a broken one stops the client instead of being begun anew.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tlog_client.durable import locked, naming_disk, read_if_there, replace_durably
from tlog_client.errors import StateError
from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.note import VerifierKey


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint, and the signed note that it was opened from, as received."""

    checkpoint: Checkpoint
    note: bytes


def open_signed(note: bytes, key: VerifierKey) -> SignedCheckpoint:
    """Return the checkpoint of a note after the signature by the log `key`; raise MalformedError or SignatureError."""
    return SignedCheckpoint(open_checkpoint(note, key), note)


def default_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder for state, `$XDG_STATE_HOME/tlog` or `~/.local/state/tlog`; StateError if there is no home."""
    base = Path(environment.get("XDG_STATE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".local" / "state") / "tlog"
    except RuntimeError:
        raise StateError("there is no home folder to keep the state of logs in; name a folder for it") from None


class StateFile:
    """The file of one key. Its name is the SHA-256 of the key's text form, in hex."""

    def __init__(self, folder: Path, key: VerifierKey) -> None:
        """Name the file; it is made when there is something to keep."""
        self.path = folder / hashlib.sha256(str(key).encode()).hexdigest()
        self._key = key
        self._last: SignedCheckpoint | None = None

    def read(self) -> SignedCheckpoint | None:
        """Return what was last kept, None if nothing ever was; raise StateError, or FetchError for a failing disk."""
        # Before the file: another thread may keep the first of all meanwhile.
        last = self._last
        with naming_disk(self.path):
            note = read_if_there(self.path)
        if note is None and last is not None:
            raise StateError(f"the state file {self.path} has gone while it was in use; put it back")
        if note is None or (last is not None and note == last.note):
            return last
        self._last = self._open(note)
        return self._last

    def swap(self, old: SignedCheckpoint | None, new: SignedCheckpoint) -> bool:
        """Put `new` in the place of `old` for good; False if another process was faster, and nothing is changed."""
        if old is not None and new.checkpoint.size <= old.checkpoint.size:
            raise AssertionError("the state of a log only moves forward")
        with naming_disk(self.path), locked(self.path):
            if read_if_there(self.path) != (old and old.note):
                return False
            replace_durably(self.path, new.note)
        self._last = new
        return True

    def _open(self, note: bytes) -> SignedCheckpoint:
        try:
            return open_signed(note, self._key)
        except (MalformedError, SignatureError) as error:
            raise StateError(
                f"the state file {self.path} is damaged: {error}; restore it from a backup, or, to trust the log's "
                "next checkpoint blindly once, remove it"
            ) from None
