"""The page that verifies bundles in a browser, offline: one file with everything in it."""

import hashlib
from importlib.resources import files
from typing import Final

from tlog_client.browser import one_script
from tlog_core.encoding import encode_base64

_SCRIPT: Final = "page"


def make_page() -> bytes:
    """Return the page, the same for the same version of this program."""
    folder = files("tlog_client") / "browser"
    table = (folder / "clauses.json").read_text("utf-8")
    style = (folder / "verify.css").read_text("utf-8")
    # Text that ends a script, or that HTML reads in another way, stands in none of these.
    script = f"const CLAUSES = {table.strip()};\n{one_script(_SCRIPT)}"
    page = (folder / "verify-page.html").read_text("utf-8")
    for name, value in (
        ("STYLE_HASH", _hash(style)),
        ("SCRIPT_HASH", _hash(script)),
        ("STYLE", style),
        ("SCRIPT", script),
    ):
        page = page.replace(f"<!--{name}-->", value)
    return page.encode()


def _hash(text: str) -> str:
    return f"sha256-{encode_base64(hashlib.sha256(text.encode()).digest())}"
