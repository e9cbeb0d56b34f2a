import json
from dataclasses import replace
from typing import Any

import pytest

from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.commitment import Opening
from tlog_core.encoding import encode_base64
from tlog_core.errors import MalformedError, ProofError, SignatureError
from tlog_core.merkle import EMPTY_ROOT, Hash, leaf_hash
from tlog_core.note import SignerKey, signer_from_seed
from tlog_core.receipt import (
    BatchReceipt,
    Receipt,
    mint_receipts,
    parse_batch_receipt,
    parse_receipt,
    verify_receipt,
)

HASH = encode_base64(bytes(32))


def changed(raw: bytes, **members: Any) -> bytes:
    """Return a receipt with members replaced, or left out if None."""
    whole = {**json.loads(raw), **members}
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


def test_receipts_are_read_back(receipts: list[Receipt], batch_receipt: BatchReceipt) -> None:
    for receipt in receipts:
        assert parse_receipt(bytes(receipt)) == receipt
        assert bytes(receipt).endswith(b"}\n")
    assert parse_batch_receipt(bytes(batch_receipt)) == batch_receipt


def test_white_space_and_order_of_members_do_not_matter(receipts: list[Receipt], batch_receipt: BatchReceipt) -> None:
    def dressed(raw: bytes) -> bytes:
        return json.dumps(dict(reversed(json.loads(raw).items())), indent=2).encode()

    assert parse_receipt(dressed(bytes(receipts[2]))) == receipts[2]
    assert parse_batch_receipt(dressed(bytes(batch_receipt))) == batch_receipt


