"""What tests of a running server share: one server for all that leaves it running, and others to stop and kill."""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live import Segment, Server, faultless, start
from others import run_go

_NUMBER = itertools.count(1)
# Tokens, JWTs, signer keys, and 32 bytes in base64 or hex, as openings and secrets are written.
_SECRET = re.compile(
    rb"tlog_[0-9a-f]{16}_[\w-]{43}|eyJ[\w-]+\.eyJ|PRIVATE\+KEY"
    rb"|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=|(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of the whole, which take longest: no process is to end with one while another is idle."""
    items.sort(key=lambda item: len(item.path.parts))


@pytest.fixture(scope="session", autouse=True)
def no_server_logs_a_secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever the tests did to whatever servers: none has written a secret into its `*.log`."""
    yield
    for log in tmp_path_factory.getbasetemp().rglob("*.log"):
        found = _SECRET.search(logged_by(log)) if log.is_file() else None
        assert found is None, f"{log} has {found[0]!r}"


def logged_by(log: Path) -> bytes:
    """Return what a server wrote, less the greeting of an empty folder, which shows credentials this once."""
    content = log.read_bytes()
    if content.startswith(b"tlog-client: "):
        # What a client says is no log of a server, and names roots.
        return b""
    return content[content.find(b"\n{") :] if content.startswith(b"A new log.") and b"\n{" in content else content


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with two workers for all tests, which none makes answer with a fault of its own."""
    with faultless(start(tmp_path_factory.mktemp("shared") / "data")) as running:
        yield running


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


@pytest.fixture(scope="session")
def interop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of tests/interop."""
    program = tmp_path_factory.mktemp("go") / "interop"
    run_go("build", "-mod=readonly", "-o", program, ".")
    return program
