"""How much work a comparison of policies may be (spec/access.md, "Comparing"): counted before it is done."""

from collections.abc import Callable, Iterable
from typing import Final

from tlog.access.principal import Principal
from tlog.access.rule import Rule, Where
from tlog.errors import PolicyError

MAX_STEPS: Final = 500_000_000
"""How many steps a comparison takes at most; that is some minutes."""

PRINCIPAL: Final = 2_000
"""How many steps it is to try one principal more, which also takes memory."""

Step = Callable[[int], None]
"""Is told of steps before they are taken, and ends the work by what it raises."""


class Budget:
    """Steps that are left."""

    def __init__(self, steps: int = MAX_STEPS) -> None:
        """Allow so many."""
        self._left = steps

    def step(self, steps: int) -> None:
        """Take steps; raise PolicyError if there are not so many left."""
        self._left -= steps
        if self._left < 0:
            raise PolicyError(
                "to find all of who gains and who loses what takes too many steps; name fewer principals, groups and "
                "values of claims in one rule, or apply the policy in smaller parts and compare each"
            )


def to_match(rules: Iterable[Rule]) -> int:
    """Return in how many steps one finds which of these are about a principal, for each claim of it and one more."""
    return sum(1 + len(rule.who.claims) for rule in rules)


def to_select(places: Iterable[Where], principal: Principal) -> int:
    """Return in how many steps one finds which of these select a segment when this principal asks."""
    texts = [text for where in places for text in (*where.segments, *(value for _, value in where.labels), "")]
    return sum(1 + text.count("{") * (1 + len(principal.claims)) for text in texts)


def to_decide(rules: Iterable[Rule]) -> int:
    """Return in how many steps one decides by these rules from one address."""
    return 20 + sum(4 + len(rule.networks) for rule in rules)
