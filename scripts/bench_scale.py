"""Scale curves: what a log costs by its entries, and by its segments, each cost beside its expected growth.

    scripts/bench scale [--largest N] [--segments N] [--json FILE] [--svg FILE]

One segment is filled from size to size by batches, and then segments are made from number to number. At each, a real
server on loopback is started, asked and stopped, and its folder is checked. Latencies and starts are medians.
"""

import argparse
import json
import math
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Final

from bench import COMMANDS, MIB, Server, aside, free_port, running
from bench_load import HOST, TIMEOUT_SECONDS, check, send_batches, write_events
from bench_peers import add_outputs, disk, each, machine, show
from bench_peers_servers import Running
from bench_scale_report import ENTRIES, SEGMENTS, Cost, Curves, draw, tabulate

from tlog.config import Config
from tlog_client import Log
from tlog_core.tile import TILE_WIDTH, Tile

SEGMENT: Final = "scale"
KIB: Final = 1 << 10
LEAST: Final = 1_000
FILL_BATCH: Final = 10_000
CONNECTIONS: Final = 4
MANY: Final = 1_000
BATCHES: Final = 5
FEW: Final = 3
MADE_ALONE: Final = 100
LOOK_SECONDS: Final = 0.1
# What is backed up is checked by one process, and so is no larger than this.
BACKED_UP: Final = 1_000_000
# The files of a segment, with its anchor.
BYTES_AN_ENTRY: Final = 300
BYTES_A_SEGMENT: Final = 200_000
# From here on they are checked by several processes.
SEVERAL_ENTRIES: Final = 100_000
SEVERAL_SEGMENTS: Final = 1_000
# From here on nearly all are closed: each worker keeps 64 open.
CLOSED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Plan:
    """To which numbers a log is brought, how many requests a median is of, and how many starts."""

    entries: Sequence[int]
    segments: Sequence[int]
    requests: int = 300
    starts: int = 3

    def bytes(self) -> int:
        """Return how much room this takes on the disk at most."""
        return max(max(self.entries) * BYTES_AN_ENTRY, max(self.segments) * BYTES_A_SEGMENT)


class Scale:
    """A run: its plan, its folder, and the costs by what they are of and their names."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Prepare the events."""
        self.plan = plan
        self.folder = folder
        self.events = folder / "events"
        self.chance = Random(1)  # noqa: S311  # no secrets
        self.costs = {(cost.of, cost.name): cost for cost in expected()}
        write_events(self.events)

    def note(self, of: str, count: int, found: Mapping[str, float]) -> None:
        """Note what was found of costs at some number."""
        for name, value in found.items():
            self.costs[of, name].found[count] = value
        print(f"bench: {count:,} {of}: {', '.join(found)}", file=sys.stderr, flush=True)


def expected() -> list[Cost]:
    """Return what is measured, and how it is to grow."""
    return [
        Cost("append of one", "ms", ENTRIES, "constant"),
        Cost("append of 1,000", "ms", ENTRIES, "constant"),
        Cost("inclusion proof", "ms", ENTRIES, "log n"),
        Cost("consistency proof", "ms", ENTRIES, "log n"),
        Cost("tile", "ms", ENTRIES, "constant"),
        Cost("client proves an entry", "ms", ENTRIES, "log n"),
        Cost("start to checkpoint", "s", ENTRIES, "constant"),
        Cost("start to append", "s", ENTRIES, "constant"),
        Cost("server memory", "MiB", ENTRIES, "constant"),
        Cost("disk", "B each", ENTRIES, "constant", within=1.1),
        Cost("fsck", "s", ENTRIES, "n"),
        Cost("fsck memory", "MiB", ENTRIES, "constant", least=SEVERAL_ENTRIES),
        Cost("backup", "s", ENTRIES, "n"),
        Cost("append, p50", "ms", SEGMENTS, "constant", least=CLOSED),
        Cost("append, p99", "ms", SEGMENTS, "constant", least=CLOSED),
        Cost("making one", "ms", SEGMENTS, "constant", least=10),
        Cost("start to checkpoint", "s", SEGMENTS, "n"),
        Cost("start to append", "s", SEGMENTS, "n"),
        Cost("server memory", "MiB", SEGMENTS, "constant", least=CLOSED),
        # Each has counters.
        Cost("memory, all used", "MiB", SEGMENTS, "n"),
        Cost("disk", "KiB each", SEGMENTS, "constant", within=1.1),
        Cost("fsck", "s", SEGMENTS, "n"),
        Cost("fsck memory", "MiB", SEGMENTS, "constant", least=SEVERAL_SEGMENTS),
    ]


