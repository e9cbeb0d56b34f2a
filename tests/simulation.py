"""A network of monitors that is not there: the real engine, judge and follower, on a clock and lines of the simulation.

The same seed gives the same run, to the last byte. Times are milliseconds, as the engine has them.
"""

import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Final

from gossiping import NOW, History, Watcher, log_key

from tlog_client.monitor.gossip import ROUND_MILLISECONDS, Gossip, Timetable
from tlog_core.cosignature import cosign
from tlog_core.errors import TlogError
from tlog_core.gossip import Message, Peer, parse_message, sign_message
from tlog_core.merkle import leaf_hash
from tlog_core.note import COSIGNATURE, Note, SignerKey, parse_note, signer_from_seed
from tlog_core.policy import Group, TrustedLog, TrustedWitness, TrustPolicy

LOG: Final = log_key()
FANOUT: Final = 3


def never(_one: int, _other: int, _now: int) -> bool:
    """Cut no line."""
    return False


def silence(_random: random.Random, head: bytes) -> tuple[bytes, ...]:
    """Tell the one who asks what it knows, and nothing of what others are shown."""
    return (head,)


@dataclass(frozen=True)
class Plan:
    """What is simulated: how many monitors, of which the last `colluders` lie, and on what lines.

    `view` says, given the place of a monitor and the time, which head the log shows it. `quiet` leaves out what two
    monitors who are shown the same would say to each other, which changes nothing. `rounds` is how many rounds each
    monitor makes at most, `until` when all ends. `lie` is what a colluder answers, given the head that the one who asks
    is shown; `nuisance` is what it sends to three monitors a round, if anything.
    """

    count: int
    view: Callable[[int, int], tuple[History, int]]
    colluders: int = 0
    until: int = 60 * ROUND_MILLISECONDS
    rounds: int = 1 << 30
    loss: float = 0.0
    delay: tuple[int, int] = (20, 500)
    quiet: bool = False
    hidden: frozenset[int] = frozenset()
    cut: Callable[[int, int, int], bool] = never
    lie: Callable[[random.Random, bytes], tuple[bytes, ...]] = silence
    nuisance: Callable[[random.Random], tuple[bytes, ...]] | None = None
    witnessed: bool = False
    look: int = 0
    lag: int = 0
    from_time: int = 0
    share: float = 0.9
    stop_at_first: bool = False


@dataclass
class Result:
    """What came of a run; times count from `Plan.from_time`, None for what did not come about."""

    first: int | None = None
    most: int | None = None
    convicted: dict[int, int] = field(default_factory=dict)
    unresolved: dict[int, int] = field(default_factory=dict)
    sent_bytes: int = 0
    rounds: int = 0
    exchanges: int = 0
    refused: int = 0
    files: set[bytes] = field(default_factory=set)
    findings: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass
class _Honest:
    place: int
    watcher: Watcher
    gossip: Gossip
    timetable: Timetable
    lag: int
    ticks: int = 0
    rounds: int = 0


@cache
def keys_of(count: int) -> tuple[list[SignerKey], list[Peer]]:
    keys = [signer_from_seed(f"monitor-{n}", leaf_hash(b"monitor %d" % n)) for n in range(count)]
    return keys, [Peer(key.verifier, f"http://monitor-{n}.example") for n, key in enumerate(keys)]


WITNESSES: Final = tuple(
    signer_from_seed(f"witness-{n}", leaf_hash(b"witness %d" % n), key_type=COSIGNATURE) for n in range(2)
)


@cache
def policy(*, witnessed: bool) -> TrustPolicy:
    """Return the policy of all monitors: one log and, if it is witnessed, a quorum of two."""
    logs = (TrustedLog(LOG.verifier, "http://log.example"),)
    if not witnessed:
        return TrustPolicy(logs, (), (), None)
    witnesses = tuple(TrustedWitness(key.name, key.verifier) for key in WITNESSES)
    return TrustPolicy(logs, witnesses, (Group("both", 2, tuple(key.name for key in WITNESSES)),), "both")


@cache
def cosigned(head: bytes, minute: int) -> bytes:
    """Return a head as the witnesses cosigned it in that minute, as they do for whatever they are brought."""
    note = parse_note(head)
    seconds = NOW // 1000 + 60 * minute
    lines = tuple(cosign(note.text, time=seconds + at, signer=key) for at, key in enumerate(WITNESSES))
    return bytes(Note(note.text, (*note.signatures, *lines)))


