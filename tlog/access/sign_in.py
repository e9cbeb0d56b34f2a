"""Signing people in at an issuer: authorization code flow with PKCE (spec/access.md, "Signing people in").

Authlib writes what is asked; the ID token that comes back is verified as any other token is.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hmac import compare_digest
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from tlog.access.fetch import Answer
from tlog.access.issuer import Issuer, SignIn
from tlog.access.jwks import FRESH, PAUSE, discover, endpoint
from tlog.access.principal import Principal
from tlog.errors import BusyError, ConfigError, NotFoundError, UnauthorizedError, UnavailableError
from tlog_core.encoding import canonical_json, parse_json
from tlog_core.errors import FetchError, MalformedError

if TYPE_CHECKING:
    from authlib.oauth2.auth import ClientAuth

SECONDS: Final = 600
"""For how long a sign-in that was begun can be ended."""

_MAX_AT_ONCE: Final = 8
_RANDOM_BYTES: Final = 32
_NOT_BEGUN: Final = (
    "this sign-in was not begun in this browser, or more than ten minutes ago, or has ended already; sign in again"
)


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that was begun: where, by what it is known when it comes back, and the page to go on to then."""

    issuer: str
    state: str
    nonce: str
    verifier: str
    place: str

    def __str__(self) -> str:
        return canonical_json(asdict(self)).decode()


@dataclass(frozen=True, slots=True)
class Returned:
    """What the issuer had the browser bring: a code, or an error; and who it says that it is."""

    state: str
    code: str
    error: str
    issuer: str | None


@dataclass(frozen=True, slots=True)
class _Discovered:
    """A discovery document, or why there is none, and when it was asked for."""

    document: dict[str, Any] | None
    asked: int


class SignIns:
    """Signs people in, for the threads of one process. Asks nobody before somebody signs in."""

    def __init__(
        self,
        issuers: Sequence[Issuer],
        folder: Path,
        clock: Callable[[], int],
        fetch: Callable[[str], bytes],
        post: Callable[[str, bytes, Mapping[str, str]], Answer],
    ) -> None:
        """Take the issuers, the folder of files of secrets, and a clock in milliseconds.

        `fetch` gets the document at a URL, and `post` sends a form with headers; both raise FetchError.
        """
        self._issuers = {issuer.issuer: (issuer, issuer.sign_in) for issuer in issuers if issuer.sign_in is not None}
        self._folder = folder
        self._clock = clock
        self._fetch = fetch
        self._transport = _Transport(post)
        self._places = BoundedSemaphore(_MAX_AT_ONCE)
        self._discovered: dict[str, _Discovered] = {}

    def names(self) -> dict[str, str]:
        """Return the issuers where one can sign in, and what they are called."""
        return {issuer: sign_in.name for issuer, (_, sign_in) in self._issuers.items()}

    def begin(self, name: str, place: str) -> tuple[Begun, str]:
        """Return a sign-in at an issuer, and where the browser is to go; NotFoundError, BusyError, UnavailableError."""
        issuer, sign_in = self._find(name)
        begun = Begun(name, state=_draw(), nonce=_draw(), verifier=_draw(), place=place)
        with self._asking(sign_in):
            authorization = endpoint(issuer, self._document(issuer), "authorization_endpoint")
        url, _ = self._client(sign_in).create_authorization_url(
            authorization, state=begun.state, code_verifier=begun.verifier, nonce=begun.nonce
        )
        return begun, str(url)

    def end(self, begun: Begun, returned: Returned, identify: Callable[[str], Principal]) -> str:
        """Return the ID token of whom `identify` then knows.

        Raises UnauthorizedError if it is not to be had, or not for this sign-in; and what `begin` does.
        """
        issuer, sign_in = self._find(begun.issuer)
        _check_state(begun, returned)
        with self._asking(sign_in):
            document = self._document(issuer)
            _check_sender(issuer, document, returned)
            if returned.error or not returned.code:
                raise UnauthorizedError(f"{sign_in.name} did not sign you in: {_shown(returned.error or 'no code')}")
            token = self._token(issuer, sign_in, document, begun, returned.code)
        _check_claims(sign_in, begun, identify(token).claims)
        return token

    def _find(self, name: str) -> tuple[Issuer, SignIn]:
        if name not in self._issuers:
            raise NotFoundError("nobody signs in at that issuer here; go back to the sign-in page")
        return self._issuers[name]

    def _token(self, issuer: Issuer, sign_in: SignIn, document: dict[str, Any], begun: Begun, code: str) -> str:
        from authlib.oauth2.base import OAuth2Error

        secret = sign_in.client_secret(self._folder)
        client = self._client(sign_in, secret, _method(secret, document))
        token_endpoint = endpoint(issuer, document, "token_endpoint")
        try:
            found = client.fetch_token(
                token_endpoint, grant_type="authorization_code", code=code, code_verifier=begun.verifier
            )
        except OAuth2Error as error:
            raise UnauthorizedError(f"{sign_in.name} did not sign you in: {_shown(str(error.error))}") from None
        token = found.get("id_token")
        if not isinstance(token, str):
            raise MalformedError("there is no ID token in the answer")
        return token

    def _client(self, sign_in: SignIn, secret: str | None = None, method: str = "none") -> Any:
        # Here, as few servers sign people in at issuers, and each would take a tenth longer to start.
        from authlib.oauth2.client import OAuth2Client

        return OAuth2Client(
            self._transport,
            sign_in.client_id,
            secret,
            token_endpoint_auth_method=method,
            scope=sign_in.scope,
            redirect_uri=sign_in.redirect_uri,
            code_challenge_method="S256",
        )

    def _document(self, issuer: Issuer) -> dict[str, Any]:
        kept, now = self._discovered.get(issuer.issuer), self._clock()
        if kept is None or not 0 <= now - kept.asked < (PAUSE if kept.document is None else FRESH):
            kept = self._discovered[issuer.issuer] = self._discover(issuer)
        if kept.document is None:
            raise FetchError("it was asked just now, and did not say where one signs in")
        return kept.document

    def _discover(self, issuer: Issuer) -> _Discovered:
        try:
            document = discover(issuer, self._fetch)
        except (FetchError, MalformedError):
            # Kept too: who comes again and again presses no issuer.
            document = None
        return _Discovered(document, self._clock())

    @contextmanager
    def _asking(self, sign_in: SignIn) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise BusyError("many sign in just now; try again")
        try:
            yield
        except (FetchError, MalformedError, ConfigError, ValueError) as error:
            raise UnavailableError(
                f"nobody can sign in at {sign_in.name} just now; try again, or tell who runs this log"
            ) from error
        finally:
            self._places.release()


