"""How the log, as a client, speaks to an issuer: by the code of SignIns, to an issuer in a process of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from issuer import Running, running_issuer

from tlog.access.fetch import fetch_document, post_form
from tlog.access.issuer import Issuer, SignIn
from tlog.access.jwks import FRESH, PAUSE
from tlog.access.oidc import Oidc
from tlog.access.sign_in import Begun, Returned, SignIns, read_begun
from tlog.errors import UnauthorizedError, UnavailableError

SECRET, FILE = "s3cret", "client.secret"
NOW = 2_000_000_000_000


@pytest.fixture(scope="module")
def issuer() -> Iterator[Running]:
    with running_issuer() as running:
        yield running


class Clock:
    def __init__(self) -> None:
        self.milliseconds = NOW

    def __call__(self) -> int:
        return self.milliseconds


def make(issuer: Running, clock: Clock, folder: Path, **more: Any) -> SignIns:
    sign_in = SignIn(name="Example", client_id="tlog", redirect_uri="http://127.0.0.1:9/web/sign-in/return", **more)
    one = Issuer(issuer=issuer.url, audience=("tlog",), algorithms=("RS256",), name_prefix="p:", sign_in=sign_in)
    sign_ins = SignIns([one], folder, clock, fetch_document, post_form)
    issuer.answer("well")
    return sign_ins


def sign_in(issuer: Running, sign_ins: SignIns, begun: Begun, url: str) -> str:
    sent = requests.get(url, allow_redirects=False, timeout=30).headers["Location"]
    back = {name: value for name, [value] in parse_qs(urlsplit(sent).query).items()}
    returned = Returned(back["state"], back["code"], "", back.get("iss"))
    oidc = Oidc([sign_ins._issuers[issuer.url][0]], Clock(), fetch_document)
    return sign_ins.end(begun, returned, oidc.identify)


CLAIMS = {"iat": NOW // 1000, "exp": NOW // 1000 + 600}


def test_a_client_without_a_secret_is_protected_by_pkce_alone(issuer: Running, tmp_path: Path) -> None:
    sign_ins = make(issuer, Clock(), tmp_path)
    issuer.expect(claims=CLAIMS)
    begun, url = sign_ins.begin(issuer.url, "/web/")
    assert sign_in(issuer, sign_ins, begun, url).count(".") == 2
    begun, url = sign_ins.begin(issuer.url, "/web/")
    with pytest.raises(UnauthorizedError, match="used up"):
        sign_in(issuer, sign_ins, Begun(begun.issuer, begun.state, begun.nonce, "another" * 7, "/web/"), url)


@pytest.mark.parametrize(
    "methods",
    [None, ["client_secret_basic", "client_secret_post"], ["client_secret_post"]],
    ids=["unsaid", "both", "post alone"],
)
def test_the_client_says_its_secret_as_the_issuer_has_it(
    issuer: Running, tmp_path: Path, methods: list[str] | None
) -> None:
    (tmp_path / FILE).write_text(f"{SECRET}\n")
    sign_ins = make(issuer, Clock(), tmp_path, client_secret_file=FILE)
    discovery = {"token_endpoint_auth_methods_supported": methods} if methods else {}
    issuer.expect(claims=CLAIMS, secret=SECRET, discovery=discovery, by_form=methods == ["client_secret_post"])
    sign_in(issuer, sign_ins, *sign_ins.begin(issuer.url, "/web/"))
    # Read anew each time, so that a secret is changed without a new start.
    (tmp_path / FILE).write_text("other")
    with pytest.raises(UnauthorizedError, match="not its secret"):
        sign_in(issuer, sign_ins, *sign_ins.begin(issuer.url, "/web/"))
    (tmp_path / FILE).unlink()
    with pytest.raises(UnavailableError):
        sign_in(issuer, sign_ins, *sign_ins.begin(issuer.url, "/web/"))


def test_an_issuer_that_says_so_names_itself_in_its_answer(issuer: Running, tmp_path: Path) -> None:
    sign_ins = make(issuer, Clock(), tmp_path)
    issuer.expect(claims=CLAIMS, discovery={"authorization_response_iss_parameter_supported": True})
    sign_in(issuer, sign_ins, *sign_ins.begin(issuer.url, "/web/"))
    issuer.expect(claims=CLAIMS, back={"iss": None})
    with pytest.raises(UnauthorizedError, match="another issuer"):
        sign_in(issuer, sign_ins, *sign_ins.begin(issuer.url, "/web/"))


@pytest.mark.parametrize("how", ["error", "redirect", "long", "garbage", "other"])
def test_an_issuer_that_fails_is_not_pressed(issuer: Running, tmp_path: Path, how: str) -> None:
    clock, asked = Clock(), []
    sign_ins = make(issuer, clock, tmp_path)
    sign_ins._fetch = lambda url: asked.append(url) or fetch_document(url)  # type: ignore[func-returns-value]
    issuer.answer(how)
    for _ in range(3):
        with pytest.raises(UnavailableError, match="nobody can sign in at Example just now"):
            sign_ins.begin(issuer.url, "/web/")
    assert len(asked) == 1
    issuer.answer("well")
    clock.milliseconds += PAUSE
    sign_ins.begin(issuer.url, "/web/")
    clock.milliseconds += FRESH - 1
    sign_ins.begin(issuer.url, "/web/")
    assert len(asked) == 2
    clock.milliseconds += 1
    sign_ins.begin(issuer.url, "/web/")
    assert len(asked) == 3


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint"])
@pytest.mark.parametrize("url", ["http://other.example/x", "https://other.example/?x", "ftp://127.0.0.1/", "", 1, None])
def test_an_endpoint_that_is_not_private_is_not_gone_to(
    issuer: Running, tmp_path: Path, name: str, url: object
) -> None:
    sign_ins = make(issuer, Clock(), tmp_path)
    issuer.expect(claims=CLAIMS, discovery={name: url})
    with pytest.raises(UnavailableError):
        sign_in(issuer, sign_ins, *sign_ins.begin(issuer.url, "/web/"))


def test_what_was_begun_is_read_as_it_was_written() -> None:
    begun = Begun("https://a.example", "s", "n", "v", "/web/?q=é")
    assert read_begun(str(begun)) == begun
