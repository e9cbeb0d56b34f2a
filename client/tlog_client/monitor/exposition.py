"""Listening: metrics for Prometheus, and whether the monitor is well. It needs the extra `tlog-client[monitor]`."""

import resource
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from threading import Thread
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from waitress import create_server, wasyncore

from tlog_client.errors import StateError
from tlog_client.monitor.app import MAX_BODY_BYTES, TEXT, Answer, Handler, make_app
from tlog_client.monitor.judge import Judge
from tlog_client.monitor.rounds import Rounds

THREADS: Final = 4
MAX_CONNECTIONS: Final = 1_000
OTHER_FILES: Final = 1_000
"""How many files may be open beside: the memory, and connections to logs, witnesses and peers."""

IDLE_SECONDS: Final = 10
"""How long a connection may bring nothing."""


class Watched(Collector):
    """The metrics of a monitor, read from its memory when they are asked for."""

    def __init__(self, judge: Judge, rounds: Rounds) -> None:
        """Read what these know."""
        self._judge = judge
        self._rounds = rounds

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with a sample a log."""
        memory, now = self._judge.memory, self._judge.clock()
        size = GaugeMetricFamily("tlog_monitor_size", "Entries of the newest verified head.", labels=["origin"])
        looked = GaugeMetricFamily("tlog_monitor_looked", "Entries that were looked at.", labels=["origin"])
        seen = GaugeMetricFamily(
            "tlog_monitor_verified_time_seconds", "When the log last showed a head that held.", labels=["origin"]
        )
        age = GaugeMetricFamily(
            "tlog_monitor_head_age_seconds", "Since when no quorum has cosigned a newer head.", labels=["origin"]
        )
        held = GaugeMetricFamily("tlog_monitor_unresolved", "Larger heads heard of elsewhere.", labels=["origin"])
        convicted = GaugeMetricFamily("tlog_monitor_convicted", "1 if evidence convicts the log.", labels=["origin"])
        troubles = GaugeMetricFamily(
            "tlog_monitor_complaint", "1 while it lasts.", labels=["origin", "kind", "witness"]
        )
        for log in map(memory.known, self._judge.origins):
            size.add_metric([log.origin], log.size)
            looked.add_metric([log.origin], log.looked)
            seen.add_metric([log.origin], log.seen)
            held.add_metric([log.origin], len(memory.unresolved(log)))
            convicted.add_metric([log.origin], int(memory.is_convicted(log.origin)))
            if log.quorum_time:
                age.add_metric([log.origin], max(0.0, now - log.quorum_time))
            for kind, witness in memory.troubles(log):
                troubles.add_metric([log.origin, kind, witness], 1)
        findings = CounterMetricFamily("tlog_monitor_findings", "Findings so far.", labels=["origin", "class", "kind"])
        for *labels, number in memory.counted():
            findings.add_metric(labels, number)
        rounds = CounterMetricFamily("tlog_monitor_rounds", "Rounds that came to an end.", value=self._rounds.number)
        yield from (size, looked, seen, age, held, convicted, troubles, findings, rounds)


def routes(judge: Judge, rounds: Rounds) -> dict[tuple[str, str], Handler]:
    """Return the routes of every monitor that listens."""
    registry = CollectorRegistry()
    registry.register(Watched(judge, rounds))

    def metrics(_: bytes) -> Answer:
        return Answer(200, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))

    def healthz(_: bytes) -> Answer:
        if rounds.is_alive():
            return Answer(200, TEXT, b"ok\n")
        return Answer(503, TEXT, b"no round has ended for too long\n")

    def head_of(origin: str) -> Handler:
        def head(_: bytes) -> Answer:
            note = judge.memory.known(origin).note
            return Answer(200, TEXT, note) if note else Answer(404, TEXT, b"no head was verified yet\n")

        return head

    # As witnesses say it (C2SP tlog-witness): so a log that restarts may ask whether it has the latest.
    heads = {("GET", f"/{sha256(origin.encode()).hexdigest()}/checkpoint"): head_of(origin) for origin in judge.origins}
    return {("GET", "/metrics"): metrics, ("GET", "/healthz"): healthz, **heads}


@contextmanager
def listening(
    host: str, port: int, handlers: Mapping[tuple[str, str], Handler], *, ready: Callable[[str], None]
) -> Iterator[None]:
    """Serve these routes until the block ends; `ready` hears the URL. StateError if the address cannot be had."""
    sockets: dict[int, Any] = {}
    shown = f"[{host}]" if ":" in host else host
    try:
        # Of one address, whatever the name of the host stands for.
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise StateError(f"cannot listen on {shown}:{port}: {reason}") from error
    server = create_server(
        make_app(handlers),
        map=sockets,
        sockets=[bound],
        threads=THREADS,
        connection_limit=_room(),
        channel_timeout=IDLE_SECONDS,
        cleanup_interval=IDLE_SECONDS,
        # What select can wait for ends at 1,024 descriptors.
        asyncore_use_poll=True,
        max_request_body_size=MAX_BODY_BYTES,
        ident="",
        clear_untrusted_proxy_headers=True,
    )
    thread = Thread(target=server.run, name="tlog-listen", daemon=True)
    thread.start()
    ready(f"http://{shown}:{server.effective_port}")
    try:
        yield
    finally:
        # The thread that waits for them must let go of them first, and what wakes it be open until it has.
        left = dict[int, Any]()

        def let_go() -> None:
            left.update(sockets)
            sockets.clear()

        server.trigger.pull_trigger(let_go)
        thread.join(IDLE_SECONDS)
        wasyncore.close_all(left)


def _room() -> int:
    """Have as many files open as there may be, and return for how many connections: strangers must not take all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + OTHER_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(MAX_CONNECTIONS, soft // 2)
