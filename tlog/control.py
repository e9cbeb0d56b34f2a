"""Changes of who may do what: each is an entry of the segment `control` before it takes effect (spec/access.md).

`control.db` holds what the entries come to. A change is made in one transaction on it: its rows, then the entry, which
is durable in `control`, then the commit. What a crash leaves between those two is done by whoever comes next.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from tlog.access import ANONYMOUS, Principal
from tlog.access.action import CONTROL, RESERVED
from tlog.access.change import (
    AccessApproved,
    AccessRequested,
    Change,
    IssuersChanged,
    KeyAdded,
    KeyRemoved,
    PolicyApplied,
    SegmentAccepted,
    SegmentCreated,
    SegmentSealed,
    SegmentSucceeded,
    TokenIssued,
    TokenRevoked,
    TokenRotated,
    decode_change,
    encode_change,
)
from tlog.access.document import parse_policy
from tlog.access.issuer import read_issuers
from tlog.access.lockout import check_lockout
from tlog.access.rule import Address, Policy
from tlog.access.token import (
    ID_BYTES,
    MAX_DAYS,
    MAX_OVERLAP_DAYS,
    SECRET_BYTES,
    Presented,
    Token,
    TokenHash,
    check_principal,
    token_from_random,
)
from tlog.anchor import Anchor
from tlog.config import MAX_PAGE, Config
from tlog.errors import (
    ConflictError,
    CorruptError,
    FrozenError,
    NotFoundError,
    OutcomeUnknownError,
    SealedError,
    UnavailableError,
)
from tlog.files import SharedNumber, exclusive
from tlog.latest import anchored
from tlog.segments import Segment, Segments, missing_files
from tlog.store.changes import AccessRequest, Changing, SegmentRow
from tlog.store.connection import DatabaseError
from tlog.store.control import ControlStore
from tlog.store.cosigned import BY_FSCK, Frozen
from tlog.store.segment import SegmentStore
from tlog.submit import SUCCESSION_WRITER, append, commit_to, seal
from tlog_core.encoding import canonicalize
from tlog_core.errors import MalformedError
from tlog_core.note import parse_verifier
from tlog_core.receipt import JSON_TYPE
from tlog_core.writer import parse_writer_key

OPERATOR: Final = "tlog/operator"
"""Who makes the changes that are made on the machine itself."""

MAX_ACCESS_MINUTES: Final = 60
"""How long break-glass lasts at most."""

MAX_REASON: Final = 500
"""How many characters the reason for it has at most."""

_FEW: Final = 16

_SECOND: Final = 1_000
_MINUTE: Final = 60_000
_DAY: Final = 86_400_000


class Control:
    """What changes who may do what, for the threads of one process."""

    def __init__(self, config: Config, segments: Segments, clock: Callable[[], int]) -> None:
        """Take the open segments, and a clock in milliseconds."""
        self._config = config
        self._segments = segments
        self._clock = clock
        self.store: ControlStore = segments.control
        self.generation = SharedNumber(config.generation)
        """Odd while a change takes effect, and after it a number that never was before."""

    def now(self) -> int:
        """Return the time in milliseconds since the epoch."""
        return self._clock()

    def enact(self, change: Change, prepare: Callable[[], None] = lambda: None) -> None:
        """Put a change on record and in force; raise ConflictError or NotFoundError if it cannot be.

        Who asks after this has returned, in whatever process, is answered by the new state. `prepare` is called once
        the change is known to be possible, and before it is on record. Raises OutcomeUnknownError if a database fails.
        """
        try:
            self._enact(change, prepare)
        except DatabaseError as error:
            raise OutcomeUnknownError(
                "a database failed: the change may be on record, and in force sooner or later; make it again, or look"
            ) from error

    def _enact(self, change: Change, prepare: Callable[[], None]) -> None:
        with exclusive(self._config.changes), self._segments.use(CONTROL) as control:
            self._catch_up(control)
            with self._taking_effect() as changing:
                project(changing, change)
                prepare()
                entry = commit_to(writer=change.by, kind=JSON_TYPE, payloads=[encode_change(change)])
                _, logged = append(control, entry)
                changing.count_entry(logged.start)

    def catch_up(self) -> None:
        """Put in force what is on record and not in the tables, as after a crash in between."""
        with exclusive(self._config.changes), self._segments.use(CONTROL) as control:
            self._catch_up(control)

    def create_segment(
        self, by: str, name: str, labels: Mapping[str, str], *, signed: bool = False
    ) -> tuple[SegmentRow, bool]:
        """Return the segment of this name, and whether it was made now; MalformedError or ConflictError.

        One that is `signed` takes signed events only.
        """
        if name in RESERVED:
            raise ConflictError(f"{name} is a segment of tlog's own; choose another name")
        draft = self._segments.draft(name, labels, signed=signed)
        row = draft.row
        try:
            self.enact(
                SegmentCreated(
                    by=by,
                    at=row.created,
                    name=name,
                    id=row.id,
                    origin=row.origin,
                    vkey=row.vkey,
                    labels=dict(labels),
                    signed=signed,
                ),
                draft.make_files,
            )
        except (SealedError, FrozenError, UnavailableError):
            draft.remove_files()
            raise
        except ConflictError:
            there = self.store.find(name)
            if (there.labels, there.signed) != (row.labels, signed):
                raise ConflictError(
                    "a segment of this name exists with other labels, or another signed; choose another name"
                ) from None
            return there, False
        return row, True

    def seal_segment(self, by: str, name: str) -> SegmentRow:
        """Seal a segment by a last entry that says so, and return it; a sealed one stays as it is. NotFoundError."""
        if name in RESERVED:
            raise ConflictError(f"{name} is a segment of tlog's own, and stays open")
        self.finish_seal(name)
        if self.store.find(name).sealed is None:
            self._check_not_frozen(name)
            self.enact(SegmentSealed(by=by, at=self._clock(), segment=name))
            self.finish_seal(name)
        return self.store.find(name)

    def finish_seal(self, name: str) -> None:
        """Make good what there is of a seal by half: the segment's last entry by its record, or the record by that.

        Raises what `append` and `enact` raise, and CorruptError if there is no record.
        """
        row = self.store.find(name)
        with self._segments.use(name) as segment:
            head = segment.store.head()
            if head.sealed == (row.sealed is not None):
                return
            if (frozen := segment.frozen()) is not None:
                raise FrozenError(f"the segment {name} is frozen: {frozen.reason}")
            if not head.sealed:
                self._end(segment, self._end_on_record(name))
                return
            [last] = segment.store.payloads(head.size - 1, head.size)
        # Of an entry that was brought back by a receipt there may be no payload.
        lost = SegmentSealed(by=OPERATOR, at=head.time, segment=name)
        # Somebody else may have been faster.
        with suppress(ConflictError):
            self.enact(lost if last.is_lost else decode_change(last.data))

    def _end(self, segment: Segment, change: SegmentSealed | SegmentSucceeded) -> None:
        if isinstance(change, SegmentSealed):
            seal(segment, encode_change(change))
            return
        reason = f"it is closed for good, and {change.successor} goes on in its place"
        with segment.writing() as transaction:
            transaction.unfreeze()
            transaction.freeze(Frozen(self._clock(), None, transaction.head().size, reason), behind=False)

    def _end_on_record(self, name: str) -> SegmentSealed | SegmentSucceeded:
        with self._segments.use(CONTROL) as control:
            change = end_on_record(control.store, name)
        if change is None:
            raise CorruptError(f"{CONTROL} has no record of the end of {name}; run tlog fsck")
        return change

    def _check_not_frozen(self, name: str) -> None:
        with self._segments.use(name) as segment:
            if segment.frozen() is not None:
                raise FrozenError(f"the segment {name} is frozen: it takes no last entry either")

    def accept_segment(self, by: str, name: str) -> None:
        """Take what a segment has for the latest, and give it an anchor in the place of one that is gone.

        Or for whole, if `tlog fsck` has frozen it; the caller has checked it. Raises ConflictError if neither is so,
        and FrozenError if a witness knows of more.
        """
        with self._segments.use(name) as segment:
            head, path, frozen = segment.store.head(), self._config.anchor_of(segment.row.id), segment.store.frozen()
            if frozen is not None and frozen.witness != BY_FSCK:
                raise FrozenError(f"the segment {name} has not the latest, as a witness has shown; bring back the rest")
            is_gone = anchored(path, segment.signer.verifier) is None
            if frozen is None and not is_gone:
                raise ConflictError(f"the segment {name} has its anchor, which says what the latest is")
            change = SegmentAccepted(by=by, at=self._clock(), segment=name, size=head.size, root=head.root.hex())
            if name != CONTROL:
                self.enact(change)
            if is_gone:
                Anchor.create(path, head.note)
            with segment.store.write() as transaction:
                transaction.unfreeze()
            # To be opened anew, with the anchor.
            segment.sequencer.broken = True
        if name == CONTROL:
            self.enact(change)

    def succeed_segment(self, by: str, name: str, successor: str) -> SegmentRow:
        """Close a segment for good that is sealed, frozen or lost, and return the one that goes on in its place.

        The first entry of that one holds the latest signed head known of the other. Raises ConflictError if the segment
        is open, no head of it is known, another goes on in its place, or the successor has other entries.
        """
        if name in RESERVED:
            raise ConflictError(
                f"{name} is a segment of tlog's own, and nothing goes on in its place; bring back the rest"
            )
        old = self.store.find(name)
        end = None if old.sealed is None else self._end_on_record(name)
        if isinstance(end, SegmentSucceeded) and end.successor != successor:
            raise ConflictError(f"{end.successor} goes on in the place of {name} already")
        note = self._last_head(old)
        row, _ = self.create_segment(by, successor, dict(old.labels), signed=old.signed)
        self._begin_successor(by, row, old, note)
        change = SegmentSucceeded(by=by, at=self._clock(), segment=name, successor=successor)
        self._close(old, change)
        if not isinstance(end, SegmentSucceeded):
            self.enact(change)
        return row

    def _last_head(self, row: SegmentRow) -> bytes:
        """Return the latest signed head known of a segment that takes no entries; ConflictError."""
        found = anchored(self._config.anchor_of(row.id), parse_verifier(row.vkey))
        if missing_files(self._config, row):
            if found is None:
                raise ConflictError(f"neither the files of {row.name} nor its anchor are there, so no head is known")
            return found.note
        with self._segments.use(row.name) as segment:
            head = segment.store.head()
            if segment.frozen() is None and not head.sealed:
                raise ConflictError(f"the segment {row.name} takes entries; seal it first")
        return found.note if found is not None and found.checkpoint.size > head.size else head.note

    def _close(self, row: SegmentRow, change: SegmentSucceeded) -> None:
        if missing_files(self._config, row):
            return
        with self._segments.use(row.name) as segment:
            if not segment.store.head().sealed:
                self._end(segment, change)

    def _begin_successor(self, by: str, row: SegmentRow, old: SegmentRow, note: bytes) -> None:
        payload = {"by": by, "checkpoint": note.decode(), "event": "segment.succeeds", "origin": old.origin}
        first = commit_to(
            writer=SUCCESSION_WRITER, kind=JSON_TYPE, payloads=[canonicalize(json.dumps(payload).encode())]
        )
        with self._segments.use(row.name) as segment:
            if segment.store.head().size == 0:
                append(segment, first)
            elif segment.store.payloads(0, 1)[0].data != first.payloads[0]:
                raise ConflictError(f"the segment {row.name} has entries of its own; choose a new name")

    def apply_policy(self, by: str, version: int, document: str) -> int:
        """Put a policy in force in the place of the one of this version, and return its own version.

        Raises PolicyError, or ConflictError if another is in force.
        """
        parse_policy(document.encode())
        return self._replace_policy(by, version, document)

    def apply_policy_as(self, principal: Principal, address: Address | None, version: int, document: str) -> int:
        """Do the same for who asks from afar, and could not undo it if it locked them out; PolicyError if it would."""
        self.try_policy_as(principal, address, version, document)
        return self._replace_policy(principal.name, version, document)

    def try_policy_as(self, principal: Principal, address: Address | None, version: int, document: str) -> Policy:
        """Return the policy of a document that `apply_policy_as` would take now; raises as that does."""
        policy = parse_policy(document.encode())
        check_lockout(policy, principal, now=self._clock(), address=address)
        self._check_version(version)
        return policy

    def _check_version(self, version: int) -> None:
        # Whatever number a caller names, only one that is in force is counted on from.
        in_force = self.store.policy()[0]
        if version != in_force:
            raise ConflictError(f"the policy in force has version {in_force}; read it, and apply yours to that")

    def _replace_policy(self, by: str, version: int, document: str) -> int:
        self._check_version(version)
        self.enact(PolicyApplied(by=by, at=self._clock(), version=version + 1, document=document))
        return version + 1

    def issue_token(self, by: str, principal: str, groups: Sequence[str], days: float) -> Presented:
        """Return a new token, which nobody can show again; MalformedError."""
        check_principal(principal)
        for group in groups:
            check_principal(group)
        if not _SECOND <= days * _DAY <= MAX_DAYS * _DAY:
            raise MalformedError(f"a token is good for at least a second and at most {MAX_DAYS} days")
        presented, now = self._new_token(), self._clock()
        self.enact(
            TokenIssued(
                by=by,
                at=now,
                id=presented.id,
                hash=presented.hash().hex(),
                principal=principal,
                groups=tuple(sorted(set(groups))),
                expires=now + int(days * _DAY),
            )
        )
        return presented

    def rotate_token(self, by: str, token_id: str, overlap_days: float) -> Presented:
        """Return a token that takes the place of another of as long a life, which goes on for a while beside it.

        Raises NotFoundError if that one is not in use.
        """
        if not 0 <= overlap_days <= MAX_OVERLAP_DAYS:
            raise MalformedError(f"two tokens go on side by side for at most {MAX_OVERLAP_DAYS} days")
        old, now = self.store.token(token_id), self._clock()
        if old is None or now >= old.expires:
            raise NotFoundError("no such token is in use")
        presented = self._new_token()
        self.enact(
            TokenRotated(
                by=by,
                at=now,
                old=token_id,
                ends=min(old.expires, now + int(overlap_days * _DAY)),
                id=presented.id,
                hash=presented.hash().hex(),
                principal=old.principal,
                groups=old.groups,
                expires=now + old.expires - old.created,
            )
        )
        return presented

    def revoke_token(self, by: str, token_id: str) -> None:
        """Revoke a token, with effect for every request that begins after this has returned; NotFoundError."""
        self.enact(TokenRevoked(by=by, at=self._clock(), id=token_id))

    def add_key(self, by: str, vkey: str) -> bool:
        """Register a key of the writer whose name it has, and return whether it was new; MalformedError."""
        key = parse_writer_key(vkey)
        # Under this name write all the clients of an unguarded server.
        if key.name != ANONYMOUS.name:
            check_principal(key.name)
        try:
            self.enact(KeyAdded(by=by, at=self._clock(), vkey=str(key)))
        except ConflictError:
            if key not in self.store.writer_keys(key.name):
                raise ConflictError("the key was removed, and does not come back; make another") from None
            return False
        return True

    def remove_key(self, by: str, vkey: str) -> None:
        """Let nobody sign with a key any more, from when this has returned; MalformedError or NotFoundError."""
        self.enact(KeyRemoved(by=by, at=self._clock(), vkey=str(parse_writer_key(vkey))))

    def take_issuers(self) -> None:
        """Take the tokens of the issuers that the configuration names, and of no others, from now on; ConfigError.

        An unguarded server takes nobody's, and changes nothing.
        """
        document = read_issuers(self._config.issuers)
        if self._config.unguarded:
            return
        # They may be the same as before.
        with suppress(ConflictError):
            self.enact(IssuersChanged(by=OPERATOR, at=self._clock(), document=document))

    def request_access(self, by: str, segment: str, reason: str, minutes: float) -> str:
        """Ask to read the payloads of a segment, and return the ID of the request; MalformedError."""
        if not _SECOND <= minutes * _MINUTE <= MAX_ACCESS_MINUTES * _MINUTE:
            raise MalformedError(f"access is given for at least a second and at most {MAX_ACCESS_MINUTES} minutes")
        if not 1 <= len(reason) <= MAX_REASON or not reason.isprintable():
            raise MalformedError(f"a reason has 1 to {MAX_REASON} printable characters")
        change = AccessRequested(
            by=by,
            at=self._clock(),
            id=secrets.token_hex(8),
            segment=segment,
            reason=reason,
            milliseconds=int(minutes * _MINUTE),
        )
        self.enact(change)
        return change.id

    def approve_access(self, by: str, request_id: str) -> None:
        """Approve a request; the second approval, by another, opens the segment. NotFoundError, ConflictError."""
        self.enact(AccessApproved(by=by, at=self._clock(), id=request_id))

    def _new_token(self) -> Presented:
        return token_from_random(secrets.token_bytes(ID_BYTES + SECRET_BYTES))

    def _catch_up(self, control: Segment) -> None:
        done, size = self.store.recorded(), control.store.head().size
        if done > size:
            raise CorruptError(f"control.db holds {done} changes, and {CONTROL} has {size}; restore both, of one time")
        while done < size:
            for payload in control.store.payloads(done, min(done + MAX_PAGE, size)):
                with self._taking_effect() as changing:
                    project(changing, decode_change(payload.data))
                    changing.count_entry(done)
                done += 1

    @contextmanager
    def _taking_effect(self) -> Iterator[Changing]:
        with self.store.changing() as changing:
            yield changing
            # From here until it is even, nobody relies on what was read before.
            self.generation.write(self.generation.read() | 1)
        self.generation.write(self.generation.read() + 1)


def end_on_record(control: SegmentStore, name: str) -> SegmentSealed | SegmentSucceeded | None:
    """Return the last that `control` says of the end of a segment, None if it goes on; MalformedError, CorruptError."""
    end = control.head().size
    # A few at a time: policies are large, and mostly it is one of the last.
    for start in reversed(range(0, end, _FEW)):
        for payload in reversed(control.payloads(start, min(start + _FEW, end))):
            change = decode_change(payload.data)
            if isinstance(change, SegmentSealed | SegmentSucceeded) and change.segment == name:
                return change
    return None


def project(changing: Changing, change: Change) -> None:
    """Bring the tables to what they are after a change; MalformedError, ConflictError or NotFoundError."""
    match change:
        case SegmentCreated():
            labels = tuple(sorted(change.labels.items()))
            row = SegmentRow(
                change.name, change.id, change.origin, change.vkey, labels, change.at, signed=change.signed
            )
            changing.add_segment(row)
        case SegmentSealed():
            changing.seal_segment(change.segment, change.at)
        case SegmentSucceeded():
            changing.close_segment(change.segment, change.at)
        case SegmentAccepted():
            pass
        case PolicyApplied():
            changing.apply_policy(change.version, change.document)
        case TokenIssued():
            changing.add_token(_token(change))
        case TokenRotated():
            changing.shorten_token(change.old, change.ends)
            changing.add_token(_token(change))
        case TokenRevoked():
            changing.revoke_token(change.id, change.at)
        case KeyAdded():
            changing.add_writer_key(parse_writer_key(change.vkey), change.at)
        case KeyRemoved():
            changing.remove_writer_key(change.vkey, change.at)
        case IssuersChanged():
            changing.change_issuers(change.document)
        case AccessRequested():
            changing.add_access_request(
                AccessRequest(change.id, change.by, change.segment, change.reason, change.milliseconds, change.at)
            )
        case AccessApproved():
            changing.approve_access(change.id, change.by, change.at)
        case _:
            raise MalformedError(f"nothing is known of {change}")


def _token(change: TokenIssued | TokenRotated) -> Token:
    digest = TokenHash(bytes.fromhex(change.hash))
    return Token(change.id, digest, change.principal, change.groups, change.at, change.expires)
