"""Signing in, the list of segments, and one of them, in a real browser."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import PEOPLE, Site, bearer, serve
from live import JSON, Server
from playwright.sync_api import Page

SignIn = Callable[..., Page]


def append(site: Site, segment: str, event: object) -> None:
    headers = {**bearer(site.tokens["writer"]), "Content-Type": JSON}
    answer = site.server.request("POST", f"/segments/{segment}/entries", json.dumps(event).encode(), headers)
    assert answer.status == 201


def test_who_signs_in_by_keyboard_sees_their_segments_and_signs_out(
    page: Page, site: Site, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    page.goto("/")
    page.get_by_role("link", name="Sign in").first.click()
    check_page(page)
    shot(page, "sign-in")
    # The field has the focus: who has a token types it at once.
    page.keyboard.type(site.tokens["auditor"])
    page.keyboard.press("Enter")
    page.wait_for_url("**/web/")
    assert {"payments", "refunds", "control", "access"} <= set(page.get_by_role("rowheader").all_inner_texts())
    check_page(page)
    shot(page, "segments")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/web/sign-in")
    page.goto("/web/segments/payments")
    page.wait_for_url("**/web/sign-in?next=*")


def test_a_wrong_token_is_told_on_the_page(
    page: Page, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    page.goto("/web/sign-in")
    page.get_by_label("Token").fill("tlog_wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    check_page(page)
    shot(page, "sign-in-refused")
    assert page.get_by_label("Token").input_value() == ""


def test_who_was_on_the_way_to_a_page_comes_there_after_signing_in(page: Page, site: Site) -> None:
    page.goto("/web/segments/payments")
    page.get_by_label("Token").fill(site.tokens["monitor"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/web/segments/payments")
    assert page.get_by_role("heading", level=1).inner_text().startswith("payments")


def test_a_link_of_another_site_leads_who_is_signed_in_to_the_page(signed_in: SignIn, server: Server) -> None:
    page = signed_in("auditor")
    link = f'<!doctype html><a href="{server.url}/web/segments/payments">look</a>'
    page.route("http://elsewhere.test/", lambda route: route.fulfill(body=link, content_type="text/html"))
    page.goto("http://elsewhere.test/")
    page.get_by_role("link", name="look").click()
    # What is read goes on record under the reader's name: no other site has it read.
    page.get_by_role("link", name="Go on").click()
    page.get_by_role("heading", name="Growth").wait_for()


def test_one_segment_shows_how_it_grew_and_the_key_that_it_signs_with(
    signed_in: SignIn, site: Site, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    for number in range(3):
        append(site, "refunds", {"number": number})
    page = signed_in("auditor")
    page.get_by_role("link", name="refunds").click()
    described = site.server.request("GET", "/segments/refunds", None, bearer(site.tokens["auditor"])).json()
    assert described["vkey"] in page.inner_text("main")
    assert page.locator("dd").first.inner_text() == str(described["size"])
    path = page.locator(".chart path.line").get_attribute("d")
    assert path is not None
    assert path.startswith("M0 160H0.0V")
    assert path.endswith("V0.0H640")
    check_page(page)
    shot(page, "segment")


@pytest.mark.parametrize("path", ["/web/segments/none", "/web/none"])
def test_what_is_not_there_is_a_page_too(
    signed_in: SignIn, path: str, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    page = signed_in("auditor")
    page.goto(path)
    assert page.get_by_role("heading", level=1).inner_text() == "Not found"
    check_page(page)
    shot(page, "not-found")


@pytest.mark.parametrize("person", PEOPLE)
def test_a_page_offers_each_what_they_may(signed_in: SignIn, person: str) -> None:
    page = signed_in(person)
    assert page.get_by_role("link", name="Operations").count() == (person in ("admin", "auditor"))
    assert page.get_by_role("link", name="payments").count() == (person != "stranger")
    if person != "stranger":
        page.get_by_role("link", name="payments").click()
        assert page.get_by_role("link", name="Entries").count() == (person == "auditor")


def test_a_sealed_segment_says_so(
    tmp_path: Path, signed_in: SignIn, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    own = serve(tmp_path / "data")
    sealed = own.server.request("PUT", "/segments/refunds/seal", None, bearer(own.tokens["admin"]))
    assert sealed.status == 200
    page = signed_in("auditor", own)
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="refunds"))
    assert "sealed" in row.inner_text()
    page.get_by_role("link", name="refunds").click()
    assert "Sealed" in page.inner_text("dl")
    check_page(page)
    shot(page, "segment-sealed")
    assert own.server.stop() == 0


def test_the_first_page_is_under_a_hundred_kilobytes_in_all(page: Page) -> None:
    sizes: list[int] = []
    page.on("response", lambda response: sizes.append(response.request.sizes()["responseBodySize"]))
    page.goto("/web/", wait_until="networkidle")
    assert len(sizes) >= 3
    assert 0 < sum(sizes) < 100_000
