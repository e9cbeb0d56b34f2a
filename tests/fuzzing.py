"""What is fuzzed: each parser of bytes that come from elsewhere, how it may refuse them, and what holds if it does not.

`scripts/fuzz` drives these with atheris; `test_fuzzing.py` tries each on its seeds and on `tests/corpus`, where inputs
are kept that once broke something, or that reach what no seed does.
"""

import base64
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Final

import requests
from bundling import bundle_of, part_of
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Request
from urllib3 import HTTPResponse

from tlog.access.change import (
    AccessRequested,
    Change,
    PolicyApplied,
    SegmentCreated,
    TokenRotated,
    decode_change,
    encode_change,
)
from tlog.access.document import parse_policy as parse_access_policy
from tlog.access.issuer import Issuer, parse_issuers
from tlog.access.jwks import IssuerKeys
from tlog.access.oidc import Oidc
from tlog.access.token import parse_token, token_from_random
from tlog.api.body import read_events
from tlog.api.signed import read_envelopes
from tlog.canonical import Canonicalizer
from tlog.errors import ConfigError, TooLargeError, UnauthorizedError, UnavailableError, UnsupportedTypeError
from tlog.formats.syslog_message import format_message as format_syslog
from tlog.formats.syslog_message import parse_message as parse_syslog
from tlog.receivers import otlp_json, otlp_protobuf
from tlog.receivers.otlp_records import read_records
from tlog.witness.log_list import parse_log_list
from tlog.witness.submission import parse_submission, parse_subtree_request
from tlog_client.answers import parse_consistency, parse_inclusion, parse_opened, parse_page, verify_opened
from tlog_client.bundle.manifest import Listed, Manifest, parse_manifest
from tlog_client.bundle.part import Part
from tlog_client.bundle.report import report
from tlog_client.bundle.verify import trust_of, verify_bundle
from tlog_client.cloudtrail import parse_records
from tlog_client.files import Line, parse_event, read_lines
from tlog_client.sequences import Expected, parse_expected
from tlog_client.transport import Backoff, Transport
from tlog_client.watching import Followed, parse_followed
from tlog_core.bulletin import parse_bulletin
from tlog_core.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, parse_head
from tlog_core.cosignature import (
    Cosignature,
    Subtree,
    cosign,
    open_cosignature,
    parse_cosignature,
    verify_cosigned_subtree,
)
from tlog_core.encoding import canonical_json, canonicalize, decode_base64, encode_base64, parse_decimal, parse_json
from tlog_core.entry import parse_entry
from tlog_core.errors import EvidenceError, FetchError, MalformedError, ProofError, SignatureError, TlogError
from tlog_core.evidence import describe_evidence, format_evidence, parse_evidence
from tlog_core.gossip import format_peers, parse_message, parse_peers
from tlog_core.merkle import EMPTY_ROOT, HASH_BYTES, Hash, leaf_hash
from tlog_core.note import (
    COSIGNATURE,
    SUBTREE,
    Note,
    open_note,
    open_parsed,
    parse_note,
    parse_signer,
    parse_verifier,
    sign_note,
    signer_from_seed,
)
from tlog_core.policy import open_witnessed, parse_policy, verify_log
from tlog_core.proof import parse_hashes, prefix_root, verify_consistency, verify_inclusion, verify_range
from tlog_core.receipt import JSON_TYPE, mint_receipts, parse_batch_receipt, parse_receipt, verify_receipt
from tlog_core.tile import join_bundle, join_hashes, parse_path, split_bundle, split_hashes
from tlog_core.tlog_proof import format_tlog_proof, parse_tlog_proof
from tlog_core.writer import parse_writer_key, parse_writer_signer, verify_writer

ROOT: Final = Path(__file__).parent.parent
CORPUS: Final = ROOT / "tests" / "corpus"
VECTORS: Final = ROOT / "spec" / "vectors"

