"""People sign in at an issuer, in Chromium; and those who attack that are refused, over plain HTTP."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import policies
import pytest
import requests
from browsing import POLICY, Site, lay
from issuer import Running, running_issuer
from live import PATIENCE, Answer, free_port, start, tell, until
from playwright.sync_api import Page

from tlog.access.sign_in import SECONDS
from tlog.clock import now
from tlog.sessions import COOKIE, Sessions
from tlog.web.oidc import COOKIE as BEGUN

RULE = {"name": "o", "roles": ["auditor"], "groups": ["people:auditors"], "segments": ["payments"]}
PERSON: dict[str, Any] = {"sub": "ada", "groups": ["auditors"]}
SECRET = "s3cret"
NOT_BEGUN = "this sign-in was not begun in this browser"
NOT_FOR_THIS = "Example gave a token that is not for this sign-in"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Running]:
    # By another name than the log, so that browsers take it for another site.
    with running_issuer("localhost") as running:
        yield running


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, issuer: Running) -> Iterator[Site]:
    """A guarded log at which people sign in by the issuer, as of its client with a secret."""
    data, port = tmp_path_factory.mktemp("oidc") / "data", free_port()
    tokens = lay(data)
    (data / "issuers.toml").write_text(
        f'[[issuer]]\nissuer = "{issuer.url}"\naudience = ["tlog", "another"]\nalgorithms = ["RS256"]\n'
        'name_prefix = "people:"\ngroups_claim = "groups"\n[issuer.sign_in]\nname = "Example"\nclient_id = "tlog"\n'
        f'redirect_uri = "http://127.0.0.1:{port}/web/sign-in/return"\nclient_secret_file = "client.secret"\n'
    )
    (data / "client.secret").write_text(f"{SECRET}\n")
    (policy := data.parent / "more.toml").write_bytes(POLICY + policies.write([RULE]))
    tell("policy", "apply", policy, "--data", data)
    server = start(data, guarded=True, log_name=None, port=port, workers=1)
    yield Site(server, tokens)
    assert server.stop() == 0
    assert SECRET not in server.log.read_text() + tell("fsck", "--data", data)


@pytest.fixture
def page(new_page: Callable[..., Page], log: Site) -> Page:
    return new_page(log.server)


@pytest.fixture(autouse=True)
def expected(issuer: Running) -> None:
    issuer.answer("well")
    issuer.expect(claims=PERSON, secret=SECRET)


@dataclass
class Visitor:
    """What keeps cookies, and follows no redirect by itself."""

    log: Site
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Answer:
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **headers}
        answer = self.log.server.request("GET", path, None, sent)
        for line in answer.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]
        return answer

    def begin(self, issuer: Running, place: str = "/web/") -> dict[str, str]:
        """Begin to sign in, and return what the issuer is asked."""
        self.asked = self.get(f"/web/sign-in/start?issuer={quote(issuer.url)}&next={quote(place)}")
        assert self.asked.status == 303, self.asked.body
        return {name: value for name, [value] in parse_qs(urlsplit(self.asked.headers["Location"]).query).items()}

    def at_issuer(self) -> str:
        """Go to the issuer, and return the path by which it sends back."""
        sent = requests.get(self.asked.headers["Location"], allow_redirects=False, timeout=30)
        parts = urlsplit(sent.headers["Location"])
        return f"{parts.path}?{parts.query}"

    def signs_in(self, issuer: Running) -> Answer:
        self.begin(issuer)
        return self.get(self.at_issuer())

    def is_in(self) -> bool:
        return COOKIE in self.cookies and b"Sign out" in self.get("/web/").body


def refused(answer: Answer, why: str, status: int = 403) -> None:
    assert (answer.status, why in answer.body.decode()) == (status, True), answer.body.decode()


def test_a_person_signs_in_at_the_issuer_and_goes_on_to_the_page_that_was_asked_for(
    log: Site, page: Page, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    page.goto(f"{log.server.url}/web/segments/payments")
    button = page.get_by_role("link", name="Sign in at Example")
    check_page(page)
    shot(page, "sign-in-oidc")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/web/segments/payments")
    assert page.get_by_title("Signed in as").text_content() == "people:ada"
    assert page.context.cookies(log.server.url)[0]["sameSite"] == "Strict"
    assert [one["name"] for one in page.context.cookies(log.server.url)] == [COOKIE]
    assert page.evaluate("document.cookie") == ""
    page.goto(f"{log.server.url}/web/segments/refunds")
    assert "Not found" in page.content()
    page.goto(f"{log.server.url}/web/")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/web/sign-in")


def test_who_is_denied_is_told_so_and_can_try_again(
    log: Site, issuer: Running, page: Page, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    issuer.expect(back={"code": None, "error": "access_denied", "error_description": "<b>no</b>"})
    page.goto(f"{log.server.url}/web/sign-in")
    page.get_by_role("link", name="Sign in at Example").click()
    page.wait_for_url("**/web/sign-in/return?**")
    assert "Example did not sign you in: you, or your administrator, denied it" in (
        page.get_by_role("alert").text_content() or ""
    )
    check_page(page)
    shot(page, "sign-in-denied")
    issuer.expect(claims=PERSON, secret=SECRET)
    page.get_by_role("link", name="Sign in at Example").click()
    page.wait_for_url("**/web/")
    assert page.get_by_title("Signed in as").text_content() == "people:ada"


def test_the_issuer_is_asked_for_a_code_with_pkce_and_what_shows_the_browser_stays_sealed(
    log: Site, issuer: Running
) -> None:
    visitor = Visitor(log)
    asked, again = visitor.begin(issuer), Visitor(log).begin(issuer)
    assert {name: asked[name] for name in ("response_type", "client_id", "scope", "code_challenge_method")} == {
        "response_type": "code",
        "client_id": "tlog",
        "scope": "openid",
        "code_challenge_method": "S256",
    }
    assert asked["redirect_uri"] == f"{log.server.url}/web/sign-in/return"
    for name in ("state", "nonce", "code_challenge"):
        assert len(asked[name]) == 43
        assert asked[name] != again[name]
    [cookie] = visitor.asked.headers.get_all("Set-Cookie", [])
    assert cookie.startswith(f"{BEGUN}=")
    assert set(cookie.split("; ")[1:]) == {f"Max-Age={SECONDS}", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"} | {
        part for part in cookie.split("; ") if part.startswith("Expires=")
    }
    assert asked["state"] not in cookie
    assert visitor.get(visitor.at_issuer()).status == 200
    assert visitor.is_in()
    assert BEGUN not in visitor.cookies
    form = issuer.redeemed()[-1]
    assert form["code_verifier"] != asked["code_challenge"]
    assert form["redirect_uri"] == asked["redirect_uri"]


def test_no_cookie_of_a_sign_in_is_a_session(log: Site, issuer: Running) -> None:
    visitor = Visitor(log)
    visitor.begin(issuer)
    visitor.cookies[COOKIE] = visitor.cookies[BEGUN]
    assert visitor.get("/web/segments/payments").status == 303
    assert (
        log.server.request("GET", "/segments/payments", None, {"Cookie": f"{COOKIE}={visitor.cookies[BEGUN]}"}).status
        == 401
    )


def test_a_code_of_one_browser_signs_nobody_in_at_another(log: Site, issuer: Running) -> None:
    mallory, victim = Visitor(log), Visitor(log)
    mallory.begin(issuer)
    back = mallory.at_issuer()
    before = len(issuer.redeemed())
    refused(victim.get(back), NOT_BEGUN)
    victim.begin(issuer)
    refused(victim.get(back), NOT_BEGUN)
    assert not victim.is_in()
    assert len(issuer.redeemed()) == before


@pytest.mark.parametrize(
    "query", ["", "code=x", "state=", "code=x&state=y", "error=access_denied", "state=a&state=b", "code=%FF&state=%00"]
)
def test_who_comes_back_without_the_state_is_refused(log: Site, issuer: Running, query: str) -> None:
    visitor = Visitor(log)
    visitor.begin(issuer)
    refused(visitor.get(f"/web/sign-in/return?{query}"), NOT_BEGUN)
    assert not visitor.is_in()


def test_a_sign_in_ends_once(log: Site, issuer: Running) -> None:
    visitor = Visitor(log)
    visitor.begin(issuer)
    back, kept = visitor.at_issuer(), dict(visitor.cookies)
    assert visitor.get(back).status == 200
    refused(Visitor(log, {}).get(back), NOT_BEGUN)
    refused(Visitor(log, kept).get(back), "Example did not sign you in: the code is used up, or too old")


def test_a_cookie_that_was_changed_or_is_of_a_session_begins_nothing(log: Site, issuer: Running) -> None:
    visitor = Visitor(log)
    visitor.begin(issuer)
    back, whole = visitor.at_issuer(), visitor.cookies[BEGUN]
    for other in (whole[:-8], whole[:20] + ("A" if whole[20] != "A" else "B") + whole[21:], "x", ""):
        refused(Visitor(log, {BEGUN: other}).get(back), NOT_BEGUN)
    assert visitor.get(back).status == 200
    refused(Visitor(log, {BEGUN: visitor.cookies[COOKIE]}).get(back), NOT_BEGUN)


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": ["tlog", "another"]},
        {"aud": ["tlog", "another"], "azp": "another"},
        {"azp": "another"},
        {"azp": ["tlog", "another"]},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_sign_in_begins_no_session(
    log: Site, issuer: Running, claims: dict[str, Any]
) -> None:
    issuer.expect(claims=PERSON | claims, secret=SECRET)
    visitor = Visitor(log)
    refused(visitor.signs_in(issuer), NOT_FOR_THIS)
    assert not visitor.is_in()


def test_a_token_for_others_too_names_this_log_as_who_asked(log: Site, issuer: Running) -> None:
    issuer.expect(claims=PERSON | {"aud": ["tlog", "another"], "azp": "tlog"}, secret=SECRET)
    visitor = Visitor(log)
    assert visitor.signs_in(issuer).status == 200
    assert visitor.is_in()


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": "others"}, "the token is for another audience"),
        ({"exp": 1}, "the token has expired"),
        ({"iss": "https://other.example"}, "the token is not one of ours"),
        ({"sub": ""}, "it does not have just one value"),
    ],
    ids=str,
)
def test_an_id_token_is_verified_as_any_other_is(log: Site, issuer: Running, claims: dict[str, Any], why: str) -> None:
    issuer.expect(claims=PERSON | claims, secret=SECRET)
    visitor = Visitor(log)
    refused(visitor.signs_in(issuer), why)
    assert not visitor.is_in()


def test_a_token_that_has_no_room_in_a_session_is_refused_with_what_to_do(log: Site, issuer: Running) -> None:
    issuer.expect(claims=PERSON | {"groups": ["g" * 60] * 60}, secret=SECRET)
    visitor = Visitor(log)
    refused(visitor.signs_in(issuer), "have the issuer put less into it, such as fewer groups, or sign in with a token")
    assert not visitor.is_in()


@pytest.mark.parametrize("back", [{"iss": "https://other.example"}, {"iss": ""}])
def test_an_answer_of_another_issuer_than_was_asked_is_refused(
    log: Site, issuer: Running, back: dict[str, Any]
) -> None:
    issuer.expect(claims=PERSON, secret=SECRET, back=back)
    before = len(issuer.redeemed())
    refused(Visitor(log).signs_in(issuer), "another issuer answered than was asked")
    assert len(issuer.redeemed()) == before


@pytest.mark.parametrize(
    ("answer", "why", "status"),
    [
        ((400, {"error": "invalid_grant"}), "the code is used up", 403),
        ((401, {"error": "invalid_client"}), "it does not know this log, or not its secret", 403),
        ((400, {"error": "<script>alert(1)</script>"}), "did not sign you in: &lt;script&gt;", 403),
        ((200, {"access_token": "a"}), "nobody can sign in at Example just now", 503),
        ((200, {"id_token": 1}), "nobody can sign in at Example just now", 503),
        ((200, "[1]"), "nobody can sign in at Example just now", 503),
        ((200, "x" * (1 << 21)), "nobody can sign in at Example just now", 503),
        ((500, "broken"), "nobody can sign in at Example just now", 503),
        ((302, ""), "nobody can sign in at Example just now", 503),
        ((200, {"id_token": "tlog_1_x"}), "token", 403),
    ],
    ids=str,
)
def test_what_an_issuer_answers_in_place_of_a_token_is_said(
    log: Site, issuer: Running, answer: tuple[int, Any], why: str, status: int
) -> None:
    issuer.expect(answer=answer)
    before = len(log.server.log.read_text())
    visitor = Visitor(log)
    refused(visitor.signs_in(issuer), why, status)
    assert not visitor.is_in()
    # The log of the server says why, and nothing of what the browser brought.
    added = log.server.log.read_text()[before:]
    assert ("Error" in added) == (status == 503)
    assert issuer.redeemed()[-1]["code"] not in log.server.log.read_text()


def test_a_sign_in_that_was_begun_too_long_ago_is_over(log: Site, issuer: Running) -> None:
    visitor = Visitor(log)
    visitor.begin(issuer)
    back = visitor.at_issuer()
    begun = Sessions((log.server.data / "session.key").read_bytes(), now).open(BEGUN, visitor.cookies[BEGUN])

    def cookie(age: int) -> dict[str, str]:
        past = Sessions((log.server.data / "session.key").read_bytes(), lambda: now() - age * 1000)
        return {BEGUN: past.seal(BEGUN, begun, SECONDS)}

    refused(Visitor(log, cookie(SECONDS)).get(back), NOT_BEGUN)
    assert Visitor(log, cookie(SECONDS - int(PATIENCE))).get(back).status == 200


def test_one_signs_in_at_configured_issuers_alone_and_goes_on_to_pages_of_the_log_alone(
    log: Site, issuer: Running
) -> None:
    visitor = Visitor(log)
    for name in ("https://other.example", "", f"{issuer.url}/"):
        assert visitor.get(f"/web/sign-in/start?issuer={quote(name)}").status == 404
    for place in ("https://other.example/", "//other.example", "/web/../x\n", "/web/" + "x" * 1_001):
        visitor.begin(issuer, place)
        assert b'url=/web/"' in visitor.get(visitor.at_issuer()).body, place
    visitor.begin(issuer, "/web/segments/payments?a=1&b=2")
    assert b'url=/web/segments/payments?a=1&amp;b=2"' in visitor.get(visitor.at_issuer()).body


def test_a_session_ends_with_its_token(log: Site, issuer: Running) -> None:
    issuer.expect(claims=PERSON | {"exp": time.time() - 58}, secret=SECRET)
    visitor = Visitor(log)
    assert visitor.signs_in(issuer).status == 200
    assert visitor.get("/segments/payments").status == 200
    until(lambda: visitor.get("/segments/payments").status == 401, "the session to end")
