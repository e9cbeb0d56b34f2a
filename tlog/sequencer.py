"""The write path of a segment: queued events get an index, join the tree, are signed for and committed.

Group commit: a request puts its events in the queue. The first to find nobody leading becomes the leader, and writes
for all that are queued, in one transaction; then it hands the lead to the next in the queue. Between processes the
write lock decides the order: nothing in memory decides an index.

The durability point is the commit at the end of `SegmentStore.write`; nobody hears of an entry or a signature before
the anchor has it too.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, repeat
from threading import Lock
from typing import Final

from tlog.anchor import Anchor
from tlog.config import MAX_COMMIT_EVENTS
from tlog.errors import (
    CorruptError,
    FrozenError,
    OutcomeUnknownError,
    RepeatedError,
    SealedError,
    SequenceError,
    UnavailableError,
)
from tlog.latest import check_latest
from tlog.store.codec import Columns
from tlog.store.connection import DatabaseError
from tlog.store.cosigned import Standing
from tlog.store.segment import Head, RequestRow, SegmentStore, Transaction
from tlog.tree import EMPTY_TREE, Grown, Tree, grow_tree, load_tree
from tlog_core.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from tlog_core.commitment import Commitment, Opening, commit_all
from tlog_core.entry import WriterSignature, encode_entries, has_time, parse_entry
from tlog_core.errors import MalformedError, SignatureError, TlogError
from tlog_core.merkle import Hash, NodeReader, leaf_hashes
from tlog_core.note import SignerKey
from tlog_core.tile import TILE_WIDTH, Tile, split_hashes

_CONFIRM_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Submission:
    """Events of one request, of one media type, committed to by their openings but not yet logged.

    `key` is that of `request_key`, or None. `signed`, if there are any, are the signatures of its writer, whose
    sequences follow one another. One that `seals` the segment is the last that it takes. `events` are the 38-byte keys
    of those events that are logged once only, all different, as far as that is remembered for some milliseconds.
    """

    writer: str
    kind: str
    openings: Sequence[Opening]
    payloads: Sequence[bytes]
    commitments: Sequence[Commitment]
    key: bytes | None
    signed: Sequence[WriterSignature] = ()
    seals: bool = False
    events: Sequence[bytes] = ()
    remembered: int = 0

    def holds(self) -> bool:
        """Tell whether the payloads are still those committed to."""
        return commit_all(self.openings, self.kind, self.payloads) == self.commitments


@dataclass(frozen=True, slots=True)
class Logged:
    """Entries from index `start` on, all of one time in milliseconds, under the signed checkpoint of `size` entries.

    `node` gives the nodes that their proofs at that size need.
    """

    start: int
    time: int
    writer: str
    entries: Sequence[bytes]
    size: int
    node: NodeReader
    note: bytes


Outcome = Logged | RequestRow
"""A submission was logged now, or its key was used before by the request that went there."""

Closed = SealedError | FrozenError | UnavailableError
"""Why the segment takes nothing at all."""

Refused = SequenceError | RepeatedError

Answer = Outcome | Closed | Refused
"""An outcome, or why this submission, and it alone, was refused."""


@dataclass(slots=True)
class _Waiting:
    """A submission in the queue. `woken` is released when there is an outcome, or when this one is to lead."""

    submission: Submission
    woken: Lock = field(default_factory=Lock)
    outcome: Outcome | Exception | None = None

    def __post_init__(self) -> None:
        self.woken.acquire()

    def result(self) -> Outcome:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome is None:
            raise AssertionError("a submission left the queue without an outcome")
        return self.outcome


def request_key(writer: str, idempotency_key: str) -> bytes:
    """Return the 32 bytes that stand for a writer's idempotency key."""
    return hashlib.sha256(f"{writer}\n{idempotency_key}".encode()).digest()


def sign_head(tree: Tree, now: int, signer: SignerKey) -> Head:
    """Return the signed head of a tree at `now`, in milliseconds, after checking the signature just made."""
    checkpoint = Checkpoint(signer.name, tree.frontier.size, tree.frontier.root())
    note = bytes(sign_checkpoint(checkpoint, signer))
    # A fault in memory may spoil a signature; it must not be the log's word before it has been checked.
    try:
        if open_checkpoint(note, signer.verifier) != checkpoint:
            raise _faulty("a checkpoint is not the one signed")
    except (MalformedError, SignatureError) as error:
        raise _faulty(str(error)) from None
    return Head(checkpoint.size, now, checkpoint.root, note)


