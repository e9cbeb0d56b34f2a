"""The chunks of a segment joined, from the first on: what a check must remember to go on behind them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tlog.fsck.chunk import Checked, first_other
from tlog.fsck.finding import Fault, Kind
from tlog.tree import EMPTY_TREE, Tree, grow_tree
from tlog_core.merkle import HASH_BYTES, Frontier, Hash
from tlog_core.tile import TILE_HEIGHT, TILE_WIDTH, Tile, join_hashes

ReadTile = Callable[[int, int], tuple[bytes, bytes] | None]
"""Returns hashes and nodes of the stored tile at a level and a place."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The first `size` entries, a multiple of 256 but at the end.

    `upper` is the tree over the roots of their full tiles at level 0, `roots` those of the whole tree at some sizes,
    `following` the sequences that writers are to go on with. If it is `broken`, nothing is known of the tree any more.
    """

    size: int = 0
    upper: Tree = EMPTY_TREE
    roots: Mapping[int, Hash] = field(default_factory=dict)
    following: Mapping[str, int] = field(default_factory=dict)
    broken: bool = False

    def join(self, checked: Checked, sizes: set[int]) -> "Joined":
        """Return the same with the next chunk, and the roots at those of `sizes` that it has."""
        following = {**self.following, **{writer: span.next for writer, span in checked.writers.items()}}
        if self.broken or not checked.is_whole_up_to(checked.end):
            return Joined(checked.end, following=following, roots=self.roots, broken=True)
        inside = {size for size in sizes if checked.start < size <= checked.end}
        roots = {**self.roots, **{size: self._root_at(checked, size) for size in inside}}
        upper = grow_tree(self.upper, checked.roots).tree if checked.roots else self.upper
        return replace(self, size=checked.end, upper=upper, roots=roots, following=following)

    def _root_at(self, checked: Checked, size: int) -> Hash:
        full = (size - checked.start) // TILE_WIDTH
        peaks = self.upper.frontier.grow(checked.roots[:full]).frontier.peaks
        return Frontier(size, (*peaks, *Frontier().grow(checked.tails.get(size, ())).frontier.peaks)).root()


NOTHING: Final = Joined()
"""Before the first chunk."""


def join_faults(joined: Joined, checked: Checked, read: ReadTile) -> Iterator[Fault]:
    """Yield what is wrong between a chunk and those before it: sequences of writers, and the tiles above level 0."""
    for writer, span in checked.writers.items():
        due = joined.following.get(writer, 0)
        if span.first != due:
            yield (
                f"entry {span.index}",
                Kind.SEQUENCE,
                f"it has sequence {span.first} of {writer}, where {due} was to come",
            )
    if joined.broken:
        return
    if not checked.is_whole_up_to(checked.end):
        first = checked.start + len(checked.roots) * TILE_WIDTH
        yield (
            f"entries {first} on",
            Kind.TILE,
            "they cannot be joined to the tree: neither entries nor tile can be read",
        )
        return
    if checked.roots:
        for one in grow_tree(joined.upper, checked.roots).tiles:
            if one.tile.width == TILE_WIDTH:
                yield from _tile_faults(read, one.tile.level + 1, one.tile.index, one.hashes, one.nodes)


def edge_faults(joined: Joined, read: ReadTile) -> Iterator[Fault]:
    """Yield what is wrong with the tiles above level 0 that are not full."""
    for level, hashes in enumerate(joined.upper.edge):
        if hashes:
            place = joined.upper.frontier.size >> (TILE_HEIGHT * (level + 1))
            yield from _tile_faults(read, level + 1, place, join_hashes(hashes), b"")


def _tile_faults(read: ReadTile, level: int, place: int, hashes: bytes, nodes: bytes) -> Iterator[Fault]:
    name = str(Tile(level, place, len(hashes) // HASH_BYTES))
    stored = read(level, place)
    if stored is None:
        yield name, Kind.TILE, "it is missing"
        return
    # One that is not full may have become wider meanwhile.
    if stored[0][: len(hashes)] != hashes:
        yield name, Kind.TILE, f"it differs from the entries, first in hash {first_other(stored[0], hashes)}"
    if nodes and stored[1] != nodes:
        yield name, Kind.TILE, f"its nodes differ from the entries, first in node {first_other(stored[1], nodes)}"
