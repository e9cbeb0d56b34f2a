"""Messages in a stream of bytes: counted, or one a line (RFC 6587). Nothing of the stream is left out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

NO_END: Final = "a message whose end is missing"
NO_BEGINNING: Final = "bytes at which no message begins"

_COUNT: Final = re.compile(rb"([1-9][0-9]{0,8}) ")
_COUNT_BEGUN: Final = re.compile(rb"[1-9][0-9]{0,8}")
# Python's SysLogHandler ends messages with a NUL. What is one byte alone is found in a tenth of the time.
_LF: Final = re.compile(rb"\n")
_LF_OR_NUL: Final = re.compile(rb"[\n\0]")


@dataclass(frozen=True, slots=True)
class Frame:
    """A message, or what there is of one, and then what it is instead of a whole one."""

    data: bytes
    fault: str | None = None


class Lines:
    """Finds lines, which end with LF, CR LF or NUL. One that is longer than the limit in bytes comes in parts."""

    broken = False

    def __init__(self, limit: int) -> None:
        """Begin with a line."""
        self._limit = limit
        self._held = bytearray()
        self._searched = 0
        self._parts = 0

    @property
    def pending(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._held or self._parts)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the lines that end within these bytes, which follow those before."""
        self._held += data
        start = 0
        for end in (_LF_OR_NUL if b"\0" in data else _LF).finditer(self._held, self._searched):
            line = bytes(self._held[start : end.start()])
            yield from self._line(line.removesuffix(b"\r") if end[0] == b"\n" else line, last=True)
            start = end.end()
        del self._held[:start]
        while len(self._held) > self._limit:
            yield from self._line(bytes(self._held[: self._limit]), last=False)
            del self._held[: self._limit]
        self._searched = len(self._held)

    def end(self, *, clean: bool) -> Iterator[Frame]:
        """Yield what is left where the stream ends: a line, if that is a clean end."""
        held, self._held = bytes(self._held), bytearray()
        if clean or self._parts:
            yield from self._line(held, last=clean)
        elif held:
            yield Frame(held, NO_END)

    def _line(self, data: bytes, *, last: bool) -> Iterator[Frame]:
        if not last or self._parts:
            self._parts += 1
            yield Frame(data, _part(self._parts, last))
        elif data:
            yield Frame(data)
        if last:
            self._parts = 0


class Counted:
    """Finds messages, each behind its length in bytes and a space; line breaks between two are passed over."""

    def __init__(self, limit: int) -> None:
        """Begin with a length. A message that is longer than the limit in bytes comes in parts."""
        self._limit = limit
        self._held = bytearray()
        self._left = 0
        self._parts = 0
        self.broken = False

    @property
    def pending(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._held or self._left)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the messages that end within these bytes, which follow those before; none once it is `broken`."""
        self._held += data
        while not self.broken and (self._left or self._begin()):
            piece = min(self._left, self._limit)
            if len(self._held) < piece:
                break
            yield self._take(piece)

    def end(self) -> Iterator[Frame]:
        """Yield what is left where the stream ends, which is no message."""
        if self.pending:
            yield Frame(bytes(self._held), NO_END if self._left else NO_BEGINNING)
        self._held.clear()
        self._left = 0

    def _begin(self) -> bool:
        while self._held.startswith((b"\n", b"\r")):
            del self._held[:1]
        count = _COUNT.match(self._held)
        if count is None:
            self.broken = bool(self._held) and _COUNT_BEGUN.fullmatch(self._held) is None
            return False
        self._left = int(count[1])
        length = count.end()
        # It holds the bytes, which could not be taken away.
        del count
        del self._held[:length]
        return True

    def _take(self, length: int) -> Frame:
        data = bytes(self._held[:length])
        del self._held[:length]
        self._left -= length
        if not self._left and not self._parts:
            return Frame(data)
        self._parts += 1
        frame = Frame(data, _part(self._parts, not self._left))
        self._parts = self._parts if self._left else 0
        return frame


class Syslog:
    """Finds messages of syslog: counted, or lines, as the first bytes say (RFC 6587 section 3.4)."""

    def __init__(self, limit: int) -> None:
        """Begin before the first byte. A message that is longer than the limit in bytes comes in parts."""
        self._limit = limit
        self._first = b""
        self._found: Lines | Counted | None = None

    @property
    def pending(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._first) if self._found is None else self._found.pending

    @property
    def broken(self) -> bool:
        """Whether there is something at which no message can begin, so that nothing behind it can be found."""
        return self._found is not None and self._found.broken

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the messages that end within these bytes, which follow those before."""
        if self._found is None:
            self._first += data
            if _COUNT_BEGUN.fullmatch(self._first) is not None or not self._first:
                return
            self._found = (Counted if _COUNT.match(self._first) else Lines)(self._limit)
            data, self._first = self._first, b""
        yield from self._found.feed(data)

    def end(self, *, clean: bool) -> Iterator[Frame]:
        """Yield what is left where the stream ends."""
        if self._found is None:
            self._found = Lines(self._limit)
            yield from self._found.feed(self._first)
        yield from self._found.end(clean=clean) if isinstance(self._found, Lines) else self._found.end()


def _part(number: int, last: bool) -> str:
    return f"{'the last part' if last else 'part'} {number} of a message that is too long"
