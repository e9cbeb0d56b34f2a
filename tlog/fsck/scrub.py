"""The scrub: while a server runs, one of its processes checks all segments again and again, at a limited rate."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from typing import Final

from structlog.typing import FilteringBoundLogger

from tlog.config import Config
from tlog.errors import CorruptError, NotFoundError
from tlog.files import exclusive
from tlog.fsck.bookmark import read_bookmark, write_bookmark
from tlog.fsck.chunk import check_chunk
from tlog.fsck.finding import Finding, found, say
from tlog.fsck.freeze import freeze, serious
from tlog.fsck.joined import NOTHING, Joined
from tlog.fsck.records import check_records
from tlog.fsck.segment import Depth, check_segment
from tlog.metrics import Metrics
from tlog.segments import Segments
from tlog.store.changes import SegmentRow
from tlog.store.connection import DatabaseError
from tlog_core.errors import TlogError
from tlog_core.tile import TILE_WIDTH

_SEGMENT_COST: Final = 100
"""To open a segment takes about as long as to check so many entries."""

_PASS_COST: Final = 10_000
_AGAIN_SECONDS: Final = 5.0
_SAVE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a pass is: behind the segment `after`, and in the one with the ID `current` as far as it is `joined`.

    `passed` is when the last pass ended, in seconds.
    """

    after: str = ""
    current: str = ""
    joined: Joined = NOTHING
    passed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How many entries the scrub checks in a second, and when its last pass ended, in seconds; None if none did."""

    rate: float
    passed: int | None


class Scrub:
    """Scrubs in the one process, of those that share the data, that holds a lock."""

    def __init__(
        self, config: Config, segments: Segments, metrics: Metrics, log: FilteringBoundLogger, clock: Callable[[], int]
    ) -> None:
        """Check `config.scrub_rate` entries in a second; `clock` is in milliseconds."""
        self._config = config
        self._segments = segments
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._log_name = segments.control.log_name()
        self._saved = time.monotonic()

    def keep(self) -> None:
        """Scrub from now on, in a thread that ends with the process."""
        Thread(target=self._scrub, name="scrub", daemon=True).start()

    def progress(self) -> Progress:
        """Return how far it has come, whichever process scrubs."""
        return Progress(self._config.scrub_rate, self._read_mark().passed or None)

    def scrub_once(self) -> None:
        """Check all that is left of a pass."""
        self._pass(self._read_mark())

    def _scrub(self) -> None:
        with exclusive(self._config.scrubbing):
            while not self._segments.is_closed:
                try:
                    self.scrub_once()
                except Exception as error:  # nobody else would take it up
                    if self._segments.is_closed:
                        return
                    self._log.error("scrubbing failed", exc_info=error)
                    time.sleep(_AGAIN_SECONDS)

    def _pass(self, mark: _Mark) -> None:
        """Check all segments that are left of a pass, and then what is on record."""
        self._metrics.scrub_passed(mark.passed)
        for row in self._segments.control.each(after=mark.after):
            try:
                self._check(mark, row)
            except Exception as error:  # one segment does not keep the others from being checked
                self._log.error("scrubbing failed", segment=row.name, exc_info=error)
            mark = replace(mark, after=row.name, current="", joined=NOTHING)
        self._check_records()
        ended = _Mark(passed=self._clock() // 1000)
        self._save(ended)
        self._metrics.scrub_passed(ended.passed)
        self._breathe(_PASS_COST)

    def _check(self, mark: _Mark, row: SegmentRow) -> None:
        self._breathe(_SEGMENT_COST)
        joined = mark.joined if row.id == mark.current else NOTHING
        suspected = self._look(mark, row, joined, frozenset())
        # Looked at twice, for what was wrong may have been in memory only, or where it was to go on from.
        if suspected and (bad := self._look(mark, row, NOTHING, suspected)):
            self._condemn(row, sorted(bad & suspected, key=str))

    def _look(self, mark: _Mark, row: SegmentRow, joined: Joined, known: frozenset[Finding]) -> frozenset[Finding]:
        """Return what is found first of what counts: of `known`, if that is not empty."""
        run = partial(map, partial(check_chunk, breathe=self._breathe))
        depth = Depth(chunk=TILE_WIDTH, whole_file=False)
        for step in check_segment(self._config, row, self._log_name, run, depth, joined):
            self._metrics.scrubbed(max(step.joined.size - joined.size, 0))
            joined = step.joined
            findings = frozenset(serious(found(row.name, step.faults)))
            if findings and (not known or findings & known):
                return findings
            if step.joined.size % TILE_WIDTH == 0 and time.monotonic() > self._saved + _SAVE_SECONDS:
                self._save(replace(mark, current=row.id, joined=step.joined))
        return frozenset()

    def _condemn(self, row: SegmentRow, findings: Sequence[Finding]) -> None:
        self._hear(findings)
        try:
            freeze(self._config, row, findings, self._clock())
            self._metrics.froze(row.name)
        except (DatabaseError, TlogError, OSError) as error:
            self._log.error("not frozen", segment=row.name, exc_info=error)

    def _check_records(self) -> None:
        findings = serious(check_records(self._config, self._breathe))
        # Twice, as above.
        again = set(check_records(self._config, self._breathe)) if findings else set()
        confirmed = [finding for finding in findings if finding in again]
        self._hear([finding for finding in confirmed if not finding.segment])
        for name in sorted({finding.segment for finding in confirmed} - {""}):
            # The row itself may be what is gone.
            with suppress(NotFoundError):
                row = self._segments.control.find(name)
                self._condemn(row, [finding for finding in confirmed if finding.segment == name])

    def _hear(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            say(self._log, finding)
        self._metrics.scrub_found(len(findings))

    def _breathe(self, entries: int) -> None:
        time.sleep(entries / self._config.scrub_rate)

    def _read_mark(self) -> _Mark:
        try:
            return read_bookmark(self._config.scrubbed, _Mark) or _Mark()
        except CorruptError as error:
            self._log.warning("scrubbing from the beginning", reason=str(error))
            return _Mark()

    def _save(self, mark: _Mark) -> None:
        # A disk that is full keeps nothing from being checked: after a restart it is checked again.
        with suppress(OSError):
            write_bookmark(self._config.scrubbed, mark)
        self._saved = time.monotonic()
