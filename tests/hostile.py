"""Hostile requests, byte by byte as they are sent, and the same at random for as long as one likes."""

import random
import re
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from live import NDJSON, start
from tally import Tally

PATIENCE: Final = 10.0
"""Within how many seconds a connection is answered, whatever was sent."""

MOST_GROWTH: Final = 64 << 20
"""By how many bytes all workers together may grow under what is refused."""

JSON: Final = b"Content-Type: application/json"
LONG: Final = b"a" * 70_000
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) ")


@dataclass(frozen=True)
class Reply:
    """One answer: its status, its headers in lower case, and its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([line, *headers, b"", body])


def get(path: bytes = b"GET", *headers: bytes) -> bytes:
    return ask(b"GET %b HTTP/1.1" % path, b"Host: localhost", *headers)


def post(body: bytes, *headers: bytes) -> bytes:
    return ask(b"POST POST HTTP/1.1", b"Host: localhost", JSON, *headers, body=body)


def sized(length: bytes, body: bytes = b"1") -> bytes:
    return post(body, b"Content-Length: " + length)


def chunked(body: bytes, coding: bytes = b"chunked", *headers: bytes) -> bytes:
    return post(body, b"Transfer-Encoding: " + coding, *headers)


# GET and POST stand for paths: one that can be read, and one that takes a body.
LENGTHS: Final = {
    f"Content-Length {text.decode('latin-1')[:24]}": sized(text)
    for text in [
        b"+1",
        b"-1",
        b"0x1",
        b"",
        b"1 1",
        b"1,1",
        b"1;",
        b"\xd9\xa3",
        b"9" * 30,
        b"18446744073709551615",
        b"1_0",
    ]
} | {
    "two lengths that differ": post(b"12", b"Content-Length: 1", b"Content-Length: 2"),
    "a length of 2^63": sized(b"9223372036854775808"),
    "a length with a zero before it": sized(b"01"),
    "a length of 20 MB, and no more": sized(b"20000000"),
}
CODINGS: Final = {
    "both length and chunks": chunked(b"0\r\n\r\nG", b"chunked", b"Content-Length: 6"),
    "another coding": chunked(b"0\r\n\r\n", b"xchunked"),
    "identity": chunked(b"1", b"identity", b"Content-Length: 1"),
    "gzip below chunks": chunked(b"0\r\n\r\n", b"gzip, chunked"),
    "chunks that are not the last coding": chunked(b"0\r\n\r\n", b"chunked, gzip"),
    "a space before the colon": post(b"0\r\n\r\n", b"Transfer-Encoding : chunked"),
    "chunked in a mix of cases": chunked(b"1\r\n1\r\n0\r\n\r\n", b"cHuNkEd"),
    "a chunk whose size is none": chunked(b"zz\r\n1\r\n0\r\n\r\n"),
    "a chunk beyond all numbers": chunked(b"f" * 18 + b"\r\n1\r\n0\r\n\r\n"),
    "a chunk with a long extension": chunked(b"1;" + LONG + b"\r\n1\r\n0\r\n\r\n"),
    "long trailers": chunked(b"1\r\n1\r\n0\r\nX: " + LONG + b"\r\n\r\n"),
}
HEADS: Final = {
    "a header of 1 MB": get(b"GET", b"X: " + LONG * 15),
    "1,000 headers": get(b"GET", *(b"X%d: y" % number for number in range(1000))),
    "a path of 70 KB": get(b"/" + LONG),
    "a folded header": get(b"GET", b"X: a\r\n b"),
    "a header without a colon": get(b"GET", b"Xabc"),
    "a header whose name has a space": get(b"GET", b"X Y: z"),
    "NUL in a header": get(b"GET", b"X: a\0b"),
    "a lone CR in a header": get(b"GET", b"X: a\rb"),
    "an escape in a header": get(b"GET", b"X-Request-Id: a\x1b[31mb"),
    "NUL in a path": get(b"/healthz\0"),
    "Latin-1 in a path": get(b"/segments/\xe9"),
    "a space in a path": get(b"/a b"),
    "a method of no letters": ask(b"G@T GET HTTP/1.1", b"Host: localhost"),
    "HTTP/0.9": b"GET GET\r\n",
    "HTTP/1.2": ask(b"GET GET HTTP/1.2", b"Host: localhost"),
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "all bytes": bytes(range(256)) * 10,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"),
}
CORPUS: Final = {**LENGTHS, **CODINGS, **HEADS}


def talk(port: int, request: bytes, *, answers: int = 1, quiet: float = 2.0) -> bytes:
    """Return all that comes back to bytes; no more is sent once so many answers, or nothing for `quiet` seconds, came.

    TimeoutError if the connection is not closed soon after that. Who has seen enough may close before all was sent.
    """
    with socket.create_connection(("127.0.0.1", port), quiet) as connection:
        received = b""
        try:
            connection.sendall(request)
            while len(_split(received)[0]) < answers and (piece := connection.recv(65_536)):
                received += piece
        except TimeoutError:
            pass
        except OSError:
            return received
        return received + _rest(connection)


def _rest(connection: socket.socket) -> bytes:
    rest, end = b"", time.monotonic() + PATIENCE
    try:
        connection.shutdown(socket.SHUT_WR)
        while True:
            connection.settimeout(max(end - time.monotonic(), 0.001))
            if not (piece := connection.recv(65_536)):
                return rest
            rest += piece
    except TimeoutError:
        raise
    except OSError:
        return rest


def statuses(received: bytes) -> list[int]:
    """Return the statuses in what came back, of which the last answer may be cut off."""
    return [int(match[1]) for match in _STATUS.finditer(received)]


def replies(received: bytes) -> list[Reply]:
    """Return the answers in what came back, which must be nothing but answers, each whole."""
    found, rest = _split(received)
    assert not rest
    return found


def _split(received: bytes) -> tuple[list[Reply], bytes]:
    """Return the whole answers in what came back, and what is left."""
    found: list[Reply] = []
    while (match := _STATUS.match(received)) and b"\r\n\r\n" in received:
        head, _, rest = received.partition(b"\r\n\r\n")
        pairs = [line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:]]
        headers = {name.lower(): value for name, value in pairs}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            break
        if int(match[1]) != 100:
            found.append(Reply(int(match[1]), headers, rest[:length]))
        received = rest[length:]
    return found, received


def fill(request: bytes, get_path: bytes, post_path: bytes) -> bytes:
    """Put paths in the place of GET and POST."""
    return request.replace(b" GET", b" " + get_path).replace(b" POST", b" " + post_path)


def mangle(request: bytes, chance: random.Random) -> bytes:
    """Return a request with some of its bytes changed, left out, or doubled."""
    raw = bytearray(request[:100_000])
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(raw) + 1)
        end = start + chance.randrange(8)
        part = bytes(raw[start:end])
        raw[start:end] = chance.choice([b"", part * 2, chance.randbytes(1), b"\r\n", b"\0", b"%00", b"/../", b"9" * 20])
    return bytes(raw)


def throw(port: int, get_path: bytes, post_path: bytes, chance: random.Random) -> str | None:
    """Send a request of the corpus with some bytes changed; return what is wrong with the answer, if anything."""
    request = fill(mangle(chance.choice([*CORPUS.values()]), chance), get_path, post_path)
    try:
        found = [status for status in statuses(talk(port, request, quiet=0.1)) if status >= 500]
    except TimeoutError:
        return f"no end of the answer to {request[:500]!r}"
    return f"{found} to {request[:500]!r}" if found else None


def run(seed: int, seconds: float) -> Tally:
    """Throw requests at a server for so long, as the seed draws them; at the end it is well, and hardly larger."""
    chance, end, found = random.Random(seed), time.monotonic() + seconds, list[str | None]()  # noqa: S311 - repeatable
    with tempfile.TemporaryDirectory() as folder:
        server = start(Path(folder) / "data")
        try:
            segment = server.create("victim")
            segment.append(b"1\n" * 300, NDJSON)
            before = server.memory()
            while time.monotonic() < end:
                found.append(throw(server.port, b"/segments/victim", b"/segments/victim/entries", chance))
            segment.append(b"1")
            grown = server.memory() - before
            found.append(f"the workers have grown by {grown} bytes" if grown > MOST_GROWTH else None)
        finally:
            server.kill()
    return Tally(len(found), [wrong for wrong in found if wrong])
