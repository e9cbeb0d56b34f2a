"""Asking an issuer over HTTP: within seconds, without redirects, proxies and cookies, and so much at most."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import requests
from urllib3.exceptions import HTTPError

from tlog_client.transport import new_session, read_body
from tlog_core.encoding import parse_json
from tlog_core.errors import FetchError

MAX_DOCUMENT_BYTES: Final = 1 << 20

_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, under the names by which Authlib asks for it."""

    url: str
    status_code: int
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON; MalformedError."""
        return parse_json(self.body)

    def raise_for_status(self) -> None:
        """Raise FetchError if that is not what was asked for."""
        if self.status_code != requests.codes.ok:
            raise FetchError(f"HTTP status {self.status_code} from {self.url}")


def fetch_document(url: str) -> bytes:
    """Return what is at a URL, at most MAX_DOCUMENT_BYTES; raise FetchError."""
    found = _ask("GET", url)
    found.raise_for_status()
    return found.body


def post_form(url: str, form: bytes, headers: Mapping[str, str]) -> Answer:
    """Return what a form is answered with, at most MAX_DOCUMENT_BYTES; raise FetchError if there is no answer."""
    return _ask("POST", url, data=form, headers=headers)


def _ask(method: str, url: str, **more: Any) -> Answer:
    end = time.monotonic() + _SECONDS
    try:
        with (
            _session() as session,
            session.request(method, url, timeout=_SECONDS, allow_redirects=False, stream=True, **more) as response,
        ):
            return Answer(url, response.status_code, read_body(response, limit=MAX_DOCUMENT_BYTES, end=end))
    except (OSError, HTTPError) as error:
        raise FetchError(f"no answer from {url}: {type(error).__name__}") from error


def _session() -> requests.Session:
    session = new_session(_SECONDS)
    # A proxy could change what keys an issuer on loopback shows us, and what is in ~/.netrc is for no issuer. Whose
    # certificates are believed is all that the environment says.
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
    return session
