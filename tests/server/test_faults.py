"""A fault at a file call: nothing is lost, doubled or contradicted, and who asked hears what to do.

`tests/faulting.py` says how. Which calls are met here is fixed; `scripts/torture` meets them all.
"""

import itertools
import json
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from faulting import (
    EIO,
    KILL,
    Bench,
    Fault,
    Faults,
    Life,
    Notes,
    Place,
    Point,
    backup_faults,
    backup_life,
    beginning_faults,
    in_turn,
    short_life,
    whole_life,
    witness_faults,
    witness_life,
    workbench,
)
from history import History, load, wait_for
from live import TLOG, Server, until

import tlog.backup
from tlog.access.action import CONTROL
from tlog.access.change import Change, encode_change
from tlog.control import Control, project
from tlog.files import exclusive, write_durably
from tlog.journal import Answered, Journal
from tlog.metrics import Metrics
from tlog.sequencer import Sequencer
from tlog.store.connection import DatabaseError
from tlog.store.segment import Head, SegmentStore, Transaction
from tlog.store.witness import WitnessStore
from tlog.submit import append, commit_to
from tlog.tree import Tree
from tlog_core.receipt import JSON_TYPE

FULL = Fault("error=ENOSPC")
LASTING = Fault("error=EIO", lasts=True)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with workbench() as made:
        yield made


@pytest.fixture(scope="module")
def points(bench: Bench) -> list[Point]:
    return Faults(bench).points()


@pytest.fixture(scope="module")
def backup_points(bench: Bench) -> list[Point]:
    return backup_faults(bench).points()


def _named(value: object) -> str:
    match value:
        case Fault():
            return value.what + "+" * value.lasts
        case _:
            return getattr(value, "__name__", str(value))


def at(points: list[Point], act: str, call: str, file: str) -> list[Point]:
    """Return the calls of this name during an act that are about this file."""
    found = [point for point in points if (point.act, point.call, point.file) == (act, call, file)]
    assert found, f"no {call} of {file} in {act}"
    return found


@pytest.mark.parametrize(
    ("act", "call", "file", "fault"),
    [
        # The commit of a segment: its frames, and that they are durable.
        ("append", "pwrite64", "ID.db-wal", FULL),
        ("append", "fsync", "ID.db-wal", EIO),
        ("append", "fsync", "ID.db-wal", KILL),
        ("batch", "fsync", "ID.db-wal", LASTING),
        # Its anchor, once it is committed.
        ("append", "fdatasync", "ID", EIO),
        ("append", "fdatasync", "ID", KILL),
        # The lock that is let go after the commit.
        ("batch", "flock", "ID.lock", EIO),
        ("append", "openat", "ID.key", EIO),
        ("append", "pread64", "ID.db", EIO),
        ("append", "pread64", "control.db", EIO),
        # A change that is on record, and not in force.
        ("token", "fsync", "control.db-wal", EIO),
        ("policy", "fsync", "control.db-wal", KILL),
        ("policy", "flock", "changes.lock", EIO),
        ("create", "openat", "ID.key", FULL),
        ("create", "fsync", "keys", EIO),
        ("seal", "fsync", "ID.db-wal", KILL),
        ("start", "openat", "control.db", EIO),
        ("start", "flock", "changes.lock", EIO),
        ("start", "mmap", "generation", Fault("error=ENOMEM")),
        ("stop", "unlink", "ID.db-wal", EIO),
    ],
    ids=_named,
)
def test_a_fault_at_a_call_that_matters_loses_doubles_and_contradicts_nothing(
    bench: Bench, points: list[Point], act: str, call: str, file: str, fault: Fault
) -> None:
    found = at(points, act, call, file)
    for point in {found[0], found[-1]}:
        outcome = Faults(bench).try_one(point, fault)
        assert outcome.met, outcome
        assert not outcome.wrong, outcome


