"""What a monitor says in public of the logs that it follows (`spec/bulletin.md`): composing it, and posting it."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from tlog_client.errors import RefusedError
from tlog_client.monitor.app import TEXT, Answer, Handler
from tlog_client.monitor.budget import later
from tlog_client.monitor.finding import Class
from tlog_client.monitor.judge import Judge
from tlog_client.monitor.memory import Known, Memory
from tlog_client.monitor.source import log_transports
from tlog_client.transport import MAX_PROBLEM_BYTES, Backoff
from tlog_core.bulletin import MAX_AHEAD, Bulletin, Round, Tally, Verified, sign_bulletin
from tlog_core.checkpoint import parse_checkpoint
from tlog_core.errors import FetchError, MalformedError
from tlog_core.note import SignerKey, parse_note
from tlog_core.policy import TrustedLog

EVERY: Final = 300_000
"""Milliseconds after which what has not changed is said again."""

POST_SECONDS: Final = 5.0
"""How long a log may take to take one: the next look at it waits for that."""

_CONFLICT: Final = 409
_NOT_LATER: Final = "the log has a later one by this key: another monitor uses the key, or the clock is behind"

SendBulletin = Callable[[TrustedLog, bytes], None]
"""Given a log and a bulletin, have the log take it; raises FetchError."""


@dataclass(slots=True)
class _Posted:
    """Of a log: the last time that was signed; what was taken last, less its times, and when, in milliseconds."""

    signed: int = 0
    taken: Bulletin | None = None
    at: int = 0
    failing: bool = False


class Herald:
    """Says what a monitor knows of each log. Its threads each have a log of their own."""

    def __init__(
        self,
        signer: SignerKey,
        judge: Judge,
        *,
        gossip: Callable[[], Round | None],
        clock: Callable[[], int],
        send: SendBulletin,
        say: Callable[[str], None],
    ) -> None:
        """Sign by this key; `clock` gives milliseconds since the epoch, `gossip` the last round, if there was one.

        `say` hears when bulletins begin to fail, and when they no longer do.
        """
        self._signer = signer
        self._judge = judge
        self._gossip = gossip
        self._clock = clock
        self._send = send
        self._say = say
        self._posted = {origin: _Posted() for origin in judge.origins}

    def now(self, origin: str) -> bytes:
        """Return what there is to say of a log, signed now; raise StateError."""
        return sign_bulletin(self._compose(origin), self._signer)

    def post(self, log: TrustedLog) -> None:
        """Tell a log what there is to say of it, if that has changed or is old; raise StateError, and nothing else."""
        origin = log.key.name
        bulletin, posted = self._compose(origin), self._posted[origin]
        timeless = _timeless(bulletin)
        if timeless == posted.taken and 0 <= bulletin.time - posted.at < EVERY:
            return
        failure = self._try(log, bulletin, posted)
        if not failure:
            posted.taken, posted.at = timeless, bulletin.time
        if bool(failure) is not posted.failing:
            self._say(f"bulletin for {origin}: {failure or 'taken again'}")
        posted.failing = bool(failure)

    def _try(self, log: TrustedLog, bulletin: Bulletin, posted: _Posted) -> str:
        """Return why the log has not taken a bulletin; nothing if it has."""
        # Of two that were signed at one time only one is taken: the second attempt is later.
        for _ in range(2):
            posted.signed = later(self._clock(), posted.signed, skew=MAX_AHEAD)
            try:
                self._send(log, sign_bulletin(replace(bulletin, time=posted.signed), self._signer))
            except (FetchError, MalformedError) as error:
                if not (isinstance(error, RefusedError) and error.status == _CONFLICT):
                    return str(error)
            else:
                return ""
        return _NOT_LATER

    def _compose(self, origin: str) -> Bulletin:
        memory = self._judge.memory
        # Of one moment: no conviction without its evidence.
        with memory.transaction():
            log = memory.known(origin)
            return Bulletin(
                origin,
                self._clock(),
                _verified(log),
                self._gossip(),
                memory.is_convicted(origin),
                _tallies(memory, log),
            )


def bulletin_routes(herald: Herald, judge: Judge) -> Mapping[tuple[str, str], Handler]:
    """Return the routes by which whoever asks hears what is said of each log now."""

    def answer(origin: str, _: bytes) -> Answer:
        return Answer(200, TEXT, herald.now(origin))

    return {
        ("GET", f"/{sha256(origin.encode()).hexdigest()}/bulletin"): partial(answer, origin) for origin in judge.origins
    }


def http_sender(token: str | Path | None, *, seconds: float = POST_SECONDS) -> SendBulletin:
    """Return what posts bulletins over HTTP, once each; `token` is shown to the logs."""
    transport_of = log_transports(token, timeout=seconds, backoff=Backoff(attempts=1), deadline=seconds)

    def send(log: TrustedLog, raw: bytes) -> None:
        transport_of(log).post("bulletins", raw, content_type=TEXT, limit=MAX_PROBLEM_BYTES, expected=204)

    return send


def _verified(log: Known) -> Verified | None:
    if not log.note:
        return None
    head = parse_checkpoint(parse_note(log.note).text)
    return Verified(head.size, head.root, log.seen * 1000)


def _tallies(memory: Memory, log: Known) -> tuple[Tally, ...]:
    lasting = Counter(kind for kind, _ in memory.troubles(log))
    found = [Tally(Class.COMPLAINT.value, kind, number) for kind, number in lasting.items()]
    for origin, name, kind, number in memory.counted():
        if origin == log.origin and name != Class.COMPLAINT.value:
            found.append(Tally(name, kind, number))
    return tuple(sorted(found, key=lambda one: (one.found, one.kind)))


def _timeless(bulletin: Bulletin) -> Bulletin:
    head, gossip = bulletin.head, bulletin.gossip
    return replace(bulletin, time=0, head=head and replace(head, time=0), gossip=gossip and replace(gossip, time=0))
