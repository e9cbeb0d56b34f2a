"""A segment of a log, as the client reads it, to export from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tlog_client.answers import OpenedEntry
from tlog_client.log import Log
from tlog_client.state import SignedCheckpoint
from tlog_core.errors import FetchError
from tlog_core.merkle import Hash
from tlog_core.policy import TrustPolicy


@dataclass(frozen=True, slots=True)
class LogSource:
    """A segment that is read over HTTP; every method raises as `Log` does."""

    log: Log

    @property
    def origin(self) -> str:
        """The origin of the segment."""
        return self.log.key.name

    def head(self, trust: TrustPolicy) -> SignedCheckpoint:
        """Return the newest head, or that which the log's witnesses have cosigned if the policy asks for a quorum."""
        return self.log.signed_checkpoint() if trust.quorum is None else self.log.cosigned_checkpoint()

    def entries(self, head: SignedCheckpoint, start: int, stop: int) -> Iterator[OpenedEntry]:
        """Yield the entries [start, stop)."""
        return self.log.at(head).entries(start, stop)

    def found(self, head: SignedCheckpoint, terms: Mapping[str, str | int]) -> Iterator[OpenedEntry]:
        """Yield what a search finds, the latest first; FetchError if the log's index is behind the head."""
        found = self.log.search(**terms)
        if found.indexed < head.checkpoint.size:
            size = head.checkpoint.size
            raise FetchError(f"the log's index is behind: of {size} entries it knows {found.indexed}; try again later")
        return (opened for opened, _ in found)

    def prove(self, head: SignedCheckpoint, indexes: Sequence[int]) -> Sequence[Hash]:
        """Return the subset proof of entries, out of the log's tiles."""
        return self.log.at(head).prove_subset(indexes)
