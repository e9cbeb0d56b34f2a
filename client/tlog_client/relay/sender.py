"""How a relay sends what it has: until it is logged, whatever the log answers."""

import asyncio
from collections.abc import Callable
from typing import Final

from tlog_client.errors import TransientError
from tlog_client.recording.lane import Batch
from tlog_client.relay.kind import Kind
from tlog_client.relay.spool import Spool
from tlog_client.transport import Transport
from tlog_core.errors import TlogError

_FIRST_SECONDS: Final = 0.2
_LONGEST_SECONDS: Final = 5.0
_LONGEST_ASKED: Final = 30.0
_MAX_ANSWER_BYTES: Final = 65_536


async def send_all(kind: Kind, spool: Spool, transport: Transport, say: Callable[[str], None]) -> None:
    """Send what comes, batch by batch, each until it is logged; until the spool is closed, and empty or not taken.

    The transport does not try again by itself.
    """
    while (batch := await spool.batch()) is not None and await _send(kind, spool, batch, transport, say):
        await spool.done(batch)


async def _send(kind: Kind, spool: Spool, batch: Batch, transport: Transport, say: Callable[[str], None]) -> bool:
    wait, said = _FIRST_SECONDS, ""
    while True:
        try:
            await asyncio.to_thread(_post, kind, spool, batch, transport)
        except (TlogError, OSError) as error:
            # Whatever it is: a token that has expired may be replaced, and nothing is thrown away.
            if str(error) != said:
                said = str(error)
                say(f"{kind.name}: {said}; trying again until it is logged")
            asked = error.wait if isinstance(error, TransientError) else 0.0
            if await spool.pause(max(wait, min(asked, _LONGEST_ASKED))):
                return False
            wait = min(2 * wait, _LONGEST_SECONDS)
        else:
            if said:
                say(f"{kind.name}: the log takes it again")
            return True


def _post(kind: Kind, spool: Spool, batch: Batch, transport: Transport) -> None:
    body = b"".join(map(kind.wrap, spool.read(batch)))
    transport.post(
        kind.path,
        body,
        content_type=kind.media_type,
        idempotency_key=batch.key,
        limit=_MAX_ANSWER_BYTES,
        expected=200,
    )