def test_a_change_that_is_on_record_is_never_called_refused(bench: Bench, points: list[Point]) -> None:
    place = bench.place()
    [point, *_] = at(points, "token", "fsync", "control.db-wal")
    assert place.live(whole_life, LASTING.inject(point)) == "well"
    answers = [one["problem"] for one in place.recorder.seen() if one.get("asked") == "POST /tokens"]
    assert answers == ["outcome-unknown"] * 4


def test_a_fault_at_any_call_loses_doubles_and_contradicts_nothing(bench: Bench, points: list[Point]) -> None:
    chance = random.Random(5)  # noqa: S311 - to be repeated
    for point, fault in itertools.islice(in_turn(points, chance), 8):
        outcome = Faults(bench).try_one(point, fault)
        assert outcome.met, outcome
        assert not outcome.wrong, outcome


def test_a_second_fault_while_a_log_recovers_loses_doubles_and_contradicts_nothing(
    bench: Bench, points: list[Point]
) -> None:
    chance = random.Random(6)  # noqa: S311 - to be repeated
    for point, fault in itertools.islice(in_turn(points, chance), 4):
        outcome = Faults(bench).try_two(point, fault, chance)
        assert not outcome.wrong, outcome


def last_while_it_recovers(points: Sequence[Point]) -> tuple[Point, Fault]:
    return at([*points], "recover", "fsync", "ID.db-wal")[-1], LASTING


def test_a_fault_that_lasts_while_a_log_recovers_loses_doubles_and_contradicts_nothing(
    bench: Bench, points: list[Point]
) -> None:
    [point, *_] = at(points, "append", "fsync", "ID.db-wal")
    outcome = Faults(bench).try_both(point, KILL, last_while_it_recovers)
    assert outcome.met, outcome
    assert not outcome.wrong, outcome


def test_a_fault_while_a_log_begins_leaves_a_folder_that_begins_again(bench: Bench) -> None:
    faults = beginning_faults(bench)
    points = faults.points()
    for call, file, fault in (
        ("write", "first.vkey", FULL),
        ("pwrite64", "control.db", KILL),
        ("fsync", "control.db-wal", EIO),
        ("mkdir", "", EIO),
    ):
        outcome = faults.try_one(at(points, "first start", call, file)[0], fault)
        assert outcome.met, outcome
        assert not outcome.wrong, outcome


@pytest.mark.parametrize(
    ("act", "call", "file", "fault"),
    [
        ("back up", "pread64", "ID.db", EIO),
        ("back up", "sendfile", "ID.key", FULL),
        ("back up", "write", "manifest.json", FULL),
        ("back up", "fsync", "keys", EIO),
        ("back up", "rename", ".backup.new", KILL),
        ("restore", "sendfile", "ID.db", KILL),
        ("restore", "fsync", ".restored.new", LASTING),
    ],
    ids=_named,
)
def test_a_backup_and_what_is_put_back_are_whole_or_not_there(
    bench: Bench, backup_points: list[Point], act: str, call: str, file: str, fault: Fault
) -> None:
    outcome = backup_faults(bench).try_one(at(backup_points, act, call, file)[0], fault)
    assert outcome.met, outcome
    assert not outcome.wrong, outcome


@pytest.mark.parametrize("fault", [EIO, KILL, LASTING], ids=_named)
def test_a_witness_stands_by_what_it_cosigned_whatever_fails(bench: Bench, fault: Fault) -> None:
    faults = witness_faults(bench)
    outcome = faults.try_one(at(faults.points(), "to 7", "fsync", "witness.db-wal")[0], fault)
    assert outcome.met, outcome
    assert not outcome.wrong, outcome


def test_a_witness_says_that_its_disk_cannot_be_read(bench: Bench) -> None:
    faults = witness_faults(bench)
    outcome = faults.try_one(at(faults.points(), "to 7", "pread64", "witness.db")[0], LASTING)
    assert outcome.met, outcome
    assert not outcome.wrong, outcome


# A small file, of which a part may be written.


