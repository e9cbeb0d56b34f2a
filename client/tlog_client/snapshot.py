"""The log as it is at one verified checkpoint: all that is read from it is checked against that checkpoint's root."""

from collections.abc import Iterator, Sequence
from typing import Final

from tlog_client.ahead import read_ahead
from tlog_client.answers import (
    IndexedEntry,
    OpenedEntry,
    parse_inclusion,
    parse_opened,
    parse_page,
    verify_opened,
    verify_origin,
)
from tlog_client.state import SignedCheckpoint
from tlog_client.tiles import fetch_bundle, tiles_of, verify_bundle
from tlog_client.transport import Transport
from tlog_core.entry import Entry, parse_entry
from tlog_core.errors import FetchError, ProofError, SignatureError
from tlog_core.merkle import Hash, leaf_hash
from tlog_core.note import VerifierKey
from tlog_core.proof import prove_subset, verify_inclusion
from tlog_core.receipt import Receipt
from tlog_core.tile import TILE_WIDTH, Bundle, TileTree, bundle_of
from tlog_core.writer import verify_writer

MAX_PROOF_BYTES: Final = 16_384
MAX_ENTRY_ANSWER_BYTES: Final = 8 << 20
MAX_PAGE_BYTES: Final = 64 << 20


class Snapshot:
    """A verified checkpoint, and the way to what it covers."""

    def __init__(self, signed: SignedCheckpoint, transport: Transport, writer_keys: Sequence[VerifierKey] = ()) -> None:
        """Stand on `signed`, which the caller has verified; entries of the writers of these keys must be signed."""
        self._signed = signed
        self._origin = signed.checkpoint.origin
        self._size = signed.checkpoint.size
        self._transport = transport
        self._writer_keys = writer_keys

    def prove(self, index: int) -> tuple[OpenedEntry, Receipt]:
        """Return the entry at `index` with its payload, and its receipt; ProofError or MalformedError if one fails."""
        self._check_range(index, index + 1)
        raw = self._transport.get(f"entries/{index}", limit=MAX_ENTRY_ANSWER_BYTES)
        return self.proven(parse_opened(raw, index=index), self.fetch_inclusion(index))

    def proven(self, opened: OpenedEntry, proof: Sequence[Hash]) -> tuple[OpenedEntry, Receipt]:
        """Return an entry with its receipt after checking it and its inclusion; ProofError or MalformedError."""
        self._check_range(opened.index, opened.index + 1)
        self._verified(opened)
        receipt = Receipt(
            entry=bytes(opened.entry),
            payload_type=opened.payload_type,
            opening=opened.opening,
            index=opened.index,
            checkpoint=self._signed.note,
            proof=tuple(proof),
        )
        verify_inclusion(
            leaf=leaf_hash(receipt.entry),
            index=opened.index,
            size=self._size,
            proof=receipt.proof,
            root=self._signed.checkpoint.root,
        )
        return opened, receipt

    def entries(self, start: int, stop: int | None) -> Iterator[OpenedEntry]:
        """Yield the entries [start, stop), to the end if `stop` is None, with their payloads."""
        stop = self._check_range(start, stop)
        tree = tiles_of(self._signed.checkpoint, self._transport.get)
        for span, page in read_ahead(self._fetch_page, _split_by_tile(start, stop)):
            yield from self._opened(span, page, tree)

    def committed(self, start: int, stop: int | None) -> Iterator[IndexedEntry]:
        """Yield the entries [start, stop), to the end if `stop` is None, without their payloads."""
        for index, raw in enumerate(self.logged(start, stop), start):
            entry = parse_entry(raw)
            verify_origin(entry, origin=self._origin)
            self._verify_writer(index, entry)
            yield IndexedEntry(index, entry)

    def logged(self, start: int, stop: int | None) -> Iterator[bytes]:
        """Yield the entries [start, stop), to the end if `stop` is None, as the bytes under the tree's leaves."""
        stop = self._check_range(start, stop)
        tree = tiles_of(self._signed.checkpoint, self._transport.get)
        for span, entries in read_ahead(self._fetch_bundle, _split_by_tile(start, stop)):
            verify_bundle(self._bundle_of(span), entries, tree)
            yield from entries[span.start % TILE_WIDTH :][: len(span)]

    def prove_subset(self, indexes: Sequence[int]) -> list[Hash]:
        """Return the proof, out of the tiles, that the entries at `indexes`, which rise, are in the tree."""
        tree = tiles_of(self._signed.checkpoint, self._transport.get)
        return prove_subset(indexes=indexes, size=self._size, node=tree.node)

    def _verify_writer(self, index: int, entry: Entry) -> None:
        try:
            verify_writer(entry, self._writer_keys)
        except SignatureError as error:
            raise SignatureError(f"entry {index}: {error}") from None

    def _check_range(self, start: int, stop: int | None) -> int:
        stop = self._size if stop is None else stop
        if not 0 <= start <= stop <= self._size:
            raise FetchError(f"no entries from {start} up to {stop}: the log has {self._size}")
        return stop

    def _opened(self, span: range, page: Sequence[OpenedEntry], tree: TileTree) -> Iterator[OpenedEntry]:
        if len(page) == TILE_WIDTH:
            verify_bundle(self._bundle_of(span), [bytes(opened.entry) for opened in page], tree)
            yield from map(self._verified, page)
            return
        leaves = tree.leaves(span.start // TILE_WIDTH)[span.start % TILE_WIDTH :]
        while page:
            for opened in page:
                _verify_leaf(leaf_hash(bytes(opened.entry)), leaves[opened.index - span.start], opened.index)
                yield self._verified(opened)
            # The log answers with fewer entries than asked for when they are large.
            rest = range(page[-1].index + 1, span.stop)
            page = self._fetch_page(rest) if rest else []

    def _verified(self, opened: OpenedEntry) -> OpenedEntry:
        verify_opened(opened, origin=self._origin)
        self._verify_writer(opened.index, opened.entry)
        return opened

    def fetch_inclusion(self, index: int) -> tuple[Hash, ...]:
        """Return the inclusion proof of the entry at `index`, which the caller verifies."""
        raw = self._transport.get(f"proof/inclusion/{self._size}/{index}", limit=MAX_PROOF_BYTES)
        return parse_inclusion(raw, index=index, size=self._size)

    def _fetch_page(self, span: range) -> list[OpenedEntry]:
        raw = self._transport.get(f"entries?start={span.start}&limit={len(span)}", limit=MAX_PAGE_BYTES)
        return parse_page(raw, start=span.start, limit=len(span))

    def _fetch_bundle(self, span: range) -> list[bytes]:
        return fetch_bundle(self._bundle_of(span), self._transport.get)

    def _bundle_of(self, span: range) -> Bundle:
        return bundle_of(span.start // TILE_WIDTH, self._size)


def _split_by_tile(start: int, stop: int) -> Iterator[range]:
    """Yield the part of [start, stop) under each leaf tile that it touches."""
    while start < stop:
        last = min(stop, start - start % TILE_WIDTH + TILE_WIDTH)
        yield range(start, last)
        start = last


def _verify_leaf(leaf: Hash, expected: Hash, index: int) -> None:
    if leaf != expected:
        raise ProofError(f"entry {index} is not the one that the log committed to")
