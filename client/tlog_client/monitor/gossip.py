"""Gossip with other monitors (`spec/gossip.md`): whom to ask, what to tell, what to make of what is heard.

It has no clock, no randomness and no network of its own: `run` drives it on a thread, a simulation drives it too.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from threading import Event, Lock
from typing import Final

from tlog_client.errors import BudgetError
from tlog_client.monitor.budget import MAX_REQUESTS, REQUEST_MILLISECONDS, Count, Faults, later
from tlog_client.monitor.judge import Heard, Judge
from tlog_core.bulletin import Round
from tlog_core.checkpoint import parse_head
from tlog_core.errors import EvidenceError, FetchError, MalformedError, SignatureError, TlogError
from tlog_core.evidence import MAX_EVIDENCE_BYTES, Evidence, accused_witness, evidence_heads, parse_evidence
from tlog_core.gossip import (
    MAX_HEAD_BYTES,
    MAX_HEADS,
    MAX_MESSAGE_BYTES,
    Message,
    Peer,
    evidence_line,
    head_line,
    parse_message,
    sign_message,
)
from tlog_core.note import Note, SignerKey, open_parsed, parse_note, sign_note

FANOUT: Final = 3
ROUND_MILLISECONDS: Final = 60_000
JITTER: Final = 0.2
MAX_SKEW: Final = 300_000
"""How many milliseconds the clocks of two monitors may differ, and a message be on its way."""

MAX_EVIDENCE_LINES: Final = 49_152
"""How many bytes the lines of evidence may take of a message: a convicted log leaves room for the others."""

MAX_HEADS_READ: Final = 65_536
"""How many heads are gone through, in turn; a monitor of more logs does not tell of the rest."""


class TooLargeError(TlogError):
    """A request is larger than any message."""


class StrangerError(TlogError):
    """A request is not by a peer, not for us, or not of now."""


class BusyError(TlogError):
    """A peer has used up its budget; `wait` is how many seconds until it may ask again."""

    def __init__(self, message: str, *, wait: int) -> None:
        """Keep the wait, given in milliseconds."""
        super().__init__(message)
        self.wait = -(-wait // 1000)


class Outcome(Enum):
    """How an exchange that we began ended."""

    HEARD = "heard"
    UNREACHABLE = "unreachable"
    WRONG = "wrong"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of an exchange with a peer: why it failed, if it did; what was new; what was wrong."""

    peer: Peer
    outcome: Outcome
    reason: str = ""
    evidence: int = 0
    faults: int = 0

    def __str__(self) -> str:
        """Return how it ended, for people."""
        return f"peer {self.peer.key.name}: {self.outcome.value} {self.reason}".rstrip()


@dataclass(slots=True)
class _Turns:
    """Where in a list of items we are towards a peer, so that in the end all is told."""

    line: Callable[[bytes], str]
    largest: int
    most: int
    turn: int = 0

    def choose(self, items: Sequence[bytes], *, room: int, known: frozenset[bytes]) -> tuple[bytes, ...]:
        """Return what to tell next: what is not known, as many as may be, with lines of at most `room` bytes."""
        start = self.turn % max(1, len(items))
        chosen: dict[bytes, None] = {}
        for place in [*range(start, len(items)), *range(start)]:
            raw = items[place]
            if raw in known or raw in chosen or len(raw) > self.largest:
                continue
            room -= len(self.line(raw)) + 1
            if room < 0 or len(chosen) == self.most:
                self.turn = place
                break
            chosen[raw] = None
        return tuple(chosen)


@dataclass(slots=True)
class _Contact:
    """All that is kept of a peer."""

    peer: Peer
    requests: Count = field(default_factory=lambda: Count(MAX_REQUESTS, REQUEST_MILLISECONDS))
    faults: Faults = field(default_factory=Faults)
    received: int = -1
    sent: int = -1
    evidence: _Turns = field(default_factory=lambda: _Turns(evidence_line, MAX_EVIDENCE_BYTES, MAX_MESSAGE_BYTES))
    heads: _Turns = field(default_factory=lambda: _Turns(head_line, MAX_HEAD_BYTES, MAX_HEADS))


