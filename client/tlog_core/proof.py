"""Merkle proofs: inclusion, consistency, subtree and range.

Inclusion and consistency proofs are those of RFC 9162 section 2.1. Both are cases of the *subtree proof*
(draft-ietf-plants-merkle-tree-certs, "Subtrees"): it shows that [start, end) with a given hash is part of a tree. One
entry is the subtree [index, index + 1); an older tree is the subtree [0, old_size).

A *range proof* shows that many neighbouring leaves are in a tree: the largest complete subtrees left of them and right
of them, both from left to right, which together with the leaves rebuild the root (`spec/receipt.md`).

A *subset proof* shows that chosen leaves, be they neighbours or not, are in a tree: the largest subtrees without any of
them, from left to right (`spec/bundle.md`).

A *prefix proof* shows which root the first entries of a tree have, to whom nobody told that root (`spec/evidence.md`).
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tlog_core.encoding import decode_base64
from tlog_core.errors import ProofError
from tlog_core.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    Frontier,
    Hash,
    NodeReader,
    fold,
    node_hash,
    nodes_between,
    range_hash,
)


@dataclass(frozen=True, slots=True)
class RangeProof:
    """What stands left and right of a range of leaves in a tree of `size` entries."""

    size: int
    left: tuple[Hash, ...]
    right: tuple[Hash, ...]


def is_subtree(start: int, end: int) -> bool:
    """Say whether [start, end) is a valid subtree: it starts at a multiple of its width, rounded up to a power of 2."""
    return 0 <= start <= end and start % (1 << max(end - start - 1, 0).bit_length()) == 0


def cover(start: int, end: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return two adjacent valid subtrees that cover [start, end), the first reaching out left by less than its half."""
    if end - start <= 1:
        return (start, end), (end, end)
    last = end - 1
    split = (start ^ last).bit_length() - 1
    mask = (1 << split) - 1
    middle = last & ~mask
    left_split = (~start & mask).bit_length()
    return (start & ~((1 << left_split) - 1), middle), (middle, end)


def parse_hashes(lines: Iterable[str]) -> tuple[Hash, ...]:
    """Return the hashes of a proof from their text forms, each canonical base64 of 32 bytes; raise MalformedError."""
    return tuple(Hash(decode_base64(line, length=HASH_BYTES)) for line in lines)


def prove_subtree(*, start: int, end: int, size: int, node: NodeReader) -> list[Hash]:
    """Return the proof that the valid subtree [start, end) is part of the tree of `size` entries."""
    if start == end:
        return []
    ranges, low, high, known = [], 0, size, True
    while (low, high) != (start, end):
        middle = low + _split(high - low)
        if end <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            # The subtree reaches across the middle: what is left of it is not a subtree that the verifier holds.
            known = known and start >= middle
            low = middle
            start = max(start, middle)
    if not known:
        ranges.append((low, high))
    return [range_hash(low, high, node) for low, high in reversed(ranges)]


def prove_inclusion(*, index: int, size: int, node: NodeReader) -> list[Hash]:
    """Return PATH(index, D[0:size]), RFC 9162 section 2.1.3.1, the leaf's sibling first."""
    return prove_subtree(start=index, end=index + 1, size=size, node=node)


def prove_each(*, start: int, end: int, size: int, node: NodeReader) -> Iterator[tuple[Hash, ...]]:
    """Yield the inclusion proof of each leaf of [start, end), in order: neighbours have most of theirs in common."""

    def walk(low: int, high: int, above: tuple[Hash, ...]) -> Iterator[tuple[Hash, ...]]:
        if high - low == 1:
            yield above
            return
        middle = low + _split(high - low)
        if start < middle:
            yield from walk(low, middle, (range_hash(middle, high, node), *above))
        if end > middle:
            yield from walk(middle, high, (range_hash(low, middle, node), *above))

    return walk(0, size, ()) if start < end else iter(())


def prove_consistency(*, old_size: int, new_size: int, node: NodeReader) -> list[Hash]:
    """Return PROOF(old_size, D[0:new_size]), RFC 9162 section 2.1.4.1; empty from size 0 and between equal sizes."""
    return prove_subtree(start=0, end=old_size, size=new_size, node=node)


def prove_prefix(*, old_size: int, new_size: int, node: NodeReader) -> list[Hash]:
    """Return the proof of the root of the first `old_size` entries, more than none and fewer than `new_size`.

    It is the consistency proof, which starts with the root itself even where RFC 9162 leaves that out: where `old_size`
    is a power of two.
    """
    proof = prove_consistency(old_size=old_size, new_size=new_size, node=node)
    if old_size & (old_size - 1) == 0:
        proof.insert(0, range_hash(0, old_size, node))
    return proof


