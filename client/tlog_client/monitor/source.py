"""Where a monitor gets bytes from, and what time it is: over HTTP here, over a simulated network where one runs."""

from collections.abc import Callable
from dataclasses import dataclass
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
"""Seconds in which a witness that did not answer is not asked again: it would hold up each log anew."""

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

    A witness that did not answer is not asked for the head of any log for `rest` seconds.
    """
    transports: dict[tuple[str, bool], Transport] = {}
    resting: dict[str, tuple[float, str]] = {}

    def transport(url: str, *, credential: bool) -> Transport:
        if (url, credential) not in transports:
            session = new_session(deadline)
            if credential and token is not None:
                session.auth = Bearer(token)
            transports[url, credential] = Transport(
                url, session=session, timeout=timeout, backoff=backoff, deadline=deadline
            )
        return transports[url, credential]

    def fetch_from_log(log: TrustedLog, path: str, limit: int) -> bytes:
        return transport(log.url, credential=True).get(path, limit=limit)

    def fetch_from_witness(witness: TrustedWitness, origin: str) -> bytes | None:
        # C2SP tlog-witness, "Retrieval of checkpoints".
        path = f"{sha256(origin.encode()).hexdigest()}/checkpoint"
        until, reason = resting.get(witness.url, (0.0, ""))
        if monotonic() < until:
            raise FetchError(reason)
        try:
            return transport(witness.url, credential=False).get(path, limit=MAX_NOTE_BYTES)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise
        except FetchError as error:
            resting[witness.url] = monotonic() + rest, str(error)
            raise

    return Source(fetch_from_log, fetch_from_witness, clock)
