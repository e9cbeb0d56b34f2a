"""The pages of operations: what they show, what they change, and for whom."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

import policies
import pytest
from browsing import PEOPLE, POLICY, SEGMENTS, Site, bearer, lay, serve
from live import JSON, Answer, faultless, start, tell
from playwright.sync_api import Page

from tlog.access.document import read_policy
from tlog.clock import now
from tlog.config import Config
from tlog.control import OPERATOR, Control
from tlog.quotas import Draw, Quotas
from tlog.segments import Nobody, Segments
from tlog.web.figures import Figure, tables

Shot = Callable[[Page, str], None]
Check = Callable[[Page], None]

HOME = "/web/operations"
APPLY = f"{HOME}/policy/application"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
FORM_TOKEN = re.compile(rb'name="form_token" value="([0-9a-f]+)"')
SECRET = re.compile(r"tlog_([0-9a-f]{16})_[\w-]{43}")
PAYLOAD = b'{"note":"for the eyes of auditors"}'
# What a form could spoil, and a reader overlook.
MORE = """
[[rule]]
# \u202e "quoted" &amp; </textarea></pre><script>alert(1)</script>\ttab
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
    """A log whose policy and tokens these tests change."""
    laid = serve(tmp_path_factory.mktemp("desk") / "data")
    with faultless(laid.server):
        shown = {**bearer(laid.tokens["writer"]), "Content-Type": JSON}
        for _ in range(3):
            assert laid.server.request("POST", "/segments/payments/entries", PAYLOAD, shown).status == 201
        yield laid


@pytest.fixture
def admin(signed_in: Callable[..., Page], desk: Site) -> Page:
    return signed_in("admin", desk)


def get(site: Site, person: str | None, path: str) -> Answer:
    return site.server.request("GET", path, None, bearer(site.tokens[person]) if person else {})


def post(site: Site, person: str | None, path: str, fields: Mapping[str, object]) -> Answer:
    """Send a form as who has no session, but shows a token."""
    found = FORM_TOKEN.search(get(site, None, "/web/sign-in").body)
    assert found is not None
    body = urlencode({"form_token": found[1].decode(), **fields}).encode()
    return site.server.request("POST", path, body, {**FORM, **(bearer(site.tokens[person]) if person else {})})


def in_force(site: Site) -> tuple[int, str]:
    answer = get(site, "admin", "/policy")
    return int(answer.headers["ETag"].strip('"')), answer.body.decode()


def apply(site: Site, document: str) -> int:
    """Apply a policy by the API, and return its version."""
    shown = {**bearer(site.tokens["admin"]), "Content-Type": "application/toml", "If-Match": f'"{in_force(site)[0]}"'}
    answer = site.server.request("PUT", "/policy", document.encode(), shown)
    assert answer.status == 200, answer.body
    return int(answer.json()["version"])


def in_use(site: Site) -> list[str]:
    return [one["id"] for one in get(site, "admin", "/tokens").json()["tokens"] if one["revoked"] is None]


def holds(site: Site, token: str) -> bool:
    return site.server.request("GET", "/segments/payments", None, bearer(token)).status != 401


def test_who_runs_the_log_sees_its_segments_and_no_payload(admin: Page, check_page: Check, shot: Shot) -> None:
    admin.get_by_role("link", name="Operations").click()
    rows = {row.get_by_role("rowheader").inner_text(): row.inner_text() for row in admin.locator("tbody tr").all()}
    assert set(rows) == {*SEGMENTS, "control", "access"}
    assert re.search(r"payments\s+open\s+3\s+[0-9.]+ KiB", rows["payments"])
    assert re.search(r"last pass ended|no pass has ended", admin.inner_text("dl"))
    assert re.search(r"Free on the disk\s+[0-9.,]+ [MG]iB", admin.inner_text("dl"))
    assert "eyes" not in admin.content()
    check_page(admin)
    shot(admin, "operations")


