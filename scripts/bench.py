"""The benchmark: a real server on loopback, real HTTP, durable commits, and each figure beside its ceiling.

    scripts/bench [--quick] [--only SECTION]… [--json FILE]

Machines differ and are noisy. What means the same on each is the share of a ceiling that was measured in turn with the
figure, in short rounds of which the median counts. The load comes from wrk, or from a process of its own where bodies
are large. All of it is in a temporary folder, and ends by itself.
"""

import argparse
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, TypeVar

import psutil
from bench_bundle import export_entries, look, real_events
from bench_client import PRODUCERS, Spent, hash_entries, verify_entries, write_entries
from bench_ingest import BATCH, RECEIVED, bodies
from bench_load import (
    APPEND,
    DONE,
    HOST,
    READ,
    TIMEOUT_SECONDS,
    check,
    compute_batches,
    send_batches,
    send_bodies,
    write_events,
)
from bench_search import asked, time_answers, wait_until_indexed
from proxying import proxying

from tlog.config import Config
from tlog.search.indexes import Indexes
from tlog.store.connection import connect
from tlog.store.control import ControlStore
from tlog_core.tile import TILE_WIDTH, Bundle, Tile

CLIENTS: Final = (1, 16, 64)
MANY: Final = CLIENTS[-1]
SEVERAL: Final = 8
BATCHES: Final = (100, 1_000, 10_000)
BATCH_TARGETS: Final = {1_000: 65, 10_000: 45}
FILL_CONNECTIONS: Final = 4
FILL_BATCH: Final = 1_000
FILL_SECONDS: Final = 240
STOP_SECONDS: Final = 30
IDLE_SECONDS: Final = 0.5
IDLE_SHARE: Final = 0.1
PATHS: Final = 20_000
SEARCHES: Final = 50
EXPORTED: Final = 10_000
COMMANDS: Final = Path(sys.executable).parent
MIB: Final = 1 << 20

Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: rounds, the seconds of one measurement, how many batches at a time, and so on."""

    rounds: int
    seconds: int
    connections: tuple[int, ...]
    entries: int
    segments: int
    starts: int


FULL: Final = Plan(rounds=4, seconds=3, connections=(1, 2, 4, 8), entries=1_000_000, segments=1_000, starts=5)
QUICK: Final = Plan(rounds=1, seconds=1, connections=(2,), entries=100_000, segments=100, starts=1)


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk found: requests a second, and latencies in milliseconds.

    Where it was looked at, `cpu` is what a request took of the server's processors, in microseconds.
    """

    rate: float
    p50: float
    p99: float
    cpu: float = 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, beside its ceiling if it has one, and with latencies in milliseconds if it has them."""

    name: str
    value: float
    unit: str
    ceiling: float | None = None
    p50: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A figure or a share that is to be at least, or at most, some bound."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    def reached(self) -> bool:
        """Say whether it is."""
        low, high = self.at_least, self.at_most
        return (low is None or self.value >= low) and (high is None or self.value <= high)


@dataclass(frozen=True, slots=True)
class Bench:
    """A run: its plan, its folder, and what it found."""

    plan: Plan
    folder: Path
    figures: list[Figure] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    @property
    def events(self) -> Path:
        """The file of events, one a line."""
        return self.folder / "events"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, the settings of its data folder, and how many seconds it took from exec to readiness."""

    process: "subprocess.Popen[bytes]"
    port: int
    config: Config
    seconds: float

    def workers(self) -> list[psutil.Process]:
        """Return its worker processes."""
        return psutil.Process(self.process.pid).children()

    def create(self, *names: str) -> None:
        """Create segments."""
        with closing(HTTPConnection(HOST, self.port, timeout=TIMEOUT_SECONDS)) as connection:
            for name in names:
                connection.request("PUT", f"/segments/{name}")
                check(connection, 201)