@dataclass(frozen=True, slots=True)
class _Transport:
    """What Authlib asks through."""

    send: Callable[[str, bytes, Mapping[str, str]], Answer]

    def post(self, url: str, *, data: dict[str, str], headers: Mapping[str, str], auth: "ClientAuth") -> Answer:
        """Send a form, in which or beside which the client says who it is."""
        # Authlib writes into the headers, which are its own for all clients.
        url, said, form = auth.prepare("POST", url, dict(headers), urlencode(data))
        return self.send(url, form.encode(), said)


def read_begun(text: str) -> Begun:
    """Return what `str` of it was."""
    return Begun(**parse_json(text.encode()))


def _check_state(begun: Begun, returned: Returned) -> None:
    """Raise UnauthorizedError if a browser came back from another sign-in."""
    if not compare_digest(begun.state.encode(), returned.state.encode("utf-8", "replace")):
        raise UnauthorizedError(_NOT_BEGUN)


def not_begun() -> UnauthorizedError:
    """Return what says that a browser came back from nothing."""
    return UnauthorizedError(_NOT_BEGUN)


def _draw() -> str:
    return secrets.token_urlsafe(_RANDOM_BYTES)


def _check_sender(issuer: Issuer, document: dict[str, Any], returned: Returned) -> None:
    # RFC 9207: a code of another issuer is not to be shown to this one.
    needed = document.get("authorization_response_iss_parameter_supported") is True
    if returned.issuer != issuer.issuer and (needed or returned.issuer is not None):
        raise UnauthorizedError("another issuer answered than was asked; sign in again, and tell who runs this log")


def _check_claims(sign_in: SignIn, begun: Begun, claims: Sequence[tuple[str, str]]) -> None:
    """Raise UnauthorizedError if an ID token is not for this sign-in (OpenID Connect Core 1.0, section 3.1.3.7)."""
    found = {name: [value for path, value in claims if path == name] for name in ("iss", "aud", "azp", "nonce")}
    party = [sign_in.client_id]
    if (
        found["iss"] != [begun.issuer]
        or found["nonce"] != [begun.nonce]
        or sign_in.client_id not in found["aud"]
        or found["azp"] not in ([party] if len(found["aud"]) > 1 else [party, []])
    ):
        raise UnauthorizedError(
            f"{sign_in.name} gave a token that is not for this sign-in; sign in again, and tell who runs this log"
        )


def _method(secret: str | None, document: dict[str, Any]) -> str:
    if secret is None:
        return "none"
    # OpenID Connect Discovery 1.0, section 3: what holds if nothing is said.
    known = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    posts = isinstance(known, list) and "client_secret_post" in known and "client_secret_basic" not in known
    return "client_secret_post" if posts else "client_secret_basic"


def _shown(code: str) -> str:
    """Return an error of an issuer, in a few words; those of its own are somebody else's text."""
    return _MEANINGS.get(code, code[:80])


_MEANINGS: Final = {
    "access_denied": "you, or your administrator, denied it",
    "invalid_grant": "the code is used up, or too old; sign in again",
    "invalid_client": "it does not know this log, or not its secret; tell who runs this log",
    "temporarily_unavailable": "it cannot just now; try again",
}
