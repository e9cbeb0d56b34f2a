import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.errors import ProofError
from tlog_core.merkle import EMPTY_ROOT, Hash, NodeReader, leaf_hash, node_hash, range_hash
from tlog_core.proof import (
    RangeProof,
    cover,
    is_subtree,
    nodes_of_range,
    prefix_root,
    prove_consistency,
    prove_each,
    prove_inclusion,
    prove_prefix,
    prove_range,
    prove_subset,
    prove_subtree,
    root_before,
    verify_consistency,
    verify_inclusion,
    verify_range,
    verify_subset,
    verify_subtree,
)

LEAVES = [leaf_hash(bytes([number])) for number in range(256)]
PAIRS = [(old, new) for new in range(65) for old in range(new + 1)]


@cache
def node(level: int, index: int) -> Hash:
    return Hash(reference.mth(LEAVES[index << level : (index + 1) << level]))


@cache
def root(size: int) -> Hash:
    return Hash(reference.mth(LEAVES[:size]))


def hashes(values: Iterable[bytes]) -> list[Hash]:
    return [Hash(value) for value in values]


def flipped(value: Hash, bit: int = 0) -> Hash:
    place, mask = bit // 8, 1 << bit % 8
    return Hash(value[:place] + bytes([value[place] ^ mask]) + value[place + 1 :])


def spoiled(proof: Sequence[Hash]) -> Iterator[list[Hash]]:
    """Yield proofs that differ from `proof` in one thing each."""
    whole = list(proof)
    for place, value in enumerate(whole):
        before, after = whole[:place], whole[place + 1 :]
        yield [*before, flipped(value, 7 * place % 256), *after]
        yield [*before, *after]
        yield [*before, value, *whole[place:]]
        yield [*before, Hash(value[:-1]), *after]
        yield [*before, Hash(value + b"\x00"), *after]
    for place, (first, second) in enumerate(pairwise(whole)):
        if first != second:
            yield [*whole[:place], second, first, *whole[place + 2 :]]
    yield [*whole, EMPTY_ROOT]
    yield [*whole, Hash(b"")]
    yield [EMPTY_ROOT, *whole]


