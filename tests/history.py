"""What outsiders saw of a segment: the receipts and checkpoints that it released, and whether they fit together.

The writers are as stubborn as real ones: after an error they send the same event again under the same key, so that in
the end each event must be logged exactly once.
"""

import http.client
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

import reference
from live import JSON, NDJSON, PATIENCE, Answer, Segment, Server, until

from tlog_core.checkpoint import open_checkpoint
from tlog_core.encoding import canonicalize
from tlog_core.entry import parse_entry
from tlog_core.receipt import Receipt, mint_receipts, parse_batch_receipt, parse_receipt, verify_receipt

REFUSED = (503,)
"""Answers after which a writer tries again."""


def roots(leaves: Sequence[bytes]) -> list[bytes]:
    """Return the root at every size from 0 on, by RFC 6962 section 2.1."""
    found, peaks = [reference.mth([])], list[tuple[int, bytes]]()
    for leaf in leaves:
        width, root = 1, leaf
        while peaks and peaks[-1][0] == width:
            root = reference.sha256(b"\x01" + peaks.pop()[1] + root)
            width *= 2
        peaks.append((width, root))
        for _, left in reversed(peaks[:-1]):
            root = reference.sha256(b"\x01" + left + root)
        found.append(root)
    return found


@dataclass
class History:
    """The receipts and checkpoints of one segment; threads add to it."""

    segment: Segment
    receipts: list[tuple[Receipt, bytes]] = field(default_factory=list)
    notes: set[bytes] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    cut: int = 0
    lock: Lock = field(default_factory=Lock)

    def acknowledge(self, receipt: bytes, events: Sequence[bytes], *, batch: bool) -> None:
        """Take a receipt for these events, after verifying it offline."""
        payloads = [canonicalize(event) for event in events]
        if batch:
            found = mint_receipts(parse_batch_receipt(receipt), payloads=payloads, key=self.segment.key)
        else:
            found = [parse_receipt(receipt)]
            verify_receipt(found[0], key=self.segment.key, payload=payloads[0])
        with self.lock:
            self.receipts += zip(found, payloads, strict=True)
            self.notes.add(found[0].checkpoint)

    def acknowledged(self) -> int:
        with self.lock:
            return len(self.receipts)

    def check(self, *, complete: bool = True) -> None:
        """Check everything seen against what the segment holds now.

        With `complete` it holds the acknowledged events, and not one more.
        """
        head = self.segment.checkpoint()
        entries = self.segment.entries(0, head.size)
        leaves = [reference.leaf(entry["entry"].encode()) for entry in entries]
        history = roots(leaves)
        assert history[head.size] == head.root
        # Every checkpoint ever released is the root of a prefix of one and the same list: no two contradict each other.
        for note in self.notes:
            checkpoint = open_checkpoint(note, self.segment.key)
            assert history[checkpoint.size] == checkpoint.root
        # Each acknowledged event is where its receipt says, and no index was given twice.
        places = [receipt.index for receipt, _ in self.receipts]
        assert len(places) == len(set(places))
        for receipt, payload in self.receipts:
            assert entries[receipt.index]["entry"].encode() == receipt.entry
            assert json.dumps(entries[receipt.index]["payload"]) == json.dumps(json.loads(payload))
        # No event is there twice.
        payloads = Counter(json.dumps(entry["payload"]) for entry in entries)
        assert set(payloads.values()) <= {1}
        if complete:
            assert sorted(places) == list(range(head.size))
        times = [parse_entry(entry["entry"].encode()).time for entry in entries]
        assert times == sorted(times)

    def write(self, server: Server, events: Sequence[bytes], key: str, *, batch: bool) -> bool:
        """Log events once and return True, or False if the server did not answer or could not say."""
        body = b"\n".join(events)
        headers = {"Content-Type": NDJSON if batch else JSON, "Idempotency-Key": key}
        try:
            answer = server.request("POST", f"/segments/{self.segment.name}/entries", body, headers, PATIENCE)
        except (OSError, http.client.HTTPException):
            # Refused, or cut off in the middle: the outcome is unknown.
            with self.lock:
                self.cut += 1
            return False
        return self._take(answer, events, batch=batch)

    def _take(self, answer: Answer, events: Sequence[bytes], *, batch: bool) -> bool:
        with self.lock:
            self.statuses[answer.status] += 1
        if answer.status in REFUSED:
            return False
        assert answer.status == 201, answer.body
        self.acknowledge(answer.body, events, batch=batch)
        return True

    def watch(self, server: Server) -> None:
        """Take the latest checkpoint, if the server answers."""
        try:
            answer = server.request("GET", f"/segments/{self.segment.name}/checkpoint")
        except (OSError, http.client.HTTPException):
            return
        if answer.status == 200:
            with self.lock:
                self.notes.add(answer.body)


@contextmanager
def load(
    server: Server,
    histories: Sequence[History],
    *,
    writers: int,
    retry: bool = True,
    sizes: Sequence[int] = (1, 1, 7),
    names: str = "",
) -> Iterator[Event]:
    """Have writers append to each segment, alone and in batches, until the block ends; someone watches meanwhile.

    Yields the event by which they are told to stop. With `retry` each sends what it has begun until it has a receipt.
    An exception in one of them is raised at the end. `names` keep their events apart from those of another load.
    """
    stop, failures = Event(), list[BaseException]()

    def write(history: History, name: int) -> None:
        for number, size in zip(itertools.count(), itertools.cycle(sizes)):
            if stop.is_set():
                return
            key = f"{names}{name}-{number}"
            events = [b'{"at":%d,"by":"%b"}' % (place, key.encode()) for place in range(size)]
            while not history.write(server, events, key, batch=size > 1):
                if not retry:
                    return
                stop.wait(0.01)

    def watch() -> None:
        while not stop.wait(0.005):
            for history in histories:
                history.watch(server)

    def guarded(target: object, *arguments: object) -> None:
        try:
            assert callable(target)
            target(*arguments)
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=guarded, args=(write, history, name)) for history in histories for name in range(writers)]
    threads.append(Thread(target=guarded, args=(watch,)))
    for thread in threads:
        thread.start()
    try:
        yield stop
    finally:
        stop.set()
        for thread in threads:
            thread.join(2 * PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def wait_for(histories: Sequence[History], more: int) -> None:
    """Return when each segment has acknowledged so many more events."""
    goals = [history.acknowledged() + more for history in histories]
    until(
        lambda: all(history.acknowledged() >= goal for history, goal in zip(histories, goals, strict=True)),
        f"{more} more events to be acknowledged",
    )