def test_a_policy_is_applied_to_the_letter_once_its_differences_were_shown(
    admin: Page, desk: Site, check_page: Check, shot: Shot
) -> None:
    version = apply(desk, POLICY.decode())
    draft = f"\n{POLICY.decode()}{MORE}"
    admin.goto(f"{HOME}/policy")
    check_page(admin)
    shot(admin, "policy")
    admin.get_by_label("The policy in force").fill(draft)
    admin.get_by_role("button", name="Show what changes").click()
    cells = [[cell.strip() for cell in row.inner_text().split("\t")] for row in admin.locator("tbody tr").all()]
    rule = "rule “the <b>new</b> one”"
    gained = ("payload:read", "tile:read", "bulletin:post")
    assert cells == [["writer", "gains", action, "payments", rule] for action in gained]
    said = admin.inner_text("main")
    assert '+ quota "enough": anyone = true, requests_per_second = 50' in said
    assert '+# [U+202E] "quoted" &amp; </textarea></pre><script>alert(1)</script>[U+0009]tab' in said
    assert in_force(desk) == (version, POLICY.decode())
    check_page(admin)
    shot(admin, "policy-proposal")
    admin.get_by_role("button", name="Apply this policy").click()
    assert admin.get_by_role("status").inner_text() == f"Version {version + 1} is in force."
    assert in_force(desk) == (version + 1, draft)
    assert admin.get_by_label("The policy in force").input_value() == draft
    admin.goto(HOME)
    assert "requests_per_second = 50" in admin.locator("table").last.inner_text()


def test_how_much_of_a_quota_is_used_now_is_shown(admin: Page, desk: Site, check_page: Check) -> None:
    slow = {"bytes_per_second": 0.01}
    quotas = [
        {"name": "of each", "each": "principal", **slow},
        {"name": "of segments", "each": "segment", **slow},
        {"name": "shared", "principals": ["writer"], **slow},
        {"name": "unused", "principals": ["monitor"], **slow},
    ]
    apply(desk, POLICY.decode() + policies.write([], quotas).decode())
    shown = {**bearer(desk.tokens["writer"]), "Content-Type": JSON}
    # What is no event is drawn all the same, and nothing is logged.
    assert desk.server.request("POST", "/segments/refunds/entries", b"{", shown).status == 400
    admin.goto(HOME)
    rows = admin.locator("table").last.locator("tbody tr").all()
    assert [row.locator("td").last.inner_text() for row in rows] == [
        "100 % by writer",
        "100 % by refunds",
        "100 %",
        "0 %",
    ]
    check_page(admin)
    apply(desk, POLICY.decode())


def test_a_quota_is_used_for_as_long_as_what_came_is_ahead_of_its_rate(tmp_path: Path) -> None:
    [quota] = read_policy(policies.write([], [{"name": "q", "each": "segment", "bytes_per_second": 100}])).quotas
    clock = iter((1_000_000, 1_000_000, 1_250_000, 1_250_000, 9_000_000))
    quotas = Quotas(tmp_path / "quotas", lambda: next(clock))
    quotas.draw([Draw(quota, "writer", "payments", 75)])
    assert [quotas.used(quota, of) for of in ("payments", "payments", "refunds", "payments")] == [0.75, 0.5, 0, 0]


def test_what_goes_is_told_by_the_rule_that_gave_it(admin: Page, desk: Site) -> None:
    apply(desk, POLICY.decode() + MORE)
    admin.goto(f"{HOME}/policy")
    admin.get_by_label("The policy in force").fill(POLICY.decode())
    admin.get_by_role("button", name="Show what changes").click()
    [first, *_] = admin.locator("tbody tr").all()
    assert re.split(r"\s+", first.inner_text())[:2] == ["writer", "loses"]
    assert "the <b>new</b> one" in first.inner_text()
    assert '- quota "enough"' in admin.inner_text("main")


def test_a_policy_a_draft_and_what_it_changes_are_printed(admin: Page, desk: Site) -> None:
    apply(desk, POLICY.decode())
    admin.emulate_media(media="print")
    admin.goto(f"{HOME}/policy")
    assert admin.inner_text("main").split("In force")[1].strip() == POLICY.decode().strip()
    assert admin.get_by_role("textbox").count() == 0
    for draft, said in (("nonsense", "nonsense"), (POLICY.decode() + MORE, '+ quota "enough"')):
        admin.emulate_media(media="screen")
        admin.get_by_role("textbox").fill(draft)
        admin.get_by_role("button", name="Show what changes").click()
        admin.emulate_media(media="print")
        assert said in admin.inner_text("main")
    assert "gains" in admin.inner_text("main")
    assert admin.get_by_role("button").count() == admin.get_by_role("textbox").count() == 0


