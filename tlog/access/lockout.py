"""Whether anybody can apply the next policy under this one (spec/access.md, "Applying, comparing, explaining")."""

from typing import Final

from tlog.access.action import CONTROL, Action, Role
from tlog.access.policy import decide
from tlog.access.principal import Principal
from tlog.access.rule import Address, Policy, Rule
from tlog.errors import PolicyError

_REMEDY: Final = f'add a rule with roles = ["{Role.ADMIN.value}"] and segments = ["{CONTROL}"]'


def has_lasting_administrator(policy: Policy) -> bool:
    """Tell whether a rule that does not expire allows somebody to apply policies, whatever other rules deny."""
    return any(_makes_administrators(rule) and rule.expires is None for rule in policy.rules)


def check_lockout(policy: Policy, principal: Principal, *, now: int, address: Address | None) -> None:
    """Raise PolicyError if who applies this policy from here could not apply the next one, or in time nobody could.

    `now` is in milliseconds since the epoch; `address` is where the request comes from, None if that is not known.
    """
    if not decide(policy, principal, Action.APPLY_POLICY, None, now=now, address=address).allowed:
        raise PolicyError(
            f"under this policy you could not apply the next one; {_REMEDY} that is about you and where you call from, "
            "or have it applied on the machine itself"
        )
    if not has_lasting_administrator(policy):
        raise PolicyError(f"under this policy there is soon no administrator; {_REMEDY} that does not expire")


def _makes_administrators(rule: Rule) -> bool:
    # `control` has no labels.
    return rule.allows and Role.ADMIN in rule.roles and CONTROL in rule.where.segments and not rule.where.labels
