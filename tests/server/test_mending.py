"""A fault at a file call while a log is checked or mended: it stays what it is, or becomes what it was to be.

`tests/mending.py` says how. Which calls are met here is fixed; `scripts/torture` meets them all.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import mending
import pytest
from faulting import EIO, KILL, Bench, Fault, Faults, Life, Notes, Place, Point, workbench
from mending import fsck_life, import_life, peered_life, served_fsck_life

import tlog.fsck.run
from tlog.config import Config
from tlog.fsck.bookmark import write_bookmark
from tlog.fsck.finding import Finding, Kind, found
from tlog.fsck.freeze import freeze
from tlog.peers import Peers
from tlog.segments import read_segments
from tlog.store.segment import Transaction
from tlog_core.errors import TlogError

FULL: Final = Fault("error=ENOSPC")
LASTING: Final = Fault("error=EIO", lasts=True)

Where = tuple[str, str, str, slice]
"""An act, a call, a file, and which of the calls."""

FIRST: Final = slice(0, 1)
LAST: Final = slice(-1, None)
KEY: Final[Where] = ("check", "newfstatat", "ID.key", FIRST)
BOOKMARK: Final[Where] = ("check", "write", ".resume.new", LAST)
RENAMED: Final[Where] = ("go on", "rename", ".resume.new", LAST)
WAL: Final[Where] = ("check 0", "openat", "ID.db-wal", LAST)
COMMIT: Final[Where] = ("import first", "fsync", "ID.db-wal", LAST)
FRAMES: Final[Where] = ("import first", "pwrite64", "ID.db-wal", LAST)
CONTROL: Final[Where] = ("import control", "fsync", "ID.db-wal", LAST)
# While what a peer says is compared with the tree.
TREE: Final[Where] = ("append to first", "pread64", "ID.db", slice(10, 22, 3))
FREEZING: Final[Where] = ("append to other", "fsync", "ID.db-wal", LAST)


@dataclass(frozen=True)
class Lives:
    """The lives of a bench, by name, each with its points, which are looked for once."""

    bench: Bench
    known: dict[str, Faults] = field(default_factory=dict)
    points: dict[str, Sequence[Point]] = field(default_factory=dict)

    def faults(self, life: str) -> Faults:
        if life not in self.known:
            self.known[life] = getattr(mending, f"{life}_faults")(self.bench)
        return self.known[life]

    def at(self, life: str, where: Where) -> Sequence[Point]:
        if life not in self.points:
            self.points[life] = self.faults(life).points()
        return at(self.points[life], where)


def at(points: Sequence[Point], where: Where) -> Sequence[Point]:
    *names, which = where
    chosen = [point for point in points if [point.act, point.call, point.file] == names][which]
    assert chosen, f"there is no such call: {where}"
    return chosen


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    with workbench() as bench:
        yield Lives(bench)


def _named(value: object) -> str:
    match value:
        case Fault():
            return value.what + "+" * value.lasts
        case tuple():
            return "-".join(map(str, value[:3]))
        case _:
            return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(
    ("life", "where", "fault"),
    [
        ("fsck", KEY, EIO),
        ("fsck", BOOKMARK, FULL),
        ("fsck", RENAMED, KILL),
        ("served_fsck", WAL, EIO),
        ("import", COMMIT, EIO),
        ("import", FRAMES, FULL),
        ("import", CONTROL, KILL),
        ("peers", TREE, EIO),
        ("peers", FREEZING, LASTING),
    ],
    ids=_named,
)
def test_a_fault_while_a_log_is_checked_or_mended_changes_nothing_that_it_is(
    lives: Lives, life: str, where: Where, fault: Fault
) -> None:
    for point in lives.at(life, where):
        outcome = lives.faults(life).try_one(point, fault)
        assert outcome.met, outcome
        assert not outcome.wrong, outcome


def test_a_check_that_is_gone_on_with_reads_what_it_could_not_read(lives: Lives) -> None:
    faults, again = lives.faults("fsck"), ("go on", "openat", "ID.key", slice(None))
    [point] = lives.at("fsck", KEY)
    place = lives.bench.place()
    assert place.live(faults.life, EIO.inject(point)) == "well"
    assert len(at(place.points(), again)) == len(lives.at("fsck", again)) + 1


def test_a_check_that_is_gone_on_with_does_not_say_again_what_could_not_be_read(lives: Lives) -> None:
    [point] = lives.at("fsck", KEY)
    outcome = lives.faults("fsck").try_one(point, LASTING)
    assert outcome.ends == ("refused",)
    assert not outcome.wrong, outcome


# Whether the harness would see it: bugs that are planted.


def write_the_bookmark_in_its_place(place: Place, notes: Notes) -> None:
    def write(path: Path, mark: object) -> None:
        write_bookmark(place.root / "mark", mark)
        path.write_bytes((place.root / "mark").read_bytes())

    setattr(tlog.fsck.run, "write_bookmark", write)  # noqa: B010
    fsck_life(place, notes)


def freeze_what_is_unread(place: Place, notes: Notes, life: Life = fsck_life) -> None:
    config = Config(place.data)

    def freezing(name: str, faults: Iterable[Any]) -> Iterator[Finding]:
        for finding in found(name, faults):
            if finding.kind is Kind.UNREAD:
                freeze(config, next(row for row, _ in read_segments(config) if row.name == name), [finding], 1)
            yield finding

    setattr(tlog.fsck.run, "found", freezing)  # noqa: B010
    life(place, notes)


def freeze_what_is_unread_of_a_running_log(place: Place, notes: Notes) -> None:
    freeze_what_is_unread(place, notes, served_fsck_life)


def bring_back_in_two_commits(place: Place, notes: Notes) -> None:
    real = Transaction.put_tiles

    def put_tiles(self: Transaction, tiles: Any) -> None:
        self._connection.execute("commit")
        self._connection.execute("begin immediate")
        real(self, tiles)

    setattr(Transaction, "put_tiles", put_tiles)  # noqa: B010
    import_life(place, notes)


def take_ones_own_failure_for_silence(place: Place, notes: Notes) -> None:
    real = Peers._ask_one

    def ask_one(self: Peers, *arguments: Any) -> None:
        with suppress(TlogError):
            real(self, *arguments)

    setattr(Peers, "_ask_one", ask_one)  # noqa: B010
    peered_life(place, notes)


@pytest.mark.parametrize(
    ("life", "bug", "where", "fault"),
    [
        ("fsck", write_the_bookmark_in_its_place, ("go on", "write", ".resume", LAST), KILL),
        ("fsck", freeze_what_is_unread, KEY, EIO),
        ("served_fsck", freeze_what_is_unread_of_a_running_log, ("check 0", *KEY[1:]), EIO),
        ("import", bring_back_in_two_commits, FRAMES, KILL),
        ("peers", take_ones_own_failure_for_silence, TREE, EIO),
    ],
    ids=_named,
)
def test_a_planted_bug_is_caught(lives: Lives, life: str, bug: Life, where: Where, fault: Fault) -> None:
    buggy = replace(lives.faults(life), life=bug)
    points = at(buggy.points(), where)
    outcomes = [buggy.try_one(point, fault) for point in points]
    assert all(outcome.met for outcome in outcomes), outcomes
    assert any(outcome.wrong for outcome in outcomes), outcomes
