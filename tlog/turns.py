"""Turns: how many of the requests in hand are worked on at once, first come first served."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from tlog.errors import BusyError


class Turns:
    """So many turns, and a queue for them. Threads take turns at the interpreter anyway; few do so at less cost.

    A lock of the interpreter's own would let those who come later pass those who wait.
    """

    def __init__(self, count: int, patience: float = -1) -> None:
        """Have `count` turns, all free; who finds none waits for so many seconds at most, or for ever if that is -1."""
        self._free = count
        self._patience = patience
        self._mutex = Lock()
        self._queue: deque[Lock] = deque()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a turn, after all who asked before; raise BusyError if it does not come."""
        self._take(self._patience)
        try:
            yield
        finally:
            self._give_back()

    @contextmanager
    def leave(self) -> Iterator[None]:
        """Be without the turn that one holds, for as long as one only waits."""
        self._give_back()
        try:
            yield
        finally:
            # What one waited for is there, and is not to be lost.
            self._take(-1)

    def _take(self, patience: float) -> None:
        with self._mutex:
            mine = None if self._free else Lock()
            if mine is None:
                self._free -= 1
            else:
                mine.acquire()
                self._queue.append(mine)
        # Whoever gives a turn back hands it on.
        if mine is not None and not mine.acquire(timeout=patience):
            self._give_up(mine)

    def _give_up(self, mine: Lock) -> None:
        with self._mutex:
            # It may have come at this moment.
            if mine in self._queue:
                self._queue.remove(mine)
                raise BusyError("the server is busy, or its disk is slow; nothing was logged, retry later")

    def _give_back(self) -> None:
        with self._mutex:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._free += 1
