"""Who may do what in which segment (`spec/access.md`): pure, but for `issuer`, `jwks` and `sign_in`, which read and fetch."""

from tlog.access.action import Action
from tlog.access.principal import ANONYMOUS, Principal

__all__ = ["ANONYMOUS", "Action", "Principal"]
