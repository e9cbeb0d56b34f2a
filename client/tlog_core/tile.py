"""Tiles and entry bundles (C2SP tlog-tiles).

Tile (level, index) holds up to 256 hashes: the nodes at tree level 8 * level from index * 256 on. An entry bundle holds
the entries under the level-0 tile of the same index. A tile is *full* at width 256 and *partial* below it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tlog_core.encoding import MAX_INTEGER
from tlog_core.errors import MalformedError, ProofError
from tlog_core.merkle import HASH_BYTES, Frontier, Hash, NodeReader

TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
MAX_LEVEL: Final = 7
"""The highest level that a tree of less than 2^63 entries has."""

MAX_ENTRY_BYTES: Final = 65_535

_PATH: Final = re.compile(r"tile/([0-9]{1,2}|entries)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class Tile:
    """The place of a tile: its level, its index there, and its width in hashes (1 to 256)."""

    level: int
    index: int
    width: int = TILE_WIDTH

    def __str__(self) -> str:
        """Return the path below the log's prefix, such as `tile/0/x001/234.p/5`."""
        return f"tile/{self.level}/{_format_place(self.index, self.width)}"

    def end(self) -> int:
        """Return the size that a tree must have for this tile to exist."""
        return (self.index * TILE_WIDTH + self.width) << (TILE_HEIGHT * self.level)


@dataclass(frozen=True, slots=True)
class Bundle:
    """The place of an entry bundle: its index, and its width in entries (1 to 256)."""

    index: int
    width: int = TILE_WIDTH

    def __str__(self) -> str:
        """Return the path below the log's prefix, such as `tile/entries/x001/234`."""
        return f"tile/entries/{_format_place(self.index, self.width)}"

    def end(self) -> int:
        """Return the size that a tree must have for this bundle to exist."""
        return self.index * TILE_WIDTH + self.width


def parse_path(path: str) -> Tile | Bundle:
    """Return the tile or bundle at a path; raise MalformedError for any path that is not exactly its own."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise MalformedError("not a tile path; see C2SP tlog-tiles")
    level, place, width = match.groups(default=str(TILE_WIDTH))
    index = int(place.replace("x", "").replace("/", ""))
    found = Bundle(index, int(width)) if level == "entries" else Tile(int(level), index, int(width))
    if str(found) != path or not 1 <= found.width <= TILE_WIDTH or found.end() > MAX_INTEGER:
        raise MalformedError("not the path of a tile in its shortest form; see C2SP tlog-tiles")
    return found


def tile_of(level: int, index: int, size: int) -> Tile:
    """Return the tile (level, index) as wide as it is in a tree of `size` entries."""
    return Tile(level, index, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH))


def bundle_of(index: int, size: int) -> Bundle:
    """Return the bundle at `index` as wide as it is in a tree of `size` entries."""
    return Bundle(index, tile_of(0, index, size).width)


def edge_tiles(size: int) -> list[Tile]:
    """Return the partial tiles of a tree of `size` entries, the lowest level first."""
    widths = ((level, size >> (TILE_HEIGHT * level)) for level in range(MAX_LEVEL + 1))
    return [Tile(level, width // TILE_WIDTH, width % TILE_WIDTH) for level, width in widths if width % TILE_WIDTH]


def join_hashes(hashes: Sequence[Hash]) -> bytes:
    """Return the bytes of a tile: 32 for each hash."""
    return b"".join(hashes)


def split_hashes(data: bytes, width: int) -> list[Hash]:
    """Return the `width` hashes of a tile; raise MalformedError for any other number of bytes."""
    if len(data) != width * HASH_BYTES:
        raise MalformedError(f"a tile of width {width} has {width * HASH_BYTES} bytes, not {len(data)}")
    return [Hash(data[place : place + HASH_BYTES]) for place in range(0, len(data), HASH_BYTES)]


def join_bundle(entries: Sequence[bytes]) -> bytes:
    """Return the bytes of an entry bundle: each entry after its length as two bytes, big-endian."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def split_bundle(data: bytes, width: int) -> list[bytes]:
    """Return the `width` entries of a bundle; raise MalformedError if it holds more, fewer or a part of one."""
    entries, place, end = list[bytes](), 0, len(data)
    while place < end:
        start = place + 2
        place = start + int.from_bytes(data[place:start], "big")
        entries.append(data[start:place])
    if place > end:
        raise MalformedError("the entry bundle ends within an entry")
    if len(entries) != width:
        raise MalformedError(f"expected {width} entries in the bundle, not {len(entries)}")
    return entries