def prove_range(*, start: int, end: int, size: int, node: NodeReader) -> RangeProof:
    """Return what stands left and right of the leaves [start, end) in the tree of `size` entries."""
    left = tuple(node(level, index) for level, index in nodes_between(0, start))
    right = tuple(node(level, index) for level, index in nodes_between(end, size))
    return RangeProof(size, left, right)


def prove_subset(*, indexes: Sequence[int], size: int, node: NodeReader) -> list[Hash]:
    """Return the hashes of the largest subtrees without any leaf of `indexes`, which rise, from left to right."""

    def walk(low: int, high: int, first: int, last: int) -> Iterator[Hash]:
        if first == last:
            yield range_hash(low, high, node)
        elif high - low > last - first:
            middle = low + _split(high - low)
            cut = bisect_left(indexes, middle, first, last)
            yield from walk(low, middle, first, cut)
            yield from walk(middle, high, cut, last)

    return list(walk(0, size, 0, len(indexes)))


def verify_inclusion(*, leaf: Hash, index: int, size: int, proof: Sequence[Hash], root: Hash) -> None:
    """Check that `leaf` is at `index` in the tree of `size` entries with this root; raise ProofError."""
    verify_subtree(start=index, end=index + 1, subtree=leaf, size=size, proof=proof, root=root)


def verify_consistency(*, old_size: int, new_size: int, old_root: Hash, new_root: Hash, proof: Sequence[Hash]) -> None:
    """Check that the older tree is a prefix of the newer one; raise ProofError.

    The empty tree is a prefix of every tree, by an empty proof (C2SP tlog-checkpoint), if its root is that of no
    entries.
    """
    verify_subtree(start=0, end=old_size, subtree=old_root, size=new_size, proof=proof, root=new_root)


def verify_subtree(*, start: int, end: int, subtree: Hash, size: int, proof: Sequence[Hash], root: Hash) -> None:
    """Check that the valid subtree [start, end) with hash `subtree` is part of the tree; raise ProofError.

    Step numbers are those of the verification procedure in draft-ietf-plants-merkle-tree-certs, "Subtrees".
    """
    _check_hashes(subtree, root, *proof)
    if not is_subtree(start, end) or end > size:
        raise ProofError(f"[{start}, {end}) is not a subtree of a tree of {size} entries")
    if size == 0 and root != EMPTY_ROOT:
        raise ProofError("a tree without entries has one root only")
    if start == end:
        if proof:
            raise ProofError("the proof is too long")
        _match(subtree, EMPTY_ROOT)
        return
    first, last, top = _skip(start, end, size)
    rest = list(proof)
    # Step 4: if that subtree is not the whole of [start, end), its hash leads the proof.
    if first == last:
        seed = subtree
    elif rest:
        seed = rest.pop(0)
    else:
        raise ProofError("the proof is too short")
    inner, outer = _climb(first, last, top, seed, rest)
    # Step 6.
    _match(inner, subtree)
    _match(outer, root)


def prefix_root(*, old_size: int, new_size: int, proof: Sequence[Hash], new_root: Hash) -> Hash:
    """Return the root of the first `old_size` entries of a tree, by a prefix proof; raise ProofError.

    Every hash of the proof goes into `new_root`, and for two sizes there is one way to put them together: whoever knows
    only the root can be shown no other root of the prefix, unless SHA-256 is broken.
    """
    _check_hashes(new_root, *proof)
    if not 0 < old_size < new_size:
        raise ProofError(f"a tree of {new_size} entries has no prefix of {old_size} to prove")
    if not proof:
        raise ProofError("the proof is too short")
    inner, outer = _climb(*_skip(0, old_size, new_size), proof[0], proof[1:])
    _match(outer, new_root)
    return inner


def verify_range(
    *, leaves: Sequence[Hash], start: int, size: int, left: Sequence[Hash], right: Sequence[Hash], root: Hash
) -> None:
    """Check that `leaves` stand at `start` and after it in the tree of `size` entries; raise ProofError.

    `left` are the hashes of `nodes_between(0, start)`, `right` those of `nodes_between(start + len(leaves), size)`.
    """
    _check_hashes(root, *leaves, *left, *right)
    end = start + len(leaves)
    if not 0 <= start < end <= size:
        raise ProofError(f"[{start}, {end}) is not a range of a tree of {size} entries")
    beyond = list(nodes_between(end, size))
    if len(left) != start.bit_count() or len(right) != len(beyond):
        raise ProofError("the proof has the wrong number of hashes")
    frontier = Frontier(start, tuple(left)).grow(leaves).frontier
    for (level, _), subtree in zip(beyond, right, strict=True):
        frontier = frontier.push(level, subtree)
    _match(frontier.root(), root)


