"""Rounds: each log is looked at again and again, each at times of its own, by a bounded number of threads."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from time import monotonic
from typing import Final

from tlog_client.errors import StateError
from tlog_client.monitor.follower import Follower

MAX_THREADS: Final = 64
MAX_OF_HOST: Final = 4
"""How many of them one host may occupy, so that it holds up no other however slow it is."""

LONGEST: Final = 180.0
"""Seconds that a round may be without getting on, as when an answer takes all the time that it has."""

SPREAD: Final = 0.2
"""By which part of it the time between two rounds is longer or shorter, so that nobody can tell when one comes."""


class Rounds:
    """The rounds of all logs. One that is slow holds up none of another host, unless there are many such hosts."""

    def __init__(
        self,
        followers: Sequence[Follower],
        *,
        interval: float,
        random: Callable[[], float],
        failed: Callable[[str, Exception], None],
    ) -> None:
        """`interval` is in seconds, `random` gives numbers from 0 up to 1.

        `failed` hears of an origin whose round ended in an error that is a fault of this program.
        """
        self._followers = followers
        self._interval = interval
        self._random = random
        self._failed = failed
        self._wake = Event()
        self._stopped = False
        self.number = 0
        self.faults = 0
        self.last = monotonic()
        """When a round last got on, by the monotonic clock."""

    def stop(self) -> None:
        """Begin no further round."""
        self._stopped = True
        self._wake.set()

    def stopped(self) -> bool:
        """Say whether an end is wanted."""
        return self._stopped

    def live(self) -> None:
        """Note that a round got on, or came to an end."""
        self.last = monotonic()

    def is_alive(self) -> bool:
        """Say whether rounds still get on."""
        return monotonic() - self.last < 3 * self._interval + LONGEST

    def once(self) -> None:
        """Look at each log once; raise StateError, also if a round failed."""
        self._run(again=False)
        if self.faults:
            raise StateError("not every log was looked at: this program failed")

    def run(self) -> None:
        """Look at each log until `stop`; raise StateError."""
        self._run(again=True)

    def _run(self, *, again: bool) -> None:
        due = dict.fromkeys(self._followers, monotonic())
        running: dict[Follower, Future[bool]] = {}
        with ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="tlog-round") as pool:
            try:
                while True:
                    self._collect(running, due, again=again)
                    if self._stopped or not (due or running):
                        return
                    now = monotonic()
                    self._start(pool, running, due, now)
                    # Those that are due already wait for one of their host to end, which wakes us.
                    later = [time for time in due.values() if time > now]
                    self._wake.wait(max(0.0, min(later) - monotonic()) if later else None)
                    self._wake.clear()
            finally:
                # What is still running comes to an end at its next bundle.
                self._stopped = True

    def _start(
        self, pool: ThreadPoolExecutor, running: dict[Follower, Future[bool]], due: dict[Follower, float], now: float
    ) -> None:
        hosts = Counter(one.host for one in running)
        for follower in sorted((one for one, time in due.items() if time <= now), key=lambda one: due[one]):
            if hosts[follower.host] < MAX_OF_HOST:
                hosts[follower.host] += 1
                del due[follower]
                running[follower] = pool.submit(follower.round)
                running[follower].add_done_callback(lambda _: self._wake.set())

    def _collect(self, running: dict[Follower, Future[bool]], due: dict[Follower, float], *, again: bool) -> None:
        for follower in [one for one, future in running.items() if future.done()]:
            more = False
            try:
                more = running.pop(follower).result()
            except StateError:
                raise
            except Exception as error:  # one log does not stop the monitor of all
                self.faults += 1
                self._failed(follower.origin, error)
            self.number += 1
            self.live()
            if more:
                due[follower] = monotonic()
            elif again:
                due[follower] = monotonic() + self._interval * (1 + SPREAD * (2 * self._random() - 1))
