"""Separation of duties (spec/access.md): nobody holds two roles of one segment of which one checks the other."""

from collections.abc import Iterable
from typing import Final

from tlog.access.action import CONFLICTS, RESERVED, Role
from tlog.access.rule import ANY_VALUE, TEMPLATE, Policy, Rule, Where, Who
from tlog.errors import PolicyError

MAX_COMPARED: Final = 1_000_000
"""How many pairs of patterns are compared at most to check a policy; that takes some seconds."""


def void_roles(held: Iterable[Role]) -> frozenset[Role]:
    """Return those of the roles that one principal holds in one segment which are void, because they conflict."""
    roles = frozenset(held)
    return frozenset(role for pair in CONFLICTS if roles.issuperset(pair) for role in pair)


def check_duties(policy: Policy) -> None:
    """Raise PolicyError if two allowing rules, or one, provably give one principal two roles that conflict.

    Rules that expired count: a document is right or wrong whatever the time.
    """
    compared = 0
    for one, other in CONFLICTS:
        holders: dict[tuple[str, ...], list[Rule]] = {}
        for rule in _giving(policy, other):
            for mark in _marks(rule.who):
                holders.setdefault(mark, []).append(rule)
        for rule in _giving(policy, one):
            # Those who have several marks in common are one.
            met = {holder.line: holder for mark in _sought(rule.who) for holder in holders.get(mark, [])}
            compared += sum(_comparisons(rule.where, holder.where) for holder in met.values())
            if compared > MAX_COMPARED:
                raise PolicyError(
                    f"more than {MAX_COMPARED} pairs of patterns are to be compared to find who is both "
                    f"{one.value} and {other.value}; say who or where by fewer rules, as by labels with {{claim}}",
                    line=rule.line,
                    rule=rule.name,
                )
            _check_against(rule, one, met.values(), other)


def _giving(policy: Policy, role: Role) -> list[Rule]:
    return [rule for rule in policy.rules if rule.allows and role in rule.roles]


def _marks(who: Who) -> list[tuple[str, ...]]:
    """Return what rules are found by that may be about a principal of this one, which spares comparing all with all."""
    return _names(who) + [
        mark for claim, values in who.claims for mark in (("claim", claim), *(("claim", claim, one) for one in values))
    ]


def _sought(who: Who) -> list[tuple[str, ...]]:
    """Return the marks of rules that may be about a principal of this one."""
    return _names(who) + [
        mark
        for claim, values in who.claims
        for mark in (
            [("claim", claim)] if ANY_VALUE in values else [("claim", claim, one) for one in (*values, ANY_VALUE)]
        )
    ]


def _names(who: Who) -> list[tuple[str, ...]]:
    names: list[tuple[str, ...]] = [("principal", name) for name in who.principals]
    return names + [("group", group) for group in who.groups]


def _check_against(rule: Rule, role: Role, holders: Iterable[Rule], other: Role) -> None:
    for holder in holders:
        if _share_principal(rule.who, holder.who) and _share_segment(rule.where, holder.where):
            first, second = sorted((rule, holder), key=lambda each: each.line)
            both = f'rule "{first.name}" (line {first.line}) and rule "{second.name}" make'
            if rule is holder:
                both = f'rule "{rule.name}" makes'
            raise PolicyError(
                f"{both} one principal both {role.value} and {other.value} of one segment; give one of them to others",
                line=second.line,
                rule=second.name,
            )


def _share_principal(one: Who, other: Who) -> bool:
    """Tell whether two rules provably are about one principal: a name, a group or a value of a claim in common."""
    if one.principals and other.principals and one.principals.isdisjoint(other.principals):
        return False
    of_other = dict(other.claims)
    return (
        not one.principals.isdisjoint(other.principals)
        or not one.groups.isdisjoint(other.groups)
        or any(
            ANY_VALUE in values | of_other[claim] or not values.isdisjoint(of_other[claim])
            for claim, values in one.claims
            if claim in of_other
        )
    )


def _share_segment(one: Where, other: Where) -> bool:
    """Tell whether some name and labels could be selected by both, with `{claim}` for anything."""
    wanted = dict(other.labels)
    agree = all(key not in wanted or _may_equal(value, wanted[key]) for key, value in one.labels)
    return agree and _share_patterns(one.segments, other.segments)


def _comparisons(one: Where, other: Where) -> int:
    return max(len(one.segments), 1) * max(len(other.segments), 1)


def _share_patterns(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    # Rules by labels alone select no reserved segment.
    return any(share_name(first, second) for first in one or ("*",) for second in other or ("*",))


def share_name(one: str, other: str) -> bool:
    """Tell whether some segment's name fits both patterns, of which a reserved name is only the same as itself."""
    if one in RESERVED or other in RESERVED:
        return one == other
    # Most pairs differ before their first * or {claim}, or after their last.
    first, second = _head(one), _head(other)
    if not first.startswith(second) and not second.startswith(first):
        return False
    first, second = _tail(one), _tail(other)
    if not first.endswith(second) and not second.endswith(first):
        return False
    one, other = TEMPLATE.sub("*", one), TEMPLATE.sub("*", other)
    if "*" not in one + other:
        return one == other
    # After each character of one: up to which places in the other the two can have named the same so far.
    reached = _skip({0}, other)
    for character in one:
        if character == "*":
            reached = set(range(min(reached), len(other) + 1)) if reached else reached
        else:
            stay = {place for place in reached if other[place : place + 1] == "*"}
            step = {place + 1 for place in reached if other[place : place + 1] == character}
            reached = _skip(stay | step, other)
    return len(other) in reached


def _head(pattern: str) -> str:
    return pattern.partition("*")[0].partition("{")[0]


def _tail(pattern: str) -> str:
    return pattern.rpartition("*")[2].rpartition("}")[2]


def _skip(places: set[int], pattern: str) -> set[int]:
    """Add the places that are reached because a `*` may stand for nothing."""
    reached = set(places)
    for place in sorted(places):
        while pattern[place : place + 1] == "*":
            place += 1
            reached.add(place)
    return reached


def _may_equal(one: str, other: str) -> bool:
    return one == other or TEMPLATE.search(one) is not None or TEMPLATE.search(other) is not None
