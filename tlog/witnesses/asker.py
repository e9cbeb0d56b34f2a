"""Asking the witnesses of a log (`spec/witnessing.md`): each worker asks about what it has committed itself."""

import time
from collections.abc import Callable
from functools import partial
from threading import BoundedSemaphore, Condition, Thread
from typing import Final

from structlog.typing import FilteringBoundLogger

from tlog.config import MAX_WAITING, Config
from tlog.metrics import Metrics
from tlog.segments import Segment, Segments
from tlog.store.cosigned import CosignedHead
from tlog.witnesses.agenda import Again, Agenda
from tlog.witnesses.confirmed import Confirmed
from tlog.witnesses.rounds import Rounds, newest_of
from tlog.witnesses.sweeper import Sweeper
from tlog_core.policy import TrustPolicy

_ROUNDS_AT_ONCE: Final = 4
_FAULT_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 1.0


class Asker:
    """Asks the witnesses of a log for the threads of one process."""

    def __init__(
        self,
        config: Config,
        panel: TrustPolicy,
        segments: Segments,
        agenda: Agenda,
        confirmed: Confirmed,
        metrics: Metrics,
        log: FilteringBoundLogger,
        clock: Callable[[], int],
    ) -> None:
        """Ask the witnesses of `panel` about what is put on the agenda, and note what they have `confirmed`.

        The clock is in milliseconds.
        """
        self._seconds = config.cosigned_seconds
        self.panel = panel
        """Whom it asks, and which quorum is to have cosigned."""
        self._agenda = agenda
        self._metrics = metrics
        self._log = log
        self._heard = Condition()
        self._number = 0
        self._room = BoundedSemaphore(MAX_WAITING)
        self._rounds = Rounds(config, panel, segments, metrics, log, clock=clock, ended=self._tell, confirmed=confirmed)
        self._sweeper = Sweeper(config, segments, agenda, self._rounds, log)

    def keep(self) -> None:
        """Ask from now on, in threads that end with the process."""
        for number in range(_ROUNDS_AT_ONCE):
            Thread(target=self._serve, name=f"asking-{number}", daemon=True).start()
        Thread(target=self._sweeper.sweep, name="sweeping", daemon=True).start()

    def newest(self, segment: Segment) -> CosignedHead | None:
        """Return the newest head of a segment that the quorum has cosigned, None if there is none yet."""
        return newest_of(segment, self.panel)

    def wait_for(self, segment: Segment, size: int) -> CosignedHead | None:
        """Return a head of at least `size` entries that the quorum has cosigned, None if there is none in time.

        So many requests wait at once, and no more: the others hear at once what there is.
        """
        if not self._room.acquire(blocking=False):
            return self._covering(segment, size)
        try:
            end = time.monotonic() + self._seconds
            while True:
                number = self._number
                head, left = self._covering(segment, size), end - time.monotonic()
                if head is not None or left <= 0:
                    return head
                with self._heard:
                    self._heard.wait_for(partial(self._is_after, number), min(left, _LOOK_SECONDS))
        finally:
            self._room.release()

    def _tell(self) -> None:
        with self._heard:
            self._number += 1
            self._heard.notify_all()

    def _is_after(self, number: int) -> bool:
        return self._number != number

    def _covering(self, segment: Segment, size: int) -> CosignedHead | None:
        head = self.newest(segment)
        return head if head is not None and head.size >= size else None

    def _serve(self) -> None:
        while True:
            name = self._agenda.take()
            later = time.monotonic() + _FAULT_SECONDS
            again: Again | None = Again(later, later)
            try:
                again = self._rounds.ask(name)
            except Exception as error:  # one segment that is damaged does not keep the others from being asked about
                self._log.error("asking failed", segment=name, exc_info=error)
            finally:
                self._agenda.done(name, again)
            self._metrics.uncosigned(len(self._agenda))
