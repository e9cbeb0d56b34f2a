"""Power is lost after operations of runs of the real server: what was released is there, and the log goes on from it.

`scripts/torture` does the same for longer.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

import power
import pytest
from disk import Disk, Image, cuts
from power import Run, is_complete, judged, judges, recovering, states
from tracing import Operation

SEED = 5
# A bug, the run in which it shows, and what is said of it.
PLANTED = (
    ("normal", power.appends, "was released, and is not there"),
    ("early", power.appends, "was released, and is not there"),
    ("lax", power.appends, "its anchor has"),
    ("nameless", power.commands, "key file"),
    ("nameless", power.restoring, "is no backup"),
    ("unsettled", power.killed, "was released, and now there is one of"),
    ("hasty", power.failing, "was released that contradicts the entries"),
    ("piecemeal", power.migration, "already exists"),
    ("early", power.crowded, "was released, and is not there"),
    ("normal", power.cosigning, "and the witness stands at"),
    ("nameless", power.succeeding, "of payments-2 is missing"),
    ("nameless", power.accepting, "payments refuses to sign"),
)


# How many states are drawn, where a few will do here.
MOST = dict.fromkeys(("crowded", "cosigning", "succeeding", "accepting"), 24)


def seeded(seed: int = SEED) -> Random:
    return Random(seed)  # noqa: S311


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with judges() as pool:
        yield pool


def found(pool: ProcessPoolExecutor, run: Run, most: int) -> tuple[int, list[str]]:
    """Return how many states were judged, and what was wrong with them."""
    answers = list(judged(pool, states(run, seeded(), most=most)))
    return len(answers), [line for lines in answers for line in lines]


@pytest.mark.parametrize("name", power.RUNS)
def test_a_loss_of_power_takes_nothing_back_that_was_released(
    name: str, pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    run = power.RUNS[name](tmp_path / "home")
    assert is_complete(run)
    judged, wrong = found(pool, run, MOST.get(name, 48))
    assert wrong == []
    assert judged > 4


def test_a_second_loss_of_power_while_recovering_takes_nothing_back(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    first = [state for state in states(power.appends(tmp_path / "home"), seeded(), most=60) if len(state.seen) > 5]
    run = recovering(tmp_path / "again", seeded().choice(first))
    assert is_complete(run)
    judged, wrong = found(pool, run, 48)
    assert wrong == []
    assert judged > 8


@pytest.mark.parametrize(("bug", "run", "said"), PLANTED, ids=[f"{bug}-{run.__name__}" for bug, run, _ in PLANTED])
def test_a_planted_bug_is_found(
    bug: str, run: Callable[[Path, str], Run], said: str, pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    # What these have told shows the bug at once.
    most = 12 if run in (power.succeeding, power.accepting) else 400
    answers = judged(pool, states(run(tmp_path / "home", bug), seeded(), most=most))
    assert any(said in line for lines in answers for line in lines)


def images(disk: Disk) -> dict[str, Image]:
    return {name: disk.image(keep, names) for name, (keep, names) in cuts(seeded()).items()}


def do(disk: Disk, *operations: Operation) -> None:
    for one in operations:
        disk.do(one)


def synced(path: str, end: str = "sync") -> tuple[Operation, Operation]:
    return Operation("begin", path), Operation(end, path)


def test_the_disk_has_for_certain_only_what_was_synced() -> None:
    disk = Disk({"a": b"old"})
    do(disk, Operation("write", "a", 0, b"new"))
    left = images(disk)
    assert (left["dropped"]["a"], left["kept"]["a"]) == (b"old", b"new")
    do(disk, *synced("a"))
    assert {image["a"] for image in images(disk).values()} == {b"new"}


def test_the_disk_tears_a_write_at_512_bytes() -> None:
    disk = Disk({"a": bytes(2048)})
    do(disk, Operation("write", "a", 100, b"x" * 1500))
    torn = {
        bytes(disk.image(keep, names)["a"] or b"") for seed in range(50) for keep, names in [cuts(seeded(seed))["torn"]]
    }
    assert len(torn) > 8
    edges = {at for content in torn for at in range(1, 2048) if content[at] != content[at - 1]}
    assert edges == {100, 512, 1024, 1536, 1600}


def test_the_disk_has_a_name_only_once_its_folder_was_synced() -> None:
    disk = Disk({"folder": None})
    do(disk, Operation("make", "folder/a"), Operation("write", "folder/a", -1, b"x"), *synced("folder/a"))
    left = images(disk)
    assert ("folder/a" in left["dropped"], "folder/a" in left["bytes only"]) == (False, False)
    assert left["names only"]["folder/a"] == b"x"
    do(disk, *synced("folder"))
    assert {image["folder/a"] for image in images(disk).values()} == {b"x"}
    do(disk, Operation("rename", "folder/a", data=b"folder/b"))
    assert {"folder/a" in image for image in images(disk).values()} == {True, False}
    assert all(("folder/a" in image) != ("folder/b" in image) for image in images(disk).values())


def test_the_disk_has_of_a_sync_what_was_there_when_its_thread_began() -> None:
    disk = Disk({"a": b""})
    do(disk, Operation("write", "a", 0, b"1"), Operation("begin", "a", 1), Operation("write", "a", 1, b"2"))
    do(disk, Operation("begin", "a", 2), Operation("write", "a", 2, b"3"), Operation("sync", "a", 1))
    assert images(disk)["dropped"]["a"] == b"1"
    do(disk, Operation("sync", "a", 2))
    assert images(disk)["dropped"]["a"] == b"12"


def test_the_disk_never_has_what_a_failed_sync_lost_unless_it_is_written_again() -> None:
    disk = Disk({"a": b""})
    do(disk, Operation("write", "a", 0, b"lost"), *synced("a", "fail"), *synced("a"))
    assert disk.as_seen() == {"a": b"lost"}
    assert {image["a"] for image in images(disk).values()} == {b""}
    # A page is written as a whole.
    do(disk, Operation("write", "a", 4, b" and found"), *synced("a"))
    assert {image["a"] for image in images(disk).values()} == {b"lost and found"}
