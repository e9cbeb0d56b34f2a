"""JSON Web Tokens of OIDC issuers, and whom they speak for (spec/access.md, "OIDC"; RFC 7519, RFC 8725).

PyJWT checks signature, issuer and audience. Before that a token is read strictly, so that no two readers can see two
things in it, and after that its times are checked against our own clock.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any, Final

import jwt

from tlog.access.issuer import Issuer
from tlog.access.jwks import MAX_WAITING, IssuerKeys
from tlog.access.principal import Principal
from tlog.access.token import check_principal
from tlog.errors import UnauthorizedError
from tlog_core.encoding import MAX_JSON_INTEGER, canonical_json, parse_json, text_member
from tlog_core.errors import MalformedError

MAX_TOKEN_BYTES: Final = 16_384
MAX_CLAIMS: Final = 256
MAX_DEPTH: Final = 8
"""How deep arrays and objects may nest in a token."""

LEEWAY: Final = 60_000
"""How many milliseconds an issuer's clock and ours may differ."""

KEPT: Final = 60_000
"""For how many milliseconds a token is taken at its word after it was verified, unless it expires before."""

_MAX_KEPT: Final = 4_096
_TOKEN: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
# RFC 8725 section 3.11: tokens of other kinds are not for showing who asks. JOSE comes with JWT-SVIDs.
_TYPES: Final = ("jwt", "at+jwt", "jose")
# They are about the token, not about whom it speaks for.
_OF_THE_TOKEN: Final = frozenset({"exp", "nbf", "iat", "jti"})
_NOT_OURS: Final = "the token is not one of ours; ask who runs the log for another"


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a token says of itself before anything of it is verified: good for choosing by what to verify it."""

    issuer: str
    key_id: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class _Kept:
    """Whom a verified token speaks for. Times are in milliseconds since the epoch."""

    principal: Principal
    verified: int
    ends: int


class Oidc:
    """Verifies tokens for the threads of one process."""

    def __init__(self, issuers: Sequence[Issuer], clock: Callable[[], int], fetch: Callable[[str], bytes]) -> None:
        """Take the issuers, a clock in milliseconds, and what gets the document at a URL or raises FetchError."""
        waiting = BoundedSemaphore(MAX_WAITING)
        self._issuers = {issuer.issuer: IssuerKeys(issuer, clock, fetch, waiting) for issuer in issuers}
        self._clock = clock
        # By SHA-256 of the token, so that no credential is kept. Single reads and writes of dicts are atomic.
        self._kept: dict[bytes, _Kept] = {}

    def identify(self, token: str) -> Principal:
        """Return whom a token speaks for.

        Raises UnauthorizedError, which never shows the token, and UnavailableError if it might hold but the keys of its
        issuer cannot be fetched.
        """
        if len(token) > MAX_TOKEN_BYTES or not token.isascii() or not self._issuers:
            raise UnauthorizedError(_NOT_OURS)
        digest, now = hashlib.sha256(token.encode()).digest(), self._clock()
        kept = self._kept.get(digest)
        if kept is not None and 0 <= now - kept.verified < KEPT and now < kept.ends:
            return kept.principal
        try:
            fresh = self._verify(token, now)
        except MalformedError as error:
            raise UnauthorizedError(f"not a token of an issuer: {error}") from None
        if len(self._kept) >= _MAX_KEPT:
            self._kept = {}
        self._kept[digest] = fresh
        return fresh.principal

    def _verify(self, token: str, now: int) -> _Kept:
        shown = _read(token)
        keys = self._issuers.get(shown.issuer)
        if keys is None:
            raise UnauthorizedError(_NOT_OURS)
        issuer = keys.issuer
        if shown.algorithm not in issuer.algorithms:
            raise UnauthorizedError("the token is signed by an algorithm that is not configured for its issuer")
        claims = _open(token, keys.find(shown.key_id, shown.algorithm), shown.algorithm, issuer)
        return _Kept(_principal(issuer, claims), verified=now, ends=_check_times(claims, now))


def _read(token: str) -> _Shown:
    """Return what a token says of itself, if it has the only form that it can have; raise MalformedError."""
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        raise MalformedError("it is three parts of base64url, separated by dots")
    header, claims, _ = _parse(parts[1]), _parse(parts[2]), _decode(parts[3])
    # RFC 7515 section 4.1.11: what must be understood, and is not. Members that name keys or places are ignored.
    if "crit" in header:
        raise MalformedError("its header has crit, and nothing critical is known here")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise MalformedError("its typ is not that of a token which shows who asks")
    return _Shown(text_member(claims, "iss"), text_member(header, "kid"), text_member(header, "alg"))


def _parse(part: str) -> dict[str, Any]:
    value = parse_json(_decode(part), depth=MAX_DEPTH)
    if not isinstance(value, dict):
        raise MalformedError("a part of it is not an object")
    return value


def _decode(part: str) -> bytes:
    if len(part) % 4 == 1:
        raise MalformedError("its base64url has an impossible length")
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != part:
        raise MalformedError("its base64url is not canonical")
    return data


def _open(token: str, key: jwt.PyJWK, algorithm: str, issuer: Issuer) -> dict[str, Any]:
    """Return the claims of a token, once signature, issuer and audience are as they must be; UnauthorizedError."""
    try:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=issuer.issuer,
            audience=issuer.audience,
            # The times are checked by our own clock.
            options={
                "require": ["exp", "iss", "aud", "sub"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "enforce_minimum_key_length": True,
            },
        )
    except jwt.InvalidAudienceError:
        raise UnauthorizedError("the token is for another audience; ask its issuer for one for this log") from None
    except jwt.MissingRequiredClaimError:
        raise UnauthorizedError("the token lacks one of exp, iss, aud and sub") from None
    except jwt.InvalidSignatureError:
        raise UnauthorizedError("the signature of the token is wrong") from None
    except jwt.PyJWTError:
        raise UnauthorizedError("the token is not what its issuer makes") from None


def _check_times(claims: dict[str, Any], now: int) -> int:
    """Return when a token ends, in milliseconds since the epoch, if it holds now; UnauthorizedError."""
    ends = _milliseconds(claims, "exp") + LEEWAY
    if now >= ends:
        raise UnauthorizedError("the token has expired; get another from its issuer")
    for name in ("nbf", "iat"):
        if name in claims and _milliseconds(claims, name) > now + LEEWAY:
            raise UnauthorizedError("the token is of the future; compare the clocks of its issuer and of the log")
    return ends


def _milliseconds(claims: dict[str, Any], name: str) -> int:
    value = claims[name]
    if type(value) not in (int, float) or not 0 <= value <= MAX_JSON_INTEGER:
        raise MalformedError(f"its {name} is not a number of seconds since the epoch")
    return int(value * 1000)


def _principal(issuer: Issuer, claims: dict[str, Any]) -> Principal:
    pairs = tuple(pair for name in claims if name not in _OF_THE_TOKEN for pair in _flatten(name, claims[name]))
    if len(pairs) > MAX_CLAIMS:
        raise MalformedError(f"it has more than {MAX_CLAIMS} values of claims")
    names = [value for path, value in pairs if path == issuer.principal_claim]
    if len(names) != 1 or not names[0]:
        raise MalformedError("it does not have just one value, not empty, of the claim that names the principal")
    name = issuer.name_prefix + names[0]
    check_principal(name)
    groups = frozenset(issuer.name_prefix + value for path, value in pairs if path == issuer.groups_claim)
    return Principal(name, groups, pairs)


def _flatten(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield each value below a claim with the path to it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(f"{path}/{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _flatten(path, inner)
    elif isinstance(value, str):
        yield path, value
    elif value is not None:
        yield path, canonical_json(value).decode()
