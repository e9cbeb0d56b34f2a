"""The logs that a witness serves, as a list of them states (C2SP tlog-list).

    logs/v0

    vkey <verifier key>
    origin <origin>         only where it is not the name of the key
    qpd <requests a day>
    contact <text>

Lines are taken without the blanks around them; empty ones, and those that begin with `#`, say nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlog.errors import ConfigError, LineError
from tlog_core.cosignature import MAX_NAME_BYTES
from tlog_core.encoding import parse_decimal
from tlog_core.errors import MalformedError
from tlog_core.note import ED25519, VerifierKey, parse_verifier

_MAX_QPD: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ListedLog:
    """One log: its origin, its key, the add-checkpoint requests that it may make a day, whom to ask about it."""

    origin: str
    key: VerifierKey
    qpd: int
    contact: str


def read_keys(path: Path, witness: str) -> Mapping[str, VerifierKey]:
    """Return the key of each origin on a list, for the witness of this name; ConfigError, which names the line."""
    try:
        logs = parse_log_list(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {(error.strerror or '').lower()}") from None
    except MalformedError as error:
        raise ConfigError(f"{path}: {error}") from None
    for log in logs:
        # A line of the log would look like one of ours.
        if witness in (log.origin, log.key.name):
            raise ConfigError(
                f"{path}: {log.origin} has the name of the witness; take it off the list, or begin another witness"
            )
    return {log.origin: log.key for log in logs}


def parse_log_list(raw: bytes) -> tuple[ListedLog, ...]:
    """Return the logs of a list; raise MalformedError, which names the line, counted from 1."""
    lines = _Lines(raw)
    if lines.take() != "logs/v0":
        raise lines.error("a list of logs begins with logs/v0")
    logs: dict[str, ListedLog] = {}
    while not lines.at_end():
        log = _parse_log(lines)
        if log.origin in logs:
            raise lines.error(f"{log.origin} is on the list twice")
        logs[log.origin] = log
    return tuple(logs.values())


class _Lines:
    """The lines that say something, taken one by one."""

    def __init__(self, raw: bytes) -> None:
        self._rest = list(_significant(raw))
        self._number = 1

    def at_end(self) -> bool:
        return not self._rest

    def take(self) -> str:
        if not self._rest:
            raise self.error("the list ends too early")
        self._number, text = self._rest.pop(0)
        return text

    def value(self, name: str) -> str:
        """Take a line, which must be this name and a value."""
        found, _, value = self.take().partition(" ")
        if found != name or not value:
            raise self.error(f"expected {name} and its value")
        return value

    def begins(self, name: str) -> bool:
        """Tell whether the next line is of this name."""
        return bool(self._rest) and self._rest[0][1].startswith(f"{name} ")

    def error(self, message: str) -> LineError:
        """Return an error at the line taken last."""
        return LineError(self._number, message)


def _significant(raw: bytes) -> Iterator[tuple[int, str]]:
    try:
        lines = raw.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise LineError(raw.count(b"\n", 0, error.start) + 1, "not UTF-8") from None
    for number, line in enumerate(lines, 1):
        text = line.strip(" \t")
        if text and not text.startswith("#"):
            yield number, text


def _parse_log(lines: _Lines) -> ListedLog:
    key = _parse_key(lines, lines.value("vkey"))
    origin = lines.value("origin") if lines.begins("origin") else key.name
    if len(origin.encode()) > MAX_NAME_BYTES:
        raise lines.error(f"an origin has at most {MAX_NAME_BYTES} bytes")
    return ListedLog(origin, key, _parse_qpd(lines, lines.value("qpd")), lines.value("contact"))


def _parse_key(lines: _Lines, text: str) -> VerifierKey:
    try:
        key = parse_verifier(text)
    except MalformedError as error:
        raise lines.error(str(error)) from None
    if key.type != ED25519:
        raise lines.error("not the key of a log; a log's is of type 0x01, Ed25519")
    return key


def _parse_qpd(lines: _Lines, text: str) -> int:
    try:
        qpd = parse_decimal(text)
    except MalformedError as error:
        raise lines.error(str(error)) from None
    if not 1 <= qpd <= _MAX_QPD:
        raise lines.error(f"qpd is from 1 to {_MAX_QPD}")
    return qpd