def test_nobody_overwrites_a_policy_that_he_has_not_seen(admin: Page, desk: Site, check_page: Check) -> None:
    apply(desk, POLICY.decode())
    draft = POLICY.decode() + MORE
    admin.goto(f"{HOME}/policy")
    admin.get_by_label("The policy in force").fill(draft)
    other = POLICY.decode() + "# of another administrator\n"
    version = apply(desk, other)
    admin.get_by_role("button", name="Show what changes").click()
    assert f"the policy in force has version {version}" in admin.get_by_role("alert").inner_text()
    assert admin.get_by_label("The draft").input_value() == draft
    assert "of another administrator" in admin.inner_text("pre")
    check_page(admin)
    admin.get_by_role("button", name="Show what changes").click()
    assert "-# of another administrator" in admin.inner_text("main")
    # And again, between the two steps.
    version = apply(desk, other)
    admin.get_by_role("button", name="Apply this policy").click()
    assert f"the policy in force has version {version}" in admin.get_by_role("alert").inner_text()
    assert in_force(desk) == (version, other)


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        ("[[rule]]\nname = 1\n", "line 2"),
        ("", "you could not apply the next one"),
        (POLICY.decode().replace('name = "a"', 'name = "a"\nexpires = 2030-01-01T00:00:00Z'), "no administrator"),
    ],
)
def test_a_draft_that_would_be_refused_is_refused_at_either_step_and_kept(desk: Site, draft: str, said: str) -> None:
    before = in_force(desk)
    for path in (f"{HOME}/policy", APPLY):
        answer = post(desk, "admin", path, {"document": draft, "version": before[0]})
        assert answer.status == 400
        assert said in answer.body.decode()
        assert "The draft, which is not in force" in answer.body.decode()
    assert in_force(desk) == before


def test_what_takes_too_long_to_compare_is_told(desk: Site) -> None:
    rules = [
        {"name": f"r{number}", "roles": ["auditor"], "groups": [f"g{number}"], "segments": [f"s{number}-*"]}
        for number in range(1_500)
    ]
    draft = POLICY.decode() + policies.write(rules).decode()
    answer = post(desk, "admin", f"{HOME}/policy", {"document": draft, "version": in_force(desk)[0]})
    assert answer.status == 200
    assert "too many principals, rules and segments" in answer.body.decode()
    assert "Too many lines are different" in answer.body.decode()
    assert answer.body.count(b'class="come"') == 1_500


def test_tokens_are_issued_rotated_and_revoked(admin: Page, desk: Site, check_page: Check, shot: Shot) -> None:
    admin.goto(f"{HOME}/tokens")
    check_page(admin)
    shot(admin, "tokens")
    admin.get_by_label("Principal").fill("auditor")
    admin.get_by_label("Groups").fill("night  day")
    admin.get_by_role("button", name="Issue").click()
    first = admin.get_by_label("Token").inner_text()
    assert holds(desk, first)
    check_page(admin)
    shot(admin, "token-issued")
    id = first.split("_")[1]
    admin.get_by_role("link", name=id).click()
    assert "day night" in admin.inner_text("dl")
    assert SECRET.search(admin.content()) is None
    check_page(admin)
    shot(admin, "token")
    admin.get_by_role("button", name="Rotate").click()
    second = admin.get_by_label("Token").inner_text()
    assert second != first
    assert holds(desk, first)
    assert holds(desk, second)
    admin.goto(f"{HOME}/tokens/{id}")
    admin.get_by_role("button", name="Revoke").click()
    admin.get_by_text("revoked", exact=True).wait_for()
    assert admin.get_by_role("button", name="Revoke").count() == 0
    assert not holds(desk, first)
    assert holds(desk, second)
    for query, one, other in (("", second.split("_")[1], id), ("?ended=", id, second.split("_")[1])):
        admin.goto(f"{HOME}/tokens{query}")
        assert [admin.get_by_role("link", name=name).count() for name in (one, other)] == [1, 0]
    # Of what was shown, the log of the server knows nothing, nor any file of the data.
    for path in (desk.server.log, *desk.server.data.rglob("*")):
        if path.is_file():
            assert second.split("_", 2)[2].encode() not in path.read_bytes(), path