# The keys of spec/vectors, so that their signatures hold.
LOG: Final = signer_from_seed("example.com/segments/payments", bytes(32))
WITNESS: Final = signer_from_seed("witness.example", b"\x02" * 32, key_type=COSIGNATURE)
SUBTREE_WITNESS: Final = signer_from_seed("witness.example/w1", b"\x02" * 32, key_type=SUBTREE)
MONITOR: Final = signer_from_seed("monitor-7.example", b"\x07" * 32)
WRITER: Final = signer_from_seed("till-7", b"\x03" * 32)
POLICY: Final = parse_policy(
    f"log {LOG.verifier} https://log.example/\nwitness w {WITNESS.verifier}\nwitness v {SUBTREE_WITNESS.verifier}\n"
    f"group g any v w\nquorum g\n".encode()
)
NOW: Final = 1_764_000_000_000
ISSUER: Final = Issuer(
    issuer="https://id.example",
    audience=("tlog",),
    algorithms=("RS256", "PS256", "ES256", "ES384", "EdDSA"),
    name_prefix="id/",
    groups_claim="groups",
    jwks_uri="https://id.example/keys",
)
PAYLOADS: Final = [b'{"action":"pay","n":%d}' % number for number in range(1, 4)]


@dataclass(frozen=True)
class Target:
    """Parses any bytes and checks what it made of them; the errors by which it may refuse; inputs to begin from."""

    run: Callable[[bytes], object]
    seeds: Callable[[], Iterator[bytes]]
    refusals: tuple[type[TlogError], ...] = (MalformedError,)

    def check(self, raw: bytes) -> None:
        """Fail for any other error, and for a value that does not come out as it went in."""
        try:
            self.run(raw)
        except self.refusals as error:
            # A refusal is shown to people and sent as UTF-8.
            str(error)


def vectors(*members: str) -> Callable[[], Iterator[bytes]]:
    """Return what yields the members of these names, such as `note.note`, of all vectors."""

    def seeds() -> Iterator[bytes]:
        for folder, member in (name.split(".") for name in members):
            for path in sorted((VECTORS / folder).iterdir()):
                case = json.loads(path.read_text())
                if f"{member}_hex" in case or folder == "bundle":
                    yield bytes.fromhex(case.get(f"{member}_hex", case.get(member)))
                elif member in case:
                    yield case[member].encode("utf-8", "surrogatepass")

    return seeds


