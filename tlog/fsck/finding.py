"""A finding: what is wrong, where, and of what kind."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

from structlog.typing import FilteringBoundLogger

from tlog.errors import UnavailableError
from tlog_core.errors import TlogError


@unique
class Kind(Enum):
    """What is wrong. What is LOOSE was left behind by a crash, and what is UNREAD could not be read now."""

    ENTRY = "entry"
    PAYLOAD = "payload"
    SIGNATURE = "signature"
    SEQUENCE = "sequence"
    TILE = "tile"
    HEAD = "head"
    COSIGNATURE = "cosignature"
    BULLETIN = "bulletin"
    REQUEST = "request"
    LAYOUT = "layout"
    FILE = "file"
    KEY = "key"
    CONTROL = "control"
    FROZEN = "frozen"
    LOOSE = "loose"
    UNREAD = "unread"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong at a place of a segment, or, without one, of the folder."""

    segment: str
    place: str
    kind: Kind
    text: str

    def __str__(self) -> str:
        """Return the line that says it."""
        return ": ".join(part for part in (self.segment, self.place, self.text) if part)


HARMLESS: Final = frozenset({Kind.BULLETIN, Kind.KEY, Kind.FROZEN, Kind.LOOSE, Kind.UNREAD})
"""Kinds for which no segment has to be frozen: nothing of the log's is damaged, or nothing is signed anyway."""


def say(log: FilteringBoundLogger, finding: Finding) -> None:
    """Put a finding into the log of a server."""
    log.error("damaged", segment=finding.segment, place=finding.place, kind=finding.kind.value, text=finding.text)


Fault = tuple[str, Kind, str]
"""Place, kind and text of a finding, of a segment that the reader knows."""


def found(segment: str, faults: Iterable[Fault]) -> Iterator[Finding]:
    """Yield the findings of a segment."""
    return (Finding(segment, *fault) for fault in faults)


def fault_of(place: str, kind: Kind, error: TlogError) -> Fault:
    """Return the fault that an error tells of; what could not be read now is no damage."""
    return place, Kind.UNREAD if isinstance(error, UnavailableError) else kind, str(error)
