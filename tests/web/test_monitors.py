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
from tlog_core.note import SignerKey, parse_note, signer_from_seed

CLIENT: Final = str(Path(sys.executable).parent / "tlog-client")
HEARD: Final = "/web/segments/heard"
WATCHING: Final = "/web/watching"
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
    verified(page, path)
    return page.locator("#monitors tbody tr").filter(has_text=name)


def verified(page: Page, path: str) -> None:
    """Open a page, and wait until what monitors say is verified."""
    page.goto(path)
    expect(page.locator("#monitors .words")).to_contain_text("Signatures are checked")


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
    page.goto(WATCHING)
    expect(page.locator("tr[data-segment=heard]").last).to_contain_text("none")
    expect(page.get_by_role("row", name="Gossip").get_by_role("cell")).to_contain_text(["", "heard 2 of 3", "—"])
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


def test_gossip_in_a_forged_bulletin_is_not_shown(visitor: Page, liar: Liar, heard: Heard, real: bytes) -> None:
    forged = sign_bulletin(saying(heard.site), MONITOR).replace(b" 3 2\n", b" 3 3\n")
    instead(liar, real, forged, WATCHING)
    verified(visitor, WATCHING)
    gossip = visitor.get_by_role("row", name="Gossip").get_by_role("cell")
    expect(gossip).to_have_text(["", "—", "—"])


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


def test_a_bulletin_of_a_time_to_come_is_broken_and_seen_no_later(
    visitor: Page, liar: Liar, heard: Heard, real: bytes
) -> None:
    ahead = replace(saying(heard.site), time=now() + 400_000)
    instead(liar, real, sign_bulletin(ahead, MONITOR))
    expect(here(visitor)).to_contain_text("which is still to come; are the clocks right?")
    expect(alarms(visitor)).to_have_count(1)
    liar.lies.clear()
    expect(here(visitor)).to_contain_text("holds")


def impersonate(liar: Liar, real: bytes, raw: bytes, signer: SignerKey, path: str = HEARD) -> None:
    """Have a page show what another says, and its key, in the row of the monitor."""
    instead(liar, real, raw, path)
    shown, first, second = liar.lies[path], str(MONITOR.verifier).encode(), str(signer.verifier).encode()
    liar.lies[path] = lambda body: shown(body).replace(first, second)


@pytest.mark.parametrize("path", [HEARD, WATCHING])
def test_a_monitor_goes_by_the_name_that_its_key_has(
    visitor: Page, liar: Liar, heard: Heard, real: bytes, path: str
) -> None:
    imposter = signer_from_seed("imposter.example/" + "x" * 300, bytes(32))
    impersonate(liar, real, sign_bulletin(saying(heard.site), imposter), imposter, path)
    verified(visitor, path)
    table = visitor.locator("#monitors table")
    expect(table.get_by_text(imposter.name, exact=True)).to_be_visible()
    expect(table.get_by_text(MONITOR.name, exact=True)).to_have_count(0)
    if path == HEARD:
        # What is beyond the edge can be had without a mouse.
        assert table.evaluate("({parentElement: one}) => one.scrollWidth > one.clientWidth && one.tabIndex === 0")


@pytest.mark.parametrize(("path", "whole"), [(HEARD, False), (HEARD, True), (WATCHING, False)])
def test_a_monitor_that_spoke_and_is_shown_no_more_is_an_alarm(
    visitor: Page, liar: Liar, heard: Heard, path: str, whole: bool
) -> None:
    assert heard
    expect(here(visitor)).to_contain_text("holds")
    section = b'<section id="monitors"' if whole else b"no such text"

    def lie(body: bytes) -> bytes:
        return body.replace(section, b"<section").replace(b"monitor.example+", b"another.example+")

    liar.lies[path] = lie
    visitor.goto(path)
    alarm = visitor.get_by_role("alert").filter(has_text="The monitor monitor.example, which spoke here before")
    expect(alarm).to_be_visible()
    if path == WATCHING:
        expect(visitor.locator("#nothing")).to_be_hidden()
    liar.lies.clear()
    alarm.get_by_role("button", name="Forget").click()
    expect(here(visitor)).to_contain_text("holds")
    expect(alarm).to_have_count(0)


def test_who_may_not_read_the_checkpoint_misses_no_monitor(heard: Heard, signed_in: Callable[..., Page]) -> None:
    assert heard
    page = signed_in("admin")
    known = {"vkey": str(MONITOR.verifier), "since": 0, "seen": {"heard": "0"}, "others": []}
    keep(page, f"tlog/monitor/v1 {MONITOR.name}", known)
    for path in (HEARD, WATCHING):
        page.goto(path, wait_until="networkidle")
        expect(page.get_by_role("alert")).to_have_count(0)


def keep(page: Page, place: str, known: object) -> None:
    page.evaluate("([place, known]) => localStorage.setItem(place, known)", [place, json.dumps(known)])


