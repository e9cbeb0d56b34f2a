"""The credential that a log is shown: an API token, or a JWT that its platform keeps fresh in a file."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.auth import AuthBase

from tlog_core.errors import MalformedError

TOKEN_VARIABLE = "TLOG_TOKEN"
TOKEN_FILE_VARIABLE = "TLOG_TOKEN_FILE"


class Bearer(AuthBase):
    """Shows a bearer credential (RFC 6750). One in a file is read for each request, so that a fresh one is noticed."""

    def __init__(self, source: str | Path) -> None:
        """Take the credential itself, or the file that holds it."""
        self._source = source

    def __repr__(self) -> str:
        """Return what shows nothing of it."""
        return "Bearer(…)"

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Put it on a request; MalformedError if it cannot be read, or would be sent in the clear."""
        if not is_private(request.url or ""):
            raise MalformedError("the credential would be sent in the clear; use the log's https URL")
        request.headers["Authorization"] = f"Bearer {self._read()}"
        return request

    def _read(self) -> str:
        try:
            text = self._source.read_text("utf-8") if isinstance(self._source, Path) else self._source
        except (OSError, UnicodeDecodeError) as error:
            raise MalformedError(f"the credential cannot be read: {error}") from None
        text = text.strip()
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise MalformedError("the credential is not one of visible ASCII characters")
        return text


def credential_of(environment: Mapping[str, str]) -> str | Path | None:
    """Return the credential that the environment gives, or the file that holds it, or None."""
    if TOKEN_VARIABLE in environment:
        return environment[TOKEN_VARIABLE]
    path = environment.get(TOKEN_FILE_VARIABLE)
    return None if path is None else Path(path)


def is_on_loopback(url: str) -> bool:
    """Tell whether a URL is of this very machine: what is sent there nobody on a network can read or change."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_private(url: str) -> bool:
    """Tell whether what is sent to a URL, and what comes back, nobody on a network can read or change."""
    return urlsplit(url).scheme == "https" or is_on_loopback(url)
