"""What one policy gives that another does not (spec/access.md): who gains and who loses what, before it is applied."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPV4LENGTH, IPv4Address, IPv4Network, collapse_addresses
from itertools import product

from tlog.access.action import OPEN_ACTIONS, RESERVED, Action
from tlog.access.people import Trial, trials
from tlog.access.policy import Decider, Decision
from tlog.access.principal import Principal
from tlog.access.rule import Address, Network, Policy, Target
from tlog.access.wording import restated


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
) -> list[str]:
    """Return as lines what the policies state otherwise, and then who gains and loses what; none if they are the same.

    The arguments are those of `compare`.
    """
    return [*restated(old, new), *map(str, compare(old, new, principals, segments, now=now))]


def compare(
    old: Policy,
    new: Policy,
    principals: Iterable[Principal],
    segments: Iterable[Target],
    *,
    now: int,
    step: Callable[[], None] = lambda: None,
) -> list[Change]:
    """Return who gains and loses what, in the order of names; `now` is in milliseconds since the epoch.

    Those compared are the given principals, whoever the two policies name, and one who has no credential; where they
    act are the given segments and the reserved ones. What changes from one network only is said only for that network.
    `step` is called again and again, and ends it by what it raises: there can be very much to compare.
    """
    targets = sorted({*segments, *map(Target, RESERVED)}, key=lambda target: (target.segment, target.labels))
    both, found = _Both(Decider(old), Decider(new), _origins(old, new), now), list[Change]()
    for trial in trials((old, new), principals, tuple(targets), step):
        for target, action in product(trial.targets, Action):
            step()
            if action not in OPEN_ACTIONS:
                found += both.compare(trial, action, target)
    return found


@dataclass(frozen=True, slots=True)
class _Both:
    before: Decider
    after: Decider
    origins: list[tuple[Network | None, Address | None]]
    now: int

    def compare(self, trial: Trial, action: Action, target: Target) -> Iterator[Change]:
        elsewhere = None
        for network, address in self.origins:
            was = self.before.decide(trial.principal, action, target, now=self.now, address=address)
            now_is = self.after.decide(trial.principal, action, target, now=self.now, address=address)
            if was.allowed != now_is.allowed and now_is.allowed is not elsewhere:
                yield _change(trial.title, action, target, network, was, now_is)
                elsewhere = now_is.allowed if network is None else elsewhere


def _origins(old: Policy, new: Policy) -> list[tuple[Network | None, Address | None]]:
    """Return from where to ask: from an address that no rule names, and then from each network that one does."""
    networks = sorted({n for p in (old, new) for rule in p.rules for n in rule.networks}, key=str)
    return [(None, _elsewhere(networks)), *((network, network.network_address) for network in networks)]


def _elsewhere(networks: Iterable[Network]) -> Address | None:
    free = 0
    for network in collapse_addresses(one for one in networks if isinstance(one, IPv4Network)):
        if free < int(network.network_address):
            break
        free = int(network.broadcast_address) + 1
    return IPv4Address(free) if free < 1 << IPV4LENGTH else None


def _change(
    title: str, action: Action, target: Target, network: Network | None, was: Decision, now_is: Decision
) -> Change:
    # What is lost for want of a rule is told by the rule that gave it.
    decision = was if now_is.rule is None and not now_is.allowed else now_is
    return Change(now_is.allowed, title, action, target.segment, network, decision)
