"""Small files that are complete and durable, or not there; and the lock that says whose a data folder is."""

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tlog.errors import ConfigError

_NUMBER_BYTES: Final = 8


def write_durably(path: Path, content: bytes) -> None:
    """Make a new file, readable by its owner only, durable with its name when this returns; FileExistsError.

    If that fails there is none, as far as it can be taken away.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # A system call may write a part, as when the disk is nearly full; this goes on, or raises.
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise


def make_folder(path: Path) -> None:
    """Make a folder, for its owner only, and those that lead to it; durable with their names when this returns."""
    if not path.parent.is_dir():
        make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    # Also if it was there: whoever made it may not have come to this. Who may not read the one above made none there.
    with suppress(PermissionError):
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    sync(path)


def sync(path: Path) -> None:
    """Make durable what a file has; of a folder, the names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock on a file, once whoever holds it now lets go; a `shared` one with others who share it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lock_data(path: Path, *, shared: bool) -> int:
    """Return the descriptor that holds the lock until it is closed; ConfigError if another server holds it.

    The workers of one server share the lock under a foreign WSGI server; `tlog serve` takes it alone.
    """
    make_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(
            f"another server runs on {path.parent}; stop it, or choose another folder with --data"
        ) from None
    return descriptor


def map_file(path: Path, size: int) -> mmap.mmap:
    """Return the first `size` bytes of a file, made of zeros if it is not there, as memory that processes share."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Not as a hole: who writes to one through memory while the disk is full is killed.
        there = os.fstat(descriptor).st_size
        if there < size:
            os.pwrite(descriptor, bytes(size - there), there)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


class SharedNumber:
    """A number in a file, which the processes of a server share and read without a system call."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, made with the number 0 if it is not there."""
        self._map = map_file(path, _NUMBER_BYTES)

    def read(self) -> int:
        """Return the number."""
        return int.from_bytes(self._map[:_NUMBER_BYTES], "little")

    def write(self, number: int) -> None:
        """Replace the number. Only one process at a time may."""
        self._map[:_NUMBER_BYTES] = number.to_bytes(_NUMBER_BYTES, "little")
