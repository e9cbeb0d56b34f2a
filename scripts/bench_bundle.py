"""What `scripts/bench` does with an evidence bundle: exports it, and verifies it in Python and in Chromium."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from bench_client import opened
from playwright.sync_api import Browser, sync_playwright

from tlog_client.bundle.command import export_bundle
from tlog_client.bundle.page import make_page
from tlog_client.bundle.verify import trust_of, verify_bundle

_OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
# What a verifier cannot leave out: each event and entry, by WebCrypto, all asked for at once; and all in one piece.
_HASHES = """async () => {
  const raw = new Uint8Array(await window.bundle.arrayBuffer());
  const { members } = parseZip(raw);
  const files = members.filter(({ name }) => /entries|events/.test(name)).map(({ content }) => content);
  const lines = files.flatMap((file) => {
    const found = [];
    for (let start = 0, end; (end = file.indexOf(10, start)) >= 0; start = end + 1) {
      found.push(file.subarray(start, end));
    }
    return found;
  });
  const hash = (data) => crypto.subtle.digest("SHA-256", data);
  const began = performance.now();
  await Promise.all(lines.map(hash));
  const each = performance.now();
  await hash(raw);
  return [each - began, performance.now() - each];
}"""
_KEEP = "file.addEventListener('change', (event) => { window.bundle = event.target.files[0]; }, true)"


@dataclass(frozen=True, slots=True)
class Exported:
    """How many bytes a bundle has, and how many milliseconds its export and its verification in Python took."""

    size: float
    export: float
    verification: float


def real_events(folder: Path, path: Path, count: int) -> None:
    """Write so many events of CloudTrail, one a line, from its files in a folder, over and over."""
    records = [
        record
        for file in sorted(folder.glob("cloudtrail/*.json"))
        for record in json.loads(file.read_bytes())["Records"]
    ]
    lines = [json.dumps(record, separators=(",", ":")) for record in records]
    path.write_text("".join(f"{line}\n" for line in islice(cycle(lines), count)))


def export_entries(url: str, count: int, path: Path) -> Exported:
    """Export the first entries of a segment into a file."""
    with opened(url) as log:
        trust, began = trust_of(log.key), time.perf_counter()
        raw = export_bundle({}, (0, count), log, {}, trust, by="bench", advance=lambda _: None)
        exported = time.perf_counter()
        verify_bundle(raw, trust)
        spent = time.perf_counter() - exported
    path.write_bytes(raw)
    return Exported(len(raw), 1_000 * (exported - began), 1_000 * spent)


def look(path: Path, rounds: int) -> Iterator[tuple[float, float, float]]:
    """Yield how many milliseconds Chromium took to verify a bundle, in a fresh page each time, and for its hashes.

    Those are of each event and entry, and then of all bytes in one piece.
    """
    page = path.with_name("verify.html")
    page.write_bytes(make_page())
    chromium = subprocess.run([Path(__file__).with_name("chromium")], check=True, capture_output=True, text=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.stdout.strip(), args=_OPTIONS)
        for _ in range(rounds):
            yield _look_once(browser, page, path)
        browser.close()


def _look_once(browser: Browser, page: Path, bundle: Path) -> tuple[float, float, float]:
    opened = browser.new_page()
    opened.goto(page.as_uri())
    opened.evaluate(_KEEP)
    opened.set_input_files("#file", bundle)
    opened.wait_for_selector(".verdict.warn")
    spent = float(opened.get_attribute("#result", "data-milliseconds") or "nan")
    each, whole = opened.evaluate(_HASHES)
    opened.close()
    return spent, each, whole