def accumulate(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


# The worked example of RFC 9162, section 2.1.5, with its names.
A, B, C, D, E, F, G = LEAVES[:7]
H, I, J = node_hash(A, B), node_hash(C, D), node_hash(E, F)  # noqa: E741
K, L = node_hash(H, I), node_hash(J, G)


@pytest.mark.parametrize(("index", "proof"), [(0, [B, I, L]), (3, [C, H, L]), (4, [F, G, K]), (6, [J, K])])
def test_inclusion_proofs_are_those_of_the_worked_example(index: int, proof: list[Hash]) -> None:
    assert prove_inclusion(index=index, size=7, node=node) == proof == reference.path(index, LEAVES[:7])


@pytest.mark.parametrize(("old", "proof"), [(3, [C, D, H, L]), (4, [L]), (6, [J, G, K])])
def test_consistency_proofs_are_those_of_the_worked_example(old: int, proof: list[Hash]) -> None:
    assert prove_consistency(old_size=old, new_size=7, node=node) == proof == reference.proof(old, LEAVES[:7])


# The accumulated vectors of draft-ietf-plants-merkle-tree-certs, over all subtrees of up to 130 leaves.
SUBTREES = [(start, end) for end in range(131) for start in range(end + 1) if is_subtree(start, end)]


def test_subtree_hashes_are_those_of_the_draft() -> None:
    lines = (f"[{start}, {end}) {range_hash(start, end, node).hex()}" for start, end in SUBTREES)
    assert accumulate(lines) == "b82806ad4265bb151c1119c0f4db437bb4d1a1f887b3a7fba1cd4ebf552e3e81"


def test_subtree_inclusion_proofs_are_those_of_the_draft() -> None:
    def proof(index: int, start: int, end: int) -> list[Hash]:
        # A valid subtree is a tree of its own, whose nodes are shifted by `start`.
        return prove_inclusion(
            index=index - start,
            size=end - start,
            node=lambda level, place: node(level, place + (start >> level)),
        )

    lines = (
        " ".join([f"{index} [{start}, {end})", *(value.hex() for value in proof(index, start, end))])
        for start, end in SUBTREES
        for index in range(start, end)
    )
    assert accumulate(lines) == "ac2a8f989e44d99e399db448050ff5f19757df53cfb716aa81015d3955d8163f"


def test_subtree_consistency_proofs_are_those_of_the_draft_and_verify() -> None:
    digest = hashlib.sha256()
    for size in range(131):
        for start, end in SUBTREES:
            if end > size:
                break
            proof = prove_subtree(start=start, end=end, size=size, node=node)
            digest.update(" ".join([f"[{start}, {end}) {size}", *(value.hex() for value in proof)]).encode())
            digest.update(b"\n")
            if size < 66 or size > 128:
                subtree = range_hash(start, end, node)
                verify_subtree(start=start, end=end, subtree=subtree, size=size, proof=proof, root=root(size))
    assert digest.hexdigest() == "10fa99b37bf9bf9ffa26b412fbd98bd75363256d0b75d61bc4538b9c9c5a0a74"


def test_covers_are_those_of_the_draft() -> None:
    lines = []
    for end in range(131):
        for start in range(end + 1):
            left, right = cover(start, end)
            lines.append(f"[{left[0]}, {left[1]}) [{right[0]}, {right[1]})")
    assert accumulate(lines) == "7fd9c8b926e9d2b5cf831560e8ce295a5ef97ad5c5ede4ea0dea28a8c8fc8bb0"


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_a_cover_is_two_adjacent_valid_subtrees(one: int, other: int) -> None:
    start, end = sorted((one, other))
    left, right = cover(start, end)
    assert is_subtree(*left)
    assert is_subtree(*right)
    assert left[0] <= start
    assert left[1] == right[0]
    assert right[1] == end
    assert 2 * (start - left[0]) < max(left[1] - left[0], 1)


@pytest.mark.parametrize(
    ("start", "end", "valid"),
    [
        (0, 0, True),
        (5, 5, True),
        (0, 13, True),
        (4, 7, True),
        (6, 8, True),
        (2, 5, False),
        (6, 9, False),
        (1, 0, False),
        (-1, 0, False),
        (-2, 0, False),
    ],
)
def test_a_subtree_starts_at_a_multiple_of_its_width(start: int, end: int, valid: bool) -> None:
    assert is_subtree(start, end) == valid


@pytest.mark.parametrize("size", range(1, 65))
def test_every_inclusion_proof_equals_the_reference_and_verifies(size: int) -> None:
    for index in range(size):
        proof = prove_inclusion(index=index, size=size, node=node)
        assert proof == reference.path(index, LEAVES[:size])
        verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=root(size))


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 56))
def test_the_proofs_of_neighbours_are_those_of_each(start: int, count: int, beyond: int) -> None:
    end = min(start + count, 256)
    size = min(end + beyond, 256)
    proofs = [tuple(prove_inclusion(index=index, size=size, node=node)) for index in range(min(start, end), end)]
    assert list(prove_each(start=min(start, end), end=end, size=size, node=node)) == proofs


def test_every_consistency_proof_equals_the_reference_and_verifies() -> None:
    for old, new in PAIRS:
        proof = prove_consistency(old_size=old, new_size=new, node=node)
        assert proof == reference.proof(old, LEAVES[:new])
        verify_consistency(old_size=old, new_size=new, old_root=root(old), new_root=root(new), proof=proof)


def test_an_inclusion_proof_holds_the_root_of_the_tree_before_its_entry() -> None:
    for size in range(1, 65):
        for index in range(size):
            proof = hashes(reference.path(index, LEAVES[:size]))
            assert root_before(index=index, size=size, proof=proof) == root(index)


def refuse_inclusion(leaf: Hash, index: int, size: int, proof: Sequence[Hash], tree: Hash) -> None:
    with pytest.raises(ProofError):
        verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=tree)


def test_a_spoiled_inclusion_proof_is_refused() -> None:
    for size in range(1, 25):
        for index in range(size):
            leaf, proof = LEAVES[index], hashes(reference.path(index, LEAVES[:size]))
            for wrong in spoiled(proof):
                refuse_inclusion(leaf, index, size, wrong, root(size))
            refuse_inclusion(flipped(leaf, 255), index, size, proof, root(size))
            refuse_inclusion(Hash(leaf[:-1]), index, size, proof, root(size))
            refuse_inclusion(leaf, index, size, proof, flipped(root(size), 100))
            refuse_inclusion(leaf, index, size, proof, Hash(root(size) + b"\x00"))


