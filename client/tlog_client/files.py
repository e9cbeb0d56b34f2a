"""Events and receipts in files and pipes, as the command reads them; what is wrong with one names its file and line."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from tlog_client.durable import sync_folder
from tlog_client.events import MAX_BATCH_BYTES, MAX_PAYLOAD_BYTES
from tlog_core.encoding import parse_json
from tlog_core.errors import FetchError, MalformedError
from tlog_core.evidence import MAX_EVIDENCE_BYTES, Evidence, parse_evidence
from tlog_core.gossip import Peer, open_peers
from tlog_core.note import MAX_NOTE_BYTES, SignerKey, VerifierKey, parse_verifier
from tlog_core.policy import MAX_POLICY_BYTES, TrustPolicy, parse_policy
from tlog_core.receipt import Receipt, parse_receipt
from tlog_core.tlog_proof import HEADER, parse_tlog_proof
from tlog_core.writer import check_writer_key, parse_writer_signer

Parsed = TypeVar("Parsed")

STANDARD_INPUT: Final = "-"
JSON_SUFFIX: Final = ".json"
LINES_SUFFIXES: Final = (".ndjson", ".jsonl")
MAX_RECEIPT_FILE_BYTES: Final = 4 << 20

_ZIP: Final = b"PK\x03\x04"
_CHUNK_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of input: where it stands, for messages, and its bytes."""

    where: str
    raw: bytes


def read_key(text_or_path: str) -> VerifierKey:
    """Return the key of a vkey, or of the file that holds one; raise MalformedError or FetchError."""
    if text_or_path.count("+") >= 2:
        return parse_verifier(text_or_path.strip())
    try:
        return parse_verifier(read_whole(Path(text_or_path)).decode("utf-8").strip())
    except (MalformedError, UnicodeDecodeError):
        raise MalformedError(f"{text_or_path} is neither a verifier key nor a file that holds one") from None


def read_policy(path: Path) -> TrustPolicy:
    """Return the trust policy in a file; raise MalformedError or FetchError."""
    return _parsed(path, parse_policy, MAX_POLICY_BYTES)


def read_peers(path: Path, key: VerifierKey) -> tuple[Peer, ...]:
    """Return the list of peers in a file after `key` signed it; raise MalformedError, SignatureError or FetchError."""
    return _parsed(path, lambda raw: open_peers(raw, key), MAX_NOTE_BYTES)


def read_evidence(path: Path) -> Evidence:
    """Return the evidence in a file, not verified; raise MalformedError or FetchError."""
    return _parsed(path, parse_evidence, MAX_EVIDENCE_BYTES)


def read_writer_key(text_or_path: str) -> VerifierKey:
    """Return the key of a writer, as `read_key` does; MalformedError for a witness's too."""
    key = read_key(text_or_path)
    check_writer_key(key)
    return key


def read_signer(path: Path) -> SignerKey:
    """Return the signer key in a file, which signs notes; raise MalformedError, which never shows it, or FetchError."""
    text = read_whole(path).decode("utf-8", "replace").strip()
    try:
        return parse_writer_signer(text)
    except MalformedError:
        raise MalformedError(f"{path} holds {_in_place_of_signer(text)}") from None


def write_signer(path: Path, signer: SignerKey) -> None:
    """Make a new file with a signer key, readable by its owner only, durable when this returns; raise FetchError."""
    with _naming(path):
        _write(path, f"{signer.format()}\n".encode())
        sync_folder(path.parent)


def write_new(path: Path, content: bytes) -> None:
    """Write a file, readable by its owner only, that is whole or not there; raise FetchError, also if there is one."""
    with _naming(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=".tlog-") as folder:
        fresh = Path(folder) / path.name
        _write(fresh, content)
        os.link(fresh, path)
        sync_folder(path.parent)


def is_zip(path: Path) -> bool:
    """Tell whether a file begins as every zip does; False for one that cannot be read, and for no file."""
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return file.read(len(_ZIP)) == _ZIP
    return False


