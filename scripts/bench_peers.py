"""The benchmark of tlog beside its peers, on one machine, one after the other: when does a writer hold a proof.

    scripts/bench peers [--seconds N] [--only PEER…] [--cache FOLDER] [--json FILE] [--svg FILE]

Each gets the same events, from as many connections, syncs before it answers, and is asked the same: an inclusion proof
of each entry, under a signed head, which the client has verified. Each load begins on fresh data, is warmed up, and
then measured. CPU and memory are those of all processes of the log, without the driver's.
"""

import argparse
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
from bench import MIB
from bench_load import write_events
from bench_peers_cache import MissingError
from bench_peers_report import Comparison, Measured, draw, tabulate
from bench_peers_servers import PEERS, Load, Peer, Place, Running

WARM_UP_SECONDS: Final = 3
DRIVER_SECONDS: Final = 60
FEW: Final = 2_000

Number = TypeVar("Number", int, float)
LOOK_SECONDS: Final = 0.5


def main() -> None:
    """Measure the peers that the arguments name, and show what was found."""
    # As an exit, so that no server outlives this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments = parse_arguments(sys.argv[1:])
    found = Comparison(machine(), arguments.seconds, [], {})
    with tempfile.TemporaryDirectory(prefix="tlog-bench-") as folder:
        # A server of another user finds its data in here.
        Path(folder).chmod(0o711)
        events = Path(folder) / "events"
        write_events(events)
        for name in arguments.only or PEERS:
            compare(PEERS[name], Path(folder), arguments.cache, events, found)
    show(arguments, asdict(found), draw(found), tabulate(found))


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench peers", description="Measure tlog beside its peers.")
    parser.add_argument("--seconds", type=seconds, default=10, help="how long each load is measured (10)")
    parser.add_argument("--only", nargs="+", choices=PEERS, metavar="PEER", help=f"some of: {', '.join(PEERS)}")
    cache = Path.home() / ".cache/tlog-bench"
    parser.add_argument("--cache", type=Path, default=cache, help=f"where the peers are kept ({cache})")
    add_outputs(parser)
    return parser.parse_args(words)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Have a benchmark take the files for what it found."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw them there")


def show(arguments: argparse.Namespace, figures: Mapping[str, Any], chart: str, lines: Iterable[str]) -> None:
    """Print the lines, and write figures and chart into the files that the arguments name."""
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.svg is not None:
        arguments.svg.write_text(chart)
    print("\n".join(lines))


def seconds(text: str) -> int:
    """Return a whole number of seconds, at least one; raise ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"give a whole number of seconds, at least 1, and not {text!r}")
    return int(text)


def machine() -> Mapping[str, Any]:
    """Return what the figures were found on, and when."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def compare(peer: Peer, folder: Path, cache: Path, events: Path, found: Comparison) -> None:
    """Measure a peer under each of its loads, or note why it is missing."""
    for load in peer.loads:
        print(f"bench: {peer.name}: {load}", file=sys.stderr, flush=True)
        try:
            with tempfile.TemporaryDirectory(dir=folder) as own:
                Path(own).chmod(0o711)
                found.figures.append(measure(peer, load, Place(Path(own), cache.absolute()), events, found.seconds))
        except (MissingError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
            found.missing[f"{peer.name}, {load}"] = reason(error)


def reason(error: Exception) -> str:
    """Return why there is nothing, in one line."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    return " ".join((said.decode() if isinstance(said, bytes) else said or str(error)).split())[-200:]


def measure(peer: Peer, load: Load, place: Place, events: Path, length: int) -> Measured:
    """Run a peer under one load."""
    with peer.run(place) as running:
        before = disk(place.data, peer.passing)
        options = {"events": events, "connections": load.connections, "batch": load.batch}
        times = {"warm-up": WARM_UP_SECONDS, "seconds": length}
        # Not each driver asks for them.
        proofs = {"proofs": load.proofs} if load.proofs else {}
        words = [f"--{name}={value}" for name, value in {**options, **times, **proofs}.items()]
        result, cpu, memory = drive(running, [*running.driver, *words])
    all_logged = load.proofs or result["all"]
    return Measured(
        peer=peer.name,
        settings="; ".join(filter(None, [peer.settings, running.version])),
        load=str(load),
        proves=peer.proves,
        rate=result["entries"] / result["seconds"],
        p50=result["p50"],
        p99=result["p99"],
        cpu=cpu * 1e6 / result["entries"],
        # It has been stopped: what it held back is written. Files grow in steps, among which few entries are lost.
        disk=(disk(place.data, peer.passing) - before) / all_logged if all_logged >= FEW else None,
        memory=memory / MIB,
    )


def drive(running: Running, command: Sequence[str | Path]) -> tuple[dict[str, float], float, int]:
    """Run a driver; return its result, the seconds of CPU that the servers took meanwhile, and their most memory."""
    stopped = threading.Event()
    with (
        ThreadPoolExecutor(1) as pool,
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as driver,
    ):
        watched = pool.submit(most_memory, running, stopped)
        try:
            lines = iter(driver.stdout or [])
            clocks = {line.strip(): cpu_seconds(running) for line in itertools.islice(lines, 2)}
            result = next(lines, None)
            if driver.wait(DRIVER_SECONDS) or result is None:
                said.seek(0)
                raise RuntimeError(f"the driver failed: {said.read().decode(errors='replace')}")
        finally:
            stopped.set()
            driver.kill()
    return json.loads(result), clocks["end"] - clocks["begin"], watched.result()


def cpu_seconds(running: Running) -> float:
    """Return how long the servers and all that they started have run; who has ended counts with its parent."""
    return sum(each(running, lambda one: sum(one.cpu_times()[:4])))


def most_memory(running: Running, stopped: threading.Event) -> int:
    """Return the most memory that they have had until told to stop, in bytes; what they share counts once (PSS)."""
    most = 0
    while not stopped.wait(LOOK_SECONDS):
        most = max(most, sum(each(running, lambda one: one.memory_full_info().pss)))
    return most


def each(running: Running, look: Callable[[psutil.Process], Number]) -> Iterator[Number]:
    """Yield what each process shows; one may end meanwhile."""
    for server in running.servers:
        with suppress(psutil.NoSuchProcess):
            first: psutil.Process = psutil.Process(server.pid)
            for one in (first, *first.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    yield look(one)


def disk(folder: Path, passing: tuple[str, ...]) -> int:
    """Return how many bytes the files of a folder take, without those that are soon gone or written over."""
    taken = 0
    for path in folder.rglob("*"):
        if not any(part.endswith(passing) for part in path.parts):
            # A running server may remove what was listed.
            with suppress(FileNotFoundError):
                taken += path.stat().st_blocks * 512
    return taken


if __name__ == "__main__":
    main()
