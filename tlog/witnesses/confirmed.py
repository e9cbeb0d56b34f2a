"""Which segments the witnesses have confirmed since the server began: that they know of no later head.

What is on disk may be an older copy, and its anchor as old. So nothing is signed before (`spec/witnessing.md`).
"""

import time
from collections import defaultdict
from pathlib import Path
from threading import Condition

from tlog.witnesses.agenda import Agenda
from tlog_core.policy import TrustPolicy


class Confirmed:
    """Which witnesses have answered about which segment, for the threads of one process."""

    def __init__(self, panel: TrustPolicy, agenda: Agenda, folder: Path | None) -> None:
        """Have the witnesses of `panel` asked about a segment by putting it on the agenda.

        The workers of one server, which emptied the `folder` when it began, tell each other there what is confirmed.
        """
        self._folder = folder
        self._panel = panel
        self._agenda = agenda
        self._changed = Condition()
        self._answered: defaultdict[str, set[str]] = defaultdict(set)
        self._segments: set[str] = set()
        self._ends: dict[str, float] = {}

    def heard(self, segment: str, witness: str) -> None:
        """Note that a witness has cosigned the head of a segment, or said that it knows nothing of it."""
        with self._changed:
            self._answered[segment].add(witness)
            # Of any who make the quorum one has answered: no head has a quorum that it has not said.
            if self._panel.quorum_time(dict.fromkeys(self._silent(segment), 0)) is None:
                self._confirm(segment)
                if self._folder is not None:
                    (self._folder / segment).touch(mode=0o600)

    def silent(self, segment: str) -> set[str]:
        """Return the witnesses that are to answer yet, none if the segment is confirmed."""
        with self._changed:
            return set() if self._is_confirmed(segment) else self._silent(segment)

    def wait(self, segment: str, seconds: float) -> bool:
        """Tell whether a segment is confirmed, after waiting so long at most.

        Only those who come soon after the first do wait: a witness out of reach must not hold up other segments.
        """
        if segment in self._segments:
            return True
        with self._changed:
            if self._is_confirmed(segment) or not seconds:
                return self._is_confirmed(segment)
            now = time.monotonic()
            end = self._ends.setdefault(segment, now + seconds)
            self._agenda.put(segment)
            return self._changed.wait_for(lambda: segment in self._segments, max(0.0, end - now))

    def _is_confirmed(self, segment: str) -> bool:
        if segment not in self._segments and self._folder is not None and (self._folder / segment).exists():
            self._confirm(segment)
        return segment in self._segments

    def _confirm(self, segment: str) -> None:
        self._segments.add(segment)
        self._answered.pop(segment, None)
        self._changed.notify_all()

    def _silent(self, segment: str) -> set[str]:
        return {one.name for one in self._panel.witnesses} - self._answered[segment]
