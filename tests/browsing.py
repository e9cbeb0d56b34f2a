"""What tests of the pages stand on: a guarded log whose people have tokens, and pages that are looked at closely."""

import subprocess
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import policies
from axe_playwright_python.sync_playwright import Axe
from live import Server, start, tell
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    Response,
    sync_playwright,
)

from tlog_core.note import SignerKey, parse_signer, signer_from_seed

SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
WIDTHS: Final = (380, 800, 1280)
ALL_LOOKS: Final = frozenset(product(WIDTHS, SCHEMES))
SEGMENTS: Final = ("payments", "refunds")
_HEIGHT: Final = 900
_SCRIPTS: Final = Path(__file__).parent.parent / "scripts"
# Without a network, and as root, as in a container.
_OPTIONS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_EVERYWHERE: Final = ["*", "access", "control"]
# The second never says anything.
MONITOR: Final = signer_from_seed("monitor.example", bytes(31) + b"m")
QUIET: Final = signer_from_seed("quiet.example", bytes(31) + b"q")
# The stranger has a token, and no rule.
PEOPLE: Final = ("admin", "auditor", "writer", "monitor", "stranger")
POLICY: Final = policies.write(
    [
        {"name": "a", "roles": ["admin", "creator", "approver"], "principals": ["admin"], "segments": _EVERYWHERE},
        {"name": "r", "roles": ["auditor"], "principals": ["auditor"], "segments": _EVERYWHERE},
        {"name": "w", "roles": ["writer"], "principals": ["writer"], "segments": ["*"]},
        {"name": "m", "roles": ["monitor"], "principals": ["monitor"], "segments": _EVERYWHERE},
    ]
)


def lay(data: Path) -> dict[str, str]:
    """Make a log of two segments with a policy, and return the token of each of its people."""
    for name in SEGMENTS:
        tell("segment", "create", name, "--label", "team=till", "--data", data)
    policy = data.parent / "policy.toml"
    policy.write_bytes(POLICY)
    tell("policy", "apply", policy, "--data", data)
    return {name: tell("token", "issue", name, "--data", data) for name in PEOPLE}


def signer_of(data: Path, segment: str) -> SignerKey:
    """Return the key of the log of a segment."""
    signers = [parse_signer(path.read_text()) for path in (data / "keys").iterdir()]
    return next(one for one in signers if one.name.endswith(f"/segments/{segment}"))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True, slots=True)
class Site:
    """A guarded server, and the token of each of its people."""

    server: Server
    tokens: Mapping[str, str]


def serve(data: Path) -> Site:
    """Lay a log in a folder that is not there yet, and serve it, with the bulletins of two monitors."""
    tokens = lay(data)
    return Site(start(data, guarded=True, log_name=None, options=carrying(data.parent)), tokens)


def carrying(folder: Path) -> list[str]:
    """Return the options by which a server carries the bulletins of both monitors; their keys come into a folder."""
    files = [folder / f"{monitor.name}.vkey" for monitor in (MONITOR, QUIET)]
    for file, monitor in zip(files, (MONITOR, QUIET), strict=True):
        file.write_text(f"{monitor.verifier}\n")
    return [f"--monitor-key={file}" for file in files]


@contextmanager
def browsing() -> Iterator[Browser]:
    """Run Debian's Chromium."""
    found = subprocess.run([_SCRIPTS / "chromium"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found.stdout.strip(), args=_OPTIONS)
        yield browser
        browser.close()


@dataclass
class Watch:
    """All that the pages of a browser's context complain of; violations of a CSP are errors on the console."""

    complaints: list[str] = field(default_factory=list)

    def over(self, context: BrowserContext) -> None:
        context.on("console", self._said)
        context.on("weberror", lambda error: self.complaints.append(f"error: {error.error}"))
        context.on("dialog", self._opened)
        context.on("request", self._asked)
        context.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        # That one also comes for a page which a test asks for, and is refused.
        if message.type in ("error", "warning") and "the server responded with a status of" not in message.text:
            self.complaints.append(f"{message.type} on the console: {message.text}")

    def _opened(self, dialog: Dialog) -> None:
        self.complaints.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _asked(self, request: Request) -> None:
        if not request.is_navigation_request() and _origin(request.url) != _origin(request.frame.url):
            self.complaints.append(f"it asks elsewhere: {request.url}")

    def _answered(self, response: Response) -> None:
        if not response.request.is_navigation_request() and not response.ok and response.status != 304:
            self.complaints.append(f"{response.url} is answered {response.status}")

    def check(self, page: Page) -> None:
        """Fail if this page is not accessible, in light or in dark, scrolls sideways, or any complained so far."""
        found = [one for width, scheme in looks(page) for one in _faults(page, width, scheme)]
        found += self.complaints
        assert not found, "\n".join([page.url, *found])


def _faults(page: Page, width: int, scheme: str) -> Iterator[str]:
    wide = int(page.evaluate("document.documentElement.scrollWidth"))
    if wide > width:
        yield f"it scrolls sideways: {wide} pixels at a width of {width}"
    # Twice is enough: it takes its time.
    if width == max(WIDTHS):
        yield from (f"{scheme}: {one}" for one in _violations(page))


def looks(page: Page, wanted: Collection[tuple[int, str]] = ALL_LOOKS) -> Iterator[tuple[int, str]]:
    """Show a page at each width in each colour scheme, or at those wanted, and at the end as it was."""
    before = page.viewport_size
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": _HEIGHT})
        for scheme in SCHEMES:
            if (width, scheme) in wanted:
                page.emulate_media(color_scheme=scheme)
                yield width, scheme
    page.emulate_media(color_scheme="null")
    if before:
        page.set_viewport_size(before)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _violations(page: Page) -> list[str]:
    """Return what axe finds: each rule, and the places that are against it."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}, {node['html']}: {node['failureSummary']}" for one in found for node in one["nodes"]]


def take_shots(page: Page, name: str, folder: Path, wanted: Collection[tuple[int, str]] = ALL_LOOKS) -> None:
    """Write pictures of a whole page, at each width in each colour scheme or at those wanted, as PNG files."""
    for look in looks(page, wanted):
        page.screenshot(path=folder / f"{name}-{look[0]}-{look[1]}.png", full_page=True)
