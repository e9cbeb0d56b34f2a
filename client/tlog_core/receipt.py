"""Receipts: all that is needed, with the log's key, to show offline that an event was logged (`spec/receipt.md`).

A batch has one receipt for all its entries, from which the writer, who holds the payloads, mints the single ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tlog_core.checkpoint import open_checkpoint
from tlog_core.commitment import OPENING_BYTES, Opening, commit_all, verify_commitment
from tlog_core.encoding import (
    MAX_JSON_INTEGER,
    canonical_json,
    decode_base64,
    encode_base64,
    number_member,
    parse_json,
    text_member,
)
from tlog_core.entry import WriterSignature, encode_entries, parse_entry
from tlog_core.errors import MalformedError, ProofError
from tlog_core.merkle import HASH_BYTES, Hash, leaf_hash, leaf_hashes
from tlog_core.note import KEY_ID_BYTES, SIGNATURE_BYTES, VerifierKey
from tlog_core.policy import TrustPolicy, open_trusted
from tlog_core.proof import RangeProof, nodes_of_range, prove_each, verify_inclusion, verify_range
from tlog_core.writer import verify_writer

JSON_TYPE: Final = "application/json"
"""The payload type of an event whose payload is its RFC 8785 form."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The entry at `index`, the opening of its commitment, and its inclusion proof under a signed checkpoint."""

    entry: bytes
    payload_type: str
    opening: Opening
    index: int
    checkpoint: bytes
    proof: tuple[Hash, ...]

    def __bytes__(self) -> bytes:
        """Return the receipt as a JSON object, in RFC 8785 form, and a newline."""
        members = {
            "checkpoint": self.checkpoint.decode(),
            "entry": self.entry.decode(),
            "index": self.index,
            "opening": encode_base64(self.opening),
            "payload_type": self.payload_type,
            "proof": [encode_base64(sibling) for sibling in self.proof],
        }
        return canonical_json(members) + b"\n"


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """The receipt of a batch: its entries stand side by side from `first_index` on.

    The log took all of them from `writer` at `time`, in milliseconds. `openings` has one for each event, in order, and
    `signed` too if the writer signed them, with its sequences one after the other.
    """

    first_index: int
    time: int
    writer: str
    openings: tuple[Opening, ...]
    left: tuple[Hash, ...]
    right: tuple[Hash, ...]
    checkpoint: bytes
    signed: tuple[WriterSignature, ...] = ()

    def __bytes__(self) -> bytes:
        """Return the receipt as a JSON object, in RFC 8785 form, and a newline."""
        members: dict[str, Any] = {
            "checkpoint": self.checkpoint.decode(),
            "first_index": self.first_index,
            "left": [encode_base64(subtree) for subtree in self.left],
            "openings": [encode_base64(opening) for opening in self.openings],
            "right": [encode_base64(subtree) for subtree in self.right],
            "time": self.time,
            "writer": self.writer,
        }
        if self.signed:
            members["writer_sequence"] = self.signed[0].sequence
            members["writer_signatures"] = [encode_base64(one.signature) for one in self.signed]
        return canonical_json(members) + b"\n"


def parse_receipt(raw: bytes) -> Receipt:
    """Return the receipt in `raw`, with nothing checked but its form; raise MalformedError."""
    members = _object(raw, {"checkpoint", "entry", "index", "opening", "payload_type", "proof"})
    return Receipt(
        entry=text_member(members, "entry").encode(),
        payload_type=text_member(members, "payload_type"),
        opening=Opening(decode_base64(text_member(members, "opening"), length=OPENING_BYTES)),
        index=number_member(members, "index"),
        checkpoint=text_member(members, "checkpoint").encode(),
        proof=_hashes(members, "proof"),
    )


def parse_batch_receipt(raw: bytes) -> BatchReceipt:
    """Return the receipt of a batch in `raw`, with nothing checked but its form; raise MalformedError."""
    names = {"checkpoint", "first_index", "left", "openings", "right", "time", "writer"}
    members = _object(raw, names, {"writer_sequence", "writer_signatures"})
    return BatchReceipt(
        first_index=number_member(members, "first_index"),
        time=number_member(members, "time"),
        writer=text_member(members, "writer"),
        openings=tuple(map(Opening, _blobs(members, "openings", OPENING_BYTES))),
        left=_hashes(members, "left"),
        right=_hashes(members, "right"),
        checkpoint=text_member(members, "checkpoint").encode(),
        signed=_signed(members),
    )


