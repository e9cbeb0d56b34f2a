"""Room: whether the disk has so much free that more may be taken in (spec/http-api.md, "A full disk")."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tlog.errors import FullError

_SECONDS: Final = 1.0
_MIB: Final = 1 << 20


class Room:
    """What a disk has free, above a reserve, both in bytes. Threads share it."""

    def __init__(self, folder: Path, reserve: int) -> None:
        """Look at the disk of `folder`."""
        self._folder = folder
        self.reserve = reserve
        # When that was, and what was free.
        self._seen = (float("-inf"), 0)

    def free(self) -> int:
        """Return how many bytes were free within the last second."""
        at, free = self._seen
        if time.monotonic() - at >= _SECONDS:
            disk = os.statvfs(self._folder)
            free = disk.f_bavail * disk.f_frsize
            self._seen = (time.monotonic(), free)
        return free

    def largest_wal(self) -> int:
        """Return how many bytes the largest write-ahead log of a database has: it grows while a reader holds on."""
        paths = [path for pattern in ("*-wal", "segments/*-wal") for path in self._folder.glob(pattern)]
        sizes = [0]
        for path in paths:
            # Its database may have been closed meanwhile.
            with suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        return max(sizes)

    def check(self) -> None:
        """Raise FullError if less is free than the reserve."""
        if self.free() < self.reserve:
            raise FullError(
                f"the disk of the log has {self.free() // _MIB} MiB free, and below {self.reserve // _MIB} MiB nothing "
                "more is taken in; nothing was logged, retry once the operator has made room (spec/http-api.md)"
            )
