"""Who watches the log at a glance; and files that people bring, which the browser verifies and explains."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from browsing import MONITOR, Site, bearer, carrying, lay, signer_of
from live import JSON, Server, free_port, start, until
from playwright.sync_api import FilePayload, Locator, Page, expect
from witnessing import RunningWitness, start_witness, witness_signer

from tlog.clock import now
from tlog.config import Config
from tlog.segments import Nobody, Segments
from tlog.store.connection import connect
from tlog.store.control import ControlStore
from tlog.store.cosigned import Frozen
from tlog_core.bulletin import Bulletin, Tally, Verified, sign_bulletin
from tlog_core.checkpoint import Checkpoint, parse_head, sign_checkpoint
from tlog_core.evidence import Fork, format_evidence
from tlog_core.merkle import Hash
from tlog_core.note import SignerKey, VerifierKey, parse_note, signer_from_seed

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"
HOURS = 3
REASON = "a witness has seen 9 entries \u202e<img src=x onerror=alert(1)>"
File = tuple[str, bytes]


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
    said = Bulletin(signer_of(watched.server.data, "refunds").name, now(), convicted=True)
    headers = {"Content-Type": "text/plain", **bearer(watched.tokens["monitor"])}
    path, raw = "/segments/refunds/bulletins", sign_bulletin(said, MONITOR)
    assert watched.server.request("POST", path, raw, headers).status == 204
    page = signed_in("auditor", watched)
    page.get_by_role("link", name="Watching").click()
    frozen = page.locator(".finding").first
    expect(frozen).to_contain_text("refunds is frozen. a witness has seen 9 entries [U+202E]<img src=x")
    expect(frozen).to_contain_text("by north[U+202E]")
    expect(page.locator(".finding").filter(has_text="payments waits for its quorum")).to_contain_text(
        f"Its entries from 0 to 0 are not cosigned; the first of them was logged {HOURS} hours ago"
    )
    accused = f"refunds is accused by {MONITOR.name}: convicted by evidence"
    expect(page.locator(".finding").filter(has_text=accused)).to_contain_text("signed by this monitor, verified here")
    shown = watched.server.request("GET", "/web/watching", None, bearer(watched.tokens["auditor"])).body.decode()
    assert f"is accused by <bdi>{MONITOR.name}</bdi>" in shown
    assert "ago, as this server tells it" in shown
    cells = page.get_by_role("row", name="payments").first.get_by_role("cell").all_text_contents()
    assert [" ".join(one.split()) for one in cells] == ["1", "not cosigned", f"1 {HOURS} hours ago", "never"]
    check_page(page)
    shot(page, "watching-findings")


def test_a_bulletin_that_is_damaged_hides_nothing_of_witnesses(watched: Site) -> None:
    config, vkey = Config(watched.server.data), str(MONITOR.verifier)
    with closing(ControlStore.open(config.control)) as control:
        path = config.segment(control.find("payments").id)
    with closing(connect(path)) as connection:
        connection.execute("insert into bulletin (vkey, time, received, note) values (?, 1, 1, x'00')", [vkey])
        shown = watched.server.request("GET", "/web/watching", None, bearer(watched.tokens["auditor"])).body.decode()
        connection.execute("delete from bulletin where vkey = ?", [vkey])
    assert "payments</a> is damaged.</strong> the bulletin of monitor.example cannot be trusted" in shown
    assert "payments</a> waits for its quorum" in shown
    assert '<span class="badge warn">never</span>' in shown[shown.index("payments</a></th>") :]


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
    return forked_by(site, signer_of(site.server.data, segment))


def forked_by(site: Site, signer: SignerKey) -> bytes:
    head = replace(head_of(site, "payments"), origin=signer.name)
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
        (whole[:-1], "in its only form"),
        (whole[: len(whole) // 2], "This evidence cannot be read"),
        (whole + b"\n", "This evidence cannot be read"),
        (whole.replace(b"v1", b"v2", 1), "evidence starts with tlog/evidence/v1"),
        (whole + b"x" * (1 << 20), "it is larger than 1 MiB"),
        (receipt[:-1], "This receipt cannot be read"),
        (b'{"a":1}', "This receipt cannot be read"),
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


def bulletin(site: Site, signer: SignerKey = MONITOR) -> bytes:
    head, at = head_of(site, "payments"), now()
    said = Bulletin(head.origin, at, Verified(head.size, head.root, at), tallies=(Tally("complaint", "old", 1),))
    return sign_bulletin(said, signer)


def test_a_bulletin_that_is_brought_is_explained(
    site: Site, watching: Page, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    expect(watching.locator("#monitors .words")).to_contain_text("Signatures are checked")
    watching.evaluate("localStorage.clear()")
    shown = bring(watching, ("bulletin", bulletin(site)))
    expect(shown.get_by_role("heading").first).to_have_text("What a monitor says")
    origin = signer_of(site.server.data, "payments").name
    expect(shown.locator(".said")).to_have_text(f"monitor {MONITOR.name} signed this of the log {origin}")
    facts = dict(zip(shown.locator("dt").all_text_contents(), shown.locator("dd").all_text_contents(), strict=True))
    assert facts["Verified size"] == f"{head_of(site, 'payments').size:,}"
    assert (facts["Gossip"], facts["Findings"]) == ("not so far", "complaint: old")
    assert facts["Judged by"] == "the key that this server shows of the monitor, which is its own word"
    check_page(watching)
    shot(watching, "watching-bulletin")
    forged = bulletin(site).replace(b" old 1", b" old 2")
    expect(bring(watching, ("b", forged))).to_contain_text("wrong signature by monitor.example")
    stranger = signer_from_seed("stranger.example", bytes(32))
    expect(bring(watching, ("b", bulletin(site, stranger)))).to_contain_text("this server shows no monitor stranger")
    expect(bring(watching, ("b", forged[:-1]))).to_contain_text("This bulletin cannot be read")
    other = signer_from_seed(MONITOR.name, bytes(32))
    watching.evaluate(
        "([key, value]) => localStorage.setItem(key, value)",
        [f"tlog/monitor/v1 {MONITOR.name}", json.dumps({"vkey": str(other.verifier), "seen": {}, "others": []})],
    )
    expect(bring(watching, ("b", bulletin(site)))).to_contain_text("not signed by monitor.example")
    expect(bring(watching, ("b", bulletin(site, other)))).to_contain_text("that this browser keeps of the monitor")


def test_instead_of_metrics_a_bulletin_is_asked_for(watching: Page) -> None:
    shown = bring(watching, ("metrics", b"# HELP tlog_monitor_size x\ntlog_monitor_size 1.0\n"))
    expect(shown).to_contain_text("it is neither evidence, nor a receipt, nor a bulletin")
    expect(shown).to_contain_text("Of a monitor bring its bulletin, not its metrics.")


def alarms_of(page: Page, path: str) -> Locator:
    page.goto(path)
    return page.get_by_role("alert").filter(has_text="Evidence proves it")


def test_evidence_that_is_proven_here_is_an_alarm_on_the_pages_of_its_segment(
    site: Site, watching: Page, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    raw = forked(site)
    for _ in range(2):
        expect(bring(watching, ("e", raw))).to_contain_text("Proven")
    # At the first visit of either page: what is brought stands before what is verified.
    for path in ("/web/segments/payments", "/web/segments/payments/entries/0"):
        expect(alarms_of(watching, path)).to_have_count(1)
        expect(alarms_of(watching, path).locator("pre")).to_have_text(raw.decode())
    expect(alarms_of(watching, "/web/segments/refunds")).to_have_count(0)
    alarms_of(watching, "/web/segments/payments").get_by_role("link").click()
    kept = watching.locator("#kept article")
    expect(kept).to_contain_text("Proven: two histories of one size")
    expect(kept).to_contain_text("kept by this browser of payments")
    expect(watching.locator("#nothing")).to_be_hidden()
    expect(alarms_of(watching, "/web/segments/payments")).to_have_count(1)
    check_page(watching)
    shot(watching, "segment-alarm")
    watching.get_by_role("button", name="Forget").click()
    expect(alarms_of(watching, "/web/segments/payments")).to_have_count(0)


def test_evidence_that_proves_nothing_against_a_log_of_this_server_is_not_kept(site: Site, watching: Page) -> None:
    signer = signer_of(site.server.data, "payments")
    forger, other = signer_from_seed(signer.name, bytes(32)), signer_from_seed("other/segments/payments", bytes(32))
    expect(bring(watching, ("e", forked_by(site, forger)))).to_contain_text("This evidence proves nothing")
    for one in (forger, other):
        # Who brings evidence can bring the policy too that believes its key.
        policy = f"log {one.verifier}\nquorum none\n".encode()
        bring(watching, ("policy", policy))
        expect(bring(watching, ("e", forked_by(site, one)))).to_contain_text("Proven")
    assert watching.evaluate("Object.keys(localStorage).filter((one) => one.startsWith('tlog/known/'))") == []
    # One that is kept may have logs of other servers too, in segments of the same name.
    kept = f"log {signer.verifier}\nlog {other.verifier}\nquorum none\n"
    watching.evaluate(
        "([key, value]) => localStorage.setItem(key, value)",
        ["tlog/known/v1 payments", json.dumps({"trusted": kept, "isGiven": True, "since": 0})],
    )
    expect(bring(watching, ("e", forked_by(site, other)))).to_contain_text("Proven")
    watching.goto("/web/segments/payments")
    expect(watching.locator("#monitors .words")).to_contain_text("Signatures are checked")
    expect(watching.get_by_role("alert")).to_have_count(0)


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
