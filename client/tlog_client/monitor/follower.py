"""Following one log: a round fetches its latest head, and looks at every entry that is new (`spec/monitoring.md`)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

from tlog_client.answers import parse_consistency
from tlog_client.errors import BudgetError, StateError
from tlog_client.monitor.finding import Class, Finding
from tlog_client.monitor.head import Head, only_needed, recall_head
from tlog_client.monitor.judge import FLOOD, FROM_LOG, Heard, Judge
from tlog_client.monitor.look import Fault, Looker
from tlog_client.monitor.memory import Known, Looked
from tlog_client.monitor.mirror import frontier_of
from tlog_client.monitor.source import Source
from tlog_client.snapshot import MAX_PROOF_BYTES
from tlog_client.text import printable
from tlog_client.tiles import read_bundle, tiles_of
from tlog_client.transport import MAX_DETAIL
from tlog_core.checkpoint import Checkpoint
from tlog_core.entry import Entry
from tlog_core.errors import EvidenceError, FetchError, MalformedError, ProofError, SignatureError
from tlog_core.evidence import MAX_LAG, Backdating, judge_proof, only_log
from tlog_core.merkle import leaf_hash, range_hash
from tlog_core.note import MAX_NOTE_BYTES, Note, VerifierKey, parse_note
from tlog_core.policy import TrustedLog, TrustedWitness
from tlog_core.proof import prove_inclusion
from tlog_core.tile import TILE_WIDTH, TileTree

STEP_BUNDLES: Final = 64
"""After how many entry bundles what was looked at is kept: so much, at most, is looked at again after a crash."""

MAX_AGE: Final = 1_800
"""Seconds after which a head that its witnesses cosigned is old."""

TURN: Final = 30.0
"""Seconds after which a round that still has entries to look at makes place for those of others, and comes again."""

PATIENCE: Final = 3_600
"""Seconds that a log may take to show a head which others have seen already."""

_KINDS: Final = ("unreachable", "invalid", "stale", "withheld", "unproven", "old", "withholding", "flood", "witness")

_LATE: Final = ("old", "withholding", "flood")
"""Those that only time shows."""

Complaints = dict[tuple[str, str], str]
"""What is complained of in a round: kind, and the witness if it is one's, and the details."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Which writers must have signed, and how long to bear what is no proof of anything, in seconds."""

    writer_keys: Sequence[VerifierKey] = ()
    max_age: int = MAX_AGE
    patience: int = PATIENCE


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head of `size` entries of which the quorum says that it was the largest tree at `time`, in POSIX seconds."""

    size: int
    time: int
    head: Head


class Follower:
    """Follows one log of a trust policy; one thread at a time."""

    def __init__(
        self,
        log: TrustedLog,
        judge: Judge,
        source: Source,
        *,
        settings: Settings,
        verified: Callable[[Checkpoint], None] = lambda _: None,
        progress: Callable[[str, int, int], None] = lambda _origin, _looked, _size: None,
        stopped: Callable[[], bool] = lambda: False,
        ended: Callable[[TrustedLog], None] = lambda _: None,
    ) -> None:
        """Follow `log`, which has a URL.

        `verified` hears of each new head after it is stored, `progress` after each step how many entries were looked
        at, and of how many. When `stopped` says so, no further step is begun. `ended` hears of the end of each
        round but one that was stopped.
        """
        self.origin = log.key.name
        self.host = urlsplit(log.url).netloc
        self._log = log
        self._judge = judge
        self._memory = judge.memory
        self._source = source
        self._settings = settings
        self._writers = frozenset(key.name for key in settings.writer_keys)
        self._verified = verified
        self._progress = progress
        self._stopped = stopped
        self._ended = ended
        self._until, self._cut = 0.0, False
        self._behind: float | None = None

    def round(self) -> bool:
        """Look at the log, and at what its witnesses show of it, once; raise StateError, and nothing else.

        Say whether there is more to look at than TURN seconds were enough for. A convicted log is not looked at any
        more.
        """
        more = not self._memory.is_convicted(self.origin) and self._look()
        if not self._stopped():
            self._ended(self._log)
        return more

    def _look(self) -> bool:
        self._until, self._cut = monotonic() + TURN, False
        complaints: Complaints = {}
        seen = self._visit(complaints)
        for witness in self._judge.policy.witnesses:
            if witness.url:
                self._ask(witness, complaints)
        log, now = self._memory.known(self.origin), self._source.clock()
        if self._memory.is_convicted(self.origin):
            return False
        kinds: Sequence[str] = _KINDS
        if self._is_catching_up(seen):
            # What the log shows is not all looked at yet: nothing is late before it is.
            kinds = tuple(kind for kind in _KINDS if kind not in _LATE)
        else:
            self._look_back(log, int(now), complaints)
        with self._memory.transaction():
            if seen:
                self._memory.see(log, int(now))
            readable = {key: _readable(detail) for key, detail in complaints.items()}
            self._memory.settle(log, readable, kinds, int(now * 1000))
        self._judge.flush()
        return self._cut and not seen and not self._stopped()

    def _is_catching_up(self, seen: bool) -> bool:
        if not self._cut or seen:
            self._behind = None
            return False
        # For so long, or a log that is slow on purpose would never be late.
        self._behind = self._behind or monotonic()
        return monotonic() - self._behind < self._settings.patience

    def _is_over(self) -> bool:
        # Others wait for this thread.
        self._cut = self._cut or monotonic() > self._until
        return self._cut or self._stopped()

    def _visit(self, complaints: Complaints) -> bool:
        """Hear the log's latest head, and follow it; say whether it is the newest, and holds."""
        try:
            raw = self._get("checkpoint", limit=MAX_NOTE_BYTES)
        except (FetchError, MalformedError) as error:
            complaints["unreachable", ""] = str(error)
            return False
        try:
            head = self._open(parse_note(raw), complaints)
            heard = self._judge.hear(head, source=FROM_LOG)
        except (MalformedError, SignatureError) as error:
            complaints["invalid", ""] = f"what the log shows is no head of its own: {error}"
            return False
        except BudgetError:
            # There is no place to hold it; it is looked at all the same, and kept if it holds.
            heard = Heard.UNRESOLVED
        if heard is Heard.CONVICTS:
            return False
        log = self._memory.known(self.origin)
        if head.tree.size < log.size:
            complaints["stale", ""] = f"the log shows {head.tree.size} entries, and has signed {log.size}"
            return False
        return self._catch_up(head, complaints)

    def _open(self, note: Note, complaints: Complaints) -> Head:
        head = self._judge.open(note)
        if head.tree.origin != self.origin:
            raise SignatureError(f"it is a checkpoint of {head.tree.origin}")
        for name in head.ahead:
            complaints["witness", name] = f"the witness {name} cosigned at a time that is still to come"
        return head

    def _catch_up(self, head: Head, complaints: Complaints) -> bool:
        log = self._memory.known(self.origin)
        behind = bool(log.note) and self._writers_behind(log)
        if log.note and head.tree.size == log.size and not behind:
            return True
        try:
            return self._follow(head)
        except FetchError as error:
            complaints["withheld", ""] = str(error)
        except (ProofError, MalformedError) as error:
            complaints["unproven", ""] = f"what the log shows of its {head.tree.size} entries does not hold: {error}"
        # Without tiles or entries nothing is proven; by a consistency proof of the log's own it may be.
        self._ask_proof(head)
        return False

    def _follow(self, head: Head) -> bool:
        """Look at all entries up to a head; say whether it is the newest verified one now.

        Raises FetchError, ProofError or MalformedError.
        """
        first = tiles_of(head.tree, self._get)
        if self._judge.tie(head, first.node):
            return False
        log = self._memory.known(self.origin)
        self._check_looked(log, head, first)
        tree: TileTree | None = first
        if not self._recall_writers(log, head):
            return False
        while (log := self._memory.known(self.origin)).looked < head.tree.size:
            # Not before the first step, or a log that is slow to begin with would never get on.
            if tree is None and self._is_over():
                return False
            # A new tree for each step but the first: the tiles that it has checked are held in memory.
            self._step(log, head, tree or tiles_of(head.tree, self._get))
            tree = None
        if log.note and head.tree.size == log.size:
            return True
        if self._memory.root(log, head.tree.size) != head.tree.root:
            raise StateError(f"the mirror of {self.origin} in {self._memory.path} is damaged; restore the file")
        if self._judge.advance(head):
            return False
        self._verified(head.tree)
        return True

    def _step(self, log: Known, head: Head, tree: TileTree) -> None:
        start = log.looked
        following = {name: at[1] for name, at in self._memory.writers(log).items() if name in self._writers}
        looker = Looker(
            origin=self.origin,
            writer_keys=self._settings.writer_keys,
            time=log.entry_time,
            sealed=bool(log.sealed),
            following={**dict.fromkeys(self._writers, 0), **following},
        )
        anchors = self._anchors(log, head)
        frontier = frontier_of(start, self._memory.node(log))
        leaves, faults, backdated = [], list[Fault](), None
        for index, raw in self._entries(start, head.tree.size, head, tree):
            entry, broken = looker.look(index, raw)
            leaves.append(leaf_hash(raw))
            faults += broken
            if entry is not None and backdated is None and (anchor := _after(anchors, index, entry)) is not None:
                backdated = index, raw, anchor
        if backdated is not None:
            faults += self._backdated(log, head, tree, *backdated)
        looked = Looked(frontier.grow(leaves), bytes(head.note), looker.time, looker.sealed, looker.following)
        with self._memory.transaction():
            self._memory.look(log, looked)
            self._report(log, faults)
        self._judge.flush()
        self._progress(self.origin, looked.growth.frontier.size, head.tree.size)

    def _check_looked(self, log: Known, head: Head, tree: TileTree) -> None:
        # What was looked at under another head, and not verified yet, must be part of this one too.
        size = min(log.looked, head.tree.size)
        if size and range_hash(0, size, tree.node) != self._memory.root(log, size):
            raise ProofError(f"its first {size} entries are not those that were looked at before")

    def _entries(self, start: int, stop: int, head: Head, tree: TileTree) -> Iterator[tuple[int, bytes]]:
        """Yield the entries of a step with their indexes: up to `stop`, or as many bundles as there is time for."""
        first = start // TILE_WIDTH
        for place in range(first, min(first + STEP_BUNDLES, -(-stop // TILE_WIDTH))):
            entries = read_bundle(place, size=head.tree.size, tree=tree, get=self._get)
            for index, raw in enumerate(entries, place * TILE_WIDTH):
                if start <= index < stop:
                    yield index, raw
            if self._is_over():
                return

    # Writers

    def _writers_behind(self, log: Known) -> dict[str, tuple[int, int]]:
        at = self._memory.writers(log)
        followed = {name: at.get(name, (0, 0)) for name in self._writers}
        return {name: (looked, following) for name, (looked, following) in followed.items() if looked < log.looked}

    def _recall_writers(self, log: Known, head: Head) -> bool:
        """Say whether all writers are followed as far as entries were looked at."""
        # A key that was not given before: what the writer did so far has to be looked at from the beginning.
        for name, (looked, following) in self._writers_behind(log).items():
            while looked < (stop := min(log.looked, head.tree.size)):
                looker = Looker(origin=self.origin, writer_keys=self._settings.writer_keys, following={name: following})
                faults = list[Fault]()
                for index, raw in self._entries(looked, stop, head, tiles_of(head.tree, self._get)):
                    faults += looker.look_at_writer(index, raw)
                    looked = index + 1
                following = looker.following[name]
                with self._memory.transaction():
                    self._memory.follow(log, looked, {name: following})
                    self._report(log, faults)
                if looked < stop and self._is_over():
                    return False
        return True

    # Backdating

    def _anchors(self, log: Known, head: Head) -> list[Anchor]:
        notes = [log.quorum_note, *(one.note for one in self._memory.unresolved(log) if one.size < head.tree.size)]
        heads = [recall_head(note, self._judge.policy) for note in notes if note]
        return [Anchor(one.tree.size, one.time, one) for one in heads if one.time is not None]

    def _backdated(self, log: Known, head: Head, tree: TileTree, index: int, raw: bytes, anchor: Anchor) -> list[Fault]:
        proof = prove_inclusion(index=index, size=head.tree.size, node=tree.node)
        found = Backdating(index, raw, tuple(proof), only_log(head.note), only_needed(anchor.head, self._judge.policy))
        try:
            self._judge.convict(log, found)
        except (MalformedError, EvidenceError):
            # Too large for a file, or of a log that is no segment, or of another one: seen here, and proven to nobody.
            return [Fault(index, "backdating", f"entry {index} says that it is older than it can be")]
        return []

    # Complaints

    def _ask(self, witness: TrustedWitness, complaints: Complaints) -> None:
        try:
            raw = self._source.witness(witness, self.origin)
            note = None if raw is None else parse_note(raw)
            # Mostly it shows what the log does, and nothing is verified twice.
            if note is not None and not self._judge.knows(note, self.origin):
                self._judge.hear(self._open(note, complaints), source=f"witness {witness.name}")
        except (FetchError, MalformedError, SignatureError) as error:
            complaints["witness", witness.name] = f"the witness {witness.name} shows no head: {error}"
        except BudgetError:
            # The judge has complained of it.
            return

    def _ask_proof(self, head: Head) -> None:
        log = self._memory.known(self.origin)
        if self._memory.is_convicted(self.origin) or not 0 < log.size < head.tree.size:
            return
        older = recall_head(log.note, self._judge.policy)
        try:
            raw = self._get(f"proof/consistency/{log.size}/{head.tree.size}", limit=MAX_PROOF_BYTES)
            proof = parse_consistency(raw, old_size=log.size, new_size=head.tree.size)
        except (FetchError, MalformedError):
            return
        if (found := judge_proof(older.note, head.note, proof)) is not None:
            self._judge.convict(log, found)

    def _look_back(self, log: Known, now: int, complaints: Complaints) -> None:
        """Complain of what only time shows."""
        if self._judge.policy.quorum is not None and log.note and now - log.quorum_time > self._settings.max_age:
            age = f"{now - log.quorum_time} seconds ago" if log.quorum_time else "never"
            complaints["old", ""] = f"the quorum {self._judge.policy.quorum} last cosigned what the log shows {age}"
        held = self._memory.unresolved(log)
        late = [one for one in held if one.heard < now - self._settings.patience]
        if late:
            complaints["withholding", ""] = (
                f"the log signed a head of {late[-1].size} entries, which {late[-1].source} brought, and does not show "
                f"how it extends the {log.size} that are verified"
            )
        if self._judge.is_full(log):
            complaints["flood", ""] = FLOOD

    # Fetching

    def _get(self, path: str, *, limit: int) -> bytes:
        return self._source.log(self._log, path, limit)

    def _report(self, log: Known, faults: Sequence[Fault]) -> None:
        now = int(self._source.clock() * 1000)
        for fault in faults:
            self._memory.report(
                log,
                Finding(
                    now,
                    Class.VIOLATION,
                    fault.kind,
                    self.origin,
                    _readable(fault.detail),
                    index=fault.index,
                    source=FROM_LOG,
                ),
            )


def _readable(detail: str) -> str:
    return printable(detail)[:MAX_DETAIL].replace("\n", " ")


def _after(anchors: Sequence[Anchor], index: int, entry: Entry) -> Anchor | None:
    """Return a head without the entry at `index` that was cosigned long after the time that the entry has."""
    late = [one for one in anchors if one.time > entry.time // 1000 + MAX_LAG and one.size <= index]
    return max(late, key=lambda one: one.time) if late else None
