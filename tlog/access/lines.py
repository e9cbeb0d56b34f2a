"""The lines of a TOML document on which its tables and members stand, which `tomllib` does not tell.

Only strings, comments and brackets are read here, so as to cut the document into statements; what a statement says,
`tomllib` is asked. The documents are those that it accepted, but for `has_long_key`.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Final

_MAX_DOTS: Final = 8

# TOML 1.0.0, "String" and "Comment". Possessive, and content with what does not end, so that no document makes it slow.
_OPAQUE: Final = (
    r'"""(?:[^"\\]++|\\.|"(?!""))*+"{0,5}'
    r"|'''(?:[^']++|'(?!''))*+'{0,5}"
    r'|"(?:[^"\\\n]++|\\.)*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+"
)
_TOKEN: Final = re.compile(_OPAQUE + r"|[\[\]{}\n]", re.DOTALL)
_STRIP: Final = re.compile(_OPAQUE, re.DOTALL)


def has_long_key(text: str) -> bool:
    """Tell whether a line may have a key of very many parts, over which `tomllib` would take time by their square."""
    return any(line.count(".") > _MAX_DOTS for line in _STRIP.sub("", text).split("\n"))


def header_lines(text: str, table: str) -> list[int]:
    """Return the line of each `[[table]]`, counted from 1."""
    return [line for line, statement in _statements(text) if _is_header(statement, table)]


def member_line(text: str, member: str, table: str | None = None, number: int = 0) -> int:
    """Return the line of a member of the `[[table]]` of this number, or of the document; else of the header, else 1.

    Lines are counted from 1, tables from 0.
    """
    found, seen, at_home = 0, -1, table is None
    for line, statement in _statements(text):
        if table is not None and _is_header(statement, table):
            seen += 1
            at_home = seen == number
            found = line if at_home else found
            continue
        content = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            # [table.member], or for the document [member].
            at_home = False
            content = content if table is None else _inner(content, table, seen == number)
            if member in content:
                return line
        elif at_home and member in content:
            return line
    return found or (1 if table is None else member_line(text, table))


def _inner(content: dict[str, object], table: str, is_ours: bool) -> dict[str, object]:
    inner = content.get(table)
    return inner if is_ours and isinstance(inner, dict) else {}


def _is_header(statement: str, table: str) -> bool:
    return statement.lstrip().startswith("[[") and isinstance(tomllib.loads(statement).get(table), list)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each statement with the line on which it begins. Within brackets and strings a newline ends nothing."""
    line, start, depth = 1, 0, 0
    for token in _TOKEN.finditer(text + "\n"):
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
        elif token[0] == "\n" and depth == 0:
            statement = text[start : token.end()]
            if not statement.isspace():
                yield line, statement
            line += statement.count("\n")
            start = token.end()
