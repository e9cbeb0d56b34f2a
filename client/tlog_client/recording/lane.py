"""Events on disk until the log has them (`spec/python.md`): files of lines, each a batch, in a folder of one process.

Each line has a checksum: what a crash has torn, or the disk has damaged, is not taken for an event.
"""

import errno
import fcntl
import itertools
import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

from tlog_client.durable import sync_folder
from tlog_client.events import MAX_BATCH_BYTES

MAX_EVENTS: Final = 1_000
BATCH_SUFFIX: Final = ".batch"
REFUSED_SUFFIX: Final = ".refused"

_CHECKSUM_BYTES: Final = 9
# What else is there is not ours.
_NAME: Final = re.compile(rf"[0-9]{{12,}}-[0-9a-f]{{32}}\{BATCH_SUFFIX}")


@dataclass(frozen=True, slots=True)
class Batch:
    """A file of events, which are sent together, and always under the one idempotency key that is in its name."""

    path: Path

    @property
    def number(self) -> int:
        """Its place among the batches of its folder."""
        return int(self.path.stem.partition("-")[0])

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return self.path.stem.partition("-")[2]

    def read(self) -> tuple[list[bytes], int]:
        """Return its events, and how many lines were damaged, without a torn last one; raise OSError."""
        lines = self.path.read_bytes().split(b"\n")[:-1]
        whole = [line[_CHECKSUM_BYTES:] for line in lines if line == _sum_up(line[_CHECKSUM_BYTES:])]
        return whole, len(lines) - len(whole)


@dataclass(slots=True)
class _Open:
    """The file that takes new events."""

    batch: Batch
    descriptor: int
    length: int = 0
    events: int = 0
    body: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many bytes a lane takes on disk at most, and how many an event takes of a request beside itself."""

    lane_bytes: int
    overhead: int


class Lane:
    """A folder of batches that is one process's alone, by a lock that ends with it. Threads may share it."""

    def __init__(self, folder: Path, lock: int, limits: Limits) -> None:
        """Go on with what is in the folder; `lock` is the descriptor that holds its lock. Raises OSError."""
        self._folder = folder
        self._lock = lock
        self._limits = limits
        self._batches = deque(_batches_in(folder))
        self._bytes = sum(path.stat().st_size for path in folder.iterdir())
        self._next = 1 + max((batch.number for batch in self._batches), default=0)
        self._open: _Open | None = None
        self._dirty: set[Path] = set()
        self._turn = threading.Lock()
        self._syncing = threading.Lock()

    def put(self, event: bytes, *, within_limit: bool = True) -> bool:
        """Add an event in RFC 8785 form; False if there is no room. It survives this process. Raises OSError."""
        line = _sum_up(event) + b"\n"
        with self._turn:
            if within_limit and self._bytes + len(line) > self._limits.lane_bytes:
                return False
            self._write(self._opened(len(event)), line)
        return True

    @property
    def full(self) -> bool:
        """Whether there is room for nothing more."""
        return self._bytes >= self._limits.lane_bytes

    def take(self) -> Batch | None:
        """Return the oldest batch, which gets no more events from now on; None if there is none."""
        with self._turn:
            # What somebody has removed must not be waited for.
            while self._batches and not self._batches[0].path.exists():
                self._batches.popleft()
            if len(self._batches) == 1:
                self._close_file()
            return self._batches[0] if self._batches else None

    def done(self, batch: Batch) -> None:
        """Remove the oldest batch; raise OSError."""
        length = batch.path.stat().st_size
        batch.path.unlink()
        with self._turn:
            self._batches.popleft()
            self._bytes -= length

    def set_aside(self, batch: Batch) -> None:
        """Keep the oldest batch under another name, and send it no more; raise OSError."""
        batch.path.rename(batch.path.with_suffix(REFUSED_SUFFIX))
        with self._turn:
            self._batches.popleft()

    def sync(self) -> None:
        """Make what was put durable, also against a loss of power; raise OSError."""
        with self._syncing:
            with self._turn:
                dirty, self._dirty = self._dirty, set()
            try:
                for path in dirty:
                    _sync_file(path)
                if dirty:
                    sync_folder(self._folder)
            except OSError:
                with self._turn:
                    self._dirty |= dirty
                raise

    def close(self) -> None:
        """Leave the folder to whoever comes next; raise OSError."""
        with self._turn:
            self._close_file()
        os.close(self._lock)

    def forget(self) -> None:
        """In a process that was forked off, give up what is its parent's, which keeps the lock."""
        # No lock here is of use: a thread that is not in this process may hold it.
        if self._open is not None:
            os.close(self._open.descriptor)
        os.close(self._lock)

    def _opened(self, length: int) -> _Open:
        room = MAX_BATCH_BYTES - length - self._limits.overhead
        if self._open is not None and (self._open.events >= MAX_EVENTS or self._open.body > room):
            self._close_file()
        if self._open is None:
            self._open = self._new_file()
        self._open.body += length + self._limits.overhead
        self._open.events += 1
        return self._open

    def _new_file(self) -> _Open:
        batch = Batch(self._folder / f"{self._next:012}-{secrets.token_hex(16)}{BATCH_SUFFIX}")
        descriptor = os.open(batch.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._next += 1
        self._batches.append(batch)
        return _Open(batch, descriptor)

    def _close_file(self) -> None:
        # In this order: a fork between the two leaves the child one descriptor too many, and not the wrong one.
        file, self._open = self._open, None
        if file is not None:
            os.close(file.descriptor)

    def _write(self, file: _Open, line: bytes) -> None:
        self._dirty.add(file.batch.path)
        if os.write(file.descriptor, line) < len(line):
            # The next line must not come behind half of this one.
            os.ftruncate(file.descriptor, file.length)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file.length += len(line)
        self._bytes += len(line)


def open_lane(folder: Path, limits: Limits) -> Lane:
    """Return the first lane in a folder that no process has; raise OSError."""
    lanes = (lock_lane(folder / str(number), limits) for number in itertools.count())
    return next(lane for lane in lanes if lane is not None)


def left_lanes(folder: Path, limits: Limits) -> Iterator[Lane]:
    """Yield each lane with batches that no process has any more; raise OSError."""
    for path in sorted(folder.iterdir()):
        if _batches_in(path) and (lane := lock_lane(path, limits)) is not None:
            yield lane


def lock_lane(folder: Path, limits: Limits) -> Lane | None:
    """Return the lane that a folder is, None if a process has it; raise OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Not `lockf`, whose locks end when any descriptor of the file is closed.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Lane(folder, lock, limits)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            return None
        raise


def _batches_in(folder: Path) -> list[Batch]:
    found = (Batch(path) for path in folder.glob(f"*{BATCH_SUFFIX}") if _NAME.fullmatch(path.name))
    return sorted(found, key=lambda batch: batch.number)


def _sum_up(event: bytes) -> bytes:
    return b"%08x %b" % (crc32(event), event)


def _sync_file(path: Path) -> None:
    # One that is gone was logged.
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
