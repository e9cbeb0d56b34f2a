"""How much of us a peer may use up (`spec/gossip.md`, "Budgets"): counts that come back with time.

All times are milliseconds.
"""

from dataclasses import dataclass, field
from typing import Final

MAX_REQUESTS: Final = 8
REQUEST_MILLISECONDS: Final = 20_000
MAX_FAULTS: Final = 16
FAULT_MILLISECONDS: Final = 60_000
FIRST_BACKOFF: Final = 60_000
LONGEST_BACKOFF: Final = 3_600_000
MAX_REMEMBERED: Final = 64


def later(now: int, last: int, *, skew: int) -> int:
    """Return the time to sign next: now, or 1 after the last if the clock has not moved on."""
    # A time more than `skew` ahead is that of a clock that was set back since: nobody minds it any more.
    return now if last > now + skew else max(now, last + 1)


@dataclass(slots=True)
class Count:
    """A count of at most `most`, of which one comes back in each `interval`.

    All that is kept is when it will be whole again.
    """

    most: int
    interval: int
    whole: int = 0

    def wait(self, now: int) -> int:
        """Return how long it is until there is one."""
        # Further ahead than from an empty count: the clock was set back since.
        if self.whole > now + self.most * self.interval:
            self.whole = now
        return max(0, self.whole - now - (self.most - 1) * self.interval)

    def take(self, now: int) -> None:
        """Take one, which `wait` must have said is there."""
        self.whole = max(self.whole, now) + self.interval


@dataclass(slots=True)
class Faults:
    """What a peer has done wrong, and until when it is in back-off for it."""

    count: Count = field(default_factory=lambda: Count(MAX_FAULTS, FAULT_MILLISECONDS))
    until: int = 0
    next: int = FIRST_BACKOFF
    digests: dict[bytes, None] = field(default_factory=dict)

    def wait(self, now: int) -> int:
        """Return how long the back-off still lasts, 0 if there is none."""
        left = self.until - now
        return left if 0 < left <= LONGEST_BACKOFF else 0

    def charge(self, digest: bytes, now: int) -> None:
        """Count a fault, and remember the SHA-256 of the bytes that were it."""
        self.digests[digest] = None
        if len(self.digests) > MAX_REMEMBERED:
            del self.digests[next(iter(self.digests))]
        if self.count.whole <= now:
            self.next = FIRST_BACKOFF
        self.count.take(now)
        if self.count.wait(now) > 0:
            self.until, self.next = now + self.next, min(2 * self.next, LONGEST_BACKOFF)
            self.count.whole = self.until + (self.count.most - 1) * self.count.interval
