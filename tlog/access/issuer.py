"""The OIDC issuers whose tokens are taken, as `issuers.toml` configures them (spec/access.md, "OIDC")."""

import re
import tomllib
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from tlog.access.token import check_principal
from tlog.errors import ConfigError
from tlog_client.credential import is_on_loopback
from tlog_core.errors import MalformedError

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
"""Those that a token may be signed by. With each of them, who can check a token cannot make one."""

_MAX_BYTES: Final = 1 << 16
_RETURN: Final = "/web/sign-in/return"
_SECRET: Final = re.compile(r"[!-~]{1,1024}")
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Texts = Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """How people sign in at an issuer: as whose client, and where the browser comes back to."""

    name: str
    client_id: str
    redirect_uri: str
    client_secret_file: str | None = None
    scope: str = "openid"

    def client_secret(self, folder: Path) -> str | None:
        """Return the secret of the client, from its file in or below a folder, if it has one; ConfigError."""
        if self.client_secret_file is None:
            return None
        try:
            secret = (folder / self.client_secret_file).read_text("ascii").removesuffix("\n")
        except (OSError, ValueError) as error:
            raise ConfigError(f"client_secret_file cannot be read: {_reason(error)}") from None
        if _SECRET.fullmatch(secret) is None:
            raise ConfigError("client_secret_file has not just one line of 1 to 1024 visible ASCII characters")
        return secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One `[[issuer]]`: whose tokens, for which audiences, signed how, and whom they speak for.

    Principals and groups are named by what the token says, after `name_prefix`. Claims are paths, as a policy has
    them. Without `jwks_uri` the discovery document says where the keys are.
    """

    issuer: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...]
    name_prefix: str
    principal_claim: str = "sub"
    groups_claim: str | None = None
    jwks_uri: str | None = None
    sign_in: SignIn | None = None

    def discovery_uri(self) -> str:
        """Return where the discovery document is (OpenID Connect Discovery 1.0, section 4)."""
        return self.issuer.removesuffix("/") + "/.well-known/openid-configuration"


class _SignInTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: _Text
    client_id: _Text
    redirect_uri: _Text
    client_secret_file: _Text | None = None
    scope: _Text = "openid"


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    issuer: _Text
    audience: _Texts
    algorithms: _Texts
    name_prefix: _Text
    principal_claim: _Text = "sub"
    groups_claim: _Text | None = None
    jwks_uri: _Text | None = None
    sign_in: _SignInTable | None = None


def read_issuers(path: Path) -> str:
    """Return the document of a file, which states issuers, or none if it is not there; ConfigError as below."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {(error.strerror or '').lower()}") from None
    for issuer in parse_issuers(raw):
        _check_secret(issuer, path.parent)
    return raw.decode()


def parse_issuers(raw: bytes) -> tuple[Issuer, ...]:
    """Return the issuers that a document states; ConfigError, which names the issuer at fault, for any other."""
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"issuers.toml has at most {_MAX_BYTES} bytes")
    try:
        content = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"issuers.toml is not TOML: {_lower(str(error))}") from None
    tables = content.pop("issuer", [])
    if content or not isinstance(tables, list):
        raise ConfigError("issuers.toml has nothing but tables under [[issuer]]; remove the rest")
    issuers = tuple(_issuer(table, number) for number, table in enumerate(tables, 1))
    for one, other in permutations(issuers, 2):
        _check_pair(one, other)
    return issuers


def check_url(url: str, *, loopback: bool) -> None:
    """Raise MalformedError if keys are not to be fetched from there: HTTPS only, or HTTP too if on `loopback`."""
    try:
        parts = urlsplit(url)
        known = bool(parts.hostname) and parts.port != 0 and parts.username is None and not set("?#") & set(url)
    except ValueError:
        known = False
    if not known or not url.isascii() or not url.isprintable() or " " in url:
        raise MalformedError("not a URL such as https://issuer.example/keys")
    if parts.scheme != "https" and not (loopback and parts.scheme == "http" and is_on_loopback(url)):
        raise MalformedError("neither https nor on loopback")


def _issuer(table: Any, number: int) -> Issuer:
    named = table.get("issuer") if isinstance(table, dict) else None
    title = f"issuer {_lower(named) if isinstance(named, str) else number}"
    try:
        found = msgspec.convert(table, _Table)
        sign_in = None if found.sign_in is None else SignIn(**msgspec.structs.asdict(found.sign_in))
        issuer = Issuer(**{**msgspec.structs.asdict(found), "sign_in": sign_in})
        _check(issuer)
    except (msgspec.ValidationError, MalformedError) as error:
        raise ConfigError(f"issuers.toml: {title}: {_lower(str(error))}") from None
    return issuer


def _check(issuer: Issuer) -> None:
    unknown = [one for one in issuer.algorithms if one not in ALGORITHMS]
    if unknown:
        raise MalformedError(f"a token is not to be signed by {unknown[0]}; choose of {', '.join(ALGORITHMS)}")
    if not all(map(str.isprintable, (issuer.issuer, *issuer.audience))):
        raise MalformedError("issuer and audience consist of printable characters")
    try:
        check_principal(f"{issuer.name_prefix}x")
    except MalformedError as error:
        raise MalformedError(f"name_prefix: {error}") from None
    member, url = ("issuer", issuer.issuer) if issuer.jwks_uri is None else ("jwks_uri", issuer.jwks_uri)
    try:
        check_url(url, loopback=True)
    except MalformedError as error:
        raise MalformedError(f"{member}: {error}") from None

    if issuer.sign_in is not None:
        _check_sign_in(issuer.sign_in, issuer.audience)


def _check_sign_in(sign_in: SignIn, audience: tuple[str, ...]) -> None:
    if sign_in.client_id not in audience:
        raise MalformedError("sign_in: client_id is not one of audience, so that no token would be taken; add it there")
    texts = (sign_in.name, sign_in.client_id, sign_in.scope, sign_in.client_secret_file or "")
    if not all(map(str.isprintable, texts)):
        raise MalformedError("sign_in: its members consist of printable characters")
    if "openid" not in sign_in.scope.split(" "):
        raise MalformedError("sign_in: scope lacks openid, without which there is no ID token")
    try:
        check_url(sign_in.redirect_uri, loopback=True)
    except MalformedError as error:
        raise MalformedError(f"sign_in: redirect_uri: {error}") from None
    if not sign_in.redirect_uri.endswith(_RETURN):
        raise MalformedError(f"sign_in: redirect_uri does not end in {_RETURN}")


def _check_secret(issuer: Issuer, folder: Path) -> None:
    try:
        if issuer.sign_in is not None:
            issuer.sign_in.client_secret(folder)
    except ConfigError as error:
        raise ConfigError(f"issuers.toml: issuer {issuer.issuer}: sign_in: {error}") from None


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or "").lower() if isinstance(error, OSError) else "it is not ASCII"


def _check_pair(one: Issuer, other: Issuer) -> None:
    if one.issuer == other.issuer:
        raise ConfigError(f"issuers.toml: issuer {one.issuer}: it is there twice; keep one of them")
    if one.name_prefix.startswith(other.name_prefix):
        raise ConfigError(
            f"issuers.toml: issuer {one.issuer}: name_prefix begins as that of {other.issuer}, "
            "so that one could name the principals of the other; choose another"
        )


def _lower(message: str) -> str:
    """Make another's message one of ours, without characters that a terminal would act upon."""
    return "".join(c if c.isprintable() else "?" for c in message[:1].lower() + message[1:])
