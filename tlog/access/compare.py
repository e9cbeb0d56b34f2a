"""What one policy gives that another does not (spec/access.md): who gains and who loses what, before it is applied."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Final

from tlog.access.action import OPEN_ACTIONS, RESERVED, Action, role_actions
from tlog.access.effort import Budget, Step, to_decide, to_match, to_select
from tlog.access.people import Trial, trials
from tlog.access.policy import Decider, Decision
from tlog.access.principal import Principal
from tlog.access.rule import Address, Network, Policy, Rule, Target, Where
from tlog.access.wording import restated

_ANYWHERE: Final = IPv4Network("0.0.0.0/0")

_Origins = list[tuple[Network | None, Address | None]]


@dataclass(frozen=True, slots=True)
class Change:
    """One principal gains or loses one action in one segment, from anywhere or from one network, and why."""

    gained: bool
    principal: str
    action: Action
    segment: str
    network: Network | None
    decision: Decision

    def __str__(self) -> str:
        """Return the change as a line of text."""
        because = self.decision.reason if self.decision.rule is None else f'rule "{self.decision.rule.name}"'
        place = self.segment if self.network is None else f"{self.segment} from {self.network}"
        return f"{'+' if self.gained else '-'} {self.principal}  {self.action.value}  {place}  ({because})"


def differences(
    old: Policy, new: Policy, principals: Iterable[Principal], segments: Iterable[Target], *, now: int
) -> Iterator[str]:
    """Yield as lines what the policies state otherwise, and then who gains and loses what; none if they are the same.

    The arguments are those of `compare`, and PolicyError says that this is too much to find out.
    """
    yield from restated(old, new)
    yield from map(str, compare(old, new, principals, segments, now=now, step=Budget().step))


def compare(
    old: Policy, new: Policy, principals: Iterable[Principal], segments: Iterable[Target], *, now: int, step: Step
) -> Iterator[Change]:
    """Yield who gains and loses what, in the order of names; `now` is in milliseconds since the epoch.

    Those compared are the given principals, whoever the two policies name, and one who has no credential; where they
    act are the given segments and the reserved ones. What changes from one network only is said only for that network.
    `step` ends it by what it raises: there can be very much to compare.
    """
    targets = sorted({*segments, *map(Target, RESERVED)}, key=lambda target: (target.segment, target.labels))
    both = _Both(old, new, now, step)
    for trial in trials((old, new), principals, tuple(targets), step):
        for target in both.touched(trial):
            yield from both.compare(trial, target)


class _Rules:
    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules, self._steps = rules, to_match(rules)

    def places(self, one: Principal, step: Step) -> list[Where]:
        """Return where the rules are about that are about this principal."""
        step(self._steps * (1 + len(one.claims)))
        return [rule.where for rule in self._rules if rule.who.matches(one)]


class _Both:
    def __init__(self, old: Policy, new: Policy, now: int, step: Step) -> None:
        self._before, self._after, self._now, self._step = Decider(old), Decider(new), now, step
        self._all = _Rules((*old.rules, *new.rules))
        # What a rule is called, and where it stands, decides nothing.
        alike = ({replace(rule, name="", line=0) for rule in policy.rules} for policy in (old, new))
        self._changed = _Rules(tuple(set.symmetric_difference(*alike)))

    def touched(self, trial: Trial) -> list[Target]:
        """Return the segments in which a rule that only one of the policies has is about who is tried."""
        places = self._changed.places(trial.principal, self._step)
        if not places:
            return []
        self._step(to_select(places, trial.principal) * len(trial.targets))
        found = [one for one in trial.targets if any(where.matches(trial.principal, one) for where in places)]
        if found:
            self._step(to_select(self._all.places(trial.principal, self._step), trial.principal) * len(found))
        return found

    def compare(self, trial: Trial, target: Target) -> Iterator[Change]:
        rules = {*self._before.rules(trial.principal, target), *self._after.rules(trial.principal, target)}
        networks = {network for rule in rules for network in rule.networks}
        given = _given(rules, target)
        self._step((1 + (1 + len(networks)) * len(given)) * to_decide(rules))
        origins = _origins(networks)
        for action in (one for one in Action if one in given):
            yield from self._at(origins, trial, action, target)

    def _at(self, origins: _Origins, trial: Trial, action: Action, target: Target) -> Iterator[Change]:
        elsewhere = None
        for network, address in origins:
            was = self._before.decide(trial.principal, action, target, now=self._now, address=address)
            now_is = self._after.decide(trial.principal, action, target, now=self._now, address=address)
            if was.allowed != now_is.allowed and now_is.allowed is not elsewhere:
                yield _change(trial.title, action, target, network, was, now_is)
                elsewhere = now_is.allowed if network is None else elsewhere


def _given(rules: Iterable[Rule], target: Target) -> frozenset[Action]:
    roles = {role for rule in rules for role in rule.roles}
    return frozenset().union(*(role_actions(role, target.segment) for role in roles)) - OPEN_ACTIONS


def _origins(networks: Iterable[Network]) -> _Origins:
    """Return from where to ask: from an address in none of the networks, and from each, where none is within it.

    One that is all taken by those within it is asked from by those.
    """
    networks = sorted(networks, key=str)
    places = [(network, _free(network, (one for one in networks if one != network))) for network in networks]
    elsewhere = _free(_ANYWHERE, networks)
    return [(None, elsewhere), *((network, address) for network, address in places if address is not None)]


def _free(network: Network, others: Iterable[Network]) -> Address | None:
    """Return the first address of a network that is in none of the others that are within it."""
    free = int(network.network_address)
    within = (one for one in others if one.network_address in network and one.prefixlen >= network.prefixlen)
    for one in sorted(within, key=lambda one: int(one.network_address)):
        if free < int(one.network_address):
            break
        free = max(free, int(one.broadcast_address) + 1)
    return type(network.network_address)(free) if free <= int(network.broadcast_address) else None


def _change(
    title: str, action: Action, target: Target, network: Network | None, was: Decision, now_is: Decision
) -> Change:
    # What is lost for want of a rule is told by the rule that gave it.
    decision = was if now_is.rule is None and not now_is.allowed else now_is
    return Change(now_is.allowed, title, action, target.segment, network, decision)
