"""Bulletins: what monitors say of a segment, of those whose keys the operator gave (`spec/bulletin.md`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from tlog.errors import ConfigError, ConflictError, CorruptError, UnknownMonitorError, WrongSignatureError
from tlog.segments import Segment
from tlog.store.bulletin import BulletinRow
from tlog.store.segment import Head
from tlog_core.bulletin import MAX_AHEAD, Bulletin, SignedBulletin, open_bulletin, parse_bulletin
from tlog_core.errors import MalformedError, SignatureError, TlogError
from tlog_core.note import ED25519, VerifierKey, open_parsed, parse_verifier


@dataclass(frozen=True, slots=True)
class Carried:
    """A bulletin that a segment carries, verified: by whom it is, what it says, its note, and when it came, in ms."""

    key: VerifierKey
    bulletin: Bulletin
    note: bytes
    received: int


def read_monitor_keys(paths: Sequence[Path]) -> tuple[VerifierKey, ...]:
    """Return the keys of monitors in these files, one each; ConfigError, which says why not."""
    keys = tuple(map(_read_key, paths))
    names = [key.name for key in keys]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two monitor keys have the name {twice[0]}; give one for each monitor")
    return keys


class Bulletins:
    """The bulletins of these keys, for the threads of one process. The clock is in milliseconds."""

    def __init__(self, keys: Sequence[VerifierKey], log: FilteringBoundLogger, clock: Callable[[], int]) -> None:
        """Take and show what these keys say, and nothing else."""
        self.keys = keys
        self._log = log
        self._clock = clock

    def take(self, segment: Segment, raw: bytes) -> None:
        """Keep a bulletin, durable when this returns.

        Raises MalformedError, UnknownMonitorError, WrongSignatureError or ConflictError, in the order of
        `spec/http-api.md`, and DatabaseError.
        """
        now, signed = self._clock(), parse_bulletin(raw)
        key, bulletin = self._key_of(signed), signed.bulletin
        _check(signed, key, segment.row.origin, now)
        with segment.writing() as transaction:
            head = transaction.head()
            row = BulletinRow(str(key), bulletin.time, now, raw)
            if not transaction.put_bulletin(row, latest=now + MAX_AHEAD):
                raise ConflictError(
                    "a bulletin that is as late is kept from this monitor; was it sent again, or has another the key?"
                )
        self._compare(segment, key, bulletin, head)

    def of(self, segment: Segment) -> list[Carried]:
        """Return what is kept of a segment, in the order of the keys; CorruptError if one is not of it, as signed."""
        rows, origin = {row.vkey: row for row in segment.store.bulletins()}, segment.row.origin
        return [_open(key, rows[str(key)], origin) for key in self.keys if str(key) in rows]

    def _key_of(self, signed: SignedBulletin) -> VerifierKey:
        [line] = signed.note.signatures
        for key in self.keys:
            if (key.name, key.id) == (line.name, line.key_id):
                return key
        raise UnknownMonitorError("no monitor key of this server; its operator gives it by tlog serve --monitor-key")

    def _compare(self, segment: Segment, key: VerifierKey, bulletin: Bulletin, head: Head) -> None:
        found = bulletin.head
        if found is None or found.size < head.size or (found.size, found.root) == (head.size, head.root):
            return
        self._log.warning(
            "bulletin differs", segment=segment.row.name, monitor=key.name, verified=found.size, size=head.size
        )


def _check(signed: SignedBulletin, key: VerifierKey, origin: str, now: int) -> None:
    if signed.bulletin.origin != origin:
        raise MalformedError(f"the bulletin is not of {origin}; post each to the log that it speaks of")
    if signed.bulletin.time > now + MAX_AHEAD:
        raise MalformedError(
            f"signed at {signed.bulletin.time}, and now it is {now}, in milliseconds; are the clocks right?"
        )
    try:
        open_parsed(signed.note, [key])
    except SignatureError as error:
        raise WrongSignatureError(str(error)) from None


def _open(key: VerifierKey, row: BulletinRow, origin: str) -> Carried:
    try:
        bulletin = open_bulletin(row.note, key)
        if bulletin.origin != origin:
            raise MalformedError(f"it speaks of {bulletin.origin}")
        return Carried(key, bulletin, row.note, row.received)
    except TlogError as error:
        raise CorruptError(f"the bulletin of {key.name} cannot be trusted: {error}; run tlog fsck") from None


def _read_key(path: Path) -> VerifierKey:
    try:
        key = parse_verifier(path.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except MalformedError as error:
        raise ConfigError(f"{path} is to hold the verifier key of a monitor: {error}") from None
    if key.type != ED25519:
        raise ConfigError(f"{path} has the key of a witness; give the one by which the monitor gossips")
    return key
