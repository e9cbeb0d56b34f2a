"""How one checkpoint after another comes to be trusted: each must extend the newest verified one, or be its prefix."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tlog_client.state import SignedCheckpoint, StateFile
from tlog_core.checkpoint import Checkpoint
from tlog_core.errors import InconsistencyError, ProofError, TlogError
from tlog_core.evidence import format_evidence, judge_proof
from tlog_core.merkle import Hash
from tlog_core.note import Note, VerifierKey, parse_note
from tlog_core.proof import verify_consistency

FetchConsistency = Callable[[int, Checkpoint], Sequence[Hash]]
"""Given an older size and a newer checkpoint of the log, the consistency proof, not yet verified."""

MAX_PREFIXES: Final = 1_024
"""How many trees are remembered as prefixes of the newest verified one."""


@dataclass(slots=True, eq=False)
class _Claim:
    """A checkpoint to be accepted, and, once `settled`, what was wrong with it if anything was."""

    seen: SignedCheckpoint
    shown: Checkpoint | None
    settled: bool = False
    error: TlogError | None = None


class Heads:
    """The newest verified checkpoint of a log, on disk, and the way to a newer one."""

    def __init__(self, key: VerifierKey, state: StateFile, fetch: FetchConsistency) -> None:
        """Start from what `state` holds of the log with this key."""
        self._key = key
        self._state = state
        self._fetch = fetch
        self._claims: list[_Claim] = []
        self._listing = threading.Lock()
        self._turn = threading.Lock()
        self._prefixes: dict[int, Hash] = {}

    def newest(self) -> SignedCheckpoint | None:
        """Return the newest verified checkpoint, None if there was none yet; raise StateError or FetchError."""
        return self._state.read()

    def accept(self, seen: SignedCheckpoint, *, shown: Checkpoint | None = None) -> None:
        """Check that `seen`, whose signature was verified, is of the one history known; keep it if it is newer.

        `shown` is a smaller tree that the proof `seen` came with contains already; it may save a request. Raises
        InconsistencyError, FetchError, MalformedError or StateError.
        """
        claim = _Claim(seen, shown)
        with self._listing:
            self._claims.append(claim)
        # Threads that append together wait here, and the first settles for all: in order of size their receipts
        # mostly prove each other, and one write to disk is enough.
        with self._turn:
            if not claim.settled:
                self._lead(claim)
        if claim.error is not None:
            raise claim.error

    def _lead(self, own: _Claim) -> None:
        with self._listing:
            claims = sorted(self._claims, key=lambda claim: claim.seen.checkpoint.size)
        try:
            while not self._settle(claims):
                # Another process was faster, and what it verified comes first.
                pass
        finally:
            with self._listing:
                self._claims = [claim for claim in self._claims if not claim.settled and claim is not own]

    def _settle(self, claims: Sequence[_Claim]) -> bool:
        known = newest = self._state.read()
        for claim in claims:
            try:
                newest, claim.error = self._extend(newest, claim), None
            except TlogError as error:
                claim.error = error
        if newest is not None and newest is not known and not self._state.swap(known, newest):
            return False
        for claim in claims:
            claim.settled = True
            if claim.error is None:
                self._remember(claim.seen.checkpoint)
                self._remember(claim.shown or claim.seen.checkpoint)
        return True

    def _extend(self, known: SignedCheckpoint | None, claim: _Claim) -> SignedCheckpoint:
        tree = claim.seen.checkpoint
        if known is None:
            return claim.seen
        if self._prefixes.get(tree.size) != tree.root:
            self.verify_one_history(known, claim.seen, shown=claim.shown)
        return claim.seen if tree.size > known.checkpoint.size else known

    def verify_one_history(
        self, known: SignedCheckpoint, seen: SignedCheckpoint, *, shown: Checkpoint | None = None
    ) -> None:
        """Check that one of two checkpoints extends the other; raises as `accept` does."""
        old, new = known.checkpoint, seen.checkpoint
        proof: Sequence[Hash] = ()
        if old.size == new.size:
            holds = old.root == new.root
        elif shown is not None and shown.size == old.size:
            holds = shown.root == old.root
        else:
            smaller, larger = sorted((old, new), key=lambda tree: tree.size)
            holds, proof = self._extends(smaller, larger)
        if not holds:
            raise InconsistencyError(
                f"{old.origin} shows two histories: its trees of {old.size} and {new.size} entries do not fit",
                older=known.note,
                newer=seen.note,
                evidence=_evidence(self._key, known, seen, proof),
            )

    def _remember(self, prefix: Checkpoint) -> None:
        self._prefixes[prefix.size] = prefix.root
        if len(self._prefixes) > MAX_PREFIXES:
            del self._prefixes[next(iter(self._prefixes))]

    def _extends(self, old: Checkpoint, new: Checkpoint) -> tuple[bool, Sequence[Hash]]:
        """Say whether one tree extends the other, and by which proof of the log's."""
        # Every tree extends the empty one; there is nothing to prove.
        if old.size == 0:
            return True, ()
        proof = self._fetch(old.size, new)
        try:
            verify_consistency(old_size=old.size, new_size=new.size, old_root=old.root, new_root=new.root, proof=proof)
        except ProofError:
            return False, proof
        return True, proof


def _evidence(key: VerifierKey, one: SignedCheckpoint, other: SignedCheckpoint, proof: Sequence[Hash]) -> bytes | None:
    older, newer = sorted((one, other), key=lambda signed: signed.checkpoint.size)
    found = judge_proof(_verified(older.note, key), _verified(newer.note, key), proof)
    return None if found is None else format_evidence(found)


def _verified(raw: bytes, key: VerifierKey) -> Note:
    # As received, a note may have any further lines, and evidence has room for a few.
    note = parse_note(raw)
    return Note(note.text, tuple(line for line in note.signatures if (line.name, line.key_id) == (key.name, key.id)))


def verify_no_rollback(known: SignedCheckpoint | None, seen: SignedCheckpoint) -> None:
    """Check that the log did not shrink since `known`, which was verified before `seen` was asked for."""
    if known is not None and seen.checkpoint.size < known.checkpoint.size:
        raise InconsistencyError(
            f"{known.checkpoint.origin} went back from {known.checkpoint.size} to {seen.checkpoint.size} entries",
            older=known.note,
            newer=seen.note,
        )
