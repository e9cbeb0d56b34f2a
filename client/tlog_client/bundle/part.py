"""A part of a bundle: entries of one segment with payloads, openings, checkpoint and proof, as five members."""

import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tlog_client.answers import OpenedEntry, verify_opened
from tlog_client.bundle.archive import Member, member
from tlog_client.bundle.place import at
from tlog_core.commitment import OPENING_BYTES, Opening
from tlog_core.encoding import (
    canonical_json,
    decode_base64,
    decode_text,
    encode_base64,
    number_member,
    parse_json,
    text_member,
)
from tlog_core.entry import parse_entry
from tlog_core.errors import MalformedError, ProofError
from tlog_core.merkle import HASH_BYTES, Hash, leaf_hash
from tlog_core.proof import parse_hashes
from tlog_core.receipt import JSON_TYPE

SEGMENT: Final = "segment"
CONTROL: Final = "control"
ACCESS: Final = "access"
MAX_ENTRIES: Final = 1_000_000

ENTRIES: Final = "entries.ndjson"
EVENTS: Final = "events.ndjson"
OPENINGS: Final = "openings.ndjson"
FILES: Final = ("checkpoint", "proof", ENTRIES, EVENTS, OPENINGS)

_decode: Final = binascii.a2b_base64

_LINE: Final = re.compile(
    rb'\{"index":(0|[1-9][0-9]{0,14}),"leaf":"([+/-9A-Za-z]{42}[AEIMQUYcgkosw048]=)",'
    rb'"opening":"([+/-9A-Za-z]{42}[AEIMQUYcgkosw048]=)","payload_type":"([ !#-\[\]-~]+)"\}'
)
"""Nearly all lines of openings: with types in which nothing is escaped."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of openings: what goes with the entry and the payload on the lines of the same number."""

    index: int
    leaf: Hash
    opening: Opening
    payload_type: str

    def __bytes__(self) -> bytes:
        """Return the line without its newline."""
        members = {"index": self.index, "leaf": encode_base64(self.leaf), "opening": encode_base64(self.opening)}
        return canonical_json({**members, "payload_type": self.payload_type})


@dataclass(frozen=True, slots=True)
class Part:
    """What is in the members of a part, not verified."""

    name: str
    checkpoint: bytes
    proof: bytes
    entries: bytes
    events: bytes
    openings: bytes

    def members(self) -> list[Member]:
        """Return the members of a bundle that it is."""
        contents = (self.checkpoint, self.proof, self.entries, self.events, self.openings)
        return [member(f"{self.name}/{file}", content) for file, content in zip(FILES, contents, strict=True)]

    def hashes(self) -> tuple[Hash, ...]:
        """Return the hashes of the subset proof; raise MalformedError."""
        return parse_hashes(decode_text(line, "a hash") for line in _lines(self.proof))

    def opened(self, origin: str, blame: Callable[[str], str]) -> Iterator[tuple[OpenedEntry, Hash]]:
        """Yield each entry, after checking that it is of this log and commits to its payload, with its leaf hash.

        Raises TlogError with its place: the line, and the member that `blame` names, given that where it came up.
        """
        before = -1
        with at(blame(OPENINGS)):
            lines = _lines(self.openings)
            if not 1 <= len(lines) <= MAX_ENTRIES:
                raise MalformedError(f"a part of a bundle has 1 to {MAX_ENTRIES} entries")
        events, entries = iter(self.events.split(b"\n")), iter(self.entries.split(b"\n"))
        for number, raw in enumerate(lines, 1):
            with at(f"{blame(OPENINGS)}, line {number}"):
                line = _parse_line(raw)
            with at(f"{blame(ENTRIES)}, line {number}, entry {line.index}"):
                opened = _opened(line, next(entries, b""), next(events, b""))
                verify_opened(opened, origin=origin)
                if opened.entry.time < before:
                    raise ProofError("it is older than the entry before it")
                before = opened.entry.time
            yield opened, line.leaf
        for file, rest in ((ENTRIES, entries), (EVENTS, events)):
            if list(rest) != [b""]:
                with at(blame(file)):
                    raise MalformedError("it has not as many lines as there are openings")


def make_part(name: str, checkpoint: bytes, proof: Sequence[Hash], opened: Sequence[OpenedEntry]) -> Part:
    """Return the part of these entries under a signed checkpoint; MalformedError if there are none, or too many."""
    if not 1 <= len(opened) <= MAX_ENTRIES:
        raise MalformedError(f"a part of a bundle has 1 to {MAX_ENTRIES} entries, not {len(opened)}")
    return Part(
        name,
        checkpoint,
        _join(encode_base64(one).encode() for one in proof),
        _join(bytes(one.entry) for one in opened),
        _join(one.payload if one.payload_type == JSON_TYPE else b'"%b"' % _encode(one.payload) for one in opened),
        _join(bytes(Line(one.index, leaf_hash(bytes(one.entry)), one.opening, one.payload_type)) for one in opened),
    )


def verify_range(indexes: Sequence[int], asked: range) -> None:
    """Check that all entries of a range are there; raise ProofError."""
    missing = next((due for due, found in zip(asked, indexes, strict=False) if due != found), None)
    if missing is not None or len(indexes) != len(asked):
        place = asked.start + min(len(indexes), len(asked)) if missing is None else missing
        raise ProofError(f"of the range from {asked.start} to before {asked.stop} entry {place} is not where it is due")


def _opened(line: Line, entry: bytes, event: bytes) -> OpenedEntry:
    if leaf_hash(entry) != line.leaf:
        raise ProofError("the entry has not the leaf hash that stands beside it")
    return OpenedEntry(line.index, parse_entry(entry), line.payload_type, line.opening, _payload(event, line))


def _payload(event: bytes, line: Line) -> bytes:
    if line.payload_type == JSON_TYPE:
        return event
    text = decode_text(event, "a payload in base64")
    if len(text) < 2 or text[0] + text[-1] != '""':
        raise MalformedError("a payload that is not JSON is in base64, in quotation marks")
    return decode_base64(text[1:-1])


def _parse_line(raw: bytes) -> Line:
    simple = _LINE.fullmatch(raw)
    if simple is not None:
        index, leaf, opening, kind = simple.groups()
        return Line(int(index), Hash(_decode(leaf)), Opening(_decode(opening)), kind.decode())
    members = parse_json(raw)
    if not isinstance(members, dict):
        raise MalformedError("not an object")
    line = Line(
        number_member(members, "index"),
        Hash(decode_base64(text_member(members, "leaf"), length=HASH_BYTES)),
        Opening(decode_base64(text_member(members, "opening"), length=OPENING_BYTES)),
        text_member(members, "payload_type"),
    )
    if bytes(line) != raw:
        raise MalformedError("the line is not canonical, or has members that no line has")
    return line


def _encode(payload: bytes) -> bytes:
    return binascii.b2a_base64(payload, newline=False)


def _join(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _lines(raw: bytes) -> list[bytes]:
    lines = raw.split(b"\n")
    if lines.pop():
        raise MalformedError("the last line does not end in a newline")
    return lines
