"""How one checkpoint after another comes to be trusted: each must extend the newest verified one, or be its prefix."""

import threading
from collections.abc import Callable, Sequence

from tlog_core.checkpoint import Checkpoint
from tlog_core.errors import InconsistencyError, ProofError
from tlog_core.merkle import Hash
from tlog_core.proof import verify_consistency

from tlog_client.state import SignedCheckpoint, StateFile

FetchConsistency = Callable[[int, int], Sequence[Hash]]
"""Given an older and a newer size, the log's consistency proof, not yet verified."""


class Heads:
    """The newest verified checkpoint of a log, on disk, and the way to a newer one."""

    def __init__(self, state: StateFile, fetch: FetchConsistency) -> None:
        """Start from what `state` holds."""
        self._state = state
        self._fetch = fetch
        self._turn = threading.Lock()

    def newest(self) -> SignedCheckpoint | None:
        """Return the newest verified checkpoint, None if there was none yet; raise StateError or FetchError."""
        return self._state.read()

    def accept(self, seen: SignedCheckpoint, *, shown: Checkpoint | None = None) -> None:
        """Check that `seen`, whose signature was verified, is of the one history known; keep it if it is newer.

        `shown` is a smaller tree that the proof `seen` came with contains already; it may save a request. Raises
        InconsistencyError, FetchError, MalformedError or StateError.
        """
        # One thread at a time: the others, whose events were mostly logged together, then need no proof of their own.
        with self._turn:
            while not self._advance(seen, shown):
                # Another process was faster, and what it verified comes first.
                pass

    def _advance(self, seen: SignedCheckpoint, shown: Checkpoint | None) -> bool:
        known = self._state.read()
        if known is None:
            return self._state.swap(None, seen)
        self.verify_one_history(known, seen, shown=shown)
        return known.checkpoint.size >= seen.checkpoint.size or self._state.swap(known, seen)

    def verify_one_history(
        self, known: SignedCheckpoint, seen: SignedCheckpoint, *, shown: Checkpoint | None = None
    ) -> None:
        """Check that one of two checkpoints extends the other; raises as `accept` does."""
        old, new = known.checkpoint, seen.checkpoint
        if old.size == new.size:
            holds = old.root == new.root
        elif shown is not None and shown.size == old.size:
            holds = shown.root == old.root
        elif old.size < new.size:
            holds = self._extends(old, new)
        else:
            # Answers to concurrent requests overtake each other: this one is older than one verified already.
            holds = self._extends(new, old)
        if not holds:
            raise InconsistencyError(
                f"{old.origin} shows two histories: its trees of {old.size} and {new.size} entries do not fit",
                older=known.note,
                newer=seen.note,
            )

    def _extends(self, old: Checkpoint, new: Checkpoint) -> bool:
        # Every tree extends the empty one; there is nothing to prove.
        if old.size == 0:
            return True
        proof = self._fetch(old.size, new.size)
        try:
            verify_consistency(old_size=old.size, new_size=new.size, old_root=old.root, new_root=new.root, proof=proof)
        except ProofError:
            return False
        return True


def verify_no_rollback(known: SignedCheckpoint | None, seen: SignedCheckpoint) -> None:
    """Check that the log did not shrink since `known`, which was verified before `seen` was asked for."""
    if known is not None and seen.checkpoint.size < known.checkpoint.size:
        raise InconsistencyError(
            f"{known.checkpoint.origin} went back from {known.checkpoint.size} to {seen.checkpoint.size} entries",
            older=known.note,
            newer=seen.note,
        )
