"""Small files that a crash leaves as they were or as they were to be, and that several processes share."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlog_core.errors import FetchError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that goes with a file, alone among all threads and processes; its folder is made if need be."""
    # A file of its own: the other is replaced, and a lock on it would go with the old one.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def replace_durably(path: Path, content: bytes) -> None:
    """Put a file in the place of what is there, durable when this returns; the caller holds its lock."""
    # Under the lock, so that one name for the new file is enough. A crash leaves the old file or the new, whole.
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_if_there(path: Path) -> bytes | None:
    """Return the bytes of a file, None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@contextmanager
def naming_disk(path: Path) -> Iterator[None]:
    """Raise FetchError, which names the folder, where the disk fails."""
    try:
        yield
    except OSError as error:
        raise FetchError(f"cannot keep the state of the log in {path.parent}: {error.strerror}") from error
