"""What every C2SP tlog-tiles log has below its prefix: tiles and entry bundles, and what is made of them alone."""

from collections.abc import Sequence
from typing import Final, Protocol

from tlog_client.errors import RefusedError
from tlog_core.checkpoint import Checkpoint
from tlog_core.errors import ProofError
from tlog_core.merkle import HASH_BYTES, Frontier, Hash, leaf_hashes
from tlog_core.proof import prove_consistency
from tlog_core.tile import (
    MAX_ENTRY_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Bundle,
    Tile,
    TileTree,
    bundle_of,
    split_bundle,
)

MAX_BUNDLE_BYTES: Final = TILE_WIDTH * (2 + MAX_ENTRY_BYTES)


class Get(Protocol):
    """Given a path below the log's prefix, what is there, at most `limit` bytes; raises FetchError."""

    def __call__(self, path: str, *, limit: int) -> bytes: ...  # noqa: D102


def fetch_tile(tile: Tile, get: Get) -> bytes:
    """Return the hashes of a tile, not verified; raise FetchError."""
    length = tile.width * HASH_BYTES
    try:
        return get(str(tile), limit=length)
    except RefusedError:
        if tile.width == TILE_WIDTH:
            raise
    # C2SP tlog-tiles: a log may delete a partial tile once the full one is there, which begins with it.
    return get(str(Tile(tile.level, tile.index)), limit=TILE_WIDTH * HASH_BYTES)[:length]


def fetch_bundle(bundle: Bundle, get: Get) -> list[bytes]:
    """Return the entries of a bundle, not verified; raise FetchError or MalformedError."""
    try:
        return split_bundle(get(str(bundle), limit=MAX_BUNDLE_BYTES), bundle.width)
    except RefusedError:
        if bundle.width == TILE_WIDTH:
            raise
    full = get(str(Bundle(bundle.index)), limit=MAX_BUNDLE_BYTES)
    return split_bundle(full, TILE_WIDTH)[: bundle.width]


def read_bundle(place: int, *, size: int, tree: TileTree, get: Get) -> list[bytes]:
    """Return the entries under the level-0 tile at `place` in a tree of `size` entries, after checking their hashes.

    Raises ProofError, MalformedError, or FetchError.
    """
    bundle = bundle_of(place, size)
    entries = fetch_bundle(bundle, get)
    verify_bundle(bundle, entries, tree)
    return entries


def verify_bundle(bundle: Bundle, entries: Sequence[bytes], tree: TileTree) -> None:
    """Check that these are the entries of a bundle of the tree; ProofError, or MalformedError or FetchError."""
    leaves = leaf_hashes(entries)
    # The entries of a full bundle make its node in the tile above, so that their own tile need not be fetched.
    if bundle.width == TILE_WIDTH:
        holds = Frontier().grow(leaves).frontier.root() == tree.node(TILE_HEIGHT, bundle.index)
    else:
        holds = leaves == tree.leaves(bundle.index)
    if not holds:
        raise ProofError(f"the entries from {bundle.index * TILE_WIDTH} on are not those that the log committed to")


def consistency_in_tiles(old_size: int, new: Checkpoint, get: Get) -> Sequence[Hash]:
    """Return the proof from an older tree to a verified checkpoint's, out of its tiles; ProofError or FetchError."""
    return prove_consistency(old_size=old_size, new_size=new.size, node=tiles_of(new, get).node)


def tiles_of(tree: Checkpoint, get: Get) -> TileTree:
    """Return the nodes of a checkpoint's tree, checked against its root; FetchError, ProofError, MalformedError."""
    return TileTree(size=tree.size, root=tree.root, fetch=lambda tile: fetch_tile(tile, get))
