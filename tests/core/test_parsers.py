"""What every parser of the core promises: any input gives a value or MalformedError, and a value has one form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlog_core.bulletin import (
    Bulletin,
    Round,
    SignedBulletin,
    Tally,
    Verified,
    parse_bulletin,
    sign_bulletin,
)
from tlog_core.checkpoint import parse_checkpoint, parse_head
from tlog_core.cosignature import Cosignature, parse_cosignature
from tlog_core.encoding import (
    canonical_json,
    decode_base64,
    encode_base64,
    parse_decimal,
    parse_json,
)
from tlog_core.entry import Entry, WriterSignature, parse_entry
from tlog_core.errors import MalformedError, SignatureError, TlogError
from tlog_core.evidence import Included, OtherEntry, format_evidence, parse_evidence
from tlog_core.gossip import Message, Peer, SignedMessage, format_peers, parse_message, parse_peers, sign_message
from tlog_core.merkle import Hash, leaf_hash
from tlog_core.note import SignerKey, VerifierKey, open_note, parse_note, parse_signer, parse_verifier, sign_note
from tlog_core.policy import parse_policy
from tlog_core.receipt import BatchReceipt, Receipt, parse_batch_receipt, parse_receipt
from tlog_core.tile import join_bundle, join_hashes, parse_path, split_bundle, split_hashes
from tlog_core.tlog_proof import format_tlog_proof, parse_tlog_proof

JSON = rb'{"a":[1,-2.5e-3,"\u00e4\ud83d\ude00",null,true],"b":{"":"]}"}}'
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"

WITNESS = "witness.example.org+b8a2cf20+BFLN3yikSfFkVAJtrnh/CiY3Zozkoy7clp+P7XB28qUN"


def text(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """Return the parser of a text as one of bytes, where bytes that are not UTF-8 become lone surrogates."""
    return lambda raw: parse(raw.decode("utf-8", "surrogateescape"))


def encoded(value: object) -> bytes:
    return str(value).encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Format:
    """A parser; what gives its input back, if the format has one form; and how it refuses."""

    parse: Callable[[bytes], Any]
    write: Callable[[Any], bytes] | None
    refusals: tuple[type[TlogError], ...] = (MalformedError,)


def again(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a parser of what has many forms, such as receipts, that reads what it read once more."""

    def parse_twice(raw: bytes) -> Any:
        value = parse(raw)
        assert parse(bytes(value)) == value
        return value

    return parse_twice


def stable(raw: bytes) -> Any:
    """Parse JSON, and check that its canonical form is read as the same value."""
    canonical = canonical_json(value := parse_json(raw))
    assert canonical_json(parse_json(canonical)) == canonical
    return value


@pytest.fixture(scope="session")
def formats(log: SignerKey) -> dict[str, Format]:
    return {
        "json": Format(stable, None),
        "decimal": Format(text(parse_decimal), encoded),
        "base64": Format(text(decode_base64), lambda data: encode_base64(data).encode()),
        "note": Format(parse_note, bytes),
        "signed note": Format(lambda raw: open_note(raw, [log.verifier]), None, (MalformedError, SignatureError)),
        "verifier key": Format(text(parse_verifier), encoded),
        "signer key": Format(text(parse_signer), lambda key: encoded(key.format())),
        "checkpoint": Format(text(parse_checkpoint), encoded),
        "checkpoint of any root": Format(text(parse_head), encoded),
        "cosignature": Format(parse_cosignature, bytes),
        "entry": Format(parse_entry, bytes),
        "receipt": Format(again(parse_receipt), None),
        "batch receipt": Format(again(parse_batch_receipt), None),
        "tlog-proof": Format(parse_tlog_proof, format_tlog_proof),
        "trust policy": Format(again(parse_policy), None),
        "evidence": Format(parse_evidence, format_evidence),
        "message": Format(parse_message, lambda signed: bytes(signed.note)),
        "text of a message": Format(lambda raw: signed_text(raw, log), lambda signed: str(signed.message).encode()),
        "list of peers": Format(text(parse_peers), lambda peers: format_peers(peers).encode()),
        "bulletin": Format(parse_bulletin, lambda signed: bytes(signed.note)),
        "text of a bulletin": Format(
            lambda raw: signed_bulletin(raw, log), lambda signed: str(signed.bulletin).encode()
        ),
        "path of a tile": Format(text(parse_path), encoded),
        "path of a bundle": Format(text(parse_path), encoded),
        "bundle": Format(lambda raw: split_bundle(raw, 2), join_bundle),
        "hashes": Format(lambda raw: split_hashes(raw, 2), join_hashes),
    }


def signed_text(raw: bytes, log: SignerKey) -> SignedMessage:
    """Parse the message of any text, right where the one who signs is at fault."""
    try:
        return parse_message(bytes(sign_note(raw.decode(), log)))
    except UnicodeDecodeError:
        raise MalformedError("no text that could be signed") from None


def signed_bulletin(raw: bytes, log: SignerKey) -> SignedBulletin:
    """Parse the bulletin of any text, likewise."""
    try:
        return parse_bulletin(bytes(sign_note(raw.decode(), log)))
    except UnicodeDecodeError:
        raise MalformedError("no text that could be signed") from None


def policy(log: SignerKey) -> bytes:
    return f"# why\nlog {log.verifier} https://log.example/\nwitness w {WITNESS}\ngroup g 1 w\nquorum g\n".encode()


