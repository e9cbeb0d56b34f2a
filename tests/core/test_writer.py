from dataclasses import replace

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.commitment import COMMITMENT_BYTES, Commitment, Opening, commit
from tlog_core.cosignature import cosign
from tlog_core.encoding import MAX_JSON_INTEGER
from tlog_core.entry import Entry, WriterSignature, encode_entries, parse_entry
from tlog_core.errors import MalformedError, ProofError, SignatureError
from tlog_core.merkle import Hash, leaf_hash
from tlog_core.note import COSIGNATURE, SignerKey, signer_from_seed
from tlog_core.receipt import JSON_TYPE, BatchReceipt, mint_receipts, parse_batch_receipt, verify_receipt
from tlog_core.writer import (
    parse_writer_key,
    parse_writer_signer,
    sign_commitments,
    verify_sequence,
    verify_signature,
    verify_writer,
)

ORIGIN = "example.com/segments/payments"
WRITER = signer_from_seed("till-7", bytes(range(32)))
OTHER = signer_from_seed("till-7", bytes(range(1, 33)))
ONE = Commitment(bytes(COMMITMENT_BYTES))
PAYLOADS = [b'{"n":%d}' % number for number in range(3)]
OPENINGS = tuple(Opening(bytes([number]) * 32) for number in range(3))


def signed_entry(commitment: Commitment = ONE, sequence: int = 0, signer: SignerKey = WRITER) -> Entry:
    [signed] = sign_commitments([commitment], origin=ORIGIN, first=sequence, signer=signer)
    return Entry(commitment, ORIGIN, 0, "till-7", signed)


def signature(entry: Entry) -> WriterSignature:
    assert entry.signed is not None
    return entry.signed


def batch(log: SignerKey) -> BatchReceipt:
    """Return the receipt of a log of three events that the writer signed, from sequence 5 on."""
    commitments = [
        commit(opening=opening, payload_type=JSON_TYPE, payload=payload)
        for opening, payload in zip(OPENINGS, PAYLOADS, strict=True)
    ]
    signed = tuple(sign_commitments(commitments, origin=log.name, first=5, signer=WRITER))
    entries = encode_entries(commitments, origin=log.name, time=1, writer="till-7", signed=signed)
    root = Hash(reference.mth([leaf_hash(entry) for entry in entries]))
    checkpoint = bytes(sign_checkpoint(Checkpoint(log.name, 3, root), log))
    return BatchReceipt(0, 1, "till-7", OPENINGS, (), (), checkpoint, signed)


def test_keys_of_writers_are_read_back_and_a_witness_is_no_writer() -> None:
    witness = signer_from_seed("till-7", bytes(32), key_type=COSIGNATURE)
    assert parse_writer_key(str(WRITER.verifier)) == WRITER.verifier
    assert parse_writer_signer(WRITER.format()).verifier == WRITER.verifier
    with pytest.raises(MalformedError, match="witness"):
        parse_writer_key(str(witness.verifier))
    with pytest.raises(MalformedError, match="witness"):
        parse_writer_signer(witness.format())


@given(st.binary(min_size=32, max_size=32), st.integers(0, MAX_JSON_INTEGER))
def test_what_a_writer_signs_verifies_by_its_key_and_by_no_other(commitment: bytes, sequence: int) -> None:
    entry = parse_entry(bytes(signed_entry(Commitment(commitment), sequence)))
    verify_writer(entry, [OTHER.verifier, WRITER.verifier])
    # Of a writer whose key is not known nothing is said.
    verify_writer(entry, [signer_from_seed("till-8", bytes(32)).verifier])
    for keys in ([OTHER.verifier], [replace(WRITER.verifier, public=OTHER.verifier.public)]):
        with pytest.raises(SignatureError):
            verify_writer(entry, keys)
    for wrong in (
        replace(entry, origin="example.com/segments/refunds"),
        replace(entry, commitment=Commitment(bytes(31) + b"\x01")),
        replace(entry, signed=replace(signature(entry), sequence=sequence ^ 1)),
        replace(entry, signed=None),
    ):
        with pytest.raises(SignatureError):
            verify_writer(wrong, [WRITER.verifier])


def test_a_signature_for_one_purpose_is_none_for_another(log: SignerKey) -> None:
    checkpoint = Checkpoint(ORIGIN, 0, Hash(bytes(32)))
    line = sign_checkpoint(checkpoint, signer_from_seed(ORIGIN, bytes(range(32)))).signatures[0]
    witness = signer_from_seed("till-7", bytes(range(32)), key_type=COSIGNATURE)
    cosigned = cosign(str(checkpoint), time=1, signer=witness)
    for blob in (line.blob, cosigned.blob[-64:]):
        forged = replace(signature(signed_entry()), signature=WRITER.verifier.id + blob)
        with pytest.raises(SignatureError):
            verify_signature(forged, origin=ORIGIN, writer="till-7", commitment=ONE, keys=[WRITER.verifier])
    own = signature(signed_entry())
    with pytest.raises(SignatureError):
        log.verifier.verify(str(checkpoint).encode(), own.signature[4:])


def test_sequences_go_on_one_by_one() -> None:
    assert verify_sequence(signed_entry(sequence=0), 0) == 1
    assert verify_sequence(signed_entry(sequence=7), 7) == 8
    with pytest.raises(ProofError, match="2 entries of till-7 are missing before sequence 3"):
        verify_sequence(signed_entry(sequence=3), 1)
    with pytest.raises(ProofError, match="sequence 3 of till-7 comes again, where 4 was to come"):
        verify_sequence(signed_entry(sequence=3), 4)
    with pytest.raises(ProofError, match="no sequence"):
        verify_sequence(replace(signed_entry(), signed=None), 0)


def test_receipts_of_a_signed_batch_are_minted_offline_and_show_its_signatures(log: SignerKey) -> None:
    receipt = batch(log)
    assert parse_batch_receipt(bytes(receipt)) == receipt
    minted = mint_receipts(receipt, payloads=PAYLOADS, key=log.verifier, writer_keys=[WRITER.verifier])
    for number, one in enumerate(minted):
        verify_receipt(one, key=log.verifier, payload=PAYLOADS[number], writer_keys=[WRITER.verifier])
        assert verify_sequence(parse_entry(one.entry), 5 + number) == 6 + number
        with pytest.raises(SignatureError):
            verify_receipt(one, key=log.verifier, writer_keys=[OTHER.verifier])
    with pytest.raises(SignatureError):
        mint_receipts(receipt, payloads=PAYLOADS, key=log.verifier, writer_keys=[OTHER.verifier])
