from collections.abc import Callable
from dataclasses import replace

import pytest

from tlog_core.encoding import canonical_json, encode_base64
from tlog_core.errors import MalformedError
from tlog_core.merkle import EMPTY_ROOT
from tlog_core.note import SignerKey
from tlog_core.receipt import Receipt, parse_receipt, verify_receipt
from tlog_core.tlog_proof import format_tlog_proof, parse_tlog_proof

Change = Callable[[list[str]], list[str]]

HASH = encode_base64(bytes(32))


def test_a_receipt_is_read_back_from_its_file(receipts: list[Receipt], log: SignerKey) -> None:
    for receipt in receipts:
        again = parse_tlog_proof(format_tlog_proof(receipt))
        assert again == receipt
        verify_receipt(again, key=log.verifier)
        assert parse_receipt(bytes(again)) == receipt


def test_the_file_is_laid_out_as_the_specification_says(receipts: list[Receipt]) -> None:
    receipt = receipts[1]
    head, checkpoint = format_tlog_proof(receipt).split(b"\n\n", 1)
    lines = head.decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1].startswith("extra ")
    assert lines[2] == "index 1"
    assert lines[3:] == [encode_base64(sibling) for sibling in receipt.proof]
    assert checkpoint == receipt.checkpoint


def test_a_proof_of_no_hashes_and_one_of_63_are_read_back(receipts: list[Receipt]) -> None:
    for count in (0, 63):
        receipt = replace(receipts[1], proof=(EMPTY_ROOT,) * count)
        assert parse_tlog_proof(format_tlog_proof(receipt)) == receipt
    with pytest.raises(MalformedError, match="63"):
        parse_tlog_proof(format_tlog_proof(replace(receipts[1], proof=(EMPTY_ROOT,) * 64)))


def line(place: int, text: str) -> Change:
    return lambda lines: [*lines[:place], text, *lines[place + 1 :]]


def extra(**members: object) -> Change:
    whole = {"entry": "{}", "opening": HASH, "payload_type": "text/plain", **members}
    kept = {name: value for name, value in whole.items() if value is not None}
    return line(1, f"extra {encode_base64(canonical_json(kept))}")


def test_the_helper_of_these_tests_changes_nothing_by_itself(receipts: list[Receipt]) -> None:
    raw = format_tlog_proof(receipts[1])
    lines = raw.decode().split("\n")
    assert parse_tlog_proof("\n".join(extra()(lines)).encode()).entry == b"{}"


@pytest.mark.parametrize(
    "change",
    [
        line(0, "c2sp.org/tlog-proof@v2"),
        line(0, "c2sp.org/tlog-proof@v1 "),
        line(0, ""),
        lambda lines: lines[1:],
        lambda lines: ["", *lines],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [*lines[:2], *lines[3:]],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: lines[: lines.index("")],
        lambda lines: [*lines[: lines.index("")], "", ""],
        lambda lines: [lines[0], "", *lines[1:]],
        lambda lines: [text + "\r" for text in lines],
        line(1, "extra"),
        line(1, "extra "),
        line(1, "extra e30="),
        line(1, "extra e30"),
        line(1, "extra bnVsbA=="),
        line(1, "extra eyB9"),
        line(1, "more e30="),
        extra(entry=None),
        extra(entry=""),
        extra(entry=1),
        extra(opening=None),
        extra(opening=""),
        extra(opening=encode_base64(bytes(31))),
        extra(opening=HASH[:-1]),
        extra(payload_type=None),
        extra(payload_type=""),
        extra(payload_type=["text/plain"]),
        extra(note="a member too many"),
        line(1, "extra " + encode_base64(b'{"entry":"{}","opening":"%s", "payload_type":"t"}' % HASH.encode())),
        line(2, "index"),
        line(2, "index "),
        line(2, "index  1"),
        line(2, "index 1 "),
        line(2, "index 01"),
        line(2, "index +1"),
        line(2, "index -1"),
        line(2, "index \u0661"),
        line(2, "index 9223372036854775808"),
        line(2, "Index 1"),
        line(3, HASH[:-1]),
        line(3, HASH[:-2] + "B="),
        line(3, " " + HASH),
        line(3, encode_base64(bytes(31))),
        line(3, encode_base64(bytes(33))),
        line(3, "\u00e4"),
    ],
)
def test_a_file_in_any_other_form_is_refused(receipts: list[Receipt], change: Change) -> None:
    lines = format_tlog_proof(receipts[1]).decode().split("\n")
    with pytest.raises(MalformedError):
        parse_tlog_proof("\n".join(change(lines)).encode())


def test_a_file_that_is_not_utf8_is_refused(receipts: list[Receipt]) -> None:
    raw = format_tlog_proof(receipts[1])
    for wrong in (b"\xff" + raw, raw.replace(b"index 1", b"index \xff"), raw + b"\xff"):
        with pytest.raises(MalformedError, match="UTF-8"):
            parse_tlog_proof(wrong)
