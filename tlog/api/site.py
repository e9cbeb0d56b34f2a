"""Requests that a page of another site has a browser send (spec/http-api.md, "Browsers")."""

from typing import Final

from flask import Request

from tlog.errors import CrossSiteError

_OWN: Final = ("same-origin", "none")


def check_site(request: Request) -> None:
    """Raise CrossSiteError if a browser marks the request as not from a page of this server, nor from its user."""
    environ = request.environ
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    # By the host alone: a proxy may speak TLS for this server. Browsers that say the site have compared the rest.
    own = site in _OWN if site is not None else origin is None or origin.partition("://")[2] == request.host
    if not own:
        raise CrossSiteError("a page of another site had a browser send this; only this server's own may change it")


def takes_session(request: Request) -> bool:
    """Tell whether the session of a browser counts: not for what a page of another site fetches."""
    environ = request.environ
    own = environ.get("HTTP_SEC_FETCH_SITE", "none") in _OWN
    return own or environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
