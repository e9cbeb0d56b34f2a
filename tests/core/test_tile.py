from collections.abc import Callable
from functools import cache

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.errors import MalformedError, ProofError
from tlog_core.merkle import EMPTY_ROOT, Hash, leaf_hash
from tlog_core.proof import prove_consistency, prove_inclusion, verify_consistency, verify_inclusion
from tlog_core.tile import (
    Bundle,
    Tile,
    TileTree,
    bundle_of,
    edge_tiles,
    join_bundle,
    join_hashes,
    node_in_tiles,
    parse_path,
    split_bundle,
    split_hashes,
    tile_of,
)

SIZES = [0, 1, 2, 255, 256, 257, 511, 513, 65_535, 65_536, 65_537, 70_000]
LEAVES = [leaf_hash(number.to_bytes(3, "big")) for number in range(70_000)]

MAX_SIZE = 2**63 - 1


@cache
def row(level: int) -> list[Hash]:
    """Return the hashes of all tiles of a level, one after the other, in the tree of all leaves."""
    if level == 0:
        return LEAVES
    below = row(level - 1)
    return [Hash(reference.mth(below[place : place + 256])) for place in range(0, len(below) - 255, 256)]


@cache
def root(size: int) -> Hash:
    return Hash(reference.mth(LEAVES[:size]))


def read(tile: Tile) -> bytes:
    start = tile.index * 256
    return b"".join(row(tile.level)[start : start + tile.width])


def tree(size: int, fetch: Callable[[Tile], bytes] = read) -> TileTree:
    return TileTree(size=size, root=root(size), fetch=fetch)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 5), "tile/0/005"),
        (Tile(0, 0, 1), "tile/0/000.p/1"),
        (Tile(1, 999, 255), "tile/1/999.p/255"),
        (Tile(2, 1000), "tile/2/x001/000"),
        (Tile(3, 1_234_067), "tile/3/x001/x234/067"),
        (Tile(7, 0, 127), "tile/7/000.p/127"),
        (Bundle(1_234_067), "tile/entries/x001/x234/067"),
        (Bundle(0, 112), "tile/entries/000.p/112"),
    ],
)
def test_paths_are_those_of_the_specification(tile: Tile | Bundle, path: str) -> None:
    assert str(tile) == path
    assert parse_path(path) == tile


@given(st.integers(0, 7), st.integers(0, MAX_SIZE), st.integers(1, 256))
def test_a_path_that_parses_is_the_path_of_what_it_gives(level: int, index: int, width: int) -> None:
    for place in (Tile(level, index, width), Bundle(index, width)):
        if place.end() <= MAX_SIZE:
            assert parse_path(str(place)) == place
        else:
            with pytest.raises(MalformedError):
                parse_path(str(place))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "checkpoint",
        "tile",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000\n",
        "tile//000",
        "tile/00/000",
        "tile/01/000",
        "tile/-1/000",
        "tile/8/000",
        "tile/63/000",
        "tile/64/000",
        "tile/100/000",
        "tile/data/000",
        "tile/entries/0",
        "tile/0/5",
        "tile/0/05",
        "tile/0/0005",
        "tile/0/x005",
        "tile/0/x000/005",
        "tile/0/001/005",
        "tile/0/x001/x005",
        "tile/0/X001/005",
        "tile/0/x01/005",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/999",
        "tile/0/000.p/1000",
        "tile/0/000.p/-1",
        "tile/0/000.P/1",
        "tile/0/000/1.p",
        "tile/0/\u0660\u0660\u0660",
        "tile/\u0660/000",
        "tile/0/000.p/\u0661",
        # One tile beyond the largest tree, and many.
        "tile/0/x036/x028/x797/x018/x963/968",
        "tile/7/000.p/128",
        "tile/entries/x999/x999/x999/x999/x999/x999/999",
        "tile/0/x001/x000/x000/x000/x000/x000/x000/000",
    ],
)
def test_any_other_path_is_refused(path: str) -> None:
    with pytest.raises(MalformedError):
        parse_path(path)


