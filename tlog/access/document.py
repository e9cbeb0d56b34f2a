"""A policy as a TOML document, and what it says (spec/access.md, "Policy")."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network, ip_network
from typing import Final

from tlog.access.action import Role
from tlog.access.duties import check_duties
from tlog.access.principal import ANONYMOUS
from tlog.access.rule import TEMPLATE, Network, Policy, Quota, Rule, Where, Who
from tlog.access.tables import Effect, Place, QuotaTable, RuleTable, Table, plain, read_document

_PATTERN: Final = re.compile(r"(?:[a-z0-9*-]|\{[^{}]+\})+")
# As spec/segment.md has it.
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_policy(raw: bytes) -> Policy:
    """Return the policy that a document states; PolicyError, which names rule and line, if it is not one to take."""
    policy = read_policy(raw)
    check_duties(policy)
    return policy


def read_policy(raw: bytes) -> Policy:
    """Return the policy of a document that was taken already: its separation of duties is not looked into again."""
    rules, quotas = read_document(raw)
    _check_names([place for _, place in rules])
    _check_names([place for _, place in quotas])
    return Policy(
        rules=tuple(_rule(table, place) for table, place in rules),
        quotas=tuple(_quota(table, place) for table, place in quotas),
    )


def _check_names(places: Sequence[Place]) -> None:
    seen: set[str] = set()
    for place in places:
        if not place.name.isprintable():
            raise place.error("name", "a name consists of printable characters")
        if place.name in seen:
            raise place.error("name", f"another {place.kind} has this name; choose one that says what it is for")
        seen.add(place.name)


def _rule(table: RuleTable, place: Place) -> Rule:
    allows = table.effect is Effect.ALLOW
    if table.anyone and not (allows and set(table.roles) == {Role.MONITOR}):
        raise place.error(
            "anyone", "anyone can be a monitor, and nothing else; say who by principals, groups or claims"
        )
    who = _who(table, place)
    if who is None:
        raise place.error("", "say who, by principals, groups, claims, or anyone = true")
    where = _where(table, place)
    if where is None:
        raise place.error("", 'say where, by segments or labels; segments = ["*"] is all')
    return Rule(
        name=table.name,
        line=place.line,
        roles=frozenset(table.roles),
        allows=allows,
        who=who,
        where=where,
        expires=None if table.expires is None else (table.expires - _EPOCH) // timedelta(milliseconds=1),
        networks=tuple(_network(text, place) for text in table.networks or ()),
    )


def _quota(table: QuotaTable, place: Place) -> Quota:
    who = _who(table, place)
    if (who is None) == (table.each is None):
        raise place.error("each", "say who shares it, or of what each has its own: one of the two")
    if table.requests_per_second is None and table.bytes_per_second is None:
        raise place.error("", "say how much, by requests_per_second or bytes_per_second")
    return Quota(
        name=table.name,
        line=place.line,
        who=who or Who(),
        each=table.each,
        where=_where(table, place),
        requests_per_second=table.requests_per_second,
        bytes_per_second=table.bytes_per_second,
    )


def _who(table: Table, place: Place) -> Who | None:
    """Return whom the members name, or None if there is none of them."""
    named = (table.principals, table.groups, table.claims)
    if table.anyone is False or (table.anyone and named != (None, None, None)):
        raise place.error("anyone", "anyone is true, and stands instead of principals, groups and claims")
    if table.anyone is None and named == (None, None, None):
        return None
    if ANONYMOUS.name in (table.principals or ()):
        raise place.error("principals", f"{ANONYMOUS.name} is who shows no credential; say anyone = true")
    claims = {claim: [values] if isinstance(values, str) else values for claim, values in (table.claims or {}).items()}
    _check_printable("principals", table.principals or (), place)
    _check_printable("groups", table.groups or (), place)
    _check_printable("claims", [*claims, *(value for values in claims.values() for value in values)], place)
    return Who(
        principals=frozenset(table.principals or ()),
        groups=frozenset(table.groups or ()),
        claims=tuple((claim, frozenset(values)) for claim, values in sorted(claims.items())),
    )


def _check_printable(member: str, texts: Sequence[str], place: Place) -> None:
    if not all(text.isprintable() for text in texts):
        raise place.error(member, "what is named consists of printable characters")


def _where(table: Table, place: Place) -> Where | None:
    """Return which segments the members select, or None if there is none of them."""
    if table.segments is None and table.labels is None:
        return None
    for pattern in table.segments or ():
        if _PATTERN.fullmatch(pattern) is None:
            raise place.error("segments", f"{plain(repr(pattern))} is no pattern of a-z, 0-9, -, * and {{claim}}")
    for key, value in (table.labels or {}).items():
        if _LABEL.fullmatch(key) is None:
            raise place.error("labels", f"{plain(repr(key))} is no key of a label")
        if set("{}") & set(TEMPLATE.sub("", value)):
            raise place.error("labels", f"the braces in {plain(repr(value))} are not those of a {{claim}}")
    return Where(tuple(table.segments or ()), tuple(sorted((table.labels or {}).items())))


def _network(text: str, place: Place) -> Network:
    try:
        network = ip_network(text)
    except ValueError:
        raise place.error("networks", f"{plain(repr(text))} is no network such as 10.0.0.0/8 or ::1/128") from None
    # Callers under mapped addresses are compared as the IPv4 addresses that they are: this would match nobody.
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise place.error("networks", f"write {text} as a network of IPv4")
    if str(network) != text:
        raise place.error("networks", f"write {plain(repr(text))} as {network}")
    return network