class World:
    """One run of a plan."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.now = NOW
        self.result = Result()
        self.random = random.Random(seed)  # noqa: S311 - to be repeated
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._keys, peers = keys_of(plan.count)
        self._peers = [Peer(peer.key) if at in plan.hidden else peer for at, peer in enumerate(peers)]
        self._places = {(peer.key.name, peer.key.id): at for at, peer in enumerate(peers)}
        self._honest = plan.count - plan.colluders
        self._needed = -(-self._honest * plan.share // 1)
        self.monitors = [self._make(place) for place in range(self._honest)]
        for place in range(self._honest, plan.count if plan.nuisance else 0):
            self.later(self.random.randrange(ROUND_MILLISECONDS), partial(self._annoy, place))

    def run(self) -> Result:
        """Let it happen, to the end, or until so many of the honest have evidence."""
        end = NOW + self.plan.until
        while self._queue and self._queue[0][0] <= end and not self._is_decided():
            self.now, _, happen = heapq.heappop(self._queue)
            happen()
        for monitor in self.monitors:
            memory = monitor.watcher.judge.memory
            if monitor.place < self._honest:
                self.result.findings.update({(found, kind): number for _, found, kind, number in memory.counted()})
            memory.close()
        return self.result

    def _is_decided(self) -> bool:
        done = self.result.first if self.plan.stop_at_first else self.result.most
        return done is not None

    def _make(self, place: int) -> _Honest:
        seeded = random.Random(self.random.getrandbits(64))  # noqa: S311 - to be repeated
        # Clocks differ by up to a minute either way.
        skew = seeded.randint(-60_000, 60_000)

        def clock() -> int:
            return self.now + skew

        watcher = Watcher(policy(witnessed=self.plan.witnessed), clock, convicted=partial(self._convicted, place))
        gossip = Gossip(
            self._keys[place], self._peers, watcher.judge, clock=clock, random=seeded, send=lambda _peer, _raw: b""
        )
        lag = seeded.randint(0, self.plan.lag)
        monitor = _Honest(place, watcher, gossip, Timetable(self.now, seeded), lag)
        if not self.plan.quiet:
            self._look(monitor)
        self._schedule(monitor)
        return monitor

    # A monitor and its log

    def _look(self, monitor: _Honest) -> None:
        history, size, head = self._shown(monitor.place, self.now - monitor.lag)
        monitor.watcher.follow(history, size, head)
        if self.plan.look:
            self.later(int(self.plan.look * self.random.uniform(0.8, 1.2)), partial(self._look, monitor))

    def _shown(self, place: int, now: int) -> tuple[History, int, bytes]:
        history, size = self.plan.view(place, now - NOW)
        head = history.head(size)
        return history, size, cosigned(head, (now - NOW) // 60_000) if self.plan.witnessed else head

    def _convicted(self, place: int, raw: bytes) -> None:
        result, after = self.result, self.now - NOW - self.plan.from_time
        result.files.add(raw)
        result.convicted.setdefault(place, after)
        result.first = after if result.first is None else result.first
        if len(result.convicted) >= self._needed and result.most is None:
            result.most = after

    # Rounds

    def _schedule(self, monitor: _Honest) -> None:
        monitor.ticks += 1
        wait = monitor.timetable.wait(self.now, news=monitor.gossip.news.is_set())
        self.later(wait, partial(self._tick, monitor, monitor.ticks))

    def _tick(self, monitor: _Honest, number: int) -> None:
        if number != monitor.ticks or monitor.rounds == self.plan.rounds:
            return
        monitor.timetable.done(self.now)
        monitor.rounds += 1
        self.result.rounds += 1
        for peer in monitor.gossip.draw():
            place = self._places[peer.key.name, peer.key.id]
            if self.plan.quiet:
                if self._is_same(monitor.place, place):
                    continue
                # Looking is put off until it matters, which is all the same while the log does not grow.
                self._look(monitor)
                self._look(self.monitors[place])
            self._begin(monitor, place)
        self._schedule(monitor)

    def _is_same(self, one: int, other: int) -> bool:
        return other >= self._honest or self._shown(one, self.now) == self._shown(other, self.now)

    def _begin(self, monitor: _Honest, place: int) -> None:
        request = monitor.gossip.ask(self._peers[place])
        self.result.exchanges += 1
        self._carry(monitor.place, place, request, lambda: self._arrive(monitor, place, request))

    def _arrive(self, monitor: _Honest, place: int, request: bytes) -> None:
        try:
            answer = self._answer(place, request)
        except TlogError:
            self.result.refused += 1
            return
        self._carry(place, monitor.place, answer, lambda: self._take(monitor, place, request, answer))

    def _take(self, monitor: _Honest, place: int, request: bytes, answer: bytes) -> None:
        monitor.gossip.take(self._peers[place], request, answer)
        self._heard(monitor)

    def _answer(self, place: int, request: bytes) -> bytes:
        if place >= self._honest:
            return self._lie(place, request)
        try:
            return self.monitors[place].gossip.answer(request)
        finally:
            self._heard(self.monitors[place])

    def _heard(self, monitor: _Honest) -> None:
        if monitor.watcher.unresolved(LOG.name):
            self.result.unresolved.setdefault(monitor.place, self.now - NOW - self.plan.from_time)
        if monitor.gossip.news.is_set():
            self._schedule(monitor)

    # Those who lie

    def _lie(self, place: int, request: bytes) -> bytes:
        sender = self._places[parse_message(request).sender]
        *_, head = self._shown(sender, self.now)
        return self._say(place, sender, self.plan.lie(self.random, head), request)

    def _annoy(self, place: int) -> None:
        assert self.plan.nuisance is not None
        for victim in self.random.sample(range(self._honest), min(FANOUT, self._honest)):
            raw = self._say(place, victim, self.plan.nuisance(self.random))
            self._carry(place, victim, raw, partial(self._suffer, victim, raw))
        self.later(ROUND_MILLISECONDS, partial(self._annoy, place))

    def _suffer(self, victim: int, raw: bytes) -> None:
        try:
            self._answer(victim, raw)
        except TlogError:
            self.result.refused += 1

    def _say(self, place: int, to: int, heads: Sequence[bytes], request: bytes = b"") -> bytes:
        answered = hashlib.sha256(request).digest() if request else None
        message = Message(self._peers[to].key, self.now, heads=tuple(dict.fromkeys(heads)), request=answered)
        return sign_message(message, self._keys[place])

    # The network

    def _carry(self, one: int, other: int, raw: bytes, arrive: Callable[[], None]) -> None:
        self.result.sent_bytes += len(raw)
        lost = self.random.random() < self.plan.loss
        if not lost and not self.plan.cut(one, other, self.now - NOW):
            self.later(self.random.randint(*self.plan.delay), arrive)

    def later(self, wait: int, happen: Callable[[], None]) -> None:
        """Have something happen after so many milliseconds."""
        # The number keeps what falls on one moment in the order in which it was decided.
        self._count += 1
        heapq.heappush(self._queue, (self.now + wait, self._count, happen))
