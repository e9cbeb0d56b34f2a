"""Requests that a page of another site has a browser send (spec/http-api.md, "Browsers")."""

import re
from typing import Final

from flask import Request

from tlog.errors import CrossSiteError

_OWN: Final = ("same-origin", "none")
_THIS_MACHINE: Final = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]*)?", re.IGNORECASE)


def check_site(request: Request) -> None:
    """Raise CrossSiteError if a browser marks the request as not from a page of this server, nor from its user."""
    environ = request.environ
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    # By the host alone: a proxy may speak TLS for this server. Browsers that say the site have compared the rest.
    own = site in _OWN if site is not None else origin is None or origin.partition("://")[2] == request.host
    if not own:
        raise CrossSiteError("a page of another site had a browser send this; only this server's own may change it")


def check_host(request: Request) -> None:
    """Raise CrossSiteError if the request is not to this machine by a name that nobody else can own.

    To a browser a name that its owner lets point to this machine is a site whose pages may read all answers.
    """
    host = request.environ.get("HTTP_HOST", "localhost")
    if _THIS_MACHINE.fullmatch(host) is None:
        raise CrossSiteError("this server asks nobody who they are; ask it as localhost, or by a loopback address")


def takes_session(request: Request) -> bool:
    """Tell whether the session of a browser counts: not for what a page of another site fetches."""
    environ = request.environ
    own = environ.get("HTTP_SEC_FETCH_SITE", "none") in _OWN
    return own or environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
