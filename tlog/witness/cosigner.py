"""What a witness does: it checks that a checkpoint extends the last one of its log, stores it, and cosigns it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tlog.errors import CorruptError, NotFoundError, StaleError
from tlog.store.witness import NOTHING, Cosigned, OriginHash, WitnessStore
from tlog.witness.submission import Submission, SubtreeRequest, origin_of
from tlog_core.checkpoint import Checkpoint, parse_head
from tlog_core.cosignature import Subtree, cosign, cosign_subtree, open_cosignature
from tlog_core.errors import InconsistencyError, MalformedError, SignatureError, TlogError
from tlog_core.note import Note, Signature, SignerKey, VerifierKey, open_parsed, parse_note
from tlog_core.proof import verify_consistency, verify_subtree


@dataclass(frozen=True, slots=True)
class Witness:
    """One witness: its keys, the key of each log by origin, what it has cosigned, and its clock in POSIX seconds.

    `subtree_signer` is its key of type 06, if it has one.
    """

    signer: SignerKey
    subtree_signer: SignerKey | None
    logs: Mapping[str, VerifierKey]
    store: WitnessStore
    clock: Callable[[], int]

    def add_checkpoint(self, submission: Submission) -> tuple[Signature, ...]:
        """Return the cosignatures of a checkpoint, which is stored; or raise why not, in the order of tlog-witness.

        NotFoundError, SignatureError, MalformedError, StaleError, ProofError, InconsistencyError; CorruptError and
        DatabaseError if it is not the submission's fault.
        """
        note = _open(submission.note, self._log_key(submission.origin))
        checkpoint = parse_head(note.text)
        if submission.old > checkpoint.size:
            raise MalformedError("the old size is larger than that of the checkpoint")
        while True:
            latest = self._latest(hash_origin(submission.origin)) or NOTHING
            _check_extends(latest, submission, checkpoint, note)
            # Time never goes back, whatever the clock does.
            time = max(self.clock(), latest.time)
            lines = self._cosign(note.text, time)
            # The same statement again, and it is stored.
            if latest.note and (latest.size, latest.time) == (checkpoint.size, time):
                return lines
            # Only lines that hold: a forged one under our own name would later condemn the note.
            signed = bytes(Note(note.text, (*note.signatures, *lines)))
            new = Cosigned(checkpoint.size, checkpoint.root, time, signed)
            if self.store.advance(hash_origin(submission.origin), latest, new):
                return lines
            # Another request came first: what was checked is no longer the latest.

    def sign_subtree(self, asked: SubtreeRequest) -> Signature:
        """Return the signature line of a subtree, of time 0; or raise why not, in the order of tlog-witness.

        NotFoundError, also without a key for it; SignatureError if the checkpoint was not cosigned by that key;
        MalformedError, ProofError.
        """
        if self.subtree_signer is None:
            raise NotFoundError("this witness has no key of ML-DSA-44, and signs no subtrees")
        origin = origin_of(asked.note)
        self._log_key(origin)
        head = parse_head(asked.note.text)
        _check_own(asked.note, self.subtree_signer.verifier)
        if asked.end > head.size:
            raise MalformedError("the subtree ends beyond the checkpoint")
        verify_subtree(
            start=asked.start,
            end=asked.end,
            subtree=asked.subtree,
            size=head.size,
            proof=asked.proof,
            root=head.root,
        )
        return cosign_subtree(Subtree(origin, asked.start, asked.end, asked.subtree), self.subtree_signer)

    def latest(self, origin: OriginHash) -> bytes:
        """Return the latest checkpoint cosigned, with the lines of log and witness; NotFoundError, CorruptError."""
        latest = self._latest(origin)
        if latest is None:
            raise NotFoundError("no checkpoint of this origin was ever cosigned here")
        return latest.note

    def _log_key(self, origin: str) -> VerifierKey:
        key = self.logs.get(origin)
        if key is None:
            raise NotFoundError("this origin is not on the list of this witness")
        return key

    def _cosign(self, text: str, time: int) -> tuple[Signature, ...]:
        signers = (self.signer,) if self.subtree_signer is None else (self.signer, self.subtree_signer)
        return tuple(cosign(text, time=time, signer=signer) for signer in signers)

    def _latest(self, origin: OriginHash) -> Cosigned | None:
        """Return what is stored for an origin, after our own signature on it; raise CorruptError."""
        latest = self.store.latest(origin)
        if latest is None:
            return None
        try:
            note = parse_note(latest.note)
            time = open_cosignature(note, self.signer.verifier).time
            checkpoint = parse_head(note.text)
        except TlogError as error:
            raise CorruptError(f"what is stored for this origin is damaged: {error}; nothing is signed") from None
        found = (hash_origin(checkpoint.origin), checkpoint.size, checkpoint.root, time)
        if found != (origin, latest.size, latest.root, latest.time):
            raise CorruptError("what is stored for this origin is not what was cosigned; nothing is signed")
        return latest


def hash_origin(origin: str) -> OriginHash:
    """Return the name under which an origin's latest checkpoint is stored and asked for."""
    return OriginHash(hashlib.sha256(origin.encode()).digest())


def _open(note: Note, key: VerifierKey) -> Note:
    opened = open_parsed(note, [key])
    # C2SP tlog-checkpoint: no two lines of one key. Those of other keys are none of ours.
    if len(opened.signatures) > 1:
        raise MalformedError(f"the checkpoint has two signature lines of the key of {key.name}")
    return opened


def _check_own(note: Note, key: VerifierKey) -> None:
    try:
        open_cosignature(note, key)
    except MalformedError as error:
        raise SignatureError(f"not cosigned here: {error}") from None


def _check_extends(latest: Cosigned, submission: Submission, checkpoint: Checkpoint, note: Note) -> None:
    # tlog-witness: the old size must be that of the latest checkpoint cosigned, else 409.
    if submission.old != latest.size:
        raise StaleError(latest.size)
    if latest.note and checkpoint.size == latest.size and checkpoint.root != latest.root:
        message = "the log signed two roots for one size"
        raise InconsistencyError(message, older=latest.note, newer=bytes(note))
    verify_consistency(
        old_size=latest.size,
        new_size=checkpoint.size,
        old_root=latest.root,
        new_root=checkpoint.root,
        proof=submission.proof,
    )
