"""The modules of tlog_client/browser, run by Node.js on cases of the form of spec/vectors."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

NODE = shutil.which("node")
RUNNER = Path(__file__).parent / "web" / "verify.mjs"
RUN_SECONDS = 120

needs_node = pytest.mark.skipif(NODE is None, reason="there is no Node.js here, which runs the modules of the pages")


def outcomes(cases: Iterable[tuple[str, dict[str, Any]]], *options: str) -> list[str]:
    """Return what became of each case: accepted, malformed, refused, or what failed."""
    run = subprocess.run(
        [str(NODE), str(RUNNER), *options],
        input="".join(f"{json.dumps(case)}\n" for case in cases),
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]
