"""Recording events from a running program, which never waits for the log (`spec/python.md`)."""

import hashlib
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tlog_client.credential import credential_of
from tlog_client.errors import StateError
from tlog_client.files import read_key, read_signer
from tlog_client.log import Log
from tlog_client.recording.lane import Lane, Limits, left_lanes, open_lane
from tlog_client.recording.plain import event_bytes, shown
from tlog_client.recording.sender import Sender
from tlog_client.text import format_time
from tlog_client.transport import Backoff
from tlog_core.note import VerifierKey

MAX_BYTES: Final = 256 << 20
CLOSE_SECONDS: Final = 5.0

_FULL: Final = "the spool was full"


class Recorder:
    """Puts events into a spool on disk, from where a thread sends them to one segment of a log.

    Unless it was dropped, what `record` returned from survives the process, and is logged once, now or after a restart:
    each batch is sent under a key of its own until a receipt for it was verified. It is synced to disk within a second,
    and before it is sent: of that second a loss of power may take what was not sent. Threads may share it, and
    processes a folder; after a fork the child has a spool of its own.
    """

    _turn: threading.Lock
    _dropped: int
    _reason: str
    _lane: Lane | None
    _sender: Sender | None

    def __init__(
        self,
        url: str,
        key: VerifierKey | str,
        spool: Path | str,
        *,
        token: str | Path | None = None,
        state: Path | str | None = None,
        signer: Path | str | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Record to the segment at `url`; `spool` is a folder on a local disk.

        `key` may be the file that holds the key, and `signer` is such a file; `token` is what `TLOG_TOKEN` or
        `TLOG_TOKEN_FILE` say unless given; the others are those of `Log`. At most `max_bytes` wait on disk. Raises what
        `Log` does, and StateError if the spool cannot be used.
        """
        key = read_key(key) if isinstance(key, str) else key
        self._open_log = partial(
            Log,
            url,
            key,
            state=state,
            token=credential_of(os.environ) if token is None else token,
            signer=None if signer is None else read_signer(Path(signer)),
            backoff=Backoff(attempts=1),
        )
        with self._open_log() as log:
            self._limits = Limits(max_bytes, log.overhead)
        # Of the key, so that nothing which waits for one segment ever comes into another.
        self._folder = Path(spool) / hashlib.sha256(str(key).encode()).hexdigest()
        self._begin()
        try:
            self._opened()
        except OSError as error:
            raise StateError(f"the spool {spool} cannot be used: {error.strerror}; give a folder that can") from None
        # A weak one: what a program has no use for any more must not be kept by this.
        os.register_at_fork(after_in_child=partial(_after_fork, weakref.ref(self)))

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def dropped(self) -> int:
        """How many events were dropped and not yet told of by an event of their own."""
        return self._dropped

    def record(self, event: Mapping[str, Any]) -> None:
        """Put an event into the spool. It never raises, nor waits for more than the disk.

        What is no JSON becomes text. An event is dropped if the spool is full, or the disk fails; how many were is an
        event too, as soon as there is room.
        """
        try:
            payload = event_bytes(event)
            with self._turn:
                self._put(payload)
        except Exception as error:  # whatever it is, the program goes on
            self._drop(1, shown(error))

    def flush(self) -> None:
        """Make what was recorded durable on this machine, without waiting for the log; raise OSError."""
        with self._turn:
            lane = self._lane
        if lane is not None:
            lane.sync()

    def close(self) -> None:
        """Make all durable, and send it if the log takes it within five seconds; the rest is sent after a restart.

        It can be used again and then begins anew.
        """
        with self._turn, suppress(OSError):
            if self._lane is not None:
                self._tell(self._lane, within_limit=False)
        with suppress(OSError):
            self.flush()
        with self._turn:
            lane, sender, self._lane, self._sender = self._lane, self._sender, None, None
        if sender is not None:
            sender.stop(CLOSE_SECONDS)
        elif lane is not None:
            lane.close()

    def _begin(self) -> None:
        self._turn = threading.Lock()
        self._dropped, self._reason = 0, ""
        self._lane = self._sender = None

    def _opened(self) -> Lane:
        if self._lane is None:
            self._lane = open_lane(self._folder, self._limits)
        if self._sender is None:
            # At the end of the interpreter there are no new threads: what is in the lane is sent after a restart.
            with suppress(RuntimeError):
                self._sender = Sender(self._open_log, self._lane, self._left, self._after_sending)
        return self._lane

    def _left(self) -> Iterator[Lane]:
        return left_lanes(self._folder, self._limits)

    def _put(self, payload: bytes) -> None:
        lane = self._opened()
        # What was dropped before comes before it.
        if not (self._tell(lane) and lane.put(payload)):
            self._dropped, self._reason = self._dropped + 1, _FULL
        if self._sender is not None:
            self._sender.wake()

    def _tell(self, lane: Lane, *, within_limit: bool = True) -> bool:
        if self._dropped and lane.put(event_bytes(_notice(self._dropped, self._reason)), within_limit=within_limit):
            self._dropped = 0
        return not self._dropped

    def _drop(self, count: int, reason: str) -> None:
        with self._turn:
            self._dropped, self._reason = self._dropped + count, reason

    def _after_sending(self, damaged: int) -> None:
        if damaged:
            self._drop(damaged, "they were damaged on disk")
        with self._turn:
            if self._lane is not None:
                self._tell(self._lane)

    def _after_fork(self) -> None:
        # The threads stayed in the parent, which may have held the lock.
        lane = self._lane
        self._begin()
        if lane is not None:
            lane.forget()


def _after_fork(reference: "weakref.ref[Recorder]") -> None:
    recorder = reference()
    if recorder is not None:
        recorder._after_fork()


def _notice(count: int, reason: str) -> dict[str, Any]:
    return {
        "time": format_time(time.time_ns() // 1_000_000),
        "level": "WARNING",
        "logger": __name__,
        "message": f"events that were dropped: {count}, because {reason}",
        "dropped": count,
    }
