"""The canonical form of JSON events, fast for most, and never other than `tlog_core.encoding.canonicalize`.

An event whose members need no more than sorting is read by msgspec and written by orjson. Where those two and RFC 8785
could differ (`spec/decisions/0004-canonical-json.md`), the strict path decides.
"""

from typing import Any, Final, NoReturn

import msgspec
import orjson

from tlog_core.encoding import MAX_JSON_DEPTH, canonicalize

_SORTED: Final = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_AS_READ: Final = orjson.OPT_STRICT_INTEGER
_BEYOND: Final = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")


class Canonicalizer:
    """Turns JSON text into its RFC 8785 form. Threads share it."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(float_hook=_refuse_float).decode

    def __call__(self, raw: bytes) -> bytes:
        """Return the canonical form of `raw`; raise MalformedError."""
        # One function, without another call, as a batch has thousands. Without so many brackets it cannot be too deep.
        if raw.count(b"{") + raw.count(b"[") > MAX_JSON_DEPTH:
            return canonicalize(raw)
        try:
            value: Any = self._decode(raw)
            written = orjson.dumps(value, option=_SORTED)
            # Unsorted, but otherwise as orjson writes it: no member came twice, and nothing is spelled in another way.
            if written != raw and orjson.dumps(value, option=_AS_READ) != raw:
                return canonicalize(raw)
        except (msgspec.MsgspecError, orjson.JSONEncodeError, UnicodeDecodeError, RecursionError):
            return canonicalize(raw)
        return written if written.isascii() or not _may_order_differ(written) else canonicalize(raw)


def _refuse_float(_text: str) -> NoReturn:
    # RFC 8785 writes doubles as ECMAScript does, and orjson does not.
    raise ValueError


def _may_order_differ(written: bytes) -> bool:
    # orjson sorts by code point and RFC 8785 by UTF-16. They differ only between characters from U+E000 to U+FFFF,
    # which begin with EE or EF in UTF-8, and those beyond, which begin with F0 to F4.
    return (b"\xee" in written or b"\xef" in written) and any(lead in written for lead in _BEYOND)
