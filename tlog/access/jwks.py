"""The public keys of an issuer (RFC 7517): fetched when they are needed, kept, and fetched again when they change."""

from collections.abc import Callable, Mapping
from threading import BoundedSemaphore, Lock
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

from tlog.access.issuer import Issuer, check_url
from tlog.errors import UnauthorizedError, UnavailableError
from tlog_client.credential import is_on_loopback
from tlog_core.encoding import parse_json, text_member
from tlog_core.errors import FetchError, MalformedError
from tlog_core.note import ED25519, VerifierKey

Keys = Mapping[tuple[str, str], PyJWK]
"""Keys by their ID and the algorithm that a token names."""

FRESH: Final = 5 * 60_000
"""For how many milliseconds keys are used before they are fetched again."""

USABLE: Final = 60 * 60_000
"""For how many milliseconds they are used if they cannot be fetched again."""

PAUSE: Final = 10_000
"""How many milliseconds are between the end of a fetch and the next, however many unknown keys are named meanwhile."""

MAX_WAITING: Final = 8
"""How many threads of a process wait at once for keys that another fetches; all the others can go on with theirs."""

MIN_RSA_BITS: Final = 2048

_WAIT_SECONDS: Final = 1.0
_NEVER: Final = -(1 << 62)
# RFC 7517 section 4.2; JWT-SVIDs are signed by keys of a use of their own (SPIFFE Trust Domain and Bundle, 4.2.2).
_USES: Final = (None, "sig", "jwt-svid")
# RFC 7518 section 3.1, RFC 8037 section 3.1: no key is for algorithms of two families.
_ALGORITHMS: Final = {
    ("RSA", None): ("RS256", "PS256"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("OKP", "Ed25519"): ("EdDSA",),
}


class IssuerKeys:
    """The keys of one issuer, for the threads of one process. Opens no connection before a token asks for a key."""

    def __init__(
        self, issuer: Issuer, clock: Callable[[], int], fetch: Callable[[str], bytes], waiting: BoundedSemaphore
    ) -> None:
        """Take the issuer, a clock in milliseconds, and what gets the document at a URL or raises FetchError.

        `waiting` is held by each thread that waits for another to fetch keys, of whatever issuer.
        """
        self.issuer = issuer
        self._waiting = waiting
        self._clock = clock
        self._fetch = fetch
        self._lock = Lock()
        self._keys: Keys = {}
        self._fetched = self._tried = _NEVER
        self._failure: Exception | None = None

    def find(self, key_id: str, algorithm: str) -> PyJWK:
        """Return a key; UnauthorizedError if the issuer has none like this, UnavailableError if it cannot be asked."""
        wanted = (key_id, algorithm)
        known, looked = wanted in self._usable(), True
        if not known or not _within(FRESH, self._fetched, self._clock()):
            # Whoever has a key goes on with it while another thread fetches.
            looked = self._renew(patience=0.0 if known else _WAIT_SECONDS)
        found = self._usable().get(wanted)
        if found is not None:
            return found
        if self._failure is not None or not looked:
            raise UnavailableError("the keys of the token's issuer cannot be fetched now; try again") from self._failure
        raise UnauthorizedError("the token is signed by a key that its issuer does not show; get another token")

    def _usable(self) -> Keys:
        return self._keys if _within(USABLE, self._fetched, self._clock()) else {}

    def _renew(self, *, patience: float) -> bool:
        """Fetch the keys, unless that was tried just now; False if another thread still does after so many seconds."""
        if not self._take_turn(patience):
            return False
        try:
            now = self._clock()
            if not _within(PAUSE, self._tried, now):
                self._try(now)
        finally:
            self._lock.release()
        return True

    def _take_turn(self, patience: float) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        # Who waits holds a thread, and whoever likes can name keys that nobody has.
        if not patience or not self._waiting.acquire(blocking=False):
            return False
        try:
            return self._lock.acquire(timeout=patience)
        finally:
            self._waiting.release()

    def _try(self, now: int) -> None:
        try:
            self._keys = _parse_keys(self._fetch(self._keys_uri()))
            self._fetched, self._failure = now, None
        except (FetchError, MalformedError) as error:
            self._failure = error
        finally:
            self._tried = self._clock()

    def _keys_uri(self) -> str:
        if self.issuer.jwks_uri is not None:
            return self.issuer.jwks_uri
        return endpoint(self.issuer, discover(self.issuer, self._fetch), "jwks_uri")


def discover(issuer: Issuer, fetch: Callable[[str], bytes]) -> dict[str, Any]:
    """Return the discovery document of an issuer; FetchError, MalformedError."""
    document = parse_json(fetch(issuer.discovery_uri()))
    # OpenID Connect Discovery 1.0, section 4.3: exactly, so that no issuer speaks for another.
    if not isinstance(document, dict) or document.get("issuer") != issuer.issuer:
        raise MalformedError("the discovery document is that of another issuer")
    return document


def endpoint(issuer: Issuer, document: dict[str, Any], name: str) -> str:
    """Return a URL that a discovery document names; MalformedError."""
    uri = text_member(document, name)
    # An issuer elsewhere does not send us to what listens on this machine.
    check_url(uri, loopback=is_on_loopback(issuer.issuer))
    return uri


def _within(span: int, since: int, now: int) -> bool:
    # Not so either if the clock went back: then nobody knows.
    return 0 <= now - since < span


def _parse_keys(raw: bytes) -> Keys:
    document = parse_json(raw)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise MalformedError("not a set of keys")
    # RFC 7517 section 5: what is not understood is left out, and of two keys of one name here the second.
    found: dict[tuple[str, str], PyJWK] = {}
    for jwk in keys:
        for algorithm in _algorithms(jwk):
            key = _parse_key(jwk, algorithm)
            if key is not None:
                found.setdefault((jwk["kid"], algorithm), key)
    return found


def _algorithms(jwk: Any) -> tuple[str, ...]:
    """Return the algorithms that a key may be used for, none if it is not for us."""
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str) or jwk.get("use") not in _USES:
        return ()
    # A private key that is shown is everyone's.
    if "d" in jwk:
        return ()
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if not isinstance(kind, str) or not isinstance(curve, str | None):
        return ()
    possible = _ALGORITHMS.get((kind, curve), ())
    return tuple(one for one in possible if jwk.get("alg") in (None, one))


def _parse_key(jwk: dict[str, Any], algorithm: str) -> PyJWK | None:
    try:
        key = PyJWK(jwk, algorithm)
        _check_strength(key.key)
    except (PyJWTError, MalformedError, ValueError, TypeError):
        return None
    return key


def _check_strength(key: object) -> None:
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise MalformedError("a weak key: RSA with fewer than 2048 bits")
    if isinstance(key, Ed25519PublicKey):
        # Raises for points of small order, by which anyone's signature is right.
        VerifierKey("issuer", ED25519, key.public_bytes_raw())
