"""Rounds: one head of one segment is cosigned by all witnesses, asked in parallel (`spec/witnessing.md`).

Between workers a file lock for each segment puts the rounds in order, and each begins with what is on disk: so no head
is asked for twice, and none is missed.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures import TimeoutError as LateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Final

import requests
from structlog.typing import FilteringBoundLogger

from tlog.config import Config
from tlog.errors import CorruptError
from tlog.files import exclusive
from tlog.metrics import Metrics
from tlog.segments import Segment, Segments
from tlog.store.connection import DatabaseError
from tlog.store.cosigned import CosignedHead, Frozen, WitnessLine
from tlog.store.segment import Head
from tlog.witnesses.agenda import PAUSE, Again
from tlog.witnesses.confirmed import Confirmed
from tlog.witnesses.lane import Backoff, Lane
from tlog.witnesses.request import ANSWER_SECONDS, Answer, Cosigned, Latest, Refused, submit
from tlog_core.errors import ProofError, TlogError
from tlog_core.evidence import MAX_AHEAD
from tlog_core.merkle import Hash, range_hash
from tlog_core.note import Note, parse_note
from tlog_core.policy import TrustedWitness, TrustPolicy
from tlog_core.proof import prove_consistency, verify_consistency

_REFUSED_SECONDS: Final = 60.0
_FLYING_SECONDS: Final = 1.0
_EVERY_SEGMENT: Final = ("unreachable", "busy")

Line = tuple[int, str]
"""A cosignature: its time in POSIX seconds, and the signature line."""


@dataclass(slots=True)
class _Round:
    """One head of a segment, and the cosignatures of it so far, by the name of the witness."""

    segment: str
    head: Head
    note: Note
    lock: Lock = field(default_factory=Lock)
    lines: dict[str, Line] = field(default_factory=dict)


class Rounds:
    """The rounds of one process; threads share them."""

    def __init__(
        self,
        config: Config,
        panel: TrustPolicy,
        segments: Segments,
        metrics: Metrics,
        log: FilteringBoundLogger,
        *,
        clock: Callable[[], int],
        ended: Callable[[], None],
        confirmed: Confirmed,
    ) -> None:
        """Ask the witnesses of `panel`; `clock` is in milliseconds, `ended` hears when there may be cosignatures.

        Those who have not said that a segment is `confirmed` are asked although they have cosigned its head.
        """
        self._config = config
        self._panel = panel
        self._segments = segments
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._ended = ended
        self._confirmed = confirmed
        self._lanes: Mapping[str, Lane[Line | None]] = {one.name: Lane(one.name) for one in panel.witnesses}
        self._backoff = Backoff()
        self._flying: set[tuple[str, str]] = set()

    def ask(self, name: str, *, fresh: float | None = None) -> Again | None:
        """Have the head of a segment cosigned; return when to try again if the quorum is not reached.

        If the quorum has cosigned it nobody is asked, unless it is to be `fresh`: then all who did so before that many
        seconds are asked anew.
        """
        try:
            return self._ask(name, fresh)
        finally:
            # Also if another worker was faster, whose rounds nobody else tells here.
            self._ended()

    def _ask(self, name: str, fresh: float | None) -> Again | None:
        with self._segments.use(name) as segment, exclusive(self._config.asking(segment.row.id)):
            # Read only under the lock: whoever held it before may have asked for this head.
            head = segment.store.head()
            if segment.frozen() is not None:
                return None
            known = {row.vkey: row for row in segment.store.cosignatures()}
            lines = _lines_of(known, head, self._panel)
            newest, silent = newest_of(segment, self._panel), self._confirmed.silent(name)
            if fresh is None and newest is not None and newest.size == head.size and not silent:
                return None
            horizon = -math.inf if fresh is None else self._clock() / 1000 - fresh
            wanted = [
                one
                for one in self._panel.witnesses
                if one.name in silent or one.name not in lines or lines[one.name][0] <= horizon
            ]
            segment.settle(head)
            asked = _Round(name, head, parse_note(head.note), lines=lines)
            sizes = {one.name: known[str(one.key)].size if str(one.key) in known else 0 for one in wanted}
            return self._run(segment, asked, wanted, sizes)

    def _run(
        self, segment: Segment, asked: _Round, wanted: list[TrustedWitness], sizes: Mapping[str, int]
    ) -> Again | None:
        now = time.monotonic()
        ready = [one for one in wanted if self._backoff.until(one.name, asked.segment) <= now]
        ready = [one for one in ready if (one.name, asked.segment) not in self._flying]
        answered = {name: line for name, line in asked.lines.items() if name not in sizes}
        futures: dict[Future[Line | None], TrustedWitness] = {}
        for one in ready:
            self._flying.add((one.name, asked.segment))
            work = partial(self._consult, asked, one, sizes[one.name])
            futures[self._lanes[one.name].submit(work)] = one
        waiting = set(futures)
        with suppress(LateError):
            for future in as_completed(futures, timeout=ANSWER_SECONDS):
                waiting.discard(future)
                line = self._land(asked, futures[future], future)
                if line is not None:
                    answered[futures[future].name] = line
                # The others may take their time.
                if _time_of(self._panel, answered) is not None:
                    break
        try:
            if len(waiting) < len(futures):
                self._store(segment, asked)
        finally:
            for future in waiting:
                future.add_done_callback(partial(self._come_late, asked, futures[future]))
        with asked.lock:
            reached = _time_of(self._panel, asked.lines) is not None
        silent = self._confirmed.silent(asked.segment)
        missing = [one for one in wanted if one.name in silent or one.name not in asked.lines]
        if (reached and not silent) or not missing:
            return None
        # Who has cosigned this head is to have the next one, whoever else cannot be asked.
        return Again(
            missing=min(self._retry(one, asked.segment) for one in missing),
            anyone=min(self._retry(one, asked.segment) for one in self._panel.witnesses),
        )

    def _retry(self, witness: TrustedWitness, segment: str) -> float:
        """Return when a witness that is missing may be asked again; one that has not answered yet, a while later."""
        pause = _FLYING_SECONDS if (witness.name, segment) in self._flying else PAUSE
        return max(time.monotonic() + pause, self._backoff.until(witness.name, segment))

    def _land(self, asked: _Round, witness: TrustedWitness, future: "Future[Line | None]") -> Line | None:
        self._flying.discard((witness.name, asked.segment))
        error = future.exception()
        if error is not None:
            self._backoff.failed(witness.name, asked.segment)
            self._log.error("asking failed", segment=asked.segment, witness=witness.name, exc_info=error)
            return None
        line = future.result()
        if line is not None:
            with asked.lock:
                asked.lines[witness.name] = line
        return line

    def _come_late(self, asked: _Round, witness: TrustedWitness, future: "Future[Line | None]") -> None:
        """Store what came after the round was over."""
        if self._land(asked, witness, future) is not None:
            try:
                with self._segments.use(asked.segment) as segment:
                    self._store(segment, asked)
                self._ended()
            except (TlogError, DatabaseError, OSError) as error:
                self._log.error("asking failed", segment=asked.segment, witness=witness.name, exc_info=error)

    def _store(self, segment: Segment, asked: _Round) -> None:
        """Store the cosignatures of a round, and its head if they make the quorum, and tell who waits."""
        with asked.lock:
            lines = dict(asked.lines)
        head, reached = asked.head, _time_of(self._panel, lines)
        with segment.writing() as transaction:
            for one in self._panel.witnesses:
                if one.name in lines:
                    when, line = lines[one.name]
                    transaction.put_cosignature(WitnessLine(str(one.key), head.size, head.root, when, line))
            if reached is not None:
                # In one order, so that the same lines make the same note.
                note = bytes(asked.note) + "".join(sorted(line for _, line in lines.values())).encode()
                transaction.put_cosigned(
                    CosignedHead(head.size, head.root, reached, head.time, note),
                    afresh=newest_of(segment, self._panel) is None,
                )
        if reached is not None:
            self._metrics.cosigned(reached)

    def _consult(self, asked: _Round, witness: TrustedWitness, old: int, session: requests.Session) -> Line | None:
        """Ask one witness, from where it stands, and return its cosignature; None if it gave none."""
        with self._segments.use(asked.segment) as segment:
            answer = submit(session, witness, old, _prove(segment, old, asked.head), asked.note)
            if isinstance(answer, Latest) and answer.size != old and answer.size <= asked.head.size:
                self._metrics.witness_answered(witness.name, "behind")
                old = answer.size
                answer = submit(session, witness, old, _prove(segment, old, asked.head), asked.note)
            answer = _dated(answer, self._clock() // 1000)
            if isinstance(answer, Cosigned):
                self._metrics.witness_answered(witness.name, "cosigned")
                self._backoff.answered(witness.name, asked.segment)
                self._confirmed.heard(asked.segment, witness.name)
                return answer.time, str(answer.line)
            self._fail(segment, asked, witness, answer)
            return None

    def _fail(self, segment: Segment, asked: _Round, witness: TrustedWitness, answer: Latest | Refused) -> None:
        if isinstance(answer, Latest):
            if answer.size <= asked.head.size:
                refused = Refused("invalid", f"it names the size {answer.size}, and then refuses a proof from there")
            else:
                refused = Refused("ahead", f"it has cosigned {answer.size} entries, and the segment has fewer")
                if not self._freeze(segment, witness, answer.size, refused.reason, behind=True):
                    # By now there are as many: it has seen a later head than the one it was asked for.
                    self._metrics.witness_answered(witness.name, "behind")
                    return
            answer = refused
        elif answer.outcome == "unknown":
            self._confirmed.heard(asked.segment, witness.name)
        elif answer.outcome == "contradicts":
            self._freeze(segment, witness, asked.head.size, answer.reason, behind=False)
        self._metrics.witness_answered(witness.name, answer.outcome)
        everywhere = answer.outcome in _EVERY_SEGMENT
        if everywhere:
            first = self._backoff.failed(witness.name)
        else:
            first = self._backoff.failed(
                witness.name, asked.segment, first=_REFUSED_SECONDS, longest=10 * _REFUSED_SECONDS
            )
        # Once, and not for each segment or at each try.
        if first:
            where = {} if everywhere else {"segment": asked.segment}
            self._log.warning(
                "not cosigned", witness=witness.name, outcome=answer.outcome, reason=answer.reason, **where
            )

    def _freeze(self, segment: Segment, witness: TrustedWitness, size: int, reason: str, *, behind: bool) -> bool:
        text = f"the witness {witness.key.name} was asked, and {reason}"
        frozen = Frozen(self._clock(), witness.key.name, size, text)
        with segment.writing() as transaction:
            done = transaction.freeze(frozen, behind=behind)
        if done:
            self._metrics.froze(segment.row.name)
            self._log.error("frozen", segment=segment.row.name, witness=witness.name, size=size, reason=text)
        return done


def newest_of(segment: Segment, panel: TrustPolicy) -> CosignedHead | None:
    """Return the newest head of a segment that the quorum has cosigned, None if there is none yet."""
    head = segment.store.cosigned()
    # It may be from before the witnesses were others.
    return None if head is None or panel.quorum_time(panel.times(parse_note(head.note))) is None else head


def _lines_of(known: Mapping[str, WitnessLine], head: Head, panel: TrustPolicy) -> dict[str, Line]:
    """Return the cosignatures of exactly this head that are stored, by the names of the witnesses."""
    rows = {one.name: known[str(one.key)] for one in panel.witnesses if str(one.key) in known}
    return {name: (row.time, row.line) for name, row in rows.items() if (row.size, row.root) == (head.size, head.root)}


def _time_of(panel: TrustPolicy, lines: Mapping[str, Line]) -> int | None:
    return panel.quorum_time({name: when for name, (when, _) in lines.items()})


def _dated(answer: Answer, now: int) -> Answer:
    """Return the answer; for a cosignature that is dated too far ahead, a refusal: it would outlast all later ones."""
    if isinstance(answer, Cosigned) and answer.time > now + MAX_AHEAD:
        return Refused("invalid", f"its cosignature is dated {answer.time - now} seconds ahead of this log's clock")
    return answer


def _prove(segment: Segment, old: int, head: Head) -> Sequence[Hash]:
    """Return the proof that a head extends the tree of `old` entries; CorruptError if the stored tree is damaged.

    It was checked: if a witness says that it does not hold, the witness has seen another tree.
    """
    node = segment.nodes.at(head.size)
    proof = prove_consistency(old_size=old, new_size=head.size, node=node)
    root = range_hash(0, old, segment.nodes.at(old))
    try:
        verify_consistency(old_size=old, new_size=head.size, old_root=root, new_root=head.root, proof=proof)
    except ProofError as error:
        raise CorruptError(f"the stored tree of {segment.row.name} is damaged: {error}; run tlog fsck") from None
    return proof
