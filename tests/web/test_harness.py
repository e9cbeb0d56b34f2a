"""Tests of the tests of pages: what a page does wrong is seen."""

from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import SCHEMES, WIDTHS, take_shots
from playwright.sync_api import Page, Route

CSP = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src *; require-trusted-types-for 'script'"
GOOD = "<h1>Segments</h1>"
SCRIPT = '<script src="/planted.js"></script>'


def plant(page: Page, body: str, script: str = "", style: str = "", status: int = 200) -> None:
    """Have the browser believe that the server has this page."""
    html = (
        f'<!doctype html><html lang="en"><head><title>x</title><meta name="viewport" content="width=device-width">'
        f'<link rel="stylesheet" href="/planted.css"></head><body><main>{body}</main></body></html>'
    )
    files = {"": ("text/html", html, status), ".js": ("text/javascript", script, 200), ".css": ("text/css", style, 200)}

    def answer(route: Route) -> None:
        kind, content, code = files.get(route.request.url.partition("/planted")[2], ("text/plain", "", 404))
        headers = {"Content-Type": kind, "Content-Security-Policy": CSP}
        route.fulfill(status=code, body=content, headers=headers)

    page.route("**/planted*", answer)
    page.goto("/planted")


def test_a_good_page_passes(page: Page, check_page: Callable[[Page], None]) -> None:
    plant(page, GOOD + SCRIPT, "document.querySelector('h1').textContent += '!'")
    check_page(page)
    assert page.text_content("h1") == "Segments!"


BAD = """
<h1>Segments</h1><img src="/planted.png">
<p class="wide">wide</p><p class="faint">faint</p><p style="color: red">red</p>
<script>1</script><script src="/planted.js"></script>
"""
BAD_SCRIPT = """
console.error('it is sorry')
fetch('http://127.0.0.2:1/other').catch(() => 0)
setTimeout(() => { throw new Error('it is lost') })
document.body.innerHTML = ''
"""
BAD_STYLE = """
.wide { width: 700px }
@media (prefers-color-scheme: dark) { .faint { color: #777; background: #666 } }
"""


def test_what_a_page_does_wrong_is_seen(page: Page, check_page: Callable[[Page], None]) -> None:
    plant(page, BAD, BAD_SCRIPT, BAD_STYLE)
    with pytest.raises(AssertionError) as told:
        check_page(page)
    for said in (
        "light: image-alt",
        "dark: color-contrast",
        "708 pixels at a width of 380",
        "Applying inline style violates",
        "Executing inline script violates",
        "This document requires 'TrustedHTML'",
        "it is sorry",
        "it is lost",
        "it asks elsewhere: http://127.0.0.2:1/other",
    ):
        assert said in str(told.value)
    assert "light: color-contrast" not in str(told.value)


def test_a_refused_page_is_looked_at_like_any_other(page: Page, check_page: Callable[[Page], None]) -> None:
    plant(page, GOOD, status=403)
    check_page(page)
    plant(page, GOOD + SCRIPT, "fetch('/planted.none')", status=403)
    with pytest.raises(AssertionError, match="none is answered 404"):
        check_page(page)


def test_pictures_are_taken_at_each_width_in_each_scheme(page: Page, tmp_path: Path) -> None:
    plant(page, GOOD)
    take_shots(page, "planted", tmp_path)
    names = {f"planted-{width}-{scheme}.png" for width in WIDTHS for scheme in SCHEMES}
    assert names == {path.name for path in tmp_path.iterdir()}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_each_page_has_a_session_of_its_own(
    signed_in: Callable[[str], Page], page: Page, check_page: Callable[[Page], None]
) -> None:
    pages = {person: signed_in(person) for person in ("auditor", "admin")}
    for person, signed in pages.items():
        signed.reload()
        assert signed.get_by_title("Signed in as").text_content() == person
    check_page(pages["admin"])
    page.goto("/web/")
    assert page.get_by_role("link", name="Sign in").count() > 0
