"""The choke point: every request to every route passes `Guard.authorize` before anything else is done for it.

A request that names no segment, and brings events for several, passes `Guard.may` and `Guard.draw` for each of these.

Who asks is shown by a bearer credential; what they may do is decided by the policy in force. What was read of either
is relied upon until the generation changes: a change is in force everywhere before whoever made it hears so.
"""

import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from threading import Thread
from typing import Final

from flask import Request

from tlog.access import ANONYMOUS, Action, Principal
from tlog.access.action import CONTROL, RESERVED
from tlog.access.document import read_policy
from tlog.access.oidc import Oidc
from tlog.access.policy import Decider
from tlog.access.rule import Address, Grant, Policy, Quota, Target
from tlog.access.token import PREFIX, Token, parse_token, verify_token
from tlog.config import Config
from tlog.control import Control
from tlog.errors import NotFoundError, UnauthorizedError
from tlog.quotas import Draw, Quotas
from tlog.sessions import COOKIE, Sessions
from tlog.store.changes import SegmentRow
from tlog.store.connection import DatabaseError
from tlog_core.errors import MalformedError
from tlog_core.note import VerifierKey

_MAX_KEPT: Final = 65_536
_NOTE_SECONDS: Final = 5
_CREDENTIAL_NEEDED: Final = "send a credential that may do this: Authorization: Bearer …"
_NEEDS_GUARD: Final = frozenset(
    {Action.READ_POLICY, Action.APPLY_POLICY, Action.ISSUE_TOKEN, Action.ADD_KEY, Action.APPROVE}
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who may do what was asked, from where, by the policy of which version, and in which segment, if in one."""

    principal: Principal
    address: Address | None
    policy_version: int
    target: Target | None


@dataclass(frozen=True, slots=True)
class _State:
    """What was read in one generation."""

    generation: int
    version: int
    decider: Decider
    grants: tuple[Grant, ...]
    targets: dict[str, Target | None] = field(default_factory=dict)
    tokens: dict[str, tuple[Token, Principal]] = field(default_factory=dict)
    keys: dict[str, Sequence[VerifierKey]] = field(default_factory=dict)


class Guard:
    """Decides for the threads of one process."""

    def __init__(self, config: Config, control: Control, oidc: Oidc, sessions: Sessions) -> None:
        """Decide by what `control` holds; everyone may do everything in an unguarded server."""
        self.unguarded = config.unguarded
        """Whether nobody is asked who they are."""
        self.sessions = sessions
        """The sessions of browsers."""
        self._control = control
        self._quotas = Quotas(config.quotas, lambda: time.monotonic_ns() // 1_000)
        self._oidc = oidc
        self._state = _State(-1, 0, Decider(Policy()), ())
        self._used: dict[str, int] = {}

    def keep(self) -> None:
        """Note when tokens were used last, from now on, in a thread that ends with the process."""

        def loop() -> None:
            while True:
                time.sleep(_NOTE_SECONDS)
                # A disk that is full now has room again some time; who used what in between is lost.
                with suppress(DatabaseError):
                    self.note_use()

        Thread(target=loop, name="last-used", daemon=True).start()

    def note_use(self) -> None:
        """Note when tokens were used last, as far as that is not noted yet."""
        used, self._used = self._used, {}
        # Copied at once: a request may still be putting its own in.
        if noted := dict(used):
            with self._control.store.changing() as changing:
                changing.touch_tokens(noted)

    def authorize(
        self,
        request: Request,
        action: Action,
        name: str | None,
        labels: Callable[[], Mapping[str, str]] | None = None,
        *,
        browser: bool = False,
    ) -> Caller:
        """Return who asks, if they may do this in the segment of this name.

        `labels` are those of a segment that is to be made. From a `browser` its session is taken.
        Raises NotFoundError, the same whether there is no such segment or it is not for who asks; UnauthorizedError if
        no credential was shown, or none that holds.
        """
        address = _address(request)
        if action is Action.OPERATE and not self.unguarded:
            # Whoever probes with a credential that ended would else start a healthy server again.
            return Caller(ANONYMOUS, address, self._state.version, None)
        principal = self._local(address) if self.unguarded else self._identify(request, action, browser=browser)
        # Only now: to find out who asks may have taken a while, as when an issuer's keys were fetched.
        state = self._current()
        there = None if name is None else self._target(state, name)
        target = there
        if (labels or action is Action.INGEST) and principal is ANONYMOUS and not self.unguarded:
            # Nobody without a credential may make a segment, whatever its labels; to read them is to wait for the body.
            raise UnauthorizedError(_CREDENTIAL_NEEDED)
        if name is not None and (labels or there is None):
            target = Target(name, tuple(sorted(labels().items())) if labels else ())
        allowed = self._may(state, principal, action, target, address)
        if allowed and (there or name is None or labels):
            if action is not Action.INGEST:
                self._quotas.draw(self._draws(state, principal, [(target, body_length(request))]))
            return Caller(principal, address, state.version, target)
        if principal is ANONYMOUS and not self.unguarded:
            raise UnauthorizedError(_CREDENTIAL_NEEDED)
        raise NotFoundError("no such segment" if name is not None else "there is nothing for you here")

    def give_back(self, caller: Caller, sizes: Iterable[tuple[Target | None, int]]) -> None:
        """Count a request, of so many bytes for each segment, on no quota, as the server has failed it."""
        self._quotas.give_back(self._draws(self._state, caller.principal, sizes))

    def writer_keys(self, writer: str) -> Sequence[VerifierKey]:
        """Return the keys that are registered for a writer; CorruptError."""
        kept = self._current().keys
        found = kept.get(writer)
        if found is None:
            found = self._control.store.writer_keys(writer)
            if len(kept) < _MAX_KEPT:
                kept[writer] = found
        return found

    def target(self, name: str) -> Target | None:
        """Return the segment of this name, with its labels, if there is one."""
        return self._target(self._current(), name)

    def may(self, caller: Caller, action: Action, target: Target) -> bool:
        """Tell whether a caller may do this in a segment that is there, or is to be made."""
        return self._may(self._current(), caller.principal, action, target, caller.address)

    def draw(self, caller: Caller, sizes: Iterable[tuple[Target | None, int]]) -> None:
        """Count a request, of so many bytes for each segment; raise QuotaError if a quota is used up for now.

        Then nothing is counted: what would be, would be so again each time that the request comes again.
        """
        self._quotas.draw(self._draws(self._current(), caller.principal, sizes))

    def used(self, quota: Quota, of: str) -> float:
        """Return how much of a quota is used now, as `Quotas.used` says."""
        return self._quotas.used(quota, of)

    def anyone_may(self, action: Action, target: Target) -> bool:
        """Tell whether everyone may do this in a segment: without a credential, and from wherever."""
        return self._may(self._current(), ANONYMOUS, action, target, None)

    def may_see(self, caller: Caller, row: SegmentRow) -> bool:
        """Tell whether a caller may know of a segment."""
        return self.may(caller, Action.READ_SEGMENT, Target(row.name, row.labels))

    def _may(
        self, state: _State, principal: Principal, action: Action, target: Target | None, address: Address | None
    ) -> bool:
        if self.unguarded:
            return action not in _NEEDS_GUARD and (target is None or target.segment not in RESERVED)
        now = self._control.now()
        return state.decider.decide(principal, action, target, now=now, address=address, grants=state.grants).allowed

    def _local(self, address: Address | None) -> Principal:
        if address is None or not address.is_loopback:
            raise UnauthorizedError("this server asks nobody who they are, and so answers this machine only")
        return ANONYMOUS

    def _draws(self, state: _State, principal: Principal, sizes: Iterable[tuple[Target | None, int]]) -> list[Draw]:
        if self.unguarded:
            return []
        return [
            Draw(quota, principal.name, (target or Target(CONTROL)).segment, size)
            for target, size in sizes
            for quota in state.decider.quotas(principal, target)
        ]

    def holder(self, credential: str) -> Principal:
        """Return whom a bearer credential speaks for.

        Raises UnauthorizedError, which never shows it, and UnavailableError if nobody can tell for now.
        """
        return (
            self._holder(self._current(), credential)
            if credential.startswith(PREFIX)
            else self._oidc.identify(credential)
        )

    def _identify(self, request: Request, action: Action, *, browser: bool) -> Principal:
        given = request.environ.get("HTTP_AUTHORIZATION")
        if given is None:
            session = request.cookies.get(COOKIE) if browser else None
            return ANONYMOUS if session is None else self.holder(self.sessions.open(COOKIE, session))
        scheme, _, credential = given.partition(" ")
        scheme = scheme.lower()
        if action is Action.INGEST and scheme in ("splunk", "basic"):
            # What senders can be told to send, where they cannot send what they are told.
            scheme, credential = "bearer", credential if scheme == "splunk" else _password(credential)
        if scheme != "bearer":
            raise UnauthorizedError(_CREDENTIAL_NEEDED)
        return self.holder(credential)

    def _holder(self, state: _State, text: str) -> Principal:
        try:
            presented = parse_token(text)
        except MalformedError as error:
            raise UnauthorizedError(str(error)) from None
        now = self._control.now()
        token, principal = state.tokens.get(presented.id) or self._read_token(state, presented.id)
        verify_token(token, presented, now)
        self._used[presented.id] = now
        return principal

    def _read_token(self, state: _State, token_id: str) -> tuple[Token | None, Principal]:
        token = self._control.store.token(token_id)
        if token is None:
            return None, ANONYMOUS
        found = token, Principal(token.principal, frozenset(token.groups))
        if len(state.tokens) < _MAX_KEPT:
            state.tokens[token_id] = found
        return found

    def _target(self, state: _State, name: str) -> Target | None:
        if name in state.targets:
            return state.targets[name]
        try:
            row = self._control.store.find(name)
            target = Target(row.name, row.labels)
        except NotFoundError:
            target = None
        # What is not there is known as well as what is, or the time to refuse would tell them apart.
        if len(state.targets) < _MAX_KEPT:
            state.targets[name] = target
        return target

    def _current(self) -> _State:
        # Read once: another thread may replace it at any moment, by one that is newer or, for a moment, older.
        state, generation = self._state, self._control.generation.read()
        # Odd: a change is taking effect just now, or died in doing so.
        if generation == state.generation and not generation & 1:
            return state
        version, document = self._control.store.policy()
        decider = state.decider if version == state.version else Decider(read_policy(document.encode()))
        grants = tuple(self._control.store.grants(self._control.now()))
        fresh = self._state = _State(generation, version, decider, grants)
        return fresh


def _password(basic: str) -> str:
    """Return the password of a credential of Basic authentication (RFC 7617); raise UnauthorizedError."""
    try:
        return b64decode(basic, validate=True).decode("ascii").partition(":")[2]
    except ValueError:
        raise UnauthorizedError("the Basic credential is not base64; its password is to be a token") from None


def body_length(request: Request) -> int:
    """Return how many bytes the headers say that the body has."""
    length = request.environ.get("CONTENT_LENGTH", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _address(request: Request) -> Address | None:
    try:
        return _parse_address(request.environ.get("REMOTE_ADDR", ""))
    except ValueError:
        return None


# Callers come again, and to parse an address takes as long as to decide.
@lru_cache(maxsize=4_096)
def _parse_address(text: str) -> Address:
    return ip_address(text)
