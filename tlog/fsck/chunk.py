"""A chunk of a segment's entries, checked by itself: what it takes to join it to the tree comes with the faults.

Any process can check it: it is given nothing but places, and reads the rest.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

from tlog.access.token import OWN_NAMES
from tlog.errors import CorruptError
from tlog.fsck.finding import Fault, Kind, fault_of
from tlog.store.audit import Audit, ControlAudit, Request
from tlog.store.codec import LOST, Payload, Run, decode_entries, decode_payloads
from tlog.submit import SEAL_WRITER
from tlog.tree import EMPTY_TREE, grow_tree
from tlog_core.commitment import verify_commitment
from tlog_core.entry import Entry, parse_entry
from tlog_core.errors import TlogError
from tlog_core.merkle import HASH_BYTES, Hash, leaf_hashes
from tlog_core.note import VerifierKey
from tlog_core.tile import TILE_WIDTH, Tile, split_hashes
from tlog_core.writer import parse_writer_key, verify_sequence, verify_signature

CHUNK: Final = 32 * TILE_WIDTH
"""How many entries a process checks at once."""

_BREATH: Final = 32
_BREATH_BYTES: Final = 4096

Breathe = Callable[[int], None]
"""Is told how many entries were checked, and may take its time; 4 KiB of payloads count as one more."""


@dataclass(frozen=True, slots=True)
class Job:
    """The entries [start, end) of a segment whose head has `size`; `start` is a multiple of 256.

    `sizes` are those of the trees, from `start` on and up to `end`, whose roots are to be known, and `requests` are
    those that begin in the chunk, behind the last one before, if there is one.
    """

    database: Path
    control: Path
    origin: str
    signed: bool
    size: int
    start: int
    end: int
    sizes: Sequence[int] = ()
    requests: Sequence[Request] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """The sequences of one writer in a chunk: where it first signed, with which, and which is to come next."""

    index: int
    first: int
    next: int


@dataclass(slots=True)
class Checked:
    """A chunk that was checked.

    `roots` are the roots of its full tiles, up to one that nothing is known of. `tails` has the leaves of the tile that
    is not full, for each size that was asked for.
    """

    start: int
    end: int
    faults: list[Fault] = field(default_factory=list)
    roots: list[Hash] = field(default_factory=list)
    tails: dict[int, tuple[Hash, ...]] = field(default_factory=dict)
    writers: dict[str, Span] = field(default_factory=dict)

    def is_whole_up_to(self, index: int) -> bool:
        """Say whether the roots of all full tiles of the chunk before `index` are known."""
        return len(self.roots) == (index - self.start) // TILE_WIDTH


def check_chunk(job: Job, breathe: Breathe = lambda _: None) -> Checked:
    """Check everything that is stored of some entries."""
    with closing(Audit(job.database)) as audit:
        return check_opened(job, audit, breathe)


def check_opened(job: Job, audit: Audit, breathe: Breathe = lambda _: None) -> Checked:
    """Check the same in a database that is open."""
    return _Checker(job, audit, _Keys(job.control), breathe).check()


class _Keys:
    """The keys by which writers sign or ever signed, as far as somebody asks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Sequence[VerifierKey]] = {}

    def of(self, writer: str) -> Sequence[VerifierKey]:
        if writer not in self._known:
            with closing(ControlAudit(self._path)) as control:
                self._known[writer] = [parse_writer_key(vkey) for vkey in control.keys_ever(writer)]
        return self._known[writer]


