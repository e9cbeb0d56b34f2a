"""The indexes of a data folder, one file for each segment that is searched: whoever wants one makes it, empty.

The file itself says that the segment is followed. Whoever uses it shares its lock, and whoever deletes it holds that
alone: SQLite would else delete what belongs to the file that comes in its place.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tlog.config import Config
from tlog.errors import NotFoundError, UnavailableError
from tlog.files import exclusive, make_folder
from tlog.store.search import DamagedIndexError, Index

_VERSION: Final = f"{version('tlog')}/1"
"""What makes an index: the formats are those of a version of tlog; the number counts changes beside them."""


class Indexes:
    """The indexes, for the threads of one process."""

    def __init__(self, config: Config) -> None:
        """Have them in the data folder."""
        self._folder = config.search

    def want(self, segment: str) -> None:
        """Have a segment of this name followed from now on, if it is not yet."""
        if not self.path(segment).exists():
            make_folder(self._folder)
            with self._locked(segment):
                if not self.path(segment).exists():
                    Index.create(self.path(segment), _VERSION)

    def followed(self) -> list[str]:
        """Return the names of the segments that have an index."""
        return sorted(path.stem for path in self._folder.glob("*.db"))

    @contextmanager
    def use(self, segment: str) -> Iterator[Index]:
        """Give the index of a segment, which is not deleted meanwhile; NotFoundError if there is none.

        One that cannot be used is made anew, and then raises UnavailableError.
        """
        try:
            with self._locked(segment, shared=True):
                if not self.path(segment).exists():
                    raise NotFoundError(f"{segment} has no index; tlog search build {segment} makes one")
                with closing(Index(self.path(segment), _VERSION)) as index:
                    yield index
        except DamagedIndexError as error:
            with self._locked(segment):
                self._delete(segment)
                Index.create(self.path(segment), _VERSION)
            raise UnavailableError(f"the index of {segment} is made anew: {error}; retry") from error

    def erase(self, segment: str) -> None:
        """Delete the index of a segment; NotFoundError if there is none."""
        with self._locked(segment):
            if not self.path(segment).exists():
                raise NotFoundError(f"{segment} has no index")
            self._delete(segment)

    def bytes(self, segment: str) -> int:
        """Return how many bytes the index of a segment has on the disk."""
        return sum(path.stat().st_size for path in self._folder.glob(f"{segment}.db*"))

    def path(self, segment: str) -> Path:
        """Return the file of the index of a segment."""
        return self._folder / f"{segment}.db"

    @contextmanager
    def _locked(self, segment: str, *, shared: bool = False) -> Iterator[None]:
        if not self._folder.exists():
            raise NotFoundError(f"{segment} has no index; tlog search build {segment} makes one")
        with exclusive(self.path(segment).with_suffix(".lock"), shared=shared):
            yield

    def _delete(self, segment: str) -> None:
        path = self.path(segment)
        # The database last: what is left of it alone would be put over the one that comes in its place.
        for beside in ("-wal", "-shm", ""):
            path.with_name(f"{path.name}{beside}").unlink(missing_ok=True)
