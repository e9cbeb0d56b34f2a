"""Mirrors: the hashes of a log's tree, kept in tiles, so that proofs about any older tree need no log."""

from collections.abc import Callable, Iterator
from typing import Final

from tlog_core.merkle import HASH_BYTES, Frontier, Growth, Hash, NodeReader, nodes_between
from tlog_core.tile import MAX_LEVEL, TILE_HEIGHT, TILE_WIDTH, node_in_tiles, split_hashes

ReadTile = Callable[[int, int], bytes]
"""Given the level and the index of a tile, its hashes as far as there are any, 32 bytes each."""

_FULL_BYTES: Final = TILE_WIDTH * HASH_BYTES


def node_reader(read: ReadTile) -> NodeReader:
    """Return a reader of the nodes of a mirror."""

    def hashes(level: int, place: int) -> list[Hash]:
        row = read(level, place)
        return split_hashes(row, len(row) // HASH_BYTES)

    return node_in_tiles(hashes)


def frontier_of(size: int, node: NodeReader) -> Frontier:
    """Return the right edge of the first `size` entries."""
    return Frontier(size, tuple(node(level, index) for level, index in nodes_between(0, size)))


def grown_tiles(growth: Growth, read: ReadTile) -> Iterator[tuple[int, int, bytes]]:
    """Yield (level, index, hashes) of each tile that growing made or widened; `read` reads the tiles before it."""
    for level in range(MAX_LEVEL + 1):
        if level * TILE_HEIGHT >= len(growth.rows):
            return
        first, row = growth.rows[level * TILE_HEIGHT]
        place, within = divmod(first, TILE_WIDTH)
        waiting = (read(level, place)[: within * HASH_BYTES] if within else b"") + b"".join(row)
        for start in range(0, len(waiting), _FULL_BYTES):
            yield level, place + start // _FULL_BYTES, waiting[start : start + _FULL_BYTES]
