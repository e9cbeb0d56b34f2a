"""The page in an evidence bundle verifies it in Chromium, from a file, without a network."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from browsing import Site, Watch, bearer
from bundling import LOG, bundle_of, part_of
from live import until
from playwright.sync_api import Browser, Page

from tlog_client import Log
from tlog_client.bundle.command import export_bundle
from tlog_client.bundle.verify import trust_of, verify_bundle
from tlog_core.encoding import encode_base64
from tlog_core.note import VerifierKey, parse_verifier
from tlog_core.policy import TrustedLog, TrustPolicy

BY = "<img src=x onerror=alert(1)> \u202egnp.exe"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "</pre></details><h1>Everything holds</h1>",
    "\u202ereversed \u2066isolated\u2069 \x1b[31m bell\x07",
]


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle in a folder, the page that was in it, and the key of its log."""

    path: Path
    page: Path
    key: VerifierKey


# Of the session, as its server is: tests of a module may be taken apart, and it would be made twice.
@pytest.fixture(scope="session")
def made(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """120 events of a segment of its own, with what control and access say of it."""
    folder = tmp_path_factory.mktemp("bundle")
    server, admin = site.server, {"Authorization": f"Bearer {site.tokens['admin']}"}

    def key_of(name: str) -> VerifierKey:
        answer = server.request("GET", f"/segments/{name}", None, admin)
        return parse_verifier(answer.json()["vkey"])

    assert server.request("PUT", "/segments/bundled", b"", admin).status == 201
    with ExitStack() as stack:

        def log(name: str, who: str) -> Log:
            url = f"{server.url}/segments/{name}"
            return stack.enter_context(Log(url, key_of(name), state=folder / who, token=site.tokens[who]))

        log("bundled", "writer").append_many(
            [{"n": n, "text": HOSTILE[n % len(HOSTILE)], "~": {"10": n, "2": 0}} for n in range(120)]
        )
        others = {name: log(name, "auditor") for name in ("control", "access")}
        names = ("bundled", *others)
        trust = TrustPolicy(tuple(TrustedLog(key_of(name)) for name in names), (), (), None)
        audited = log("bundled", "auditor")
        raw = export_bundle({}, (0, None), audited, others, trust, by=BY, advance=lambda _: None)
    (folder / "bundled.zip").write_bytes(raw)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        archive.extract("verify.html", folder)
    return Made(folder / "bundled.zip", folder / "verify.html", key_of("bundled"))


@pytest.fixture
def page(browser: Browser, watch: Watch, made: Made) -> Iterator[Page]:
    """The page of the bundle, opened as a file, in a browser that is offline."""
    context = browser.new_context(offline=True)
    watch.over(context)
    opened = context.new_page()
    opened.goto(made.page.as_uri())
    yield opened
    context.close()


def choose(page: Page, path: Path, trust: object = "") -> str:
    """Give the page a bundle and whom to trust, and return what it says in one line."""
    page.fill("#trust", str(trust))
    page.set_input_files("#file", path)
    page.wait_for_selector(".verdict")
    return page.inner_text(".verdict strong")


def test_a_bundle_is_verified_offline_and_told_of(
    page: Page, made: Made, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    assert choose(page, made.path, made.key) == "Everything holds"
    told = page.inner_text("main")
    for said in ("entries 0 to 119", "No entry of the range is missing", "Reads of this segment are in the log"):
        assert said in told
    for clause in ("SOC 2 CC7.2", "HIPAA 164.312(c)(1)", "PCI DSS 4.0 10.2.1.3", "GDPR Art. 5(2), 30"):
        assert clause in told
    check_page(page)
    shot(page, "bundle-verified")


def test_the_events_shown_are_those_of_the_bundle_and_whatever_they_say_is_text(page: Page, made: Made) -> None:
    choose(page, made.path, made.key)
    assert page.locator("details").count() == 20
    for _ in range(5):
        page.get_by_role("button", name="Later").click()
    assert page.get_by_role("status").inner_text() == "101 to 120 of 120"
    assert page.get_by_role("button", name="Later").is_disabled()
    for item in page.locator("summary").all():
        item.click()
    page.locator("pre").nth(19).wait_for()
    shown = page.locator("pre").all_inner_texts()
    assert '\n  "n": 100,\n' in shown[0]
    assert "<script>alert(1)</script>" in shown[0]
    assert '"~": {\n    "10": 100,\n    "2": 0\n  }' in shown[0]
    text = page.inner_text("main")
    assert "[U+202E]" in text
    assert not set("\u202e\u2066\x07\x1b") & set(text)
    assert page.locator("main script, main img, main svg, main h1").count() == 1


def test_without_a_key_the_page_does_not_say_whose_the_bundle_is(page: Page, made: Made) -> None:
    assert choose(page, made.path) == "Everything fits together; whose it is, is open"
    assert "nothing says whose it is" in page.inner_text("main")


def test_a_trust_policy_can_be_given_for_the_key(page: Page, made: Made) -> None:
    with zipfile.ZipFile(made.path) as archive:
        policy = archive.read("trust.policy").decode()
    assert choose(page, made.path, policy) == "Everything holds"
    assert "taken from the bundle" not in page.inner_text("main")
    other = str(made.key).replace("bundled", "others")
    assert choose(page, made.path, other) == "Refused"
    assert "the key ID of the verifier key does not belong to it" in page.inner_text(".verdict")


def changed(made: Made, old: bytes, new: bytes) -> Path:
    raw = made.path.read_bytes()
    assert old in raw
    path = made.path.with_name("changed.zip")
    path.write_bytes(raw.replace(old, new, 1))
    return path


def test_a_bundle_that_was_changed_is_refused_at_its_place(
    page: Page, made: Made, check_page: Callable[[Page], None]
) -> None:
    assert choose(page, changed(made, b'{"n":41,', b'{"n":42,'), made.key) == "Refused"
    assert "segment/events.ndjson, line 42, entry 41" in page.inner_text(".verdict")
    check_page(page)
    assert choose(page, changed(made, b"<!doctype html>", b"<!doctype hemp>"), made.key) == "Refused"
    assert "verify.html" in page.inner_text(".verdict")


def test_what_is_no_bundle_is_refused(page: Page, made: Made, tmp_path: Path) -> None:
    for number, raw in enumerate((b"", b"PK\x03\x04", bytes(1000), made.page.read_bytes())):
        (tmp_path / f"{number}.zip").write_bytes(raw)
        assert choose(page, tmp_path / f"{number}.zip", made.key) == "Refused"


def test_a_bundle_can_be_dropped_on_the_page(page: Page, made: Made) -> None:
    page.fill("#trust", str(made.key))
    drop = """raw => {
        const files = new DataTransfer();
        files.items.add(new File([Uint8Array.from(atob(raw), (one) => one.charCodeAt(0))], "dropped.zip"));
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer: files }));
    }"""
    page.evaluate(drop, encode_base64(made.path.read_bytes()))
    page.wait_for_selector(".verdict")
    assert page.inner_text(".verdict strong") == "Everything holds"


def test_ten_thousand_events_are_verified_while_a_bar_moves(page: Page, tmp_path: Path) -> None:
    events = [("application/json", b'{"n":%d,"text":"%b"}' % (number, b"x" * 400)) for number in range(10_000)]
    (tmp_path / "many.zip").write_bytes(bundle_of(part_of(events), len(events)))
    page.evaluate("""() => {
        window.told = [];
        new MutationObserver(() => window.told.push([state.textContent, progress.value]))
            .observe(document.getElementById("state"), { childList: true });
    }""")
    assert choose(page, tmp_path / "many.zip", LOG.verifier) == "Everything holds"
    assert "10000 of 10000" in page.inner_text("main")
    told = [value for text, value in page.evaluate("window.told") if text.startswith("Verifying: ")]
    assert told
    assert told == sorted(told)
    assert not page.locator("#working").is_visible()


def test_a_report_is_printed_without_what_is_for_the_screen(page: Page, made: Made) -> None:
    choose(page, made.path, made.key)
    page.emulate_media(media="print")
    assert not page.locator("#choose").is_visible()
    assert not page.locator("#events").is_visible()
    assert page.get_by_text("What was exported").is_visible()


# The page of the server that exports


def test_an_auditor_exports_a_range_and_a_search(
    site: Site,
    signed_in: Callable[..., Page],
    made: Made,
    check_page: Callable[[Page], None],
    shot: Callable[[Page, str], None],
    tmp_path: Path,
) -> None:
    page = signed_in("auditor")
    page.goto("/web/segments/bundled")
    page.get_by_role("link", name="Export evidence").click()
    check_page(page)
    page.get_by_label("From entry").fill("100")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    download.value.save_as(tmp_path / "range.zip")
    bundle = verify_bundle((tmp_path / "range.zip").read_bytes(), trust_of(made.key))
    assert [part.name for part in bundle.parts] == ["segment", "control", "access"]
    assert bundle.parts[0].indexes == tuple(range(100, 120))
    assert bundle.manifest.by == "auditor"

    def is_indexed() -> bool:
        answer = site.server.request(
            "GET", "/segments/bundled/entries?q=isolated", None, bearer(site.tokens["auditor"])
        )
        return bool(answer.json()["indexed"] == 120)

    until(is_indexed, "the segment to be indexed")
    page.goto("/web/segments/bundled/entries?q=isolated&since=2000-01-01T00:00")
    page.get_by_role("link", name="Export evidence").click()
    shot(page, "export")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    download.value.save_as(tmp_path / "search.zip")
    found = verify_bundle((tmp_path / "search.zip").read_bytes(), trust_of(made.key))
    assert found.parts[0].indexes == tuple(range(4, 120, 5))
    assert found.manifest.asked == {"q": "isolated", "since": 946_684_800_000, "before": 120}
    # What was exported is on record in the very bundle.
    reads = json.loads(contents(tmp_path / "search.zip", "access/events.ndjson").splitlines()[-1])["reads"]
    assert (reads[0]["by"], reads[0]["search"]["q"]) == ("auditor", "isolated")


def contents(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


@pytest.mark.usefixtures("made")
def test_a_range_that_is_too_large_is_told_on_the_page(
    signed_in: Callable[..., Page], check_page: Callable[[Page], None]
) -> None:
    page = signed_in("auditor")
    page.goto("/web/segments/bundled/export")
    page.get_by_label("Up to, and not with, entry").fill("10001")
    page.get_by_role("button", name="Export").click()
    assert "1 to 10000 entries here, of the 120" in page.get_by_role("alert").inner_text()
    check_page(page)


@pytest.mark.parametrize("person", ["monitor", "writer", "admin", "stranger"])
def test_who_may_not_read_payloads_exports_nothing(signed_in: Callable[..., Page], person: str) -> None:
    page = signed_in(person)
    answer = page.goto("/web/segments/bundled/export")
    assert answer is not None
    assert answer.status == 404