def test_a_small_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "key"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_durably(path, b"twenty bytes, or none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not path.exists()
    write_durably(path, b"twenty bytes, or none")
    assert path.read_bytes() == b"twenty bytes, or none"


def test_a_request_log_that_fails_once_goes_on() -> None:
    faults, lines = [OSError("no space left on device")], list[bytes]()

    def write(line: bytes) -> None:
        if faults:
            raise faults.pop()
        lines.append(line)

    journal = Journal(write, Metrics())
    journal.keep()
    for number in ("first", "second"):
        journal.note(Answered(0.0, "GET", "/healthz", None, 200, 0.0, number))
        until(lambda: not faults, "the first to fail")
    until(lambda: lines, "the second to be written")
    assert json.loads(lines[-1])["request_id"] == "second"


# Whether the harness would see it: bugs that are planted.


def believe_a_failed_commit(place: Place, notes: Notes, live: Life = whole_life) -> None:
    real = SegmentStore.write

    @contextmanager
    def write(self: SegmentStore) -> Iterator[Transaction]:
        with suppress(DatabaseError), real(self) as transaction:
            yield transaction

    setattr(SegmentStore, "write", write)  # noqa: B010
    live(place, notes)


def go_on_with_the_tree_of_a_failed_commit(place: Place, notes: Notes) -> None:
    read, write = Sequencer._tree_at, Sequencer._write

    def tree_at(self: Sequencer, transaction: Transaction, head: Head) -> Tree:
        return self._tree if self._tree.frontier.size else read(self, transaction, head)

    def written(self: Sequencer, *arguments: object) -> object:
        self._tree, head, answers = write(self, *arguments)  # type: ignore[arg-type]
        return self._tree, head, answers

    setattr(Sequencer, "_tree_at", tree_at)  # noqa: B010
    # It would notice.
    setattr(Sequencer, "_check_again", lambda *_: None)  # noqa: B010
    setattr(Sequencer, "_write", written)  # noqa: B010
    setattr(Sequencer, "broken", property(lambda _: False, lambda _, __: None))  # noqa: B010
    whole_life(place, notes)


def forget_keys(place: Place, notes: Notes) -> None:
    setattr(Transaction, "add_requests", lambda _, __: None)  # noqa: B010
    whole_life(place, notes)


def change_before_it_is_on_record(place: Place, notes: Notes) -> None:
    def enact(self: Control, change: Change, prepare: Callable[[], None]) -> None:
        with exclusive(self._config.changes), self._segments.use(CONTROL) as control:
            self._catch_up(control)
            with self._taking_effect() as changing:
                project(changing, change)
                prepare()
                changing.count_entry(control.store.head().size)
            append(control, commit_to(writer=change.by, kind=JSON_TYPE, payloads=[encode_change(change)]))

    setattr(Control, "_enact", enact)  # noqa: B010
    whole_life(place, notes)


def test_a_backup_that_is_made_in_its_place_is_caught(bench: Bench) -> None:
    def make_in_place(place: Place, notes: Notes) -> None:
        real = tlog.backup._fresh

        def fresh(target: Path) -> Path:
            if target != place.backup:
                return real(target)
            for folder in (target / "segments", target / "keys"):
                folder.mkdir(parents=True)
            return target

        setattr(tlog.backup, "_fresh", fresh)  # noqa: B010
        backup_life(place, notes)

    faults = replace(backup_faults(bench), life=make_in_place)
    outcome = faults.try_one(at(faults.points(), "back up", "sendfile", "ID.key")[0], KILL)
    assert outcome.met, outcome
    assert outcome.wrong, outcome
    shutil.rmtree(bench.root / str(bench.number))


def test_a_witness_that_cosigns_what_it_did_not_store_is_caught(bench: Bench) -> None:
    def cosign_first(place: Place, notes: Notes) -> None:
        real = WitnessStore.advance

        def advance(self: WitnessStore, *arguments: object) -> bool:
            with suppress(DatabaseError):
                real(self, *arguments)  # type: ignore[arg-type]
            return True

        setattr(WitnessStore, "advance", advance)  # noqa: B010
        witness_life(place, notes)

    faults = replace(witness_faults(bench), life=cosign_first)
    outcome = faults.try_one(at(faults.points(), "to 20", "fsync", "witness.db-wal")[0], EIO)
    assert outcome.met, outcome
    assert outcome.wrong, outcome
    shutil.rmtree(bench.root / str(bench.number))


@pytest.mark.parametrize(
    ("bug", "act", "call", "file", "fault"),
    [
        (believe_a_failed_commit, "append", "fsync", "ID.db-wal", EIO),
        (go_on_with_the_tree_of_a_failed_commit, "append", "fsync", "ID.db-wal", EIO),
        (forget_keys, "append", "fdatasync", "ID", EIO),
        (change_before_it_is_on_record, "token", "pwrite64", "ID.db-wal", KILL),
    ],
    ids=_named,
)
def test_a_planted_bug_is_caught(bench: Bench, bug: Life, act: str, call: str, file: str, fault: Fault) -> None:
    faults = Faults(bench, bug)
    found = at(faults.points(), act, call, file)
    # The last sync is that of the commit; before the first write nothing of it is there.
    outcome = faults.try_one(found[0] if call == "pwrite64" else found[-1], fault)
    assert outcome.met, outcome
    assert outcome.wrong, outcome
    shutil.rmtree(bench.root / str(bench.number))


def test_a_bug_that_shows_only_while_a_log_recovers_is_caught(bench: Bench, points: list[Point]) -> None:
    faults = Faults(bench, after=partial(believe_a_failed_commit, live=short_life))
    [point, *_] = at(points, "append", "fsync", "ID.db-wal")
    outcome = faults.try_both(point, KILL, last_while_it_recovers)
    assert outcome.met, outcome
    assert outcome.wrong, outcome


# The real server, whose worker's calls fail.


@contextmanager
def faults_in(process: int, *injected: str) -> Iterator[None]:
    """Have calls of a running process fail, in all its threads."""
    options = [option for one in injected for option in ("-e", one)]
    strace = subprocess.Popen(["strace", "-f", "-p", str(process), "-o", "/dev/null", *options], stderr=subprocess.PIPE)
    assert strace.stderr is not None
    assert b"attached" in strace.stderr.readline()
    try:
        yield
    finally:
        strace.terminate()
        try:
            strace.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            # It waits for ever for a thread that began as its process was killed.
            strace.kill()
            strace.communicate()


def test_calls_that_fail_under_load_lose_double_and_contradict_nothing(start_server: Callable[..., Server]) -> None:
    server = start_server()
    history = History(server.create("payments"))
    with load(server, [history], writers=4, sizes=(1, 1, 9)):
        for injected in (
            "fsync:error=EIO:when=1+3",
            "pwrite64:error=ENOSPC:when=5+9",
            "fdatasync:error=EIO:when=2+3",
            "fsync:signal=SIGKILL:when=3",
        ):
            wait_for([history], 50)
            failed = history.statuses[503] + history.cut
            with faults_in(server.workers()[0].pid, f"inject={injected}"):
                until(partial(_more_failed, history, failed), f"a request to fail by {injected}")
        wait_for([history], 100)
    history.check()
    assert set(history.statuses) == {201, 503}
    assert server.stop() == 0
    found = subprocess.run([TLOG, "fsck", "--data", server.data], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def _more_failed(history: History, failed: int) -> bool:
    return history.statuses[503] + history.cut > failed


def test_a_disk_that_fails_at_the_start_is_said_in_a_line(tmp_path: Path) -> None:
    command = [str(TLOG), "serve", "--data", str(tmp_path / "data"), "--port", "1", "--unguarded"]
    started = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=EIO", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (started.returncode, started.stdout, started.stderr.count("\n")) == (2, "", 1)
    assert started.stderr.startswith("tlog: cannot use ")
