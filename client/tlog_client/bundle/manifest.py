"""The manifest of a bundle: what is in it, and what the exporter says of it (`spec/bundle.md`, "Members")."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tlog_client.bundle.archive import Member
from tlog_client.bundle.part import ACCESS, CONTROL
from tlog_core.encoding import canonical_json, number_member, parse_json, text_member
from tlog_core.errors import MalformedError

NAME: Final = "manifest.json"
POLICY: Final = "trust.policy"
PAGE: Final = "verify.html"
MAX_MANIFEST_BYTES: Final = 1 << 20
MAX_WORDS: Final = 255
VERSION: Final = 1
SEGMENTS: Final = "/segments/"
"""What stands in an origin between the name of the log and that of the segment."""

_COMMENT: Final = "tlog/bundle/v1 "
_TERMS: Final = frozenset(("action", "actor", "before", "outcome", "q", "since", "source", "start", "target", "until"))


@dataclass(frozen=True, slots=True)
class Listed:
    """A member as the manifest has it: its name, the SHA-256 of its bytes in hex, and their number."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was asked for, by whom, when in milliseconds, of which log and with what; and the other members.

    `asked` is a range of indexes, or the parameters of a search. `reserved` says of `control` and `access` which of
    their entries were looked through for what is about the segment, up to the end of each; None if none were.
    """

    asked: range | Mapping[str, str | int]
    at: int
    by: str
    files: tuple[Listed, ...]
    origin: str
    reserved: Mapping[str, range | None]
    tool: str

    def __bytes__(self) -> bytes:
        """Return the manifest as it stands in a bundle; MalformedError for values that none has."""
        asked = _members(self.asked) if isinstance(self.asked, range) else {"search": dict(self.asked)}
        files = [{"name": one.name, "sha256": one.sha256, "size": one.size} for one in self.files]
        members = {"asked": asked, "at": self.at, "by": self.by, "files": files, "origin": self.origin}
        reserved = {name: None if one is None else _members(one) for name, one in self.reserved.items()}
        return canonical_json({**members, "reserved": reserved, "tool": self.tool, "v": VERSION})


def parse_manifest(raw: bytes) -> Manifest:
    """Return the manifest in `raw`; raise MalformedError unless it is exactly a manifest's only form."""
    if len(raw) > MAX_MANIFEST_BYTES:
        raise MalformedError(f"a manifest has at most {MAX_MANIFEST_BYTES} bytes")
    members = parse_json(raw)
    if not isinstance(members, dict) or members.get("v") != VERSION:
        raise MalformedError(f"not a manifest of version {VERSION}")
    files = members.get("files")
    found = Manifest(
        asked=_asked(members.get("asked")),
        at=number_member(members, "at"),
        by=_words(members, "by"),
        files=tuple(map(_listed, files if isinstance(files, list) else [])),
        origin=text_member(members, "origin"),
        reserved=_reserved(members.get("reserved"), text_member(members, "origin")),
        tool=_words(members, "tool"),
    )
    if bytes(found) != raw:
        raise MalformedError("the manifest is not canonical, or has members that no manifest has")
    return found


def reserved_beside(origin: str) -> list[str]:
    """Return the names of the reserved segments beside a segment, which may be one of them itself."""
    return [name for name in (CONTROL, ACCESS) if not origin.endswith(f"{SEGMENTS}{name}")]


def comment_of(manifest: bytes) -> str:
    """Return the comment of the zip that has this manifest."""
    return _COMMENT + hashlib.sha256(manifest).hexdigest()


def listed(members: Iterable[Member]) -> tuple[Listed, ...]:
    """Return members as the manifest has them."""
    return tuple(Listed(one.name, hashlib.sha256(one.content).hexdigest(), len(one.content)) for one in members)


def _asked(value: Any) -> range | Mapping[str, str | int]:
    if isinstance(value, dict) and "search" in value:
        terms = value["search"]
        if not isinstance(terms, dict) or not terms or not terms.keys() <= _TERMS:
            raise MalformedError("what was searched for is none of the parameters of a search")
        if not all(type(one) in (str, int) for one in terms.values()):
            raise MalformedError("a parameter of the search is neither a text nor a number")
        return terms
    found = _range(value)
    if not found:
        raise MalformedError("a range has at least one entry")
    return found


def _reserved(value: Any, origin: str) -> Mapping[str, range | None]:
    due = reserved_beside(origin)
    if not isinstance(value, dict) or sorted(value) != sorted(due):
        raise MalformedError(f"what was looked through is not said of {' and '.join(due)}")
    return {name: None if one is None else _range(one) for name, one in value.items()}


def _range(value: Any) -> range:
    members = value if isinstance(value, dict) else {}
    found = range(number_member(members, "start"), number_member(members, "end"))
    if found.start > found.stop:
        raise MalformedError("a range ends before it starts")
    return found


def _members(span: range) -> dict[str, int]:
    return {"end": span.stop, "start": span.start}


def _listed(value: Any) -> Listed:
    members = value if isinstance(value, dict) else {}
    return Listed(text_member(members, "name"), text_member(members, "sha256"), number_member(members, "size"))


def _words(members: dict[str, Any], name: str) -> str:
    words = text_member(members, name)
    if len(words) > MAX_WORDS:
        raise MalformedError(f"{name} has at most {MAX_WORDS} characters")
    return words
