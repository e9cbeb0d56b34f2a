"""What one policy gives that another does not (spec/access.md): who gains and who loses what, before it is applied."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from tlog.access.action import OPEN_ACTIONS, RESERVED, Action
from tlog.access.policy import Decider, Decision
from tlog.access.principal import ANONYMOUS, Principal
from tlog.access.rule import ANY_VALUE, Address, Network, Policy, Target, Who


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


def compare(
    old: Policy, new: Policy, principals: Iterable[Principal], segments: Iterable[Target], *, now: int
) -> list[Change]:
    """Return who gains and loses what, in the order of names; `now` is in milliseconds since the epoch.

    Those compared are the given principals, whoever the two policies name, and one who has no credential; where they
    act are the given segments and the reserved ones. What changes from one network only is said only for that network.
    """
    targets = sorted({*segments, *map(Target, RESERVED)}, key=lambda target: (target.segment, target.labels))
    networks = sorted({n for p in (old, new) for rule in p.rules for n in rule.networks}, key=str)
    # From an address that is not known nothing is allowed that depends on one: what changes there, changes everywhere.
    origins: list[tuple[Network | None, Address | None]] = [(None, None), *((n, n.network_address) for n in networks)]
    before, after = Decider(old), Decider(new)
    changes = []
    for (title, principal), target, action in product(_people(old, new, principals), targets, Action):
        if action in OPEN_ACTIONS:
            continue
        seen: set[bool] = set()
        for network, address in origins:
            was = before.decide(principal, action, target, now=now, address=address)
            now_is = after.decide(principal, action, target, now=now, address=address)
            if was.allowed != now_is.allowed and now_is.allowed not in seen:
                changes.append(_change(title, action, target, network, was, now_is))
                seen |= {now_is.allowed} if network is None else set()
    return changes


def _change(
    title: str, action: Action, target: Target, network: Network | None, was: Decision, now_is: Decision
) -> Change:
    # What is lost for want of a rule is told by the rule that gave it.
    decision = was if now_is.rule is None and not now_is.allowed else now_is
    return Change(now_is.allowed, title, action, target.segment, network, decision)


def _people(old: Policy, new: Policy, principals: Iterable[Principal]) -> list[tuple[str, Principal]]:
    people = {principal.name: principal for principal in principals}
    for rule in (*old.rules, *new.rules):
        for title, principal in _named(rule.who):
            people.setdefault(title, principal)
    people[ANONYMOUS.name] = ANONYMOUS
    return sorted(people.items())


def _named(who: Who) -> Iterator[tuple[str, Principal]]:
    """Yield principals who have just what a rule wants, one for each choice that it leaves, with a title for each."""
    pairs = [[(claim, "any" if value == ANY_VALUE else value) for value in sorted(v)] for claim, v in who.claims]
    for name, group in product(sorted(who.principals) or [""], sorted(who.groups) or [""]):
        for claims in product(*pairs):
            having = ([f"in group {group}"] if group else []) + [f"with {claim} = {value}" for claim, value in claims]
            title = " ".join([name or "anyone", *having])
            yield title, Principal(name, frozenset([group] if group else []), claims)
