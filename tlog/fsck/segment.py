"""One segment, checked: what it says of itself, its entries chunk by chunk, and then the one against the other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from tlog.anchor import Anchored
from tlog.config import Config
from tlog.errors import CorruptError, FrozenError, UnavailableError
from tlog.fsck.chunk import CHUNK, Checked, Job, check_opened
from tlog.fsck.finding import Fault, Kind, fault_of
from tlog.fsck.joined import NOTHING, Joined, edge_faults, join_faults
from tlog.latest import anchored, check_latest
from tlog.segments import read_signer
from tlog.store.audit import Audit, Request, Snapshot
from tlog.store.bulletin import BulletinRow
from tlog.store.changes import SegmentRow
from tlog.store.codec import decode_entries
from tlog.store.connection import DatabaseError, may_pass
from tlog.store.cosigned import CosignedHead, WitnessLine
from tlog.store.segment import Head, SegmentStore
from tlog.submit import SEAL_WRITER
from tlog.tree import load_tree
from tlog_core.bulletin import open_bulletin
from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.cosignature import open_cosignature
from tlog_core.entry import Entry, parse_entry
from tlog_core.errors import SignatureError, TlogError
from tlog_core.merkle import EMPTY_ROOT, HASH_BYTES, Hash
from tlog_core.note import Note, parse_note, parse_verifier
from tlog_core.tile import TILE_WIDTH, Tile, split_hashes, tile_of

Run = Callable[[Iterable[Job]], Iterator[Checked]]
"""Checks chunks, in their order."""


@dataclass(frozen=True, slots=True)
class Step:
    """What was found by one step of a check, and how far it has come; `size` is that of the head."""

    faults: Sequence[Fault]
    joined: Joined
    size: int


@dataclass(frozen=True, slots=True)
class Depth:
    """How a segment is checked: by how many entries at a time, and whether SQLite looks through the whole file too."""

    chunk: int = CHUNK
    whole_file: bool = True


def row_faults(config: Config, row: SegmentRow, log_name: str) -> Iterator[Fault]:
    """Yield what is wrong with the row of a segment and its key file."""
    if row.origin != f"{log_name}/segments/{row.name}":
        yield "control.db", Kind.CONTROL, f"it has another origin, {row.origin}"
    try:
        if parse_verifier(row.vkey).name != row.origin:
            yield "control.db", Kind.CONTROL, f"it has the key of another origin, {row.vkey}"
    except TlogError as error:
        yield fault_of("control.db", Kind.CONTROL, error)
    try:
        read_signer(config, row)
    except TlogError as error:
        yield fault_of("key", Kind.KEY, error)


def check_segment(
    config: Config, row: SegmentRow, log_name: str, run: Run, depth: Depth, joined: Joined = NOTHING
) -> Iterator[Step]:
    """Check a segment from behind what is joined on, up to the head that it has now."""
    yield Step([*row_faults(config, row, log_name)], joined, 0)
    try:
        # Brings the schema up to date, too.
        path = _prepare(config, row)
        with closing(Audit(path)) as audit:
            yield from _Segment(config, row, audit, depth).check(run, joined)
    except TlogError as error:
        yield Step([fault_of("database", Kind.FILE, error)], joined, 0)


def check_end(config: Config, row: SegmentRow, log_name: str) -> list[Fault]:
    """Check the head of a segment, its last full tile and what comes after it; it costs the same for any size."""
    faults = [*row_faults(config, row, log_name)]
    try:
        with closing(Audit(_prepare(config, row))) as audit:
            faults += _Segment(config, row, audit, Depth()).end_faults()
    except TlogError as error:
        faults.append(fault_of("database", Kind.FILE, error))
    return faults


def _prepare(config: Config, row: SegmentRow) -> Path:
    """Return the database of a segment, brought to the present schema; CorruptError, UnavailableError."""
    path = config.segment(row.id)
    if not path.exists():
        raise CorruptError(
            f"{path.name} is missing; tlog segment import {row.name} SOURCE brings it back from a later data folder or "
            "backup"
        )
    try:
        SegmentStore(path).close()
    except DatabaseError as error:
        if may_pass(error):
            raise UnavailableError(f"it cannot be opened now: {error}; retry") from error
        raise CorruptError(f"it cannot be opened: {error}") from error
    except OSError as error:
        raise UnavailableError(f"it cannot be opened now: {error}; retry") from error
    return path


class _Segment:
    def __init__(self, config: Config, row: SegmentRow, audit: Audit, depth: Depth) -> None:
        self._config = config
        self._row = row
        self._audit = audit
        self._depth = depth

    def check(self, run: Run, joined: Joined) -> Iterator[Step]:
        newest, now = self._anchored(), self._audit.snapshot()
        size = now.head.size
        sizes = {one for one in (size, *(line.size for line in now.lines)) if one <= size}
        sizes |= {now.cosigned.size} if now.cosigned is not None and now.cosigned.size <= size else set()
        # Of another database, or before a witness came that stayed behind: begin again.
        if joined.size > size or any(0 < one <= joined.size and one not in joined.roots for one in sizes):
            joined = NOTHING
        yield Step([*self._first_faults(now), *_anchor_faults(newest, now.head)], joined, size)
        # What is not stored is said once, above: a damaged head may speak of any number of entries.
        for checked in run(self._jobs(joined.size, min(size, self._audit.end()), size, sizes)):
            faults = [*checked.faults, *join_faults(joined, checked, self._audit.tile)]
            joined = joined.join(checked, sizes)
            yield Step(faults, joined, size)
        yield Step([*self._last_faults(now, joined)], joined, size)

    def end_faults(self) -> Iterator[Fault]:
        newest, now = self._anchored(), self._audit.snapshot()
        size, start = now.head.size, max(now.head.size // TILE_WIDTH - 1, 0) * TILE_WIDTH
        yield from _frozen_faults(now)
        yield from head_faults(self._row, now.head)
        yield from _anchor_faults(newest, now.head)
        checked = check_opened(self._job(size, start, size, {size}, ()), self._audit)
        yield from checked.faults
        for writer, span in checked.writers.items():
            yield from _sequence_faults(writer, now.sequences.get(writer, 0), span.next)
        yield from self._ends_faults(now)
        if size and not checked.faults:
            yield from self._tree_faults(now.head, checked)
        if now.cosigned is not None and now.cosigned.size > size:
            yield "cosigned head", Kind.COSIGNATURE, f"it has size {now.cosigned.size}, and the head has {size}"

    def _anchored(self) -> Anchored | None:
        """Return what the anchor has; before the head is read, which a server may move on."""
        try:
            return anchored(self._config.anchor_of(self._row.id), parse_verifier(self._row.vkey))
        except (OSError, TlogError):
            return None

    def _tree_faults(self, head: Head, checked: Checked) -> Iterator[Fault]:
        def hashes(tile: Tile) -> Sequence[Hash]:
            if tile.level == 0:
                return checked.tails[head.size]
            stored = self._audit.tile(tile.level, tile.index) or (b"", b"")
            return split_hashes(stored[0][: tile.width * HASH_BYTES], tile.width)

        try:
            tree = load_tree(head.size, hashes)
            if checked.roots:
                place = checked.start // TILE_WIDTH
                last = hashes(tile_of(1, place // TILE_WIDTH, head.size))[place % TILE_WIDTH]
                if last != checked.roots[0]:
                    yield str(Tile(1, place // TILE_WIDTH)), Kind.TILE, f"its hash of {Tile(0, place)} is another"
        except TlogError as error:
            yield "tiles at the edge", Kind.TILE, str(error)
            return
        if tree.frontier.root() != head.root:
            yield "head", Kind.HEAD, f"the tiles do not make the signed root of size {head.size}"

    def _first_faults(self, now: Snapshot) -> Iterator[Fault]:
        yield from _frozen_faults(now)
        yield from head_faults(self._row, now.head)
        if (end := self._audit.end()) < now.head.size:
            yield f"entries {end} to {now.head.size - 1}", Kind.ENTRY, "they are missing from the store"
        yield from ((place, Kind.LAYOUT, text) for place, text in self._audit.strays())
        if self._depth.whole_file:
            yield from (("database", Kind.FILE, text) for text in self._audit.damage())
            yield from (("database", Kind.FILE, text) for text in self._audit.schema_faults())

    def _jobs(self, start: int, stop: int, size: int, sizes: set[int]) -> Iterator[Job]:
        requests = self._audit.requests(start) if start < stop else iter(())
        begun, due = list[Request](), next(requests, None)
        while start < stop:
            end = min(start - start % self._depth.chunk + self._depth.chunk, stop)
            begun = begun[-1:]
            while due is not None and due.start < end:
                begun.append(due)
                due = next(requests, None)
            yield self._job(size, start, end, sizes, begun)
            start = end

    def _job(self, size: int, start: int, end: int, sizes: set[int], requests: Sequence[Request]) -> Job:
        return Job(
            database=self._config.segment(self._row.id),
            control=self._config.control,
            origin=self._row.origin,
            signed=self._row.signed,
            size=size,
            start=start,
            end=end,
            sizes=[one for one in sizes if start < one <= end],
            requests=requests,
        )

    def _last_faults(self, now: Snapshot, joined: Joined) -> Iterator[Fault]:
        head = now.head
        if not joined.broken:
            yield from edge_faults(joined, self._audit.tile)
            if _root(joined, head.size) != head.root:
                yield "head", Kind.HEAD, f"the entries do not make the signed root of size {head.size}"
        yield from self._ends_faults(now)
        for writer in sorted({*joined.following, *now.sequences}):
            yield from _sequence_faults(writer, now.sequences.get(writer, 0), joined.following.get(writer, 0))
        yield from _line_faults(self._row, now.lines, joined)
        yield from _bulletin_faults(self._row, now.bulletins)
        if now.cosigned is not None:
            yield from self._cosigned_faults(now.cosigned, now.lines, joined)

    def _ends_faults(self, now: Snapshot) -> Iterator[Fault]:
        head = now.head
        first, last = self._entry(0), self._entry(head.size - 1)
        if head.sealed != (last is not None and last.writer == SEAL_WRITER):
            yield "head", Kind.HEAD, "whether it is sealed, the head and the last entry do not say alike"
        if (self._row.sealed is not None) != head.sealed and now.frozen is None:
            yield (
                "head",
                Kind.LOOSE,
                "whether it is sealed, control.db and the head do not say alike; a server that starts makes it good",
            )
        if head.size and last is not None and last.time != head.time:
            yield "head", Kind.HEAD, "it does not have the time of the last entry"
        if self._row.created > (head.time if first is None else first.time):
            yield "control.db", Kind.CONTROL, "it was created after its first entry"

    def _cosigned_faults(self, cosigned: CosignedHead, lines: Sequence[WitnessLine], joined: Joined) -> Iterator[Fault]:
        try:
            checkpoint = open_checkpoint(cosigned.note, parse_verifier(self._row.vkey))
            if (checkpoint.size, checkpoint.root) != (cosigned.size, cosigned.root):
                yield "cosigned head", Kind.COSIGNATURE, "it is not the one signed"
            times = _times(parse_note(cosigned.note), lines)
            if cosigned.time not in times:
                yield "cosigned head", Kind.COSIGNATURE, "its quorum time is not that of any of its cosignatures"
        except TlogError as error:
            yield "cosigned head", Kind.COSIGNATURE, f"it cannot be trusted: {error}"
        if not joined.broken and _root(joined, cosigned.size) != cosigned.root:
            yield (
                "cosigned head",
                Kind.COSIGNATURE,
                f"the entries do not make the root of the cosigned head of size {cosigned.size}",
            )
        last = self._entry(cosigned.size - 1)
        if last is not None and last.time != cosigned.last:
            yield "cosigned head", Kind.COSIGNATURE, "it does not have the time of its last entry"

    def _entry(self, index: int) -> Entry | None:
        """Return an entry, None if there is none that can be read; what is wrong with it was found before."""
        with suppress(TlogError):
            run = self._audit.bundle(index)
            if run is not None and run.start <= index < run.start + run.count:
                return parse_entry(decode_entries(run.blob, run.count)[index - run.start])
        return None


def head_faults(row: SegmentRow, head: Head) -> Iterator[Fault]:
    """Yield what is wrong between a head and its signed checkpoint."""
    try:
        checkpoint = open_checkpoint(head.note, parse_verifier(row.vkey))
        if (checkpoint.size, checkpoint.root) != (head.size, head.root):
            yield "head", Kind.HEAD, "it is not the one signed"
    except TlogError as error:
        yield "head", Kind.HEAD, f"it cannot be trusted: {error}"


def _anchor_faults(found: Anchored | None, head: Head) -> Iterator[Fault]:
    if found is None:
        yield "anchor", Kind.FROZEN, "it is missing, or cannot be read; nothing is signed without it"
        return
    try:
        check_latest(found, head)
    except FrozenError as error:
        yield "anchor", Kind.FROZEN, str(error)


def _frozen_faults(now: Snapshot) -> Iterator[Fault]:
    if now.frozen is not None:
        yield "", Kind.FROZEN, f"frozen: {now.frozen.reason}; it takes no more entries"


def _sequence_faults(writer: str, stored: int, due: int) -> Iterator[Fault]:
    if stored != due:
        yield f"writer {writer}", Kind.SEQUENCE, f"it is to go on with sequence {stored}, and its entries say {due}"


def _root(joined: Joined, size: int) -> Hash | None:
    return joined.roots.get(size) if size else EMPTY_ROOT


def _line_faults(row: SegmentRow, lines: Sequence[WitnessLine], joined: Joined) -> Iterator[Fault]:
    """Check the latest line of each witness by the key beside it, and its head against the entries."""
    for line in lines:
        place = f"cosignature of {line.vkey}"
        try:
            key = parse_verifier(line.vkey)
            text = str(Checkpoint(row.origin, line.size, line.root))
            if open_cosignature(parse_note(f"{text}\n{line.line}".encode()), key).time != line.time:
                yield place, Kind.COSIGNATURE, "it has another time"
        except TlogError as error:
            yield place, Kind.COSIGNATURE, f"it does not hold: {error}"
        if not joined.broken and _root(joined, line.size) != line.root:
            yield place, Kind.COSIGNATURE, f"the entries do not make the root of size {line.size}"


def _bulletin_faults(row: SegmentRow, bulletins: Sequence[BulletinRow]) -> Iterator[Fault]:
    for one in bulletins:
        place = f"bulletin of {one.vkey}"
        try:
            found = open_bulletin(one.note, parse_verifier(one.vkey))
            if (found.origin, found.time) != (row.origin, one.time):
                yield place, Kind.BULLETIN, "it has another origin or time"
        except TlogError as error:
            yield place, Kind.BULLETIN, f"it does not hold: {error}"


def _times(note: Note, lines: Sequence[WitnessLine]) -> set[int]:
    """Return the times of the cosignatures of a note; MalformedError or SignatureError if one does not hold."""
    keys = [parse_verifier(line.vkey) for line in lines]
    for signature in note.signatures[1:]:
        if all((signature.name, signature.key_id) != (key.name, key.id) for key in keys):
            raise SignatureError(f"no key of {signature.name} is stored")
    signers = {(signature.name, signature.key_id) for signature in note.signatures}
    return {open_cosignature(note, key).time for key in keys if (key.name, key.id) in signers}
