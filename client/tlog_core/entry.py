"""Entries: the bytes that the log hashes as leaves (`spec/entry.md`).

An entry is the RFC 8785 form of a JSON object with the members `commitment`, `origin`, `time`, `v`, `writer`, and, both
or neither, `writer_sequence` and `writer_signature`.
"""

import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tlog_core.commitment import COMMITMENT_BYTES, Commitment
from tlog_core.encoding import canonical_json, decode_base64, encode_base64, number_member, parse_json, text_member
from tlog_core.errors import MalformedError
from tlog_core.note import KEY_ID_BYTES, SIGNATURE_BYTES
from tlog_core.tile import MAX_ENTRY_BYTES

VERSION: Final = 1
MAX_WRITER_BYTES: Final = 255

_BEFORE_COMMITMENT: Final = b'{"commitment":"'

# Of 68 bytes as of 32, the last character of base64 before the padding has two bits that are zero.
_LAST: Final = rb"[AEIMQUYcgkosw048]="
_TEXT: Final = rb"([ !#-\[\]-~]+)"
_NUMBER: Final = rb"(0|[1-9][0-9]{0,14})"
_SIMPLE: Final = re.compile(
    rb'\{"commitment":"([+/-9A-Za-z]{42}%b)","origin":"%b","time":%b,"v":1,"writer":"%b"'
    rb'(?:,"writer_sequence":%b,"writer_signature":"([+/-9A-Za-z]{90}%b)")?\}'
    % (_LAST, _TEXT, _NUMBER, _TEXT, _NUMBER, _LAST)
)
"""Nearly all entries, in their only form: with ASCII names in which nothing is escaped."""


@dataclass(frozen=True, slots=True)
class WriterSignature:
    """A writer's own counter in the segment, and its Ed25519 signature: four bytes of key ID, then 64."""

    sequence: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """What the log says of one event: the commitment to it, in which log, when in milliseconds, and by whom."""

    commitment: Commitment
    origin: str
    time: int
    writer: str
    signed: WriterSignature | None = None

    def __bytes__(self) -> bytes:
        """Return the entry as it is hashed and bundled; MalformedError for values that no entry has."""
        raw = canonical_json(self._members())
        if len(self.writer.encode()) > MAX_WRITER_BYTES:
            raise MalformedError(f"the name of a writer has at most {MAX_WRITER_BYTES} bytes")
        return raw

    def _members(self) -> dict[str, Any]:
        members: dict[str, Any] = {
            "commitment": encode_base64(self.commitment),
            "origin": self.origin,
            "time": self.time,
            "v": VERSION,
            "writer": self.writer,
        }
        if self.signed is not None:
            members["writer_sequence"] = self.signed.sequence
            members["writer_signature"] = encode_base64(self.signed.signature)
        return members


def parse_entry(raw: bytes) -> Entry:
    """Return the entry in `raw`; raise MalformedError unless it is exactly an entry's only form."""
    if len(raw) > MAX_ENTRY_BYTES:
        raise MalformedError(f"an entry has at most {MAX_ENTRY_BYTES} bytes")
    simple = _SIMPLE.fullmatch(raw)
    # In a fifth of the time that it takes to parse the entry, write it again, and compare.
    if simple is not None and len(simple[4]) <= MAX_WRITER_BYTES:
        return _simple_entry(*simple.groups())
    members = parse_json(raw)
    if not isinstance(members, dict) or members.get("v") != VERSION:
        raise MalformedError(f"not an entry of version {VERSION}")
    entry = Entry(
        commitment=Commitment(decode_base64(text_member(members, "commitment"), length=COMMITMENT_BYTES)),
        origin=text_member(members, "origin"),
        time=number_member(members, "time"),
        writer=text_member(members, "writer"),
        signed=_signed(members),
    )
    if bytes(entry) != raw:
        raise MalformedError("an entry is not canonical, or has members that no entry has")
    return entry


def encode_entries(
    commitments: Iterable[Commitment],
    *,
    origin: str,
    time: int,
    writer: str,
    signed: Sequence[WriterSignature] = (),
) -> list[bytes]:
    """Return the entries of events that the log took from one writer at one time, all of them `signed` or none."""
    whole = bytes(Entry(Commitment(bytes(COMMITMENT_BYTES)), origin, time, writer))
    # The commitment is the first member and of fixed length: what stands around it is the same for each.
    start = len(_BEFORE_COMMITMENT)
    before, after = whole[:start], whole[start + len(encode_base64(bytes(COMMITMENT_BYTES))) :]
    encode = binascii.b2a_base64
    entries = [before + encode(commitment, newline=False) + after for commitment in commitments]
    if not signed:
        return entries
    # The members of a signature are the last two.
    return [
        b'%s,"writer_sequence":%d,"writer_signature":"%s"}'
        % (entry[:-1], one.sequence, encode(one.signature, newline=False))
        for entry, one in zip(entries, signed, strict=True)
    ]


def has_commitment(raw: bytes, commitment: Commitment) -> bool:
    """Tell whether an entry, known to be one, has this commitment: much sooner than by parsing it."""
    return raw.startswith(_BEFORE_COMMITMENT + binascii.b2a_base64(commitment, newline=False) + b'"')


def has_time(raw: bytes, time: int) -> bool:
    """Tell whether an entry, known to be one, has this time: much sooner than by parsing it."""
    # No member's value has a bare quotation mark, so that this is the member, and all of its number.
    return b'"time":%d,"v":' % time in raw


def writer_message(*, origin: str, writer: str, sequence: int, commitment: Commitment) -> bytes:
    """Return what a writer signs: the commitment, bound to this log, this writer and its place in order."""
    return f"tlog/writer/v1\n{origin}\n{writer}\n{sequence}\n{encode_base64(commitment)}\n".encode()


def _simple_entry(
    commitment: bytes, origin: bytes, time: bytes, writer: bytes, sequence: bytes | None, signature: bytes | None
) -> Entry:
    decode = binascii.a2b_base64
    signed = WriterSignature(int(sequence), decode(signature)) if sequence and signature else None
    return Entry(Commitment(decode(commitment)), origin.decode(), int(time), writer.decode(), signed)


def _signed(members: dict[str, Any]) -> WriterSignature | None:
    if "writer_sequence" not in members and "writer_signature" not in members:
        return None
    return WriterSignature(
        number_member(members, "writer_sequence"),
        decode_base64(text_member(members, "writer_signature"), length=KEY_ID_BYTES + SIGNATURE_BYTES),
    )
