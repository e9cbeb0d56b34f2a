"""The check at the start of a server: the head and the last entries of each segment, before anything is signed."""

import sys
import time
from pathlib import Path
from typing import Final

from tlog.clock import now
from tlog.config import Config
from tlog.fsck.finding import Finding, found
from tlog.fsck.freeze import freeze, serious
from tlog.fsck.segment import check_end
from tlog.store.changes import SegmentRow
from tlog.store.connection import DatabaseError
from tlog.store.control import ControlStore
from tlog_core.errors import TlogError

SECONDS: Final = 10.0
"""How long the check at a start takes at most: what it does not come to is left to the scrub."""


def check_at_start(config: Config, seconds: float = SECONDS) -> None:
    """Check the ends of segments, the latest changed first, and freeze those in which something is found."""
    end = time.monotonic() + seconds
    log_name, rows = _rows(config)
    for place, row in enumerate(rows):
        if time.monotonic() > end:
            _say(f"{len(rows) - place} of {len(rows)} segments are not checked within {seconds:g} seconds of the start")
            return
        _judge(config, row, [*found(row.name, check_end(config, row, log_name))])


def _judge(config: Config, row: SegmentRow, findings: list[Finding]) -> None:
    for finding in findings:
        _say(str(finding))
    if bad := serious(findings):
        try:
            freeze(config, row, bad, now())
        except (DatabaseError, TlogError, OSError) as error:
            _say(f"{row.name}: it cannot be frozen: {error}")


def _rows(config: Config) -> tuple[str, list[SegmentRow]]:
    control = ControlStore.open(config.control)
    try:
        return control.log_name(), sorted(control.list(), key=lambda row: _changed(config, row), reverse=True)
    finally:
        control.close()


def _changed(config: Config, row: SegmentRow) -> float:
    path = config.segment(row.id)
    return max((one.stat().st_mtime for one in (path, Path(f"{path}-wal")) if one.exists()), default=0.0)


def _say(text: str) -> None:
    print(f"tlog: {text}", file=sys.stderr, flush=True)  # noqa: T201