class _Checker:
    def __init__(self, job: Job, audit: Audit, keys: _Keys, breathe: Breathe) -> None:
        self._job = job
        self._audit = audit
        self._keys = keys
        self._breathe = breathe
        self._checked = Checked(job.start, job.end)
        self._entries: dict[int, Entry] = {}
        self._time = 0

    def check(self) -> Checked:
        job = self._job
        # What comes after the last entry before the chunk is not older.
        earlier = self._entry(job.start - 1)
        self._time = 0 if earlier is None else earlier.time
        for start in range(job.start, job.end, TILE_WIDTH):
            end = min(start + TILE_WIDTH, job.end)
            try:
                self._check_tile(start, end)
            except TlogError as error:
                self._fault(f"entries {start} to {end - 1}", Kind.FILE, error)
        for before, row in pairwise((None, *job.requests)):
            if row is not None and row.start >= job.start:
                self._check_request(before, row)
        return self._checked

    def _check_tile(self, start: int, end: int) -> None:
        try:
            entries = self._read(start, end)
        except TlogError as error:
            self._fault(f"entries {start} to {end - 1}", Kind.ENTRY, error)
            self._go_on_from_tile(start, end)
            return
        self._check_payloads(start, [self._check_entry(start + place, raw) for place, raw in enumerate(entries)])
        self._check_leaves(start, leaf_hashes(entries))

    def _read(self, start: int, end: int) -> list[bytes]:
        entries: list[bytes] = []
        for run in _runs(self._audit.bundle, start, end):
            part = decode_entries(run.blob, run.count)
            entries += part[start + len(entries) - run.start : end - run.start]
        return entries

    def _check_entry(self, index: int, raw: bytes) -> Entry | None:
        if index % _BREATH == 0:
            self._breathe(_BREATH)
        try:
            entry = parse_entry(raw)
        except TlogError as error:
            self._fault(f"entry {index}", Kind.ENTRY, error)
            return None
        for kind, text in self._entry_faults(index, entry):
            self._checked.faults.append((f"entry {index}", kind, text))
        self._time = max(self._time, entry.time)
        self._entries[index] = entry
        return entry

    def _entry_faults(self, index: int, entry: Entry) -> Iterator[tuple[Kind, str]]:
        if entry.origin != self._job.origin:
            yield Kind.ENTRY, f"it belongs to {entry.origin}"
        if entry.time < self._time:
            yield Kind.ENTRY, "it is older than one before it"
        if entry.writer == SEAL_WRITER and index != self._job.size - 1:
            yield Kind.ENTRY, "it seals the segment, and is not the last"
        if entry.signed is None:
            if self._job.signed and not entry.writer.startswith(OWN_NAMES):
                yield Kind.SIGNATURE, "it is not signed by its writer, as the segment demands"
            return
        try:
            verify_signature(
                entry.signed,
                origin=entry.origin,
                writer=entry.writer,
                commitment=entry.commitment,
                keys=self._keys.of(entry.writer),
            )
        except TlogError as error:
            yield Kind.SIGNATURE, str(error)
        yield from self._sequence_faults(index, entry, entry.signed.sequence)

    def _sequence_faults(self, index: int, entry: Entry, sequence: int) -> Iterator[tuple[Kind, str]]:
        writers = self._checked.writers
        span = writers.get(entry.writer, Span(index, sequence, sequence))
        writers[entry.writer] = replace(span, next=sequence + 1)
        try:
            verify_sequence(entry, span.next)
        except TlogError as error:
            yield Kind.SEQUENCE, str(error)

    def _check_payloads(self, start: int, entries: Sequence[Entry | None]) -> None:
        end = start + len(entries)
        try:
            for run in _runs(self._audit.payload, start, end):
                self._check_run(run, start, entries)
        except TlogError as error:
            self._fault(f"entries {start} to {end - 1}", Kind.PAYLOAD, error)

    def _check_run(self, run: Run, start: int, entries: Sequence[Entry | None]) -> None:
        try:
            payloads = decode_payloads(run.blob, run.openings)
            if len(payloads) != run.count:
                raise CorruptError("a stored run of payloads holds more or fewer than it says")
        except TlogError as error:
            self._fault(f"entries {run.start} to {run.start + run.count - 1}", Kind.PAYLOAD, error)
            return
        for index, payload in enumerate(payloads, run.start):
            entry = entries[index - start] if 0 <= index - start < len(entries) else None
            if entry is not None and payload != LOST:
                self._check_payload(index, entry, payload)
        self._breathe(sum(len(payload.data) for payload in payloads) // _BREATH_BYTES)

    def _check_payload(self, index: int, entry: Entry, payload: Payload) -> None:
        try:
            verify_commitment(
                entry.commitment, opening=payload.opening, payload_type=payload.type, payload=payload.data
            )
        except TlogError as error:
            self._fault(f"entry {index}", Kind.PAYLOAD, error)

    def _check_leaves(self, start: int, leaves: Sequence[Hash]) -> None:
        self._keep_tails(start, leaves)
        if len(leaves) < TILE_WIDTH:
            return
        [expected] = grow_tree(EMPTY_TREE, leaves).tiles[:1]
        self._keep_root(start, expected.nodes)
        tile, stored = Tile(0, start // TILE_WIDTH), self._audit.tile(0, start // TILE_WIDTH)
        if stored is not None and stored[0] != expected.hashes:
            wrong = first_other(stored[0], expected.hashes)
            self._tile_fault(tile, f"it differs from the entries, first in the hash of entry {start + wrong}")
        if stored is not None and stored[1] != expected.nodes:
            self._tile_fault(
                tile, f"its nodes differ from the entries, first in node {first_other(stored[1], expected.nodes)}"
            )
        if stored is None:
            self._tile_fault(tile, "it is missing")

    def _keep_tails(self, start: int, leaves: Sequence[Hash]) -> None:
        for size in self._job.sizes:
            if start < size < start + TILE_WIDTH and size - start <= len(leaves):
                self._checked.tails[size] = tuple(leaves[: size - start])

    def _go_on_from_tile(self, start: int, end: int) -> None:
        """Take the hashes of entries that cannot be read from their tile, if it is whole."""
        stored = self._audit.tile(0, start // TILE_WIDTH)
        if stored is None or end - start < TILE_WIDTH or len(stored[0]) != TILE_WIDTH * HASH_BYTES:
            return
        leaves = split_hashes(stored[0], TILE_WIDTH)
        if grow_tree(EMPTY_TREE, leaves).tiles[0].nodes == stored[1]:
            self._keep_tails(start, leaves)
            self._keep_root(start, stored[1])

    def _keep_root(self, start: int, nodes: bytes) -> None:
        if self._checked.is_whole_up_to(start):
            self._checked.roots.append(Hash(nodes[-HASH_BYTES:]))

    def _check_request(self, before: Request | None, row: Request) -> None:
        for text in self._request_texts(before, row):
            self._checked.faults.append((f"request {row.key.hex()}", Kind.REQUEST, text))

    def _request_texts(self, before: Request | None, row: Request) -> Iterator[str]:
        if before is not None and row.start < before.start + before.count:
            yield f"it has entries of the request {before.key.hex()}"
        if before is not None and row.start < before.size != row.size:
            yield f"it was logged with the request {before.key.hex()}, and has another size"
        first, last = self._entry(row.start), self._entry(row.start + row.count - 1)
        newest = self._entry(row.size - 1)
        if first and newest and first.time != newest.time:
            yield "its entries, up to its size, were not logged at once"
        if first and last and (first.writer, not first.signed) != (last.writer, not last.signed):
            yield "it has entries of several writers"

    def _entry(self, index: int) -> Entry | None:
        """Return an entry that may be in another chunk, None if it cannot be read: that is found there."""
        with suppress(TlogError):
            if index not in self._entries and 0 <= index < self._job.size:
                [raw] = self._read(index, index + 1)
                self._entries[index] = parse_entry(raw)
        return self._entries.get(index)

    def _tile_fault(self, tile: Tile, text: str) -> None:
        self._checked.faults.append((str(tile), Kind.TILE, text))

    def _fault(self, place: str, kind: Kind, error: TlogError) -> None:
        self._checked.faults.append(fault_of(place, kind, error))


def _runs(read: Callable[[int], Run | None], start: int, end: int) -> Iterator[Run]:
    while start < end:
        run = read(start)
        if run is None or run.start + run.count <= start:
            raise CorruptError(f"entry {start} is missing from the store")
        yield run
        start = run.start + run.count


def first_other(stored: bytes, expected: bytes) -> int:
    """Return the place of the first hash, of 32 bytes, in which two differ."""
    places = range(0, len(expected), HASH_BYTES)
    return next(
        (at // HASH_BYTES for at in places if stored[at : at + HASH_BYTES] != expected[at : at + HASH_BYTES]),
        len(expected) // HASH_BYTES,
    )