def test_an_inclusion_proof_holds_at_no_other_index() -> None:
    for size in range(1, 25):
        for index in range(size):
            proof = hashes(reference.path(index, LEAVES[:size]))
            for wrong in {-1, *range(size + 2), 2**64} - {index}:
                refuse_inclusion(LEAVES[index], wrong, size, proof, root(size))


def test_an_inclusion_proof_holds_for_another_size_only_if_the_path_has_the_same_shape() -> None:
    # Nothing but the checkpoint binds the size then, and it does.
    for size in range(1, 25):
        for index in range(size):
            proof = hashes(reference.path(index, LEAVES[:size]))
            for wrong in {-1, 0, *range(40), 2**64} - {size}:
                if index < wrong < 40 and reference.sides(index, wrong) == reference.sides(index, size):
                    verify_inclusion(leaf=LEAVES[index], index=index, size=wrong, proof=proof, root=root(size))
                else:
                    refuse_inclusion(LEAVES[index], index, wrong, proof, root(size))
                if 0 < wrong < 40:
                    refuse_inclusion(LEAVES[index], index, wrong, proof, root(wrong))


def test_an_inclusion_proof_holds_only_where_the_path_has_the_same_shape() -> None:
    places = [(index, size) for size in range(1, 11) for index in range(size)]
    for index, size in places:
        proof = hashes(reference.path(index, LEAVES[:size]))
        for other, claimed in places:
            if reference.sides(other, claimed) == reference.sides(index, size):
                verify_inclusion(leaf=LEAVES[index], index=other, size=claimed, proof=proof, root=root(size))
            else:
                refuse_inclusion(LEAVES[index], other, claimed, proof, root(size))


def test_nothing_is_included_in_the_empty_tree() -> None:
    refuse_inclusion(LEAVES[0], 0, 0, [], EMPTY_ROOT)
    refuse_inclusion(EMPTY_ROOT, 0, 0, [], EMPTY_ROOT)


def refuse_consistency(old: int, new: int, old_root: Hash, new_root: Hash, proof: Sequence[Hash]) -> None:
    with pytest.raises(ProofError):
        verify_consistency(old_size=old, new_size=new, old_root=old_root, new_root=new_root, proof=proof)


def test_a_spoiled_consistency_proof_is_refused() -> None:
    for new in range(25):
        for old in range(new + 1):
            proof = hashes(reference.proof(old, LEAVES[:new]))
            for wrong in spoiled(proof):
                refuse_consistency(old, new, root(old), root(new), wrong)
            refuse_consistency(old, new, flipped(root(old), 3), root(new), proof)
            refuse_consistency(old, new, Hash(root(old)[1:]), root(new), proof)
            refuse_consistency(old, new, root(old), Hash(root(new)[1:]), proof)


def test_a_consistency_proof_leads_to_no_other_root() -> None:
    for new in range(1, 25):
        for old in range(1, new + 1):
            proof = hashes(reference.proof(old, LEAVES[:new]))
            refuse_consistency(old, new, root(old), flipped(root(new), 77), proof)


def test_a_consistency_proof_holds_for_no_other_tree() -> None:
    for new in range(1, 25):
        for old in range(1, new + 1):
            proof = hashes(reference.proof(old, LEAVES[:new]))
            for wrong in set(range(1, 25)) - {new}:
                refuse_consistency(old, wrong, root(old), root(wrong), proof)
            for wrong in set(range(1, 25)) - {old}:
                refuse_consistency(wrong, new, root(wrong), root(new), proof)


def test_a_log_cannot_shrink() -> None:
    refuse_consistency(5, 4, root(5), root(4), [])
    refuse_consistency(5, 4, root(5), root(4), hashes(reference.proof(4, LEAVES[:5])))
    refuse_consistency(1, 0, root(1), EMPTY_ROOT, [])
    refuse_consistency(0, -1, EMPTY_ROOT, EMPTY_ROOT, [])


def test_two_trees_of_one_size_are_one_tree() -> None:
    refuse_consistency(3, 3, root(3), root(4), [])
    refuse_consistency(0, 0, EMPTY_ROOT, root(1), [])


def test_the_empty_tree_is_a_prefix_of_every_tree_under_its_own_root() -> None:
    verify_consistency(old_size=0, new_size=5, old_root=EMPTY_ROOT, new_root=root(5), proof=[])
    refuse_consistency(0, 5, root(1), root(5), [])
    refuse_consistency(0, 5, EMPTY_ROOT, root(5), [root(1)])