def verify_subset(
    *, indexes: Sequence[int], leaves: Sequence[Hash], size: int, proof: Sequence[Hash], root: Hash
) -> None:
    """Check that `leaves` stand at `indexes` in the tree of `size` entries, by a subset proof; raise ProofError."""
    _check_hashes(root, *leaves, *proof)
    rises = all(one < other for one, other in pairwise([-1, *indexes, size]))
    if not indexes or len(indexes) != len(leaves) or not rises:
        raise ProofError(f"the indexes are not those of {len(leaves)} leaves of a tree of {size} entries, in order")
    rest = iter(proof)

    def walk(low: int, high: int, first: int, last: int) -> Hash:
        if first == last:
            return _next(rest)
        if high - low == 1:
            return leaves[first]
        middle = low + _split(high - low)
        cut = bisect_left(indexes, middle, first, last)
        left = walk(low, middle, first, cut)
        return node_hash(left, walk(middle, high, cut, last))

    computed = walk(0, size, 0, len(indexes))
    if next(rest, None) is not None:
        raise ProofError("the proof is too long")
    _match(computed, root)


def root_before(*, index: int, size: int, proof: Sequence[Hash]) -> Hash:
    """Return the root of the first `index` entries, as the inclusion proof of `index`, verified before, contains it.

    What stands left on the path from a leaf to the root are the peaks of the tree before that leaf. So a receipt shows
    by itself that its tree extends the tree of the `index` entries before it.
    """
    peaks, place, last = [], index, size - 1
    for sibling in proof:
        if place & 1 or place == last:
            peaks.append(sibling)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        place, last = place >> 1, last >> 1
    return fold(peaks[::-1])


def nodes_of_range(*, leaves: Sequence[Hash], start: int, proof: RangeProof) -> NodeReader:
    """Return a reader of every node that inclusion proofs of these leaves need; check with `verify_range` first."""
    growth = Frontier(start, proof.left).grow(leaves)
    known = dict(growth.old)
    for level, (first, row) in enumerate(growth.rows):
        known.update(((level, first + place), subtree) for place, subtree in enumerate(row))
    known.update(zip(nodes_between(start + len(leaves), proof.size), proof.right, strict=True))

    def node(level: int, index: int) -> Hash:
        if (level, index) not in known:
            known[level, index] = node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))
        return known[level, index]

    return node


def _skip(start: int, end: int, size: int) -> tuple[int, int, int]:
    # Steps 2 and 3: skip the levels below the largest complete subtree at the right end of [start, end).
    first, last, top = start, end - 1, size - 1
    while first != last and (last & 1 or last == top):
        first, last, top = first >> 1, last >> 1, top >> 1
    return first, last, top


def _climb(first: int, last: int, top: int, seed: Hash, rest: Sequence[Hash]) -> tuple[Hash, Hash]:
    # Step 5: climb; `inner` rebuilds the subtree from what is left of the seed, `outer` the whole tree.
    inner = outer = seed
    for sibling in rest:
        if top == 0:
            raise ProofError("the proof is too long")
        if last & 1 or last == top:
            if first < last:
                inner = node_hash(sibling, inner)
            outer = node_hash(sibling, outer)
            while not last & 1 and last:
                first, last, top = first >> 1, last >> 1, top >> 1
        else:
            outer = node_hash(outer, sibling)
        first, last, top = first >> 1, last >> 1, top >> 1
    if top != 0:
        raise ProofError("the proof is too short")
    return inner, outer


def _split(width: int) -> int:
    # The largest power of two smaller than `width`, RFC 9162 section 2.1.1.
    return 1 << (width - 1).bit_length() - 1


def _next(rest: Iterator[Hash]) -> Hash:
    for sibling in rest:
        return sibling
    raise ProofError("the proof is too short")


def _check_hashes(*hashes: Hash) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise ProofError("a hash has not 32 bytes")


def _match(computed: Hash, expected: Hash) -> None:
    if computed != expected:
        raise ProofError("the proof does not lead to the expected hash")
