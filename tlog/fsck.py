"""`tlog fsck`: recompute everything from the stored bytes and compare it with what was signed."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from tlog.access.token import OWN_NAMES
from tlog.config import Config
from tlog.errors import CorruptError
from tlog.segments import check_begun, open_store, read_signer
from tlog.store.changes import SegmentRow
from tlog.store.codec import Payload
from tlog.store.connection import DatabaseError
from tlog.store.control import ControlStore
from tlog.store.cosigned import CosignedHead, WitnessLine
from tlog.store.segment import Head, SegmentStore
from tlog.submit import SEAL_WRITER
from tlog.tree import EMPTY_TREE, Grown, grow_tree
from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.commitment import verify_commitment
from tlog_core.cosignature import open_cosignature
from tlog_core.entry import Entry, parse_entry
from tlog_core.errors import TlogError
from tlog_core.merkle import EMPTY_ROOT, Hash, leaf_hash
from tlog_core.note import VerifierKey, parse_note, parse_verifier
from tlog_core.tile import TILE_WIDTH
from tlog_core.writer import verify_sequence, verify_signature

Progress = Callable[[str, int, int], None]
"""Is told a segment, how many of its entries are done, and how many there are."""


def check(config: Config, names: Sequence[str], progress: Progress) -> Iterator[str]:
    """Yield a finding, with its place, for each thing that is wrong in these segments, or in all if none is named.

    A segment that a server appends to meanwhile is checked up to its head at the beginning.
    """
    check_begun(config)
    control = _open_control(config)
    try:
        log_name, keys = control.log_name(), [row.key for row in control.all_writer_keys()]
        rows = [control.find(name) for name in names] or control.list()
        for row in rows:
            try:
                yield from (
                    f"{row.name}: {finding}" for finding in _check_segment(config, row, log_name, keys, progress)
                )
            except (TlogError, DatabaseError) as error:
                yield f"{row.name}: {error}"
        if not names:
            yield from _strangers(config, control)
    except (DatabaseError, ValueError) as error:
        raise CorruptError(f"control.db cannot be read: {error}") from None
    finally:
        control.close()


def _open_control(config: Config) -> ControlStore:
    try:
        return ControlStore.open(config.control)
    except DatabaseError as error:
        raise CorruptError(f"control.db cannot be read: {error}") from None


def _check_segment(
    config: Config, row: SegmentRow, log_name: str, keys: Sequence[VerifierKey], progress: Progress
) -> Iterator[str]:
    yield from _check_row(config, row, log_name)
    store = open_store(config, row)
    try:
        yield from store.damage()
        # Before the head, which a server may move on meanwhile: nobody cosigns more than there is.
        lines, cosigned = store.cosignatures(), store.cosigned()
        head = store.head()
        if (frozen := store.frozen()) is not None:
            yield f"frozen: {frozen.reason}; it takes no more entries"
        if (row.sealed is not None) != head.sealed and frozen is None:
            yield "whether it is sealed, control.db and its head do not say alike; seal it again"
        sizes = {0, *(line.size for line in lines), head.size if cosigned is None else cosigned.size}
        roots: dict[int, Hash | None] = dict.fromkeys(sizes)
        roots[0] = EMPTY_ROOT
        yield from _check_tree(row, store, head, keys, progress, roots)
        yield from _check_cosigned(row, lines, cosigned, roots)
    finally:
        store.close()


def _check_cosigned(
    row: SegmentRow, lines: Sequence[WitnessLine], cosigned: CosignedHead | None, roots: Mapping[int, Hash | None]
) -> Iterator[str]:
    """Check what is stored of witnesses: each line by the key beside it, each head against the entries."""
    for line in lines:
        try:
            key = parse_verifier(line.vkey)
            text = str(Checkpoint(row.origin, line.size, line.root))
            if open_cosignature(parse_note(f"{text}\n{line.line}".encode()), key).time != line.time:
                yield f"the cosignature of {key.name} has another time"
        except TlogError as error:
            yield f"the cosignature of {line.vkey} does not hold: {error}"
        if roots.get(line.size) != line.root:
            yield f"the entries do not make the root of size {line.size} that {line.vkey} cosigned"
    if cosigned is None:
        return
    try:
        checkpoint = open_checkpoint(cosigned.note, parse_verifier(row.vkey))
        if (checkpoint.size, checkpoint.root) != (cosigned.size, cosigned.root):
            yield "the cosigned head is not the one signed"
    except TlogError as error:
        yield f"the cosigned head cannot be trusted: {error}"
    if roots.get(cosigned.size) != cosigned.root:
        yield f"the entries do not make the root of the cosigned head of size {cosigned.size}"


def _check_row(config: Config, row: SegmentRow, log_name: str) -> Iterator[str]:
    if row.origin != f"{log_name}/segments/{row.name}":
        yield f"control.db gives it another origin, {row.origin}"
    if parse_verifier(row.vkey).name != row.origin:
        yield f"control.db gives it the key of another origin, {row.vkey}"
    try:
        read_signer(config, row)
    except CorruptError as error:
        yield str(error)


def _check_tree(
    row: SegmentRow,
    store: SegmentStore,
    head: Head,
    keys: Sequence[VerifierKey],
    progress: Progress,
    roots: dict[int, Hash | None],
) -> Iterator[str]:
    """Check the tree, and put into `roots` the root at each of its sizes that there is."""
    tree, time, following = EMPTY_TREE, 0, dict[str, int]()
    for start in range(0, head.size, TILE_WIDTH):
        end = min(start + TILE_WIDTH, head.size)
        place = f"entries {start} to {end - 1}"
        try:
            entries = store.entries(start, end)
        except CorruptError as error:
            yield f"{place}: {error}; nothing behind them was checked"
            return
        try:
            payloads = store.payloads(start, end)
        except CorruptError as error:
            yield f"{place}: {error}"
            payloads = []
        for index, (raw, payload) in enumerate(zip(entries, payloads, strict=False), start):
            try:
                entry = _check_entry(row, raw, payload, time)
                time = entry.time
                _check_writer(row, entry, keys, following)
            except TlogError as error:
                yield f"entry {index}: {error}"
        leaves = [leaf_hash(raw) for raw in entries]
        for size in [size for size in roots if start <= size <= end]:
            roots[size] = tree.frontier.grow(leaves[: size - start]).frontier.root()
        grown = grow_tree(tree, leaves)
        yield from _check_tiles(store, grown)
        tree = grown.tree
        progress(row.name, end, head.size)
    if tree.frontier.root() != head.root:
        yield f"the entries do not make the signed root of size {head.size}"
    if head.sealed and parse_entry(store.entries(head.size - 1, head.size)[0]).writer != SEAL_WRITER:
        yield "it is sealed, and its last entry does not say so"
    if head.size and time != head.time:
        yield "the head does not have the time of its last entry"
    # What a server has appended meanwhile may have moved these on.
    stored = store.sequences()
    if any(number > stored.get(writer, 0) for writer, number in following.items()):
        yield "the stored sequences of writers are behind their entries"


def _check_entry(row: SegmentRow, raw: bytes, payload: Payload, time: int) -> Entry:
    entry: Entry = parse_entry(raw)
    if entry.origin != row.origin:
        raise CorruptError(f"belongs to {entry.origin}")
    if entry.time < time:
        raise CorruptError("is older than the entry before it")
    if not payload.is_lost:
        verify_commitment(entry.commitment, opening=payload.opening, payload_type=payload.type, payload=payload.data)
    return entry


def _check_writer(row: SegmentRow, entry: Entry, keys: Sequence[VerifierKey], following: dict[str, int]) -> None:
    """Check signature and sequence of an entry, as far as it has them or must, and move its writer's on."""
    if entry.signed is None:
        if row.signed and not entry.writer.startswith(OWN_NAMES):
            raise CorruptError("is not signed by its writer, as the segment demands")
        return
    expected, following[entry.writer] = following.get(entry.writer, 0), entry.signed.sequence + 1
    verify_signature(entry.signed, origin=entry.origin, writer=entry.writer, commitment=entry.commitment, keys=keys)
    verify_sequence(entry, expected)


def _check_tiles(store: SegmentStore, grown: Grown) -> Iterator[str]:
    for expected in grown.tiles:
        tile = expected.tile
        try:
            if store.tile(tile) != expected.hashes:
                yield f"{tile} differs from the entries"
            if tile.width == TILE_WIDTH and store.full_tile(tile).nodes != expected.nodes:
                yield f"the nodes of {tile} differ from the entries"
        except CorruptError as error:
            yield str(error) if str(tile) in str(error) else f"{tile}: {error}"


def _strangers(config: Config, control: ControlStore) -> Iterator[str]:
    """Yield files of segments that no row names: a crash while creating a segment leaves them behind, unused."""
    # Held, or a segment that is being made now would look like one.
    with control.holding() as rows:
        known = {row.id for row in rows}
        paths = [path for folder in ("segments", "keys") for path in sorted((config.data / folder).glob("*"))]
    for path in paths:
        if path.name.split(".")[0] not in known:
            yield f"{path.relative_to(config.data)} belongs to no segment; it may be deleted"
