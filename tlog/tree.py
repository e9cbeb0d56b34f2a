"""The tree of a segment as its sequencer holds it: the frontier, and the partial tiles that it still fills."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tlog.store.segment import StoredTile
from tlog_core.merkle import Frontier, Growth, Hash
from tlog_core.tile import TILE_HEIGHT, TILE_WIDTH, Tile, edge_tiles, join_hashes


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree that can grow. `edge[level]` are the hashes of the partial tile at that level, none if there is none."""

    frontier: Frontier
    edge: tuple[tuple[Hash, ...], ...]


EMPTY_TREE: Final = Tree(Frontier(), ())


@dataclass(frozen=True, slots=True)
class Grown:
    """What appending leaves makes of a tree: the new tree, its new nodes, and the tiles to store."""

    tree: Tree
    growth: Growth
    tiles: tuple[StoredTile, ...]


def load_tree(size: int, hashes: Callable[[Tile], Sequence[Hash]]) -> Tree:
    """Return the tree of `size` entries from its partial tiles. Compare its root with a signed one before use."""
    edges = edge_tiles(size)
    partial = {tile.level: tuple(hashes(tile)) for tile in edges}
    frontier = Frontier()
    for tile in reversed(edges):
        for subtree in partial[tile.level]:
            frontier = frontier.push(tile.level * TILE_HEIGHT, subtree)
    levels = max(partial, default=-1) + 1
    return Tree(frontier, tuple(partial.get(level, ()) for level in range(levels)))


def grow_tree(tree: Tree, leaves: Sequence[Hash]) -> Grown:
    """Return the tree after `leaves` are appended; every full tile, and above level 0 each partial one that changed."""
    growth = tree.frontier.grow(leaves)
    tiles: list[StoredTile] = []
    edge: list[tuple[Hash, ...]] = []
    for level in range(max(len(tree.edge), -(-len(growth.rows) // TILE_HEIGHT))):
        held = tree.edge[level] if level < len(tree.edge) else ()
        before = tree.frontier.size >> (TILE_HEIGHT * level)
        fresh = _fresh(growth, TILE_HEIGHT * level, before)
        row, first = [*held, *fresh], (before - len(held)) // TILE_WIDTH
        full = len(row) // TILE_WIDTH
        tiles += [
            _full_tile(Tile(level, first + place), row[place * TILE_WIDTH : (place + 1) * TILE_WIDTH], growth)
            for place in range(full)
        ]
        edge.append(tuple(row[full * TILE_WIDTH :]))
        if level and fresh and edge[level]:
            tiles.append(StoredTile(Tile(level, first + full, len(edge[level])), join_hashes(edge[level]), b""))
    return Grown(Tree(growth.frontier, tuple(edge)), growth, tuple(tiles))


def _fresh(growth: Growth, level: int, before: int) -> list[Hash]:
    # A row may begin with a peak of the tree before, which is in its tile already.
    if level >= len(growth.rows):
        return []
    first, row = growth.rows[level]
    return row[before - first :]


def _full_tile(tile: Tile, hashes: Sequence[Hash], growth: Growth) -> StoredTile:
    rows = [_nodes_above(tile, height, growth) for height in range(1, TILE_HEIGHT + 1)]
    # The first tile holds nodes from before, which did not grow now.
    if any(len(row) != TILE_WIDTH >> height for height, row in enumerate(rows, 1)):
        rows = [row for _, row in Frontier().grow(hashes).rows[1:]]
    return StoredTile(tile, join_hashes(hashes), b"".join(map(join_hashes, rows)))


def _nodes_above(tile: Tile, height: int, growth: Growth) -> Sequence[Hash]:
    first, row = growth.rows[tile.level * TILE_HEIGHT + height]
    start = (tile.index << (TILE_HEIGHT - height)) - first
    return row[start : start + (TILE_WIDTH >> height)] if start >= 0 else ()
