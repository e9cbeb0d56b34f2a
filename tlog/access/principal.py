"""Who asks (spec/access.md, "Principals")."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks; `name` is what an entry shows as its writer.

    `claims` are the members of the credential's claims, each with the path to it: the members' names with `/` between
    them, such as `("kubernetes.io/namespace", "payments")`. A claim that is a list gives one pair for each value.
    """

    name: str
    groups: frozenset[str] = frozenset()
    claims: tuple[tuple[str, str], ...] = ()


ANONYMOUS: Final = Principal("anonymous")
"""Who shows no credential. No credential may give this name."""