def test_the_largest_tree_ends_in_the_last_tile_that_has_a_path() -> None:
    last = tile_of(0, MAX_SIZE // 256, MAX_SIZE)
    assert last.end() == MAX_SIZE
    assert parse_path(str(last)) == last


@pytest.mark.parametrize(
    ("size", "edges"),
    [
        (0, []),
        (1, [Tile(0, 0, 1)]),
        (255, [Tile(0, 0, 255)]),
        (256, [Tile(1, 0, 1)]),
        (257, [Tile(0, 1, 1), Tile(1, 0, 1)]),
        (65_536, [Tile(2, 0, 1)]),
        (70_000, [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]),
        (
            MAX_SIZE,
            [Tile(level, (MAX_SIZE >> 8 * level) // 256, 255) for level in range(7)] + [Tile(7, 0, 127)],
        ),
    ],
)
def test_the_partial_tiles_of_a_size_are_those_of_the_specification(size: int, edges: list[Tile]) -> None:
    assert edge_tiles(size) == edges
    assert all(edge == tile_of(edge.level, edge.index, size) for edge in edges)


def test_a_tile_is_full_or_as_wide_as_the_tree_makes_it() -> None:
    assert tile_of(0, 0, 70_000) == Tile(0, 0, 256)
    assert tile_of(0, 273, 70_000) == Tile(0, 273, 112)
    assert tile_of(1, 1, 70_000) == Tile(1, 1, 17)
    assert Tile(1, 1, 17).end() == 69_888
    assert [bundle_of(0, 70_000), bundle_of(273, 70_000)] == [Bundle(0), Bundle(273, 112)]
    assert Bundle(273, 112).end() == 70_000


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=256))
def test_the_hashes_of_a_tile_come_back(values: list[bytes]) -> None:
    hashes = [Hash(value) for value in values]
    data = join_hashes(hashes)
    assert split_hashes(data, len(hashes)) == hashes
    for wrong in (data + b"\x00", data[1:], data + bytes(32)):
        if wrong != data:
            with pytest.raises(MalformedError):
                split_hashes(wrong, len(hashes))


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_the_entries_of_a_bundle_come_back(entries: list[bytes]) -> None:
    assert split_bundle(join_bundle(entries), len(entries)) == entries


def test_a_bundle_holds_the_largest_and_the_smallest_entry() -> None:
    entries = [b"", bytes(65_535), b""]
    data = join_bundle(entries)
    assert data[:4] == b"\x00\x00\xff\xff"
    assert split_bundle(data, 3) == entries


@pytest.mark.parametrize(
    ("data", "width"),
    [
        (b"", 1),
        (b"\x00\x01a", 0),
        (b"\x00\x01a", 2),
        (b"\x00\x01a\x00\x01b", 1),
        (b"\x00", 1),
        (b"\x00\x02a", 1),
        (b"\x00\x01a\x00", 1),
        (b"\x00\x01a\x00", 2),
        (b"\x00\x01a\x01\x00b", 2),
    ],
)
def test_a_bundle_with_other_or_broken_entries_is_refused(data: bytes, width: int) -> None:
    with pytest.raises(MalformedError):
        split_bundle(data, width)


@pytest.mark.parametrize("size", SIZES)
def test_every_leaf_comes_back_from_the_tiles(size: int) -> None:
    whole = tree(size)
    leaves = [leaf for index in range(-(-size // 256)) for leaf in whole.leaves(index)]
    assert leaves == LEAVES[:size]


@pytest.mark.parametrize("size", SIZES)
def test_nodes_from_tiles_are_those_of_the_reference(size: int) -> None:
    whole = tree(size)
    for level in range(size.bit_length()):
        last = (size >> level) - 1
        for index in {0, last // 2, last}:
            expected = reference.mth(LEAVES[index << level : (index + 1) << level])
            assert whole.node(level, index) == expected


@given(index=st.integers(0, 69_999), old=st.sampled_from(SIZES))
def test_proofs_are_made_from_tiles(index: int, old: int) -> None:
    size = 70_000
    whole = tree(size)
    proof = prove_inclusion(index=index, size=size, node=whole.node)
    verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=root(size))
    steps = prove_consistency(old_size=old, new_size=size, node=whole.node)
    verify_consistency(old_size=old, new_size=size, old_root=root(old), new_root=root(size), proof=steps)


def test_nodes_can_be_read_from_tiles_that_are_trusted_already() -> None:
    node = node_in_tiles(lambda level, index: row(level)[256 * index : 256 * (index + 1)])
    for level, index in [(0, 0), (0, 69_999), (3, 8749), (8, 272), (9, 1), (15, 1), (16, 0)]:
        assert node(level, index) == reference.mth(LEAVES[index << level : (index + 1) << level])


@pytest.mark.parametrize("size", SIZES)
def test_no_leaf_or_node_beyond_the_tree_is_handed_out(size: int) -> None:
    whole = tree(size, lambda tile: read(tile) if tile.width > 0 else b"")
    for index in (-1, -(-size // 256), 2**40):
        with pytest.raises(ProofError):
            whole.leaves(index)
    for level in range(20):
        for index in (-1, size >> level, 2**40):
            with pytest.raises(ProofError):
                whole.node(level, index)


@pytest.mark.parametrize("size", SIZES)
def test_the_edge_must_lead_to_the_root(size: int) -> None:
    for wrong in {EMPTY_ROOT, root(255), Hash(bytes(32))} - {root(size)}:
        with pytest.raises(ProofError):
            TileTree(size=size, root=wrong, fetch=read)


def visit(size: int, fetch: Callable[[Tile], bytes], spoiled: Tile) -> None:
    """Read the first leaves that stand under a tile."""
    tree(size, fetch).leaves(spoiled.index << 8 * spoiled.level)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 600, 65_536, 70_000])
def test_a_flipped_bit_in_any_tile_is_refused(size: int) -> None:
    for level in range(3):
        for index in range(-(-(size >> 8 * level) // 256)):
            spoiled = tile_of(level, index, size)
            bit = (index * 7919 + level * 31) % (spoiled.width * 256)

            def fetch(tile: Tile, spoiled: Tile = spoiled, bit: int = bit) -> bytes:
                data = bytearray(read(tile))
                if tile == spoiled:
                    data[bit // 8] ^= 1 << bit % 8
                return bytes(data)

            with pytest.raises(ProofError):
                visit(size, fetch, spoiled)


@pytest.mark.parametrize("spoiled", [Tile(0, 273, 112), Tile(1, 0), Tile(0, 7)])
def test_a_tile_of_another_width_is_refused(spoiled: Tile) -> None:
    for change in (lambda data: data[:-32], lambda data: data + bytes(32), lambda data: data[1:]):

        def fetch(tile: Tile, change: Callable[[bytes], bytes] = change) -> bytes:
            return change(read(tile)) if tile == spoiled else read(tile)

        with pytest.raises(MalformedError):
            visit(70_000, fetch, spoiled)


def test_two_tiles_in_each_others_place_are_refused() -> None:
    def fetch(tile: Tile) -> bytes:
        return read(Tile(0, tile.index ^ 1) if tile in (Tile(0, 4), Tile(0, 5)) else tile)

    with pytest.raises(ProofError):
        tree(70_000, fetch).leaves(4)


def test_tiles_above_the_leaves_are_fetched_once() -> None:
    fetched: list[str] = []

    def fetch(tile: Tile) -> bytes:
        fetched.append(str(tile))
        return read(tile)

    whole = tree(70_000, fetch)
    whole.leaves(0)
    whole.leaves(255)
    whole.leaves(273)
    assert fetched == [
        "tile/0/273.p/112",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
        "tile/0/000",
        "tile/1/000",
        "tile/0/255",
    ]