def main() -> None:
    """Measure as the arguments say, and show what was found."""
    # As an exit, so that no server outlives this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments = parse_arguments(sys.argv[1:])
    plan = Plan(steps(LEAST, arguments.largest), steps(1, arguments.segments))
    with tempfile.TemporaryDirectory(prefix="tlog-bench-") as folder:
        check_room(Path(folder), plan.bytes())
        scale = Scale(plan, Path(folder))
        measure_entries(scale)
        measure_segments(scale)
    curves = Curves(machine(), [*scale.costs.values()])
    show(arguments, asdict(curves), draw(curves), tabulate(curves))


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench scale", description="Measure what a log costs by its size.")
    entries, segments = at_least(LEAST), at_least(1)
    parser.add_argument("--largest", type=entries, default=10**7, metavar="N", help="entries at most (10,000,000)")
    parser.add_argument("--segments", type=segments, default=10**4, metavar="N", help="segments at most (10,000)")
    add_outputs(parser)
    return parser.parse_args(words)


def at_least(least: int) -> Callable[[str], int]:
    """Return what reads a whole number that is not less; it raises ArgumentTypeError."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or int(text) < least:
            raise argparse.ArgumentTypeError(f"give a whole number, at least {least:,}, and not {text!r}")
        return int(text)

    return read


def steps(least: int, most: int) -> list[int]:
    """Return the powers of ten from `least`, which is one, to below `most`, and that."""
    powers = (10**power for power in range(20))
    return [*(power for power in powers if least <= power < most), most]


def check_room(folder: Path, needed: int) -> None:
    """End the program if the disk has not so many bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(
            f"bench: {folder.parent} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are needed; point TMPDIR "
            "to where there is more, or give less to --largest or --segments"
        )


# By entries


def measure_entries(scale: Scale) -> None:
    """Measure one segment from size to size."""
    config = Config(scale.folder / "entries")
    for size in scale.plan.entries:
        with serving(config) as server:
            key = bring_to_size(scale, server, size)
        scale.note(ENTRIES, size, {"disk": weigh(config) / size, **check_folder(config)})
        if size <= BACKED_UP:
            scale.note(ENTRIES, size, {"backup": back_up(config)})
        scale.note(ENTRIES, size, time_starts(scale, config, SEGMENT))
        with serving(config) as server:
            scale.note(ENTRIES, size, time_reads(scale, server, size))
            scale.note(ENTRIES, size, {"client proves an entry": time_client(scale, server, key, size)})
            scale.note(ENTRIES, size, time_appends(scale, server))
            scale.note(ENTRIES, size, {"server memory": memory(server.process) / MIB})
    remove(config)