def refuse_subtree(start: int, end: int, subtree: Hash, size: int, proof: Sequence[Hash], tree: Hash) -> None:
    with pytest.raises(ProofError):
        verify_subtree(start=start, end=end, subtree=subtree, size=size, proof=proof, root=tree)


def test_a_spoiled_subtree_proof_is_refused() -> None:
    for size in range(1, 20):
        for start, end in SUBTREES:
            if end > size:
                break
            subtree = range_hash(start, end, node)
            proof = prove_subtree(start=start, end=end, size=size, node=node)
            for wrong in spoiled(proof):
                refuse_subtree(start, end, subtree, size, wrong, root(size))
            refuse_subtree(start, end, flipped(subtree, 9), size, proof, root(size))
            if start < end:
                refuse_subtree(start, end, subtree, size, proof, flipped(root(size), 9))


def test_a_range_that_is_no_subtree_has_no_subtree_proof() -> None:
    for size in range(12):
        for end in range(14):
            for start in range(-1, 14):
                if not is_subtree(start, end) or end > size:
                    for proof in ([], [LEAVES[0]], LEAVES[:3]):
                        refuse_subtree(start, end, LEAVES[0], size, proof, root(size))


def range_proof(start: int, end: int, size: int) -> RangeProof:
    left, right = reference.complete_subtrees(0, start), reference.complete_subtrees(end, size)
    return RangeProof(
        size,
        tuple(Hash(reference.mth(LEAVES[first:last])) for first, last in left),
        tuple(Hash(reference.mth(LEAVES[first:last])) for first, last in right),
    )


def check_range(start: int, end: int, size: int) -> None:
    """Prove, verify, and mint each single proof from the range proof alone."""
    proof, leaves = prove_range(start=start, end=end, size=size, node=node), LEAVES[start:end]
    assert proof == range_proof(start, end, size)
    verify_range(leaves=leaves, start=start, size=size, left=proof.left, right=proof.right, root=root(size))
    reader = nodes_of_range(leaves=leaves, start=start, proof=proof)
    for index in range(start, end):
        minted = prove_inclusion(index=index, size=size, node=reader)
        assert minted == prove_inclusion(index=index, size=size, node=node)


def test_every_range_proof_verifies_and_mints_every_inclusion_proof() -> None:
    for size in range(1, 25):
        for end in range(1, size + 1):
            for start in range(end):
                check_range(start, end, size)


@given(st.lists(st.integers(0, 256), min_size=3, max_size=3, unique=True))
def test_range_proofs_hold_in_larger_trees(ends: list[int]) -> None:
    check_range(*sorted(ends))


def refuse_range(
    leaves: Sequence[Hash],
    start: int,
    size: int,
    left: Sequence[Hash],
    right: Sequence[Hash],
    tree: Hash,
) -> None:
    with pytest.raises(ProofError):
        verify_range(leaves=leaves, start=start, size=size, left=left, right=right, root=tree)


def ranges(largest: int) -> Iterator[tuple[int, int, int]]:
    """Yield every (start, end, size) up to a size."""
    for size in range(1, largest + 1):
        for end in range(1, size + 1):
            for start in range(end):
                yield start, end, size


def test_range_proof_refuses_a_missing_added_swapped_or_flipped_hash() -> None:
    for start, end, size in ranges(12):
        leaves, proof = LEAVES[start:end], range_proof(start, end, size)
        for left in spoiled(proof.left):
            refuse_range(leaves, start, size, left, proof.right, root(size))
        for right in spoiled(proof.right):
            refuse_range(leaves, start, size, proof.left, right, root(size))
        refuse_range(leaves, start, size, proof.left, proof.right, flipped(root(size), 31))


def test_range_proof_refuses_other_leaves() -> None:
    for start, end, size in ranges(12):
        proof = range_proof(start, end, size)
        for leaves in spoiled(LEAVES[start:end]):
            refuse_range(leaves, start, size, proof.left, proof.right, root(size))


def test_range_proof_refuses_another_start() -> None:
    for start, end, size in ranges(12):
        proof = range_proof(start, end, size)
        for wrong in {-1, *range(size + 2), 2**64} - {start}:
            refuse_range(LEAVES[start:end], wrong, size, proof.left, proof.right, root(size))


def test_range_proof_refuses_the_root_of_another_size() -> None:
    for start, end, size in ranges(12):
        proof = range_proof(start, end, size)
        for wrong in set(range(16)) - {size}:
            refuse_range(LEAVES[start:end], start, wrong, proof.left, proof.right, root(wrong))


