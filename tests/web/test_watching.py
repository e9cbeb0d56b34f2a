"""Who watches the log at a glance; and files that people bring, which the browser verifies and explains."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import requests
from browsing import Site, bearer, carrying, lay
from live import JSON, PATIENCE, Server, free_port, start, until
from playwright.sync_api import FilePayload, Locator, Page, expect
from witnessing import RunningWitness, start_witness, witness_signer

from tlog.clock import now
from tlog.config import Config
from tlog.segments import Nobody, Segments
from tlog.store.cosigned import Frozen
from tlog_core.checkpoint import Checkpoint, parse_head, sign_checkpoint
from tlog_core.evidence import Fork, format_evidence
from tlog_core.merkle import Hash
from tlog_core.note import SignerKey, VerifierKey, parse_note, parse_signer, signer_from_seed

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"
HOURS = 3
REASON = "a witness has seen 9 entries \u202e<img src=x onerror=alert(1)>"
METRICS = """# HELP tlog_monitor_size Entries of the newest verified head.
# TYPE tlog_monitor_size gauge
tlog_monitor_size{origin="example.com/a"} 1200.0
tlog_monitor_size{origin="example.com/b<b>\\"x"} 7.0
tlog_monitor_looked{origin="example.com/a"} 1100.0
tlog_monitor_verified_time_seconds{origin="example.com/a"} 1.764e+09
tlog_monitor_convicted{origin="example.com/a"} 0.0
tlog_monitor_convicted{origin="example.com/b<b>\\"x"} 1.0
tlog_monitor_complaint{kind="witness",origin="example.com/a",witness="w1"} 1.0
tlog_monitor_findings_total{class="complaint",kind="witness",origin="example.com/a"} 2.0
tlog_monitor_rounds_total 41.0
"""
File = tuple[str, bytes]


def signer_of(data: Path, segment: str) -> SignerKey:
    signers = [parse_signer(path.read_text()) for path in (data / "keys").iterdir()]
    return next(one for one in signers if one.name.endswith(f"/segments/{segment}"))


def append(server: Server, token: str, segment: str) -> bytes:
    answer = server.request(
        "POST", f"/segments/{segment}/entries", b'{"paid":7}', {"Content-Type": JSON, **bearer(token)}
    )
    assert answer.status == 201, answer.body
    return answer.body


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A log of two witnesses, of whom one is down, that has waited for hours; one of its segments is frozen."""
    folder = tmp_path_factory.mktemp("watched")
    data, shift = folder / "data", folder / "shift"
    tokens = lay(data)
    with (
        closing(Segments(Config(data), Nobody(), now)) as segments,
        segments.use("refunds") as segment,
        segment.writing() as transaction,
    ):
        assert transaction.freeze(Frozen(now(), "north\u202e", 9, REASON), behind=False)
    witness = start_witness(folder / "witness", *(signer_of(data, one).verifier for one in ("payments", "control")))
    (folder / "witnesses").write_text(
        f"witness near {witness.key} {witness.server.url}\nwitness far {witness_signer().verifier} "
        f"http://127.0.0.1:{free_port()}\ngroup both all near far\nquorum both\n"
    )
    shift.write_text("0")
    server = start(
        data,
        guarded=True,
        log_name=None,
        workers=1,
        options=["--witnesses", str(folder / "witnesses"), *carrying(folder)],
        program=(sys.executable, Path(__file__).parents[1] / "clocked.py"),
        environment={"TLOG_CLOCK": str(shift)},
    )
    append(server, tokens["writer"], "payments")
    until(lambda: b"payments" in latest(witness, data), "the witness to cosign")
    shift.write_text(str(HOURS * 3600))
    yield Site(server, tokens)
    assert server.stop() == 0
    assert witness.server.stop() == 0


def latest(witness: RunningWitness, data: Path) -> bytes:
    origin = signer_of(data, "payments").name
    return witness.server.request("GET", f"/{sha256(origin.encode()).hexdigest()}/checkpoint").body


def test_findings_and_witnesses_are_seen_at_a_glance(
    watched: Site,
    signed_in: Callable[..., Page],
    check_page: Callable[[Page], None],
    shot: Callable[[Page, str], None],
) -> None:
    page = signed_in("auditor", watched)
    page.get_by_role("link", name="Watching").click()
    frozen = page.locator(".finding").first
    expect(frozen).to_contain_text("refunds is frozen. a witness has seen 9 entries [U+202E]<img src=x")
    expect(frozen).to_contain_text("by north[U+202E]")
    expect(page.locator(".finding").filter(has_text="payments waits for its quorum")).to_contain_text(
        f"Its entries from 0 to 0 are not cosigned; the first of them was logged {HOURS} hours ago"
    )
    cells = page.get_by_role("row", name="payments").get_by_role("cell").all_text_contents()
    assert [" ".join(one.split()) for one in cells] == ["1", "not cosigned", f"1 {HOURS} hours ago", "never"]
    check_page(page)
    shot(page, "watching-findings")


def test_nobody_sees_of_a_segment_what_is_not_theirs(watched: Site, signed_in: Callable[..., Page]) -> None:
    page = signed_in("stranger", watched)
    page.goto("/web/watching")
    expect(page.get_by_text("There are no segments that you may see.")).to_be_visible()
    assert "payments" not in page.content()
    assert "refunds" not in page.content()


@pytest.fixture(scope="module")
def receipt(site: Site) -> bytes:
    return append(site.server, site.tokens["writer"], "payments")


@pytest.fixture
def watching(signed_in: Callable[..., Page], receipt: bytes) -> Page:
    assert receipt
    page = signed_in("auditor")
    page.goto("/web/watching")
    expect(page.get_by_text("Nothing: no segment here is frozen or damaged")).to_be_visible()
    # The script shows it.
    expect(page.get_by_text("Choose files")).to_be_visible()
    return page


def bring(page: Page, *files: File) -> Locator:
    """Choose files, and return what is shown of the first."""
    before = page.locator("#results > *").count()
    given: Sequence[FilePayload] = [
        {"name": name, "mimeType": "application/octet-stream", "buffer": raw} for name, raw in files
    ]
    page.locator("#files").set_input_files(given)
    expect(page.locator("#results > *")).not_to_have_count(before)
    return page.locator("#results > *").first


def drop(page: Page, name: str, raw: bytes) -> Locator:
    before = page.locator("#results > *").count()
    data = page.evaluate_handle(
        "([name, raw]) => { const data = new DataTransfer(); data.items.add(new File([raw], name)); return data; }",
        [name, raw.decode()],
    )
    page.locator("h1").dispatch_event("drop", {"dataTransfer": data})
    expect(page.locator("#results > *")).not_to_have_count(before)
    return page.locator("#results > *").first


def head_of(site: Site, segment: str) -> Checkpoint:
    token = bearer(site.tokens["auditor"])
    raw = site.server.request("GET", f"/segments/{segment}/checkpoint", None, token).body
    return parse_head(parse_note(raw).text)


def forked(site: Site, segment: str = "payments") -> bytes:
    """Return evidence that the log signed two roots of one size: it did, in the tests."""
    signer, head = signer_of(site.server.data, segment), head_of(site, segment)
    one, other = (sign_checkpoint(replace(head, root=Hash(bytes([each]) * 32)), signer) for each in (1, 2))
    return format_evidence(Fork(one, other))


def test_evidence_that_is_dropped_is_proven_and_explained(
    site: Site, watching: Page, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    shown = drop(watching, "found\u202e.evidence", forked(site))
    expect(shown.get_by_role("heading").first).to_have_text("Proven: two histories of one size")
    expect(shown).to_contain_text("found[U+202E].evidence")
    origin = signer_of(site.server.data, "payments").name
    expect(shown.locator(".said")).to_contain_text(f"log {origin} signed two roots of")
    expect(shown).to_contain_text("the key that this server shows of the segment, which is its own word")
    expect(shown).to_contain_text("Believe this log no more, whatever it signs.")
    assert shown.get_by_role("row").count() == 3
    assert shown.evaluate("shown => shown === document.activeElement")
    check_page(watching)
    shot(watching, "watching-evidence")


def test_a_file_is_chosen_by_keyboard(site: Site, watching: Page) -> None:
    # From the first who listens on, choosers come to Playwright; told as late as the key, it may miss one.
    watching.on("filechooser", lambda _: None)
    watching.locator("#files").focus()
    expect(watching.locator("#files")).to_be_focused()
    with watching.expect_file_chooser() as chosen:
        watching.keyboard.press("Enter")
    chosen.value.set_files({"name": "e", "mimeType": "text/plain", "buffer": forked(site)})
    expect(watching.get_by_role("heading", name="Proven")).to_be_visible()


def test_evidence_of_a_key_that_is_not_believed_proves_nothing(site: Site, watching: Page) -> None:
    other = forked(site, "refunds").replace(b"/segments/refunds", b"/segments/payments")
    shown = bring(watching, ("e", other))
    expect(shown).to_contain_text("This evidence proves nothing")
    assert "Proven" not in (shown.text_content() or "")
    # Nor under a trust policy that has another log.
    policy = f"log {signer_of(site.server.data, 'refunds').verifier}\nquorum none\n".encode()
    shown = bring(watching, ("policy", policy), ("e", forked(site)))
    expect(shown).to_contain_text("the trust policy has no log")
    policy = f"log {signer_of(site.server.data, 'payments').verifier}\nquorum none\n".encode()
    bring(watching, ("policy", policy))
    shown = bring(watching, ("e", forked(site)))
    expect(shown).to_contain_text("Proven")
    expect(shown).to_contain_text("the trust policy that you gave")


def test_evidence_of_a_segment_that_one_may_not_see_needs_a_trust_policy(
    site: Site, signed_in: Callable[..., Page]
) -> None:
    page = signed_in("stranger")
    page.goto("/web/watching")
    shown = bring(page, ("e", forked(site)))
    expect(shown).to_contain_text("this server shows you no segment of the log")
    policy = f"log {signer_of(site.server.data, 'payments').verifier}\nquorum none\n"
    page.get_by_text("Judged by whom").click()
    page.get_by_label("Trust policy").fill(policy)
    expect(bring(page, ("e", forked(site)))).to_contain_text("Proven")


def test_the_key_that_the_browser_keeps_is_believed_before_that_of_the_server(site: Site, watching: Page) -> None:
    kept = str(another_key(signer_of(site.server.data, "payments")))
    watching.evaluate(
        "([key, value]) => localStorage.setItem(key, value)",
        ["tlog/known/v1 payments", json.dumps({"trusted": kept})],
    )
    expect(bring(watching, ("e", forked(site)))).to_contain_text("This evidence proves nothing")


def another_key(signer: SignerKey) -> VerifierKey:
    return signer_from_seed(signer.name, bytes(32)).verifier


def test_a_broken_file_is_refused_with_the_reason(site: Site, receipt: bytes, watching: Page) -> None:
    whole = forked(site)
    for raw, why in (
        (b"", "it is neither evidence, nor a receipt"),
        (b"\xff\xfe\0", "it is neither evidence, nor a receipt"),
        # What takes for ever where lines are read in all the ways in which they can be.
        (b"\n" * 1_000 + b"x", "it is neither evidence, nor a receipt"),
        (b"# HELP x x\ntlog_monitor_x{%b} 1\n" % (b"a" * 900_000), "there is no size of any log"),
        (whole[:-1], "in its only form"),
        (whole[: len(whole) // 2], "This evidence cannot be read"),
        (whole + b"\n", "This evidence cannot be read"),
        (whole.replace(b"v1", b"v2", 1), "evidence starts with tlog/evidence/v1"),
        (whole + b"x" * (1 << 20), "it is larger than 1 MiB"),
        (receipt[:-1], "This receipt cannot be read"),
        (b'{"a":1}', "This receipt cannot be read"),
        (b"# HELP other x\n", "there is no size of any log"),
    ):
        shown = bring(watching, ("broken", raw))
        expect(shown).to_contain_text(why)
        assert "Proven" not in (shown.text_content() or "")


def test_a_receipt_is_verified_and_a_changed_one_is_not(site: Site, receipt: bytes, watching: Page) -> None:
    shown = bring(watching, ("receipt.json", receipt))
    expect(shown).to_contain_text("The receipt holds")
    expect(shown).to_contain_text("Writerwriter")
    changed = json.loads(receipt)
    changed["entry"] = changed["entry"].replace('"writer":"writer"', '"writer":"another"')
    shown = bring(watching, ("receipt.json", json.dumps(changed).encode()))
    expect(shown).to_contain_text("This receipt proves nothing")
    policy = f"log {signer_of(site.server.data, 'payments').verifier}\n".encode()
    asking = policy + f"witness w {witness_signer().verifier}\nquorum w\n".encode()
    expect(bring(watching, ("p", asking), ("r", receipt))).to_contain_text("which is not the quorum w")
    expect(bring(watching, ("p", policy + b"quorum none\n"), ("r", receipt))).to_contain_text("The receipt holds")


def test_what_a_monitor_says_is_shown_as_tables(watching: Page, check_page: Callable[[Page], None]) -> None:
    shown = bring(watching, ("metrics", METRICS.encode()))
    expect(shown).to_contain_text("it follows 2 logs, and 41 of its rounds of gossip have ended since it began")
    rows = [row.locator("th, td").all_text_contents() for row in shown.get_by_role("row").all()]
    assert rows[1] == ["example.com/a", "1,200", "1,100", "2025-11-24 16:00:00", "witness (w1)"]
    assert rows[2] == ['example.com/b<b>"x', "7", "", "never", "convicted by evidence"]
    assert rows[4] == ["example.com/a", "complaint", "witness", "2"]
    check_page(watching)


def test_a_running_monitor_is_understood(site: Site, watching: Page, tmp_path: Path) -> None:
    key = signer_of(site.server.data, "payments").verifier
    (tmp_path / "policy").write_text(f"log {key} {site.server.url}/segments/payments\nquorum none\n")
    program = [str(Path(sys.executable).parent / "tlog-client"), "monitor", "--policy", str(tmp_path / "policy")]
    options = ["--state", str(tmp_path / "state"), "--interval", "0.05", "--listen", "127.0.0.1:0"]
    with (tmp_path / "said").open("wb") as said:
        monitor = subprocess.Popen(
            [*program, *options], stderr=said, env={**os.environ, "TLOG_TOKEN": site.tokens["monitor"]}
        )
    size = head_of(site, "payments").size
    try:
        until(lambda: f"payments {size} " in (tmp_path / "said").read_text(), "the monitor to verify a head")
        url = (tmp_path / "said").read_text().partition("listening on ")[2].split()[0]
        shown = bring(watching, ("metrics", requests.get(f"{url}/metrics", timeout=PATIENCE).content))
    finally:
        monitor.kill()
        monitor.wait()
    cells = shown.get_by_role("row").nth(1).locator("th, td").all_text_contents()
    assert [cells[0], cells[1], cells[4]] == [key.name, f"{size:,}", "no complaint"]


def test_the_page_agrees_with_the_vectors_of_evidence(watching: Page) -> None:
    kinds = set()
    for path in sorted((VECTORS / "evidence").glob("*.json")):
        case = json.loads(path.read_text("utf-8"))
        policy, raw = (
            case[one].encode() if isinstance(case[one], str) else case[one] for one in ("policy", "evidence")
        )
        said = bring(watching, ("policy", policy), ("e", raw)).text_content() or ""
        assert said.startswith("Proven: ") == (case["expect"] == "accept"), path.stem
        if case["expect"] == "accept":
            kinds.add(case["evidence"].split("\n")[1])
            assert case["sentence"] in said or "dated entry" in said
    assert kinds == {"empty", "fork", "prefix", "entry", "backdating"}
