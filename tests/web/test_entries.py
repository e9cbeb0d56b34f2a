"""The pages of entries: found, paged through, read, and on record."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import Site, bearer
from damaging import lose
from live import JSON, NDJSON, Answer, Server, start, until
from playwright.sync_api import Page, Request, expect

from tlog.config import Config
from tlog.files import exclusive
from tlog.store.control import ControlStore

OPAQUE = "application/octet-stream"
ENTRIES = "/web/segments/ledger/entries"

SignIn = Callable[..., Page]
Check = Callable[[Page], None]
Shot = Callable[[Page, str], None]


def ask(site: Site, person: str, path: str, method: str = "GET", body: bytes | None = None, kind: str = "") -> Answer:
    headers = bearer(site.tokens[person]) | ({"Content-Type": kind} if kind else {})
    return site.server.request(method, path, body, headers)


def log(site: Site, segment: str, body: bytes, kind: str = JSON) -> None:
    answer = ask(site, "writer", f"/segments/{segment}/entries", "POST", body, kind)
    assert answer.status == 201, answer.body


def event(number: int) -> bytes:
    return json.dumps(
        {
            "actor": ["alice", "bob"][number % 2],
            "action": "refund",
            "amount_cents": 1_200,
            "outcome": "failed" if number % 5 == 0 else "ok",
            "target": f"orders/{number}",
            "time": f"2026-07-01T09:{number // 60:02}:{number % 60:02}Z",
        }
    ).encode()


# Of the session, as its server is: tests of a module may be taken apart, and it would be made twice.
@pytest.fixture(scope="session")
def ledger(site: Site) -> Site:
    """A segment of 117 events, all in the index, and with a label."""
    assert ask(site, "admin", "/segments/ledger", "PUT").status == 201
    log(site, "ledger", b"\n".join(map(event, range(117))), NDJSON)
    until(lambda: reach(site, "ledger") == 117, "the ledger to be in the index")
    return site


def reach(site: Site, segment: str) -> int:
    return int(ask(site, "auditor", f"/segments/{segment}/entries?before=0").json()["indexed"])


def indexes(page: Page) -> list[int]:
    return [int(one.removeprefix("Entry ").replace(",", "")) for one in page.locator("tbody th").all_text_contents()]


@pytest.mark.usefixtures("ledger")
def test_an_auditor_finds_an_event_and_reads_it(signed_in: SignIn, check_page: Check, shot: Shot) -> None:
    page = signed_in("auditor")
    page.get_by_role("link", name="ledger").click()
    page.get_by_role("link", name="Entries").click()
    assert indexes(page) == [*range(116, 66, -1)]
    check_page(page)
    shot(page, "entries")
    page.get_by_text("By time, actor").click()
    page.get_by_label("Actor").fill("ali*")
    page.get_by_label("Outcome").select_option("failure")
    page.get_by_label("From").fill("2026-07-01T09:00:30")
    page.get_by_label("Before").fill("2026-07-01T09:01:30")
    page.get_by_role("button", name="Search").click()
    assert indexes(page) == [80, 70, 60, 50, 40, 30]
    expect(page.get_by_label("Actor")).to_have_value("ali*")
    expect(page.get_by_text("is the word of who runs this log")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("All 117 entries are in the index.")
    check_page(page)
    shot(page, "entries-found")
    page.get_by_role("link", name="70").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Entry 70 failure")
    assert json.loads(page.locator("#payload").inner_text()) == json.loads(event(70))
    assert page.locator("#payload").inner_text().splitlines()[1] == '  "action": "refund",'
    expect(page.locator("dl.facts")).to_contain_text("2026-07-01 09:01:10")
    expect(page.locator("dl.leaf")).to_contain_text("Commitment")
    check_page(page)
    shot(page, "entry")
    page.get_by_label("Neighbours").get_by_role("link", name="Next").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Entry 71 success")


@pytest.mark.usefixtures("ledger")
def test_pages_of_all_entries_go_both_ways_and_leave_nothing_out(signed_in: SignIn) -> None:
    page = signed_in("auditor")
    page.goto(ENTRIES)
    seen = [indexes(page)]
    for way in ("Older", "Older", "Newer", "Newest"):
        page.get_by_role("link", name=way, exact=True).click()
        seen.append(indexes(page))
    newest, middle, oldest = [*range(116, 66, -1)], [*range(66, 16, -1)], [*range(16, -1, -1)]
    assert seen == [newest, middle, oldest, middle, newest]
    expect(page.get_by_role("link", name="Newer", exact=True)).to_have_count(0)
    page.goto(f"{ENTRIES}?before=17")
    expect(page.get_by_role("link", name="Older", exact=True)).to_have_count(0)


@pytest.mark.usefixtures("ledger")
def test_pages_of_a_search_go_on_with_what_was_asked(signed_in: SignIn) -> None:
    page = signed_in("auditor")
    page.goto(f"{ENTRIES}?actor=alice&q=refund")
    found = indexes(page)
    page.get_by_role("link", name="Older", exact=True).click()
    assert found + indexes(page) == [*range(116, -1, -2)]
    page.get_by_role("link", name="Newest", exact=True).click()
    assert indexes(page) == found
    page.goto(f"{ENTRIES}?actor=nobody")
    expect(page.get_by_text("Nothing was found.")).to_be_visible()


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("q=!!!", 400, "q has no word"),
        ("since=yesterday", 400, "since is a time in UTC such as 2026-07-01T09:30"),
        ("until=2026-07-01", 400, "until is a time in UTC"),
        ("since=2026-13-01T00:00", 400, "since is a time in UTC"),
        ("outcome=maybe", 400, "outcome is success or failure"),
        ("before=118", 404, "before is beyond the head; the segment has 117 entries now"),
        ("before=x", 400, "before: "),
        ("limit=7", 400, "and not limit"),
        ("actor=a&actor=b", 400, "each once"),
    ],
)
def test_who_asks_wrongly_is_told_on_the_page(ledger: Site, query: str, status: int, said: str) -> None:
    answer = ask(ledger, "auditor", f"{ENTRIES}?{query}")
    assert (answer.status, said in answer.body.decode()) == (status, True)


@pytest.mark.usefixtures("ledger")
def test_a_search_and_a_read_need_no_mouse(signed_in: SignIn) -> None:
    page = signed_in("auditor")
    page.goto(ENTRIES)
    tab_to(page, "#q")
    page.keyboard.type("17")
    page.keyboard.press("Enter")
    page.wait_for_url("**/entries?q=17**")
    tab_to(page, "summary")
    page.keyboard.press("Enter")
    tab_to(page, "#source")
    tab_to(page, "tbody a")
    page.keyboard.press("Enter")
    page.wait_for_url("**/entries/17")
    tab_to(page, "#payload")
    tab_to(page, ".neighbour[rel=next]")
    page.keyboard.press("Enter")
    page.wait_for_url("**/entries/18")


def tab_to(page: Page, selector: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"the keyboard does not come to {selector}")


def test_what_a_page_shows_was_read_and_is_on_record(ledger: Site) -> None:
    before = len(ledger.server.payloads("access", bearer(ledger.tokens["auditor"])))
    for path in ("?before=60", "?actor=bob&since=2026-07-01T09:01:50", "/0", "/116", "/70/payload"):
        assert ask(ledger, "auditor", f"{ENTRIES}{path}").status == 200
    found = ledger.server.payloads("access", bearer(ledger.tokens["auditor"]))[before:]
    reads = [one for payload in found for one in payload["reads"] if one["segment"] == "ledger"]
    assert {(one["by"], one["policy"]) for one in reads} == {("auditor", 1)}
    assert [one["search"] for one in reads if "search" in one] == [{"actor": "bob", "since": "1782896510000"}]
    assert [one["indexes"] for one in reads if "search" in one] == [[115, 113, 111]]
    assert [(one["start"], one["end"]) for one in reads if "start" in one] == [(10, 60), (0, 2), (115, 117), (70, 71)]


def test_who_may_not_read_payloads_sees_no_page_of_entries(ledger: Site) -> None:
    for path in ("", "?actor=alice", "/0", "/0/payload"):
        for person in ("monitor", "writer", "stranger"):
            refused = ask(ledger, person, f"{ENTRIES}{path}")
            assert refused.status == ask(ledger, person, "/segments/ledger/entries").status >= 400
            assert b"refund" not in refused.body


# What a payload may be


def read(site: Site, page: Page, body: bytes, kind: str) -> None:
    """Log a payload, and open its page."""
    log(site, "payments", body, kind)
    size = ask(site, "auditor", "/segments/payments/checkpoint").body.split(b"\n")[1]
    page.goto(f"/web/segments/payments/entries/{int(size) - 1}")


def test_text_is_printed_as_text_and_all_else_in_hex(site: Site, signed_in: SignIn, check_page: Check) -> None:
    page = signed_in("auditor")
    text = "\n\nfirst <b>line</b>\n\tשלום, world\r\n"
    read(site, page, text.encode(), "text/plain; charset=utf-8")
    assert page.locator("#payload").text_content() == "\n\nfirst <b>line</b>\n[U+0009]שלום, world[U+000D]\n"
    check_page(page)
    read(site, page, b"\xff\xfe", "text/plain")
    assert page.locator("#payload").text_content() == "000000  ff fe                    ··"
    read(site, page, b"<svg onload=alert(1)>\0" * 300, "image/svg+xml")
    lines = str(page.locator("#payload").text_content()).splitlines()
    assert lines[:2] == ["000000  3c 73 76 67 20 6f 6e 6c  <svg onl", "000008  6f 61 64 3d 61 6c 65 72  oad=aler"]
    assert len(lines) == 512
    expect(page.get_by_text("its first 4,096 bytes")).to_be_visible()
    check_page(page)


def test_a_payload_is_downloaded_and_never_shown(site: Site, signed_in: SignIn) -> None:
    page, body = signed_in("auditor"), b"<script>alert(1)</script>"
    read(site, page, body, "text/html")
    with page.expect_download() as waited:
        page.get_by_role("link", name="Download").click()
    assert waited.value.suggested_filename.startswith("payments-")
    assert waited.value.path().read_bytes() == body
    answer = ask(site, "auditor", f"{page.url.removeprefix(site.server.url)}/payload")
    assert (answer.headers["Content-Type"], answer.headers["X-Content-Type-Options"]) == (OPAQUE, "nosniff")
    assert answer.headers["Content-Disposition"].startswith("attachment; ")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")


LARGE = {
    "one line": (b'{"text":"%s"}' % (b"x" * 1_048_000), True),
    "from right to left": (b'["%s"]' % ("שלום " * 116_000).encode(), True),
    "of many scripts": (b'["%s"]' % ("👩🏽x😀é漢 " * 50_000).encode(), True),
    "deep": (b'{"a":' * 63 + b"[1,2]" + b"}" * 63, True),
    "deep and wide": (b"[" * 63 + b"[" + b"1," * 500_000 + b"1]" + b"]" * 63, False),
}


@pytest.mark.long
def test_the_largest_payloads_are_readable_on_a_phone(site: Site, signed_in: SignIn) -> None:
    page = signed_in("auditor")
    page.set_viewport_size({"width": 380, "height": 900})
    for name, (body, indented) in LARGE.items():
        read(site, page, body, JSON)
        shown = str(page.locator("#payload").text_content())
        assert (json.loads(shown), "\n" in shown) == (json.loads(body), indented), name
        expect(page.get_by_text("here it is as stored")).to_have_count(0 if indented else 1)
        assert page.evaluate("document.documentElement.scrollWidth") == 380, name


def test_a_time_of_any_year_is_shown(site: Site, signed_in: SignIn) -> None:
    page = signed_in("auditor")
    for moment, said in (
        ("9999-12-31T23:59:59-12:00", "253402343999000 ms"),
        ("0001-01-01T00:00:00+12:00", "-62135640000000 ms"),
        ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00\u00a0UTC"),
    ):
        read(site, page, json.dumps({"time": moment}).encode(), JSON)
        assert said in str(page.locator("dl.facts").text_content())


# What is not as usual


def test_what_was_lost_or_not_looked_at_is_said(
    new_page: Callable[[Server], Page], check_page: Check, shot: Shot, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    # As if the process that follows were far behind.
    with exclusive(Config(data).following):
        server = start(data, workers=1)
        server.create("payments").append(b"\n".join(map(event, range(3))), NDJSON)
        lose(Config(data).segment(ControlStore.open(Config(data).control).find("payments").id), {1})
        page = new_page(server)
        page.goto("/web/segments/payments/entries?actor=alice")
        expect(page.get_by_role("status")).to_contain_text("The index has come to 0 of 3 entries")
        expect(page.locator("table")).to_have_count(0)
        check_page(page)
        page.goto("/web/segments/payments/entries")
        assert page.locator(".beginning").nth(1).inner_text() == "payload lost"
        page.get_by_role("link", name="1").click()
        expect(page.get_by_role("alert")).to_contain_text("The payload of this entry was lost")
        expect(page.locator("dl.leaf")).to_contain_text("Commitment")
        expect(page.locator("#payload")).to_have_count(0)
        check_page(page)
        shot(page, "entry-lost")
        assert server.request("GET", "/web/segments/payments/entries/1/payload").status == 410
        page.get_by_label("Neighbours").get_by_role("link", name="Next").click()
        expect(page.get_by_label("Neighbours").get_by_role("link", name="Previous")).to_contain_text("payload lost")
    assert server.stop() == 0


def test_an_empty_segment_says_so(site: Site, signed_in: SignIn, check_page: Check) -> None:
    # One of its own: what others are written to depends on which tests ran before.
    credential = {"Authorization": f"Bearer {site.tokens['admin']}"}
    assert site.server.request("PUT", "/segments/empty", b"", credential).status == 201
    page = signed_in("auditor")
    page.goto("/web/segments/empty/entries")
    expect(page.get_by_text("There are no entries yet.")).to_be_visible()
    check_page(page)
    assert ask(site, "auditor", "/web/segments/empty/entries/0").status == 404


# How much comes


def test_the_first_page_with_all_that_it_loads_is_small(new_page: Callable[[Server], Page], tmp_path: Path) -> None:
    server = start(tmp_path / "data", workers=1)
    for number in range(50):
        server.create(f"segment-{number}", {"team": "till", "region": "eu-central-1"})
    page = new_page(server)
    loaded: list[Request] = []
    page.on("requestfinished", lambda one: loaded.append(one))
    page.goto("/web/", wait_until="networkidle")
    expect(page.locator("tbody tr")).to_have_count(50)
    sizes = {one.url: one.sizes()["responseHeadersSize"] + one.sizes()["responseBodySize"] for one in loaded}
    assert any(url.endswith("/style.css") for url in sizes)
    assert sum(sizes.values()) < 100_000, sizes
    assert server.stop() == 0
