"""From payloads to entries: commit to each, have them sequenced, or recall what the same request logged before."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Final

from tlog.access.token import OWN_NAMES
from tlog.config import MAX_PAGE_BYTES
from tlog.errors import (
    CorruptError,
    IdempotencyError,
    SealedError,
    SignatureRequiredError,
    WrongSignatureError,
)
from tlog.segments import Segment
from tlog.sequencer import Logged, Submission, request_key
from tlog.store.codec import Payload, split_openings
from tlog.store.cosigned import CosignedHead
from tlog.store.segment import RequestRow
from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.commitment import OPENING_BYTES, Opening, commit, commit_all
from tlog_core.entry import WriterSignature, has_commitment, parse_entry
from tlog_core.errors import ProofError, SignatureError
from tlog_core.merkle import range_hash
from tlog_core.note import KEY_ID_BYTES, VerifierKey
from tlog_core.proof import prove_consistency, verify_consistency
from tlog_core.receipt import JSON_TYPE
from tlog_core.writer import verify_signature

SEAL_WRITER: Final = "tlog/seal"
"""The writer of the entry that seals a segment: by it, who sees no payload knows that nothing may follow."""

SUCCESSION_WRITER: Final = "tlog/succession"
"""The writer of the first entry of a segment that goes on in the place of another."""

_REGISTER: Final = "register it by tlog writer add; its name is to be the name of the principal"


@dataclass(frozen=True, slots=True)
class Signed:
    """What a writer that signs has chosen for each payload: its opening, and its signature."""

    openings: Sequence[Opening]
    signatures: Sequence[WriterSignature]


def commit_to(
    *,
    writer: str,
    kind: str,
    payloads: Sequence[bytes],
    idempotency_key: str | None = None,
    signed: Signed | None = None,
    seals: bool = False,
    events: Sequence[bytes] = (),
    remembered: int = 0,
) -> Submission:
    """Commit to payloads of one media type, by the openings that their writer has signed for, or else by fresh ones.

    What else there is goes into the `Submission`.
    """
    openings = split_openings(os.urandom(OPENING_BYTES * len(payloads))) if signed is None else signed.openings
    return Submission(
        writer=writer,
        kind=kind,
        openings=openings,
        payloads=payloads,
        commitments=commit_all(openings, kind, payloads),
        key=None if idempotency_key is None else request_key(writer, idempotency_key),
        signed=() if signed is None else signed.signatures,
        seals=seals,
        events=events,
        remembered=remembered,
    )


def verify_signatures(submission: Submission, *, origin: str, keys: Sequence[VerifierKey]) -> None:
    """Check each signature of signed events by one of the keys of their writer; raise WrongSignatureError."""
    for line, (one, commitment) in enumerate(zip(submission.signed, submission.commitments, strict=True), 1):
        try:
            verify_signature(one, origin=origin, writer=submission.writer, commitment=commitment, keys=keys)
        except SignatureError as error:
            is_known = one.signature[:KEY_ID_BYTES] in {key.id for key in keys}
            raise WrongSignatureError(str(error) if is_known else f"{error}; {_REGISTER}", line) from None


def append(
    segment: Segment, submission: Submission, waits: AbstractContextManager[None] | None = None
) -> tuple[Submission, Logged]:
    """Log the payloads of a submission, all or none, and return it, or what its key logged before, with where it is.

    Its signatures were verified. Raises SignatureRequiredError if the segment takes no others, IdempotencyError if the
    key came with other events before, and what `Sequencer.append` raises, to which `waits` goes.
    """
    if segment.row.signed and not submission.signed and not submission.writer.startswith(OWN_NAMES):
        raise SignatureRequiredError("the segment takes signed events only; append with a key of the writer")
    outcome = segment.sequencer.append(submission, waits)
    if isinstance(outcome, RequestRow):
        return _recall(segment, submission, outcome)
    return submission, outcome


def logged_under(segment: Segment, logged: Logged, head: CosignedHead) -> Logged:
    """Return where entries are under a later head than that with which they were logged."""
    return replace(logged, size=head.size, node=segment.nodes.at(head.size), note=head.note)


def read_page(segment: Segment, start: int, end: int, most: int = MAX_PAGE_BYTES) -> list[tuple[bytes, Payload]]:
    """Return entries from `start` on with their payloads, checked, until `end` or until those have `most` bytes.

    Raises CorruptError, and LostError if the first payload was lost.
    """
    payloads = segment.store.payload_page(start, end, most)
    entries = segment.store.entries(start, start + len(payloads))
    check_stored(segment, start, entries, payloads)
    return list(zip(entries, payloads, strict=True))


def check_stored(segment: Segment, start: int, entries: Sequence[bytes], payloads: Sequence[Payload]) -> None:
    """Check entries from `start` on against the tree, and payloads against them; CorruptError names the first."""
    segment.nodes.check_entries(start, entries)
    for index, (entry, one) in enumerate(zip(entries, payloads, strict=True), start):
        check_payload(index, entry, one)


def check_payload(index: int, entry: bytes, payload: Payload) -> None:
    """Check a stored payload against its entry; CorruptError."""
    found = commit(opening=payload.opening, payload_type=payload.type, payload=payload.data)
    if not has_commitment(entry, found):
        raise CorruptError(f"the payload of entry {index} is damaged; run tlog fsck")


def seal(segment: Segment, payload: bytes) -> None:
    """Log a last entry, whose payload says that it is the last; do nothing if there is one."""
    with suppress(SealedError):
        append(segment, commit_to(writer=SEAL_WRITER, kind=JSON_TYPE, payloads=[payload], seals=True))


def _recall(segment: Segment, submission: Submission, row: RequestRow) -> tuple[Submission, Logged]:
    """Return what was logged under the key before, if it is what is submitted now: the same receipt comes out."""
    end = row.start + row.count
    stored = segment.store.payloads(row.start, end)
    if [(one.type, one.data) for one in stored] != [(submission.kind, payload) for payload in submission.payloads]:
        raise IdempotencyError("this Idempotency-Key was used for other events; send a fresh key for fresh events")
    entries = segment.store.entries(row.start, end)
    check_stored(segment, row.start, entries, stored)
    first = parse_entry(entries[0])
    if (first.signed is None) != (not submission.signed):
        raise IdempotencyError("this Idempotency-Key was used for the same events, but signed otherwise; send another")
    signed = [one for one in (parse_entry(entry).signed for entry in entries if submission.signed) if one is not None]
    openings = [one.opening for one in stored]
    size, note = _checkpoint_of(segment, row)
    return replace(submission, writer=first.writer, openings=openings, signed=signed), Logged(
        start=row.start,
        time=first.time,
        writer=first.writer,
        entries=entries,
        size=size,
        node=segment.nodes.at(size),
        note=note,
    )


def _checkpoint_of(segment: Segment, row: RequestRow) -> tuple[int, bytes]:
    """Return size and note of the checkpoint that a request was answered with; of the head where nothing is signed."""
    if segment.frozen() is None:
        return row.size, _sign_again(segment, row.size)
    head = segment.store.head()
    return head.size, head.note


def _sign_again(segment: Segment, size: int) -> bytes:
    """Return the checkpoint of an earlier size, byte for byte as it was: Ed25519 makes one signature for one message.

    It is signed only after a proof that the latest signed head extends it, so no damaged tile can become a fork.
    """
    head = segment.store.head()
    if size > head.size:
        raise CorruptError("a request was answered from a tree larger than the head")
    root = range_hash(0, size, segment.nodes.at(size))
    proof = prove_consistency(old_size=size, new_size=head.size, node=segment.nodes.at(head.size))
    try:
        verify_consistency(old_size=size, new_size=head.size, old_root=root, new_root=head.root, proof=proof)
    except ProofError as error:
        raise CorruptError(f"the tree of {size} entries is damaged; run tlog fsck") from error
    return bytes(sign_checkpoint(Checkpoint(segment.row.origin, size, root), segment.signer))
