"""A run of `tlog fsck`: one segment after the other, in several processes, and from where an earlier run ended."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Final

from tlog.config import Config
from tlog.errors import ConfigError, CorruptError
from tlog.fsck.bookmark import read_bookmark, write_bookmark
from tlog.fsck.chunk import Checked, Job, check_chunk
from tlog.fsck.finding import Finding, Kind, found
from tlog.fsck.joined import NOTHING, Joined
from tlog.fsck.records import check_records
from tlog.fsck.segment import Depth, Run, Step, check_end, check_segment
from tlog.segments import check_begun
from tlog.store.changes import SegmentRow
from tlog.store.connection import DatabaseError
from tlog.store.control import ControlStore
from tlog_core.tile import TILE_WIDTH

_SMALL_BYTES: Final = 4 << 20
_POOL_BYTES: Final = 8 << 20
_SAVE_SECONDS: Final = 1.0
_AHEAD: Final = 256

Progress = Callable[[str, int, int], None]
"""Is told a segment, how many of its entries are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to check: the segments `names`, or all and the folder if there are none, in so many processes.

    How far it has come is kept in the file `resume`, if there is one, and it goes on from there.
    """

    names: Sequence[str] = ()
    processes: int = 1
    resume: Path | None = None


@dataclass(frozen=True, slots=True)
class _Bookmark:
    """Of the log of this name the segments `names`, or all if none is named, are being checked.

    Those with the IDs in `done` are done, the one with the ID `current` as far as it is `joined`.
    """

    log: str
    names: tuple[str, ...]
    done: tuple[str, ...]
    current: str
    joined: Joined
    findings: tuple[Finding, ...]


def check(config: Config, plan: Plan, progress: Progress) -> Iterator[Finding]:
    """Yield each thing that is wrong; ConfigError, NotFoundError, CorruptError if it cannot begin.

    A segment that a server appends to meanwhile is checked up to its head at the beginning.
    """
    check_begun(config)
    if not plan.names:
        yield from check_records(config)
    log_name, rows = _read_rows(config, plan.names)
    with _pool(config, plan.processes, rows) as pool:
        yield from _Checking(config, plan, log_name, pool, progress).check(rows)
    if not plan.names:
        yield from strangers(config)


def check_ends(config: Config, names: Sequence[str], progress: Progress) -> Iterator[Finding]:
    """Yield what is wrong with the heads of segments and the last of their entries; errors as for `check`."""
    check_begun(config)
    log_name, rows = _read_rows(config, names)
    for row in rows:
        yield from found(row.name, check_end(config, row, log_name))
        progress(row.name, 0, 0)


def strangers(config: Config) -> Iterator[Finding]:
    """Yield files of segments that no row names: a crash while creating a segment leaves them behind, unused."""
    control = _open_control(config)
    try:
        # Held, or a segment that is being made now would look like one.
        with control.holding() as rows:
            known = {row.id for row in rows}
            paths = [path for folder in ("segments", "keys") for path in sorted((config.data / folder).glob("*"))]
    except (DatabaseError, ValueError) as error:
        raise CorruptError(f"control.db cannot be read: {error}") from None
    finally:
        control.close()
    for path in paths:
        if path.name.split(".")[0] not in known:
            yield Finding("", str(path.relative_to(config.data)), Kind.LOOSE, "it is of no segment; it may be deleted")


def _read_rows(config: Config, names: Sequence[str]) -> tuple[str, list[SegmentRow]]:
    control = _open_control(config)
    try:
        return control.log_name(), [control.find(name) for name in names] or control.list()
    except (DatabaseError, ValueError, TypeError) as error:
        raise CorruptError(f"control.db cannot be read: {error}") from None
    finally:
        control.close()


def _open_control(config: Config) -> ControlStore:
    try:
        return ControlStore.open(config.control)
    except DatabaseError as error:
        raise CorruptError(f"control.db cannot be read: {error}") from None


class _Checking:
    def __init__(self, config: Config, plan: Plan, log_name: str, pool: Executor | None, progress: Progress) -> None:
        self._config = config
        self._plan = plan
        self._log_name = log_name
        self._pool = pool
        self._progress = progress
        self._done: list[str] = []
        self._current, self._joined = "", NOTHING
        # In their order, and each once.
        self._findings: dict[Finding, None] = {}
        self._saved = time.monotonic()

    def check(self, rows: Sequence[SegmentRow]) -> Iterator[Finding]:
        self._resume()
        yield from [*self._findings]
        done = set(self._done)
        left = [row for row in rows if row.id not in done]
        whole, coming = dict[str, Future[list[Step]]](), iter(left)
        try:
            for row in left:
                self._submit_small(coming, whole)
                ahead = whole.pop(row.id, None)
                yield from self._check_one(row, self._steps(row) if ahead is None else ahead.result())
        except BaseException:
            self._save()
            raise
        if self._plan.resume is not None:
            self._plan.resume.unlink(missing_ok=True)

    def _submit_small(self, rows: Iterator[SegmentRow], whole: dict[str, "Future[list[Step]]"]) -> None:
        """Have the next small segments checked, each by one process, so that as many as `_AHEAD` are in hand."""
        if self._pool is None:
            return
        for row in islice(rows, _AHEAD - len(whole)):
            if row.id != self._current and _bytes_of(self._config, row) <= _SMALL_BYTES:
                whole[row.id] = self._pool.submit(_check_whole, self._config, row, self._log_name)

    def _steps(self, row: SegmentRow) -> Iterator[Step]:
        run: Run = partial(map, check_chunk)
        if self._pool is not None:
            run = partial(_in_pool, self._pool, 2 * self._plan.processes)
        joined = self._joined if row.id == self._current else NOTHING
        return check_segment(self._config, row, self._log_name, run, Depth(), joined)

    def _check_one(self, row: SegmentRow, steps: Iterable[Step]) -> Iterator[Finding]:
        size, unread = 0, False
        for step in steps:
            fresh = [finding for finding in found(row.name, step.faults) if finding not in self._findings]
            self._findings.update(dict.fromkeys(fresh))
            # What could not be read is not checked yet.
            unread = unread or any(finding.kind is Kind.UNREAD for finding in fresh)
            if step.joined.size % TILE_WIDTH == 0 and not unread:
                self._current, self._joined = row.id, step.joined
            if time.monotonic() > self._saved + _SAVE_SECONDS:
                self._save()
            yield from fresh
            size = step.size
            if step.joined.size < size:
                self._progress(row.name, step.joined.size, size)
        if not unread:
            self._done.append(row.id)
        self._current, self._joined = "", NOTHING
        self._progress(row.name, size, size)

    def _resume(self) -> None:
        path = self._plan.resume
        mark = None if path is None else read_bookmark(path, _Bookmark)
        if mark is None:
            return
        if (mark.log, mark.names) != (self._log_name, tuple(self._plan.names)):
            raise ConfigError(f"{path} is of a check of another log or of other segments; name another file")
        self._done, self._findings = [*mark.done], dict.fromkeys(mark.findings)
        self._current, self._joined = mark.current, mark.joined

    def _save(self) -> None:
        if self._plan.resume is not None:
            mark = _Bookmark(
                self._log_name,
                tuple(self._plan.names),
                tuple(self._done),
                self._current,
                self._joined,
                tuple(finding for finding in self._findings if finding.kind is not Kind.UNREAD),
            )
            write_bookmark(self._plan.resume, mark)
            self._saved = time.monotonic()


def _check_whole(config: Config, row: SegmentRow, log_name: str) -> list[Step]:
    # What was joined is of use for the progress only, once all is checked.
    steps = check_segment(config, row, log_name, partial(map, check_chunk), Depth())
    return [replace(step, joined=Joined(step.joined.size)) for step in steps]


def _in_pool(pool: Executor, most: int, jobs: Iterable[Job]) -> Iterator[Checked]:
    """Check chunks in other processes, so many at a time, and yield them in their order."""
    waiting: deque[Future[Checked]] = deque()
    for job in jobs:
        waiting.append(pool.submit(check_chunk, job))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _pool(config: Config, processes: int, rows: Sequence[SegmentRow]) -> Iterator[Executor | None]:
    """Give processes, where there is so much to check that it is worth to start them."""
    if processes == 1 or sum(_bytes_of(config, row) for row in rows) < _POOL_BYTES:
        yield None
        return
    # Started anew, not forked: this one has open connections.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Leave it to the parent to be interrupted, and end when it has ended, in whatever way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _bytes_of(config: Config, row: SegmentRow) -> int:
    path = config.segment(row.id)
    return sum(one.stat().st_size for one in (path, Path(f"{path}-wal")) if one.exists())