def main() -> None:
    """Measure what the arguments ask for, and show it."""
    # As an exit, so that no server outlives this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments = parse_arguments()
    if shutil.which("wrk") is None:
        sys.exit("bench: there is no wrk; install it (Debian: apt-get install wrk, or https://github.com/wg/wrk)")
    with tempfile.TemporaryDirectory(prefix="tlog-bench-") as folder:
        bench = Bench(QUICK if arguments.quick else FULL, Path(folder))
        prepare(bench)
        for name in arguments.only or SECTIONS:
            began = time.monotonic()
            SECTIONS[name](bench)
            print(f"bench: {name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    show(bench, arguments.json)


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure tlog against its ceilings.")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that all of it works")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"some of: {', '.join(SECTIONS)}"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there as JSON; - is standard output")
    return parser.parse_args()


def prepare(bench: Bench) -> None:
    """Write the events, and the scripts of wrk."""
    write_events(bench.events)
    for name, script in (("plain", DONE), ("read", READ + DONE), ("append", APPEND + DONE)):
        (bench.folder / f"{name}.lua").write_text(script)


def measure_single(bench: Bench) -> None:
    """Measure single appends, each durable and answered by its receipt, beside a route that does nothing."""
    with trivial(bench) as nothing, tlog(bench, "single") as server:
        several = [f"one-of-{SEVERAL}-{number}" for number in range(SEVERAL)]
        server.create("single", *several)
        jobs = {("several", MANY): partial(load_appends, bench, server, MANY, several)}
        for clients in CLIENTS:
            jobs["trivial", clients] = partial(load_trivial, bench, nothing, clients)
            jobs["append", clients] = partial(load_appends, bench, server, clients, ["single"])
        found = {job: typical(loads) for job, loads in in_turn(bench, jobs).items()}
    for clients in CLIENTS:
        nothing_done, appended = found["trivial", clients], found["append", clients]
        add_load(bench, f"trivial route, {clients} at once", nothing_done)
        add_load(bench, f"single appends, {clients} at once", appended, ceiling=nothing_done)
    add_load(bench, f"the same, {MANY} at once, over {SEVERAL} segments", found["several", MANY], ceiling=nothing_done)
    one, many = found["append", CLIENTS[0]], found["append", MANY]
    share = 100 * many.rate / found["trivial", MANY].rate
    bench.targets.extend(
        [
            Target(f"single appends, {MANY} at once, of trivial", share, "%", at_least=25),
            Target(f"single appends, {MANY} at once, p99 / p50", many.p99 / many.p50, "", at_most=3),
            Target("single appends, 1 at once, p50", one.p50, "ms", at_most=2),
        ]
    )
    measure_disk(bench, server.config, "single", "single appends with keys")


def measure_batches(bench: Bench) -> None:
    """Measure NDJSON batches, beside what no log can leave out, computed in one process and stored nowhere."""
    for size in BATCHES:
        with tlog(bench, f"batch-{size}") as server:
            server.create("batch")
            # The ceiling counts as no connection at all.
            jobs: dict[int, Callable[[], float]] = {0: partial(load_nothing, bench, size)}
            for connections in bench.plan.connections:
                jobs[connections] = partial(load_batches, bench, server, size, connections)
            found = {job: median(rates) for job, rates in in_turn(bench, jobs).items()}
        shutil.rmtree(server.config.data)
        ceiling = found.pop(0)
        best = max(found, key=found.__getitem__)
        name = f"batches of {size:,}, {best} at once"
        bench.figures.append(Figure(name, found[best], "entries/s", ceiling))
        if size in BATCH_TARGETS:
            share = 100 * found[best] / ceiling
            bench.targets.append(Target(f"{name}, of its ceiling", share, "%", at_least=BATCH_TARGETS[size]))


def measure_large(bench: Bench) -> None:
    """Measure a large segment: memory while it grows, tiles and proofs at random, and its bytes on disk."""
    with trivial(bench) as nothing, tlog(bench, "large") as server:
        server.create("large")
        fill(bench, server, "large")
        jobs = {"trivial": partial(load_trivial, bench, nothing, MANY)}
        for name, paths in random_paths("large", bench.plan.entries).items():
            jobs[name] = partial(load_reads, bench, server.port, name, paths)
        found = {job: typical(loads) for job, loads in in_turn(bench, jobs).items()}
    ceiling = found.pop("trivial")
    add_load(bench, f"trivial route, {MANY} at once", ceiling)
    for name, load in found.items():
        add_load(bench, f"{name}, {MANY} at once", load, ceiling=ceiling)
    share = 100 * found["inclusion proofs"].rate / ceiling.rate
    bench.targets.append(Target(f"inclusion proofs, {MANY} at once, of trivial", share, "%", at_least=40))
    measure_disk(bench, server.config, "large", f"entries in batches of {FILL_BATCH:,}")


