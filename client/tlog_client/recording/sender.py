"""Sends what is in the lanes, batch by batch, until the log has it (`spec/python.md`)."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http import HTTPStatus
from typing import Final

from tlog_client.errors import RefusedError, TransientError
from tlog_client.log import Log
from tlog_client.recording.lane import Batch, Lane

LINGER_SECONDS: Final = 0.1
SYNC_SECONDS: Final = 1.0
SWEEP_SECONDS: Final = 60.0
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 30.0
THREAD_NAME: Final = "tlog-recorder"

_DOUBLINGS: Final = 8

# Such a batch will never be taken, whatever the operator does.
_FOR_WHAT_IT_IS: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)


class Sender:
    """Two threads: one sends, one syncs what waits to be sent. Neither keeps the program alive.

    `sent` is called after each batch that is logged, with how many of its lines were damaged.
    """

    def __init__(
        self,
        open_log: Callable[[], Log],
        lane: Lane,
        left: Callable[[], Iterator[Lane]],
        sent: Callable[[int], None],
    ) -> None:
        """Begin to send what is in `lane`, which it closes at its end, and in the lanes that others left."""
        self._open_log = open_log
        self._lane = lane
        self._left = left
        self._sent = sent
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._failure = ""
        self._failures = 0
        self._asked = 0.0
        self._threads = [
            threading.Thread(target=target, name=f"{THREAD_NAME}-{name}", daemon=True)
            for name, target in (("sender", self._run), ("keeper", self._keep))
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Say that there is something to send."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Send what is there while the log takes it, and return when that is done, or after so many seconds."""
        self._closing.set()
        self._wake.set()
        self._threads[0].join(seconds)

    def _run(self) -> None:
        with self._open_log() as log, closing(self._lane):
            while self._round(log):
                pass

    def _keep(self) -> None:
        while not self._closing.wait(SYNC_SECONDS):
            self._sync(self._lane)

    def _round(self, log: Log) -> bool:
        is_last = self._closing.is_set()
        if not (self._drain(log, self._lane) and (is_last or self._drain_left(log))):
            self._closing.wait(self._pause())
        elif not is_last:
            self._wake.wait(SWEEP_SECONDS)
            self._wake.clear()
            self._closing.wait(LINGER_SECONDS)
        return not is_last

    def _drain_left(self, log: Log) -> bool:
        try:
            for lane in self._left():
                with closing(lane):
                    if not self._drain(log, lane):
                        return False
        except OSError as error:
            self._say(f"what another process left cannot be read: {error}")
        return True

    def _drain(self, log: Log, lane: Lane) -> bool:
        try:
            while (batch := lane.take()) is not None:
                # Synced first: what is sent under a key must not be less after a loss of power.
                self._sync(lane)
                self._send(log, lane, batch)
        except Exception as error:  # whatever it is, the thread must go on
            self._fail(error)
            return False
        return True

    def _send(self, log: Log, lane: Lane, batch: Batch) -> None:
        events, damaged = batch.read()
        try:
            if events:
                log.append_canonical(events, idempotency_key=batch.key)
        except RefusedError as error:
            if error.status not in _FOR_WHAT_IT_IS:
                raise
            self._say(f"the log will never take a batch of {len(events)} events, which is set aside: {error}")
            lane.set_aside(batch)
            return
        lane.done(batch)
        self._recover()
        self._sent(damaged)

    def _fail(self, error: Exception) -> None:
        self._failures += 1
        self._asked = error.wait if isinstance(error, TransientError) else 0.0
        if str(error) != self._failure:
            self._failure = str(error)
            self._say(f"events wait to be sent: {error}")

    def _recover(self) -> None:
        if self._failures:
            self._say("events are sent again")
        self._failure, self._failures, self._asked = "", 0, 0.0

    def _pause(self) -> float:
        own = FIRST_PAUSE * float(1 << min(self._failures, _DOUBLINGS))
        return min(LONGEST_PAUSE, max(self._asked, own))

    def _sync(self, lane: Lane) -> None:
        try:
            lane.sync()
        except OSError as error:
            self._say(f"what waits to be sent cannot be synced to disk: {error}")

    def _say(self, text: str) -> None:
        logging.getLogger(__name__).warning(text)


def is_ours(record: logging.LogRecord) -> bool:
    """Tell whether a record was made by a thread of those here, also if another hands it on."""
    names = (record.threadName or "", threading.current_thread().name)
    return any(name.startswith(THREAD_NAME) for name in names)
