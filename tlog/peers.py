"""Asking peers, once in the life of a process, whether they know of a later head of a segment than is here.

A peer is anyone who has watched the log and says at `<its URL>/<origin hash>/checkpoint`, as witnesses do, what it has
seen last: a monitor, a mirror. What it says counts by the log's own signature alone (`spec/durability.md`).
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Final

import requests
from structlog.typing import FilteringBoundLogger

from tlog.errors import ConfigError
from tlog.segments import Segment, Segments
from tlog.store.cosigned import Frozen
from tlog_client.transport import is_web, new_session, read_body
from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.errors import TlogError
from tlog_core.merkle import range_hash

_SECONDS: Final = 5.0
_MAX_NOTE_BYTES: Final = 1 << 16
_NOT_FOUND: Final = 404


def read_peers(path: Path) -> list[str]:
    """Return the URLs in a file, one a line, where lines that begin with # say nothing; ConfigError."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    urls = [line.rstrip("/") for line in lines if line and not line.startswith("#")]
    for url in urls:
        if not is_web(url) or "?" in url:
            raise ConfigError(f"{path}: not the URL of a peer: {url}; expected such as https://monitor.example")
    return urls


class Peers:
    """Which segments the peers were asked about, for the threads of one process."""

    def __init__(self, urls: Sequence[str], log: FilteringBoundLogger, clock: Callable[[], int]) -> None:
        """Ask at these URLs; the clock is in milliseconds."""
        self._urls = urls
        self._log = log
        self._clock = clock
        self._changed = Condition()
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._ends: dict[str, float] = {}
        self._asked: set[str] = set()

    def keep(self, segments: Segments) -> None:
        """Ask about what is waited for from now on, in a thread that ends with the process."""

        def loop() -> None:
            with new_session(_SECONDS) as session:
                while True:
                    self._ask(segments, session, self._queue.get())

        Thread(target=loop, name="peers", daemon=True).start()

    def wait(self, segment: str, seconds: float) -> bool:
        """Tell whether the peers were asked about a segment, after waiting so long at most."""
        if segment in self._asked or not seconds:
            return segment in self._asked
        with self._changed:
            now = time.monotonic()
            if segment not in self._ends:
                self._ends[segment] = now + seconds
                self._queue.put(segment)
            left = max(0.0, self._ends[segment] - now)
            return self._changed.wait_for(lambda: segment in self._asked, left)

    def _ask(self, segments: Segments, session: requests.Session, name: str) -> None:
        try:
            with segments.use(name) as segment:
                for url in self._urls:
                    self._ask_one(segment, session, url)
        except Exception as error:  # one segment that is damaged does not keep the others from being asked about
            self._log.error("asking peers failed", segment=name, exc_info=error)
            with self._changed:
                del self._ends[name]
            return
        with self._changed:
            self._asked.add(name)
            self._changed.notify_all()

    def _ask_one(self, segment: Segment, session: requests.Session, url: str) -> None:
        try:
            found = _fetch(session, f"{url}/{hashlib.sha256(segment.row.origin.encode()).hexdigest()}/checkpoint")
            head = None if found is None else open_checkpoint(found, segment.signer.verifier)
        except OSError as error:
            # Unlike witnesses, of whom a quorum is known to have seen each cosigned head, they need not answer.
            self._log.warning("peer silent", peer=url, segment=segment.row.name, reason=type(error).__name__)
        except TlogError as error:
            self._log.warning("peer silent", peer=url, segment=segment.row.name, reason=str(error))
        else:
            # If what is here cannot be read, the peer was not silent: it is asked again.
            if head is not None:
                self._judge(segment, url, head)

    def _judge(self, segment: Segment, url: str, found: Checkpoint) -> None:
        head = segment.store.head()
        if found.size > head.size:
            reason = (
                f"the peer {url} has seen {found.size} entries under the log's signature, and the segment has fewer"
            )
        elif range_hash(0, found.size, segment.nodes.at(head.size)) != found.root:
            reason = f"the peer {url} has seen another history under the log's signature"
        else:
            return
        with segment.writing() as transaction:
            behind = found.size > head.size
            done = transaction.freeze(Frozen(self._clock(), url, found.size, reason), behind=behind)
        if done:
            self._log.error("frozen", segment=segment.row.name, peer=url, size=found.size, reason=reason)


def _fetch(session: requests.Session, url: str) -> bytes | None:
    end = time.monotonic() + _SECONDS
    with session.get(url, timeout=_SECONDS, allow_redirects=False, stream=True) as response:
        body = read_body(response, limit=_MAX_NOTE_BYTES, end=end)
        if response.status_code == _NOT_FOUND:
            return None
        response.raise_for_status()
        return body