def measure_reads(bench: Bench) -> None:
    """Measure reads of a large segment, and its tiles from a cache in front, beside the same bytes as plain files."""
    cached, plain, files = free_port(), free_port(), bench.folder / "files"
    beside = f"server {{ listen {HOST}:{plain}; root {files}; }}"
    with trivial(bench) as nothing, tlog(bench, "reads") as server:
        server.create("reads")
        fill_quickly(bench, server, "reads", bench.plan.entries)
        paths = random_paths("reads", bench.plan.entries)
        with proxying(bench.folder / "nginx", port=cached, log=server.port, more=beside) as nginx:
            keep_as_files(paths["tiles"], cached, files)
            jobs = {"trivial": partial(load_trivial, bench, nothing, MANY)}
            for name in paths:
                jobs[name] = partial(load_reads, bench, server.port, name, paths[name])
            for name, port in (("tiles from nginx's cache", cached), ("tiles as files of nginx", plain)):
                jobs[name] = partial(load_and_time, bench, nginx, port, name, paths["tiles"])
            found = {job: typical(loads) for job, loads in in_turn(bench, jobs).items()}
    add_reads(bench, found)


def add_reads(bench: Bench, found: dict[str, Load]) -> None:
    """Note what was read from tlog beside a route that does nothing, and what from a cache beside files."""
    trivial_done, as_files = found.pop("trivial"), found.pop("tiles as files of nginx")
    add_load(bench, f"trivial route, {MANY} at once", trivial_done)
    for name, load in found.items():
        ceiling = as_files if load.cpu else trivial_done
        add_load(bench, f"{name}, {MANY} at once", load, ceiling=ceiling)
        if load.cpu:
            bench.figures.append(Figure(f"{name}, CPU of nginx", load.cpu, "µs/req", as_files.cpu))
            share = 100 * load.rate / as_files.rate
            bench.targets.append(Target(f"{name}, {MANY} at once, of files", share, "%", at_least=90))


def keep_as_files(paths: Sequence[str], port: int, folder: Path) -> None:
    """Have a cache in front keep what is there, and write the same to files."""
    with closing(HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)) as connection:
        for path in set(paths):
            connection.request("GET", path)
            file = folder / path.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(check(connection, 200))


def measure_segments(bench: Bench) -> None:
    """Measure many segments: a start with them, an append to each, and what stays open when none is used."""
    names = [f"segment-{number}" for number in range(bench.plan.segments)]
    with tlog(bench, "segments") as server:
        server.create(*names)
    starts = []
    for _ in range(bench.plan.starts):
        with tlog(bench, "segments") as server:
            starts.append(server.seconds)
            # One worker is ready; the others shall not be ended while they start.
            time.sleep(1)
    bench.figures.append(Figure(f"start with {len(names):,} segments", median(starts), "s"))
    bench.targets.append(Target(f"start with {len(names):,} segments", median(starts), "s", at_most=1))
    with tlog(bench, "segments") as server:
        rate = append_to_each(bench, server, names)
        bench.figures.append(Figure(f"one append to each of {len(names):,} segments", rate, "req/s"))
        add_open(bench, server, "after these appends")
        # They are closed by then: idle ones are looked for twice in that time.
        time.sleep(1.6 * server.config.idle_seconds)
        add_open(bench, server, "when idle")


