"""Evidence: statements of a log or a witness that it cannot have made honestly, in one file (`spec/evidence.md`).

    tlog/evidence/v1
    <kind: empty, fork, prefix, entry or backdating>
    [witness <vkey>]
    [index <decimal>]
    [leaf <hash in base64>, or entry <base64>]
    [<hash in base64>]
    …

    <a signed note>

    [<another signed note>]

Whom to believe is never taken from the file, but from the trust policy of the one who judges. An honest log, and an
honest witness, cannot be convicted by anything that others make of what they signed.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tlog_core.checkpoint import Checkpoint, parse_head
from tlog_core.cosignature import open_cosignature
from tlog_core.encoding import decode_base64, decode_text, encode_base64, parse_decimal
from tlog_core.entry import parse_entry
from tlog_core.errors import EvidenceError, MalformedError, ProofError, SignatureError
from tlog_core.merkle import EMPTY_ROOT, HASH_BYTES, Hash, NodeReader, leaf_hash
from tlog_core.note import Note, VerifierKey, parse_note, parse_verifier
from tlog_core.policy import TrustPolicy, open_witnessed, verify_log
from tlog_core.proof import parse_hashes, prefix_root, prove_inclusion, prove_prefix, verify_inclusion
from tlog_core.receipt import Receipt

HEADER: Final = "tlog/evidence/v1"
MAX_EVIDENCE_BYTES: Final = 16_384

MAX_LAG: Final = 86_400
"""Seconds after the time of an entry until, at the latest, the witnesses of an honest log have cosigned it."""

MAX_AHEAD: Final = 300
"""Seconds that a cosignature may be ahead of the clock of who judges it; later ones say nothing yet."""

MAX_LINES: Final = 8
"""How many lines of a log, which may sign by several keys, evidence has of each head, so that there is room."""

_SEGMENT: Final = re.compile(r".+/segments/[a-z0-9][a-z0-9-]{0,62}")
_WITNESS: Final = "witness "
_LEAF: Final = "leaf "

FormatTime = Callable[[int], str]
"""Given milliseconds since the epoch, a time for people to read."""


@dataclass(frozen=True, slots=True)
class EmptyRoot:
    """A log signed a head of size 0 whose root is not that of no entries."""

    head: Note


@dataclass(frozen=True, slots=True)
class Fork:
    """A log signed, or `witness` cosigned, two roots of one size."""

    one: Note
    other: Note
    witness: VerifierKey | None = None


@dataclass(frozen=True, slots=True)
class Prefix:
    """A log signed, or `witness` cosigned, a head that by the prefix proof is not a prefix of the larger one."""

    older: Note
    newer: Note
    proof: tuple[Hash, ...]
    witness: VerifierKey | None = None


@dataclass(frozen=True, slots=True)
class Included:
    """A leaf hash, and its inclusion proof under a signed head."""

    leaf: Hash
    proof: tuple[Hash, ...]
    head: Note


@dataclass(frozen=True, slots=True)
class OtherEntry:
    """A log has two entries at one index, each under a head that it signed."""

    index: int
    one: Included
    other: Included


@dataclass(frozen=True, slots=True)
class Backdating:
    """An entry under a signed head, and a head without it that the quorum cosigned long after the entry's time.

    It proves that the log did not show the entry to its witnesses within MAX_LAG seconds, as it promises, and not why:
    a log that was down for that long is convicted too.
    """

    index: int
    entry: bytes
    proof: tuple[Hash, ...]
    head: Note
    earlier: Note


Evidence = EmptyRoot | Fork | Prefix | OtherEntry | Backdating


def format_evidence(evidence: Evidence) -> bytes:
    """Return the file of evidence; MalformedError if it would be larger than 16 KiB: drop the lines of other keys."""
    match evidence:
        case EmptyRoot():
            lines = ["empty"]
        case Fork():
            lines = ["fork", *_witness_line(evidence.witness)]
        case Prefix():
            lines = ["prefix", *_witness_line(evidence.witness), *_hash_lines(evidence.proof)]
        case OtherEntry(index, first, second):
            lines = ["entry", f"index {index}", *_included_lines(first), *_included_lines(second)]
        case _:
            lines = ["backdating", f"index {evidence.index}", f"entry {encode_base64(evidence.entry)}"]
            lines += _hash_lines(evidence.proof)
    raw = "\n".join([HEADER, *lines, "", ""]).encode() + b"\n".join(map(bytes, evidence_heads(evidence)))
    if len(raw) > MAX_EVIDENCE_BYTES:
        raise MalformedError(f"evidence has at most {MAX_EVIDENCE_BYTES} bytes")
    return raw


def parse_evidence(raw: bytes) -> Evidence:
    """Return the evidence in a file, with nothing checked but its form; raise MalformedError."""
    if len(raw) > MAX_EVIDENCE_BYTES:
        raise MalformedError(f"evidence has at most {MAX_EVIDENCE_BYTES} bytes")
    head, *parts = decode_text(raw, "evidence").removesuffix("\n").split("\n\n")
    if len(parts) % 2:
        raise MalformedError("each note of evidence is a text, an empty line, and signature lines")
    evidence = _assemble(head.split("\n"), [_note(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)])
    if format_evidence(evidence) != raw:
        raise MalformedError("the evidence is not in its only form")
    return evidence


def verify_evidence(evidence: Evidence, policy: TrustPolicy, *, now: float = math.inf) -> None:
    """Check that evidence proves misbehaviour of a log or a witness that the policy knows; raise EvidenceError.

    `now` is in POSIX seconds. If it is given, what witnesses say of times still to come proves nothing.
    """
    describe_evidence(evidence, policy, now=now)


def describe_evidence(
    evidence: Evidence, policy: TrustPolicy, *, now: float = math.inf, format_time: FormatTime = "{} ms".format
) -> str:
    """Return who did what, in one sentence, after `verify_evidence`; raise EvidenceError as it does."""
    try:
        match evidence:
            case EmptyRoot():
                return _judge_empty(evidence, policy)
            case Fork():
                return _judge_fork(evidence, policy)
            case Prefix():
                return _judge_prefix(evidence, policy)
            case OtherEntry():
                return _judge_entry(evidence, policy)
            case _:
                return _judge_backdating(evidence, policy, now, format_time)
    except (MalformedError, ProofError, SignatureError) as error:
        raise EvidenceError(str(error)) from None


def accused_witness(evidence: Evidence) -> VerifierKey | None:
    """Return the key of the witness that evidence accuses, None if it accuses the log."""
    return evidence.witness if isinstance(evidence, Fork | Prefix) else None


def evidence_heads(evidence: Evidence) -> tuple[Note, ...]:
    """Return the one or two heads that evidence rests on, in the order of the file."""
    match evidence:
        case EmptyRoot(head):
            return (head,)
        case Fork(one, other):
            return one, other
        case Prefix(older, newer):
            return older, newer
        case OtherEntry(_, first, second):
            return first.head, second.head
        case _:
            return evidence.head, evidence.earlier


def only_log(note: Note) -> Note:
    """Return a head with lines of its log alone, as many as evidence has; those of others would only make it larger."""
    # They are known by the origin, which is the name of the log's keys.
    origin = parse_head(note.text).origin
    return Note(note.text, tuple(line for line in note.signatures if line.name == origin)[:MAX_LINES])


def find_contradiction(
    one: Note, other: Note, *, node: NodeReader, witness: VerifierKey | None = None
) -> EmptyRoot | Fork | Prefix | None:
    """Return the evidence that two heads make, or None if they agree, or are those of two logs.

    Both are signed by the log, or cosigned by `witness`, and have no lines but those that the caller has verified.
    `node` reads the tree of the larger head, from whoever holds its leaves; it is not asked if the sizes are equal.
    Raises ProofError if `node` is of another tree.
    """
    (older, a), (newer, b) = sorted(
        ((_only(note, witness), parse_head(note.text)) for note in (one, other)),
        key=lambda pair: (pair[1].size, pair[1].root),
    )
    if a.origin != b.origin or (a.size, a.root) == (b.size, b.root):
        return None
    if a.size == b.size:
        return Fork(older, newer, witness)
    if a.size == 0:
        return None if a.root == EMPTY_ROOT or witness is not None else EmptyRoot(older)
    proof = tuple(prove_prefix(old_size=a.size, new_size=b.size, node=node))
    root = prefix_root(old_size=a.size, new_size=b.size, proof=proof, new_root=b.root)
    return None if root == a.root else Prefix(older, newer, proof, witness)


def judge_proof(older: Note, newer: Note, proof: Sequence[Hash]) -> Fork | Prefix | None:
    """Return the evidence that two heads of a log, verified by the caller, make with a consistency proof of anyone.

    None if they make none: they agree, or the proof does not lead to the newer root, or, where the older size is a
    power of two, does not say what it starts from (RFC 9162 section 2.1.4.1). Two heads of one size need no proof.
    """
    a, b = parse_head(older.text), parse_head(newer.text)
    if a.size == b.size:
        return None if a.root == b.root else Fork(_only(older, None), _only(newer, None))
    try:
        root = prefix_root(old_size=a.size, new_size=b.size, proof=proof, new_root=b.root)
    except ProofError:
        return None
    return None if root == a.root else Prefix(_only(older, None), _only(newer, None), tuple(proof))


def find_other_entry(receipt: Receipt, head: Note, *, node: NodeReader) -> OtherEntry | None:
    """Return the evidence that a receipt and a head of the same log make, both verified by the caller.

    None if the head's tree has the entry of the receipt at its index, or is too small to have any. `node` reads that
    tree.
    """
    leaf, size = leaf_hash(receipt.entry), parse_head(head.text).size
    if receipt.index >= size or (there := node(0, receipt.index)) == leaf:
        return None
    return OtherEntry(
        receipt.index,
        Included(leaf, receipt.proof, _only(parse_note(receipt.checkpoint), None)),
        Included(there, tuple(prove_inclusion(index=receipt.index, size=size, node=node)), _only(head, None)),
    )


def _judge_empty(evidence: EmptyRoot, policy: TrustPolicy) -> str:
    head = _open(evidence.head, policy)
    if head.size != 0 or head.root == EMPTY_ROOT:
        raise EvidenceError("the head is not one of size 0 with another root than that of no entries")
    return f"log {head.origin} signed the root {encode_base64(head.root)} of 0 entries, which no tree has"


def _judge_fork(evidence: Fork, policy: TrustPolicy) -> str:
    one, other = _open_pair(evidence.one, evidence.other, policy, evidence.witness)
    if one.size != other.size or one.root == other.root:
        raise EvidenceError("the heads are not two roots of one size")
    roots = f"{encode_base64(one.root)} and {encode_base64(other.root)}"
    return f"{_accuse(evidence.witness, one)} two roots of {one.size} entries: {roots}"


def _judge_prefix(evidence: Prefix, policy: TrustPolicy) -> str:
    older, newer = _open_pair(evidence.older, evidence.newer, policy, evidence.witness)
    root = prefix_root(old_size=older.size, new_size=newer.size, proof=evidence.proof, new_root=newer.root)
    if root == older.root:
        raise EvidenceError("the older head is a prefix of the newer one")
    return (
        f"{_accuse(evidence.witness, older)} the root {encode_base64(older.root)} of {older.size} entries, but under "
        f"the root {encode_base64(newer.root)} of {newer.size} entries the first {older.size} have the root "
        f"{encode_base64(root)}"
    )


def _judge_entry(evidence: OtherEntry, policy: TrustPolicy) -> str:
    one, other = _open_pair(evidence.one.head, evidence.other.head, policy, None)
    if evidence.one.leaf == evidence.other.leaf:
        raise EvidenceError("both heads have the same entry at that index")
    for head, included in ((one, evidence.one), (other, evidence.other)):
        verify_inclusion(leaf=included.leaf, index=evidence.index, size=head.size, proof=included.proof, root=head.root)
    return (
        f"{_accuse(None, one)} two entries at index {evidence.index}: leaf hash {encode_base64(evidence.one.leaf)} of "
        f"{one.size} entries, and {encode_base64(evidence.other.leaf)} of {other.size}"
    )


def _judge_backdating(evidence: Backdating, policy: TrustPolicy, now: float, format_time: FormatTime) -> str:
    head, earlier = _open_pair(evidence.head, evidence.earlier, policy, None)
    # In another log anybody may have had bytes put in that read like an entry: only a segment makes its entries itself.
    entry = parse_entry(evidence.entry)
    if _SEGMENT.fullmatch(head.origin) is None or entry.origin != head.origin:
        raise EvidenceError("the entry is not one of a segment, in its own log")
    leaf, index = leaf_hash(evidence.entry), evidence.index
    verify_inclusion(leaf=leaf, index=index, size=head.size, proof=evidence.proof, root=head.root)
    time = open_witnessed(bytes(evidence.earlier), policy).time
    if time is None:
        raise EvidenceError("the trust policy asks for no witnesses, whose time would count")
    if time > now + MAX_AHEAD:
        raise EvidenceError("the earlier head was cosigned at a time that is still to come")
    if earlier.size > index:
        raise EvidenceError("the earlier head is large enough to have the entry")
    if time <= entry.time // 1000 + MAX_LAG:
        raise EvidenceError(f"the entry is not dated more than {MAX_LAG} seconds before the earlier head was cosigned")
    return (
        f"log {head.origin} dated entry {index} to {format_time(entry.time)}, but the quorum of its witnesses knew of "
        f"no more than {earlier.size} entries at {format_time(time * 1000)}"
    )


def _open_pair(
    one: Note, other: Note, policy: TrustPolicy, witness: VerifierKey | None
) -> tuple[Checkpoint, Checkpoint]:
    first, second = _open(one, policy, witness), _open(other, policy, witness)
    if first.origin != second.origin:
        raise EvidenceError(f"the heads are those of two logs, {first.origin} and {second.origin}")
    return first, second


def _open(note: Note, policy: TrustPolicy, witness: VerifierKey | None = None) -> Checkpoint:
    if witness is None:
        verify_log(note, policy)
    elif any(known.key == witness for known in policy.witnesses):
        open_cosignature(note, witness)
    else:
        raise EvidenceError(f"the trust policy has no witness {witness.name} with that key")
    return parse_head(note.text)


def _accuse(witness: VerifierKey | None, head: Checkpoint) -> str:
    if witness is None:
        return f"log {head.origin} signed"
    return f"witness {witness.name} cosigned for {head.origin}"


def _only(note: Note, witness: VerifierKey | None) -> Note:
    if witness is None:
        return only_log(note)
    lines = [line for line in note.signatures if (line.name, line.key_id) == (witness.name, witness.id)]
    return Note(note.text, tuple(lines))


def _witness_line(witness: VerifierKey | None) -> list[str]:
    return [] if witness is None else [f"{_WITNESS}{witness}"]


def _hash_lines(hashes: Sequence[Hash]) -> list[str]:
    return [encode_base64(value) for value in hashes]


def _included_lines(included: Included) -> list[str]:
    return [f"{_LEAF}{encode_base64(included.leaf)}", *_hash_lines(included.proof)]


def _note(text: str, lines: str) -> Note:
    note = parse_note(f"{text}\n\n{lines}\n".encode())
    parse_head(note.text)
    return note


def _assemble(lines: list[str], notes: list[Note]) -> Evidence:
    if lines[0] != HEADER:
        raise MalformedError(f"evidence starts with {HEADER}")
    match lines[1:], notes:
        case ["empty"], [head]:
            return EmptyRoot(head)
        case ["fork", *rest], [one, other]:
            return Fork(one, other, *_witness(rest[:1]))
        case ["prefix", *rest], [older, newer]:
            witness = _witness(rest[:1])
            return Prefix(older, newer, parse_hashes(rest[len(witness) :]), *witness)
        case ["entry", index, *rest], [one, other]:
            first, second = _split(rest)
            number = parse_decimal(_value(index, "index "))
            return OtherEntry(number, _included(first, one), _included(second, other))
        case ["backdating", index, entry, *proof], [head, earlier]:
            number, raw = parse_decimal(_value(index, "index ")), decode_base64(_value(entry, "entry "))
            return Backdating(number, raw, parse_hashes(proof), head, earlier)
    raise MalformedError("not the lines and notes of any kind of evidence")


def _witness(lines: list[str]) -> list[VerifierKey]:
    return [parse_verifier(line.removeprefix(_WITNESS)) for line in lines if line.startswith(_WITNESS)]


def _split(lines: list[str]) -> tuple[list[str], list[str]]:
    starts = [place for place, line in enumerate(lines) if line.startswith(_LEAF)]
    if len(starts) != 2:
        raise MalformedError("evidence of two entries has two lines that start with leaf")
    return lines[: starts[1]], lines[starts[1] :]


def _included(lines: list[str], head: Note) -> Included:
    leaf = Hash(decode_base64(_value(lines[0], _LEAF), length=HASH_BYTES))
    return Included(leaf, parse_hashes(lines[1:]), head)


def _value(line: str, name: str) -> str:
    if not line.startswith(name):
        raise MalformedError(f"expected a line that starts with {name.strip()}")
    return line.removeprefix(name)
