"""What may change in `control.db`, under its write lock; made by `ControlStore.changing`.

Each statement carries its own guard, and each method checks that one row changed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tlog.access.token import Token
from tlog.errors import ConflictError, CorruptError, NotFoundError
from tlog.store.connection import Connection
from tlog_core.note import VerifierKey

_ADD_SEGMENT = """
insert into segment (name, id, origin, vkey, labels, created, signed) values (?, ?, ?, ?, ?, ?, ?)
on conflict do nothing
"""
_APPLY_POLICY = """
insert into policy (one, version, document)
select 1, new.version, new.document from (select ? as version, ? as document) as new
where new.version = 1 + coalesce((select version from policy), 0)
on conflict do update set version = excluded.version, document = excluded.document
"""
_ADD_TOKEN = """
insert into token (id, hash, principal, groups, created, expires) values (?, ?, ?, ?, ?, ?) on conflict do nothing
"""
_SHORTEN_TOKEN = """
update token set expires = ? where id = ? and expires >= ? and revoked is null
"""
_ADD_REQUEST = """
insert into access_request (id, principal, segment, reason, milliseconds, requested) values (?, ?, ?, ?, ?, ?)
on conflict do nothing
"""
_APPROVE_FIRST = """
update access_request set approver = ? where id = ? and requested > ? and approver is null and principal <> ?
"""
_WAITS = "select requested > ? or until is not null from access_request where id = ?"
_APPROVE_SECOND = """
update access_request set until = ? + milliseconds, second = ?
where id = ? and requested > ? and approver is not null and until is null and principal <> ? and approver <> ?
"""

REQUEST_WAITS: Final = 86_400_000
"""For how many milliseconds a request of access waits for two approvals."""


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """One segment: its name, the random ID that names its files, its origin, key and labels.

    `created` and `sealed` are in milliseconds since the epoch; a segment that takes entries has no `sealed`. One that
    is `signed` takes signed events only.
    """

    name: str
    id: str
    origin: str
    vkey: str
    labels: tuple[tuple[str, str], ...]
    created: int
    sealed: int | None = None
    signed: bool = False


@dataclass(frozen=True, slots=True)
class WriterKeyRow:
    """A key of a writer. Times are in milliseconds since the epoch; one that is in use has no `removed`."""

    key: VerifierKey
    added: int
    removed: int | None


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """Break-glass: who asks to read which segment, and until when that holds once two others have approved."""

    id: str
    principal: str
    segment: str
    reason: str
    milliseconds: int
    requested: int
    approver: str | None = None
    second: str | None = None
    until: int | None = None


class Changing:
    """A write transaction on `control.db`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def count_entry(self, index: int) -> None:
        """Remember that the entry of `control` at this index is in the tables; CorruptError if it is not the next."""
        self._one(
            CorruptError("an entry of control was to be applied out of turn"),
            "update recorded set entries = entries + 1 where entries = ?",
            index,
        )

    def add_segment(self, row: SegmentRow) -> None:
        """Add a segment; ConflictError if there is one of this name."""
        self._one(
            ConflictError("a segment of this name exists; choose another name"),
            _ADD_SEGMENT,
            *(row.name, row.id, row.origin, row.vkey, json.dumps(dict(row.labels)), row.created, row.signed),
        )

    def seal_segment(self, name: str, at: int) -> None:
        """Note that a segment is sealed; ConflictError if it is already."""
        self._one(
            ConflictError("the segment is sealed already"),
            "update segment set sealed = ? where name = ? and sealed is null",
            *(at, name),
        )

    def close_segment(self, name: str, at: int) -> None:
        """Note that a segment takes no more, from when it was sealed if it is; NotFoundError if there is none."""
        self._one(
            NotFoundError("no such segment"),
            "update segment set sealed = coalesce(sealed, ?) where name = ?",
            *(at, name),
        )

    def apply_policy(self, version: int, document: str) -> None:
        """Put a policy in force; ConflictError unless its version is the next."""
        self._one(
            ConflictError("the policy has changed meanwhile; read it, and apply yours to its version"),
            _APPLY_POLICY,
            *(version, document),
        )

    def change_issuers(self, document: str) -> None:
        """Note whose tokens are taken; ConflictError if that is no change."""
        self._one(
            ConflictError("these are the issuers already"),
            "update issuers set document = ? where document <> ?",
            *(document, document),
        )

    def add_token(self, token: Token) -> None:
        """Add a token; ConflictError if there is one of this ID."""
        self._one(
            ConflictError("there is a token of this ID"),
            _ADD_TOKEN,
            *(token.id, token.hash, token.principal, json.dumps(token.groups), token.created, token.expires),
        )

    def shorten_token(self, token_id: str, ends: int) -> None:
        """Let a token end earlier; NotFoundError if it was revoked, or ends before, or is not there."""
        self._one(NotFoundError("no such token is in use"), _SHORTEN_TOKEN, *(ends, token_id, ends))

    def revoke_token(self, token_id: str, at: int) -> None:
        """Revoke a token; NotFoundError if it was revoked, or is not there."""
        self._one(
            NotFoundError("no such token is in use"),
            "update token set revoked = ? where id = ? and revoked is null",
            *(at, token_id),
        )

    def add_writer_key(self, key: VerifierKey, added: int) -> None:
        """Add a key of the writer whose name it has; ConflictError if it is there, or was."""
        self._one(
            ConflictError("the key is registered already"),
            "insert into writer_key (vkey, name, added) values (?, ?, ?) on conflict do nothing",
            *(str(key), key.name, added),
        )

    def remove_writer_key(self, vkey: str, at: int) -> None:
        """Note that nobody signs with a key any more; NotFoundError if nobody does."""
        self._one(
            NotFoundError("no such key is in use"),
            "update writer_key set removed = ? where vkey = ? and removed is null",
            *(at, vkey),
        )

    def touch_tokens(self, used: Mapping[str, int]) -> None:
        """Note when tokens were used last; what is noted never goes back."""
        self._connection.executemany(
            "update token set last_used = max(?, coalesce(last_used, 0)) where id = ?",
            [(at, token_id) for token_id, at in used.items()],
        )

    def add_access_request(self, request: AccessRequest) -> None:
        """Add a request that nobody has approved yet."""
        self._one(
            ConflictError("there is an access request of this ID"),
            _ADD_REQUEST,
            *(request.id, request.principal, request.segment, request.reason, request.milliseconds, request.requested),
        )

    def approve_access(self, request_id: str, approver: str, at: int) -> None:
        """Note an approval; ConflictError unless it is the first or second, of two who are not the one who asked.

        Also if the request has lapsed. NotFoundError if there is none.
        """
        since = at - REQUEST_WAITS
        if self._connection.execute(_APPROVE_FIRST, [approver, request_id, since, approver]).rowcount == 1:
            return
        found = self._connection.execute(_WAITS, [since, request_id]).fetchone()
        if found is None:
            raise NotFoundError("no such access request")
        if not found[0]:
            raise ConflictError("the request has lapsed: two did not approve it within a day; ask for access again")
        self._one(
            ConflictError("two others than who asked approve, each once; this request does not wait for you"),
            _APPROVE_SECOND,
            *(at, approver, request_id, since, approver, approver),
        )

    def _one(self, otherwise: Exception, statement: str, *values: Any) -> None:
        if self._connection.execute(statement, values).rowcount != 1:
            raise otherwise
