"""Judging: what a head, a receipt or evidence, from anywhere, says of its log (`spec/monitoring.md`).

Keys come from the monitor's own trust policy, and older trees from its own mirror: nobody is asked. Nothing is stored
or passed on that was not verified, nor any signature line of a key that the policy does not have.
"""

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from hashlib import sha256
from typing import Final, NoReturn

from tlog_client.errors import BudgetError, StateError
from tlog_client.monitor.finding import Class, Finding
from tlog_client.monitor.head import Head, cosigners, merge_heads, only_needed, open_head, recall_head
from tlog_client.monitor.memory import Known, Memory, Unresolved
from tlog_client.text import format_time
from tlog_core.checkpoint import parse_head
from tlog_core.errors import MalformedError, ProofError, SignatureError
from tlog_core.evidence import (
    Backdating,
    EmptyRoot,
    Evidence,
    Fork,
    OtherEntry,
    Prefix,
    accused_witness,
    describe_evidence,
    evidence_heads,
    find_contradiction,
    find_other_entry,
    format_evidence,
    only_log,
    parse_evidence,
)
from tlog_core.gossip import MAX_HEAD_BYTES
from tlog_core.merkle import EMPTY_ROOT, NodeReader, leaf_hash
from tlog_core.note import Note, parse_note
from tlog_core.policy import TrustPolicy
from tlog_core.proof import verify_inclusion
from tlog_core.receipt import parse_receipt

MAX_UNRESOLVED: Final = 128
"""How many unresolved heads are kept of one log."""

MAX_SHARE: Final = 32
"""How many of them one source may bring."""

MAX_FILES: Final = 16
"""How many files of evidence are kept against one log or one witness, which one convicts already."""

MAX_TOLD: Final = 256
"""How many files of evidence are handed out."""

FROM_LOG: Final = "log"
"""The source of what the log itself shows."""

FLOOD: Final = "more heads that the log signed are heard of than are held until it shows that they are of one history"


class Heard(Enum):
    """What came of a head that was heard."""

    KNOWN = "known"
    AGREES = "agrees"
    UNRESOLVED = "unresolved"
    CONVICTS = "convicts"


