"""The nodes of a segment's tree for reading, from its stored tiles; the latest read are kept in memory."""

from collections.abc import Iterator
from threading import Lock
from typing import Final

from tlog.store.segment import SegmentStore
from tlog_core.merkle import HASH_BYTES, Frontier, Hash, NodeReader, leaf_hash
from tlog_core.tile import TILE_HEIGHT, TILE_WIDTH, Tile, join_hashes, split_hashes, tile_of

_KEPT_TILES: Final = 64
_HEIGHT_SHIFT: Final = 3
_HEIGHT_MASK: Final = TILE_HEIGHT - 1
_WIDTH_MASK: Final = TILE_WIDTH - 1

Rows = tuple[bytes, ...]
"""A tile hashed up: its own hashes, 32 bytes each, then the nodes above them, level by level."""


class Nodes:
    """Reads tiles and nodes of one segment. Threads share it."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store
        self._lock = Lock()
        self._kept: dict[tuple[int, int], Rows] = {}

    def tile(self, tile: Tile) -> bytes:
        """Return the hashes of a tile that ends at or below the head; CorruptError if the store has lost it."""
        if tile.level or self._is_full(tile):
            return self._store.tile(tile)
        return self._from_entries(tile)

    def _from_entries(self, tile: Tile) -> bytes:
        start = tile.index * TILE_WIDTH
        entries = self._store.entries(start, start + tile.width)
        return join_hashes([leaf_hash(entry) for entry in entries])

    def at(self, size: int) -> NodeReader:
        """Return a reader of the nodes of the tree of `size` entries, which is not beyond the head."""
        seen: dict[tuple[int, int], Rows] = {}

        def node(level: int, index: int) -> Hash:
            # Shifts and masks: a proof asks for twenty nodes, and most of its time is spent here.
            height = level & _HEIGHT_MASK
            place = index << height
            key = (level >> _HEIGHT_SHIFT, place >> TILE_HEIGHT)
            rows = seen.get(key)
            if rows is None:
                rows = seen[key] = self._rows(tile_of(*key, size))
            start = ((place & _WIDTH_MASK) >> height) * HASH_BYTES
            return Hash(rows[height][start : start + HASH_BYTES])

        return node

    def _rows(self, tile: Tile) -> Rows:
        key = (tile.level, tile.index)
        kept = self._kept.get(key)
        # A wider tile, read for a larger tree, holds every node of the narrower one.
        if kept is not None and len(kept[0]) >= tile.width * HASH_BYTES:
            return kept
        rows = tuple(self._read(tile))
        with self._lock:
            # The oldest goes, used or not: the few that every proof needs come back at once.
            while len(self._kept) >= _KEPT_TILES:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = rows
        return rows

    def _is_full(self, tile: Tile) -> bool:
        # A partial tile at level 0 is stored only if it has become full since.
        return tile.width == TILE_WIDTH or (tile.level == 0 and self._store.has_tile(tile))

    def _read(self, tile: Tile) -> Iterator[bytes]:
        if not self._is_full(tile):
            hashes = self._store.tile(tile) if tile.level else self._from_entries(tile)
            growth = Frontier().grow(split_hashes(hashes, tile.width))
            yield from (join_hashes(row) for _, row in growth.rows)
            return
        stored = self._store.full_tile(tile)
        yield stored.hashes
        start, width = 0, TILE_WIDTH * HASH_BYTES
        while width > HASH_BYTES:
            width //= 2
            yield stored.nodes[start : start + width]
            start += width
