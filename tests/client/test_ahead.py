"""What is read one after the other is asked for a few at once, and comes as if it were not."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from simulator import Answer, Simulator, alter

from tlog_client import Log, ProofError, TransientError
from tlog_client.ahead import AT_ONCE, read_ahead
from tlog_core.tile import TILE_WIDTH


class Counter:
    """Counts how many are in it at once, and the most that ever were."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.inside = self.most = 0

    def pause(self, seconds: float = 0.02) -> None:
        """Wait until as many are in it as are allowed, and then for whoever is not."""
        with self._changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most >= AT_ONCE, 1)
        time.sleep(seconds)
        with self._changed:
            self.inside -= 1


def test_answers_come_in_order_and_a_few_are_waited_for_at_once() -> None:
    counter = Counter()

    def fetch(place: int) -> int:
        # The later ones are there first.
        counter.pause(0.02 if place % AT_ONCE == 0 else 0.001)
        return -place

    assert list(read_ahead(fetch, range(30))) == [(place, -place) for place in range(30)]
    assert counter.most == AT_ONCE


def test_an_error_comes_in_its_place_and_as_it_was_raised() -> None:
    def fetch(place: int) -> int:
        if place == 2:
            raise TransientError("no answer", wait=3.0)
        return place

    seen = list[int]()
    with pytest.raises(TransientError, match="no answer") as caught:
        seen.extend(place for place, _ in read_ahead(fetch, range(10)))
    assert (seen, caught.value.wait) == ([0, 1], 3.0)


def test_nothing_is_fetched_for_who_reads_no_more() -> None:
    fetched = list[int]()
    reading = read_ahead(fetched.append, range(100))
    next(reading)
    del reading
    time.sleep(0.05)
    assert sorted(fetched) == list(range(AT_ONCE))


@pytest.mark.parametrize("end", ["raise SystemExit(7)", "raise KeyboardInterrupt"])
def test_a_program_that_ends_does_not_wait_for_answers(end: str) -> None:
    program = (
        "import time; from tlog_client.ahead import read_ahead\n"
        "for place, _ in read_ahead(lambda place: time.sleep(3600 * place), range(9)):\n"
        f"    {end}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert "Fatal" not in done.stderr


@pytest.mark.parametrize(("read", "route"), [(Log.logged, "tile"), (Log.committed, "tile"), (Log.entries, "entries")])
def test_a_log_is_read_ahead(log: Log, sim: Simulator, read: Callable[[Log], Iterator[Any]], route: str) -> None:
    sim.grow(8 * TILE_WIDTH + 1)
    counter = Counter()

    def slowly(answer: Answer) -> Answer:
        counter.pause()
        return answer

    sim.lies[route] = slowly
    assert sum(1 for _ in read(log)) == sim.size
    assert counter.most == AT_ONCE


@pytest.mark.parametrize("read", [Log.logged, Log.committed, Log.entries])
def test_nothing_that_was_read_ahead_is_believed_unverified(
    log: Log, sim: Simulator, read: Callable[[Log, int, int], Iterator[Any]]
) -> None:
    sim.page = TILE_WIDTH
    sim.grow(4 * TILE_WIDTH)
    altered = sim.logged[600]
    sim.logged[600] = type(altered)(altered.entry.replace(b"alice", b"aline"), "text/plain", altered.opening, b"x")
    seen = list[Any]()
    with pytest.raises(ProofError):
        seen.extend(read(log, 100, 1_000))
    assert len(seen) == 2 * TILE_WIDTH - 100


def test_a_page_that_fills_a_tile_takes_no_tile_to_verify(log: Log, sim: Simulator) -> None:
    sim.page = TILE_WIDTH
    sim.grow(4 * TILE_WIDTH)
    assert sum(1 for _ in log.entries()) == sim.size
    assert sorted(sim.routes()) == ["GET checkpoint", *["GET entries"] * 4, "GET tile/1/000.p/4"]


def test_a_page_that_fills_a_tile_is_verified_whole(log: Log, sim: Simulator) -> None:
    sim.page = TILE_WIDTH
    sim.grow(2 * TILE_WIDTH)

    def exchange(page: dict[str, Any]) -> None:
        # As the log committed to it, but for the opening, which is another entry's.
        page["entries"][200]["opening"] = page["entries"][0]["opening"]

    sim.lies["entries"] = alter(exchange)
    with pytest.raises(ProofError, match="payload"):
        list(log.entries())