def bring_to_size(scale: Scale, server: Server, size: int) -> str:
    """Append as many entries as are missing, by large batches, and return the segment's key."""
    with connected(server) as connection:
        connection.request("PUT", f"/segments/{SEGMENT}")
        key = str(json.loads(check(connection, 200, 201))["vkey"])
        missing = size - size_of(connection)
    for batch, batches in ((FILL_BATCH, missing // FILL_BATCH), (missing % FILL_BATCH, 1)):
        if batch * batches > 0:
            options = {"size": batch, "connections": CONNECTIONS, "seconds": math.inf, "batches": batches}
            aside(send_batches, server.port, SEGMENT, scale.events, **options)
    # Another one: the server has closed the first, on which nothing came for so long.
    with connected(server) as connection:
        if (found := size_of(connection)) != size:
            raise RuntimeError(f"the segment has {found} entries, and was to have {size}")
    return key


def size_of(connection: HTTPConnection) -> int:
    """Return the size that the segment's checkpoint says."""
    connection.request("GET", f"/segments/{SEGMENT}/checkpoint")
    return int(check(connection, 200).splitlines()[1])


def time_reads(scale: Scale, server: Server, size: int) -> dict[str, float]:
    """Return the median milliseconds of proofs and tiles at random places."""
    one, two = scale.chance.randrange, scale.chance.sample
    paths: dict[str, Callable[[], str]] = {
        "inclusion proof": lambda: f"proof/inclusion/{size}/{one(size)}",
        "consistency proof": lambda: "proof/consistency/{}/{}".format(*sorted(two(range(1, size + 1), 2))),
        "tile": lambda: str(Tile(0, one(size // TILE_WIDTH))),
    }
    with connected(server) as connection:
        return {
            name: median(time_each(scale.plan.requests, partial(get, connection, path))) for name, path in paths.items()
        }


def get(connection: HTTPConnection, path: Callable[[], str]) -> None:
    """Get a path of the segment."""
    connection.request("GET", f"/segments/{SEGMENT}/{path()}")
    check(connection, 200)


def time_client(scale: Scale, server: Server, key: str, size: int) -> float:
    """Return the median milliseconds in which the client fetches the newest checkpoint, and proves a random entry."""
    url = f"http://{HOST}:{server.port}/segments/{SEGMENT}"
    with Log(url, key, state=scale.folder / f"state-{size}") as log:
        return median(time_each(scale.plan.requests // 3, lambda: log.prove(scale.chance.randrange(size))))


def time_appends(scale: Scale, server: Server) -> dict[str, float]:
    """Return the median milliseconds of appends, of one event and of 1,000."""
    lines = scale.events.read_bytes().splitlines(keepends=True)
    few, many = cycle(lines), cycle(b"".join(lines[start : start + MANY]) for start in range(0, len(lines), MANY))
    with connected(server) as connection:
        one = time_each(scale.plan.requests, lambda: post(connection, SEGMENT, next(few), "application/json"))
        batch = time_each(BATCHES, lambda: post(connection, SEGMENT, next(many), "application/x-ndjson"))
    return {"append of one": median(one), "append of 1,000": median(batch)}


def post(connection: HTTPConnection, segment: str, body: bytes, kind: str) -> None:
    """Append to a segment."""
    connection.request("POST", f"/segments/{segment}/entries", body, {"Content-Type": kind})
    check(connection, 201)


def time_each(times: int, do: Callable[[], object]) -> list[float]:
    """Do something so many times, and return how many milliseconds each took, without the first fifth: it warms up."""
    found = []
    for _ in range(times + times // 5):
        began = time.perf_counter()
        do()
        found.append(1_000 * (time.perf_counter() - began))
    return found[-times:]


# By segments


def measure_segments(scale: Scale) -> None:
    """Measure few entries in each of more and more segments."""
    config, made = Config(scale.folder / "segments"), 0
    for count in scale.plan.segments:
        with serving(config) as server:
            making = make_segments(scale, server, range(made, count))
            used = memory(server.process) / MIB
        made = count
        scale.note(SEGMENTS, count, {"making one": making, "memory, all used": used})
        scale.note(SEGMENTS, count, {"disk": weigh(config) / count / KIB})
        scale.note(SEGMENTS, count, check_folder(config))
        scale.note(SEGMENTS, count, time_starts(scale, config, name_of(0)))
        with serving(config) as server:
            scale.note(SEGMENTS, count, time_spread(scale, server, count))
            scale.note(SEGMENTS, count, {"server memory": memory(server.process) / MIB})
    remove(config)


def name_of(number: int) -> str:
    """Return the name of a segment."""
    return f"segment-{number}"


def make_segments(scale: Scale, server: Server, numbers: range) -> float:
    """Make segments with few entries each; return the median milliseconds of making the last ones one by one."""
    batch = b"".join(scale.events.read_bytes().splitlines(keepends=True)[:FEW])
    alone = numbers[-MADE_ALONE:]

    def make(number: int) -> float:
        with connected(server) as connection:
            began = time.perf_counter()
            connection.request("PUT", f"/segments/{name_of(number)}")
            check(connection, 201)
            passed = time.perf_counter() - began
            post(connection, name_of(number), batch, "application/x-ndjson")
        return 1_000 * passed

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(make, numbers[: -len(alone)]))
    return median(map(make, alone))


def time_spread(scale: Scale, server: Server, count: int) -> dict[str, float]:
    """Return percentiles of the milliseconds of appends to segments at random."""
    lines = cycle(scale.events.read_bytes().splitlines())
    with connected(server) as connection:

        def append() -> None:
            post(connection, name_of(scale.chance.randrange(count)), next(lines), "application/json")

        found = quantiles(time_each(scale.plan.requests, append), n=100)
    return {"append, p50": found[49], "append, p99": found[98]}


# Both


@contextmanager
def serving(config: Config) -> Iterator[Server]:
    """Run `tlog serve` as it is on a data folder."""
    port = free_port()
    command: list[str | Path] = [COMMANDS / "tlog", "serve", "--unguarded", "--data", config.data, "--port", str(port)]
    with running(command, config, port) as server:
        yield server


@contextmanager
def connected(server: Server) -> Iterator[HTTPConnection]:
    """Keep one connection, and so one worker."""
    with closing(HTTPConnection(HOST, server.port, timeout=TIMEOUT_SECONDS)) as connection:
        yield connection


def time_starts(scale: Scale, config: Config, segment: str) -> dict[str, float]:
    """Return the median seconds from the start of a server until a checkpoint, and until an append, is answered."""
    checkpoints, appends = [], []
    for _ in range(scale.plan.starts):
        began = time.perf_counter()
        with serving(config) as server, connected(server) as connection:
            connection.request("GET", f"/segments/{segment}/checkpoint")
            check(connection, 200)
            checkpoints.append(time.perf_counter() - began)
            post(connection, segment, b"1", "application/json")
            appends.append(time.perf_counter() - began)
            # One worker is ready; the others shall not be ended while they start.
            time.sleep(1)
    return {"start to checkpoint": median(checkpoints), "start to append": median(appends)}


def check_folder(config: Config) -> dict[str, float]:
    """Have all of a folder checked; return the seconds, and the most MiB of memory of all its processes."""
    began, most = time.perf_counter(), 0
    with subprocess.Popen([COMMANDS / "tlog", "fsck", "--data", config.data], stderr=subprocess.DEVNULL) as process:
        while not ended(process):
            most = max(most, memory(process))
    passed = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError("tlog fsck has found what is shown above")
    return {"fsck": passed, "fsck memory": most / MIB}


def ended(process: "subprocess.Popen[bytes]") -> bool:
    """Wait a moment for a process, and tell whether it has ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(LOOK_SECONDS)
    return process.returncode is not None


def memory(process: "subprocess.Popen[bytes]") -> int:
    """Return the bytes of memory of a process and all that it started; what they share counts once (PSS)."""
    return sum(each(Running((process,), ()), lambda one: int(one.memory_full_info().pss)))


def back_up(config: Config) -> float:
    """Return how many seconds a backup takes, which is removed again."""
    target, began = config.data.with_name("backup"), time.perf_counter()
    subprocess.run([COMMANDS / "tlog", "backup", "--data", config.data, target], check=True, capture_output=True)
    passed = time.perf_counter() - began
    shutil.rmtree(target)
    return passed


def weigh(config: Config) -> int:
    """Return how many bytes a log takes on disk. Its server is stopped."""
    return sum(disk(folder, ()) for folder in (config.data, config.anchor_of("")))


def remove(config: Config) -> None:
    """Remove a log."""
    for folder in (config.data, config.anchor_of("")):
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
