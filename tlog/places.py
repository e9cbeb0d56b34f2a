"""Places: how many requests may do one thing at once, where the others do without it, or are refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import TypeVar

from tlog.errors import BusyError

Result = TypeVar("Result")


class Places:
    """So many places, which threads share."""

    def __init__(self, count: int, patience: float = 0) -> None:
        """Have `count` places, all free; who finds none waits for so many seconds at most."""
        self._patience = patience
        self._free = BoundedSemaphore(count)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place; raise BusyError if all are taken."""
        if not self._free.acquire(timeout=self._patience):
            raise BusyError("as many requests as may are sending their bodies just now; retry later")
        try:
            yield
        finally:
            self._free.release()

    def bound(self, action: Callable[[], Result]) -> Callable[[], Result]:
        """Return what holds a place while it does `action`; it raises BusyError."""

        def held() -> Result:
            with self.take():
                return action()

        return held
