"""How a relay sends what it has in hand: until it is logged, whatever the log answers."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

from tlog_client.errors import TransientError
from tlog_client.relay.hand import Hand
from tlog_client.relay.kind import Kind
from tlog_client.transport import Transport
from tlog_core.errors import TlogError

_FIRST_SECONDS: Final = 0.2
_LONGEST_SECONDS: Final = 5.0
_LONGEST_ASKED: Final = 30.0
_MAX_ANSWER_BYTES: Final = 65_536


async def send_all(kind: Kind, hand: Hand, transport: Transport, say: Callable[[str], None]) -> None:
    """Send what comes into a hand, batch by batch, each until it is logged, until the hand is closed and empty.

    The transport does not try again by itself.
    """
    while batch := await hand.batch():
        body = b"".join(map(kind.wrap, batch))
        await _send(kind, body, transport, say)
        await hand.done()


async def _send(kind: Kind, body: bytes, transport: Transport, say: Callable[[str], None]) -> None:
    key, wait, said = secrets.token_hex(16), _FIRST_SECONDS, ""
    while True:
        try:
            await asyncio.to_thread(
                transport.post,
                kind.path,
                body,
                content_type=kind.media_type,
                idempotency_key=key,
                limit=_MAX_ANSWER_BYTES,
                expected=200,
            )
        except TlogError as error:
            # Whatever it is: a token that has expired may be replaced, and nothing is thrown away.
            if str(error) != said:
                said = str(error)
                say(f"{kind.name}: {said}; trying again until it is logged")
            asked = error.wait if isinstance(error, TransientError) else 0.0
            await asyncio.sleep(max(wait, min(asked, _LONGEST_ASKED)))
            wait = min(2 * wait, _LONGEST_SECONDS)
        else:
            if said:
                say(f"{kind.name}: the log takes it again")
            return
