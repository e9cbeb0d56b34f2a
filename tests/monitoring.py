"""A monitor of the simulated log, in this process, over real HTTP and a real file; its clock is the test's."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import reference
from simulator import ORIGIN, PREFIX, START, Simulator

from tlog_client import Backoff
from tlog_client.monitor.follower import Follower, Settings
from tlog_client.monitor.judge import Judge
from tlog_client.monitor.memory import Memory
from tlog_client.monitor.report import EvidenceFolder
from tlog_client.monitor.source import Source, http_source
from tlog_core.checkpoint import Checkpoint
from tlog_core.evidence import describe_evidence, parse_evidence
from tlog_core.note import COSIGNATURE, SUBTREE, SignerKey, signer_from_seed
from tlog_core.policy import TrustedLog, TrustPolicy, parse_policy

WITNESS_PATH = f"/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint"
NOW = START // 1000 + 100


@cache
def witness(name: str) -> SignerKey:
    """Return a key of Ed25519, or of ML-DSA-44 if the name starts with `ml`."""
    kind = SUBTREE if name.startswith("ml") else COSIGNATURE
    return signer_from_seed(f"{name}.example", reference.sha256(name.encode()), key_type=kind)


def policy_of(sim: Simulator, *witnesses: str, quorum: str = "none", shown: bool = False) -> TrustPolicy:
    """Return a policy of the simulated log; if `shown`, its witnesses show what stands in `elsewhere`."""
    where = sim.url.removesuffix(PREFIX) if shown else ""
    lines = [f"log {sim.key} {sim.url}", *(f"witness {one} {witness(one).verifier} {where}" for one in witnesses)]
    return parse_policy(("\n".join([*lines, f"quorum {quorum}"]) + "\n").encode())


@dataclass
class Watch:
    """A monitor of one log in the folder `path`. `restart` is what a crash and a new start do."""

    policy: TrustPolicy
    path: Path
    settings: Settings
    now: float = NOW
    stop_after: int = 1 << 30
    rest: float = 0.0
    ended: Callable[[TrustedLog], None] = lambda _: None

    def __post_init__(self) -> None:
        self.verified: list[Checkpoint] = []
        self.steps: list[int] = []
        self.open()

    def open(self) -> None:
        self.memory = Memory(self.path)
        self.folder = EvidenceFolder(self.path / "evidence")
        self.judge = Judge(self.policy, self.memory, clock=lambda: self.now, keep=self.folder.keep)
        self.follower = Follower(
            self.policy.logs[0],
            self.judge,
            self.source(),
            settings=self.settings,
            verified=self.verified.append,
            progress=lambda _origin, looked, _size: self.steps.append(looked),
            stopped=lambda: len(self.steps) >= self.stop_after,
            ended=lambda log: self.ended(log),
        )

    def source(self) -> Source:
        backoff = Backoff(attempts=1, sleep=lambda _: None)
        return http_source(
            clock=lambda: self.now, token=None, timeout=5.0, backoff=backoff, deadline=10.0, rest=self.rest
        )

    def restart(self) -> None:
        self.memory.close()
        self.open()

    def round(self) -> list[dict[str, Any]]:
        """Look once, and return the findings that this brought."""
        self.follower.round()
        return self.findings()

    def findings(self) -> list[dict[str, Any]]:
        found = []
        for number, line, _ in self.memory.untold():
            found.append(json.loads(line))
            self.memory.tell(number)
        return found

    def kinds(self) -> list[tuple[str, str, str]]:
        """Look once, and return class, kind and state of what this brought."""
        return [(one["class"], one["kind"], one["state"]) for one in self.round()]

    def convicts(self, findings: Sequence[dict[str, Any]], kind: str, count: int = 1) -> list[str]:
        """Check that these are so many pieces of evidence, each with a file that proves it; return its sentences."""
        assert [(one["class"], one["kind"], one["state"]) for one in findings] == [("evidence", kind, "new")] * count
        raws = [(self.path / "evidence" / one["evidence"]).read_bytes() for one in findings]
        return [describe_evidence(parse_evidence(raw), self.policy) for raw in raws]

    @property
    def size(self) -> int:
        return self.memory.known(ORIGIN).size
