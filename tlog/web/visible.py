"""Characters that show nothing, or change how others are shown, made visible (spec/pages.md)."""

import re
import unicodedata
from typing import Final

# Controls, format characters, surrogates, what is unassigned or private, separators of lines and paragraphs.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})
_PLAIN: Final = re.compile(r"[ -~]*")


def visible(text: str, keep: str = "") -> str:
    """Return text with each such character as its code point in brackets, but for those to `keep`."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(one if one in keep or unicodedata.category(one) not in _HIDDEN else _named(one) for one in text)


def _named(character: str) -> str:
    return f"[U+{ord(character):04X}]"
