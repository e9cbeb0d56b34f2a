"""Characters that show nothing, or change how others are shown, made visible (spec/pages.md)."""

import re
import unicodedata
from typing import Final

# Controls, format characters, surrogates, what is unassigned or private, separators of lines and paragraphs.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})
_NOT_PLAIN: Final = re.compile(r"[^ -~]")


def visible(text: str, keep: str = "") -> str:
    """Return text with each such character as its code point in brackets, but for those to `keep`."""
    return _NOT_PLAIN.sub(lambda found: found[0] if found[0] in keep else _shown(found[0]), text)


def _shown(character: str) -> str:
    is_hidden = unicodedata.category(character) in _HIDDEN
    return f"[U+{ord(character):04X}]" if is_hidden else character
