"""What tests of a running server share: one server for all that leaves it running, and others to stop and kill."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live import Segment, Server, start

_NUMBER = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with two workers for all tests; it must never have answered with a fault of its own."""
    running = start(tmp_path_factory.mktemp("shared") / "data")
    yield running
    status = running.stop()
    faults = [line for line in running.logged() if line.get("status", 0) >= 500 or line["level"] == "error"]
    assert (status, faults) == (0, [])


@pytest.fixture
def segment(server: Server) -> Segment:
    """A new segment of the shared server."""
    return server.create(f"segment-{next(_NUMBER)}")


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server of the test's own, by default over the folder `data`; see `live.start`."""
    running: list[Server] = []

    def start_it(data: Path | None = None, **options: Any) -> Server:
        running.append(start(data or tmp_path / "data", **options))
        return running[-1]

    yield start_it
    for one in running:
        one.kill()
