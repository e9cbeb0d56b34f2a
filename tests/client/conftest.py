"""What the tests of the client share: a log that can lie, and a client of it that never really sleeps."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulator import Simulator, running

from tlog_client import Backoff, Log


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with running() as simulator:
        yield simulator


@pytest.fixture
def pauses() -> list[float]:
    """The seconds for which the client would have slept."""
    return []


@pytest.fixture
def backoff(pauses: list[float]) -> Backoff:
    return Backoff(attempts=3, first=0.5, longest=20.0, sleep=pauses.append, jitter=lambda: 1.0)


@pytest.fixture
def open_log(sim: Simulator, backoff: Backoff, tmp_path: Path) -> Iterator[Callable[..., Log]]:
    """Open a client of the simulator, as after a restart: all share one folder unless told otherwise."""
    opened: list[Log] = []

    def open_it(folder: str = "state", timeout: float = 5.0) -> Log:
        opened.append(Log(sim.url, sim.key, state=tmp_path / folder, backoff=backoff, timeout=timeout))
        return opened[-1]

    yield open_it
    for log in opened:
        log.close()


@pytest.fixture
def log(open_log: Callable[..., Log]) -> Log:
    return open_log()
