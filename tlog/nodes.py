"""The nodes of a segment's tree for reading, from its stored tiles; the latest used are kept, hashed up, in memory."""

from collections import OrderedDict
from threading import Lock
from typing import Final

from tlog.store.segment import SegmentStore
from tlog_core.merkle import Frontier, Growth, Hash, NodeReader, leaf_hash
from tlog_core.tile import TILE_HEIGHT, TILE_WIDTH, Tile, join_hashes, split_hashes, tile_of

_KEPT_TILES: Final = 64


class Nodes:
    """Reads tiles and nodes of one segment. Threads share it."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store
        self._lock = Lock()
        self._kept: OrderedDict[tuple[int, int], Growth] = OrderedDict()

    def tile(self, tile: Tile) -> bytes:
        """Return the hashes of a tile that ends at or below the head; CorruptError if the store has lost it."""
        if tile.level or tile.width == TILE_WIDTH:
            return self._store.tile(tile)
        start = tile.index * TILE_WIDTH
        entries = self._store.entries(start, start + tile.width)
        return join_hashes([leaf_hash(entry) for entry in entries])

    def at(self, size: int) -> NodeReader:
        """Return a reader of the nodes of the tree of `size` entries, which is not beyond the head."""

        def node(level: int, index: int) -> Hash:
            tile_level, height = divmod(level, TILE_HEIGHT)
            place = index << height
            growth = self._growth(tile_of(tile_level, place // TILE_WIDTH, size))
            return growth.node(height, (place % TILE_WIDTH) >> height)

        return node

    def _growth(self, tile: Tile) -> Growth:
        key = (tile.level, tile.index)
        with self._lock:
            kept = self._kept.get(key)
            # A wider tile, read for a larger tree, holds every node of the narrower one.
            if kept is not None and kept.frontier.size >= tile.width:
                self._kept.move_to_end(key)
                return kept
        growth = Frontier().grow(split_hashes(self.tile(tile), tile.width))
        with self._lock:
            self._kept[key] = growth
            while len(self._kept) > _KEPT_TILES:
                self._kept.popitem(last=False)
        return growth
