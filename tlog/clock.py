"""The clock of everything that is stored or signed."""

import time


def now() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
