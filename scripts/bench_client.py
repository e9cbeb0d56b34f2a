"""What drives `tlog_client` for `scripts/bench`: verification of many entries, and a `Writer` with many producers."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from bench_writer import Run, read_events

from tlog_client import Log
from tlog_core.merkle import Frontier, leaf_hashes

PRODUCERS = 16
HASHED = 100_000


@dataclass(frozen=True, slots=True)
class Spent:
    """Entries a second, and seconds of this process's CPU for a million of them."""

    rate: float
    cpu: float


def verify_entries(url: str) -> Spent:
    """Read all entries of a segment, as whoever may not read payloads does."""
    with opened(url) as log:
        return spend(lambda: sum(1 for _ in log.committed()))


def hash_entries(url: str) -> Spent:
    """Hash entries of a segment, and the tree above them: what no verifier can leave out."""
    with opened(url) as log:
        entries = list(itertools.islice(log.logged(), HASHED))
    return spend(lambda: Frontier().grow(leaf_hashes(entries)).frontier.size)


def write_entries(url: str, events: Path, seconds: float) -> Spent:
    """Log events by a `Writer` with many producers, until all have their receipts."""
    begin = time.perf_counter()
    run = Run(read_events(events), begin, begin + seconds)
    with opened(url) as log:
        return spend(lambda: run.drive(log, producers=PRODUCERS, batch=1_000))


def spend(work: Callable[[], int]) -> Spent:
    """Do what returns a number of entries."""
    began, cpu = time.perf_counter(), time.process_time()
    entries = work()
    return Spent(entries / (time.perf_counter() - began), 1e6 * (time.process_time() - cpu) / entries)


@contextmanager
def opened(url: str) -> Iterator[Log]:
    """Open a segment, whose key it is itself asked for: nobody lies here."""
    key = requests.get(url, timeout=60).json()["vkey"]
    with tempfile.TemporaryDirectory() as state, Log(url, key, state=state) as log:
        yield log
