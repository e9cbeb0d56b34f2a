"""What is last verified is never forgotten, and only ever moves forward."""

import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from simulator import Simulator

from tlog_client import FetchError, InconsistencyError, Log, SignedCheckpoint, StateError
from tlog_client.durable import read_if_there
from tlog_client.heads import Heads
from tlog_client.state import StateFile, default_folder, open_signed
from tlog_core.checkpoint import Checkpoint
from tlog_core.merkle import Hash
from tlog_core.note import VerifierKey
from tlog_core.proof import prove_consistency

OpenLog = Callable[..., Log]


@pytest.fixture
def grown() -> Simulator:
    """A log that nobody asks over the network."""
    simulator = Simulator()
    simulator.grow(60)
    return simulator


def signed(sim: Simulator, size: int) -> SignedCheckpoint:
    return open_signed(sim.note(size), sim.key)


@pytest.fixture
def file(grown: Simulator, tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "state", grown.key)


def test_what_was_kept_is_there_after_a_restart(grown: Simulator, file: StateFile, tmp_path: Path) -> None:
    assert file.read() is None
    signed = open_signed(grown.note(5), grown.key)
    assert file.swap(None, signed)
    assert StateFile(tmp_path / "state", grown.key).read() == signed


def test_the_file_is_the_signed_note_under_the_hash_of_the_key(grown: Simulator, file: StateFile) -> None:
    file.swap(None, open_signed(grown.note(5), grown.key))
    assert file.path.name == hashlib.sha256(str(grown.key).encode()).hexdigest()
    assert file.path.read_bytes() == grown.note(5)


