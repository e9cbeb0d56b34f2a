"""Appending in the background, many events a request: the way to keep up with a busy program.

Two threads take turns: while one makes the receipts of a batch, the other sends the next.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final

from tlog_client.errors import RefusedError
from tlog_client.events import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, canonical_event
from tlog_client.log import Log
from tlog_core.receipt import Receipt

MAX_QUEUE_BYTES: Final = 4 * MAX_BATCH_BYTES

_WATCH_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    payload: bytes
    future: Future[Receipt]


class Writer:
    """Collects events into batches and appends them to a log, one batch at a time, in the order of their submission.

    A batch is sent once the one before is logged, and while its receipts are verified and handed out. Every event
    submitted gets an answer through its future: a receipt that was verified, or the error that `Log.append_many` raised
    for its batch. Use it in a `with` statement, which ends when all are answered.
    """

    def __init__(self, log: Log, *, batch: int = 1_000, linger: float = 0.05, queue: int = 10_000) -> None:
        """Send a batch once it has `batch` events (at most 10,000) or its first has waited `linger` seconds.

        At most `queue` events, and 64 MiB of them, wait to be sent. The log stays the caller's to close.
        """
        if not 1 <= batch <= MAX_BATCH_EVENTS or queue < 1:
            raise ValueError(f"a batch has 1 to {MAX_BATCH_EVENTS} events, and the queue room for one at least")
        self._log = log
        self._batch = batch
        self._linger = linger
        self._queue = queue
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._sent: deque[list[_Waiting]] = deque()
        self._hurried = self._closing = False
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self._answering = threading.Lock()
        self._logged = 0
        self._threads = [threading.Thread(target=self._run, name=f"tlog-writer-{number}") for number in (1, 2)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, event: Any, *, timeout: float | None = None) -> Future[Receipt]:
        """Queue an event, any JSON value of at most 1 MiB, and return the future of its receipt.

        While the queue is full it waits, `timeout` seconds at most, then raises TimeoutError. MalformedError for what
        the log would refuse; RuntimeError if the writer is closed.
        """
        waiting = _Waiting(canonical_event(event), Future())
        with self._changed:
            if not self._changed.wait_for(lambda: self._closing or self._has_room(waiting), timeout):
                raise TimeoutError(f"the queue of {self._queue} events is full")
            if self._closing:
                raise RuntimeError("the writer is closed")
            self._waiting.append(waiting)
            self._bytes += len(waiting.payload) + 1
            # The thread that sends need not wake for each event in between.
            if len(self._waiting) == 1 or self._is_ripe():
                self._changed.notify_all()
        return waiting.future

    def flush(self) -> None:
        """Send what is queued without lingering, and return when all of it is answered; the futures say how."""
        with self._changed:
            self._hurried = True
            futures = [waiting.future for batch in (*self._sent, self._waiting) for waiting in batch]
            self._changed.notify_all()
        wait(futures)

    def close(self) -> None:
        """Take no more events, and return when those queued are answered. It may be called again.

        RuntimeError if it is called while a future is told its receipt, which it would wait for.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() in self._threads:
            raise RuntimeError("a callback of a future cannot wait for the writer to end")
        for thread in self._threads:
            thread.join()

    def _has_room(self, waiting: _Waiting) -> bool:
        if not self._waiting:
            return True
        return len(self._waiting) < self._queue and self._bytes + len(waiting.payload) < MAX_QUEUE_BYTES

    def _is_ripe(self) -> bool:
        full = len(self._waiting) >= self._batch or self._bytes >= MAX_BATCH_BYTES
        return full or self._hurried or self._closing

    def _run(self) -> None:
        while self._append():
            pass

    def _append(self) -> bool:
        with self._turn:
            batch = self._take()
            answer = self._send(batch)
            # Before the turn is given up: so receipts are handed out in order, and a batch at most waits for it.
            self._answering.acquire()
        try:
            answer()
        finally:
            with self._changed:
                self._sent.popleft()
            self._answering.release()
        return bool(batch)

    def _take(self) -> list[_Waiting]:
        # None are left only when the writer is closed.
        with self._changed:
            self._wait_until(lambda: bool(self._waiting) or self._closing, math.inf)
            self._wait_until(self._is_ripe, self._linger)
            batch = self._pop_batch()
            self._sent.append(batch)
            self._hurried = self._hurried and bool(self._waiting)
            self._changed.notify_all()
            return batch

    def _wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not ready() and (left := end - time.monotonic()) > 0:
            self._changed.wait(min(left, _WATCH_SECONDS))
            # A program that ends without closing its writer must neither hang here nor lose events.
            self._closing = self._closing or not threading.main_thread().is_alive()

    def _pop_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        room = MAX_BATCH_BYTES
        while self._waiting and len(batch) < self._batch:
            length = len(self._waiting[0].payload)
            if length + self._log.overhead > room:
                break
            room -= length + self._log.overhead
            self._bytes -= length + 1
            batch.append(self._waiting.popleft())
        return batch

    def _send(self, batch: list[_Waiting]) -> Callable[[], None]:
        """Send a batch, and return what hands out its receipts once those of the batch before are."""
        batch = [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]
        while batch:
            try:
                return partial(self._answer, batch, self._log.send_canonical([waiting.payload for waiting in batch]))
            except RefusedError as error:
                # Nothing of the batch was logged: without the event at fault the others may be, unless the fault is
                # the key, which signs all of them.
                for_all = error.line is None or error.line > len(batch) or error.status == HTTPStatus.FORBIDDEN
                at_fault = batch if for_all or error.line is None else [batch.pop(error.line - 1)]
                _fail(at_fault, error)
                if at_fault is batch:
                    break
            except Exception as error:  # whatever it is, those who wait must hear of it
                _fail(batch, error)
                break
        return lambda: None

    def _answer(self, batch: list[_Waiting], receive: Callable[[int], list[Receipt]]) -> None:
        try:
            receipts = receive(self._logged)
        except Exception as error:  # as above
            _fail(batch, error)
            return
        self._logged = receipts[-1].index + 1
        for waiting, receipt in zip(batch, receipts, strict=True):
            waiting.future.set_result(receipt)


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        waiting.future.set_exception(error)
