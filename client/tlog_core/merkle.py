"""Merkle trees over SHA-256 (RFC 6962 section 2.1, RFC 9162 section 2.1).

A *node* is a complete subtree: node (level, index) covers the leaves [index * 2^level, (index + 1) * 2^level) and never
changes once it is full. Every root and proof is put together from nodes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NewType, cast

Hash = NewType("Hash", bytes)
"""A SHA-256 hash: 32 bytes."""

NodeReader = Callable[[int, int], Hash]
"""Given (level, index) of a complete subtree, its hash."""

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = Hash(hashlib.sha256(b"").digest())

_sha256 = hashlib.sha256


def leaf_hash(entry: bytes) -> Hash:
    """Return the hash of an entry as a leaf: SHA-256(0x00 || entry)."""
    return Hash(_sha256(b"\x00" + entry).digest())


def leaf_hashes(entries: Iterable[bytes]) -> list[Hash]:
    """Return the hashes of entries as leaves, in their order."""
    # `leaf_hash` written out, as `_parents` does for nodes.
    return cast("list[Hash]", [_sha256(b"\x00" + entry).digest() for entry in entries])


def node_hash(left: Hash, right: Hash) -> Hash:
    """Return the hash of an interior node: SHA-256(0x01 || left || right)."""
    return Hash(_sha256(b"\x01" + left + right).digest())


def nodes_between(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (level, index) of the largest complete subtrees that cover the leaves [start, end), left to right."""
    while start < end:
        aligned = (start & -start).bit_length() - 1 if start else end.bit_length()
        level = min(aligned, (end - start).bit_length() - 1)
        yield level, start >> level
        start += 1 << level


def fold(hashes: Sequence[Hash]) -> Hash:
    """Return the root over complete subtrees of falling size, given left to right; of none, the empty root."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def range_hash(start: int, end: int, node: NodeReader) -> Hash:
    """Return MTH(D[start:end]) for a range that is a valid subtree (`proof.is_subtree`)."""
    width = end - start
    # Nearly all that a proof asks for is one node.
    if width > 0 and width & (width - 1) == 0:
        return node(width.bit_length() - 1, start // width)
    return fold([node(level, index) for level, index in nodes_between(start, end)])


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: all that is needed to make it grow.

    `peaks` are the hashes of `nodes_between(0, size)`: one for each bit set in `size`, the largest first.
    """

    size: int = 0
    peaks: tuple[Hash, ...] = ()

    def root(self) -> Hash:
        """Return the root of the tree."""
        return fold(self.peaks)

    def push(self, level: int, subtree: Hash) -> "Frontier":
        """Return the frontier after a complete subtree of 2^level leaves is put at the right end."""
        peaks, size = list(self.peaks), self.size
        while size >> level & 1:
            subtree = node_hash(peaks.pop(), subtree)
            size -= 1 << level
            level += 1
        return Frontier(size + (1 << level), (*peaks, subtree))

    def grow(self, leaves: Iterable[Hash]) -> "Growth":
        """Return what becomes of the tree when `leaves` are appended."""
        waiting = list(self.peaks)
        rows: list[tuple[int, list[Hash]]] = []
        row, level = list(leaves), 0
        end = self.size + len(row)
        while row:
            first = self.size >> level
            # An odd start means that the left sibling of the first new node is a peak of the old tree.
            if first & 1:
                row.insert(0, waiting.pop())
                first -= 1
            rows.append((first, row))
            row = _parents(row)
            level += 1
        # Every old peak as low as the rows was merged into them; those that still wait stand above all rows.
        peaks = waiting + [
            rows[level][1][index - rows[level][0]] for level, index in nodes_between(0, end) if level < len(rows)
        ]
        old = dict(zip(nodes_between(0, self.size), self.peaks, strict=True))
        return Growth(Frontier(end, tuple(peaks)), tuple(rows), old)


@dataclass(frozen=True, slots=True)
class Growth:
    """What appending did to a tree: its frontier afterwards, and each node that is new.

    `rows[level]` is the index of its first node and the hashes from there on; the first may be an old peak. `old` are
    the peaks of the tree before, by (level, index).
    """

    frontier: Frontier
    rows: tuple[tuple[int, list[Hash]], ...]
    old: Mapping[tuple[int, int], Hash]

    def node(self, level: int, index: int) -> Hash:
        """Return the hash of a node that is new, or was a peak before; KeyError for any other."""
        if level < len(self.rows):
            first, row = self.rows[level]
            if 0 <= index - first < len(row):
                return row[index - first]
        return self.old[level, index]


def _parents(row: list[Hash]) -> list[Hash]:
    # `node_hash` written out: this line is where a large batch spends its time.
    pairs = zip(row[::2], row[1::2], strict=False)
    return cast("list[Hash]", [_sha256(b"\x01" + left + right).digest() for left, right in pairs])