def read_tree(transaction: Transaction, head: Head) -> Tree:
    """Return the tree of the head as it is stored; CorruptError if its root is not the signed one."""
    tree = load_tree(head.size, lambda tile: _edge_hashes(transaction, tile))
    _check_root(tree, head)
    return tree


def _check_root(tree: Tree, head: Head) -> None:
    if tree.frontier.size != head.size or tree.frontier.root() != head.root:
        raise CorruptError("the stored tree does not have the signed root; nothing is signed, run tlog fsck")


def _unknown() -> OutcomeUnknownError:
    return OutcomeUnknownError("the commit failed, and the outcome is unknown; retry with the same Idempotency-Key")


def _faulty(what: str) -> UnavailableError:
    return UnavailableError(
        f"{what}: the memory of the server may be faulty; nothing was logged, retry, and the operator tests the memory"
    )


class Sequencer:
    """Appends to one segment. Threads share it; each process has its own."""

    def __init__(
        self,
        store: SegmentStore,
        signer: SignerKey,
        *,
        clock: Callable[[], int],
        on_commit: Callable[[int, float, int], None],
        anchor: Anchor | None,
        halted: str = "it has no anchor",
        confirmed: Callable[[float], bool] = lambda _: True,
        patience: int | None = None,
    ) -> None:
        """Take a clock in milliseconds, and who is told events, seconds and the new size after each commit.

        Without an `anchor` nothing is appended, and `halted` says why; nor as long as the log's witnesses have not
        `confirmed` that they know of no later head, for which that function waits so many seconds at most.
        With a `patience`, nothing is appended once an entry has waited for so many milliseconds to be under a head
        that the quorum of the log's witnesses cosigned.
        """
        self._store = store
        self._signer = signer
        self._clock = clock
        self._on_commit = on_commit
        self._mutex = Lock()
        self._queue: deque[_Waiting] = deque()
        self._leading = False
        self._anchor = anchor
        self._halted = halted
        self._confirmed = confirmed
        self._patience = patience
        # The first entry that no quorum covers, and its time.
        self._oldest = (-1, 0)
        self._tree = EMPTY_TREE
        self.broken = False
        """Whether a commit failed: the segment is to be closed, and opened anew from what is on disk."""

    def append(self, submission: Submission, waits: AbstractContextManager[None] | None = None) -> Outcome:
        """Log a submission, and return where it went once that is durable and signed for.

        `waits` is entered for as long as this does nothing but wait for the commits of others.

        Raises SealedError or FrozenError if the segment takes no more, SequenceError if signed events are not the
        writer's next, RepeatedError if one of its `events` was logged before, OutcomeUnknownError if the commit failed,
        UnavailableError if one before it did or witnesses are out of reach for too long, and CorruptError if the stored
        tree is not the signed one.
        """
        # Here nobody holds a lock, so that nobody else has to wait.
        self._confirmed(_CONFIRM_SECONDS)
        waiting = _Waiting(submission)
        with self._mutex:
            self._queue.append(waiting)
            leads, self._leading = not self._leading, True
        if not leads:
            with waits or nullcontext():
                waiting.woken.acquire()
        if waiting.outcome is None:
            self._lead()
        return waiting.result()

    def _lead(self) -> None:
        group: list[_Waiting] = []
        answers: Sequence[Answer | Exception] = ()
        try:
            answers = self._answers(group)
        except Exception as error:
            answers = [error for _ in group]
        finally:
            # Whatever happened, nobody waits for ever.
            for waiting, answer in zip(group, answers or [_unknown()] * len(group), strict=True):
                waiting.outcome = answer
            # The first of the group is the leader itself, which nobody has to wake.
            for waiting in group[1:]:
                waiting.woken.release()

    def _answers(self, group: list[_Waiting]) -> Sequence[Answer]:
        try:
            head, answers = self._commit(group)
        finally:
            # Whoever leads next writes while this one waits for the anchor.
            self._pass_on(group)
        # That an event was logged before is not said either before the anchor has it.
        if self._anchor is not None and any(isinstance(answer, Outcome | RepeatedError) for answer in answers):
            with self._breaking():
                self._anchor.sync(head.size)
        return answers

    def _take_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        keys: set[bytes] = set()
        events = 0
        with self._mutex:
            while self._queue:
                submission = self._queue[0].submission
                events += len(submission.payloads)
                # A key that comes twice waits for the next commit, which finds it in the store.
                if group and (events > MAX_COMMIT_EVENTS or submission.key in keys):
                    break
                group.append(self._queue.popleft())
                if submission.key is not None:
                    keys.add(submission.key)
        return group

    def _pass_on(self, group: list[_Waiting]) -> None:
        """Have the next in the queue lead. If the lead failed before it took a group, this takes one."""
        group += [] if group else self._take_group()
        with self._mutex:
            heir = self._queue[0] if self._queue else None
            self._leading = heir is not None
        if heir is not None:
            heir.woken.release()

    def _commit(self, group: list[_Waiting]) -> tuple[Head, Sequence[Answer]]:
        if self.broken:
            raise UnavailableError("the segment is being opened anew after a failure; nothing was logged, retry")
        # From before the anchor is compared until the new head is in it: two copies may share one.
        with self._breaking(), nullcontext() if self._anchor is None else self._anchor.held():
            with self._store.write() as transaction:
                # Taken only now: while this one waited for the locks, more have come.
                group += self._take_group()
                began = time.perf_counter()
                tree, head, answers = self._write(transaction, [waiting.submission for waiting in group])
            self._put_in_anchor(head)
        self._tree = tree
        events = sum(len(answer.entries) for answer in answers if isinstance(answer, Logged))
        if events:
            self._on_commit(events, time.perf_counter() - began, head.size)
        return head, answers

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """Have the segment opened anew after a failure."""
        try:
            yield
        except (DatabaseError, OSError) as error:
            self.broken = True
            raise _unknown() from error
        except TlogError:
            self.broken = True
            raise

    def _put_in_anchor(self, head: Head) -> None:
        """Have the anchor say what was committed, also if whoever did so died before this."""
        if self._anchor is not None:
            self._anchor.put(Checkpoint(self._signer.name, head.size, head.root), head.note)

    def _write(
        self, transaction: Transaction, submissions: Sequence[Submission]
    ) -> tuple[Tree, Head, Sequence[Answer]]:
        old = transaction.head()
        tree = self._tree_at(transaction, old)
        # Time never goes back, whatever the clock does.
        now = max(self._clock(), old.time)
        answers = _answers_before(transaction, submissions, self._closed(transaction, old), now)
        fresh = [submission for submission, answer in zip(submissions, answers, strict=True) if answer is None]
        if not fresh:
            return tree, old, [answer for answer in answers if answer is not None]
        entries = self._entries(fresh, now)
        grown = grow_tree(tree, leaf_hashes(entries))
        new = replace(sign_head(grown.tree, now, self._signer), sealed=any(one.seals for one in fresh))
        logged = _share_out(fresh, entries, old.size, new, grown)
        transaction.append(old.size, entries, _columns(fresh))
        self._check_again(fresh, transaction.entries(old.size, old.size + len(entries)), tree, old, new)
        transaction.put_tiles(grown.tiles)
        transaction.add_requests(
            {
                submission.key: RequestRow(one.start, len(one.entries), new.size)
                for submission, one in zip(fresh, logged, strict=True)
                if submission.key is not None
            }
        )
        transaction.move_head(old, new)
        rest = iter(logged)
        return grown.tree, new, [answer or next(rest) for answer in answers]

    def _closed(self, transaction: Transaction, head: Head) -> Closed | None:
        """Return why the segment takes nothing now, if so."""
        if head.sealed:
            return _sealed()
        standing = transaction.standing()
        if frozen := self._frozen(standing, head):
            return FrozenError(f"{self._signer.name} is frozen and takes no more entries: {frozen}")
        if not self._confirmed(0.0):
            return UnavailableError(
                f"{self._signer.name} takes no entries until its witnesses have said, after the start of the server, "
                "that they know of no later head; nothing was logged, retry, and the operator finds in the log of the "
                "server which witness does not answer"
            )
        if standing.cosigned < head.size and self._has_waited(transaction, standing.cosigned, standing.last):
            return UnavailableError(
                f"{self._signer.name} takes no more entries until a quorum of its witnesses has cosigned those from "
                f"{standing.cosigned} on, which wait for too long; nothing was logged, and the operator finds in the "
                "log of the server which witness does not cosign"
            )
        return None

    def _frozen(self, standing: Standing, head: Head) -> str:
        """Return why the data may not be the latest, "" if it is."""
        if standing.frozen is not None or self._anchor is None:
            return standing.frozen or self._halted
        try:
            self._anchor.trust(head.size, head.root, head.note)
            check_latest(self._anchor.newest(), head)
        except FrozenError as error:
            return str(error)
        return ""

    def _has_waited(self, transaction: Transaction, index: int, before: int) -> bool:
        """Say whether the entry at `index`, which is not older than `before`, waits for witnesses for too long."""
        if self._patience is None:
            return False
        horizon = self._clock() - self._patience
        # Mostly the last entry under the quorum is young enough, and nothing has to be read.
        if before >= horizon:
            return False
        if self._oldest[0] != index:
            self._oldest = (index, parse_entry(transaction.entries(index, index + 1)[0]).time)
        return self._oldest[1] < horizon

    def _tree_at(self, transaction: Transaction, head: Head) -> Tree:
        """Return the tree of the head, from memory as far as that goes, and only if its root is the signed one."""
        tree, behind, last = self._tree, head.size - self._tree.frontier.size, None
        if behind < 0:
            raise CorruptError(f"the head went back from size {tree.frontier.size} to {head.size}; nothing is signed")
        if 0 < behind <= TILE_WIDTH:
            entries = transaction.entries(tree.frontier.size, head.size)
            tree, last = grow_tree(tree, leaf_hashes(entries)).tree, entries[-1]
        elif behind:
            tree, last = read_tree(transaction, head), transaction.entries(head.size - 1, head.size)[0]
        _check_root(tree, head)
        # No signature covers it, and each later entry would have a time that is at least this.
        if last is not None and not has_time(last, head.time):
            raise CorruptError("the head does not have the time of its last entry; nothing is signed, run tlog fsck")
        return tree

    def _check_again(
        self, fresh: Sequence[Submission], stored: Sequence[bytes], tree: Tree, old: Head, new: Head
    ) -> None:
        """Compute all anew: commitments, entries, which must be those stored, and the root, from the old signed one."""
        # Yeti2022 ended when one bit of a leaf hash flipped: no entries make a root that was signed over such a one.
        if any(not one.holds() for one in fresh) or stored != self._entries(fresh, new.time):
            raise _faulty("entries are not what was submitted")
        again = tree.frontier.grow(leaf_hashes(stored)).frontier
        # The old root last: what was right when it was first compared may have changed since.
        if (again.size, again.root()) != (new.size, new.root) or tree.frontier.root() != old.root:
            raise _faulty("a tree did not come out the same twice")

    def _entries(self, submissions: Sequence[Submission], now: int) -> list[bytes]:
        entries: list[bytes] = []
        for (writer, _), run in groupby(
            submissions, key=lambda submission: (submission.writer, bool(submission.signed))
        ):
            group = list(run)
            commitments = chain.from_iterable(submission.commitments for submission in group)
            signed = [one for submission in group for one in submission.signed]
            entries += encode_entries(commitments, origin=self._signer.name, time=now, writer=writer, signed=signed)
        return entries


