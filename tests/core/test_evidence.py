"""What convicts, and what never does. Trees here are honest unless they are called forks."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import reference

from tlog_core.checkpoint import Checkpoint, parse_head
from tlog_core.commitment import Commitment, Opening
from tlog_core.cosignature import cosign
from tlog_core.encoding import encode_base64
from tlog_core.entry import Entry
from tlog_core.errors import EvidenceError, MalformedError, ProofError, SignatureError
from tlog_core.evidence import (
    MAX_AHEAD,
    MAX_EVIDENCE_BYTES,
    MAX_LAG,
    Backdating,
    EmptyRoot,
    Evidence,
    Fork,
    Included,
    OtherEntry,
    Prefix,
    accused_witness,
    describe_evidence,
    evidence_heads,
    find_contradiction,
    find_other_entry,
    format_evidence,
    judge_proof,
    parse_evidence,
    verify_evidence,
)
from tlog_core.merkle import EMPTY_ROOT, Frontier, Hash, leaf_hash, range_hash
from tlog_core.note import COSIGNATURE, Note, Signature, SignerKey, VerifierKey, sign_note, signer_from_seed
from tlog_core.policy import parse_policy
from tlog_core.proof import prove_consistency, prove_inclusion, prove_prefix
from tlog_core.receipt import JSON_TYPE, Receipt

LOG = signer_from_seed("example.com/segments/payments", bytes(32))
OTHER = signer_from_seed("example.com/segments/other", b"\x01" * 32)
STRANGER = signer_from_seed(LOG.name, b"\x02" * 32)
WITNESSES = [signer_from_seed(f"w{n}.example", bytes([n]) * 32, key_type=COSIGNATURE) for n in (3, 4, 5)]
WITNESS = WITNESSES[0].verifier
KEYS = "".join(f"log {log.verifier}\n" for log in (LOG, OTHER)) + "".join(
    f"witness {witness.name} {witness.verifier}\n" for witness in WITNESSES
)
POLICY = parse_policy(f"{KEYS}group two 2 {' '.join(one.name for one in WITNESSES)}\nquorum two\n".encode())

SIZES = range(65)
TIME = 1_764_000_000_000
"""Of every entry, in milliseconds. An honest log's witnesses cosign it a second later."""


VECTORS = Path(__file__).parent.parent.parent / "spec" / "vectors" / "evidence"


def entry(index: int, *, time: int = TIME, origin: str = LOG.name) -> bytes:
    return bytes(Entry(Commitment(bytes([index]) * 32), origin, time, "alice"))


class Tree:
    """A tree of 64 entries, the first `shared` of which are those of the honest log."""

    def __init__(self, shared: int = 64) -> None:
        self.entries = [entry(index if index < shared else index + 100) for index in range(64)]
        self.leaves = [leaf_hash(one) for one in self.entries]
        self.node = Frontier().grow(self.leaves).node
        self._heads: dict[tuple[int, SignerKey], Note] = {}

    def root(self, size: int) -> Hash:
        return range_hash(0, size, self.node)

    def head(self, size: int, signer: SignerKey = LOG) -> Note:
        """Return the head of this size, signed by the log and cosigned by all witnesses."""
        if (size, signer) not in self._heads:
            self._heads[size, signer] = signed(Checkpoint(signer.name, size, self.root(size)), signer)
        return self._heads[size, signer]

    def included(self, index: int, size: int) -> Included:
        proof = prove_inclusion(index=index, size=size, node=self.node)
        return Included(self.leaves[index], tuple(proof), self.head(size))

    def receipt(self, index: int, size: int) -> Receipt:
        one = self.included(index, size)
        return Receipt(self.entries[index], JSON_TYPE, Opening(bytes(32)), index, bytes(one.head), one.proof)

    def backdating(self, index: int, size: int, earlier: Note, raw: bytes | None = None) -> Backdating:
        one = self.included(index, size)
        return Backdating(index, raw or self.entries[index], one.proof, one.head, earlier)


