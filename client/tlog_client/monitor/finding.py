"""Findings: what a monitor reports, in three classes that are never mixed (`spec/monitoring.md`)."""

from dataclasses import dataclass
from enum import Enum

from tlog_core.encoding import canonical_json


class Class(Enum):
    """How far a finding goes: proven to anyone, proven to whoever reads the log, or not proven."""

    EVIDENCE = "evidence"
    VIOLATION = "violation"
    COMPLAINT = "complaint"


class State(Enum):
    """Whether a finding stands for good, or is of something that lasts."""

    NEW = "new"
    BEGUN = "begun"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding about the log `origin`, at `time`, in milliseconds since the epoch.

    `evidence` is the name of a file in the folder of evidence, `index` that of the entry at fault, `witness` the name
    in the trust policy of the witness that is accused or complained of, `source` who brought it.
    """

    time: int
    found: Class
    kind: str
    origin: str
    detail: str
    state: State = State.NEW
    index: int | None = None
    evidence: str | None = None
    witness: str | None = None
    source: str | None = None

    def format(self, number: int) -> bytes:
        """Return the finding as a line of JSON in RFC 8785 form; `number` is its own for good in this monitor."""
        members = {
            "class": self.found.value,
            "detail": self.detail,
            "evidence": self.evidence,
            "id": number,
            "index": self.index,
            "kind": self.kind,
            "origin": self.origin,
            "source": self.source,
            "state": self.state.value,
            "time": self.time,
            "witness": self.witness,
        }
        return canonical_json(members) + b"\n"