class Gossip:
    """One monitor among its peers. Threads may share it."""

    def __init__(
        self,
        me: SignerKey,
        peers: Iterable[Peer],
        judge: Judge,
        *,
        clock: Callable[[], int],
        random: random.Random,
        send: Callable[[Peer, bytes], bytes],
    ) -> None:
        """Take our key, the list of peers, and the judge of what they say.

        `clock` gives milliseconds since the epoch. `random` is unforeseeable: whoever knows whom we ask next can
        prepare. `send` brings a request to a peer and returns the answer, of any bytes, or raises FetchError.
        """
        self.news = Event()
        self.last: Round | None = None
        """The last round that ended, None before the first has."""
        self._me = me
        self._judge = judge
        self._clock = clock
        self._random = random
        self._send = send
        self._lock = Lock()
        self._told: list[bytes] = []
        self._logs = {(log.key.name, log.key.id) for log in judge.given.logs}
        self._witnesses = {witness.key for witness in judge.given.witnesses}
        others = [peer for peer in peers if peer.key.public != me.verifier.public]
        self._peers = {(peer.key.name, peer.key.id): peer for peer in others}
        self._contacts: dict[Peer, _Contact] = {}
        self._callable = [peer for peer in others if peer.url]
        self._signature_bytes = len(bytes(sign_note("", me)))

    def round(self, *, spread: Callable[..., Iterable[Report]] = map) -> tuple[Report, ...]:
        """Exchange with peers drawn afresh, and say what came of it; `spread` may be the `map` of an executor."""
        reports = tuple(spread(self.exchange, self.draw()))
        heard = sum(report.outcome is Outcome.HEARD for report in reports)
        self.last = Round(self._clock(), len(reports), heard)
        return reports

    def draw(self) -> list[Peer]:
        """Return the peers of a round, which tells what news there was."""
        self.news.clear()
        self._told = self._judge.memory.evidence(1)
        return self._random.sample(self._callable, min(FANOUT, len(self._callable)))

    def notice(self) -> None:
        """Set `news` if there is evidence that the last round did not know of."""
        if self._judge.memory.evidence(1) != self._told:
            self.news.set()

    def exchange(self, peer: Peer) -> Report:
        """Tell a peer what we know, and hear what it does; no failure raises."""
        request = self.ask(peer)
        try:
            answer = self._send(peer, request)
        except FetchError as error:
            return Report(peer, Outcome.UNREACHABLE, str(error))
        return self.take(peer, request, answer)

    def ask(self, peer: Peer) -> bytes:
        """Return the request to send to a peer."""
        contact = self._contact(peer)
        with self._lock:
            time = contact.sent = later(self._clock(), contact.sent, skew=MAX_SKEW)
        return self._compose(contact, Message(peer.key, time))

    def take(self, peer: Peer, request: bytes, answer: bytes) -> Report:
        """Hear the answer of a peer to a request."""
        contact = self._contact(peer)
        if contact.faults.wait(self._clock()):
            return Report(peer, Outcome.IGNORED, "in back-off")
        try:
            return self._hear(contact, self._open_answer(peer, request, answer))
        except (MalformedError, SignatureError, StrangerError) as error:
            return Report(peer, Outcome.WRONG, str(error))

    def answer(self, raw: bytes) -> bytes:
        """Hear a request, and return the answer to it.

        Raises TooLargeError, MalformedError, StrangerError, SignatureError or BusyError, in the order of the
        specification.
        """
        contact, message = self._accept(raw)
        self._hear(contact, message)
        told = frozenset((*message.evidence, *message.heads))
        answer = Message(contact.peer.key, self._clock(), request=hashlib.sha256(raw).digest())
        return self._compose(contact, answer, known=told)

    def _contact(self, peer: Peer) -> _Contact:
        # Made when the first message comes or goes: never more than there are peers in the list.
        return self._contacts.setdefault(peer, _Contact(peer))

    def _accept(self, raw: bytes) -> tuple[_Contact, Message]:
        if len(raw) > MAX_MESSAGE_BYTES:
            raise TooLargeError(f"a message has at most {MAX_MESSAGE_BYTES} bytes")
        signed, now = parse_message(raw), self._clock()
        message, peer = signed.message, self._peers.get(signed.sender)
        if message.request is not None:
            raise MalformedError("an answer, where a request is due")
        if peer is None:
            raise StrangerError("not signed by a peer of ours; are both of us in the list?")
        self._check_addressed(message, now)
        contact = self._contact(peer)
        # Before the signature, so that what a stranger sends again and again costs nothing; nothing is kept of it.
        _check_later(message, contact, now)
        _check_backoff(contact, now)
        open_parsed(signed.note, [contact.peer.key])
        with self._lock:
            # Again, and at once with keeping the time: of two equal requests at one moment, one is heard.
            _check_later(message, contact, now)
            _check_backoff(contact, now)
            if wait := contact.requests.wait(now):
                raise BusyError("too many requests", wait=wait)
            contact.requests.take(now)
            contact.received = message.time
        return contact, message

    def _open_answer(self, peer: Peer, request: bytes, answer: bytes) -> Message:
        signed = parse_message(answer)
        self._check_addressed(signed.message, self._clock())
        if signed.message.request != hashlib.sha256(request).digest():
            raise StrangerError("an answer to something else")
        open_parsed(signed.note, [peer.key])
        return signed.message

    def _check_addressed(self, message: Message, now: int) -> None:
        if message.to != self._me.verifier:
            raise StrangerError(f"not for {self._me.verifier}, which is answering here")
        if abs(message.time - now) > MAX_SKEW:
            raise StrangerError(
                f"signed at {message.time}, and now it is {now}, in milliseconds; are the clocks right?"
            )

    def _hear(self, contact: _Contact, message: Message) -> Report:
        fresh = faults = 0
        items = [(self._hear_evidence, raw) for raw in message.evidence]
        items += [(self._hear_head, raw) for raw in message.heads]
        for hear, raw in items:
            digest = hashlib.sha256(raw).digest()
            if digest in contact.faults.digests:
                continue
            if contact.faults.wait(self._clock()):
                break
            try:
                fresh += hear(raw, contact.peer.key.name)
            except (MalformedError, SignatureError, EvidenceError):
                faults += 1
                with self._lock:
                    contact.faults.charge(digest, self._clock())
            except BudgetError:
                # One more unresolved head than the judge keeps for this peer, or for this log: it says so itself.
                continue
        # What convicts again is not news, or a peer could have us make a further round each minute.
        if fresh:
            self.notice()
        return Report(contact.peer, Outcome.HEARD, evidence=fresh, faults=faults)

    def _hear_evidence(self, raw: bytes, source: str) -> bool:
        return not self._is_foreign(parse_evidence(raw)) and self._judge.hear_evidence(raw, source=source)

    def _hear_head(self, raw: bytes, source: str) -> bool:
        if not self._is_ours(parse_note(raw)):
            return False
        return self._judge.hear_head(raw, source=source) is Heard.CONVICTS

    def _is_foreign(self, evidence: Evidence) -> bool:
        witness = accused_witness(evidence)
        if witness is not None:
            return witness not in self._witnesses
        return not all(map(self._is_ours, evidence_heads(evidence)))

    def _is_ours(self, note: Note) -> bool:
        # A peer may follow other logs, or know keys that we do not: there is nothing to verify, and nothing to blame.
        origin = parse_head(note.text).origin
        return any(line.name == origin and (origin, line.key_id) in self._logs for line in note.signatures)

    def _compose(self, contact: _Contact, message: Message, *, known: frozenset[bytes] = frozenset()) -> bytes:
        evidence, heads = self._judge.evidence(), self._judge.heads(MAX_HEADS_READ)
        room = MAX_MESSAGE_BYTES - self._signature_bytes - len(str(message).encode())
        with self._lock:
            first = contact.evidence.choose(evidence, room=min(room, MAX_EVIDENCE_LINES), known=known)
            room -= sum(len(evidence_line(raw)) + 1 for raw in first)
            then = contact.heads.choose(heads, room=room, known=known)
        return sign_message(replace(message, evidence=first, heads=then), self._me)