def signed(checkpoint: Checkpoint, signer: SignerKey = LOG, *, times: Sequence[int] = (TIME // 1000 + 1,) * 3) -> Note:
    """Return a head signed by the log and cosigned by a witness for each of `times`."""
    text = str(checkpoint)
    lines = [cosign(text, time=time, signer=witness) for time, witness in zip(times, WITNESSES, strict=False)]
    return Note(text, (*sign_note(text, signer).signatures, *lines))


@cache
def tree(shared: int = 64) -> Tree:
    return Tree(shared)


def refuse(evidence: Evidence, reason: str | None = None) -> None:
    with pytest.raises(EvidenceError, match=reason):
        verify_evidence(evidence, POLICY)


def convict(evidence: Evidence) -> str:
    """Verify evidence that is read back from its file; return the sentence."""
    raw = format_evidence(evidence)
    assert len(raw) <= MAX_EVIDENCE_BYTES
    assert parse_evidence(raw) == evidence
    return describe_evidence(evidence, POLICY)


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each good signature really verified once and then remembered: these tests verify few of them, and often."""
    monkeypatch.setattr(VerifierKey, "verify", cache(VerifierKey.verify))


# An honest log, and honest witnesses: every pair of sizes, and whatever can be said of them.


def test_two_heads_of_an_honest_log_are_no_contradiction_at_any_two_sizes() -> None:
    for one in SIZES:
        for other in SIZES:
            for witness in (None, WITNESS):
                heads = tree().head(one), tree().head(other)
                assert find_contradiction(*heads, node=tree().node, witness=witness) is None


def test_no_evidence_made_of_two_honest_heads_convicts_at_any_two_sizes() -> None:
    for m in SIZES:
        for n in SIZES:
            older, newer = tree().head(m), tree().head(n)
            refuse(EmptyRoot(older))
            for witness in (None, WITNESS):
                refuse(Fork(older, newer, witness))
                if 0 < m < n:
                    proof = tuple(prove_prefix(old_size=m, new_size=n, node=tree().node))
                    refuse(Prefix(older, newer, proof, witness), "is a prefix")
                    refuse(Prefix(newer, older, proof, witness))
                    refuse(Prefix(older, newer, proof[1:], witness))
                else:
                    refuse(Prefix(older, newer, (tree().root(m),), witness))


def test_a_true_receipt_is_contradicted_by_no_honest_head_at_any_two_sizes() -> None:
    for m in SIZES[1:]:
        for n in SIZES:
            for index in {0, m // 2, m - 1}:
                receipt = tree().receipt(index, m)
                assert find_other_entry(receipt, tree().head(n), node=tree().node) is None
                if index < n:
                    refuse(OtherEntry(index, tree().included(index, m), tree().included(index, n)), "the same entry")
                    # What is at another place is not at this one, under either head.
                    one, other = tree().included(index, m), tree().included((index + 1) % n, n)
                    if n > 1:
                        refuse(OtherEntry(index, one, other))
                        refuse(OtherEntry((index + 1) % n, one, other))


def test_an_entry_that_the_witnesses_saw_in_time_is_not_backdated_at_any_two_sizes() -> None:
    for m in SIZES[1:]:
        for n in SIZES:
            for index in {0, m // 2, m - 1}:
                refuse(tree().backdating(index, m, tree().head(n)))


# A log that lies: each lie at every pair of sizes.


def forks(m: int) -> set[int]:
    """Return how many entries forks share that differ from the honest log before `m`: none, one, half, all but one."""
    return {shared for shared in (0, 1, m // 2, m - 1) if 0 <= shared < m}


def test_every_fork_is_found_and_convicts_at_any_two_sizes() -> None:
    convicted = 0
    for n in SIZES[1:]:
        for m in range(1, n + 1):
            for shared in forks(m):
                older, newer = tree(shared).head(m), tree().head(n)
                evidence = find_contradiction(older, newer, node=tree().node)
                assert isinstance(evidence, Fork if m == n else Prefix)
                assert f" of {m} entries" in convict(evidence)
                assert find_contradiction(newer, older, node=tree().node) == evidence
                accused = find_contradiction(older, newer, node=tree().node, witness=WITNESS)
                assert accused is not None
                sentence = describe_evidence(accused, POLICY)
                assert sentence.startswith("witness w3.example cosigned for example.com/segments/payments ")
                convicted += 1
    assert convicted > 6_000


def test_every_fork_at_every_prefix_length_convicts_in_a_tree_of_64() -> None:
    for m in SIZES[1:]:
        for shared in range(m):
            evidence = find_contradiction(tree(shared).head(m), tree().head(64), node=tree().node)
            assert evidence is not None
            convict(evidence)


def test_every_receipt_that_another_entry_took_the_place_of_convicts_at_any_two_sizes() -> None:
    for m in SIZES[1:]:
        for n in SIZES:
            for shared in forks(m):
                for index in {shared, m - 1}:
                    evidence = find_other_entry(tree(shared).receipt(index, m), tree().head(n), node=tree().node)
                    assert (evidence is not None) == (index < n)
                    if evidence is not None:
                        assert f"two entries at index {index}:" in describe_evidence(evidence, POLICY)


def test_a_head_of_size_0_with_the_root_of_some_entries_convicts() -> None:
    lie = signed(Checkpoint(LOG.name, 0, tree().root(5)))
    evidence = find_contradiction(lie, tree().head(5), node=tree().node)
    assert evidence == EmptyRoot(Note(lie.text, lie.signatures[:1]))
    assert convict(evidence) == (
        f"log {LOG.name} signed the root {encode_base64(tree().root(5))} of 0 entries, which no tree has"
    )
    # It is held against the log only: the witness is judged by what it cosigned at one size, or by prefixes.
    assert find_contradiction(lie, tree().head(5), node=tree().node, witness=WITNESS) is None
    refuse(EmptyRoot(signed(Checkpoint(LOG.name, 0, EMPTY_ROOT))))
    refuse(EmptyRoot(tree(0).head(5)))
    refuse(Prefix(lie, tree().head(5), (tree().root(5),)), "no prefix of 0")
    assert isinstance(find_contradiction(lie, tree().head(0), node=tree().node), Fork)


def test_a_consistency_proof_of_the_log_convicts_it_unless_it_does_not_say_what_it_starts_from() -> None:
    fork, honest = tree(2), tree()
    for m in range(1, 17):
        for n in range(m, 17):
            proof = prove_consistency(old_size=m, new_size=n, node=honest.node)
            assert judge_proof(honest.head(m), honest.head(n), proof) is None
            found = judge_proof(fork.head(m), honest.head(n), proof)
            silent = m < n and m & (m - 1) == 0
            assert (found is None) == (m <= 2 or silent)
            if found is not None:
                convict(found)
            # Of what is no proof nothing follows, from whomever it comes.
            assert m == n or judge_proof(fork.head(m), honest.head(n), [*proof, EMPTY_ROOT]) is None


def test_the_sentence_says_who_and_what() -> None:
    fork, honest = tree(2), tree()
    roots = {name: encode_base64(root) for name, root in (("b", fork.root(3)), ("a", honest.root(3)))}
    evidence = find_contradiction(fork.head(3), honest.head(3), node=honest.node)
    assert isinstance(evidence, Fork)
    first, second = (parse_head(note.text).root for note in (evidence.one, evidence.other))
    assert convict(evidence) == (
        f"log {LOG.name} signed two roots of 3 entries: {encode_base64(first)} and {encode_base64(second)}"
    )
    assert {first, second} == {fork.root(3), honest.root(3)}
    prefix = find_contradiction(fork.head(3), honest.head(7), node=honest.node)
    assert prefix is not None
    assert convict(prefix) == (
        f"log {LOG.name} signed the root {roots['b']} of 3 entries, but under the root "
        f"{encode_base64(honest.root(7))} of 7 entries the first 3 have the root {roots['a']}"
    )
    other = find_other_entry(fork.receipt(2, 3), honest.head(7), node=honest.node)
    assert other is not None
    assert convict(other) == (
        f"log {LOG.name} signed two entries at index 2: leaf hash {encode_base64(fork.leaves[2])} of 3 entries, and "
        f"{encode_base64(honest.leaves[2])} of 7"
    )


# Backdating.


def late(seconds: int, size: int = 5, times: int = 2) -> Note:
    """Return an honest head that so many witnesses cosigned again so long after the time of every entry."""
    checkpoint = Checkpoint(LOG.name, size, tree().root(size))
    return signed(checkpoint, times=(TIME // 1000 + seconds,) * times)


def test_an_entry_that_the_quorum_did_not_know_of_a_day_after_its_time_convicts() -> None:
    evidence = tree().backdating(5, 7, late(MAX_LAG + 1))
    assert convict(evidence) == (
        f"log {LOG.name} dated entry 5 to {TIME} ms, but the quorum of its witnesses knew of no more than 5 entries at "
        f"{TIME + 1000 * (MAX_LAG + 1)} ms"
    )
    assert "to 1764000000000!, but" in describe_evidence(evidence, POLICY, format_time="{}!".format)
    convict(tree().backdating(63, 64, late(MAX_LAG + 1, size=0)))


def test_a_time_that_is_still_to_come_proves_nothing() -> None:
    evidence = tree().backdating(5, 7, late(MAX_LAG + 1))
    cosigned = TIME // 1000 + MAX_LAG + 1
    verify_evidence(evidence, POLICY, now=cosigned - MAX_AHEAD)
    with pytest.raises(EvidenceError, match="still to come"):
        verify_evidence(evidence, POLICY, now=cosigned - MAX_AHEAD - 1)


def test_a_log_that_signs_by_many_keys_is_convicted_all_the_same() -> None:
    signers = [signer_from_seed("log.example/" + "x" * 240, bytes([seed]) * 32) for seed in range(70)]
    policy = parse_policy("".join(f"log {one.verifier}\n" for one in signers).encode() + b"quorum none\n")
    trees = [Checkpoint(signers[0].name, 5, Hash(bytes([root]) * 32)) for root in range(2)]
    notes = [Note(str(one), tuple(sign_note(str(one), key).signatures[0] for key in signers)) for one in trees]
    found = find_contradiction(notes[0], notes[1], node=tree().node)
    assert found is not None
    verify_evidence(parse_evidence(format_evidence(found)), policy)


def test_an_entry_within_the_lag_is_not_backdated() -> None:
    refuse(tree().backdating(5, 7, late(MAX_LAG)), "more than 86400 seconds")
    # To the second: part of a second is in favour of the log.
    raw = entry(5, time=TIME + 999)
    leaves = [*tree().leaves[:5], leaf_hash(raw)]
    node = Frontier().grow(leaves).node
    head = signed(Checkpoint(LOG.name, 6, range_hash(0, 6, node)))
    proof = tuple(prove_inclusion(index=5, size=6, node=node))
    refuse(Backdating(5, raw, proof, head, late(MAX_LAG)))
    verify_evidence(Backdating(5, raw, proof, head, late(MAX_LAG + 1)), POLICY)


def test_only_the_quorum_dates_a_head() -> None:
    refuse(tree().backdating(5, 7, late(MAX_LAG + 1, times=1)), "not the quorum")
    checkpoint = Checkpoint(LOG.name, 5, tree().root(5))
    base = TIME // 1000
    # The latest of three counts for nothing where the quorum is of two.
    for times in ((base, base + 10**6, base), (base + 10**6, base + MAX_LAG, base)):
        refuse(tree().backdating(5, 7, signed(checkpoint, times=times)), "more than 86400 seconds")
    verify_evidence(tree().backdating(5, 7, signed(checkpoint, times=(base + 10**6, base, base + 10**6))), POLICY)
    nobody = parse_policy(f"{KEYS}quorum none\n".encode())
    with pytest.raises(EvidenceError, match="asks for no witnesses"):
        verify_evidence(tree().backdating(5, 7, late(MAX_LAG + 1)), nobody)


def test_a_head_that_has_room_for_the_entry_dates_nothing() -> None:
    for size in (6, 7, 64):
        refuse(tree().backdating(5, 7, late(MAX_LAG + 1, size=size)), "large enough")


def test_what_is_not_the_entry_of_a_segment_in_its_own_log_is_not_dated() -> None:
    verify_evidence(tree().backdating(5, 7, late(MAX_LAG + 1)), POLICY)
    for raw in (entry(6), entry(5, time=TIME - 1), entry(5, origin=OTHER.name), b"{}", b"\xff"):
        refuse(tree().backdating(5, 7, late(MAX_LAG + 1), raw))
    # A foreign entry, logged by who let anybody choose the bytes.
    for signer, origin in ((LOG, OTHER.name), (signer_from_seed("example.com/open", bytes(32)),) * 2):
        name = origin if isinstance(origin, str) else origin.name
        raw = entry(0, origin=name)
        policy = parse_policy(f"log {signer.verifier}\nwitness w {WITNESS}\nquorum w\n".encode())
        head = signed(Checkpoint(signer.name, 1, leaf_hash(raw)), signer)
        empty = signed(Checkpoint(signer.name, 0, EMPTY_ROOT), signer, times=[TIME])
        with pytest.raises(EvidenceError, match="not one of a segment, in its own log"):
            verify_evidence(Backdating(0, raw, (), head, empty), policy)


# Whom to believe comes from the policy, and what strangers add to a note changes nothing.


def lies() -> list[Evidence]:
    """Return one of each kind that convicts."""
    fork, honest = tree(2), tree()
    found: list[Evidence | None] = [
        EmptyRoot(signed(Checkpoint(LOG.name, 0, honest.root(5)))),
        find_contradiction(fork.head(3), honest.head(3), node=honest.node),
        find_contradiction(fork.head(3), honest.head(7), node=honest.node),
        find_contradiction(fork.head(4), honest.head(7), node=honest.node),
        find_contradiction(fork.head(3), honest.head(3), node=honest.node, witness=WITNESS),
        find_contradiction(fork.head(3), honest.head(7), node=honest.node, witness=WITNESS),
        find_other_entry(fork.receipt(2, 3), honest.head(7), node=honest.node),
        honest.backdating(5, 7, late(MAX_LAG + 1)),
    ]
    return [evidence for evidence in found if evidence is not None]


def with_notes(evidence: Evidence, change: Callable[[Note], Note]) -> Evidence:
    """Return evidence with each note changed."""
    match evidence:
        case EmptyRoot(head):
            return EmptyRoot(change(head))
        case Fork(one, other):
            return replace(evidence, one=change(one), other=change(other))
        case Prefix(older, newer):
            return replace(evidence, older=change(older), newer=change(newer))
        case OtherEntry(_, first, second):
            return replace(
                evidence,
                one=replace(first, head=change(first.head)),
                other=replace(second, head=change(second.head)),
            )
        case Backdating():
            return replace(evidence, head=change(evidence.head), earlier=change(evidence.earlier))


def test_each_of_the_lies_convicts() -> None:
    assert [type(evidence) for evidence in lies()] == [
        EmptyRoot, Fork, Prefix, Prefix, Fork, Prefix, OtherEntry, Backdating,
    ]  # fmt: skip
    for evidence in lies():
        convict(evidence)


def test_who_does_not_know_the_log_or_the_witness_is_not_convinced() -> None:
    texts = [
        "quorum none\n",
        f"log {OTHER.verifier}\nquorum none\n",
        f"log {STRANGER.verifier}\nwitness w3.example {WITNESSES[1].verifier}\nquorum w3.example\n",
    ]
    for text in texts:
        for evidence in lies():
            with pytest.raises(EvidenceError):
                verify_evidence(evidence, parse_policy(text.encode()))


def test_a_witness_is_convicted_without_the_log_and_the_log_without_the_witness() -> None:
    only_log = parse_policy(f"log {LOG.verifier}\nquorum none\n".encode())
    only_witness = parse_policy(f"witness w {WITNESS}\nquorum w\n".encode())
    for evidence in lies()[:-1]:
        by_witness = isinstance(evidence, Fork | Prefix) and evidence.witness is not None
        verify_evidence(evidence, only_witness if by_witness else only_log)
        with pytest.raises(EvidenceError):
            verify_evidence(evidence, only_log if by_witness else only_witness)


def test_the_key_of_a_log_is_no_witness() -> None:
    fork = Fork(tree(2).head(3), tree().head(3), LOG.verifier)
    refuse(fork, "has no witness")


def test_lines_of_strangers_and_the_order_of_lines_change_nothing() -> None:
    def noisy(note: Note) -> Note:
        text = note.text
        stranger = sign_note(text, STRANGER).signatures[0]
        forged = Signature("who.example", stranger.key_id, bytes(72))
        return Note(text, (forged, *reversed(note.signatures), stranger))

    for evidence in lies():
        assert convict(with_notes(evidence, noisy)) == convict(evidence)
    assert isinstance(find_contradiction(noisy(tree().head(3)), tree().head(3), node=tree().node), type(None))
    refuse(Fork(noisy(tree().head(3)), tree().head(3)))


def test_signed_by_strangers_only_convicts_nobody() -> None:
    for evidence in lies():
        refuse(with_notes(evidence, lambda note: Note(note.text, sign_note(note.text, STRANGER).signatures)))
        refuse(with_notes(evidence, lambda note: Note(note.text, note.signatures[1:] or (forged_line(note),))))


def forged_line(note: Note) -> Signature:
    return replace(note.signatures[0], blob=bytes(len(note.signatures[0].blob)))


def test_a_wrong_line_under_a_key_that_is_held_against_it_convicts_nobody() -> None:
    for evidence in lies():
        refuse(
            with_notes(evidence, lambda note: Note(note.text, (*map(replace, note.signatures[1:]), forged_line(note))))
        )
        refuse(with_notes(evidence, lambda note: Note(note.text, (forged_line(note), *note.signatures))))


def test_times_of_cosignatures_alone_convict_no_witness() -> None:
    checkpoint = Checkpoint(LOG.name, 5, tree().root(5))
    heads = [signed(checkpoint, times=(time,)) for time in (0, 1, TIME // 1000, 2**63 - 1)]
    for one in heads:
        for other in heads:
            assert find_contradiction(one, other, node=tree().node, witness=WITNESS) is None
            refuse(Fork(one, other, WITNESS))


def test_heads_of_two_logs_do_not_contradict_each_other() -> None:
    one, other = tree(2).head(3), tree().head(3, OTHER)
    larger = tree().head(7, OTHER)
    proof = tuple(prove_prefix(old_size=3, new_size=7, node=tree().node))
    inclusions = tree(2).included(2, 3), replace(tree().included(2, 7), head=larger)
    assert find_contradiction(one, other, node=tree().node) is None
    for evidence in (Fork(one, other), Prefix(one, larger, proof), OtherEntry(2, *inclusions)):
        refuse(evidence, "two logs")
    refuse(tree().backdating(5, 7, signed(Checkpoint(OTHER.name, 0, EMPTY_ROOT), OTHER, times=[TIME] * 2)), "two logs")


def test_two_keys_of_one_log_are_held_to_one_history() -> None:
    policy = parse_policy(f"log {LOG.verifier}\nlog {STRANGER.verifier}\nquorum none\n".encode())
    checkpoint = Checkpoint(LOG.name, 3, tree(2).root(3))
    evidence = Fork(signed(checkpoint, STRANGER), tree().head(3))
    verify_evidence(evidence, policy)
    refuse(evidence)


def test_nodes_of_another_tree_make_no_evidence() -> None:
    with pytest.raises(ProofError):
        find_contradiction(tree(2).head(3), tree().head(7), node=tree(2).node)


# Mutations: whatever is changed in what an honest log signed, nobody is convicted.


@dataclass
class Tally:
    """How many mutations there were, and how many of them held a form and good signatures, and so were judged."""

    tried: int = 0
    judged: int = 0

    def judge(self, evidence: Evidence) -> None:
        """Refuse evidence; a conviction fails the test."""
        self.tried += 1
        try:
            verify_evidence(evidence, POLICY)
        except EvidenceError as error:
            self.judged += not isinstance(error.__context__, SignatureError | MalformedError)
        else:
            raise AssertionError(format_evidence(evidence).decode())


def mutated_hashes(rng: random.Random, hashes: Sequence[Hash], pool: Sequence[Hash]) -> tuple[Hash, ...]:
    """Return hashes with one or two changes: one flipped, replaced by another of the tree, taken out, put in, moved."""
    found = list(hashes)
    for _ in range(rng.randint(1, 2)):
        place = rng.randrange(len(found) + 1)
        change = rng.randrange(5)
        if change == 0 or not found or place == len(found):
            found.insert(place, rng.choice(pool))
        elif change == 1:
            flipped = int.from_bytes(found[place], "big") ^ 1 << rng.randrange(256)
            found[place] = Hash(flipped.to_bytes(32, "big"))
        elif change == 2:
            found[place] = rng.choice(pool)
        elif change == 3:
            del found[place]
        else:
            other = rng.randrange(len(found))
            found[place], found[other] = found[other], found[place]
    return tuple(found)


def mutations(rng: random.Random) -> Iterator[Evidence]:
    """Yield evidence without end that is made of what an honest log and honest witnesses signed, and of mutations."""
    honest = tree()
    nodes = [honest.node(level, index) for level in range(7) for index in range(64 >> level)]
    # Proofs that are right, for some other size or place, and the nodes of a history that the log never signed.
    pool = nodes + [honest.root(size) for size in SIZES] + tree(9).leaves
    while True:
        m, n = sorted(rng.sample(SIZES[1:], 2))
        index, other = rng.randrange(m), rng.randrange(n)
        witness = rng.choice((None, WITNESS))
        older, newer = honest.head(m), honest.head(n)
        proof = prove_prefix(old_size=m, new_size=n, node=honest.node)
        yield Prefix(older, newer, mutated_hashes(rng, proof, pool), witness)
        yield Prefix(honest.head(rng.choice(SIZES)), honest.head(rng.choice(SIZES)), tuple(proof), witness)
        one, two = honest.included(index, m), honest.included(other, n)
        wrong = mutated_hashes(rng, two.proof, pool)
        yield OtherEntry(index, one, replace(two, leaf=rng.choice(pool), proof=wrong))
        yield OtherEntry(rng.choice((index, other, rng.randrange(64))), one, replace(two, leaf=rng.choice(pool)))
        yield OtherEntry(index, replace(one, proof=mutated_hashes(rng, one.proof, pool)), two)
        entries = [*honest.entries, entry(rng.randrange(64), time=rng.randrange(TIME))]
        backdating = Backdating(other, rng.choice(entries), two.proof, two.head, late(MAX_LAG))
        yield backdating
        yield replace(backdating, proof=wrong, index=(other + rng.randrange(1, 64)) % 64, earlier=late(MAX_LAG + 1))
        text = newer.text.replace(f"\n{n}\n", f"\n{rng.choice((m, n + 1, 0))}\n")
        yield rng.choice((Fork(newer, Note(text, newer.signatures), witness), EmptyRoot(Note(text, newer.signatures))))
        # Lines of one head under the text of another.
        lines = rng.sample(older.signatures + newer.signatures, rng.randint(1, 8))
        yield Fork(Note(newer.text, tuple(lines)), older, witness)
        yield Fork(rng.choice((older, newer)), rng.choice((older, newer)), witness)


def test_90_000_mutations_of_what_an_honest_log_signed_convict_nobody() -> None:
    rng, tally = random.Random(1), Tally()  # noqa: S311
    for evidence in mutations(rng):
        tally.judge(evidence)
        if tally.tried == 90_000:
            break
    # The rest have no form, or a wrong signature.
    assert tally.judged > 70_000


def test_10_000_mutated_files_of_true_evidence_prove_nothing_new() -> None:
    """Flip, cut and double bytes of true evidence: what still convicts says what the whole said."""
    rng, read, same = random.Random(2), 0, 0  # noqa: S311
    files = [format_evidence(evidence) for evidence in lies()]
    said = {describe_evidence(evidence, POLICY) for evidence in lies()}
    for _ in range(10_000):
        raw = bytearray(rng.choice(files))
        for _ in range(rng.choice((1, 1, 2))):
            place = rng.randrange(len(raw))
            if rng.random() < 0.7:
                raw[place] = rng.choice(b"0123456789ABCDEFabcdef+/=\n ")
            else:
                raw[place : place + rng.randrange(3)] = raw[place : place + rng.randrange(3)]
        try:
            evidence = parse_evidence(bytes(raw))
        except MalformedError:
            continue
        read += 1
        assert format_evidence(evidence) == raw
        try:
            assert describe_evidence(evidence, POLICY) in said
            same += 1
        except EvidenceError:
            pass
    assert (read > 4_000, same > 100) == (True, True)


# The file.


def test_the_file_is_laid_out_as_the_specification_says() -> None:
    older, newer = tree(2).head(4), tree().head(7)
    evidence = find_contradiction(older, newer, node=tree().node, witness=WITNESS)
    assert evidence is not None
    # Four is a power of two: the proof of RFC 9162 leaves out the root of the first four, this one starts with it.
    proof = [tree().root(4), *map(Hash, reference.proof(4, tree().leaves[:7]))]
    lines = "".join(f"{encode_base64(value)}\n" for value in proof)
    notes = [bytes(Note(note.text, note.signatures[1:2])).decode() for note in (older, newer)]
    expected = f"tlog/evidence/v1\nprefix\nwitness {WITNESS}\n{lines}\n{notes[0]}\n{notes[1]}"
    assert format_evidence(evidence).decode() == expected


def test_evidence_is_at_most_16_kib_and_the_lines_of_others_are_left_out() -> None:
    crowd = tuple(Signature(f"w{n}.example", WITNESS.id, bytes(72)) for n in range(99))
    noisy = [Note(note.text, (note.signatures[0], *crowd)) for note in (tree(2).head(3), tree().head(3))]
    with pytest.raises(MalformedError, match="at most 16384"):
        format_evidence(Fork(noisy[0], noisy[1]))
    evidence = find_contradiction(noisy[0], noisy[1], node=tree().node)
    assert evidence is not None
    convict(evidence)
    with pytest.raises(MalformedError, match="at most 16384"):
        parse_evidence(format_evidence(evidence) + bytes(MAX_EVIDENCE_BYTES))


FORK = format_evidence(lies()[1]).decode()
WITNESSED = format_evidence(lies()[5]).decode()
ENTRIES = format_evidence(lies()[6]).decode()
BACKDATING = format_evidence(lies()[7]).decode()
HASH = encode_base64(bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "tlog/evidence/v1",
        "tlog/evidence/v1\n",
        "tlog/evidence/v1\nfork\n",
        FORK[:-1],
        FORK + "\n",
        "\n" + FORK,
        FORK.replace("v1", "v2", 1),
        FORK.replace("fork", "empty"),
        FORK.replace("fork", "prefixes"),
        FORK.replace("fork", "fork\n" + HASH),
        FORK.replace("fork", f"fork\n{HASH}\nwitness {WITNESS}"),
        FORK.replace("fork", f"fork\nwitness {WITNESS}\nwitness {WITNESS}"),
        FORK.replace("fork", "fork\nwitness w3.example"),
        FORK.replace("fork", "fork\nwitness"),
        FORK.replace("fork\n", "fork\n\n"),
        FORK.replace("\n", "\r\n"),
        FORK.rpartition("\n\n")[0] + "\n",
        FORK.rpartition("\n\n")[0].rpartition("\n\n")[0] + "\n",
        FORK + FORK.partition("\n\n")[2],
        FORK + "\n" + FORK.partition("\n\n")[2],
        FORK.replace("\n3\n", "\n03\n"),
        FORK.replace("\n3\n", "\n3\nmore\n"),
        FORK.replace("\n\n\u2014", "\n\u2014", 1),
        WITNESSED.replace(f"witness {WITNESS}\n", f"{HASH}\nwitness {WITNESS}\n"),
        WITNESSED.replace(f"witness {WITNESS}\n", f"witness {WITNESS}\nwitness {WITNESS}\n"),
        WITNESSED.replace(f"{WITNESS}\n", f"{WITNESS}\n{HASH[:-1]}\n"),
        WITNESSED.replace(f"{WITNESS}\n", f"{WITNESS}\n{HASH[:-2]}B=\n"),
        ENTRIES.replace("index 2", "index 02"),
        ENTRIES.replace("index 2", "index  2"),
        ENTRIES.replace("index 2\n", ""),
        ENTRIES.replace("leaf ", "leaf  ", 1),
        ENTRIES.replace("leaf ", "", 1),
        ENTRIES.replace("leaf ", f"{HASH}\nleaf ", 1),
        ENTRIES.replace("leaf ", f"leaf {HASH}\nleaf ", 1),
        ENTRIES.replace("leaf ", f"leaf {encode_base64(bytes(31))}\nleaf ", 1).replace("leaf ", "", 2),
        BACKDATING.replace("index 5", "index -5"),
        BACKDATING.replace("entry ", "entry"),
        BACKDATING.replace("entry ", "leaf "),
        BACKDATING.replace("entry ", "entry e30"),
    ],
)
def test_a_file_in_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_evidence(text.encode())


def test_a_file_that_is_not_utf8_is_refused() -> None:
    for raw in (b"\xff" + FORK.encode(), FORK.encode() + b"\xff\n"):
        with pytest.raises(MalformedError, match="UTF-8"):
            parse_evidence(raw)


@pytest.mark.parametrize(
    "kind", ["two-roots-of-one-size", "two-roots-cosigned-by-a-witness", "two-entries-at-one-index"]
)
def test_evidence_names_the_witness_that_it_accuses_and_the_heads_that_it_rests_on(kind: str) -> None:
    case = json.loads((VECTORS / f"{kind}.json").read_text())
    evidence, text = parse_evidence(case["evidence"].encode()), case["evidence"]
    witness = accused_witness(evidence)
    assert (f"\nwitness {witness}\n" in text) is ("witness" in kind)
    assert (witness is None) is ("witness" not in kind)
    assert text.endswith("\n" + "\n".join(bytes(head).decode() for head in evidence_heads(evidence)))
    assert len(evidence_heads(evidence)) == 2
