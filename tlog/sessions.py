"""Sessions of browsers: the credential of who signed in, sealed in a cookie (spec/pages.md, "Signing in").

Nothing is kept: what a credential lets one do is decided anew for each request, and so is whether it still holds.
"""

import base64
import hmac
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tlog.errors import CrossSiteError, TooLargeError, UnauthorizedError
from tlog.files import write_durably

COOKIE: Final = "__Host-tlog"
"""The name of the cookie: browsers take it over TLS only, or from this machine, for this host and all its paths."""

LONGEST: Final = 8 * 3600
"""For how many seconds a session goes on at most."""

MAX_CREDENTIAL_BYTES: Final = 2_800
"""A cookie has at most 4096 bytes with its name and attributes."""

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TIME_BYTES: Final = 8
_ENDED: Final = "the session has ended; sign in again"


def session_key(path: Path) -> bytes:
    """Return the key in a file, which is made if it is not there."""
    with suppress(FileExistsError):
        write_durably(path, os.urandom(_KEY_BYTES))
    return path.read_bytes()


class Sessions:
    """Seals credentials, and opens them again, for the threads of one process."""

    def __init__(self, key: bytes, clock: Callable[[], int]) -> None:
        """Seal under a key of 32 bytes; the clock is in milliseconds."""
        self._cipher = AESGCM(hmac.digest(key, b"tlog/session/v1\n", "sha256"))
        self._key = hmac.digest(key, b"tlog/form/v1\n", "sha256")
        self._clock = clock

    def seal(self, kind: str, secret: str, seconds: int = LONGEST) -> str:
        """Return the value of a cookie of this name that is good for so long; TooLargeError."""
        if len(secret) > MAX_CREDENTIAL_BYTES:
            raise TooLargeError(f"this credential is longer than {MAX_CREDENTIAL_BYTES} bytes, too long for a cookie")
        ends = self._clock() + seconds * 1000
        nonce = os.urandom(_NONCE_BYTES)
        plain = ends.to_bytes(_TIME_BYTES, "big") + secret.encode()
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, plain, kind.encode())).decode()

    def open(self, kind: str, value: str) -> str:
        """Return what was sealed in a cookie of this name; UnauthorizedError, which says no more, if it holds not."""
        try:
            raw = base64.b64decode(value.encode("ascii"), b"-_", validate=True)
            plain = self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], kind.encode())
        except (ValueError, InvalidTag):
            raise UnauthorizedError(_ENDED) from None
        if int.from_bytes(plain[:_TIME_BYTES], "big") <= self._clock():
            raise UnauthorizedError(_ENDED)
        return plain[_TIME_BYTES:].decode()

    def form_token(self, value: str) -> str:
        """Return what a form of the session with this cookie carries; of nobody's, if the value is empty."""
        return hmac.digest(self._key, value.encode("utf-8", "replace"), "sha256").hex()

    def check_form(self, value: str, token: str) -> None:
        """Raise CrossSiteError if a form does not carry the token of its session."""
        if not hmac.compare_digest(self.form_token(value).encode(), token.encode("utf-8", "replace")):
            raise CrossSiteError("this form is not of your session; open its page again, and send it from there")
