"""The page that verifies bundles in a browser, offline: one file with everything in it."""

import hashlib
from importlib.resources import files
from typing import Final

from tlog_client.browser import one_script
from tlog_core.encoding import encode_base64

_MODULES: Final = ("bundle", "visible")


def make_page() -> bytes:
    """Return the page, the same for the same version of this program."""
    folder, browser = files("tlog_client") / "bundle" / "page", files("tlog_client") / "browser"
    table = (browser / "clauses.json").read_text("utf-8").strip()
    script = (
        f'"use strict";\nconst CLAUSES = {table};\n{one_script(*_MODULES)}\n{(folder / "page.js").read_text("utf-8")}'
    )
    style = (folder / "page.css").read_text("utf-8")
    parts = {"STYLE-HASH": _hash(style), "SCRIPT-HASH": _hash(script), "STYLE": style, "SCRIPT": script}
    page = (folder / "page.html").read_text("utf-8")
    for name, value in parts.items():
        page = page.replace(f"{{{name}}}", value, 1)
    return page.encode()


def _hash(text: str) -> str:
    # Nothing in it may end the element in which it stands.
    if "</" in text or "<!--" in text:
        raise AssertionError("a script or a style of the page would end before its end")
    return f"sha256-{encode_base64(hashlib.sha256(text.encode()).digest())}"
