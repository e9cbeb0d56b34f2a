"""AWS CloudTrail files, as CloudTrail puts them into a bucket, and how they come to a server (`spec/python.md`).

Records are sent as the bytes that they are: what they say is for the server to judge.
"""

import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final

from tlog_client.durable import naming_disk, read_if_there
from tlog_client.errors import RefusedError
from tlog_client.transport import Transport
from tlog_core.encoding import canonical_json, number_member, parse_json
from tlog_core.errors import MalformedError
from tlog_core.receipt import JSON_TYPE

MAX_FILE_BYTES: Final = 256 << 20
MAX_BODY_BYTES: Final = 20 << 20
MAX_ANSWER_BYTES: Final = 65_536

# What is soon answered, so that a lost answer costs little.
PART_BYTES: Final = 1 << 20
PART_RECORDS: Final = 1_000

_HEAD: Final = re.compile(r'[ \t\r\n]*\{[ \t\r\n]*"Records"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*')
_COMMA: Final = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_TAIL: Final = re.compile(r"[ \t\r\n]*\][ \t\r\n]*\}[ \t\r\n]*\Z")
_OPEN: Final = b'{"Records":['
_CLOSE: Final = b"]}"
_SUFFIXES: Final = (".json", ".json.gz")
_DIGESTS: Final = "CloudTrail-Digest"

# So is a file refused; with any other status every file would be.
_FOR_WHAT_IT_IS: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)


class FileError(MalformedError):
    """A file is not what CloudTrail writes, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Imported:
    """How many events a server has logged, put into quarantine, and had seen before."""

    logged: int = 0
    quarantined: int = 0
    seen: int = 0

    def __add__(self, other: "Imported") -> "Imported":
        return Imported(self.logged + other.logged, self.quarantined + other.quarantined, self.seen + other.seen)


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield files as they are given, and all `.json` and `.json.gz` below folders, in the order of their names."""
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if _is_wanted(one))
        else:
            yield path


