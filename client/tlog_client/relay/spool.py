"""What a relay has read and the log has not yet: on disk, in files that are each a request (`spec/relay.md`)."""

import asyncio
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from tlog_client.recording.lane import Batch, Limits, lock_lane
from tlog_core.errors import FetchError

MOST_BYTES: Final = 16 << 20

_PAUSE_SECONDS: Final = 1.0
# What stands before a message in a request.
_OVERHEAD: Final = len(b"1048576 ")
_ESCAPED: Final = re.compile(rb"\\(.)")


class Spool:
    """Messages in the order in which they came, for the tasks of one event loop."""

    def __init__(self, folder: Path, say: Callable[[str], None], most_bytes: int = MOST_BYTES) -> None:
        """Go on with what is in the folder, with room for about so many bytes; raise FetchError."""
        try:
            lane = lock_lane(folder, Limits(most_bytes, _OVERHEAD))
        except OSError as error:
            raise FetchError(f"what is not logged yet cannot be kept in {folder}: {error.strerror}") from None
        if lane is None:
            raise FetchError(f"another relay keeps what is not logged yet in {folder}")
        self._lane = lane
        self._say = say
        self._waits = True
        self._closed = asyncio.Event()
        self._changed = asyncio.Condition()

    async def add(self, messages: Iterable[bytes]) -> None:
        """Keep messages, and only then wait until there is room for more."""
        for message in messages:
            await self._put(_escape(message))
        await self._notify()
        await self.room()

    async def room(self) -> None:
        """Wait until there is room."""
        async with self._changed:
            await self._changed.wait_for(lambda: not (self._lane.full and self._waits))

    async def batch(self) -> Batch | None:
        """Return the oldest messages, when there are any; None once it is closed and empty."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._lane.take() or self._closed.is_set())
        return self._lane.take()

    def read(self, batch: Batch) -> list[bytes]:
        """Return the messages of a batch, which is durable then; raise OSError."""
        self._lane.sync()
        messages, damaged = batch.read()
        if damaged:
            self._say(f"{batch.path}: messages that the disk has damaged: {damaged}")
        return list(map(_unescape, messages))

    async def done(self, batch: Batch) -> None:
        """Forget the oldest batch: it is logged. Raises OSError."""
        self._lane.done(batch)
        await self._notify()

    async def stop_waiting(self) -> None:
        """From now on let nobody wait for room."""
        self._waits = False
        await self._notify()

    async def close(self) -> None:
        """Say that nothing comes any more."""
        self._closed.set()
        await self._notify()

    @property
    def left(self) -> bool:
        """Whether there is something that is not logged."""
        return self._lane.take() is not None

    def release(self) -> None:
        """Leave what is there to the next relay."""
        self._lane.close()

    async def pause(self, seconds: float) -> bool:
        """Wait for so long, or until it is closed, and return whether it is."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)
        return self._closed.is_set()

    async def _put(self, line: bytes) -> None:
        said = ""
        while True:
            try:
                self._lane.put(line, within_limit=False)
                return
            except OSError as error:
                if not self._waits:
                    self._say(f"a message is lost, which cannot be kept: {error.strerror}")
                    return
                # Such as a disk that is full: who sends waits until it is not.
                if str(error) != said:
                    said = str(error)
                    self._say(f"what is not logged yet cannot be kept: {error.strerror}; trying again")
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _escape(message: bytes) -> bytes:
    # Each is a line.
    return message.replace(b"\\", rb"\\").replace(b"\n", rb"\n")


def _unescape(line: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: b"\n" if found[1] == b"n" else found[1], line)
