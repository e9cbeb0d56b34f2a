"""A folder in memory that goes with its server: who is killed leaves it, and whoever starts next clears it away.

It is locked from before it has its name until the last process of the server has ended, so that one without a lock is
nobody's, whatever became of process IDs.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/dev/shm")  # noqa: S108
_PREFIX: Final = "tlog-counters-"


def make_scratch() -> Path:
    """Return a new folder in memory, held by this process and those that it forks; OSError if there can be none."""
    _clear()
    fresh = Path(tempfile.mkdtemp(prefix=".tlog-", dir=_MEMORY))
    # Deliberately never closed.
    fcntl.flock(os.open(fresh, os.O_RDONLY), fcntl.LOCK_EX)
    return fresh.rename(_MEMORY / f"{_PREFIX}{fresh.name.removeprefix('.tlog-')}")


def _clear() -> None:
    for path in _MEMORY.glob(f"{_PREFIX}*"):
        # It may be gone by now, be that of another user, or in use.
        with suppress(OSError):
            _clear_one(path)


def _clear_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_uid == os.geteuid():
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
