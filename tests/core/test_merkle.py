import hashlib

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.merkle import (
    EMPTY_ROOT,
    Frontier,
    Growth,
    Hash,
    fold,
    leaf_hash,
    node_hash,
    nodes_between,
    range_hash,
)

LEAVES = [leaf_hash(number.to_bytes(2, "big")) for number in range(600)]

# C2SP and RFC 6962 test data: eight entries, and the roots of the first 1 to 8 of them.
ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def node(level: int, index: int) -> Hash:
    return Hash(reference.mth(LEAVES[index << level : (index + 1) << level]))


def grow(frontier: Frontier, start: int, end: int) -> Growth:
    return frontier.grow(LEAVES[start:end])


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert hashlib.sha256(b"").digest() == EMPTY_ROOT == Frontier().root() == fold([])


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_rfc_6962(size: int) -> None:
    leaves = [leaf_hash(entry) for entry in ENTRIES[:size]]
    assert Frontier().grow(leaves).frontier.root().hex() == ROOTS[size - 1]
    assert reference.mth([reference.leaf(entry) for entry in ENTRIES[:size]]).hex() == ROOTS[size - 1]


def test_leaves_and_nodes_are_hashed_apart() -> None:
    left, right = leaf_hash(b"left"), leaf_hash(b"right")
    assert node_hash(left, right) == hashlib.sha256(b"\x01" + left + right).digest()
    assert node_hash(left, right) != leaf_hash(left + right)


def test_nodes_between_are_the_largest_complete_subtrees() -> None:
    for end in range(65):
        for start in range(end + 1):
            ranges = [(index << level, (index + 1) << level) for level, index in nodes_between(start, end)]
            assert ranges == reference.complete_subtrees(start, end)


@given(start=st.integers(0, 2**63 - 1), end=st.integers(0, 2**63 - 1))
def test_nodes_between_are_few_and_adjacent_in_large_trees(start: int, end: int) -> None:
    nodes = list(nodes_between(start, end))
    assert len(nodes) <= 126
    place = start
    for level, index in nodes:
        assert index << level == place
        place = (index + 1) << level
    assert place == max(start, end)


@pytest.mark.parametrize("size", range(131))
def test_range_hash_is_the_root_of_a_prefix(size: int) -> None:
    assert range_hash(0, size, node) == reference.mth(LEAVES[:size])


def test_growing_one_by_one_gives_the_root_of_each_size() -> None:
    frontier = Frontier()
    for size in range(131):
        assert frontier.root() == reference.mth(LEAVES[:size])
        assert frontier.size == size
        assert frontier.peaks == tuple(node(level, index) for level, index in nodes_between(0, size))
        frontier = grow(frontier, size, size + 1).frontier


def test_growing_from_any_size_to_any_other_is_the_same_as_at_once() -> None:
    for new in range(65):
        whole = grow(Frontier(), 0, new).frontier
        assert whole.root() == reference.mth(LEAVES[:new])
        for old in range(new + 1):
            assert grow(grow(Frontier(), 0, old).frontier, old, new).frontier == whole


@given(st.integers(0, 300), st.integers(0, 300))
def test_growing_larger_trees_gives_the_root_of_the_reference(old: int, more: int) -> None:
    growth = grow(grow(Frontier(), 0, old).frontier, old, old + more)
    assert growth.frontier.root() == reference.mth(LEAVES[: old + more])


def test_growth_holds_every_new_node_and_every_old_peak() -> None:
    for old in range(34):
        for new in range(old, 34):
            growth = grow(grow(Frontier(), 0, old).frontier, old, new)
            for level in range(7):
                for index in range(new >> level):
                    is_new = (index + 1) << level > old
                    if is_new or (level, index) in list(nodes_between(0, old)):
                        assert growth.node(level, index) == node(level, index)


def test_growth_has_no_node_beyond_the_tree_nor_one_it_never_saw() -> None:
    growth = grow(grow(Frontier(), 0, 4).frontier, 4, 7)
    for level, index in [(0, 0), (0, 3), (0, 7), (0, -1), (1, 3), (2, 1), (3, 0), (9, 0)]:
        with pytest.raises(KeyError):
            growth.node(level, index)


def test_growing_by_nothing_changes_nothing() -> None:
    frontier = grow(Frontier(), 0, 11).frontier
    assert grow(frontier, 11, 11) == Growth(frontier, (), dict(zip(nodes_between(0, 11), frontier.peaks, strict=True)))


@given(st.integers(0, 256).flatmap(lambda start: st.tuples(st.just(start), st.integers(start, 512))))
def test_pushing_complete_subtrees_is_growing_by_their_leaves(ends: tuple[int, int]) -> None:
    start, end = ends
    frontier = grow(Frontier(), 0, start).frontier
    for level, index in nodes_between(start, end):
        frontier = frontier.push(level, node(level, index))
    assert frontier == grow(Frontier(), 0, end).frontier
