"""Turns: how many of the requests in hand are worked on at once, first come first served."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Turns:
    """So many turns, and a queue for them. Threads take turns at the interpreter anyway; few do so at less cost.

    A lock of the interpreter's own would let those who come later pass those who wait.
    """

    def __init__(self, count: int) -> None:
        """Have `count` turns, all free."""
        self._free = count
        self._mutex = Lock()
        self._queue: deque[Lock] = deque()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a turn, after all who asked before."""
        self._take()
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
            self._take()

    def _take(self) -> None:
        with self._mutex:
            mine = None if self._free else Lock()
            if mine is None:
                self._free -= 1
            else:
                mine.acquire()
                self._queue.append(mine)
        if mine is not None:
            # Whoever gives a turn back hands it on.
            mine.acquire()

    def _give_back(self) -> None:
        with self._mutex:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._free += 1
