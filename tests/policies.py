"""Policies as a test writes them down, and the obvious way to decide by one: the judge of the fast way."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address, ip_network
from typing import Any, Final

from tlog.access.action import Action
from tlog.access.principal import Principal
from tlog.access.rule import Grant, Target

Document = list[dict[str, Any]]

# spec/access.md, "Roles", by hand: what each role lets one do in a segment, and what more in `control`.
ALLOWED: Final[Mapping[str, set[str]]] = {
    "writer": {"segment:read", "checkpoint:read", "proof:read", "entry:append"},
    "monitor": {"segment:read", "checkpoint:read", "proof:read", "tile:read", "bulletin:post"},
    "auditor": {"segment:read", "checkpoint:read", "proof:read", "tile:read", "bulletin:post", "payload:read"},
    "admin": {"segment:read", "segment:seal"},
    "creator": {"segment:create"},
    "approver": {"grant:approve"},
}
ALLOWED_IN_CONTROL: Final[Mapping[str, set[str]]] = {
    "writer": {"segment:read", "checkpoint:read", "proof:read"},
    "monitor": ALLOWED["monitor"] | {"metrics:read"},
    "auditor": ALLOWED["auditor"] | {"metrics:read", "policy:read"},
    "admin": {"segment:read", "metrics:read", "policy:read", "policy:apply", "token:issue", "key:add"},
    "creator": set(),
    "approver": {"grant:approve"},
}
ALLOWED_IN_ACCESS: Final[Mapping[str, set[str]]] = {
    "writer": {"segment:read", "checkpoint:read", "proof:read"},
    "monitor": ALLOWED["monitor"],
    "auditor": ALLOWED["auditor"],
    "admin": {"segment:read"},
    "creator": set(),
    "approver": {"grant:approve"},
}


def allowed(role: str, segment: str) -> set[str]:
    """Return what a role lets one do in a segment."""
    return {"control": ALLOWED_IN_CONTROL, "access": ALLOWED_IN_ACCESS}.get(segment, ALLOWED)[role]


def write(rules: Document, quotas: Document = []) -> bytes:  # noqa: B006 - nobody changes it
    """Return a document with these rules and quotas; a JSON string is a TOML string."""
    tables = [("rule", table) for table in rules] + [("quota", table) for table in quotas]
    lines: list[str] = []
    for kind, table in tables:
        lines += [f"[[{kind}]]", *(f"{member} = {_value(value)}" for member, value in table.items()), ""]
    return "\n".join(lines).encode()


def _value(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(one)}" for key, one in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def moment(milliseconds: int) -> datetime:
    """Return a time as a document states it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def naive_decide(
    rules: Document,
    principal: Principal,
    action: Action,
    target: Target,
    *,
    now: int,
    address: IPv4Address | None,
    grants: list[Grant],
) -> bool:
    """Decide word for word as spec/access.md has it."""
    if action.value in ("server:operate", "segment:list", "event:ingest"):
        return True
    about = [rule for rule in rules if _about(rule, principal, target) and not _expired(rule, now)]
    permits = [rule for rule in about if rule.get("effect", "allow") == "allow"]
    denies = [rule for rule in about if rule.get("effect") == "deny" and _from_here(rule, address, unknown=True)]
    if any(action.value in allowed(role, target.segment) for rule in denies for role in rule["roles"]):
        return False
    granted = any(
        grant.principal == principal.name != "anonymous" and grant.segment == target.segment and now < grant.until
        for grant in grants
    )
    held = [(role, rule) for rule in permits for role in rule["roles"] if _holds(role, rule, principal, target)]
    roles = {role for role, _ in held} | ({"auditor"} if granted else set())
    void = set()
    if {"writer", "admin"} <= roles:
        void |= {"writer", "admin"}
    if {"admin", "auditor"} <= roles:
        void |= {"admin", "auditor"}
    usable = {role for role, rule in held if _from_here(rule, address, unknown=False)}
    usable = (usable | ({"auditor"} if granted else set())) - void
    return any(action.value in allowed(role, target.segment) for role in usable)


def _about(rule: dict[str, Any], principal: Principal, target: Target) -> bool:
    return _is_who(rule, principal) and _is_where(rule, principal, target)


def _is_who(rule: dict[str, Any], principal: Principal) -> bool:
    if "principals" in rule and principal.name not in rule["principals"]:
        return False
    if "groups" in rule and not any(group in principal.groups for group in rule["groups"]):
        return False
    for claim, wanted in rule.get("claims", {}).items():
        values = [value for path, value in principal.claims if path == claim]
        choices = [wanted] if isinstance(wanted, str) else wanted
        if not any(value == choice or choice == "*" for value in values for choice in choices):
            return False
    return True


def _is_where(rule: dict[str, Any], principal: Principal, target: Target) -> bool:
    if "segments" in rule and not any(_selects(p, principal, target.segment) for p in rule["segments"]):
        return False
    if "segments" not in rule and target.segment in ("control", "access"):
        return False
    labels = dict(target.labels)
    return all(_filled(v, principal) is not None and labels.get(k) == _filled(v, principal) for k, v in _labels(rule))


def _labels(rule: dict[str, Any]) -> list[tuple[str, str]]:
    return list(rule.get("labels", {}).items())


def _holds(role: str, rule: dict[str, Any], principal: Principal, target: Target) -> bool:
    return role != "creator" or {k: _filled(v, principal) for k, v in _labels(rule)} == dict(target.labels)


def _selects(pattern: str, principal: Principal, name: str) -> bool:
    if name in ("control", "access"):
        return pattern == name
    filled = _filled(pattern, principal)
    return filled is not None and re.fullmatch(filled.replace("*", ".*"), name) is not None


def _filled(text: str, principal: Principal) -> str | None:
    for claim in re.findall(r"\{(.+?)\}", text):
        values = [value for path, value in principal.claims if path == claim]
        if len(values) != 1 or not re.fullmatch("[a-z0-9-]+", values[0]):
            return None
        text = text.replace("{" + claim + "}", values[0])
    return text


def _expired(rule: dict[str, Any], now: int) -> bool:
    return "expires" in rule and moment(now) >= rule["expires"]


def _from_here(rule: dict[str, Any], address: IPv4Address | None, *, unknown: bool) -> bool:
    if "networks" not in rule:
        return True
    return unknown if address is None else any(address in ip_network(network) for network in rule["networks"])