class Judge:
    """Judges what is heard of the logs of one trust policy; threads may share it.

    Every method may raise StateError: what cannot be stored stops the monitor.
    """

    def __init__(
        self,
        policy: TrustPolicy,
        memory: Memory,
        *,
        clock: Callable[[], float],
        keep: Callable[[str, bytes], None] = lambda _name, _raw: None,
        reported: Callable[[], None] = lambda: None,
    ) -> None:
        """Judge by `policy`, and by what `memory` holds, which must hold under that policy; StateError if not.

        `keep` stores evidence under its name, durable when it returns, before anyone hears of it. `reported` is called
        after findings were stored. `clock` gives POSIX seconds.
        """
        self.given = policy
        self.memory = memory
        self.clock = clock
        self.origins = list(dict.fromkeys(log.key.name for log in policy.logs))
        self._keep = keep
        self._reported = reported
        keys = [*(log.key for log in policy.logs), *(witness.key for witness in policy.witnesses)]
        self._keys = {(key.name, key.id) for key in keys}
        self._witnesses = {witness.name: witness.key for witness in policy.witnesses}
        self.policy = self._trusted()
        """The given policy, without the witnesses that evidence convicts: no time of theirs counts any more."""
        with memory.transaction():
            memory.add_logs(self.origins)
        for log in map(memory.known, self.origins):
            self._check_memory(log)
        with memory.transaction():
            # The policy may have changed since.
            self._drop_unknown()
            self._recount()

    # What others may ask

    def heads(self, limit: int) -> list[bytes]:
        """Return at most `limit` signed notes worth telling, each with its verified lines only.

        First the newest verified head of each log, then the unresolved ones, always in the same order. Of a convicted
        log there is nothing to tell but the evidence.
        """
        logs = [log for log in map(self.memory.known, self.origins) if not self.memory.is_convicted(log.origin)]
        newest = [log.note for log in logs if log.note]
        told = [*newest, *(head.note for log in logs for head in self.memory.unresolved(log))][:limit]
        return [note if len(note) <= MAX_HEAD_BYTES else self._shorten(note) for note in told]

    def evidence(self) -> list[bytes]:
        """Return at most 256 files of evidence, the newest first."""
        return self.memory.evidence(MAX_TOLD)

    # What others may tell

    def hear_head(self, note: bytes, *, source: str) -> Heard:
        """Judge a signed note that `source` brought.

        KNOWN: nothing new. AGREES: a prefix of what was verified. UNRESOLVED: valid, of more entries than were
        verified, and kept until they are. CONVICTS: the log signed what cannot be honest beside it. Raises
        MalformedError, SignatureError, or BudgetError if it is unresolved and there is no place for it.
        """
        parsed = parse_note(note)
        tree = parse_head(parsed.text)
        if tree.origin not in self.origins:
            raise SignatureError(f"the trust policy has no log {tree.origin}")
        if self.knows(parsed, tree.origin):
            return Heard.KNOWN
        return self.hear(self.open(parsed), source=source)

    def hear_evidence(self, raw: bytes, *, source: str) -> bool:
        """Say whether a file of evidence is new, and proves misbehaviour by the keys of our policy; it is kept then.

        Raises MalformedError, or EvidenceError if it proves nothing. Against whom there is enough already, nothing is
        new.
        """
        # Peers tell it again and again: nothing is verified twice.
        if self.memory.has_evidence(_name(raw)):
            return False
        found = parse_evidence(raw)
        origin = evidence_heads(found)[0].text.partition("\n")[0]
        if self._is_enough(_accused(found, origin)):
            return False
        describe_evidence(found, self._policy_for(found), now=self.clock())
        with self.memory.transaction():
            # A witness may be accused for a log that is not in our policy.
            self.memory.add_logs([origin])
            new = self._convict(self.memory.known(origin), found, source)
        self._reported()
        return new

    def hear_receipt(self, raw: bytes, *, source: str) -> Heard:
        """Judge a receipt: its head as in `hear_head`, and, if the log has another entry at its index, that too.

        Raises as `hear_head`, and ProofError if the receipt does not hold.
        """
        receipt = parse_receipt(raw)
        head = self.open(parse_note(receipt.checkpoint))
        verify_inclusion(
            leaf=leaf_hash(receipt.entry),
            index=receipt.index,
            size=head.tree.size,
            proof=receipt.proof,
            root=head.tree.root,
        )
        with self.memory.transaction():
            log = self.memory.known(head.tree.origin)
            other = None
            if log.note:
                verified = replace(receipt, checkpoint=bytes(head.note))
                other = find_other_entry(verified, parse_note(log.note), node=self.memory.node(log))
            if other is not None:
                self._convict(log, other, source)
        outcome = self.hear(head, source=source)
        return outcome if other is None else Heard.CONVICTS

    # What the follower of a log asks

    def open(self, note: Note) -> Head:
        """Return the head of a note, opened by our policy and our clock; raise MalformedError or SignatureError."""
        return open_head(note, self.policy, now=self.clock())

    def knows(self, note: Note, origin: str) -> bool:
        """Say whether a note is a head of this log of ours that was verified before, with each line of our keys."""
        tree = parse_head(note.text)
        if tree.origin != origin:
            return False
        log = self.memory.known(origin)
        held = [one.note for one in self.memory.unresolved(log) if one.size == tree.size]
        lines = {line for line in note.signatures if (line.name, line.key_id) in self._keys}
        for raw in (log.note, *held):
            if raw and (known := parse_note(raw)).text == note.text:
                return lines <= set(known.signatures)
        return False

    def hear(self, head: Head, *, source: str) -> Heard:
        """Judge a head that was opened by our policy; as `hear_head`."""
        with self.memory.transaction():
            outcome = self._place(self.memory.known(head.tree.origin), head, source)
        self._reported()
        if outcome is None:
            raise BudgetError(f"{head.tree.origin}: {FLOOD}")
        return outcome

    def tie(self, head: Head, node: NodeReader) -> bool:
        """Judge each head that is not larger than `head` by its tree, which `node` reads; say if one convicts.

        Unresolved ones that are its prefixes are dropped, since it is kept now, but for the one with the latest quorum
        time. Raises what `node` raises, and
        ProofError if it is of another tree.
        """
        log = self.memory.known(head.tree.origin)
        older = [one for one in self._heard_of(log) if one.tree.size <= head.tree.size and one.tree != head.tree]
        # The log is asked for nodes here: nothing is locked meanwhile.
        found = {bytes(one.note): self._contradictions(one, head, node) for one in older}
        with self.memory.transaction():
            for contradictions in found.values():
                for contradiction in contradictions:
                    self._convict(log, contradiction, FROM_LOG)
            held = self.memory.unresolved(log)
            # All but the one with the latest quorum time, which later entries are held against until it is verified.
            times = {one.time: bytes(one.note) for one in older if one.time is not None}
            tied = [one for one in held if one.note in found and one.note != times.get(max(times, default=0))]
            for one in tied:
                self.memory.drop_unresolved(log, one)
            if tied and all((one.size, one.root) != (head.tree.size, head.tree.root) for one in held):
                self._put(log, head, FROM_LOG)
        self._reported()
        return any(found.values())

    def advance(self, head: Head) -> bool:
        """Take `head` for the newest verified one, all of whose entries were looked at; say if that convicts the log.

        The unresolved heads that it has outgrown are judged by the mirror, and gone.
        """
        with self.memory.transaction():
            log = self.memory.known(head.tree.origin)
            outgrown = [one for one in self.memory.unresolved(log) if one.size <= head.tree.size]
            heads = [recall_head(one.note, self.policy) for one in outgrown]
            for one in heads:
                if one.tree == head.tree:
                    head = merge_heads(head, one, self.policy)
            found = [self._contradictions(one, head, self.memory.node(log)) for one in heads]
            verified = [head, *(one for one, against in zip(heads, found, strict=True) if not against)]
            times = [(one.time, bytes(one.note)) for one in verified if one.time is not None]
            self.memory.verify(log, head.tree.size, bytes(head.note), max(times, default=None))
            for held, contradictions in zip(outgrown, found, strict=True):
                for contradiction in contradictions:
                    self._convict(log, contradiction, held.source)
                self.memory.drop_unresolved(log, held)
        self._reported()
        return any(found)

    def convict(self, log: Known, found: Evidence) -> None:
        """Keep and report evidence that was found in what the log shows."""
        with self.memory.transaction():
            self._convict(log, found, FROM_LOG)
        self._reported()

    def is_full(self, log: Known) -> bool:
        """Say whether there is no place for a further unresolved head, from anyone or from somebody."""
        sources = [one.source for one in self.memory.unresolved(log)]
        return len(sources) >= MAX_UNRESOLVED or any(sources.count(one) >= MAX_SHARE for one in set(sources))

    def flush(self) -> None:
        """Have what was reported told."""
        self._reported()

    # Within a transaction

    def _place(self, log: Known, head: Head, source: str) -> Heard | None:
        tree = head.tree
        if tree.size == 0 and tree.root != EMPTY_ROOT:
            self._convict(log, EmptyRoot(only_log(head.note)), source)
            return Heard.CONVICTS
        if not log.note or tree.size > log.size:
            return Heard.AGREES if tree.size == 0 else self._hold(log, head, source)
        newest = recall_head(log.note, self.policy)
        if newest.tree == tree:
            self._renew(log, newest, head)
            return Heard.KNOWN
        return self._compare(log, newest, head, self.memory.node(log), source)

    def _hold(self, log: Known, head: Head, source: str) -> Heard | None:
        held = self.memory.unresolved(log)
        for one in held:
            if one.size == head.tree.size:
                other = recall_head(one.note, self.policy)
                if one.root == head.tree.root:
                    self._put(log, merge_heads(other, head, self.policy), one.source, heard=one.heard)
                    return Heard.KNOWN
                return self._compare(log, other, head, _nobody, source)
        # Who brings more about a convicted log brings nothing.
        if self.memory.is_convicted(log.origin):
            return Heard.KNOWN
        if len(held) >= MAX_UNRESOLVED or sum(one.source == source for one in held) >= MAX_SHARE:
            self.memory.settle(log, {("flood", ""): FLOOD}, (), self._now())
            return None
        self._put(log, head, source)
        return Heard.UNRESOLVED

    def _compare(self, log: Known, one: Head, other: Head, node: NodeReader, source: str) -> Heard:
        found = self._contradictions(one, other, node)
        for contradiction in found:
            self._convict(log, contradiction, source)
        return Heard.CONVICTS if found else Heard.AGREES

    def _renew(self, log: Known, newest: Head, head: Head) -> None:
        merged = merge_heads(newest, head, self.policy)
        if merged.note != newest.note:
            quorum = None if merged.time is None else (merged.time, bytes(merged.note))
            self.memory.verify(log, log.size, bytes(merged.note), quorum)

    def _put(self, log: Known, head: Head, source: str, *, heard: int | None = None) -> None:
        since = int(self.clock()) if heard is None else heard
        one = Unresolved(head.tree.size, head.tree.root, bytes(head.note), source, since)
        self.memory.put_unresolved(log, one)

    def _convict(self, log: Known, found: Evidence, source: str) -> bool:
        raw = format_evidence(found)
        sentence = describe_evidence(found, self._policy_for(found), now=self.clock(), format_time=format_time)
        witness = accused_witness(found)
        accused = _accused(found, log.origin)
        name = _name(raw)
        if self._is_enough(accused):
            return False
        # The file is there before anyone can hear of it: a crash leaves evidence unreported, never a report without.
        self._keep(name, raw)
        now = self._now()
        if not self.memory.put_evidence(name, accused, raw, now):
            return False
        self.memory.report(
            log,
            Finding(
                now,
                Class.EVIDENCE,
                _KINDS[type(found)],
                log.origin,
                sentence,
                index=found.index if isinstance(found, OtherEntry | Backdating) else None,
                evidence=name,
                witness=next((name for name, key in self._witnesses.items() if key == witness), None),
                source=source,
            ),
        )
        if witness is not None:
            self.policy = self._trusted()
            self._recount()
        return True

    def _recount(self) -> None:
        """Have no quorum time count but what those say who are trusted now."""
        for log in map(self.memory.known, self.origins):
            heads = [recall_head(note, self.policy) for note in (log.quorum_note, log.note) if note]
            times = [(one.time, bytes(one.note)) for one in heads if one.time is not None]
            time, note = max(times, default=(0, b""))
            if time != log.quorum_time:
                self.memory.set_quorum(log, time, note)

    def _drop_unknown(self) -> None:
        """Drop unresolved heads that no key of the policy stands for: they prove nothing, and are not followed."""
        for log in map(self.memory.known, self.origins):
            for one in self.memory.unresolved(log):
                try:
                    self.open(parse_note(one.note))
                except (MalformedError, SignatureError):
                    self.memory.drop_unresolved(log, one)

    # Helpers

    def _trusted(self) -> TrustPolicy:
        return replace(
            self.given,
            witnesses=tuple(one for one in self.given.witnesses if not self.memory.is_convicted(str(one.key))),
        )

    def _policy_for(self, found: Evidence) -> TrustPolicy:
        # What a convicted witness said of the time counts no more; what it signed still does, against itself.
        return self.policy if isinstance(found, Backdating) else self.given

    def _is_enough(self, accused: str) -> bool:
        return self.memory.count_evidence(accused) >= MAX_FILES

    def _shorten(self, raw: bytes) -> bytes:
        # Three cosignatures by ML-DSA-44 are more than a message takes: rather no time than no head.
        head = recall_head(raw, self.policy)
        note = bytes(only_needed(head, self.policy))
        return note if len(note) <= MAX_HEAD_BYTES else bytes(only_log(head.note))

    def _contradictions(self, one: Head, other: Head, node: NodeReader) -> list[Evidence]:
        found = find_contradiction(one.note, other.note, node=node)
        if found is None:
            return []
        keys = [self._witnesses[name] for name in cosigners(one, other, self.policy)]
        against = [find_contradiction(one.note, other.note, node=node, witness=key) for key in keys]
        return [found, *(proof for proof in against if proof is not None)]

    def _heard_of(self, log: Known) -> list[Head]:
        notes = [log.note, log.target, *(one.note for one in self.memory.unresolved(log))]
        return [recall_head(note, self.policy) for note in dict.fromkeys(notes) if note]

    def _check_memory(self, log: Known) -> None:
        try:
            for note in (log.note, log.target, log.quorum_note):
                if note:
                    self.open(parse_note(note))
            if log.note and self.memory.root(log, log.size) != parse_head(parse_note(log.note).text).root:
                raise ProofError("its mirror does not lead to the root that was verified")
        except (MalformedError, SignatureError, ProofError, KeyError, IndexError) as error:
            raise StateError(
                f"the memory {self.memory.path} does not hold for {log.origin}: {error}; put the log's earlier key "
                "into the trust policy beside the present one, or restore the file"
            ) from None

    def _now(self) -> int:
        return int(self.clock() * 1000)


_KINDS: Final[dict[type, str]] = {
    EmptyRoot: "empty",
    Fork: "fork",
    Prefix: "prefix",
    OtherEntry: "entry",
    Backdating: "backdating",
}


def _accused(found: Evidence, origin: str) -> str:
    witness = accused_witness(found)
    return origin if witness is None else str(witness)


def _name(raw: bytes) -> str:
    return f"{sha256(raw).hexdigest()}.evidence"


def _nobody(_level: int, _index: int) -> NoReturn:
    raise AssertionError("two heads of one size need no nodes")