class TileTree:
    """The nodes of a tree, read from its tiles and checked against its root before any is handed out.

    A tile is trusted once its hashes lead to a node that is trusted already: the partial tiles at the right edge to the
    root, and each full tile to its place in the tile above.
    """

    def __init__(self, *, size: int, root: Hash, fetch: Callable[[Tile], bytes]) -> None:
        """Fetch the partial tiles and check them against the root of a tree of `size` entries; raise ProofError."""
        self._size = size
        self._fetch = fetch
        self._trusted: dict[Tile, list[Hash]] = {
            edge: split_hashes(fetch(edge), edge.width) for edge in edge_tiles(size)
        }
        self._last: dict[Tile, list[Hash]] = {}
        frontier = Frontier()
        for edge in sorted(self._trusted, key=lambda tile: -tile.level):
            for subtree in self._trusted[edge]:
                frontier = frontier.push(edge.level * TILE_HEIGHT, subtree)
        if frontier.root() != root:
            raise ProofError("the tiles at the right edge do not lead to the root")

    def leaves(self, index: int) -> list[Hash]:
        """Return the leaf hashes of the level-0 tile at `index`; raise ProofError or MalformedError."""
        if not 0 <= index * TILE_WIDTH < self._size:
            raise ProofError(f"no leaf tile {index} in a tree of {self._size} entries")
        return self._hashes(tile_of(0, index, self._size))

    def node(self, level: int, index: int) -> Hash:
        """Return the hash of a node of the tree; raise ProofError or MalformedError."""
        if not 0 <= index < self._size >> level:
            raise ProofError(f"no node ({level}, {index}) in a tree of {self._size} entries")
        return node_in_tiles(lambda tile_level, place: self._hashes(tile_of(tile_level, place, self._size)))(
            level, index
        )

    def _hashes(self, tile: Tile) -> list[Hash]:
        known = self._trusted.get(tile) or self._last.get(tile)
        if known is not None:
            return known
        hashes = split_hashes(self._fetch(tile), tile.width)
        parent = self._hashes(tile_of(tile.level + 1, tile.index // TILE_WIDTH, self._size))
        if Frontier().grow(hashes).frontier.root() != parent[tile.index % TILE_WIDTH]:
            raise ProofError(f"{tile} does not lead to the root")
        # Of leaf tiles the last is kept, of which a proof asks for many nodes: all would be the whole log in memory.
        if tile.level:
            self._trusted[tile] = hashes
        else:
            self._last = {tile: hashes}
        return hashes


def node_in_tiles(hashes: Callable[[int, int], Sequence[Hash]]) -> NodeReader:
    """Return a reader of nodes over a reader that gives the hashes of the tile (level, index)."""

    def node(level: int, index: int) -> Hash:
        tile_level, height = divmod(level, TILE_HEIGHT)
        start = index << height
        row = hashes(tile_level, start // TILE_WIDTH)
        place = start % TILE_WIDTH
        return Frontier().grow(row[place : place + (1 << height)]).frontier.root()

    return node


def _format_place(index: int, width: int) -> str:
    digits = f"{index:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[place : place + 3] for place in range(0, len(digits), 3)]
    suffix = "" if width == TILE_WIDTH else f".p/{width}"
    return "x".join(["", *(group + "/" for group in groups[:-1])]) + groups[-1] + suffix