@pytest.mark.parametrize(
    "members",
    [
        {"checkpoint": None},
        {"checkpoint": ""},
        {"checkpoint": 1},
        {"entry": None},
        {"entry": ""},
        {"entry": {"v": 1}},
        {"index": None},
        {"index": -1},
        {"index": 2**53},
        {"index": 1.5},
        {"index": "1"},
        {"index": True},
        {"opening": None},
        {"opening": ""},
        {"opening": HASH[:-1]},
        {"opening": encode_base64(bytes(31))},
        {"payload_type": None},
        {"payload_type": ""},
        {"payload_type": ["application/json"]},
        {"proof": None},
        {"proof": HASH},
        {"proof": {"0": HASH}},
        {"proof": [1]},
        {"proof": [""]},
        {"proof": [HASH, HASH[:-1]]},
        {"proof": [encode_base64(bytes(33))]},
        {"payload": "a member too many"},
    ],
    ids=str,
)
def test_a_receipt_with_a_wrong_member_is_refused(receipts: list[Receipt], members: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse_receipt(changed(bytes(receipts[1]), **members))


@pytest.mark.parametrize(
    "members",
    [
        {"checkpoint": ""},
        {"first_index": None},
        {"first_index": -1},
        {"first_index": 2**53},
        {"time": None},
        {"time": 0.5},
        {"writer": ""},
        {"openings": HASH},
        {"openings": [encode_base64(bytes(31))]},
        {"openings": [None]},
        {"left": None},
        {"left": [HASH, ""]},
        {"right": [[]]},
        {"index": 1},
    ],
    ids=str,
)
def test_a_batch_receipt_with_a_wrong_member_is_refused(batch_receipt: BatchReceipt, members: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse_batch_receipt(changed(bytes(batch_receipt), **members))


def test_a_receipt_may_have_the_largest_index_that_json_has(
    receipts: list[Receipt], batch_receipt: BatchReceipt
) -> None:
    receipt = replace(receipts[1], index=2**53 - 1)
    assert parse_receipt(bytes(receipt)) == receipt
    batch = replace(batch_receipt, first_index=2**53 - 1, time=0)
    assert parse_batch_receipt(bytes(batch)) == batch


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{}", b'"receipt"', b"7", b"\xff"])
def test_what_is_no_object_is_no_receipt(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_receipt(raw)
    with pytest.raises(MalformedError):
        parse_batch_receipt(raw)


def test_a_member_given_twice_is_refused(receipts: list[Receipt]) -> None:
    with pytest.raises(MalformedError, match="two members"):
        parse_receipt(bytes(receipts[0]).replace(b'"index":0', b'"index":0,"index":1'))


def test_every_receipt_verifies(receipts: list[Receipt], payloads: list[bytes], log: SignerKey) -> None:
    for receipt in receipts:
        verify_receipt(receipt, key=log.verifier)
    for receipt, payload in zip(receipts[1:4], payloads, strict=True):
        verify_receipt(receipt, key=log.verifier, payload=payload)


def test_a_receipt_of_another_log_is_refused(receipts: list[Receipt], log: SignerKey) -> None:
    for key in (signer_from_seed(log.name, b"\x01" * 32), signer_from_seed("other.example", bytes(32))):
        with pytest.raises(SignatureError):
            verify_receipt(receipts[0], key=key.verifier)


def test_a_receipt_for_another_entry_place_or_proof_is_refused(receipts: list[Receipt], log: SignerKey) -> None:
    good, other = receipts[1], receipts[2]
    for wrong in (
        replace(good, entry=other.entry),
        replace(good, entry=good.entry.replace(b"till-7", b"till-8")),
        replace(good, index=other.index),
        replace(good, index=5),
        replace(good, index=2**53 - 1),
        replace(good, proof=other.proof),
        replace(good, proof=good.proof[1:]),
        replace(good, proof=good.proof[::-1]),
        replace(good, proof=(*good.proof, EMPTY_ROOT)),
        replace(good, proof=()),
    ):
        with pytest.raises(ProofError):
            verify_receipt(wrong, key=log.verifier)


def test_a_receipt_for_something_that_is_no_entry_is_refused(receipts: list[Receipt], log: SignerKey) -> None:
    for entry in (b"{}", b" " + receipts[1].entry, receipts[1].entry + b"\n"):
        with pytest.raises(MalformedError):
            verify_receipt(replace(receipts[1], entry=entry), key=log.verifier)


def test_an_entry_that_belongs_to_another_log_is_refused(receipts: list[Receipt], log: SignerKey) -> None:
    foreign = receipts[0].entry.replace(log.name.encode(), b"example.com/segments/other")
    checkpoint = bytes(sign_checkpoint(Checkpoint(log.name, 1, leaf_hash(foreign)), log))
    receipt = replace(receipts[0], entry=foreign, checkpoint=checkpoint, proof=())
    with pytest.raises(ProofError, match="belongs to"):
        verify_receipt(receipt, key=log.verifier)


def test_a_receipt_under_a_checkpoint_that_was_changed_is_refused(receipts: list[Receipt], log: SignerKey) -> None:
    note = receipts[1].checkpoint
    with pytest.raises(SignatureError):
        verify_receipt(replace(receipts[1], checkpoint=note.replace(b"\n5\n", b"\n6\n")), key=log.verifier)
    with pytest.raises(MalformedError):
        verify_receipt(replace(receipts[1], checkpoint=note[:-1]), key=log.verifier)


def test_a_payload_that_was_not_logged_is_refused(
    receipts: list[Receipt], payloads: list[bytes], log: SignerKey
) -> None:
    good, payload = receipts[1], payloads[0]
    for wrong, content in (
        (good, payloads[1]),
        (good, payload + b"\n"),
        (good, b""),
        (replace(good, opening=Opening(bytes(32))), payload),
        (replace(good, payload_type="text/plain"), payload),
    ):
        with pytest.raises(ProofError, match="payload"):
            verify_receipt(wrong, key=log.verifier, payload=content)
    with pytest.raises(MalformedError):
        verify_receipt(replace(good, payload_type="\u00e4"), key=log.verifier, payload=payload)


def test_minting_gives_the_single_receipts(
    batch_receipt: BatchReceipt, receipts: list[Receipt], payloads: list[bytes], log: SignerKey
) -> None:
    assert mint_receipts(batch_receipt, payloads=payloads, key=log.verifier) == receipts[1:4]


def test_a_batch_of_the_whole_log_needs_no_hashes(
    batch_receipt: BatchReceipt, receipts: list[Receipt], payloads: list[bytes], log: SignerKey
) -> None:
    root = leaf_hash(receipts[1].entry)
    checkpoint = bytes(sign_checkpoint(Checkpoint(log.name, 1, root), log))
    batch = replace(
        batch_receipt,
        first_index=0,
        openings=batch_receipt.openings[:1],
        left=(),
        right=(),
        checkpoint=checkpoint,
    )
    (minted,) = mint_receipts(batch, payloads=payloads[:1], key=log.verifier)
    verify_receipt(minted, key=log.verifier, payload=payloads[0])
    assert minted.proof == ()


def test_a_batch_receipt_with_anything_wrong_is_refused(
    batch_receipt: BatchReceipt, payloads: list[bytes], log: SignerKey
) -> None:
    good = batch_receipt
    for wrong in (
        replace(good, first_index=0),
        replace(good, first_index=2),
        replace(good, first_index=2**53 - 1),
        replace(good, time=good.time + 1),
        replace(good, writer="till-8"),
        replace(good, openings=good.openings[::-1]),
        replace(good, openings=good.openings[1:]),
        replace(good, openings=(*good.openings, Opening(bytes(32)))),
        replace(good, openings=()),
        replace(good, left=()),
        replace(good, left=good.right),
        replace(good, left=good.left * 2),
        replace(good, right=()),
        replace(good, right=(EMPTY_ROOT,)),
        replace(good, right=good.left + good.right),
        replace(good, right=(Hash(b""),)),
    ):
        with pytest.raises(ProofError):
            mint_receipts(wrong, payloads=payloads, key=log.verifier)
    with pytest.raises(MalformedError):
        mint_receipts(replace(good, writer="a" * 256), payloads=payloads, key=log.verifier)


def test_a_batch_receipt_for_other_payloads_is_refused(
    batch_receipt: BatchReceipt, payloads: list[bytes], log: SignerKey
) -> None:
    for wrong in (payloads[::-1], payloads[1:], [*payloads, b"{}"], [*payloads[:2], b"{}"], []):
        with pytest.raises(ProofError):
            mint_receipts(batch_receipt, payloads=wrong, key=log.verifier)


def test_a_batch_of_nothing_is_refused(batch_receipt: BatchReceipt, log: SignerKey) -> None:
    with pytest.raises(ProofError):
        mint_receipts(replace(batch_receipt, openings=()), payloads=[], key=log.verifier)


def test_a_batch_receipt_of_another_log_is_refused(
    batch_receipt: BatchReceipt, payloads: list[bytes], log: SignerKey
) -> None:
    key = signer_from_seed(log.name, b"\x01" * 32).verifier
    with pytest.raises(SignatureError):
        mint_receipts(batch_receipt, payloads=payloads, key=key)
