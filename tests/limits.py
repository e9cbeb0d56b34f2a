"""The long form of tests/server/test_limits.py, for scripts/torture: each goes on until its time is up."""

import random
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import psutil
from live import NDJSON, PATIENCE, Segment, Server, start
from observed import observe
from tally import Tally

from tlog.config import Config
from tlog.fsck.run import Plan, check

MOST_MEMORY = 2 << 30
# The workers also have other files open, some twenty.
CONNECTIONS = 10_100
SEGMENTS = 10_000
IP_BIND_ADDRESS_NO_PORT = 24
WORKERS = 2
_HEAD = b"POST /segments/payments/entries HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nX-Slow: "


@contextmanager
def running(seed: int, before: Callable[[], None] | None = None) -> Iterator[Server]:
    """Run a server, of which all that is stored is checked afterwards, and that must have failed in nothing."""
    with TemporaryDirectory(prefix=f"tlog-limits-{seed}-") as folder:
        server = start(Path(folder) / "data", workers=WORKERS, before=before)
        try:
            yield server
            check_stopped(server)
        finally:
            server.kill()


def bounded() -> None:
    """Have the kernel give no process more than a worker's share of what the server may take."""
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY // WORKERS,) * 2)


def check_stopped(server: Server) -> None:
    assert server.stop() == 0
    assert [line for line in server.logged() if line["level"] == "error"] == []
    assert list(check(Config(server.data), Plan(), lambda *_: None)) == []


def memory(server: Server) -> int:
    """Return what all processes of a server have in memory, what they share counted once."""
    everyone = [psutil.Process(server.process.pid), *server.workers()]
    return sum(one.memory_full_info().pss for one in everyone)


@contextmanager
def sampled(server: Server) -> Iterator[list[int]]:
    """Look five times a second at what a server has in memory, until the block ends."""
    samples, over = [memory(server)], Event()

    def look() -> None:
        while not over.wait(0.2):
            samples.append(memory(server))

    with ThreadPoolExecutor(1) as thread:
        looking = thread.submit(look)
        try:
            yield samples
        finally:
            over.set()
            looking.result()


