"""What there is to ask: the segments whose heads are not cosigned yet, and when their turn is."""

import heapq
import time
from dataclasses import dataclass
from threading import Condition
from typing import Final

from tlog.segments import Observer

PAUSE: Final = 0.05
"""Seconds between two rounds of one segment at the least: what is committed meanwhile is asked for at once."""


@dataclass(frozen=True, slots=True)
class Again:
    """When to ask about a segment again, on the monotonic clock.

    From `missing` on one of those who are missing may be asked about its head; before `anyone` nobody about a new one.
    """

    missing: float
    anyone: float


class Told:
    """An observer of segments that passes on what it hears, and puts what was committed on the agenda."""

    def __init__(self, agenda: "Agenda", observer: Observer) -> None:
        """Pass on to `observer`."""
        self._agenda = agenda
        self._observer = observer
        self.opened = observer.opened
        self.froze = observer.froze

    def committed(self, segment: str, events: int, seconds: float, size: int) -> None:
        """Hear of a commit."""
        self._observer.committed(segment, events, seconds, size)
        self._agenda.put(segment)


class Agenda:
    """The segments to ask about. Whoever commits tells it in a moment; whoever asks takes one at a time."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._queue: list[tuple[float, str]] = []
        # When the turn of each segment in the queue is, and before when that of others is not.
        self._turns: dict[str, float] = {}
        self._earliest: dict[str, float] = {}
        self._taken: set[str] = set()
        self._again: set[str] = set()

    def put(self, name: str) -> None:
        """Have a segment asked about soon."""
        with self._changed:
            if name in self._taken:
                self._again.add(name)
            else:
                self._enter(name, self._earliest.get(name, 0.0))

    def take(self) -> str:
        """Wait until it is the turn of a segment, and return it; nobody else gets it until it is `done`."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._queue and self._queue[0][0] <= now:
                    turn, name = heapq.heappop(self._queue)
                    # Else there is an earlier turn, which came already or is still to come.
                    if self._turns.get(name) == turn:
                        del self._turns[name]
                        self._taken.add(name)
                        return name
                    continue
                self._changed.wait(self._queue[0][0] - now if self._queue else None)

    def done(self, name: str, again: Again | None) -> None:
        """Say that a segment was asked about, and when to ask again; None if all is well."""
        with self._changed:
            self._taken.discard(name)
            self._earliest[name] = time.monotonic() + PAUSE if again is None else again.anyone
            if again is not None:
                self._enter(name, again.missing)
            if name in self._again:
                self._enter(name, self._earliest[name])
            self._again.discard(name)

    def __len__(self) -> int:
        """Return how many segments wait, or are being asked about."""
        with self._changed:
            return len(self._turns) + len(self._taken)

    def _enter(self, name: str, turn: float) -> None:
        # Told at each commit: mostly it is there, and nobody has to wake.
        if turn < self._turns.get(name, float("inf")):
            self._turns[name] = turn
            heapq.heappush(self._queue, (turn, name))
            self._changed.notify()
