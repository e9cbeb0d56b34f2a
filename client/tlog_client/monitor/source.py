"""Where a monitor gets bytes from, and what time it is: over HTTP here, over a simulated network where one runs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Final

from tlog_client.credential import Bearer
from tlog_client.errors import RefusedError
from tlog_client.transport import Backoff, Transport, new_session
from tlog_core.errors import FetchError
from tlog_core.note import MAX_NOTE_BYTES
from tlog_core.policy import TrustedLog, TrustedWitness

REST: Final = 60.0
LONGEST_REST: Final = 3_600.0
"""Seconds in which a witness that did not answer is not asked again, at first, and after many failures in a row."""

WITNESS_SECONDS: Final = 10.0
"""How long a witness may take to answer: each log waits for it."""

FetchFromLog = Callable[[TrustedLog, str, int], bytes]
"""Given a log, a path below its prefix and the most bytes to take, what is there; raises FetchError."""

FetchFromWitness = Callable[[TrustedWitness, str], bytes | None]
"""Given a witness and an origin, the checkpoint that it last cosigned, None if it never did; raises FetchError."""


@dataclass(frozen=True, slots=True)
class Source:
    """Two ways to get bytes, none of which is believed, and the clock, in POSIX seconds. Threads share it."""

    log: FetchFromLog
    witness: FetchFromWitness
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Rest:
    until: float
    wait: float
    reason: str


_NONE: Final = _Rest(0.0, 0.0, "")


def log_transports(
    token: str | Path | None, *, timeout: float, backoff: Backoff, deadline: float
) -> Callable[[TrustedLog], Transport]:
    """Return what gives the transport of each log, always the same; `token` is shown to the logs."""
    made: dict[str, Transport] = {}

    def transport_of(log: TrustedLog) -> Transport:
        if log.url not in made:
            session = new_session(deadline)
            if token is not None:
                session.auth = Bearer(token)
            made[log.url] = Transport(log.url, session=session, timeout=timeout, backoff=backoff, deadline=deadline)
        return made[log.url]

    return transport_of


def http_source(
    *,
    clock: Callable[[], float],
    token: str | Path | None,
    timeout: float,
    backoff: Backoff,
    deadline: float,
    rest: float = REST,
) -> Source:
    """Return the source that asks over HTTP; `token` is shown to logs, and never to witnesses.

    A witness that did not answer is not asked for the head of any log for `rest` seconds, and twice as long each time.
    """
    transport_of = log_transports(token, timeout=timeout, backoff=backoff, deadline=deadline)
    witnesses: dict[str, Transport] = {}
    resting: dict[str, _Rest] = {}

    def fetch_from_log(log: TrustedLog, path: str, limit: int) -> bytes:
        return transport_of(log).get(path, limit=limit)

    def fetch_from_witness(witness: TrustedWitness, origin: str) -> bytes | None:
        # C2SP tlog-witness, "Retrieval of checkpoints".
        path = f"{sha256(origin.encode()).hexdigest()}/checkpoint"
        last = resting.get(witness.url, _NONE)
        if monotonic() < last.until:
            raise FetchError(last.reason)
        if witness.url not in witnesses:
            witnesses[witness.url] = Transport(
                witness.url,
                session=new_session(WITNESS_SECONDS),
                timeout=min(timeout, WITNESS_SECONDS),
                backoff=replace(backoff, attempts=1),
                deadline=WITNESS_SECONDS,
            )
        try:
            found = witnesses[witness.url].get(path, limit=MAX_NOTE_BYTES)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise
        except FetchError as error:
            # Whoever asked at the same time has noted this failure already.
            if resting.get(witness.url, _NONE) is last:
                wait = min(LONGEST_REST, max(rest, 2 * last.wait))
                resting[witness.url] = _Rest(monotonic() + wait, wait, str(error))
            raise
        resting.pop(witness.url, None)
        return found

    return Source(fetch_from_log, fetch_from_witness, clock)
