"""Who may do what in which segment (`spec/access.md`): pure, but for `issuer`, `fetch`, and what asks by that."""

from tlog.access.action import Action
from tlog.access.principal import ANONYMOUS, Principal

__all__ = ["ANONYMOUS", "Action", "Principal"]