def measure_access(bench: Bench) -> None:
    """Measure what it costs to ask who may: appends and proofs at a server that asks, beside one that asks nobody.

    The policy has 200 rules, of which eleven are about the one who asks, for 1,000 segments.
    """
    names = [f"segment-{number}" for number in range(bench.plan.segments)]
    for folder in ("open", "guarded"):
        with tlog(bench, folder) as server:
            server.create(*names)
            fill_quickly(bench, server, names[0], bench.plan.entries // 10)
    token = guard(bench, Config(bench.folder / "guarded"))
    paths = random_paths(names[0], bench.plan.entries // 10)["inclusion proofs"]
    with tlog(bench, "open") as unguarded, tlog(bench, "guarded", guarded=True) as guarded:
        jobs = {}
        for title, server, shown in (("open", unguarded, None), ("guarded", guarded, token)):
            for clients in (CLIENTS[0], MANY):
                jobs[title, "append", clients] = partial(load_appends, bench, server, clients, names[1:2], shown)
                jobs[title, "proof", clients] = partial(load_reads, bench, server.port, title, paths, clients, shown)
        found = {job: typical(loads) for job, loads in in_turn(bench, jobs).items()}
    for what, most in (("append", 10), ("proof", 15)):
        for clients in (CLIENTS[0], MANY):
            asks, asks_not = found["guarded", what, clients], found["open", what, clients]
            add_load(bench, f"{what}s of a guarded server, {clients} at once", asks, ceiling=asks_not)
        cost = 100 * (1 - asks.rate / asks_not.rate)
        bench.targets.append(Target(f"cost of asking who may: {what}s, {MANY} at once", cost, "%", at_most=most))


def measure_client(bench: Bench) -> None:
    """Measure the client: verification of all entries of a large segment, and the `Writer`."""
    with tlog(bench, "client") as server:
        server.create("large", "batch", "writer")
        fill_quickly(bench, server, "large", bench.plan.entries)
        large, writer = (f"http://{HOST}:{server.port}/segments/{name}" for name in ("large", "writer"))
        jobs: dict[str, Callable[[], Spent]] = {
            "hashes": partial(aside, hash_entries, large),
            "verification": partial(aside, verify_entries, large),
            "Writer": partial(aside, write_entries, writer, bench.events, bench.plan.seconds),
            # Whoever sends bodies that are there already spends nothing to speak of.
            "batches": lambda: Spent(load_batches(bench, server, FILL_BATCH, FILL_CONNECTIONS), 0.0),
        }
        found = in_turn(bench, jobs).values()
    hashed, verified, written, sent = (Spent(*map(median, zip(*map(astuple, one), strict=True))) for one in found)
    size = bench.plan.entries
    bench.figures.extend(
        [
            Figure(f"verification of {size:,} entries, beside their hashes", verified.rate, "entries/s", hashed.rate),
            Figure(f"verification of {size:,} entries, CPU", verified.cpu, "s/M"),
            Figure(f"Writer, {PRODUCERS} producers, beside batches of 1,000", written.rate, "entries/s", sent.rate),
            Figure(f"Writer, {PRODUCERS} producers, CPU", written.cpu, "s/M"),
        ]
    )


def measure_ingest(bench: Bench) -> None:
    """Measure each receiver beside the same events as NDJSON lines, which are appended to a segment."""
    for name, received in RECEIVED.items():
        packed, lines = bodies(bench.events, received)
        with tlog(bench, f"ingest-{name}") as server:
            server.create("lines")
            jobs = {
                "receiver": partial(load_bodies, bench, server, received.path, received.kind, packed),
                "lines": partial(load_bodies, bench, server, "/segments/lines/entries", "application/x-ndjson", lines),
            }
            spent = in_turn(bench, jobs)
        shutil.rmtree(server.config.data)
        found = {job: Spent(*map(median, zip(*map(astuple, each), strict=True))) for job, each in spent.items()}
        name = f"receiver of {name}, {BATCH} events at once"
        bench.figures.extend(
            [
                Figure(f"{name}, beside lines", found["receiver"].rate, "events/s", found["lines"].rate),
                Figure(f"{name}, CPU", found["receiver"].cpu, "s/M", found["lines"].cpu),
            ]
        )
        share = 100 * found["receiver"].rate / found["lines"].rate
        bench.targets.append(Target(f"{name}, of lines", share, "%", at_least=50))


def measure_search(bench: Bench) -> None:
    """Measure searches of a large segment and its pages: by one client, and how fast the index is built meanwhile."""
    with tlog(bench, "search") as server:
        server.create("search")
        fill_quickly(bench, server, "search", bench.plan.entries)
        seconds = wait_until_indexed(server.port, "search")
        path = server.config.search / "search.db"
        bench.figures.append(Figure("following a segment", bench.plan.entries / seconds, "entries/s"))
        bench.figures.append(Figure("index on disk", path.stat().st_size / bench.plan.entries, "B/entry"))
        kinds = asked("search", bench.plan.entries, time.time_ns() // 1_000_000, SEARCHES)
        spent = {name: time_answers(server.port, paths) for name, paths in kinds.items()}
    for name, taken in spent.items():
        p50, p95, p99 = (quantiles(taken, n=100)[place] for place in (49, 94, 98))
        bench.figures.append(Figure(name, p95, "ms", p50=p50, p99=p99))
    for kind in ("search", "page"):
        worst = max(quantiles(taken, n=100)[94] for name, taken in spent.items() if name.startswith(kind))
        bench.targets.append(Target(f"{kind}, the slowest p95", worst, "ms", at_most=200))


def measure_bundle(bench: Bench) -> None:
    """Measure an evidence bundle of 10,000 entries: its export, and its verification beside its hashes.

    The events are those of TLOG_EVENTS, if there are any.
    """
    path, real = bench.folder / "bundle.zip", os.environ.get("TLOG_EVENTS")
    if real:
        real_events(Path(real), bench.events, EXPORTED)
    with tlog(bench, "bundle") as server:
        server.create("bundle")
        fill_quickly(bench, server, "bundle", EXPORTED)
        made = aside(export_entries, f"http://{HOST}:{server.port}/segments/bundle", EXPORTED, path)
    spent, each, whole = (median(one) for one in zip(*look(path, bench.plan.rounds + 1), strict=True))
    if real:
        write_events(bench.events)
    what = f"bundle of {EXPORTED:,} {'real ' if real else ''}entries"
    bench.figures.extend(
        [
            Figure(f"{what}, its size", made.size / MIB, "MiB"),
            Figure(f"{what}, export", made.export, "ms"),
            Figure(f"{what}, verification in Python", made.verification, "ms"),
            Figure(f"{what}, verification in Chromium", spent, "ms"),
            Figure(f"{what}, hash of each event and entry in Chromium", each, "ms"),
            Figure(f"{what}, hash of all bytes in one piece in Chromium", whole, "ms"),
        ]
    )
    bench.targets.append(Target(f"{what}, verification in Chromium, of the hashes", spent / each, "times", at_most=10))


SECTIONS: Final[Mapping[str, Callable[[Bench], None]]] = {
    "single": measure_single,
    "batch": measure_batches,
    "large": measure_large,
    "reads": measure_reads,
    "segments": measure_segments,
    "access": measure_access,
    "client": measure_client,
    "ingest": measure_ingest,
    "search": measure_search,
    "bundle": measure_bundle,
}


def in_turn(bench: Bench, jobs: Mapping[Key, Callable[[], Result]]) -> dict[Key, list[Result]]:
    """Do each job once in each round, so that what disturbs the machine disturbs them alike; return what each gave."""
    found: dict[Key, list[Result]] = {key: [] for key in jobs}
    for _ in range(bench.plan.rounds):
        for key, job in jobs.items():
            found[key].append(job())
    return found


def typical(loads: Sequence[Load]) -> Load:
    """Return the median of each figure."""
    return Load(*(median(figures) for figures in zip(*map(astuple, loads), strict=True)))


def load_trivial(bench: Bench, server: Server, clients: int) -> Load:
    """Ask for nothing."""
    return wrk(bench, "plain", f"http://{HOST}:{server.port}/readyz", clients)


def load_appends(bench: Bench, server: Server, clients: int, segments: Sequence[str], token: str | None = None) -> Load:
    """Append single events to segments in turn, with keys that no run had before."""
    listed = bench.folder / "appends.txt"
    listed.write_text("\n".join(f"/segments/{segment}/entries" for segment in segments))
    url = f"http://{HOST}:{server.port}"
    return wrk(bench, "append", url, clients, str(bench.events), secrets.token_hex(8), str(listed), token=token)


def load_reads(
    bench: Bench, port: int, name: str, paths: Sequence[str], clients: int = MANY, token: str | None = None
) -> Load:
    """Get paths in the order given."""
    listed = bench.folder / f"{name}.txt"
    listed.write_text("\n".join(paths))
    return wrk(bench, "read", f"http://{HOST}:{port}", clients, str(listed), token=token)


def load_and_time(bench: Bench, nginx: "subprocess.Popen[bytes]", port: int, name: str, paths: Sequence[str]) -> Load:
    """Get paths in the order given, and note what nginx took for each."""
    before = cpu_seconds(nginx)
    load = load_reads(bench, port, name, paths)
    return replace(load, cpu=1e6 * (cpu_seconds(nginx) - before) / (load.rate * bench.plan.seconds))


def cpu_seconds(process: "subprocess.Popen[bytes]") -> float:
    """Return what the workers of a server took of the processors so far."""
    return sum(sum(worker.cpu_times()[:2]) for worker in psutil.Process(process.pid).children())


def load_nothing(bench: Bench, size: int) -> float:
    """Compute batches without a server, and return how many entries a second that gave."""
    return aside(compute_batches, bench.events, size=size, seconds=bench.plan.seconds)


def load_batches(bench: Bench, server: Server, size: int, connections: int) -> float:
    """Append batches, and return how many entries a second were logged."""
    return aside(
        send_batches,
        server.port,
        "batch",
        bench.events,
        size=size,
        connections=connections,
        seconds=bench.plan.seconds,
        batches=sys.maxsize,
    )


def load_bodies(bench: Bench, server: Server, path: str, kind: str, packed: Sequence[bytes]) -> Spent:
    """Send bodies of events, and return how many a second were logged, and seconds of the server's CPU a million."""
    options = {"events": BATCH, "connections": FILL_CONNECTIONS, "seconds": bench.plan.seconds}
    before = cpu_seconds(server.process)
    rate = aside(send_bodies, server.port, path, kind, packed, **options)
    cpu = 1e6 * (cpu_seconds(server.process) - before) / (rate * bench.plan.seconds)
    # To index what was logged takes minutes, and is not to slow down what comes next.
    indexes = Indexes(server.config)
    for segment in indexes.followed():
        indexes.erase(segment)
    wait_until_idle(server.process)
    return Spent(rate, cpu)


def wait_until_idle(process: "subprocess.Popen[bytes]") -> None:
    """Return when a server has nothing left to do."""
    before = 0.0
    while (now := cpu_seconds(process)) - before > IDLE_SHARE * IDLE_SECONDS:
        before = now
        time.sleep(IDLE_SECONDS)


def wrk(bench: Bench, script: str, url: str, clients: int, *arguments: str, token: str | None = None) -> Load:
    """Run wrk for one measurement; RuntimeError if a request failed."""
    shown = [] if token is None else [f"--header=Authorization: Bearer {token}"]
    options = [*shown, "--threads=1", f"--connections={clients}", f"--duration={bench.plan.seconds}s", "--timeout=30s"]
    command = ["wrk", *options, f"--script={bench.folder / script}.lua", url, "--", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS)
    found = json.loads(done.stdout.splitlines()[-1])
    if found["failed"] or not found["requests"]:
        raise RuntimeError(f"{url}: {found['failed']} requests failed, and {found['requests']} did not")
    return Load(found["requests"] / found["seconds"], found["p50"], found["p99"])


def aside(function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Call a function in a new process, so that what it needs does not burden this one, nor the other way round."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **options).result()


def fill(bench: Bench, server: Server, segment: str) -> None:
    """Bring a segment to its full size, and note the memory of each worker on the way."""
    memory: list[list[float]] = []
    size = 0
    for goal in (bench.plan.entries // 10, bench.plan.entries // 2, bench.plan.entries):
        fill_quickly(bench, server, segment, goal - size)
        size = goal
        memory.append([worker.memory_info().rss / MIB for worker in server.workers()])
        for number, used in enumerate(memory[-1], 1):
            bench.figures.append(Figure(f"memory of worker {number} at {size:,} entries", used, "MiB"))
    # Which worker a connection comes to is chance, so that one may have had little to do until late.
    growth = 100 * (max(memory[-1]) / max(memory[-2]) - 1)
    bench.targets.append(
        Target("memory, growth of the largest worker from half of the entries on", growth, "%", at_most=10)
    )


def fill_quickly(bench: Bench, server: Server, segment: str, size: int) -> None:
    """Bring a segment to a size by batches."""
    aside(
        send_batches,
        server.port,
        segment,
        bench.events,
        size=FILL_BATCH,
        connections=FILL_CONNECTIONS,
        seconds=FILL_SECONDS,
        batches=size // FILL_BATCH,
    )


def guard(bench: Bench, config: Config) -> str:
    """Put a policy of 200 rules in force in a folder, and return the token of one whom eleven of them are about."""
    rule = '[[rule]]\nname = "{0}"\nroles = ["writer"]\ngroups = ["{1}"]\nsegments = ["{2}"]\n'
    rules = [rule.format(f"rule {n}", "writers" if n % 20 == 0 else f"team-{n}", f"segment-{n}*") for n in range(199)]
    rules.append(rule.format("all", "writers", "segment-*"))
    document = bench.folder / "policy.toml"
    document.write_text("\n".join(rules))
    subprocess.run([COMMANDS / "tlog", "policy", "apply", document, "--data", config.data], check=True)
    issue: list[str | Path] = [
        COMMANDS / "tlog",
        "token",
        "issue",
        "writer",
        "--group",
        "writers",
        "--data",
        config.data,
    ]
    return subprocess.run(issue, check=True, capture_output=True, text=True).stdout.strip()


def random_paths(segment: str, size: int) -> dict[str, list[str]]:
    """Return paths of tiles and proofs at random places of a segment, by what they are."""
    chance = secrets.SystemRandom()
    full = size // TILE_WIDTH
    paths: dict[str, Callable[[], str]] = {
        "tiles": lambda: str(Tile(0, chance.randrange(full))),
        "entry bundles": lambda: str(Bundle(chance.randrange(full))),
        "inclusion proofs": lambda: f"proof/inclusion/{size}/{chance.randrange(size)}",
        "consistency proofs": lambda: "proof/consistency/{}/{}".format(*sorted(chance.sample(range(1, size + 1), 2))),
    }
    return {name: [f"/segments/{segment}/{make()}" for _ in range(PATHS)] for name, make in paths.items()}


def measure_disk(bench: Bench, config: Config, segment: str, how: str) -> None:
    """Note what a segment takes on disk beyond its compressed payloads. The server is stopped."""
    with closing(ControlStore.open(config.control)) as control:
        path = config.segment(control.find(segment).id)
    # Closing it moves the write-ahead log into it, whose few MiB would count for much in a small segment.
    with closing(connect(path)) as connection:
        (size,) = connection.execute("select size from head").fetchone()
        (payloads,) = connection.execute("select sum(length(payloads)) from payload").fetchone()
    beyond = (path.stat().st_size - payloads) / size
    name = f"disk beyond the payload, {size:,} {how}"
    bench.figures.append(Figure(f"compressed payload, {size:,} {how}", payloads / size, "B/entry"))
    bench.figures.append(Figure(name, beyond, "B/entry"))
    bench.targets.append(Target(name, beyond, "B/entry", at_most=200))


def append_to_each(bench: Bench, server: Server, names: Sequence[str]) -> float:
    """Append an event to each segment in turn, and return the rate."""
    event = bench.events.read_bytes().splitlines()[0]
    began = time.perf_counter()
    with closing(HTTPConnection(HOST, server.port, timeout=TIMEOUT_SECONDS)) as connection:
        for name in names:
            connection.request("POST", f"/segments/{name}/entries", event, {"Content-Type": "application/json"})
            check(connection, 201)
    return len(names) / (time.perf_counter() - began)


def add_open(bench: Bench, server: Server, when: str) -> None:
    """Note the open files and the threads of each worker."""
    for number, worker in enumerate(server.workers(), 1):
        bench.figures.append(Figure(f"open files of worker {number} {when}", worker.num_fds(), ""))
        bench.figures.append(Figure(f"threads of worker {number} {when}", worker.num_threads(), ""))


def add_load(bench: Bench, name: str, load: Load, ceiling: Load | None = None) -> None:
    """Note what wrk found."""
    bench.figures.append(
        Figure(name, load.rate, "req/s", None if ceiling is None else ceiling.rate, load.p50, load.p99)
    )


@contextmanager
def tlog(bench: Bench, name: str, *, guarded: bool = False) -> Iterator[Server]:
    """Run `tlog serve` as it is on the data folder of this name."""
    config = Config(bench.folder / name)
    port = free_port()
    command: list[str | Path] = [COMMANDS / "tlog", "serve", "--data", config.data, "--port", str(port)]
    with running([*command, *([] if guarded else ["--unguarded"])], config, port) as server:
        yield server


@contextmanager
def trivial(bench: Bench) -> Iterator[Server]:
    """Run the trivial app in the same kind of server."""
    config = Config(bench.folder / "trivial")
    port = free_port()
    script = Path(__file__).with_name("bench_trivial.py")
    with running([sys.executable, script, config.data, str(port)], config, port) as server:
        yield server


@contextmanager
def running(command: Sequence[str | Path], config: Config, port: int) -> Iterator[Server]:
    """Run a server until the block ends; it logs to a file, as it would."""
    with config.data.with_suffix(".log").open("ab") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until_ready(process, port)
            yield Server(process, port, config, time.perf_counter() - began)
        finally:
            stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server and its workers."""
    everyone = psutil.Process(process.pid).children() if process.poll() is None else []
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    finally:
        # None is left, unless the server did not do as it was told.
        for worker in everyone:
            if worker.is_running():
                worker.kill()
        process.kill()


def wait_until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Return at the first 200 of /readyz; RuntimeError if the server ends, or there is none for a minute."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with closing(HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)) as connection, suppress(OSError):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == HTTPStatus.OK:
                return
        time.sleep(0.002)
    raise RuntimeError(f"{process.args!r} did not get ready")


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def show(bench: Bench, place: str | None) -> None:
    """Print the table, or the same as JSON where the arguments say so."""
    if place is not None:
        text = json.dumps(report(bench), indent=1) + "\n"
        if place == "-":
            return print(text, end="")
        Path(place).write_text(text)
    print("\n".join([*table(bench.figures), "", *verdicts(bench.targets)]))
    return None


def report(bench: Bench) -> dict[str, Any]:
    """Return all that was found, and on what."""
    return {
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("tlog", "flask", "granian", "pysqlite3")},
        "plan": asdict(bench.plan),
        "figures": [asdict(figure) for figure in bench.figures],
        "targets": [{**asdict(target), "reached": target.reached()} for target in bench.targets],
    }


def table(figures: Sequence[Figure]) -> Iterator[str]:
    """Yield the lines of the table."""
    width = max(len(figure.name) for figure in figures)
    yield f"{'':{width}}  {'value':>12} {'':9}  {'ceiling':>12}  {'share':>6}  {'p50 ms':>7}  {'p99 ms':>7}"
    for one in figures:
        line = f"{one.name:{width}}  {one.value:12,.1f} {one.unit:9}"
        line += f"  {one.ceiling:12,.1f}  {one.value / one.ceiling:6.1%}" if one.ceiling else f"  {'':12}  {'':6}"
        line += f"  {one.p50:7.2f}  {one.p99:7.2f}" if one.p50 is not None else ""
        yield line.rstrip()


def verdicts(targets: Sequence[Target]) -> Iterator[str]:
    """Yield a line for each target: whether it is reached, and by how much."""
    for target in targets:
        bound = f"at least {target.at_least:g}" if target.at_most is None else f"at most {target.at_most:g}"
        word = "reached" if target.reached() else "MISSED"
        yield f"{word:7}  {target.name}: {target.value:.2f} {target.unit} ({bound})"


if __name__ == "__main__":
    main()
