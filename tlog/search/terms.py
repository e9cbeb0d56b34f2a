"""Terms: what an event is found by, its fields and its words, each as one word of a full-text index."""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final
from unicodedata import normalize

from tlog.formats.known import format_of
from tlog_core.errors import MalformedError

FIELDS: Final = ("actor", "action", "target", "outcome", "source")
MAX_VALUE: Final = 1_024

_WORD: Final = re.compile(r"\w+")
_MAX_WORD: Final = 128
_MAX_TEXT: Final = 65_536
_OUTCOMES: Final = ("success", "failure")
_ANYTHING: Final = "*"


@dataclass(frozen=True, slots=True)
class Terms:
    """What an event is found by. `time` is what it says itself, in milliseconds, or None."""

    time: int | None = None
    words: Set[str] = frozenset()


NO_TERMS: Final = Terms()
"""Those of a payload that is no event."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A word that an event must have, or one that begins with it."""

    word: str
    is_prefix: bool = False

    def is_in(self, terms: Terms) -> bool:
        """Tell whether an event has it."""
        if self.is_prefix:
            return any(word.startswith(self.word) for word in terms.words)
        return self.word in terms.words


def terms_of(event: Any) -> Terms:
    """Return what an event, a JSON value, is found by."""
    fields = format_of(event).fields(event)
    words = _words(" ".join(_text_in(event)))
    for name in FIELDS:
        value = getattr(fields, name)
        if value is not None:
            words |= {_field(name), _field(name, value)}
    return Terms(fields.time, words)


def wanted(given: Mapping[str, str]) -> list[Wanted]:
    """Return what an event must have to be found by these fields, and words under `q`; MalformedError."""
    found = [_wanted_field(name, given[name]) for name in FIELDS if name in given]
    if "q" in given:
        words = _words(_checked("q", given["q"]))
        if not words:
            raise MalformedError("q has no word: letters or digits to look for")
        found += [Wanted(word) for word in sorted(words)]
    return found


def _wanted_field(name: str, value: str) -> Wanted:
    if name == "outcome" and value not in _OUTCOMES:
        raise MalformedError("outcome is success or failure")
    if _checked(name, value) == _ANYTHING:
        return Wanted(_field(name))
    return Wanted(_field(name, value.removesuffix(_ANYTHING)), is_prefix=value.endswith(_ANYTHING))


def _checked(name: str, value: str) -> str:
    if not 1 <= len(value) <= MAX_VALUE:
        raise MalformedError(f"{name} has 1 to {MAX_VALUE} characters; a longer field is found by how it begins, and *")
    return value


def _field(name: str, value: str = "") -> str:
    # In hex, one value is one word, whatever is in it; by the `=` it is none of an event's own.
    return f"{name}={value.encode().hex()}"


def _words(text: str) -> set[str]:
    return {word[:_MAX_WORD] for word in _WORD.findall(normalize("NFC", text).casefold())}


def _text_in(event: Any) -> Iterator[str]:
    left = _MAX_TEXT
    for text in _texts(event):
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
