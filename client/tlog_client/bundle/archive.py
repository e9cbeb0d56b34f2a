"""The zip of a bundle in its one form: members as they are, one behind the other (`spec/bundle.md`, "The zip")."""

import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tlog_client.bundle.place import at
from tlog_core.errors import MalformedError

MAX_BUNDLE_BYTES: Final = 512 << 20
MAX_NAME_BYTES: Final = 255
MAX_COMMENT_BYTES: Final = 0xFFFF
MAX_MEMBERS: Final = 18
"""As many as a bundle of three parts has: of more nobody is to read the headers first."""

_MAGIC: Final = b"PK\x03\x04"
_HEADER: Final = struct.Struct("<4sHHHHHIIIHH")
_ENTRY: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END: Final = struct.Struct("<4sHHHHIIH")
_VERSION: Final = 20
_DATE: Final = 33
_NAME: Final = re.compile(rb"(?:[a-z]+/)?[a-z]+(?:\.[a-z]+)?")
_HEADERS: Final = "the headers of the zip"
_DIRECTORY: Final = "the directory of the zip"


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a zip, and the CRC-32 that its header gives, which may be wrong."""

    name: str
    content: bytes
    crc: int


def member(name: str, content: bytes) -> Member:
    """Return a member with its right CRC-32."""
    return Member(name, content, zlib.crc32(content))


def format_archive(members: Sequence[Member], comment: str) -> bytes:
    """Return the zip of these members; raise MalformedError for one that is too large."""
    whole = b"".join([*(part for one in members for part in (_header(one), one.content)), _directory(members, comment)])
    if len(whole) > MAX_BUNDLE_BYTES:
        raise MalformedError(f"a bundle has at most {MAX_BUNDLE_BYTES} bytes, not {len(whole)}; export fewer entries")
    return whole


def parse_archive(raw: bytes) -> tuple[list[Member], str]:
    """Return the members and the comment of a zip; raise MalformedError, at its place, unless it has the one form.

    Contents are not compared with their CRC-32: `verify_crc`.
    """
    if len(raw) > MAX_BUNDLE_BYTES:
        raise MalformedError(f"a bundle has at most {MAX_BUNDLE_BYTES} bytes")
    members, start = list[Member](), 0
    while not members or (raw.startswith(_MAGIC, start) and len(members) < MAX_MEMBERS):
        one = _read_member(raw, start)
        members.append(one)
        start += len(_header(one)) + len(one.content)
    after = start + len(_directory(members, ""))
    comment = raw[after : after + MAX_COMMENT_BYTES].decode("ascii", "replace")
    _check_same(raw[start:], _directory(members, comment), start)
    return members, comment


def verify_crc(members: Iterable[Member]) -> None:
    """Check each content against the CRC-32 of its header; raise MalformedError, at its place."""
    for one in members:
        if zlib.crc32(one.content) != one.crc:
            with at(one.name):
                raise MalformedError("the CRC-32 in its header is not that of the file")


def _read_member(raw: bytes, start: int) -> Member:
    with at(_HEADERS):
        if len(raw) < start + _HEADER.size:
            raise MalformedError(f"at byte {start} is no member")
        *_, crc, size, _, name_length, _ = _HEADER.unpack_from(raw, start)
        name_start = start + _HEADER.size
        name = raw[name_start : name_start + min(name_length, MAX_NAME_BYTES)]
        if _NAME.fullmatch(name) is None:
            raise MalformedError(f"at byte {start} is no member that a bundle has")
    found = Member(name.decode(), raw[name_start + len(name) : name_start + len(name) + size], crc)
    with at(found.name):
        header = _header(found)
        if len(found.content) != size or raw[start : start + len(header)] != header:
            raise MalformedError("its header in the zip is not as a bundle has it")
    return found


def _check_same(found: bytes, due: bytes, start: int) -> None:
    if found != due:
        shorter = min(len(found), len(due))
        place = next((place for place in range(shorter) if found[place] != due[place]), shorter)
        with at(_DIRECTORY):
            raise MalformedError(f"from byte {start + place} on it is not as the members before it demand")


def _header(one: Member) -> bytes:
    size = len(one.content)
    return _HEADER.pack(_MAGIC, _VERSION, 0, 0, 0, _DATE, one.crc, size, size, len(one.name), 0) + one.name.encode()


def _directory(members: Sequence[Member], comment: str) -> bytes:
    entries, start = [], 0
    for one in members:
        size, name = len(one.content), one.name.encode()
        times = (_VERSION, _VERSION, 0, 0, 0, _DATE)
        entries.append(_ENTRY.pack(b"PK\x01\x02", *times, one.crc, size, size, len(name), 0, 0, 0, 0, 0, start) + name)
        start += _HEADER.size + len(name) + size
    whole, told = b"".join(entries), comment.encode("ascii", "replace")
    return whole + _END.pack(b"PK\x05\x06", 0, 0, len(members), len(members), len(whole), start, len(told)) + told
