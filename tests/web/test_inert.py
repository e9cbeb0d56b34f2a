"""What others have put into a log does nothing on any page, and is seen for what it is."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

import policies
import pytest
from browsing import Site, Watch, bearer
from live import JSON, Server, faultless, start, tell
from playwright.sync_api import Page, expect

from tlog.web.visible import visible

CORPUS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</title></textarea></style></pre></noscript><img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "'\"onfocus='alert(1)'autofocus='",
    '" style="position:fixed;inset:0" x="',
    "`${alert(1)}`",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "<a href=javascript:alert(1)>x</a><base href=//127.0.0.2/><form action=//127.0.0.2/><input name=form_token>",
    '<meta http-equiv="refresh" content="0;url=//127.0.0.2/"><link rel=stylesheet href=//127.0.0.2/x.css>',
    '<iframe srcdoc="<script>alert(1)</script>"></iframe><img id=verify name=body>',
    "<style>*{display:none}</style><!-- ]]> --> <![CDATA[<b>",
    "&lt;b&gt;&#60;script&#62;alert(1)&quot;&#x202e;&NewLine;",
    "{{7*7}} {% raw %} ${7*7} #{7*7} <%= 7*7 %> {{''.__class__}}",
    "%3Cscript%3Ealert(1)%3C/script%3E %00 %0d%0a",
    "a\r\nSet-Cookie: __Host-tlog=x\r\n\r\n<script>alert(1)</script>",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J\x08\x7f",
    "invoice\u202egnp.exe\u202c \u2066x\u2069 \u061c",
    "line\u2028alert(1)\u2029\x85next",
    "nul\0 \x01\x0b\x0c",
    "zero\u200bwidth\u200d\u00adjoin\ufeff\u2060",
    "tags\U000e0041\U000e007f \ue000 \U0010ffff \ufdd0 \u0378",
    "שלום \u200f<b>alert(1)</b> \u0627\u0644",
    "Z" + "\u0300\u0489" * 100,
    "＜script＞alert(1)＜/script＞ ʺ﹤",
    "A" * 1_000,
    "../../../etc/passwd\\..\\..",
    "';drop table entry;--",
    "=1+1|cmd",
)
WRITERS = ("<script>alert(1)</script>", "\"onfocus='alert(1)'autofocus=\"", "{{7*7}}", "</title><svg/onload=alert(1)>")
AUDITOR = '"><img/src=x/onerror=alert(1)>'
ALONE = "\ud83d"

POLICY = policies.write(
    [
        {"name": "r", "roles": ["auditor"], "principals": [AUDITOR], "segments": ["*", "access", "control"]},
        {"name": "w", "roles": ["writer"], "principals": [*WRITERS], "segments": ["*"]},
    ]
)


@dataclass(frozen=True, slots=True)
class Hostile:
    """A log into which others have put the corpus: as fields, as names of members, as text, as names and as labels."""

    site: Site
    everything: int
    text: int


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    data = tmp_path_factory.mktemp("inert") / "data"
    tell("segment", "create", "hostile", "--data", data)
    labels = [part for number, text in enumerate(CORPUS) for part in ("--label", f"n{number}={short(text)}")]
    tell("segment", "create", "labelled", *labels, "--data", data)
    policy = data.parent / "policy.toml"
    policy.write_bytes(POLICY)
    tell("policy", "apply", policy, "--data", data)
    tokens = {name: tell("token", "issue", name, "--data", data) for name in (AUDITOR, *WRITERS)}
    with faultless(start(data, workers=1, guarded=True, log_name=None)) as server:
        site = Site(server, tokens)
        for number, text in enumerate(CORPUS):
            event = {"actor": text, "action": text, "target": text, "source": text, "n": number}
            send(site, WRITERS[number % len(WRITERS)], ENTRIES, json.dumps(event).encode())
        send(site, WRITERS[0], ENTRIES, json.dumps(dict.fromkeys(CORPUS, CORPUS)).encode())
        send(site, WRITERS[0], ENTRIES, "\n".join(CORPUS).encode(), "text/html")
        yield Hostile(site, len(CORPUS), len(CORPUS) + 1)


ENTRIES = "/segments/hostile/entries"


def send(site: Site, person: str, path: str, body: bytes, kind: str = JSON) -> None:
    answer = site.server.request("POST", path, body, {**bearer(site.tokens[person]), "Content-Type": kind})
    assert answer.status == 201, (person, path, answer.body)


def short(text: str) -> str:
    return text.encode()[:255].decode("utf-8", "ignore")


@pytest.fixture
def page(hostile: Hostile, new_page: Callable[[Server], Page]) -> Page:
    page = new_page(hostile.site.server)
    page.goto("/web/sign-in")
    page.get_by_label("Token").fill(hostile.site.tokens[AUDITOR])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/web/")
    return page


OURS = """() => {
    const all = [...document.querySelectorAll('*')]
    const names = new Set(all.flatMap(one => [...one.attributes].map(of => of.name)))
    const tags = new Set(all.map(one => one.localName))
    const elsewhere = all.filter(one => ['href', 'src', 'action'].some(name => {
        const value = one.getAttribute(name)
        return value !== null && !/^(\\/web\\/|#main$|\\?)/.test(value)
    })).map(one => one.outerHTML)
    return {
        scripted: [...names].filter(name => name.startsWith('on') || name === 'style' || name === 'srcdoc'),
        strange: [...tags].filter(tag => ['b', 'a\\n', 'base', 'iframe', 'style', 'object', 'embed'].includes(tag)),
        inline: all.filter(one => one.localName === 'script' && !one.src).length,
        elsewhere,
    }
}"""


def check_inert(page: Page, watch: Watch) -> None:
    """Fail if anything ran, was tried, or is part of the page that we did not write."""
    assert page.evaluate(OURS) == {"scripted": [], "strange": [], "inline": 0, "elsewhere": []}
    assert watch.complaints == []
    text = str(page.locator("body").text_content())
    assert visible(text, keep="\n") == text


def test_fields_writers_and_neighbours_are_inert(page: Page, watch: Watch) -> None:
    for number, text in enumerate(CORPUS):
        page.goto(f"/web{ENTRIES}/{number}")
        check_inert(page, watch)
        said = page.locator("dl.facts dd").all_text_contents()
        assert said[:3] == [visible(text)] * 3, said
        assert said[-1] == visible(WRITERS[number % len(WRITERS)])
        printed = json.loads(str(page.locator("#payload").text_content()))
        assert printed["action"] == in_json(text)


def in_json(text: str) -> str:
    """Return what a text says that was printed as JSON: what JSON escapes is so, and all else is made visible."""
    return str(json.loads(visible(json.dumps(text, ensure_ascii=False))))


def test_the_list_of_entries_is_inert(page: Page, watch: Watch) -> None:
    page.goto(f"/web{ENTRIES}")
    check_inert(page, watch)
    actors = page.locator("td[data-name=Actor]").all_text_contents()
    assert actors[2:] == [visible(text) for text in reversed(CORPUS)]


def test_names_of_members_and_text_are_inert(hostile: Hostile, page: Page, watch: Watch) -> None:
    page.goto(f"/web{ENTRIES}/{hostile.everything}")
    check_inert(page, watch)
    printed = json.loads(str(page.locator("#payload").text_content()))
    assert set(printed) == set(map(in_json, CORPUS))
    assert all(one == [*map(in_json, CORPUS)] for one in printed.values())
    page.goto(f"/web{ENTRIES}/{hostile.text}")
    check_inert(page, watch)
    assert page.locator("#payload").text_content() == visible("\n".join(CORPUS), keep="\n")


def test_terms_of_a_search_are_inert_and_can_be_sent_again(page: Page, watch: Watch) -> None:
    for text in CORPUS:
        page.goto(f"/web{ENTRIES}?{urlencode({'actor': text, 'q': 'alert ' + text[:900]})}")
        check_inert(page, watch)
        expect(page.locator(".terms .label").first).to_have_text(f"actor: {visible(text)}", use_inner_text=False)
        assert page.get_by_label("Actor").input_value() == text.replace("\r", "").replace("\n", "").replace(
            "\0", "\ufffd"
        )
    for name in ("since", "outcome", "before", "<svg/onload=alert(1)>"):
        page.goto(f"/web{ENTRIES}?{urlencode({name: CORPUS[0] + CORPUS[18]})}")
        check_inert(page, watch)


def test_labels_and_names_of_people_are_inert(page: Page, watch: Watch) -> None:
    for path in ("/web/", "/web/segments/labelled"):
        page.goto(path)
        check_inert(page, watch)
        labels = page.locator(".label").all_text_contents()
        assert labels == [
            f"n{n}={visible(short(CORPUS[n]))}" for n in sorted(range(len(CORPUS)), key=lambda n: f"n{n}")
        ]
        assert page.locator(".who .name").text_content() == AUDITOR


def test_paths_and_queries_that_lead_nowhere_are_inert(page: Page, watch: Watch) -> None:
    for text in (CORPUS[0], CORPUS[3], CORPUS[7], CORPUS[18]):
        for query in ("next", "after", "x"):
            page.goto(f"/web/sign-in?{urlencode({query: text})}")
            check_inert(page, watch)
        page.goto(f"/web/?{urlencode({'after': text})}")
        check_inert(page, watch)
        page.goto(f"/web/segments/{urlencode({'': text})[1:]}/entries")
        check_inert(page, watch)


def test_no_surrogate_alone_comes_into_a_log_as_text(hostile: Hostile, page: Page, watch: Watch) -> None:
    headers = {**bearer(hostile.site.tokens[WRITERS[0]]), "Content-Type": JSON}
    assert hostile.site.server.request("POST", ENTRIES, json.dumps([ALONE]).encode(), headers).status == 400
    send(hostile.site, WRITERS[0], ENTRIES, ALONE.encode("utf-8", "surrogatepass"), "text/plain")
    page.goto(f"/web{ENTRIES}")
    page.locator("tbody th a").first.click()
    assert "ed a0 bd" in str(page.locator("#payload").text_content())
    check_inert(page, watch)


def test_a_page_where_something_runs_is_seen(page: Page, watch: Watch) -> None:
    page.goto(f"/web{ENTRIES}/0")
    page.evaluate("alert(1)")
    assert watch.complaints == ["a dialog: 1"]
    watch.complaints.clear()
    page.evaluate("document.body.append(document.createElement('iframe'))")
    with pytest.raises(AssertionError, match="iframe"):
        check_inert(page, watch)
