"""A log that has nothing but checkpoints and tiles, as those of others, is followed as ours are."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from simulator import Answer, Lie, Simulator, flip

from tlog_client import FetchError, InconsistencyError, Log, MalformedError, ProofError
from tlog_core.checkpoint import open_checkpoint
from tlog_core.note import sign_note

# Around the edges of tiles of both levels, and some that stay within one.
SIZES = [1, 2, 3, 255, 256, 257, 511, 512, 700, 1_024, 1_025]


def answering(body: bytes) -> Lie:
    return lambda _: Answer(200, body)


@pytest.fixture
def others(sim: Simulator) -> Simulator:
    sim.tiles_only = True
    return sim


def test_a_log_of_tiles_is_followed_from_any_size_to_any_other(others: Simulator, open_log: Callable[..., Log]) -> None:
    others.grow(SIZES[-1])
    for old in SIZES:
        for new in SIZES[SIZES.index(old) :]:
            log = open_log(f"{old}-{new}")
            for size in (old, new):
                others.lies["checkpoint"] = answering(others.note(size))
                assert log.checkpoint().size == size


@pytest.mark.parametrize(
    ("size", "tiles"),
    [(720, ["0/002.p/208", "1/000.p/2"]), (800, ["0/003.p/32", "1/000.p/3", "0/002"]), (1_024, ["1/000.p/4", "0/002"])],
)
def test_to_follow_a_log_of_tiles_takes_few_tiles_and_each_once(
    others: Simulator, log: Log, size: int, tiles: list[str]
) -> None:
    others.grow(700)
    log.checkpoint()
    others.grow(size - 700)
    others.requests.clear()
    log.checkpoint()
    proof = ["GET checkpoint", f"GET proof/consistency/700/{size}"]
    assert others.routes() == [*proof, *(f"GET tile/{tile}" for tile in tiles)]


@pytest.mark.parametrize("growth", [1, 2, 300])
@pytest.mark.parametrize("size", [8, 256, 600])
def test_a_log_of_tiles_that_forks_is_caught_with_both_notes(
    others: Simulator, log: Log, size: int, growth: int
) -> None:
    others.grow(size)
    older = log.signed_checkpoint()
    others.fork(3)
    others.grow(growth)
    with pytest.raises(InconsistencyError, match="two histories") as caught:
        log.checkpoint()
    assert caught.value.older == older.note
    assert caught.value.newer == others.note()
    assert log.verified() == older


@pytest.mark.parametrize("place", [0, 40, 2_000])
def test_a_damaged_tile_is_not_taken_for_a_fork(others: Simulator, log: Log, place: int) -> None:
    others.grow(300)
    older = log.signed_checkpoint()
    others.grow(300)
    others.lies["tile"] = lambda answer: flip(place % len(answer.body))(answer)
    with pytest.raises(ProofError):
        log.checkpoint()
    assert log.verified() == older


def test_a_log_that_withholds_its_tiles_is_not_believed(others: Simulator, log: Log) -> None:
    others.grow(3)
    older = log.signed_checkpoint()
    others.grow(3)
    others.lies["tile"] = lambda _: Answer(404, b"")
    with pytest.raises(FetchError):
        log.checkpoint()
    assert log.verified() == older


def test_what_is_logged_is_read_as_bytes_also_where_partial_tiles_are_gone(others: Simulator, log: Log) -> None:
    others.grow(700)
    # The log has grown since this checkpoint was fetched, and put full tiles in the place of partial ones.
    others.lies["checkpoint"] = answering(others.note(300))
    assert list(log.logged()) == [one.entry for one in others.logged[:300]]
    assert list(log.logged(250, 260)) == [one.entry for one in others.logged[250:260]]
    assert {route.split("/")[0] for route in others.routes()} == {"GET checkpoint", "GET tile"}


def test_entries_of_another_form_are_read_as_bytes_and_not_as_entries(others: Simulator, log: Log) -> None:
    others.grow(2)
    others.logged[1] = type(others.logged[1])(b"any bytes", "", others.logged[1].opening, b"")
    others._rebuild()
    assert list(log.logged())[1] == b"any bytes"
    with pytest.raises(MalformedError):
        list(log.committed())


def test_a_checkpoint_with_an_extension_line_is_refused(others: Simulator, log: Log) -> None:
    others.grow(2)
    text = str(open_checkpoint(others.note(), others.key)) + "an extension\n"
    others.lies["checkpoint"] = answering(bytes(sign_note(text, others.signer)))
    with pytest.raises(MalformedError, match="checkpoint"):
        log.checkpoint()


def test_the_command_watches_a_log_of_tiles(others: Simulator, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "tlog-client"), "watch", "--once", "--url", others.url]
    for size in (300, 600):
        others.grow(300)
        watching = [*command, "--key", str(others.key), "--state", str(tmp_path)]
        seen = subprocess.run(watching, capture_output=True, text=True, check=True).stdout
        assert seen.startswith(f"{others.key.name} {size} ")