class Timetable:
    """When the rounds are. Times are milliseconds of any clock that only goes forward."""

    def __init__(self, now: int, random: random.Random) -> None:
        """Begin at a random moment of the first round, so that monitors started together do not stay together."""
        self._random = random
        self._regular = now + int(random.random() * ROUND_MILLISECONDS)
        self._extra = now

    def wait(self, now: int, *, news: bool) -> int:
        """Return how long it is until the next round; at 0 it is now. With news it may be sooner."""
        due = min(self._regular, self._extra) if news else self._regular
        return max(0, due - now)

    def done(self, now: int) -> None:
        """Note that a round was made."""
        if now >= self._regular:
            self._regular = now + int(ROUND_MILLISECONDS * self._random.uniform(1 - JITTER, 1 + JITTER))
        else:
            self._extra = now + ROUND_MILLISECONDS


def _check_later(message: Message, contact: _Contact, now: int) -> None:
    # A time far ahead was kept by a clock that was set back since.
    if contact.received <= now + MAX_SKEW and message.time <= contact.received:
        raise StrangerError("not later than the last request; it was sent again, or has overtaken another")


def _check_backoff(contact: _Contact, now: int) -> None:
    if wait := contact.faults.wait(now):
        raise BusyError("too much that was wrong", wait=wait)
