"""Rules and quotas as lines of text, with the members that a document gives them: equal only if what is said is."""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from tlog.access.rule import Policy, Quota, Rule, Where, Who

# TOML 1.0.0, "Keys": what needs no quotes.
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def restated(old: Policy, new: Policy) -> list[str]:
    """Return a line for each rule and quota that one policy states and the other does not, in the order of names."""
    before, after = set(_statements(old)), set(_statements(new))
    # Rules stand before quotas, and of one name, what goes before what comes.
    lines = [(*key, 0, f"- {text}") for key, text in before - after]
    lines += [(*key, 1, f"+ {text}") for key, text in after - before]
    return [line for *_, line in sorted(lines)]


def members(quota: Quota) -> str:
    """Return what a document says of a quota beside its name, on one line."""
    return ", ".join(_members_of_quota(quota))


def _statements(policy: Policy) -> Iterator[tuple[tuple[int, str], str]]:
    for rule in policy.rules:
        yield (0, rule.name), f"rule {_text(rule.name)}: {', '.join(_members_of_rule(rule))}"
    for quota in policy.quotas:
        yield (1, quota.name), f"quota {_text(quota.name)}: {members(quota)}"


def _members_of_rule(rule: Rule) -> Iterator[str]:
    yield f"roles = {_list(role.value for role in rule.roles)}"
    if not rule.allows:
        yield 'effect = "deny"'
    yield from _members_of_who(rule.who) if rule.who != Who() else ["anyone = true"]
    yield from _members_of_where(rule.where)
    if rule.expires is not None:
        yield f"expires = {_moment(rule.expires)}"
    if rule.networks:
        yield f"networks = {_list(map(str, rule.networks))}"


def _members_of_quota(quota: Quota) -> Iterator[str]:
    if quota.each is not None:
        yield f'each = "{quota.each.value}"'
    elif quota.who == Who():
        yield "anyone = true"
    yield from _members_of_who(quota.who)
    yield from () if quota.where is None else _members_of_where(quota.where)
    for name in ("requests_per_second", "bytes_per_second"):
        rate = getattr(quota, name)
        if rate is not None:
            yield f"{name} = {repr(rate).removesuffix('.0')}"


def _members_of_who(who: Who) -> Iterator[str]:
    if who.principals:
        yield f"principals = {_list(who.principals)}"
    if who.groups:
        yield f"groups = {_list(who.groups)}"
    if who.claims:
        yield f"claims = {_table((claim, _choice(values)) for claim, values in who.claims)}"


def _members_of_where(where: Where) -> Iterator[str]:
    if where.segments:
        yield f"segments = {_list(where.segments)}"
    if where.labels:
        yield f"labels = {_table((key, _text(value)) for key, value in where.labels)}"


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, sorted(set(texts))))}]"


def _choice(texts: Collection[str]) -> str:
    return _list(texts) if len(texts) > 1 else _text(*texts)


def _table(members: Iterable[tuple[str, str]]) -> str:
    return f"{{ {', '.join(f'{_key(key)} = {value}' for key, value in sorted(members))} }}"


def _key(text: str) -> str:
    return text if _BARE.fullmatch(text) else _text(text)


def _text(text: str) -> str:
    # A terminal is to act upon none of it.
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _moment(milliseconds: int) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        # With its offset the date-time was of the years 1 to 9999; without, it is of another.
        return f"{milliseconds} ms after 1970"
    return moment.isoformat().replace("+00:00", "Z")