def test_a_file_that_is_made_while_it_is_looked_for_has_not_gone(
    grown: Simulator, file: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = signed(grown, 5)

    def look(path: Path) -> bytes | None:
        monkeypatch.undo()
        found = read_if_there(path)
        # As by another thread.
        assert file.swap(None, first)
        return found

    monkeypatch.setattr("tlog_client.state.read_if_there", look)
    assert file.read() is None
    assert file.read() == first


def test_two_keys_do_not_share_a_file(grown: Simulator, tmp_path: Path) -> None:
    other = VerifierKey(grown.key.name, grown.key.type, bytes([9]) * 32)
    assert StateFile(tmp_path, grown.key).path != StateFile(tmp_path, other).path


def test_of_two_who_race_one_hears_that_it_lost(grown: Simulator, file: StateFile, tmp_path: Path) -> None:
    five, six, seven = (open_signed(grown.note(size), grown.key) for size in (5, 6, 7))
    other = StateFile(tmp_path / "state", grown.key)
    assert file.swap(None, five)
    assert not other.swap(None, six)
    assert other.swap(other.read(), seven)
    assert not file.swap(five, six)
    assert file.read() == seven


def test_the_state_never_moves_back(grown: Simulator, file: StateFile) -> None:
    five = open_signed(grown.note(5), grown.key)
    file.swap(None, five)
    for size in (4, 5):
        with pytest.raises(AssertionError):
            file.swap(five, open_signed(grown.note(size), grown.key))


RACER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from simulator import Simulator
from tlog_client.heads import Heads
from tlog_client.state import StateFile, open_signed
from tlog_core.proof import prove_consistency

sim = Simulator()
sim.grow(60)
state = StateFile(Path(sys.argv[2]), sim.key)
heads = Heads(sim.key, state, lambda old, new: prove_consistency(old_size=old, new_size=new.size, node=sim.node))
last = 0
for size in map(int, sys.argv[3].split(",")):
    heads.accept(open_signed(sim.note(size), sim.key))
    now = state.read().checkpoint.size
    assert now >= max(last, size), (now, last, size)
    last = now
"""


def test_processes_that_race_never_put_an_older_head_over_a_newer_one(grown: Simulator, tmp_path: Path) -> None:
    orders = [range(1, 60, 2), range(2, 60, 2), range(60, 0, -3)]
    tests = str(Path(__file__).parents[1])
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, tests, str(tmp_path), ",".join(map(str, order))])
        for order in orders
    ]
    assert [racer.wait() for racer in racers] == [0, 0, 0]
    kept = StateFile(tmp_path, grown.key).read()
    assert kept is not None
    assert kept.checkpoint.size == 60


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_state_is_never_replaced_by_blind_trust(
    open_log: OpenLog, sim: Simulator, tmp_path: Path, damage: bytes | None
) -> None:
    sim.grow(3)
    open_log().checkpoint()
    (path,) = (path for path in (tmp_path / "state").iterdir() if not path.suffix)
    damaged = path.read_bytes().replace(b"\n3\n", b"\n2\n") if damage is None else damage
    path.write_bytes(damaged)
    log = open_log()
    for attempt in (log.checkpoint, log.verified, lambda: log.append(1), lambda: log.entry(0)):
        with pytest.raises(StateError, match="restore it from a backup") as caught:
            attempt()
        assert str(path) in str(caught.value)
    assert path.read_bytes() == damaged
    assert sim.size == 3


def test_a_state_that_goes_while_it_is_used_is_not_begun_anew(log: Log, tmp_path: Path) -> None:
    log.checkpoint()
    for path in (tmp_path / "state").iterdir():
        path.unlink()
    with pytest.raises(StateError, match="has gone"):
        log.checkpoint()


def test_a_new_head_is_on_disk_before_it_takes_the_place_of_the_old(
    grown: Simulator, file: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    replace = Path.replace

    def note_sync(descriptor: int) -> None:
        happened.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def note_replace(path: Path, target: Path) -> Path:
        happened.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    file.swap(None, open_signed(grown.note(5), grown.key))
    assert happened == ["file", "replace", "folder"]


def test_a_crash_before_the_file_is_replaced_leaves_the_old_state(
    grown: Simulator, file: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    five, six = (open_signed(grown.note(size), grown.key) for size in (5, 6))
    file.swap(None, five)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(FetchError, match="No space left"):
            file.swap(five, six)
    assert file.read() == five
    assert file.swap(five, six)


def test_a_folder_that_cannot_be_written_is_told_before_a_receipt_is_returned(
    open_log: OpenLog, tmp_path: Path
) -> None:
    (tmp_path / "state").write_bytes(b"a file")
    with pytest.raises(FetchError, match="cannot keep the state"):
        open_log().append(1)


def test_a_head_is_first_trusted_by_its_signature_alone(open_log: OpenLog, sim: Simulator) -> None:
    sim.grow(3)
    assert open_log("fresh").checkpoint().size == 3
    assert sim.routes() == ["GET checkpoint"]


def test_heads_that_come_together_are_settled_together(grown: Simulator, file: StateFile) -> None:
    asked: list[tuple[int, int]] = []
    first_asked, others_wait = threading.Event(), threading.Event()

    def fetch(old: int, new: Checkpoint) -> list[Hash]:
        asked.append((old, new.size))
        first_asked.set()
        others_wait.wait(5)
        return prove_consistency(old_size=old, new_size=new.size, node=grown.node)

    heads = Heads(grown.key, file, fetch)
    heads.accept(signed(grown, 5))
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(heads.accept, signed(grown, 7))
        first_asked.wait(5)
        # Each shows the one before it, and they come in the wrong order.
        others = [
            pool.submit(heads.accept, signed(grown, size), shown=signed(grown, size - 1).checkpoint)
            for size in (12, 8, 11, 9, 10)
        ]
        while len(heads._claims) < 6:
            time.sleep(0.001)
        others_wait.set()
        for answer in (first, *others):
            answer.result()
    assert asked == [(5, 7)]
    assert heads.newest() == signed(grown, 12)


def test_a_lie_among_heads_that_come_together_harms_no_other(grown: Simulator, file: StateFile) -> None:
    liar = Simulator()
    liar.grow(60)
    liar.fork(3)
    waiting = threading.Event()

    def fetch(old: int, new: Checkpoint) -> list[Hash]:
        waiting.wait(5)
        return prove_consistency(old_size=old, new_size=new.size, node=grown.node)

    heads = Heads(grown.key, file, fetch)
    heads.accept(signed(grown, 5))
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(heads.accept, signed(grown, 6))
        honest = [pool.submit(heads.accept, signed(grown, size)) for size in (20, 30, 40)]
        lies = [pool.submit(heads.accept, signed(liar, size)) for size in (10, 30, 50)]
        while len(heads._claims) < 7:
            time.sleep(0.001)
        waiting.set()
        for answer in (first, *honest):
            answer.result()
        assert all(isinstance(answer.exception(), InconsistencyError) for answer in lies)
    assert heads.newest() == signed(grown, 40)


def test_a_failing_disk_is_told_to_each_who_waits(
    grown: Simulator, file: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = Heads(grown.key, file, lambda *_: [])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(Path, "replace", fail)
        answers = [pool.submit(heads.accept, signed(grown, 5)) for _ in range(4)]
        assert all(isinstance(answer.exception(), FetchError) for answer in answers)
    assert heads.newest() is None
    heads.accept(signed(grown, 5))
    assert heads.newest() == signed(grown, 5)


def test_a_fork_leaves_the_state_as_it_was(grown: Simulator, file: StateFile) -> None:
    heads = Heads(grown.key, file, lambda *_: [])
    five = open_signed(grown.note(5), grown.key)
    heads.accept(five)
    grown.fork(2)
    for size in (4, 5, 6):
        with pytest.raises(InconsistencyError):
            heads.accept(open_signed(grown.note(size), grown.key))
    assert heads.newest() == five


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_state_is_kept_below_home_unless_xdg_says_otherwise(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder({"XDG_STATE_HOME": value}) == tmp_path / ".local/state/tlog"
    assert default_folder({}) == tmp_path / ".local/state/tlog"
    assert default_folder({"XDG_STATE_HOME": "/var/state"}) == Path("/var/state/tlog")


def test_without_a_home_the_user_is_asked_to_name_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(StateError, match="name a folder"):
        default_folder({})