def given(*texts: str | bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: (text.encode() if isinstance(text, str) else text for text in texts)


def text(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """Return a parser of text as one of bytes, where bytes that are not UTF-8 become lone surrogates."""
    return lambda raw: parse(raw.decode("utf-8", "surrogateescape"))


def exact(parse: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> Callable[[bytes], Any]:
    """Return `parse`, checking that the value has one form."""

    def run(raw: bytes) -> Any:
        value = parse(raw)
        assert write(value) == raw
        return value

    return run


def again(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return `parse`, checking that what it read is read as the same when written."""

    def run(raw: bytes) -> Any:
        value = parse(raw)
        assert parse(bytes(value)) == value
        return value

    return run


def encoded(value: object) -> bytes:
    return str(value).encode("utf-8", "surrogateescape")


FAST: Final = Canonicalizer()


def outcome(parse: Callable[[bytes], bytes], raw: bytes) -> bytes | str:
    try:
        return parse(raw)
    except MalformedError as error:
        return str(error)


def read_json(raw: bytes) -> None:
    """The fast path of the server agrees with the strict one, refusals included, and a canonical form is its own."""
    assert outcome(FAST, raw) == outcome(canonicalize, raw)
    canonical = canonicalize(raw)
    assert canonicalize(canonical) == canonical == FAST(canonical)


def read_note(raw: bytes) -> None:
    exact(parse_note, bytes)(raw)
    open_note(raw, [LOG.verifier])


def read_checkpoint(raw: bytes) -> None:
    exact(text(parse_head), encoded)(raw)
    exact(text(parse_checkpoint), encoded)(raw)


def open_heads(raw: bytes) -> None:
    verify_log(note := parse_note(raw), POLICY)
    open_checkpoint(raw, LOG.verifier)
    open_witnessed(raw, POLICY)
    open_cosignature(note, WITNESS.verifier)


def open_subtrees(raw: bytes) -> None:
    """What is signed with ML-DSA-44: a cosignature, and a subtree of a size and a hash that others say."""
    note = parse_note(raw)
    for line in note.signatures:
        with suppress(MalformedError, SignatureError):
            verify_cosigned_subtree(
                line, Subtree(note.text[:-1], len(raw), 2 * len(raw), EMPTY_ROOT), SUBTREE_WITNESS.verifier
            )
    with suppress(MalformedError, SignatureError):
        open_witnessed(raw, POLICY)
    open_cosignature(note, SUBTREE_WITNESS.verifier)


def subtrees() -> Iterator[bytes]:
    text = str(Checkpoint(LOG.name, 5, EMPTY_ROOT))
    note = sign_note(text, LOG)
    for time in (0, NOW):
        line = cosign(text, time=time, signer=SUBTREE_WITNESS)
        yield bytes(replace(note, signatures=(*note.signatures, line)))


def read_entry(raw: bytes) -> None:
    verify_writer(exact(parse_entry, bytes)(raw), [WRITER.verifier])


def read_receipt(raw: bytes) -> None:
    receipt = again(parse_receipt)(raw)
    assert parse_tlog_proof(format_tlog_proof(receipt)) == receipt
    verify_receipt(receipt, payload=PAYLOADS[0], key=LOG.verifier)


def read_batch_receipt(raw: bytes) -> None:
    mint_receipts(again(parse_batch_receipt)(raw), payloads=PAYLOADS, key=LOG.verifier)


def read_tlog_proof(raw: bytes) -> None:
    receipt = exact(parse_tlog_proof, format_tlog_proof)(raw)
    verify_receipt(receipt, payload=PAYLOADS[0], key=LOG.verifier)


def read_trust_policy(raw: bytes) -> None:
    policy = again(parse_policy)(raw)
    policy.quorum_time({witness.name: number for number, witness in enumerate(policy.witnesses)})


def read_message(raw: bytes) -> None:
    message = exact(parse_message, lambda signed: bytes(signed.note))(raw)
    assert encoded(message.message) == encoded(message.note.text)
    open_parsed(message.note, [MONITOR.verifier])


def read_bulletin(raw: bytes) -> None:
    signed = exact(parse_bulletin, lambda signed: bytes(signed.note))(raw)
    assert encoded(signed.bulletin) == encoded(signed.note.text)
    open_parsed(signed.note, [MONITOR.verifier])


def read_evidence(raw: bytes) -> None:
    describe_evidence(exact(parse_evidence, format_evidence)(raw), POLICY)


def read_evidence_bundle(raw: bytes) -> None:
    report(verify_bundle(raw, trust_of(LOG.verifier)))


def read_manifest(raw: bytes) -> None:
    exact(parse_manifest, bytes)(raw)


def read_openings(raw: bytes) -> None:
    part = evidence_part()
    found = [(one.index, leaf) for one, leaf in replace(part, openings=raw).opened(LOG.name, str)]
    assert all(leaf in {leaf_hash(line) for line in part.entries.splitlines()} for _, leaf in found)


@cache
def evidence_part() -> Part:
    return part_of([(JSON_TYPE, b'{"n":0}'), ('text/plain; charset="utf-8"', b"x")])


def manifests() -> Iterator[bytes]:
    """Yield one of a range and one of a search."""
    asks: list[range | Mapping[str, str | int]] = [range(2), {"q": "x", "since": 1}]
    looked = {"access": range(1, 2), "control": None}
    for asked in asks:
        yield bytes(Manifest(asked, 0, "ann", (Listed("a", "00", 1),), LOG.name, looked, "fuzzing"))


def read_keys(raw: bytes) -> None:
    line = raw.decode("utf-8", "surrogateescape")
    for parse in (parse_signer, parse_writer_signer):
        with suppress(MalformedError):
            assert encoded(parse(line).format()) == raw
    exact(text(parse_verifier), encoded)(raw)
    exact(text(parse_writer_key), encoded)(raw)


def read_words(raw: bytes) -> None:
    """Decimals, base64, cosignatures and tokens: short texts, of which few bytes are any of these."""
    forms: list[tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = [
        (text(parse_decimal), encoded),
        (text(decode_base64), lambda data: encode_base64(data).encode()),
        (parse_cosignature, bytes),
        (lambda raw: parse_cosignature(raw, SUBTREE), bytes),
        (text(parse_token), lambda token: token.text().encode()),
        (text(parse_path), encoded),
    ]
    for parse, write in forms:
        with suppress(MalformedError):
            exact(parse, write)(raw)


def read_bundle(raw: bytes) -> None:
    width, data = raw[:1], raw[1:]
    number = int.from_bytes(width, "big") + 1
    with suppress(MalformedError):
        assert join_hashes(split_hashes(data, number)) == data
    assert join_bundle(split_bundle(data, number)) == data


def verify_proofs(raw: bytes) -> None:
    """Sizes, indexes and hashes that no parser has looked at give ProofError and nothing else, however large."""
    numbers = [int.from_bytes(raw[place : place + 8], "big", signed=True) for place in (0, 8)]
    hashes = [Hash(raw[place : place + HASH_BYTES]) for place in range(16, len(raw), HASH_BYTES)]
    old, new = numbers
    root = hashes.pop() if hashes else Hash(bytes(HASH_BYTES))
    checks: list[Callable[[], object]] = [
        lambda: verify_consistency(old_size=old, new_size=new, old_root=root, new_root=root, proof=hashes),
        lambda: verify_inclusion(leaf=root, index=old, size=new, proof=hashes, root=root),
        lambda: prefix_root(old_size=old, new_size=new, proof=hashes, new_root=root),
        lambda: verify_range(leaves=hashes[:1], start=old, size=new, left=hashes[1:3], right=hashes[3:], root=root),
        lambda: parse_hashes(raw[16:].decode("utf-8", "surrogateescape").split("\n")),
    ]
    for check in checks:
        with suppress(ProofError, MalformedError):
            check()


def read_answers(raw: bytes) -> None:
    """The log's answers, each of them to a question of ours."""
    parsers: list[Callable[[], object]] = [
        lambda: parse_page(raw, start=1, limit=2),
        lambda: parse_inclusion(raw, index=1, size=5),
        lambda: parse_consistency(raw, old_size=1, new_size=5),
    ]
    for parse in parsers:
        with suppress(MalformedError, FetchError):
            parse()
    opened = parse_opened(raw, index=1)
    with suppress(MalformedError):
        opened.event()
    verify_opened(opened, origin=LOG.name)


def read_state(raw: bytes) -> None:
    """The files in which a client keeps what it saw."""
    forms: list[Callable[[bytes], Any]] = [exact(parse_followed, bytes), exact(parse_expected, bytes)]
    for parse in forms:
        with suppress(MalformedError):
            parse(raw)


def read_input(raw: bytes) -> None:
    lines = list(read_lines(io.BytesIO(raw), "input"))
    assert b"\n".join(line.raw for line in lines) == raw.removesuffix(b"\n")
    for line in lines:
        parse_event(Line(line.where, line.raw))


def read_cloudtrail(raw: bytes) -> None:
    records = parse_records(raw)
    text = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    # As text, since not every number is equal to itself.
    assert repr([json.loads(record) for record in records]) == repr(json.loads(text)["Records"])


def read_otlp(raw: bytes) -> None:
    for encoding in (otlp_json.JSON, otlp_protobuf.PROTOBUF):
        found = read_records(raw, encoding)
        for text in found.texts:
            assert {"record", "resource", "scope"} <= json.loads(text).keys()
        # What could not be read cannot be read by itself, either.
        for fault in found.faults:
            assert not read_records(fault, encoding).texts


def read_signed_events(raw: bytes) -> None:
    kind, payloads, signed = read_envelopes(raw.split(b"\n"), FAST)
    assert kind is not None
    assert len(payloads) == len(signed.openings) == len(signed.signatures) == raw.count(b"\n") + 1


def read_request(raw: bytes) -> None:
    """The first line of the input as Content-Type, the rest as the body of a request that appends."""
    given, _, body = raw.partition(b"\n")
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": given.decode("latin-1"),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    events = read_events(Request(environ), FAST)
    assert events.payloads
    assert all(events.payloads)
    if events.kind == JSON_TYPE:
        assert all(canonicalize(payload) == payload for payload in events.payloads)


class Canned(requests.Session):
    """Answers every request with the first two bytes of the input as the status, and the rest as the body."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self._raw = raw

    def request(self, *_: object, **__: object) -> requests.Response:
        response = requests.Response()
        response.status_code = int.from_bytes(self._raw[:2], "big")
        response.raw = HTTPResponse(body=io.BytesIO(self._raw[2:]), preload_content=False)
        return response


def read_problem(raw: bytes) -> None:
    transport = Transport("https://log.example", session=Canned(raw), timeout=1, backoff=Backoff(attempts=1))
    assert transport.get("checkpoint", limit=1 << 20) == raw[2:]


def problems() -> Iterator[bytes]:
    problem = {"type": "urn:tlog:problem:malformed", "title": "Malformed request", "status": 400, "detail": "no"}
    for status in (200, 400, 503):
        yield status.to_bytes(2, "big") + canonical_json({**problem, "line": 3, "expected_sequence": 7})


def read_submission(raw: bytes) -> None:
    with suppress(MalformedError):
        asked = parse_subtree_request(raw)
        first = f"subtree {asked.start} {asked.end}"
        assert submitted(first, [asked.subtree, *asked.proof], asked.note) == raw
    submission = parse_submission(raw)
    assert submitted(f"old {submission.old}", submission.proof, submission.note) == raw


def submitted(first: str, hashes: Sequence[Hash], note: Note) -> bytes:
    return "\n".join([first, *map(encode_base64, hashes)]).encode() + b"\n\n" + bytes(note)


def read_change(raw: bytes) -> None:
    change = decode_change(raw)
    assert decode_change(encode_change(change)) == change


def read_jwks(raw: bytes) -> None:
    keys = IssuerKeys(ISSUER, lambda: NOW, lambda _: raw, BoundedSemaphore())
    for algorithm in ISSUER.algorithms:
        with suppress(UnauthorizedError, UnavailableError):
            keys.find("k", algorithm)


def read_discovery(raw: bytes) -> None:
    issuer = Issuer(issuer="https://id.example", audience=("a",), algorithms=("EdDSA",), name_prefix="id/")
    IssuerKeys(issuer, lambda: NOW, lambda url: raw if "well-known" in url else jwks(), BoundedSemaphore()).find(
        "k", "EdDSA"
    )


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwks() -> bytes:
    """Return a set with a key of each kind, all named k; that of RSA has a modulus that nobody can use."""
    point = ec.derive_private_key(1, ec.SECP256R1()).public_key().public_numbers()
    larger = ec.derive_private_key(1, ec.SECP384R1()).public_key().public_numbers()
    coordinates = [(number.to_bytes(32, "big")) for number in (point.x, point.y)]
    larger_coordinates = [number.to_bytes(48, "big") for number in (larger.x, larger.y)]
    modulus = ((1 << 2047) + 1).to_bytes(256, "big")
    keys = [
        {"kty": "OKP", "crv": "Ed25519", "x": _unpadded(LOG.verifier.public), "use": "sig"},
        {"kty": "EC", "crv": "P-256", "x": _unpadded(coordinates[0]), "y": _unpadded(coordinates[1])},
        {"kty": "EC", "crv": "P-384", "x": _unpadded(larger_coordinates[0]), "y": _unpadded(larger_coordinates[1])},
        {"kty": "RSA", "n": _unpadded(modulus), "e": "AQAB", "alg": "RS256"},
    ]
    return canonical_json({"keys": [{"kid": "k", **key} for key in keys]})


OIDC: Final = Oidc([ISSUER], lambda: NOW, lambda _: jwks())


def read_token(raw: bytes) -> None:
    """Any text as a token, and any bytes as the claims of a token that is well signed."""
    with suppress(UnauthorizedError):
        OIDC.identify(raw.decode("utf-8", "surrogateescape"))
    signed = f"{_unpadded(canonical_json({'alg': 'EdDSA', 'kid': 'k'}))}.{_unpadded(raw)}"
    OIDC.identify(f"{signed}.{_unpadded(LOG.sign(signed.encode()))}")


CLAIMS: Final = {"aud": "tlog", "exp": NOW // 1000 + 300, "groups": ["a", "b"], "iss": ISSUER.issuer, "sub": "alice"}
ACCESS_POLICY: Final = (ROOT / "tests" / "samples" / "policy.toml").read_bytes()
ISSUERS: Final = """[[issuer]]
issuer = "https://id.example"
audience = ["tlog"]
algorithms = ["ES256", "EdDSA"]
name_prefix = "id/"
principal_claim = "kubernetes.io/serviceaccount"
groups_claim = "groups"
jwks_uri = "http://127.0.0.1:1/keys"
"""
LOG_LIST: Final = f"# logs\nlogs/v0\n\nvkey {LOG.verifier}\norigin o\nqpd 86400\ncontact who@example.com\n"
ENVELOPE: Final = canonical_json(
    {
        "opening": encode_base64(bytes(32)),
        "payload": {"a": 1},
        "payload_type": "application/json",
        "writer_sequence": 0,
        "writer_signature": encode_base64(bytes(68)),
    }
)


def answers() -> Iterator[bytes]:
    receipt = parse_receipt(next(iter(vectors("receipt.receipt")())))
    opened = {
        "entry": receipt.entry.decode(),
        "index": 1,
        "opening": encode_base64(receipt.opening),
        "payload": parse_json(PAYLOADS[0]),
        "payload_type": receipt.payload_type,
    }
    opaque = opened | {"payload": "AAECAw==", "payload_type": "text/plain"}
    proof = [encode_base64(sibling) for sibling in receipt.proof]
    yield canonical_json(opened)
    yield canonical_json(opaque)
    yield canonical_json({"entries": [opened, opened | {"index": 2}]})
    yield canonical_json({"index": 1, "size": 5, "proof": proof})
    yield canonical_json({"old_size": 1, "new_size": 5, "proof": proof})


def submissions() -> Iterator[bytes]:
    for note in vectors("cosignature.note")():
        yield b"old 0\n\n" + note
        yield f"subtree 4 6\n{encode_base64(bytes(32))}\n{encode_base64(b'1' * 32)}\n\n".encode() + note
        yield f"old 3\n{encode_base64(bytes(32))}\n{encode_base64(b'1' * 32)}\n\n".encode() + note


def changes() -> Iterator[bytes]:
    key = str(LOG.verifier)
    token: dict[str, Any] = {"id": "0" * 16, "hash": "0" * 64, "principal": "till-7", "groups": ("a",), "expires": NOW}
    made: list[Change] = [
        SegmentCreated(by="ann", at=NOW, name="p", id="a", origin=LOG.name, vkey=key, labels={"env": "prod"}),
        PolicyApplied(by="ann", at=NOW, version=1, document="# none"),
        TokenRotated(by="ann", at=NOW, old="1" * 16, ends=NOW, **token),
        AccessRequested(by="ann", at=NOW, id="b", segment="p", reason="incident", milliseconds=1),
    ]
    yield from map(encode_change, made)


def peer_lists() -> Iterator[bytes]:
    """Yield the texts of the notes of the vectors."""
    for raw in vectors("peers.peers")():
        with suppress(MalformedError):
            yield encoded(parse_note(raw).text)


def bundles() -> Iterator[bytes]:
    yield from (b"\x02" + raw for raw in vectors("bundle.bundle")())
    yield b"\x01" + bytes(64)


HOLDS: Final = (MalformedError, ProofError, SignatureError, EvidenceError)
REFUSED: Final = (UnauthorizedError, UnavailableError)

TARGETS: Final[dict[str, Target]] = {
    "json": Target(read_json, vectors("json.json")),
    "note": Target(read_note, vectors("note.note"), HOLDS),
    "checkpoint": Target(
        read_checkpoint, given(str(Checkpoint("o", 0, EMPTY_ROOT)), str(Checkpoint("o/p", 12, EMPTY_ROOT)))
    ),
    "heads": Target(open_heads, vectors("checkpoint.checkpoint", "cosignature.note", "policy.checkpoint"), HOLDS),
    "subtrees": Target(open_subtrees, subtrees, HOLDS),
    "keys": Target(read_keys, lambda: iter([*vectors("vkey.vkey")(), LOG.format().encode()])),
    "entry": Target(read_entry, vectors("entry.entry", "writer.entry"), HOLDS),
    "receipt": Target(read_receipt, vectors("receipt.receipt"), HOLDS),
    "batch-receipt": Target(read_batch_receipt, vectors("batch-receipt.receipt"), HOLDS),
    "tlog-proof": Target(read_tlog_proof, vectors("tlog-proof.tlog_proof"), HOLDS),
    "trust-policy": Target(read_trust_policy, vectors("policy.policy")),
    "evidence": Target(read_evidence, vectors("evidence.evidence"), HOLDS),
    "message": Target(read_message, vectors("gossip.message"), HOLDS),
    "bulletin": Target(read_bulletin, vectors("bulletin.bulletin"), HOLDS),
    "peers": Target(exact(text(parse_peers), lambda peers: encoded(format_peers(peers))), peer_lists),
    "words": Target(
        read_words,
        lambda: iter(
            [
                *vectors("tile-path.path")(),
                b"9223372036854775807",
                b"AAECAwQFBgcICQoLDA0ODw==",
                bytes(Cosignature(1, bytes(64))),
                token_from_random(bytes(range(40))).text().encode(),
            ]
        ),
    ),
    "bundle": Target(read_bundle, bundles),
    "evidence-bundle": Target(read_evidence_bundle, lambda: iter([bundle_of(evidence_part(), 2)]), HOLDS),
    "manifest": Target(read_manifest, manifests),
    "openings": Target(read_openings, lambda: iter([evidence_part().openings]), HOLDS),
    "proofs": Target(verify_proofs, given(bytes(16), bytes(7) + b"\3" + bytes(7) + b"\7" + bytes(160))),
    "answers": Target(read_answers, answers, HOLDS),
    "state": Target(read_state, given(bytes(Followed(3, {"till-7": 2})), bytes(Expected(1, 2)))),
    "cloudtrail": Target(
        read_cloudtrail,
        given('{ "Records" : [{"eventID":"a","n":1.50} ,\n[]] }\n', gzip.compress(b'{"Records":[]}', mtime=0)),
    ),
    "syslog": Target(
        exact(parse_syslog, format_syslog),
        given(
            '<165>1 2003-10-11T22:14:15.003Z host app 7 ID47 [a@32473 b="\\]" c=""][d] \ufefftext',
            b"<34>1 - - - - - - \xff",
            "<34>Oct 11 22:14:15 host su[7]: text",
        ),
    ),
    "otlp": Target(
        read_otlp,
        given(
            b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1","body":{"intValue":2}},{"flags":-1}]}]}]}',
            bytes.fromhex("0a1a12180a030a017812110901000000000000002a0218024a026162"),
        ),
        (TooLargeError,),
    ),
    "input": Target(read_input, given(b'{"a":1}\n[2]\n"x"', b"1\n\n2\n")),
    "signed-events": Target(
        read_signed_events, given(ENVELOPE, ENVELOPE + b"\n" + ENVELOPE), (MalformedError, TooLargeError)
    ),
    "request": Target(
        read_request,
        lambda: (
            kind + b"\n" + body
            for kind, body in (
                (b"application/json", b'{"a": 1}'),
                (b'Application/JSON; charset="utf-8"', b"[1.50]"),
                (b"application/x-ndjson", b'{"a": 1}\n2\n'),
                (b"application/vnd.tlog.signed", ENVELOPE),
                (b"text/plain; charset=utf-8", b"words"),
            )
        ),
        (MalformedError, TooLargeError, UnsupportedTypeError),
    ),
    "problem": Target(read_problem, problems, (FetchError,)),
    "submission": Target(read_submission, submissions),
    "log-list": Target(lambda raw: parse_log_list(raw), given(LOG_LIST)),
    "access-policy": Target(parse_access_policy, given(ACCESS_POLICY)),
    "issuers": Target(parse_issuers, given(ISSUERS, ISSUERS + ISSUERS.replace("id", "di")), (ConfigError,)),
    "change": Target(read_change, changes),
    "jwks": Target(read_jwks, lambda: iter([jwks()])),
    "discovery": Target(
        read_discovery,
        given('{"issuer":"https://id.example","jwks_uri":"https://id.example/keys"}', '{"keys":[]}'),
        REFUSED,
    ),
    "token": Target(read_token, lambda: iter([canonical_json(CLAIMS)]), REFUSED),
}