def slow_connections(seed: int, seconds: float) -> int:
    """Hold 10,000 connections at once that each send a byte a second, while honest clients append and read."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    # A connection takes a file of this process, which has others.
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= CONNECTIONS + 500, "raise the limit of files: ulimit -Hn"
    end, waited, most = time.monotonic() + seconds, list[float](), 0
    with running(seed, bounded) as plain:
        server = observe(plain)
        segment, before = server.create("payments"), files(server)
        held: list[tuple[socket.socket, int]] = []
        with sampled(server) as samples:
            while time.monotonic() < end:
                turn = time.monotonic()
                held = [one for one in held if drip(*one, turn)]
                for number in range(min(2_500, CONNECTIONS - len(held))):
                    held.append((connect(server.port, number), len(held)))
                began = time.monotonic()
                assert segment.append(b"%d" % len(waited))
                assert segment.checkpoint().size
                waited.append(time.monotonic() - began)
                most = max(most, files(server) - before)
                time.sleep(max(0.0, turn + 1 - time.monotonic()))
        for one, _ in held:
            one.close()
        server.judge()
    assert most >= CONNECTIONS - 50, f"only {most} were there at once"
    assert max(waited) < 5, waited
    assert max(samples) < MOST_MEMORY
    print(  # noqa: T201
        f"  {most} slow connections at once, {len(waited)} honest appends, {max(waited):.2f} s at worst, "
        f"{max(samples) >> 20} MiB at most"
    )
    return len(waited)


def files(server: Server) -> int:
    """Return how many files the workers have open, of which each connection is one."""
    return sum(worker.num_fds() for worker in server.workers())


def connect(port: int, number: int) -> socket.socket:
    """Begin a connection from one of a hundred addresses: each has so many ports, and those used last rest a while."""
    one = socket.socket()
    one.setblocking(False)
    one.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    one.bind((f"127.0.1.{number % 100 + 1}", 0))
    one.connect_ex(("127.0.0.1", port))
    return one


def drip(one: socket.socket, number: int, at: float) -> bool:
    """Send a byte; False if the server has had enough of it."""
    try:
        one.send(_HEAD[int(at) % len(_HEAD) :][:1] if number % 2 else b"x")
    except BlockingIOError:
        return True
    except OSError:
        one.close()
        return False
    return True


def large_batches(seed: int, seconds: float) -> int:
    """Have 48 clients send batches of nearly 16 MiB, and read pages as large, in less than 2 GiB."""
    dice, statuses = random.Random(seed), Counter[int]()  # noqa: S311
    # Unbounded by the kernel: that would count what is reserved and never used, four times as much here.
    with running(seed) as server, sampled(server) as samples, ThreadPoolExecutor(48) as threads:
        segments = [server.create(f"zone-{number}") for number in range(48)]

        def send(number: int) -> int:
            length = dice.choice([1_600, 160_000, 1_040_000])
            body = b"\n".join([b'"%s"' % (b"x" * length)] * (15_900_000 // (length + 3)))
            statuses[segments[number].post(body, NDJSON).status_code] += 1
            return segments[number].get("/entries?limit=1000").status_code

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert set(threads.map(send, range(48))) <= {200, 503}
    peak = max(samples)
    assert set(statuses) <= {201, 503}
    assert statuses[201]
    assert peak < MOST_MEMORY, peak
    print(f"  {statuses[201]} batches, {statuses[503]} told to come again, {peak >> 20} MiB at most")  # noqa: T201
    return statuses[201]


def many_segments(seed: int, seconds: float) -> int:
    """Make 10,000 segments, or as many as half the time is enough for, start again, and append to each once."""
    end, began = time.monotonic() + seconds / 2, time.monotonic()
    with TemporaryDirectory(prefix=f"tlog-limits-{seed}-") as folder, ExitStack() as servers:
        server = started(servers, Path(folder) / "data")
        with sampled(server) as making:
            segments = created(server, end)
        made = time.monotonic() - began
        assert server.stop() == 0
        began = time.monotonic()
        server = started(servers, server.data, port=server.port)
        ready = time.monotonic() - began
        with sampled(server) as appending, ThreadPoolExecutor(16) as threads:
            began = time.monotonic()
            assert all(threads.map(lambda one: one.append(b"1"), segments))
            appended = time.monotonic() - began
            assert {one.size for one in threads.map(Segment.checkpoint, segments)} == {1}
        files = max(worker.num_fds() for worker in server.workers())
        check_stopped(server)
    peak = max(*making, *appending)
    assert peak < MOST_MEMORY, peak
    assert ready < PATIENCE, ready
    print(  # noqa: T201
        f"  {len(segments)} segments in {made:.0f} s, ready again in {ready:.1f} s, an append to each in "
        f"{appended:.0f} s, {files} files, {peak >> 20} MiB at most"
    )
    return len(segments)


def started(servers: ExitStack, data: Path, port: int | None = None) -> Server:
    server = start(data, workers=WORKERS, port=port, before=bounded)
    servers.callback(server.kill)
    return server


def created(server: Server, end: float) -> list[Segment]:
    """Have four clients make segments until there are so many, or the time is up."""
    with ThreadPoolExecutor(4) as threads:
        made = threads.map(
            lambda number: server.create(f"zone-{number}") if time.monotonic() < end else None, range(SEGMENTS)
        )
        return [one for one in made if one is not None]


def tallied(part: Callable[[int, float], int], seed: int, seconds: float) -> Tally:
    """Return what a part comes to: how many requests were answered, or what was not as it should be."""
    try:
        return Tally(part(seed, seconds), [])
    except AssertionError as error:
        return Tally(1, [f"{part.__name__}: {error}"])
