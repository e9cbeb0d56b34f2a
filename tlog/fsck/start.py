"""The check at the start of a server: the head and the last entries of each segment, before anything is signed."""

import time
from contextlib import closing
from pathlib import Path
from typing import Final

from structlog.typing import FilteringBoundLogger

from tlog.clock import now
from tlog.config import Config
from tlog.fsck.finding import Finding, Kind, found, say
from tlog.fsck.freeze import freeze, serious
from tlog.fsck.segment import check_end
from tlog.logs import make_logger
from tlog.store.changes import SegmentRow
from tlog.store.connection import DatabaseError
from tlog.store.control import ControlStore
from tlog_core.errors import TlogError

SECONDS: Final = 10.0
"""How long the check at a start takes at most: what it does not come to is left to the scrub."""


def check_at_start(config: Config, seconds: float = SECONDS) -> None:
    """Check the ends of segments, the latest changed first, and freeze those in which something is found."""
    end, log = time.monotonic() + seconds, make_logger()
    with closing(ControlStore.open(config.control)) as control:
        log_name, names = control.log_name(), _latest_first(config, control)
        for place, name in enumerate(names):
            if time.monotonic() > end:
                log.warning("not all checked", left=len(names) - place, of=len(names), seconds=seconds)
                return
            row = control.find(name)
            _judge(config, log, row, [*found(name, check_end(config, row, log_name))])


def _judge(config: Config, log: FilteringBoundLogger, row: SegmentRow, findings: list[Finding]) -> None:
    for finding in findings:
        # Which are frozen is said where they are opened.
        if finding.kind is not Kind.FROZEN:
            say(log, finding)
    if bad := serious(findings):
        try:
            freeze(config, row, bad, now())
        except (DatabaseError, TlogError, OSError) as error:
            log.error("not frozen", segment=row.name, reason=str(error))


def _latest_first(config: Config, control: ControlStore) -> list[str]:
    # The names alone: the rows of many segments would take ten times the memory.
    return [name for _, name in sorted(((_changed(config, row), row.name) for row in control.each()), reverse=True)]


def _changed(config: Config, row: SegmentRow) -> float:
    path = config.segment(row.id)
    return max((one.stat().st_mtime for one in (path, Path(f"{path}-wal")) if one.exists()), default=0.0)
