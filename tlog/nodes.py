"""The nodes of a segment's tree for reading, from its stored tiles; the latest read are kept in memory."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from threading import Lock
from typing import Final

from tlog.errors import CorruptError
from tlog.store.segment import Head, SegmentStore
from tlog.tree import load_tree
from tlog_core.merkle import HASH_BYTES, Frontier, Hash, NodeReader, leaf_hashes
from tlog_core.tile import TILE_HEIGHT, TILE_WIDTH, Tile, join_hashes, split_hashes, tile_of

_KEPT_TILES: Final = 64  # of each level
_HEIGHT_SHIFT: Final = 3
_HEIGHT_MASK: Final = TILE_HEIGHT - 1
_WIDTH_MASK: Final = TILE_WIDTH - 1

# Where a height begins in a full tile hashed up, in hashes: the heights below it have 256, 128, 64 ... nodes.
_HEIGHT_STARTS: Final = tuple(2 * TILE_WIDTH - (2 * TILE_WIDTH >> height) for height in range(TILE_HEIGHT))

_sha256 = hashlib.sha256


@dataclass(frozen=True, slots=True)
class _Grown:
    """A tile hashed up: its own hashes, 32 bytes each, then the nodes above them, each height where it is when full."""

    width: int
    nodes: bytes


class Nodes:
    """Reads tiles and nodes of one segment. Threads share it."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store
        self._lock = Lock()
        # By level: there are 256 times as many below, and a proof comes back to those above.
        self._kept: defaultdict[int, dict[int, _Grown]] = defaultdict(dict)

    def tile(self, tile: Tile) -> bytes:
        """Return the hashes of a tile that ends at or below the head; CorruptError if what is stored is damaged."""
        return self._hashes(tile)[: tile.width * HASH_BYTES]

    def check_entries(self, start: int, entries: Sequence[bytes]) -> None:
        """Check stored entries from `start` on, all below the head, against the tree; CorruptError names the first."""
        end = start + len(entries)
        for index in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            low, high = max(start, index * TILE_WIDTH), min(end, (index + 1) * TILE_WIDTH)
            found = join_hashes(leaf_hashes(entries[low - start : high - start]))
            leaves = self._hashes(tile_of(0, index, high))[(low - index * TILE_WIDTH) * HASH_BYTES :]
            if not leaves.startswith(found):
                whole = takewhile(leaves.startswith, (found[: (n + 1) * HASH_BYTES] for n in range(high - low)))
                raise CorruptError(f"entry {low + len(list(whole))} or its leaf hash is damaged; run tlog fsck")

    def _hashes(self, tile: Tile) -> bytes:
        """Return the hashes of a tile that ends at or below the head, or of a wider one in its place, checked."""
        if tile.width < TILE_WIDTH:
            head = self._store.head()
            if tile_of(tile.level, tile.index, head.size).width < TILE_WIDTH:
                return join_hashes(self._edge(tile.level, head))
        stored = self._store.full_tile(Tile(tile.level, tile.index))
        # One flipped bit shows in the nodes right above it, and whoever asks for those sees it here.
        if not stored.nodes.startswith(_parents(stored.hashes)):
            raise CorruptError(f"{stored.tile} is damaged; run tlog fsck")
        return stored.hashes

    def _edge(self, level: int, head: Head) -> Sequence[Hash]:
        """Return the partial tile of a level under this head, if with all of them the tree has the signed root."""
        tree = load_tree(head.size, lambda tile: split_hashes(self._partial(tile), tile.width))
        if tree.frontier.root() != head.root:
            raise CorruptError("the last entries, or the tiles at the edge, are damaged; run tlog fsck")
        return tree.edge[level]

    def _partial(self, tile: Tile) -> bytes:
        return self._store.tile(tile) if tile.level else self._from_entries(tile)

    def _from_entries(self, tile: Tile) -> bytes:
        start = tile.index * TILE_WIDTH
        entries = self._store.entries(start, start + tile.width)
        return join_hashes(leaf_hashes(entries))

    def at(self, size: int) -> NodeReader:
        """Return a reader of the nodes of the tree of `size` entries, which is not beyond the head."""
        seen: dict[tuple[int, int], _Grown] = {}

        def node(level: int, index: int) -> Hash:
            # Shifts and masks: a proof asks for twenty nodes, and most of its time is spent here.
            height = level & _HEIGHT_MASK
            place = index << height
            key = (level >> _HEIGHT_SHIFT, place >> TILE_HEIGHT)
            grown = seen.get(key)
            if grown is None:
                grown = seen[key] = self._grown(tile_of(*key, size))
            start = (_HEIGHT_STARTS[height] + ((place & _WIDTH_MASK) >> height)) * HASH_BYTES
            return Hash(grown.nodes[start : start + HASH_BYTES])

        return node

    def _grown(self, tile: Tile) -> _Grown:
        level = self._kept[tile.level]
        kept = level.get(tile.index)
        # A wider tile, read for a larger tree, holds every node of the narrower one.
        if kept is not None and kept.width >= tile.width:
            return kept
        grown = self._read(tile)
        with self._lock:
            while len(level) >= _KEPT_TILES:
                del level[next(iter(level))]
            level[tile.index] = grown
        return grown

    def _is_full(self, tile: Tile) -> bool:
        # A partial tile at level 0 is stored only if it has become full since.
        return tile.width == TILE_WIDTH or (tile.level == 0 and self._store.has_tile(tile))

    def _read(self, tile: Tile) -> _Grown:
        if self._is_full(tile):
            stored = self._store.full_tile(tile)
            return _Grown(TILE_WIDTH, stored.hashes + stored.nodes)
        growth = Frontier().grow(split_hashes(self._partial(tile), tile.width))
        rows = [join_hashes(row) for _, row in growth.rows]
        widths = [(TILE_WIDTH >> height) * HASH_BYTES for height in range(len(rows))]
        return _Grown(tile.width, b"".join(row.ljust(width, b"\0") for row, width in zip(rows, widths, strict=True)))


def _parents(hashes: bytes) -> bytes:
    # `node_hash` written out, and nothing cut into hashes: here is where the time of a tile is spent.
    return b"".join(
        [
            _sha256(b"\x01" + hashes[place : place + 2 * HASH_BYTES]).digest()
            for place in range(0, len(hashes), 2 * HASH_BYTES)
        ]
    )
