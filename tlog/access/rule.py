"""The parts of a policy, and what they match (spec/access.md, "Policy"). Pure: no clock, no network, no file."""

import re
from dataclasses import dataclass
from enum import Enum, unique
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from tlog.access.action import RESERVED, Role
from tlog.access.principal import Principal

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

ANY_VALUE: Final = "*"
"""In the values of a claim: whatever it is, as long as it is there."""

TEMPLATE: Final = re.compile(r"\{([^{}]+)\}")
_TEMPLATE_VALUE: Final = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Target:
    """A segment that is asked for, or is to be made: its name, and its labels in the order of their keys."""

    segment: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Who:
    """Whom a rule is about. Of the three kinds, those that are not empty must all match; if all are, it is everyone."""

    principals: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    claims: tuple[tuple[str, frozenset[str]], ...] = ()

    def matches(self, principal: Principal) -> bool:
        """Tell whether the rule is about this principal."""
        return (
            (not self.principals or principal.name in self.principals)
            and (not self.groups or not self.groups.isdisjoint(principal.groups))
            and all(_has_claim(principal, claim, values) for claim, values in self.claims)
        )


@dataclass(frozen=True, slots=True)
class Where:
    """Which segments a rule is about: name patterns, of which any, and labels, of which all must match."""

    segments: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def matches(self, principal: Principal, target: Target) -> bool:
        """Tell whether the rule is about this segment when this principal asks."""
        return self.names(principal, target.segment) and self.labels_for(principal) <= set(target.labels)

    def matches_exactly(self, principal: Principal, target: Target) -> bool:
        """Tell the same, where the segment may have no labels but those of the rule."""
        return self.names(principal, target.segment) and self.labels_for(principal) == set(target.labels)

    def names(self, principal: Principal, segment: str) -> bool:
        """Tell whether the patterns select this name; without patterns, every name that is not reserved."""
        if segment in RESERVED:
            return segment in self.segments
        filled = (fill(pattern, principal) for pattern in self.segments)
        return not self.segments or any(glob is not None and matches_glob(glob, segment) for glob in filled)

    def labels_for(self, principal: Principal) -> set[tuple[str, str | None]]:
        """Return the labels with this principal's claims in place; None, which no label is, where there is no value."""
        return {(key, fill(value, principal)) for key, value in self.labels}


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[rule]]`. `line` is that of its header, counted from 1; `expires` is in milliseconds since the epoch."""

    name: str
    line: int
    roles: frozenset[Role]
    allows: bool
    who: Who
    where: Where
    expires: int | None = None
    networks: tuple[Network, ...] = ()

    def is_live(self, now: int) -> bool:
        """Tell whether the rule has not expired by now, in milliseconds since the epoch."""
        return self.expires is None or now < self.expires

    def admits(self, address: Address | None) -> bool:
        """Tell whether the rule is about requests from here. An unknown address is held against who asks."""
        if not self.networks:
            return True
        if address is None:
            return not self.allows
        # A socket that speaks both versions shows IPv4 callers as ::ffff:a.b.c.d.
        plain = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
        return any(plain in network for network in self.networks)


@unique
class Each(Enum):
    """Of what each has a quota of its own."""

    PRINCIPAL = "principal"
    SEGMENT = "segment"


@dataclass(frozen=True, slots=True)
class Quota:
    """One `[[quota]]`: shared by `who`, or one for `each` of everyone. Without `where` it covers every segment."""

    name: str
    line: int
    who: Who
    each: Each | None
    where: Where | None
    requests_per_second: float | None
    bytes_per_second: float | None

    def covers(self, principal: Principal, target: Target) -> bool:
        """Tell whether a request of this principal to this segment draws on the quota."""
        return self.who.matches(principal) and (self.where is None or self.where.matches(principal, target))


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole document, checked. Without rules it refuses everything that is not open to all."""

    rules: tuple[Rule, ...] = ()
    quotas: tuple[Quota, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """Break-glass: who has this name audits the segment of this name until then, in milliseconds since the epoch."""

    principal: str
    segment: str
    until: int


def fill(text: str, principal: Principal) -> str | None:
    """Put a principal's claims in place of each `{claim}`; None if one has not exactly one value that fits a name."""
    # Without the test, the search would take most of the time of a first decision.
    for claim in TEMPLATE.findall(text) if "{" in text else ():
        values = [value for path, value in principal.claims if path == claim]
        if len(values) != 1 or _TEMPLATE_VALUE.fullmatch(values[0]) is None:
            return None
        text = text.replace(f"{{{claim}}}", values[0])
    return text


def matches_glob(glob: str, name: str) -> bool:
    """Tell whether a name fits a pattern in which `*` stands for any run of characters, in linear time."""
    first, *rest = glob.split("*")
    if not rest:
        return name == glob
    *middle, last = rest
    if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
        return False
    # The leftmost place for each part leaves the most room for those that follow.
    place, end = len(first), len(name) - len(last)
    for part in middle:
        place = name.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


def _has_claim(principal: Principal, claim: str, values: frozenset[str]) -> bool:
    return any(path == claim and (value in values or ANY_VALUE in values) for path, value in principal.claims)
