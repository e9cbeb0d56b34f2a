"""The acks of Splunk's HTTP Event Collector: numbers that show by themselves on which channel they were given.

A number is only given when all is durable. So to have been given is to be acked: no worker needs to know of another's,
and a restart forgets none. Who makes one up deceives nobody else.
"""

import hashlib
import secrets
from typing import Final

_DRAWN_BITS: Final = 32
_CHECK_BITS: Final = 20
"""Together below 2^53, as far as each reader of JSON reads integers alike."""


def give_ack(channel: str) -> int:
    """Return a number that was hardly ever given on this channel."""
    drawn = secrets.randbits(_DRAWN_BITS)
    return drawn << _CHECK_BITS | _check(channel, drawn)


def was_given(channel: str, ack: int) -> bool:
    """Tell whether a number was given on this channel; of others, one in a million is taken for such."""
    drawn = ack >> _CHECK_BITS
    return 0 <= drawn < 1 << _DRAWN_BITS and ack == drawn << _CHECK_BITS | _check(channel, drawn)


def _check(channel: str, drawn: int) -> int:
    digest = hashlib.sha256(b"%d\n%b" % (drawn, channel.encode("utf-8", "surrogatepass"))).digest()
    return int.from_bytes(digest[:4], "big") >> 32 - _CHECK_BITS
