"""The page of an entry verifies it in the browser, and exposes a server that lies."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from browsing import Site, bearer
from live import JSON
from lying import Liar
from playwright.sync_api import Page, expect

from tlog_core.checkpoint import Checkpoint, parse_head, sign_checkpoint
from tlog_core.cosignature import cosign
from tlog_core.encoding import encode_base64
from tlog_core.evidence import describe_evidence, parse_evidence
from tlog_core.merkle import Hash
from tlog_core.note import COSIGNATURE, Note, parse_note, parse_signer, signer_from_seed
from tlog_core.policy import parse_policy

EVENTS = [{"action": "pay", "actor": "alice", "amount": number} for number in range(6)]
ENTRY = "/web/segments/truths/entries/3"
WITNESS = signer_from_seed("witness.example", bytes(32), key_type=COSIGNATURE)
pytestmark = pytest.mark.usefixtures("log")
GOOD = ["payload", "commitment", "leaf", "checkpoint", "inclusion"]


def append(site: Site, *events: object, segment: str = "truths") -> None:
    for event in events:
        send(site, json.dumps(event).encode(), JSON, segment)


def send(site: Site, payload: bytes, kind: str, segment: str = "truths") -> int:
    """Append a payload, and return its index."""
    headers = {"Content-Type": kind, **bearer(site.tokens["writer"])}
    answer = site.server.request("POST", f"/segments/{segment}/entries", payload, headers)
    assert answer.status == 201, answer.body
    index: int = answer.json()["index"]
    return index


def read(site: Site, path: str) -> bytes:
    answer = site.server.request("GET", path, None, bearer(site.tokens["auditor"]))
    assert answer.status == 200, answer.body
    return answer.body


def head(site: Site, segment: str = "truths") -> bytes:
    return read(site, f"/segments/{segment}/checkpoint")


def vkey(site: Site, segment: str = "truths") -> str:
    found: str = json.loads(read(site, f"/segments/{segment}"))["vkey"]
    return found


# Of the session, as its server is: tests of a module may be taken apart, and it would be made twice.
@pytest.fixture(scope="session")
def log(site: Site) -> Site:
    """A log with a segment of its own, `truths`, since these tests look at whole heads."""
    answer = site.server.request("PUT", "/segments/truths", None, bearer(site.tokens["admin"]))
    assert answer.status == 201, answer.body
    append(site, *EVENTS)
    return site


def states(page: Page, path: str = ENTRY) -> dict[str, str]:
    """Open the page of an entry, and return the state of each check."""
    page.goto(path)
    return settled(page)


def settled(page: Page) -> dict[str, str]:
    expect(page.get_by_role("status")).not_to_have_text("Verifying…")
    found = page.locator("[data-check]")
    return {str(one.get_attribute("data-check")): str(one.get_attribute("data-state")) for one in found.all()}


def said(page: Page, check: str) -> str:
    return page.locator(f"[data-check={check}] .said").inner_text()


def believe(page: Page, text: str) -> dict[str, str]:
    page.locator("#verify summary").last.click()
    page.get_by_label("Verifier key, or a trust policy").fill(text)
    page.get_by_role("button", name="Believe this").click()
    expect(page.locator("#verify summary").last).to_contain_text("that you gave")
    return settled(page)


def test_an_entry_is_verified_and_drawn(
    visitor: Page, log: Site, check_page: Callable[[Page], None], shot: Callable[[Page, str], None]
) -> None:
    page = visitor
    assert states(page) == {**dict.fromkeys(GOOD, "good"), "consistency": "first", "cosignatures": "unchecked"}
    expect(page.get_by_role("status")).to_contain_text("Verified")
    # The leaf, its siblings, what comes of them, the root; before them opening, payload and commitment.
    assert page.locator(".proof .box").count() == 3 + 1 + 2 * 3 + 1
    assert page.locator(".proof .broken").count() == 0
    root = encode_base64(parse_head(parse_note(head(log)).text).root)
    page.get_by_role("button", name=f"Signed root, {root}").focus()
    expect(page.locator(".told")).to_contain_text(root)
    check_page(page)
    shot(page, "verify-entry")


def test_each_hash_of_the_picture_is_reached_by_keyboard(visitor: Page) -> None:
    page = visitor
    states(page)
    page.get_by_role("button", name="Payload").focus()
    seen = []
    for _ in range(page.locator(".proof .box").count()):
        seen.append(page.locator(".told h3").inner_text())
        page.keyboard.press("Tab")
    assert seen[0] == "Payload"
    assert seen[-1] == "Signed root"
    assert len(set(seen)) == len(seen) == 11


PAYLOADS = {
    JSON: '{"a\u202e\\u0000": [1e21, -0.5, {}, [], "é😀\\u2028\\n<b>"], "10": 1, "9": 2, "__proto__": [[]]}'.encode(),
    "text/plain; charset=utf-8": "one\ntwo\t\u202eeerht\r\n \u05d0\U0001fae8".encode(),
    "application/json; charset=utf-8": b'{"1000": {"b": {}, "7": []}, "200": [1, [2]], "!": "a b"}',
    "text/x-broken": b"\xff\xfe",
    "application/octet-stream": bytes(range(256)) * 20,
}


@pytest.mark.parametrize("kind", PAYLOADS)
def test_what_is_verified_is_what_the_page_had_shown(visitor: Page, log: Site, kind: str) -> None:
    index = send(log, PAYLOADS[kind], kind)
    assert states(visitor, f"/web/segments/truths/entries/{index}")["commitment"] == "good"
    expect(visitor.locator("#payload.verified")).to_be_visible()
    assert visitor.get_by_text("something else here").count() == 0


def test_a_browser_without_ed25519_verifies_as_well(visitor: Page, liar: Liar, log: Site) -> None:
    visitor.add_init_script(
        "crypto.subtle.importKey = async () => { throw new DOMException('Unrecognized name.', 'NotSupportedError') }"
    )
    assert states(visitor)["checkpoint"] == "good"
    size = parse_head(parse_note(head(log)).text).size
    liar.lies["/segments/truths/checkpoint"] = lambda body: body.replace(b"\n%d\n" % size, b"\n%d\n" % (size + 1))
    assert states(visitor)["checkpoint"] == "broken"


def test_a_larger_head_is_proven_to_extend_the_one_seen_before(visitor: Page, log: Site) -> None:
    states(visitor)
    append(log, {"later": 1})
    assert states(visitor)["consistency"] == "good"
    assert "are the first of these" in said(visitor, "consistency")


def test_a_changed_payload_is_exposed(visitor: Page, liar: Liar) -> None:
    liar.lies["/segments/truths/entries/3"] = lambda body: body.replace(b'"amount":3', b'"amount":9')
    found = states(visitor)
    assert (found["commitment"], found["inclusion"]) == ("broken", "good")
    assert "not the one that the entry commits to" in said(visitor, "commitment")
    expect(visitor.get_by_role("status")).to_contain_text("It breaks at: Commitment")
    assert "here it breaks" in str(visitor.locator(".proof .box.broken").get_attribute("aria-label"))


@pytest.mark.parametrize("instead", [b"&#34;amount&#34;: 7", b"&#34;amount &#34;: 3"])
def test_a_page_that_shows_another_payload_is_set_right(visitor: Page, liar: Liar, instead: bytes) -> None:
    liar.lies[ENTRY] = lambda body: body.replace(b"&#34;amount&#34;: 3", instead)
    assert states(visitor)["commitment"] == "good"
    assert '"amount": 3' in visitor.locator("#payload").inner_text()
    expect(visitor.get_by_text("The server had put something else here")).to_be_visible()


def test_spaces_that_the_server_puts_in_do_not_stay(visitor: Page, liar: Liar) -> None:
    liar.lies[ENTRY] = lambda body: body.replace(b"alice", b"al ice")
    assert states(visitor)["commitment"] == "good"
    assert '"actor": "alice"' in visitor.locator("#payload").inner_text()


def test_another_entry_in_the_place_of_one_is_exposed(visitor: Page, log: Site, liar: Liar) -> None:
    other = json.loads(read(log, "/segments/truths/entries/4"))
    liar.lies["/segments/truths/entries/3"] = lambda _: json.dumps(other).encode()
    assert states(visitor)["payload"] == "broken"
    assert "gave entry 4, where 3 was asked for" in said(visitor, "payload")
    liar.lies["/segments/truths/entries/3"] = lambda _: json.dumps({**other, "index": 3}).encode()
    found = states(visitor)
    assert (found["commitment"], found["inclusion"]) == ("good", "broken")
    assert "leads to" in said(visitor, "inclusion")


def test_an_entry_of_another_log_is_exposed(visitor: Page, log: Site, liar: Liar) -> None:
    append(log, EVENTS[3], segment="payments")
    other = json.loads(read(log, "/segments/payments/entries/0"))
    liar.lies["/segments/truths/entries/3"] = lambda _: json.dumps({**other, "index": 3}).encode()
    found = states(visitor)
    assert (found["commitment"], found["leaf"]) == ("good", "broken")
    assert "the entry belongs to" in said(visitor, "leaf")


def test_another_segment_that_one_believes_too_is_exposed(visitor: Page, log: Site, liar: Liar) -> None:
    append(log, *EVENTS, segment="payments")
    size = parse_head(parse_note(head(log, "payments")).text).size
    for path in ("entries/3", "checkpoint", f"proof/inclusion/{size}/3"):
        liar.lies[f"/segments/truths/{path}"] = lambda _, path=path: read(log, f"/segments/payments/{path}")  # type: ignore[misc]
    own, other = vkey(log), vkey(log, "payments")
    origin = other.split("+")[0]
    liar.lies[ENTRY] = lambda body: body.replace(own.encode(), other.encode()).replace(
        own.split("+")[0].encode(), origin.encode()
    )
    assert states(visitor)["checkpoint"] == "broken"
    found = believe(visitor, f"log {own}\nlog {other}\nquorum none\n")
    assert (found["checkpoint"], found["inclusion"]) == ("broken", "unreached")
    assert "where truths was asked for" in said(visitor, "checkpoint")


def test_an_address_in_another_form_is_not_one_of_which_nothing_is_known(visitor: Page) -> None:
    visitor.goto(ENTRY.replace("truths", "%74ruths"))
    expect(visitor.get_by_role("status")).to_contain_text("Not verified: the address")


@pytest.mark.parametrize("check", ["payload", "checkpoint", "inclusion"])
def test_answers_of_no_form_are_refused(visitor: Page, log: Site, liar: Liar, check: str) -> None:
    size = parse_head(parse_note(head(log)).text).size
    paths = {"payload": "entries/3", "checkpoint": "checkpoint", "inclusion": f"proof/inclusion/{size}/3"}
    liar.lies[f"/segments/truths/{paths[check]}"] = lambda _: b"null"
    assert states(visitor)[check] == "broken"
    liar.lies[f"/segments/truths/{paths[check]}"] = lambda _: b"\xff"
    assert states(visitor)[check] == "broken"


def test_the_proof_of_another_entry_is_exposed(visitor: Page, log: Site, liar: Liar) -> None:
    size = parse_head(parse_note(head(log)).text).size
    other = read(log, f"/segments/truths/proof/inclusion/{size}/2")
    liar.lies[f"/segments/truths/proof/inclusion/{size}/3"] = lambda _: other
    found = states(visitor)
    assert (found["leaf"], found["inclusion"]) == ("good", "broken")
    assert "the root of the checkpoint is" in said(visitor, "inclusion")
    assert visitor.locator(".proof .line.broken").count() == 1


def test_a_checkpoint_of_another_log_is_exposed(visitor: Page, log: Site, liar: Liar) -> None:
    other = head(log, "refunds")
    liar.lies["/segments/truths/checkpoint"] = lambda _: other
    found = states(visitor)
    assert (found["checkpoint"], found["inclusion"]) == ("broken", "unreached")
    assert "not signed by" in said(visitor, "checkpoint")


def test_a_checkpoint_with_another_size_is_exposed(visitor: Page, log: Site, liar: Liar) -> None:
    size = parse_head(parse_note(head(log)).text).size
    liar.lies["/segments/truths/checkpoint"] = lambda body: body.replace(b"\n%d\n" % size, b"\n%d\n" % (size + 1))
    assert states(visitor)["checkpoint"] == "broken"
    assert "wrong signature by" in said(visitor, "checkpoint")


def test_a_head_that_went_back_is_an_alarm_that_stays(visitor: Page, log: Site, liar: Liar) -> None:
    before = head(log)
    append(log, {"later": 2})
    states(visitor)
    liar.lies["/segments/truths/checkpoint"] = lambda _: before
    assert states(visitor)["consistency"] == "broken"
    assert "the log went back" in said(visitor, "consistency")
    liar.lies.clear()
    assert states(visitor)["consistency"] == "good"
    expect(visitor.get_by_role("alert").first).to_contain_text("the log went back")
    expect(visitor.get_by_role("status")).to_contain_text("but see the alarm")
    visitor.locator("#verify summary").last.click()
    visitor.get_by_role("button", name="Forget").click()
    expect(visitor.get_by_role("alert").filter(has_text="Alarm")).to_have_count(0)


def fork(log: Site, size_of: Callable[[Checkpoint], int]) -> bytes:
    """Return a head that the log signed, of another history."""
    real = parse_head(parse_note(head(log)).text)
    names = {path.stem: path for path in (log.server.data / "keys").iterdir()}
    signer = next(signer for path in names.values() if (signer := parse_signer(path.read_text())).name == real.origin)
    return bytes(sign_checkpoint(replace(real, size=size_of(real), root=Hash(bytes(32))), signer))


def test_two_signed_roots_of_one_size_are_an_alarm_with_evidence(visitor: Page, log: Site, liar: Liar) -> None:
    states(visitor)
    forked = fork(log, lambda real: real.size)
    liar.lies["/segments/truths/checkpoint"] = lambda _: forked
    found = states(visitor)
    assert (found["checkpoint"], found["consistency"]) == ("good", "broken")
    assert "two histories, and this proves it" in said(visitor, "consistency")
    policy = parse_policy(f"log {vkey(log)}\nquorum none\n".encode())
    evidence = str(visitor.locator("#verify .notice.bad pre").first.text_content())
    assert "two roots of" in describe_evidence(parse_evidence(evidence.encode()), policy)


def test_a_larger_head_of_another_history_is_an_alarm(visitor: Page, log: Site, liar: Liar) -> None:
    states(visitor)
    append(log, {"later": 3})
    forked = fork(log, lambda real: real.size)
    liar.lies["/segments/truths/checkpoint"] = lambda _: forked
    assert states(visitor)["consistency"] == "broken"
    expect(visitor.get_by_role("alert").first).to_contain_text("Alarm")


def test_another_key_is_an_alarm_that_stays(visitor: Page, log: Site, liar: Liar) -> None:
    states(visitor)
    real, other = vkey(log), str(replace(WITNESS.verifier, name=vkey(log).split("+")[0], type=1))
    liar.lies[ENTRY] = lambda body: body.replace(real.encode(), other.encode())
    found = states(visitor)
    # By the key of the first visit all holds still.
    assert (found["checkpoint"], found["inclusion"]) == ("good", "good")
    expect(visitor.get_by_role("alert").first).to_contain_text("shows another key")
    liar.lies.clear()
    states(visitor)
    expect(visitor.get_by_role("alert").first).to_contain_text("shows another key")


def cosigned(*, forged: bool) -> Callable[[bytes], bytes]:
    def lie(body: bytes) -> bytes:
        note = parse_note(body)
        line = cosign(note.text, time=1_764_000_000, signer=WITNESS)
        if forged:
            line = replace(line, blob=line.blob[:-1] + bytes([line.blob[-1] ^ 1]))
        return bytes(Note(note.text, (*note.signatures, line)))

    return lie


def test_a_forged_cosignature_is_exposed(visitor: Page, log: Site, liar: Liar) -> None:
    policy = f"log {vkey(log)}\nwitness w {WITNESS.verifier}\nquorum w\n"
    liar.lies["/segments/truths/checkpoint"] = cosigned(forged=False)
    assert states(visitor)["cosignatures"] == "unchecked"
    assert believe(visitor, policy)["cosignatures"] == "good"
    assert "by w, knew of" in said(visitor, "cosignatures")
    liar.lies["/segments/truths/checkpoint"] = cosigned(forged=True)
    assert states(visitor)["cosignatures"] == "broken"
    assert "wrong signature by witness.example" in said(visitor, "cosignatures")


def test_a_smaller_head_of_the_quorum_covers_an_entry_that_it_has(visitor: Page, log: Site, liar: Liar) -> None:
    older = head(log)
    append(log, {"later": 4})
    size = parse_head(parse_note(older).text).size
    liar.lies["/segments/truths/checkpoint/cosigned"] = lambda _: cosigned(forged=False)(older)
    states(visitor)
    assert believe(visitor, f"log {vkey(log)}\nwitness w {WITNESS.verifier}\nquorum w\n")["cosignatures"] == "good"
    assert f"knew of {size} entries" in said(visitor, "cosignatures")
    assert states(visitor, f"/web/segments/truths/entries/{size}")["cosignatures"] == "unanswered"
    forked = fork(log, lambda _: size)
    liar.lies["/segments/truths/checkpoint/cosigned"] = lambda _: cosigned(forged=False)(forked)
    assert states(visitor)["cosignatures"] == "broken"
    expect(visitor.get_by_role("alert").first).to_contain_text("Alarm")


def test_a_smaller_head_never_takes_the_place_of_the_one_kept(visitor: Page) -> None:
    states(visitor)
    place = visitor.locator("script[type=module]").get_attribute("src")
    kept = visitor.evaluate(
        """async (place) => {
          const { keepHead, recallLog } = await import(place.replace("verify-entry", "known-log"));
          const sizes = [];
          for (const more of [1, -1]) {
            keepHead("truths", "head", BigInt(recallLog("truths").size + more));
            sizes.push(recallLog("truths").size);
          }
          return sizes;
        }""",
        place,
    )
    assert kept[0] == kept[1]


def test_a_key_that_the_person_was_given_refuses_a_log_of_another(visitor: Page, log: Site) -> None:
    states(visitor)
    other = str(replace(WITNESS.verifier, name=vkey(log).split("+")[0], type=1))
    assert believe(visitor, other)["checkpoint"] == "broken"
    expect(visitor.get_by_role("status")).to_contain_text("It breaks at")


def test_what_is_no_key_is_refused_with_a_reason(visitor: Page) -> None:
    states(visitor)
    visitor.locator("#verify summary").last.click()
    visitor.get_by_label("Verifier key, or a trust policy").fill("nonsense")
    visitor.get_by_role("button", name="Believe this").click()
    expect(visitor.locator("#verify form [role=alert]")).to_contain_text("a key is <name>+<key ID>+<base64>")


def test_of_a_lost_payload_the_entry_is_verified(visitor: Page, liar: Liar) -> None:
    liar.lies[ENTRY] = lambda body: body.replace(b'id="verify"', b'id="verify" data-lost')
    found = states(visitor)
    assert found == {**found, "payload": "unchecked", "commitment": "unchecked", "leaf": "good", "inclusion": "good"}
    expect(visitor.get_by_role("status")).to_contain_text("of its payload, which was lost, nothing is verified")
    expect(visitor.locator("#payload.unverified")).to_be_visible()


def test_a_server_that_does_not_answer_is_not_taken_for_one_that_lies(visitor: Page) -> None:
    visitor.route("**/proof/inclusion/**", lambda route: route.abort())
    assert states(visitor)["inclusion"] == "unanswered"
    expect(visitor.get_by_role("status")).to_contain_text("Not verified: there is no answer")
