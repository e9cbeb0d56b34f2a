"""The tree of a segment as its sequencer holds it: the frontier, and the partial tiles that it still fills."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tlog_core.merkle import Frontier, Growth, Hash
from tlog_core.tile import TILE_HEIGHT, TILE_WIDTH, Tile, edge_tiles


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
    tiles: tuple[tuple[Tile, Sequence[Hash]], ...]


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
    tiles: list[tuple[Tile, Sequence[Hash]]] = []
    edge: list[tuple[Hash, ...]] = []
    for level in range(max(len(tree.edge), -(-len(growth.rows) // TILE_HEIGHT))):
        held = tree.edge[level] if level < len(tree.edge) else ()
        before = tree.frontier.size >> (TILE_HEIGHT * level)
        fresh = _fresh(growth, TILE_HEIGHT * level, before)
        row, first = [*held, *fresh], (before - len(held)) // TILE_WIDTH
        full = len(row) // TILE_WIDTH
        tiles += [
            (Tile(level, first + place), row[place * TILE_WIDTH : (place + 1) * TILE_WIDTH]) for place in range(full)
        ]
        edge.append(tuple(row[full * TILE_WIDTH :]))
        if level and fresh and edge[level]:
            tiles.append((Tile(level, first + full, len(edge[level])), edge[level]))
    return Grown(Tree(growth.frontier, tuple(edge)), growth, tuple(tiles))


def _fresh(growth: Growth, level: int, before: int) -> list[Hash]:
    # A row may begin with a peak of the tree before, which is in its tile already.
    if level >= len(growth.rows):
        return []
    first, row = growth.rows[level]
    return row[before - first :]