def read_whole(path: Path, *, limit: int = MAX_PAYLOAD_BYTES) -> bytes:
    """Return the bytes of a file; raise FetchError, or MalformedError if there are more than `limit`."""
    with _naming(path), _open(path) as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise MalformedError(f"{path} has more than {limit} bytes")
    return raw


def read_events(path: Path) -> Iterator[Line]:
    """Yield the JSON texts of a file: one of `.json`, else one a line, as they come; raise as `read_whole`."""
    if path.suffix == JSON_SUFFIX:
        yield Line(str(path), read_whole(path, limit=MAX_BATCH_BYTES))
        return
    with _naming(path), _open(path) as file:
        yield from read_lines(file, _name(path))


def read_lines(file: IO[bytes], name: str) -> Iterator[Line]:
    """Yield the lines of a file or pipe as they come; MalformedError for one longer than an event may be."""
    # Not the buffered file: a thread that waits in it at the end of the program would hold its lock.
    read: Callable[[int], bytes] = getattr(file, "raw", file).read
    rest, number = b"", 1
    while chunk := read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield _bounded(Line(f"{name}:{number}", line))
            number += 1
        _bounded(Line(f"{name}:{number}", rest))
    if rest:
        yield Line(f"{name}:{number}", rest)


def parse_event(line: Line) -> Any:
    """Return the JSON value of a piece of input; raise MalformedError."""
    try:
        return parse_json(line.raw)
    except MalformedError as error:
        raise MalformedError(f"{line.where}: {error}") from None


def read_receipts(path: Path) -> Iterator[tuple[str, Receipt]]:
    """Yield where it stands and the receipt, for each in a file: a tlog-proof, one receipt, or one a line.

    Raises MalformedError or FetchError; the receipts are not verified.
    """
    with _naming(path), _open(path) as file:
        first = file.readline(MAX_RECEIPT_FILE_BYTES)
        if not _is_receipt(first):
            yield _name(path), _parse_one(first + file.read(MAX_RECEIPT_FILE_BYTES), _name(path))
            return
        rest = iter(lambda: file.readline(MAX_RECEIPT_FILE_BYTES), b"")
        for number, raw in enumerate(chain([first], rest), 1):
            yield f"{_name(path)}:{number}", _parse_one(raw, f"{_name(path)}:{number}")


def _write(fresh: Path, content: bytes) -> None:
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _parsed(path: Path, parse: Callable[[bytes], Parsed], limit: int) -> Parsed:
    raw = read_whole(path, limit=limit)
    try:
        return parse(raw)
    except MalformedError as error:
        raise MalformedError(f"{_name(path)}: {error}") from None


def _in_place_of_signer(text: str) -> str:
    try:
        parse_verifier(text)
    except MalformedError:
        return "no signer key of type 01; make one with tlog-client keygen"
    return "a verifier key, the public half; give the file with the signer key, the secret that keygen wrote with -o"


def _name(path: Path) -> str:
    return "standard input" if str(path) == STANDARD_INPUT else str(path)


def _open(path: Path) -> AbstractContextManager[IO[bytes]]:
    return nullcontext(sys.stdin.buffer) if str(path) == STANDARD_INPUT else path.open("rb")


def _is_receipt(raw: bytes) -> bool:
    try:
        parse_receipt(raw)
    except MalformedError:
        return False
    return True


def _parse_one(raw: bytes, where: str) -> Receipt:
    try:
        return parse_tlog_proof(raw) if raw.startswith(HEADER.encode()) else parse_receipt(raw)
    except MalformedError as error:
        raise MalformedError(f"{where}: {error}") from None


def _bounded(line: Line) -> Line:
    if len(line.raw) > MAX_PAYLOAD_BYTES:
        raise MalformedError(f"{line.where}: an event has at most {MAX_PAYLOAD_BYTES} bytes")
    return line


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FetchError(f"{path}: {(error.strerror or str(error)).lower()}") from error
