"""The pages, by plain HTTP: who signs in, what a session counts for, and what every answer says to a browser."""

import json
import re
import sqlite3
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from house import House, build, lay
from hypothesis import given
from hypothesis import strategies as st
from live import Answer, start

from tlog.errors import CrossSiteError, TooLargeError, UnauthorizedError
from tlog.sessions import COOKIE, MAX_CREDENTIAL_BYTES, Sessions, session_key
from tlog.web import PAGES
from tlog.web.visible import visible
from tlog_client.bundle.verify import trust_of, verify_bundle
from tlog_core.note import parse_verifier

FORM = "application/x-www-form-urlencoded"
ACTIONS = {
    ("GET", "/"): "server:operate",
    ("GET", "/web"): "server:operate",
    ("GET", "/web/"): "segment:list",
    ("GET", "/web/segments/<segment>"): "segment:read",
    ("GET", "/web/segments/<segment>/entries"): "payload:read",
    ("GET", "/web/segments/<segment>/entries/<index>"): "payload:read",
    ("GET", "/web/segments/<segment>/entries/<index>/payload"): "payload:read",
    ("GET", "/web/segments/<segment>/export"): "payload:read",
    ("POST", "/web/segments/<segment>/export"): "payload:read",
    ("GET", "/web/sign-in"): "server:operate",
    ("POST", "/web/sign-in"): "server:operate",
    ("GET", "/web/sign-in/start"): "server:operate",
    ("GET", "/web/sign-in/return"): "server:operate",
    ("POST", "/web/sign-out"): "server:operate",
    ("GET", "/web/watching"): "segment:list",
    ("GET", "/web/operations"): "policy:read",
    ("GET", "/web/operations/metrics"): "metrics:read",
    ("GET", "/web/operations/policy"): "policy:read",
    ("POST", "/web/operations/policy"): "policy:apply",
    ("POST", "/web/operations/policy/application"): "policy:apply",
    ("GET", "/web/operations/tokens"): "token:issue",
    ("POST", "/web/operations/tokens"): "token:issue",
    ("GET", "/web/operations/tokens/<id>"): "token:issue",
    ("POST", "/web/operations/tokens/<id>/rotation"): "token:issue",
    ("POST", "/web/operations/tokens/<id>/revocation"): "token:issue",
    ("GET", "/web/<path:rest>"): "server:operate",
    ("GET", "/web/static/<digest>/<name>"): "server:operate",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
TOKEN = re.compile(rb'name="form_token" value="([0-9a-f]{64})"')


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    built = build(tmp_path_factory.mktemp("pages") / "data")
    assert built.append("writer", b'{"n":1}').status == 201
    yield built
    assert built.server.stop() == 0
    built.check_no_secret()


class Browser:
    """What keeps the cookie of a server, as a browser does, and sends it with each request."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.cookie = ""

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self._ask("GET", path, None, headers)

    def post(self, path: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
        return self._ask("POST", path, urlencode(fields).encode(), {"Content-Type": FORM, **(headers or {})})

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None) -> Answer:
        kept = {"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {}
        answer = self.house.server.request(method, path, body, {**kept, **(headers or {})})
        for line in answer.headers.get_all("Set-Cookie", []):
            self.cookie = SimpleCookie(line)[COOKIE].value
        return answer

    def form_token(self, path: str = "/web/sign-in") -> str:
        found = TOKEN.search(self.get(path).body)
        assert found is not None
        return found[1].decode()

    def sign_in(self, token: str, **more: str) -> Answer:
        return self.post("/web/sign-in", {"form_token": self.form_token(), "token": token, **more})


@pytest.fixture
def browser(house: House) -> Browser:
    return Browser(house)


@pytest.fixture
def auditor(house: House, browser: Browser) -> Browser:
    assert browser.sign_in(house.tokens["auditor"]).status == 303
    return browser


def test_every_page_has_the_action_that_the_table_says() -> None:
    assert {(one.method, one.path): one.action.value for one in PAGES} == ACTIONS


def test_who_signs_in_has_a_session_of_a_cookie_that_no_script_and_no_other_site_can_use(
    house: House, browser: Browser
) -> None:
    answer = browser.sign_in(house.tokens["auditor"], next="/web/segments/payments")
    assert (answer.status, answer.headers["Location"]) == (303, "/web/segments/payments")
    [line] = answer.headers.get_all("Set-Cookie", [])
    assert set(line.split("; ")[1:]) == {"Secure", "HttpOnly", "Path=/", "SameSite=Strict"}
    assert house.tokens["auditor"] not in line
    page = browser.get("/web/segments/payments")
    assert page.status == 200
    assert b"auditor" in page.body


def test_who_signs_out_has_no_session(auditor: Browser) -> None:
    answer = auditor.post("/web/sign-out", {"form_token": auditor.form_token("/web/")})
    assert answer.status == 303
    assert auditor.cookie == ""
    [line] = answer.headers.get_all("Set-Cookie", [])
    assert "Max-Age=0" in line


@pytest.mark.parametrize("token", ["", "x", f"tlog_{'0' * 16}_{'A' * 43}", "a.b.c", "é", "x" * 20_000])
def test_a_token_that_does_not_hold_gives_no_session_and_says_so(browser: Browser, token: str) -> None:
    answer = browser.sign_in(token)
    assert answer.status == 403
    assert b'role="alert"' in answer.body
    assert answer.headers.get_all("Set-Cookie") is None


def test_a_page_that_needs_a_session_asks_for_it_and_comes_back(browser: Browser) -> None:
    answer = browser.get("/web/segments/payments?x=1")
    assert (answer.status, answer.headers["Location"]) == (
        303,
        f"/web/sign-in?next={quote('/web/segments/payments?x=1', safe='')}",
    )


def test_a_link_of_another_site_leads_to_a_page_that_asks_before_it_goes_on(browser: Browser) -> None:
    answer = browser.get("/web/segments/payments", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert answer.status == 200
    assert b'<a href="/web/segments/payments">' in answer.body
    assert b"http-equiv" not in answer.body


@pytest.mark.parametrize(
    "place",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "/web/\\x", "/web/ x", "/web/\r\nX: y", "", "/x"],
)
def test_nobody_is_sent_to_another_site_after_signing_in(house: House, browser: Browser, place: str) -> None:
    answer = browser.sign_in(house.tokens["auditor"], next=place)
    assert (answer.status, answer.headers["Location"]) == (303, "/web/")


def test_a_token_that_is_revoked_ends_its_sessions_at_once(house: House, browser: Browser) -> None:
    issued = house.ask("root", "POST", "/tokens", json.dumps({"principal": "auditor", "days": 1}).encode()).json()
    browser.sign_in(issued["token"])
    assert browser.get("/web/segments/payments").status == 200
    house.ask("root", "DELETE", f"/tokens/{issued['token'].split('_')[1]}")
    assert browser.get("/web/segments/payments").status == 303


def test_a_cookie_of_which_one_bit_is_changed_is_no_session(auditor: Browser) -> None:
    whole = auditor.cookie
    for place in range(len(whole)):
        other = "A" if whole[place] != "A" else "B"
        auditor.cookie = whole[:place] + other + whole[place + 1 :]
        if place % 8 == 0:
            assert auditor.get("/web/segments/payments").status == 303, place
    for wrong in ("", "x", "é", whole[:-4], whole + "AAAA", whole * 2):
        auditor.cookie = wrong
        assert auditor.get("/web/segments/payments").status == 303


def test_scripts_of_a_page_read_the_api_by_its_session_and_change_nothing_by_it(house: House) -> None:
    examiner, root = Browser(house), Browser(house)
    examiner.sign_in(house.tokens["examiner"])
    for path in ("checkpoint", "entries/0", "entries", "proof/inclusion/1/0", "tile/0/000.p/1"):
        answer = examiner.get(f"/segments/payments/{path}", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"})
        assert answer.status == 200, path
    root.sign_in(house.tokens["root"])
    document = json.dumps({"principal": "auditor", "days": 1}).encode()
    cookie = {"Cookie": f"{COOKIE}={root.cookie}", "Content-Type": "application/json"}
    assert house.server.request("POST", "/tokens", document, cookie).status == 401


def test_a_read_by_a_session_is_on_record_with_who_read(house: House, auditor: Browser) -> None:
    assert auditor.get("/segments/payments/entries/0").status == 200
    read = house.ask("examiner", "GET", "/segments/access/entries?limit=1000").json()["entries"][-1]["payload"]
    assert [(one["by"], one["segment"], one["start"]) for one in read["reads"]] == [("auditor", "payments", 0)]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_session_counts_for_nothing_that_a_page_of_another_site_fetches(auditor: Browser, site: str) -> None:
    fetched = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
    assert auditor.get("/segments/payments/entries/0", fetched).status == 401
    assert auditor.get("/web/segments/payments", fetched).status in (200, 303)
    assert b"Growth" not in auditor.get("/web/segments/payments", fetched).body


def test_a_credential_in_the_headers_decides_alone(house: House, auditor: Browser) -> None:
    shown = {"Authorization": f"Bearer {house.tokens['nobody']}"}
    assert auditor.get("/segments/payments/entries/0", shown).status == 404


def test_a_form_without_the_token_of_its_session_changes_nothing(house: House, auditor: Browser) -> None:
    of_nobody, of_another = Browser(house).form_token(), Browser(house)
    of_another.sign_in(house.tokens["auditor"])
    for token in ("", "x", of_nobody, of_another.form_token("/web/")):
        answer = auditor.post("/web/sign-out", {"form_token": token})
        assert (answer.status, answer.headers.get_all("Set-Cookie")) == (403, None)
    assert auditor.post("/web/sign-out", {}).status == 403


def test_a_form_that_cannot_be_read_is_refused_in_words(auditor: Browser) -> None:
    token = auditor.form_token("/web/")
    for body in (b"form_token=\xff", f"form_token={token}&form_token={token}".encode(), b"&".join([b"a=1"] * 100)):
        kept = {"Cookie": f"{COOKIE}={auditor.cookie}", "Content-Type": FORM}
        answer = auditor.house.server.request("POST", "/web/sign-out", body, kept)
        assert answer.status == 400
        assert b"Malformed" in answer.body


@pytest.mark.parametrize(
    "path", ["/web/", "/web/sign-in", "/web/segments/payments", "/web/segments/none", "/web/sign-in?x=1", "/web/none"]
)
def test_every_page_and_every_error_of_one_tells_browsers_what_it_allows(auditor: Browser, path: str) -> None:
    answer = auditor.get(path)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert not re.search(rb"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", answer.body)


def test_a_list_shows_each_what_they_may_see(house: House) -> None:
    def names(who: str) -> set[str]:
        browser = Browser(house)
        browser.sign_in(house.tokens[who])
        return set(re.findall(r'href="/web/segments/([a-z-]+)"', browser.get("/web/").body.decode()))

    assert names("auditor") == {"payments"}
    assert names("nobody") == set()
    assert names("examiner") == {"payments", "secrets", "control", "access"}
    assert b"Sign in" in Browser(house).get("/web/").body


@pytest.mark.parametrize("path", ["/web/watching", "/web/segments/payments"])
def test_where_there_are_no_monitors_a_page_says_how_one_is_added(auditor: Browser, path: str) -> None:
    assert b"<code>tlog serve --monitor-key FILE</code>" in auditor.get(path).body


def test_style_and_scripts_are_kept_for_ever_under_their_digest(browser: Browser) -> None:
    [path] = re.findall(r'"(/web/static/[^"]*/style.css)"', browser.get("/web/").body.decode())
    plain, packed = browser.get(path), browser.get(path, {"Accept-Encoding": "gzip"})
    assert plain.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert (plain.headers["Content-Type"], packed.headers["Content-Encoding"]) == ("text/css; charset=utf-8", "gzip")
    assert len(packed.body) < len(plain.body) / 2
    for wrong in (path.replace("style", "none"), re.sub("static/.", "static/x", path), f"{path}/../style.css"):
        assert browser.get(wrong).status == 404


def test_the_key_of_sessions_is_its_owners_only_and_lasts(tmp_path: Path) -> None:
    built = build(tmp_path / "data")
    browser = Browser(built)
    browser.sign_in(built.tokens["auditor"])
    assert stat.S_IMODE((tmp_path / "data/session.key").stat().st_mode) == 0o600
    assert built.server.stop() == 0
    built.server = start(tmp_path / "data", guarded=True, log_name=None)
    assert browser.get("/web/segments/payments").status == 200
    built.server.stop()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


def test_a_session_ends_when_its_time_is_over_or_under_another_key_or_name(tmp_path: Path) -> None:
    clock = Clock()
    sessions = Sessions(session_key(tmp_path / "key"), clock)
    value = sessions.seal("a", "secret", seconds=10)
    assert sessions.open("a", value) == "secret"
    assert Sessions(session_key(tmp_path / "key"), clock).open("a", value) == "secret"
    with pytest.raises(UnauthorizedError):
        sessions.open("b", value)
    with pytest.raises(UnauthorizedError):
        Sessions(bytes(32), clock).open("a", value)
    clock.now += 10_000
    with pytest.raises(UnauthorizedError):
        sessions.open("a", value)


def test_a_credential_too_long_for_a_cookie_is_refused_in_words() -> None:
    sessions = Sessions(bytes(32), Clock())
    value = sessions.seal("__Host-tlog", "x" * MAX_CREDENTIAL_BYTES)
    assert len(value) < 4096 - 100
    with pytest.raises(TooLargeError, match="too long for a cookie"):
        sessions.seal("__Host-tlog", "x" * (MAX_CREDENTIAL_BYTES + 1))


@given(st.text())
def test_any_text_opens_no_session_and_sends_no_form(text: str) -> None:
    sessions = Sessions(bytes(32), Clock())
    with pytest.raises(UnauthorizedError):
        sessions.open("a", text)
    with pytest.raises(CrossSiteError):
        sessions.check_form("a", text)


@given(st.text())
def test_nothing_hidden_is_left_in_what_is_shown(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable() or any(one.isspace() for one in shown)
    assert not any(ord(one) < 32 or 0x202A <= ord(one) <= 0x202E or 0x2066 <= ord(one) <= 0x2069 for one in shown)
    assert len(visible(text, keep="\n").split("\n")) == len(text.split("\n"))


def test_what_is_hidden_is_shown_by_its_code_point() -> None:
    assert visible("a\u202eb\x1b[0m\r\n\u2028\ud800\x00é😀") == (
        "a[U+202E]b[U+001B][0m[U+000D][U+000A][U+2028][U+D800][U+0000]é😀"
    )


@pytest.mark.parametrize("path", ["/", "/web"])
def test_who_leaves_out_the_rest_of_the_path_comes_to_the_pages_of_this_host(browser: Browser, path: str) -> None:
    answer = browser.get(path, {"Host": "log.example"})
    assert (answer.status, answer.headers["Location"]) == (303, "/web/")


DAMAGE = {
    "update bundle set entries = substr(entries, 1, 30)": ("damaged", "ends within an entry"),
    "update bundle set entries = other(entries)": ("damaged", "entry 0 is damaged"),
    "delete from bundle": ("damaged", "entry 0 is missing"),
    "update head set time = 9223372036854775807": ("open", "9223372036854775807 ms"),
}


def test_the_page_of_a_segment_that_is_damaged_says_so_and_shows_the_rest(tmp_path: Path) -> None:
    house = build(tmp_path / "data")
    assert [house.append("writer").status for _ in range(2)] == [201] * 2
    with closing(sqlite3.connect(tmp_path / "data" / "control.db")) as control:
        [(name,)] = control.execute("select id from segment where name = 'payments'")
    with closing(sqlite3.connect(tmp_path / "data" / "segments" / f"{name}.db")) as connection:
        connection.create_function("other", 1, lambda raw: raw.replace(b'"v":1', b'"v":2'))
        [(time,)], bundles = (
            connection.execute("select time from head"),
            list(connection.execute("select * from bundle")),
        )
        for statement, (state, words) in DAMAGE.items():
            with connection:
                connection.execute(statement)
            answer = house.ask("auditor", "GET", "/web/segments/payments")
            assert answer.status == 200, statement
            assert f">{state}</span>".encode() in answer.body
            assert words.encode() in answer.body
            assert b"example.com/audit/segments/payments+" in answer.body
            with connection:
                connection.execute("update head set time = ?", [time])
                connection.executemany("insert or replace into bundle values (?, ?, ?)", bundles)
    assert house.server.stop() == 0


SHORT_SIGHTED = "from tlog.cli import main; from tlog.web import export; export.MAX_LOOKED_AT = 1; main()"


def test_an_export_says_from_where_on_control_and_access_were_looked_through(tmp_path: Path) -> None:
    tokens, program = lay(tmp_path / "data"), (sys.executable, "-c", SHORT_SIGHTED)
    house = House(start(tmp_path / "data", guarded=True, log_name=None, program=program), tokens)
    assert house.append("writer").status == 201
    browser = Browser(house)
    assert browser.sign_in(tokens["examiner"]).status == 303
    path = "/web/segments/payments/export"
    answer = browser.post(path, {"form_token": browser.form_token(path), "start": "0", "end": "1"})
    key = parse_verifier(house.ask("examiner", "GET", "/segments/payments").json()["vkey"])
    assert house.server.stop() == 0
    assert answer.status == 200, answer.body
    bundle = verify_bundle(answer.body, trust_of(key))
    for looked in bundle.manifest.reserved.values():
        assert looked is not None
        assert (len(looked), looked.start > 0) == (1, True)