def test_who_revokes_the_token_of_his_session_is_told_before_and_signed_out(
    signed_in: Callable[..., Page], desk: Site
) -> None:
    own = tell("token", "issue", "admin", "--data", desk.server.data)
    page = signed_in("admin", Site(desk.server, {"admin": own}))
    page.goto(f"{HOME}/tokens/{own.split('_')[1]}")
    assert "token of yours" in page.inner_text("main")
    page.get_by_role("button", name="Revoke").click()
    page.wait_for_url("**/web/sign-in?next=*")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"principal": "a b", "groups": "", "days": 1}, "principal"),
        ({"principal": "tlog/x", "groups": "", "days": 1}, "tlog/"),
        ({"principal": "a", "groups": "anonymous", "days": 1}, "anonymous"),
        ({"principal": "a", "groups": "", "days": 91}, "at most 90 days"),
        ({"principal": "a", "groups": "", "days": "nan"}, "for how many days"),
        ({"principal": "a", "groups": "", "days": ""}, "for how many days"),
        ({"principal": "a", "days": 1}, "no field groups"),
    ],
)
def test_a_token_that_cannot_be_issued_is_refused_in_words(desk: Site, fields: Mapping[str, object], said: str) -> None:
    before = in_use(desk)
    answer = post(desk, "admin", f"{HOME}/tokens", fields)
    assert answer.status == 400
    assert said in answer.body.decode()
    assert in_use(desk) == before


def test_a_rotation_that_cannot_be_is_refused_in_words(desk: Site) -> None:
    id, before = in_use(desk)[0], in_use(desk)
    answer = post(desk, "admin", f"{HOME}/tokens/{id}/rotation", {"days": 8})
    assert answer.status == 400
    assert b"at most 7 days" in answer.body
    for path in (f"{HOME}/tokens/{'0' * 16}/rotation", f"{HOME}/tokens/{'0' * 16}/revocation"):
        assert post(desk, "admin", path, {"days": 1}).status == 404
    assert get(desk, "admin", f"{HOME}/tokens/{'0' * 16}").status == 404
    assert in_use(desk) == before


ADMINS, READERS = {"admin"}, {"admin", "auditor"}


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("", READERS),
        ("/policy", READERS),
        ("/tokens", ADMINS),
        ("/tokens/{id}", ADMINS),
        ("/metrics", {*READERS, "monitor"}),
    ],
)
def test_pages_of_operations_are_open_to_whom_the_policy_says(desk: Site, path: str, who: set[str]) -> None:
    place = HOME + path.format(id=in_use(desk)[0])
    assert {person for person in PEOPLE if get(desk, person, place).status == 200} == who
    assert {get(desk, person, place).status for person in PEOPLE if person not in who} == {404}
    assert get(desk, None, place).status == 303


def test_nobody_but_an_administrator_changes_anything(desk: Site) -> None:
    before, tokens = in_force(desk), in_use(desk)
    id = tokens[0]
    policy = {"document": POLICY.decode() + MORE, "version": before[0]}
    forms: dict[str, Mapping[str, object]] = {
        f"{HOME}/policy": policy,
        APPLY: policy,
        f"{HOME}/tokens": {"principal": "x", "groups": "", "days": 1},
        f"{HOME}/tokens/{id}/rotation": {"days": 1},
        f"{HOME}/tokens/{id}/revocation": {},
    }
    for path, fields in forms.items():
        refused = [post(desk, person, path, fields).status for person in ("auditor", "writer", "monitor", "stranger")]
        assert (refused, post(desk, None, path, fields).status) == ([404] * 4, 401), path
        without = urlencode(fields).encode()
        assert desk.server.request("POST", path, without, {**FORM, **bearer(desk.tokens["admin"])}).status == 403, path
    assert (in_force(desk), in_use(desk)) == (before, tokens)


