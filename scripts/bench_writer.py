"""What drives `tlog_client.Writer` for `scripts/bench peers`: as the drivers in `bench_peers/`, and as they report."""

import argparse
import gc
import itertools
import json
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tlog_client import Log, Writer
from tlog_core.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Run:
    """Events, each once under an ID of its own, when the measurement begins and ends, and when each had its receipt."""

    events: list[dict[str, Any]]
    begin: float
    end: float
    turns: Iterator[int] = field(default_factory=lambda: itertools.count(secrets.randbits(24) << 40))
    found: list[tuple[float, float]] = field(default_factory=list)

    def drive(self, log: Log, *, producers: int, batch: int) -> int:
        """Submit from so many threads, and return how many receipts there were in all."""
        with Writer(log, batch=batch) as writer, ThreadPoolExecutor(producers) as pool:
            list(pool.map(self.produce, [writer] * producers))
        return len(self.found)

    def produce(self, writer: Writer) -> None:
        """Submit events, as fast as the queue takes them."""
        while (sent := time.perf_counter()) < self.end:
            turn = next(self.turns)
            event = {**self.events[turn % len(self.events)], "id": f"{turn:016x}"}
            writer.submit(event).add_done_callback(partial(self.note, sent))

    def note(self, sent: float, answer: Future[Receipt]) -> None:
        """Note a receipt; raise what came in its place."""
        answer.result()
        self.found.append((sent, time.perf_counter()))

    def report(self) -> dict[str, float]:
        """Return what came between begin and end, latencies in milliseconds."""
        taken = sorted(1e3 * (at - sent) for sent, at in self.found if self.begin < at < self.end)
        return {
            "entries": len(taken),
            "all": len(self.found),
            "seconds": self.end - self.begin,
            "p50": taken[(len(taken) - 1) * 50 // 100],
            "p99": taken[(len(taken) - 1) * 99 // 100],
        }


def main() -> None:
    """Submit from so many threads, and say when the measurement begins, when it ends, and what it found."""
    arguments = parse_arguments()
    begin = time.perf_counter() + arguments.warm_up
    run = Run(read_events(arguments.events), begin, begin + arguments.seconds)
    for at, word in ((run.begin, "begin"), (run.end, "end")):
        threading.Timer(at - time.perf_counter(), partial(print, word, flush=True)).start()
    with tempfile.TemporaryDirectory() as state, Log(arguments.at, arguments.key, state=state) as log:
        run.drive(log, producers=arguments.connections, batch=arguments.batch)
        print(json.dumps(run.report()))


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a file, one a line."""
    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    # A program has its events one by one: the garbage collector is not to go through all of these again and again.
    gc.freeze()
    return events


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--at")
    parser.add_argument("--key")
    parser.add_argument("--events", type=Path)
    for name in ("connections", "batch", "warm-up", "seconds"):
        parser.add_argument(f"--{name}", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