def parse_records(raw: bytes) -> list[bytes]:
    """Return the records of a file, packed or not, each as it stands there; raise FileError."""
    try:
        return _records(_unpacked(raw).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise FileError(f"not UTF-8 at byte {error.start}") from None


@dataclass(slots=True)
class ImportReport:
    """What became of the files so far; `failed` says of each that failed what is wrong."""

    events: Imported = field(default_factory=Imported)
    imported: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return it as a line."""
        files = f"files: {self.imported} imported, {self.skipped} skipped, {len(self.failed)} failed"
        events = self.events
        return f"{files}; events: {events.logged} logged, {events.seen} seen, {events.quarantined} quarantined"


def import_file(path: Path, transport: Transport, done: "DoneFile", report: ImportReport) -> None:
    """Send the records of a file that is not done with, and note what became of it.

    Raises FetchError or MalformedError for what would befall every other file too.
    """
    try:
        # Before it is read: a change meanwhile makes it another file.
        mark = _mark(path)
        if mark in done:
            report.skipped += 1
            return
        # In parts, each of which the server has for good once it is answered.
        for part in _bodies(parse_records(_read(path))):
            report.events += _send(transport, part)
    except FileError as error:
        report.failed.append(f"{path}: {error}")
    except RefusedError as error:
        if error.status not in _FOR_WHAT_IT_IS:
            raise
        report.failed.append(f"{path}: {error}")
    else:
        done.add(mark)
        report.imported += 1


class DoneFile:
    """Which files are done with, by path, length and time of change; one line a file, so that a crash costs no other.

    It need not be synced: what is sent once more a server has seen before.
    """

    def __init__(self, folder: Path, server: str) -> None:
        """Name the file of a server; it is made when there is something to keep."""
        self.path = folder / f"{hashlib.sha256(server.rstrip('/').encode()).hexdigest()}.cloudtrail"
        with naming_disk(self.path):
            self._done = set((read_if_there(self.path) or b"").split(b"\n")[:-1])

    def __contains__(self, mark: bytes) -> bool:
        """Tell whether the file of this mark is done with."""
        return mark in self._done

    def add(self, mark: bytes) -> None:
        """Keep that the file of this mark is done with; raise FetchError."""
        self._done.add(mark)
        with naming_disk(self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                # Not behind one that a crash has torn.
                file.write(b"\n" + mark + b"\n")


def _mark(path: Path) -> bytes:
    try:
        found = path.stat()
    except OSError as error:
        raise FileError((error.strerror or str(error)).lower()) from None
    # A name need not be UTF-8.
    name = os.fsencode(path.resolve()).decode("utf-8", "backslashreplace")
    return canonical_json([name, found.st_size, str(found.st_mtime_ns)])


def _is_wanted(path: Path) -> bool:
    # CloudTrail puts digests of its files beside them.
    return path.name.endswith(_SUFFIXES) and path.is_file() and _DIGESTS not in path.parts


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _bounded(file.read(MAX_FILE_BYTES + 1))
    except OSError as error:
        raise FileError((error.strerror or str(error)).lower()) from None


def _unpacked(raw: bytes) -> bytes:
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        with gzip.open(io.BytesIO(raw)) as file:
            return _bounded(file.read(MAX_FILE_BYTES + 1))
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"not gzip: {error}; fetch it again") from None


def _bounded(raw: bytes) -> bytes:
    if len(raw) > MAX_FILE_BYTES:
        raise FileError(f"more than {MAX_FILE_BYTES} bytes; split it")
    return raw


def _records(text: str) -> list[bytes]:
    head = _HEAD.match(text)
    if head is None:
        raise FileError('not a CloudTrail file, which begins with {"Records":[')
    records: list[bytes] = []
    place, decode = head.end(), json.JSONDecoder().raw_decode
    while _TAIL.match(text, place) is None:
        if records:
            place = _after_comma(text, place)
        try:
            _, end = decode(text, place)
        except (json.JSONDecodeError, RecursionError) as error:
            raise FileError(f"record {len(records) + 1} is not JSON: {error}") from None
        records.append(_sendable(text[place:end].encode(), len(records) + 1))
        place = end
    return records


def _after_comma(text: str, place: int) -> int:
    comma = _COMMA.match(text, place)
    if comma is None:
        raise FileError(f'after {place} characters there is neither another record nor the end "]}}"')
    return comma.end()


def _sendable(record: bytes, number: int) -> bytes:
    if len(record) > MAX_BODY_BYTES - len(_OPEN + _CLOSE):
        raise FileError(f"record {number} has {len(record)} bytes, more than a server takes")
    return record


def _bodies(records: Iterable[bytes]) -> Iterator[bytes]:
    part: list[bytes] = []
    room = PART_BYTES
    for record in records:
        if part and (len(record) > room or len(part) == PART_RECORDS):
            yield _OPEN + b",".join(part) + _CLOSE
            part, room = [], PART_BYTES
        part.append(record)
        room -= len(record) + 1
    if part:
        yield _OPEN + b",".join(part) + _CLOSE


def _send(transport: Transport, body: bytes) -> Imported:
    answer = transport.post(
        "ingest/cloudtrail",
        body,
        content_type=JSON_TYPE,
        # Of what is sent, so that a record without an id is known again too.
        idempotency_key=hashlib.sha256(body).hexdigest(),
        limit=MAX_ANSWER_BYTES,
        expected=HTTPStatus.OK,
    )
    return _parse_answer(answer)


def _parse_answer(raw: bytes) -> Imported:
    members = parse_json(raw)
    if not isinstance(members, dict):
        raise MalformedError("the server's answer is not an object")
    logged, quarantined, seen = (number_member(members, name) for name in ("logged", "quarantined", "seen"))
    return Imported(logged, quarantined, seen)
