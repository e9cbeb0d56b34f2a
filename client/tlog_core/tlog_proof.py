"""The receipt as one text file that other tools of the ecosystem read (C2SP tlog-proof).

    c2sp.org/tlog-proof@v1
    extra <base64 of the JSON object of entry, opening and payload_type>
    index <decimal>
    <hash in base64, the leaf's sibling first>
    …

    <the checkpoint>

The `extra` line is ours: with it the file holds all that a receipt holds.
"""

from typing import Final

from tlog_core.commitment import OPENING_BYTES, Opening
from tlog_core.encoding import canonical_json, decode_base64, decode_text, encode_base64, parse_decimal, parse_json
from tlog_core.errors import MalformedError
from tlog_core.proof import parse_hashes
from tlog_core.receipt import Receipt

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_HASHES: Final = 63


def format_tlog_proof(receipt: Receipt) -> bytes:
    """Return a receipt as a tlog-proof file."""
    extra = canonical_json(
        {
            "entry": receipt.entry.decode(),
            "opening": encode_base64(receipt.opening),
            "payload_type": receipt.payload_type,
        }
    )
    lines = [HEADER, f"extra {encode_base64(extra)}", f"index {receipt.index}"]
    lines += [encode_base64(sibling) for sibling in receipt.proof]
    return "\n".join([*lines, "", ""]).encode() + receipt.checkpoint


def parse_tlog_proof(raw: bytes) -> Receipt:
    """Return the receipt in a tlog-proof file of ours, with nothing checked but its form; raise MalformedError."""
    head, _, checkpoint = decode_text(raw, "a tlog-proof").partition("\n\n")
    lines = head.split("\n")
    if lines[0] != HEADER or not checkpoint or len(lines) < 3:
        raise MalformedError(f"not a tlog-proof: it starts with {HEADER}, and the checkpoint follows an empty line")
    if len(lines) - 3 > MAX_HASHES:
        raise MalformedError(f"a tlog-proof has at most {MAX_HASHES} hashes")
    extra = _extra(_value(lines[1], "extra"))
    receipt = Receipt(
        entry=extra["entry"].encode(),
        payload_type=extra["payload_type"],
        opening=Opening(decode_base64(extra["opening"], length=OPENING_BYTES)),
        index=parse_decimal(_value(lines[2], "index")),
        checkpoint=checkpoint.encode(),
        proof=parse_hashes(lines[3:]),
    )
    if format_tlog_proof(receipt) != raw:
        raise MalformedError("the tlog-proof is not in its only form")
    return receipt


def _value(line: str, name: str) -> str:
    if not line.startswith(f"{name} "):
        raise MalformedError(f"expected a line that starts with {name}; a tlog-proof of ours has one")
    return line.removeprefix(f"{name} ")


def _extra(encoded: str) -> dict[str, str]:
    members = parse_json(decode_base64(encoded))
    if (
        not isinstance(members, dict)
        or set(members) != {"entry", "opening", "payload_type"}
        or not all(isinstance(value, str) and value for value in members.values())
    ):
        raise MalformedError("the extra line is not that of a tlog receipt")
    return members