@pytest.mark.parametrize("path", [HEARD, WATCHING])
def test_under_a_policy_of_more_segments_what_is_said_of_another_is_refused(
    visitor: Page, liar: Liar, heard: Heard, real: bytes, path: str
) -> None:
    keys = [str(json.loads(read(heard.site, "", name))["vkey"]) for name in ("heard", "payments")]
    visitor.goto("/web/")
    keep(visitor, "tlog/known/v1 heard", {"trusted": "".join(f"log {key}\n" for key in keys) + "quorum none\n"})
    origin, other = (key.partition("+")[0] for key in keys)
    instead(liar, real, sign_bulletin(Bulletin(other, now()), MONITOR), path)
    shown, there, put = liar.lies[path], f'data-origin="{origin}"'.encode(), f'data-origin="{other}"'.encode()
    liar.lies[path] = lambda body: shown(body).replace(there, put)
    verified(visitor, path)
    expect(visitor.locator("#monitors tbody")).to_contain_text(f"it speaks of {other}, not of the log of heard")


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
    impersonate(liar, real, sign_bulletin(saying(heard.site), OTHER), OTHER)
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


def test_at_first_sight_a_log_has_a_key_and_nothing_else(visitor: Page, liar: Liar, heard: Heard) -> None:
    vkey = str(json.loads(read(heard.site, ""))["vkey"])
    liar.lies[HEARD] = lambda body: body.replace(f'-vkey="{vkey}'.encode(), f'-vkey="log {vkey}\nquorum none'.encode())
    visitor.goto(HEARD)
    expect(visitor.locator("#monitors .words")).to_contain_text("whom to believe cannot be read")


def test_what_is_no_key_is_refused_and_not_kept(visitor: Page, liar: Liar, heard: Heard) -> None:
    assert heard
    expect(here(visitor)).to_contain_text("holds")
    liar.lies[HEARD] = lambda body: body.replace(b'data-vkey="monitor', b'data-vkey="monitor.example+no-key+monitor')
    expect(here(visitor)).to_contain_text("not base64")
    expect(alarms(visitor)).to_contain_text("not base64")
    liar.lies.clear()
    expect(here(visitor)).to_contain_text("holds")
    expect(alarms(visitor)).to_have_count(0)


def test_at_first_sight_a_name_has_one_key(visitor: Page, liar: Liar, heard: Heard) -> None:
    quiet = f'data-vkey="{QUIET.verifier}"'.encode()
    other = f'data-vkey="{OTHER.verifier}" data-note="{sign_bulletin(saying(heard.site), OTHER).decode()}"'.encode()
    liar.lies[HEARD] = lambda body: body.replace(quiet, other)
    expect(row(visitor).last).to_contain_text("not signed by monitor.example")
    expect(row(visitor).first).to_contain_text("holds")
    expect(alarms(visitor).first).to_contain_text("shows another key of the monitor")


def test_a_late_bulletin_says_so(visitor: Page, liar: Liar, heard: Heard, real: bytes) -> None:
    late = replace(saying(heard.site), time=now() - 901_000)
    instead(liar, real, sign_bulletin(late, MONITOR))
    expect(row(visitor).locator("td[data-name=Signed]")).to_contain_text("15 minutes ago late")
    instead(liar, real, sign_bulletin(replace(late, time=now() - 890_000), MONITOR))
    expect(row(visitor).locator("td[data-name=Signed]")).not_to_contain_text("late")


def told(page: Page) -> Locator:
    """Open the page "Watching", and return the cell of the segment and the monitor when all is verified."""
    verified(page, WATCHING)
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
    gossip = visitor.get_by_role("row", name="Gossip").get_by_role("cell")
    expect(gossip).to_contain_text(["", "heard 2 of 3", "—"])
    accusing = replace(saying(heard.site), convicted=True, tallies=(Tally("evidence", "fork", 2),))
    instead(liar, real, sign_bulletin(accusing, MONITOR), WATCHING)
    expect(told(visitor)).to_contain_text("convicted by evidence, evidence: fork (2)")
    finding = visitor.locator("#monitor-findings .finding")
    expect(finding).to_contain_text(f"heard is accused by {MONITOR.name}: convicted by evidence, evidence: fork (2)")
    expect(finding).to_contain_text("signed by this monitor, verified here")
    expect(visitor.locator("#nothing")).to_be_hidden()
    check_page(visitor)
    shot(visitor, "watching-monitors")
    instead(liar, real, sign_bulletin(replace(accusing, convicted=False), MONITOR), WATCHING)
    expect(told(visitor)).to_contain_text("evidence: fork (2)")
    expect(finding).to_contain_text(f"heard, or a witness of it, is accused by {MONITOR.name}: evidence: fork (2)")
    instead(liar, real, sign_bulletin(accusing, OTHER), WATCHING)
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
    page.goto(WATCHING)
    assert "tlog/bulletin/v1" not in page.content()
