"""Monitors that gossip by the real engine and judge by the real judge, and logs that sign whatever they are told to."""

import random
from collections.abc import Callable, Sequence
from typing import Final

from tlog_client.monitor.follower import Follower, Settings
from tlog_client.monitor.gossip import Gossip
from tlog_client.monitor.judge import Judge
from tlog_client.monitor.memory import Memory, Unresolved
from tlog_client.monitor.source import Source
from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.commitment import Commitment
from tlog_core.entry import Entry
from tlog_core.errors import FetchError, TlogError
from tlog_core.gossip import Peer
from tlog_core.merkle import Frontier, Growth, Hash, leaf_hash, range_hash
from tlog_core.note import SignerKey, signer_from_seed
from tlog_core.policy import TrustedLog, TrustPolicy
from tlog_core.tile import TILE_HEIGHT, Bundle, join_bundle, join_hashes, parse_path

NOW: Final = 1_764_000_000_000


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


class History:
    """One history of a log, which may have others under the same key."""

    def __init__(self, log: SignerKey, name: str, size: int, *, fork: int = 0, pause: int = 0) -> None:
        """Make `size` entries, `pause` milliseconds apart; those from `fork` on are peculiar to this `name`."""
        self.log = log
        self.trusted = TrustedLog(log.verifier, "http://log.example")
        self.entries = [
            bytes(Entry(Commitment(leaf_hash(name.encode() * (at >= fork))), log.name, NOW + at * pause, "till"))
            for at in range(size)
        ]
        self._tree: Growth = Frontier().grow([leaf_hash(entry) for entry in self.entries])
        self._heads: dict[int, bytes] = {}

    def node(self, level: int, index: int) -> Hash:
        return self._tree.node(level, index)

    def head(self, size: int) -> bytes:
        if size not in self._heads:
            root = range_hash(0, size, self.node)
            self._heads[size] = bytes(sign_checkpoint(Checkpoint(self.log.name, size, root), self.log))
        return self._heads[size]

    def get(self, path: str) -> bytes:
        """Return the tile or the entry bundle at a path."""
        place = parse_path(path)
        start = place.index * 256
        if isinstance(place, Bundle):
            return join_bundle(self.entries[start : start + place.width])
        return join_hashes([self.node(place.level * TILE_HEIGHT, start + at) for at in range(place.width)])


class Watcher:
    """A monitor without a network: its judge, its memory, and what each log shows it."""

    def __init__(
        self,
        policy: TrustPolicy,
        clock: Callable[[], int],
        *,
        convicted: Callable[[bytes], None] = lambda _raw: None,
    ) -> None:
        """`clock` gives milliseconds; `convicted` is told of each file of evidence, new or not."""
        self.shown: dict[str, tuple[History, bytes]] = {}
        memory = Memory(":memory:")
        self.judge = Judge(policy, memory, clock=lambda: clock() / 1000, keep=lambda _name, raw: convicted(raw))
        source = Source(self._fetch, lambda _witness, _origin: None, lambda: clock() / 1000)
        logs = [log for log in policy.logs if log.url]
        self._followers = {log.key.name: Follower(log, self.judge, source, settings=Settings()) for log in logs}

    def follow(self, history: History, size: int, head: bytes = b"") -> None:
        """Look at a log once, while it shows this head."""
        self.shown[history.log.name] = history, head or history.head(size)
        self._followers[history.log.name].round()

    def evidence(self) -> list[bytes]:
        return self.judge.evidence()

    def size(self, origin: str) -> int:
        """Return the size of the newest head that was verified."""
        return self.judge.memory.known(origin).size

    def unresolved(self, origin: str) -> list[Unresolved]:
        return self.judge.memory.unresolved(self.judge.memory.known(origin))

    def pretend(self, origin: str, *notes: bytes) -> None:
        """Hold unresolved heads that nobody has verified, to tell them."""
        for at, note in enumerate(notes, 1_000):
            one = Unresolved(at, Hash(leaf_hash(note)), note, "", 0)
            self.judge.memory.put_unresolved(self.judge.memory.known(origin), one)

    def _fetch(self, log: TrustedLog, path: str, _limit: int) -> bytes:
        history, head = self.shown[log.key.name]
        return head if path == "checkpoint" else history.get(path)


def policy_of(*logs: SignerKey) -> TrustPolicy:
    return TrustPolicy(tuple(TrustedLog(log.verifier, "http://log.example") for log in logs), (), (), None)


def log_key(name: str = "example.com/segments/payments") -> SignerKey:
    return signer_from_seed(name, leaf_hash(name.encode()))


def monitor_keys(count: int) -> list[SignerKey]:
    return [signer_from_seed(f"monitor-{n}", leaf_hash(b"monitor %d" % n)) for n in range(count)]


def peers_of(keys: Sequence[SignerKey]) -> list[Peer]:
    return [Peer(key.verifier, f"http://{key.name}.example") for key in keys]


class Net:
    """Monitors of one list, each with a memory of the same logs, who reach each other at once."""

    def __init__(self, count: int, *logs: SignerKey, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.keys = monitor_keys(count)
        self.peers = peers_of(self.keys)
        self.policy = policy_of(*logs)
        self.watchers = [Watcher(self.policy, self.clock) for _ in self.keys]
        self.unreachable: set[str] = set()
        self.twist: Callable[[bytes], bytes] = lambda answer: answer
        self.gossips = [
            Gossip(
                key,
                self.peers,
                watcher.judge,
                clock=self.clock,
                random=random.Random(at),  # noqa: S311 - to be repeated
                send=self.send,
            )
            for at, (key, watcher) in enumerate(zip(self.keys, self.watchers, strict=True))
        ]

    def send(self, peer: Peer, raw: bytes) -> bytes:
        if peer.key.name in self.unreachable:
            raise FetchError("no answer")
        try:
            return self.twist(self.gossips[self.peers.index(peer)].answer(raw))
        except TlogError as error:
            raise FetchError(str(error)) from None
