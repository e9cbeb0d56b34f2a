"""Merkle trees word for word from RFC 6962 and RFC 9162, section 2.1: recursive, slow and easy to check.

A tree is the list of its leaf hashes. Nothing here is shared with `tlog_core`.
"""

import hashlib
from collections.abc import Sequence


def sha256(data: bytes) -> bytes:
    """Return the hash that all trees use."""
    return hashlib.sha256(data).digest()


def leaf(entry: bytes) -> bytes:
    """Return MTH({d}) for one entry d."""
    return sha256(b"\x00" + entry)


def split(width: int) -> int:
    """Return k, the largest power of two smaller than `width`."""
    power = 1
    while 2 * power < width:
        power *= 2
    return power


def mth(tree: Sequence[bytes]) -> bytes:
    """Return MTH(D_n)."""
    if not tree:
        return sha256(b"")
    if len(tree) == 1:
        return tree[0]
    k = split(len(tree))
    return sha256(b"\x01" + mth(tree[:k]) + mth(tree[k:]))


def path(m: int, tree: Sequence[bytes]) -> list[bytes]:
    """Return PATH(m, D_n)."""
    if len(tree) == 1:
        return []
    k = split(len(tree))
    if m < k:
        return [*path(m, tree[:k]), mth(tree[k:])]
    return [*path(m - k, tree[k:]), mth(tree[:k])]


def sides(m: int, size: int) -> str:
    """Return on which side each hash of PATH(m, D_size) stands: the shape of the path."""
    if size == 1:
        return ""
    k = split(size)
    return sides(m, k) + "R" if m < k else sides(m - k, size - k) + "L"


def proof(m: int, tree: Sequence[bytes]) -> list[bytes]:
    """Return PROOF(m, D_n), which is empty for m = 0 and m = n."""
    return subproof(m, tree, True) if m else []


def subproof(m: int, tree: Sequence[bytes], whole: bool) -> list[bytes]:
    """Return SUBPROOF(m, D_n, b)."""
    if m == len(tree):
        return [] if whole else [mth(tree)]
    k = split(len(tree))
    if m <= k:
        return [*subproof(m, tree[:k], whole), mth(tree[k:])]
    return [*subproof(m - k, tree[k:], False), mth(tree[:k])]


def without(chosen: Sequence[int], tree: Sequence[bytes], start: int = 0) -> list[bytes]:
    """Return MTH of each largest subtree of D_n, whose leaves begin at `start`, that has none of the chosen leaves."""
    if not any(start <= index < start + len(tree) for index in chosen):
        return [mth(tree)]
    if len(tree) == 1:
        return []
    k = split(len(tree))
    return [*without(chosen, tree[:k], start), *without(chosen, tree[k:], start + k)]


def complete_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """Return the largest aligned ranges of 2^n leaves that cover [start, end), from left to right."""
    ranges = []
    while start < end:
        width = 1
        while start % (2 * width) == 0 and start + 2 * width <= end:
            width *= 2
        ranges.append((start, start + width))
        start += width
    return ranges
