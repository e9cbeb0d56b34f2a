"""Promises of the pages of operations: what they show, what they change, and to whom they are open."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import POLICY, SEGMENTS, Site, bearer, serve
from live import JSON, faultless
from playwright.sync_api import Page

SECRET = re.compile(r"tlog_[0-9a-f]{16}_[\w-]{43}")
PAYLOAD = b'{"action":"pay","note":"for your eyes only"}'
MORE = """
[[rule]]
# \u202e is what comments may hold too
name = "the <b>new</b> one"
roles = ["auditor"]
principals = ["writer"]
segments = ["payments"]

[[quota]]
name = "enough"
anyone = true
requests_per_second = 50
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A log of which these tests change policy and tokens."""
    laid = serve(tmp_path_factory.mktemp("desk") / "data")
    with faultless(laid.server):
        shown = {**bearer(laid.tokens["writer"]), "Content-Type": JSON}
        for _ in range(3):
            assert laid.server.request("POST", "/segments/payments/entries", PAYLOAD, shown).status == 201
        yield laid


@pytest.fixture
def admin(signed_in: Callable[..., Page], desk: Site) -> Page:
    return signed_in("admin", desk)


def in_force(desk: Site) -> tuple[str, str]:
    answer = desk.server.request("GET", "/policy", None, bearer(desk.tokens["admin"]))
    return str(answer.headers["ETag"]).strip('"'), answer.body.decode()


def test_who_runs_the_log_sees_segments_and_no_payload(
    admin: Page, desk: Site, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    admin.goto("/web/")
    admin.get_by_role("link", name="Operations").click()
    rows = {row.get_by_role("rowheader").inner_text(): row.inner_text() for row in admin.locator("tbody tr").all()}
    assert set(rows) >= {*SEGMENTS, "control", "access"}
    assert re.search(r"payments\s+open\s+3\s+[0-9.]+ MiB", rows["payments"])
    assert "eyes only" not in admin.content()
    check_page(admin)
    shot(admin, "operations")


def test_a_policy_is_applied_once_its_differences_were_shown(
    admin: Page, desk: Site, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    version, before = in_force(desk)
    admin.goto("/web/operations/policy")
    check_page(admin)
    shot(admin, "policy")
    admin.get_by_label("The policy in force").fill(before + MORE)
    admin.get_by_role("button", name="Show what changes").click()
    gains = [row.inner_text().split("\t") for row in admin.locator("tbody tr").all()]
    assert [[cell.strip() for cell in row] for row in gains] == [
        ["writer", "gains", action, "payments", "rule “the <b>new</b> one”"] for action in ("payload:read", "tile:read")
    ]
    assert '+ quota "enough": anyone = true, requests_per_second = 50' in admin.inner_text("main")
    assert "+# [U+202E] is what" in admin.inner_text("main")
    assert in_force(desk) == (version, before)
    check_page(admin)
    shot(admin, "policy-proposal")
    admin.get_by_role("button", name="Apply this policy").click()
    assert admin.get_by_role("status").inner_text() == f"Version {int(version) + 1} is in force."
    assert in_force(desk) == (str(int(version) + 1), before + MORE)
    admin.goto("/web/operations")
    assert "requests_per_second = 50" in admin.inner_text("main")


def test_tokens_are_issued_rotated_and_revoked(
    admin: Page, desk: Site, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    admin.goto("/web/operations/tokens")
    check_page(admin)
    shot(admin, "tokens")
    admin.get_by_label("Principal").fill("auditor")
    admin.get_by_label("Groups").fill("night  day")
    admin.get_by_role("button", name="Issue").click()
    token = admin.get_by_label("Token").inner_text()
    check_page(admin)
    shot(admin, "token-issued")
    admin.get_by_role("main").get_by_role("link").last.click()
    check_page(admin)
    shot(admin, "token")
    admin.get_by_role("button", name="Rotate").click()
    admin.get_by_role("main").get_by_role("link").last.click()
    admin.get_by_role("button", name="Revoke").click()
    assert token


def test_metrics_are_tables(
    admin: Page, desk: Site, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    admin.goto("/web/operations/metrics")
    check_page(admin)
    shot(admin, "metrics")