def test_range_proof_refuses_hashes_that_share_their_bytes_unevenly() -> None:
    first, second = LEAVES[:2]
    leaves = [Hash(first[:31]), Hash(first[31:] + second)]
    refuse_range(leaves, 0, 2, [], [], root(2))
    refuse_range([leaves[1]], 1, 2, [leaves[0]], [], root(2))
    refuse_range([leaves[0]], 0, 2, [], [leaves[1]], root(2))


def test_range_proof_refuses_a_range_of_nothing() -> None:
    refuse_range([], 0, 0, [], [], EMPTY_ROOT)
    refuse_range([], 1, 1, [LEAVES[0]], [], LEAVES[0])
    refuse_range([], 0, 1, [], [LEAVES[0]], LEAVES[0])


# Trees of up to 2^63-1 leaves in which all are alike but one: quick to compute, and not symmetric.
COMMON, SPECIAL = leaf_hash(b"common"), leaf_hash(b"special")


@cache
def alike(width: int) -> Hash:
    """Return MTH of `width` common leaves."""
    if width == 1:
        return COMMON
    k = reference.split(width)
    return node_hash(alike(k), alike(width - k))


def sparse(start: int, end: int, special: int) -> Hash:
    """Return MTH(D[start:end]) by the recursion of RFC 9162."""
    if not start <= special < end:
        return alike(end - start)
    if end - start == 1:
        return SPECIAL
    middle = start + reference.split(end - start)
    return node_hash(sparse(start, middle, special), sparse(middle, end, special))


def sparse_reader(special: int) -> NodeReader:
    return lambda level, index: sparse(index << level, (index + 1) << level, special)


large = st.integers(0, 63).flatmap(lambda bits: st.integers(0, 2**bits - 1))


@given(st.lists(large, min_size=2, max_size=2, unique=True))
def test_inclusion_proofs_hold_in_trees_of_any_size(ends: list[int]) -> None:
    index, size = sorted(ends)
    proof = prove_inclusion(index=index, size=size, node=sparse_reader(index))
    whole = sparse(0, size, index)
    verify_inclusion(leaf=SPECIAL, index=index, size=size, proof=proof, root=whole)
    assert len(proof) <= (size - 1).bit_length()
    assert root_before(index=index, size=size, proof=proof) == (alike(index) if index else EMPTY_ROOT)
    refuse_inclusion(COMMON, index, size, proof, whole)
    for wrong in spoiled(proof):
        refuse_inclusion(SPECIAL, index, size, wrong, whole)


@given(large, large, large)
def test_consistency_proofs_hold_in_trees_of_any_size(one: int, other: int, special: int) -> None:
    old, new = sorted((one, other))
    old_root = sparse(0, old, special) if old else EMPTY_ROOT
    new_root = sparse(0, new, special) if new else EMPTY_ROOT
    proof = prove_consistency(old_size=old, new_size=new, node=sparse_reader(special))
    verify_consistency(old_size=old, new_size=new, old_root=old_root, new_root=new_root, proof=proof)
    assert len(proof) <= new.bit_length() + 1
    for wrong in spoiled(proof):
        refuse_consistency(old, new, old_root, new_root, wrong)


@given(start=large, count=st.integers(1, 40), beyond=large, place=st.integers(0, 39))
def test_range_proofs_hold_in_trees_of_any_size(start: int, count: int, beyond: int, place: int) -> None:
    end, special = start + count, start + place % count
    size, reader = end + beyond, sparse_reader(special)
    leaves = [SPECIAL if index == special else COMMON for index in range(start, end)]
    proof = prove_range(start=start, end=end, size=size, node=reader)
    whole = sparse(0, size, special)
    verify_range(leaves=leaves, start=start, size=size, left=proof.left, right=proof.right, root=whole)
    minted = nodes_of_range(leaves=leaves, start=start, proof=proof)
    for index in (start, special, end - 1):
        inclusion = prove_inclusion(index=index, size=size, node=minted)
        assert inclusion == prove_inclusion(index=index, size=size, node=reader)
    refuse_range([*leaves[1:], COMMON, SPECIAL], start, size, proof.left, proof.right, whole)


def test_a_range_proof_is_no_longer_than_three_paths() -> None:
    proof = prove_range(start=2**40 - 1, end=2**40 + 10_000, size=2**41 - 1, node=sparse_reader(0))
    assert len(proof.left) + len(proof.right) <= 3 * 41


