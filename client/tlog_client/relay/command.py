"""The command `tlog-client relay`: puts a relay together, and ends it without loss."""

import asyncio
import signal
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from requests import Session

from tlog_client.credential import Bearer
from tlog_client.relay.kind import SYSLOG, VAULT
from tlog_client.relay.listener import Address, Listener, Tls
from tlog_client.relay.sender import send_all
from tlog_client.relay.spool import Spool
from tlog_client.transport import Backoff, Transport, new_session
from tlog_core.errors import MalformedError

TIMEOUT: Final = 60.0
GRACE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a relay does: listen at these addresses, and send to this server; `say` takes what is to be told.

    In the folder `state` it keeps what is not logged yet.
    """

    server: str
    token: str | Path | None
    state: Path
    syslog: Sequence[Address]
    syslog_tls: Sequence[Address]
    vault: Sequence[Address]
    tls: Tls | None
    say: Callable[[str], None]


def read_tls(certificate: Path, key: Path, authorities: Path | None, clients: Sequence[str]) -> Tls:
    """Return TLS with a certificate, and with clients that show one of these authorities; raise MalformedError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
        if authorities is not None:
            context.load_verify_locations(authorities)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise MalformedError(f"the certificates cannot be used: {error.strerror or error}") from None
    return Tls(context, frozenset(clients))


async def relay(options: Options) -> None:
    """Relay until SIGTERM or SIGINT, and return when all is logged, or the log takes no more; raise FetchError.

    A second signal ends the process at once.
    """
    syslog, vault = (Spool(options.state / kind.name, options.say) for kind in (SYSLOG, VAULT))
    listeners = [
        *(Listener(SYSLOG, one, syslog, options.say) for one in options.syslog),
        *(Listener(SYSLOG, one, syslog, options.say, options.tls) for one in options.syslog_tls),
        *(Listener(VAULT, one, vault, options.say) for one in options.vault),
    ]
    with new_session() as one, new_session() as other:
        senders = ((SYSLOG, syslog, _transport(options, one)), (VAULT, vault, _transport(options, other)))
        async with asyncio.TaskGroup() as group:
            for kind, spool, transport in senders:
                group.create_task(send_all(kind, spool, transport, options.say))
            accepting = [group.create_task(one.accept()) for one in listeners]
            for listener in listeners:
                options.say(f"listening for {listener}")
            await _stopped()
            for task in accepting:
                task.cancel()
            await _end(listeners, (syslog, vault), options.say)
    if syslog.left or vault.left:
        options.say(f"what is not logged yet is kept in {options.state}, for the next start")


async def _end(listeners: Sequence[Listener], spools: Sequence[Spool], say: Callable[[str], None]) -> None:
    for spool in spools:
        await spool.stop_waiting()
    await asyncio.gather(*(one.stop(GRACE_SECONDS) for one in listeners))
    say("stopping")
    for spool in spools:
        await spool.close()


async def _stopped() -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    ends = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        for number in ends:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        stopped.set()

    for number in ends:
        loop.add_signal_handler(number, stop)
    await stopped.wait()


def _transport(options: Options, session: Session) -> Transport:
    if options.token is not None:
        session.auth = Bearer(options.token)
    return Transport(options.server, session=session, timeout=TIMEOUT, backoff=Backoff(attempts=1))