def verify_receipt(
    receipt: Receipt,
    *,
    key: VerifierKey | TrustPolicy,
    payload: bytes | None = None,
    writer_keys: Sequence[VerifierKey] = (),
) -> None:
    """Check a receipt of the log `key`, and that `payload`, if given, is what was logged.

    In place of the log's key there may be a trust policy, whose quorum must then have cosigned. A JSON payload is
    checked in its RFC 8785 form (`encoding.canonicalize`). An entry of a writer of whom there is one of `writer_keys`
    must be signed by it. Raises MalformedError, SignatureError, or ProofError.
    """
    checkpoint = open_trusted(receipt.checkpoint, key)
    entry = parse_entry(receipt.entry)
    if entry.origin != checkpoint.origin:
        raise ProofError(f"the entry belongs to {entry.origin}, not to {checkpoint.origin}")
    verify_writer(entry, writer_keys)
    verify_inclusion(
        leaf=leaf_hash(receipt.entry),
        index=receipt.index,
        size=checkpoint.size,
        proof=receipt.proof,
        root=checkpoint.root,
    )
    if payload is not None:
        verify_commitment(entry.commitment, opening=receipt.opening, payload_type=receipt.payload_type, payload=payload)


def mint_receipts(
    batch: BatchReceipt,
    *,
    payloads: Sequence[bytes],
    key: VerifierKey,
    payload_type: str = JSON_TYPE,
    writer_keys: Sequence[VerifierKey] = (),
) -> list[Receipt]:
    """Return the single receipt of each event of a batch, after checking the batch against the log's `key`.

    `payloads` are those of the events, in order, and in RFC 8785 form if they are JSON. `writer_keys` as in
    `verify_receipt`. Raises MalformedError, SignatureError, or ProofError.
    """
    checkpoint = open_checkpoint(batch.checkpoint, key)
    if len(payloads) != len(batch.openings):
        raise ProofError(f"the receipt is for {len(batch.openings)} events, not {len(payloads)}")
    commitments = commit_all(batch.openings, payload_type, payloads)
    entries = encode_entries(
        commitments, origin=checkpoint.origin, time=batch.time, writer=batch.writer, signed=batch.signed
    )
    if any(one.name == batch.writer for one in writer_keys):
        for entry in entries:
            verify_writer(parse_entry(entry), writer_keys)
    leaves = leaf_hashes(entries)
    start, size = batch.first_index, checkpoint.size
    verify_range(leaves=leaves, start=start, size=size, left=batch.left, right=batch.right, root=checkpoint.root)
    node = nodes_of_range(leaves=leaves, start=start, proof=RangeProof(size, batch.left, batch.right))
    proofs = prove_each(start=start, end=start + len(entries), size=size, node=node)
    return [
        Receipt(entry, payload_type, opening, index, batch.checkpoint, proof)
        for index, (entry, opening, proof) in enumerate(zip(entries, batch.openings, proofs, strict=True), start)
    ]


def _object(raw: bytes, names: set[str], together: frozenset[str] | set[str] = frozenset()) -> dict[str, Any]:
    members = parse_json(raw)
    if not isinstance(members, dict) or set(members) not in (names, names | together):
        raise MalformedError(f"not an object with exactly the members {', '.join(sorted(names))}")
    return members


def _signed(members: dict[str, Any]) -> tuple[WriterSignature, ...]:
    if "writer_signatures" not in members:
        return ()
    first = number_member(members, "writer_sequence")
    signatures = _blobs(members, "writer_signatures", KEY_ID_BYTES + SIGNATURE_BYTES)
    if not signatures or len(signatures) != len(members["openings"]):
        raise MalformedError("a signed batch has as many writer_signatures as openings, and one at least")
    if first + len(signatures) - 1 > MAX_JSON_INTEGER:
        raise MalformedError("writer_sequence goes beyond 2^53-1")
    return tuple(WriterSignature(sequence, signature) for sequence, signature in enumerate(signatures, first))


def _blobs(members: dict[str, Any], name: str, length: int) -> list[bytes]:
    values = members[name]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise MalformedError(f"{name} is not a list of strings")
    return [decode_base64(value, length=length) for value in values]


def _hashes(members: dict[str, Any], name: str) -> tuple[Hash, ...]:
    return tuple(map(Hash, _blobs(members, name, HASH_BYTES)))
