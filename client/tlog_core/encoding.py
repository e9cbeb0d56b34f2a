"""Text forms of bytes and numbers, as every C2SP format uses them, and the canonical form of JSON.

Each parser formats its result again and compares: whatever Python lets through beyond the specification is refused.
"""

import base64
import binascii
import json
import re
from typing import Any, Final, NoReturn

import rfc8785

from tlog_core.errors import MalformedError

MAX_INTEGER: Final = 2**63 - 1
"""The largest size, index or time that any of our formats carries."""

MAX_JSON_DEPTH: Final = 64
"""How deep arrays and objects may nest."""

MAX_JSON_INTEGER: Final = 2**53 - 1
"""The largest integer that RFC 8785 can write: beyond it two readers may see two numbers."""

# A value that is in itself is found before it is written: `_is_simple` comes to no end with it.
_write_simple: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":")
).encode

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")
# Strings are one token, so that brackets inside them do not count; an unterminated one runs to the end.
_JSON_NESTING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)

_BRACES: Final = bytes.maketrans(b"[]", b"{}")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def encode_base64(data: bytes) -> str:
    """Return `data` in the standard alphabet with padding (RFC 4648 section 4)."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode_base64(text: str, *, length: int | None = None) -> bytes:
    """Return the bytes of canonical base64 `text`; raise MalformedError for any other, or another length in bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise MalformedError("not base64") from None
    if encode_base64(data) != text:
        raise MalformedError("base64 is not canonical")
    if length is not None and len(data) != length:
        raise MalformedError(f"expected {length} bytes of base64, not {len(data)}")
    return data


def parse_decimal(text: str) -> int:
    """Return the number of an ASCII decimal: no sign, no leading zero, at most 2^63-1; raise MalformedError."""
    if _DECIMAL.fullmatch(text) is None or (number := int(text)) > MAX_INTEGER:
        raise MalformedError("expected a decimal number without sign or leading zeros, below 2^63")
    return number


def decode_text(raw: bytes, what: str) -> str:
    """Return the text of UTF-8 bytes; raise MalformedError, which names what they should be."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError(f"{what} is UTF-8") from None


def parse_json(raw: bytes, *, depth: int = MAX_JSON_DEPTH) -> Any:
    """Return the value of `raw`, which must be JSON that every reader understands alike; raise MalformedError.

    UTF-8 without a byte order mark; no duplicate keys, NaN, infinities or lone surrogates; nesting of at most `depth`,
    to be raised only where an event is itself a part of `raw`; every number has a canonical form that RFC 8785 can read
    back (I-JSON, RFC 7493).
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}; send JSON as UTF-8") from None
    if text.startswith("\ufeff"):
        raise MalformedError("starts with a byte order mark; send JSON without one")
    if not is_shallow(raw, depth):
        _check_depth(text, depth)
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse, parse_int=_integer, parse_float=_float
        )
    except json.JSONDecodeError as error:
        raise MalformedError(
            f"not JSON at line {error.lineno}, column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
        ) from None
    if "\\u" in text:
        _check_surrogates(value)
    return value


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 form of a value: the same bytes for the same JSON value, whoever writes it.

    Raises MalformedError for what has no such form: NaN, integers beyond 2^53-1, lone surrogates, foreign types.
    """
    return _canonical(value)[0]


def readable_json(value: Any) -> bytes:
    """Return the RFC 8785 form of a value, if `parse_json` takes that; otherwise raise MalformedError.

    What Python can hold and RFC 8785 write is more than that.
    """
    raw, is_simple = _canonical(value)
    # Without so many brackets a simple value cannot be too deep, which is all that could be wrong with it.
    if raw.count(b"{") + raw.count(b"[") > MAX_JSON_DEPTH or not is_simple:
        parse_json(raw)
    return raw


def _canonical(value: Any) -> tuple[bytes, bool]:
    """Return the RFC 8785 form of a value, and whether it is a simple one; raise MalformedError."""
    try:
        is_simple = _is_simple(value)
        return _write_simple(value).encode() if is_simple else rfc8785.dumps(value), is_simple
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise MalformedError(f"has no canonical form: {type(error).__name__}") from None


def _is_simple(value: Any) -> bool:
    # The standard library, which is in C, writes it as RFC 8785 does: it has no floats, and ASCII names only.
    kind = type(value)
    if kind is str:
        return True
    # A loop, in half the time that `all` and a generator take.
    if kind is dict:
        for name, member in value.items():
            if type(name) is not str or not name.isascii() or not _is_simple(member):
                return False
        return True
    if kind is list:
        return all(map(_is_simple, value))
    return value is None or kind is bool or (kind is int and abs(value) <= MAX_JSON_INTEGER)


def canonicalize(raw: bytes) -> bytes:
    """Return the RFC 8785 form of JSON text; raise MalformedError if it is not JSON as `parse_json` takes it."""
    return canonical_json(parse_json(raw))


def text_member(members: dict[str, Any], name: str) -> str:
    """Return the member of this name, which must be a string and not empty; raise MalformedError."""
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedError(f"{name} is not a string, or is empty")
    return value


def number_member(members: dict[str, Any], name: str) -> int:
    """Return the member of this name, which must be a whole number from 0 to 2^53-1; raise MalformedError."""
    value = members.get(name)
    if type(value) is not int or not 0 <= value <= MAX_JSON_INTEGER:
        raise MalformedError(f"{name} is not a whole number from 0 to 2^53-1")
    return value


def is_shallow(raw: bytes, most: int) -> bool:
    """Tell whether no array or object of JSON text nests deeper than so many."""
    # What `_check_depth` finds out, in a quarter of the time. No string ends in the quotation mark of an escape; and of
    # JSON nothing is left after the brackets with nothing in them were taken away as often as they may nest.
    outside = raw.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    brackets = b"".join(outside).translate(_BRACES, _NO_BRACKETS)
    for _ in range(most):
        if not brackets:
            break
        brackets = brackets.replace(b"{}", b"")
    return not brackets


def _check_depth(text: str, most: int) -> None:
    depth = 0
    for token in _JSON_NESTING.finditer(text):
        first = text[token.start()]
        depth += (first in "[{") - (first in "]}")
        if depth > most:
            raise MalformedError(
                f"nests deeper than {most} at character {token.start()}; flatten it or send it as text"
            )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedError("an object has two members of one name; keep one of them")
    return members


def _refuse(constant: str) -> NoReturn:
    raise MalformedError(f"{constant} is not JSON; send null or a string")


def _integer(text: str) -> int:
    # Python refuses to convert more than 4300 digits with an error of its own, so length is checked first.
    if len(text) > 17 or abs(number := int(text)) > MAX_JSON_INTEGER:
        raise MalformedError("an integer beyond 2^53-1; send it as a string")
    return number


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise MalformedError("a number beyond the range of a double; send it as a string")
    # RFC 8785 writes a double below 1e21 that is whole as an integer, which must then be readable as one.
    if MAX_JSON_INTEGER < abs(number) < 1e21:
        raise MalformedError("a whole number beyond 2^53-1; send it as a string")
    return number


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("a string has a lone surrogate; send text as UTF-8") from None
