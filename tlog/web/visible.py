"""Characters that show nothing, or change how others are shown, made visible (spec/pages.md)."""

import re
import unicodedata
from typing import Final

# Controls, format characters, surrogates, what is unassigned or private, separators of lines and paragraphs.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})
# Of letters, marks and symbols: what Unicode has a program show nothing for, variation selectors, and an empty pattern.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_NOT_PLAIN: Final = re.compile(r"[^ -~]")


def visible(text: str, keep: str = "") -> str:
    """Return text with each such character as its code point in brackets, but for those to `keep`."""
    return _NOT_PLAIN.sub(lambda found: found[0] if found[0] in keep else _shown(found[0]), text)


def _shown(character: str) -> str:
    is_hidden = unicodedata.category(character) in _HIDDEN or _UNSEEN.match(character) is not None
    return f"[U+{ord(character):04X}]" if is_hidden else character
