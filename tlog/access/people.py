"""On whom policies are tried: those who are known, and such as rules name, and the segments that are there call for."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Final

from tlog.access.effort import PRINCIPAL, Step, to_match, to_select
from tlog.access.principal import ANONYMOUS, Principal
from tlog.access.rule import ANY_VALUE, TEMPLATE, Policy, Rule, Target, Where, Who, matches_glob

_UNKNOWN_VALUE: Final = "any"


@dataclass(frozen=True, slots=True)
class Trial:
    """One principal, under a title that tells it from the others, and the segments in which it is tried."""

    title: str
    principal: Principal
    targets: tuple[Target, ...]


def trials(
    policies: Iterable[Policy], known: Iterable[Principal], targets: tuple[Target, ...], step: Step
) -> list[Trial]:
    """Return whom to try these policies on, in the order of their titles.

    Those are the known principals, whoever the rules name, and one who has no credential, in all segments; and who has
    the claims that select a segment, where a rule names those, in that one. `step` is called before each part of it.
    """
    rules = [rule for policy in policies for rule in policy.rules]
    people = _people(rules, known, step)
    fitting: dict[Principal, list[Target]] = {}
    by_claims = [(rule, wanted) for rule in rules if (wanted := _wanted(rule.where))]
    for target in targets:
        selecting = {one for rule, wanted in by_claims for one in _selecting(rule, wanted, target, step)}
        for principal in selecting - people.keys():
            fitting.setdefault(principal, []).append(target)
    found = [Trial(title, principal, targets) for principal, title in people.items()]
    found += [Trial(describe(principal), principal, tuple(where)) for principal, where in fitting.items()]
    return sorted(found, key=lambda trial: (trial.title, *_order(trial.principal)))


def describe(principal: Principal) -> str:
    """Return a principal in words: its name, or that it may be anyone, and what else it has."""
    groups = sorted(principal.groups)
    having = [f"in group{'s' if len(groups) > 1 else ''} {', '.join(groups)}"] if groups else []
    having += [f"with {claim} = {value}" for claim, value in principal.claims]
    return " ".join([principal.name or "anyone", *having])


def describe_fully(principal: Principal) -> str:
    """Return the same, and also that it is in no group, if it is in none."""
    return describe(principal) if principal.groups else f"{describe(principal)} in no group"


def in_order(principals: Iterable[Principal]) -> list[Principal]:
    """Return principals, each once, in an order that depends on nothing but them."""
    return sorted(set(principals), key=_order)


def _order(principal: Principal) -> tuple[str, list[str], tuple[tuple[str, str], ...]]:
    return principal.name, sorted(principal.groups), principal.claims


def _people(rules: Iterable[Rule], known: Iterable[Principal], step: Step) -> dict[Principal, str]:
    people = _titles(in_order(known))
    names = {principal.name for principal in people}
    for who in dict.fromkeys(rule.who for rule in rules):
        for principal in _named(who, {}, step):
            # Whoever is known by this name alone is tried as what is known.
            if describe(principal) not in names:
                people.setdefault(principal, describe(principal))
    people[ANONYMOUS] = ANONYMOUS.name
    return people


def _titles(known: list[Principal]) -> dict[Principal, str]:
    """Return the name of each as its title, or with what it has where another has the same name."""
    times = Counter(principal.name for principal in known)
    return {one: one.name if times[one.name] == 1 else describe_fully(one) for one in known}


def _named(who: Who, fitting: Mapping[str, list[str]], step: Step) -> Iterator[Principal]:
    """Yield principals who have just what a rule wants, one for each choice that it leaves.

    `fitting` are values of claims to choose instead, also of claims that the rule leaves open.
    """
    choices = {claim: [_UNKNOWN_VALUE if one == ANY_VALUE else one for one in sorted(v)] for claim, v in who.claims}
    pairs = [[(claim, value) for value in values] for claim, values in sorted({**choices, **fitting}.items())]
    names, groups = sorted(who.principals) or [""], sorted(who.groups) or [""]
    step(len(names) * len(groups) * prod(map(len, pairs)) * (PRINCIPAL + len(pairs)))
    for name, group, claims in product(names, groups, product(*pairs)):
        yield Principal(name, frozenset([group] if group else []), claims)


def _selecting(rule: Rule, wanted: set[str], target: Target, step: Step) -> Iterator[Principal]:
    """Yield principals whose claims, in the place of each `{claim}` wanted, make the rule select this segment."""
    pairs = _pairs(rule.where, target)
    step(len(pairs) * len(wanted))
    fitting = {claim: sorted(_values(pairs, claim, step)) for claim in wanted}
    for principal in _named(rule.who, fitting, step):
        step(to_match([rule]) * (1 + len(principal.claims)) + to_select([rule.where], principal))
        if rule.who.matches(principal) and rule.where.matches(principal, target):
            yield principal


def _wanted(where: Where) -> set[str]:
    texts = [*where.segments, *(value for _, value in where.labels)]
    return {claim for text in texts for claim in TEMPLATE.findall(text)}


def _pairs(where: Where, target: Target) -> list[tuple[str, str]]:
    labels = dict(target.labels)
    pairs = [(pattern, target.segment) for pattern in where.segments]
    return pairs + [(value, labels[key]) for key, value in where.labels if key in labels]


def _values(pairs: Iterable[tuple[str, str]], claim: str, step: Step) -> set[str]:
    return {value for pattern, text in pairs for value in _cut(pattern, claim, text, step)}


def _cut(pattern: str, claim: str, text: str, step: Step) -> Iterator[str]:
    """Yield what stands in a text where a pattern has the claim. Beside a `*` that could be anything: then nothing."""
    left, here, right = pattern.partition(f"{{{claim}}}")
    if not here:
        return
    left, right = TEMPLATE.sub("*", left), TEMPLATE.sub("*", right)
    if left.endswith("*") or right.startswith("*") or not matches_glob(f"{left}*{right}", text):
        return
    step(len(text) ** 2)
    starts = [start for start in range(len(text)) if matches_glob(left, text[:start])]
    ends = [end for end in range(1, len(text) + 1) if matches_glob(right, text[end:])]
    yield from (text[start:end] for start in starts for end in ends if start < end)