def _sealed() -> SealedError:
    return SealedError("the segment is sealed; it takes no more entries")


def _answers_before(
    transaction: Transaction, submissions: Sequence[Submission], closed: Closed | None, now: int
) -> Sequence[Answer | None]:
    """Return what needs no entry: where a key went before, or why it is refused; None for the others.

    Of the others that are signed, the sequences are taken, and their events are remembered.
    """
    rows = transaction.requests([submission.key for submission in submissions if submission.key is not None])
    answers: list[Answer | None] = []
    for submission in submissions:
        row = rows.get(submission.key or b"")
        answers.append(row or closed or _refusal(transaction, submission, now))
        if row is None and submission.seals:
            closed = closed or _sealed()
    return answers


def _refusal(transaction: Transaction, submission: Submission, now: int) -> Refused | None:
    if submission.events and not transaction.take_events(submission.events, now, now - submission.remembered):
        return RepeatedError()
    if not submission.signed:
        return None
    first = submission.signed[0].sequence
    if transaction.take_sequences(submission.writer, first, len(submission.signed)):
        return None
    return SequenceError(first, transaction.next_sequence(submission.writer))


def _columns(submissions: Sequence[Submission]) -> Columns:
    return Columns(
        list(chain.from_iterable(one.openings for one in submissions)),
        list(chain.from_iterable(repeat(one.kind, len(one.payloads)) for one in submissions)),
        list(chain.from_iterable(one.payloads for one in submissions)),
    )


def _share_out(
    submissions: Sequence[Submission], entries: Sequence[bytes], start: int, head: Head, grown: Grown
) -> list[Logged]:
    logged, place = [], 0
    for submission in submissions:
        end = place + len(submission.payloads)
        logged.append(
            Logged(
                start=start + place,
                time=head.time,
                writer=submission.writer,
                entries=entries[place:end],
                size=head.size,
                node=grown.growth.node,
                note=head.note,
            )
        )
        place = end
    return logged


def _edge_hashes(transaction: Transaction, tile: Tile) -> list[Hash]:
    if tile.level:
        return split_hashes(transaction.tile(tile), tile.width)
    start = tile.index * TILE_WIDTH
    return leaf_hashes(transaction.entries(start, start + tile.width))
