"""A guarded log for all tests of the pages, Chromium, and a context of its own for each page that a test opens."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import ALL_LOOKS, Site, Watch, browsing, serve, take_shots
from live import Server, faultless
from lying import Liar, lying
from playwright.sync_api import Browser, Page

PageMaker = Callable[[Server], Page]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A guarded log, which tests leave running, and under its policy."""
    laid = serve(tmp_path_factory.mktemp("site") / "data")
    with faultless(laid.server):
        yield laid


@pytest.fixture(scope="session")
def server(site: Site) -> Server:
    return site.server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser; not for the session, since Playwright keeps the loop of asyncio, which tests elsewhere need."""
    with browsing() as running:
        yield running


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def new_page(browser: Browser, watch: Watch) -> Iterator[PageMaker]:
    """Open a page of a server in a context of its own: what it keeps, no other page sees.

    Nothing moves there: colours half way to others would be looked at, and found too faint.
    """
    contexts = []

    def open_page(server: Server) -> Page:
        contexts.append(browser.new_context(base_url=server.url, reduced_motion="reduce"))
        watch.over(contexts[-1])
        return contexts[-1].new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: PageMaker, server: Server) -> Page:
    """A page where nobody has signed in."""
    return new_page(server)


@pytest.fixture
def signed_in(new_page: PageMaker, site: Site) -> Callable[..., Page]:
    """Return a page on which one of the people has signed in, such as `signed_in("auditor")`."""

    def sign_in(person: str, elsewhere: Site | None = None) -> Page:
        where = elsewhere or site
        page = new_page(where.server)
        page.goto("/web/sign-in")
        page.get_by_label("Token").fill(where.tokens[person])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/web/")
        return page

    return sign_in


@pytest.fixture(scope="module")
def proxy(site: Site) -> Iterator[Liar]:
    with lying(site.server) as running:
        yield running


@pytest.fixture(scope="module")
def session(browser: Browser, site: Site, proxy: Liar) -> Any:
    """The cookie of an auditor who has signed in through the proxy."""
    context = browser.new_context(base_url=proxy.url)
    page = context.new_page()
    page.goto("/web/sign-in")
    page.get_by_label("Token").fill(site.tokens["auditor"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/web/")
    cookies = context.cookies()
    context.close()
    return cookies


@pytest.fixture
def liar(proxy: Liar) -> Liar:
    """The proxy, which says the truth so far."""
    proxy.lies.clear()
    return proxy


@pytest.fixture
def visitor(browser: Browser, liar: Liar, session: Any, watch: Watch) -> Iterator[Page]:
    """An auditor in a browser that knows nothing, who reaches the log through the proxy."""
    context = browser.new_context(base_url=liar.url)
    context.add_cookies(session)
    watch.over(context)
    yield context.new_page()
    context.close()


@pytest.fixture
def check_page(watch: Watch) -> Callable[[Page], None]:
    """Fail on what axe finds, on violations of the CSP, on errors, and on a page that scrolls sideways."""
    return watch.check


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures are kept: TLOG_SHOTS, or beside what else the tests leave."""
    return Path(os.environ.get("TLOG_SHOTS") or tmp_path_factory.mktemp("shots"))


@pytest.fixture
def shot(shots: Path) -> Callable[[Page, str], None]:
    """Take pictures of a page under a name, of all its looks if TLOG_SHOTS asks for them, else of two."""
    wanted = ALL_LOOKS if "TLOG_SHOTS" in os.environ else ((380, "dark"), (1280, "light"))
    return lambda page, name: take_shots(page, name, shots, wanted)