def test_an_auditor_reads_the_policy_and_is_offered_no_change(
    signed_in: Callable[..., Page], desk: Site, check_page: Check
) -> None:
    apply(desk, POLICY.decode() + MORE)
    page = signed_in("auditor", desk)
    page.goto(f"{HOME}/policy")
    shown = (POLICY.decode() + MORE).replace("\u202e", "[U+202E]").replace("\t", "[U+0009]")
    assert page.inner_text("pre").strip() == shown.strip()
    assert page.locator("main form").count() == 0
    assert page.get_by_label("Operations").get_by_role("link").all_inner_texts() == ["Overview", "Policy", "Metrics"]
    check_page(page)


def test_metrics_are_those_of_prometheus_in_tables(admin: Page, desk: Site, check_page: Check, shot: Shot) -> None:
    admin.goto(f"{HOME}/metrics")
    assert b'tlog_segment_size{segment="payments"} 3.0' in get(desk, "admin", "/metrics").body
    table = admin.get_by_role("table", name="Entries in a segment")
    assert [row.inner_text().split() for row in table.locator("tbody tr").all()][-1] == ["payments", "3"]
    check_page(admin)
    shot(admin, "metrics")


def test_a_distribution_is_told_by_count_mean_and_the_bound_of_nearly_all() -> None:
    text = """\
# HELP wait_seconds Time of a wait.
# TYPE wait_seconds histogram
wait_seconds_bucket{who="b",le="0.5"} 99.0
wait_seconds_bucket{who="b",le="2.0"} 100.0
wait_seconds_bucket{who="b",le="+Inf"} 100.0
wait_seconds_count{who="b"} 100.0
wait_seconds_sum{who="b"} 50.0
wait_seconds_bucket{who="a",le="0.5"} 0.0
wait_seconds_bucket{who="a",le="+Inf"} 2.0
wait_seconds_count{who="a"} 2.0
wait_seconds_sum{who="a"} 9.0
# HELP pass_time_seconds When it passed, in seconds since the epoch.
# TYPE pass_time_seconds gauge
pass_time_seconds 7.0
# HELP asked_total What was asked.
# TYPE asked_total counter
asked_total{to="x",by="y"} 3.0
# HELP asked_created What was asked.
# TYPE asked_created gauge
asked_created{to="x",by="y"} 1e9
# HELP nothing Nothing.
# TYPE nothing gauge
"""
    found = {table.caption: dict(table.rows) for table in tables(text.encode())}
    assert found == {
        "The whole log": {"When it passed": Figure(7.0, unit="time")},
        "Time of a wait": {
            "a": Figure(4.5, 2, None, "seconds"),
            "b": Figure(0.5, 100, 0.5, "seconds"),
        },
        "What was asked": {"y x": Figure(3.0)},
    }


def test_lists_go_on_on_further_pages_and_show_what_is_damaged(tmp_path: Path) -> None:
    data = tmp_path / "data"
    tokens = lay(data)
    config = Config(data)
    segments = Segments(config, Nobody(), now)
    control = Control(config, segments, now)
    names = [f"s-{number:02}" for number in range(50)]
    for name in names:
        control.create_segment(OPERATOR, name, {})
    for _ in range(100):
        control.issue_token(OPERATOR, "zoe", (), 1)
    lost = control.store.find("s-00").id
    segments.close()
    for path in list(data.rglob(f"*{lost}*")):
        path.unlink()
    site = Site(start(data, guarded=True, log_name=None, options=("--scrub-rate", "0")), tokens)
    first = get(site, "admin", HOME).body.decode()
    [after] = re.findall(r"operations\?after=([a-z0-9-]+)", first)
    second = get(site, "admin", f"{HOME}?after={after}").body.decode()
    listed = [re.findall(r'href="/web/segments/([a-z0-9-]+)"', page) for page in (first, second)]
    assert [len(page) for page in listed] == [50, 4]
    assert sorted(listed[0] + listed[1]) == sorted([*names, *SEGMENTS, "control", "access"])
    assert "damaged" in first
    assert "nobody looks for damage" in first
    page = get(site, "admin", f"{HOME}/tokens").body.decode()
    [start_] = re.findall(r"tokens\?start=(\d+)", page)
    found = [
        re.findall(r"/tokens/([0-9a-f]{16})", one)
        for one in (page, get(site, "admin", f"{HOME}/tokens?start={start_}").body.decode())
    ]
    assert [len(one) for one in found] == [100, 5]
    assert set(found[0] + found[1]) == set(in_use(site))
    site.server.stop()
