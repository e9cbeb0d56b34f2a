"""Software that is not ours: the Go programs in folders of tests, each built once for all tests that talk to it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "interop"
GO = shutil.which("go")
BUILD_SECONDS = 600

needs_go = pytest.mark.skipif(GO is None, reason="there is no Go here, in which the other side is written")


def run_go(*arguments: str | Path, folder: Path = SOURCES, **environment: str) -> None:
    run = subprocess.run(
        [str(GO), *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    if "dial tcp" in run.stderr or "no such host" in run.stderr:
        pytest.skip("Go has not all that is needed here, and cannot fetch it")
    assert run.returncode == 0, run.stderr