def test_a_prefix_proof_shows_the_root_of_every_prefix_of_every_tree() -> None:
    for old, new in PAIRS:
        if 0 < old < new:
            proof = prove_prefix(old_size=old, new_size=new, node=node)
            assert prefix_root(old_size=old, new_size=new, proof=proof, new_root=root(new)) == root(old)


def test_a_prefix_proof_is_the_consistency_proof_with_its_seed() -> None:
    for old, new in PAIRS:
        if 0 < old < new:
            consistency = prove_consistency(old_size=old, new_size=new, node=node)
            seed = [root(old)] if old.bit_count() == 1 else []
            assert prove_prefix(old_size=old, new_size=new, node=node) == seed + consistency


def test_a_prefix_proof_of_another_tree_or_with_any_change_shows_nothing() -> None:
    for old, new in [(1, 2), (3, 7), (4, 7), (6, 13), (8, 13), (32, 64), (33, 64)]:
        proof = prove_prefix(old_size=old, new_size=new, node=node)
        for wrong in [*spoiled(proof), []]:
            with pytest.raises(ProofError):
                prefix_root(old_size=old, new_size=new, proof=wrong, new_root=root(new))
        with pytest.raises(ProofError):
            prefix_root(old_size=old, new_size=new, proof=proof, new_root=root(new + 1))


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 5), (5, 5), (6, 5), (-1, 5)])
def test_only_a_smaller_tree_with_entries_is_a_prefix_to_prove(old: int, new: int) -> None:
    with pytest.raises(ProofError, match="no prefix"):
        prefix_root(old_size=old, new_size=new, proof=[root(5)], new_root=root(5))


@given(large, large, large)
def test_prefix_proofs_hold_in_trees_of_any_size(one: int, other: int, special: int) -> None:
    old, new = sorted((one, other))
    if 0 < old < new:
        proof = prove_prefix(old_size=old, new_size=new, node=sparse_reader(special))
        root = prefix_root(old_size=old, new_size=new, proof=proof, new_root=sparse(0, new, special))
        assert root == sparse(0, old, special)
        assert len(proof) <= 64


CHOICES = st.integers(1, 200).flatmap(
    lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1), min_size=1).map(sorted))
)


def check_subset(indexes: Sequence[int], size: int, proof: Sequence[Hash], **other: Sequence[Hash]) -> None:
    leaves = other.get("leaves", [LEAVES[index] for index in indexes])
    verify_subset(indexes=indexes, leaves=leaves, size=size, proof=proof, root=root(size))


@given(CHOICES)
def test_a_subset_proof_is_that_of_the_reference_and_verifies(choice: tuple[int, list[int]]) -> None:
    size, indexes = choice
    proof = prove_subset(indexes=indexes, size=size, node=node)
    assert proof == reference.without(indexes, LEAVES[:size])
    check_subset(indexes, size, proof)


def test_every_subset_of_a_small_tree_has_a_proof_of_its_own() -> None:
    for size in range(1, 9):
        for bits in range(1, 1 << size):
            indexes = [index for index in range(size) if bits >> index & 1]
            check_subset(indexes, size, prove_subset(indexes=indexes, size=size, node=node))


@given(CHOICES)
def test_a_spoiled_subset_proof_is_refused(choice: tuple[int, list[int]]) -> None:
    size, indexes = choice
    for proof in spoiled(prove_subset(indexes=indexes, size=size, node=node)):
        with pytest.raises(ProofError):
            check_subset(indexes, size, proof)


@given(CHOICES, st.data())
def test_a_subset_with_another_leaf_or_at_other_indexes_is_refused(
    choice: tuple[int, list[int]], data: st.DataObject
) -> None:
    size, indexes = choice
    proof = prove_subset(indexes=indexes, size=size, node=node)
    leaves = [LEAVES[index] for index in indexes]
    place = data.draw(st.integers(0, len(leaves) - 1))
    with pytest.raises(ProofError):
        check_subset(indexes, size, proof, leaves=[*leaves[:place], flipped(leaves[place]), *leaves[place + 1 :]])
    other = data.draw(st.lists(st.integers(-1, size), min_size=len(leaves), max_size=len(leaves)))
    if other != indexes:
        with pytest.raises(ProofError):
            check_subset(other, size, proof, leaves=leaves)


def test_a_subset_of_no_leaves_is_refused() -> None:
    with pytest.raises(ProofError, match="in order"):
        check_subset([], 5, prove_subset(indexes=[], size=5, node=node))
