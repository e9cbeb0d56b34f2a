"""Where a relay listens: an address, its connections, and what is read of each."""

import asyncio
import ssl
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_UNIX, SO_RCVBUF, SOL_SOCKET, create_server, socket
from typing import Any, Final

from tlog_client.relay.framing import Frame, Lines, Syslog
from tlog_client.relay.kind import MAX_MESSAGE_BYTES, Kind
from tlog_client.relay.spool import Spool
from tlog_core.errors import FetchError

MAX_CONNECTIONS: Final = 256
MESSAGE_SECONDS: Final = 60.0

_HANDSHAKE_SECONDS: Final = 15.0
_CHUNK_BYTES: Final = 65_536
# Who may not send opens another connection, as Vault does: so what the kernel takes of each is kept small.
_BACKLOG: Final = 16
_KERNEL_BYTES: Final = 256 << 10

Address = tuple[str, int] | Path


@dataclass(frozen=True, slots=True)
class Tls:
    """How TLS is spoken: with this context, and with clients of one of these names, or any if there are none."""

    context: ssl.SSLContext
    clients: Collection[str] = ()


class Listener:
    """Listens at one address. All of it runs in one event loop."""

    def __init__(
        self, kind: Kind, address: Address, spool: Spool, say: Callable[[str], None], tls: Tls | None = None
    ) -> None:
        """Take the address; raise FetchError if it cannot be had."""
        self._kind = kind
        self._spool = spool
        self._say = say
        self._tls = tls
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._connections: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.Transport] = set()
        self._socket = _bind(address)

    def __str__(self) -> str:
        """Return what is listened for, and where."""
        return f"{self._kind.name} at {_name(self._socket.getsockname())}{' with TLS' if self._tls else ''}"

    async def accept(self) -> None:
        """Accept connections until this is cancelled; more than there are places for, or room, wait."""
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            await self._spool.room()
            try:
                accepted, _ = await loop.sock_accept(self._socket)
            except OSError as error:
                # Such as too many open files: the next may be accepted.
                self._say(f"{self}: no connection can be accepted: {_reason(error)}")
                self._places.release()
                await asyncio.sleep(1)
                continue
            task = loop.create_task(self._serve(accepted))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
            task.add_done_callback(lambda _: self._places.release())

    async def stop(self, seconds: float) -> None:
        """Listen no more; read for so long what is under way, and end what is open then."""
        self._socket.close()
        for transport in self._open:
            # Who sends over it sees that it ends.
            if transport.can_write_eof():
                transport.write_eof()
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, accepted: socket) -> None:
        reader = asyncio.StreamReader(limit=_CHUNK_BYTES)
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader),
                accepted,
                ssl=None if self._tls is None else self._tls.context,
                ssl_handshake_timeout=None if self._tls is None else _HANDSHAKE_SECONDS,
            )
        except OSError as error:
            accepted.close()
            self._say(f"{self}: a connection failed: {_reason(error)}")
            return
        self._open.add(transport)
        try:
            await self._read(reader, transport)
        finally:
            self._open.discard(transport)
            transport.close()

    async def _read(self, reader: asyncio.StreamReader, transport: asyncio.Transport) -> None:
        peer = _name(transport.get_extra_info("peername"))
        if not self._is_welcome(transport.get_extra_info("peercert")):
            self._say(f"{self}: {peer} is none of the clients that may send here")
            return
        framer, clean = self._kind.framer(MAX_MESSAGE_BYTES), False
        try:
            clean = await self._take_all(reader, framer, peer)
        except TimeoutError:
            self._say(f"{self}: {peer} takes more than {MESSAGE_SECONDS:.0f} seconds for one message; it is cut off")
        except OSError as error:
            self._say(f"{self}: the connection of {peer} broke: {_reason(error)}")
        finally:
            with suppress(asyncio.CancelledError):
                await self._spool.add(self._marked(framer.end(clean=clean), peer))

    async def _take_all(self, reader: asyncio.StreamReader, framer: Lines | Syslog, peer: str) -> bool:
        """Take all that comes, and return whether it came to a clean end; raises TimeoutError and OSError."""
        left = MESSAGE_SECONDS
        while True:
            began, pending = time.monotonic(), framer.pending
            async with asyncio.timeout(max(0.0, left) if pending else None):
                data = await reader.read(_CHUNK_BYTES)
            if not data:
                return True
            found = list(self._marked(framer.feed(data), peer))
            # How long we read nothing does not count.
            left = MESSAGE_SECONDS if found or not pending else left - (time.monotonic() - began)
            await self._spool.add(found)
            if framer.broken:
                self._say(f"{self}: {peer} sends what is no message of {self._kind.name}; it is cut off")
                return False

    def _marked(self, frames: Iterator[Frame], peer: str) -> Iterator[bytes]:
        for frame in frames:
            if frame.fault is None:
                yield frame.data
            else:
                self._say(f"{self}: {frame.fault}, from {peer}: {len(frame.data)} bytes")
                # At which no message begins, and no JSON.
                yield f"tlog-client relay: {frame.fault}, from {peer}: ".encode() + frame.data

    def _is_welcome(self, certificate: Any) -> bool:
        if self._tls is None or not self._tls.clients:
            return True
        names = (certificate or {}).get("subjectAltName", ())
        return any(kind == "DNS" and name in self._tls.clients for kind, name in names)


def _bind(address: Address) -> socket:
    try:
        listening = _bind_path(address) if isinstance(address, Path) else _bind_port(*address)
    except OSError as error:
        raise FetchError(f"cannot listen at {_name(address)}: {_reason(error)}") from None
    listening.setsockopt(SOL_SOCKET, SO_RCVBUF, _KERNEL_BYTES)
    listening.setblocking(False)
    return listening


def _bind_port(host: str, port: int) -> socket:
    return create_server((host, port), family=AF_INET6 if ":" in host else AF_INET, backlog=_BACKLOG)


def _bind_path(path: Path) -> socket:
    with socket(AF_UNIX) as probe:
        # What a relay has left that was killed; one that lives answers.
        if path.is_socket() and probe.connect_ex(str(path)):
            path.unlink()
    listening = socket(AF_UNIX)
    try:
        listening.bind(str(path))
        path.chmod(0o660)
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _name(address: Any) -> str:
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    return str(address) or "the socket"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()