@pytest.fixture(scope="session")
def samples(
    log: SignerKey, checkpoint: bytes, receipts: list[Receipt], batch_receipt: BatchReceipt
) -> dict[str, bytes]:
    receipt = receipts[1]
    included = Included(leaf_hash(receipt.entry), receipt.proof, parse_note(checkpoint))
    entry = parse_entry(receipt.entry)
    key = parse_verifier(VKEY)
    message = Message(key, 1_764_000_000_000, (b"evidence",), (checkpoint, b"head"), bytes(32))
    bulletin = Bulletin(
        log.name,
        1_764_000_000_000,
        Verified(7, Hash(bytes(32)), 1),
        Round(2, 3, 1),
        True,
        (Tally("complaint", "old", 1), Tally("evidence", "fork", 2)),
    )
    signed = Entry(entry.commitment, entry.origin, entry.time, "\u00e4", WriterSignature(3, bytes(range(68))))
    return {
        "json": JSON,
        "decimal": b"9223372036854775807",
        "base64": b"AAECAwQFBgcICQoLDA0ODw==",
        "note": checkpoint,
        "signed note": checkpoint,
        "verifier key": VKEY.encode(),
        "signer key": log.format().encode(),
        "checkpoint": checkpoint.split(b"\n\n")[0] + b"\n",
        "checkpoint of any root": b"o\n0\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "cosignature": bytes(Cosignature(1_764_000_000, bytes(64))),
        "entry": bytes(signed),
        "receipt": bytes(receipt),
        "batch receipt": bytes(batch_receipt),
        "tlog-proof": format_tlog_proof(receipt),
        "trust policy": policy(log),
        "evidence": format_evidence(OtherEntry(1, included, included)),
        "message": sign_message(message, log),
        "text of a message": str(message).encode(),
        "list of peers": format_peers([Peer(log.verifier, "https://monitor.example:8/a"), Peer(key)]).encode(),
        "bulletin": sign_bulletin(bulletin, log),
        "text of a bulletin": str(bulletin).encode(),
        "path of a tile": b"tile/1/x001/234.p/5",
        "path of a bundle": b"tile/entries/x001/x234/067",
        "bundle": b"\x00\x03abc\x00\x01d",
        "hashes": bytes(range(64)),
    }


NAMES = [
    "json",
    "decimal",
    "base64",
    "note",
    "signed note",
    "verifier key",
    "signer key",
    "checkpoint",
    "checkpoint of any root",
    "cosignature",
    "entry",
    "receipt",
    "batch receipt",
    "tlog-proof",
    "trust policy",
    "evidence",
    "message",
    "text of a message",
    "list of peers",
    "bulletin",
    "text of a bulletin",
    "path of a tile",
    "path of a bundle",
    "bundle",
    "hashes",
]


@st.composite
def mutated(draw: st.DrawFn, sample: bytes) -> bytes:
    """Draw `sample` with one to three small changes: bytes replaced, put in, taken out, or a bit flipped."""
    data = bytearray(sample)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        if place < len(data) and draw(st.booleans()):
            data[place] ^= 1 << draw(st.integers(0, 7))
        else:
            data[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def check(form: Format, raw: bytes) -> None:
    """Parse `raw`; any error but those promised fails the test, as does a value written in another way."""
    try:
        value = form.parse(raw)
    except form.refusals:
        return
    if form.write is not None:
        assert form.write(value) == raw


def test_every_format_has_a_sample_that_is_accepted(formats: dict[str, Format], samples: dict[str, bytes]) -> None:
    assert list(formats) == list(samples) == NAMES
    for name, form in formats.items():
        value = form.parse(samples[name])
        if form.write is not None:
            assert form.write(value) == samples[name]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=100)
def test_any_bytes_give_a_value_or_malformed_error(formats: dict[str, Format], name: str, data: st.DataObject) -> None:
    anything = st.binary(max_size=100) | st.text().map(lambda words: words.encode())
    check(formats[name], data.draw(anything))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=200)
def test_any_small_change_gives_a_value_or_malformed_error(
    formats: dict[str, Format], samples: dict[str, bytes], name: str, data: st.DataObject
) -> None:
    check(formats[name], data.draw(mutated(samples[name])))


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_cut_short_or_with_a_byte_more_is_refused_or_another_value(
    formats: dict[str, Format], samples: dict[str, bytes], name: str
) -> None:
    sample = samples[name]
    for end in range(len(sample)):
        check(formats[name], sample[:end])
        check(formats[name], sample[end:])
    for byte in range(256):
        check(formats[name], sample + bytes([byte]))
        check(formats[name], bytes([byte]) + sample)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)


@pytest.mark.parametrize("name", ["entry", "receipt", "batch receipt"])
@given(data=st.data())
def test_any_value_of_any_member_gives_a_value_or_malformed_error(
    formats: dict[str, Format], samples: dict[str, bytes], name: str, data: st.DataObject
) -> None:
    members = parse_json(samples[name])
    members[data.draw(st.sampled_from(sorted(members)))] = data.draw(json_values)
    try:
        raw = canonical_json(members)
    except MalformedError:
        return
    check(formats[name], raw)


def test_a_key_that_was_parsed_can_be_used() -> None:
    key = parse_verifier(VKEY)
    assert isinstance(key, VerifierKey)
    with pytest.raises(SignatureError):
        key.verify(b"message", bytes(64))
