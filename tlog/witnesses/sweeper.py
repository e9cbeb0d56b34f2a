"""Sweeping: all segments are asked about again and again, so that the quorum time of idle heads stays young."""

import fcntl
import math
import os
import time
from typing import Final

from structlog.typing import FilteringBoundLogger

from tlog.config import Config
from tlog.segments import Segments
from tlog.witnesses.agenda import Agenda
from tlog.witnesses.rounds import Rounds

_ELECTION_SECONDS: Final = 5.0


class Sweeper:
    """Sweeps in the one process, of those that share the data, that holds a lock."""

    def __init__(
        self, config: Config, segments: Segments, agenda: Agenda, rounds: Rounds, log: FilteringBoundLogger
    ) -> None:
        """Go through `segments` by `rounds`; those without a quorum are put on the agenda."""
        self._config = config
        self._segments = segments
        self._agenda = agenda
        self._rounds = rounds
        self._log = log

    def sweep(self) -> None:
        """Sweep for ever."""
        while True:
            try:
                self._sweep_elected()
            except Exception as error:  # nobody else would take it up: idle heads would grow old in all segments
                self._log.error("sweeping failed", exc_info=error)
                time.sleep(_ELECTION_SECONDS)

    def _sweep_elected(self) -> None:
        """Go through all segments again and again, in the one worker that holds the lock."""
        with open(self._config.sweeping, "ab", opener=_privately) as file:
            while not _is_elected(file.fileno()):
                time.sleep(_ELECTION_SECONDS)
            # At the start of everyone: what is on disk may be an old copy, of which a witness knows better.
            self._sweep_once(-math.inf)
            while True:
                time.sleep(self._config.recosign_seconds)
                self._sweep_once(self._config.recosign_seconds)

    def _sweep_once(self, fresh: float) -> None:
        # One at a time: there is no hurry.
        for row in self._segments.control.each():
            try:
                if self._rounds.ask(row.name, fresh=fresh) is not None:
                    self._agenda.put(row.name)
            except Exception as error:  # one segment that is damaged does not keep the others from being asked about
                self._log.error("asking failed", segment=row.name, exc_info=error)


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_elected(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
