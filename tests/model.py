"""A naive model of a log: lists of what was sent, what came back, and what must therefore be there, for each segment.

It knows what an outsider knows, and learns of an entry by a receipt or by reading it. `Segment.look` checks what a
segment shows now against all of that, by the invariants of `spec/durability.md`: one history, nothing that was
acknowledged is lost, what has no known outcome is there once or not at all, nothing goes back, nothing is of another
segment. Only a segment that has lost something, and so must be frozen, may show less, and then nothing new.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import reference
from history import roots

from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.entry import parse_entry
from tlog_core.note import VerifierKey
from tlog_core.receipt import Receipt

UNKNOWN = "unknown"
"""The answer of one who died before there was any."""

Answer = tuple[Receipt, ...] | str
"""Receipts that were verified, or why there are none: the last word of a problem's type, or UNKNOWN."""

SEAL = "tlog/seal"


@dataclass
class Sent:
    """Events that were sent under a key, in RFC 8785 form, and the receipts that came back.

    Where they stand may be known without a receipt. Once data was lost, the log may have `forgotten` the key.
    """

    key: str
    payloads: tuple[bytes, ...]
    batch: bool
    signed: bool = False
    receipts: tuple[Receipt, ...] = ()
    refused: bool = False
    forgotten: bool = False


@dataclass(frozen=True)
class Shown:
    """What a segment shows: its head, its entries, and their payloads as far as they may be read."""

    note: bytes
    entries: Sequence[bytes]
    payloads: Sequence[bytes]
    frozen: bool


