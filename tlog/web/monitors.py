"""What monitors say of a segment, as a page tells it (spec/bulletin.md)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tlog.bulletins import Carried
from tlog_core.bulletin import Bulletin, Tally
from tlog_core.note import VerifierKey

_LATE: Final = 900_000


@dataclass(frozen=True, slots=True)
class Monitor:
    """A monitor whose key the operator gave, and what it said last of a segment; None if it never did."""

    key: VerifierKey
    carried: Carried | None

    @property
    def said(self) -> Bulletin | None:
        """What it said."""
        return self.carried.bulletin if self.carried else None

    def is_late(self, now: int) -> bool:
        """Say whether that was signed more than a quarter of an hour before `now`, in milliseconds."""
        return self.said is not None and now - self.said.time > _LATE

    @property
    def accuses(self) -> bool:
        """Whether it says that the log is convicted, or that there is evidence against it."""
        return self.said is not None and (
            self.said.convicted or any(one.found == "evidence" for one in self.said.tallies)
        )

    @property
    def findings(self) -> tuple[str, ...]:
        """Its findings, in words."""
        if self.said is None:
            return ()
        return ("convicted by evidence",) * self.said.convicted + tuple(map(_tallied, self.said.tallies))


def latest_of(key: VerifierKey, monitors: Iterable[Monitor]) -> Bulletin | None:
    """Return the latest bulletin by this key, of whatever segments these speak; None if there is none."""
    said = [one.said for one in monitors if one.key == key and one.said is not None]
    return max(said, key=lambda bulletin: bulletin.time, default=None)


def _tallied(tally: Tally) -> str:
    return f"{tally.found}: {tally.kind}" + (f" ({tally.number})" if tally.number > 1 else "")
