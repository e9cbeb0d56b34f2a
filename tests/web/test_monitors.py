"""What monitors say of a segment is shown, verified by the browser, and held against what the server shows there."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from browsing import MONITOR, QUIET, Site, bearer, signer_of
from live import JSON, PATIENCE
from lying import Liar
from playwright.sync_api import Browser, Locator, Page, expect

from tlog.clock import now
from tlog_core.bulletin import Bulletin, Round, Tally, Verified, sign_bulletin
from tlog_core.checkpoint import Checkpoint, parse_head, sign_checkpoint
from tlog_core.merkle import Hash
from tlog_core.note import parse_note, signer_from_seed

CLIENT: Final = str(Path(sys.executable).parent / "tlog-client")
HEARD: Final = "/web/segments/heard"
OTHER: Final = signer_from_seed(MONITOR.name, bytes(31) + b"o")
Lies = Callable[[Bulletin], Bulletin]


def read(site: Site, path: str, segment: str = "heard") -> bytes:
    answer = site.server.request("GET", f"/segments/{segment}{path}", None, bearer(site.tokens["auditor"]))
    assert answer.status == 200, answer.body
    return answer.body


def head(site: Site) -> Checkpoint:
    return parse_head(parse_note(read(site, "/checkpoint")).text)


def create(site: Site, segment: str) -> None:
    answer = site.server.request("PUT", f"/segments/{segment}", None, bearer(site.tokens["admin"]))
    assert answer.status == 201, answer.body


def grow(site: Site, events: int, segment: str = "heard") -> None:
    headers = {"Content-Type": JSON, **bearer(site.tokens["writer"])}
    for number in range(events):
        answer = site.server.request("POST", f"/segments/{segment}/entries", b'{"n":%d}' % number, headers)
        assert answer.status == 201, answer.body


@dataclass(frozen=True, slots=True)
class Heard:
    """A log with a segment of 5 entries, of whose first 3 a monitor has spoken; `early` is the head of then."""

    site: Site
    early: bytes


@pytest.fixture(scope="session")
def heard(site: Site) -> Heard:
    create(site, "heard")
    grow(site, 3)
    post(site, saying(site))
    early = read(site, "/checkpoint")
    grow(site, 2)
    return Heard(site, early)


def saying(site: Site) -> Bulletin:
    shown, at = head(site), now()
    return Bulletin(shown.origin, at, Verified(shown.size, shown.root, at), Round(at - 1, 3, 2))


def post(site: Site, bulletin: Bulletin, segment: str = "heard") -> None:
    raw, headers = sign_bulletin(bulletin, MONITOR), {"Content-Type": "text/plain", **bearer(site.tokens["monitor"])}
    answer = site.server.request("POST", f"/segments/{segment}/bulletins", raw, headers)
    assert answer.status == 204, answer.body


@pytest.fixture
def real(heard: Heard) -> bytes:
    """The bulletin that the server has, as it stands in its pages."""
    [one] = json.loads(read(heard.site, "/bulletins"))["bulletins"]
    return str(one["note"]).encode()


def instead(liar: Liar, real: bytes, raw: bytes | None, path: str = HEARD) -> None:
    """Have a page show another note, or none, in the place of the real one."""
    there, shown = (b"" if note is None else b' data-note="%b"' % note for note in (real, raw))

    def lie(body: bytes) -> bytes:
        assert there in body
        return body.replace(there, shown)

    liar.lies[path] = lie


def row(page: Page, name: str = MONITOR.name, path: str = HEARD) -> Locator:
    """Open the page of a segment, and return the row of a monitor when all is verified."""
    page.goto(path)
    expect(page.locator("#monitors .words")).to_contain_text("Signatures are checked")
    return page.locator("#monitors tbody tr").filter(has_text=name)


def here(page: Page) -> Locator:
    return row(page).locator("td[data-name='Verified here']")


def alarms(page: Page) -> Locator:
    return page.locator("#monitors [role=alert]")


def test_a_monitor_is_seen_and_verified(
    visitor: Page, heard: Heard, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    assert heard
    cells = row(visitor).get_by_role("cell").all_inner_texts()
    assert [cells[1], cells[2].split(",")[0], cells[3]] == ["3", "heard 2 of 3", "none"]
    assert "holds" in cells[4]
    assert "the 3 entries that it verified are the first of those verified here" in cells[4]
    expect(row(visitor, QUIET.name)).to_contain_text("no bulletin so far")
    expect(visitor.locator("#monitors .words")).to_contain_text("that of 5 entries, which was verified here")
    expect(alarms(visitor)).to_have_count(0)
    check_page(visitor)
    shot(visitor, "segment-monitors")


def test_without_scripts_it_is_the_servers_word(
    browser: Browser, session: list[object], liar: Liar, heard: Heard
) -> None:
    assert heard
    context = browser.new_context(base_url=liar.url, java_script_enabled=False)
    context.add_cookies(session)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(HEARD)
    expect(page.locator("#monitors .words")).to_have_text("As this server tells it: nothing of it is verified here.")
    expect(page.get_by_role("row", name=MONITOR.name)).to_contain_text("the server's word")
    expect(page.get_by_role("row", name=MONITOR.name)).to_contain_text("heard 2 of 3")
    page.goto("/web/watching")
    expect(page.get_by_role("row", name="heard").last).to_contain_text("none")
    context.close()


def at_size(size: int) -> Lies:
    return lambda said: replace(said, head=Verified(size, Hash(bytes(32)), 0))


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        (at_size(5), "another history: of 5 entries the root AAAA"),
        (at_size(3), "another history: the consistency proof from 3 to 5 entries does not hold"),
        (at_size(0), "another history: the consistency proof from 0 to 5 entries does not hold"),
        (at_size(6), "it verified 6 entries, and this log shows 5"),
    ],
    ids=["root", "prefix", "nothing", "larger"],
)
def test_a_head_of_another_history_is_an_alarm(
    visitor: Page, liar: Liar, heard: Heard, real: bytes, lie: Lies, told: str
) -> None:
    instead(liar, real, sign_bulletin(lie(saying(heard.site)), MONITOR))
    expect(here(visitor)).to_contain_text(told)
    expect(here(visitor)).to_contain_text("broken")
    expect(alarms(visitor)).to_contain_text(told)
    expect(alarms(visitor)).to_contain_text("ask the monitor for its evidence")


def test_a_page_that_is_older_than_the_bulletin_asks_once_more(
    visitor: Page, liar: Liar, heard: Heard, real: bytes
) -> None:
    asked = []

    def first_early(body: bytes) -> bytes:
        asked.append(body)
        return heard.early if len(asked) == 1 else body

    liar.lies["/segments/heard/checkpoint"] = first_early
    instead(liar, real, sign_bulletin(saying(heard.site), MONITOR))
    expect(here(visitor)).to_contain_text("its head is the one that was verified here")
    expect(alarms(visitor)).to_have_count(0)
    assert len(asked) == 2


FORGED: Final = "wrong signature by monitor.example"


def test_a_forged_bulletin_is_not_shown(visitor: Page, liar: Liar, heard: Heard, real: bytes) -> None:
    forged = sign_bulletin(saying(heard.site), MONITOR).replace(b" 3 2\n", b" 3 3\n")
    instead(liar, real, forged)
    expect(here(visitor)).to_contain_text(FORGED)
    assert row(visitor).get_by_role("cell").all_inner_texts()[2] == "—"
    expect(alarms(visitor)).to_contain_text(FORGED)


def test_a_bulletin_of_another_log_is_refused(visitor: Page, liar: Liar, heard: Heard, real: bytes) -> None:
    instead(liar, real, sign_bulletin(replace(saying(heard.site), origin="example.com/other"), MONITOR))
    expect(here(visitor)).to_contain_text("it speaks of example.com/other, not of")


def test_an_old_bulletin_or_none_is_an_alarm_where_a_later_one_was_shown(
    visitor: Page, liar: Liar, heard: Heard, real: bytes
) -> None:
    said = saying(heard.site)
    instead(liar, real, sign_bulletin(replace(said, time=said.time + 1_000), MONITOR))
    expect(here(visitor)).to_contain_text("holds")
    liar.lies.clear()
    expect(here(visitor)).to_contain_text("an old one: a later one")
    expect(alarms(visitor)).to_have_count(1)
    instead(liar, real, None)
    expect(here(visitor)).to_contain_text("none, where one of")
    expect(alarms(visitor)).to_have_count(1)


def test_another_key_of_a_monitor_is_an_alarm_that_stays(
    visitor: Page,
    liar: Liar,
    heard: Heard,
    real: bytes,
    check_page: Callable[[Page], None],
    shot: Callable[[Page, str], None],
) -> None:
    expect(here(visitor)).to_contain_text("holds")
    first, second = str(MONITOR.verifier), str(OTHER.verifier)
    instead(liar, real, sign_bulletin(saying(heard.site), OTHER))
    shown = liar.lies[HEARD]
    liar.lies[HEARD] = lambda body: shown(body).replace(first.encode(), second.encode())
    expect(here(visitor)).to_contain_text("not signed by monitor.example")
    for text in (first, second, "shows another key of the monitor"):
        expect(alarms(visitor).first).to_contain_text(text)
    check_page(visitor)
    shot(visitor, "segment-monitor-key")
    liar.lies.clear()
    expect(here(visitor)).to_contain_text("holds")
    expect(alarms(visitor)).to_have_count(1)
    alarms(visitor).get_by_role("button", name="Forget").click()
    expect(here(visitor)).to_contain_text("holds")
    expect(alarms(visitor)).to_have_count(0)


def test_what_cannot_be_compared_is_no_alarm(visitor: Page, heard: Heard) -> None:
    assert heard
    visitor.route("**/segments/heard/proof/consistency/**", lambda route: route.abort())
    visitor.route("**/segments/heard/checkpoint", lambda route: route.abort())
    expect(here(visitor).locator(".badge")).to_have_text("not compared")
    expect(alarms(visitor)).to_have_count(0)


def test_a_late_bulletin_says_so(visitor: Page, liar: Liar, heard: Heard, real: bytes) -> None:
    late = replace(saying(heard.site), time=now() - 901_000)
    instead(liar, real, sign_bulletin(late, MONITOR))
    expect(row(visitor).locator("td[data-name=Signed]")).to_contain_text("15 minutes ago late")
    instead(liar, real, sign_bulletin(replace(late, time=now() - 890_000), MONITOR))
    expect(row(visitor).locator("td[data-name=Signed]")).not_to_contain_text("late")


def told(page: Page) -> Locator:
    """Open the page "Watching", and return the cell of the segment and the monitor when all is verified."""
    page.goto("/web/watching")
    expect(page.locator("#monitors .words")).to_contain_text("Signatures are checked")
    return page.locator(f"tr[data-segment=heard] td[data-name='{MONITOR.name}']")


def test_who_accuses_the_log_stands_under_the_findings(
    visitor: Page,
    liar: Liar,
    heard: Heard,
    real: bytes,
    check_page: Callable[[Page], None],
    shot: Callable[[Page, str], None],
) -> None:
    expect(told(visitor).locator(".badge.good")).to_be_visible()
    expect(visitor.locator("#nothing")).to_be_visible()
    accusing = replace(saying(heard.site), convicted=True, tallies=(Tally("evidence", "fork", 2),))
    instead(liar, real, sign_bulletin(accusing, MONITOR), "/web/watching")
    expect(told(visitor)).to_contain_text("convicted by evidence, evidence: fork (2)")
    finding = visitor.locator("#monitor-findings .finding")
    expect(finding).to_contain_text(f"heard is accused by {MONITOR.name}: convicted by evidence, evidence: fork (2)")
    expect(finding).to_contain_text("signed by this monitor, verified here")
    expect(visitor.locator("#nothing")).to_be_hidden()
    check_page(visitor)
    shot(visitor, "watching-monitors")
    instead(liar, real, sign_bulletin(accusing, OTHER), "/web/watching")
    expect(told(visitor)).to_contain_text("not signed by monitor.example")
    expect(finding).to_contain_text(f"a bulletin that does not hold, of {MONITOR.name}: not signed by")


def look(liar: Liar, site: Site, folder: Path) -> int:
    """Run a monitor that looks once at the segment `followed` by way of the proxy; return how it ended."""
    vkey = json.loads(read(site, "", "followed"))["vkey"]
    (folder / "trust.policy").write_text(f"log {vkey} {liar.url}/segments/followed\nquorum none\n")
    (folder / "monitor.key").write_text(MONITOR.format())
    (folder / "monitor.key").chmod(0o600)
    places = ["--policy", folder / "trust.policy", "--state", folder / "state", "--gossip-key", folder / "monitor.key"]
    command = [CLIENT, "monitor", *map(str, places), "--bulletins", "--once"]
    environment = {**os.environ, "TLOG_TOKEN": site.tokens["monitor"]}
    return subprocess.run(command, env=environment, check=False, timeout=PATIENCE, capture_output=True).returncode


def test_a_log_that_shows_a_monitor_another_history_is_found_out_on_its_page(
    visitor: Page, liar: Liar, site: Site, tmp_path: Path
) -> None:
    path = "/web/segments/followed"
    create(site, "followed")
    grow(site, 1, "followed")
    early = read(site, "/checkpoint", "followed")
    grow(site, 1, "followed")
    assert look(liar, site, tmp_path) == 0
    expect(row(visitor, path=path)).to_contain_text("its head is the one that was verified here")
    forget(visitor)
    liar.lies["/segments/followed/checkpoint"] = lambda _: early
    expect(row(visitor, path=path)).to_contain_text("it verified 2 entries, and this log shows 1")
    real = parse_head(parse_note(read(site, "/checkpoint", "followed")).text)
    forked = bytes(sign_checkpoint(replace(real, root=Hash(bytes(32))), signer_of(site.server.data, "followed")))
    liar.lies["/segments/followed/checkpoint"] = lambda _: forked
    assert look(liar, site, tmp_path) == 1
    liar.lies.clear()
    expect(row(visitor, path=path)).to_contain_text("convicted by evidence evidence: fork")
    expect(row(visitor, path=path)).to_contain_text("its head is the one that was verified here")
    # To other tests nothing has happened.
    post(site, Bulletin(real.origin, now() + 10_000), "followed")


def forget(page: Page) -> None:
    page.evaluate("localStorage.clear()")


def test_who_may_not_read_the_checkpoint_is_not_shown_what_monitors_say(
    heard: Heard, signed_in: Callable[..., Page]
) -> None:
    assert heard
    page = signed_in("admin")
    page.goto(HEARD)
    expect(page.get_by_text("is for who may read its checkpoint")).to_be_visible()
    page.goto("/web/watching")
    assert "tlog/bulletin/v1" not in page.content()
