"""What the server counts, for Prometheus."""

import os
from collections import deque
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
_EVENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)


class Metrics:
    """The counters of one process; with several, the files of `PROMETHEUS_MULTIPROC_DIR` bring them together."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._appends = Counter(
            "tlog_appends", "Appends answered with a receipt, retries among them.", registry=registry
        )
        self._entries = Counter("tlog_entries", "Entries logged.", ["segment"], registry=registry)
        self._batch = Histogram("tlog_commit_entries", "Entries in one commit.", buckets=_EVENTS, registry=registry)
        self._commit = Histogram(
            "tlog_commit_seconds", "Time of one commit, lock to durable.", buckets=_SECONDS, registry=registry
        )
        self._proof = Histogram("tlog_proof_seconds", "Time to make one proof.", buckets=_SECONDS, registry=registry)
        self._size = Gauge(
            "tlog_segment_size",
            "Entries in a segment, as of the last commit since the start.",
            ["segment"],
            registry=registry,
            multiprocess_mode="max",
        )
        self._open = Gauge("tlog_open_segments", "Segments open now.", registry=registry, multiprocess_mode="livesum")
        self._requests = Counter(
            "tlog_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._latency = Histogram(
            "tlog_request_seconds", "Time of one request.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._cosigned = Gauge(
            "tlog_cosigned_time_seconds",
            "When a quorum of witnesses cosigned a head last, in seconds since the epoch.",
            registry=registry,
            multiprocess_mode="max",
        )
        self._uncosigned = Gauge(
            "tlog_uncosigned_segments",
            "Segments with a head that is not cosigned by a quorum yet.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._witnesses = Counter(
            "tlog_witness_answers", "What witnesses answered.", ["witness", "outcome"], registry=registry
        )
        self._frozen = Gauge(
            "tlog_segment_frozen",
            "1 for a segment that is frozen, once it is used.",
            ["segment"],
            registry=registry,
            multiprocess_mode="max",
        )
        self._scrubbed = Counter("tlog_scrub_entries", "Entries that the scrub has checked.", registry=registry)
        self._scrub_findings = Counter("tlog_scrub_findings", "What the scrub has found damaged.", registry=registry)
        self._scrub_passed = Gauge(
            "tlog_scrub_pass_time_seconds",
            "When the last complete pass of the scrub ended, in seconds since the epoch.",
            registry=registry,
            multiprocess_mode="max",
        )
        self._free = Gauge(
            "tlog_disk_free_bytes",
            "What the disk has free.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._reserve = Gauge(
            "tlog_disk_reserve_bytes",
            "With less free on the disk nothing more is taken in.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._wal = Gauge(
            "tlog_wal_bytes",
            "The largest write-ahead log: it grows while somebody holds a read transaction open.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._received = Counter(
            "tlog_received_events",
            "Events that receivers took: logged, in quarantine, or seen before.",
            ["receiver", "outcome"],
            registry=registry,
        )
        self._kept: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._proofs: deque[float] = deque()
        self._commits: deque[tuple[str, int, float, int]] = deque()

    def committed(self, segment: str, events: int, seconds: float, size: int) -> None:
        """Note a commit, to be counted by `settle`: events, seconds, and the size after it."""
        self._commits.append((segment, events, seconds, size))

    def opened(self, segments: int) -> None:
        """Note how many segments are open."""
        self._open.set(segments)

    def froze(self, segment: str) -> None:
        """Note a segment that is frozen."""
        self._frozen.labels(segment).set(1)

    def cosigned(self, at: int) -> None:
        """Note that a head was cosigned by a quorum at that quorum time, in seconds."""
        self._cosigned.set(at)

    def uncosigned(self, segments: int) -> None:
        """Note how many segments wait to be cosigned."""
        self._uncosigned.set(segments)

    def witness_answered(self, witness: str, outcome: str) -> None:
        """Count an answer of a witness; there are few outcomes."""
        self._witnesses.labels(witness, outcome).inc()

    def scrubbed(self, entries: int) -> None:
        """Count entries that were checked."""
        self._scrubbed.inc(entries)

    def scrub_found(self, findings: int) -> None:
        """Count what was found damaged."""
        self._scrub_findings.inc(findings)

    def scrub_passed(self, at: int) -> None:
        """Note when the last complete pass ended, in seconds."""
        self._scrub_passed.set(at)

    def disk(self, free: int, reserve: int, wal: int) -> None:
        """Note what the disk has free, below what nothing more is taken in, and the largest WAL, in bytes."""
        self._free.set(free)
        self._reserve.set(reserve)
        self._wal.set(wal)

    def appended(self) -> None:
        """Count a request that logged entries."""
        self._appends.inc()

    def received(self, receiver: str, outcome: str, events: int) -> None:
        """Count events of a request to a receiver; there are few outcomes."""
        self._received.labels(receiver, outcome).inc(events)

    def proved(self, seconds: float) -> None:
        """Note a proof, to be counted by `settle`."""
        self._proofs.append(seconds)

    def settle(self) -> None:
        """Count what is only noted: at once it would be a tenth of what a proof costs, and hold up commits."""
        for _ in range(len(self._proofs)):
            self._proof.observe(self._proofs.popleft())
        for _ in range(len(self._commits)):
            segment, events, seconds, size = self._commits.popleft()
            self._entries.labels(segment).inc(events)
            self._batch.observe(events)
            self._commit.observe(seconds)
            self._size.labels(segment).set(size)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        # Anyone may make up a method, and each new label costs memory for ever.
        key = (method if method in _METHODS else "other", route, status)
        if key not in self._kept:
            self._kept[key] = self._requests.labels(key[0], route, str(status)), self._latency.labels(route)
        requests, latency = self._kept[key]
        requests.inc()
        latency.observe(seconds)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format, over all worker processes."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        _forget_the_dead(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _forget_the_dead(folder: Path) -> None:
    """Leave out what workers that were killed had open."""
    for path in folder.glob("gauge_live*_*.db"):
        process = int(path.stem.rpartition("_")[2])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            mark_process_dead(process)  # type: ignore[no-untyped-call]
