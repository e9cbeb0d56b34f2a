"""API tokens: `tlog_<id>_<secret>` (spec/access.md, "Tokens"). Of a secret the server keeps the hash alone."""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final, NewType

from tlog.errors import UnauthorizedError
from tlog_core.encoding import decode_base64, encode_base64
from tlog_core.errors import MalformedError

TokenHash = NewType("TokenHash", bytes)
"""SHA-256 of the 32 bytes of a secret. They are random, so that it tells nothing of them."""

PREFIX: Final = "tlog_"
"""How a token begins, and no credential of another kind."""

ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
MAX_DAYS: Final = 90
"""How long a token may be good for. There is none without an end."""

MAX_OVERLAP_DAYS: Final = 7
"""How long a token may go on beside the one that takes its place."""

OWN_NAMES: Final = "tlog/"
"""How the names begin under which tlog itself writes."""

_TOKEN: Final = re.compile(r"tlog_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_MAX_NAME_BYTES: Final = 255
_NOT_SHOWN: Final = TokenHash(bytes(SECRET_BYTES))


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token. Times are in milliseconds since the epoch; `last_used` and `revoked` may be None."""

    id: str
    hash: TokenHash
    principal: str
    groups: tuple[str, ...]
    created: int
    expires: int
    last_used: int | None = None
    revoked: int | None = None


@dataclass(frozen=True, slots=True)
class Presented:
    """A token as it is shown: its ID, and its secret, which does not print."""

    id: str
    secret: bytes = field(repr=False)

    def text(self) -> str:
        """Return the token itself, to be shown once to who it is for."""
        return f"tlog_{self.id}_{_encode(self.secret)}"

    def hash(self) -> TokenHash:
        """Return what is kept of the secret."""
        return TokenHash(hashlib.sha256(self.secret).digest())


def token_from_random(random: bytes) -> Presented:
    """Return the token that 40 random bytes make."""
    if len(random) != ID_BYTES + SECRET_BYTES:
        raise AssertionError("a token is made of 40 random bytes")
    return Presented(random[:ID_BYTES].hex(), random[ID_BYTES:])


def parse_token(text: str) -> Presented:
    """Return the token of this text; raise MalformedError, which never shows it."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise MalformedError("not a token: it is tlog_, 16 hex digits, _, and 43 characters")
    presented = Presented(match[1], _decode(match[2]))
    if presented.text() != text:
        raise MalformedError("not a token: its last character is not in its only form")
    return presented


def verify_token(token: Token | None, presented: Presented, now: int) -> None:
    """Check what was shown against what is kept of the token of that ID, if there is one; raise UnauthorizedError.

    It takes the same time whether there is such a token or not.
    """
    kept = _NOT_SHOWN if token is None else token.hash
    same = hmac.compare_digest(kept, presented.hash())
    if token is None or not same:
        raise UnauthorizedError("the token is not one of ours; ask who runs the log for another")
    if token.revoked is not None:
        raise UnauthorizedError("the token was revoked; ask who runs the log for another")
    if now >= token.expires:
        raise UnauthorizedError("the token has expired; ask who runs the log for another")


def check_principal(name: str) -> None:
    """Raise MalformedError if no principal may have this name."""
    # No white space is printable but the space itself.
    if not name or not name.isprintable() or " " in name or len(name.encode()) > _MAX_NAME_BYTES:
        raise MalformedError("a principal's name has 1 to 255 bytes of printable characters and no white space")
    if name == "anonymous" or name.startswith(OWN_NAMES):
        raise MalformedError(f"{name} is a name of tlog's own; choose another")


def _encode(secret: bytes) -> str:
    return encode_base64(secret).rstrip("=").translate(str.maketrans("+/", "-_"))


def _decode(text: str) -> bytes:
    return decode_base64(text.translate(str.maketrans("-_", "+/")) + "=", length=SECRET_BYTES)
