"""The canonical form of JSON events, fast for most, and never other than `tlog_core.encoding.canonicalize`.

An event whose members need no more than sorting is read by msgspec and written by orjson. Where those two and RFC 8785
could differ (`spec/decisions/0004-canonical-json.md`), the strict path decides.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import orjson

from tlog_core.encoding import MAX_JSON_DEPTH, canonicalize, is_shallow

_SORTED: Final = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_AS_READ: Final = orjson.OPT_STRICT_INTEGER
TOGETHER: Final = 16
"""How many events are best read at a time."""

_PLAIN: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,15})\.[0-9]{0,17}[1-9]")
_BEYOND: Final = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")


class Canonicalizer:
    """Turns JSON text into its RFC 8785 form. Threads share it."""

    def __init__(self) -> None:
        decoder = msgspec.json.Decoder(float_hook=_plain_float)
        self._decode = decoder.decode
        self._decode_lines = decoder.decode_lines

    def __call__(self, raw: bytes) -> bytes:
        """Return the canonical form of `raw`; raise MalformedError."""
        if _may_be_deep(raw):
            return canonicalize(raw)
        try:
            value: Any = self._decode(raw)
            written = orjson.dumps(value, option=_SORTED)
            if written == raw:
                # Not what was written: memory that need not be kept is still in the cache for the next event.
                written = raw
            # Unsorted, but otherwise as orjson writes it: no member came twice, and nothing is spelled in another way.
            elif orjson.dumps(value, option=_AS_READ) != raw:
                return canonicalize(raw)
        except (msgspec.MsgspecError, orjson.JSONEncodeError, UnicodeDecodeError, RecursionError):
            return canonicalize(raw)
        return canonicalize(raw) if _may_order_differ(written) else written

    def lines(self, lines: Sequence[bytes]) -> list[bytes]:
        """Return the canonical form of each line; raise MalformedError if there is none of one."""
        # So few at a time that what is read of them is still in the cache when it is written.
        return [
            form
            for place in range(0, len(lines), TOGETHER)
            for form in self._together(lines[place : place + TOGETHER])[0]
        ]

    def read(self, lines: Sequence[bytes]) -> Iterable[tuple[bytes, Any]]:
        """Return the canonical form of each of some `TOGETHER` lines, and its value; raise MalformedError."""
        forms, values = self._together(lines)
        return zip(forms, map(msgspec.json.decode, forms) if values is None else values, strict=True)

    def _together(self, lines: Sequence[bytes]) -> tuple[Sequence[bytes], Sequence[Any] | None]:
        """Return the same as one by one, mostly by a few calls for all, and the values if they were read."""
        joined = b",".join(lines)
        try:
            values = self._decode_lines(b"\n".join(lines))
            # A line break within a value would stand where this has a comma too many, so each line is one value.
            if len(values) == len(lines) and not any(map(_may_be_deep, lines)) and not _may_order_differ(joined):
                if orjson.dumps(values, option=_SORTED)[1:-1] == joined:
                    return lines, values
                if orjson.dumps(values, option=_AS_READ)[1:-1] == joined:
                    return [orjson.dumps(value, option=_SORTED) for value in values], values
        except (msgspec.MsgspecError, orjson.JSONEncodeError, UnicodeDecodeError, RecursionError):
            pass
        return [self(line) for line in lines], None


def _plain_float(text: str) -> float:
    # RFC 8785 writes doubles as ECMAScript does, and orjson does not where there is an exponent, or no fraction. If it
    # writes such a text as this again, that is the shortest for its double, and so that of both.
    if _PLAIN.fullmatch(text) is None:
        raise ValueError
    return float(text)


def _may_be_deep(raw: bytes) -> bool:
    # Without so many brackets it cannot be, and mostly is not with more: attributes of OpenTelemetry have many.
    return raw.count(b"{") + raw.count(b"[") > MAX_JSON_DEPTH and not is_shallow(raw, MAX_JSON_DEPTH)


def _may_order_differ(written: bytes) -> bool:
    # orjson sorts by code point and RFC 8785 by UTF-16. They differ only between characters from U+E000 to U+FFFF,
    # which begin with EE or EF in UTF-8, and those beyond, which begin with F0 to F4.
    return (
        not written.isascii()
        and (b"\xee" in written or b"\xef" in written)
        and any(lead in written for lead in _BEYOND)
    )
