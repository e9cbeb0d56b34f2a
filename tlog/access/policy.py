"""Deciding who may do what (spec/access.md, "Policy"): a pure function of the policy and what is asked."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tlog.access.action import CONTROL, NOT_IN_RESERVED, OPEN_ACTIONS, RESERVED, Action, Role, role_actions
from tlog.access.duties import void_roles
from tlog.access.principal import ANONYMOUS, Principal
from tlog.access.rule import Address, Grant, Policy, Quota, Rule, Target

MAX_CACHED: Final = 32_768
"""Pairs of a principal and a segment whose rules are kept at hand: a few hundred bytes each where ten rules apply."""

_ANY_OTHER: Final = ""
_ON_CONTROL: Final = Target(CONTROL)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether one may, the rule that decided, if one did, and the reason in one sentence."""

    allowed: bool
    rule: Rule | None
    reason: str


@dataclass(frozen=True, slots=True)
class _Holding:
    """A role that a rule gives or denies in one segment, and the actions that this means there."""

    role: Role
    actions: frozenset[Action]
    rule: Rule


_Holdings = dict[str, tuple[_Holding, ...]]
"""What a rule gives or denies in each reserved segment, and in any other. Made once; what is found points to it."""


@dataclass(frozen=True, slots=True)
class _Found:
    """All of a policy that is about one principal in one segment. What is left to ask is time and network."""

    denied: tuple[_Holding, ...]
    held: tuple[_Holding, ...]
    quotas: tuple[Quota, ...]
    may_conflict: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was refused, to find out why."""

    action: Action
    target: Target
    now: int


class Decider:
    """Decides by one policy. What was once found for a principal and a segment is kept; any thread may ask."""

    def __init__(self, policy: Policy) -> None:
        """Decide by this policy, which does not change."""
        self._quotas = policy.quotas
        self._rules = [(rule, _holdings(rule)) for rule in policy.rules]
        # Single reads and writes of dicts are atomic, and two threads that find the same thing do no harm.
        self._about: dict[Principal, list[tuple[Rule, _Holdings]]] = {}
        self._found: dict[tuple[Principal, Target], _Found] = {}

    def decide(
        self,
        principal: Principal,
        action: Action,
        target: Target | None,
        *,
        now: int,
        address: Address | None,
        grants: Iterable[Grant] = (),
    ) -> Decision:
        """Decide whether a principal may do this in a segment, or without one, on `control`.

        `now` is in milliseconds since the epoch; `address` is where the request comes from, None if that is not known.
        """
        if action in OPEN_ACTIONS:
            return Decision(True, None, f"{action.value} is open to all")
        place = _ON_CONTROL if target is None else target
        found = self._find(principal, place)
        for holding in found.denied:
            rule = holding.rule
            if action in holding.actions and rule.is_live(now) and rule.admits(address):
                return Decision(False, rule, f'rule "{rule.name}" (line {rule.line}) denies it')
        grant = _grant(principal, place, now, grants)
        void = _void(found, grant, now)
        for holding in found.held:
            rule = holding.rule
            if action in holding.actions and holding.role not in void and rule.is_live(now) and rule.admits(address):
                return Decision(True, rule, f'rule "{rule.name}" (line {rule.line}) allows it')
        if grant is not None and Role.AUDITOR not in void and action in role_actions(Role.AUDITOR, place.segment):
            return Decision(True, None, f"a break-glass grant allows it until {_time(grant.until)}")
        return _refusal(found, _Asked(action, place, now), void)

    def quotas(self, principal: Principal, target: Target | None) -> tuple[Quota, ...]:
        """Return the quotas on which a request of this principal to this segment draws."""
        return self._find(principal, _ON_CONTROL if target is None else target).quotas

    def rules(self, principal: Principal, target: Target) -> set[Rule]:
        """Return the rules that are about this principal in this segment, whatever time and network."""
        found = self._find(principal, target)
        return {holding.rule for holding in (*found.denied, *found.held)}

    def _find(self, principal: Principal, target: Target) -> _Found:
        key = (principal, target)
        found = self._found.get(key)
        if found is None:
            found = self._search(principal, target)
            if len(self._found) >= MAX_CACHED:
                self._found, self._about = {}, {}
            self._found[key] = found
        return found

    def _search(self, principal: Principal, target: Target) -> _Found:
        about = self._about.get(principal)
        if about is None:
            about = [(rule, holdings) for rule, holdings in self._rules if rule.who.matches(principal)]
            self._about[principal] = about
        holdings = [holding for rule, each in about for holding in _applying(rule, each, principal, target)]
        held = tuple(holding for holding in holdings if holding.rule.allows)
        return _Found(
            denied=tuple(holding for holding in holdings if not holding.rule.allows),
            held=held,
            quotas=tuple(quota for quota in self._quotas if quota.covers(principal, target)),
            may_conflict=bool(void_roles(holding.role for holding in held)),
        )


def decide(
    policy: Policy,
    principal: Principal,
    action: Action,
    target: Target | None,
    *,
    now: int,
    address: Address | None,
    grants: Iterable[Grant] = (),
) -> Decision:
    """Decide once; who decides often keeps a `Decider`, which says what the arguments are."""
    return Decider(policy).decide(principal, action, target, now=now, address=address, grants=grants)


def _holdings(rule: Rule) -> _Holdings:
    roles = sorted(rule.roles, key=lambda role: role.value)
    return {
        name: tuple(_Holding(role, role_actions(role, name), rule) for role in roles)
        for name in (_ANY_OTHER, *RESERVED)
    }


def _applying(rule: Rule, holdings: _Holdings, principal: Principal, target: Target) -> tuple[_Holding, ...]:
    if not rule.where.matches(principal, target):
        return ()
    here = holdings[target.segment if target.segment in RESERVED else _ANY_OTHER]
    # Who may create with just these labels gains no access by inventing some. A denial must not be evaded so.
    if rule.allows and Role.CREATOR in rule.roles and not rule.where.matches_exactly(principal, target):
        return tuple(holding for holding in here if holding.role is not Role.CREATOR)
    return here


def _grant(principal: Principal, target: Target, now: int, grants: Iterable[Grant]) -> Grant | None:
    if principal.name == ANONYMOUS.name:
        return None
    mine = (grant for grant in grants if (grant.principal, grant.segment) == (principal.name, target.segment))
    return next((grant for grant in mine if now < grant.until), None)


def _void(found: _Found, grant: Grant | None, now: int) -> frozenset[Role]:
    if not found.may_conflict and grant is None:
        return frozenset()
    # Networks play no part: who holds one role here and the other there holds both.
    held = [holding.role for holding in found.held if holding.rule.is_live(now)]
    return void_roles(held if grant is None else [*held, Role.AUDITOR])


def _refusal(found: _Found, asked: _Asked, void: frozenset[Role]) -> Decision:
    """Return a refusal with the rule that comes closest to allowing it, and what is in the way."""
    if asked.action in NOT_IN_RESERVED and asked.target.segment in RESERVED:
        return Decision(False, None, f"tlog alone writes {asked.target.segment}, whatever the rules say")
    if any(asked.action in role_actions(role, asked.target.segment) for role in void):
        return _conflict(found, asked, void)
    for holding in found.held:
        rule = holding.rule
        if asked.action in holding.actions and not rule.is_live(asked.now):
            return Decision(False, rule, f'rule "{rule.name}" (line {rule.line}) would allow it, but has expired')
        if asked.action in holding.actions:
            return Decision(False, rule, f'rule "{rule.name}" (line {rule.line}) allows it from other networks only')
    return Decision(False, None, "no rule allows it")


def _conflict(found: _Found, asked: _Asked, void: frozenset[Role]) -> Decision:
    live = [holding for holding in found.held if holding.role in void and holding.rule.is_live(asked.now)]
    by_rule = {holding.role: f'{holding.role.value} by rule "{holding.rule.name}"' for holding in reversed(live)}
    held = sorted(by_rule.get(role, f"{role.value} by a grant") for role in void)
    reason = f"one principal may not be {' and '.join(held)}, so these roles are void here"
    return Decision(False, live[0].rule, reason)


def _time(milliseconds: int) -> str:
    return str(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds))
