"""The kinds of streams that a relay takes: how messages are found in one, and how a receiver wants them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tlog_client.relay.framing import Lines, Syslog

MAX_MESSAGE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `wrap` puts a message into the body of a request to `path`."""

    name: str
    path: str
    media_type: str
    framer: Callable[[int], Lines | Syslog]
    wrap: Callable[[bytes], bytes]


SYSLOG: Final = Kind(
    "syslog", "ingest/syslog", "application/octet-stream", Syslog, lambda one: b"%d %b" % (len(one), one)
)
VAULT: Final = Kind("vault", "ingest/vault", "application/x-ndjson", Lines, lambda one: one + b"\n")
