"""What a crash has left half sealed is made good at the next start (`spec/segment.md`, "Sealing")."""

import time
from threading import Thread
from typing import Final

from structlog.typing import FilteringBoundLogger

from tlog.access.action import RESERVED
from tlog.config import Config
from tlog.control import Control
from tlog.errors import CorruptError, FrozenError, UnavailableError
from tlog.files import exclusive
from tlog.store.changes import SegmentRow
from tlog.store.connection import DatabaseError, is_damage
from tlog.store.segment import is_sealed

_AGAIN_SECONDS: Final = 1.0


class Sealing:
    """Looks through the segments once, in one process after the other of those that share the data."""

    def __init__(self, config: Config, control: Control, log: FilteringBoundLogger) -> None:
        """Make good what is found by `control`."""
        self._config = config
        self._control = control
        self._log = log

    def keep(self) -> None:
        """Begin in a thread, which ends once there is nothing left to do."""
        Thread(target=self._finish_all, name="sealing", daemon=True).start()

    def _finish_all(self) -> None:
        try:
            with exclusive(self._config.sealing):
                left = [row.name for row in self._control.store.each() if self._is_half_sealed(row)]
                while left := [name for name in left if not self._finish(name)]:
                    time.sleep(_AGAIN_SECONDS)
        except Exception as error:  # the next start looks again
            self._log.error("sealing failed", exc_info=error)

    def _is_half_sealed(self, row: SegmentRow) -> bool:
        path = self._config.segment(row.id)
        if row.name in RESERVED or not path.exists():
            return False
        try:
            return is_sealed(path) != (row.sealed is not None)
        except CorruptError:
            return False
        except DatabaseError as error:
            # What is damaged is found by others; what only cannot be read now is tried again.
            return not is_damage(error)

    def _finish(self, name: str) -> bool:
        """Return whether a segment needs no further try: it is sealed, or cannot be before somebody mends it."""
        try:
            self._control.finish_seal(name)
        except UnavailableError:
            # Its witnesses have not confirmed yet, say.
            return False
        except FrozenError:
            pass
        except Exception as error:  # nobody else would seal the rest
            self._log.error("not sealed", segment=name, exc_info=error)
        return True
