"""Bringing back entries that the data of a segment has lost, from whoever still has them (`spec/durability.md`).

Nothing is signed: what comes back is what the log signed before, to the last bit, or it is not taken.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tlog.access.action import CONTROL
from tlog.config import Config
from tlog.errors import ConfigError, CorruptError
from tlog.latest import anchored
from tlog.segments import Segment, open_store
from tlog.sequencer import read_tree
from tlog.store.changes import SegmentRow
from tlog.store.codec import LOST, Payload, columns_of
from tlog.store.connection import DatabaseError
from tlog.store.control import ControlStore
from tlog.store.segment import Head, Transaction
from tlog.submit import SEAL_WRITER
from tlog.tree import grow_tree
from tlog_client.events import canonical_event
from tlog_client.files import parse_event, read_events, read_receipts, read_whole
from tlog_client.tiles import fetch_bundle
from tlog_client.transport import Backoff, Transport, new_session
from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.commitment import verify_commitment
from tlog_core.entry import Entry, parse_entry
from tlog_core.errors import MalformedError, ProofError
from tlog_core.merkle import leaf_hashes
from tlog_core.note import Note, VerifierKey, parse_note, parse_verifier
from tlog_core.receipt import Receipt, verify_receipt
from tlog_core.tile import TILE_WIDTH, bundle_of

_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Found:
    """What somebody has of a segment: heads that the log signed, by size, and entries and payloads, by index."""

    key: VerifierKey
    heads: dict[int, tuple[Checkpoint, bytes]] = field(default_factory=dict)
    entries: dict[int, bytes] = field(default_factory=dict)
    payloads: dict[int, Payload] = field(default_factory=dict)

    def add_head(self, note: bytes) -> Checkpoint:
        """Add a head, without the signatures of others, and return it; MalformedError or SignatureError."""
        checkpoint, parsed = open_checkpoint(note, self.key), parse_note(note)
        own = [line for line in parsed.signatures if (line.name, line.key_id) == (self.key.name, self.key.id)]
        self.heads[checkpoint.size] = checkpoint, bytes(Note(parsed.text, tuple(own)))
        return checkpoint


def find(config: Config, row: SegmentRow, start: int, sources: Iterable[str], events: Iterable[Path]) -> Found:
    """Return what sources, and its anchor, have of a segment from index `start` on.

    A source is a data folder or a backup, a folder or a URL that has its tiles, or a file of receipts, the payloads of
    which are among the `events`. Raises ConfigError for what is none of these, and the errors of reading it.
    """
    found = Found(parse_verifier(row.vkey))
    if (newest := anchored(config.anchor_of(row.id), found.key)) is not None:
        found.add_head(newest.note)
    payloads = [payload for file in events for payload in _payloads_in(file)]
    for source in sources:
        path = Path(source)
        if "://" in source:
            session = new_session(_SECONDS)
            _add_tiles(found, start, Transport(source, session=session, timeout=_SECONDS, backoff=Backoff()).get)
        elif (path / "control.db").exists():
            _add_data(found, row, start, path)
        elif (path / "checkpoint").exists():
            _add_tiles(found, start, lambda name, *, limit, path=path: read_whole(path / name, limit=limit))
        elif path.is_file():
            _add_receipts(found, start, path, payloads)
        else:
            raise ConfigError(
                f"{source} is neither a data folder or backup, nor has it a checkpoint and tiles, nor receipts"
            )
    return found


def bring_back(segment: Segment, found: Found) -> Head:
    """Append what was lost up to the largest signed head that what was found makes, and return that head.

    Raises ConfigError if there is no such head, and CorruptError if entries that were found are not those signed for.
    """
    with segment.store.write() as transaction:
        old = transaction.head()
        for size in sorted(found.heads, reverse=True):
            if size > old.size and all(index in found.entries for index in range(old.size, size)):
                return _append(transaction, old, found, *found.heads[size])
    later = [size for size in found.heads if size > old.size]
    if not later:
        raise ConfigError(f"none of these has a head that the log has signed of more than {old.size} entries")
    missing = next(index for index in range(old.size, max(later)) if index not in found.entries)
    raise ConfigError(f"none of these has entry {missing}, and heads of {sorted(later)} entries need it")


def _append(transaction: Transaction, old: Head, found: Found, checkpoint: Checkpoint, note: bytes) -> Head:
    entries = [found.entries[index] for index in range(old.size, checkpoint.size)]
    grown = grow_tree(read_tree(transaction, old), leaf_hashes(entries))
    if grown.tree.frontier.root() != checkpoint.root:
        raise CorruptError(f"these entries do not make the root of {checkpoint.size} entries that the log signed")
    parsed = [parse_entry(entry) for entry in entries]
    for entry in parsed:
        if entry.signed and not transaction.take_sequences(entry.writer, entry.signed.sequence, 1):
            raise CorruptError(f"an entry of {entry.writer} does not have the writer's next sequence")
    new = Head(checkpoint.size, parsed[-1].time, checkpoint.root, note, sealed=parsed[-1].writer == SEAL_WRITER)
    payloads = [_payload_of(found, index, entry) for index, entry in enumerate(parsed, old.size)]
    if parsed[0].origin.endswith(f"/{CONTROL}") and any(payload.is_lost for payload in payloads):
        raise ConfigError(
            f"the payloads of {CONTROL} say what changed; import from a later data folder or backup, or, if nobody has "
            "them, begin another log (spec/durability.md)"
        )
    transaction.append(old.size, entries, columns_of(payloads))
    transaction.put_tiles(grown.tiles)
    frozen = transaction.frozen()
    transaction.unfreeze()
    transaction.move_head(old, new)
    # As long as somebody knows of still more.
    if frozen is not None and not old.size < frozen.size <= new.size:
        transaction.freeze(frozen, behind=False)
    return new


def _payload_of(found: Found, index: int, entry: Entry) -> Payload:
    payload = found.payloads.get(index, LOST)
    if not payload.is_lost:
        verify_commitment(entry.commitment, opening=payload.opening, payload_type=payload.type, payload=payload.data)
    return payload


def _add_data(found: Found, row: SegmentRow, start: int, folder: Path) -> None:
    config = Config(folder.absolute())
    try:
        with closing(ControlStore.open(config.control)) as control:
            other = next((one for one in control.list() if one.name == row.name), None)
        if other is None:
            raise ConfigError(f"{folder} has no segment {row.name}")
        if other.vkey != row.vkey:
            raise ConfigError(f"the segment {row.name} of {folder} is another, with another key")
        with closing(open_store(config, other)) as store:
            head = store.head()
            found.add_head(head.note)
            if head.size > start:
                found.entries.update(enumerate(store.entries(start, head.size), start))
                found.payloads.update(enumerate(store.payloads(start, head.size), start))
    except DatabaseError as error:
        raise CorruptError(f"{folder} cannot be read: {error}") from None


def _add_tiles(found: Found, start: int, get: Callable[..., bytes]) -> None:
    size = found.add_head(get("checkpoint", limit=1 << 16)).size
    for place in range(start - start % TILE_WIDTH, size, TILE_WIDTH):
        bundle = bundle_of(place // TILE_WIDTH, size)
        found.entries.update(enumerate(fetch_bundle(bundle, get), place))


def _add_receipts(found: Found, start: int, path: Path, payloads: Sequence[bytes]) -> None:
    for where, receipt in read_receipts(path):
        try:
            verify_receipt(receipt, key=found.key)
        except (MalformedError, ProofError) as error:
            raise ProofError(f"{where}: {error}") from None
        found.add_head(receipt.checkpoint)
        if receipt.index >= start:
            found.entries[receipt.index] = receipt.entry
            found.payloads.setdefault(receipt.index, _match(receipt, payloads))


def _match(receipt: Receipt, payloads: Sequence[bytes]) -> Payload:
    commitment = parse_entry(receipt.entry).commitment
    for payload in payloads:
        with suppress(ProofError):
            verify_commitment(commitment, opening=receipt.opening, payload_type=receipt.payload_type, payload=payload)
            return Payload(receipt.opening, receipt.payload_type, payload)
    return LOST


def _payloads_in(file: Path) -> list[bytes]:
    """Return what a file may be: the JSON events in it, and as a whole one payload of another type."""
    payloads = [read_whole(file)]
    with suppress(MalformedError):
        payloads += [canonical_event(parse_event(line)) for line in read_events(file)]
    return payloads