@dataclass
class Segment:
    """One segment, or, with events that nobody sends, one of tlog's `own`.

    It is `behind` if its data lacks something that was signed, and `missing` if there is no data of it at all. If not
    even its anchor knows of that, it is `unsuspecting` until it has asked its witness.
    """

    name: str
    key: VerifierKey
    sent: list[Sent] = field(default_factory=list)
    heads: set[Checkpoint] = field(default_factory=set)
    entries: dict[int, bytes] = field(default_factory=dict)
    sealing: bool = False
    sealed_at: int | None = None
    behind: bool = False
    missing: bool = False
    unsuspecting: bool = False
    own: bool = False

    @property
    def size(self) -> int:
        """The largest size that the log has signed, as far as anyone has seen."""
        return max((head.size for head in self.heads), default=0)

    def answered(self, sent: Sent, answer: Answer, *refusals: str) -> None:
        """Take the answer to what was sent; it may only be refused for one of these reasons."""
        if answer == UNKNOWN:
            return
        if isinstance(answer, str):
            assert answer in refusals, f"{self.name} refused {sent.key}: {answer}, and not {refusals}"
            sent.refused = not sent.receipts
            return
        assert self.sealed_at is None or answer[-1].index < self.sealed_at, f"{self.name} is sealed, and took more"
        places = [receipt.index for receipt in answer]
        assert places == list(range(places[0], places[0] + len(sent.payloads)))
        if sent.receipts:
            assert [(one.entry, one.opening, one.index) for one in sent.receipts] == [
                (one.entry, one.opening, one.index) for one in answer
            ], f"{sent.key} got two receipts"
        head = open_checkpoint(answer[0].checkpoint, self.key)
        assert not self.behind or head in self.heads, f"{self.name} is behind, and signed {head.size} entries"
        sent.receipts, sent.refused = answer, False
        self.heads.add(head)
        for receipt in answer:
            self._release(receipt.index, receipt.entry)

    def look(self, shown: Shown) -> None:
        """Check what the segment shows, and remember it."""
        head = open_checkpoint(shown.note, self.key)
        history = roots([reference.leaf(entry) for entry in shown.entries])
        assert len(shown.entries) == head.size, f"{self.name} shows other entries than its head says"
        assert history[head.size] == head.root, f"the entries of {self.name} do not make its head"
        assert shown.frozen == self.behind or self.unsuspecting, (
            f"{self.name} is {'' if shown.frozen else 'not '}frozen"
        )
        if self.behind:
            assert head in self.heads, f"{self.name} is behind, and signed {head.size} entries"
        else:
            self._check_whole(head.size, history)
        for index, entry in enumerate(shown.entries):
            self._release(index, entry)
        if not self.own:
            self._check_events(shown)
        self._check_times(shown)
        self._check_seal(shown)
        self.heads.add(head)

    def _release(self, index: int, entry: bytes) -> None:
        assert self.entries.setdefault(index, entry) == entry, f"entry {index} of {self.name} is now another"
        assert parse_entry(entry).origin == self.key.name

    def _check_whole(self, size: int, history: Sequence[bytes]) -> None:
        for seen in self.heads:
            assert seen.size <= size, f"{self.name} went back from {seen.size} to {size} entries"
            assert history[seen.size] == seen.root, f"{self.name} has forked: {seen.size} entries were others"
        lost = [index for index in self.entries if index >= size]
        assert not lost, f"{self.name} has lost the entries {lost}"

    def _check_events(self, shown: Shown) -> None:
        """Check that each event is where its receipt says, once or not at all, and that each was sent here."""
        left = dict(enumerate(shown.payloads))
        places: dict[bytes, list[int]] = {}
        for index, payload in left.items():
            places.setdefault(payload, []).append(index)
        for sent in self.sent:
            found = [places.get(payload, []) for payload in sent.payloads]
            expected = [[one.index] for one in sent.receipts if one.index < len(shown.payloads)]
            # Where nothing is known, all or none, side by side.
            known = expected if sent.receipts else [[found[0][0] + at] for at in range(len(found))] if found[0] else []
            assert [one for one in found if one] == known, f"{sent.key} of {self.name} is at {found}, not at {known}"
            assert not (sent.refused and any(found)), f"{sent.key} of {self.name} was refused, and is there"
            for one in known:
                left.pop(one[0])
        strangers = [index for index in left if not parse_entry(shown.entries[index]).writer.startswith("tlog/")]
        assert not strangers, f"nobody sent the events {strangers} of {self.name}"

    def _check_times(self, shown: Shown) -> None:
        times = [parse_entry(entry).time for entry in shown.entries]
        assert times == sorted(times), f"time goes back in {self.name}"

    def _check_seal(self, shown: Shown) -> None:
        seals = [index for index, entry in enumerate(shown.entries) if parse_entry(entry).writer == SEAL]
        assert self.sealing or not seals, f"{self.name} is sealed, and nobody asked for it"
        assert seals in ([], [len(shown.entries) - 1]), f"{self.name} goes on after its seal"
        if self.sealed_at is not None and not self.behind:
            assert seals == [self.sealed_at], f"the seal of {self.name} is lost"
        if seals:
            self.sealed_at = seals[0]

    def lose(self, size: int) -> None:
        """Know that the data has `size` entries only, by an older copy: the keys of all others may be forgotten."""
        for sent in self.sent:
            sent.forgotten |= not sent.receipts or sent.receipts[-1].index >= size
        self.behind = self.size > size

    def regain(self) -> None:
        """Know that all is there again."""
        self.behind = self.missing = self.unsuspecting = False


@dataclass
class Model:
    """All segments, those of tlog's own apart, whether a guest may write, and whether tokens work.

    Of a token whose revocation had no answer that is not known, until somebody looks.
    """

    segments: dict[str, Segment] = field(default_factory=dict)
    own: dict[str, Segment] = field(default_factory=dict)
    guest: bool = True
    tokens: dict[str, bool | None] = field(default_factory=dict)
    number: int = 0

    def events(self, segment: str, count: int) -> tuple[bytes, ...]:
        """Return events that were never there before."""
        return tuple(b'{"n":%d,"to":"%b"}' % (self.next(), segment.encode()) for _ in range(count))

    def key(self) -> str:
        """Return a key that was never there before."""
        return f"key-{self.next()}"

    def there(self) -> list[Segment]:
        """Return the segments that are there."""
        return [one for one in self.segments.values() if not one.missing]

    def next(self) -> int:
        """Return a number that was never there before."""
        self.number += 1
        return self.number
