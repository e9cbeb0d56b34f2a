"""What a relay has in hand: messages that were read, and are not logged yet."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

MOST_BYTES: Final = 8 << 20
BATCH_BYTES: Final = 1 << 20
BATCH_MESSAGES: Final = 5_000


class Hand:
    """Messages in the order in which they came, for the tasks of one event loop."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Have room for about so many bytes."""
        self._most = most_bytes
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._taken = 0
        self._closed = False
        self._waits = True
        self._changed = asyncio.Condition()

    def __len__(self) -> int:
        """Return how many messages there are, those of the batch that is being sent among them."""
        return len(self._messages)

    async def add(self, messages: Iterable[bytes]) -> None:
        """Add messages, and only then wait until there is room for more: what was read is never outside."""
        for message in messages:
            self._messages.append(message)
            self._bytes += len(message)
        async with self._changed:
            self._changed.notify_all()
        await self.room()

    async def room(self) -> None:
        """Wait until there is room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes < self._most or not self._waits)

    async def batch(self) -> list[bytes]:
        """Wait for messages, and return the oldest, as many as go into a request; none once it is closed and empty."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._messages or self._closed)
        batch: list[bytes] = []
        room = BATCH_BYTES
        for message in self._messages:
            room -= len(message) + len(b"1048576 ")
            if batch and (room < 0 or len(batch) == BATCH_MESSAGES):
                break
            batch.append(message)
        self._taken = len(batch)
        return batch

    async def done(self) -> None:
        """Forget the batch that was last returned: it is logged."""
        for _ in range(self._taken):
            self._bytes -= len(self._messages.popleft())
        async with self._changed:
            self._changed.notify_all()

    async def stop_waiting(self) -> None:
        """From now on let nobody wait for room."""
        await self._tell(waits=False)

    async def close(self) -> None:
        """Say that nothing comes any more."""
        await self._tell(closed=True)

    async def _tell(self, *, waits: bool = False, closed: bool = False) -> None:
        self._waits, self._closed = waits, closed
        async with self._changed:
            self._changed.notify_all()
