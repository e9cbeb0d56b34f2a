"""How a payload looks on a page: JSON by lines, text as text, all else in hex (spec/pages.md, "Entries")."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from markupsafe import Markup, escape

from tlog.store.codec import Payload
from tlog.web.visible import visible
from tlog_core.receipt import JSON_TYPE

_MAX_INDENTED: Final = 2 << 20
_MAX_HEX: Final = 4096
_HEX_WIDTH: Final = 8
_MAX_LINE: Final = 200
_MAX_RUN: Final = 4096

# Tokens of JSON that is well-formed, though it may have been cut.
_TOKEN: Final = re.compile(r'\{\}|\[\]|[{}\[\],:]|"(?:[^"\\]++|\\.)*+"?|[^"{}\[\],:]+', re.DOTALL)
_LINE: Final = re.compile(r"\n|[^\n]+")
# The blocks of characters that are written from right to left.
_FROM_RIGHT: Final = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff]")


@dataclass(frozen=True, slots=True)
class Shown:
    """A payload as a page prints it: as `json`, `text` or `hex`, whether that is all of it, and in lines of its own."""

    kind: str
    text: Markup
    is_whole: bool = True
    is_indented: bool = True


def shown(payload: Payload) -> Shown:
    """Return how a page prints a payload."""
    if payload.type == JSON_TYPE:
        text = payload.data.decode()
        indented = _indented(text, _MAX_INDENTED - len(payload.data))
        return Shown(
            "json", _isolated(_tokens(text)) if indented is None else indented, is_indented=indented is not None
        )
    if (written := _text(payload)) is not None:
        return Shown("text", _isolated(_LINE.findall(written)))
    return Shown("hex", Markup("{}").format(_hex(payload.data[:_MAX_HEX])), len(payload.data) <= _MAX_HEX)


def beginning(payload: Payload) -> Markup:
    """Return one line that says how a payload begins, or how large it is."""
    if payload.type == JSON_TYPE:
        return _isolated(_tokens(payload.data[: 4 * _MAX_LINE].decode("utf-8", "ignore")[:_MAX_LINE]))
    if (text := _text(payload)) is not None:
        return _isolated([text.strip().partition("\n")[0][:_MAX_LINE]])
    return Markup("{} of {:,} bytes").format(visible(payload.type), len(payload.data))


def _text(payload: Payload) -> str | None:
    try:
        return payload.data.decode() if payload.type.lower().startswith("text/") else None
    except UnicodeDecodeError:
        return None


def _hex(data: bytes) -> str:
    return "\n".join(_hex_line(place, data[place : place + _HEX_WIDTH]) for place in range(0, len(data), _HEX_WIDTH))


def _hex_line(place: int, part: bytes) -> str:
    letters = "".join(chr(one) if 0x20 <= one < 0x7F else "·" for one in part)
    return f"{place:06x}  {part.hex(' '):<{3 * _HEX_WIDTH - 1}}  {letters}"


def _tokens(text: str) -> Iterator[str]:
    return (found[0] for found in _TOKEN.finditer(text))


def _indented(text: str, room: int) -> Markup | None:
    """Return JSON with a line for each member and element; None if that takes more than so many characters to do."""
    lines, depth = [], 0
    for token in _tokens(text):
        depth += (token in ("{", "[")) - (token in ("}", "]"))
        line = _spaced(token, depth)
        room -= len(line) - len(token)
        if room < 0:
            return None
        lines.append(line)
    return _isolated(lines)


def _spaced(token: str, depth: int) -> str:
    if token in ("{", "[", ","):
        return f"{token}\n{'  ' * depth}"
    if token in ("}", "]"):
        return f"\n{'  ' * depth}{token}"
    return ": " if token == ":" else token


def _isolated(parts: Iterable[str]) -> Markup:
    """Return parts of a text, of which none that runs from right to left takes others along."""
    # There may be hundreds of thousands: to format each as markup takes ten times as long.
    return Markup("".join(f"<{kind}>{escape(run)}</{kind}>" for kind, run in _runs(parts)))  # noqa: S704 - escaped


def _runs(parts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the elements that a text is put into, and their parts of it: browsers lay each out in quadratic time."""
    shown = (visible(part, keep="\n") for part in parts)
    for from_right, together in groupby(shown, lambda part: _FROM_RIGHT.search(part) is not None):
        for text in together if from_right else ["".join(together)]:
            for place in range(0, len(text), _MAX_RUN):
                yield "bdi" if from_right else "span", text[place : place + _MAX_RUN]
